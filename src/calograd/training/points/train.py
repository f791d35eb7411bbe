"""Training of a cloud surrogate.

    phase "moments"   Student t likelihood of the shower's numbers given the energy
    phase "showers"   denoising loss of the standardised numbers, made nearly unit normal before
    phase "points"    denoising loss of z, whole layers a batch, no padding

A student is distilled in the last two, with a phase "spread" between them, see `calograd.training.points.distillation`;
all else it has from its teacher.

Where the hits of the data are known either ends with the phase "hits", which has no steps, see
`calograd.training.points.hits`.

A run is a folder: ``checkpoint.pt``, ``log.jsonl`` (a line a report), ``model.safetensors`` (the moving average of the
weights so far). A run that is started again goes on from its checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from calograd.errors import InputError
from calograd.io.files import one_writer
from calograd.surrogate import Surrogate
from calograd.surrogate.model import to_device
from calograd.surrogate.points.model import PointsModel
from calograd.training.data.points import PointsData, initialise
from calograd.training.loop import Course, Pace, Phase, Progress
from calograd.training.points.config import CloudRunConfig
from calograd.training.points.distillation import (
    SPREAD_BATCH,
    Lessons,
    make_lessons,
    point_loss,
    shower_loss,
    spread_loss,
)
from calograd.training.points.hits import fit_hits
from calograd.training.points.monitor import CloudReport, look
from calograd.training.points.task import Reports, Task, check_range, go_through, prepare


@dataclass(frozen=True)
class _Losses:
    """Losses of random batches of the training rows."""

    config: CloudRunConfig
    data: PointsData

    def moments(self, at: Course[PointsModel]) -> torch.Tensor:
        """Negative log-likelihood of the showers' numbers."""
        rows, model, generator = self.data.train, at.model, at.generator
        chosen = torch.randint(len(rows), (self.config.training.location_scale_batch,), generator=generator)
        device = model.unit.device
        features, energy = rows.features.at(chosen).to(device), rows.energy[chosen].to(device)
        return model.location_scale_loss(features, energy, generator).mean()

    def showers(self, at: Course[PointsModel]) -> torch.Tensor:
        """Denoising loss of showers."""
        rows, model, generator = self.data.train, at.model, at.generator
        chosen = torch.randint(len(rows), (self.config.training.shower_batch,), generator=generator)
        device = model.unit.device
        features, energy = rows.features.at(chosen).to(device), rows.energy[chosen].to(device)
        with torch.no_grad():
            x = model.standardise(features, energy, generator)
        return model.shower_loss(x, energy, generator).mean()

    def make_normal(self, at: Course[PointsModel]) -> None:
        """Fit what makes showers' numbers nearly unit normal; the same however often it is begun anew."""
        rows, generator = self.data.train, torch.Generator().manual_seed(self.config.training.seed)
        device = at.model.unit.device
        features, energy = rows.features.to(device), rows.energy.to(device)
        with torch.no_grad():
            u, f = at.ema.scaled(features, energy, generator)
        for model in (at.model, at.ema):
            model.shower_leads.tables.fit(u)
            model.shower_normal.fit(f)

    def points(self, at: Course[PointsModel]) -> torch.Tensor:
        """Denoising loss of the points of some layers."""
        rows, model, generator = self.data.train, at.model, at.generator
        device = model.unit.device
        chosen = torch.randint(len(rows.place), (self.config.training.point_batch,), generator=generator)
        z, group, place_of = rows.groups(chosen)
        layers = model.architecture.layers
        shower, layer = place_of // layers, place_of % layers
        with torch.no_grad():
            features, energy = rows.features.at(shower).to(device), rows.energy[shower].to(device)
            context = model.context(features, energy)[torch.arange(len(layer)), layer.to(device)]
        return model.point_loss(z.to(device), context, group.to(device), generator).mean()


@dataclass(frozen=True)
class _StudentLosses:
    """Losses of random batches of lessons."""

    config: CloudRunConfig
    lessons: Lessons

    def showers(self, at: Course[PointsModel]) -> torch.Tensor:
        """Of the ends of showers' trajectories."""
        showers = self.lessons.showers
        chosen = torch.randint(len(showers.energy), (self.config.training.shower_batch,), generator=at.generator)
        return shower_loss(at.model, showers, chosen.to(showers.energy.device)).mean()

    def spread(self, at: Course[PointsModel]) -> torch.Tensor:
        """Of the mean and covariance of the showers' numbers."""
        showers = self.lessons.showers
        chosen = torch.randint(len(showers.energy), (SPREAD_BATCH,), generator=at.generator)
        return spread_loss(at.model, at.ema, showers, chosen.to(showers.energy.device))

    def points(self, at: Course[PointsModel]) -> torch.Tensor:
        """Of the ends of points' trajectories."""
        layers = self.lessons.layers
        chosen = torch.randint(len(layers.context), (self.config.training.point_batch,), generator=at.generator)
        return point_loss(at.model, layers, chosen.to(layers.context.device)).mean()


