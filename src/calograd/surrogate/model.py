"""What the mathematics of every kind of surrogate shares.

A shower is learnt by two diffusion models in a row, both on coordinates that a small network has standardised for the
condition at hand, so that the smooth dependence on the design does not ride on the noise model:

    shape      few numbers    g <-> x given cond           x from diffusion given cond
    pattern    many numbers   c <-> y given cond and x     y from diffusion given cond and x

A kind of surrogate says how showers become g and c and back, and which network learns the pattern. All are given

    cond = ln E/E_c, ln dx/R_M, ln of depths / X0, and the logarithms of chosen numbers of the material
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from calograd.diffusion.denoise import PRECONDITIONINGS, Network, denoise, loss
from calograd.diffusion.noise import SCHEDULES
from calograd.diffusion.sample import SAMPLERS, sample
from calograd.errors import InputError
from calograd.material import NUMBERS, Material
from calograd.networks.mlp import ResidualMlp
from calograd.networks.moments import ConditionalMoments

SHAPE_STEPS = 3
"""Steps of the shape's sampler for every step of the pattern's."""


M = TypeVar("M", bound=nn.Module)


class Architecture(Protocol):
    """Everything that fixes the shapes of the weights, whatever the kind."""

    @property
    def n_xy(self) -> int:
        """Cells across of the designs."""

    @property
    def n_z(self) -> int:
        """Layers of the designs."""

    @property
    def schedule(self) -> str:
        """A name of `calograd.diffusion.noise.SCHEDULES`."""

    @property
    def preconditioning(self) -> str:
        """A name of `calograd.diffusion.denoise.PRECONDITIONINGS`."""

    @property
    def material_numbers(self) -> tuple[str, ...]:
        """Which of `calograd.material.NUMBERS` are conditions beside the scaled ones."""

    @property
    def tied(self) -> bool:
        """Whether location and scale of the pattern are equal by symmetry."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""

    def untied(self) -> Architecture:
        """The same for beams without symmetry."""

    def build(self) -> Model:
        """A model with its first, random weights."""


