"""Geant4's showers that come with the package, by design and energy, to show beside a surrogate's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calograd.detector.material import to_float
from calograd.evaluation.matching import group
from calograd.events.cells import Cells, read_cells
from calograd.explorer.selection import Choice, Limits
from calograd.surrogate.storage import ASSETS

FILES = ("pbf2-sample/reference.h5", "pbwo4-sample/judge.h5")
SAME = 1e-3
"""Relative difference of sizes, energies and densities that are taken as equal."""


@dataclass(frozen=True)
class Bundled:
    """Showers at one design and energy.

    Args:
        dx: pitch, cm.
        dz: depth of every layer, cm.
        energy: incident, GeV.
        cells: of the showers.
    """

    dx: float
    dz: tuple[float, ...]
    energy: float
    cells: Cells

    def move(self, choice: Choice) -> Choice:
        """The choice at this design and energy."""
        material = self.cells.material
        return replace(
            choice,
            dx=self.dx,
            dz=self.dz,
            energy=self.energy,
            material=material.name,
            density=to_float(material.density),
        )


class Reference:
    """All bundled showers that a surrogate can be compared with.

    Args:
        limits: of the surrogate; samples of other materials or windows are left out.
    """

    def __init__(self, limits: Limits) -> None:
        self.points: list[Bundled] = []
        for name in FILES:
            if (ASSETS / name).is_file():
                self.points += _points(read_cells(ASSETS / name), limits)

    def at(self, choice: Choice) -> Bundled | None:
        """The showers at a choice, if there are any."""
        return next((point for point in self.points if _distance(point, choice) < SAME), None)

    def nearest(self, choice: Choice) -> Bundled | None:
        """The point whose numbers differ least, relatively; None if there are no showers at all."""
        return min(self.points, key=lambda point: _distance(point, choice), default=None)


def _points(cells: Cells, limits: Limits) -> list[Bundled]:
    material = limits.materials.get(cells.material.name)
    fits = cells.cells.shape[1:] == (limits.n_xy, limits.n_xy, limits.n_z)
    if material is None or not material.alike(cells.material, SAME) or not fits:
        return []
    found = []
    for rows in group(cells).values():
        some = cells.rows(rows)
        dz = tuple(round(float(depth), 4) for depth in some.dz[0])
        found.append(Bundled(round(float(some.dx[0]), 4), dz, round(float(some.energy[0]), 4), some))
    return found


def _distance(point: Bundled, choice: Choice) -> float:
    """Largest relative difference; infinite for another material."""
    if point.cells.material.name != choice.material:
        return np.inf
    mine = np.array([choice.dx, *choice.dz, choice.energy, choice.density])
    theirs = np.array([point.dx, *point.dz, point.energy, to_float(point.cells.material.density)])
    return float(np.abs(np.log(mine / theirs)).max())
