"""Classifier on the grids of a layered detector: 30 x 30 cells in 30 layers, hits above the threshold.

A small network of two convolutions over x and y, each halving the grid, sees two images a layer and the energy,

    ln(1 + e / threshold) / 4        e / (E_inc / 1000)        ln(E_inc / 40 GeV)

The first shows the energies of cells, the second lets the network find their sums. Layers are channels, because no two
layers of a calorimeter are alike. Grids are kept as hits and made dense a batch at a time; a thousand take 0.2 GB.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from calograd.events.layered_readout import GRID, THRESHOLD, Hits
from calograd.metrics.classifier import Duration, Fit, LabelledRows, train_classifier

WIDTH = 48
"""Channels of the convolutions."""
DURATION = Duration(batch=64, steps=800, least=6, most=25)
"""Length of a training."""


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
        """Return the scores of grids (n, 2, layers, GRID, GRID) at incident energies (n,) in GeV, shape (n, 1)."""
        result: Tensor = self.head(torch.cat([self.body(grids), (energy / 40).log()[:, None]], dim=1))
        return result


def grid_rows(ours: Hits, theirs: Hits) -> tuple[LabelledRows, Fit]:
    """Return rows that name showers by their number, and the training of a classifier on them."""
    both = Hits.concatenate([ours, theirs])
    number = np.arange(len(both))
    return LabelledRows(number[:, None], number < len(ours), number), _fit(both)


def _fit(grids: Hits) -> Fit:
    """Return the training of a classifier of the showers of ``grids``; their numbers are its features."""

    def fit(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
        number = features[:, 0]
        net = train_classifier(
            lambda: GridNet(grids.layers), lambda net, rows: _scores(net, grids, number[rows]), labels, DURATION, rng
        )
        return torch.no_grad()(lambda rows: np.asarray(_scores(net, grids, rows[:, 0]).numpy()))

    return fit


def images(grids: Hits, rows: np.ndarray) -> Tensor:
    """Return the two channels of chosen showers, shape (rows, 2, layers, GRID, GRID), float32."""
    e = np.ascontiguousarray(np.moveaxis(grids.rows(rows).grid(), 3, 1))
    incident = grids.energy[rows, None, None, None].astype(np.float32)
    return torch.from_numpy(np.stack([np.log1p(e / np.float32(THRESHOLD)) / 4, 1e3 * e / incident], axis=1))


def _scores(net: nn.Module, grids: Hits, number: np.ndarray) -> Tensor:
    """Return the scores of showers, computed some at a time, shape (n,)."""
    parts = [number[start : start + 2 * DURATION.batch] for start in range(0, len(number), 2 * DURATION.batch)]
    energy = torch.from_numpy(grids.energy.astype(np.float32))
    return torch.cat([net(images(grids, part), energy[torch.from_numpy(part)])[:, 0] for part in parts])
