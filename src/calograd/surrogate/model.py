"""The protocol of surrogate models, which every kind implements for `Surrogate`, files of showers and training.

`Model` is the protocol of all kinds. `DesignModel` adds what cells and maps share: one design per shower as conditions,

    cond = ln E/E_c, ln dx/R_M, ln of depths / X0, and the logarithms of chosen numbers of the material

and denoising models of a shape and a pattern (`calograd.surrogate.two_stage`), which may be distilled into a few steps
(`calograd.diffusion.progressive`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.material import DESCRIPTORS, NUMBERS, Material
from calograd.detector.particles import Particles
from calograd.detector.sampling_stack import Stacks
from calograd.diffusion.denoisers import PRECONDITIONINGS, Preconditioning
from calograd.diffusion.progressive import NAME as PROGRESSIVE_NAME
from calograd.diffusion.progressive import PROGRESSIVE, Progressive
from calograd.diffusion.samplers import DEFAULT_SAMPLER, SAMPLERS, Sampler
from calograd.diffusion.schedules import SCHEDULES
from calograd.errors import InputError
from calograd.system.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from calograd.surrogate.two_stage import TwoStage

M = TypeVar("M", bound=nn.Module)

BATCH = 1000
"""Largest number of showers of a design generated at once; larger batches are no faster on a CPU."""


class Options(NamedTuple):
    """Options of a sample that only some surrogates have, see `calograd.surrogate.Surrogate.sample`."""

    checkpointed: bool = False
    guidance: float = 0.0
    smooth: bool = False
    layers_only: bool = False


class SamplingSchedule(NamedTuple):
    """Schedule of a sampler: its name, steps, evaluations and options.

    Args:
        sampler: name of the sampler.
        steps: number of steps; for surrogates of designs, those of the pattern.
        evaluations: number of evaluations of the network that these steps cost.
        shape_evaluations: number of evaluations of the shape's network besides; 0 where there is no shape.
        options: checkpoints, guidance, smoothness, layers alone.
    """

    sampler: str
    steps: int
    evaluations: int
    shape_evaluations: int = 0
    options: Options = Options()


@dataclass(frozen=True)
class Rows:
    """Showers asked for, one a row.

    Args:
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm; None for a surrogate of one detector.
        dz: depth of every layer, shape (n, n_z), cm; None for a surrogate of one detector.
        material: material of the calorimeter; None for a surrogate of one detector.
        incident: incident particles; None for those that the surrogate was trained on.
        n_xy: cells across; None for those of the surrogate.
        stacks: stacks of plates; None for a surrogate of something else.
    """

    energy: np.ndarray
    dx: np.ndarray | None = None
    dz: np.ndarray | None = None
    material: Material | None = None
    incident: Incidence | None = None
    n_xy: int | None = None
    stacks: Stacks | None = None

    def designs(self) -> tuple[np.ndarray, np.ndarray, Material]:
        """Return pitches, depths and material of showers of designs."""
        assert self.dx is not None
        assert self.dz is not None
        assert self.material is not None
        return self.dx, self.dz, self.material

    def at(self, chosen: np.ndarray | slice) -> Rows:
        """Return the chosen rows."""
        columns = (None if column is None else column[chosen] for column in (self.energy, self.dx, self.dz))
        energy, dx, dz = columns
        assert energy is not None
        incident = None if self.incident is None else self.incident[chosen]
        stacks = None if self.stacks is None else self.stacks[chosen]
        return Rows(energy, dx, dz, self.material, incident, self.n_xy, stacks)


class Generates(Protocol):
    """A model, or its fused form for inference."""

    def parameters(self) -> Iterable[Tensor]:
        """Return the weights."""

    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Any:
        """Generate showers, see `Model.generate`."""


@dataclass(frozen=True)
class Architecture(ABC):
    """The sizes and choices that fix the shapes of the weights: a dataclass of plain values."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data with lists for tuples, from which the class can be made again."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @abstractmethod
    def build(self) -> Model:
        """Return a model with random weights."""


