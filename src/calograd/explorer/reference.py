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
        selection: the design and energy.
        cells: the showers.
    """

    selection: Selection
    cells: Cells

    def move(self, selection: Selection) -> Selection:
        """Return the selection moved to this design and energy."""
        return replace(self.selection, background=selection.background, price=selection.price)


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
        dx, energy, *dz = (round(float(each), 4) for each in (some.dx[0], some.energy[0], *some.dz[0]))
        at = Selection(dx, tuple(dz), energy, some.material.name, to_float(some.material.density))
        found.append(BundledShowers(at, some))
    return found


def _distance(point: BundledShowers, selection: Selection) -> float:
    """Return the largest relative difference; infinity for another material."""
    if point.selection.material != selection.material:
        return np.inf
    mine, theirs = (np.array([at.dx, *at.dz, at.energy, at.density]) for at in (selection, point.selection))
    return float(np.abs(np.log(mine / theirs)).max())
