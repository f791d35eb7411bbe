"""Measure the sampler's own error in gradients: solver_gradients.py [MODEL].

For samplers and numbers of steps, against 200 steps of "trigflow-ab2" with the same noise at 2.5 x 6 cm: the spread of
E_tot and of R_E, and the gradients in ln y of the squared error (incident truth) and of the energy resolution, which
rests on fluctuations. Differences to the converged solution are on the same noise; their standard errors over draws are
given.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from calograd import Surrogate
from calograd.gradients.autodiff import SHOWERS, surrogate_gradient
from calograd.gradients.estimates import generator_for
from calograd.metrics.observables import observe
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.utility import EnergyResolution, Objective, SquaredError

CASES = (
    *(("trigflow-ab2", steps) for steps in (4, 8, 12, 24, 50)),
    *(("heun", steps) for steps in (4, 9, 18, 36)),
    *(("dpmpp-2m", steps) for steps in (8, 18, 36)),
    *(("ddim", steps) for steps in (4, 8, 18, 50, 100)),
)
CONVERGED = ("trigflow-ab2", 200)
SHOWERS_A_DRAW, DRAWS = 500, 4


def main() -> None:
    surrogate = Surrogate.load(sys.argv[1] if len(sys.argv) > 1 else "pbf2-cells")
    space, at = space_around(2.5, 6.0, surrogate.card.designs.dx, surrogate.card.designs.dz)
    print("| energy, GeV | sampler | evaluations | spread of E_tot | spread of R_E | squared error: d/d ln dx "
          "| d/d ln dz | resolution: d/d ln dx | d/d ln dz |\n|" + "---|" * 9)  # fmt: skip
    for energy in (50.0, 10.0):
        truth = measure(surrogate, space, at, energy, *CONVERGED)
        for sampler, steps in CASES:
            made = measure(surrogate, space, at, energy, sampler, steps)
            nfe = {"heun": 2 * steps - 1}.get(sampler, steps)
            ratio = made / truth
            cells = [f"{ratio[:, k].mean():.3f}" for k in range(2)]
            for k in range(2, 6):
                apart = (made[:, k] - truth[:, k]) / truth[:, k].mean()
                cells.append(f"{100 * apart.mean():+.1f} +- {100 * apart.std(ddof=1) / DRAWS**0.5:.1f} %")
            print(f"| {energy:g} | {sampler} | {nfe} | {' | '.join(cells)} |", flush=True)


def measure(
    surrogate: Surrogate, space: DesignSpace, at: np.ndarray, energy: float, sampler: str, steps: int
) -> np.ndarray:
    """Return for every draw the spreads of E_tot and R_E, and the gradients."""
    columns = []
    design = space.design(torch.from_numpy(at))
    for m in range(DRAWS):
        cells = surrogate.sample(
            design, energy, SHOWERS_A_DRAW, generator=generator_for(1, SHOWERS, m, 0), sampler=sampler, steps=steps
        )
        seen = observe(cells, design.dx, design.dz)
        columns.append([float(seen.E_tot.std()), float(seen.R_E.std())])
    gradients = [
        surrogate_gradient(
            surrogate, Objective(Measurement(ExponentialBackground()), utility, (energy,)), space, at,
            showers=SHOWERS_A_DRAW, draws=DRAWS, seed=1, sampler=sampler, steps=steps,
        ).draws
        for utility in (SquaredError(truth="incident"), EnergyResolution())
    ]  # fmt: skip
    return np.hstack([np.array(columns), *gradients])


if __name__ == "__main__":
    main()
