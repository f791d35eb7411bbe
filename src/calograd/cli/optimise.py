"""``calograd optimise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calograd.cli.common import JSON_OPTION, print_table, progress, read_toml, stages, write_json
from calograd.io.hdf5 import refuse_existing
from calograd.system.extras import require

if TYPE_CHECKING:
    from calograd.gradients.estimates import SimulatedUtility
    from calograd.optimisation.run import Setup
    from calograd.optimisation.state import State, Step

REPORT = "report.html"


@click.command()
@click.argument("model")
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the run; resumed.")
@click.option(
    "--adapt", is_flag=True, help="Simulate the detector of CONFIG's table [adapt] on the way and adapt to it."
)
@click.option("--landscape", default=9, show_default=True, help="Points along each axis of the report's; 0: none.")
@JSON_OPTION
def optimise(model: str, config: Path, output: Path, adapt: bool, landscape: int, json_path: Path | None) -> None:
    """Improve a design along the surrogate's gradients, checked with Geant4.

    The same command goes on with a run that was interrupted. CONFIG is a TOML file; calograd.optimisation.run says
    what it may hold.

    With --adapt the design is of a detector that MODEL does not know (another crystal, gaps, another beam): before
    every gradient a few showers of it are simulated, and MODEL is adapted to all of them, up to a budget of showers.

    \b
    Examples:
      calograd optimise pbf2-cells optimise.toml -o run
      calograd optimise pbf2-cells pbwo4.toml --adapt -o run
    """
    refuse_existing(json_path)
    require("the report of an optimisation", "report", "jinja2", "matplotlib")
    from calograd.optimisation.run import Setup, optimise, parse_optimisation
    from calograd.reports.optimisation import landscapes, write_optimisation_report
    from calograd.surrogate import load_designs

    setup = Setup.of(load_designs(model), parse_optimisation(read_toml(config), str(config), config.parent), adapt)
    with progress() as bar:
        tell = stages(bar)

        def report(step: Step) -> None:
            tell("steps", step.number + 1, setup.config.descent.steps)

        trials = setup.trials(output / "showers")
        state = optimise(setup, output, trials, report, tell)
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
                tell,
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
