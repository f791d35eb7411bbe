"""What every kind of surrogate shares: conditions, samplers, and what training and sampling ask of it.

All are given

    cond = ln E/E_c, ln dx/R_M, ln of depths / X0, and the logarithms of chosen numbers of the material

and learn diffusion models, most of them those of a shape and a pattern (`calograd.surrogate.two_stage`), which may be
distilled (`calograd.diffusion.progressive`), each into a number of steps of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from calograd.detector.material import DESCRIPTORS, Material
from calograd.diffusion.denoisers import PRECONDITIONINGS, Preconditioning
from calograd.diffusion.progressive import NAME as PROGRESSIVE_NAME
from calograd.diffusion.progressive import PROGRESSIVE, Progressive
from calograd.diffusion.samplers import DEFAULT_SAMPLER, SAMPLERS, Sampler
from calograd.diffusion.schedules import SCHEDULES
from calograd.errors import InputError
from calograd.surrogate.schedule import Walk

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
        """A name of `calograd.diffusion.schedules.SCHEDULES`."""

    @property
    def preconditioning(self) -> str:
        """A name of `calograd.diffusion.denoisers.PRECONDITIONINGS`."""

    @property
    def material_numbers(self) -> tuple[str, ...]:
        """Which of `calograd.detector.material.DESCRIPTORS` are conditions beside the scaled ones."""

    @property
    def tied(self) -> bool:
        """Whether location and scale of the pattern are equal by symmetry."""

    @property
    def distilled_steps(self) -> tuple[int, int] | None:
        """Of shape and pattern, of a distilled surrogate; None: diffusion models."""

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
        schedule: of the diffusion.
        preconditioning, shape_preconditioning: of the pattern's network and of the shape's.
    """

    architecture: Architecture

    def __init__(self, architecture: Architecture, depths: int, permutations: Tensor) -> None:
        super().__init__()
        self.architecture = architecture
        self.schedule = SCHEDULES[architecture.schedule]
        usual: Preconditioning = PRECONDITIONINGS[architecture.preconditioning]
        shape, pattern = architecture.distilled_steps or (0, 0)
        self.shape_preconditioning = Progressive.of(self.schedule, shape) if shape else usual
        self.preconditioning = Progressive.of(self.schedule, pattern) if pattern else usual
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
            numbers: of the material, see `numbers_of`, shape (n, 6) or (1, 6).
        """
        x0, r_m, e_c = numbers.T[1:4]
        rows = max(len(energy), len(dx), len(dz), len(numbers))
        chosen = [DESCRIPTORS.index(name) for name in self.architecture.material_numbers]
        scaled = ((energy / e_c)[:, None], (dx / r_m)[:, None], self.depths(dz) / x0[:, None], numbers[:, chosen])
        raw = torch.cat([part.log().expand(rows, -1) for part in scaled], dim=1)
        return (raw - self.condition_mean) / self.condition_scale

    def walk(self, sampler: str | None = None, steps: int | None = None) -> Walk:
        """How showers are made, the surrogate's own way if not told.

        Args:
            sampler: a name of `SAMPLERS`; a distilled surrogate takes ``progressive`` alone.
            steps: of it; each has a default, those of a distilled surrogate are fixed.

        Raises:
            InputError: a sampler or steps that it cannot take.
        """
        own = self.architecture.distilled_steps
        if own is not None:
            asked = sampler or PROGRESSIVE_NAME, own[1] if steps is None else steps
            if asked != (PROGRESSIVE_NAME, own[1]):
                raise InputError(
                    f"the surrogate is distilled into {own[0]} steps of the shape and {own[1]} of the pattern "
                    f"and cannot take {asked[1]} steps of '{asked[0]}'; leave sampler and steps out"
                )
            return Walk(PROGRESSIVE_NAME, own[1], own[1], own[0])
        name = DEFAULT_SAMPLER if sampler is None else sampler
        if name == PROGRESSIVE_NAME:
            raise InputError(
                f"sampler '{name}' is that of distilled surrogates, this is a diffusion model; expected one of "
                f"{', '.join(SAMPLERS)}"
            )
        if name not in SAMPLERS:
            raise InputError(f"unknown sampler '{name}'; expected one of {', '.join(SAMPLERS)}")
        steps = SAMPLERS[name].steps if steps is None else steps
        if steps < 1:
            raise InputError(f"{steps} steps of '{name}': expected at least 1")
        return Walk(name, steps, SAMPLERS[name].nfe(steps), self.shape_evaluations(SAMPLERS[name], steps))

    @abstractmethod
    def shape_evaluations(self, sampler: Sampler, steps: int) -> int:
        """Of the shape's network in so many steps of the pattern's sampler; 0 where there is no shape."""

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
    def standardise(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """x and y of showers: what the two diffusion models learn, shapes (n, shape numbers) and (n, pattern)."""

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
        walk: Walk,
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
            walk: as `walk` gives it.
            generator: of every random number.
            checkpointed: save memory in a gradient, see `calograd.diffusion.samplers.sample`.
            guidance: w of classifier-free guidance, F + w (F - F without conditions); 0 for none.
        """


def sampler_of(walk: Walk) -> Sampler:
    """The sampler of a walk."""
    return PROGRESSIVE if walk.sampler == PROGRESSIVE_NAME else SAMPLERS[walk.sampler]


def checked_distilled_steps(steps: Iterable[int] | None) -> tuple[int, int] | None:
    """Return the distilled steps of shape and pattern. Raises `InputError` unless there are two, or None."""
    if steps is None:
        return None
    shape, pattern, *more = (*steps, 0, 0)
    if len(more) != len((0, 0)) or min(shape, pattern) < 1:
        raise InputError(
            f"distilled_steps = {list(steps)}: expected those of the shape and of the pattern, 1 or more each"
        )
    return shape, pattern


def plain_sizes(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return an architecture as plain data: lists for tuples, and no distilled steps where there are none."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in sizes.items()
        if (name, value) != ("distilled_steps", None)
    }


def chosen_numbers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names in the order of `calograd.detector.material.DESCRIPTORS`. Raises `InputError` for others."""
    chosen = tuple(name for name in DESCRIPTORS if name in names)
    if len(chosen) != len(names):
        raise InputError(f"material_numbers = {list(names)}: expected some of {', '.join(DESCRIPTORS)}")
    return chosen


def numbers_of(*materials: Material, like: Tensor) -> Tensor:
    """`calograd.detector.material.DESCRIPTORS` of materials, shape (materials, 6), in type and on device of ``like``.

    Differentiable in those that are tensors.
    """
    rows = [
        torch.stack([torch.as_tensor(getattr(m, name), dtype=like.dtype, device=like.device) for name in DESCRIPTORS])
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
