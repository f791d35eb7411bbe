"""Samplers: from noise to a sample through falling noise levels.

With D the denoiser and d = (x - D(x; s)) / s, all of them walk the grid s_0 > s_1 > ... > s_N = 0 of a schedule:

    DDIM, eta = 0       x' = D + (s'/s) (x - D)                                    arXiv 2010.02502, eq. 12 in VE form
    DDPM                the posterior q(x' | x, D): the same mean with (s'/s)^2,
                        plus noise of variance s'^2 (s^2 - s'^2) / s^2             arXiv 2006.11239, eq. 7 in VE form
    Heun                DDIM step, then the trapezoid with d at its end            arXiv 2206.00364, alg. 1
    DPM-Solver++(2M)    DDIM step with D extrapolated from the last two            arXiv 2211.01095, alg. 2
    TrigFlow AB2        second-order Adams-Bashforth on the TrigFlow ODE, below    arXiv 2410.11081

All but DDPM are deterministic and differentiable; DDIM is of first order, the others of second.

In the angle a = arctan(s) and z = x cos(a) the probability flow is that of TrigFlow (Lu and Song, "Simplifying,
Stabilizing and Scaling Continuous-Time Consistency Models", arXiv 2410.11081), for data of unit variance

    dz/da = -F,    F = (D - z cos(a)) / sin(a)

and F vanishes where the data are unit normal: there z stands still and no step is too long. Standardised data are
nearly so, hence an even grid in the angle with few steps keeps the spreads that DDIM shrinks and Heun inflates. The
sampler "trigflow-ab2" integrates this ODE with the linear multistep formula of Adams and Bashforth, as DEIS
(arXiv 2204.13902) does in another variable: with F' the value one step before, of length h', and h = a - b

    z(b) = z(a) + h (F + (h / 2 h') (F - F'))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from calograd.diffusion.schedules import Schedule, angle_grid

Denoise = Callable[[Tensor, Tensor], Tensor]
"""Denoiser D(x, sigma); ``sigma`` is a tensor without dimensions."""
DrawNoise = Callable[[Tensor], Tensor]
"""Function that returns fresh unit normal noise of the shape, dtype and device of its argument."""
Memory = tuple[Tensor, Tensor] | None
"""The clean sample (or slope) of the step before and its noise level; None at the first step."""


class Place(NamedTuple):
    """State of a sampler before a step.

    Args:
        x: noisy samples, shape (n, ...).
        s: noise level of ``x``.
        t: lower noise level that the step goes to.
        memory: memory of the step before.
        draw: returns fresh unit normal noise of the shape of ``x``, for samplers that add noise on the way.
        last: True if ``t`` is the end of the grid, zero.
    """

    x: Tensor
    s: Tensor
    t: Tensor
    memory: Memory
    draw: DrawNoise
    last: bool


Step = Callable[[Denoise, Place], tuple[Tensor, Tensor]]
"""One step of a sampler; returns x at noise level t and what the next step extrapolates from."""


def _ddim(denoise: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    clean = denoise(at.x, at.s)
    return clean + (at.t / at.s) * (at.x - clean), clean


def _ddpm(denoise: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    clean, ratio = denoise(at.x, at.s), at.t / at.s
    return clean + ratio**2 * (at.x - clean) + at.t * (1 - ratio**2).sqrt() * at.draw(at.x), clean


def _heun(denoise: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    x, s, t = at.x, at.s, at.t
    clean = denoise(x, s)
    euler = clean + (t / s) * (x - clean)
    if at.last:
        return euler, clean
    slope = 0.5 * ((x - clean) / s + (euler - denoise(euler, t)) / t)
    return x + (t - s) * slope, clean


def _dpmpp_2m(denoise: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    x, s, t = at.x, at.s, at.t
    clean = ahead = denoise(x, s)
    if at.memory is not None and not at.last:
        before, r = at.memory[0], (at.memory[1] / s).log() / (s / t).log()
        ahead = clean + (clean - before) / (2 * r)
    return ahead + (t / s) * (x - ahead), clean


def _trigflow_ab2(denoise: Denoise, at: Place) -> tuple[Tensor, Tensor]:
    x, s, t = at.x, at.s, at.t
    a, b = s.atan(), t.atan()
    cos_a, cos_b = (1 + s**2).rsqrt(), (1 + t**2).rsqrt()  # not a.cos(), which is inexact near pi/2
    z = x * cos_a
    slope = ahead = (denoise(x, s) - z * cos_a) / (s * cos_a)
    if at.memory is not None:
        before, r = at.memory[0], (at.memory[1].atan() - a) / (a - b)
        ahead = slope + (slope - before) / (2 * r)
    return (z + (a - b) * ahead) / cos_b, slope


@dataclass(frozen=True)
class Sampler:
    """A numerical method that turns noise into samples.

    Args:
        step: one step, from a noise level to the next.
        order: order of convergence of deterministic samplers; 0 for samplers that add noise.
        evaluations: evaluations of the denoiser in a step; the last step, to zero, takes one.
        steps: default number of steps; `validation/samplers.py` prints the error that each leaves.
        even_angle: True for a grid that is even in the angle, in place of the schedule's.
    """

    step: Step
    order: int
    evaluations: int
    steps: int
    even_angle: bool = False

    def nfe(self, steps: int) -> int:
        """Return the number of evaluations of the denoiser in ``steps`` steps."""
        return self.evaluations * (steps - 1) + 1

    def grid(self, schedule: Schedule, steps: int) -> Tensor:
        """Return the noise levels of the steps, shape (steps + 1,), falling to zero, float64."""
        return angle_grid(schedule.grid(1)[0], steps) if self.even_angle else schedule.grid(steps)


SAMPLERS: dict[str, Sampler] = {
    "ddpm": Sampler(_ddpm, order=0, evaluations=1, steps=100),
    "ddim": Sampler(_ddim, order=1, evaluations=1, steps=50),
    "heun": Sampler(_heun, order=2, evaluations=2, steps=18),
    "dpmpp-2m": Sampler(_dpmpp_2m, order=2, evaluations=1, steps=18),
    "trigflow-ab2": Sampler(_trigflow_ab2, order=2, evaluations=1, steps=12, even_angle=True),
}
DEFAULT_SAMPLER = "trigflow-ab2"


def sample(
    denoise: Denoise,
    noise: Tensor,
    sigmas: Tensor,
    sampler: Sampler,
    draw: DrawNoise = torch.randn_like,
    checkpointed: bool = False,
) -> Tensor:
    """Return samples: follow the grid ``sigmas`` from pure noise.

    Args:
        denoise: denoiser D(x, sigma).
        noise: unit normal numbers, shape (n, ...).
        sigmas: falling noise levels ending at zero, shape (steps + 1,).
        sampler: one of `SAMPLERS`.
        draw: returns fresh unit normal noise like its argument, for samplers that add noise.
        checkpointed: keep the beginning of each step alone and repeat the step in the backward pass. Memory is that of
            one step and a sample a step; each step is evaluated once more. Not with added noise.

    Raises:
        ValueError: ``checkpointed`` with a sampler that adds noise.
    """
    if checkpointed and sampler.order == 0:
        raise ValueError("a sampler that adds noise cannot be checkpointed")
    sigmas = sigmas.to(noise)
    x = sigmas[0] * noise
    memory: Memory = None
    steps = len(sigmas) - 1
    for step in range(steps):
        s, t = sigmas[step], sigmas[step + 1]
        place = Place(x, s, t, memory, draw, step == steps - 1)
        if checkpointed:
            x, clean = checkpoint(_step, sampler, denoise, *place, use_reentrant=False, preserve_rng_state=False)
        else:
            x, clean = sampler.step(denoise, place)
        memory = (clean, s)
    return x


def _step(
    sampler: Sampler, denoise: Denoise, x: Tensor, s: Tensor, t: Tensor, memory: Memory, draw: DrawNoise, last: bool
) -> tuple[Tensor, Tensor]:
    return sampler.step(denoise, Place(x, s, t, memory, draw, last))
