"""A conditional residual network on vectors.

Symbols: h the hidden state, c the conditions that a whole batch may share, s the noise level, u what belongs to a
single sample.

    e = SiLU(W_2 SiLU(W_1 [fourier(s), c]))
    h = W_in [x, u];     h += W_b SiLU(LN(W_a h) (1 + gamma_b(e)) + beta_b(e)) for every block;     F = W_out h

Where all samples share s and c, e and the scales gamma, beta are computed once for the batch.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from calograd.networks.linear import linear


class ResidualMlp(nn.Module):
    """Conditional residual network on vectors.

    Args:
        dim: numbers of a sample.
        conditions: numbers that condition a sample and may be shared by the batch.
        context: numbers that belong to each sample (0 for none).
        width: of the hidden state.
        blocks: residual blocks.
        embedding: width of the embedding of noise level and conditions.
    """

    def __init__(
        self, dim: int, conditions: int, context: int = 0, width: int = 512, blocks: int = 4, embedding: int = 128
    ) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2.0 ** torch.arange(-2, 5) * pi / 4, persistent=False)
        self.frequencies: Tensor
        self.embed = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + 1 + conditions, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.into = nn.Linear(dim + context, width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(blocks))
        self.scale = nn.ModuleList(nn.Linear(embedding, width) for _ in range(blocks))
        self.shift = nn.ModuleList(nn.Linear(embedding, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.out = nn.Linear(width, dim)
        for layer in (*self.second, *self.scale, *self.shift, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, noise: Tensor, conditions: Tensor, context: Tensor | None = None) -> Tensor:
        """F(x).

        Args:
            x: shape (n, dim).
            noise: c_noise, shape (n,) or (1,).
            conditions: shape (n, conditions) or (1, conditions).
            context: shape (n, context).
        """
        phase = noise[:, None] * self.frequencies
        rows = max(len(noise), len(conditions))
        parts = [phase.sin(), phase.cos(), noise[:, None], conditions]
        e = silu(self.embed(torch.cat([part.expand(rows, -1) for part in parts], dim=1)))
        h = linear(self.into, x if context is None else torch.cat([x, context], dim=1))
        for first, norm, scale, shift, second in zip(
            self.first, self.norm, self.scale, self.shift, self.second, strict=True
        ):
            modulated = torch.addcmul(linear(shift, e), norm(linear(first, h)), 1 + linear(scale, e))
            h = h + linear(second, silu(modulated))
        return linear(self.out, h)
