"""The parts of a surrogate that become ONNX graphs, with their inputs and outputs.

    sampler   conditions and unit normal noise -> cells              what generates showers
    shape     D(x; sigma) of the shape given conditions              for samplers of one's own, in
    pattern   D(y; sigma) of the pattern given conditions and x      standardised coordinates
    decoder   x and y -> cells

Conditions are physical: energy in GeV, pitch and depths in cm and, where several materials were trained on, the
numbers of the material. A batch has rows: every input and output has them first. x and y are what
`calograd.surrogate.cells.model` learns, see there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calograd.detector.material import DESCRIPTORS, UNITS
from calograd.diffusion.denoisers import denoise
from calograd.diffusion.samplers import sample
from calograd.errors import InputError
from calograd.export.loop import looped
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.model import SamplingSchedule, numbers_of, sampler_of

LN_SIGMA = (-5.0, 3.0)
"""Least and largest ln sigma of the noise levels that examples are drawn with."""
_STAGES = ("shape", "pattern")


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Args:
        name: name in the graph.
        size: shape of a row; empty for one number.
        unit: unit of the numbers; empty for none.
    """

    name: str
    size: tuple[int, ...]
    unit: str = ""

    def __str__(self) -> str:
        sizes = ", ".join(["n", *map(str, self.size)]) + ("," if not self.size else "")
        return f"{self.name} ({sizes})" + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Part:
    """A graph to be: a module without side effects, its inputs in the order of its arguments, and its output."""

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    output: Port


def exportable(surrogate: Surrogate) -> CellsModel:
    """Return the model of a surrogate of cells. Raises `InputError` for others."""
    if not isinstance(surrogate.model, CellsModel):
        raise InputError(
            f"{surrogate.card.name} generates {surrogate.card.kind}; only surrogates of cells can be exported"
        )
    return surrogate.model


class _Conditions(nn.Module):
    """Standardised conditions of physical ones; the material is an input or, if there is only one, part of it."""

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self.model = exportable(surrogate)
        materials, like = surrogate.card.designs.materials, surrogate.model.condition_mean
        self.single = len(materials) == 1
        self.register_buffer("numbers", numbers_of(materials[0], like=like))
        self.numbers: Tensor

    def forward(self, energy: Tensor, dx: Tensor, dz: Tensor, material: Tensor | None) -> Tensor:
        return self.model.conditions(energy, dx, dz, self.numbers if material is None else material)


class _Graph(nn.Module):
    """Base of the graphs: a module of physical conditions and further inputs."""

    def __init__(self, conditions: _Conditions) -> None:
        super().__init__()
        self.conditions = conditions


class _Sampler(_Graph):
    def __init__(self, conditions: _Conditions, schedule: SamplingSchedule) -> None:
        super().__init__(conditions)
        self.sampler = sampler_of(schedule)
        shape, pattern = (grid.float() for grid in conditions.model.grids(schedule))
        self.register_buffer("shape_grid", shape)
        self.register_buffer("pattern_grid", pattern)
        self.shape_grid: Tensor
        self.pattern_grid: Tensor

    def forward(
        self,
        energy: Tensor,
        dx: Tensor,
        dz: Tensor,
        shape_noise: Tensor,
        pattern_noise: Tensor,
        material: Tensor | None = None,
    ) -> Tensor:
        model, conditions = self.conditions.model, self.conditions(energy, dx, dz, material)
        go = looped if torch.compiler.is_compiling() else sample
        x = go(lambda z, s: model.denoise_shape(z, s, conditions), shape_noise, self.shape_grid, self.sampler)
        location_scale = model.location_scale_of_pattern(conditions, x)
        pattern = model.pattern(conditions, x, location_scale)
        y = go(
            lambda z, s: denoise(pattern, model.preconditioning, z, s), pattern_noise, self.pattern_grid, self.sampler
        )
        return model.restore(x, y, location_scale, conditions, energy)


