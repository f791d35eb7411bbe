"""The regular view of showers in a layered detector, 30 x 30 cells in every layer, kept as its filled cells.

Cell (layer, i, j), 0 <= i, j < 30, is that of `calograd.events.layered_readout` with the numbers i - 15 and j - 15.
What lies beyond the view's edge is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calograd.events.clouds import Clouds
from calograd.events.layered_readout import GRID, Readout, read_out


@dataclass(frozen=True)
class Grids:
    """Showers' cells above the threshold.

    Args:
        cell: flat number of every filled cell, (layer * GRID + i) * GRID + j, shape (hits,).
        e: its energy, shape (hits,), GeV.
        first: first hit of every shower and, last, their number, shape (n + 1,).
        incident: energy, shape (n,), GeV.
        layers: of the detector.
    """

    cell: np.ndarray
    e: np.ndarray
    first: np.ndarray
    incident: np.ndarray
    layers: int

    @classmethod
    def of(cls, clouds: Clouds, readout: Readout | None = None) -> Grids:
        """Of points."""
        hits = read_out(clouds, readout)
        i, j = hits.i + GRID // 2, hits.j + GRID // 2
        seen = (i >= 0) & (i < GRID) & (j >= 0) & (j < GRID)
        cell = ((hits.layer * GRID + i) * GRID + j)[seen]
        count = np.bincount(hits.shower[seen], minlength=hits.n)
        first = np.concatenate([[0], np.cumsum(count)])
        return cls(cell, hits.e[seen], first, clouds.energy.astype(np.float64), clouds.layers)

    def __len__(self) -> int:
        return len(self.incident)

    def rows(self, start: int, stop: int) -> Grids:
        """Showers ``start:stop``."""
        hits = slice(self.first[start], self.first[stop])
        first = self.first[start : stop + 1] - self.first[start]
        return Grids(self.cell[hits], self.e[hits], first, self.incident[start:stop], self.layers)

    def join(self, other: Grids) -> Grids:
        """These showers and then others."""
        return Grids(
            np.concatenate([self.cell, other.cell]), np.concatenate([self.e, other.e]),
            np.concatenate([self.first, other.first[1:] + self.first[-1]]),
            np.concatenate([self.incident, other.incident]), self.layers,
        )  # fmt: skip

    def dense(self, rows: np.ndarray) -> np.ndarray:
        """Energies of chosen showers, shape (rows, layers, GRID, GRID), GeV, float32."""
        count = self.first[rows + 1] - self.first[rows]
        owner = np.repeat(np.arange(len(rows)), count)
        hit = np.arange(len(owner)) + np.repeat(self.first[rows] - (np.cumsum(count) - count), count)
        result = np.zeros((len(rows), self.layers * GRID * GRID), np.float32)
        result[owner, self.cell[hit]] = self.e[hit]
        return result.reshape(len(rows), self.layers, GRID, GRID)
