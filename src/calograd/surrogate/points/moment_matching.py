"""Moment matching: points of layers get the means, energies and centre that their shower was given.

Points come in groups, those of one layer of one shower one behind the other (or those of one shower).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.surrogate.points.features import Features
from calograd.system.random_numbers import RandomNumbers

MOST_POINTS = 1 << 24
"""Room for the points of one layer of one shower among the random numbers of the shower."""
NEWTON = 3
"""Number of steps of Newton's method."""
STEEPEST = 4.5
"""Largest exponent lambda z."""
HIGHEST = 5.0
"""Largest |z| of a point; tables of quantiles end before."""
FAR = 2.0
"""Distance from the axis, in the unit of r, to which points move in proportion to it to have their shower's centre."""


class Groups(NamedTuple):
    """Groups of points, one after the other.

    Args:
        counts: points of every group, shape (groups,), int64.
        of: the group of every point, in order, shape (points,), int64.
    """

    counts: Tensor
    of: Tensor

    @classmethod
    def with_counts(cls, counts: Tensor) -> Groups:
        """Return groups of so many points."""
        return cls(counts, torch.repeat_interleave(counts))

    def sums(self, values: Tensor) -> Tensor:
        """Return sums over the points of every group, shape (..., groups) of values (..., points)."""
        counts = self.counts if values.ndim == self.counts.ndim else self.rows(*values.shape[:-1]).counts
        return torch.segment_reduce(values.contiguous(), "sum", lengths=counts, axis=values.ndim - 1, unsafe=True)

    def rows(self, *shape: int) -> Groups:
        """Return the same groups for values of shape (*shape, points), to sum such values more than once."""
        return Groups(self.counts.expand(*shape, -1).contiguous(), self.of)

    def spread(self, values: Tensor) -> Tensor:
        """Return the values of groups, shape (..., groups), handed to their points, shape (..., points)."""
        return values.index_select(-1, self.of)


class Drawn(NamedTuple):
    """Random numbers of points.

    Args:
        noise: unit normal numbers, shape (points, dim).
        angle: azimuth, uniform from 0 to 2 pi, shape (points,).
        groups: the layer of a shower that each point is of.
        shower: row of the shower of each point, shape (points,).
        place: number of each point within its shower, shape (points,).
        weight: fraction of each point that counts, below 1 for the last of a group alone, shape (points,); None if all
            count in full.
    """

    noise: Tensor
    angle: Tensor
    groups: Groups
    shower: Tensor
    place: Tensor
    weight: Tensor | None


def draw(share: Tensor, shower: Tensor, layer: Tensor, dim: int, random: RandomNumbers, smooth: bool) -> Drawn:
    """Draw the random numbers of the points of groups.

    Point p of layer k of shower i has the same numbers however many points the layer and the others have.

    Args:
        share: number of points of each group, a fraction where the last counts in part, shape (groups,).
        shower: row of the shower of each group, shape (groups,).
        layer: layer of each group, shape (groups,).
        dim: numbers of a point.
        random: random numbers of the showers.
        smooth: True if the last point of each group counts in part.
    """
    counts = share.detach().ceil().long()
    groups = Groups.with_counts(counts)
    place = torch.arange(len(groups.of), device=share.device) - groups.spread(counts.cumsum(0) - counts)
    owner, index = groups.spread(shower), groups.spread(layer) * MOST_POINTS + place
    noise = random.normal_points(owner, index, dim, like=share)
    angle = random.uniform_points(owner, index, like=share) * (2 * torch.pi)
    weight = (groups.spread(share) - place).clamp(max=1) if smooth else None
    return Drawn(noise, angle, groups, owner, index, weight)


class Matched(NamedTuple):
    """Points with the moments of their features, in order of showers and layers.

    Args:
        x, y: positions, shape (points,), in the unit of r.
        layer: layer of every point, from 0, shape (points,), int64.
        e: energies, shape (points,), GeV.
        groups: the shower of every point.
        of_layer: index of every point's layer among those of all showers, one after the other, shape (points,).
    """

    x: Tensor
    y: Tensor
    layer: Tensor
    e: Tensor
    groups: Groups
    of_layer: Tensor