class _Shape(_Graph):
    def forward(
        self, energy: Tensor, dx: Tensor, dz: Tensor, x: Tensor, sigma: Tensor, material: Tensor | None = None
    ) -> Tensor:
        return self.conditions.model.denoise_shape(x, sigma, self.conditions(energy, dx, dz, material))


class _Pattern(_Graph):
    def forward(
        self,
        energy: Tensor,
        dx: Tensor,
        dz: Tensor,
        y: Tensor,
        sigma: Tensor,
        x: Tensor,
        material: Tensor | None = None,
    ) -> Tensor:
        return self.conditions.model.denoise_pattern(y, sigma, self.conditions(energy, dx, dz, material), x)


class _Decoder(_Graph):
    def forward(
        self, energy: Tensor, dx: Tensor, dz: Tensor, x: Tensor, y: Tensor, material: Tensor | None = None
    ) -> Tensor:
        model, conditions = self.conditions.model, self.conditions(energy, dx, dz, material)
        return model.restore(x, y, model.location_scale_of_pattern(conditions, x), conditions, energy)


def parts(surrogate: Surrogate, schedule: SamplingSchedule) -> Iterator[Part]:
    """Yield the four parts; the sampler of ``schedule`` is deterministic."""
    a = exportable(surrogate).architecture
    conditions = _Conditions(surrogate)
    first = (Port("energy", (), "GeV"), Port("dx", (), "cm"), Port("dz", (a.n_z,), "cm"))
    units = ", ".join(UNITS[name] or "1" for name in DESCRIPTORS)
    last = () if conditions.single else (Port("material", (len(DESCRIPTORS),), units),)
    shape, pattern = ((dim,) for dim in conditions.model.noise_dims)
    cells = Port("cells", (a.n_xy, a.n_xy, a.n_z), "GeV")
    x, y, sigma = Port("x", shape), Port("y", pattern), Port("sigma", ())
    noise = (Port("shape_noise", shape), Port("pattern_noise", pattern))
    yield Part("sampler", _Sampler(conditions, schedule), (*first, *noise, *last), cells)
    yield Part("shape", _Shape(conditions), (*first, x, sigma, *last), Port("clean", shape))
    yield Part("pattern", _Pattern(conditions), (*first, y, sigma, x, *last), Port("clean", pattern))
    yield Part("decoder", _Decoder(conditions), (*first, x, y, *last), cells)


def example(
    part: Part, surrogate: Surrogate, schedule: SamplingSchedule, rows: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Return inputs of a part: conditions drawn from the trained range, unit normal numbers.

    Noise levels are drawn from a wide range or, of a distilled surrogate, from those that it visits.
    """
    materials = surrogate.card.designs.materials
    which = torch.randint(len(materials), (rows,), generator=generator).tolist()
    cards = [surrogate.card.in_cm(material) for material in materials]

    def between(ends: list[tuple[float, float]]) -> Tensor:
        low, high = torch.tensor([ends[k] for k in which]).log().unbind(1)
        drawn: Tensor = (low + (high - low) * torch.rand(rows, generator=generator)).exp()
        return drawn

    dz = between([card.dz for card in cards])
    values = {
        "energy": between([card.energy for card in cards]),
        "dx": between([card.dx for card in cards]),
        "dz": dz[:, None].repeat(1, exportable(surrogate).architecture.n_z),
        "sigma": torch.empty(rows).uniform_(*LN_SIGMA, generator=generator).exp(),
        "material": numbers_of(*(materials[k] for k in which), like=dz),
    }
    if part.name in _STAGES and surrogate.model.distilled:
        levels = exportable(surrogate).grids(schedule)[_STAGES.index(part.name)][:-1].to(dz)
        values["sigma"] = levels[torch.randint(len(levels), (rows,), generator=generator)]
    return tuple(
        values[port.name] if port.name in values else torch.randn(rows, *port.size, generator=generator)
        for port in part.inputs
    )
