"""Budgets of a design, and the best move within them.

In logarithms u = ln y of positive parameters y, the first of which is the cell pitch dx, a budget is

    y_0^power sum_i weights_i y_i <= limit,      weights >= 0.

The left-hand side is a sum of exponentials of linear functions of u. So its logarithm, and with it the budget's excess,
ln of amount / limit, is convex and rises with every u_i. Hence the designs within bounds and budgets form a convex set:
every design has one nearest allowed design, and the set is empty exactly if the smallest design is too large. The total
depth of a calorimeter is such a budget (power 0), and so is its volume (power 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
import numpy.typing as npt

from calograd.errors import InputError

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-9
"""Largest excess, a logarithm, of a design that keeps to a budget."""

_ROUNDS = 60
"""Largest number of quadratic programmes solved for one move; three are usual."""


@dataclass(frozen=True)
class Budget:
    """A limit on y_0^power sum_i weights_i y_i.

    Args:
        name: name in errors and reports.
        weights: zero or more for every parameter, not all zero, in the budget's unit per cm^(1 + power).
        limit: largest amount, in the budget's unit.
        power: power of the first parameter.
        unit: unit of the limit.

    Raises:
        InputError: weights or a limit that are negative, not finite or all zero.
    """

    name: str
    weights: tuple[float, ...]
    limit: float
    power: float = 0.0
    unit: str = "cm"

    def __post_init__(self) -> None:
        if not (all(0 <= weight < inf for weight in self.weights) and any(self.weights) and self.power >= 0):
            raise InputError(f"{self.name}: weights {self.weights}, expected zero or more, not all zero")
        if not 0 < self.limit < inf:
            raise InputError(f"{self.name} = {self.limit} {self.unit}, expected a positive number")

    def excess(self, u: Array) -> float:
        """Return the logarithm of amount / limit at u, shape (p,); positive where the budget is exceeded."""
        terms = self._terms(u)
        top = float(terms.max())
        return self.power * float(u[0]) + top + log(float(np.exp(terms - top).sum())) - log(self.limit)

    def slope(self, u: Array) -> Array:
        """Return the gradient of the excess, shape (p,): the share of every parameter, plus ``power`` for the first."""
        terms = self._terms(u)
        slope: Array = np.exp(terms - terms.max())
        slope /= slope.sum()
        slope[0] += self.power
        return slope

    def amount(self, u: Array) -> float:
        """Return the amount at u, in the budget's unit."""
        return self.limit * float(np.exp(self.excess(u)))

    def _terms(self, u: Array) -> Array:
        terms = np.full(len(self.weights), -inf)
        np.log(self.weights, out=terms, where=np.greater(self.weights, 0))
        terms += u
        return terms


@dataclass(frozen=True)
class FeasibleSet:
    """Set of the u between two bounds that keep to budgets.

    Args:
        lower, upper: bounds, shape (p,).
        budgets: any number.
    """

    lower: Array
    upper: Array
    budgets: Sequence[Budget]

    def excess(self, u: Array) -> float:
        """Return the largest excess of a budget, -inf without budgets."""
        return max((budget.excess(u) for budget in self.budgets), default=-inf)

    def shrunk(self, u: Array) -> Array:
        """Return u within the bounds, with all parameters divided by the same factor until it keeps to the budgets.

        At worst this is the smallest design.
        """
        inside = np.clip(u, self.lower, self.upper)
        excess = self.excess(inside)
        if excess <= TOLERANCE:
            return inside
        low, high, most = 0.0, excess, float((inside - self.lower).max())
        while high < most and self.excess(np.maximum(inside - high, self.lower)) > TOLERANCE:
            low, high = high, 2 * high
        while high - low > 1e-3 * high and high - low > 1e-15:
            middle = 0.5 * (low + high)
            if self.excess(np.maximum(inside - middle, self.lower)) <= TOLERANCE:
                high = middle
            else:
                low = middle
        return np.maximum(inside - high, self.lower)

    def best_move(self, u: Array, slope: Array, curvature: Array, radius: float = inf) -> Array:
        """Return the move d from a feasible u that maximises slope . d - d . curvature d / 2.

        The method is sequential quadratic programming. Every programme has bounds, budgets and radius linearised at the
        last move, and the curvature of the active ones added. scipy's SLSQP stopped too early in a few cases in a
        thousand.

        Args:
            u: shape (p,).
            slope: shape (p,).
            curvature: symmetric and positive definite, shape (p, p).
            radius: longest move, in the Euclidean norm; none within the tolerance.

        Returns:
            d, shape (p,): u + d is feasible and d no longer than ``radius``.
        """
        n = len(u)
        move, prices = np.zeros(n), np.zeros(len(self.budgets) + 1)
        prices[-1] = np.linalg.norm(slope) * radius if radius < inf else 0.0  # of the radius, if it alone binds
        for _ in range(_ROUNDS if slope.any() and radius > TOLERANCE else 0):
            hessian, rows, least = curvature.copy(), [np.eye(n), -np.eye(n)], [self.lower - u, u - self.upper]
            for budget, price in zip(self.budgets, prices, strict=False):
                tangent, excess = budget.slope(u + move), budget.excess(u + move) - TOLERANCE
                share = tangent - budget.power * np.eye(n)[0]
                hessian += price * (np.diag(share) - np.outer(share, share))
                rows.append(-tangent[None])
                least.append(np.array([excess - tangent @ move]))
            if radius < inf:
                hessian += prices[-1] * np.eye(n) / radius**2
                rows.append(-move[None] / radius**2)
                least.append(np.array([-0.5 * (1 + move @ move / radius**2)]))
            target = slope + (hessian - curvature) @ move
            before = move
            move, multipliers = _programme(hessian, target, np.concatenate(rows), np.concatenate(least))
            prices[: len(multipliers) - 2 * n] = multipliers[2 * n :]
            if np.linalg.norm(move - before) <= TOLERANCE:
                break
        move = self.shrunk(u + move) - u
        move *= min(1.0, radius / max(float(np.linalg.norm(move)), 1e-300))
        reached = u + move  # a sum that rounds, perhaps to beyond a bound by its last bit
        allowed: Array = move + 2 * (np.maximum(self.lower - reached, 0) - np.maximum(reached - self.upper, 0))
        return allowed


def _programme(hessian: Array, target: Array, rows: Array, least: Array) -> tuple[Array, Array]:
    """Return the d that minimises d . hessian d / 2 - target . d with rows @ d >= least, and the rows' multipliers.

    This is a problem of least distance, which non-negative least squares solve exactly (Lawson and Hanson, chapter 23).
    The programme has to have a solution.
    """
    from scipy.optimize import nnls

    back = np.linalg.inv(np.linalg.cholesky(hessian).T)
    free = back @ (back.T @ target)
    sides, missing = rows @ back, least - rows @ free
    lengths = np.maximum(np.linalg.norm(sides, axis=1), 1e-300)
    sides, missing = sides / lengths[:, None], missing / lengths
    worst = float(missing.max())
    if worst <= 0:
        return free, np.zeros(len(least))
    matrix = np.vstack([sides.T, missing / worst])
    weights, _ = nnls(matrix, np.eye(len(matrix))[-1], maxiter=100 * len(matrix))
    rest = np.eye(len(matrix))[-1] - matrix @ weights
    reach = worst / max(float(rest[-1]), 1e-300)
    return free - back @ rest[:-1] * reach, weights * reach / lengths
