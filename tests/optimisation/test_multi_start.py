from __future__ import annotations

import numpy as np
import pytest
from helpers.hills import make_space, parabola

from calograd.gradients.estimates import ValueAndGradient
from calograd.optimisation.multi_start import elsewhere, multi_start


@pytest.mark.parametrize("p", [2, 6])
@pytest.mark.parametrize("designs", [2, 5, 24, 25])
def test_half_of_the_designs_lie_on_lines_and_half_are_spread(p: int, designs: int) -> None:
    space, u = make_space(p), np.log([2.0] + [6.0] * (p - 1))
    found = elsewhere(space, u, designs)
    assert found.shape == (designs, p)
    changed = (np.abs(found - u) > 1e-9).sum(1)
    assert (changed[: designs // 2] == 1).all()
    assert (changed[designs // 2 :] == p).all()
    assert len(np.unique(found.round(9), axis=0)) == designs
    if designs >= 24:
        spread = (found[designs // 2 :] - space.feasible.lower) / (space.feasible.upper - space.feasible.lower)
        assert (spread.min(0) < 0.2).all()
        assert (spread.max(0) > 0.8).all()
        np.testing.assert_allclose(spread.mean(0), 0.5, atol=0.12)


def test_designs_are_allowed_ones() -> None:
    space = make_space(2, max_depth=40.0, max_volume=3000.0)
    for each in elsewhere(space, np.log([2.0, 6.0]), 40):
        np.testing.assert_allclose(space.project(each), each, atol=1e-9)
        dx, dz = np.exp(each)
        assert 5 * dz <= 40.0 * (1 + 1e-6)
        assert (5 * dx) ** 2 * 5 * dz <= 3000.0 * (1 + 1e-6)


def test_the_luck_of_the_best_is_not_believed() -> None:
    """All designs are alike; the best of them looks better than the top until it is asked again."""
    space, u = make_space(2), np.log([2.0, 6.0])

    def noise(y: np.ndarray, draws: int, seed: int) -> ValueAndGradient:
        key = [seed, *np.round(1e6 * y).astype(int)]
        value = np.random.default_rng(key).normal() / draws**0.5
        return ValueAndGradient(value, draws**-0.5, np.zeros(2), np.ones(2))

    found = [multi_start(space, noise, u, 24, 8, seed).u is not None for seed in range(200)]
    assert np.mean(found) < 0.06


def test_the_gain_is_that_of_common_random_numbers() -> None:
    space, hill, u = make_space(2), parabola(np.log([4.0, 5.0]), np.eye(2), noise=0.01), np.log([1.5, 12.0])
    found = multi_start(space, hill.gradient, u, 24, 8, 0)
    assert found.u is not None
    assert found.gain == pytest.approx(hill.function(found.u) - hill.function(u))
    seeds = [call[3] for call in hill.calls]
    assert len(set(seeds[:24])) == len(set(seeds[24:])) == 1
    assert seeds[0] != seeds[24]
    assert [call[2] for call in hill.calls] == [2] * 24 + [8] * 2


def test_utilities_of_all_designs_may_come_at_once() -> None:
    space, hill, u = make_space(2), parabola(np.log([4.0, 5.0]), np.eye(2), noise=0.01), np.log([1.5, 12.0])
    asked = list[tuple[tuple[int, ...], int]]()

    def values(points: np.ndarray, draws: int, seed: int) -> np.ndarray:
        asked.append((points.shape, draws))
        return np.array([hill.gradient(y, draws, seed).value for y in points])

    one_by_one, at_once = (multi_start(space, hill.gradient, u, 24, 8, 0, values=each) for each in (None, values))
    np.testing.assert_array_equal(one_by_one.u, at_once.u)
    assert one_by_one.gain == at_once.gain
    assert asked == [((24, 2), 2)]
