"""A sampler's loop as a graph whose size does not grow with the number of steps.

The step at k of N goes from s_k to s_k+1 and may remember the one before it. The first remembers nothing and the last
ends at zero, so they are apart; those between are one step in a loop, which ONNX calls Scan,

    x, memory <- step(x, s_k, s_k+1, memory, s_k-1)        k = 1 ... N - 2

and with it the denoiser is traced three times at most, not N times (12 steps: 48 evaluations).
"""

from __future__ import annotations

import torch
from torch import Tensor

from calograd.diffusion.samplers import Denoise, Memory, Place, Sampler

UNROLLED = 3
"""Largest number of steps without a loop: the first, one between, the last."""


def looped(denoise: Denoise, noise: Tensor, sigmas: Tensor, sampler: Sampler) -> Tensor:
    """Return what `calograd.diffusion.samplers.sample` returns for a deterministic sampler, with a loop over its steps.

    Args:
        denoise: denoiser D(x, sigma).
        noise: unit normal numbers, shape (n, ...).
        sigmas: falling noise levels ending at zero, shape (steps + 1,).
        sampler: a sampler of order 1 or higher.
    """
    steps = len(sigmas) - 1

    def step(x: Tensor, s: Tensor, t: Tensor, memory: Memory, last: bool) -> tuple[Tensor, Tensor]:
        return sampler.step(denoise, Place(x, s, t, memory, torch.randn_like, last))

    def between(carried: tuple[Tensor, Tensor], levels: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        before, s, t = levels.unbind()
        return step(carried[0], s, t, (carried[1], before), False), s.clone()

    x = sigmas[0] * noise
    memory: Memory = None
    if steps <= UNROLLED:
        for k in range(steps):
            x, remembered = step(x, sigmas[k], sigmas[k + 1], memory, k == steps - 1)
            memory = (remembered, sigmas[k])
        return x
    from torch._higher_order_ops.scan import scan

    x, remembered = step(x, sigmas[0], sigmas[1], None, False)
    levels = torch.stack([sigmas[: steps - 2], sigmas[1 : steps - 1], sigmas[2:steps]], dim=1)
    (x, remembered), _ = scan(between, (x, remembered), levels)
    return step(x, sigmas[steps - 1], sigmas[steps], (remembered, sigmas[steps - 2]), True)[0]
