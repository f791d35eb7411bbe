"""Measure the coverage of the stated 95 % intervals.

    coverage.py surrogate|geant4 library.h5 [MODEL] [--energies 10,50]

Three designs, both truths. The surrogate: intervals of 8 draws of 100 showers against an independent estimate of 80
such draws, 20 times each. Geant4: the library in two halves; intervals of a twelfth of one half against the estimate of
the other, and the other way round, 24 times each (with 4 000 showers at an energy, of 166 against 2 000).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from calograd import Surrogate
from calograd.events.library.reader import open_library
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.finite_differences import finite_difference_gradient
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.utility import Objective, SquaredError

SMALL, LARGE, TIMES = 8, 80, 20
BLOCKS = 12
DESIGNS = ((2.5, 6.0), (1.5, 5.0), (4.0, 10.0))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("whose", choices=("surrogate", "geant4"))
    parser.add_argument("library", type=Path)
    parser.add_argument("model", nargs="?", default="pbf2-cells")
    parser.add_argument("--energies", default="10,50", help="GeV")
    options = parser.parse_args()
    surrogate = Surrogate.load(options.model)
    inside: list[np.ndarray] = []
    with open_library(options.library) as library:
        for energy in map(float, options.energies.split(",")):
            whole = LibraryReference(library, (energy,)) if options.whose == "geant4" else None
            for truth in ("deposited", "incident"):
                objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth=truth), (energy,))  # type: ignore[arg-type]
                for dx, dz in DESIGNS:
                    space, at = space_around(dx, dz, (1, 5), (4, 15))
                    mine = of_geant4(whole, objective, space, at) if whole else of_ours(surrogate, objective, space, at)
                    inside += mine
                    print(f"{energy:g} GeV, {truth}, {dx:g} x {dz:g} cm: {np.mean(mine):.3f}", flush=True)
    print(f"{options.whose}: {np.mean(inside):.1%} of {np.size(inside)} intervals contain the larger estimate")


def of_ours(surrogate: Surrogate, objective: Objective, space: DesignSpace, at: np.ndarray) -> list[np.ndarray]:
    """Return for every component if intervals of few draws contain the estimate of many draws."""
    large, pool = (
        surrogate_gradient(surrogate, objective, space, at, showers=100, draws=draws, seed=seed)
        for draws, seed in ((LARGE, 10**6), (SMALL * TIMES, 1))
    )
    parts = pool.draws.reshape(TIMES, SMALL, -1)
    return [
        contains(GradientEstimate.from_draws(space.names, at, np.zeros(SMALL), draws, {}), large) for draws in parts
    ]


def of_geant4(whole: LibraryReference, objective: Objective, space: DesignSpace, at: np.ndarray) -> list[np.ndarray]:
    """Return if intervals of a twelfth of one half of the showers contain the estimate of the other half."""
    (energy,) = objective.energies
    half = whole.count(energy) // 2
    block, found = half // BLOCKS, []
    for first, second in ((0, half), (half, 0)):
        large = finite_difference_gradient(
            whole.block(second, half), objective, space, at, seed=100 + second, bootstrap=2
        )
        for k in range(BLOCKS):
            small = finite_difference_gradient(
                whole.block(first + k * block, block), objective, space, at, seed=first + k
            )
            found.append(contains(small, large))
    return found


def contains(small: GradientEstimate, large: GradientEstimate) -> np.ndarray:
    low, high = small.interval
    return (low <= large.gradient) & (large.gradient <= high)


if __name__ == "__main__":
    main()
