"""Coverage of the stated 95 % intervals: coverage.py library.h5 [MODEL].

Three designs, 10 and 50 GeV, both truths. The surrogate: intervals of 8 draws of 100 showers against an independent
estimate of 80 such draws, 40 times each. Geant4: intervals of 36 showers against the estimate of all others, 11 times
each (the library holds 400).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from calograd import Surrogate
from calograd.optimisation.background import Emulator
from calograd.optimisation.gradient import Estimate, surrogate_gradient
from calograd.optimisation.reconstruction import Chain
from calograd.optimisation.reference import LibraryReference, reference_gradient
from calograd.optimisation.space import span
from calograd.optimisation.utility import Objective, SquaredError
from calograd.showers.library import open_library

SMALL, LARGE, TIMES = 8, 80, 20


def main() -> None:
    surrogate = Surrogate.load(sys.argv[2] if len(sys.argv) > 2 else "pbf2-cells")
    inside: dict[str, list[np.ndarray]] = {"surrogate": [], "Geant4": []}
    with open_library(Path(sys.argv[1])) as library:
        for energy in (10.0, 50.0):
            whole = LibraryReference(library, (energy,))
            for truth in ("deposited", "incident"):
                objective = Objective(Chain(Emulator()), SquaredError(truth=truth), (energy,))  # type: ignore[arg-type]
                for dx, dz in ((2.5, 6.0), (1.5, 5.0), (4.0, 10.0)):
                    space, at = span(dx, dz, (1, 5), (4, 15))

                    def made(draws: int, seed: int) -> Estimate:
                        return surrogate_gradient(
                            surrogate, objective, space, at, showers=100, draws=draws, seed=seed  # noqa: B023
                        )  # fmt: skip

                    large = made(LARGE, 10**6)
                    pool = made(SMALL * TIMES, 1).draws.reshape(TIMES, SMALL, -1)
                    for draws in pool:
                        small = Estimate.of_draws(space.names, at, np.zeros(SMALL), draws, {})
                        inside["surrogate"].append(contains(small, large))
                    n = whole.count(energy) // 11
                    for k in range(11):
                        small = reference_gradient(whole.block(k * n, n), objective, space, at, seed=k)
                        rest = reference_gradient(
                            whole.block((k + 1) * n, whole.count(energy) - n), objective, space, at, seed=100 + k
                        )
                        inside["Geant4"].append(contains(small, rest))
                    print(energy, truth, dx, dz, {k: f"{np.mean(v):.3f}" for k, v in inside.items()}, flush=True)
    for name, values in inside.items():
        share = np.mean(values)
        print(f"{name}: {share:.1%} of {np.size(values)} intervals contain the larger estimate")


def contains(small: Estimate, large: Estimate) -> np.ndarray:
    low, high = small.interval
    return (low <= large.gradient) & (large.gradient <= high)


if __name__ == "__main__":
    main()
