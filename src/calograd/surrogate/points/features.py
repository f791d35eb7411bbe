"""Coordinates of showers as points: numbers close to unit normal, and back.

**A point.** A photon along the axis has no preferred azimuth, so the angle of a point about the axis is uniform and
needs no model. (The axis is meant, not the centre of gravity, which a few far points move.) Two numbers are left, the
distance r and the energy e of the point. Their distribution functions in each layer, averaged over all showers, make
them unit normal:

    z_r = Phi^-1(F_l(ln r))        z_e = Phi^-1(G_l(ln e))

F_l and G_l are kept as tables of quantiles, straight between them and beyond them.

**A shower** of L layers with N_l points and the energy E_l, at the incident energy E:

    leads     ln(1 + mean layer), ln(1 + its variance), ln(E_vis / E), ln(N e0 / E_vis), and the means of
              the layers' m and d before they are scaled; all weighted with E_l;  E_vis = sum E_l
    a_l   ln((E_l + e0) / E_vis)                      e0: mean energy of a point
    q_l   ln(N_l + u + 1) - ln(E_l / e0 + 1)          u uniform in [0, 1): N_l = floor(N_l + u), nothing is lost
    m_l   mean of z_r over the layer's points, over sqrt(1/N_l + tau^2)
    d_l   mean of z_r weighted with the points' energies, less m_l, over the same
    c     centre of gravity (x, y), cm

An empty layer has the energy e0 u, as if it held a part u of a point, so a_l and q_l are smooth towards empty layers.
When decoded it gets no energy, and the others share E_vis, so no energy is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calograd.events.point_showers import PointShowers
from calograd.system.random_numbers import RandomNumbers

KNOTS = 129
"""Number of quantiles of a table."""
TAIL = 3.5
"""z of the outermost quantiles."""
TAU = 0.15
"""Spread of the mean z_r of layers with many points; any number near it will do."""
MOST = 4000.0
"""Largest number of points of a layer; showers of 90 GeV have 600."""
NEAREST = 1e-3
"""Least distance from the axis, cm."""


def knots() -> Tensor:
    """Return z of the tables' quantiles, shape (KNOTS,)."""
    return torch.linspace(-TAIL, TAIL, KNOTS)


def quantile_table(values: np.ndarray, layer: np.ndarray, layers: int) -> Tensor:
    """Return quantiles of values by layer at `knots`, rising, shape (layers, KNOTS), float32.

    A layer with too few values for its tails takes them from its neighbours, so that no layer is without a table.

    Args:
        values: shape (points,).
        layer: shape (points,).
        layers: their number.
    """
    order = np.argsort(layer, kind="stable")
    ends = np.searchsorted(layer[order], np.arange(layers + 1))
    levels = torch.special.ndtr(knots().double()).numpy()
    table = np.empty((layers, KNOTS))
    for number in range(layers):
        low = high = number
        while ends[high + 1] - ends[low] < 4 * KNOTS and (low > 0 or high < layers - 1):
            low, high = max(0, low - 1), min(layers - 1, high + 1)
        table[number] = np.quantile(values[order[ends[low] : ends[high + 1]]], levels)
    rising = np.maximum.accumulate(table, axis=1) + 1e-5 * np.arange(KNOTS)
    return torch.from_numpy(rising.astype(np.float32))


def to_normal(values: Tensor, layer: Tensor, table: Tensor) -> Tensor:
    """Return z of values by the tables of their layers, shape (points,). Inverse of `from_normal`.

    Args:
        values, layer: shape (points,).
        table: shape (layers, knots), rising, at even places from -`TAIL` to `TAIL`.
    """
    knots = table.shape[1]
    step = 2 * TAIL / (knots - 1)
    known = table.detach().double()
    low, high = known.min(), known.max()
    apart = 2 * (high - low) + 1  # puts the tables of all layers one behind the other, as one
    ordered = (known + apart * torch.arange(len(table)).to(known)[:, None]).flatten()
    place = torch.searchsorted(ordered, values.double().clamp(low, high) + apart * layer) - 1 - layer * knots
    place = place.clamp(0, knots - 2)
    flat, at = table.flatten(), layer * knots + place
    return -TAIL + step * (place + (values - flat[at]) / (flat[at + 1] - flat[at]))


