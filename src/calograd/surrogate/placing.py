"""Points of layers made to have what their shower was given.

Points come in groups, those of one layer of one shower one behind the other (or those of one shower).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SPARE = 32
"""Points of a layer are drawn in multiples of this for a smooth sample, so that one more leaves the others alone."""
NEWTON = 3
STEEPEST = 4.5
"""Of the exponent lambda z."""
FAR = 2.0
"""Distance from the axis, cm, to which points are moved in proportion to it to have their shower's centre."""


class Groups(NamedTuple):
    """Which group every point is of.

    Args:
        counts: points of every group, shape (groups,), int64.
        of: the group of every point, in order, shape (points,), int64.
    """

    counts: Tensor
    of: Tensor

    @classmethod
    def with_counts(cls, counts: Tensor) -> Groups:
        """Groups of so many points."""
        return cls(counts, torch.repeat_interleave(counts))

    def sums(self, values: Tensor) -> Tensor:
        """Over the points of every group, shape (groups,)."""
        return torch.segment_reduce(values.contiguous(), "sum", lengths=self.counts, unsafe=True)

    def spread(self, values: Tensor) -> Tensor:
        """What every group has, handed to its points, shape (points, ...)."""
        return values.index_select(0, self.of)


class Drawn(NamedTuple):
    """Random numbers of points.

    Args:
        noise: unit normal numbers, shape (points, marks).
        angle: evenly from 0 to 2 pi, shape (points,).
        groups: of the points.
        weight: what part of each counts, below 1 for the last of a group alone, shape (points,); None for 1 throughout.
    """

    noise: Tensor
    angle: Tensor
    groups: Groups
    weight: Tensor | None


def draw(share: Tensor, marks: int, generator: torch.Generator | None, smooth: bool) -> Drawn:
    """Points of groups.

    Args:
        share: points of every group, a fraction where the last is counted in part, shape (groups,).
        marks: numbers of a point.
        generator: of the random numbers.
        smooth: whether the last point of every group is counted in part.
    """
    counts = share.detach().ceil().long()
    drawn = Groups.with_counts((counts + SPARE - 1) // SPARE * SPARE if smooth else counts)
    total = len(drawn.of)
    noise = torch.randn(total, marks, generator=generator).to(share)
    angle = torch.rand(total, generator=generator).to(share) * (2 * torch.pi)
    if not smooth:
        return Drawn(noise, angle, drawn, None)
    place = torch.arange(total, device=share.device) - drawn.spread(drawn.counts.cumsum(0) - drawn.counts)
    kept = torch.nonzero(place < drawn.spread(counts)).squeeze(1)
    groups = Groups(counts, drawn.of[kept])
    return Drawn(noise[kept], angle[kept], groups, (groups.spread(share) - place[kept]).clamp(max=1))


def with_mean(z: Tensor, mean: Tensor, share: Tensor, groups: Groups, weight: Tensor | None) -> Tensor:
    """z with the mean of every group as given, its spread about it stretched by sqrt(N / (N - 1)), N the ``share``."""
    own = groups.sums(z if weight is None else weight * z) / share
    n = share.clamp(min=1.5)
    stretch = (n / (n - 1)).sqrt()
    return torch.addcmul(groups.spread(mean - stretch * own), groups.spread(stretch), z)


def tilted(e: Tensor, z: Tensor, wanted: Tensor, groups: Groups) -> Tensor:
    """Energies times exp(lambda z), lambda of every group such that the mean of z weighted with them is ``wanted``."""
    tilt, t = torch.zeros_like(wanted), e
    for _ in range(NEWTON):
        first = t * z
        total = groups.sums(t)
        mean = groups.sums(first) / total
        variance = (groups.sums(first * z) / total - mean**2).clamp(min=0.1)
        tilt = (tilt + (wanted - mean) / variance).clamp(-STEEPEST / 3, STEEPEST / 3)
        t = e * (groups.spread(tilt) * z).clamp(-STEEPEST, STEEPEST).exp()
    return t


def with_centre(
    r: Tensor, angle: Tensor, e: Tensor, showers: Groups, centre: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """x and y of points moved by a r / (1 + r / `FAR`) so that every shower has its centre of gravity, by a of its own.

    Args:
        r, angle: polar coordinates, shape (points,).
        e: energies, shape (points,).
        showers: groups of the points.
        centre: sums of e x and of e y that are wanted, shape (n,) each.
    """
    reach = r * (FAR / (FAR + r))
    far, total = e * r, showers.sums(e * reach)

    def moved(along: Tensor, wanted: Tensor) -> Tensor:
        return torch.addcmul(r * along, reach, showers.spread((wanted - showers.sums(far * along)) / total))

    return moved(angle.cos(), centre[0]), moved(angle.sin(), centre[1])
