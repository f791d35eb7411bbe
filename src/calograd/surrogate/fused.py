"""Parts of fused inference of distilled models: what depends on noise levels and weights alone is computed at once.

In z = x cos(a) a step of the sampler is z' = z + sin(d) F (`calograd.diffusion.progressive`), so only F has to be
computed. The embeddings of all steps of a network are rows of one product.
"""

from __future__ import annotations

from functools import cache
from math import atan, sin, tan
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu
from torch.nn.functional import linear as affine

from calograd.diffusion.progressive import Progressive
from calograd.nn.elementwise import tanh_
from calograd.nn.linear import product, weights_of
from calograd.nn.location_scale import ConditionalLocationScale
from calograd.nn.mlp import FREQUENCIES, ResidualMlp
from calograd.surrogate.two_stage import LocationScale


class StudentSteps(NamedTuple):
    """Numbers of a network's steps.

    Args:
        first: factor of the noise that the first step begins with.
        sine: sin(d) of the formula above.
        into, keep, out: c_in, c_skip / c_in and c_out at every level.
    """

    first: float
    sine: float
    into: list[float]
    keep: list[float]
    out: list[float]


@cache
def steps_of(student: Progressive) -> StudentSteps:
    """Return the coefficients of `Progressive.coefficients` at the levels of the steps, as plain numbers."""
    highest, *_ = levels = student.grid[:-1]
    into = [1 / (1 + level**2) ** 0.5 for level in levels]
    half = tan(atan(highest) / (2 * student.steps))
    keep = [(1 + half * level) * factor for level, factor in zip(levels, into, strict=True)]
    out = [level * factor for level, factor in zip(levels, into, strict=True)]
    return StudentSteps(highest * into[0], sin(atan(highest) / student.steps), into, keep, out)


@cache
@torch.inference_mode(False)
def _fourier(student: Progressive, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the features of all noise levels that the network embeds, which are the same for all weights."""
    noise = torch.tensor(student.grid[:-1], dtype=torch.float64).log().to(device, dtype)[:, None] / 4
    phase = noise * FREQUENCIES.to(noise)
    return torch.cat([phase.sin(), phase.cos(), noise], dim=1)


class FusedLocationScale:
    """`ConditionalLocationScale` by the network's own tensors."""

    def __init__(self, network: ConditionalLocationScale) -> None:
        self.network, self.layers = network, weights_of(network.network)

    def __call__(self, conditions: Tensor) -> LocationScale:
        """Return location and scale, as ``forward``."""
        return self.network.location_scale_of(self._behind_first(product(conditions, *self.layers[0])))

    def of_items(self, own: Tensor, *others: Tensor) -> LocationScale:
        """Return location and scale of several items of each sample, shape (n, dim, items) each.

        They are those of the network's ``of_items``, whose last two dimensions are in the other order.

        Args:
            own: first conditions, which every item of every sample has of its own, shape (n, items, k).
            others: the other ones, one behind the other, shape (n, items, k) each, where n or items may be 1.
        """
        (weight, bias), *_ = self.layers
        first, *columns = torch.split(weight, [part.shape[2] for part in (own, *others)], 1)
        parts = [
            affine(part.flatten(0, 1), column).view(*part.shape[:2], -1)
            for part, column in zip(others, columns, strict=True)
        ]
        shape = own.shape[:2]
        hidden = torch.addmm(sum(parts, bias).expand(*shape, -1).flatten(0, 1), own.flatten(0, 1), first.T)
        result = self._behind_first(hidden).view(*shape, -1)
        return self.network.location_scale_of(result.transpose(1, 2).contiguous())

    def _behind_first(self, hidden: Tensor) -> Tensor:
        """Return what the network returns, from what its first layer does; ``hidden`` is overwritten."""
        for layer in self.layers[1:]:
            hidden = product(silu(hidden, inplace=True), *layer)
        return hidden


class FusedMlp:
    """`ResidualMlp` at known noise levels, by the network's own tensors."""

    def __init__(self, network: ResidualMlp, student: Progressive) -> None:
        known = _fourier(student, network.frequencies.dtype, network.frequencies.device)
        first, self.second = weights_of(network.embed)
        weight, bias = first
        levels, self.conditions = weight[:, : known.shape[1]], weight[:, known.shape[1] :]
        self.levels = affine(known, levels, bias)
        self.scales, self.shifts = weights_of(network.scale), weights_of(network.shift)
        self.blocks = list(zip(weights_of(network.first), weights_of(network.second), strict=True))
        self.into, self.out = _pair(network.into), _pair(network.out)
        self.gains = _pair(network.gains) if network.gains is not None else None
        self.units, self.width = network.units, (network.into.out_features,)
        self.layers = [first, self.second, *self.scales, *self.shifts, self.into, self.out]
        self.layers += [layer for block in self.blocks for layer in block]
        if self.gains is not None:
            self.layers.append(self.gains)
        if self.units:
            self.head = _pair(network.local_head)
            layers = (network.local_into.slope, network.local_offset, network.local_out.slope)
            self.local = [_pair(layer) for layer in layers]
            self.layers += [self.head, *self.local]

    def modulations(self, conditions: Tensor) -> list[list[Tensor]]:
        """Return scales, shifts and slopes of blocks and local units at every noise level, each of shape (n, ...).

        Args:
            conditions: shape (n, conditions).
        """
        e = silu(self.levels[:, None] + affine(conditions, self.conditions), inplace=True).flatten(0, 1)
        e = silu(product(e, *self.second), inplace=True)
        layers = [*self.scales, *self.shifts, *(self.local if self.units else ())]
        parts = [product(e, *layer) for layer in layers]
        for number in range(len(self.scales)):
            parts[number] += 1
        levels = (len(self.levels), len(conditions))
        return [list(level) for level in zip(*(part.view(*levels, -1) for part in parts), strict=True)]

    def __call__(
        self, x: Tensor, modulation: list[Tensor], context: Tensor | None = None, thresholds: Tensor | None = None
    ) -> Tensor:
        """Return F of the network; arguments as of its ``forward``."""
        blocks = len(self.blocks)
        parts = [x] if context is None else [x, context]
        if thresholds is not None:
            slope_in, offset_in, slope_out = modulation[2 * blocks :]
            distance, half = x - thresholds, self.units // 2
            repeated = distance if half == 1 else distance.repeat_interleave(half, 1)
            parts.append(tanh_(torch.addcmul(offset_in, slope_in, repeated)))
        h = product(torch.cat(parts, dim=1), *self.into)
        for (first, second), scale, shift in zip(
            self.blocks, modulation[:blocks], modulation[blocks : 2 * blocks], strict=True
        ):
            h = h + product(silu(torch.addcmul(shift, layer_norm(product(h, *first), self.width), scale)), *second)
        result = product(h, *self.out)
        if thresholds is not None:
            offset, gain = product(h, *self.head).chunk(2, dim=1)
            for unit in range(self.units):  # faster than repeated distances, whose products are added up
                each = slice(unit, None, self.units)
                steps = tanh_(torch.addcmul(offset[:, each], slope_out[:, each], distance))
                result = torch.addcmul(result, gain[:, each], steps)
        return result if self.gains is None else torch.cat([result, product(h, *self.gains)], dim=1)


def _pair(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias
