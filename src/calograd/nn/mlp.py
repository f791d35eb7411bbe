"""Conditional networks on vectors.

`ResidualMlp` serves every noise level s. With h the hidden state, c the conditions, which the whole batch may share,
and u the further inputs of each sample,

    e = SiLU(W_2 SiLU(W_1 [fourier(s), c]))
    h = W_in [x, u];     h += W_b SiLU(LN(W_a h) (1 + gamma_b(e)) + beta_b(e)) for every block;     F = W_out h

Where all samples share s and c, e and the scales gamma, beta are computed once for the batch.

A number that is either of two kinds (an empty cell or a filled one) has a clean distribution of two clusters, whose
denoiser is a steep step in that number alone. A wide hidden layer shared by all numbers cannot afford a step for each,
so each number i may have some units of its own, around a threshold q_i between its clusters:

    t_ik = tanh(w_ik(e) (x_i - q_i) + b_ik)       F_i += sum_k v_ik t_ik

with b and v from e and h; some more, with b from e alone, are input beside x.

`VectorMap` has few, wide operations, for consistency models of one evaluation. With y = [x, c], c the conditions,

    h = SiLU(W_1 y);     h = SiLU(W_b h) for every further hidden layer;     F = V h + A y
"""

from __future__ import annotations

from itertools import pairwise
from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.linear import linear

FREQUENCIES = 2.0 ** torch.arange(-2, 5) * pi / 4
"""Frequencies of the Fourier features of the noise level."""


def fourier_features(noise: Tensor, frequencies: Tensor) -> Tensor:
    """Return sines, cosines and the value of c_noise (n,), shape (n, 2 frequencies + 1)."""
    phase = noise[:, None] * frequencies
    return torch.cat([phase.sin(), phase.cos(), noise[:, None]], dim=1)


def zero_(*modules: nn.Module) -> None:
    """Set all weights and biases of some modules to zero."""
    for module in modules:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)


class LocalUnits(nn.Module):
    """Local units t_ik of the module's formula: ``units`` steps in every one of ``dim`` numbers."""

    def __init__(self, dim: int, units: int, embedding: int) -> None:
        super().__init__()
        self.units = units
        self.slope = nn.Linear(embedding, dim * units)
        nn.init.zeros_(self.slope.weight)
        nn.init.normal_(self.slope.bias, std=2.0)

    def forward(self, distance: Tensor, e: Tensor, offset: Tensor) -> Tensor:
        """Return the steps, shape (n, dim * units), of the distances x - q, shape (n, dim)."""
        return torch.addcmul(offset, linear(self.slope, e), distance.repeat_interleave(self.units, 1)).tanh()


class ResidualMlp(nn.Module):
    """Conditional residual network on vectors.

    Args:
        dim: number of numbers of a sample.
        conditions: number of conditions, which the batch may share.
        context: number of further inputs of each sample; 0 for none.
        width: width of the hidden state.
        blocks: number of residual blocks.
        embedding: width of the embedding of noise level and conditions.
        units: local units of every number at the output, and half as many at the input; 0 for none.
        gains: number of further outputs, which begin at zero.
    """

    def __init__(
        self,
        dim: int,
        conditions: int,
        context: int = 0,
        width: int = 512,
        blocks: int = 4,
        embedding: int = 128,
        units: int = 0,
        gains: int = 0,
    ) -> None:
        super().__init__()
        self.units = units
        self.register_buffer("frequencies", FREQUENCIES.clone(), persistent=False)
        self.frequencies: Tensor
        self.embed = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + 1 + conditions, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.into = nn.Linear(dim + context + dim * (units // 2), width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(blocks))
        self.scale = nn.ModuleList(nn.Linear(embedding, width) for _ in range(blocks))
        self.shift = nn.ModuleList(nn.Linear(embedding, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.out = nn.Linear(width, dim)
        self.gains = nn.Linear(width, gains) if gains else None
        zero_(self.second, self.scale, self.shift, self.out, *([] if self.gains is None else [self.gains]))
        if units:
            self.local_into = LocalUnits(dim, units // 2, embedding)
            self.local_offset = nn.Linear(embedding, dim * (units // 2))
            self.local_out = LocalUnits(dim, units, embedding)
            self.local_head = nn.Linear(width, 2 * dim * units)
            zero_(self.local_head)
            nn.init.normal_(self.local_offset.bias)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        conditions: Tensor,
        context: Tensor | None = None,
        thresholds: Tensor | None = None,
    ) -> Tensor:
        """Return F(x), shape (n, dim + gains).

        Args:
            x: samples with noise, shape (n, dim).
            noise: c_noise, shape (n,) or (1,).
            conditions: shape (n, conditions) or (1, conditions).
            context: further inputs of each sample, shape (n, context).
            thresholds: q, in the units of ``x``, shape (n, dim); with local units only.
        """
        rows = max(len(noise), len(conditions))
        parts = [fourier_features(noise, self.frequencies), conditions]
        e = silu(self.embed(torch.cat([part.expand(rows, -1) for part in parts], dim=1)))
        parts = [x] if context is None else [x, context]
        if thresholds is not None:
            parts.append(self.local_into(x - thresholds, e, linear(self.local_offset, e)))
        h = linear(self.into, torch.cat(parts, dim=1))
        for first, norm, scale, shift, second in zip(
            self.first, self.norm, self.scale, self.shift, self.second, strict=True
        ):
            modulated = torch.addcmul(linear(shift, e), norm(linear(first, h)), 1 + linear(scale, e))
            h = h + linear(second, silu(modulated))
        result = linear(self.out, h)
        if thresholds is not None:
            offset, gain = linear(self.local_head, h).chunk(2, dim=1)
            steps = gain * self.local_out(x - thresholds, e, offset)
            result = result + steps.unflatten(1, (-1, self.units)).sum(2)
        return result if self.gains is None else torch.cat([result, linear(self.gains, h)], dim=1)


class VectorMap(nn.Module):
    """Conditional map of vectors; begins as F = 0.

    Args:
        dim: number of numbers of a vector.
        conditions: number of conditions.
        width: width of the hidden layers.
        hidden: number of hidden layers.
    """

    def __init__(self, dim: int, conditions: int, width: int = 256, hidden: int = 2) -> None:
        super().__init__()
        sizes = [dim + conditions, *(width for _ in range(hidden))]
        layers = [nn.Linear(*pair) for pair in pairwise(sizes)]
        for layer in layers[1:]:  # with default weights little of x comes through
            nn.init.orthogonal_(layer.weight, 1.5)
        self.hidden = nn.ModuleList(layers)
        self.out = nn.Linear(width, dim, bias=False)
        self.straight = nn.Linear(dim + conditions, dim)
        zero_(self.out, self.straight)

    def forward(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Return F, shape (n, dim), of x (n, dim) and conditions (n, conditions)."""
        y = torch.cat([x, conditions], dim=1)
        h = y
        for layer in self.hidden:
            h = silu(linear(layer, h))
        return linear(self.straight, y) + linear(self.out, h)
