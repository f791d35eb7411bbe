"""Progressive distillation: a deterministic, differentiable sampler of one to some evaluations.

Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", arXiv 2202.00512. Here every noise
level learns at once from one teacher; the published method halves the steps again and again.

The student walks the even grid s_0 > s_1 > ... > s_N = 0 in the angle a = arctan(s) (`calograd.diffusion.samplers`)
with the step of DDIM, x' = D + (s'/s) (x - D). Its denoiser is D = c_skip x + c_out F(c_in x; c_noise) with, for steps
of the angle d = arctan(s_0) / N,

    c_skip = (1 + s tan(d / 2)) / (1 + s^2)         c_in = 1 / sqrt(1 + s^2)
    c_out = s / sqrt(1 + s^2)                       c_noise = ln(s) / 4

so that in z = x cos(a) a step is

    z' = z + sin(d) F

F = 0 is exact where the data are unit normal, and the last step (s' = 0) returns D itself. For short steps F is that of
EDM, so a student may start from the weights of its teacher.

From x = x0 + s n at a level s of the grid the teacher goes to s' in some sub-steps, even in the angle, which end at x'.
The student's loss is

    loss = |F - (z' - z) / sin(d)|^2
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import atan, tan
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.diffusion.denoisers import Coefficients, Network
from calograd.diffusion.samplers import SAMPLERS, Denoise, Sampler, sample
from calograd.diffusion.schedules import Schedule, angle_grid
from calograd.system.random_numbers import RandomNumbers

NAME = "progressive"
"""Name of the student's sampler in commands and in stored surrogates."""
PROGRESSIVE: Sampler = replace(SAMPLERS["ddim"], steps=1, even_angle=True)
"""Sampler of a student; the student fixes its number of steps."""


@dataclass(frozen=True)
class Progressive:
    """Preconditioning of a student, see the module's equations.

    Args:
        grid: noise levels of the student, falling to zero.
    """

    grid: tuple[float, ...]

    @classmethod
    def of(cls, schedule: Schedule, steps: int) -> Progressive:
        """Return the preconditioning for ``steps`` steps from the highest noise level of a schedule."""
        return cls(tuple(PROGRESSIVE.grid(schedule, steps).tolist()))

    @property
    def steps(self) -> int:
        """Number of steps from noise to sample."""
        return len(self.grid) - 1

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma`` of the grid; other levels are not trained."""
        total = (1 + sigma**2).rsqrt()
        half = tan(atan(self.grid[0]) / (2 * self.steps))
        return Coefficients((1 + half * sigma) * total**2, sigma * total, total, sigma.log() / 4)


class Teacher(NamedTuple):
    """Teacher of one network of the student.

    Args:
        denoise: D(x, sigma) of the teacher, with one noise level a sample, shape (n, 1, ...).
        sampler: sampler that the teacher walks with.
        steps: steps of the teacher for every step of the student.
    """

    denoise: Denoise
    sampler: Sampler
    steps: int


class Targets(NamedTuple):
    """Inputs and targets of the student's network F.

    Args:
        seen: c_in x, shape (n, ...).
        noise: c_noise, shape (n,).
        target: target of F, same shape as ``seen``.
    """

    seen: Tensor
    noise: Tensor
    target: Tensor

    def at(self, rows: Tensor | slice) -> Targets:
        """Return the chosen rows."""
        return Targets(*(values[rows] for values in self))


@torch.no_grad()
def teacher_targets(
    student: Progressive, teacher: Teacher, x0: Tensor, random: RandomNumbers, group: Tensor | None = None
) -> Targets:
    """Let the teacher take one step of the student from every noisy sample.

    The samples are dealt out to the steps of the student in turn.

    Args:
        student: preconditioning of the student.
        teacher: teacher of the student's network.
        x0: clean samples, shape (n, ...).
        random: random numbers of the samples.
        group: index of every sample's group, shape (n,), int64; samples of a group get the same step. None: each is
            one.
    """
    which = (torch.arange(len(x0)) if group is None else group.cpu()) % student.steps
    wide = (-1, *(1,) * (x0.ndim - 1))
    grid = angle_grid(student.grid[0], student.steps * teacher.steps)
    visited = torch.stack([grid[which * teacher.steps + step].reshape(wide) for step in range(teacher.steps + 1)])
    visited = visited.to(x0)  # (steps + 1, n, 1, ...)
    start, end = visited[0], visited[-1]
    x = x0 + start * random.normal_like(x0)
    c = student.coefficients(start)
    reached = sample(teacher.denoise, x / start, visited, teacher.sampler)
    sine = (start - end) * c.into * (1 + end**2).rsqrt()
    target = (reached * (1 + end**2).rsqrt() - x * c.into) / sine
    return Targets(c.into * x, c.noise.flatten(), target)


def distillation_loss(student: Network, targets: Targets) -> Tensor:
    """Return the squared error of the network F, one a number of a sample, same shape as ``targets.target``."""
    return (student(targets.seen, targets.noise) - targets.target).square()
