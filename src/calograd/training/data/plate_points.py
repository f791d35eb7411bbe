"""Points in the active plates of stacks as training data: where they are, their numbers, and the features of layers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from calograd.events.point_showers import PointShowers
from calograd.events.ragged import Ragged
from calograd.surrogate.plates.points import KnownLayers, PointStage, across_line, point_numbers
from calograd.surrogate.points.features import Features

ON_LINE = 1e-4
"""Distance from the particle's line, cm, below which a point has no azimuth."""


@dataclass(frozen=True)
class StackPoints(Ragged):
    """Points of showers in stacks, as tensors; shower s owns the points ``offsets[s]:offsets[s + 1]``.

    Args:
        x, y: positions along the tilt of the particle but across its line, and across both, shape (points,), cm.
        layer: layer of every point, from 0, in order within a shower, shape (points,), int64.
        e: energies, shape (points,), GeV.
        offsets: shape (n + 1,), int64.
        hits: cells above the threshold by all deposits, shape (n,), int64.
    """

    FLAT: ClassVar = ("x", "y", "layer", "e")
    HEADS: ClassVar = ("hits",)
    x: Tensor
    y: Tensor
    layer: Tensor
    e: Tensor
    offsets: Tensor
    hits: Tensor

    def to(self, device: torch.device) -> StackPoints:
        """Return the points on a device."""
        return StackPoints(*(getattr(self, field.name).to(device) for field in fields(self)))


def stack_points(clouds: PointShowers, seed: int) -> StackPoints:
    """Return points as tensors; the azimuth of those on the particle's line is drawn from the seed."""
    assert clouds.hits is not None
    owner, incident = torch.from_numpy(clouds.owner), clouds.incident
    theta, phi = (torch.from_numpy(angle.astype(np.float32))[owner] for angle in (incident.theta, incident.phi))
    x, y = across_line(torch.from_numpy(clouds.x), torch.from_numpy(clouds.y), theta, phi)
    turn = 2 * torch.pi * torch.rand(len(x), generator=torch.Generator().manual_seed(seed))
    on_line = (x.square() + y.square()).sqrt() < ON_LINE
    x, y = (torch.where(on_line, ON_LINE * turned, own) for turned, own in ((turn.cos(), x), (turn.sin(), y)))
    columns = (torch.from_numpy(values) for values in (clouds.layer, clouds.e, clouds.offsets, clouds.hits))
    return StackPoints(x, y, *columns)


def numbers_of_points(stage: PointStage, points: StackPoints, layers: KnownLayers) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of points by the first table of a stage, and their places.

    Args:
        stage: the second stage of a model.
        points: points of showers.
        layers: the layers of the same showers.

    Returns:
        Two numbers of every point, its z_a, and the index of its layer among those of all showers, one after the other.
    """
    values, turned, place = raw_numbers(points, layers)
    return stage.evened(values), turned, place


def raw_numbers(points: StackPoints, layers: KnownLayers) -> tuple[Tensor, Tensor, Tensor]:
    """Return the numbers of points, see `calograd.surrogate.plates.points.point_numbers`, and their places."""
    place = points.owner * layers.present.shape[1] + points.layer
    scales = (values.flatten()[place] for values in (layers.moliere, layers.ionisation))
    return *point_numbers(points.x, points.y, points.e, *scales), place


def features_of_points(stage: PointStage, points: StackPoints, layers: KnownLayers) -> Features:
    """Return the features of showers by their points; the centre is in Moliere radii."""
    numbers, _, place = numbers_of_points(stage, points, layers)
    z = stage.normal(stage.standardise_points(numbers, layers, place))[:, 0]
    shape, unit = layers.present.shape, layers.moliere.flatten()[place]

    def sums(values: Tensor) -> Tensor:
        total = torch.zeros(layers.present.numel(), dtype=torch.float64, device=place.device)
        return total.index_add(0, place, values.double()).view(shape)

    count, energy, first, weighted = (sums(v) for v in (torch.ones_like(z), points.e, z, points.e * z))
    mean = first / count.clamp(min=1)
    core = torch.where(count > 1, weighted / energy.clamp(min=1e-12) - mean, 0.0)
    moments = [sums(points.e * values / unit).sum(1) for values in (points.x, points.y)]
    centre = torch.stack(moments, 1) / energy.sum(1, keepdim=True).clamp(min=1e-12)
    return Features(*(values.to(z) for values in (count, energy, mean, core, centre)))


@torch.no_grad()
def contexts_of_points(
    stage: PointStage, points: StackPoints, features: Features, layers: KnownLayers
) -> tuple[Tensor, Tensor, Tensor]:
    """Return z of the points of showers with given features, the contexts of their layers, and which each is of.

    Shapes (points, 3), (filled layers, context) and (points,).
    """
    numbers, turned, place = numbers_of_points(stage, points, layers)
    z = torch.cat([stage.normal(stage.standardise_points(numbers, layers, place)), turned[:, None]], 1)
    filled, group = torch.unique_consecutive(place, return_inverse=True)
    return z, stage.context(features, layers).flatten(0, 1)[filled], group
