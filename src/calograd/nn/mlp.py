"""A conditional residual network on vectors.

Symbols: h the hidden state, c the conditions that a whole batch may share, s the noise level, u what belongs to a
single sample.

    e = SiLU(W_2 SiLU(W_1 [fourier(s), c]))
    h = W_in [x, u];     h += W_b SiLU(LN(W_a h) (1 + gamma_b(e)) + beta_b(e)) for every block;     F = W_out h

Where all samples share s and c, e and the scales gamma, beta are computed once for the batch.

A number that is either of two kinds (an empty cell or a filled one) has a clean distribution of two clusters, whose
denoiser is a steep step in that number alone. A wide hidden layer shared by all numbers cannot afford a step for each,
so each number i may have some units of its own, around a threshold q_i between its clusters:

    t_ik = tanh(w_ik(e) (x_i - q_i) + b_ik)       F_i += sum_k v_ik t_ik

with b and v from e and h; some more, with b from e alone, are input beside x.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.nn.linear import linear

FREQUENCIES = 2.0 ** torch.arange(-2, 5) * pi / 4
"""Frequencies of the Fourier features of the noise level."""


class LocalUnits(nn.Module):
    """t_ik of the formula above: ``units`` steps in every one of ``dim`` numbers."""

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
        dim: numbers of a sample.
        conditions: numbers that condition a sample and may be shared by the batch.
        context: numbers that belong to each sample (0 for none).
        width: of the hidden state.
        blocks: residual blocks.
        embedding: width of the embedding of noise level and conditions.
        units: local units of every number at the output, and half as many at the input; 0 for none.
        gains: further numbers at the output, zero at first.
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
        heads = [self.out] if self.gains is None else [self.out, self.gains]
        for layer in (*self.second, *self.scale, *self.shift, *heads):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        if units:
            self.local_into = LocalUnits(dim, units // 2, embedding)
            self.local_offset = nn.Linear(embedding, dim * (units // 2))
            self.local_out = LocalUnits(dim, units, embedding)
            self.local_head = nn.Linear(width, 2 * dim * units)
            nn.init.zeros_(self.local_head.weight)
            nn.init.zeros_(self.local_head.bias)
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
            x: shape (n, dim).
            noise: c_noise, shape (n,) or (1,).
            conditions: shape (n, conditions) or (1, conditions).
            context: shape (n, context).
            thresholds: q, in the units of ``x``, shape (n, dim); with local units only.
        """
        phase = noise[:, None] * self.frequencies
        rows = max(len(noise), len(conditions))
        parts = [phase.sin(), phase.cos(), noise[:, None], conditions]
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
