"""The bundled Geant4 showers by design and energy, to show beside a surrogate's showers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calograd.detector.material import to_float
from calograd.evaluation.matching import group
from calograd.events.dense import Cells, read_cells
from calograd.explorer.selection import Selection, SelectionLimits
from calograd.surrogate.storage import ASSETS

FILES = ("pbf2-sample/reference.h5", "pbwo4-sample/judge.h5")
SAME = 1e-3
"""Largest relative difference of sizes, energies and densities that count as equal."""


@dataclass(frozen=True)
class BundledShowers:
    """Geant4 showers at one design and energy.

    Args:
        dx: pitch, cm.
        dz: depth of every layer, cm.
        energy: incident energy, GeV.
        cells: the showers.
    """

    dx: float
    dz: tuple[float, ...]
    energy: float
    cells: Cells

    def move(self, selection: Selection) -> Selection:
        """Return the selection moved to this design and energy."""
        material = self.cells.material
        return replace(
            selection,
            dx=self.dx,
            dz=self.dz,
            energy=self.energy,
            material=material.name,
            density=to_float(material.density),
        )


class Reference:
    """All bundled showers that a surrogate can be compared with.

    Args:
        limits: limits of the surrogate; samples of other materials or windows are left out.
    """

    def __init__(self, limits: SelectionLimits) -> None:
        self.points: list[BundledShowers] = []
        for name in FILES:
            if (ASSETS / name).is_file():
                self.points += _points(read_cells(ASSETS / name), limits)

    def at(self, selection: Selection) -> BundledShowers | None:
        """Return the showers at a selection, or None."""
        return next((point for point in self.points if _distance(point, selection) < SAME), None)

    def nearest(self, selection: Selection) -> BundledShowers | None:
        """Return the showers at the smallest relative distance; None if there are none at all."""
        return min(self.points, key=lambda point: _distance(point, selection), default=None)


def _points(cells: Cells, limits: SelectionLimits) -> list[BundledShowers]:
    material = limits.materials.get(cells.material.name)
    fits = cells.cells.shape[1:] == (limits.n_xy, limits.n_xy, limits.n_z)
    if material is None or not material.alike(cells.material, SAME) or not fits:
        return []
    found = []
    for rows in group(cells).values():
        some = cells.rows(rows)
        dz = tuple(round(float(depth), 4) for depth in some.dz[0])
        found.append(BundledShowers(round(float(some.dx[0]), 4), dz, round(float(some.energy[0]), 4), some))
    return found


def _distance(point: BundledShowers, selection: Selection) -> float:
    """Return the largest relative difference; infinity for another material."""
    if point.cells.material.name != selection.material:
        return np.inf
    mine = np.array([selection.dx, *selection.dz, selection.energy, selection.density])
    theirs = np.array([point.dx, *point.dz, point.energy, to_float(point.cells.material.density)])
    return float(np.abs(np.log(mine / theirs)).max())