def matched(
    features: Features,
    random: RandomNumbers,
    smooth: bool,
    dim: int,
    z_of: Callable[[Drawn, Tensor], Tensor],
    polar: Callable[[Tensor, Drawn, Tensor], tuple[Tensor, Tensor, Tensor]],
    *,
    tilt: bool = True,
) -> Matched:
    """Generate points and give every layer and shower the moments of its features.

    Args:
        features: features of the showers.
        random: random numbers of the showers.
        smooth: give the last point of every layer a fractional weight.
        dim: numbers of a point.
        z_of: returns z of points, shape (points, dim), from their random numbers and from the layers that have any,
            shape (groups,), among those of all showers, one after the other. The first number is z_r, the second z_e.
        polar: returns r, e in GeV but for a factor of each layer, and azimuth of points, shape (points,) each, from z,
            shape (dim, points), their random numbers and the layers that have any.
        tilt: give every layer its weighted mean of z_r by energies that `tilted` changes, those of far points most;
            False: energies are those of ``polar`` but for the factor that gives the layer its energy.
    """
    layers = features.count.shape[1]
    filled = torch.nonzero(features.count.flatten()).squeeze(1)
    columns = torch.stack([features.count, features.mean, features.core, features.energy]).flatten(1)
    share, m, d, own = columns.index_select(1, filled).unbind()
    drawn = draw(share, filled // layers, filled % layers, dim, random, smooth)
    groups, weight = drawn.groups, drawn.weight
    z = z_of(drawn, filled)
    z_r = with_mean(z[:, 0], m, share, groups, weight)
    both = torch.stack([z_r, *z[:, 1:].unbind(1)]).clamp(-HIGHEST, HIGHEST)
    r, e, angle = polar(both, drawn, filled)
    e = e if weight is None else weight * e
    e = tilted(e, both[0], m + d, groups) if tilt else e
    e = e * groups.spread(own / groups.sums(e))
    counts = features.count.detach().ceil().sum(1).long()
    showers = Groups.with_counts(counts)
    x, y = with_centre(r, angle, e, showers, features.centre.T * features.energy.sum(1))
    of_layer = groups.spread(filled)
    return Matched(x, y, of_layer % layers, e, showers, of_layer)


def with_mean(z: Tensor, mean: Tensor, share: Tensor, groups: Groups, weight: Tensor | None) -> Tensor:
    """Return z with the given mean of every group.

    The spread about it is stretched by sqrt(N / (N - 1)), N the ``share``.
    """
    own = groups.sums(z if weight is None else weight * z) / share
    n = share.clamp(min=1.5)
    stretch = (n / (n - 1)).sqrt()
    return torch.addcmul(groups.spread(mean - stretch * own), groups.spread(stretch), z)


def tilted(e: Tensor, z: Tensor, wanted: Tensor, groups: Groups) -> Tensor:
    """Return energies times exp(lambda z).

    The lambda of every group is such that the mean of z, weighted with the energies, is ``wanted``.
    """
    powers, three = torch.stack([torch.ones_like(z), z, z * z]), groups.rows(3)
    tilt, t = torch.zeros_like(wanted), e
    for _ in range(NEWTON):
        sums = three.sums(t * powers)
        mean, square = (sums[1:] / sums[0]).unbind()
        variance = torch.addcmul(square, mean, mean, value=-1).clamp(min=0.1)
        tilt = torch.addcdiv(tilt, wanted - mean, variance).clamp(-STEEPEST / 3, STEEPEST / 3)
        t = e * (groups.spread(tilt) * z).clamp(-STEEPEST, STEEPEST).exp()
    return t


def with_centre(r: Tensor, angle: Tensor, e: Tensor, showers: Groups, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Return x and y of points moved by a r / (1 + r / `FAR`), a of every shower such that it has its centre.

    Args:
        r, angle: polar coordinates, shape (points,).
        e: energies, shape (points,).
        showers: groups of the points.
        centre: sums of e x and of e y that are wanted, shape (2, n).
    """
    reach = r / (1 + r / FAR)
    place = r * torch.stack([angle.cos(), angle.sin()])
    sums = showers.sums(e * torch.cat([place, reach[None]]))
    x, y = torch.addcmul(place, reach, showers.spread((centre - sums[:2]) / sums[2])).unbind()
    return x, y
