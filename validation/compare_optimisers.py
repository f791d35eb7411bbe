"""Compare the ascent with optimisers that know simulated showers only.

    compare_optimisers.py library.h5 out.json [MODEL]

The priced utility of the demo (squared error at 50 GeV, incident truth, under background, U / (1 + 0.02 depth / X0)) at
2 and 6 parameters, from 3.5 x 12 cm, 5 seeds each. The other optimisers spend 100 showers an evaluation, 3 000 in all;
the ascent spends 100 on a check. Simulated showers are blocks of the first half of the library's 50 GeV showers. The
answers after 300, 600, 1 200 and 3 000 showers are judged on the second half. An interrupted run resumes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import optimisers

from calograd import Surrogate
from calograd.demo.design import ENERGY, PRICE, START
from calograd.events.library.reader import open_library
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.finite_differences import bootstrap_values
from calograd.io.files import write_whole
from calograd.objective.background import ExponentialBackground
from calograd.objective.cost import DepthCost, PricedUtility
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.utility import Objective, SquaredError
from calograd.optimisation.ascent import AscentConfig, ascend
from calograd.optimisation.simulated_objective import SimulatedObjective, from_library

BUDGET, EACH, SEEDS = 3000, 100, 5
MARKS = (300, 600, 1200, 3000)
METHODS = ("ascent", "random", "fd", "cma", "bayes")


def main() -> None:
    library_path, output = Path(sys.argv[1]), Path(sys.argv[2])
    surrogate = Surrogate.load(sys.argv[3] if len(sys.argv) > 3 else "pbf2-cells")
    done: list[dict[str, Any]] = json.loads(output.read_text()) if output.exists() else []
    keys = {(d["parameters"], d["method"], d["seed"]) for d in done}
    utility = PricedUtility(SquaredError(truth="incident"), ((DepthCost(), PRICE),), relative=True)
    objective = Objective(Measurement(ExponentialBackground()), utility, (ENERGY,))
    with open_library(library_path) as library:
        whole = LibraryReference(library, (ENERGY,))
        pool, judge = whole.block(0, 200), whole.block(200, whole.count(ENERGY) - 200)
    for depth in (START[1], (START[1],) * 5):
        space, start = space_around(START[0], depth, surrogate.card.designs.dx, surrogate.card.designs.dz)
        trials = SimulatedObjective(from_library(pool), objective, space)
        for method in METHODS:
            for seed in range(SEEDS):
                if (len(start), method, seed) in keys:
                    continue
                began = time.perf_counter()
                answers, used = answer(method, surrogate, objective, space, start, trials, seed)
                seconds = time.perf_counter() - began
                points = [np.array(y) for y in answers.values()]
                values, _ = bootstrap_values(judge, objective, [space.design(y) for y in points], bootstrap=2, seed=9)
                done.append({
                    "parameters": len(start), "method": method, "seed": seed, "showers": used, "seconds": seconds,
                    "answers": {str(k): list(y) for k, y in answers.items()},
                    "utility": dict(zip(map(str, answers), values.tolist(), strict=True)),
                })  # fmt: skip
                write_whole(output, json.dumps(done, indent=1).encode())
    summarise(done)


def answer(
    method: str,
    surrogate: Surrogate,
    objective: Objective,
    space: DesignSpace,
    start: np.ndarray,
    trials: SimulatedObjective,
    seed: int,
) -> tuple[dict[int, Any], int]:
    """Return the design that a method would report at every mark, and the showers that it used in all."""
    if method != "ascent":
        trace = optimisers.run(method, space, start, trials.value, BUDGET, EACH, seed)
        found = {m: [e.incumbent for e in trace.evaluations if e.showers <= m] for m in MARKS}
        return {m: list(f[-1]) for m, f in found.items() if f}, int(trace.evaluations[-1].showers)

    def gradient(y: np.ndarray, draws: int, at: int) -> GradientEstimate:
        return surrogate_gradient(surrogate, objective, space, y, showers=400, draws=draws, seed=at)

    config = AscentConfig(steps=30, draws=4, max_draws=16, showers=EACH, seed=seed, multi_start=0)
    state = ascend(space, start, gradient, config, simulate_pair=trials.difference)
    answers = {}
    for mark in MARKS:  # a design is an answer once it is reached without more showers than the mark
        reached = [step for step in state.history if step.simulated <= mark]
        answers[mark] = state.y if state.simulated <= mark else reached[-1].y
    return {m: list(y) for m, y in answers.items()}, state.simulated


def summarise(done: list[dict[str, Any]]) -> None:
    print(f"| parameters | method | {' | '.join(f'U after {m} showers' for m in MARKS)} | showers used | s |")
    print("|---|---|" + "---|" * (len(MARKS) + 2))
    for parameters in sorted({d["parameters"] for d in done}):
        for method in METHODS:
            runs = [d for d in done if d["parameters"] == parameters and d["method"] == method]
            if not runs:
                continue
            cells = []
            for mark in MARKS:
                values = [d["utility"][str(mark)] for d in runs if str(mark) in d["utility"]]
                low, middle, high = np.percentile(values, [0, 50, 100])
                cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
            used, seconds = (np.median([d[k] for d in runs]) for k in ("showers", "seconds"))
            print(f"| {parameters} | {method} | {' | '.join(cells)} | {used:.0f} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
