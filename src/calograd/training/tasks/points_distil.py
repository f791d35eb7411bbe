"""Distillation of a surrogate of points: targets of the teacher and losses of the student.

The teacher makes showers at the energies of the training showers, and points in these showers' layers. The student
learns the ends of the trajectories of both (`calograd.diffusion.consistency`): the shower's network from pure noise
alone, the points' network from every level. All trajectories are computed once, before the first step, with random
numbers of their own, so that a resumed run finds the same.

A regression shrinks spreads: with r its residual, cov(end) = cov(y) + cov(r). A shower's 4 L + 3 numbers show it,
so x = M y + u is fitted to have the ends' mean and covariance, over the same noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.diffusion.consistency import Consistency, Trajectories, levels, regression_loss, trajectories
from calograd.diffusion.denoisers import denoise
from calograd.diffusion.samplers import SAMPLERS
from calograd.diffusion.schedules import SCHEDULES
from calograd.surrogate.points.features import LEADS, dim_of
from calograd.surrogate.points.model import POINT_FEATURES, SHOWER_SCHEDULE, PointsModel
from calograd.surrogate.points.moment_matching import HIGHEST
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PointsDistillation

SAMPLER = SAMPLERS["trigflow-ab2"]
"""Sampler of the teacher: it has the least error for its evaluations where data are nearly unit normal."""
SPREAD_BATCH = 2048
"""Showers of a step that fits M and u."""
POINTS = 16
"""Points of a layer."""
CHUNK = 1024
"""Number of showers or layers whose trajectories are computed at once."""


class Showers(NamedTuple):
    """Places on trajectories of showers, their incident energies (n,), GeV, and their unit normal leads."""

    places: Trajectories
    energy: Tensor
    leads: Tensor


class Layers(NamedTuple):
    """Places on trajectories of points, `POINTS` of each layer in a row, and the layers' contexts (layers, ...).

    The noise level is one for all points of a layer.
    """

    places: Trajectories
    context: Tensor


@dataclass(frozen=True)
class PointsTargets:
    """Trajectories that a student learns from."""

    showers: Showers
    layers: Layers


@torch.no_grad()
def teacher_targets(teacher: PointsModel, energy: Tensor, config: PointsDistillation, seed: int) -> PointsTargets:
    """Return the trajectories of showers and of their points.

    Args:
        teacher: a diffusion model.
        energy: incident energies to draw from, shape (m,), GeV.
        config: numbers of showers, layers and steps.
        seed: seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    showers, contexts, wanted = [], [], config.layers
    for start in range(0, config.showers, CHUNK):
        n = min(CHUNK, config.showers - start)
        incident = energy[torch.randint(len(energy), (n,), generator=generator)].to(teacher.unit)
        showers.append(_showers(teacher, incident, config.steps, generator))
        if wanted > 0:
            found = _contexts(teacher, showers[-1])[:wanted]
            contexts.append(found)
            wanted -= len(found)
    context = torch.cat(contexts)
    parts = [_points(teacher, part, config.steps, generator) for part in torch.split(context, CHUNK)]
    places, energies, leads = zip(*showers, strict=True)
    return PointsTargets(
        Showers(_join(list(places)), torch.cat(energies), torch.cat(leads)), Layers(_join(parts), context)
    )


def shower_loss(model: PointsModel, showers: Showers, chosen: Tensor) -> Tensor:
    """Return the loss of the student's network of the shower on chosen showers, shape (len(chosen), numbers)."""
    places = Trajectories(*(t[chosen] for t in showers.places))
    pre = cast(Consistency, model.shower_preconditioning)
    return regression_loss(
        model.shower_at(model.conditions(showers.energy[chosen]), showers.leads[chosen]), pre, places
    )


def spread_loss(model: PointsModel, averaged: PointsModel, showers: Showers, chosen: Tensor) -> Tensor:
    """Return the squared difference of means and second moments of M y + u and of the ends, per number of a shower.

    Args:
        model: student whose M and u are learnt.
        averaged: its moving average, whose network makes y.
        showers: trajectories of showers.
        chosen: indices of the showers used.
    """
    places = Trajectories(*(t[chosen] for t in showers.places))
    with torch.no_grad():
        network = averaged.shower_at(averaged.conditions(showers.energy[chosen]), showers.leads[chosen])
        found = denoise(network, averaged.shower_preconditioning, places.x, places.sigma)
    ours, theirs = (pad(values, (0, 1), value=1.0) for values in (model.corrected(found), places.end))
    return ((ours.T @ ours - theirs.T @ theirs) / len(chosen)).square().sum() / found.shape[1]


def point_loss(model: PointsModel, layers: Layers, chosen: Tensor) -> Tensor:
    """Return the loss of the student's network of the points on all points of chosen layers, shape (points, 2)."""
    places = Trajectories(*(t.reshape(-1, POINTS, *t.shape[1:])[chosen].flatten(0, 1) for t in layers.places))
    pre = cast(Consistency, model.preconditioning)
    return regression_loss(model.points_at(layers.context[chosen], _groups(chosen)), pre, places)


def _groups(layers: Tensor) -> Tensor:
    """Return the index of every point's layer."""
    return torch.arange(len(layers), device=layers.device).repeat_interleave(POINTS)


def _showers(teacher: PointsModel, energy: Tensor, steps: int, generator: torch.Generator) -> Showers:
    random = RandomNumbers.from_generator(generator, len(energy))
    noise = random.normal(LEADS + dim_of(teacher.architecture.layers), like=energy)
    level = torch.zeros(len(energy), dtype=torch.int64, device=energy.device)
    leads = noise[:, :LEADS]
    network, pre = teacher.shower_at(teacher.conditions(energy), leads), teacher.shower_preconditioning
    grid = SAMPLER.grid(SCHEDULES[SHOWER_SCHEDULE], steps)
    walked = trajectories(lambda x, s: denoise(network, pre, x, s), noise[:, LEADS:], grid, SAMPLER, level)
    return Showers(walked, energy, leads)


def _contexts(teacher: PointsModel, showers: Showers) -> Tensor:
    """Return the contexts of all layers with points in the teacher's showers, shape (layers, ...)."""
    features = teacher.features_of(torch.cat([showers.leads, showers.places.end], dim=1), showers.energy)
    return teacher.context(features, showers.energy)[features.count > 0]


def _points(teacher: PointsModel, context: Tensor, steps: int, generator: torch.Generator) -> Trajectories:
    group = _groups(context)
    noise = RandomNumbers.from_generator(generator, len(group)).normal(POINT_FEATURES, like=context)
    level = levels(steps, RandomNumbers.from_generator(generator, len(context))).to(context.device)
    network, pre = teacher.points_at(context, group), teacher.preconditioning
    grid = SAMPLER.grid(SCHEDULES[teacher.architecture.schedule], steps)
    places = trajectories(lambda x, s: denoise(network, pre, x, s), noise, grid, SAMPLER, level[group])
    return places._replace(end=places.end.clamp(-HIGHEST, HIGHEST))  # where points are held


def _join(parts: list[Trajectories]) -> Trajectories:
    return Trajectories(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