class Model(nn.Module, ABC):
    """Weights and mathematics of a surrogate; `calograd.surrogate.Surrogate` is its public face.

    Attributes:
        architecture: sizes and choices that fix the shapes of the weights.
        condition_mean, condition_scale: mean and standard deviation by which conditions are standardised; their dtype
            and device are those of all weights.
    """

    architecture: Architecture
    condition_mean: Tensor
    condition_scale: Tensor

    @property
    @abstractmethod
    def batch_size(self) -> int:
        """Number of showers generated at once."""

    @property
    @abstractmethod
    def options(self) -> frozenset[str]:
        """Names of the `Options` that the model has."""

    @property
    def required_options(self) -> frozenset[str]:
        """Names of the `Options` without which the model generates nothing."""
        return frozenset()

    @property
    @abstractmethod
    def distilled(self) -> bool:
        """True if the model is distilled: a few steps of its own instead of a free choice of samplers."""

    @abstractmethod
    def sampling_schedule(self, sampler: str | None = None, steps: int | None = None) -> SamplingSchedule:
        """Return how showers are sampled; the model's own way where nothing is asked.

        Raises:
            InputError: a sampler or a number of steps that the model cannot take.
        """

    @property
    def takes_particles(self) -> bool:
        """True if particle, entry and direction are conditions; other models know those that they were trained on."""
        return False

    @abstractmethod
    def condition(self, design: Any, energy: Tensor, particles: Particles | None = None) -> Tensor:
        """Return conditions, shape (rows, conditions), differentiable in design, energy and particles.

        Args:
            design: one design for all showers or one a shower, of the class that the model takes: `Design`, or
                `SamplingDesign` and `Stacks`; None for a model of one detector.
            energy: incident, shape (n,) or (1,), GeV.
            particles: of n rows or of one; None unless the model `takes_particles`.
        """

    def finish(self, showers: Any, design: Any, particles: Particles | None) -> Any:  # noqa: ARG002
        """Return showers that `generate` made as the detector sees them: in its frame, and in the design's window."""
        return showers

    @abstractmethod
    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Any:
        """Generate showers, differentiable in conditions and energy.

        Random numbers are drawn first and conditions applied after, so equal generators give common random numbers.

        Args:
            conditions: result of `condition`, shape (n, conditions) or (1, conditions).
            energy: incident, shape (n,) or (1,), GeV.
            schedule: result of `sampling_schedule`.
            random: random numbers of the n showers.
        """

    @abstractmethod
    def fused(self) -> Generates:
        """Return a faster form of the model as its weights are now, without derivatives; the model if there is none.

        It is made anew for every sample: it costs little and cannot be out of date.
        """

    @abstractmethod
    def join(self, parts: Sequence[Any]) -> Any:
        """Return showers of several batches as one."""

    @abstractmethod
    def record(self, showers: Any, rows: Rows, name: str, config: dict[str, Any]) -> Any:
        """Return showers as the record of a file.

        Args:
            showers: one a row, as `generate` makes them.
            rows: energies and designs of the showers.
            name: name of the surrogate.
            config: settings that made the showers, as plain data.
        """

    @abstractmethod
    def asymmetric(self) -> Model:
        """Return the same function with weights that can learn showers of a beam off the axis, or not along it."""

    @abstractmethod
    def compact(self, material: Material | None) -> Model:
        """Return the same function for one material, with fewer weights if there are fewer."""


@dataclass(frozen=True)
class DesignArchitecture(Architecture):
    """Sizes and choices that cells and maps share.

    Args:
        n_xy: number of cells across of the designs.
        n_z: number of layers of the designs.
        shape_width: hidden numbers of the shape's network.
        shape_blocks: residual blocks of the shape's network.
        embedding: width of the embedding of noise level and conditions.
        location_scale_width: hidden numbers of the networks of location and scale.
        schedule: noise schedule, a name of `calograd.diffusion.schedules.SCHEDULES`.
        preconditioning: a name of `calograd.diffusion.denoisers.PRECONDITIONINGS`.
        material_numbers: names of `calograd.detector.material.DESCRIPTORS` that are conditions beside the scaled ones.
        symmetric: True if numbers of the pattern that are equal by symmetry share location and scale.
        distilled_steps: steps of shape and pattern of a distilled surrogate; None for diffusion models.

    Raises:
        InputError: unknown material numbers, or distilled steps that are not two positive numbers.
    """

    n_xy: int = 5
    n_z: int = 5
    shape_width: int = 192
    shape_blocks: int = 4
    embedding: int = 128
    location_scale_width: int = 128
    schedule: str = "karras"
    preconditioning: str = "edm"
    material_numbers: tuple[str, ...] = NUMBERS
    symmetric: bool = True
    distilled_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        chosen = tuple(name for name in DESCRIPTORS if name in self.material_numbers)
        if len(chosen) != len(self.material_numbers):
            raise InputError(
                f"material_numbers = {list(self.material_numbers)}: expected some of {', '.join(DESCRIPTORS)}"
            )
        object.__setattr__(self, "material_numbers", chosen)
        object.__setattr__(self, "distilled_steps", two_steps(self.distilled_steps))

    @abstractmethod
    def build(self) -> DesignModel:
        """Return a model with random weights."""


