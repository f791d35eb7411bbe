"""Check derivatives of a sampling calorimeter against a published truth: hepemshow.py FOLDER.

The detector is that of HepEmShow (arXiv 2405.07944): 50 layers of 2.30 mm PbWO4 and 5.70 mm liquid argon, 400 mm wide,
and electrons of 10 GeV. Asked is d<E>/dt, where E is the energy in the absorbers and gaps of layers 5 to 18 (from 0)
and t the thickness of every absorber, or of every gap. Published are finite differences of a million showers with
HepEmShow, and what exact algorithmic differentiation of its code gives (arXiv 2605.06779; `PUBLISHED`, `EXACT`).

Geant4 is asked in two ways, since showers at two thicknesses have nothing in common whatever their random numbers:

    differences   independent showers at t - h and t + h, (<E(t + h)> - <E(t - h)>) / 2h, for either thickness
    regression    every shower in a stack of its own, both thicknesses log-uniform in 0.70 to 1.42 of these

The regression also gives d ln(sigma/E_vis) / d ln t for the energy E_vis in all gaps. Both ways, and their errors, are
those of `calograd.gradients.simulated_stacks`.

    python validation/hepemshow.py hepemshow --showers 200 --random 800                       # some five minutes a core
    python validation/hepemshow.py hepemshow --showers 4000 --random 16000 --workers 8        # errors of 2 and 4 %

Libraries of showers are kept in the folder, and a call with more showers adds to them.

With ``--surrogate FOLDER`` a surrogate of stacks of plates is asked, too (`calograd.gradients.stacks`): one backward
pass through its showers gives a quantity's derivatives. Their errors are from `PARTS` parts of the showers; they do not
contain what the surrogate has learnt wrongly.

    python validation/hepemshow.py hepemshow --showers 0 --random 0 --surrogate runs/sampling/sampling
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calograd import (
    MeanEnergy,
    ParticleBeam,
    SamplingDesign,
    StackObjective,
    Surrogate,
    VisibleResolution,
    open_plates,
    simulate,
)
from calograd.detector.sampling_stack import SamplingStack, ThicknessRange
from calograd.errors import OutputExistsError
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.simulated_stacks import StackShowers, difference_gradient, regression_gradient
from calograd.gradients.stacks import stack_gradient

THICKNESS = {"absorber": 0.23, "gap": 0.57}
"""Thicknesses of the published detector, cm."""
STEP = {"absorber": 0.02, "gap": 0.1}
"""Half the distance of the two thicknesses of a difference, cm."""
SPREAD = (0.70, 1.42)
"""Ends of the drawn thicknesses, relative to the published detector's."""
DESIGN = SamplingDesign("PbWO4", "lAr", THICKNESS["absorber"], THICKNESS["gap"], 50)
"""The published detector."""
ENERGY = 10.0
"""Incident energy, GeV."""
BOTH, GAPS = MeanEnergy(absorber=1.0, layers=(5, 18)), MeanEnergy(layers=(5, 18))
"""Energy in absorbers and gaps of the layers that are summed, and in their gaps alone."""
PUBLISHED = {"absorber": (2233.7, 14.8), "gap": (195.8, 9.4)}
"""Finite differences of HepEmShow and their errors, MeV/mm."""
EXACT = {"absorber": "0.77", "gap": "3.02 +- 0.15"}
"""Exact algorithmic differentiation of HepEmShow over these."""
RESAMPLES = 400
"""Number of resamples of a bootstrap."""
MEV_PER_MM = 100.0
"""MeV/mm over GeV/cm."""
PARTS = 10
"""Parts of the surrogate's showers, whose scatter gives its errors."""


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = max(0, 1 - int(np.floor(np.log10(self.error)))) if self.error > 0 else 3
        return f"{self.value:.{digits}f} +- {self.error:.{digits}f}"


def library(path: Path, showers: int, seed: int, workers: int, **thickness: float | ThicknessRange) -> StackShowers:
    """Return showers of electrons of 10 GeV in a folder's library, which is begun, continued or used as it is."""
    sizes = {"absorber": THICKNESS["absorber"], "gap": THICKNESS["gap"]} | thickness
    stack = SamplingStack(
        absorber=("PbWO4",), active=("G4_lAr",), layers=50, width=40.0,
        absorber_thickness=sizes["absorber"], active_thickness=sizes["gap"],
    )  # fmt: skip
    started = time.perf_counter()
    try:
        made = simulate(
            path, ENERGY, showers, seed=seed, detector=stack, particle="e-", workers=workers, append=path.exists()
        )
        spent = f"{made.simulated} simulated in {time.perf_counter() - started:.0f} s, {made.seconds:.0f} s of a core"
    except OutputExistsError:
        spent = "used as it is"
    with open_plates(path) as opened:
        if opened.stack != stack:
            raise SystemExit(f"{path} is of another detector; choose another folder")
        print(f"{path.name}: {len(opened)} showers, {spent}", flush=True)
        return StackShowers.of(path.name, opened.read())


Slopes = dict[str, tuple[Estimate, Estimate]]
"""By the plates' name, derivatives of the energy in absorbers and gaps, and of that in the gaps, MeV/mm."""


