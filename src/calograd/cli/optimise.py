"""``calograd optimise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from calograd.cli.common import JSON_OPTION, Command, output_option, print_table, write_json
from calograd.cli.progress import progress
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.optimisation.run import OptimisationResult

REPORT = "report.html"


@click.command(cls=Command)
@click.argument("model")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@output_option("Folder of the run", folder=True, resumes=True)
@click.option(
    "--adapt", is_flag=True, help="Simulate the detector of CONFIG's table [adapt] between steps and adapt MODEL to it."
)
@click.option(
    "--landscape",
    default=9,
    show_default=True,
    type=click.IntRange(min=0),
    help="Points along each axis of the landscape in the report; 0 leaves it out.",
)
@JSON_OPTION
def optimise(model: str, config: Path, output: Path, adapt: bool, landscape: int, json_path: Path | None) -> None:
    """Improve a design along the surrogate's gradients, and check the steps with Geant4.

    The same command resumes a run that was interrupted. CONFIG is a TOML file; the module calograd.optimisation.run
    documents its tables.

    With --adapt the detector may be one that MODEL does not know, with another crystal, gaps or another beam. Before
    every gradient a few showers of it are simulated, and MODEL is adapted to them, up to a budget of showers.

    \b
    Examples:
      calograd optimise pbf2-cells optimise.toml -o run
      calograd optimise pbf2-cells pbwo4.toml --adapt -o run
    """
    require("the report of an optimisation", "report", "jinja2", "matplotlib")
    from calograd.optimisation.run import optimise as run
    from calograd.reports.optimisation import write_optimisation_report

    with progress("optimisation") as show:
        result = run(model, config, output, adapt=adapt, landscape=landscape, progress=show)
        write_optimisation_report(output / REPORT, result)
    write_json(json_path, result.to_dict())
    _summarise(result, output)


def _summarise(result: OptimisationResult, output: Path) -> None:
    """Print start and result of an optimisation."""
    setup, state = result.setup, result.state
    rows: list[tuple[str, ...]] = [
        (name, f"{a:.4g}", f"{b:.4g}") for name, a, b in zip(setup.space.names, setup.start, state.y, strict=True)
    ]
    rows.append(("utility, surrogate", f"{state.history[0].value:.4g}", f"{state.history[-1].value:.4g}"))
    if result.start is not None and result.end is not None and result.gain is not None:
        rows.append(("utility, Geant4", f"{result.start.value:.4g} +- {result.start.error:.2g}",
                     f"{result.end.value:.4g} +- {result.end.error:.2g}"))  # fmt: skip
        rows.append(("gain, Geant4, same showers", "", f"{result.gain.value:+.4g} +- {result.gain.error:.2g}"))
    for each in result.spectra:
        name = "Geant4" if each.source == "Geant4" else "surrogate"
        rows.append((f"resolution at {each.energy:g} GeV, {name}",
                     *(f"{100 * mean:.2f} +- {100 * error:.2f} %" for mean, error in each.resolutions())))  # fmt: skip
    adapted = result.adapted_showers
    simulated = f"{state.simulated} simulated showers" + (f", {adapted} of them to adapt to" if adapted else "")
    print_table(
        f"{len(state.history)} steps, {simulated}; {state.reason}; {output / REPORT}",
        ["", "start", "result"], rows,
    )  # fmt: skip
