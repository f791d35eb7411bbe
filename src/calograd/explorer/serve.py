"""Serve the explorer to browsers on this machine, or show it in a notebook."""

from __future__ import annotations

import json
import os
import socket
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calograd.errors import FormatError, InputError
from calograd.explorer.kinds import Limits, Selection
from calograd.explorer.views import Explorer
from calograd.optimisation.setup import CONFIG, STATE
from calograd.optimisation.state import read_state
from calograd.surrogate import Surrogate
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.explorer.page import Page

ADDRESS = "127.0.0.1"


def explore(
    model: str | Path | Surrogate = "pbf2-cells",
    run: str | Path | None = None,
    reference: str | Path | None = None,
) -> Page:
    """Return the explorer's page for a notebook: as the last line of a cell it is shown, ``.servable()`` serves it.

    Args:
        model: a bundled name, a folder, or a surrogate of cells or of stacks of plates.
        run: folder of an optimisation, to show its trajectory.
        reference: file of Geant4 showers to compare with: cells, or a library of plates.

    Raises:
        InputError: the extra ``explore`` is missing, or the surrogate generates neither cells nor stacks.
        FormatError: the surrogate or the run cannot be read.
    """
    require("the explorer", "explore")
    surrogate = model if isinstance(model, Surrogate) else Surrogate.load(model)
    explorer = Explorer(surrogate, reference=None if reference is None else Path(reference))
    path = read_trajectory(Path(run), explorer.limits) if run else None
    import panel as pn

    from calograd.explorer.page import Page

    pn.extension(inline=True)  # loads nothing from the network
    return Page(explorer, path)


def serve(
    model: str | Path,
    port: int,
    *,
    run: Path | None,
    browser: bool,
    ready: Callable[[str], None],
    reference: Path | None = None,
) -> None:
    """Serve until Ctrl-C, on the loopback address.

    Args:
        model: a bundled name or a folder.
        port: the port; 0 for any free one.
        run: folder of an optimisation, to show its trajectory.
        browser: whether to open the page in a browser, where there is a display.
        ready: called with the address as soon as the server answers.
        reference: file of Geant4 showers to compare with: cells, or a library of plates.

    Raises:
        InputError: the port is in use, the extra ``explore`` is missing, or the surrogate generates neither
            cells nor stacks.
        FormatError: the surrogate or the run cannot be read.
    """
    require("the explorer", "explore")
    port = claim_port(port)
    explorer = Explorer(Surrogate.load(model), reference=reference)
    path = read_trajectory(run, explorer.limits) if run else None
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


def read_trajectory(folder: Path, limits: Limits) -> list[tuple[Selection, float]]:
    """Read the designs of an optimisation and their utilities; the beam is that of the page's start.

    Raises:
        FormatError: the folder is missing, holds no optimisation, a damaged one, or one of another kind of designs.
    """
    state = read_state(folder / STATE, {})
    if state is None:
        raise FormatError(f"{folder} holds no {STATE}; expected a folder written by 'calograd optimise'")
    try:
        space = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["config"]["space"]
        return [(limits.of_run(space, step.y), limits.shown(step.value)) for step in state.history]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{folder / CONFIG} does not fit {STATE} ({error}); expected a whole run") from error


def claim_port(port: int) -> int:
    """Return the port, or a free one for 0. Raises `InputError` if the port is in use."""
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
    """Return whether a browser could open a window."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))


def _server(explorer: Explorer, path: Any, port: int) -> Any:
    import panel as pn

    from calograd.explorer.page import Page

    def page() -> Page:
        arguments = pn.state.session_args or {}
        return Page(explorer, path, {name: values[-1].decode(errors="replace") for name, values in arguments.items()})

    return pn.serve(
        page, address=ADDRESS, port=port, show=False, start=False, verbose=False,
        websocket_origin=[f"{name}:{port}" for name in (ADDRESS, "localhost")],
        title=f"CaloGrad explorer: {explorer.surrogate.card.name}",
    )  # fmt: skip
