from __future__ import annotations

import numpy as np
import pytest
from helpers.feasible_sets import SEEDS
from helpers.hills import parabola, tilted
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.objective.constraints import Array, FeasibleSet
from calograd.optimisation.quasi_newton import GROWTH, Point, gain, judge, learn, step


def everywhere(p: int) -> FeasibleSet:
    return FeasibleSet(np.full(p, -9.0), np.full(p, 9.0), [])


def at(u: Array, curvature: Array, error: float = 0.0) -> Point:
    """The exact gradient of a parabola about zero."""
    return Point(u, -curvature @ u, np.full(len(u), error))


@settings(deadline=None)
@given(SEEDS, st.sampled_from([2, 6]), st.floats(-6, 6))
def test_curvature_stays_positive_definite_and_follows_the_unit(seed: int, p: int, power: float) -> None:
    numbers, unit = np.random.default_rng(seed), 10**power
    learnt: list[Array | None] = [None, None]
    before: list[Point | None] = [None, None]
    for _ in range(8):
        u, gradient, error = numbers.normal(size=(3, p))
        for i, scale in enumerate((1.0, unit)):
            now = Point(u, scale * gradient, 0.1 * scale * abs(error))
            learnt[i] = learn(learnt[i], before[i], now, 0.15)
            before[i] = now
        a, b = learnt
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(b, unit * a, rtol=1e-5, atol=1e-7 * unit * abs(a).max())
        assert (np.linalg.eigvalsh(a) > 0).all()


def test_a_step_teaches_the_curvature_along_it() -> None:
    true = tilted(6, 30)
    numbers = np.random.default_rng(0)
    a, b = (at(u, true) for u in numbers.normal(size=(2, 6)))
    learnt = learn(np.eye(6), a, b, 0.15)
    np.testing.assert_allclose(learnt @ (b.u - a.u), true @ (b.u - a.u), rtol=1e-10)


def test_upward_curvature_is_damped() -> None:
    a, b = at(np.zeros(2), -np.eye(2)), at(np.array([0.1, 0.0]), -np.eye(2))
    np.testing.assert_allclose(learn(np.eye(2), a, b, 0.15), np.diag([0.2, 1.0]), atol=1e-15)


def test_noise_teaches_nothing() -> None:
    a, b = at(np.zeros(2), 1.1 * np.eye(2), 0.1), at(np.array([0.1, 0.0]), 1.1 * np.eye(2), 0.1)
    assert (learn(np.eye(2), a, b, 0.15) == np.eye(2)).all()
    assert (learn(np.eye(2), a, a, 0.15) == np.eye(2)).all()


def test_the_first_step_is_as_long_as_the_radius_also_where_a_bound_blocks_most_of_the_gradient() -> None:
    blocked = FeasibleSet(np.array([-9.0, -9.0]), np.array([0.0, 9.0]), [])
    now = Point(np.zeros(2), np.array([300.0, 1.0]), np.zeros(2))
    for feasible in (everywhere(2), blocked):
        move = step(feasible, now, learn(None, None, now, 0.15), 0.15)
        assert np.linalg.norm(move.d) == pytest.approx(0.15, rel=1e-6)
    np.testing.assert_allclose(move.d, [0, 0.15], atol=1e-9)


def test_a_step_says_what_it_gains_and_how_well_that_is_known() -> None:
    now = Point(np.zeros(2), np.array([1.0, 2.0]), np.array([0.1, 0.3]))
    move = step(everywhere(2), now, np.eye(2), 1.0)
    assert move.gain == pytest.approx(now.gradient @ move.d)
    assert move.error == pytest.approx(np.hypot(0.1 * move.d[0], 0.3 * move.d[1]))
    assert move.free == pytest.approx(1.0)
    exact = step(everywhere(2), Point(now.u, now.gradient, np.zeros(2)), np.eye(2), 9.0)
    np.testing.assert_allclose(exact.d, now.gradient)
    assert exact.error == 0


def test_a_step_does_not_follow_noise() -> None:
    """Along the first axis the gradient is known well, along the second, of little curvature, it is noise."""
    now = Point(np.zeros(2), np.array([1.0, 0.01]), np.full(2, 0.01))
    curvature = np.diag([10.0, 0.01])
    move = step(everywhere(2), now, curvature, 9.0)
    assert move.free == pytest.approx(1.0, rel=0.01)
    assert move.d[0] == pytest.approx(0.1, rel=0.02)
    assert move.d[1] < 0.3
    certain = now.gradient @ move.d - move.d @ curvature @ move.d / 2 - move.error
    plain = np.linalg.solve(curvature, now.gradient)
    assert certain > now.gradient @ plain / 2 - np.linalg.norm(now.error * plain)


def test_gain_of_a_parabola_is_exact() -> None:
    hill = parabola(np.array([0.3, -0.2]), tilted(2, 10))
    points = np.random.default_rng(1).normal(size=(4, 2))
    path = [Point(u, hill.slope(u), np.zeros(2)) for u in points]
    value, error = gain(path)
    assert value == pytest.approx(hill.function(points[-1]) - hill.function(points[0]))
    assert error == 0
    assert gain(path[:1]) == (0, 0)


def test_error_of_a_gain_against_its_spread() -> None:
    numbers = np.random.default_rng(2)
    points, errors = numbers.normal(size=(4, 3)), numbers.uniform(0.1, 1, (4, 3))
    values = [
        gain([Point(u, e * numbers.standard_normal(3), e) for u, e in zip(points, errors, strict=True)])
        for _ in range(4000)
    ]
    assert np.std([value for value, _ in values]) == pytest.approx(values[0][1], rel=0.05)


def test_a_lost_step_halves_the_radius_and_one_that_still_rises_lets_it_grow() -> None:
    def points(end: float, error: float = 0.0) -> tuple[Point, Point]:
        curvature = np.eye(2)
        return at(np.array([-1.0, 0.0]), curvature, error), at(np.array([end, 0.0]), curvature, error)

    assert judge(*points(-0.85), 0.15, 1.0) == (False, GROWTH * 0.15)
    assert judge(*points(-0.85), 0.15, 0.16) == (False, 0.16)
    assert judge(*points(-0.9), 0.15, 1.0) == (False, 0.15)
    assert judge(*points(0.5), 1.5, 9.0) == (False, 1.5)  # beyond the top, still a gain
    assert judge(*points(1.2), 2.2, 9.0) == (True, pytest.approx(1.1))
    assert judge(*points(1.2, error=0.2), 2.2, 9.0) == (False, 2.2)  # perhaps a loss


def test_a_loss_by_the_values_counts_too() -> None:
    u = np.array([0.1, 0.0])
    before, now = Point(0 * u, u, u, value=3.0, value_error=0.3), Point(u, u, u, value=2.0, value_error=0.3)
    assert judge(before, now, 0.2, 1.0) == (True, pytest.approx(0.05))
    assert judge(before, Point(u, u, u, value=2.3, value_error=0.3), 0.2, 1.0) == (False, 0.2)
    assert judge(before, Point(u, u, u), 0.2, 1.0) == (False, 0.2)
