from __future__ import annotations

import torch
from torch import Tensor

from calograd.diffusion.denoise import Edm, denoise
from calograd.diffusion.distill import CONSISTENCY, LEVELS, Consistency, consistency_loss
from calograd.diffusion.noise import Karras
from calograd.diffusion.sample import sample

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
        lambda x, s: denoise(nothing, Consistency(), x, s), noise, CONSISTENCY.grid(KARRAS, 1), CONSISTENCY, generator
    )
    assert CONSISTENCY.nfe(1) == 1
    assert abs(float(made.std()) - 1) < 5e-3


def test_several_steps_keep_the_law() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(200_000, 1, generator=generator).double()
    made = sample(
        lambda x, s: denoise(nothing, Consistency(), x, s), noise, CONSISTENCY.grid(KARRAS, 4), CONSISTENCY, generator
    )
    assert abs(float(made.std()) - 1) < 1e-2
    assert abs(float(made.mean())) < 1e-2


def loss_of(student: float) -> float:
    """Mean loss on unit normal data, whose denoiser is exact, of a student F = ``student`` x."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(2000, 1, generator=generator).double()
    level = torch.randint(LEVELS - 1, (2000,), generator=generator)
    return float(
        consistency_loss(
            lambda x, s: student * x, nothing, lambda x, s: denoise(nothing, Edm(), x, s), Consistency(), KARRAS, x0,
            level, generator,
        ).mean()
    )  # fmt: skip


def test_the_right_student_has_the_least_loss() -> None:
    right = loss_of(0.0)
    assert right < 5e-3  # of Heun's step on this grid
    assert min(loss_of(0.1), loss_of(-0.1)) > right + 1e-3


def test_a_student_learns_a_width_that_is_not_one() -> None:
    """Data of deviation 0.5, exact teacher: the student's samples get that deviation, too."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 1))

    def student(x: Tensor, noise: Tensor) -> Tensor:
        at = net(torch.stack([noise, noise**2], dim=1).expand(len(x), 2))
        return at * x

    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return x * (0.25 / (0.25 + sigma**2))[:, None]

    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(800):
        x0 = 0.5 * torch.randn(256, 1, generator=generator)
        level = torch.randint(LEVELS - 1, (256,), generator=generator)
        loss = consistency_loss(student, student, teacher, Consistency(), KARRAS, x0, level, generator).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        noise = torch.randn(20_000, 1, generator=generator)
        made = sample(
            lambda x, s: denoise(student, Consistency(), x, s), noise, CONSISTENCY.grid(KARRAS, 1), CONSISTENCY
        )
    assert abs(float(made.std()) / 0.5 - 1) < 0.1
