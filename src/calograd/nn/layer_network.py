"""A conditional network on the numbers of layers that follow one another.

All layers share its weights, as all pixels share those of a convolution, so stacks of any number of layers are one
case, and a layer is known by its features u_k alone. With s the noise level, c the conditions of the whole, x_k the
numbers of layer k and q_k thresholds between two clusters of each,

    e   = SiLU(W_2 SiLU(W_1 [fourier(s), c]))
    h_k = W_in [x_k, tanh(w(e) (x_k - q_k) + b(e)), u_k]
    h_k += W_b SiLU(LN(W_a [h_{k-d}, h_k, h_{k+d}]) (1 + gamma_b(e)) + beta_b(e))     for block b of d = 1, 2, 4, 1 ...
    F_k = W_out h_k + sum_j v_j(h_k) tanh(w'_j(e) (x_k - q_k) + b_j(h_k))

The hyperbolic tangents are the local units of `calograd.nn.mlp`: steps between an empty plate and a filled one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from calograd.nn.linear import linear, linear_of_parts
from calograd.nn.mlp import FREQUENCIES, fourier_features, zero_

REACHES = (1, 2, 4)
"""Distances of the layers that the blocks see, in turn."""


class LayerNetwork(nn.Module):
    """The network F of the module's formulas.

    Args:
        numbers: of each layer.
        features: of each layer.
        conditions: number of conditions.
        width: hidden numbers of each layer.
        blocks: number of residual blocks.
        embedding: width of the embedding of noise level and conditions.
        units: local units of every number at the output, and half as many at the input; 0 for none.
    """

    def __init__(
        self, numbers: int, features: int, conditions: int, width: int, blocks: int, embedding: int, units: int = 0
    ) -> None:
        super().__init__()
        self.numbers, self.units = numbers, units
        self.register_buffer("frequencies", FREQUENCIES.clone(), persistent=False)
        self.frequencies: Tensor
        self.embed = nn.Sequential(
            nn.Linear(2 * len(self.frequencies) + 1 + conditions, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        into = numbers * (units // 2)
        self.into = nn.Linear(numbers + features + into, width)
        self.first = nn.ModuleList(nn.Linear(3 * width, width) for _ in range(blocks))
        self.norm = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(blocks))
        self.modulation = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.out = nn.Linear(width, numbers)
        zero_(self.second, self.modulation, self.out)
        if units:
            self.local_into = nn.Linear(embedding, 2 * into)
            self.local_out = nn.Linear(embedding, numbers * units)
            self.local_head = nn.Linear(width, 2 * numbers * units)
            zero_(self.local_head)
            for slope in (self.local_into.bias[:into], self.local_out.bias):
                nn.init.normal_(slope, std=2.0)
            nn.init.zeros_(self.local_out.weight)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        conditions: Tensor,
        features: Sequence[Tensor],
        thresholds: Tensor,
        present: Tensor | None,
    ) -> Tensor:
        """Return F, shape (n, layers, numbers); zero where there is no layer.

        Args:
            x: numbers with noise, shape (n, layers, numbers).
            noise: c_noise, shape (n,) or (1,).
            conditions: shape (n, conditions) or (1, conditions).
            features: of every layer, in parts of shape (n, layers, k) or (1, layers, k).
            thresholds: q, in the units of ``x``, of the shape of x.
            present: 1 for the layers of each stack and 0 beyond, shape (n, layers, 1) or (1, layers, 1); None if all
                stacks have as many.
        """
        shape = (*x.shape, self.units)
        rows = max(len(noise), len(conditions))
        parts = [fourier_features(noise, self.frequencies), conditions]
        e = silu(self.embed(torch.cat([part.expand(rows, -1) for part in parts], dim=1)))[:, None]
        distance = (x - thresholds)[..., None]
        parts = [x, *features]
        if self.units:
            slope, offset = _linear(self.local_into, e).reshape(rows, 2, 1, self.numbers, -1).unbind(1)
            parts.append((distance * slope + offset).tanh().flatten(2))
        h = _masked(linear_of_parts(self.into, parts), present)
        for block, (first, norm, modulation, second) in enumerate(
            zip(self.first, self.norm, self.modulation, self.second, strict=True)
        ):
            reach = REACHES[block % len(REACHES)]
            seen = torch.cat([pad(h, (0, 0, reach, -reach)), h, pad(h, (0, 0, -reach, reach))], dim=2)
            scale, shift = _linear(modulation, e).chunk(2, dim=2)
            inner = silu(torch.addcmul(shift, norm(_linear(first, seen)), 1 + scale))
            h = h + _masked(_linear(second, inner), present)
        result = _linear(self.out, h)
        if self.units:
            offset, gain = (part.reshape(shape) for part in _linear(self.local_head, h).chunk(2, dim=2))
            slope = _linear(self.local_out, e).reshape(rows, 1, self.numbers, self.units)
            result = result + (gain * torch.addcmul(offset, distance, slope).tanh()).sum(3)
        return _masked(result, present)


def _masked(x: Tensor, present: Tensor | None) -> Tensor:
    """Return x, zero where there is no layer."""
    return x if present is None else x * present


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(x)`` of x of shape (n, layers, in)."""
    return linear(layer, x.flatten(0, 1)).reshape(*x.shape[:2], -1)
