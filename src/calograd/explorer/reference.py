"""Geant4 showers that are bundled, for a comparison at the designs, energies and beams that they are of.

A smaller window is a crop of a larger one, so showers serve smaller windows as well. Showers of another particle, entry
or direction than those shown are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from calograd.detector.configuration import PDG
from calograd.detector.incidence import SAME_ANGLE, SAME_POSITION, Incidence
from calograd.detector.material import to_float
from calograd.detector.particles import ParticleBeam
from calograd.errors import InputError
from calograd.evaluation.matching import group
from calograd.events.dense import Cells, read_cells
from calograd.explorer.cell_selection import CellLimits, CellSelection
from calograd.explorer.kinds import check_origin
from calograd.metrics.observables import Observables, observe
from calograd.surrogate.storage import ASSETS
from calograd.system.random_numbers import RandomNumbers

FILES = (
    "pbf2-sample/reference.h5", "pbwo4-sample/judge.h5", "crystals-sample/theta-0.h5", "crystals-sample/theta-25.h5",
)  # fmt: skip
SAME = 1e-3
"""Largest relative difference of sizes, energies and densities that count as equal."""
NONE_HERE = "no bundled showers at this design and energy: “nearest Geant4” goes where there are some"


@dataclass(frozen=True)
class BundledShowers:
    """Geant4 showers at one design and energy, of one beam.

    Args:
        selection: the design, energy and beam.
        cells: the showers.
    """

    selection: CellSelection
    cells: Cells

    def move(self, selection: CellSelection) -> CellSelection:
        """Return the selection moved to this design, energy and beam; its window is kept, as far as these have it."""
        n_xy, n_z = min(selection.n_xy, self.selection.n_xy), min(selection.n_z, self.selection.n_z)
        beam = None if selection.beam is None else self.selection.beam
        return replace(
            self.selection, background=selection.background, price=selection.price, n_xy=n_xy,
            dz=self.selection.dz[:n_z], beam=beam,
        )  # fmt: skip

    def crop(self, n_xy: int, n_z: int) -> BundledShowers:
        """Return the showers in a smaller window, or these themselves."""
        if (n_xy, n_z) == (self.selection.n_xy, self.selection.n_z):
            return self
        edge = (self.selection.n_xy - n_xy) // 2
        inner = slice(edge, edge + n_xy)
        measured, dz = self.cells.cells[:, inner, inner, :n_z], self.cells.dz[:, :n_z]
        cells = replace(self.cells, cells=measured, dz=dz, mean_time=None, first_time=None)
        return BundledShowers(replace(self.selection, n_xy=n_xy, dz=self.selection.dz[:n_z]), cells)

    def observe(self) -> Observables:
        """Return the observables of the showers."""
        at = self.selection
        return observe(self.cells.cells, at.dx, np.array(at.dz), incident=self.cells.incident)


class Reference:
    """All bundled showers that a surrogate can be compared with.

    Args:
        limits: limits of the surrogate; samples of other materials or windows are left out.
        path: a file of Geant4's cells beside the bundled ones; its showers come first. None for none.

    Raises:
        InputError: a file of other materials or windows.
        FormatError: a file that cannot be read.
    """

    offered = True
    """True if the page has a button that goes to the nearest Geant4 showers."""

    def __init__(self, limits: CellLimits, path: Path | None = None) -> None:
        self._limits = limits
        self.points: list[BundledShowers] = []
        if path is not None:
            cells = read_cells(path)
            check_origin(path, cells.origin)
            self.points = _points(cells, limits)
            if not self.points:
                windows, layers = (" or ".join(map(str, each)) for each in (limits.windows, limits.layers))
                raise InputError(
                    f"{path} has no showers to compare with: expected cells of {', '.join(limits.materials)} in "
                    f"windows of {windows} cells across and {layers} layers"
                )
        for name in FILES:
            if (ASSETS / name).is_file():
                self.points += _points(read_cells(ASSETS / name), limits)

    def at(self, selection: CellSelection) -> tuple[BundledShowers | None, str]:
        """Return the showers at a selection, or None and a sentence that says why there are none."""
        here = [point for point in self.points if _distance(point, selection) < SAME]
        large = [p for p in here if p.selection.n_xy >= selection.n_xy and p.selection.n_z >= selection.n_z]
        if not large:
            few = f"the bundled showers here are of {here[0].selection.window}, fewer than shown" if here else ""
            return None, f"{few}: not compared" if few else NONE_HERE
        found = next((point for point in large if self._difference(point, selection) is None), None)
        if found is None:
            return None, f"the bundled showers here are of {self._difference(large[0], selection)}: not compared"
        return found.crop(selection.n_xy, selection.n_z), ""

    def nearest(self, selection: CellSelection) -> BundledShowers | None:
        """Return the showers at the smallest relative distance; None if there are none that could be compared.

        At equal distance those of the selection's beam come first.
        """
        points = self.points
        if selection.beam is None:
            points = [point for point in points if self._difference(point, selection) is None]

        def distance(point: BundledShowers) -> tuple[float, bool]:
            return _distance(point, selection), point.selection.beam != selection.beam

        return min(points, key=distance, default=None)

    def _difference(self, point: BundledShowers, selection: CellSelection) -> str | None:
        """Return in words how the beam of bundled showers differs from that of a selection; None if it does not."""
        n = len(point.cells)
        asked = self._limits.incident(n) if selection.beam is None else _drawn(selection.beam, selection.dx, n)
        return point.cells.incident.difference(asked)


def _points(cells: Cells, limits: CellLimits) -> list[BundledShowers]:
    material = limits.materials.get(cells.material.name)
    n_xy, n_z = cells.cells.shape[1], cells.cells.shape[3]
    fits = n_xy in limits.windows and n_z in limits.layers
    if material is None or not material.alike(cells.material, SAME) or not fits:
        return []
    found = []
    for rows in group(cells).values():
        for some in _beams(cells.rows(rows)):
            dx, energy, *dz = (round(float(each), 4) for each in (some.dx[0], some.energy[0], *some.dz[0]))
            beam = _beam(some.incident, dx)
            if beam is not None:
                at = CellSelection(
                    dx, tuple(dz), energy, some.material.name, to_float(some.material.density), n_xy=n_xy, beam=beam
                )
                found.append(BundledShowers(at, some))
    return found


def _beams(cells: Cells) -> Iterator[Cells]:
    """Yield the showers of each particle and angle."""
    kinds = np.column_stack([cells.incident.particle, np.round(cells.incident.theta / SAME_ANGLE)])
    for kind in np.unique(kinds, axis=0):
        yield cells.rows(np.flatnonzero((kinds == kind).all(1)))


def _beam(incident: Incidence, dx: float) -> ParticleBeam | None:
    """Return the beam of showers of one particle and angle, with an entry in units of the pitch; None for others.

    Entries are fixed or drawn over the cell; the azimuth is fixed, or does not matter.
    """
    names = {number: name for name, number in PDG.items()}
    name, theta = names.get(int(incident.particle[0])), float(incident.theta[0])
    if name is None:
        return None
    fixed = bool((np.ptp(incident.position, axis=0) <= SAME_POSITION).all())
    x, y = (float(each) / dx for each in incident.position[0])
    phi = float(incident.phi[0]) if theta > SAME_ANGLE else 0.0
    beam = ParticleBeam(name, (x, y) if fixed else "uniform", theta, phi, unit="pitch")  # type: ignore[arg-type]
    return None if incident.difference(_drawn(beam, dx, len(incident))) else beam


def _drawn(beam: ParticleBeam, dx: float, n: int) -> Incidence:
    """Return n particles of a beam in cells of a pitch in cm."""
    return beam.draw(torch.tensor([dx], dtype=torch.float64), RandomNumbers(0, range(n))).to_incidence(n)


def _distance(point: BundledShowers, selection: CellSelection) -> float:
    """Return the largest relative difference, of the layers that both have; infinity for another material."""
    if point.selection.material != selection.material:
        return np.inf
    layers = min(selection.n_z, point.selection.n_z)
    mine, theirs = (np.array([at.dx, *at.dz[:layers], at.energy, at.density]) for at in (selection, point.selection))
    return float(np.abs(np.log(mine / theirs)).max())
