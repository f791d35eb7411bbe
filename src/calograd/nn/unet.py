"""A conditional U-Net on images.

Symbols: h the hidden image, s the noise level, c the conditions that a whole batch may share, u what belongs to a
single sample. The published network of arXiv 2601.07859 has the same parts (residual blocks with GroupNorm and Swish,
attention at the bottleneck, dropout), but embeds its conditions as classes; here they are numbers, so that gradients
exist.

    e = SiLU(W_t fourier(s) + k),    k = W_2 SiLU(W_1 [c, u])
    residual block    h += conv( drop( SiLU( GN(conv(SiLU(GN(h)))) (1 + gamma(e)) + beta(e) ) ) )
    down              3x3 convolution of stride 2;   up: nearest neighbour, then 3x3 convolution
    bottleneck        block, self-attention, block

With patches of p x p pixels the network sees p^2 channels of an image that is p times smaller, for p^2 times less.

Dropped conditions (classifier-free guidance, arXiv 2207.12598) are a learnt vector in place of k, never a value of c.
Dropout acts where random numbers are given.
"""

from __future__ import annotations

from math import gcd

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pixel_shuffle, pixel_unshuffle, silu

from calograd.nn.linear import linear
from calograd.nn.mlp import FREQUENCIES, fourier_features, zero_
from calograd.system.random_numbers import RandomNumbers

GROUPS = 8
"""Largest number of groups of GroupNorm."""


class _Norm(nn.GroupNorm):
    """GroupNorm that reorders bf16 images with channels last on CPUs, where it takes ten times as long for them."""

    def __init__(self, channels: int) -> None:
        super().__init__(gcd(GROUPS, channels), channels, affine=False)

    def forward(self, h: Tensor) -> Tensor:
        if h.device.type != "cpu" or h.dtype != torch.bfloat16 or h.is_contiguous():
            return super().forward(h)
        return super().forward(h.contiguous()).contiguous(memory_format=torch.channels_last)


