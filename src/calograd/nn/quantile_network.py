"""Distributions of numbers given their conditions: quantile functions that a network draws, fitted by likelihood.

A number v has, given conditions, quantiles v_0 < ... < v_K at even places z_0 ... z_K of the unit normal distribution,

    v_k = m + s_(j+1) + ... + s_k     k > j         v_k = m - s_(k+1) - ... - s_j     k < j         j = K / 2
    s_k = (z_k - z_(k-1)) exp(a_k)

with m and a_1 ... a_K from the network. Straight between and beyond them, z(v) is a monotone map; where z is unit
normal it is the right one. Maximum likelihood minimises

    z^2 / 2 + ln(dv / dz)

Location and scale (`calograd.nn.location_scale`) move and stretch one shape; here the tails may be of any length, on
either side, for every condition: what showers need that are measured far from their core.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calograd.nn.linear import output_of_items

STEEPEST = 4.0
"""Largest |a_k|."""


class ConditionalQuantiles(nn.Module):
    """Quantiles as a network of the conditions; it begins as v = z.

    Args:
        conditions: number of conditions.
        dim: number of numbers.
        places: z_0 ... z_K, even, an odd number of them.
        width: width of the hidden layers.
    """

    def __init__(self, conditions: int, dim: int, places: Tensor, width: int = 64) -> None:
        super().__init__()
        self.dim, self.pieces, self.step = dim, len(places) - 1, float(places[1] - places[0])
        self.middle = float(places[self.pieces // 2])
        self.network = nn.Sequential(
            nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, dim * (self.pieces + 1)),
        )  # fmt: skip
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def of_items(self, parts: Sequence[Tensor]) -> Tensor:
        """Return quantiles of several items of each sample, shape (dim, n, items, K + 1), rising along the last axis.

        Args:
            parts: of the conditions, one behind the other, shape (n, items, k) each, where n or items may be 1: what
                all items of a sample have in common, or all samples of an item.
        """
        output, shape = output_of_items(self.network, parts)
        values = output.view(-1, self.dim, self.pieces + 1).transpose(0, 1)
        rise = self.step * values[..., 1:].clamp(-STEEPEST, STEEPEST).exp()
        half = self.pieces // 2
        below = rise[..., :half].flip(-1).cumsum(-1).flip(-1)
        above = rise[..., half:].cumsum(-1)
        middle = values[..., :1] + self.middle
        return torch.cat([middle - below, middle, middle + above], -1).view(self.dim, *shape, -1)
