"""Training of a surrogate of points in a layered detector.

    phase "location and scale"   Student t likelihood of the shower's numbers given the energy
    phase "showers"              denoising loss of the standardised numbers, made nearly unit normal before
    phase "points"               denoising loss of z, whole layers a batch, no padding
    phase "hits"                 numbers of hits matched to those of the data, where these are known; no steps, see
                                 `calograd.training.tasks.points_hits`

A student is distilled in the phases "showers" and "points", with a phase "spread" between them, see
`calograd.training.tasks.points_distil`. Everything else it has from its teacher.
"""

from __future__ import annotations

from functools import cached_property
from typing import cast

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedDetector
from calograd.surrogate.model import to_device
from calograd.surrogate.points.features import Features
from calograd.surrogate.points.model import PointsModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PointsDistillation, PointsRun
from calograd.training.data.points import PointsData, initialise
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Report, report_points
from calograd.training.tasks.points_distil import (
    SPREAD_BATCH,
    PointsTargets,
    point_loss,
    shower_loss,
    spread_loss,
    teacher_targets,
)
from calograd.training.tasks.points_hits import fit_hits
from calograd.training.tasks.surrogate import SurrogateTask, check_reached

SPREAD_EMA = 0.99
"""Decay of the moving average in the phase "spread"."""

State = TrainingState[PointsModel]


