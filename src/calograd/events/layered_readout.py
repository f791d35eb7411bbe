"""Readout of a layered detector: the cells that points raise, on any square grid, with dead strips if wanted.

Cell (i, j) of a layer covers x in [(i - 1/2) pitch, (i + 1/2) pitch) - x_0, y likewise: with the offset (x_0, y_0) at
zero, cell 0 is centred on the axis. A real detector is less regular:

    staggering    the cells of odd layers lie ``stagger`` cm farther in x
    dead strips   between wafers of ``wafer`` cells lie ``gap`` cm of silicon that measures nothing
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from calograd.errors import InputError
from calograd.events.binning import deposit_blocks, sum_bins
from calograd.events.point_showers import PITCH, PointShowers
from calograd.events.ragged import Ragged, offsets_of

THRESHOLD = 1e-4
"""Energy above which a cell is read out, GeV: half of what a minimum ionising particle leaves."""
GRID = 30
"""Cells across of the regular view."""
_REACH = 40
"""Cells on each side of the axis beyond which nothing is read out."""


@dataclass(frozen=True)
class Readout:
    """The cells of every layer; lengths in cm.

    Args:
        pitch: pitch of the cells.
        offset: (x_0, y_0) of the formula above.
        stagger: shift of the odd layers in x.
        wafer: cells of a wafer, each way.
        gap: width of the dead strips between wafers; half of a strip lies on either side of the border.
    """

    pitch: float = PITCH
    offset: tuple[float, float] = (0.0, 0.0)
    stagger: float = 0.0
    wafer: int = 18
    gap: float = 0.0

    def __post_init__(self) -> None:
        if not (self.pitch > 0 and self.wafer > 0 and 0 <= self.gap < self.wafer * self.pitch):
            raise InputError(
                f"cells of {self.pitch:g} cm, {self.wafer} a wafer with {self.gap:g} cm dead: expected positive sizes "
                "and a strip narrower than the wafer"
            )

    def indices(self, showers: PointShowers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return cell numbers i and j of every point and whether it lies on living silicon, shape (points,) each."""
        cells, alive = [], np.ones(len(showers.e), bool)
        side = self.wafer * self.pitch
        shift = self.offset[0] + self.stagger * (showers.layer % 2)
        for coordinate in (showers.x + shift, showers.y + self.offset[1]):
            exact = np.asarray(coordinate, np.float64)
            cells.append(np.floor(exact / self.pitch + 0.5).astype(np.int64))
            if self.gap:
                from_border = np.abs((exact / side) % 1 - 0.5) * side  # borders lie half a wafer from the axis
                alive &= from_border >= self.gap / 2
        return cells[0], cells[1], alive


@dataclass(frozen=True)
class Hits(Ragged):
    """Cells above a threshold, one entry a cell, in order of showers and layers.

    Args:
        layer, i, j: which cell, shape (hits,), int64; i = j = 0 is the cell on the axis.
        e: energy of the cell, shape (hits,), GeV, float64.
        offsets: shower s owns the hits ``offsets[s]:offsets[s + 1]``, shape (n + 1,), int64.
        energy: incident energy, shape (n,), GeV.
        layers: number of layers of the detector.
        readout: the cells.
    """

    FLAT: ClassVar = ("layer", "i", "j", "e")
    layer: np.ndarray
    i: np.ndarray
    j: np.ndarray
    e: np.ndarray
    offsets: np.ndarray
    energy: np.ndarray
    layers: int
    readout: Readout

    @property
    def x(self) -> np.ndarray:
        """Middles of the cells, cm."""
        return self.i * self.readout.pitch - self.readout.offset[0] - self.readout.stagger * (self.layer % 2)

    @property
    def y(self) -> np.ndarray:
        """Middles of the cells, cm."""
        return self.j * self.readout.pitch - self.readout.offset[1]

    def within(self, n_xy: int = GRID) -> Hits:
        """Return the hits of the regular view, the cells -n_xy/2 <= i, j < n_xy/2."""
        i, j = self.i + n_xy // 2, self.j + n_xy // 2
        seen = (i >= 0) & (i < n_xy) & (j >= 0) & (j < n_xy)
        offsets = offsets_of(np.bincount(self.owner[seen], minlength=len(self)))
        return replace(
            self, layer=self.layer[seen], i=self.i[seen], j=self.j[seen], e=self.e[seen], offsets=offsets
        )  # fmt: skip

    def grid(self, n_xy: int = GRID) -> np.ndarray:
        """Return the energies of the regular view, shape (n, n_xy, n_xy, layers), GeV, float32."""
        hits = self.within(n_xy)
        result = np.zeros((len(self), n_xy, n_xy, self.layers), np.float32)
        result[hits.owner, hits.i + n_xy // 2, hits.j + n_xy // 2, hits.layer] = hits.e
        return result


def read_out(showers: PointShowers, readout: Readout | None = None, threshold: float = THRESHOLD) -> Hits:
    """Return the cells above a threshold.

    Args:
        showers: showers as points.
        readout: the cells; by default those of the silicon-tungsten stack, without an offset.
        threshold: of a cell, GeV; zero for every cell with energy.
    """
    readout = readout or Readout()
    across = 2 * _REACH
    i, j, inside = readout.indices(showers)
    i, j = i + _REACH, j + _REACH
    inside &= (i >= 0) & (i < across) & (j >= 0) & (j < across)
    index, cells = (showers.layer * across + i) * across + j, showers.layers * across**2
    counts, numbers, energies = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0)]
    for _, part, points in deposit_blocks(showers.offsets, cells):
        sums = sum_bins(index[part].astype(np.int32), inside[part], showers.e[part], points, cells)
        hit = np.flatnonzero(sums > threshold)
        counts.append(np.bincount(hit // cells, minlength=len(points)))
        numbers.append(hit % cells)
        energies.append(sums.ravel()[hit])
    number = np.concatenate(numbers)
    return Hits(
        number // across**2, number // across % across - _REACH, number % across - _REACH, np.concatenate(energies),
        offsets_of(np.concatenate(counts)), showers.energy, showers.layers, readout,
    )  # fmt: skip


def count_hits(showers: PointShowers) -> np.ndarray:
    """Return the number of the stack's cells above the threshold in every shower, shape (n,), int64."""
    return np.asarray(read_out(showers).counts)