def two_steps(steps: Sequence[int] | None) -> tuple[int, int] | None:
    """Return the steps of both networks of a distilled surrogate, None for None. Raises `InputError` for others."""
    if steps is None:
        return None
    if len(steps) != len(("shape", "pattern")) or min(steps) < 1:
        raise InputError(
            f"distilled_steps = {list(steps)}: expected those of the shape and of the pattern, 1 or more each"
        )
    first, second = steps
    return first, second


class DesignModel(Model):
    """A model conditioned on a design: cells and maps.

    Args:
        architecture: sizes and choices that fix the shapes of the weights.
        depths: number of depths that are conditions, see `depths`.
        permutations: symmetries of a shower's pattern, shape (symmetries, pattern).
        of_particles: number of conditions of the incident particle, see `particle_conditions`.

    Attributes:
        n_conditions: number of conditions.
        schedule: noise levels of the diffusion.
        preconditioning, shape_preconditioning: those of the pattern's network and of the shape's.
    """

    architecture: DesignArchitecture

    def __init__(
        self, architecture: DesignArchitecture, depths: int, permutations: Tensor, of_particles: int = 0
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.schedule = SCHEDULES[architecture.schedule]
        usual: Preconditioning = PRECONDITIONINGS[architecture.preconditioning]
        shape, pattern = architecture.distilled_steps or (0, 0)
        self.shape_preconditioning = Progressive.of(self.schedule, shape) if shape else usual
        self.preconditioning = Progressive.of(self.schedule, pattern) if pattern else usual
        self.n_conditions = 2 + depths + of_particles + len(architecture.material_numbers)
        self.register_buffer("condition_mean", torch.zeros(self.n_conditions))
        self.register_buffer("condition_scale", torch.ones(self.n_conditions))
        self.register_buffer("permutations", permutations, persistent=False)
        self.permutations: Tensor

    @property
    def distilled(self) -> bool:
        """True if the model is distilled, see `Model`."""
        return self.architecture.distilled_steps is not None

    @property
    def batch_size(self) -> int:
        """Number of showers generated at once, see `Model`."""
        return min(BATCH, self.most_rows)

    def condition(self, design: Design | None, energy: Tensor, particles: Particles | None = None) -> Tensor:
        """Return standardised conditions, see `Model`."""
        assert design is not None
        dx, dz = design.dx.to(energy), design.dz.to(energy)
        numbers = numbers_of(design.material, like=energy)
        depths = self.padded(dz.reshape(-1, design.n_z))
        return self.conditions(energy, dx.reshape(-1), depths, numbers, particles)

    def padded(self, dz: Tensor) -> Tensor:
        """Return depths of all layers that the model generates, shape (n, n_z), for a design of fewer."""
        return dz

    def conditions(
        self, energy: Tensor, dx: Tensor, dz: Tensor, numbers: Tensor, particles: Particles | None = None
    ) -> Tensor:
        """Return standardised conditions, differentiable in everything.

        Args:
            energy: incident, shape (n,) or (1,), GeV.
            dx: pitch, shape (n,) or (1,), cm.
            dz: depths, shape (n, n_z) or (1, n_z), cm.
            numbers: numbers of the material, see `numbers_of`, shape (n, 6) or (1, 6).
            particles: of n rows or of one; None for photons on the axis.
        """
        x0, r_m, e_c = numbers.T[1:4]
        chosen = [DESCRIPTORS.index(name) for name in self.architecture.material_numbers]
        scaled = [
            (energy / e_c)[:, None].log(), (dx / r_m)[:, None].log(), (self.depths(dz) / x0[:, None]).log(),
            *self.particle_conditions(dx, dz, particles), numbers[:, chosen].log(),
        ]  # fmt: skip
        rows = max(map(len, scaled))
        raw = torch.cat([part.expand(rows, -1) for part in scaled], dim=1)
        return (raw - self.condition_mean) / self.condition_scale

    def particle_conditions(self, dx: Tensor, dz: Tensor, particles: Particles | None) -> list[Tensor]:  # noqa: ARG002
        """Return the conditions that describe the incident particles; arguments are those of `conditions`."""
        return []

    def sampling_schedule(self, sampler: str | None = None, steps: int | None = None) -> SamplingSchedule:
        """Return how showers are sampled, see `Model`."""
        own = self.architecture.distilled_steps
        return schedule_of(sampler, steps, own, (DEFAULT_SAMPLER, None), self.shape_evaluations)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Return showers of several batches as one tensor."""
        return torch.cat(list(parts))

    @abstractmethod
    def shape_evaluations(self, sampler: Sampler, steps: int) -> int:
        """Return the evaluations of the shape's network in ``steps`` steps of the pattern; 0 without a shape."""

    @abstractmethod
    def depths(self, dz: Tensor) -> Tensor:
        """Return the depths that are conditions, shape (n, depths), cm, from those of the layers, shape (n, n_z)."""

    @property
    @abstractmethod
    def two_stage(self) -> TwoStage:
        """The model, as one of a shape and a pattern. Raises `InputError` for a model without a shape."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of one shower."""

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """Largest number of showers that the networks may take at once, so that memory stays bounded."""

    @abstractmethod
    def asymmetric(self) -> DesignModel:
        """Return the same function without symmetry of location and scale, see `Model`."""

    @abstractmethod
    def standardise(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return x and y of showers, which the denoising models learn: shapes (n, shape numbers) and (n, pattern)."""

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return the denoising losses of shape and pattern, one a sample, shape (n,) each."""


def schedule_of(
    sampler: str | None,
    steps: int | None,
    distilled_steps: tuple[int, int] | None,
    default: tuple[str, int | None],
    shape_evaluations: Callable[[Sampler, int], int],
) -> SamplingSchedule:
    """Return how a model of shape and pattern samples.

    Args:
        sampler, steps: what is asked for; None: the model's own.
        distilled_steps: steps of both networks of a distilled model, which are fixed; None for a diffusion model.
        default: sampler of a diffusion model, and its steps; None: as many as that sampler usually takes.
        shape_evaluations: evaluations of the shape's network, from the sampler and the steps of the pattern.

    Raises:
        InputError: a sampler or a number of steps that the model cannot take.
    """
    if distilled_steps is not None:
        shape, pattern = distilled_steps
        asked = sampler or PROGRESSIVE_NAME, pattern if steps is None else steps
        if asked != (PROGRESSIVE_NAME, pattern):
            raise InputError(
                f"the surrogate is distilled into {shape} steps of the shape and {pattern} of the pattern and "
                f"cannot take {asked[1]} steps of '{asked[0]}'; leave sampler and steps out"
            )
        return SamplingSchedule(PROGRESSIVE_NAME, pattern, pattern, shape)
    name = default[0] if sampler is None else sampler
    if name == PROGRESSIVE_NAME:
        raise InputError(
            f"sampler '{name}' is that of distilled surrogates, this is a diffusion model; expected one of "
            f"{', '.join(SAMPLERS)}"
        )
    if name not in SAMPLERS:
        raise InputError(f"unknown sampler '{name}'; expected one of {', '.join(SAMPLERS)}")
    if steps is None:
        steps = (default[1] if name == default[0] else None) or SAMPLERS[name].steps
    if steps < 1:
        raise InputError(f"{steps} steps of '{name}': expected at least 1")
    return SamplingSchedule(name, steps, SAMPLERS[name].nfe(steps), shape_evaluations(SAMPLERS[name], steps))


def sampler_of(schedule: SamplingSchedule) -> Sampler:
    """Return the sampler of a schedule of shape and pattern."""
    return PROGRESSIVE if schedule.sampler == PROGRESSIVE_NAME else SAMPLERS[schedule.sampler]


def numbers_of(*materials: Material, like: Tensor) -> Tensor:
    """Return `DESCRIPTORS` of materials, shape (materials, 6), with the dtype and device of ``like``.

    Differentiable in those that are tensors.
    """
    rows = [[getattr(material, name) for name in DESCRIPTORS] for material in materials]
    if not any(isinstance(value, Tensor) for row in rows for value in row):
        return torch.tensor(rows, dtype=like.dtype, device=like.device)
    return torch.stack([torch.stack([torch.as_tensor(value).to(like) for value in row]) for row in rows])


def to_device(model: M, device: str | torch.device) -> M:
    """Move a model to a torch device. Raises `InputError` for a device that torch does not have."""
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device '{device}' cannot be used: {reason}; expected cpu, cuda or another of torch"
        ) from error