def by_differences(folder: Path, showers: int, seed: int, workers: int) -> Slopes:
    """Return the derivatives from independent showers, ``showers`` at each of four ends."""
    pairs = []
    for number, name in enumerate(THICKNESS):
        low, high = (
            library(
                folder / f"{name}-{('low', 'high')[side]}.h5", showers, seed + 2 * number + side, workers,
                **{name: THICKNESS[name] + sign * STEP[name]},
            )
            for side, sign in enumerate((-1, 1))
        )  # fmt: skip
        pairs.append((low, high))
    return slopes_of(
        *(difference_gradient(pairs, quantity, resamples=RESAMPLES, seed=seed) for quantity in (BOTH, GAPS))
    )


def by_regression(showers: StackShowers, seed: int) -> tuple[Slopes, list[Estimate]]:
    """Return the derivatives from showers in random stacks, and d ln(sigma/E_vis) / d ln t of absorbers and gaps."""
    both, gaps, resolution = (
        regression_gradient(showers, DESIGN, quantity, resamples=RESAMPLES, seed=seed).common
        for quantity in (BOTH, GAPS, VisibleResolution())
    )
    return slopes_of(both, gaps), logarithms_of(resolution)


def by_surrogate(surrogate: Surrogate, showers: int, seed: int) -> tuple[Slopes, list[Estimate]]:
    """Return what `by_regression` does, by back-propagation through ``showers`` of a surrogate."""
    objective = StackObjective((BOTH, GAPS, VisibleResolution()), beam=ParticleBeam("e-"))
    made = stack_gradient(surrogate, DESIGN, (ENERGY,), objective, showers=showers // PARTS, draws=PARTS, seed=seed)
    both, gaps, resolution = (each.common() for each in made.gradients)
    return slopes_of(both, gaps), logarithms_of(resolution)


def slopes_of(both: GradientEstimate, gaps: GradientEstimate) -> Slopes:
    """Return derivatives of the energy in both plates and in the gaps, with respect to absorbers and gaps."""
    each = [
        [Estimate(*(MEV_PER_MM * number for number in pair)) for pair in zip(of.raw, of.raw_error, strict=True)]
        for of in (both, gaps)
    ]
    return {name: (each[0][k], each[1][k]) for k, name in enumerate(THICKNESS)}


def logarithms_of(estimate: GradientEstimate) -> list[Estimate]:
    """Return derivatives with respect to the logarithms of the thicknesses of absorbers and gaps."""
    return [Estimate(*pair) for pair in zip(estimate.gradient.tolist(), estimate.gradient_error.tolist(), strict=True)]


def print_rows(how: str, showers: str, found: Slopes) -> None:
    """Print a row of the table for either thickness."""
    for name, (both, gaps) in found.items():
        true, error = PUBLISHED[name]
        ratio = Estimate(both.value / true, float(np.hypot(both.error / true, both.value * error / true**2)))
        print(f"| {name}s | {true} +- {error} | {how} | {showers} | {both} | {ratio} | {gaps} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the libraries")
    parser.add_argument("--showers", type=int, default=200, help="showers at each of the four ends; 0: none")
    parser.add_argument("--random", type=int, default=800, help="showers in random stacks; 0: none")
    parser.add_argument("--seed", type=int, default=11, help="seed; the five libraries have this and the next four")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--surrogate", help="a surrogate of stacks of plates, bundled or a folder")
    parser.add_argument("--generated", type=int, default=4000, help="its showers")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    rows: list[tuple[str, str, Slopes]] = []
    resolutions: dict[str, list[Estimate]] = {}
    if options.showers:
        found = by_differences(options.folder, options.showers, options.seed, options.workers)
        rows.append(("differences", f"2 x {options.showers}", found))
    if options.random:
        laws = {name: ThicknessRange(low=SPREAD[0] * t, high=SPREAD[1] * t) for name, t in THICKNESS.items()}
        showers = library(options.folder / "random.h5", options.random, options.seed + 4, options.workers, **laws)
        found, resolutions["regression"] = by_regression(showers, options.seed)
        rows.append(("regression", f"{len(showers)}", found))
    if options.surrogate:
        started = time.perf_counter()
        found, resolutions["back-propagation"] = by_surrogate(
            Surrogate.load(options.surrogate), options.generated, options.seed
        )
        print(f"surrogate: {options.generated} showers and their derivatives in {time.perf_counter() - started:.1f} s")
        rows.append(("surrogate", f"{options.generated}", found))
    print("\nd<E>/dt, MeV per mm of every plate, of layers 5 to 18\n")
    print("| thickness of | published | here by | showers | absorbers and gaps | over published | in the gaps |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        print_rows(*row)
    print(f"\nExact differentiation of HepEmShow over published: absorbers {EXACT['absorber']}, gaps {EXACT['gap']}.")
    for how, (absorbers, gaps) in resolutions.items():
        print(f"d ln(sigma/E_vis) / d ln t by {how}: absorbers {absorbers}, gaps {gaps}.")


if __name__ == "__main__":
    main()
