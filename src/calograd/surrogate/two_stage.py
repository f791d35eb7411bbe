"""Two diffusion models in sequence: one of a shower's shape, one of its pattern.

Both learn coordinates that a small network has standardised for the given conditions, so the diffusion models need not
learn the smooth dependence on the design:

    shape      few numbers    g <-> x given cond           x from diffusion given cond
    pattern    many numbers   c <-> y given cond and x     y from diffusion given cond and x

Each kind of surrogate defines the coordinates g and c and the network of the pattern. cond is defined in
`calograd.surrogate.model`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from calograd.diffusion.denoisers import Network, Preconditioning, denoise, loss
from calograd.diffusion.progressive import (
    PROGRESSIVE,
    Progressive,
    Targets,
    Teacher,
    distillation_loss,
    teacher_targets,
)
from calograd.diffusion.samplers import DEFAULT_SAMPLER, SAMPLERS, Sampler, sample
from calograd.nn.location_scale import ConditionalLocationScale, restore, standardise
from calograd.nn.mlp import ResidualMlp
from calograd.surrogate.model import DesignArchitecture, DesignModel, SamplingSchedule, sampler_of
from calograd.system.random_numbers import RandomNumbers

SHAPE_STEPS = 3
"""Steps of the shape's sampler for every step of the pattern's."""
LocationScale = tuple[Tensor, Tensor]
"""Location and scale of every number, shape (n, numbers) each."""


class TeacherTargets(NamedTuple):
    """Targets of both networks of a student, a row a shower.

    Args:
        conditions: conditions of the student and of its teacher, shape (n, conditions).
        x: standardised shape that conditions the pattern, shape (n, shape numbers).
        shape, pattern: targets of the two networks.
    """

    conditions: Tensor
    x: Tensor
    shape: Targets
    pattern: Targets

    def __len__(self) -> int:
        return len(self.x)

    def at(self, rows: Tensor | slice) -> TeacherTargets:
        """Return the chosen rows."""
        return TeacherTargets(self.conditions[rows], self.x[rows], self.shape.at(rows), self.pattern.at(rows))


T = TypeVar("T", bound=tuple[Any, ...])


class TwoStage(DesignModel):
    """A model of shape and pattern.

    Args:
        architecture: sizes and choices that fix the shapes of the weights.
        depths: number of depths that are conditions, see `DesignModel.depths`.
        permutations: symmetries of a shower's pattern, shape (symmetries, pattern).
        shape: number of numbers of the shape.
        of_particles: see `DesignModel`.
    """

    def __init__(
        self, architecture: DesignArchitecture, depths: int, permutations: Tensor, shape: int, of_particles: int = 0
    ) -> None:
        super().__init__(architecture, depths, permutations, of_particles)
        a, conditions = architecture, self.n_conditions
        classes = symmetry_classes(permutations) if a.symmetric else torch.arange(permutations.shape[1])
        self.shape_location_scale = ConditionalLocationScale(conditions, torch.arange(shape), a.location_scale_width)
        self.pattern_location_scale = ConditionalLocationScale(conditions + shape, classes, a.location_scale_width)
        self.shape_network = ResidualMlp(shape, conditions, 0, a.shape_width, a.shape_blocks, a.embedding)

    @property
    def two_stage(self) -> TwoStage:
        """The model, see `DesignModel`."""
        return self

    @abstractmethod
    def encode_shape(self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers) -> Tensor:
        """Return g of `encode` alone."""

    @abstractmethod
    def encode(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return g and c of showers under standardised conditions; ``random`` spreads empty cells or pixels."""

    @abstractmethod
    def decode(self, g: Tensor, c: Tensor, energy: Tensor, conditions: Tensor) -> Tensor:
        """Return showers from g and c, shape (n, *shape), GeV, for energies of shape (n,). Differentiable."""

    @abstractmethod
    def pattern(
        self,
        conditions: Tensor,
        x: Tensor,
        location_scale: LocationScale,
        *,
        guidance: float = 0.0,
        random: RandomNumbers | None = None,
    ) -> Network:
        """Return the pattern's network with its conditions bound.

        Args:
            conditions: shape (n, conditions) or (1, conditions).
            x: standardised shape, shape (n, shape numbers).
            location_scale: location and scale of the pattern, see `location_scale_of_pattern`.
            guidance: w of classifier-free guidance.
            random: random numbers of what is dropped in training; None: nothing is dropped.
        """

    def asymmetric(self) -> DesignModel:
        """Return the model with a location and scale for every number of the pattern by itself, see `Model`."""
        if not self.architecture.symmetric:
            return self
        location_scale = self.pattern_location_scale
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
            result = replace(self.architecture, symmetric=False).build().to(self.condition_mean)
        own = {f"pattern_location_scale.{name}": value for name, value in location_scale.asymmetric_weights().items()}
        result.load_state_dict(self.state_dict() | own)
        return result.requires_grad_(next(self.parameters()).requires_grad).train(self.training)

    def standardise(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return x and y of showers, see `DesignModel`."""
        g, c = self.encode(measured, energy, conditions, random)
        x = self.shape_location_scale.standardise(g, conditions)
        return x, standardise(c, *self.location_scale_of_pattern(conditions, x))

    def location_scale_loss(
        self, phase: int, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> Tensor:
        """Return the negative log likelihood of location and scale, of shape (phase 0) or pattern (1), per number."""
        g, c = self.encode(measured, energy, conditions, random)
        if phase == 0:
            return self.shape_location_scale.negative_log_likelihood(g, conditions)
        with torch.no_grad():
            x = self.shape_location_scale.standardise(g, conditions)
        return self.pattern_location_scale.negative_log_likelihood(c, torch.cat([conditions, x], dim=1))

    def losses(self, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return the denoising losses of shape and pattern, see `DesignModel`."""
        shape = loss(self._shape(conditions), self.shape_preconditioning, x, self.schedule.draw(random, like=x), random)
        pattern = loss(
            self._pattern(conditions, x, random if torch.is_grad_enabled() else None),
            self.preconditioning, y, self.schedule.draw(random, like=y), random,
        )  # fmt: skip
        return shape.mean(1), pattern.mean(1)

    def teacher_targets(
        self, teacher: TwoStage, steps: tuple[int, int], x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> TeacherTargets:
        """Let a teacher denoise showers with noise, see `calograd.diffusion.progressive`.

        Args:
            teacher: a diffusion model, or one distilled into a multiple of this one's steps.
            steps: steps of a teacher that is a diffusion model for every step of the student, of shape and pattern.
            x, y: standardised shape and pattern of the showers, see `standardise`.
            conditions: conditions of this model and of the teacher.
            random: random numbers of the showers.
        """
        shape, pattern = self.shape_preconditioning, self.preconditioning
        assert isinstance(shape, Progressive)
        assert isinstance(pattern, Progressive)
        first = teacher_of(teacher._shape(conditions), teacher.shape_preconditioning, shape, steps[0])
        then = teacher_of(teacher._pattern(conditions, x), teacher.preconditioning, pattern, steps[1])
        of_shape, of_pattern = teacher_targets(shape, first, x, random), teacher_targets(pattern, then, y, random)
        return TeacherTargets(conditions, x, of_shape, of_pattern)

    def distillation_losses(self, targets: TeacherTargets) -> tuple[Tensor, Tensor]:
        """Return the distillation losses of shape and pattern, one a shower, shape (n,) each."""
        return (
            distillation_loss(self._shape(targets.conditions), targets.shape).mean(1),
            distillation_loss(self._pattern(targets.conditions, targets.x), targets.pattern).mean(1),
        )

    def location_scale_of_pattern(self, conditions: Tensor, x: Tensor) -> LocationScale:
        """Return location and scale of c, shape (n, pattern) each, of showers of shape ``x``."""
        location, scale = self.pattern_location_scale(torch.cat([conditions.expand(len(x), -1), x], dim=1))
        return location, scale

    def _pattern(self, conditions: Tensor, x: Tensor, random: RandomNumbers | None = None) -> Network:
        return self.pattern(conditions, x, self.location_scale_of_pattern(conditions, x), random=random)

    def _shape(self, conditions: Tensor) -> Network:
        """Return the shape's network with its conditions bound."""
        return lambda z, s: self.shape_network(z, s, conditions)

    def shape_evaluations(self, sampler: Sampler, steps: int) -> int:
        """Return the evaluations of the shape's network.

        The shape takes `SHAPE_STEPS` times the steps of the pattern: it costs little and determines the spreads.
        """
        return sampler.nfe(SHAPE_STEPS * steps)

    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Tensor:
        """Generate showers, see `Model`."""
        sampler, grids = sampler_of(schedule), self.grids(schedule)
        noise = [random.normal(dim, like=conditions) for dim in self.noise_dims]
        x = sample(
            lambda z, s: self.denoise_shape(z, s, conditions), noise[0], grids[0], sampler, random.normal_like,
            schedule.options.checkpointed,
        )  # fmt: skip
        location_scale = self.location_scale_of_pattern(conditions, x)
        pattern = self.pattern(conditions, x, location_scale, guidance=schedule.options.guidance)
        y = sample(
            lambda z, s: denoise(pattern, self.preconditioning, z, s),
            noise[1], grids[1], sampler, random.normal_like, schedule.options.checkpointed,
        )  # fmt: skip
        return self.restore(x, y, location_scale, conditions, energy)

    @property
    def noise_dims(self) -> tuple[int, int]:
        """Number of coordinates of shape and pattern, and so of the noise that becomes a shower."""
        return len(self.shape_location_scale.symmetry_class), len(self.pattern_location_scale.symmetry_class)

    def grids(self, schedule: SamplingSchedule) -> tuple[Tensor, Tensor]:
        """Return the noise levels that the samplers of shape and pattern visit, falling to zero, float64."""
        sampler, own = sampler_of(schedule), self.architecture.distilled_steps
        shape_steps = SHAPE_STEPS * schedule.steps if own is None else own[0]
        return sampler.grid(self.schedule, shape_steps), sampler.grid(self.schedule, schedule.steps)

    def denoise_shape(self, x: Tensor, sigma: Tensor, conditions: Tensor) -> Tensor:
        """Return D(x; sigma) of the shape, same shape as ``x``; ``sigma`` has no dimensions or is of shape (n,)."""
        return denoise(self._shape(conditions), self.shape_preconditioning, x, sigma)

    def denoise_pattern(self, y: Tensor, sigma: Tensor, conditions: Tensor, x: Tensor) -> Tensor:
        """Return D(y; sigma) of the pattern of showers of shape ``x``, same shape as ``y``; ``sigma`` as above."""
        return denoise(self._pattern(conditions, x), self.preconditioning, y, sigma)

    def restore(
        self, x: Tensor, y: Tensor, location_scale: LocationScale, conditions: Tensor, energy: Tensor
    ) -> Tensor:
        """Return showers, GeV, of standardised shape and pattern: the inverse of `standardise`.

        ``location_scale`` is that of the pattern.
        """
        g = self.shape_location_scale.restore(x, conditions)
        return self.decode(g, restore(y, *location_scale), energy.expand(len(x)), conditions)


def symmetry_classes(permutations: Tensor) -> Tensor:
    """Return a class, from 0, for each number of a pattern; numbers of a class are equal by symmetry.

    Args:
        permutations: symmetries of the pattern, shape (symmetries, pattern).
    """
    classes: Tensor = torch.unique(permutations.min(0).values, return_inverse=True)[1]
    return classes


def join(parts: Sequence[T]) -> T:
    """Join teacher targets one behind the other."""
    columns = []
    for column in zip(*parts, strict=True):
        several = isinstance(column[0], Targets)
        columns.append(Targets(*map(torch.cat, zip(*column, strict=True))) if several else torch.cat(column))
    return type(parts[0])(*columns)


def teacher_of(network: Network, preconditioning: Preconditioning, student: Progressive, steps: int) -> Teacher:
    """Return a network as a teacher: by its own steps, if it is distilled itself, or steps of the default sampler."""
    sampler = SAMPLERS[DEFAULT_SAMPLER]
    if isinstance(preconditioning, Progressive):
        sampler, steps = PROGRESSIVE, preconditioning.steps // student.steps
    return Teacher(lambda z, s: denoise(network, preconditioning, z, s), sampler, steps)
