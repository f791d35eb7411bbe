"""The coordinates in which the energies of a stack's plates are learnt.

Depths are in radiation lengths along the particle's line: layer k has an absorber of a_k / (X0_a cos theta) and an
active plate of t_k / (X0_t cos theta), together of length l_k, and its middle is at m_k. A minimum ionising particle
would leave a share f_k of what it loses in the layer in the active plate. A_k and V_k are the energies in absorber and
active plate, T_k = A_k + V_k, D their sum over all layers, and E the energy that can be deposited: the incident one,
of a positron with the 2 m_e of its annihilation.

**A profile to compare with.** Showers in one material follow a gamma distribution of the depth (Longo and Sestili,
Nucl. Instrum. Meth. 128, 283 (1975)). With its mean mu and standard deviation sigma, alpha = (mu / sigma)^2, the share
in front of a depth t is nearly, and smoothly in everything (Wilson and Hilferty, PNAS 17, 684 (1931)),

    F(t; mu, sigma) = Phi(3 sqrt(alpha) ((t / mu)^(1/3) - 1 + 1 / (9 alpha)))

The *nominal* shower of a stack has mu = ln(E / E_c) + 1.5 for electrons, 2.5 for photons, and sigma^2 = 2 mu (Review of
Particle Physics, 34.5, with b = 1/2), where E_c = sum dE/dx / sum X0 is the critical energy of the mixture by Rossi's
definition. mu_0 and sigma_0 are mean and standard deviation of the nominal shower in the stack's own layers, without
what leaks. So lengths, leakage and coarseness of a stack are known before anything is learnt.

**Shower.**

    g_0 = ln((D + eps) / (E - D + eps))                     eps = 0.1 MeV
    g_1 = ln(mu / mu_0)                                     mu = sum T_k m_k / D
    g_2 = ln(sigma / sigma_0)                               sigma^2 = sum T_k ((m_k - mu)^2 + l_k^2 / 12) / D
    g_3 = ln(s + 0.05)                                      s: where the first layer of more than 2 MeV is
    g_4 = ln((V + eps') / (S + eps'))                       V = sum V_k,  S = sum T_k f_k,  eps' = 10 keV

s is drawn evenly in its layer, since a photon converts anywhere in it. g_4 is the logarithm of e/mip of the whole
shower: E_vis and its resolution follow from it, from D and from where the shower is.

**Layers.** With p_k the shares of a profile of the shower's own mu and sigma, not below 10^-4 l_k / sum l,

    c_k = (T_k / (D p_k))^(1/3)
    b_k = ln((V_k / w_k + kappa) / (A_k / a_k + kappa))        kappa = 0.01

w_k and a_k are what a minimum ionising particle loses in active plate and absorber of layer k. A plate that a particle
crosses holds about one w_k, and one that only a soft photon hits some hundredths of it. kappa is below those, so that
the few plates that hold next to nothing do not crowd beside the empty ones, where a network takes them for empty.

Empty showers, layers and plates become clusters of their own below zero, as in `calograd.surrogate.cells.coordinates`:

    D = 0    ->  g_0 lowered by v,  the others are 0.3 n                     v = 1 + 0.3 n >= 0.1,  n ~ N(0, 1)
    V = 0    ->  g_4 lowered by v
    T_k = 0  ->  c_k = -v min((1 MeV / (D p_k))^(1/3), 0.3)
    V_k = 0  ->  b_k lowered by v + 1/2;  A_k = 0: raised by v + 1/2;  both: b_k = v - 1

**Decoding** makes the T_k from the shares p_k c_k^3 of positive c_k, scaled to D and multiplied by
exp(x u_k + y u_k^2), u_k = (m_k - mu) / sigma, such that mean and deviation of the depth are mu and sigma. Then the
ratios of V_k and A_k in all layers are multiplied by one factor, such that the V_k add up to V. So energy is conserved
for any input, and every step is differentiable in thicknesses, energy and angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.special import ndtr

from calograd.system.random_numbers import RandomNumbers

SHOWER = 5
"""Number of coordinates of a shower."""
LAYER = 2
"""Number of coordinates of a layer."""
EPS = 1e-4
"""Softening of the energy of a shower and of what leaks, eps of the formulas above, GeV."""
EPS_VISIBLE = 1e-5
"""Softening of the visible energy of a shower, eps' of the formulas above, GeV."""
SOFT_PLATE = 0.01
"""Softening of the energies of plates, kappa of the formulas above, losses of a minimum ionising particle in them."""
RESOLVED_PLATE = 0.15
"""Energy of a plate below which a distillation resolves less, losses of a minimum ionising particle."""
FARTHER = 0.5
"""Distance of an empty plate's b from that of a plate without energy, beside v of the formulas above."""
MIDDLE = 0.3
"""Distance of the middle between empty and filled plates from b of a plate without energy."""
BEGUN = 2e-3
"""Energy of a layer from which on the shower has begun, GeV."""
SOFT_START = 0.05
"""Softening of the depth at which a shower begins, X0."""
E_0 = 1e-3
"""Distance of the cluster of empty layers below zero, GeV."""
FLOOR = 1e-4
"""Share of the energy that is expected evenly along the stack, beside the profile."""
NOTHING = 1e-12
"""Smallest sum of shares that is divided by."""
LOGIT_BOUND = 14.0
"""Largest |g_0|, |g_4| and |b_k|: shares below exp(-14) are not resolved by float32 showers."""
FARTHEST = 4.5
"""Largest |g| of the depths of a shower."""
MOMENT_STEPS = 4
"""Steps of Newton's method for mean and spread of the depth."""
STEEPEST, WIDEST = 4.0, 1.0
"""Largest factors of u and u^2 in the exponential that sets them."""
VISIBLE_STEPS = 4
"""Steps of Newton's method for the visible energy."""
SOFT_MOMENTS = 1e-3
"""Added to the variances of u and u^2, so that a shower in one layer is left as it is."""


