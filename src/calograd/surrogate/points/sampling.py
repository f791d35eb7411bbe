"""Samplers from noise to the numbers of a shower or its points: one consistency jump or many steps."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from calograd.diffusion.consistency import CONSISTENCY, Consistency, jump
from calograd.diffusion.denoisers import Network, Preconditioning, denoise
from calograd.diffusion.samplers import SAMPLERS, DrawNoise, Sampler, sample
from calograd.diffusion.schedules import SCHEDULES
from calograd.errors import InputError


def run_sampler(
    network: Network, pre: Preconditioning, noise: Tensor, levels: Tensor, sampler: Sampler, draw: DrawNoise
) -> Tensor:
    """Return samples from unit normal noise, through falling noise levels."""
    if isinstance(pre, Consistency) and len(levels) == 2:
        return jump(network, pre, noise, float(levels[0]))
    return sample(lambda z, s: denoise(network, pre, z, s), noise, levels, sampler, draw)


@cache
def grid(sampler: Sampler, schedule: str, steps: int) -> Tensor:
    """Return the noise levels that a sampler visits, see `calograd.diffusion.samplers.Sampler.grid`."""
    with torch.inference_mode(False):  # kept for calls that are derived
        return sampler.grid(SCHEDULES[schedule], steps)


@cache
def consistency(schedule: str) -> Consistency:
    """Return the preconditioning of a consistency model down to the least level of a schedule."""
    return Consistency(float(SCHEDULES[schedule].grid(2)[1]))


def sampler_of(name: str, distilled: bool) -> Sampler:
    """Return the sampler of the points. Raises `InputError` for one that is unknown or does not fit the model."""
    known = ("consistency",) if distilled else tuple(SAMPLERS)
    if name not in known:
        what = "distilled: its" if distilled else "not distilled: its"
        raise InputError(f"sampler '{name}' cannot be used, the model is {what} samplers are {', '.join(known)}")
    return CONSISTENCY if name == "consistency" else SAMPLERS[name]
