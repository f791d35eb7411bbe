from __future__ import annotations

from math import log2

import pytest
import torch
from helpers.analytic import DOUBLE, Normal, tilted_normal
from torch import Tensor, nn

from calograd.diffusion.denoisers import Network, denoise
from calograd.diffusion.progressive import PROGRESSIVE, Progressive, Teacher, distillation_loss, teacher_targets
from calograd.diffusion.samplers import SAMPLERS, Denoise, Place, sample
from calograd.diffusion.schedules import Karras, angle_grid
from calograd.system.random_numbers import RandomNumbers

KARRAS = Karras()


def nothing(x: Tensor, noise: Tensor) -> Tensor:
    return torch.zeros_like(x)


def some(x: Tensor, noise: Tensor) -> Tensor:
    return 0.3 * x.sin() + noise.reshape(-1, 1)


def numbers(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def walked(network: Network, student: Progressive, noise: Tensor) -> Tensor:
    grid = PROGRESSIVE.grid(KARRAS, student.steps)
    assert PROGRESSIVE.nfe(student.steps) == student.steps
    return sample(lambda x, s: denoise(network, student, x, s), noise, grid, PROGRESSIVE)


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
def test_without_a_network_unit_normal_data_come_out_exactly(steps: int) -> None:
    noise, top = numbers(50), KARRAS.sigma_max
    made = walked(nothing, Progressive.of(KARRAS, steps), noise)
    torch.testing.assert_close(made, noise * top / (1 + top**2) ** 0.5, rtol=1e-12, atol=0)


def test_the_grid_is_even_in_the_angle_and_ends_at_zero() -> None:
    grid = torch.tensor(Progressive.of(KARRAS, 4).grid, dtype=DOUBLE)
    assert float(grid[0]) == pytest.approx(KARRAS.sigma_max)
    assert float(grid[-1]) == 0
    torch.testing.assert_close(grid.atan().diff(), grid.atan().diff()[:1].expand(4))


def test_the_last_step_is_the_denoiser() -> None:
    student, x = Progressive.of(KARRAS, 3), numbers(20)
    s = torch.tensor(student.grid[2], dtype=DOUBLE)
    clean = denoise(some, student, x, s)
    end, _ = PROGRESSIVE.step(
        lambda z, level: denoise(some, student, z, level), Place(x, s, torch.zeros_like(s), None, None, True)
    )
    assert torch.equal(end, clean)
    assert float((clean - x).abs().min()) > 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_step_turns_z_by_the_sine_of_its_angle(number: int) -> None:
    student, x = Progressive.of(KARRAS, 3), numbers(20)
    s, t = (torch.tensor(level, dtype=DOUBLE) for level in student.grid[number : number + 2])
    end, _ = PROGRESSIVE.step(
        lambda z, level: denoise(some, student, z, level), Place(x, s, t, None, None, number == 2)
    )
    z = x * s.atan().cos()
    expected = z + (s.atan() - t.atan()).sin() * some(z, s.log() / 4)
    torch.testing.assert_close(end * t.atan().cos(), expected)


@pytest.mark.parametrize("steps", [1, 4])
def test_coefficients_bear_rounding(steps: int) -> None:
    """Networks get ln(s) / 4 and recover s from it, in float32."""
    pre = Progressive.of(KARRAS, steps)
    exact = pre.coefficients(torch.tensor(pre.grid[:-1], dtype=DOUBLE))
    again = pre.coefficients((4 * exact.noise.float()).exp())
    for ours, theirs in zip(again, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=2e-6, atol=0)


def teacher_of(law: Normal) -> Denoise:
    """The denoiser of the law with a noise level a sample."""
    variance, axes = torch.linalg.eigh(law.covariance)
    return lambda x, s: law.mean + ((x - law.mean) @ axes * variance / (variance + s**2)) @ axes.T


def exact_steps(law: Normal, student: Progressive) -> Network:
    """F of a student whose steps are the probability flow of the law."""

    def network(z: Tensor, noise: Tensor) -> Tensor:
        result = torch.empty_like(z)
        for number, (s, t) in enumerate(zip(student.grid[:-1], student.grid[1:], strict=True)):
            rows = slice(number, None, student.steps)
            a, b = (torch.tensor(level, dtype=DOUBLE).atan() for level in (s, t))
            end = law.flow(z[rows] * (1 + s**2) ** 0.5, s, t) * b.cos()
            result[rows] = (end - z[rows]) / (a - b).sin()
        return result

    return network


def test_the_loss_of_the_exact_student_is_the_error_of_its_teacher() -> None:
    """Of second order in the teacher's steps, and nothing else."""
    law, student = tilted_normal(), Progressive.of(KARRAS, 3)
    x0 = law.mean + numbers(60) @ torch.linalg.cholesky(law.covariance).T
    errors = []
    for steps in (20, 40):
        lesson = Teacher(teacher_of(law), SAMPLERS["trigflow-ab2"], steps)
        loss = distillation_loss(
            exact_steps(law, student), teacher_targets(student, lesson, x0, RandomNumbers(1, range(len(x0))))
        )
        assert loss.shape == x0.shape
        errors.append(float(loss.mean()) ** 0.5)
    assert log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)
    wrong = distillation_loss(nothing, teacher_targets(student, lesson, x0, RandomNumbers(1, range(len(x0)))))
    assert float(wrong.mean()) ** 0.5 > 100 * errors[1]


