"""Serve the explorer to the browsers of this machine alone, or show it in a notebook."""

from __future__ import annotations

import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calograd.errors import InputError
from calograd.explorer.trajectory import read_trajectory
from calograd.explorer.views import Explorer
from calograd.surrogate import Surrogate, load_designs
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.explorer.page import Page

ADDRESS = "127.0.0.1"


def explore(model: str | Path | Surrogate = "pbf2-cells", run: str | Path | None = None) -> Page:
    """The explorer in a notebook: the last line of a cell shows it, ``.servable()`` serves it.

    Args:
        model: a bundled name, a folder, or a surrogate of cells.
        run: folder of an optimisation, to show its trajectory.

    Raises:
        InputError: the extra ``explore`` is missing, or a surrogate that knows no designs.
        FormatError: the surrogate or the run cannot be read.
    """
    require("the explorer", "explore")
    explorer = Explorer(model if isinstance(model, Surrogate) else load_designs(model))
    path = read_trajectory(Path(run), explorer.start()) if run else None
    import panel as pn

    from calograd.explorer.page import Page

    pn.extension(inline=True)  # loads nothing from the network
    return Page(explorer, path)


def serve(model: str | Path, port: int, *, run: Path | None, browser: bool, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, on the loopback address.

    Args:
        model: a bundled name or a folder.
        port: 0 for any that is free.
        run: folder of an optimisation, to show its trajectory.
        browser: open the page in one, where there is a display.
        ready: called with the address when it answers.

    Raises:
        InputError: the port is in use, the extra ``explore`` is missing, or a surrogate that knows no designs.
        FormatError: the surrogate or the run cannot be read.
    """
    require("the explorer", "explore")
    port = claim_port(port)
    explorer = Explorer(load_designs(model))
    path = read_trajectory(run, explorer.start()) if run else None
    explorer.preview(explorer.start())  # the first one is slow
    server = _server(explorer, path, port)
    address = f"http://{ADDRESS}:{port}"
    ready(address)
    if browser and has_display():
        with suppress(webbrowser.Error, OSError):
            webbrowser.open(address)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        server.stop()


def claim_port(port: int) -> int:
    """The port, or for 0 one that nobody listens at now. Raises `InputError` for one that is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}); expected one that is free: choose another with "
                "--port, or --port 0 for any"
            ) from error
        return int(probe.getsockname()[1])


def has_display() -> bool:
    """Whether a browser could open a window."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def _server(explorer: Explorer, path: Any, port: int) -> Any:
    import panel as pn

    from calograd.explorer.page import Page

    return pn.serve(
        lambda: Page(explorer, path), address=ADDRESS, port=port, show=False, start=False, verbose=False,
        websocket_origin=[f"{name}:{port}" for name in (ADDRESS, "localhost")],
        title=f"CaloGrad explorer: {explorer.surrogate.card.name}",
    )  # fmt: skip
