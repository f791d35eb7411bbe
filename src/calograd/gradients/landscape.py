"""An objective over pitch and depth (equal layers), from Geant4 and from the surrogate.

The grid is even in ln dx and ln dz. All points see the same showers and backgrounds (common random numbers), so
differences between points are better known than the values.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.gradients.autodiff import BACKGROUND, surrogate_values
from calograd.gradients.estimates import generator_for
from calograd.gradients.finite_differences import measure_replicas
from calograd.objective.measurement import MeasuredEvents
from calograd.objective.reference import Reference
from calograd.objective.space import space_around
from calograd.objective.utility import Objective
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, StageProgress, silent


@dataclass(frozen=True)
class Landscape:
    """Values of an objective on a grid.

    Args:
        source: ``geant4`` or the surrogate's name.
        dx, dz: shapes (a,) and (b,), cm, ascending.
        values: shape (a, b).
        slopes: dV/d ln dx and dV/d ln dz, shape (a, b, 2).
        least: whether small values are wanted. The explorer shows the resolution of stacks of plates so; there the
            thicknesses of absorber and active plate take the places of dx and dz.
    """

    source: str
    dx: np.ndarray
    dz: np.ndarray
    values: np.ndarray
    slopes: np.ndarray
    least: bool = False

    def best(self) -> tuple[float, float, float]:
        """Return dx and dz of the best value on the grid, cm, and that value."""
        i, j = np.unravel_index(np.argmax(-self.values if self.least else self.values), self.values.shape)
        return float(self.dx[i]), float(self.dz[j]), float(self.values[i, j])

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "source": self.source, "dx": self.dx.tolist(), "dz": self.dz.tolist(), "values": self.values.tolist(),
            "slopes": self.slopes.tolist(),
        }  # fmt: skip


def grid(low: float, high: float, points: int) -> np.ndarray:
    """Return points that are even in the logarithm."""
    return np.exp(np.linspace(np.log(low), np.log(high), points))


def landscapes(
    surrogate: Surrogate,
    objective: Objective,
    *,
    reference: Reference | None = None,
    material: Material | None = None,
    cells: tuple[int, int] | None = None,
    points: int = 9,
    seed: int = 0,
    progress: StageProgress = silent,
) -> list[Landscape]:
    """Return landscapes over the trained range of a surrogate, Geant4's first if there is a reference.

    Args:
        reference: Geant4 showers that any design can be measured with.
        points: number of points along each axis.
        progress: called with the stages "landscape, Geant4" and "landscape, surrogate".
        surrogate, objective, material, cells, seed: see `surrogate_landscape`.
    """
    material = material or surrogate.card.designs.material
    card = surrogate.card.in_cm(material)
    dx, dz, made = grid(*card.dx, points), grid(*card.dz, points), list[Landscape]()
    if reference is not None:
        n_z = cells[1] if cells else surrogate.design_model.architecture.n_z
        tell = partial(progress, "landscape, Geant4")
        made.append(geant4_landscape(reference, objective, dx, dz, n_z=n_z, seed=seed, progress=tell))
    tell = partial(progress, "landscape, surrogate")
    ours = surrogate_landscape(
        surrogate, objective, dx, dz, material=material, cells=cells, seed=seed, progress=tell
    )  # fmt: skip
    return [*made, ours]


def geant4_landscape(
    reference: Reference,
    objective: Objective,
    dx: np.ndarray,
    dz: np.ndarray,
    *,
    n_z: int = 5,
    replicas: int = 1,
    seed: int = 0,
    progress: Progress = silent,
) -> Landscape:
    """Return values from Geant4 showers; slopes are differences between neighbours on the grid.

    Args:
        reference, objective, replicas, seed: see `bootstrap_values`.
        dx, dz: the grid, cm.
        n_z: layers.
        progress: called after every point.
    """
    sizes = [(float(x), (float(z),) * n_z) for x, z in product(dx, dz)]
    values = np.empty(len(sizes))
    for k, size in enumerate(sizes):
        cells = [torch.from_numpy(reference.measure(energy, [size])[0]) for energy in objective.energies]
        n_xy, events = cells[0].shape[1], list[MeasuredEvents]()
        design = Design(*size, reference.material, n_xy, n_z)
        for i, (energy, each) in enumerate(zip(objective.energies, cells, strict=True)):
            generator = generator_for(seed, BACKGROUND, i)
            events.append(measure_replicas(objective, [design], energy, each[None], replicas, generator)[0])
        values[k] = float(objective.average(events))
        progress(k + 1, len(sizes))
    at = values.reshape(len(dx), len(dz))
    return Landscape("geant4", dx, dz, at, np.stack(np.gradient(at, np.log(dx), np.log(dz)), axis=2))


def surrogate_landscape(
    surrogate: Surrogate,
    objective: Objective,
    dx: np.ndarray,
    dz: np.ndarray,
    *,
    material: Material | None = None,
    cells: tuple[int, int] | None = None,
    showers: int = 500,
    seed: int = 0,
    progress: Progress = silent,
) -> Landscape:
    """Return values and exact slopes from the surrogate.

    Args:
        dx, dz: the grid, cm, within the trained range.
        material: material of the designs; None: the one that the surrogate was trained on.
        cells: cells across and layers; None: those of the surrogate.
        surrogate, objective, showers, seed, progress: see `surrogate_values`.
    """
    a, card = surrogate.design_model.architecture, surrogate.card
    material = material or card.designs.material
    ends = card.in_cm(material)
    n_xy, n_z = cells or (a.n_xy, a.n_z)
    space, _ = space_around(float(dx[0]), float(dz[0]), ends.dx, ends.dz, material, n_xy, n_z)
    points = np.array(list(product(dx, dz)))
    values, slopes = surrogate_values(
        surrogate, objective, space, points, showers=showers, seed=seed, progress=progress
    )
    shape = len(dx), len(dz)
    return Landscape(card.name, dx, dz, values[0].reshape(shape), slopes[0].reshape(*shape, 2))