class ResidualBlock(nn.Module):
    """Residual block of the module's formulas, from ``before`` to ``after`` channels."""

    def __init__(self, before: int, after: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_first, self.norm_second = _Norm(before), _Norm(after)
        self.first = nn.Conv2d(before, after, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * after)
        self.second = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        zero_(self.modulation, self.second)

    def forward(self, h: Tensor, e: Tensor, random: RandomNumbers | None) -> Tensor:
        """Return h, shape (n, after, height, width), of h and e, shape (n, embedding) or (1, embedding)."""
        scale, shift = linear(self.modulation, e)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm_second(self.first(silu(self.norm_first(h))))
        inner = silu(inner * (1 + scale) + shift)
        if random is not None and self.dropout > 0:
            kept = random.fractions(*inner.shape[1:], like=inner) >= self.dropout
            inner = inner * kept.to(inner) / (1 - self.dropout)
        result: Tensor = self.skip(h) + self.second(inner)
        return result


class Attention(nn.Module):
    """Self-attention of all pixels, with heads of at most 64 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // 64)
        self.norm = _Norm(channels)
        self.into = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        zero_(self.out)

    def forward(self, h: Tensor) -> Tensor:
        """Return the attended image, shape as given."""
        n, _, height, width = h.shape
        q, k, v = self.into(self.norm(h)).reshape(n, 3, self.heads, -1, height * width).transpose(3, 4).unbind(1)
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)  # so few pixels are slower when fused
        mixed = (weights @ v).transpose(2, 3).reshape(n, -1, height, width)
        result: Tensor = h + self.out(mixed)
        return result


class UNet(nn.Module):
    """Conditional U-Net on square images of one channel.

    Args:
        size: pixels across, divisible by ``patch``, and then by two as often as there are levels after the first.
        conditions: number of conditions, which the batch may share.
        context: number of further inputs of each sample; 0 for none.
        thresholds: True if a second image comes with each sample, see `forward`.
        width: channels of the first level.
        multipliers: channels of each level, in units of ``width``.
        blocks: residual blocks of a level, on either side.
        embedding: width of e.
        dropout: share of the hidden numbers that is dropped in training.
        patch: pixels across that become channels of one.

    Raises:
        ValueError: a size that cannot be divided as often.
    """

    def __init__(
        self,
        size: int,
        conditions: int,
        context: int = 0,
        *,
        thresholds: bool = False,
        width: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        embedding: int = 128,
        dropout: float = 0.0,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if not multipliers or size % (patch << (len(multipliers) - 1)):
            raise ValueError(f"{size} pixels in patches of {patch} cannot be halved {len(multipliers) - 1} times")
        self.patch = patch
        self.register_buffer("frequencies", FREQUENCIES.clone(), persistent=False)
        self.frequencies: Tensor
        self.time = nn.Linear(2 * len(self.frequencies) + 1, embedding)
        self.conditions = nn.Sequential(
            nn.Linear(conditions + context, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.null = nn.Parameter(torch.zeros(embedding))
        channels = [width * m for m in multipliers]
        self.into = nn.Conv2d((1 + thresholds) * patch**2, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        self.shrink, self.grow = nn.ModuleList(), nn.ModuleList()
        now, skips = width, [width]
        for level, after in enumerate(channels):
            for _ in range(blocks):
                self.down.append(ResidualBlock(now, after, embedding, dropout))
                now = after
                skips.append(now)
            if level < len(channels) - 1:
                self.shrink.append(nn.Conv2d(now, now, 3, stride=2, padding=1))
                skips.append(now)
        self.bottom = nn.ModuleList(ResidualBlock(now, now, embedding, dropout) for _ in range(2))
        self.attention = Attention(now)
        for after in reversed(channels):
            for _ in range(blocks + 1):
                self.up.append(ResidualBlock(now + skips.pop(), after, embedding, dropout))
                now = after
        self.grow.extend(nn.Conv2d(c, c, 3, padding=1) for c in reversed(channels[1:]))
        self.blocks = blocks
        self.norm = _Norm(now)
        self.out = nn.Conv2d(now, patch**2, 3, padding=1)
        zero_(self.out)

    def forward(
        self,
        x: Tensor,
        noise: Tensor,
        conditions: Tensor,
        context: Tensor | None = None,
        thresholds: Tensor | None = None,
        *,
        dropped: Tensor | None = None,
        random: RandomNumbers | None = None,
    ) -> Tensor:
        """Return F(x), shape (n, size, size).

        Args:
            x: shape (n, size, size).
            noise: c_noise, shape (n,) or (1,).
            conditions: shape (n, conditions) or (1, conditions).
            context: shape (n, context).
            thresholds: an image of what the network may compare each pixel with, in the units of ``x``, shape of ``x``.
            dropped: which samples are to know no conditions, shape (n,) or (1,), bool; None: all know them.
            random: random numbers of dropout; None for none.
        """
        e = self._embed(noise, conditions, context, dropped)
        images = [x] if thresholds is None else [x, thresholds]
        stacked = pixel_unshuffle(torch.stack(images, dim=1), self.patch)
        h = self.into(stacked.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level in range(len(self.shrink) + 1):
            for block in self.down[level * self.blocks : (level + 1) * self.blocks]:
                h = block(h, e, random)
                skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
                skips.append(h)
        h = self.bottom[1](self.attention(self.bottom[0](h, e, random)), e, random)
        each = self.blocks + 1
        for level in range(len(self.grow) + 1):
            for block in self.up[level * each : (level + 1) * each]:
                h = block(torch.cat([h, skips.pop()], dim=1), e, random)
            if level < len(self.grow):
                h = self.grow[level](interpolate(h, scale_factor=2.0, mode="nearest"))
        result: Tensor = pixel_shuffle(self.out(silu(self.norm(h))), self.patch)[:, 0]
        return result

    def _embed(self, noise: Tensor, conditions: Tensor, context: Tensor | None, dropped: Tensor | None) -> Tensor:
        """Return e of the formulas above, shape (n, embedding) or (1, embedding)."""
        known = conditions
        if context is not None:
            rows = max(len(conditions), len(context))
            known = torch.cat([conditions.expand(rows, -1), context.expand(rows, -1)], dim=1)
        k = linear(self.conditions[2], silu(linear(self.conditions[0], known)))
        if dropped is not None:
            k = torch.where(dropped[:, None], self.null.to(k), k)
        return silu(linear(self.time, fourier_features(noise, self.frequencies)) + k)
