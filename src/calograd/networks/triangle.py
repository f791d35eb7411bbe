"""A few numbers one after the other: each standardised given those before it, then made unit normal by a table.

    u_k = standardised l_k given the conditions c and u_1 ... u_(k-1)      (`calograd.networks.moments`)
    x_k = T_k(u_k)                                                         (`calograd.networks.gaussianise`)

a triangular map, of the form that any distribution can be brought to (Knothe-Rosenblatt).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calograd.networks.gaussianise import Marginals
from calograd.networks.moments import ConditionalMoments


class Triangle(nn.Module):
    """The map above.

    Args:
        dim: numbers.
        conditions: what all are conditioned on.
        width: of the hidden layers.
    """

    def __init__(self, dim: int, conditions: int, width: int = 64) -> None:
        super().__init__()
        one = torch.zeros(1, dtype=torch.int64)
        self.moments = nn.ModuleList(ConditionalMoments(conditions + k, one.clone(), width) for k in range(dim))
        self.tables = Marginals(dim)

    def start_from(self, location: Tensor, scale: Tensor) -> None:
        """Make location and scale, shape (dim,), the same for all conditions: a start for the training."""
        for k, moments in enumerate(self._moments()):
            moments.start_from(location[k : k + 1], scale[k : k + 1])

    def negative_log_likelihood(self, numbers: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Of every number, shape (n, dim), and u, shape (n, dim), without gradients."""
        terms, known = [], conditions
        for k, moments in enumerate(self._moments()):
            own = numbers[:, k : k + 1]
            terms.append(moments.negative_log_likelihood(own, known))
            known = torch.cat([known, moments.standardise(own, known).detach()], dim=1)
        return torch.cat(terms, dim=1), known[:, conditions.shape[1] :]

    def standardise(self, numbers: Tensor, conditions: Tensor) -> Tensor:
        """u of numbers, shape (n, dim)."""
        known = conditions
        for k, moments in enumerate(self._moments()):
            known = torch.cat([known, moments.standardise(numbers[:, k : k + 1], known)], dim=1)
        return known[:, conditions.shape[1] :]

    def restore(self, u: Tensor, conditions: Tensor) -> Tensor:
        """Numbers of u, shape (n, dim)."""
        known = torch.cat([conditions, u], dim=1)
        given = conditions.shape[1]
        return torch.cat(
            [m.restore(u[:, k : k + 1], known[:, : given + k]) for k, m in enumerate(self._moments())], dim=1
        )

    def _moments(self) -> list[ConditionalMoments]:
        return [m for m in self.moments if isinstance(m, ConditionalMoments)]
