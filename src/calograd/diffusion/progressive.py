"""Distillation into few leaps: a deterministic, differentiable sampler of one to some evaluations.

A student walks the even grid s_0 > s_1 > ... > s_N = 0 in the angle a = arctan(s) (`calograd.diffusion.samplers`) with
the step of DDIM, x' = D + (s'/s) (x - D). Its denoiser is D = c_skip x + c_out F(c_in x; c_noise) with, for leaps of
the angle d = arctan(s_0) / N,

    c_skip = (1 + s tan(d / 2)) / (1 + s^2)         c_in = 1 / sqrt(1 + s^2)
    c_out = s / sqrt(1 + s^2)                       c_noise = ln(s) / 4

so that in z = x cos(a) a leap is

    z' = z + sin(d) F

F = 0 is exact where the data are unit normal, the last leap (s' = 0) returns D itself, and for short leaps F is that of
EDM: a student may begin with the weights of its teacher.

It learns the leaps of its teacher (progressive distillation, arXiv 2202.00512, all levels at once): from x = x0 + s n
at a level s of the grid the teacher goes to s' in some sub-steps, even in the angle, which end at x', and

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

NAME = "leaps"
LEAPS: Sampler = replace(SAMPLERS["ddim"], steps=1, even_angle=True)
"""The student's; how many it takes is up to the student."""


@dataclass(frozen=True)
class Leaps:
    """Preconditioning of a student, see above.

    Args:
        grid: its noise levels, falling to zero.
    """

    grid: tuple[float, ...]

    @classmethod
    def of(cls, schedule: Schedule, leaps: int) -> Leaps:
        """So many leaps from the highest noise level of a schedule."""
        return cls(tuple(LEAPS.grid(schedule, leaps).tolist()))

    @property
    def leaps(self) -> int:
        """Their number."""
        return len(self.grid) - 1

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels ``sigma``, which should be of the grid: no other is taught."""
        total = (1 + sigma**2).rsqrt()
        half = tan(atan(self.grid[0]) / (2 * self.leaps))
        return Coefficients((1 + half * sigma) * total**2, sigma * total, total, sigma.log() / 4)


class Lesson(NamedTuple):
    """What a student of one network is taught by.

    Args:
        denoise: of the teacher, D(x, sigma) with a noise level a sample, shape (n, 1, ...).
        sampler: of the teacher.
        steps: of it, for every leap of the student.
    """

    denoise: Denoise
    sampler: Sampler
    steps: int


class Taught(NamedTuple):
    """What a student's network sees and what it should say.

    Args:
        seen: c_in x, shape (n, ...).
        noise: c_noise, shape (n,).
        target: of F, same shape as ``seen``.
    """

    seen: Tensor
    noise: Tensor
    target: Tensor

    def at(self, rows: Tensor | slice) -> Taught:
        """Some of them."""
        return Taught(*(values[rows] for values in self))


@torch.no_grad()
def teach(leaps: Leaps, lesson: Lesson, x0: Tensor, generator: torch.Generator | None) -> Taught:
    """Let the teacher take a leap from every sample with noise; the samples are dealt out to the leaps in turn.

    Args:
        leaps: the student's preconditioning.
        lesson: what teaches it.
        x0: clean samples, shape (n, ...).
        generator: of the noise.
    """
    which = torch.arange(len(x0)) % leaps.leaps
    wide = (-1, *(1,) * (x0.ndim - 1))
    grid = angle_grid(leaps.grid[0], leaps.leaps * lesson.steps)
    visited = torch.stack([grid[which * lesson.steps + step].reshape(wide) for step in range(lesson.steps + 1)])
    visited = visited.to(x0)  # (steps + 1, n, 1, ...)
    start, end = visited[0], visited[-1]
    x = x0 + start * torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
    c = leaps.coefficients(start)
    reached = sample(lesson.denoise, x / start, visited, lesson.sampler)
    sine = (start - end) * c.into * (1 + end**2).rsqrt()
    target = (reached * (1 + end**2).rsqrt() - x * c.into) / sine
    return Taught(c.into * x, c.noise.flatten(), target)


def leap_loss(student: Network, taught: Taught) -> Tensor:
    """Distillation loss of every number of every sample, same shape as the target; ``student`` is F."""
    return (student(taught.seen, taught.noise) - taught.target).square()