def from_normal(z: Tensor, layer: Tensor, table: Tensor) -> Tensor:
    """Return values of z by the tables of their layers, differentiable in z and in the tables.

    Args:
        z: shape (points,), or (features, points).
        layer: shape (points,).
        table: table of one feature, shape (layers, knots), or of all, shape (features, layers, knots), rising, at even
            places from -`TAIL` to `TAIL`.
    """
    knots = table.shape[-1]
    at = (z + TAIL) * ((knots - 1) / (2 * TAIL))
    whole = at.detach().long().clamp(0, knots - 2)
    flat, place = table.flatten(), whole + layer * knots
    if table.ndim > 2:
        place = place + torch.arange(0, len(flat), table[0].numel(), device=place.device)[:, None]
    low, high = (values.index_select(0, place.flatten()).view(z.shape) for values in (flat, flat[1:]))
    return torch.lerp(low, high, at - whole)


@dataclass(frozen=True)
class Features:
    """Features of a shower's layers.

    Args:
        count: number of points of every layer, shape (n, layers); a fraction where the last point counts in part.
        energy: energy of every layer, shape (n, layers), GeV.
        mean: mean of z_r over the layer's points, shape (n, layers); zero without points.
        core: mean of z_r weighted with energies, less ``mean``, shape (n, layers); zero with at most one point.
        centre: centre of gravity, shape (n, 2), cm.
    """

    count: Tensor
    energy: Tensor
    mean: Tensor
    core: Tensor
    centre: Tensor

    def at(self, rows: Tensor | slice) -> Features:
        """Return those of the chosen showers."""
        return Features(*(t[rows] for t in self._columns()))

    def to(self, device: torch.device) -> Features:
        """Return them on a torch device."""
        return Features(*(t.to(device) for t in self._columns()))

    def _columns(self) -> tuple[Tensor, ...]:
        return (self.count, self.energy, self.mean, self.core, self.centre)


LEADS = 6
"""Number of leads: numbers of a shower as a whole, which the others follow."""
VISIBLE = 2
"""Index of the lead ln(E_vis / E)."""
LAYER_NUMBERS = 3
"""Number of numbers of a layer beside its energy: q_l, m_l and d_l."""


def dim_of(layers: int) -> int:
    """Return how many numbers a shower has beside its leads."""
    return 4 * layers + 2


def leads_of(features: Features, incident: Tensor, unit: Tensor) -> Tensor:
    """Return the leads of showers, shape (n, `LEADS`); ``incident`` energies (n,) in GeV, e0 as ``unit``."""
    e, n = features.energy, features.count
    visible = e.sum(1)
    share = e / visible[:, None]
    layer = torch.arange(e.shape[1]).to(e)
    depth = (share * layer).sum(1)
    variance = (share * (layer - depth[:, None]).square()).sum(1)
    return torch.stack(
        [
            (1 + depth).log(), (1 + variance).log(), (visible / incident).log(), (n.sum(1) * unit / visible).log(),
            (share * features.mean).sum(1), (share * features.core).sum(1),
        ],
        dim=1,
    )  # fmt: skip


def encode(features: Features, unit: Tensor, random: RandomNumbers) -> Tensor:
    """Return the numbers of showers, shape (n, dim); u, and m_l and d_l of layers without points, are drawn.

    Args:
        features: features of the showers, each of which has energy.
        unit: e0, GeV.
        random: random numbers of the showers.
    """
    n, e = features.count, features.energy
    u = random.fractions(*n.shape[1:], like=e)
    visible = e.sum(1, keepdim=True)
    held = torch.where(n > 0, e, unit * u)
    layers = encode_layers(features, held, unit, u, random.normal(2, *n.shape[1:], like=e))
    return torch.cat([((held + unit) / visible).log(), layers.flatten(1), features.centre], dim=1)


