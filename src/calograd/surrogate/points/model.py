"""The cloud surrogate: a shower's points in a layered detector given its energy.

Two diffusion models in a row on the coordinates of `calograd.surrogate.points.features`:

    shower   6 leads           one after the other given ln E, exactly         (`calograd.nn.flows`)
             4 L + 2 numbers   g <-> f given ln E and the leads, f <-> x        x from diffusion given both
    points   2 numbers each    (r, e) <-> z by tables of quantiles              z from diffusion given features

The depth at which a shower begins changes all of its layers at once, and not linearly. Given the leads (mean layer and
its variance, E_vis, the number of points, two means of the distances) the layers' numbers scatter half as much. Linear
correlations are removed as well (`calograd.nn.flows`), so x is nearly unit normal and samplers of few steps keep its
spread. Numbers are held between the least and largest of the training.

The points of a layer are independent given its number and features: ln E, the counts and energies of the layer and of
its neighbours, and its means of z_r. Both are close to unit normal before any network has seen them. Points then get
the features of their shower, by one operation on groups each:

    z_r   shifted, and stretched by sqrt(N / (N - 1)), to have the layer's mean m_l
    e     tilted by exp(lambda z_r) to have the weighted mean m_l + d_l, by Newton's method, and scaled to E_l
    x, y  moved by a r / (1 + r / 2 cm), a of the shower, to have its centre of gravity c

Independent points hit a little more or fewer cells than Geant4's, which are not quite independent: counts are
multiplied by exp(k_0 + k_1 s), s standardised ln E, fitted to the hits of the training showers
(`calograd.training.tasks.points_hits`).

Stretching restores the part of the spread that goes into the mean of N points. Points are moved in proportion to the
distance r, which leaves the core in place. Farther out all are moved alike, or else soft points that no cell reads out
would carry the centre.

A distilled surrogate has consistency models in place of both (`calograd.diffusion.consistency`), smaller networks that
go from noise to numbers in one evaluation each (`calograd.nn.mlp`, `calograd.nn.point_networks`). The points'
is one at every noise level, the shower's is learnt at the highest alone. Its numbers y have too little spread;
x = M y + u has the teacher's mean and covariance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.detector.particles import Particles
from calograd.diffusion.consistency import CONSISTENCY, consistency, noise_grid, run_sampler
from calograd.diffusion.denoisers import PRECONDITIONINGS, Network, Preconditioning, loss
from calograd.diffusion.samplers import SAMPLERS, DrawNoise, Sampler
from calograd.diffusion.schedules import SCHEDULES
from calograd.errors import InputError
from calograd.events.point_showers import LAYERS, PointShowers
from calograd.events.points import Points
from calograd.nn.flows import AutoregressiveFlow, Gaussianise
from calograd.nn.linear import linear
from calograd.nn.location_scale import ConditionalLocationScale
from calograd.nn.mlp import ResidualMlp, VectorMap
from calograd.nn.point_networks import PointMap, PointNet
from calograd.surrogate.model import Architecture, Generates, Model, Rows, SamplingSchedule
from calograd.surrogate.points.features import KNOTS, LEADS, VISIBLE, Features, decode, dim_of, from_normal, leads_of
from calograd.surrogate.points.features import encode as numbers_of_showers
from calograd.surrogate.points.fused import FusedPoints
from calograd.surrogate.points.moment_matching import Drawn, matched
from calograd.system.random_numbers import RandomNumbers

CONDITIONS = 1
"""Number of conditions: ln E."""
POINT_FEATURES = 2
"""Number of features of a point: z_r and z_e."""
LOCAL = 9
"""Number of features of a layer beside its number."""
SHOWER_SCHEDULE = "karras"
"""Noise schedule of the shower's network."""
SHOWER_SAMPLER = "trigflow-ab2"
"""Sampler of the shower's network."""


