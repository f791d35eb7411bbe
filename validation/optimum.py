"""Compare the optimum of an ascent with a scan by Geant4: optimum.py library.h5 CONFIG.toml [RUN].

Scans the objective of an optimisation's configuration on a grid over its bounds with Geant4 showers, then on a fine
grid around the best point, fits a parabola in ln dx, ln dz to the fine grid and prints its maximum with a bootstrap
error, beside the result of RUN (a folder of 'calograd optimise').
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import numpy as np

from calograd.events.library.reader import open_library
from calograd.gradients.finite_differences import bootstrap_values
from calograd.gradients.landscape import grid
from calograd.objective.reference import LibraryReference
from calograd.optimisation.run import parse_optimisation

COARSE, FINE = 13, 7
REACH = (0.12, 0.22)
"""Half width of the fine grid in ln dx and ln dz."""


def main() -> None:
    config_path = Path(sys.argv[2])
    raw = tomllib.loads(config_path.read_text(encoding="utf-8"))
    config = parse_optimisation(raw, str(config_path), config_path.parent)
    objective, space = config.build(), config.space.space()
    with open_library(Path(sys.argv[1])) as library:
        reference = LibraryReference(library, objective.energies)
    axes = [grid(low, high, COARSE) for low, high in zip(space.lower, space.upper, strict=True)]
    coarse, _ = scan(reference, objective, space, axes, bootstrap=2)
    best = np.unravel_index(np.argmax(coarse), coarse.shape)
    centre = [axes[k][best[k]] for k in range(2)]
    print(f"coarse grid {COARSE} x {COARSE}: best {centre[0]:.3f} x {centre[1]:.2f} cm, U = {coarse.max():.4g}")
    np.set_printoptions(precision=3, linewidth=160, suppress=True)
    print("dx", axes[0], "\ndz", axes[1])
    print(coarse)
    axes = [
        np.clip(np.exp(np.linspace(np.log(c) - r, np.log(c) + r, FINE)), low, high)
        for c, r, low, high in zip(centre, REACH, space.lower, space.upper, strict=True)
    ]
    fine, samples = scan(reference, objective, space, axes, bootstrap=200)
    top = maximum(axes, fine)
    spread = np.array([maximum(axes, sample) for sample in samples])
    low, high = np.percentile(spread, [16, 84], axis=0)
    for k, name in enumerate(("dx", "dz")):
        print(f"Geant4, {reference.count(objective.energies[0])} showers: {name} = {top[k]:.3f} cm, "
              f"68 % {low[k]:.3f} to {high[k]:.3f}")  # fmt: skip
    if len(sys.argv) > 3:
        state = json.loads((Path(sys.argv[3]) / "ascent.json").read_text(encoding="utf-8"))["state"]
        y = state["y"]
        print(f"gradients: {y[0]:.3f} x {y[1]:.3f} cm after {len(state['history'])} steps, "
              f"off by {y[0] - top[0]:+.3f} and {y[1] - top[1]:+.3f} cm")  # fmt: skip


def scan(reference, objective, space, axes, bootstrap):  # type: ignore[no-untyped-def]
    points = [np.array([dx, dz]) for dx in axes[0] for dz in axes[1]]
    values, samples = bootstrap_values(
        reference, objective, [space.design(y) for y in points], bootstrap=bootstrap, replicas=8, seed=5
    )
    shape = (len(axes[0]), len(axes[1]))
    return values.reshape(shape), samples.reshape(-1, *shape)


def maximum(axes: list[np.ndarray], values: np.ndarray) -> np.ndarray:
    """Return the maximum within the grid of the cubic fitted to the logarithm of the values."""
    x, z = np.meshgrid(np.log(axes[0]), np.log(axes[1]), indexing="ij")
    x0, z0 = x.mean(), z.mean()
    dx, dz = (x - x0).ravel(), (z - z0).ravel()
    basis = np.column_stack([np.ones_like(dx), dx, dz, dx**2, dx * dz, dz**2, dx**3, dx**2 * dz, dx * dz**2, dz**3])
    c = np.linalg.lstsq(basis, np.log(values).ravel(), rcond=None)[0]
    u = np.linspace(-1, 1, 201)
    a, b = np.meshgrid(u * dx.max(), u * dz.max(), indexing="ij")
    a, b = a.ravel(), b.ravel()
    fitted = np.column_stack([np.ones_like(a), a, b, a**2, a * b, b**2, a**3, a**2 * b, a * b**2, b**3]) @ c
    k = int(np.argmax(fitted))
    return np.exp([x0 + a[k], z0 + b[k]])


if __name__ == "__main__":
    main()
