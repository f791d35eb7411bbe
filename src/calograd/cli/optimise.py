"""``calograd optimise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import JSON_OPTION, Command, output_option, print_table, write_json
from calograd.cli.progress import progress
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.gradients.estimates import SimulatedUtility
    from calograd.optimisation.run import Setup
    from calograd.optimisation.state import State, Step

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
    from calograd.io.toml import read_toml
    from calograd.optimisation.run import Setup, optimise, parse_optimisation
    from calograd.reports.optimisation import landscapes, write_optimisation_report
    from calograd.surrogate import load_designs

    setup = Setup.of(load_designs(model), parse_optimisation(read_toml(config), str(config), config.parent), adapt)
    with progress("optimisation") as show:

        def report(step: Step) -> None:
            show("steps", step.number + 1, setup.config.descent.steps)

        trials = setup.trials(output / "showers")
        state = optimise(setup, output, trials, report, show)
        final: tuple[SimulatedUtility, SimulatedUtility] | None = None
        if trials is not None:
            import numpy as np

            showers, seed = setup.config.descent.showers, setup.config.descent.seed + 10**6
            end = np.array(state.y)
            final = trials.value(setup.start, showers, seed), trials.difference(setup.start, end, showers, seed)
        last = setup.follower(output).last(state.history) if adapt else setup.surrogate
        drawn = (
            landscapes(
                last,
                None,
                setup.objective,
                landscape,
                setup.config.descent.seed,
                show,
                setup.space.material,
            )
            if landscape > 1 and len(setup.space.names) == 2
            else []
        )
        write_optimisation_report(output / REPORT, state, setup, drawn, final)
    write_json(json_path, _plain(setup, state, final))
    _summarise(setup, state, final, output)


def _plain(setup: Setup, state: State, final: tuple[SimulatedUtility, SimulatedUtility] | None) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "start": dict(zip(setup.space.names, setup.start.tolist(), strict=True)),
        "design": dict(zip(setup.space.names, state.y, strict=True)),
        "steps": len(state.history), "reason": state.reason, "simulated_showers": state.simulated,
        "utility": {"first": state.history[0].value, "last": state.history[-1].value},
    }  # fmt: skip
    if setup.target is not None:
        plain["adaptation"] = {
            "showers": sum(step.adaptation for step in state.history), "budget": setup.target.budget,
            "adapter": state.history[-1].adapter,
        }  # fmt: skip
    if final is not None:
        plain["geant4"] = {"start": final[0]._asdict(), "gain": final[1]._asdict()}
    return plain


def _summarise(
    setup: Setup, state: State, final: tuple[SimulatedUtility, SimulatedUtility] | None, output: Path
) -> None:
    rows = [(name, f"{a:.4g}", f"{b:.4g}") for name, a, b in zip(setup.space.names, setup.start, state.y, strict=True)]
    rows.append(("utility, surrogate", f"{state.history[0].value:.4g}", f"{state.history[-1].value:.4g}"))
    if final is not None:
        rows.append(("utility, Geant4", f"{final[0].value:.4g} +- {final[0].error:.2g}",
                     f"{final[1].value:+.4g} +- {final[1].error:.2g}"))  # fmt: skip
    adapted = sum(step.adaptation for step in state.history)
    simulated = f"{state.simulated} simulated showers" + (f", {adapted} of them to adapt to" if adapted else "")
    print_table(
        f"{len(state.history)} steps, {simulated}; {state.reason}; {output / REPORT}",
        ["", "start", "result"], rows,
    )  # fmt: skip
