"""Conditional networks on points that come in groups.

Points x of a group (those of one layer of one shower) share their context c; s is the noise level. `PointNet` is a
residual network,

    k = SiLU(W_2 SiLU(W_1 [fourier(s), c]))                                         once a group
    h = W_in x + b(k);   h += W_b SiLU(W_a h (1 + gamma_b(k)) + beta_b(k));   F = W_out h + A(k) x    every point

whose cost is that of the points, 2 dim width + 2 blocks width^2 products each: all that depends on the group alone is
computed once and handed to its points. `PointMap` has one hidden layer, for consistency models of one evaluation:

    k = SiLU(W_2 SiLU(W_1 [s, c]))                                      once a group
    F(x) = A(k) x + b(k) + V SiLU(gamma(k) (W x) + beta(k))             every point

A point of two numbers costs it 4 width products and one SiLU of ``width`` numbers.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.linear import linear
from calograd.nn.mlp import fourier_features, zero_


class PointNet(nn.Module):
    """Conditional residual network on points of groups; begins as F = 0.

    Args:
        dim: number of numbers of a point.
        context: number of numbers of a group.
        width: width of a point's hidden state.
        blocks: number of residual blocks.
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
        zero_(self.modulate, self.second, self.out)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor, group: Tensor) -> Tensor:
        """Return F(x), shape (points, dim).

        Args:
            x: points, shape (points, dim).
            noise: c_noise, shape (1,), or one a group, shape (groups,).
            context: numbers of the groups, shape (groups, context).
            group: index of every point's group, shape (points,), int64.
        """
        rows = torch.cat([fourier_features(noise, self.frequencies).expand(len(context), -1), context], dim=1)
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


class PointMap(nn.Module):
    """Conditional map of points of groups; begins as F = 0.

    Args:
        dim: number of numbers of a point.
        context: number of numbers of a group.
        width: width of a point's hidden layer.
        embedding: width of the groups' network.
    """

    def __init__(self, dim: int, context: int, width: int = 32, embedding: int = 64) -> None:
        super().__init__()
        self.dim, self.width = dim, width
        self.embed = nn.Sequential(
            nn.Linear(1 + context, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.modulate = nn.Linear(embedding, 2 * width)
        self.affine = nn.Linear(embedding, dim * (dim + 1))
        self.into = nn.Linear(dim, width, bias=False)
        self.out = nn.Linear(width, dim, bias=False)
        zero_(self.modulate, self.affine, self.out)
        with torch.no_grad():  # gamma = 1, steps of the hidden layer spread over the points
            self.modulate.bias[:width] = 1.0
            self.modulate.bias[width:] = torch.linspace(-2, 2, width)
            nn.init.normal_(self.into.weight)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor, group: Tensor) -> Tensor:
        """Return F(x), shape (points, dim); arguments as of `PointNet.forward`."""
        k = self.embed(torch.cat([noise[:, None].expand(len(context), 1), context], dim=1))
        gamma, beta = (half.index_select(0, group) for half in self.modulate(k).chunk(2, dim=1))
        hidden = torch.addcmul(beta, self.into(x), gamma)
        hidden = silu(hidden) if hidden.requires_grad else silu(hidden, inplace=True)
        affine = self.affine(k).T.contiguous().index_select(1, group)  # numbers of a kind side by side from here on
        result = torch.addmm(affine[: self.dim], self.out.weight, hidden.T)
        for column, number in enumerate(x.unbind(1)):
            at = self.dim * (1 + column)
            result = torch.addcmul(result, affine[at : at + self.dim], number)
        return result.T
