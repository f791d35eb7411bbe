"""Derivative information from one shower segmented at two neighbouring designs.

The likelihood of single rows takes them as independent. But most of what makes a shower differ from the mean is the
same at two neighbouring designs and drops out of the difference. So the loss adds to the likelihood of the standardised
residuals r = (g - m) / s that of their difference, a Student t with the scale

    tau = d exp(f(middle, direction)) + tau_0,    d = |c_2 - c_1|, c the standardised conditions

that shrinks as the designs approach. f is a network of its own that the surrogate does not keep. In the difference s is
held constant: it would grow without bound, since that makes any difference small.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from calograd.nn.location_scale import NU, ConditionalLocationScale

FAINTEST = 1e-3
"""tau_0 of the formula above, the least scale."""
WIDTH = 64
"""Units of a hidden layer of f."""
FARTHEST_ROWS = 64
"""Rows of a shower before and after a row among which its partner is sought."""


class DifferenceScale(nn.Module):
    """Scale tau of the formula above.

    Args:
        conditions: count of the conditions of location and scale.
        dim: count of the numbers that have location and scale.
    """

    def __init__(self, conditions: int, dim: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(2 * conditions, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, dim)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the scale of the difference, shape (n, dim), between conditions of shape (n, conditions) each."""
        step = second - first
        distance = step.norm(dim=1, keepdim=True) + 1e-6
        logarithm = self.network(torch.cat([(first + second) / 2, step.abs() / distance], dim=1))
        scale: Tensor = distance * logarithm.clamp(-8, 4).exp() + FAINTEST
        return scale


def pair_loss(location_scale: ConditionalLocationScale, difference: nn.Module, g: Tensor, conditions: Tensor) -> Tensor:
    """Return the negative logarithm of both likelihoods up to a constant, one a pair and number, shape (n, dim).

    Args:
        location_scale: network of location and scale.
        difference: network of the scale of differences.
        g: first rows of the pairs, then the second ones, shape (2 n, dim).
        conditions: conditions in the same order, shape (2 n, conditions).
    """
    location, scale = location_scale(conditions)
    residual = (g - location) / scale
    single = scale.log() + _tail(residual)
    first, second = ((g - location) / scale.detach()).chunk(2)
    tau = difference(*conditions.chunk(2))
    one, other = single.chunk(2)
    loss: Tensor = (one + other) / 2 + tau.log() + _tail((first - second) / tau)
    return loss


def _tail(residual: Tensor) -> Tensor:
    result: Tensor = (NU + 1) / 2 * residual.square().div(NU).log1p()
    return result


def partners(shower: np.ndarray, dx: np.ndarray, dz: np.ndarray) -> np.ndarray | None:
    """Return for every row the row of the same shower at the closest other design, shape (n,), int64; -1 for none.

    Args:
        shower: number of every row's shower, shape (n,).
        dx: cell pitch, shape (n,), cm.
        dz: depths of the layers, shape (n, n_z), cm.

    Returns:
        None if no row has a partner.
    """
    order = np.argsort(shower, kind="stable")
    key, place = shower[order], np.log(np.column_stack([dx, dz]))[order]
    closest = np.full(len(key), np.inf)
    partner = np.full(len(key), -1, dtype=np.int64)
    for away in range(1, min(FARTHEST_ROWS, len(key) - 1) + 1):
        same = np.flatnonzero(key[away:] == key[:-away])
        if not len(same):
            break
        square = ((place[same + away] - place[same]) ** 2).sum(1)
        for mine, other in ((same, same + away), (same + away, same)):
            closer = (square < closest[mine]) & (square > 0)
            closest[mine[closer]], partner[order[mine[closer]]] = square[closer], order[other[closer]]
    return partner if (partner >= 0).any() else None
