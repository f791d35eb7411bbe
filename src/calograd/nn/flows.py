"""Maps of vectors to nearly unit normal ones, and back: flows fitted in closed form or by likelihood.

`Gaussianise` is a fixed map, fitted to data in closed form:

    u_i = T_i(f_i)            every number made unit normal by a table of its quantiles
    v   = W u                 W = L^-1/2 V^T, of the covariance V L V^T of u: independent directions of unit variance
    x_k = S_k(v_k)            every direction made unit normal by a table again

These are two rounds of rotation-based iterative Gaussianisation (Laparra et al., IEEE Trans. Neural Netw. 22 (2011)
537). Only linear correlations are removed. Tables are straight between their knots.

`AutoregressiveFlow` takes few numbers one after the other, given conditions c:

    u_k = standardised l_k given the conditions c and u_1 ... u_(k-1)      (`calograd.nn.location_scale`)
    x_k = T_k(u_k)

It is a triangular map, of the form that any distribution can be brought to (Knothe-Rosenblatt). Given u every l_k
follows at once: the networks of all numbers are products of stacked matrices, in a third of the time.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.location_scale import likelihood, restore, scale_of, standardise

KNOTS = 65
"""Number of quantiles of a table."""
TAIL = 4.0
"""z of the outermost quantiles, the least and largest of up to 30 000 values; nothing lies farther out."""
STEP = 2 * TAIL / (KNOTS - 1)
"""Distance of two knots in z."""
LAST = KNOTS - 1 - 1e-5
"""The last place in a table, between its last two knots."""
LEAST = 0.01
"""Least eigenvalue; directions that vary less, as in fewer vectors than they have numbers, are not blown up."""
FLOOR = 2e-3
"""Least scale of a number of `AutoregressiveFlow`."""


class Marginals(nn.Module):
    """Tables of quantiles, one for each of ``dim`` numbers; they begin as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(-TAIL, TAIL, KNOTS).repeat(dim, 1))
        self.register_buffer("first", KNOTS * torch.arange(dim), persistent=False)
        self.table: Tensor
        self.first: Tensor

    def fit(self, values: Tensor) -> None:
        """Fit to vectors, shape (n, dim)."""
        levels = torch.special.ndtr(torch.linspace(-TAIL, TAIL, KNOTS, dtype=torch.float64))
        table = torch.quantile(values.double(), levels.to(values.device), dim=0).T
        rising = table.cummax(1).values + 1e-4 * torch.arange(KNOTS, device=values.device)
        self.table.copy_(rising)

    def forward(self, values: Tensor) -> Tensor:
        """Return unit normal numbers from values, shape (n, dim)."""
        place = torch.searchsorted(self.table, values.detach().T.contiguous()).T - 1
        place = place.clamp(0, KNOTS - 2)
        low, high = self._ends(place)
        return (STEP * (place + (values - low) / (high - low)) - TAIL).clamp(-TAIL, TAIL)

    def inverse(self, z: Tensor) -> Tensor:
        """Return values from unit normal numbers, shape (n, dim)."""
        at = ((z + TAIL) / STEP).clamp(0, LAST)
        place = at.long()
        low, high = self._ends(place)
        return torch.lerp(low, high, at - place)

    def _ends(self, place: Tensor) -> tuple[Tensor, Tensor]:
        first = place + self.first
        return self.table.take(first), self.table.take(first + 1)


class Gaussianise(nn.Module):
    """Fixed map of vectors of ``dim`` numbers to nearly unit normal ones; it begins as the identity."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.numbers, self.directions = Marginals(dim), Marginals(dim)
        for name in ("forth", "back"):
            self.register_buffer(name, torch.eye(dim))
        self.forth: Tensor
        self.back: Tensor

    def fit(self, f: Tensor) -> None:
        """Fit to vectors, shape (n, dim)."""
        self.numbers.fit(f)
        u = self.numbers(f).double()
        values, vectors = torch.linalg.eigh(u.T @ u / len(u))
        scale = values.clamp(min=LEAST).sqrt()
        self.forth.copy_(vectors / scale)
        self.back.copy_((vectors * scale).T)
        self.directions.fit(u.to(f) @ self.forth)

    def forward(self, f: Tensor) -> Tensor:
        """Return x of f, shape (n, dim)."""
        result: Tensor = self.directions(self.numbers(f) @ self.forth)
        return result

    def inverse(self, x: Tensor) -> Tensor:
        """Return f of x, shape (n, dim)."""
        return self.numbers.inverse(self.directions.inverse(x) @ self.back)


class Layers(nn.Module):
    """Linear layers of the same shape, evaluated together."""

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
    """Autoregressive (triangular) flow of a few numbers, see the module's formulas.

    Args:
        dim: number of numbers.
        conditions: number of conditions.
        width: width of the hidden layers.
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
        """Return -ln L of every number up to a constant, and u without gradients, each of shape (n, dim)."""
        with torch.no_grad():
            u = self.standardise(numbers, conditions)
        return likelihood(numbers, *self._location_scale(torch.cat([conditions, u], dim=1))), u

    def standardise(self, numbers: Tensor, conditions: Tensor) -> Tensor:
        """Return u of numbers, shape (n, dim)."""
        known, given = conditions, self.known.shape[2]
        for k in range(numbers.shape[1]):
            rest = known.new_zeros(len(known), max(0, given - known.shape[1]))
            location_scale = self._location_scale(torch.cat([known, rest], dim=1), slice(k, k + 1))
            known = torch.cat([known, standardise(numbers[:, k : k + 1], *location_scale)], dim=1)
        return known[:, conditions.shape[1] :]

    def restore(self, u: Tensor, conditions: Tensor, one: slice | None = None) -> Tensor:
        """Return numbers from u, shape (n, dim); ``one`` chooses some of them."""
        location_scale = self._location_scale(torch.cat([conditions, u], dim=1), one)
        return restore(u if one is None else u[:, one], *location_scale)

    def _location_scale(self, known: Tensor, one: slice | None = None) -> tuple[Tensor, Tensor]:
        """Return location and scale of the numbers (of ``one``) given conditions and u, each of shape (n, numbers)."""
        h = known[:, : self.known.shape[2]] * (self.known if one is None else self.known[one])
        for layer in self.layers[:-1]:
            h = silu(layer(h, one))
        location, log_scale = self.layers[-1](h, one).permute(2, 1, 0)
        return location, scale_of(log_scale, FLOOR)
