"""The surrogate of stacks of plates: the energies of all absorbers and active plates given the stack and the particle.

A surrogate of points has a second stage, `calograd.surrogate.plates.points`: points in the active plates given these.

Two diffusion models in a row on the coordinates of `calograd.surrogate.plates.coordinates`:

    shower   5 numbers           g <-> x given cond               x from diffusion given cond
    layers   2 numbers each      c <-> y given cond, x, layer     y from diffusion given cond, x and all layers

Location and scale of g are a network of the whole stack, cond. Those of c are one network that all layers share; it
knows where the layer is in this shower, how thick it and its neighbours are, and what energy the shower's profile
expects there. So stacks of other numbers of layers, and of unequal ones, are no new case to it, and means and widths
follow every thickness smoothly. The networks of the noise then see numbers that are nearly unit normal. That of the
layers shares its weights among them too (`calograd.nn.layer_network`) and knows the same of each. That of a student may
see all layers at once instead (``dense``): it is faster, and its teacher makes the many showers that it takes.

cond has, standardised: ln E/E_c of the mixture, ln E, photon or not, charge, ln 1/cos theta; the logarithms of
`NUMBERS` of absorber and of active material; and of the stack, with the shares of the nominal shower in each layer as
weights, the means of ln a (absorber, X0) and of ln d (loss of a minimum ionising particle in the active plate), their
slopes with the depth, the sampling fraction, what leaks, the nominal mean and spread, the depth in all, and ln a and
ln d of the first layer, in which electrons begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.detector.configuration import PDG
from calograd.detector.material import DESCRIPTORS, Material
from calograd.detector.particles import Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import Stacks
from calograd.diffusion.denoisers import PRECONDITIONINGS, Network, Preconditioning, denoise, loss
from calograd.diffusion.progressive import PROGRESSIVE, Progressive, Targets, distillation_loss, teacher_targets
from calograd.diffusion.samplers import SAMPLERS, Sampler, sample
from calograd.diffusion.schedules import SCHEDULES
from calograd.events.layer_energies import LayerEnergies
from calograd.events.plates import PlateShowers
from calograd.events.points import Points
from calograd.nn.layer_network import LayerNetwork
from calograd.nn.location_scale import ConditionalLocationScale, likelihood, restore, standardise
from calograd.nn.mlp import ResidualMlp
from calograd.surrogate.fused import steps_of
from calograd.surrogate.model import (
    Architecture,
    Generates,
    Model,
    Rows,
    SamplingSchedule,
    numbers_of,
    sampler_of,
    schedule_of,
    two_steps,
)
from calograd.surrogate.plates.coordinates import (
    LAYER,
    SHOWER,
    Nominal,
    Plates,
    Shower,
    coarser,
    decode,
    decode_shower,
    edges,
    encode_layers,
    encode_shower,
    nominal,
)
from calograd.surrogate.plates.fused import FusedPlates
from calograd.surrogate.plates.points import KnownLayers, PointSizes, PointStage, in_detector
from calograd.surrogate.two_stage import SHAPE_STEPS, LocationScale, teacher_of
from calograd.system.random_numbers import RandomNumbers

NUMBERS = ("radiation_length", "critical_energy", "mean_atomic_number")
"""Numbers of a material, beside its `minimum_ionisation`, that are conditions.

