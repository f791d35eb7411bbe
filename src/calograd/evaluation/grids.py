"""Classifier on the regular view of a layered detector: 30 x 30 cells in 30 layers, hits above the threshold.

A small network of two convolutions over x and y, each halving the grid, sees two images a layer and the energy,

    ln(1 + e / threshold) / 4        e / (E_inc / 1000)        ln(E_inc / 40 GeV)

the first for the cells' energies, the second so that sums of them can be found. Layers are channels, as no two of a
calorimeter are alike. Grids are kept as their hits and made dense a batch at a time; a thousand would take 0.2 GB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from calograd.evaluation.classifier import Fit, LabelledRows, descend
from calograd.showers.readout import GRID, THRESHOLD, Hits

WIDTH = 48
BATCH = 64
EPOCHS = (6, 25)
"""At least and at most."""
STEPS = 800
"""Of a training, as near as these allow."""


@dataclass(frozen=True)
class Grids:
    """Showers' cells in the regular view, sparse.

    Args:
        cell: flat number of every filled cell, shape (hits,).
        e: its energy, GeV, shape (hits,).
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
    def of(cls, hits: Hits, incident: np.ndarray, layers: int) -> Grids:
        """The hits that the regular view holds; what lies beyond its edge is not seen."""
        i, j = hits.i + GRID // 2, hits.j + GRID // 2
        seen = (i >= 0) & (i < GRID) & (j >= 0) & (j < GRID)
        cell = ((hits.layer * GRID + i) * GRID + j)[seen]
        count = np.bincount(hits.shower[seen], minlength=hits.n)
        return cls(cell, hits.e[seen], np.concatenate([[0], np.cumsum(count)]), incident, layers)

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

    def dense(self, rows: np.ndarray) -> Tensor:
        """The two channels of chosen showers, shape (rows, 2, layers, GRID, GRID), float32."""
        count = self.first[rows + 1] - self.first[rows]
        owner = np.repeat(np.arange(len(rows)), count)
        hit = np.arange(len(owner)) + np.repeat(self.first[rows] - (np.cumsum(count) - count), count)
        size = self.layers * GRID * GRID
        result = np.zeros((len(rows), 2, size), np.float32)
        e, cell = self.e[hit], self.cell[hit]
        result[owner, 0, cell] = np.log1p(e / THRESHOLD) / 4
        result[owner, 1, cell] = 1e3 * e / self.incident[rows][owner]
        return torch.from_numpy(result.reshape(len(rows), 2, self.layers, GRID, GRID))


class GridNet(nn.Module):
    """Two convolutions and two linear layers; the incident energy enters behind the convolutions."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(1, 2), nn.Conv2d(2 * layers, WIDTH, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1), nn.SiLU(), nn.Flatten(),
        )  # fmt: skip
        side = (GRID + 3) // 4
        self.head = nn.Sequential(nn.Linear(WIDTH * side**2 + 1, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, grids: Tensor, energy: Tensor) -> Tensor:
        """Scores of grids (n, 2, layers, GRID, GRID) at energies (n,), GeV, shape (n, 1)."""
        result: Tensor = self.head(torch.cat([self.body(grids), (energy / 40).log()[:, None]], dim=1))
        return result


def grid_rows(ours: Grids, theirs: Grids) -> tuple[LabelledRows, Fit]:
    """Rows that name showers by their number, and what trains on them."""
    both = ours.join(theirs)
    number = np.arange(len(both))
    return LabelledRows(number[:, None], number < len(ours), number), _fit(both)


def _fit(grids: Grids) -> Fit:
    """A classifier of showers of ``grids``, whose features are their numbers."""

    def fit(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        number = features[:, 0]
        order = rng.permutation(len(number))
        held, used = order[: len(order) // 10], order[len(order) // 10 :]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**31)))
            net = GridNet(grids.layers)
        steps = max(1, len(used) // BATCH)
        epochs = int(np.clip(STEPS // steps, *EPOCHS))
        descend(net, lambda rows: _scores(net, grids, number[rows]), labels, (used, held), (epochs, steps), rng)

        def score(rows: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return np.asarray(_scores(net, grids, rows[:, 0]).numpy())

        return score

    return fit


def _scores(net: GridNet, grids: Grids, number: np.ndarray) -> Tensor:
    """Scores of showers, `BATCH` at a time, shape (n,)."""
    parts = [number[start : start + 2 * BATCH] for start in range(0, len(number), 2 * BATCH)]
    energy = torch.from_numpy(grids.incident.astype(np.float32))
    return torch.cat([net(grids.dense(part), energy[torch.from_numpy(part)])[:, 0] for part in parts])
