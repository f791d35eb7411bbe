from __future__ import annotations

from math import cos, pi

import numpy as np
import pytest
import torch

from calograd.diffusion.schedules import SCHEDULES, Cosine, Karras, Linear, angle_grid
from calograd.system.random_numbers import RandomNumbers


@pytest.mark.parametrize("steps", [1, 2, 18, 1000, 1500])
@pytest.mark.parametrize("name", SCHEDULES)
def test_grids_fall_to_zero(name: str, steps: int) -> None:
    grid = SCHEDULES[name].grid(steps)
    assert grid.dtype == torch.float64
    assert len(grid) == (min(steps, 1000) if name != "karras" else steps) + 1
    assert grid[-1] == 0
    assert (grid.diff() < 0).all()


def test_karras_grid_is_equation_5() -> None:
    grid = Karras(sigma_min=0.002, sigma_max=80.0, rho=7.0).grid(18)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(grid[:-1], expected, rtol=1e-12)
    assert Karras(sigma_max=80.0).grid(1).tolist() == pytest.approx([80.0, 0.0])


def test_karras_trains_on_log_normal_levels() -> None:
    drawn = Karras(mean=-1.2, std=1.2).draw(RandomNumbers(0, range(100_000)), like=torch.empty(0)).log()
    assert float(drawn.mean()) == pytest.approx(-1.2, abs=4 * 1.2 / 100_000**0.5)
    assert float(drawn.std()) == pytest.approx(1.2, rel=4 / 200_000**0.5)


def test_linear_schedule_is_that_of_ddpm() -> None:
    """alpha_bar of the last step is 4.0e-5: "L_T is about 1e-5 bits a dimension" (arXiv 2006.11239, section 4)."""
    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(Linear().alpha_bar(), expected, rtol=1e-12)
    assert expected[-1] == pytest.approx(4.036e-5, rel=1e-3)
    assert float(Linear().sigmas()[-1]) == pytest.approx((1 / 4.036e-5 - 1) ** 0.5, rel=1e-3)
    assert float(Linear().sigmas()[0]) == pytest.approx((1e-4 / (1 - 1e-4)) ** 0.5, rel=1e-12)


def test_cosine_schedule_is_equation_17() -> None:
    alpha_bar = Cosine().alpha_bar()
    t = np.arange(1, 1000) / 1000
    expected = np.cos((t + 0.008) / 1.008 * pi / 2) ** 2 / cos(0.008 / 1.008 * pi / 2) ** 2
    np.testing.assert_allclose(alpha_bar[:-1], expected, rtol=1e-10)
    assert float(alpha_bar[-1] / alpha_bar[-2]) == pytest.approx(1e-3)  # beta is clipped at 0.999


@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_variance_preserving_levels_are_drawn_evenly_over_time(schedule: Linear | Cosine) -> None:
    n, levels = 200_000, schedule.sigmas().float()
    drawn = schedule.draw(RandomNumbers(0, range(n)), like=levels)
    assert torch.isin(drawn, levels).all()
    share = (drawn < levels[250]).double().mean()
    assert float(share) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / n) ** 0.5)


def test_variance_preserving_grid_starts_and_ends_with_the_process() -> None:
    grid, sigmas = Linear().grid(10), Linear().sigmas()
    assert grid[0] == sigmas[-1]
    assert grid[-2] == sigmas[0]
    assert grid[3] == sigmas[666]


def test_angle_grid_is_even_in_the_angle() -> None:
    angles = angle_grid(40.0, 12).atan()
    np.testing.assert_allclose(angles.diff(), -np.arctan(40) / 12, rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_seed_rules_what_is_drawn(name: str) -> None:
    first, again, other = (
        SCHEDULES[name].draw(RandomNumbers(seed, range(50)), like=torch.empty(0)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
