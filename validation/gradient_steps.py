"""Compare steps of Geant4's central differences, bias against noise: gradient_steps.py reference.h5.

Steps from 0.01 to 0.2 in ln y at 2.5 x 6 cm and 4 x 10 cm, 10 and 100 GeV, incident truth. The bias of a step is
estimated against the smallest two by the difference on the same showers, whose error is much smaller than that of
either (bootstrap of the difference).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from calograd.events.library.reader import open_library
from calograd.gradients.finite_differences import finite_difference_gradient
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.space import space_around
from calograd.objective.utility import Objective, SquaredError

STEPS = (0.01, 0.02, 0.04, 0.08, 0.15)
BASE = 0.02


def main() -> None:
    columns = ("design, cm", "energy, GeV", "parameter", "step", "gradient +- error", f"minus that of step {BASE}")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with open_library(Path(sys.argv[1])) as library:
        for energy in (10.0, 100.0):
            reference = LibraryReference(library, (energy,))
            objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (energy,))
            for dx, dz in ((2.5, 6.0), (4.0, 10.0)):
                space, at = space_around(dx, dz, (1, 5), (4, 15))
                made = {
                    step: finite_difference_gradient(reference, objective, space, at, step=step, seed=2)
                    for step in STEPS
                }
                for j, name in enumerate(space.names):
                    for step, g in made.items():
                        # Equal seeds draw equal bootstrap samples: the differences are of the same showers.
                        apart = (g.draws - made[BASE].draws)[:, j]
                        change = g.gradient[j] - made[BASE].gradient[j]
                        print(
                            f"| {dx:g} x {dz:g} | {energy:g} | {name} | {step} "
                            f"| {g.gradient[j]:.4g} +- {g.gradient_error[j]:.2g} "
                            f"| {change:+.2g} +- {np.std(apart):.2g} |"
                        )


if __name__ == "__main__":
    main()
