from __future__ import annotations

import pytest
import torch
from helpers.analytic import noise_from
from torch import Tensor

from calograd.diffusion.consistency import CONSISTENCY, Consistency, jump, levels, regression_loss, trajectories
from calograd.diffusion.denoisers import Edm, denoise
from calograd.diffusion.samplers import SAMPLERS, sample
from calograd.diffusion.schedules import Karras
from calograd.system.random_numbers import RandomNumbers

KARRAS = Karras()


def nothing(x: Tensor, noise: Tensor) -> Tensor:
    return torch.zeros_like(x)


def scaled(x: Tensor, noise: Tensor) -> Tensor:
    return 3 * x + noise.mean()


def test_at_the_least_noise_the_student_is_the_identity() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    sigma = torch.full((5,), KARRAS.sigma_min).double()
    torch.testing.assert_close(denoise(scaled, Consistency(KARRAS.sigma_min), x, sigma), x)


def test_without_a_network_unit_normal_data_come_out_in_one_step() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 1, generator=generator).double()
    made = sample(
        lambda x, s: denoise(nothing, Consistency(), x, s),
        noise,
        CONSISTENCY.grid(KARRAS, 1),
        CONSISTENCY,
        noise_from(generator),
    )
    assert CONSISTENCY.nfe(1) == 1
    assert abs(float(made.std()) - 1) < 5e-3


def test_a_jump_is_one_step() -> None:
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    pre = Consistency(KARRAS.sigma_min)
    step = sample(lambda x, s: denoise(scaled, pre, x, s), noise, CONSISTENCY.grid(KARRAS, 1), CONSISTENCY)
    torch.testing.assert_close(jump(scaled, pre, noise, KARRAS.sigma_max), step)


def test_several_steps_keep_the_law() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 1, generator=generator).double()
    made = sample(
        lambda x, s: denoise(nothing, Consistency(), x, s),
        noise,
        CONSISTENCY.grid(KARRAS, 4),
        CONSISTENCY,
        noise_from(generator),
    )
    assert abs(float(made.std()) - 1) < 1e-2
    assert abs(float(made.mean())) < 1e-2


def scaled_normal(x: Tensor, sigma: Tensor) -> Tensor:
    """Exact denoiser of data of deviation 0.5."""
    return x * 0.25 / (0.25 + sigma**2)


def test_trajectories_of_normal_data_end_where_they_should() -> None:
    """A place x at level s of data of deviation 0.5 ends at 0.5 x / sqrt(0.25 + s^2)."""
    generator, angle = torch.Generator().manual_seed(0), SAMPLERS["trigflow-ab2"]
    noise = torch.randn(500, 2, generator=generator).double()
    grid = angle.grid(KARRAS, 200)
    level = levels(200, RandomNumbers(0, range(500)))
    places = trajectories(scaled_normal, noise, grid, angle, level)
    sigma = places.sigma[:, None]
    torch.testing.assert_close(places.sigma, grid[level])
    torch.testing.assert_close(places.end, 0.5 * places.x / (0.25 + sigma**2).sqrt(), atol=5e-3, rtol=0)
    assert torch.equal(places.x[level == 0], grid[0] * noise[level == 0])


def test_half_of_the_places_are_at_the_highest_level() -> None:
    drawn = levels(10, RandomNumbers(0, range(40_000)))
    shares = torch.bincount(drawn, minlength=10) / 40_000
    torch.testing.assert_close(shares, torch.tensor([0.55] + 9 * [0.05]), atol=0.01, rtol=0)


def test_a_sampler_that_adds_noise_has_no_trajectories() -> None:
    noise = torch.zeros(2, 1).double()
    with pytest.raises(ValueError, match="deterministic"):
        trajectories(scaled_normal, noise, KARRAS.grid(3), SAMPLERS["ddpm"], torch.zeros(2, dtype=torch.int64))


def loss_of(student: float) -> float:
    """Mean loss on unit normal data, whose denoiser is exact, of a student F = ``student`` x."""
    generator, angle = torch.Generator().manual_seed(0), SAMPLERS["trigflow-ab2"]
    noise = torch.randn(2000, 1, generator=generator).double()
    places = trajectories(
        lambda x, s: denoise(nothing, Edm(), x, s),
        noise,
        angle.grid(KARRAS, 10),
        angle,
        levels(10, RandomNumbers(0, range(2000))),
    )
    return float(regression_loss(lambda x, s: student * x, Consistency(), places).mean())


def test_the_right_student_has_the_least_loss() -> None:
    right = loss_of(0.0)
    assert right < 1e-5
    assert min(loss_of(0.1), loss_of(-0.1)) > right + 1e-3


def test_a_student_learns_a_width_that_is_not_one() -> None:
    """Data of deviation 0.5, exact teacher: the student's samples get that deviation, too."""
    generator, angle = torch.Generator().manual_seed(0), SAMPLERS["trigflow-ab2"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.SiLU(), torch.nn.Linear(16, 1))

    def student(x: Tensor, noise: Tensor) -> Tensor:
        return net(noise[:, None]) * x

    grid = angle.grid(KARRAS, 20)
    made = trajectories(
        scaled_normal, torch.randn(4096, 1, generator=generator), grid, angle, levels(20, RandomNumbers(0, range(4096)))
    )
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        regression_loss(student, Consistency(), made).mean().backward()
        optimiser.step()
    with torch.no_grad():
        noise = torch.randn(20_000, 1, generator=generator)
        drawn = sample(
            lambda x, s: denoise(student, Consistency(), x, s), noise, CONSISTENCY.grid(KARRAS, 1), CONSISTENCY
        )
    assert abs(float(drawn.std()) / 0.5 - 1) < 0.03
