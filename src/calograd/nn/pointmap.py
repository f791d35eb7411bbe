"""A map of points that come in groups, with one hidden layer: what one evaluation can be had for.

Points x of a group share the context c; s is the noise level:

    k = SiLU(W_2 SiLU(W_1 [s, c]))                                      once a group
    F(x) = A(k) x + b(k) + V SiLU(gamma(k) (W x) + beta(k))             every point

A point of two numbers costs 4 width products and one SiLU of ``width`` numbers; what there is beside is handed from the
groups to their points.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


class PointMap(nn.Module):
    """Conditional map of points of groups; begins as F = 0.

    Args:
        dim: numbers of a point.
        context: numbers of a group.
        width: of a point's hidden layer.
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
        for parameter in (*self.modulate.parameters(), *self.affine.parameters(), *self.out.parameters()):
            nn.init.zeros_(parameter)
        with torch.no_grad():  # gamma = 1, steps of the hidden layer spread over the points
            self.modulate.bias[:width] = 1.0
            self.modulate.bias[width:] = torch.linspace(-2, 2, width)
            nn.init.normal_(self.into.weight)

    def forward(self, x: Tensor, noise: Tensor, context: Tensor, group: Tensor) -> Tensor:
        """Return F(x), shape (points, dim).

        Args:
            x: shape (points, dim).
            noise: c_noise, shape (1,), or one a group, shape (groups,).
            context: shape (groups, context).
            group: the group of every point, shape (points,), int64.
        """
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
