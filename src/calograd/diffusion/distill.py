"""Consistency distillation (arXiv 2303.01469): a student that goes from any noise level to the sample in one step.

The student is f(x; sigma) = c_skip x + c_out F(c_in x; c_noise) with f(x; sigma_min) = x. Here

    c_skip = sqrt((1 + sigma_min^2) / (1 + sigma^2))        c_out = (sigma - sigma_min) / sqrt(1 + sigma^2)

so that F = 0 is exact where the data are unit normal, whose probability flow ends at x sqrt((1 + sigma_min^2) /
(1 + sigma^2)); standardised data are nearly so. It learns from pairs of neighbouring levels t < s of a grid: with x at
level s, and x^ at level t by one Heun step of the teacher,

    loss = |f(x; s) - f_target(x^; t)|^2

where the target is a moving average of the student.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calograd.diffusion.denoise import Coefficients, Network, denoise
from calograd.diffusion.noise import Schedule
from calograd.diffusion.sample import Denoise, Place, Sampler

LEVELS = 18
"""Of the grid of distillation."""


@dataclass(frozen=True)
class Consistency:
    """Preconditioning of a consistency model for data of unit variance, see above."""

    sigma_min: float = 0.005

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """The four coefficients at the noise levels ``sigma``."""
        total = (1 + sigma**2).rsqrt()
        return Coefficients(
            (1 + self.sigma_min**2) ** 0.5 * total, (sigma - self.sigma_min) * total, total, sigma.log() / 4
        )


def _consistency(clean_of: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    clean = clean_of(at.x, at.s)
    if at.t == 0:
        return clean, clean
    return clean + at.t * torch.randn(at.x.shape, generator=at.generator, dtype=at.x.dtype).to(at.x.device), clean


CONSISTENCY = Sampler(_consistency, order=0, evaluations=1, steps=1)
"""One evaluation to the sample; with more steps noise is added again in between."""


def consistency_loss(
    student: Network,
    target: Network,
    teacher: Denoise,
    preconditioning: Consistency,
    schedule: Schedule,
    x0: Tensor,
    level: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Distillation loss of every number of every sample, same shape as ``x0``.

    Args:
        student: F with its conditions bound.
        target: its moving average, likewise.
        teacher: the denoiser D(x, sigma) that is distilled, sigma of shape (n,).
        preconditioning: of the student.
        schedule: of the teacher.
        x0: clean samples, shape (n, ...).
        level: the higher level of every sample's pair, from 0 (the noisiest) to `LEVELS` - 2, shape (n,), int64.
        generator: of the noise.
    """
    grid = schedule.grid(LEVELS).to(x0)
    s, t = grid[level], grid[level + 1]
    wide = (-1, *(1,) * (x0.ndim - 1))
    x = x0 + s.reshape(wide) * torch.randn(x0.shape, generator=generator, dtype=x0.dtype).to(x0.device)
    with torch.no_grad():
        slope = (x - teacher(x, s)) / s.reshape(wide)
        step = (t - s).reshape(wide)
        euler = x + step * slope
        closer = x + step * 0.5 * (slope + (euler - teacher(euler, t)) / t.reshape(wide))
        wanted = denoise(target, preconditioning, closer, t)
    return (denoise(student, preconditioning, x, s) - wanted).square()
