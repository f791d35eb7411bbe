"""A map of vectors with few, wide operations: what one evaluation can be had for.

With y = [x, c], c the conditions,

    h = SiLU(W_1 y);     h = SiLU(W_b h) for every further hidden layer;     F = V h + A y
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.linear import linear


class VectorMap(nn.Module):
    """Conditional map of vectors; begins as F = 0.

    Args:
        dim: numbers of a vector.
        conditions: numbers that condition it.
        width: of the hidden layers.
        hidden: their number.
    """

    def __init__(self, dim: int, conditions: int, width: int = 256, hidden: int = 2) -> None:
        super().__init__()
        sizes = [dim + conditions, *(width for _ in range(hidden))]
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        for layer in layers[1:]:  # with default weights little of x comes through
            nn.init.orthogonal_(layer.weight, 1.5)
        self.hidden = nn.ModuleList(layers)
        self.out = nn.Linear(width, dim, bias=False)
        self.straight = nn.Linear(dim + conditions, dim)
        for parameter in (*self.out.parameters(), *self.straight.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Return F, shape (n, dim), of x (n, dim) and conditions (n, conditions)."""
        y = torch.cat([x, conditions], dim=1)
        h = y
        for layer in self.hidden:
            h = silu(linear(layer, h))
        return linear(self.straight, y) + linear(self.out, h)
