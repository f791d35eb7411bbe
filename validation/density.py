"""Compare showers scaled to another density with simulated ones: density.py a.h5 b.h5.

Two shower libraries of one composition and two densities, with the same discrete energies, made for instance by

    calograd simulate --material PbF2:7.4:PbF2 --block 27 27 81 --energies 10,50 --showers 400 --seed 1 -o a.h5
    calograd simulate --material PbF2:8.2:PbF2 --energies 10,50 --showers 400 --seed 2 -o b.h5

For every energy and some designs it prints the biases of the means of a's showers, scaled to b's density, against b's;
then the change of the squared-error utility with ln density, from the two simulations (independent showers) and from
a alone (the same showers scaled), with errors by bootstrap.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from math import log
from pathlib import Path

import numpy as np

from calograd.detector.design import Design
from calograd.evaluation import mean_biases
from calograd.events.library.reader import Library, open_library
from calograd.events.segmentation import segment
from calograd.gradients.finite_differences import bootstrap_values
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.utility import Objective, SquaredError

SIZES = ((1.5, 5.0), (2.5, 6.0), (4.0, 10.0))
SHOWN = ("E_tot", "R_E", "z_mean")


def main() -> None:
    with open_library(Path(sys.argv[1])) as a, open_library(Path(sys.argv[2])) as b:
        assert a.material is not None
        assert b.material is not None
        if not a.material.same_composition(b.material):
            raise SystemExit(
                f"{a.path} is of {a.material.name}, {b.path} of {b.material.name}; expected one composition"
            )
        print(f"{a.material.name}: {a.material.density:g} g/cm3 scaled to {b.material.density:g} g/cm3, less simulated")
        means(a, b)
        slopes(a, b)


def means(a: Library, b: Library) -> None:
    scale = b.material.density / a.material.density
    real = segment(b, designs=list(SIZES), n_xy=5, n_z=5)
    scaled = segment(a, designs=[(scale * dx, scale * dz) for dx, dz in SIZES], n_xy=5, n_z=5)
    scaled = replace(
        scaled, dx=np.tile(real.dx[: len(SIZES)], len(a)), dz=np.tile(real.dz[: len(SIZES)], (len(a), 1)),
        material=b.material,
    )  # fmt: skip
    print(f"\n| energy, GeV | cell, cm | {' | '.join(f'{name}, %' for name in SHOWN)} |")
    print("|---" * (2 + len(SHOWN)) + "|")
    for point, found in mean_biases(scaled, real).items():
        columns = [f"{100 * found[name][0]:+.2f} +- {100 * found[name][1]:.2f}" for name in SHOWN]
        print(f"| {point.energy:g} | {point.design} | {' | '.join(columns)} |")


def slopes(a: Library, b: Library) -> None:
    energies = tuple(float(e) for e in np.unique(a.energy))
    step = log(b.material.density / a.material.density)
    print("\n| energy, GeV | cell, cm | dU/d ln density, two simulations | one, scaled | pull |")
    print("|---|---|---|---|---|")
    for energy in energies:
        objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (energy,))
        ours, theirs = (LibraryReference(library, (energy,)) for library in (a, b))
        for dx, dz in SIZES:
            here, there = Design(dx, dz, a.material), Design(dx, dz, b.material)
            values, samples = bootstrap_values(ours, objective, [here, there], seed=1)
            other, others = bootstrap_values(theirs, objective, [there], seed=2)
            pair, error = (
                (other[0] - values[0]) / step,
                np.hypot(others.std(ddof=1), samples[:, 0].std(ddof=1)) / abs(step),
            )
            scaled = (values[1] - values[0]) / step
            spread = (samples[:, 1] - samples[:, 0]).std(ddof=1) / abs(step)
            # both contain a's own value, so what they may differ by is b's against a scaled
            apart = np.hypot(others.std(ddof=1), samples[:, 1].std(ddof=1)) / abs(step)
            print(f"| {energy:g} | {dx:g} x {dz:g} | {pair:.4g} +- {error:.2g} | {scaled:.4g} +- {spread:.2g} "
                  f"| {(scaled - pair) / apart:+.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