def train_clouds(
    config: CloudRunConfig,
    data: PointsData,
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    on_report: Reports | None = None,
) -> PointsModel:
    """Train or distil a cloud surrogate, or go on with the run in ``output``; returns the moving average.

    Raises:
        InputError: ``output`` holds a run of another configuration or cannot be written, the data do not fill the
            range, a loss is NaN, a teacher that does not fit, or there is no such device.
        OutputExistsError: ``output`` holds a surrogate without a checkpoint to go on from.
        FormatError: the checkpoint or the teacher is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    with one_writer(output):
        t = config.training
        prepare(output, t.threads)
        check_range(config.range, data.train.energy)
        teacher = None if config.distillation is None else _teacher(config, data, device)
        course = Course.start(to_device(_model(config, data, teacher), device), t.seed)
        phases = _phases(config, data) if teacher is None else _student_phases(config, data, teacher)
        pace = Pace(t.warmup, t.weight_decay, t.report_every, t.checkpoint_minutes)

        def look_at(at: Course[PointsModel]) -> CloudReport:
            return look(at.ema, data, phases[at.phase].name, at.step, float(at.running), at.seconds)

        task = Task(config, data.source, data.fingerprint, len(data.train), output)
        return go_through(task, course, phases, pace, look_at, progress, on_report)


def _phases(config: CloudRunConfig, data: PointsData) -> list[Phase[PointsModel]]:
    """Of a diffusion model."""
    t, losses = config.training, _Losses(config, data)
    return [
        Phase("moments", t.location_scale_steps, ("shower_leads.", "shower_location_scale."), losses.moments, 0.0, t.learning_rate,
              reports=False),
        Phase("showers", t.shower_steps, ("shower_network.",), losses.showers, t.ema, t.learning_rate,
              before=losses.make_normal),
        Phase("points", t.point_steps, ("point_network.",), losses.points, t.ema, t.learning_rate),
        *_hits(config, data),
    ]  # fmt: skip


def _student_phases(config: CloudRunConfig, data: PointsData, teacher: PointsModel) -> list[Phase[PointsModel]]:
    """Of a distilled one."""
    assert config.distillation is not None
    t, d = config.training, config.distillation
    losses = _StudentLosses(config, make_lessons(teacher, data.train.energy, d, t.seed))
    return [
        Phase("showers", t.shower_steps, ("shower_network.",), losses.showers, t.ema, t.learning_rate),
        Phase("spread", d.spread_steps, ("shower_correction.",), losses.spread, 0.99, t.learning_rate),
        Phase("points", t.point_steps, ("point_network.",), losses.points, t.ema, t.learning_rate),
        *_hits(config, data),
    ]


def _hits(config: CloudRunConfig, data: PointsData) -> list[Phase[PointsModel]]:
    """A phase without steps, in which the moving average is fitted to numbers of hits; none if these are not known."""
    t = config.training
    if data.train.clouds.hits is None or t.hit_showers == 0:
        return []

    def fit(at: Course[PointsModel]) -> None:
        at.ema.more_points.zero_()
        fit_hits(at.ema, data, t.hit_showers, t.seed)

    return [Phase("hits", 0, ("point_network.",), _none, 0.0, t.learning_rate, before=fit)]


def _none(at: Course[PointsModel]) -> torch.Tensor:
    """The loss of no step."""
    raise AssertionError(at.phase)


def _teacher(config: CloudRunConfig, data: PointsData, device: str) -> PointsModel:
    """The model that is distilled."""
    assert config.distillation is not None
    loaded = Surrogate.load(config.distillation.teacher, device)
    if not isinstance(loaded.model, PointsModel):
        raise InputError(f"{config.distillation.teacher} is of kind '{loaded.card.kind}'; expected 'points'")
    if loaded.model.architecture.distilled:
        raise InputError(f"{config.distillation.teacher} is distilled already; expected a diffusion model")
    theirs = (loaded.model.architecture.layers, loaded.card.detector.clustering)
    if theirs != (data.train.clouds.layers, data.source.clustering):
        raise InputError(
            f"{config.distillation.teacher} is of {theirs[0]} layers and {theirs[1]}, the data are of "
            f"{data.train.clouds.layers} layers and {data.source.clustering}; expected the same"
        )
    return loaded.model


def _model(config: CloudRunConfig, data: PointsData, teacher: PointsModel | None) -> PointsModel:
    """First weights: from the seed, and all of the teacher's but the two networks that are distilled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        if teacher is None:
            model = PointsModel(config.model.architecture(data.train.clouds.layers))
            initialise(model, data)
            return model
        model = PointsModel(config.model.student(teacher.architecture))
    kept = {k: v for k, v in teacher.state_dict().items() if not k.startswith(("shower_network.", "point_network."))}
    model.load_state_dict(kept, strict=False)
    return model
