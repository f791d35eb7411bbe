"""Check derivatives of a sampling calorimeter against a published truth: hepemshow.py FOLDER.

The detector is that of HepEmShow (arXiv 2405.07944): 50 layers of 2.30 mm PbWO4 and 5.70 mm liquid argon, 400 mm wide,
and electrons of 10 GeV. Asked is d<E>/dt, where E is the energy in the absorbers and gaps of layers 5 to 18 (from 0)
and t the thickness of every absorber, or of every gap. Published are finite differences of a million showers with
HepEmShow, and what exact algorithmic differentiation of its code gives (arXiv 2605.06779; `PUBLISHED`, `EXACT`).

Geant4 is asked in two ways, since showers at two thicknesses have nothing in common whatever their random numbers:

    differences   independent showers at t - h and t + h, (<E(t + h)> - <E(t - h)>) / 2h, for either thickness
    regression    every shower in a stack of its own, both thicknesses log-uniform in 0.70 to 1.42 of these; a cubic in
                  x = ln(absorber / 0.23 cm) and y = ln(gap / 0.57 cm) is fitted to E, and its slopes at 0 are taken

The regression also gives d ln(sigma/E_vis) / d ln t for the energy E_vis in all gaps: with the cubic's residuals,
relative to it, a normal distribution whose ln sigma is linear in x and y is fitted by maximum likelihood. Errors are
those of means, and of a bootstrap over showers.

    python validation/hepemshow.py hepemshow --showers 200 --random 800                       # some five minutes a core
    python validation/hepemshow.py hepemshow --showers 4000 --random 16000 --workers 8        # errors of 2 and 4 %

Libraries of showers are kept in the folder, and a call with more showers adds to them.

With ``--surrogate FOLDER`` a surrogate of stacks of plates is asked, too: all its derivatives are of one backward pass
through its showers. Their errors are from `PARTS` parts of these; they do not contain what the surrogate has learnt
wrongly.

    python validation/hepemshow.py hepemshow --showers 0 --random 0 --surrogate runs/sampling/sampling
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize

from calograd import SamplingDesign, Surrogate, open_plates, simulate
from calograd.detector.sampling_stack import SamplingStack, ThicknessRange
from calograd.errors import OutputExistsError
from calograd.events.plates import PlateShowers

THICKNESS = {"absorber": 0.23, "gap": 0.57}
"""Thicknesses of the published detector, cm."""
STEP = {"absorber": 0.02, "gap": 0.1}
"""Half the distance of the two thicknesses of a difference, cm."""
SPREAD = (0.70, 1.42)
"""Ends of the drawn thicknesses, relative to the published detector's."""
LAYERS = slice(5, 19)
"""The layers whose energy is summed."""
PUBLISHED = {"absorber": (2233.7, 14.8), "gap": (195.8, 9.4)}
"""Finite differences of HepEmShow and their errors, MeV/mm."""
EXACT = {"absorber": "0.77", "gap": "3.02 +- 0.15"}
"""Exact algorithmic differentiation of HepEmShow over these."""
RESAMPLES = 400
"""Number of resamples of a bootstrap."""
PARTS = 10
"""Parts of the surrogate's showers, whose scatter gives its errors."""


class Estimate(NamedTuple):
    """A number and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        digits = max(0, 1 - int(np.floor(np.log10(self.error)))) if self.error > 0 else 3
        return f"{self.value:.{digits}f} +- {self.error:.{digits}f}"


class Energies(NamedTuple):
    """Energies of showers, MeV, each of shape (n,).

    Attributes:
        both: in absorbers and gaps of the layers `LAYERS`.
        gaps: in the gaps of these layers.
        visible: in all gaps.
    """

    both: np.ndarray
    gaps: np.ndarray
    visible: np.ndarray

    @classmethod
    def of(cls, showers: PlateShowers) -> Energies:
        """Return the energies of showers."""
        plates = 1000 * showers.energies().astype(np.float64)
        return cls(plates[:, LAYERS].sum((1, 2)), plates[:, LAYERS, 2].sum(1), plates[:, :, 2].sum(1))


def library(path: Path, showers: int, seed: int, workers: int, **thickness: float | ThicknessRange) -> PlateShowers:
    """Return showers of electrons of 10 GeV in a folder's library, which is begun, continued or used as it is."""
    sizes = {"absorber": THICKNESS["absorber"], "gap": THICKNESS["gap"]} | thickness
    stack = SamplingStack(
        absorber=("PbWO4",), active=("G4_lAr",), layers=50, width=40.0,
        absorber_thickness=sizes["absorber"], active_thickness=sizes["gap"],
    )  # fmt: skip
    started = time.perf_counter()
    try:
        made = simulate(
            path, 10.0, showers, seed=seed, detector=stack, particle="e-", workers=workers, append=path.exists()
        )
        spent = f"{made.simulated} simulated in {time.perf_counter() - started:.0f} s, {made.seconds:.0f} s of a core"
    except OutputExistsError:
        spent = "used as it is"
    with open_plates(path) as opened:
        if opened.stack != stack:
            raise SystemExit(f"{path} is of another detector; choose another folder")
        print(f"{path.name}: {len(opened)} showers, {spent}", flush=True)
        return opened.read()


