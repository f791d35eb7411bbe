"""Points of layers made to have what their shower was given.

Points come in groups, those of one layer of one shower one behind the other (or those of one shower).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from calograd.surrogate.randomness import RandomNumbers

SPARE = 32
"""Number of points whose multiples are drawn for a smooth sample, so that one more point leaves the others alone."""
NEWTON = 3
STEEPEST = 4.5
"""Largest exponent lambda z."""
FAR = 2.0
"""Distance from the axis, cm, to which points are moved in proportion to it to have their shower's centre."""


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
        angle: evenly from 0 to 2 pi, shape (points,).
        groups: of the points.
        weight: what part of each counts, below 1 for the last of a group alone, shape (points,); None for 1 throughout.
    """

    noise: Tensor
    angle: Tensor
    groups: Groups
    weight: Tensor | None


def draw(share: Tensor, dim: int, random: RandomNumbers, smooth: bool) -> Drawn:
    """Draw the points of groups.

    Args:
        share: points of every group, a fraction where the last is counted in part, shape (groups,).
        dim: numbers of a point.
        random: source of the random numbers.
        smooth: whether the last point of every group is counted in part.
    """
    counts = share.detach().ceil().long()
    drawn = Groups.with_counts((counts + SPARE - 1) // SPARE * SPARE if smooth else counts)
    total = len(drawn.of)
    noise = random.normal(total, dim, like=share)
    angle = random.uniform(total, like=share) * (2 * torch.pi)
    if not smooth:
        return Drawn(noise, angle, drawn, None)
    place = torch.arange(total, device=share.device) - drawn.spread(drawn.counts.cumsum(0) - drawn.counts)
    kept = torch.nonzero(place < drawn.spread(counts)).squeeze(1)
    groups = Groups(counts, drawn.of[kept])
    return Drawn(noise[kept], angle[kept], groups, (groups.spread(share) - place[kept]).clamp(max=1))


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
