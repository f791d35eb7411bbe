"""A few numbers one after the other: each standardised given those before it, then made unit normal by a table.

    u_k = standardised l_k given the conditions c and u_1 ... u_(k-1)      (`calograd.nn.location_scale`)
    x_k = T_k(u_k)                                                         (`calograd.nn.gaussianise`)

a triangular map, of the form that any distribution can be brought to (Knothe-Rosenblatt). Given u every l_k follows
at once: the networks of all numbers are products of stacked matrices, a third of the time of one after the other.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from calograd.nn.gaussianise import Marginals
from calograd.nn.location_scale import likelihood, restore, scale_of, standardise

FLOOR = 2e-3
"""Least scale."""


class Layers(nn.Module):
    """Linear layers of the same shape side by side, with weights like those of ``nn.Linear`` one after the other."""

    def __init__(self, number: int, inputs: int, outputs: int) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for _ in range(number)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, x: Tensor, one: slice | None = None) -> Tensor:
        """Return shape (number, n, outputs) from x (number, n, inputs); ``one`` chooses some of the layers."""
        bias, weight = (self.bias, self.weight) if one is None else (self.bias[one], self.weight[one])
        return torch.baddbmm(bias, x, weight)


class AutoregressiveFlow(nn.Module):
    """Autoregressive (triangular) flow of a few numbers, see the formulas above.

    Args:
        dim: numbers.
        conditions: what all are conditioned on.
        width: of the hidden layers.
    """

    def __init__(self, dim: int, conditions: int, width: int = 64) -> None:
        super().__init__()
        given = conditions + dim - 1
        sizes = (given, width, width, width, 2)
        self.layers = nn.ModuleList(Layers(dim, *pair) for pair in pairwise(sizes))
        self.tables = Marginals(dim)
        known = torch.arange(given) < conditions + torch.arange(dim)[:, None]
        self.register_buffer("known", known[:, None].float(), persistent=False)
        self.known: Tensor

    def start_from(self, location: Tensor, scale: Tensor) -> None:
        """Make location and scale, shape (dim,), the same for all conditions: a start for the training."""
        last = self.layers[-1]
        assert isinstance(last, Layers)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.stack([location, (scale - FLOOR).clamp(min=FLOOR).log()], dim=1)[:, None])

    def negative_log_likelihood(self, numbers: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return that of every number, shape (n, dim), up to a constant, and u, shape (n, dim), without gradients."""
        with torch.no_grad():
            u = self.standardise(numbers, conditions)
        return likelihood(numbers, *self._moments(torch.cat([conditions, u], dim=1))), u

    def standardise(self, numbers: Tensor, conditions: Tensor) -> Tensor:
        """Return u of numbers, shape (n, dim)."""
        known, given = conditions, self.known.shape[2]
        for k in range(numbers.shape[1]):
            rest = known.new_zeros(len(known), max(0, given - known.shape[1]))
            moments = self._moments(torch.cat([known, rest], dim=1), slice(k, k + 1))
            known = torch.cat([known, standardise(numbers[:, k : k + 1], *moments)], dim=1)
        return known[:, conditions.shape[1] :]

    def restore(self, u: Tensor, conditions: Tensor, one: slice | None = None) -> Tensor:
        """Return numbers from u, shape (n, dim); ``one`` chooses some of them."""
        moments = self._moments(torch.cat([conditions, u], dim=1), one)
        return restore(u if one is None else u[:, one], *moments)

    def linears(self, one: int) -> list[tuple[Tensor, Tensor]]:
        """Return weights (outputs, inputs) and biases of the layers of number ``one``, of conditions and all of u."""
        found = [(layer.weight[one].T, layer.bias[one, 0]) for layer in self.layers if isinstance(layer, Layers)]
        weight, bias = found[0]
        return [(pad(weight * self.known[one], (0, 1)), bias), *found[1:]]

    def _moments(self, known: Tensor, one: slice | None = None) -> tuple[Tensor, Tensor]:
        """Return location and scale of the numbers (of ``one``) given conditions and u, each of shape (n, numbers)."""
        h = known[:, : self.known.shape[2]] * (self.known if one is None else self.known[one])
        for layer in self.layers[:-1]:
            h = silu(layer(h, one))
        location, log_scale = self.layers[-1](h, one).permute(2, 1, 0)
        return location, scale_of(log_scale, FLOOR)