def test_the_target_is_that_of_the_denoiser() -> None:
    """F* = (D* - c_skip x) / c_out with D* = (x' - (s'/s) x) / (1 - s'/s), x' by the teacher's sampler."""
    law, student, x0 = tilted_normal(), Progressive.of(KARRAS, 2), numbers(2)
    lesson = Teacher(teacher_of(law), SAMPLERS["trigflow-ab2"], 3)
    loss = distillation_loss(some, teacher_targets(student, lesson, x0, RandomNumbers(1, range(len(x0)))))
    noise = RandomNumbers(1, range(len(x0))).normal_like(x0)
    grid = angle_grid(KARRAS.sigma_max, 6)
    for row in range(2):
        s, t = student.grid[row : row + 2]
        x = x0[row : row + 1] + s * noise[row : row + 1]
        end = sample(law.denoise, x / s, grid[3 * row : 3 * row + 4], SAMPLERS["trigflow-ab2"])
        clean = (end - t / s * x) / (1 - t / s)
        c = student.coefficients(torch.tensor([[s]], dtype=DOUBLE))
        wanted = (some(c.into * x, c.noise) - (clean - c.skip * x) / c.out).square()
        torch.testing.assert_close(loss[row : row + 1], wanted, rtol=1e-8, atol=1e-12)


class Affine(nn.Module):
    """F = A z + b with A and b of every level: can learn any affine flow, as that of a normal law."""

    def __init__(self, student: Progressive) -> None:
        super().__init__()
        self.levels = torch.tensor(student.grid[:-1], dtype=DOUBLE).log() / 4
        self.matrix = nn.Parameter(torch.zeros(student.steps, 2, 2, dtype=DOUBLE))
        self.offset = nn.Parameter(torch.zeros(student.steps, 2, dtype=DOUBLE))

    def forward(self, z: Tensor, noise: Tensor) -> Tensor:
        which = (noise[:, None] - self.levels).abs().argmin(1).expand(len(z))
        return torch.einsum("nij,nj->ni", self.matrix[which], z) + self.offset[which]


def learn(steps: Progressive, lesson: Teacher, law: Normal) -> Affine:
    student = Affine(steps)
    x0 = law.mean + numbers(64) @ torch.linalg.cholesky(law.covariance).T
    optimiser = torch.optim.LBFGS(student.parameters(), lr=1, max_iter=200, tolerance_grad=1e-14,
                                  tolerance_change=1e-18, line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = distillation_loss(student, teacher_targets(steps, lesson, x0, RandomNumbers(3, range(len(x0))))).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)
    return student.requires_grad_(False)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_student_becomes_its_teacher(steps: int) -> None:
    law, pre, noise = tilted_normal(), Progressive.of(KARRAS, steps), numbers(30, seed=5)
    student = learn(pre, Teacher(teacher_of(law), SAMPLERS["trigflow-ab2"], 80 // steps), law)
    made = walked(student, pre, noise)
    teacher = sample(law.denoise, noise, SAMPLERS["trigflow-ab2"].grid(KARRAS, 80), SAMPLERS["trigflow-ab2"])
    top = KARRAS.sigma_max
    torch.testing.assert_close(made, law.flow(top * noise, top, 0.0), rtol=0, atol=5e-3)
    torch.testing.assert_close(made, teacher, rtol=0, atol=5e-3)
    assert float((walked(nothing, pre, noise) - teacher).abs().max()) > 0.5


@pytest.mark.parametrize("steps", [1, 2])
def test_a_distilled_teacher_goes_by_its_own_steps(steps: int) -> None:
    law, four, fewer = tilted_normal(), Progressive.of(KARRAS, 4), Progressive.of(KARRAS, steps)
    teacher = learn(four, Teacher(teacher_of(law), SAMPLERS["trigflow-ab2"], 3), law)
    lesson = Teacher(lambda x, s: denoise(teacher, four, x, s), PROGRESSIVE, 4 // steps)
    noise = numbers(30, seed=5)
    torch.testing.assert_close(
        walked(learn(fewer, lesson, law), fewer, noise), walked(teacher, four, noise), rtol=0, atol=1e-5
    )


def test_the_loss_teaches_the_student_alone() -> None:
    steps = Progressive.of(KARRAS, 2)
    student, weight = Affine(steps), torch.ones((), dtype=DOUBLE, requires_grad=True)
    lesson = Teacher(lambda x, s: 0.9 * weight * x / (1 + s**2), SAMPLERS["trigflow-ab2"], 3)
    distillation_loss(student, teacher_targets(steps, lesson, numbers(8), RandomNumbers(0, range(8)))).mean().backward()
    assert weight.grad is None
    assert student.offset.grad is not None
    assert (student.offset.grad != 0).all()
