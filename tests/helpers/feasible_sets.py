"""Random bounds and budgets, and random points in them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from calograd.objective.constraints import TOLERANCE, Array, Budget, FeasibleSet

SEEDS = st.integers(0, 2**32 - 1)


def random_set(numbers: np.random.Generator, p: int) -> FeasibleSet:
    """Bounds and, mostly, budgets, some of which leave hardly more than the smallest design."""
    lower = np.log(np.r_[1.0, np.full(p - 1, 4.0)]) + numbers.uniform(-0.5, 0.5, p)
    upper = lower + numbers.uniform(0.2, 2, p)
    budgets = []
    for weight, power in ((1.0, 0.0), (25.0, 2.0)):
        if numbers.random() < 0.75:
            budget = Budget("some", (0.0, *(weight for _ in range(p - 1))), 1.0, power)
            least, most = budget.amount(lower), budget.amount(upper)
            limit = least * (most / least) ** numbers.choice([0.0, 0.01, numbers.random()])
            budgets.append(Budget("some", budget.weights, limit, power))
    return FeasibleSet(lower, upper, budgets)


def check_allowed(feasible: FeasibleSet, u: Array) -> None:
    assert (u >= feasible.lower).all()
    assert (u <= feasible.upper).all()
    assert feasible.excess(u) <= TOLERANCE * (1 + 1e-6)


def random_allowed(feasible: FeasibleSet, numbers: np.random.Generator, near: Array) -> Array:
    """Allowed points near a point and far from it, some on bounds and budgets."""
    return feasible.shrunk(near + 10 ** numbers.uniform(-4, 0.5) * numbers.standard_normal(len(near)))
