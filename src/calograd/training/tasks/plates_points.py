"""Training of the second stage of a surrogate of plates: points in the active plates, see `PointStage`.

    phase "point quantiles"              likelihood of a point's distance and energy given its layer
    phase "feature location and scale"   Student t likelihood of leads and layers' numbers; tables before
    phase "features"                     denoising loss of the layers' numbers
    phase "points"                       denoising loss of z, all points of some showers a step, no padding
    phase "numbers and distances"        numbers of hits and R_E matched to those of the data; no steps

A student has its teacher's tables and quantiles, so the phases before "features" are empty, and the losses of both
networks are those of a distillation (`calograd.diffusion.progressive`).

Numbers of hits and R_E are matched where everything but the points is Geant4's: with a measure H of a training shower,
G of points generated in the layers' energies of that shower, and M a fit of ln H, the factor on numbers of points, or
on distances of far ones, is to make d = (G - H) / e^M zero in the mean, in all directions of h of `PointStage.terms`.
So means are right and not those of logarithms, which differ where generated showers scatter more. A factor exp(c h)
changes d by g c h, g near one. After some showers were generated with the factors c', least squares in
c h = c' h - d / g give the next c, of all showers so far, so that what one shower says counts once. Showers count by
E / (E + `SCATTER`), since those of low energies scatter. The first showers, whose factors were far off, are generated
again. Then the factors are corrected in the same way from the incident particle on, with generated layers, whose
errors move R_E and hits as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from calograd.surrogate.plates.points import KnownLayers, PointSizes, PointStage
from calograd.surrogate.points.features import Features
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PlatesTraining
from calograd.training.data.plate_points import StackPoints, contexts_of_points, features_of_points, numbers_of_points
from calograd.training.data.plates import PlatesData, StackRows, layers_of
from calograd.training.loop import Phase, TrainingState, parameters_below
from calograd.training.monitor import Report, report_plate_points

State = TrainingState[PlatesModel]
SHRINK = 100.0
"""Showers that say that the factors on numbers and distances of points are the same for all."""
HIT_SHRINK, RADIUS_SHRINK = 200.0, 4000.0
"""Showers that say that the one and the other are linear in the conditions."""
FIRST_ROUNDS = 2
"""Rounds after which the showers so far are forgotten."""
FIRST_SHOWERS = 2000
"""Showers of each of them."""
ROUNDS = 6
"""Rounds into which all showers are divided; two of them are enough before those with generated layers."""
HIT_GAIN = 0.9
"""Approximate d ln H / d ln N, of hits H with the number of points N."""
SCATTER = 2.0
"""Energy at which a shower counts half, GeV."""
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
        last = Phase("numbers and distances", before=self._match)
        if t.only_match:
            return (last,)
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
        return (*made, last) if t.match_showers else tuple(made)

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

    def _match(self, state: State) -> None:
        """Match the averaged weights' numbers of hits and R_E to those of training showers."""
        order = torch.randperm(len(self.data.train), generator=state.generator)[: self.training.match_showers]
        stages, rounds = [stage_of(state.ema), stage_of(state.model)], order.chunk(ROUNDS)
        stages[0].more_points.zero_()
        stages[0].farther.zero_()
        self._match_from(state, (*FIRST_ROUNDS * [order[:FIRST_SHOWERS]], *rounds[:2]), generated=False)
        self._match_from(state, rounds, generated=True)
        for name in ("more_points", "farther"):
            getattr(stages[1], name).copy_(getattr(stages[0], name))

    def _match_from(self, state: State, rounds: Sequence[Tensor], generated: bool) -> None:
        """Correct the factors on numbers and distances of points as they are.

        Args:
            state: state of the training.
            rounds: showers of every round.
            generated: points are those of generated layers, not of Geant4's.
        """
        stage = stage_of(state.ema)
        shrink = [shrink_of(stage.sizes, showers) for showers in (HIT_SHRINK, RADIUS_SHRINK)]
        hits, radii = MatchedFactor.none(shrink[0], HIT_GAIN), MatchedFactor.none(shrink[1])
        first = [each.double().cpu().numpy() for each in (stage.more_points, stage.farther)]
        for number, chosen in enumerate(rounds):
            made, known = self._made(state, chosen, generated), self._points.rows(chosen)
            if number <= FIRST_ROUNDS and not generated:
                hits, radii = hits.forgetful(), radii.forgetful()
            radius = rms_radius(known.x, known.y, known.e, known.offsets)
            alike = made.terms, made.energy
            hits = hits.after(*relative_differences(made.hits, known.hits.numpy(), *alike, shrink[0]))
            radii = radii.after(*relative_differences(made.radius, radius, *alike, shrink[1]))
            for buffer, before, factor in zip((stage.more_points, stage.farther), first, (hits, radii), strict=True):
                buffer.copy_(torch.from_numpy(before + factor.coefficients))

    def _made(self, state: State, chosen: Tensor, generated: bool) -> MatchedShowers:
        """Return what points measure that are generated in the layers of training showers, or with layers of their own.

        With layers of their own showers have in common with the training showers what these are conditioned on alone,
        so the terms of what is drawn for the shower as a whole are zero.
        """
        random, rows = RandomNumbers.from_generator(state.generator, len(chosen)), self.data.train
        drawn = slice(1 + len(state.ema.condition_mean), 1 + stage_of(state.ema).sizes.known)
        parts, done = [], 0
        for part in _parts(chosen):
            mine = random.rows(slice(done, done + len(part)))
            done += len(part)
            points, layers = points_in_layers(state.ema, self.data, rows.at(part), mine, generated)
            hits = count_hits(points.numpy("surrogate", {}))
            radius = rms_radius(points.x, points.y, points.e, points.offsets)
            terms = stage_of(state.ema).terms(layers).cpu().numpy().astype(np.float64)
            if generated:
                terms[:, drawn] = 0
            parts.append(MatchedShowers(hits, radius, terms, layers.energy.cpu().numpy()))
        return MatchedShowers(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class MatchedShowers(NamedTuple):
    """Generated showers in the layers of training showers.

    Args:
        hits, radius: number of hits and R_E, cm, shape (n,).
        terms: h, see `PointStage.terms`, shape (n, terms).
        energy: incident, shape (n,), GeV.
    """

    hits: np.ndarray
    radius: np.ndarray
    terms: np.ndarray
    energy: np.ndarray


@dataclass(frozen=True)
class MatchedFactor:
    """The exponent c h of a factor that makes differences d vanish, by the least squares of the formulas above.

    Args:
        coefficients: c, shape (terms,).
        shrink: showers that say that each c is zero, shape (terms,): few do not tell what every term does.
        gain: g, approximate d(d) / d(c h).
        squares, products: sums of w h h and of w h (c h) over the showers, shapes (terms, terms) and (terms,).
    """

    coefficients: np.ndarray
    shrink: np.ndarray
    gain: float
    squares: np.ndarray
    products: np.ndarray

    @classmethod
    def none(cls, shrink: np.ndarray, gain: float = 1.0) -> MatchedFactor:
        """Return a factor of one, before any shower."""
        zero, zeros = np.zeros(len(shrink)), np.zeros((len(shrink), len(shrink)))
        return cls(zero, shrink, gain, zeros, zero)

    def forgetful(self) -> MatchedFactor:
        """Return the same factor without its showers."""
        return replace(self.none(self.shrink, self.gain), coefficients=self.coefficients)

    def after(self, differences: np.ndarray, terms: np.ndarray, weight: np.ndarray) -> MatchedFactor:
        """Return the factor after further showers, generated with this one.

        Args:
            differences: d, shape (n,).
            terms: h, shape (n, terms).
            weight: w, shape (n,).
        """
        squares = self.squares + terms.T @ (weight[:, None] * terms)
        wanted = terms @ self.coefficients - differences / self.gain
        products = self.products + terms.T @ (weight * wanted)
        found: np.ndarray = np.linalg.lstsq(squares + np.diag(self.shrink), products)[0]
        return replace(self, coefficients=found, squares=squares, products=products)


def shrink_of(sizes: PointSizes, products: float) -> np.ndarray:
    """Return showers that say that each term of a factor is zero, shape (terms,); ``products`` those of products."""
    shrink = np.full(sizes.terms, products)
    shrink[: sizes.linear_terms] = SHRINK
    shrink[0] = 0
    return shrink


def stage_of(model: PlatesModel) -> PointStage:
    """Return the second stage of a model that has one."""
    assert model.points is not None
    return model.points


def relative_differences(
    made: np.ndarray, known: np.ndarray, terms: np.ndarray, energy: np.ndarray, shrink: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return d, h and w of the showers that have any of a measure.

    Args:
        made, known: hits or R_E of generated and of Geant4's showers, shape (n,).
        terms: h, shape (n, terms).
        energy: incident, shape (n,), GeV.
        shrink: of the fit M, as of `MatchedFactor`.
    """
    filled = (made > 0) & (known > 0)
    made, known, terms, energy = made[filled], known[filled], terms[filled], energy[filled]
    weight = energy / (energy + SCATTER)
    fit = MatchedFactor.none(shrink).after(-np.log(known), terms, weight)
    return (made - known) / np.exp(terms @ fit.coefficients), terms, weight


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
    model: PlatesModel, data: PlatesData, rows: StackRows, random: RandomNumbers, generated: bool = False
) -> tuple[Points, KnownLayers]:  # fmt: skip
    """Return points that a model generates in the energies that the layers of showers have, and these layers.

    Args:
        model: a model with points.
        data: data that the showers are of.
        rows: showers.
        random: random numbers of the showers.
        generated: generate energies of the layers as well; the layers returned are those of the showers still.
    """
    rows = _on_device(rows, model)
    layers = layers_of(model, data, rows, random)
    if generated:
        made = model.generate(data.conditions(model, rows), rows.energy, model.sampling_schedule(), random)
        assert isinstance(made, Points)
        return made, layers
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