@dataclass(frozen=True)
class PointsArchitecture(Architecture):
    """Everything that fixes the shapes of the weights of points and how they are sampled.

    Args:
        layers: number of layers of the detector.
        shower_width: hidden numbers of the shower's network.
        shower_blocks: residual blocks of the shower's network; hidden layers if it is distilled.
        point_width: hidden numbers of the points' network.
        point_blocks: residual blocks of the points' network; a distilled one has one hidden layer and no blocks.
        embedding: width of the embedding of noise level and conditions.
        location_scale_width: hidden numbers of the network of location and scale.
        schedule: noise schedule of the points, a name of `calograd.diffusion.schedules.SCHEDULES`.
        preconditioning: preconditioning of the points, a name of `calograd.diffusion.denoisers.PRECONDITIONINGS`.
        sampler: sampler of the points, a name of `calograd.diffusion.samplers.SAMPLERS`; ``consistency`` if distilled.
        steps: number of steps of that sampler.
        shower_steps: number of steps of the shower's sampler, which is ``consistency`` if that of the points is.
    """

    layers: int = LAYERS
    shower_width: int = 128
    shower_blocks: int = 2
    point_width: int = 64
    point_blocks: int = 2
    embedding: int = 96
    location_scale_width: int = 128
    schedule: str = "karras"
    preconditioning: str = "edm"
    sampler: str = "trigflow-ab2"
    steps: int = 12
    shower_steps: int = 12

    @property
    def distilled(self) -> bool:
        """True if both networks are consistency models."""
        return self.sampler == "consistency"

    def build(self) -> PointsModel:
        """Return a model with random weights."""
        return PointsModel(self)


