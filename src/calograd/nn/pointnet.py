"""A lean conditional network on points that come in groups.

Points of a group (those of one layer of one shower) share their context c; s is the noise level:

    k = SiLU(W_2 SiLU(W_1 [fourier(s), c]))                                         once a group
    h = W_in x + b(k);   h += W_b SiLU(W_a h (1 + gamma_b(k)) + beta_b(k));   F = W_out h + A(k) x    every point

All that depends on the group alone is computed once for it and handed to its points by their group's number, so the
cost is that of the points: 2 dim width + 2 blocks width^2 products each.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.linear import linear


class PointNet(nn.Module):
    """Conditional residual network on points of groups.

    Args:
        dim: numbers of a point.
        context: numbers of a group.
        width: of a point's hidden state.
        blocks: residual blocks.
        embedding: width of the groups' network.
    """

    def __init__(self, dim: int, context: int, width: int = 64, blocks: int = 3, embedding: int = 64) -> None:
        super().__init__()
        self.dim, self.width, self.blocks = dim, width, blocks
        self.register_buffer("frequencies", 2.0 ** torch.arange(-2, 4) * pi / 4, persistent=False)
        self.frequencies: Tensor
        self.embed = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + 1 + context, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.modulate = nn.Linear(embedding, width * (1 + 2 * blocks) + dim * dim)
        self.into = nn.Linear(dim, width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.out = nn.Linear(width, dim)
        for layer in (self.modulate, *self.second, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor, group: Tensor) -> Tensor:
        """Return F(x), shape (points, dim).

        Args:
            x: shape (points, dim).
            noise: c_noise, shape (1,), or one a group, shape (groups,).
            context: shape (groups, context).
            group: the group of every point, shape (points,), int64.
        """
        phase = noise[:, None] * self.frequencies
        parts = [phase.sin(), phase.cos(), noise[:, None]]
        rows = torch.cat([*(part.expand(len(context), -1) for part in parts), context], dim=1)
        shared = linear(self.modulate, silu(linear(self.embed[2], silu(linear(self.embed[0], rows)))))
        width = self.width
        h = linear(self.into, x) + shared[:, :width].index_select(0, group)
        for number, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            at = width * (1 + 2 * number)
            scale = (1 + shared[:, at : at + width]).index_select(0, group)
            shift = shared[:, at + width : at + 2 * width].index_select(0, group)
            h = h + linear(second, silu(torch.addcmul(shift, linear(first, h), scale)))
        result = linear(self.out, h)
        mix = shared[:, -self.dim * self.dim :].index_select(0, group).reshape(-1, self.dim, self.dim)
        for column in range(self.dim):  # of A(k), as one product of small matrices a point takes longer
            result = torch.addcmul(result, mix[:, :, column], x[:, column : column + 1])
        return result
