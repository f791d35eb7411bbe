"""Points in the active plates of stacks: the second stage of the surrogate of plates, given the energies of its layers.

It is the mechanism of `calograd.surrogate.points` for stacks of any materials, thicknesses and numbers of layers. With
the Moliere radius R_k of layer k, of absorber and active plate together, and the energy i_k that a minimum ionising
particle loses in its active plate along the particle's line,

    point    ln(rho / R_k), ln(e / i_k)   rho from the particle's line, across it: plates cut a tilted shower obliquely
             z = (z_r, z_e, z_a)          z_r and z_e: made unit normal by a table of quantiles of all points, by
                                          quantiles given the layer (`calograd.nn.quantile_network`), and by a
                                          second table, which for z_r is one given z_e: points of much energy are
                                          near the line; z_a = Phi^-1(|a| / pi), a the azimuth from the tilt
    leads    ln(sum N_k / sum (V_k / e0 i_k)), the means of m_k and d_k weighted with V_k, centre of gravity / R
             u by an autoregressive flow given the shower                      (`calograd.nn.flows`)
    layers   q_k, m_k and d_k of `calograd.surrogate.points.features`, e0 i_k in place of e0
             y by location and scale given layer, shower and u, from diffusion (`calograd.nn.layer_network`)
    points   z from diffusion given layer, shower, and the features of the layer and its neighbours

Layers are known by the numbers of `calograd.surrogate.plates.model`, and by the energies V_k and A_k that its first
stage generates. The sign of a is drawn: a shower and its mirror image are equally probable. The points then get the
moments of their features (`calograd.surrogate.points.moment_matching`) but for d_k, for which energies of far points
would have to be multiplied; energies of a layer add up to V_k. The layers' N_k, m_k and d_k are scaled or shifted
before, to have the sum and the means of the leads.

Points of a shower are independent given the features, so they hit other numbers of cells than Geant4's, most of all
where a particle leaves about as much in a plate as a cell's threshold. Numbers of points are multiplied by exp(w h),
fitted to the hits of the training showers; h are 1, what is known of the shower as a whole, max(0, L - L_j), with L
the mean of ln(i_k / threshold) over the layers and L_j the numbers `HIT_KNOTS`, and the products of two of the
conditions `PointSizes.paired`. Few points are far from the line, and they make most of R_E; ln(rho / R_k) of those with
z_r > `FAR` is larger by (z_r - `FAR`) v h, v fitted to R_E.

A distilled stage has its teacher's tables, location and scale; its two diffusion networks take few steps each
(`calograd.diffusion.progressive`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.special import ndtr, ndtri

from calograd.detector.particles import Particles
from calograd.diffusion.denoisers import PRECONDITIONINGS, Network, Preconditioning, denoise, loss
from calograd.diffusion.progressive import Progressive, Teacher, distillation_loss, teacher_targets
from calograd.diffusion.samplers import SAMPLERS, Sampler, sample
from calograd.diffusion.schedules import SCHEDULES
from calograd.events.layered_readout import THRESHOLD
from calograd.events.points import Points
from calograd.events.ragged import blocks, offsets_of
from calograd.nn.flows import AutoregressiveFlow
from calograd.nn.layer_network import LayerNetwork
from calograd.nn.location_scale import ConditionalLocationScale, likelihood, restore, standardise
from calograd.nn.point_networks import PointNet
from calograd.nn.quantile_network import ConditionalQuantiles
from calograd.surrogate.plates.coordinates import Plates
from calograd.surrogate.points.features import (
    KNOTS,
    LAYER_NUMBERS,
    TAIL,
    Features,
    decode_count,
    decode_means,
    encode_layers,
    from_normal,
    quantile_table,
    to_normal,
)
from calograd.surrogate.points.moment_matching import Drawn, matched
from calograd.system.random_numbers import RandomNumbers

DIM = 3
"""Numbers of a point: z_r, z_e and z_a."""
TABLED = 2
"""Numbers of a point that have quantiles: z_r and z_e."""
QUANTILES = 17
"""Number of quantiles given the layer."""
GIVEN = 11
"""Values of z_e, evenly from -`GIVEN_END` to `GIVEN_END`, that have a table of z_r; it is straight between them."""
GIVEN_END = 2.5
"""Largest of them."""
LEADS = 5
"""Numbers of a shower as a whole, which those of its layers follow."""
SCALE_ENERGY = 0.0212
"""Energy E_s of the Moliere radius X0 E_s / E_c, GeV."""
NEAREST = 1e-3
"""Least distance from the axis, Moliere radii."""
EMPTY = 0.03
"""Softening of energies of layers, losses of a minimum ionising particle."""
OWN = 2
"""Features of a layer that its energies give: those of active plate and layer."""
LOCAL = 8
"""Features of a layer that its points give: those that their network knows beside the layer."""
EDGE = 1e-6
"""Least |a| / pi, and distance from 1, that is resolved."""
SCHEDULE = SCHEDULES["karras"]
"""Noise schedule of both networks."""
USUAL = PRECONDITIONINGS["edm"]
"""Preconditioning of both networks of a diffusion model."""
SAMPLER = SAMPLERS["trigflow-ab2"]
"""Sampler with which a teacher makes targets."""
MOST_POINTS = 1 << 15
"""Most points that are generated at once, but for those of one shower."""
UNLIKELY = 1.5
"""Largest factor, or its inverse, by which numbers of points are matched to the lead of their sum."""
HIT_KNOTS = (-1.0, -0.3, 0.0, 0.3, 0.7, 1.2, 2.0, 3.0)
"""Values of ln(ionisation / threshold) at which the factor on numbers of points bends."""
FAR = 1.0
"""z_r beyond which points are moved in or out, so that showers have the right R_E."""
FARTHEST = 0.5
"""Largest factor of this, |v h|."""
BOUND = 2.5
"""Largest absolute value of a standardised condition in a product of two."""
HEAVIEST = 2.0
"""Largest |ln| of the factor on numbers of points."""


@dataclass(frozen=True)
class PointSizes:
    """Sizes of the networks of the second stage.

    Args:
        layers: largest number of layers.
        known: number of conditions of a shower as a whole: those of stack and particle, and x.
        features: number of features of a layer that the first stage knows.
        width, blocks: hidden numbers of each layer, and residual blocks, of the layers' network.
        point_width, point_blocks: hidden numbers and residual blocks of the points' network.
        embedding: width of the embedding of noise level and conditions.
        location_scale_width: hidden numbers of the networks of location and scale.
        distilled_steps: steps of both networks of a distilled stage; None for diffusion models.
        paired: places of the conditions of a shower as a whole whose products the factors depend on.
    """

    layers: int
    known: int
    features: int
    width: int
    blocks: int
    point_width: int
    point_blocks: int
    embedding: int
    location_scale_width: int
    distilled_steps: tuple[int, int] | None = None
    paired: tuple[int, ...] = ()

    @property
    def linear_terms(self) -> int:
        """Number of terms of the factors that are no products of conditions."""
        return 1 + self.known + len(HIT_KNOTS)

    @property
    def terms(self) -> int:
        """Number of terms of the factors on numbers and distances of points."""
        return self.linear_terms + len(self.paired) * (len(self.paired) + 1) // 2


class KnownLayers(NamedTuple):
    """The layers of showers as they are before they have points: their energies, plates and conditions.

    Args:
        common: conditions of each shower as a whole, shape (n, known).
        features: of every layer, not standardised, shape (n, layers, features + `OWN`).
        visible: energy in the active plates, shape (n, layers), GeV.
        ionisation: energy that a minimum ionising particle loses in them, shape (n, layers), GeV; 1 beyond the last.
        moliere: Moliere radius of every layer, shape (n, layers), cm; 1 beyond the last.
        present: True for the layers of each stack, shape (n, layers).
        energy: incident, shape (n,), GeV.
    """

    common: Tensor
    features: Tensor
    visible: Tensor
    ionisation: Tensor
    moliere: Tensor
    present: Tensor
    energy: Tensor

    @classmethod
    def of(
        cls, common: Tensor, features: Tensor, energies: Tensor, plates: Plates, x0: Tensor, energy: Tensor
    ) -> KnownLayers:  # fmt: skip
        """Return what is known of layers of given energies.

        Args:
            common: see the class.
            features: of every layer, not standardised, shape (n, layers, features).
            energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
            plates: the stacks, of n rows or of one.
            x0: radiation lengths of absorber and active material, shape (n, 2) or (1, 2), cm.
            energy: incident, shape (n,) or (1,), GeV.
        """
        n, present = len(energies), plates.present
        ionisation = torch.where(present[..., None], plates.ionisation, 1.0)
        whole = ionisation.sum(-1)
        length = (plates.lengths * x0[:, None]).sum(-1)
        moliere = torch.where(present, SCALE_ENERGY * length / whole, 1.0)
        visible = energies[..., 1]
        own = [(visible / ionisation[..., 1] + EMPTY).log(), (energies.sum(-1) / whole + EMPTY).log()]
        return cls(
            common, torch.cat([features.expand(n, -1, -1), torch.stack(own, 2)], 2), visible,
            ionisation[..., 1].expand(n, -1), moliere.expand(n, -1), present.expand(n, -1), energy.expand(n),
        )  # fmt: skip

    def rows(self, rows: slice | Tensor) -> KnownLayers:
        """Return those of some showers."""
        return KnownLayers(*(values[rows] for values in self))


class PointStage(nn.Module):
    """Weights and mathematics of the second stage.

    Args:
        sizes: sizes of the networks.

    Attributes:
        preconditionings: those of the networks of features and points.
        unit: e0 of the formulas above: mean energy of a point, losses of a minimum ionising particle in the plate.
        reach, broadest: largest distances of a point from the particle's line, cm and Moliere radii.
        hardest: largest ln(e / i_k) of a point.
    """

    def __init__(self, sizes: PointSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.preconditionings: tuple[Preconditioning, Preconditioning] = (USUAL, USUAL)
        if sizes.distilled_steps is not None:
            first, second = (Progressive.of(SCHEDULE, steps) for steps in sizes.distilled_steps)
            self.preconditionings = first, second
        features = sizes.features + OWN
        for name, size in (("feature", features), ("local", LOCAL)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.local_mean: Tensor
        self.local_scale: Tensor
        self.register_buffer("unit", torch.tensor(1.0))
        straight = torch.linspace(-TAIL, TAIL, KNOTS)
        self.register_buffer("first_table", straight.repeat(TABLED, 1, 1))
        self.register_buffer("energy_table", straight.repeat(1, 1))
        self.register_buffer("radius_table", straight.repeat(GIVEN, 1))
        for name, value in (("least", -1e30), ("largest", 1e30)):
            self.register_buffer(name, torch.full((LAYER_NUMBERS,), value))
        for name in ("reach", "broadest", "hardest"):
            self.register_buffer(name, torch.tensor(1e30))
        for name in ("more_points", "farther"):
            self.register_buffer(name, torch.zeros(sizes.terms))
        self.unit: Tensor
        self.first_table: Tensor
        self.energy_table: Tensor
        self.radius_table: Tensor
        self.least: Tensor
        self.largest: Tensor
        self.reach: Tensor
        self.broadest: Tensor
        self.hardest: Tensor
        self.more_points: Tensor
        self.farther: Tensor
        known, width = sizes.known, sizes.location_scale_width
        places = torch.linspace(-TAIL, TAIL, QUANTILES)
        self.quantiles = ConditionalQuantiles(features + known, TABLED, places, width)
        self.leads = AutoregressiveFlow(LEADS, known, width // 2)
        self.layer_location_scale = ConditionalLocationScale(
            features + known + LEADS, torch.arange(LAYER_NUMBERS), width
        )
        self.layer_network = LayerNetwork(
            LAYER_NUMBERS, features, known + LEADS, sizes.width, sizes.blocks, sizes.embedding
        )
        context = features + LOCAL + known
        self.point_network = PointNet(DIM, context, sizes.point_width, sizes.point_blocks, sizes.embedding)

    def standardised(self, layers: KnownLayers) -> Tensor:
        """Return the features of every layer, standardised; zero beyond the last layer."""
        values = (layers.features - self.feature_mean) / self.feature_scale
        return torch.where(layers.present[..., None], values, 0.0)

    def quantiles_of(self, layers: KnownLayers) -> Tensor:
        """Return quantiles of points' numbers by the first table, shape (`TABLED`, n layers, `QUANTILES`)."""
        return self.quantiles.of_items([self.standardised(layers), layers.common[:, None]]).flatten(1, 2)

    def terms(self, layers: KnownLayers) -> Tensor:
        """Return h of the formulas above, shape (n, terms)."""
        above = torch.where(layers.present, (layers.ionisation / THRESHOLD).log(), 0.0)
        mean = above.sum(1, keepdim=True) / layers.present.sum(1, keepdim=True)
        bends = (mean - torch.tensor(HIT_KNOTS).to(mean)).clamp(min=0)
        paired = layers.common[:, list(self.sizes.paired)].clamp(-BOUND, BOUND)
        first, second = torch.triu_indices(paired.shape[1], paired.shape[1], device=paired.device)
        return torch.cat([torch.ones_like(mean), layers.common, bends, paired[:, first] * paired[:, second]], 1)

    def units(self, layers: KnownLayers) -> Tensor:
        """Return the mean energy of a point of every layer, shape (n, layers), GeV."""
        return self.unit * layers.ionisation

    def point_likelihood(self, values: Tensor, layers: KnownLayers, place: Tensor) -> Tensor:
        """Return the negative log likelihood of points' numbers, up to a constant, shape (points, `TABLED`).

        Args:
            values: ln(rho / R_k) and ln(e / i_k) by the first table, shape (points, `TABLED`).
            layers: showers.
            place: the layer of every point, among those of all showers, one after the other, shape (points,).
        """
        tables = self.quantiles_of(layers)
        z = [to_normal(v, place, table) for v, table in zip(_columns(values), tables, strict=True)]
        step = 2 * TAIL / (QUANTILES - 1)
        rows = place * (QUANTILES - 1)
        slopes = [
            table.diff().flatten().index_select(0, rows + _piece(each)).div(step).log()
            for each, table in zip(z, tables, strict=True)
        ]
        return torch.stack([each.square() / 2 + slope for each, slope in zip(z, slopes, strict=True)], 1)

    def standardise_points(self, values: Tensor, layers: KnownLayers, place: Tensor) -> Tensor:
        """Return points' numbers by the quantiles given the layer alone, shape (points, `TABLED`); see above."""
        tables = self.quantiles_of(layers)
        columns = [to_normal(v, place, table) for v, table in zip(_columns(values), tables, strict=True)]
        return torch.stack(columns, 1).to(values)

    def evened(self, values: Tensor) -> Tensor:
        """Return ln(rho / R_k) and ln(e / i_k), shape (points, `TABLED`), made unit normal by the first table."""
        r, e = (to_normal(v, _first(v), table) for v, table in zip(_columns(values), self.first_table, strict=True))
        return torch.stack([r, e], 1).to(values)

    def normal(self, values: Tensor) -> Tensor:
        """Return z_r and z_e of the result of `standardise_points`, shape (points, `TABLED`)."""
        r, e = _columns(values)
        z_e = to_normal(e, _first(e), self.energy_table)
        return torch.stack([normal_given(r, z_e, self.radius_table), z_e], 1).to(values)

    def restored(self, z: Tensor, tables: Tensor, place: Tensor) -> Tensor:
        """Return ln(rho / R_k) and ln(e / i_k) of z_r and z_e, shape (`TABLED`, points) as z.

        Args:
            z: see above.
            tables: result of `quantiles_of`.
            place: the layer of every point, see `point_likelihood`.
        """
        z_r, z_e = z
        first = _first(z_e)
        standard = torch.stack(
            [from_normal_given(z_r, z_e, self.radius_table), from_normal(z_e, first, self.energy_table)]
        )
        return from_normal(from_normal(standard, place, tables), first, self.first_table)

    def fit_first_table(self, values: Tensor) -> None:
        """Fit the first table, and the limits, to ln(rho / R_k) and ln(e / i_k), shape (points, `TABLED`)."""
        for v, table in zip(_columns(values), self.first_table, strict=True):
            _fit(table, v, _first(v))
        farthest, hardest = values.amax(0)
        self.broadest.copy_(farthest.exp())
        self.hardest.copy_(hardest)

    def fit_tables(self, values: Tensor) -> None:
        """Fit the second tables to the result of `standardise_points`."""
        r, e = _columns(values)
        _fit(self.energy_table, e, _first(e))
        place, part = _among_given(to_normal(e, _first(e), self.energy_table))
        _fit(self.radius_table, r, place + (part > 0.5))

    def start_from(self, leads: Tensor, numbers: Tensor, local: Tensor) -> None:
        """Set where location and scale of leads and layers' numbers begin, their limits, and what is standardised.

        Args:
            leads: of showers, shape (n, `LEADS`).
            numbers: of layers with points, shape (layers, `LAYER_NUMBERS`).
            local: local features of the same layers, shape (layers, `LOCAL`).
        """
        self.leads.start_from(leads.mean(0), leads.std(0).clamp(min=1e-3))
        self.layer_location_scale.start_from(numbers.mean(0), numbers.std(0).clamp(min=1e-3))
        self.least.copy_(numbers.amin(0))
        self.largest.copy_(numbers.amax(0))
        self.local_mean.copy_(local.mean(0))
        self.local_scale.copy_(local.std(0).clamp(min=1e-3))

    def encode(self, features: Features, layers: KnownLayers, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return leads, shape (n, `LEADS`), and numbers of layers, shape (n, `LAYER_NUMBERS`, layers).

        Args:
            features: features of the layers' points; the centre is in Moliere radii, along the tilt and across it.
            layers: the layers, whose active plates hold the energies of the points.
            random: random numbers of the showers, which spread counts and turn half of the showers to their mirror
                images.
        """
        n, unit = features.count, self.units(layers)
        u, spare = random.fractions(*n.shape[1:], like=unit), random.normal(2, *n.shape[1:], like=unit)
        mirror = torch.where(random.fractions(like=unit) < 0.5, -1.0, 1.0)
        x, y = features.centre.unbind(1)
        leads = torch.stack([*_leads(features, layers.visible, unit).unbind(1), x, y * mirror], 1)
        held = torch.where(n > 0, layers.visible, unit * u)
        return leads, encode_layers(features, held, unit, u, spare)

    def location_scale_loss(self, features: Features, layers: KnownLayers, random: RandomNumbers) -> Tensor:
        """Return the mean negative log likelihood of leads and layers' numbers, up to a constant."""
        with torch.no_grad():
            leads, numbers = self.encode(features, layers, random)
        of_leads, u = self.leads.negative_log_likelihood(leads, layers.common)
        location, scale = self._layers_location_scale(layers, u)
        of_layers = likelihood(numbers.transpose(1, 2), location, scale)
        return of_leads.mean() + of_layers[layers.visible > 0].mean()

    def standardise_features(
        self, features: Features, layers: KnownLayers, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return u of the leads, and y of the layers' numbers, shape (n, layers, `LAYER_NUMBERS`)."""
        leads, numbers = self.encode(features, layers, random)
        u = self.leads.standardise(leads, layers.common)
        y = standardise(numbers.transpose(1, 2), *self._layers_location_scale(layers, u))
        return u, torch.where(layers.present[..., None], y, 0.0)

    def feature_loss(self, features: Features, layers: KnownLayers, random: RandomNumbers) -> Tensor:
        """Return the denoising loss of the layers' numbers, one a shower, shape (n,)."""
        with torch.no_grad():
            u, y = self.standardise_features(features, layers, random)
        network = self._layers_network(layers, u, y.shape[1])
        values = loss(network, self.preconditionings[0], y.flatten(1), SCHEDULE.draw(random, like=y), random)
        return _mean_of_filled(values.view(y.shape), layers)

    def feature_distillation_loss(
        self, teacher: PointStage, steps: int, features: Features, layers: KnownLayers, random: RandomNumbers
    ) -> Tensor:  # fmt: skip
        """Return the distillation loss of the layers' numbers, one a shower, shape (n,).

        Args:
            teacher: a diffusion model with the same tables, location and scale.
            steps: its steps for every step of this one.
            features, layers: features of showers and their layers; noise is added to them.
            random: random numbers of the showers.
        """
        student = self.preconditionings[0]
        assert isinstance(student, Progressive)
        with torch.no_grad():
            u, y = self.standardise_features(features, layers, random)
            of_teacher = teacher._layers_network(layers, u, y.shape[1])
            guide = Teacher(lambda x, s: denoise(of_teacher, teacher.preconditionings[0], x, s), SAMPLER, steps)
            targets = teacher_targets(student, guide, y.flatten(1), random)
        values = distillation_loss(self._layers_network(layers, u, y.shape[1]), targets)
        return _mean_of_filled(values.view(y.shape), layers)

    def _layers_location_scale(self, layers: KnownLayers, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale of the layers' numbers, shape (n, layers, `LAYER_NUMBERS`) each."""
        known = torch.cat([layers.common, u], 1)[:, None]
        return self.layer_location_scale.of_items([self.standardised(layers), known])

    def _layers_network(self, layers: KnownLayers, u: Tensor, padded: int) -> Network:
        """Return the layers' network with its conditions bound, for vectors of ``padded`` layers."""
        known, features = torch.cat([layers.common, u], 1), self.standardised(layers)
        present = layers.present[..., None].to(u)
        here = features.shape[1]

        def network(scaled: Tensor, noise: Tensor) -> Tensor:
            numbers = scaled.view(-1, padded, LAYER_NUMBERS)[:, :here] * present
            result = self.layer_network(numbers, noise, known, [features], torch.zeros_like(numbers), present)
            return pad(result, (0, 0, 0, padded - here)).flatten(1)

        return network

    def context(self, features: Features, layers: KnownLayers) -> Tensor:
        """Return the conditions of the points of every layer, shape (n, layers, context)."""
        local = (self.local_features(features, layers) - self.local_mean) / self.local_scale
        parts = [self.standardised(layers), local]
        return torch.cat([*parts, layers.common[:, None].expand(-1, local.shape[1], -1)], 2)

    def local_features(self, features: Features, layers: KnownLayers) -> Tensor:
        """Return the features of layers by their points, not standardised, shape (n, layers, `LOCAL`).

        ln (N + 1) of the layer and of the two beside it; ln of its mean energy of a point; m, and that of the two
        beside it; d.
        """
        n, m = features.count.log1p(), features.mean
        per_point = (layers.visible / self.units(layers)).log1p() - n
        beside = pad(torch.stack([n, m]), (1, 1))  # zero beyond the ends
        (n_before, m_before), (n_behind, m_behind) = beside[..., :-2], beside[..., 2:]
        return torch.stack([n, n_before, n_behind, per_point, m, m_before, m_behind, features.core], 2)

    def point_loss(self, z: Tensor, context: Tensor, group: Tensor, random: RandomNumbers) -> Tensor:
        """Return the denoising loss of points, shape (points,).

        Args:
            z: shape (points, `DIM`).
            context: of the groups, shape (groups, context).
            group: index of every point's group, in order, shape (points,), int64.
            random: random numbers with a row for every point; the noise level is one for all points of a group.
        """
        level = SCHEDULE.draw(random, like=z)[: len(context)]
        network = self._points_network(context, group)
        return loss(network, self.preconditionings[1], z, level[group], random).mean(1)

    def point_distillation_loss(
        self, teacher: PointStage, steps: int, z: Tensor, context: Tensor, group: Tensor, random: RandomNumbers
    ) -> Tensor:  # fmt: skip
        """Return the distillation loss of points, shape (points,); other arguments are those of the two above."""
        student = self.preconditionings[1]
        assert isinstance(student, Progressive)
        network = teacher._points_network(context, group)
        guide = Teacher(lambda x, s: denoise(network, teacher.preconditionings[1], x, s), SAMPLER, steps)
        targets = teacher_targets(student, guide, z, random, group)
        return distillation_loss(self._points_network(context, group), targets).mean(1)

    def _points_network(self, context: Tensor, group: Tensor) -> Network:
        """Return the points' network with its conditions bound; noise levels come one a point and go in one a group."""

        def network(scaled: Tensor, noise: Tensor) -> Tensor:
            if len(noise) > 1:
                first = torch.searchsorted(group, torch.arange(len(context), device=group.device))
                noise = noise[first.clamp(max=len(group) - 1)]
            result: Tensor = self.point_network(scaled, noise, context, group)
            return result

        return network

    def generate_features(
        self, layers: KnownLayers, sampler: Sampler, steps: int, random: RandomNumbers, smooth: bool = False
    ) -> Features:
        """Generate the features of showers' layers; a layer has points if its active plate has energy."""
        most, here = self.sizes.layers, layers.present.shape[1]
        like = layers.common
        first, noise = random.normal(LEADS, like=like), random.normal(most * LAYER_NUMBERS, like=like)
        u = self.leads.tables.inverse(first)
        leads = self.leads.restore(u, layers.common)
        network = self._layers_network(layers, u, most)
        y = sample(
            lambda x, s: denoise(network, self.preconditionings[0], x, s), noise, sampler.grid(SCHEDULE, steps),
            sampler, random.normal_like,
        )  # fmt: skip
        y = y.view(-1, most, LAYER_NUMBERS)[:, :here]
        numbers = restore(y, *self._layers_location_scale(layers, u))
        numbers = torch.minimum(torch.maximum(numbers, self.least), self.largest).transpose(1, 2)
        more = (self.terms(layers) @ self.more_points).clamp(-HEAVIEST, HEAVIEST).exp()
        ratio = layers.visible / self.units(layers) + 1
        factor = more * self._shortfall(numbers[:, 0].exp() * ratio, leads[:, 0], layers)
        n = decode_count(numbers[:, 0].exp(), ratio, smooth, factor[:, None])
        n = torch.where(layers.visible > 0, n.clamp(min=1), 0.0)
        m, d = decode_means(numbers[:, 1:], n)
        share = layers.visible / layers.visible.sum(1, keepdim=True).clamp(min=1e-12)
        m = m + (n > 0) * (leads[:, 1] - (share * m).sum(1))[:, None]
        d = d + (n > 1) * (leads[:, 2] - (share * d).sum(1))[:, None]
        return Features(n, layers.visible, m, d, leads[:, -2:])

    def _shortfall(self, one_more: Tensor, lead: Tensor, layers: KnownLayers) -> Tensor:
        """Return the factor by which layers have too few points for the lead of their number, shape (n,).

        Args:
            one_more: N_k + u + 1, shape (n, layers).
            lead: ln(sum N_k / sum (V_k / e0 i_k)), shape (n,).
            layers: the layers.
        """
        filled = (layers.visible > 0).to(lead)
        wanted = lead.exp() * (layers.visible / self.units(layers)).sum(1) + filled.sum(1) / 2
        factor = wanted / ((one_more - 1).clamp(min=0) * filled).sum(1).clamp(min=0.5)
        return factor.clamp(1 / UNLIKELY, UNLIKELY)

    def generate(
        self, layers: KnownLayers, absorber: Tensor, sampler: Sampler, steps: tuple[int, int], smooth: bool,
        random: RandomNumbers,
    ) -> Points:  # fmt: skip
        """Generate points across the particle's line; `in_detector` returns them as the detector sees them.

        Args:
            layers: the showers' layers.
            absorber: energies in the absorbers, shape (n, layers), GeV.
            sampler: sampler of both networks.
            steps: steps of the layers' and of the points' sampler.
            smooth: give the last point of every layer a fractional weight.
            random: random numbers of the showers.
        """
        features = self.generate_features(layers, sampler, steps[0], random, smooth)
        counts = features.count.detach().ceil().sum(1).long()
        parts = []
        for rows in blocks(offsets_of(counts.cpu().numpy()), MOST_POINTS):
            some = layers.rows(rows)
            parts.append(self._fill(features.at(rows), some, sampler, steps[1], smooth, random.rows(rows)))
        return replace(Points.concatenate(parts), absorber=absorber)

    def _fill(
        self, features: Features, layers: KnownLayers, sampler: Sampler, steps: int, smooth: bool,
        random: RandomNumbers,
    ) -> Points:  # fmt: skip
        """Return the points of showers with given features."""
        context = self.context(features, layers).flatten(0, 1)
        tables = self.quantiles_of(layers)
        ionisation, moliere = layers.ionisation.flatten(), layers.moliere.flatten()
        farthest = torch.minimum(self.reach / moliere, self.broadest).log()
        stretch = (self.terms(layers) @ self.farther).clamp(-FARTHEST, FARTHEST)
        stretch = stretch[:, None].expand(-1, layers.present.shape[1]).flatten()

        def z_of(drawn: Drawn, filled: Tensor) -> Tensor:
            network = self._points_network(context.index_select(0, filled), drawn.groups.of)

            def draw_noise(like: Tensor) -> Tensor:
                return random.normal_points(drawn.shower, drawn.place, like.shape[1], like=like)

            levels = sampler.grid(SCHEDULE, steps)
            return sample(
                lambda x, s: denoise(network, self.preconditionings[1], x, s), drawn.noise, levels, sampler, draw_noise
            )

        def polar(z: Tensor, drawn: Drawn, filled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            place = drawn.groups.spread(filled)
            r, e = self.restored(z[:TABLED], tables, place).unbind()
            r = torch.addcmul(r, (z[0] - FAR).clamp(min=0), stretch.index_select(0, place))
            r, e = torch.minimum(r, farthest.index_select(0, place)).exp(), torch.minimum(e, self.hardest).exp()
            angle = pi * ndtr(z[2])
            return r, e * ionisation.index_select(0, place), torch.where(drawn.angle < pi, angle, -angle)

        made = matched(features, random, smooth, DIM, z_of, polar, tilt=False)
        across = moliere.index_select(0, made.of_layer)
        offsets = offsets_of(made.groups.counts)
        return Points(
            made.x * across, made.y * across, made.layer, made.e, offsets, layers.energy, features.count.shape[1]
        )


def in_detector(points: Points, particles: Particles | None) -> Points:
    """Return points across the particle's line as they lie in the plates, in the frame of `Points`.

    Args:
        points: x along the tilt of the particle, but across its line, y across both.
        particles: of as many rows as there are showers, or of one; None for photons along the normal.
    """
    if particles is None:
        return points
    owner, n = points.owner, len(points)
    theta, phi = (
        (angle * (pi / 180)).to(points.x).expand(n).index_select(0, owner) for angle in (particles.theta, particles.phi)
    )
    along, cos, sin = points.x / theta.cos(), phi.cos(), phi.sin()
    return replace(points, x=along * cos - points.y * sin, y=along * sin + points.y * cos)


def across_line(x: Tensor, y: Tensor, theta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Return positions in plates as positions along the tilt and across the line: the inverse of `in_detector`.

    Args:
        x, y: from where the particle's line crosses the plate, shape (points,), cm.
        theta, phi: direction of each point's particle, degrees.
    """
    theta, phi = theta * (pi / 180), phi * (pi / 180)
    return (x * phi.cos() + y * phi.sin()) * theta.cos(), y * phi.cos() - x * phi.sin()


def point_numbers(x: Tensor, y: Tensor, e: Tensor, moliere: Tensor, ionisation: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln(rho / R_k) and ln(e / i_k), shape (points, `TABLED`), and z_a, shape (points,).

    Args:
        x, y: along the tilt and across the line, shape (points,), cm.
        e: energies, GeV.
        moliere, ionisation: R_k and i_k of each point's layer.
    """
    r = (x.square() + y.square()).sqrt() / moliere
    turn = torch.atan2(y, x).abs() / pi
    return torch.stack([r.clamp(min=NEAREST).log(), (e / ionisation).log()], 1), ndtri(turn.clamp(EDGE, 1 - EDGE))


def from_normal_given(z: Tensor, z_e: Tensor, table: Tensor) -> Tensor:
    """Return values of z by tables that are straight between values of z_e, differentiable in both, shape (points,).

    Args:
        z, z_e: shape (points,).
        table: quantiles at `GIVEN` values of z_e, shape (`GIVEN`, `KNOTS`).
    """
    row, part = _among_given(z_e)
    at = (z + TAIL) * ((KNOTS - 1) / (2 * TAIL))
    whole = at.long().clamp(0, KNOTS - 2)
    low, high = _between(table, row, part, whole), _between(table, row, part, whole + 1)
    return torch.lerp(low, high, at - whole)


def normal_given(values: Tensor, z_e: Tensor, table: Tensor) -> Tensor:
    """Return z of values, shape (points,): the inverse of `from_normal_given`, by bisection."""
    row, part = _among_given(z_e)
    place, step = torch.zeros_like(row), 1 << (KNOTS - 2).bit_length()
    while step > 1:
        step //= 2
        further = place + step
        inside = (further <= KNOTS - 2) & (_between(table, row, part, further.clamp(max=KNOTS - 2)) <= values)
        place = torch.where(inside, further, place)
    low, high = _between(table, row, part, place), _between(table, row, part, place + 1)
    return -TAIL + (2 * TAIL / (KNOTS - 1)) * (place + (values - low) / (high - low))


def _among_given(z_e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the last of the `GIVEN` values at or below z_e that has one above it, and how far z_e is to that."""
    at = (z_e + GIVEN_END).mul((GIVEN - 1) / (2 * GIVEN_END)).clamp(0, GIVEN - 1)
    row = at.detach().long().clamp(max=GIVEN - 2)
    return row, at - row


def _between(table: Tensor, row: Tensor, part: Tensor, knot: Tensor) -> Tensor:
    """Return quantiles between two rows of a table, shape (points,)."""
    flat, place = table.flatten(), row * table.shape[1] + knot
    return torch.lerp(flat.index_select(0, place), flat.index_select(0, place + table.shape[1]), part)


def _columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two numbers of points, shape (points,) each, of shape (points, `TABLED`)."""
    r, e = values.T.contiguous()
    return r, e


def _piece(z: Tensor) -> Tensor:
    """Return which of the pieces between quantiles z is in, shape (points,), int64."""
    at = (z.detach() + TAIL) * ((QUANTILES - 1) / (2 * TAIL))
    return at.floor().long().clamp(0, QUANTILES - 2)


def _mean_of_filled(values: Tensor, layers: KnownLayers) -> Tensor:
    """Return means over the numbers of the layers with energy, shape (n,), of shape (n, layers, numbers)."""
    filled = (layers.visible > 0).to(values)
    return (values.mean(2) * filled).sum(1) / filled.sum(1).clamp(min=1)


def _first(values: Tensor) -> Tensor:
    """Return zeros: all points are of the one row of a table."""
    return torch.zeros(len(values), dtype=torch.long, device=values.device)


def _fit(table: Tensor, values: Tensor, rows: Tensor) -> None:
    """Set the rows of a table to the quantiles of the values that are of them, shape (points,) each."""
    table.copy_(quantile_table(values.cpu().numpy(), rows.cpu().numpy(), len(table)))


def _leads(features: Features, visible: Tensor, unit: Tensor) -> Tensor:
    """Return the leads but for the centre, shape (n, 3)."""
    share = visible / visible.sum(1, keepdim=True).clamp(min=1e-12)
    number = features.count.sum(1).clamp(min=0.5) / (visible / unit).sum(1).clamp(min=1e-6)
    return torch.stack([number.log(), (share * features.mean).sum(1), (share * features.core).sum(1)], 1)
