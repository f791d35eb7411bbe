"""Training of the second stage of a surrogate of plates: points in the active plates, see `PointStage`.

    phase "point quantiles"              likelihood of a point's distance and energy given its layer
    phase "feature location and scale"   Student t likelihood of leads and layers' numbers; tables before
    phase "features"                     denoising loss of the layers' numbers
    phase "points"                       denoising loss of z, all points of some showers a step, no padding
    phase "hits"                         numbers of hits matched to those of the data; no steps
    phase "radii"                        R_E matched likewise

A student has its teacher's tables and quantiles, so the phases before "features" are empty, and the losses of both
networks are those of a distillation (`calograd.diffusion.progressive`).

Numbers of hits are matched where everything but the points is Geant4's: with H hits of a training shower, and G of
points generated in the layers' energies of that shower, least squares in ln G - ln H = c h, h of
`PointStage.terms`, give c. Numbers of points are then multiplied by exp(-c h / GAIN), as of `points_hits`.

R_E of points is matched in the same way, by least squares in (R_E,G - R_E,H) / M = c h with M a fit of R_E,H, so that
the mean is right and not that of logarithms; showers count by E / (E + `SCATTER`), since those of low energies scatter.
Points far from the line are then nearer by c h.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.events.layered_readout import count_hits
from calograd.events.points import Points
from calograd.surrogate import Surrogate
from calograd.surrogate.plates.model import PlatesModel
from calograd.surrogate.plates.points import KnownLayers, PointStage
from calograd.surrogate.points.features import Features
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PlatesTraining
from calograd.training.data.plate_points import StackPoints, contexts_of_points, features_of_points, numbers_of_points
from calograd.training.data.plates import PlatesData, StackRows, layers_of
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Report, report_plate_points
from calograd.training.tasks.points_hits import GAIN, ROUNDS

State = TrainingState[PlatesModel]
SHRINK = 20.0
"""Showers that say that the factors on numbers and distances of points are the same for all."""
RADIUS_ROUNDS = 3
"""Rounds of generating showers and correcting R_E."""
SCATTER = 2.0
"""Energy at which a shower's R_E counts half, GeV."""
CHUNK = 500
"""Showers whose features are computed at once."""


class Guide(NamedTuple):
    """The teacher of the points of a student.

    Args:
        surrogate: the teacher.
        model: its weights.
        steps: its steps for every step of the student, of features and of points.
    """

    surrogate: Surrogate
    model: PlatesModel
    steps: tuple[int, int]