class Model(nn.Module, ABC):
    """Weights and mathematics of a surrogate; `calograd.surrogate.Surrogate` is its public face.

    Args:
        architecture: everything that fixes the shapes of the weights.
        depths: numbers of `depths`.
        permutations: the symmetries of a shower's pattern, shape (symmetries, pattern).

    Attributes:
        n_conditions: numbers of the conditions.
        condition_mean, condition_scale: by which conditions are standardised.
        schedule, preconditioning: of the diffusion.
    """

    architecture: Architecture

    def __init__(self, architecture: Architecture, depths: int, permutations: Tensor) -> None:
        super().__init__()
        self.architecture = architecture
        self.schedule = SCHEDULES[architecture.schedule]
        self.preconditioning = PRECONDITIONINGS[architecture.preconditioning]
        self.n_conditions = 2 + depths + len(architecture.material_numbers)
        self.register_buffer("condition_mean", torch.zeros(self.n_conditions))
        self.register_buffer("condition_scale", torch.ones(self.n_conditions))
        self.condition_mean: Tensor
        self.condition_scale: Tensor
        self.register_buffer("permutations", permutations, persistent=False)
        self.permutations: Tensor

    def conditions(self, energy: Tensor, dx: Tensor, dz: Tensor, numbers: Tensor) -> Tensor:
        """Standardised conditions, differentiable in everything.

        Args:
            energy: incident, shape (n,) or (1,), GeV.
            dx: pitch, shape (n,) or (1,), cm.
            dz: depths, shape (n, n_z) or (1, n_z), cm.
            numbers: of the material, see `numbers_of`, shape (n, 4) or (1, 4).
        """
        _, x0, r_m, e_c = numbers.T
        rows = max(len(energy), len(dx), len(dz), len(numbers))
        chosen = [NUMBERS.index(name) for name in self.architecture.material_numbers]
        scaled = ((energy / e_c)[:, None], (dx / r_m)[:, None], self.depths(dz) / x0[:, None], numbers[:, chosen])
        raw = torch.cat([part.log().expand(rows, -1) for part in scaled], dim=1)
        return (raw - self.condition_mean) / self.condition_scale

    @abstractmethod
    def depths(self, dz: Tensor) -> Tensor:
        """Depths that are conditions, shape (n, depths), cm, of those of the layers, shape (n, n_z)."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of what is generated of one shower."""

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """How many showers its networks may take at once, so that memory stays bounded."""

    @property
    @abstractmethod
    def guided(self) -> bool:
        """Whether it learnt to do without conditions, so that guidance is possible."""

    def untied(self) -> Model:
        """The same function with weights that can learn showers of a beam off the axis, or not along it."""
        return self

    @abstractmethod
    def calibrate(self, measured: Tensor) -> None:
        """Set what is no weight from the showers to train on, shape (n, *shape), GeV; called once, before training."""

    @abstractmethod
    def standardise(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """x and y of showers: what the two diffusion models learn, shapes (n, shape numbers) and (n, pattern)."""

    @abstractmethod
    def moments_loss(
        self, phase: int, measured: Tensor, energy: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Negative log likelihood of location and scale, of the shape (phase 0) or of the pattern (1), per number."""

    @abstractmethod
    def losses(
        self, x: Tensor, y: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Denoising losses of shape and pattern, one a sample, shape (n,) each."""

    @abstractmethod
    def generate(
        self,
        conditions: Tensor,
        energy: Tensor,
        n: int,
        sampler: str,
        steps: int,
        generator: torch.Generator | None,
        checkpointed: bool = False,
        guidance: float = 0.0,
    ) -> Tensor:
        """n showers, shape (n, *shape), GeV, differentiable in the conditions and the energy.

        Random numbers are drawn first and the conditions applied after, so equal generators give common random
        numbers.

        Args:
            conditions: of `conditions`, shape (n, conditions) or (1, conditions).
            energy: incident, shape (n,) or (1,), GeV.
            n: number of showers.
            sampler: a name of `SAMPLERS`.
            steps: of the pattern's sampler.
            generator: of every random number.
            checkpointed: save memory in a gradient, see `calograd.diffusion.sample.sample`.
            guidance: w of classifier-free guidance, F + w (F - F without conditions); 0 for none.
        """


class TwoStage(Model):
    """A model of shape and pattern."""

    shape_moments: ConditionalMoments
    pattern_moments: ConditionalMoments
    shape_network: ResidualMlp

    @abstractmethod
    def encode_shape(self, measured: Tensor, energy: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """g of showers, as `encode` gives it."""

    @abstractmethod
    def encode(
        self, measured: Tensor, energy: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """g and c of showers; ``generator`` spreads what is empty."""

    @abstractmethod
    def decode(self, g: Tensor, c: Tensor, energy: Tensor) -> Tensor:
        """Showers of g and c, shape (n, *shape), GeV, for energies of shape (n,). Differentiable."""

    @abstractmethod
    def pattern(
        self,
        conditions: Tensor,
        x: Tensor,
        *,
        guidance: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Network:
        """The pattern's network with its conditions bound; ``generator`` of what is dropped in training."""

    def untied(self) -> Model:
        """Location and scale of every number of the pattern by itself, see `Model`."""
        if not self.architecture.tied:
            return self
        moments = self.pattern_moments
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
            result = self.architecture.untied().build().to(self.condition_mean)
        own = {f"pattern_moments.{name}": value for name, value in moments.untied_weights().items()}
        result.load_state_dict(self.state_dict() | own)
        return result.requires_grad_(next(self.parameters()).requires_grad).train(self.training)

    def calibrate(self, measured: Tensor) -> None:
        """Nothing: every number is a weight."""

    def standardise(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """x and y of showers, see `Model`."""
        g, c = self.encode(measured, energy, generator)
        x = self.shape_moments.standardise(g, conditions)
        return x, self.pattern_moments.standardise(c, torch.cat([conditions, x], dim=1))

    def moments_loss(
        self, phase: int, measured: Tensor, energy: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """Negative log likelihood of location and scale, see `Model`."""
        g, c = self.encode(measured, energy, generator)
        if phase == 0:
            return self.shape_moments.negative_log_likelihood(g, conditions)
        with torch.no_grad():
            x = self.shape_moments.standardise(g, conditions)
        return self.pattern_moments.negative_log_likelihood(c, torch.cat([conditions, x], dim=1))

    def losses(
        self, x: Tensor, y: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Denoising losses of shape and pattern, see `Model`."""
        n = len(x)
        shape = loss(
            lambda z, s: self.shape_network(z, s, conditions),
            self.preconditioning, x, self.schedule.draw(n, generator).to(x), generator,
        )  # fmt: skip
        pattern = loss(
            self.pattern(conditions, x, generator=generator if torch.is_grad_enabled() else None),
            self.preconditioning, y, self.schedule.draw(n, generator).to(y), generator,
        )  # fmt: skip
        return shape.mean(1), pattern.mean(1)

    def generate(
        self,
        conditions: Tensor,
        energy: Tensor,
        n: int,
        sampler: str,
        steps: int,
        generator: torch.Generator | None,
        checkpointed: bool = False,
        guidance: float = 0.0,
    ) -> Tensor:
        """n showers, see `Model`.

        The shape takes `SHAPE_STEPS` times the steps of the pattern: it costs little and rules the spreads.
        """
        walk, grids = SAMPLERS[sampler], self.grids(sampler, steps)
        noise = [torch.randn(n, dim, generator=generator).to(conditions) for dim in self.noise_dims]
        x = sample(lambda z, s: self.denoise_shape(z, s, conditions), noise[0], grids[0], walk, generator, checkpointed)
        pattern = self.pattern(conditions, x, guidance=guidance)
        y = sample(
            lambda z, s: denoise(pattern, self.preconditioning, z, s),
            noise[1], grids[1], walk, generator, checkpointed,
        )  # fmt: skip
        return self.restore(x, y, conditions, energy)

    @property
    def noise_dims(self) -> tuple[int, int]:
        """Numbers of shape and pattern, and so of the noise that becomes a shower."""
        return len(self.shape_moments.tie), len(self.pattern_moments.tie)

    def grids(self, sampler: str, steps: int) -> tuple[Tensor, Tensor]:
        """Noise levels that the samplers of shape and pattern visit, falling to zero, float64; see `generate`."""
        walk = SAMPLERS[sampler]
        return walk.grid(self.schedule, SHAPE_STEPS * steps), walk.grid(self.schedule, steps)

    def denoise_shape(self, x: Tensor, sigma: Tensor, conditions: Tensor) -> Tensor:
        """D(x; sigma) of the shape, same shape as ``x``; ``sigma`` has no dimensions or is of shape (n,)."""
        return denoise(lambda z, s: self.shape_network(z, s, conditions), self.preconditioning, x, sigma)

    def denoise_pattern(self, y: Tensor, sigma: Tensor, conditions: Tensor, x: Tensor) -> Tensor:
        """D(y; sigma) of the pattern of showers of shape ``x``, same shape as ``y``; ``sigma`` as above."""
        return denoise(self.pattern(conditions, x), self.preconditioning, y, sigma)

    def restore(self, x: Tensor, y: Tensor, conditions: Tensor, energy: Tensor) -> Tensor:
        """Showers, GeV, of standardised shape and pattern: `standardise` undone."""
        g = self.shape_moments.restore(x, conditions)
        c = self.pattern_moments.restore(y, torch.cat([conditions.expand(len(x), -1), x], dim=1))
        return self.decode(g, c, energy.expand(len(x)))


def chosen_numbers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of material numbers in the order of `calograd.material.NUMBERS`. Raises `InputError` for others."""
    chosen = tuple(name for name in NUMBERS if name in names)
    if len(chosen) != len(names):
        raise InputError(f"material_numbers = {list(names)}: expected some of {', '.join(NUMBERS)}")
    return chosen


def numbers_of(*materials: Material, like: Tensor) -> Tensor:
    """`calograd.material.NUMBERS` of materials, shape (materials, 4), in type and on device of ``like``.

    Differentiable in those that are tensors.
    """
    rows = [
        torch.stack([torch.as_tensor(getattr(m, name), dtype=like.dtype, device=like.device) for name in NUMBERS])
        for m in materials
    ]
    return torch.stack(rows)


def place(model: M, device: str | torch.device) -> M:
    """The model on a torch device. Raises `InputError` for a device that torch does not have."""
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device '{device}' cannot be used: {reason}; expected cpu, cuda or another of torch"
        ) from error
