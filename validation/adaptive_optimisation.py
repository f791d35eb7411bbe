"""Optimise a detector that the surrogate does not know, with and without adaptation on the way.

    adaptive_optimisation.py PbWO4 -o FOLDER            photons in PbWO4
    adaptive_optimisation.py electrons -o FOLDER        electrons in the surrogate's material
    adaptive_optimisation.py tilted -o FOLDER           photons at 20 degrees to the normal, likewise

Both ascents have the utility of examples/adaptive.toml, checks on simulated showers of the target, and one budget. The
one without adaptation follows the surrogate as it is, of its own material, and knows the target from its checks alone.
Optimisers that know simulated showers only spend twice the budget, `--seeds` times each; what they would answer on the
way stands beside. Every design is judged on showers of the target that no way has seen, the same for all. Prints
markdown tables. Resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import optimisers

from calograd import Surrogate
from calograd.cli.progress import progress
from calograd.events.library.reader import open_library
from calograd.gradients.finite_differences import bootstrap_values
from calograd.io.toml import read_toml
from calograd.objective.reference import LibraryReference
from calograd.optimisation.ascent import Adaptation, Adapted, ascend
from calograd.optimisation.run import CellSetup, parse_optimisation
from calograd.optimisation.simulated_objective import SimulatedObjective, from_library
from calograd.optimisation.state import State
from calograd.optimisation.target import simulate

EXAMPLE = Path(__file__).parent.parent / "examples" / "adaptive.toml"
TARGETS: dict[str, dict[str, Any]] = {
    "PbWO4": {"detector": {"kind": "block", "material": "PbWO4"}, "beam": {}},
    "electrons": {"detector": {"kind": "block", "material": "PbF2"}, "beam": {"particle": "e-"}},
    "tilted": {"detector": {"kind": "block", "material": "PbF2"}, "beam": {"theta": 20.0}},
}
JUDGE_SEED, POOL_SEED = 987_654_321, 987_654_322
"""Seeds of the showers that judge, and of those that the other optimisers know; the ascents have others."""
METHODS = ("random", "fd", "cma", "bayes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--model", default="pbf2-cells")
    parser.add_argument(
        "--config", type=Path, default=EXAMPLE, help="of the optimisation; of [adapt] method, rank, steps"
    )
    parser.add_argument("--budget", type=int, default=1500, help="simulated showers of an ascent, checks included")
    parser.add_argument("--first", type=int, default=200, help="showers of every energy before the first gradient")
    parser.add_argument("--showers", type=int, default=40, help="likewise before a later one")
    parser.add_argument("--check", type=int, default=100, help="likewise in a check")
    parser.add_argument("--judge", type=int, default=400, help="likewise to judge with")
    parser.add_argument("--steps", type=int, default=20, help="of an ascent, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each of the other optimisers")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    setup = setup_of(options)
    with progress("study") as tell:
        folders = {name: options.output / name for name in ("adapted", "as it is")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        trials = {name: setup.simulated(folder / "showers") for name, folder in folders.items()}
        assert trials["as it is"] is not None
        states = {
            "adapted": setup.run(folders["adapted"], trials["adapted"], progress=tell),
            "as it is": without(setup, options, folders["as it is"], trials["as it is"]),
        }
        judge = library_of(setup, options, "judge", JUDGE_SEED, tell)
        pool = library_of(setup, options, "pool", POOL_SEED, tell)
    show(setup, states, judge)
    compare(setup, options, states, pool, judge)


def setup_of(options: argparse.Namespace) -> CellSetup:
    raw = read_toml(options.config)
    raw["check"] = {"simulate": True, "workers": options.workers}
    raw["ascent"] = raw.get("ascent", {}) | {
        "steps": options.steps, "showers": options.check, "seed": options.seed
    }  # fmt: skip
    raw["adapt"] = raw.get("adapt", {}) | TARGETS[options.target] | {
        "budget": options.budget, "first": options.first, "showers": options.showers, "seed": options.seed,
        "workers": options.workers,
    }  # fmt: skip
    config = parse_optimisation(raw, str(options.config), options.config.parent)
    return CellSetup.of(Surrogate.load(options.model), config, adapt=True)


def without(setup: CellSetup, options: argparse.Namespace, folder: Path, trials: SimulatedObjective) -> State:
    """Return the ascent by the surrogate as it is, with checks on the target within the same budget."""
    plain = CellSetup.of(setup.surrogate, setup.config.model_copy(update={"adapt": None}))
    price = trials.price(options.check)
    way = Adaptation(lambda y, state: Adapted(plain.gradient), options.budget, price)  # noqa: ARG005
    return ascend(
        plain.space, plain.start, way, plain.config.ascent, simulate_pair=trials.difference,
        output=folder / "ascent.json",
    )  # fmt: skip


def library_of(setup: CellSetup, options: argparse.Namespace, name: str, seed: int, tell: Any) -> LibraryReference:
    """Return showers of the target that no ascent has seen."""
    assert setup.target is not None
    energies, path = setup.objective.energies, options.output / f"{name}-{options.judge}.h5"
    config = setup.target.simulation(setup.space.design(setup.start), energies, seed)
    simulate(
        path, config, options.judge * len(energies), workers=options.workers,
        progress=lambda what, done, total: tell(f"{name}, {what}", done, total),
    )  # fmt: skip
    with open_library(path) as library:
        return LibraryReference(library, energies, setup.space.n_xy, setup.space.n_z)


def compare(
    setup: CellSetup,
    options: argparse.Namespace,
    states: dict[str, State],
    pool: LibraryReference,
    judge: LibraryReference,
) -> None:
    """Print what each would answer after so many showers.

    The ascents answer the design they have reached, the others after evaluations of blocks of the pool,
    `options.check` showers each.
    """

    def judged(designs: list[Any]) -> list[float]:
        return bootstrap_values(judge, setup.objective, designs, bootstrap=2, seed=7)[0].tolist()

    trials = SimulatedObjective(from_library(pool), setup.objective, setup.space)
    marks = [share * options.budget // 5 for share in (1, 2, 4, 5, 10)]
    print(f"\n| method | {' | '.join(f'U after {mark} showers' for mark in marks)} |")
    print("|---" * (1 + len(marks)) + "|")
    for name, state in states.items():
        reached = {mark: [step.y for step in state.history if step.simulated <= mark] for mark in marks}
        ends = {mark: state.y if state.simulated <= mark else ys[-1] for mark, ys in reached.items() if ys}
        values = dict(zip(ends, judged([setup.space.design(np.array(y)) for y in ends.values()]), strict=True))
        print(f"| {name} | {' | '.join(f'{values[m]:.3f}' if m in values else '' for m in marks)} |")
    for method in METHODS:
        seen: dict[int, list[float]] = {mark: [] for mark in marks}
        for seed in range(options.seeds):
            trace = optimisers.run(
                method, setup.space, setup.start, trials.value, marks[-1], options.check, seed
            )  # fmt: skip
            ends = {mark: [e.incumbent for e in trace.evaluations if e.showers <= mark] for mark in marks}
            designs = {mark: setup.space.design(np.array(found[-1])) for mark, found in ends.items() if found}
            for mark, value in zip(designs, judged(list(designs.values())), strict=True):
                seen[mark].append(value)
        spans = [np.percentile(v, [50, 0, 100]) if v else None for v in seen.values()]
        words = ["" if s is None else f"{s[0]:.3f} ({s[1]:.3f} to {s[2]:.3f})" for s in spans]
        print(f"| {method} | {' | '.join(words)} |")


def show(setup: CellSetup, states: dict[str, State], judge: LibraryReference) -> None:
    """Print the ways and the ends. All designs are judged on the same showers, so differences have small errors."""
    points = {
        name: [np.array(step.y) for step in state.history] + [np.array(state.y)] for name, state in states.items()
    }
    every = [y for ys in points.values() for y in ys]
    values, samples = bootstrap_values(
        judge, setup.objective, [setup.space.design(y) for y in every], bootstrap=200, seed=7
    )
    errors, at = samples.std(0, ddof=1), 0
    ends: dict[str, int] = {}
    names = " | ".join(f"{name}, cm" for name in setup.space.names)
    for name, state in states.items():
        print(f"\n{name}: {state.reason}\n")
        print(f"| step | {names} | U, surrogate | U, Geant4 | simulated | of them to adapt | adapter | outcome |")
        print("|---" * (7 + len(setup.space.names)) + "|")
        adapted = 0
        for k, step in enumerate(state.history):
            adapted += step.adaptation
            sizes = " | ".join(f"{value:.3f}" for value in step.y)
            print(
                f"| {step.number} | {sizes} | {step.value:.4g} +- {step.value_error:.2g} | {values[at + k]:.4g} +- "
                f"{errors[at + k]:.2g} | {step.simulated} | {adapted} | {step.adapter} | {step.outcome} |"
            )
        at += len(points[name])
        ends[name] = at - 1
    print(f"\n| ascent | {names} | U, Geant4 | gain over the start | simulated showers | steps |")
    print("|---" * (5 + len(setup.space.names)) + "|")
    for name, state in states.items():
        end, sizes = ends[name], " | ".join(f"{value:.3f}" for value in state.y)
        gain, error = values[end] - values[0], (samples[:, end] - samples[:, 0]).std(ddof=1)
        print(
            f"| {name} | {sizes} | {values[end]:.4g} +- {errors[end]:.2g} | {gain:+.4g} +- {error:.2g} | "
            f"{state.simulated} | {len(state.history)} |"
        )
    a, b = ends["adapted"], ends["as it is"]
    error = (samples[:, a] - samples[:, b]).std(ddof=1)
    print(
        f"\nadapted less as it is: {values[a] - values[b]:+.4g} +- {error:.2g} "
        f"on the same {judge.count(setup.objective.energies[0])} showers of an energy"
    )


if __name__ == "__main__":
    main()