class PointsTask(SurrogateTask[PointsModel]):
    """Training or distillation of a surrogate of points, see `calograd.training.loop.Task`.

    Args:
        config: configuration of the run.
        data: showers to train on and to validate with.
        device: any torch device.

    Raises:
        InputError: the data do not reach over the range, a teacher that does not fit, or there is no such device.
        FormatError: the teacher is missing or damaged.
    """

    auxiliary = None

    def __init__(self, config: PointsRun, data: PointsData, device: str) -> None:
        check_reached("range.energy", config.range.energy, "GeV", data.train.energy, "the data", float)
        self.config, self.data, self.device = config, data, device
        self.teacher, origins = None, dict[str, str]()
        if config.distillation is not None:
            self.teacher, origins["teacher"] = _load_teacher(config.distillation, data, device)
        trained = TrainedDetector(detector=data.source.detector, clustering=data.source.clustering)
        super().__init__(config, data, trained, origins)

    @cached_property
    def model(self) -> PointsModel:
        """Weights from the seed; those of a student are the teacher's but for the two diffusion networks."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.training.seed)
            if self.teacher is None:
                model = PointsModel(self.config.model.architecture(self.data.train.clouds.layers))
                initialise(model, self.data)
                return to_device(model, self.device)
            model = PointsModel(self.config.model.student(self.teacher.architecture))
        own = ("shower_network.", "point_network.")
        theirs = {name: value for name, value in self.teacher.state_dict().items() if not name.startswith(own)}
        model.load_state_dict(theirs, strict=False)
        return to_device(model, self.device)

    @cached_property
    def phases(self) -> tuple[Phase[PointsModel], ...]:
        """Phases of a training or of a distillation."""
        t, rate, distillation = self.config.training, self.config.training.learning_rate, self.config.distillation
        first, showers, points = (
            parameters_below(self.model, *prefixes)
            for prefixes in (("shower_leads.", "shower_location_scale."), ("shower_network.",), ("point_network.",))
        )
        made: list[Phase[PointsModel]] = []
        if distillation is None:
            made += [
                Phase("location and scale", t.location_scale_steps, first, self._location_scale_loss, 0.0, rate, False),
                Phase("showers", t.shower_steps, showers, self._shower_loss, t.ema, rate, before=self._make_normal),
                Phase("points", t.point_steps, points, self._point_loss, t.ema, rate),
            ]
        else:
            spread, steps = parameters_below(self.model, "shower_correction."), distillation.spread_steps
            made += [
                Phase("showers", t.shower_steps, showers, self._student_shower_loss, t.ema, rate),
                Phase("spread", steps, spread, self._spread_loss, SPREAD_EMA, rate),
                Phase("points", t.point_steps, points, self._student_point_loss, t.ema, rate),
            ]
        if self.data.train.clouds.hits is not None and t.hit_showers:
            made.append(Phase("hits", before=self._fit_hits))
        return tuple(made)

    def monitor(self, state: State) -> Report:
        """Return validation losses and physics."""
        return report_points(state.ema, self.data)

    def _location_scale_loss(self, state: State) -> Tensor:
        """Return the negative log likelihood of the numbers of random showers."""
        features, energy, random = self._drawn_showers(state, self.config.training.location_scale_batch)
        return state.model.location_scale_loss(features, energy, random).mean()

    def _shower_loss(self, state: State) -> Tensor:
        """Return the denoising loss of random showers."""
        features, energy, random = self._drawn_showers(state, self.config.training.shower_batch)
        with torch.no_grad():
            x = state.model.standardise(features, energy, random)
        return state.model.shower_loss(x, energy, random).mean()

    def _drawn_showers(self, state: State, batch: int) -> tuple[Features, Tensor, RandomNumbers]:
        """Return features, energies and random numbers of random training showers."""
        rows, device = self.data.train, state.model.unit.device
        chosen = torch.randint(len(rows), (batch,), generator=state.generator)
        random = RandomNumbers.from_generator(state.generator, batch)
        return rows.features.at(chosen).to(device), rows.energy[chosen].to(device), random

    def _make_normal(self, state: State) -> None:
        """Fit the tables and the map that make the showers' numbers nearly unit normal."""
        rows = self.data.train
        random = RandomNumbers(self.config.training.seed, range(len(rows)))
        device = state.model.unit.device
        features, energy = rows.features.to(device), rows.energy.to(device)
        with torch.no_grad():
            u, f = state.ema.scaled(features, energy, random)
        for model in (state.model, state.ema):
            model.shower_leads.tables.fit(u)
            model.shower_normal.fit(f)

    def _point_loss(self, state: State) -> Tensor:
        """Return the denoising loss of the points of random layers."""
        rows, model, generator = self.data.train, state.model, state.generator
        device, layers = model.unit.device, model.architecture.layers
        chosen = torch.randint(len(rows.place), (self.config.training.point_batch,), generator=generator)
        z, group, place_of = rows.groups(chosen)
        shower, layer = place_of // layers, place_of % layers
        with torch.no_grad():
            features, energy = rows.features.at(shower).to(device), rows.energy[shower].to(device)
            context = model.context(features, energy)[torch.arange(len(layer)), layer.to(device)]
        random = RandomNumbers.from_generator(generator, len(z))
        return model.point_loss(z.to(device), context, group.to(device), random).mean()

    @cached_property
    def targets(self) -> PointsTargets:
        """Trajectories that the teacher prepares before the first step."""
        assert self.teacher is not None
        assert self.config.distillation is not None
        energy, seed = self.data.train.energy, self.config.training.seed
        return teacher_targets(self.teacher, energy, self.config.distillation, seed)

    def _student_shower_loss(self, state: State) -> Tensor:
        """Return the regression loss of random showers' trajectories."""
        showers = self.targets.showers
        chosen = torch.randint(len(showers.energy), (self.config.training.shower_batch,), generator=state.generator)
        return shower_loss(state.model, showers, chosen.to(showers.energy.device)).mean()

    def _spread_loss(self, state: State) -> Tensor:
        """Return the loss of the mean and covariance of random showers' numbers."""
        showers = self.targets.showers
        chosen = torch.randint(len(showers.energy), (SPREAD_BATCH,), generator=state.generator)
        return spread_loss(state.model, state.ema, showers, chosen.to(showers.energy.device))

    def _student_point_loss(self, state: State) -> Tensor:
        """Return the regression loss of the points' trajectories in random layers."""
        layers = self.targets.layers
        chosen = torch.randint(len(layers.context), (self.config.training.point_batch,), generator=state.generator)
        return point_loss(state.model, layers, chosen.to(layers.context.device)).mean()

    def _fit_hits(self, state: State) -> None:
        """Match the averaged weights' numbers of hits to those of the data."""
        state.ema.more_points.zero_()
        fit_hits(state.ema, self.data, self.config.training.hit_showers, self.config.training.seed)


def _load_teacher(distillation: PointsDistillation, data: PointsData, device: str) -> tuple[PointsModel, str]:
    """Return the teacher and its identity. Raises `InputError` if it cannot be distilled or does not fit the data."""
    loaded = Surrogate.load(distillation.teacher, device)
    clustering, model = loaded.card.detector.clustering, cast(PointsModel, loaded.model)  # points have a detector
    if model.distilled:
        raise InputError(f"{distillation.teacher} is distilled already; expected a diffusion model")
    theirs, ours = (model.architecture.layers, clustering), (data.train.clouds.layers, data.source.clustering)
    if theirs != ours:
        raise InputError(
            f"{distillation.teacher} is of {theirs[0]} layers and {theirs[1]}, the data are of {ours[0]} layers and "
            f"{ours[1]}; expected the same"
        )
    return model, loaded.identity