def encode_layers(features: Features, held: Tensor, unit: Tensor, u: Tensor, spare: Tensor) -> Tensor:
    """Return q_l, m_l and d_l of showers, shape (n, `LAYER_NUMBERS`, layers).

    Args:
        features: features of the showers.
        held: energy of every layer, e0 u where it is empty, shape (n, layers), GeV.
        unit: e0, GeV, one number or one a layer.
        u: uniform in [0, 1), shape (n, layers).
        spare: m_l and d_l where there are too few points for them, shape (n, 2, layers).
    """
    n = features.count
    scale = (1 / n.clamp(min=1) + TAU**2).rsqrt()
    m = torch.where(n > 0, features.mean * scale, spare[:, 0])
    d = torch.where(n > 1, features.core * scale, spare[:, 1])
    return torch.stack([(n + u + 1).log() - (held / unit + 1).log(), m, d], 1)


def decode(
    g: Tensor, visible: Tensor, unit: Tensor, layers: int, smooth: bool = False, more: Tensor | None = None
) -> Features:
    """Return features of showers from their numbers g (n, dim); the inverse of `encode` but for drawn numbers.

    Args:
        g: shape (n, dim).
        visible: E_vis, shape (n, 1), GeV.
        unit: e0, GeV.
        layers: their number.
        smooth: counts are N_l + u - 1/2, of the same mean as N_l, where N_l itself has no gradient.
        more: factors of N_l + u, shape (n, 1); None for 1.
    """
    logarithms, means, centre = torch.split(g, [2 * layers, 2 * layers, 2], dim=1)
    ratio, per_energy = logarithms.exp().chunk(2, dim=1)
    ratio = (ratio * (visible / unit)).clamp(min=1 + 1e-6)  # E_l / e0 + 1
    held, n = ratio - 1, decode_count(per_energy, ratio, smooth, more)
    if not bool(n.detach().amax(1).all()):  # a shower without a point: its energy is in one
        fullest = torch.zeros_like(n).scatter(1, held.argmax(1, keepdim=True), 1.0)
        n = torch.where(n.amax(1, keepdim=True) == 0, fullest, n)
    kept = held * (n.clamp(max=1) if smooth else (n > 0))
    energy = kept * (visible / kept.sum(1, keepdim=True))
    return Features(n, energy, *decode_means(means.view(-1, 2, layers), n), centre)


def decode_count(per_energy: Tensor, ratio: Tensor, smooth: bool, more: Tensor | None) -> Tensor:
    """Return N_l, shape (n, layers), of exp(q_l) and E_l / e0 + 1, of the same shape; see `decode`."""
    n = per_energy * ratio - 1
    n = n if more is None else more * n
    return (n - 0.5 if smooth else n.floor()).clamp(0, MOST)


def decode_means(means: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Return the means m_l and d_l of layers, shape (n, layers) each.

    Args:
        means: the same after scaling, shape (n, 2, layers).
        n: number of points of every layer, shape (n, layers).
    """
    scale = (n.clamp(min=1).reciprocal() + TAU**2).sqrt()
    least = torch.arange(2, device=n.device)[:, None]
    m, d = (means * (scale[:, None] * (n[:, None] > least))).unbind(1)
    return m, d


def features_of(clouds: PointShowers, table: Tensor) -> Features:
    """Return features of showers, each with energy, by the tables of ln r."""
    count, energy = (torch.from_numpy(clouds.layer_sums(values)).float() for values in (None, clouds.e))
    z = to_normal(log_distance(clouds), torch.from_numpy(clouds.layer), table).double().numpy()
    total, weighted = (torch.from_numpy(clouds.layer_sums(values)).float() for values in (z, z * clouds.e))
    mean = total / count.clamp(min=1)
    core = torch.where(count > 1, weighted / energy.clamp(min=1e-12) - mean, 0.0)
    return Features(count, energy, mean, core, torch.from_numpy(centres(clouds)).float())


def centres(clouds: PointShowers) -> np.ndarray:
    """Return the centre of gravity of every shower, shape (n, 2), cm, float64; zero without energy."""
    owner, n = clouds.owner, len(clouds)
    total = np.bincount(owner, clouds.e, n)
    sums = [np.bincount(owner, clouds.e * place, n) for place in (clouds.x, clouds.y)]
    return np.stack([s / np.where(total > 0, total, 1) for s in sums], axis=1)


def log_distance(clouds: PointShowers) -> Tensor:
    """Return ln r of every point about the axis, shape (points,), float32."""
    r = np.hypot(clouds.x, clouds.y)
    return torch.from_numpy(np.log(np.maximum(r, NEAREST)).astype(np.float32))