def difference(low: np.ndarray, high: np.ndarray, step: float) -> Estimate:
    """Return the derivative from energies (MeV) of independent showers at two thicknesses, MeV/mm."""
    variance = low.var(ddof=1) / len(low) + high.var(ddof=1) / len(high)
    return Estimate((high.mean() - low.mean()) / (20 * step), float(np.sqrt(variance)) / (20 * step))


def cubic(x: np.ndarray) -> np.ndarray:
    """Return the terms of a cubic in two variables, shape (n, 10): the first is 1, then x and y."""
    powers = [(0, 0), (1, 0), (0, 1), *((a, d - a) for d in (2, 3) for a in range(d + 1))]
    return np.stack([x[:, 0] ** a * x[:, 1] ** b for a, b in powers], 1)


def slopes(x: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return the slopes at 0 of a cubic fitted to energies, shape (2,)."""
    return np.linalg.lstsq(cubic(x), energy, rcond=None)[0][1:3]


def resolution_slopes(x: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the slopes of ln(sigma/E_vis) with x, shape (2,), by maximum likelihood."""
    mean = cubic(x) @ np.linalg.lstsq(cubic(x), visible, rcond=None)[0]
    squares = (visible / mean - 1) ** 2
    terms = np.concatenate([np.ones((len(x), 1)), x], 1)

    def loss(k: np.ndarray) -> tuple[float, np.ndarray]:
        share = squares * np.exp(-2 * terms @ k)
        return float(np.mean(terms @ k + share / 2)), terms.T @ (1 - share) / len(x)

    start = np.array([0.5 * np.log(squares.mean()), 0.0, 0.0])
    found: np.ndarray = minimize(loss, start, jac=True, method="BFGS").x
    return found[1:]


def bootstrap(function: object, x: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> list[Estimate]:
    """Return what a function of showers gives, with errors from `RESAMPLES` resamples."""
    assert callable(function)
    rows = [rng.integers(0, len(x), len(x)) for _ in range(RESAMPLES)]
    errors = np.std([function(x[some], values[some]) for some in rows], axis=0, ddof=1)
    return [Estimate(float(v), float(e)) for v, e in zip(function(x, values), errors, strict=True)]


Slopes = dict[str, tuple[Estimate, Estimate]]
"""By the plates' name, derivatives of the energy in absorbers and gaps, and of that in the gaps, MeV/mm."""


def by_differences(folder: Path, showers: int, seed: int, workers: int) -> Slopes:
    """Return the derivatives from independent showers, ``showers`` at each of four ends."""
    found: Slopes = {}
    for number, name in enumerate(THICKNESS):
        ends = []
        for side, sign in enumerate((-1, 1)):
            path, size = folder / f"{name}-{('low', 'high')[side]}.h5", THICKNESS[name] + sign * STEP[name]
            ends.append(Energies.of(library(path, showers, seed + 2 * number + side, workers, **{name: size})))
        low, high = ends
        found[name] = difference(low.both, high.both, STEP[name]), difference(low.gaps, high.gaps, STEP[name])
    return found


def by_regression(showers: PlateShowers, seed: int) -> tuple[Slopes, list[Estimate]]:
    """Return the derivatives from showers in random stacks, and d ln(sigma/E_vis) / d ln t of absorbers and gaps."""
    energies, rng = Energies.of(showers), np.random.default_rng(seed)
    sizes = showers.thicknesses()[:, 0, [0, 2]].astype(np.float64)
    x = np.log(sizes / np.array(list(THICKNESS.values())))
    both, gaps = (bootstrap(slopes, x, energy, rng) for energy in (energies.both, energies.gaps))
    found: Slopes = {}
    for k, (name, thickness) in enumerate(THICKNESS.items()):
        one, other = (Estimate(*(number / (10 * thickness) for number in each[k])) for each in (both, gaps))
        found[name] = one, other
    return found, bootstrap(resolution_slopes, x, energies.visible, rng)


def by_surrogate(surrogate: Surrogate, showers: int, seed: int) -> tuple[Slopes, list[Estimate]]:
    """Return what `by_regression` does, by back-propagation through ``showers`` of a surrogate."""
    each = showers // PARTS
    logs = torch.zeros(PARTS, 2, requires_grad=True)  # of the thicknesses over those of the detector
    sizes = torch.tensor(list(THICKNESS.values())) * logs.exp().repeat_interleave(each, 0)
    stack = SamplingDesign("PbWO4", "lAr", sizes[:, :1], sizes[:, 1:], 50)
    generator = torch.Generator().manual_seed(seed)
    made = surrogate.sample(stack, 10.0, len(sizes), particle="e-", generator=generator, layers_only=True)
    gaps, absorbers = 1000 * made.layer_energies(), 1000 * made.absorbed_energies()
    visible = gaps.sum(1).reshape(PARTS, each)
    inner = (gaps[:, LAYERS].sum(1).reshape(PARTS, each), absorbers[:, LAYERS].sum(1).reshape(PARTS, each))
    asked = (inner[0].mean(1) + inner[1].mean(1), inner[0].mean(1), (visible.std(1) / visible.mean(1)).log())
    both, in_gaps, spread = (torch.autograd.grad(part.sum(), logs, retain_graph=True)[0].numpy() for part in asked)
    found: Slopes = {}
    for k, (name, thickness) in enumerate(THICKNESS.items()):
        found[name] = _of_parts(both[:, k] / (10 * thickness)), _of_parts(in_gaps[:, k] / (10 * thickness))
    return found, [_of_parts(spread[:, k]) for k in range(2)]


def _of_parts(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


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
