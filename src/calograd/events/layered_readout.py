"""What the cells of a layered detector measure of points: square cells on any grid, with dead strips if wanted.

Cell (i, j) of a layer covers x in [(i - 1/2) pitch, (i + 1/2) pitch) - x_0, y likewise: with the offset (x_0, y_0) at
zero cell 0 is centred on the axis. A real detector is not that regular:

    staggering    the cells of odd layers lie ``stagger`` cm farther in x
    dead strips   between wafers of ``wafer`` cells lie ``gap`` cm of silicon that measures nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calograd.errors import InputError
from calograd.events.clouds import PITCH, Clouds

THRESHOLD = 1e-4
"""Half of what a minimum ionising particle leaves, GeV: a cell below it is not read out."""
GRID = 30
"""Cells across of the regular view."""
_REACH = 40
"""Cells on each side of the axis, of the sparse form."""
_BLOCK = 1 << 23
"""Cells worked on at once."""


@dataclass(frozen=True)
class Readout:
    """The cells of every layer; lengths in cm.

    Args:
        pitch: of the cells.
        offset: (x_0, y_0) of the formula above.
        stagger: of the odd layers in x.
        wafer: cells of a wafer, each way.
        gap: width of the dead strips between wafers; the strip lies half on either side of the border.
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

    def indices(self, clouds: Clouds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cell numbers i and j of every point, and whether it lies on living silicon, each of shape (points,)."""
        places = (clouds.x + self.offset[0] + self.stagger * (clouds.layer % 2), clouds.y + self.offset[1])
        cells, alive = [], np.ones(len(clouds.e), bool)
        side = self.wafer * self.pitch
        for place in places:
            place = np.asarray(place, np.float64)  # noqa: PLW2901 - the same in float64
            cells.append(np.floor(place / self.pitch + 0.5).astype(np.int64))
            if self.gap:
                from_border = np.abs((place / side) % 1 - 0.5) * side  # borders lie half a wafer from the axis
                alive &= from_border >= self.gap / 2
        return cells[0], cells[1], alive


@dataclass(frozen=True)
class Hits:
    """Cells with energy, a sparse form: one entry a cell, in order of showers and layers.

    Args:
        shower, layer, i, j: which cell, shape (hits,), int64; i = j = 0 is that on the axis.
        e: its energy, shape (hits,), GeV, float64.
        n: number of showers.
        readout: which cells.
    """

    shower: np.ndarray
    layer: np.ndarray
    i: np.ndarray
    j: np.ndarray
    e: np.ndarray
    n: int
    readout: Readout

    @property
    def x(self) -> np.ndarray:
        """Of the middles of the cells, cm."""
        return self.i * self.readout.pitch - self.readout.offset[0] - self.readout.stagger * (self.layer % 2)

    @property
    def y(self) -> np.ndarray:
        """Of the middles of the cells, cm."""
        return self.j * self.readout.pitch - self.readout.offset[1]

    def grid(self, layers: int, n_xy: int = GRID) -> np.ndarray:
        """The regular view: energies of cells -n_xy/2 <= i, j < n_xy/2, shape (n, n_xy, n_xy, layers), float32."""
        result = np.zeros((self.n, n_xy, n_xy, layers), np.float32)
        i, j = self.i + n_xy // 2, self.j + n_xy // 2
        seen = (i >= 0) & (i < n_xy) & (j >= 0) & (j < n_xy)
        result[self.shower[seen], i[seen], j[seen], self.layer[seen]] = self.e[seen]
        return result


def read_out(clouds: Clouds, readout: Readout | None = None, threshold: float = THRESHOLD) -> Hits:
    """The cells above a threshold.

    Args:
        clouds: showers.
        readout: which cells; by default those of the stack, without an offset.
        threshold: of a cell, GeV; zero for every cell with energy.
    """
    readout = readout or Readout()
    parts = list(_blocks(clouds, readout, threshold))
    shower, layer, i, j, e = (np.concatenate([part[k] for part in parts]) for k in range(5))
    return Hits(shower, layer, i, j, e, len(clouds), readout)


def count_hits(clouds: Clouds) -> np.ndarray:
    """Cells of the stack above the threshold, of every shower, shape (n,), int64."""
    return np.bincount(read_out(clouds).shower, minlength=len(clouds))


def _blocks(clouds: Clouds, readout: Readout, threshold: float) -> Iterator[tuple[np.ndarray, ...]]:
    """shower, layer, i, j, e of the hits of some showers at a time."""
    i, j, alive = readout.indices(clouds)
    across = 2 * _REACH
    i, j = i + _REACH, j + _REACH
    alive &= (i >= 0) & (i < across) & (j >= 0) & (j < across)
    size = clouds.layers * across**2
    step = max(1, _BLOCK // size)
    owner = clouds.owner
    for start in range(0, max(1, len(clouds)), step):
        stop = min(start + step, len(clouds))
        chosen = slice(int(clouds.offsets[start]), int(clouds.offsets[stop]))
        place = (((owner[chosen] - start) * clouds.layers + clouds.layer[chosen]) * across + i[chosen]) * across
        place = (place + j[chosen])[alive[chosen]]
        sums = np.bincount(place, weights=clouds.e[chosen][alive[chosen]], minlength=(stop - start) * size)
        hit = np.flatnonzero(sums > threshold)
        yield (
            hit // size + start, hit // across**2 % clouds.layers, hit // across % across - _REACH,
            hit % across - _REACH, sums[hit],
        )  # fmt: skip