@dataclass
class PointPhases:
    """The phases of the second stage.

    Args:
        training: settings of the training.
        data: showers with their points.
        guide: teacher of a student; None for a diffusion model.
    """

    training: PlatesTraining
    data: PlatesData
    guide: Guide | None = None

    def phases(self, model: PlatesModel) -> tuple[Phase[PlatesModel], ...]:
        """Return the phases of a model, in order."""
        t, rate = self.training, self.training.learning_rate
        names = {
            name: parameters_below(model, *(f"points.{each}." for each in prefixes))
            for name, prefixes in (
                ("point quantiles", ("quantiles",)),
                ("feature location and scale", ("leads", "layer_location_scale")),
                ("features", ("layer_network",)), ("points", ("point_network",)),
            )
        }  # fmt: skip
        first, second, features, points = names
        steps = t.feature_location_scale_steps
        made = [
            Phase(first, monitored=False), Phase(second, monitored=False),
            Phase(features, t.feature_steps, names[features], self._feature_loss, t.ema, rate, monitored=False),
        ] if self.guide is not None else [
            Phase(first, steps, names[first], self._point_likelihood, 0.0, rate, monitored=False),
            Phase(
                second, steps, names[second], self._feature_likelihood, 0.0, rate, monitored=False,
                before=self._make_tables,
            ),
            Phase(
                features, t.feature_steps, names[features], self._feature_loss, t.ema, rate, monitored=False,
                before=self._make_leads_normal,
            ),
        ]  # fmt: skip
        made += [
            Phase(points, t.point_steps, names[points], self._point_loss, t.ema, rate),
        ]  # fmt: skip
        last = Phase("hits", before=self._fit_hits), Phase("radii", before=self._fit_radii)
        return (*made, *last) if t.hit_showers else tuple(made)

    def report(self, state: State) -> Report:
        """Return validation losses and physics of the points."""
        return report_plate_points(state.ema, self.data, self._feature_loss_of, self._point_loss_of)

    @cached_property
    def _points(self) -> StackPoints:
        points = self.data.train_points
        assert points is not None
        return points

    def _drawn(self, state: State, batch: int) -> tuple[Tensor, KnownLayers, RandomNumbers]:
        """Return numbers of random training showers, their layers, and random numbers for more."""
        chosen = torch.randint(len(self.data.train), (batch,), generator=state.generator)
        random = RandomNumbers.from_generator(state.generator, batch)
        with torch.no_grad():
            layers = layers_of(state.model, self.data, _on_device(self.data.train.at(chosen), state.model), random)
        return chosen, layers, random

    def _point_likelihood(self, state: State) -> Tensor:
        """Return the negative log likelihood of the points of random showers."""
        chosen, layers, _ = self._drawn(state, self.training.point_batch)
        stage = stage_of(state.model)
        points = self._points.rows(chosen).to(stage.unit.device)
        numbers, _, place = numbers_of_points(stage, points, layers)
        return stage.point_likelihood(numbers, layers, place).mean()

    def _make_tables(self, state: State) -> None:
        """Fit the tables of the points, and set where the numbers of showers and layers begin."""
        data, points, seed, parts = self.data, self._points, self.training.seed, list[Tensor]()
        model = state.model
        stage, other = stage_of(model), stage_of(state.ema)
        with torch.no_grad():
            for rows in _chunks(len(data.train)):
                layers = self._layers(model, rows)
                numbers, _, place = numbers_of_points(stage, points.rows(rows).to(stage.unit.device), layers)
                parts.append(stage.standardise_points(numbers, layers, place).cpu())
            stage.fit_tables(torch.cat(parts))
            features, encoded = self._features_by(model), list[tuple[Tensor, Tensor, Tensor]]()
            for rows in _chunks(len(data.train)):
                layers = self._layers(model, rows)
                own = trimmed(features.at(rows).to(stage.unit.device), layers)
                leads, numbers = stage.encode(own, layers, RandomNumbers(seed, rows.numpy()))
                filled = layers.visible > 0
                local = stage.local_features(own, layers)[filled]
                encoded.append((leads, numbers.transpose(1, 2)[filled], local))
            stage.start_from(*(torch.cat(column) for column in zip(*encoded, strict=True)))
            other.load_state_dict(stage.state_dict())

    def _layers(self, model: PlatesModel, rows: Tensor) -> KnownLayers:
        """Return what is known of the layers of training showers, with random numbers of their own."""
        random = RandomNumbers(self.training.seed, rows.numpy())
        return layers_of(model, self.data, _on_device(self.data.train.at(rows), model), random)

    def _features_by(self, model: PlatesModel) -> Features:
        """Return the features of all training showers, by the tables of a model."""
        most, parts = self.data.train.thickness.shape[1], list[Features]()
        stage = stage_of(model)
        with torch.no_grad():
            for rows in _chunks(len(self.data.train)):
                layers = self._layers(model, rows)
                points = self._points.rows(rows).to(stage.unit.device)
                parts.append(padded(features_of_points(stage, points, layers), most))
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return Features(*(torch.cat(column).cpu() for column in columns))

    def _features(self, state: State) -> Features:
        """Return the features of all training showers; location and scale of points are learnt before."""
        if self._kept is None:
            self._kept = self._features_by(state.ema)
        return self._kept

    _kept: Features | None = None

    def _feature_likelihood(self, state: State) -> Tensor:
        """Return the negative log likelihood of leads and layers' numbers of random showers."""
        chosen, layers, random = self._drawn(state, self.training.location_scale_batch)
        stage = stage_of(state.model)
        features = trimmed(self._features(state).at(chosen).to(stage.unit.device), layers)
        return stage.location_scale_loss(features, layers, random)

    def _make_leads_normal(self, state: State) -> None:
        """Fit the tables of the leads, which make them unit normal."""
        stage, parts = stage_of(state.model), list[Tensor]()
        features = self._features(state)
        with torch.no_grad():
            for rows in _chunks(len(self.data.train)):
                layers = self._layers(state.model, rows)
                own = trimmed(features.at(rows).to(stage.unit.device), layers)
                leads, _ = stage.encode(own, layers, RandomNumbers(self.training.seed, rows.numpy()))
                parts.append(stage.leads.standardise(leads, layers.common))
            for each in (stage, stage_of(state.ema)):
                each.leads.tables.fit(torch.cat(parts))

    def _feature_loss(self, state: State) -> Tensor:
        """Return the denoising loss of the layers' numbers of random showers."""
        chosen, layers, random = self._drawn(state, self.training.location_scale_batch)
        stage = stage_of(state.model)
        features = trimmed(self._features(state).at(chosen).to(stage.unit.device), layers)
        return self._feature_loss_of(stage, features, layers, random).mean()

    def _feature_loss_of(
        self, stage: PointStage, features: Features, layers: KnownLayers, random: RandomNumbers
    ) -> Tensor:  # fmt: skip
        """Return the loss of the layers' numbers, one a shower, shape (n,)."""
        if self.guide is None:
            return stage.feature_loss(features, layers, random)
        return stage.feature_distillation_loss(
            stage_of(self.guide.model), self.guide.steps[0], features, layers, random
        )

    def _point_loss(self, state: State) -> Tensor:
        """Return the denoising loss of the points of random showers."""
        chosen, layers, _ = self._drawn(state, self.training.point_batch)
        stage = stage_of(state.model)
        features = trimmed(self._features(state).at(chosen).to(stage.unit.device), layers)
        points = self._points.rows(chosen).to(stage.unit.device)
        return self._point_loss_of(stage, points, features, layers, state.generator).mean()

    def _point_loss_of(
        self, stage: PointStage, points: StackPoints, features: Features, layers: KnownLayers,
        generator: torch.Generator,
    ) -> Tensor:  # fmt: skip
        """Return the loss of the points of showers, shape (points,)."""
        z, context, group = contexts_of_points(stage, points, features, layers)
        random = RandomNumbers.from_generator(generator, len(z))
        if self.guide is None:
            return stage.point_loss(z, context, group, random)
        teacher = stage_of(self.guide.model)
        return stage.point_distillation_loss(teacher, self.guide.steps[1], z, context, group, random)

    def _fit_hits(self, state: State) -> None:
        """Match the averaged weights' numbers of hits to those of training showers."""
        stage = stage_of(state.ema)
        stage.more_points.zero_()
        chosen = self._chosen(state)
        hits = self._points.hits[chosen].numpy()
        for _ in range(ROUNDS):
            made, terms, _ = self._made(state, chosen, lambda points: count_hits(points.numpy("surrogate", {})))
            found = hit_difference(made, hits, terms)
            stage.more_points -= torch.from_numpy(found).to(stage.more_points) / GAIN
        stage_of(state.model).more_points.copy_(stage.more_points)

    def _fit_radii(self, state: State) -> None:
        """Match the averaged weights' R_E to those of training showers, of other ones in every round."""
        stage = stage_of(state.ema)
        stage.farther.zero_()
        for _ in range(RADIUS_ROUNDS):
            chosen = self._chosen(state)
            known = self._points.rows(chosen)
            radii = rms_radius(known.x, known.y, known.e, known.offsets)
            made, terms, energy = self._made(
                state, chosen, lambda points: rms_radius(points.x, points.y, points.e, points.offsets)
            )
            found = radius_difference(made, radii, terms, energy)
            stage.farther -= torch.from_numpy(found).to(stage.farther)
        stage_of(state.model).farther.copy_(stage.farther)

    def _chosen(self, state: State) -> Tensor:
        """Return the numbers of random training showers to match to."""
        return torch.randint(len(self.data.train), (self.training.hit_showers,), generator=state.generator)

    def _made(
        self, state: State, chosen: Tensor, measure: Callable[[Points], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a measure of points generated in the layers of training showers, their terms, and energies in GeV."""
        random, rows = RandomNumbers.from_generator(state.generator, len(chosen)), self.data.train
        parts, done = [], 0
        for part in _parts(chosen):
            mine = random.rows(slice(done, done + len(part)))
            done += len(part)
            points, layers = points_in_layers(state.ema, self.data, rows.at(part), mine)
            terms = stage_of(state.ema).terms(layers).cpu().numpy()
            parts.append((measure(points), terms, layers.energy.cpu().numpy()))
        made, terms, energy = (np.concatenate(column) for column in zip(*parts, strict=True))
        return made, terms, energy


def stage_of(model: PlatesModel) -> PointStage:
    """Return the second stage of a model that has one."""
    assert model.points is not None
    return model.points


def hit_difference(made: np.ndarray, known: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Return c of the formulas above, shape (terms,).

    All but that of the first term, which is one, are drawn to zero as if `SHRINK` showers said so: few showers do not
    tell what every term does.

    Args:
        made, known: hits of generated and of Geant4's showers, shape (n,).
        terms: h, shape (n, terms).
    """
    filled = (made > 0) & (known > 0)
    return _least_squares(np.log(made[filled]) - np.log(known[filled]), terms[filled], np.ones(filled.sum()))


def radius_difference(made: np.ndarray, known: np.ndarray, terms: np.ndarray, energy: np.ndarray) -> np.ndarray:
    """Return c of the formulas above for R_E, shape (terms,); arguments as of `hit_difference`, energy in GeV."""
    filled = (made > 0) & (known > 0)
    made, known, terms, energy = made[filled], known[filled], terms[filled], energy[filled]
    weight = energy / (energy + SCATTER)
    usual = np.exp(terms @ _least_squares(np.log(known), terms, weight))
    return _least_squares((made - known) / usual, terms, weight)


def _least_squares(values: np.ndarray, terms: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the coefficients of terms, those but for the first drawn to zero as if `SHRINK` rows said so."""
    h = terms.astype(np.float64)
    shrink = SHRINK * np.eye(h.shape[1])
    shrink[0, 0] = 0
    solution: np.ndarray = np.linalg.solve(h.T @ (weight[:, None] * h) + shrink, h.T @ (weight * values))
    return solution


def rms_radius(x: Tensor, y: Tensor, e: Tensor, offsets: Tensor) -> np.ndarray:
    """Return R_E of showers, shape (n,), cm, of their points and offsets: rms distance from the centre of gravity."""
    owner, n = torch.repeat_interleave(offsets.diff()), len(offsets) - 1
    x, y, e = x.double(), y.double(), e.double()
    columns = torch.stack([e, e * x, e * y, e * (x.square() + y.square())])
    total, first, second, square = columns.new_zeros(4, n).index_add(1, owner, columns)
    total = total.clamp(min=1e-12)
    variance = square / total - (first / total).square() - (second / total).square()
    return np.asarray(variance.clamp(min=0).sqrt().cpu().numpy())


@torch.no_grad()
def points_in_layers(
    model: PlatesModel, data: PlatesData, rows: StackRows, random: RandomNumbers
) -> tuple[Points, KnownLayers]:  # fmt: skip
    """Return points that a model generates in the energies that the layers of showers have, and these layers."""
    layers = layers_of(model, data, _on_device(rows, model), random)
    sampler, steps = model.architecture.point_sampling()
    absorber = torch.zeros_like(layers.visible)
    return stage_of(model).generate(layers, absorber, sampler, steps, False, random), layers


def trimmed(features: Features, layers: KnownLayers) -> Features:
    """Return the features of as many layers as are known."""
    here = layers.present.shape[1]
    count, energy, mean, core, centre = vars(features).values()
    return Features(count[:, :here], energy[:, :here], mean[:, :here], core[:, :here], centre)


def padded(features: Features, layers: int) -> Features:
    """Return the features among those of more layers, which are empty."""
    *columns, centre = vars(features).values()
    count, energy, mean, core = (pad(values, (0, layers - values.shape[1])) for values in columns)
    return Features(count, energy, mean, core, centre)


def _chunks(n: int) -> Sequence[Tensor]:
    """Return the numbers of n showers, some at a time."""
    return _parts(torch.arange(n))


def _parts(chosen: Tensor) -> Sequence[Tensor]:
    return torch.split(chosen, CHUNK)


def _on_device(rows: StackRows, model: PlatesModel) -> StackRows:
    return rows.to(model.condition_mean.device)
