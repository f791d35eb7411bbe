"""Consistency models: students that go from any noise level to the sample in one step.

A consistency model (arXiv 2303.01469) is f(x; sigma) = c_skip x + c_out F(c_in x; c_noise) with f(x; sigma_min) = x
that takes every place on a trajectory of the teacher's probability flow to where the trajectory ends. Here

    c_skip = sqrt((1 + sigma_min^2) / (1 + sigma^2))        c_out = (sigma - sigma_min) / sqrt(1 + sigma^2)

so that F = 0 is exact where the data are unit normal, whose probability flow ends at x sqrt((1 + sigma_min^2) /
(1 + sigma^2)); standardised data are nearly so. It is not learnt from pairs of neighbouring levels, where each level
takes over the errors of those below, but by regression: a deterministic sampler walks the teacher's trajectory from
pure noise to its end x_0, and with x the place at one of the levels s on the way

    loss = |f(x; s) - x_0|^2

`levels` puts half of the trajectories' places at the highest one, where a sample in one step begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.diffusion.denoisers import Coefficients, Network, Preconditioning, denoise
from calograd.diffusion.samplers import Denoise, DrawNoise, Memory, Place, Sampler, sample
from calograd.diffusion.schedules import SCHEDULES
from calograd.system.random_numbers import RandomNumbers


@dataclass(frozen=True)
class Consistency:
    """Preconditioning of a consistency model for data of unit variance, see above."""

    sigma_min: float = 0.005

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma``."""
        total = (1 + sigma**2).rsqrt()
        return Coefficients(
            (1 + self.sigma_min**2) ** 0.5 * total, (sigma - self.sigma_min) * total, total, sigma.log() / 4
        )


def _consistency(clean_of: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    clean = clean_of(at.x, at.s)
    if at.last:
        return clean, clean
    return clean + at.t * at.draw(at.x), clean


CONSISTENCY = Sampler(_consistency, order=0, evaluations=1, steps=1)
"""One evaluation to the sample; with more steps noise is added again in between."""


def jump(network: Network, preconditioning: Consistency, noise: Tensor, sigma: float) -> Tensor:
    """Return f(sigma noise; sigma), as `CONSISTENCY` does in one step, in as few operations as possible.

    Args:
        network: F with its conditions bound.
        preconditioning: preconditioning of the student.
        noise: unit normal numbers, shape (n, ...).
        sigma: highest noise level.
    """
    skip, out, into, level = jump_numbers(preconditioning, sigma)
    return torch.add(skip * noise, network(into * noise, noise.new_full((1,), level)), alpha=out)


@cache
def jump_numbers(preconditioning: Consistency, sigma: float) -> tuple[float, float, float, float]:
    """Return the factors of noise and F in `jump`, the factor of what F sees, and c_noise."""
    c = preconditioning.coefficients(torch.tensor(sigma, dtype=torch.float64))
    return float(c.skip) * sigma, float(c.out), float(c.into) * sigma, float(c.noise)


class Trajectories(NamedTuple):
    """Places on trajectories of a probability flow and where these end.

    Args:
        x: noisy samples on the trajectories, shape (n, ...).
        sigma: noise levels of ``x``, shape (n,).
        end: samples at the ends of the trajectories, shape (n, ...).
    """

    x: Tensor
    sigma: Tensor
    end: Tensor


def levels(steps: int, random: RandomNumbers) -> Tensor:
    """Draw the indices of the noise levels of the samples, shape (n,), int64; half are 0, the highest level."""
    drawn = random.integers(2 * steps)
    return torch.where(drawn < steps, drawn, 0)


def trajectories(teacher: Denoise, noise: Tensor, sigmas: Tensor, sampler: Sampler, level: Tensor) -> Trajectories:
    """Follow the teacher's trajectories from pure noise to their ends.

    Args:
        teacher: denoiser D(x, sigma) of the teacher.
        noise: unit normal numbers, shape (n, ...).
        sigmas: falling noise levels ending at zero, shape (steps + 1,).
        sampler: a deterministic sampler.
        level: index of the level at which the place of each sample is kept, 0 to steps - 1, shape (n,), int64.

    Raises:
        ValueError: a sampler that adds noise.
    """
    if sampler.order == 0:
        raise ValueError("a sampler that adds noise has no trajectories; expected a deterministic one")
    sigmas = sigmas.to(noise)
    x = kept = sigmas[0] * noise
    wide = level.reshape(-1, *(1,) * (noise.ndim - 1))
    memory: Memory = None
    steps = len(sigmas) - 1
    for step in range(steps):
        kept = torch.where(wide == step, x, kept)
        x, clean = sampler.step(
            teacher, Place(x, sigmas[step], sigmas[step + 1], memory, torch.randn_like, step == steps - 1)
        )
        memory = (clean, sigmas[step])
    return Trajectories(kept, sigmas[level], x)


def regression_loss(student: Network, preconditioning: Consistency, places: Trajectories) -> Tensor:
    """Return |f(x; sigma) - x_0|^2 of every number of every sample, same shape as ``places.x``.

    Args:
        student: F with its conditions bound.
        preconditioning: preconditioning of the student.
        places: places on the teacher's trajectories.
    """
    return (denoise(student, preconditioning, places.x, places.sigma) - places.end).square()


def run_sampler(
    network: Network, preconditioning: Preconditioning, noise: Tensor, grid: Tensor, sampler: Sampler, draw: DrawNoise
) -> Tensor:
    """Return samples from unit normal noise; a consistency model of one step takes `jump`.

    Args:
        network: F with its conditions bound.
        preconditioning: preconditioning of the denoiser.
        noise: unit normal numbers, shape (n, ...).
        grid: falling noise levels ending at zero, shape (steps + 1,).
        sampler: sampler of the steps.
        draw: returns fresh noise like its argument, see `calograd.diffusion.samplers.sample`.
    """
    if isinstance(preconditioning, Consistency) and len(grid) == len(("highest", "zero")):
        return jump(network, preconditioning, noise, float(grid[0]))
    return sample(lambda z, s: denoise(network, preconditioning, z, s), noise, grid, sampler, draw)


@cache
def noise_grid(sampler: Sampler, schedule: str, steps: int) -> Tensor:
    """Return the noise levels that a sampler visits, see `calograd.diffusion.samplers.Sampler.grid`; kept for reuse."""
    with torch.inference_mode(False):  # calls with derivatives use them as well
        return sampler.grid(SCHEDULES[schedule], steps)


@cache
def consistency(schedule: str) -> Consistency:
    """Return the preconditioning of a consistency model down to the least level of a schedule."""
    return Consistency(float(SCHEDULES[schedule].grid(2)[1]))
