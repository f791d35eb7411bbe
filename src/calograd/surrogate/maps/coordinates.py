"""The coordinates in which an x-z map is learnt.

The numbers that must be right are coordinates of their own, as for cells (`calograd.surrogate.cells.coordinates`, with
the same symbols and the same treatment of empty pixels). The map is cut along z into slabs of some pixels. E is the
incident energy, E_tot the map's, E_k a slab's, e_i a pixel's, and u_i a pixel's distance from the axis in half widths:

    shape of the shower    g_0 = logit(E_tot / E)
                           g_k = ln((E_k + eps) / E)
                           g_M = ln((M + eps) / E),          M = sum e_i u_i^2
    pattern of a slab      c_i = (h(e_i) / E_k)^(1/3)

Decoding scales pixels to E_k and the slabs to E_tot, so energy is conserved for any input. M is set by multiplying
the shares of all pixels by exp(l u_i^2), with one l for the shower, and scaling every slab back to E_k.

The protocol of arXiv 2601.07859 has plain coordinates, scaled pixels. There each image has a scale of its own, so its
energy is lost. Here the scale is the incident energy, times a constant that gives y a mean square of about one:

    y_i = `PLAIN_SCALE` e_i / E
"""

from __future__ import annotations

import torch
from torch import Tensor

from calograd.surrogate.cells.coordinates import (
    LOGIT_BOUND,
    NEWTON_STEPS,
    amount,
    amount_of,
    encode_pattern,
    layer_energies,
    pattern_shares,
)
from calograd.system.random_numbers import RandomNumbers

PLAIN_SCALE = 180.0
"""Scale of plain pixels.

In PbF2, cells of 1 to 5 cm by 4 to 15 cm, e_i / E has a root mean square of 1/190 at 100 GeV, 1/140 at 1 GeV.
"""


def shape_dim(slabs: int) -> int:
    """Return how many numbers a shower's shape has: the total, the slabs, the width."""
    return 2 + slabs


def encode(maps: Tensor, energy: Tensor, slabs: int, random: RandomNumbers) -> tuple[Tensor, Tensor]:
    """Return the coordinates of maps.

    Args:
        maps: shape (n, pixels, pixels), GeV.
        energy: incident, shape (n,), GeV.
        slabs: number of slabs, of equal numbers of pixels.
        random: random numbers of the showers, which spread what is empty.

    Returns:
        ``g`` of shape (n, `shape_dim`) and ``c`` of shape (n, pixels * pixels), pixels in the order of the map.
    """
    g = encode_shape(maps, energy, slabs, random)
    c = encode_pattern(_group(maps, slabs), random)
    return g, _ungroup(c, maps.shape[1]).flatten(1)


def encode_shape(maps: Tensor, energy: Tensor, slabs: int, random: RandomNumbers) -> Tensor:
    """Return ``g`` of `encode` alone."""
    along = _group(maps, slabs).sum(1)
    total = torch.logit((along.sum(1) / energy).clamp(1e-6, 1 - 1e-6)).clamp(-LOGIT_BOUND, LOGIT_BOUND)
    second = maps.sum(2) @ _squared_distance(maps.shape[1]).to(maps)
    parts = [total[:, None], amount(along, energy, random), amount(second[:, None], energy, random)]
    return torch.cat(parts, dim=1)


def decode(g: Tensor, c: Tensor, energy: Tensor, slabs: int) -> Tensor:
    """Return maps in GeV, shape (n, pixels, pixels), from the coordinates. Differentiable."""
    pixels = round(c.shape[1] ** 0.5)
    along = layer_energies(g, energy, slabs)
    shares = pattern_shares(_group(c.reshape(-1, pixels, pixels), slabs).transpose(1, 2), along).transpose(1, 2)
    wanted = amount_of(g[:, 1 + slabs :], energy)[:, 0].clamp(min=0)
    distance = _squared_distance(pixels).to(shares).repeat_interleave(pixels // slabs)
    return _ungroup(_widen(shares, along, distance, wanted) * along[:, None], pixels)


def _widen(shares: Tensor, along: Tensor, distance: Tensor, wanted: Tensor) -> Tensor:
    """Return shares such that sum_k E_k sum_i s_ik u_i^2 is ``wanted``, by Newton on l of the formula above.

    If ``wanted`` is out of reach, l moves by at most 4 a step.

    Args:
        shares: shares of the pixels in their slab, shape (n, pixels of a slab, slabs).
        along: E_k, shape (n, slabs), GeV.
        distance: u_i^2, shape (pixels of a slab,).
        wanted: sum to reach, shape (n,), GeV.
    """
    weight = distance[:, None]
    for _ in range(NEWTON_STEPS):
        mean = (shares * weight).sum(1)
        got, slope = (along * mean).sum(1), (along * ((shares * weight**2).sum(1) - mean**2)).sum(1)
        small = slope.detach() < 1e-6 * along.detach().sum(1) + 1e-9
        step = ((wanted - got) / torch.where(small, 1.0, slope)).clamp(-4, 4)
        tilted = shares * (torch.where(small, 0.0, step)[:, None, None] * weight).exp()
        shares = tilted / tilted.sum(1, keepdim=True)
    return shares


def _group(maps: Tensor, slabs: int) -> Tensor:
    """Return pixels of maps (n, pixels, pixels) by slab, shape (n, pixels of a slab, slabs)."""
    n, pixels, _ = maps.shape
    return maps.reshape(n, pixels, slabs, -1).transpose(2, 3).reshape(n, -1, slabs)


def _ungroup(grouped: Tensor, pixels: int) -> Tensor:
    """Invert `_group`."""
    n, _, slabs = grouped.shape
    return grouped.reshape(n, pixels, -1, slabs).transpose(2, 3).reshape(n, pixels, pixels)


def _squared_distance(pixels: int) -> Tensor:
    """Return u_i^2 of the pixels across, shape (pixels,)."""
    return ((2 * torch.arange(pixels) + 1 - pixels) / pixels) ** 2


def mirror_permutations(pixels: int) -> Tensor:
    """Return a map and its mirror image in x as permutations of its pixels, shape (2, pixels * pixels)."""
    index = torch.arange(pixels * pixels).reshape(pixels, pixels)
    return torch.stack([index.flatten(), index.flip(0).flatten()])