@dataclass(frozen=True, eq=False)
class Plates:
    """The plates along the particles' lines; stacks of fewer layers end with layers of no length.

    Args:
        lengths: of absorber and active plate of every layer, shape (n, layers, 2), X0.
        ionisation: energy that a minimum ionising particle loses in them, shape (n, layers, 2), GeV.
    """

    lengths: Tensor
    ionisation: Tensor

    @cached_property
    def present(self) -> Tensor:
        """True for the layers of each stack, shape (n, layers)."""
        return self.lengths[..., 0] > 0

    @cached_property
    def layers(self) -> Tensor:
        """l_k of the formulas above, shape (n, layers), X0."""
        return self.lengths.sum(-1)

    @cached_property
    def backs(self) -> Tensor:
        """Depth of the back of every layer, shape (n, layers), X0."""
        return self.layers.cumsum(1)

    @cached_property
    def middles(self) -> Tensor:
        """m_k of the formulas above, shape (n, layers), X0."""
        return self.backs - self.layers / 2

    @cached_property
    def ratio(self) -> Tensor:
        """f_k / (1 - f_k) of the formulas above, shape (n, layers); 1 beyond the last layer."""
        absorber, active = self.ionisation.unbind(-1)
        return torch.where(self.present, active, 1.0) / torch.where(self.present, absorber, 1.0)


class Nominal(NamedTuple):
    """The nominal shower of a stack.

    Args:
        shares: of the energy in every layer, shape (n, layers).
        behind: share behind the stack, shape (n,).
        mean, spread: mu_0 and sigma_0 of the formulas above, shape (n,), X0.
    """

    shares: Tensor
    behind: Tensor
    mean: Tensor
    spread: Tensor


class Shower(NamedTuple):
    """A shower as a whole, known before the energies of its layers.

    Args:
        total: D of the formulas above, shape (n,), GeV.
        mean, spread: mu and sigma, shape (n,), X0.
        start: s, shape (n,), X0.
        visible: e/mip of the shower, exp(g_4), shape (n,).
        shares: p_k, shape (n, layers); zero beyond the last layer.
    """

    total: Tensor
    mean: Tensor
    spread: Tensor
    start: Tensor
    visible: Tensor
    shares: Tensor


