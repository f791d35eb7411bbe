"""An objective over pitch and depth (equal layers), from Geant4 and from the surrogate.

The grid is even in ln dx and ln dz. All points see the same showers and backgrounds (common random numbers), so
differences between points are better known than the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.gradients.autodiff import BACKGROUND, SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.objective.reference import Reference
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
    """

    source: str
    dx: np.ndarray
    dz: np.ndarray
    values: np.ndarray
    slopes: np.ndarray

    def best(self) -> tuple[float, float, float]:
        """Return dx and dz of the largest value on the grid, cm, and that value."""
        i, j = np.unravel_index(np.argmax(self.values), self.values.shape)
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
    points: int = 9,
    seed: int = 0,
    progress: StageProgress = silent,
) -> list[Landscape]:
    """Return landscapes over the trained range of a surrogate, Geant4's first if there is a reference.

    Args:
        surrogate: generates the showers.
        objective: of the showers.
        reference: Geant4 showers that any design can be measured with.
        material: of the designs; None: the one that the surrogate was trained on.
        points: along each axis.
        seed: of all random numbers.
        progress: called with the stages "landscape, Geant4" and "landscape, surrogate".
    """
    material = material or surrogate.card.designs.material
    card = surrogate.card.in_cm(material)
    dx, dz = grid(*card.dx, points), grid(*card.dz, points)
    made = []
    if reference is not None:
        n_z = surrogate.design_model.architecture.n_z
        made.append(
            geant4_landscape(
                reference, objective, dx, dz, n_z=n_z, seed=seed, progress=partial(progress, "landscape, Geant4")
            )
        )
    tell = partial(progress, "landscape, surrogate")
    return [*made, surrogate_landscape(surrogate, objective, dx, dz, material=material, seed=seed, progress=tell)]


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
        reference: showers of the objective's energies.
        objective: of the showers.
        dx, dz: the grid, cm.
        n_z: layers.
        replicas: backgrounds that each shower is seen with.
        seed: of the background.
        progress: called after every point.
    """
    values = np.empty((len(dx), len(dz)))
    for i, j, done in _points(dx, dz):
        signals = []
        for energy in objective.energies:
            cells = reference.measure(energy, [(float(dx[i]), (float(dz[j]),) * n_z)])[0]
            signals.append(torch.from_numpy(cells).repeat_interleave(replicas, 0))
        n_xy = signals[0].shape[1]
        design = Design(float(dx[i]), float(dz[j]), reference.material, n_xy, n_z)
        numbers = [
            objective.measurement.draw(len(signal), n_xy, n_z, generator_for(seed, BACKGROUND, k))
            for k, signal in enumerate(signals)
        ]
        values[i, j] = float(objective.value(signals, design, numbers))
        progress(done, values.size)
    slopes = np.stack(np.gradient(values, np.log(dx), np.log(dz)), axis=2)
    return Landscape("geant4", dx, dz, values, slopes)


def surrogate_landscape(
    surrogate: Surrogate,
    objective: Objective,
    dx: np.ndarray,
    dz: np.ndarray,
    *,
    material: Material | None = None,
    showers: int = 500,
    seed: int = 0,
    progress: Progress = silent,
) -> Landscape:
    """Return values and exact slopes from the surrogate.

    Args:
        surrogate: generates the showers.
        objective: of the showers.
        dx, dz: the grid, cm, within the trained range.
        material: of the designs; None: the one that the surrogate was trained on.
        showers: of every energy.
        seed: of all random numbers.
        progress: called after every point.
    """
    a, material = surrogate.design_model.architecture, material or surrogate.card.designs.material
    values, slopes = np.empty((len(dx), len(dz))), np.empty((len(dx), len(dz), 2))
    for i, j, done in _points(dx, dz):
        u = torch.tensor([np.log(dx[i]), np.log(dz[j])], dtype=torch.float32, requires_grad=True)
        y = u.exp()
        design = Design(y[0], y[1], material, a.n_xy, a.n_z)
        signals = [
            surrogate.sample(design, e, showers, generator=generator_for(seed, SHOWERS, 0, k), checkpointed=True)
            for k, e in enumerate(objective.energies)
        ]
        value = objective.value(
            signals, design, objective.draw(showers, a.n_xy, a.n_z, generator_for(seed, BACKGROUND, 0))
        )
        slopes[i, j] = torch.autograd.grad(value, u)[0].numpy()
        values[i, j] = float(value.detach())
        progress(done, values.size)
    return Landscape(surrogate.card.name, dx, dz, values, slopes)


def _points(dx: np.ndarray, dz: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Yield the indices of a grid, with the number of points done after each."""
    for number in range(len(dx) * len(dz)):
        i, j = divmod(number, len(dz))
        yield i, j, number + 1