The Moliere radius says nothing of plates that are wide, and the density nothing beyond the lengths and losses.
"""
STACK = 21
"""Number of standardised conditions beside those of the materials."""
CONDITIONS = STACK + 2 * (len(NUMBERS) + 1)
"""Number of standardised conditions."""
PAIRED = (1, 2, 4, 5, 6, 14, *range(STACK, CONDITIONS))
"""Conditions whose products the factors on numbers and distances of points depend on: energy, photon, angle, mean
thicknesses, sampling fraction and materials, by their places."""
FEATURES = 12
"""Number of features of a layer."""
DENSE_FEATURES = 2
"""Number of features of a shower, and of a stack, that a network that sees all layers at once has of every layer."""
DENSE_SHOWER, DENSE_STACK = slice(0, DENSE_FEATURES), slice(1, 1 + DENSE_FEATURES)
"""These: the expected energy and the distance from the mean depth; the absorber's length and the active plate's
ionisation."""
DENSE_BOUND = 8.0
"""Largest distance of the thresholds between empty and filled plates that it sees."""
SHOWER_FEATURES = 3
"""Number of those that depend on the shower; they come first."""
POSITRON = 2 * 0.51099895e-3
"""Energy that a positron brings beyond its incident one, GeV."""
SOFT_ENERGY = 1e-5
"""Softening of expected energies of layers, GeV."""
NEAR = 3.0
"""Distance from the start of the shower, X0, beyond which it does not matter."""
WIDE = 4.0
"""Distance from the mean depth, in spreads, beyond which it does not matter."""
FINE = 0.1
"""Share of b as it is in the loss of a distillation into one step, beside `coarser` numbers."""
SHOWER_DRAWS = 4
"""Noise levels of every shower in a step of the training of its network."""
SCHEDULE = SCHEDULES["karras"]
"""Noise schedule of both networks."""
USUAL = PRECONDITIONINGS["edm"]
"""Preconditioning of both networks of a diffusion model."""


@dataclass(frozen=True)
class PlatesArchitecture(Architecture):
    """Everything that fixes the shapes of the weights of stacks of plates and how they are sampled.

    Args:
        layers: largest number of layers.
        shower_width: hidden numbers of the shower's network.
        shower_blocks: residual blocks of the shower's network.
        layer_width: hidden numbers of every layer in the layers' network.
        layer_blocks: residual blocks of the layers' network, each with the layers at some distance.
        local_units: hidden units that every number of a layer has of its own; even.
        embedding: width of the embedding of noise level and conditions.
        dense: False if all layers share the weights of the layers' network (`calograd.nn.layer_network`); True if it
            sees all layers at once (`calograd.nn.mlp.ResidualMlp`). That takes far less time, and far more showers to
            learn from, as a teacher can make them.
        location_scale_width: hidden numbers of the shower's network of location and scale.
        layer_location_scale_width: hidden numbers of the layers' network of location and scale.
        sampler: sampler of both networks, a name of `calograd.diffusion.samplers.SAMPLERS`.
        steps: number of steps of the layers' sampler; the shower's takes three times as many.
        distilled_steps: steps of shower and layers of a distilled surrogate; None for diffusion models.
        points: True if there are points in the active plates, see `calograd.surrogate.plates.points`.
        feature_width, feature_blocks: hidden numbers and residual blocks of the network of the layers' features.
        feature_steps: number of steps of its sampler.
        point_width, point_blocks: hidden numbers and residual blocks of the points' network.
        point_steps: number of steps of its sampler.
        point_sampler: sampler of features and points.
        distilled_point_steps: steps of features and points of a distilled second stage, in place of the numbers and the
            sampler above; None for diffusion models.

    Raises:
        InputError: distilled steps that are not two positive numbers.
    """

    layers: int = 60
    shower_width: int = 128
    shower_blocks: int = 3
    layer_width: int = 64
    layer_blocks: int = 4
    local_units: int = 4
    embedding: int = 64
    dense: bool = False
    location_scale_width: int = 64
    layer_location_scale_width: int = 32
    sampler: str = "trigflow-ab2"
    steps: int = 8
    distilled_steps: tuple[int, int] | None = None
    points: bool = False
    feature_width: int = 64
    feature_blocks: int = 3
    feature_steps: int = 8
    point_width: int = 48
    point_blocks: int = 2
    point_steps: int = 6
    point_sampler: str = "trigflow-ab2"
    distilled_point_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name in ("distilled_steps", "distilled_point_steps"):
            object.__setattr__(self, name, two_steps(getattr(self, name)))

    def build(self) -> PlatesModel:
        """Return a model with random weights."""
        return PlatesModel(self)

    def point_sizes(self) -> PointSizes:
        """Return the sizes of the networks of features and points."""
        return PointSizes(
            layers=self.layers, known=CONDITIONS + SHOWER, features=FEATURES, width=self.feature_width,
            blocks=self.feature_blocks, point_width=self.point_width, point_blocks=self.point_blocks,
            embedding=self.embedding, location_scale_width=self.location_scale_width,
            distilled_steps=self.distilled_point_steps, paired=PAIRED,
        )  # fmt: skip

    def point_sampling(self) -> tuple[Sampler, tuple[int, int]]:
        """Return the sampler of features and points, and the steps of both."""
        if self.distilled_point_steps is not None:
            return PROGRESSIVE, self.distilled_point_steps
        return SAMPLERS[self.point_sampler], (self.feature_steps, self.point_steps)


class StackConditions(NamedTuple):
    """The conditions of showers, taken apart.

    Args:
        conditions: the standardised ones, shape (n, `CONDITIONS`) or of one row.
        plates: the plates, of as many rows and of as many layers as the deepest stack has.
        energy: energy that can be deposited, shape (n,), GeV.
        expected: the nominal shower.
    """

    conditions: Tensor
    plates: Plates
    energy: Tensor
    expected: Nominal


class LayerFeatures(NamedTuple):
    """The features of every layer, `FEATURES` in all.

    Args:
        shower: those that depend on the shower, shape (n, layers, `SHOWER_FEATURES`).
        stack: those of the stack alone, shape (n, layers, ...) or of one row.
    """

    shower: Tensor
    stack: Tensor

    def joined(self) -> Tensor:
        """Return all, shape (n, layers, `FEATURES`)."""
        return torch.cat([self.shower, self.stack.expand(len(self.shower), -1, -1)], 2)


class DenseInputs(NamedTuple):
    """Showers as a network that sees all layers at once gets them, besides the conditions of their stacks.

    Args:
        context: further inputs, shape (n, ...).
        thresholds: q between empty and filled plates, in the units of y, shape (n, `LAYER` layers).
        present: 1 for the numbers of layers that a stack has, 0 for others, of that shape or of one row.
    """

    context: Tensor
    thresholds: Tensor
    present: Tensor


class BoundLayers(NamedTuple):
    """The layers' network of some showers.

    Args:
        stack, shower: stacks and showers.
        location_scale: location and scale of c.
        network: the network with its conditions bound.
    """

    stack: StackConditions
    shower: Shower
    location_scale: LocationScale
    network: Network


class StackTargets(NamedTuple):
    """Targets of both networks of a student, a row a shower, see `calograd.diffusion.progressive`.

    Args:
        conditions: conditions of the student and of its teacher, shape (n, conditions).
        energy: incident, shape (n,), GeV.
        x: standardised coordinates of the shower that condition the layers, shape (n, `SHOWER`).
        shower, layers: targets of the two networks.
    """

    conditions: Tensor
    energy: Tensor
    x: Tensor
    shower: Targets
    layers: Targets

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Tensor) -> StackTargets:
        """Return the chosen rows."""
        conditions, energy, x = (values[rows] for values in self[:3])
        return StackTargets(conditions, energy, x, self.shower.at(rows), self.layers.at(rows))


class PlatesModel(Model):
    """Weights and mathematics of the surrogate of plates; `calograd.surrogate.Surrogate` is its public face.

    A row of conditions has the standardised ones, then the plates' lengths and ionisation, and photon and charge.

    Attributes:
        preconditionings: those of the networks of shower and layers.
    """

    architecture: PlatesArchitecture

    def __init__(self, architecture: PlatesArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        self.preconditionings: tuple[Preconditioning, Preconditioning] = (USUAL, USUAL)
        if a.distilled_steps is not None:
            first, second = (Progressive.of(SCHEDULE, steps) for steps in a.distilled_steps)
            self.preconditionings = first, second
        for name, size in (("condition", CONDITIONS), ("feature", FEATURES)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))
        self.feature_mean: Tensor
        self.feature_scale: Tensor
        self.shower_location_scale = ConditionalLocationScale(CONDITIONS, torch.arange(SHOWER), a.location_scale_width)
        known = FEATURES + CONDITIONS + SHOWER
        self.layer_location_scale = ConditionalLocationScale(known, torch.arange(LAYER), a.layer_location_scale_width)
        self.shower_network = ResidualMlp(SHOWER, CONDITIONS, 0, a.shower_width, a.shower_blocks, a.embedding)
        sizes = a.layer_width, a.layer_blocks, a.embedding, a.local_units
        self.layer_network: ResidualMlp | LayerNetwork
        if a.dense:
            context = SHOWER + (2 * DENSE_FEATURES + LAYER) * a.layers
            self.layer_network = ResidualMlp(LAYER * a.layers, CONDITIONS, context, *sizes)
        else:
            self.layer_network = LayerNetwork(LAYER, FEATURES, CONDITIONS + SHOWER, *sizes)
        self.points = PointStage(a.point_sizes()) if a.points else None

    @property
    def batch_size(self) -> int:
        """Number of showers generated at once, see `Model`: of diffusion models as few as caches hold."""
        return 1000 if self.distilled else 100

    @property
    def options(self) -> frozenset[str]:
        """Names of the options: layer energies alone, checkpoints, and of points smooth samples."""
        return frozenset({"layers_only", "checkpointed"} | ({"smooth"} if self.architecture.points else set()))

    @property
    def required_options(self) -> frozenset[str]:
        """Names of the options that have to be asked for, see `Model`: layer energies alone if there are no points."""
        return frozenset() if self.architecture.points else frozenset({"layers_only"})

    @property
    def distilled(self) -> bool:
        """True if the model is distilled, see `Model`."""
        return self.architecture.distilled_steps is not None

    @property
    def takes_particles(self) -> bool:
        """True: particle and direction are conditions."""
        return True

    def fused(self) -> Generates:
        """Return a faster form, of distilled models whose layers' network sees all layers at once."""
        return FusedPlates(self) if self.distilled and self.architecture.dense else self

    def finish(
        self, showers: LayerEnergies | Points, design: Any, particles: Particles | None  # noqa: ARG002 - of any stack
    ) -> LayerEnergies | Points:  # fmt: skip
        """Return showers as the detector sees them, see `Model`."""
        return showers if isinstance(showers, LayerEnergies) else in_detector(showers, particles)

    def join(self, parts: Sequence[Any]) -> LayerEnergies | Points:
        """Return showers of several batches as one."""
        if isinstance(parts[0], LayerEnergies):
            return LayerEnergies.concatenate(parts)
        layers = max(part.layers for part in parts)
        return Points.concatenate([part.with_layers(layers) for part in parts])

    def record(
        self, showers: LayerEnergies | Points, rows: Rows, name: str, config: dict[str, Any]
    ) -> PlateShowers:  # fmt: skip
        """Return showers as `PlateShowers`, with deposits if there are points, see `Model`."""
        assert rows.stacks is not None
        assert rows.incident is not None
        energies = showers.absorbed_energies(), showers.layer_energies()
        absorber, active = (values.cpu().numpy() for values in energies)
        return PlateShowers.of(
            rows.stacks, absorber, active, rows.energy, rows.incident, seed=config["seed"], origin=name, config=config,
            points=showers.numpy(name, config) if isinstance(showers, Points) else None,
        )  # fmt: skip

    def asymmetric(self) -> Self:
        """Return the model: it has no weights that are equal by symmetry."""
        return self

    def compact(self, material: Material | None) -> Self:  # noqa: ARG002 - nothing to leave out
        """Return the model: no weights of it can be left out."""
        return self

    def sampling_schedule(self, sampler: str | None = None, steps: int | None = None) -> SamplingSchedule:
        """Return how showers are sampled, see `Model`."""
        a = self.architecture
        return schedule_of(
            sampler, steps, a.distilled_steps, (a.sampler, a.steps), lambda which, n: which.nfe(SHAPE_STEPS * n)
        )

    def condition(self, design: SamplingDesign | Stacks, energy: Tensor, particles: Particles | None = None) -> Tensor:
        """Return conditions, see `Model`."""
        if isinstance(design, Stacks):
            plates = design.thickness[:, : self.architecture.layers, [0, 2]]
            absorber, active = (
                numbers_of_rows(several, torch.from_numpy(which), like=energy)
                for several, which in ((design.absorbers, design.absorber), (design.actives, design.active))
            )
            return self.conditions(torch.from_numpy(plates).to(energy), absorber, active, energy, particles)
        thickness = torch.stack([design.absorber_thickness, design.active_thickness], -1).to(energy)
        thickness = thickness.reshape(-1, design.n_layers, 2)
        absorber, active = (plate_numbers(material, like=energy) for material in (design.absorber, design.active))
        return self.conditions(thickness, absorber, active, energy, particles)

    def conditions(
        self, thickness: Tensor, absorber: Tensor, active: Tensor, energy: Tensor, particles: Particles | None
    ) -> Tensor:
        """Return a row of conditions for every shower, or one for all; differentiable in everything.

        Args:
            thickness: of absorber and active plate of every layer, shape (n, layers, 2) or of one row, cm; layers
                beyond the last one of a stack are zero.
            absorber, active: numbers of the materials, see `plate_numbers`, shape (n, 4) or (1, 4).
            energy: incident, shape (n,) or (1,), GeV.
            particles: of n rows or of one; None for photons along the normal.
        """
        if particles is None:
            particles = Particles.of(1, "gamma", (0.0, 0.0), 0.0, 0.0, like=energy)
        charge, photon = particles.charge(), (particles.particle == PDG["gamma"]).to(energy)
        cosine = (particles.theta * (pi / 180)).cos()
        along = thickness / cosine[:, None, None]
        x0, loss_rate = (torch.stack([absorber[:, k], active[:, k]], -1)[:, None] for k in (0, -1))
        plates = Plates(along / x0, along * loss_rate)
        known = [_stack_conditions(plates, energy, photon, charge, cosine), absorber.log(), active.log()]
        rows = max(map(len, (*known, charge)))
        raw = torch.cat([part.expand(rows, -1) for part in known], 1)
        missing = self.architecture.layers - thickness.shape[1]
        parts = [
            (raw - self.condition_mean) / self.condition_scale,
            *(pad(values, (0, 0, 0, missing)).flatten(1) for values in (plates.lengths, plates.ionisation)),
            torch.stack([photon, charge], 1),
        ]  # fmt: skip
        return torch.cat([part.expand(rows, -1) for part in parts], 1)

    def stack_of(self, conditions: Tensor, energy: Tensor) -> StackConditions:
        """Return what conditions and incident energies say."""
        size = 2 * self.architecture.layers
        known, lengths, ionisation, beam = torch.split(conditions, [CONDITIONS, size, size, 2], 1)
        plates = Plates(lengths.reshape(len(lengths), -1, 2), ionisation.reshape(len(lengths), -1, 2))
        used = int(plates.present.any(0).sum())
        plates = Plates(plates.lengths[:, :used], plates.ionisation[:, :used])
        photon, charge = beam.unbind(1)
        expected, _ = nominal(plates, energy, photon)
        return StackConditions(known, plates, energy + POSITRON * (charge > 0).to(energy), expected)

    def features(self, stack: StackConditions, shower: Shower) -> LayerFeatures:
        """Return the features of every layer, standardised."""
        sizes = [SHOWER_FEATURES, FEATURES - SHOWER_FEATURES]
        means, scales = (torch.split(values, sizes) for values in (self.feature_mean, self.feature_scale))
        of_shower, of_stack = layer_features(stack.plates, shower)
        return LayerFeatures((of_shower - means[0]) / scales[0], (of_stack - means[1]) / scales[1])

    def encode(
        self, energies: Tensor, conditions: Tensor, energy: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return g and c of showers, and which layers there are: shapes (n, 5), (n, 2, layers) and (n, layers).

        Args:
            energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
            conditions: result of `conditions`.
            energy: incident, shape (n,), GeV.
            random: random numbers of the showers.
        """
        stack = self.stack_of(conditions, energy)
        energies = energies[:, : stack.plates.lengths.shape[1]]
        g = encode_shower(energies, stack.plates, stack.energy, stack.expected, random)
        c = encode_layers(energies, stack.plates, decode_shower(g, stack.plates, stack.energy, stack.expected), random)
        return g, c, stack.plates.present.expand(len(g), -1)

    def location_scale_of_layers(
        self, stack: StackConditions, features: LayerFeatures, x: Tensor
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return location and scale of c, shape (n, 2, layers) each, of showers of standardised coordinates x.

        ``features`` is the result of the method of that name.
        """
        location, scale = self.layer_location_scale.of_items([*features, self.common_of_layers(stack, x)])
        return location.transpose(1, 2), scale.transpose(1, 2)

    def common_of_layers(self, stack: StackConditions, x: Tensor) -> Tensor:
        """Return what all layers of a shower have in common as conditions of location and scale, shape (n, 1, ...)."""
        return torch.cat([stack.conditions.expand(len(x), -1), x], 1)[:, None]

    def location_scale_loss(self, phase: int, g: Tensor, c: Tensor, conditions: Tensor, energy: Tensor) -> Tensor:
        """Return the mean negative log likelihood of location and scale, of shower (phase 0) or layers (1).

        Args:
            phase: 0 or 1.
            g, c: coordinates of showers, see `encode`; c may have more layers than any of the stacks.
            conditions: result of `conditions`.
            energy: incident, shape (n,), GeV.
        """
        if phase == 0:
            return self.shower_location_scale.negative_log_likelihood(g, conditions[:, :CONDITIONS]).mean()
        with torch.no_grad():
            stack, shower = self.known_of(g, conditions, energy)
            x = self.shower_location_scale.standardise(g, stack.conditions)
            features = self.features(stack, shower)
        values = likelihood(_cropped(c, stack), *self.location_scale_of_layers(stack, features, x))
        return self._mean_of_layers(self._padded(values), stack).mean()

    def standardise(self, g: Tensor, c: Tensor, conditions: Tensor, energy: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and y of showers, shapes (n, 5) and (n, 2, layers); y is zero beyond the last layer.

        Arguments are those of `location_scale_loss`.
        """
        stack, shower = self.known_of(g, conditions, energy)
        x = self.shower_location_scale.standardise(g, stack.conditions)
        location_scale = self.location_scale_of_layers(stack, self.features(stack, shower), x)
        y = standardise(_cropped(c, stack), *location_scale)
        return x, torch.where(stack.plates.present[:, None], y, 0.0)

    def known_of(self, g: Tensor, conditions: Tensor, energy: Tensor) -> tuple[StackConditions, Shower]:
        """Return what conditions say of the stacks, and g of the showers."""
        stack = self.stack_of(conditions, energy)
        return stack, decode_shower(g, stack.plates, stack.energy, stack.expected)

    def losses(
        self, x: Tensor, y: Tensor, conditions: Tensor, energy: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return the denoising losses of shower and layers, one a shower, shape (n,) each.

        That of the shower is the mean of `SHOWER_DRAWS` noise levels: its network is small and learns from few numbers.
        """
        stack, _, _, of_layers = self._bound(x, conditions, energy)
        of_shower, y, (first, second) = self._shower(stack), self._padded(y), self.preconditionings
        one = torch.stack([
            loss(of_shower, first, x, SCHEDULE.draw(random, like=x), random).mean(1) for _ in range(SHOWER_DRAWS)
        ])  # fmt: skip
        other = loss(of_layers, second, y, SCHEDULE.draw(random, like=y), random)
        return one.mean(0), self._mean_of_layers(other, stack)

    def teacher_targets(
        self, teacher: PlatesModel, steps: tuple[int, int], x: Tensor, y: Tensor, conditions: Tensor, energy: Tensor,
        random: RandomNumbers,
    ) -> StackTargets:  # fmt: skip
        """Let a teacher denoise showers with noise, see `calograd.diffusion.progressive`.

        Args:
            teacher: a diffusion model, or one distilled into a multiple of this one's steps.
            steps: steps of a teacher that is a diffusion model for every step of the student, of shower and layers.
            x, y: standardised coordinates of the showers, see `standardise`.
            conditions: conditions of this model and of the teacher.
            energy: incident, shape (n,), GeV.
            random: random numbers of the showers.
        """
        first, second = self.preconditionings
        assert isinstance(first, Progressive)
        assert isinstance(second, Progressive)
        stack, _, _, of_layers = teacher._bound(x, conditions, energy)
        one = teacher_of(teacher._shower(stack), teacher.preconditionings[0], first, steps[0])
        other = teacher_of(of_layers, teacher.preconditionings[1], second, steps[1])
        of_shower = teacher_targets(first, one, x, random)
        return StackTargets(conditions, energy, x, of_shower, teacher_targets(second, other, self._padded(y), random))

    def distillation_losses(self, targets: StackTargets) -> tuple[Tensor, Tensor]:
        """Return the distillation losses of shower and layers, one a shower, shape (n,) each.

        A network of one step makes the numbers b themselves, and a smooth function of noise cannot jump from an empty
        plate to a filled one. So most of its loss of b is that of `coarser` numbers, for which plates that hold next to
        nothing are nearly empty; the share `FINE` is of b as it is.
        """
        bound = self._bound(targets.x, targets.conditions, targets.energy)
        one = distillation_loss(self._shower(bound.stack), targets.shower).mean(1)
        seen, noise, target = targets.layers
        made = bound.network(seen, noise)
        other = (made - target).square()
        grid = self.preconditionings[1]
        if isinstance(grid, Progressive) and grid.steps == 1:
            sine = steps_of(grid).sine
            y, wanted = seen + sine * made, seen + sine * target
            other = FINE * other + (1 - FINE) * self._coarser_loss(y, wanted, bound) / sine**2
        return one, self._mean_of_layers(other, bound.stack)

    def _coarser_loss(self, y: Tensor, wanted: Tensor, bound: BoundLayers) -> Tensor:
        """Return squared errors of c, and of b as `coarser` has it, in units of y; shape (n, 2 layers)."""
        location, scale = bound.location_scale
        layers, present = location.shape[2], bound.stack.plates.present
        y, wanted = (values.view(len(y), LAYER, -1)[..., :layers] for values in (y, wanted))
        c = restore(wanted, location, scale)
        b = [restore(values, location, scale)[:, 1] for values in (y, wanted)]
        first, second = (coarser(each, c, bound.stack.plates, bound.shower) for each in b)
        error = torch.stack([y[:, 0] - wanted[:, 0], (first - second) / scale[:, 1]], 1)
        return self._padded(torch.where(present[:, None], error, 0.0).square())

    def _bound(self, x: Tensor, conditions: Tensor, energy: Tensor) -> BoundLayers:
        """Return the layers' network of showers of coordinates x."""
        with torch.no_grad():
            g = self.shower_location_scale.restore(x, conditions[:, :CONDITIONS])
            stack, shower = self.known_of(g, conditions, energy)
            features = self.features(stack, shower)
            location_scale = self.location_scale_of_layers(stack, features, x)
        network = self._layers(stack, shower, features, x, location_scale)
        return BoundLayers(stack, shower, location_scale, network)

    def _mean_of_layers(self, values: Tensor, stack: StackConditions) -> Tensor:
        """Return the mean over the layers that each stack has, shape (n,), of numbers of shape (n, 2 layers)."""
        present = self._padded(stack.plates.present[:, None].expand(len(values), LAYER, -1).to(values))
        return (values * present).sum(1) / present.sum(1)

    def _padded(self, values: Tensor) -> Tensor:
        """Return numbers of all layers, shape (n, 2 layers), of those of the stack's, shape (n, 2, layers)."""
        return pad(values, (0, self.architecture.layers - values.shape[2])).flatten(1)

    def _shower(self, stack: StackConditions) -> Network:
        """Return the shower's network with its conditions bound."""
        return lambda z, s: self.shower_network(z, s, stack.conditions)

    def _layers(
        self, stack: StackConditions, shower: Shower, features: LayerFeatures, x: Tensor, location_scale: LocationScale
    ) -> Network:
        """Return the layers' network with its conditions bound; it returns zero beyond the last layer."""
        q = self.thresholds(stack, shower, location_scale)
        if isinstance(self.layer_network, ResidualMlp):
            return self._dense(self.layer_network, stack, self.dense_inputs(stack, features, x, q))
        return self._shared(self.layer_network, stack, features, x, q)

    def thresholds(self, stack: StackConditions, shower: Shower, location_scale: LocationScale) -> Tensor:
        """Return the standardised numbers y between an empty layer, or active plate, and a filled one.

        The shape is (n, `LAYER`, layers); they are zero beyond the last layer.
        """
        q = standardise(edges(stack.plates, shower), *location_scale)
        return torch.where(stack.plates.present[:, None], q, 0.0)

    def _shared(
        self, network: LayerNetwork, stack: StackConditions, features: LayerFeatures, x: Tensor, q: Tensor
    ) -> Network:
        """Return a network that all layers share with its conditions and thresholds q bound."""
        layers = q.shape[2]
        present = None if bool(stack.plates.present.all()) else stack.plates.present[..., None].to(x)
        known = torch.cat([stack.conditions.expand(len(x), -1), x], 1)
        q = q.transpose(1, 2)

        def bound(scaled: Tensor, noise: Tensor) -> Tensor:
            at = self.preconditionings[1].coefficients((4 * noise).exp()[:, None, None])
            numbers = scaled.reshape(len(scaled), LAYER, -1)[..., :layers].transpose(1, 2)
            if present is not None:
                numbers = numbers * present
            result = network(numbers, noise, known, features, q * at.into, present)
            return self._padded(result.transpose(1, 2))

        return bound

    def _dense(self, network: ResidualMlp, stack: StackConditions, known: DenseInputs) -> Network:
        """Return a network that sees all layers at once with its conditions bound."""

        def bound(scaled: Tensor, noise: Tensor) -> Tensor:
            at = self.preconditionings[1].coefficients((4 * noise).exp()[:, None])
            numbers, q = scaled * known.present, known.thresholds * at.into
            result: Tensor = network(numbers, noise, stack.conditions, known.context, q)
            return result * known.present

        return bound

    def dense_inputs(self, stack: StackConditions, features: LayerFeatures, x: Tensor, q: Tensor) -> DenseInputs:
        """Return what a network that sees all layers at once knows of showers.

        Args:
            stack: the stacks.
            features: result of `features`.
            x: standardised coordinates of the showers, shape (n, `SHOWER`).
            q: result of `thresholds`.
        """
        present = self._padded(stack.plates.present[:, None].expand(-1, LAYER, -1).to(x))
        of_layers = [features.shower[..., DENSE_SHOWER], features.stack[..., DENSE_STACK]]
        padded = [self._padded(values.transpose(1, 2)) * present for values in of_layers]
        thresholds = self._padded(q)
        parts = [x, *(values.expand(len(x), -1) for values in padded), thresholds.clamp(-DENSE_BOUND, DENSE_BOUND)]
        return DenseInputs(torch.cat(parts, 1), thresholds, present)

    def known_layers(
        self, stack: StackConditions, shower: Shower, x: Tensor, energies: Tensor, energy: Tensor
    ) -> KnownLayers:  # fmt: skip
        """Return what the second stage knows of showers.

        Args:
            stack, shower: stacks and showers, see `known_of`.
            x: standardised coordinates of the showers, shape (n, `SHOWER`).
            energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
            energy: incident, shape (n,) or (1,), GeV.
        """
        conditions = stack.conditions.expand(len(x), -1)
        lengths = [STACK + k * (len(NUMBERS) + 1) + NUMBERS.index("radiation_length") for k in range(2)]
        raw = stack.conditions[:, lengths] * self.condition_scale[lengths] + self.condition_mean[lengths]
        features = layer_features(stack.plates, shower).joined()
        return KnownLayers.of(
            torch.cat([conditions, x], 1), features, energies, stack.plates, raw.exp(), energy
        )  # fmt: skip

    def generate(
        self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers
    ) -> LayerEnergies | Points:
        """Generate showers, see `Model`."""
        sampler, checkpointed = sampler_of(schedule), schedule.options.checkpointed
        noise = [random.normal(size, like=conditions) for size in (SHOWER, LAYER * self.architecture.layers)]
        first, second = self.preconditionings
        shower_steps = (self.architecture.distilled_steps or (SHAPE_STEPS * schedule.steps,))[0]
        grids = [sampler.grid(SCHEDULE, steps) for steps in (shower_steps, schedule.steps)]
        stack = self.stack_of(conditions, energy)
        network = self._shower(stack)
        x = sample(
            lambda z, s: denoise(network, first, z, s), noise[0], grids[0], sampler, random.normal_like,
            checkpointed,
        )  # fmt: skip
        g = self.shower_location_scale.restore(x, stack.conditions)
        shower = decode_shower(g, stack.plates, stack.energy, stack.expected)
        features = self.features(stack, shower)
        location, scale = self.location_scale_of_layers(stack, features, x)
        of_layers = self._layers(stack, shower, features, x, (location, scale))
        y = sample(
            lambda z, s: denoise(of_layers, second, z, s), noise[1], grids[1], sampler, random.normal_like,
            checkpointed,
        )  # fmt: skip
        y = y.reshape(len(y), LAYER, -1)[..., : location.shape[2]]
        energies = decode(restore(y, location, scale), stack.plates, shower)
        return self.finish_layers(stack, shower, x, energies, energy, schedule, random)

    def finish_layers(
        self, stack: StackConditions, shower: Shower, x: Tensor, energies: tuple[Tensor, Tensor], energy: Tensor,
        schedule: SamplingSchedule, random: RandomNumbers,
    ) -> LayerEnergies | Points:  # fmt: skip
        """Return generated layers as they are, or with points in their active plates.

        Args:
            stack, shower, x, energy: see `known_layers`.
            energies: of absorbers and active plates, shape (n, layers) each, GeV.
            schedule: says which.
            random: random numbers of the showers.
        """
        absorber, active = energies
        if self.points is None or schedule.options.layers_only:
            return LayerEnergies(active, absorber)
        layers = self.known_layers(stack, shower, x, torch.stack([absorber, active], -1), energy)
        sampler, steps = self.architecture.point_sampling()
        return self.points.generate(layers, absorber, sampler, steps, schedule.options.smooth, random)


def _cropped(c: Tensor, stack: StackConditions) -> Tensor:
    """Return numbers of layers, shape (n, 2, layers), of as many layers as the deepest stack has."""
    return c[..., : stack.plates.lengths.shape[1]]


def plate_numbers(material: Material, like: Tensor) -> Tensor:
    """Return `NUMBERS` of a material and its minimum ionisation, shape (1, 4), with dtype and device of ``like``."""
    chosen = [DESCRIPTORS.index(name) for name in NUMBERS]
    loss_rate = torch.as_tensor(material.minimum_ionisation).to(like).reshape(1, 1)
    return torch.cat([numbers_of(material, like=like)[:, chosen], loss_rate], 1)


def numbers_of_rows(materials: Sequence[Material], which: Tensor, like: Tensor) -> Tensor:
    """Return `plate_numbers` of the material of every row, shape (n, 4).

    Args:
        materials: the materials.
        which: number of each row's material among these, shape (n,), integers.
        like: tensor of the dtype and device that the result has.
    """
    return torch.cat([plate_numbers(material, like=like) for material in materials])[which.long()]


def _stack_conditions(plates: Plates, energy: Tensor, photon: Tensor, charge: Tensor, cosine: Tensor) -> Tensor:
    """Return the conditions of stack and particle, not standardised, shape (n, `STACK`).

    Thicknesses of plates enter by their means over the nominal shower, by how they change along it, and by how they
    scatter: stacks of the same means resolve an energy worse if their sampling fractions differ from layer to layer.
    """
    expected, _ = nominal(plates, energy, photon)
    weights = expected.shares / expected.shares.sum(1, keepdim=True)
    present = plates.present
    absorber = torch.where(present, plates.lengths[..., 0], 1.0).log()
    active = torch.where(present, plates.ionisation[..., 1], 1.0).log()
    critical = (weights * plates.ionisation.sum(-1)).sum(1) / (weights * plates.layers).sum(1)
    fraction = (weights * (plates.ratio / (1 + plates.ratio))).sum(1)
    u = (plates.middles - expected.mean[:, None]) / expected.spread[:, None]
    columns = [
        (energy / critical).log(), energy.log(), photon, charge, -cosine.log(),
        (weights * absorber).sum(1), (weights * active).sum(1),
        (weights * absorber * u).sum(1), (weights * active * u).sum(1),
        (weights * absorber * (u.square() - 1)).sum(1), (weights * active * (u.square() - 1)).sum(1),
        *_spreads(weights, absorber, active),
        fraction.log(), ((expected.behind + 1e-5) / (1 - expected.behind + 1e-5)).log(),
        expected.mean.log(), expected.spread.log(), plates.backs[:, -1].log(), absorber[:, 0], active[:, 0],
    ]  # fmt: skip
    rows = max(map(len, columns))
    return torch.stack([column.expand(rows) for column in columns], 1)


def _spreads(weights: Tensor, absorber: Tensor, active: Tensor) -> list[Tensor]:
    """Return variances and covariance of two numbers of layers, shape (n,) each, by weights that add up to one."""
    a, b = (values - (weights * values).sum(1, keepdim=True) for values in (absorber, active))
    return [(weights * a * a).sum(1), (weights * b * b).sum(1), (weights * a * b).sum(1)]


def layer_features(plates: Plates, shower: Shower) -> LayerFeatures:
    """Return the features of every layer, not standardised.

    Of the shower: the expected energy, the distances from its mean depth and its start. Of the stack: the depth, the
    absorber's length and the active plate's ionisation, both relative to the layers before and behind, the ratio of
    active plate and absorber for a minimum ionising particle, and the length that follows.
    """
    present = plates.present
    absorber = torch.where(present, plates.lengths[..., 0], 1.0).log()
    active = torch.where(present, plates.ionisation[..., 1], 1.0).log()
    both = present[:, 1:] & present[:, :-1]
    further = [torch.where(both, values[:, 1:] - values[:, :-1], 0.0) for values in (absorber, active)]
    of_shower = [
        (shower.total[:, None] * shower.shares + SOFT_ENERGY).log(),
        ((plates.middles - shower.mean[:, None]) / shower.spread[:, None]).clamp(-WIDE, WIDE),
        (plates.backs - shower.start[:, None]).clamp(-NEAR, NEAR),
    ]
    of_stack = [
        plates.middles, absorber, active, plates.ratio.log(),
        *(pad(values, (0, 1)) for values in further), *(pad(values, (1, 0)) for values in further),
        (1 + plates.backs[:, -1:] - plates.backs).log(),
    ]  # fmt: skip
    return LayerFeatures(torch.stack(of_shower, 2), torch.stack(of_stack, 2))