def profile(plates: Plates, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """Return the shares of the layers by F, shape (n, layers), and that behind the last one, shape (n,).

    Args:
        plates: the stacks, of n rows or of one.
        mean, spread: of the depth, shape (n,), X0.
    """
    alpha = (mean / spread).square().clamp(0.5, 1e3)[:, None]
    faces = torch.cat([torch.zeros_like(plates.backs[:, :1]), plates.backs], 1)
    depth = (faces / mean[:, None]).clamp(min=1e-6).pow(1 / 3)
    z = 3 * alpha.sqrt() * (depth - 1 + 1 / (9 * alpha))
    front, back = z[:, :-1], z[:, 1:]
    sign = torch.where(front > 0, -1.0, 1.0).to(z)  # beyond the middle 1 - F, which float32 resolves
    return sign * (ndtr(sign * back) - ndtr(sign * front)), ndtr(-z[:, -1])


def nominal(plates: Plates, energy: Tensor, photon: Tensor) -> tuple[Nominal, Tensor]:
    """Return the nominal shower of a stack, and the critical energy of its mixture, shape (n,), GeV.

    Args:
        plates: the stacks, of n rows or of one.
        energy: incident, shape (n,) or (1,), GeV.
        photon: 1 for photons, 0 for others, shape (n,) or (1,).
    """
    critical = plates.ionisation.sum((1, 2)) / plates.lengths.sum((1, 2))
    mean = ((energy / critical).log() + 1.5 + photon).clamp(min=1.0)
    shares, behind = profile(plates, mean, (2 * mean).sqrt())
    shares = shares + 1e-6 * plates.layers
    return Nominal(shares, behind, *_moments(shares, plates)), critical


def encode_shower(energies: Tensor, plates: Plates, energy: Tensor, expected: Nominal, random: RandomNumbers) -> Tensor:
    """Return g of the formulas above, shape (n, `SHOWER`).

    Args:
        energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
        plates: the stacks.
        energy: E of the formulas above, shape (n,), GeV.
        expected: nominal shower.
        random: random numbers of the showers, which spread what is empty or within a layer.
    """
    layers, total = energies.sum(-1), energies.sum((1, 2))
    filled, v = total > 0, _below_zero(total[:, None], random)[:, 0]
    deposited = ((total + EPS) / ((energy - total).clamp(min=0) + EPS)).log() - torch.where(filled, 0.0, v)
    mean, spread = _moments(torch.where(filled[:, None], layers, plates.layers.expand_as(layers)), plates)
    begun = torch.where((layers > BEGUN).any(1, keepdim=True), layers > BEGUN, layers >= layers.amax(1, keepdim=True))
    first = begun.long().argmax(1, keepdim=True)
    length, back = (value.expand_as(layers).gather(1, first)[:, 0] for value in (plates.layers, plates.backs))
    start = back - random.uniform(like=total) * length
    visible, mip = energies[..., 1].sum(1), (layers * plates.ratio / (1 + plates.ratio)).sum(1)
    balance = ((visible + EPS_VISIBLE) / (mip + EPS_VISIBLE)).log() - torch.where(visible > 0, 0.0, v)
    others = torch.stack(
        [(mean / expected.mean).log(), (spread / expected.spread).log(), (start + SOFT_START).log(), balance], 1
    )
    others = torch.where(filled[:, None], others, 0.3 * random.normal_like(others))
    return torch.cat([deposited.clamp(-LOGIT_BOUND, LOGIT_BOUND)[:, None], others], 1)


def decode_shower(g: Tensor, plates: Plates, energy: Tensor, expected: Nominal) -> Shower:
    """Return what the coordinates of showers say, see `encode_shower`."""
    odds = g[:, 0].clamp(-LOGIT_BOUND, LOGIT_BOUND).exp()
    total = torch.minimum(((odds * (energy + EPS) - EPS) / (1 + odds)).clamp(min=0), energy)
    mean, spread, start = g[:, 1:4].clamp(-FARTHEST, FARTHEST).exp().unbind(1)
    visible = g[:, 4].clamp(-LOGIT_BOUND, LOGIT_BOUND).exp()
    mean, spread = expected.mean * mean, expected.spread * spread
    shares = profile(plates, mean, spread)[0] + FLOOR * plates.layers / plates.backs[:, -1:]
    return Shower(total, mean, spread, start - SOFT_START, visible, shares)


def encode_layers(energies: Tensor, plates: Plates, shower: Shower, random: RandomNumbers) -> Tensor:
    """Return c, then b, of the formulas above, shape (n, `LAYER`, layers); zero beyond the last layer.

    Arguments are those of `encode_shower`; ``shower`` is what its coordinates say.
    """
    layers, (absorber, active) = energies.sum(-1), energies.unbind(-1)
    present = plates.present.expand_as(layers)
    reference = torch.where(present, shower.total[:, None] * shower.shares, 1.0).clamp(min=NOTHING)
    v, w = _below_zero(energies.transpose(1, 2), random).unbind(1)
    share = torch.where(layers > 0, (layers / reference).pow(1 / 3), -v * (E_0 / reference).pow(1 / 3).clamp(max=0.3))
    soft_absorber, soft_active = _softening(plates)
    balance = ((active + soft_active) / (absorber + soft_absorber)).log() - plates.ratio.log()
    balance = balance - torch.where(active > 0, 0.0, w + FARTHER) + torch.where(absorber > 0, 0.0, w + FARTHER)
    balance = torch.where(layers > 0, balance, w - 1)
    return torch.where(present[:, None], torch.stack([share, balance], 1), 0.0)


def coarser(balance: Tensor, c: Tensor, plates: Plates, shower: Shower) -> Tensor:
    """Return numbers b as they would be with a kappa of `RESOLVED_PLATE`, shape (n, layers).

    They tell a plate that holds next to nothing hardly from an empty one, but have a slope everywhere.

    Args:
        balance: b of the formulas above, shape (n, layers).
        c: c and b of showers whose A_k are taken, shape (n, `LAYER`, layers).
        plates: the stacks.
        shower: the showers.
    """
    share, own = c.unbind(1)
    layers = shower.total[:, None] * shower.shares * share.clamp(min=0).pow(3)
    ratio = plates.ratio * own.clamp(-LOGIT_BOUND, LOGIT_BOUND).exp()
    absorber = layers - _active(layers, ratio, *_softening(plates))
    alpha = absorber / torch.where(plates.present, plates.ionisation[..., 0], 1.0)
    active = balance.clamp(-LOGIT_BOUND, LOGIT_BOUND).exp() * (alpha + SOFT_PLATE)
    return (active + RESOLVED_PLATE - SOFT_PLATE).log() - (alpha + RESOLVED_PLATE).log()


def edges(plates: Plates, shower: Shower) -> Tensor:
    """Return the c and the b of layers between the empty and the filled ones, shape (n, `LAYER`, layers).

    That of b is `MIDDLE` below an active plate without energy whose absorber has the energy that the profile expects.
    Few filled plates hold less than `SOFT_PLATE` w_k, so this is about the middle between them and the empty ones.
    """
    expected = shower.total[:, None] * shower.shares
    soft_absorber, soft_active = _softening(plates)
    balance = (soft_active / (expected + soft_absorber)).log() - plates.ratio.log() - MIDDLE
    return torch.stack([torch.zeros_like(balance), balance], 1)


def decode(c: Tensor, plates: Plates, shower: Shower) -> tuple[Tensor, Tensor]:
    """Return energies of absorbers and active plates, shape (n, layers), GeV, of c of `encode_layers`."""
    share, balance = c.unbind(1)
    shares = shower.shares
    weights = shares * share.clamp(min=0).pow(3)
    most = weights.sum(1, keepdim=True)
    weights = torch.where(most > NOTHING, weights, shares) / torch.where(most > NOTHING, most, shares.sum(1, True))
    layers = shower.total[:, None] * _with_moments(weights, plates, shower)
    mip = (layers * plates.ratio / (1 + plates.ratio)).sum(1)
    visible = (shower.visible * (mip + EPS_VISIBLE) - EPS_VISIBLE).clamp(min=0)
    active = _with_visible(layers, plates, balance.clamp(-LOGIT_BOUND, LOGIT_BOUND).exp(), visible)
    return layers - active, active


def _moments(weights: Tensor, plates: Plates) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the depth, shape (n,), X0, of energies of layers, shape (n, layers)."""
    weights = weights / weights.sum(1, keepdim=True)
    mean = (weights * plates.middles).sum(1)
    square = (plates.middles - mean[:, None]).square() + plates.layers.square() / 12
    return mean, (weights * square).sum(1).sqrt()


def _with_moments(weights: Tensor, plates: Plates, shower: Shower) -> Tensor:
    """Return weights, shape (n, layers), that add up to one and have the shower's mean and spread of the depth."""
    u = (plates.middles - shower.mean[:, None]) / shower.spread[:, None]
    square = u.square() + (plates.layers / shower.spread[:, None]).square() / 12 - 1
    u, square = u.clamp(-8, 8), square.clamp(max=64)
    x = y = torch.zeros_like(u[:, :1])
    result = weights
    for _ in range(MOMENT_STEPS):
        first, second = (result * u).sum(1, keepdim=True), (result * square).sum(1, keepdim=True)
        a = (result * u.square()).sum(1, keepdim=True) - first.square() + SOFT_MOMENTS
        b = (result * u * square).sum(1, keepdim=True) - first * second
        c = (result * square.square()).sum(1, keepdim=True) - second.square() + SOFT_MOMENTS
        determinant = a * c - b.square()
        x = (x - (c * first - b * second) / determinant).clamp(-STEEPEST, STEEPEST)
        y = (y - (a * second - b * first) / determinant).clamp(-WIDEST, WIDEST)
        result = weights * (x * u + y * square).clamp(-20, 20).exp()
        result = result / result.sum(1, keepdim=True)
    return result


def _softening(plates: Plates) -> tuple[Tensor, Tensor]:
    """Return the softening of the energies of absorber and active plate of every layer, shape (n, layers), GeV."""
    absorber, active = (SOFT_PLATE * torch.where(plates.present[..., None], plates.ionisation, 1.0)).unbind(-1)
    return absorber, active


def _with_visible(layers: Tensor, plates: Plates, balance: Tensor, visible: Tensor) -> Tensor:
    """Return energies of active plates, shape (n, layers), that add up to ``visible``, shape (n,), GeV.

    Args:
        layers: T_k of the formulas above, shape (n, layers), GeV.
        plates: the stacks.
        balance: exp(b_k) but for a common factor, of the same shape.
        visible: shape (n,), GeV.
    """
    soft_absorber, soft_active = _softening(plates)
    ratio, soft = plates.ratio * balance, soft_absorber + soft_active
    factor = torch.zeros_like(visible)[:, None]  # its logarithm
    active = _active(layers, ratio, soft_absorber, soft_active)
    for _ in range(VISIBLE_STEPS):
        scaled = ratio * factor.exp()
        slope = torch.where((active > 0) & (active < layers), scaled / (1 + scaled).square() * (layers + soft), 0.0)
        missing = visible[:, None] - active.sum(1, keepdim=True)
        factor = (factor + (missing / (slope.sum(1, keepdim=True) + EPS_VISIBLE)).clamp(-1, 1)).clamp(-6, 6)
        active = _active(layers, ratio * factor.exp(), soft_absorber, soft_active)
    return active


def _active(layers: Tensor, ratio: Tensor, soft_absorber: Tensor, soft_active: Tensor) -> Tensor:
    """Return the energy of active plates, from that of the layers and the softened ratio."""
    active = (ratio * (layers + soft_absorber) - soft_active) / (1 + ratio)
    return torch.minimum(active.clamp(min=0), layers)


def _below_zero(like: Tensor, random: RandomNumbers) -> Tensor:
    """Return v of the formulas above, same shape as ``like``."""
    return (1 + 0.3 * random.normal_like(like)).clamp(min=0.1)
