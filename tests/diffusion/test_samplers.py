from __future__ import annotations

from functools import partial
from math import log2

import pytest
import torch
from helpers.analytic import DOUBLE, Mixture, Normal, noise_from, tilted_normal, two_bumps
from torch import Tensor

from calograd.diffusion.samplers import SAMPLERS, sample
from calograd.diffusion.schedules import SCHEDULES, Karras, angle_grid

DETERMINISTIC = [name for name, sampler in SAMPLERS.items() if sampler.order > 0]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_reach_mean_and_covariance(name: str, schedule: str) -> None:
    """The denoiser is affine, hence so is the sampler: basis vectors give its matrix without statistical error."""
    law, walk = tilted_normal(), SAMPLERS[name]
    grid = walk.grid(SCHEDULES[schedule], 400)
    noise = torch.cat([torch.zeros(1, 2), torch.eye(2)]).to(DOUBLE)
    points = sample(law.denoise, noise, grid, walk)
    tolerance = 0.02 if walk.order == 1 else 5e-3
    torch.testing.assert_close(points, law.flow(grid[0] * noise, float(grid[0]), 0.0), rtol=0, atol=tolerance)
    matrix = points[1:] - points[0]
    torch.testing.assert_close(matrix.T @ matrix, law.covariance, rtol=0, atol=3 * tolerance)
    # Started without the mean, which the highest noise level drowns, it forgets it but for this:
    torch.testing.assert_close(points[0], law.mean, rtol=0, atol=tolerance + float(2 / grid[0]))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddpm_draws_from_the_law(schedule: str) -> None:
    law, walk, n = tilted_normal(), SAMPLERS["ddpm"], 4000
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(n, 2, generator=generator, dtype=DOUBLE)
    grid = walk.grid(SCHEDULES[schedule], 300)
    drawn = sample(law.denoise, noise, grid, walk, noise_from(generator))
    variance = law.covariance.diag()
    assert ((drawn.mean(0) - law.mean).abs() < 4 * (variance / n).sqrt() + float(2 / grid[0])).all()
    spread = (variance[:, None] * variance + law.covariance**2).sqrt() / n**0.5
    assert ((drawn.T.cov() - law.covariance).abs() < 4 * spread + 0.01 * law.covariance).all()


@pytest.mark.parametrize("law", [tilted_normal(), two_bumps()], ids=["normal", "mixture"])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_order_of_convergence(name: str, law: Normal | Mixture) -> None:
    """Against the exact flow map from noise level 8 down to 0.1, or to zero on the even grid in the angle."""
    walk = SAMPLERS[name]
    start = 8 * torch.linspace(-1.5, 1.5, 8, dtype=DOUBLE).reshape(-1, 2 if isinstance(law, Normal) else 1)
    errors = []
    for steps in (100, 200):
        grid = angle_grid(8.0, steps) if walk.even_angle else Karras(sigma_min=0.1, sigma_max=8).grid(steps + 1)[:-1]
        exact = law.flow(start, 8.0, float(grid[-1]))
        errors.append(float((sample(law.denoise, start / 8, grid, walk) - exact).abs().max()))
    assert log2(errors[0] / errors[1]) == pytest.approx(walk.order, abs=0.25)
    assert errors[1] < (0.05 if walk.order == 1 else 3e-3)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_even_angle_is_exact_for_unit_normal_data(steps: int) -> None:
    walk, noise = SAMPLERS["trigflow-ab2"], torch.linspace(-3, 3, 7, dtype=DOUBLE)[:, None]
    made = sample(lambda x, s: x / (1 + s**2), noise, angle_grid(40.0, steps), walk)
    torch.testing.assert_close(made, noise * 40 / (1 + 40.0**2) ** 0.5, rtol=1e-13, atol=1e-13)


def test_even_angle_in_float32_starts_from_high_noise_without_loss() -> None:
    """The cosine of an angle near a right one, rounded to float32, would be off by per mille."""
    noise = torch.linspace(-3, 3, 7)[:, None]
    made = sample(lambda x, s: x / (1 + s**2), noise, angle_grid(2e4, 4), SAMPLERS["trigflow-ab2"])
    torch.testing.assert_close(made, noise, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_gradients_equal_finite_differences(name: str) -> None:
    walk = SAMPLERS[name]
    noise = torch.linspace(-1.7, 1.9, 5, dtype=DOUBLE)[:, None]
    parameters = torch.tensor([-1.1, 0.6, 0.5, 0.3], dtype=DOUBLE, requires_grad=True)

    def mean_square(p: Tensor) -> Tensor:
        law = Mixture(torch.tensor([0.35, 0.65], dtype=DOUBLE), p[:2], p[2:])
        generator = torch.Generator().manual_seed(3)
        return sample(law.denoise, noise, walk.grid(Karras(), 6), walk, noise_from(generator)).square().mean()

    assert torch.autograd.gradcheck(mean_square, parameters, eps=1e-6, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 5])
def test_evaluations_are_what_is_announced(name: str, steps: int) -> None:
    walk, calls = SAMPLERS[name], []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma))
        return x / (1 + sigma**2)

    sample(denoise, torch.ones(2, 3), walk.grid(Karras(), steps), walk)
    assert len(calls) == walk.nfe(steps)
    assert min(calls) > 0


def test_generator_rules_the_added_noise() -> None:
    walk, law = SAMPLERS["ddpm"], tilted_normal()
    draw = partial(sample, law.denoise, torch.ones(3, 2, dtype=DOUBLE), walk.grid(Karras(), 5), walk)
    first, again, other = (draw(noise_from(torch.Generator().manual_seed(seed))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_samplers_draw_nothing(name: str) -> None:
    walk, generator = SAMPLERS[name], torch.Generator().manual_seed(1)
    before = generator.get_state()
    sample(tilted_normal().denoise, torch.ones(3, 2, dtype=DOUBLE), walk.grid(Karras(), 5), walk, noise_from(generator))
    assert torch.equal(generator.get_state(), before)
