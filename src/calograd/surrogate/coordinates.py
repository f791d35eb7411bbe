"""The coordinates in which a shower's cells are learnt.

The total deposit fluctuates by 0.1 to 2 %, single cells by tens of per cent and strongly against each other, so the
numbers that must be right are made coordinates of their own. With E the incident energy, E_tot the energy in the
window, E_k a layer's and e_ik a cell's:

    shape of the shower   g_0 = logit(E_tot / E)
                          g_k = ln((E_k + eps) / E),            eps = 0.1 MeV
    pattern of a layer    c_ik = (e_ik / E_k)^(1/3)

What is empty becomes a cluster of its own below zero, as wide as it is far, so that the distribution has no spike,
the two clusters do not touch and decoding gives exact zeros:

    E_k = 0    ->  g_k = ln(eps / E) - v                         v = 1 + 0.3 n >= 0.1,  n ~ N(0, 1)
    e_ik = 0   ->  c_ik = -v min((e_0 / E_k)^(1/3), 0.3)         e_0 = 1 MeV

(Spread evenly over [-(e_0 / E_k)^(1/3), 0] with e_0 = 0.1 MeV instead, empty cells formed a spike beside the others and
a third of them came out filled.)

Decoding inverts this with negative values set to zero, scales a layer's cells to E_k and the layers to E_tot: energy
is conserved whatever is fed in (what has no positive part goes to its largest), and every step is differentiable.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-4
"""Softening of a layer's energy, GeV."""
E_0 = 1e-3
"""Where the cluster of empty cells lies below zero, mirrored, GeV."""
NOTHING = 1e-12
"""Positive parts up to this are none, so that no gradient overflows."""
LOGIT_BOUND = 14.0
"""Leakage below exp(-14) is not resolved by float32 showers."""


def shape_dim(n_z: int) -> int:
    """Numbers of a shower's shape: the total and the layers."""
    return 1 + n_z


def encode(cells: Tensor, energy: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Coordinates of showers.

    Args:
        cells: shape (n, n_xy, n_xy, n_z), GeV.
        energy: incident, shape (n,), GeV.
        generator: of the numbers that spread what is empty.

    Returns:
        ``g`` of shape (n, 1 + n_z) and ``c`` of shape (n, n_xy * n_xy * n_z), cells in the order of ``cells``.
    """
    n, n_z = len(cells), cells.shape[-1]
    flat = cells.reshape(n, -1, n_z)
    layers = flat.sum(1)
    total = torch.logit((layers.sum(1) / energy).clamp(1e-6, 1 - 1e-6)).clamp(-LOGIT_BOUND, LOGIT_BOUND)
    v = _below_zero(layers, generator)
    profile = ((layers + EPS) / energy[:, None]).log() - torch.where(layers > 0, 0.0, v)
    safe = layers.clamp(min=1e-12)
    distance = (E_0 / safe).pow(1 / 3).clamp(max=0.3)[:, None]
    v = _below_zero(flat, generator)
    pattern = torch.where(flat > 0, (flat / safe[:, None]).pow(1 / 3), -v * distance)
    return torch.cat([total[:, None], profile], dim=1), pattern.reshape(n, -1)


def _below_zero(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """v of the formulas above, same shape as ``like``."""
    return (1 + 0.3 * torch.randn(like.shape, generator=generator)).clamp(min=0.1).to(like)


def layer_energies(g: Tensor, energy: Tensor) -> Tensor:
    """Energy of every layer, shape (n, n_z), GeV, from the shape coordinates; they add up to E_tot."""
    total = torch.sigmoid(g[:, 0].clamp(-LOGIT_BOUND, LOGIT_BOUND)) * energy
    raw = g[:, 1:].clamp(max=1.0).exp() * energy[:, None] - EPS
    return _shares(raw, 1) * total[:, None]


def decode(g: Tensor, c: Tensor, energy: Tensor, n_xy: int) -> Tensor:
    """Cells in GeV, shape (n, n_xy, n_xy, n_z), from the coordinates. Differentiable."""
    layers = layer_energies(g, energy)
    share = _shares(c.reshape(len(c), n_xy * n_xy, -1), 3)
    return (share * layers[:, None]).reshape(len(c), n_xy, n_xy, -1)


def _shares(raw: Tensor, power: int) -> Tensor:
    """Positive parts to a power, scaled to the sum 1 along dimension 1; if there is none, the largest gets all."""
    largest, where = raw.detach().max(1, keepdim=True)
    some = largest > NOTHING
    scaled = (raw / torch.where(some, largest, 1.0)).clamp(min=0.0).pow(power) * some
    scaled = scaled + torch.zeros_like(raw).scatter(1, where, 1.0) * ~some
    return scaled / scaled.sum(1, keepdim=True)


def symmetry_permutations(n_xy: int, n_z: int) -> Tensor:
    """The 8 symmetries of the square as permutations of the cells, shape (8, n_xy * n_xy * n_z)."""
    index = torch.arange(n_xy * n_xy * n_z).reshape(n_xy, n_xy, n_z)
    views = [view for turn in range(4) for view in (index.rot90(turn), index.rot90(turn).transpose(0, 1))]
    return torch.stack([view.flatten() for view in views])


def symmetry_ties(n_xy: int, n_z: int) -> Tensor:
    """Which cells are equal by symmetry: a class from 0 for every cell, shape (n_xy * n_xy * n_z,)."""
    smallest = symmetry_permutations(n_xy, n_z).min(0).values
    ties: Tensor = torch.unique(smallest, return_inverse=True)[1]
    return ties
