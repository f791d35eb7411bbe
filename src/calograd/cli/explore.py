"""``calograd explore``."""

from __future__ import annotations

from pathlib import Path

import click

from calograd.cli.common import console


@click.command()
@click.argument("model", default="pbf2-cells")
@click.option(
    "--port",
    default=5006,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port on this machine; 0 stands for any free one.",
)
@click.option("--run", type=click.Path(path_type=Path), help="Show the trajectory of a run of 'calograd optimise'.")
@click.option("--no-browser", is_flag=True, help="Print the address without opening a browser.")
def explore(model: str, port: int, run: Path | None, no_browser: bool) -> None:
    """Open a page with sliders, an event, observables beside Geant4's, the utility and its gradient.

    Only this machine can open the page. In a notebook: calograd.explore("pbf2-cells").

    \b
    Examples:
      calograd explore
      calograd explore pbwo4 --port 5010 --run run --no-browser
    """
    from calograd.explorer.serve import serve

    def ready(address: str) -> None:
        console.print(f"the explorer is at {address} (Ctrl-C ends it)", highlight=False, soft_wrap=True)

    serve(model, port, run=run, browser=not no_browser, ready=ready)
    console.print("the explorer has ended")