class PointsModel(Model):
    """Weights and mathematics of the cloud surrogate; `calograd.surrogate.Surrogate` is its public face."""

    architecture: PointsArchitecture

    def __init__(self, architecture: PointsArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        dim = dim_of(a.layers)
        for name, size in (("condition", (CONDITIONS,)), ("local", (LOCAL,))):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.register_buffer("unit", torch.tensor(1e-4))
        self.register_buffer("distance_table", torch.linspace(-4.0, 2.0, KNOTS).repeat(a.layers, 1))
        self.register_buffer("energy_table", torch.linspace(-16.0, -6.0, KNOTS).repeat(a.layers, 1))
        self.local_mean: Tensor
        self.local_scale: Tensor
        self.unit: Tensor
        self.distance_table: Tensor
        self.energy_table: Tensor
        self.register_buffer("numbers", torch.eye(a.layers), persistent=False)  # of the layers
        self.numbers: Tensor
        symmetry_class = torch.arange(dim)
        symmetry_class[-1] = symmetry_class[-2]  # x and y of the centre
        for name, value in (("least", -1e30), ("largest", 1e30)):
            self.register_buffer(name, torch.full((dim,), value))
        self.register_buffer("more_points", torch.zeros(1 + CONDITIONS))
        self.least: Tensor
        self.largest: Tensor
        self.more_points: Tensor
        given = CONDITIONS + LEADS
        self.shower_leads = AutoregressiveFlow(LEADS, CONDITIONS, a.location_scale_width // 2)
        self.shower_location_scale = ConditionalLocationScale(given, symmetry_class, a.location_scale_width)
        self.shower_normal = Gaussianise(dim)
        self.shower_network: VectorMap | ResidualMlp = (
            VectorMap(dim, given, a.shower_width, a.shower_blocks) if a.distilled
            else ResidualMlp(dim, given, 0, a.shower_width, a.shower_blocks, a.embedding)
        )  # fmt: skip
        self.shower_correction = identity(dim) if a.distilled else None
        self.point_network: PointMap | PointNet = (
            PointMap(POINT_FEATURES, LOCAL + a.layers, a.point_width, a.embedding) if a.distilled
            else PointNet(POINT_FEATURES, LOCAL + a.layers, a.point_width, a.point_blocks, a.embedding)
        )  # fmt: skip

    @property
    def preconditioning(self) -> Preconditioning:
        """Preconditioning of the points' network."""
        a = self.architecture
        return consistency(a.schedule) if a.distilled else PRECONDITIONINGS[a.preconditioning]

    @property
    def shower_preconditioning(self) -> Preconditioning:
        """Preconditioning of the shower's network."""
        return consistency(SHOWER_SCHEDULE) if self.architecture.distilled else PRECONDITIONINGS["edm"]

    @property
    def batch_size(self) -> int:
        """Showers generated at once: so few that their points stay in the processor's cache."""
        return 16

    @property
    def options(self) -> frozenset[str]:
        """Names of the options: smooth samples."""
        return frozenset({"smooth"})

    @property
    def distilled(self) -> bool:
        """True if both networks are consistency models."""
        return self.architecture.distilled

    def fused(self) -> Generates:
        """Return the fused form of a distilled model, see `calograd.surrogate.points.fused`."""
        return FusedPoints(self) if self.distilled else self

    def join(self, parts: Sequence[Points]) -> Points:
        """Return showers of several batches as one."""
        return Points.concatenate(parts)

    def record(self, showers: Points, rows: Rows, name: str, config: dict[str, Any]) -> PointShowers:  # noqa: ARG002
        """Return showers as the record of a points file, see `Model`."""
        return showers.numpy(name, config)

    def asymmetric(self) -> Self:
        """Return the model: it has no weights that are equal by symmetry."""
        return self

    def compact(self, material: Material | None) -> Self:  # noqa: ARG002 - nothing to leave out
        """Return the model: no weights of it can be left out."""
        return self

    def sampling_schedule(self, sampler: str | None = None, steps: int | None = None) -> SamplingSchedule:
        """Return how points are sampled, see `Model`."""
        a = self.architecture
        name = sampler or a.sampler
        known = ("consistency",) if a.distilled else tuple(SAMPLERS)
        if name not in known:
            what = "distilled: its" if a.distilled else "not distilled: its"
            raise InputError(f"sampler '{name}' cannot be used, the model is {what} samplers are {', '.join(known)}")
        found = _sampler(name)
        number = (a.steps if name == a.sampler else found.steps) if steps is None else steps
        if number < 1:
            raise InputError(f"{number} steps of '{name}': expected at least 1")
        return SamplingSchedule(name, number, found.nfe(number))

    def condition(
        self,
        design: Design | None,  # noqa: ARG002 - of one detector
        energy: Tensor,
        particles: Particles | None = None,  # noqa: ARG002 - of one beam
    ) -> Tensor:
        """Return standardised conditions, see `Model`."""
        return self.conditions(energy)

    def conditions(self, energy: Tensor) -> Tensor:
        """Return standardised conditions of incident energies (n,) in GeV, shape (n, 1)."""
        return (energy.log()[:, None] - self.condition_mean) / self.condition_scale

    def context(self, features: Features, energy: Tensor) -> Tensor:
        """Return the conditions of the points of every layer, shape (n, layers, `LOCAL` + layers), standardised."""
        raw = self.local_features(features, energy)
        standardised = (raw - self.local_mean) / self.local_scale
        return torch.cat([standardised, self.numbers.expand(len(raw), -1, -1)], dim=2)

    def local_features(self, features: Features, energy: Tensor) -> Tensor:
        """Return features of layers beside their number, shape (n, layers, `LOCAL`), not standardised."""
        return local_features(features, energy, self.unit)

    def standardise(self, features: Features, energy: Tensor, random: RandomNumbers) -> Tensor:
        """Return x of showers, shape (n, `LEADS` + dim): unit normal leads, then the numbers to be learnt."""
        u, f = self.scaled(features, energy, random)
        return torch.cat([self.shower_leads.tables(u), self.shower_normal(f)], dim=1)

    def scaled(self, features: Features, energy: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return u of the leads, shape (n, `LEADS`), and f of the other numbers, shape (n, dim), all standardised."""
        known = self.conditions(energy)
        u = self.shower_leads.standardise(leads_of(features, energy, self.unit), known)
        g = self.encode(features, random)
        return u, self.shower_location_scale.standardise(g, torch.cat([known, u], dim=1))

    def features_of(self, x: Tensor, energy: Tensor, smooth: bool = False) -> Features:
        """Return features from x (n, `LEADS` + dim) and incident energies (n,), GeV; inverse of `standardise`."""
        return self._features_of(x[:, :LEADS], x[:, LEADS:], self.conditions(energy), energy, smooth)

    def _features_of(self, first: Tensor, x: Tensor, known: Tensor, energy: Tensor, smooth: bool) -> Features:
        """Return the same from the leads and the rest, apart, and standardised conditions."""
        u = self.shower_leads.tables.inverse(first)
        visible = self.shower_leads.restore(u, known, slice(VISIBLE, VISIBLE + 1))
        g = self.shower_location_scale.restore(self.shower_normal.inverse(x), torch.cat([known, u], dim=1))
        g = torch.minimum(torch.maximum(g, self.least), self.largest)
        more = (self.more_points[0] + known @ self.more_points[1:, None]).exp()
        return decode(g, energy[:, None] * visible.exp(), self.unit, self.architecture.layers, smooth, more)

    def location_scale_loss(self, features: Features, energy: Tensor, random: RandomNumbers) -> Tensor:
        """Return the negative log-likelihood of the showers' numbers, up to a constant, shape (n, `LEADS` + dim)."""
        known = self.conditions(energy)
        leads, u = self.shower_leads.negative_log_likelihood(leads_of(features, energy, self.unit), known)
        g = self.encode(features, random)
        others = self.shower_location_scale.negative_log_likelihood(g, torch.cat([known, u], dim=1))
        return torch.cat([leads, others], dim=1)

    def encode(self, features: Features, random: RandomNumbers) -> Tensor:
        """Return the numbers of showers beside their leads, each shower turned by a random angle about the axis."""
        g = numbers_of_showers(features, self.unit, random)
        turn = 2 * torch.pi * random.fractions(like=g)
        (x, y), sin, cos = g[:, -2:].T, turn.sin(), turn.cos()
        return torch.cat([g[:, :-2], torch.stack([x * cos - y * sin, x * sin + y * cos], dim=1)], dim=1)

    def shower_loss(self, x: Tensor, energy: Tensor, random: RandomNumbers) -> Tensor:
        """Return the denoising loss of showers, shape (n,)."""
        sigma = SCHEDULES[SHOWER_SCHEDULE].draw(random, like=x)
        network = self.shower_at(self.conditions(energy), x[:, :LEADS])
        return loss(network, self.shower_preconditioning, x[:, LEADS:], sigma, random).mean(1)

    def point_loss(self, z: Tensor, context: Tensor, group: Tensor, random: RandomNumbers) -> Tensor:
        """Return the denoising loss of points (points, 2), every one of its own group, shape (points,).

        The noise level is one for all points of a group (`calograd.nn.point_networks`); ``group`` is in order, and
        ``random`` has a row for every point.
        """
        level = SCHEDULES[self.architecture.schedule].draw(random, like=z)[: len(context)]
        return loss(self.points_at(context, group), self.preconditioning, z, level[group], random).mean(1)

    def shower_at(self, known: Tensor, leads: Tensor) -> Network:
        """Return the shower's network with its conditions bound: those of `conditions` and unit normal leads."""
        conditions, network = torch.cat([known, leads], dim=1), self.shower_network

        def bound(scaled: Tensor, noise: Tensor) -> Tensor:
            known = (conditions,) if isinstance(network, VectorMap) else (noise, conditions)
            result: Tensor = network(scaled, *known)
            return result

        return bound

    def corrected(self, x: Tensor) -> Tensor:
        """Return x from the output of the shower's network, shape (n, dim): M y + u for a distilled surrogate."""
        return x if self.shower_correction is None else linear(self.shower_correction, x)

    def points_at(self, context: Tensor, group: Tensor) -> Network:
        """Return the points' network with its conditions bound; noise levels come one a point and go in one a group.

        Args:
            context: result of `context`, shape (groups, `LOCAL` + layers).
            group: index of every point's group, in order, shape (points,), int64.
        """

        def bound(scaled: Tensor, noise: Tensor) -> Tensor:
            if len(noise) > 1:
                first = torch.searchsorted(group, torch.arange(len(context), device=group.device))
                noise = noise[first.clamp(max=len(group) - 1)]
            result: Tensor = self.point_network(scaled, noise, context, group)
            return result

        return bound

    def generate_features(
        self, conditions: Tensor, energy: Tensor, random: RandomNumbers, smooth: bool = False
    ) -> Features:
        """Generate features of showers of incident energies (n,), GeV, and their standardised conditions (n, 1)."""
        a = self.architecture
        sampler = CONSISTENCY if a.distilled else SAMPLERS[SHOWER_SAMPLER]
        noise = random.normal(LEADS + dim_of(a.layers), like=energy)
        leads, levels = noise[:, :LEADS], noise_grid(sampler, SHOWER_SCHEDULE, a.shower_steps)
        network = self.shower_at(conditions, leads)
        x = run_sampler(network, self.shower_preconditioning, noise[:, LEADS:], levels, sampler, random.normal_like)
        return self._features_of(leads, self.corrected(x), conditions, energy, smooth)

    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Points:
        """Generate showers, see `Model`."""
        conditions, energy = conditions.expand(len(random), -1), energy.expand(len(random))
        features = self.generate_features(conditions, energy, random, schedule.options.smooth)
        return self.fill(features, energy, schedule, random)

    def fill(self, features: Features, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Points:
        """Generate the points of showers with given features; arguments as of `generate`."""

        def z_of(drawn: Drawn, filled: Tensor) -> Tensor:
            context = self.context(features, energy).flatten(0, 1).index_select(0, filled)

            def draw_noise(like: Tensor) -> Tensor:
                return random.normal_points(drawn.shower, drawn.place, like.shape[1], like=like)

            return self._points_from(drawn.noise, context, drawn.groups.of, draw_noise, schedule)

        return self.match_moments(features, energy, random, schedule.options.smooth, z_of)

    def match_moments(
        self,
        features: Features,
        energy: Tensor,
        random: RandomNumbers,
        smooth: bool,
        z_of: Callable[[Drawn, Tensor], Tensor],
    ) -> Points:
        """Generate points and give every layer and shower the moments of its features.

        Args:
            features: features of the showers.
            energy: incident, shape (n,), GeV.
            random: random numbers of the showers.
            smooth: give the last point of every layer a fractional weight.
            z_of: returns z of points, shape (points, `POINT_FEATURES`), from their random numbers and from the layers
                that have any, shape (groups,), among those of all showers, one after the other.
        """
        table = torch.stack([self.distance_table, self.energy_table])
        layers = self.architecture.layers

        def polar(z: Tensor, drawn: Drawn, filled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            r, e = from_normal(z, drawn.groups.spread(filled % layers), table).exp().unbind()
            return r, e, drawn.angle

        made = matched(features, random, smooth, POINT_FEATURES, z_of, polar)
        offsets = pad(made.groups.counts.cumsum(0), (1, 0))
        return Points(made.x, made.y, made.layer, made.e, offsets, energy, layers)

    def _points_from(
        self, noise: Tensor, context: Tensor, group: Tensor, draw: DrawNoise, schedule: SamplingSchedule
    ) -> Tensor:
        """Return z of points from noise."""
        sampler = _sampler(schedule.sampler)
        levels = noise_grid(sampler, self.architecture.schedule, schedule.steps)
        return run_sampler(self.points_at(context, group), self.preconditioning, noise, levels, sampler, draw)


def _sampler(name: str) -> Sampler:
    return CONSISTENCY if name == "consistency" else SAMPLERS[name]


def identity(dim: int) -> nn.Linear:
    """Return a linear layer that begins as the identity."""
    layer = nn.Linear(dim, dim)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def local_features(features: Features, energy: Tensor, unit: Tensor) -> Tensor:
    """Return features of layers beside their number, shape (n, layers, `LOCAL`), not standardised.

    ln E; ln (N + 1) of the layer and of the two beside it; ln of its mean energy of a point; m, and that of the two
    beside it; d.
    """
    n, m = features.count.log1p(), features.mean
    per_point = (features.energy / unit).log1p() - n
    beside = pad(torch.stack([n, m]), (1, 1))  # zero beyond the ends
    (n_before, m_before), (n_behind, m_behind) = beside[..., :-2], beside[..., 2:]
    incident = energy.log()[:, None].expand_as(n)
    return torch.stack([incident, n, n_before, n_behind, per_point, m, m_before, m_behind, features.core], dim=2)
