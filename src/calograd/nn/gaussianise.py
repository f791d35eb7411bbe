"""A fixed map of vectors to nearly unit normal ones, and back, fitted to data in closed form.

    u_i = T_i(f_i)            every number made unit normal by a table of its quantiles
    v   = W u                 W = L^-1/2 V^T, of the covariance V L V^T of u: independent directions of unit variance
    x_k = S_k(v_k)            every direction made unit normal by a table again

(two rounds of rotation-based iterative Gaussianisation, Laparra et al., IEEE Trans. Neural Netw. 22 (2011) 537). What
numbers share beyond linear correlations is left to be learnt. Tables are straight between their knots.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

KNOTS = 65
"""Number of quantiles of a table."""
TAIL = 4.0
"""z of the outermost quantiles, the least and largest of up to 30 000 values; nothing lies farther out."""
STEP = 2 * TAIL / (KNOTS - 1)
LAST = KNOTS - 1 - 1e-5
"""The last place in a table, between its last two knots."""
LEAST = 0.01
"""Least eigenvalue: what varies less, as in fewer vectors than they have numbers, is not blown up."""


class Marginals(nn.Module):
    """A table of quantiles for each of ``dim`` numbers; begins as the identity."""

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
    """Map of vectors to nearly unit normal ones, see the formulas above; begins as the identity.

    Args:
        dim: numbers of a vector.
    """

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
