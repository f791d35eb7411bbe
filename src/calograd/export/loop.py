"""A sampler's steps as a loop in a graph, whose size does not grow with the number of steps.

Step k of N goes from s_k to s_k+1 and may remember the one before it. All are one step in a loop, which ONNX calls
Scan,

    x, memory <- step(x, s_k, s_k+1, memory, s_k-1)        k = 0 ... N - 1

The first step remembers nothing and the last ends at zero: both are alternatives of the same step, from the same
denoised sample. So the denoiser is traced once, not N times (12 steps of the pattern: 48 evaluations of both networks).
A sampler of two evaluations a step (Heun) has no memory, and takes one in its last step, which follows the loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calograd.diffusion.samplers import Denoise, Memory, Place, Sampler


def looped(denoise: Denoise, noise: Tensor, sigmas: Tensor, sampler: Sampler) -> Tensor:
    """Return what `calograd.diffusion.samplers.sample` returns for a deterministic sampler, with a loop over its steps.

    Args:
        denoise: denoiser D(x, sigma).
        noise: unit normal numbers, shape (n, ...).
        sigmas: falling noise levels ending at zero, shape (steps + 1,).
        sampler: a sampler of order 1 or higher.
    """
    from torch._higher_order_ops.scan import scan

    steps, x = len(sigmas) - 1, sigmas[0] * noise
    levels = torch.stack([torch.cat([sigmas.new_zeros(1), sigmas[: steps - 1]]), sigmas[:-1], sigmas[1:]], dim=1)

    def step(of: Denoise, x: Tensor, levels: Tensor, memory: Memory, last: bool) -> tuple[Tensor, Tensor]:
        _, s, t = levels.unbind()
        return sampler.step(of, Place(x, s, t, memory, torch.randn_like, last))

    def selected(carried: tuple[Tensor, Tensor], levels: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        (x, remembered), (before, s, t) = carried, levels.unbind()
        clean, memory = denoise(x, s), (remembered, before)
        first, between, last = (
            step(lambda *_: clean, x, levels, *how) for how in ((None, False), (memory, False), (memory, True))
        )
        x, remembered = (
            torch.where(t == 0, c, torch.where(before == 0, a, b)) for a, b, c in zip(first, between, last, strict=True)
        )
        return (x, remembered), s.clone()

    def without_memory(x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        return step(denoise, x, levels, None, False)[0], levels[1].clone()

    if steps > 1 and sampler.evaluations == 1:
        carried, _ = scan(selected, (x, torch.zeros_like(x)), levels)
        samples: Tensor = carried[0]
        return samples
    if steps > 1:
        x, _ = scan(without_memory, x, levels[:-1])
    return step(denoise, x, levels[-1], None, True)[0]
