from __future__ import annotations

from math import inf

import numpy as np
import pytest
from helpers.feasible_sets import SEEDS, check_allowed, random_allowed, random_set
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calograd.errors import InputError
from calograd.objective.constraints import Budget, FeasibleSet

DEPTH = Budget("max_depth", (0.0, 1.0, 1.0), 20.0)
VOLUME = Budget("max_volume", (0.0, 25.0, 25.0), 3000.0, 2.0, "cm3")


def test_amounts_are_those_of_the_design() -> None:
    u = np.log([2.0, 5.0, 7.0])
    assert DEPTH.amount(u) == pytest.approx(12)
    assert VOLUME.amount(u) == pytest.approx(25 * 4 * 12)
    assert DEPTH.excess(u) == pytest.approx(np.log(12 / 20))


@settings(deadline=None)
@given(SEEDS)
def test_slopes_against_finite_differences(seed: int) -> None:
    u = np.random.default_rng(seed).normal(size=3)
    for budget in (DEPTH, VOLUME):
        for i, direction in enumerate(np.eye(3)):
            difference = budget.excess(u + 1e-5 * direction) - budget.excess(u - 1e-5 * direction)
            assert difference / 2e-5 == pytest.approx(budget.slope(u)[i], abs=1e-8)


def test_excess_does_not_overflow() -> None:
    assert VOLUME.excess(np.full(3, 2000.0)) == pytest.approx(6000 + np.log(50 / 3000))
    assert DEPTH.excess(np.array([0.0, -2000.0, -3000.0])) == pytest.approx(-2000 - np.log(20))


@pytest.mark.parametrize(("weights", "limit"), [((0.0, 0.0), 1.0), ((-1.0, 1.0), 1.0), ((0.0, inf), 1.0)])
def test_weights_that_make_no_budget(weights: tuple[float, float], limit: float) -> None:
    with pytest.raises(InputError, match=r"budget: weights .* expected zero or more, not all zero"):
        Budget("budget", weights, limit)


@pytest.mark.parametrize("limit", [0.0, -1.0, inf, float("nan")])
def test_limits_that_make_no_budget(limit: float) -> None:
    with pytest.raises(InputError, match=r"budget = .* cm, expected a positive number"):
        Budget("budget", (0.0, 1.0), limit)


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from([2, 3, 6]))
def test_shrunk_points_are_allowed_and_stay(seed: int, p: int) -> None:
    numbers = np.random.default_rng(seed)
    feasible = random_set(numbers, p)
    u = feasible.shrunk(feasible.lower + 3 * numbers.standard_normal(p))
    check_allowed(feasible, u)
    assert (feasible.shrunk(u) == u).all()


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from([2, 3, 6]))
@example(54792, 2)  # ends at a bound, which the sum of place and move misses by its last bit
def test_no_allowed_move_is_better_than_the_best(seed: int, p: int) -> None:
    """The model is concave and the set convex: from the best move, no way to another allowed point rises."""
    numbers = np.random.default_rng(seed)
    feasible = random_set(numbers, p)
    u = random_allowed(feasible, numbers, feasible.lower)
    axes, _ = np.linalg.qr(numbers.standard_normal((p, p)))
    curvature = 10 ** numbers.uniform(-3, 3) * axes @ np.diag(np.geomspace(1, 1e3, p)) @ axes.T
    slope = 10 ** numbers.uniform(-4, 4) * numbers.standard_normal(p) * 10 ** numbers.uniform(-2, 0, p)
    radius = numbers.choice([inf, 10 ** numbers.uniform(-2, 0)])
    move = feasible.best_move(u, slope, curvature, radius)
    check_allowed(feasible, u + move)
    assert np.linalg.norm(move) <= radius * (1 + 1e-12)
    rest, gained = slope - curvature @ move, slope @ move - move @ curvature @ move / 2
    assert gained >= -5e-9 * np.linalg.norm(slope)
    for _ in range(40):
        way = random_allowed(feasible, numbers, u + move) - u
        way = way * min(1.0, radius / max(float(np.linalg.norm(way)), 1e-300)) - move
        rise, bend = float(rest @ way), float(way @ curvature @ way)
        share = min(1.0, rise / bend) if rise > 0 and bend > 0 else 0.0
        more = share * rise - share**2 * bend / 2
        assert more <= 1e-6 * max(gained, 0.0) + 5e-9 * np.linalg.norm(slope)


def test_a_free_move_is_newtons() -> None:
    feasible = FeasibleSet(np.full(3, -9.0), np.full(3, 9.0), [])
    curvature, slope = np.diag([1.0, 2.0, 5.0]), np.array([1.0, -1.0, 0.5])
    np.testing.assert_allclose(feasible.best_move(np.zeros(3), slope, curvature), [1, -0.5, 0.1], rtol=1e-12)
    move = feasible.best_move(np.zeros(3), slope, 1e-9 * np.eye(3), radius=0.15)
    np.testing.assert_allclose(move, 0.15 * slope / np.linalg.norm(slope), rtol=1e-6)
    assert (feasible.best_move(np.zeros(3), np.zeros(3), curvature, 0.1) == 0).all()


def test_a_single_allowed_design_allows_no_move() -> None:
    lower = np.log([1.0, 4.0, 6.0])
    feasible = FeasibleSet(lower, lower + 1, [Budget("max_depth", (0.0, 1.0, 1.0), 10.0)])
    move = feasible.best_move(lower, np.array([-1.0, 3.0, -2.0]), np.eye(3), 0.5)
    assert np.linalg.norm(move) < 1e-8
