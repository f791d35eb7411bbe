"""Compare a surrogate of stacks of plates with Geant4 in stacks of its own: sampling.py FOLDER SURROGATE.

Electrons of 10 GeV along the normal in three stacks:

    PbWO4/lAr   2.30 mm and 5.70 mm, 50 layers, that of HepEmShow (arXiv 2405.07944)
    Pb/plastic  2 mm and 4 mm, 60 layers
    W/Si        20 layers of 2.1 mm and 10 of 4.2 mm, silicon of 0.525 mm, the thicknesses of the ILD without air

For each: mean and relative standard deviation of the energy in the active plates, mean energy in all plates, mean and
standard deviation of the depth of the energy in the active plates (in layers; of a shower, then averaged), and the
layer profile. Errors are standard errors of both sides; that of a standard deviation s is
s sqrt((m4 / s^4 - 1) / 4 n). Of the profile the largest difference of a layer's mean over the largest layer's mean is
stated, and the mean square of the pulls of all layers, one if there are no differences.

    python validation/sampling.py sampling runs/sampling/sampling

Libraries of Geant4's showers are kept in the folder.
"""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from hepemshow import Estimate

from calograd import SamplingDesign, Surrogate, open_plates, simulate
from calograd.errors import OutputExistsError

ENERGY = 10.0
"""Incident energy, GeV."""
STACKS = {
    "PbWO4/lAr": SamplingDesign("PbWO4", "lAr", 0.23, 0.57, 50),
    "Pb/plastic": SamplingDesign("Pb", "PVT", 0.2, 0.4, 60),
    "W/Si": SamplingDesign("W", "Si", [0.21] * 20 + [0.42] * 10, 0.0525),
}
"""The stacks by name."""


class Observables(NamedTuple):
    """Observables of showers, with errors.

    Attributes:
        visible: mean energy in the active plates, MeV.
        resolution: its relative standard deviation.
        deposited: mean energy in all plates, MeV.
        mean, width: mean and standard deviation of the depth of the visible energy, averaged over showers, layers.
    """

    visible: Estimate
    resolution: Estimate
    deposited: Estimate
    mean: Estimate
    width: Estimate


def observables(absorber: np.ndarray, active: np.ndarray) -> Observables:
    """Return the observables of showers from energies of plates, shape (n, layers) each, GeV."""
    visible, total = 1000 * active.sum(1), 1000 * (active + absorber).sum(1)
    place = np.arange(active.shape[1])
    share = active / active.sum(1, keepdims=True)
    mean = share @ place
    width = np.sqrt((share * (place - mean[:, None]) ** 2).sum(1))
    spread = float(visible.std(ddof=1) / visible.mean())
    fourth = float(((visible - visible.mean()) ** 4).mean() / visible.var() ** 2)
    resolution = Estimate(spread, spread * float(np.sqrt((fourth - 1) / (4 * len(visible)))))
    return Observables(mean_of(visible), resolution, mean_of(total), mean_of(mean), mean_of(width))


def mean_of(values: np.ndarray) -> Estimate:
    """Return the mean and its standard error."""
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def ratio(ours: Estimate, theirs: Estimate) -> Estimate:
    """Return the ratio of two independent estimates."""
    value = ours.value / theirs.value
    return Estimate(value, abs(value) * float(np.hypot(ours.error / ours.value, theirs.error / theirs.value)))


def profile(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Return the largest difference of layers' means over the largest mean, and the mean square of the pulls."""
    difference = ours.mean(0) - theirs.mean(0)
    variance = ours.var(0, ddof=1) / len(ours) + theirs.var(0, ddof=1) / len(theirs)
    pulls = difference / np.sqrt(np.maximum(variance, 1e-30))
    return float(np.abs(difference).max() / theirs.mean(0).max()), float((pulls**2).mean())


def simulated(path: Path, stack: SamplingDesign, showers: int, seed: int, workers: int) -> tuple[np.ndarray, ...]:
    """Return Geant4's energies of absorbers and active plates, shape (n, layers) each, GeV."""
    more = {"particle": "e-", "workers": workers, "append": path.exists()}
    with suppress(OutputExistsError):
        simulate(path, ENERGY, showers, seed=seed, detector=stack, **more)
    with open_plates(path) as library:
        energies = library.read().energies()
    return energies[..., 0], energies[..., 2]


def generated(surrogate: Surrogate, stack: SamplingDesign, showers: int, seed: int) -> tuple[np.ndarray, ...]:
    """Return the surrogate's energies of absorbers and active plates, shape (n, layers) each, GeV."""
    generator = torch.Generator().manual_seed(seed)
    made = surrogate.sample(stack, ENERGY, showers, particle="e-", generator=generator, layers_only=True)
    return made.absorbed_energies().numpy(), made.layer_energies().numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the libraries")
    parser.add_argument("surrogate", help="surrogate of stacks of plates: a folder or a bundled name")
    parser.add_argument("--showers", type=int, default=500, help="Geant4's showers in each stack")
    parser.add_argument("--generated", type=int, default=4000, help="the surrogate's showers in each stack")
    parser.add_argument("--seed", type=int, default=701, help="seed of the first stack's showers")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    surrogate = Surrogate.load(options.surrogate)
    print("| stack | observable | Geant4 | surrogate | ratio |\n|---|---|---|---|---|")
    for number, (name, stack) in enumerate(STACKS.items()):
        path = options.folder / f"{name.replace('/', '-')}.h5"
        theirs = simulated(path, stack, options.showers, options.seed + number, options.workers)
        started = time.perf_counter()
        ours = generated(surrogate, stack, options.generated, options.seed + number)
        spent = (time.perf_counter() - started) / options.generated
        for of, one, other in zip(Observables._fields, observables(*theirs), observables(*ours), strict=True):
            print(f"| {name} | {of} | {one} | {other} | {ratio(other, one)} |")
        for plates, one, other in zip(("absorbers", "active plates"), theirs, ours, strict=True):
            largest, square = profile(other, one)
            print(f"| {name} | profile, {plates} | | largest difference {largest:.3f} | pulls^2 {square:.2f} |")
        print(f"| {name} | ms a shower | | {1000 * spent:.3f} | |", flush=True)


if __name__ == "__main__":
    main()
