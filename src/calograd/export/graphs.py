"""The parts of a surrogate that become ONNX graphs, with their inputs and outputs.

    sampler   conditions and unit normal noise -> cells              what generates showers
    shape     D(x; sigma) of the shape given conditions              for samplers of one's own, in
    pattern   D(y; sigma) of the pattern given conditions and x      standardised coordinates
    decoder   x and y -> cells

Conditions are physical: energy in GeV, pitch and depths in cm and, where several materials were trained on, the
numbers of the material. Surrogates that take particles have the particle (its PDG number), its entry on the front face
in cm from the middle of the central cell, and its direction theta and phi in degrees as well. Cells are then those of
the window that follows the particle (`calograd.detector.incidence`), in the frame of the detector.

A batch has rows: every input and output has them first. x and y are what `calograd.surrogate.cells.model` learns, see
there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from calograd.detector.configuration import PDG
from calograd.detector.material import DESCRIPTORS, UNITS
from calograd.detector.particles import Particles
from calograd.diffusion.denoisers import denoise
from calograd.diffusion.samplers import sample
from calograd.errors import InputError
from calograd.export.loop import looped
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.fused import FusedCells
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.model import SamplingSchedule, numbers_of, sampler_of

LN_SIGMA = (-5.0, 3.0)
"""Least and largest ln sigma of the noise levels that examples are drawn with."""
_STAGES = ("shape", "pattern")

Inputs = dict[str, Tensor]
"""Inputs of a graph by name."""


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Args:
        name: name in the graph.
        size: shape of a row; empty for one number.
        unit: unit of the numbers; empty for none.
        kind: type of the numbers.
    """

    name: str
    size: tuple[int, ...]
    unit: str = ""
    kind: str = "float32"

    def __str__(self) -> str:
        sizes = ", ".join(["n", *map(str, self.size)]) + ("," if not self.size else "")
        kind = "" if self.kind == "float32" else f" {self.kind}"
        return f"{self.name} ({sizes}){kind}" + (f" {self.unit}" if self.unit else "")


@dataclass(frozen=True)
class Part:
    """A graph to be: a module of `Inputs` without side effects, its inputs and its output."""

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

    def particles(self, given: Inputs) -> Particles | None:
        """Return the incident particles of a surrogate that takes them."""
        if not self.model.takes_particles:
            return None
        return Particles(given["particle"], given["position"], given["theta"], given["phi"])

    def forward(self, given: Inputs) -> Tensor:
        numbers = self.numbers if self.single else given["material"]
        depths = self.model.padded(given["dz"])
        return self.model.conditions(given["energy"], given["dx"], depths, numbers, self.particles(given))


class _Graph(nn.Module):
    """Base of the graphs: a module of physical conditions and further inputs."""

    def __init__(self, conditions: _Conditions) -> None:
        super().__init__()
        self.conditions = conditions
        self.model = conditions.model


class _Cells(_Graph):
    """Base of the graphs of cells, in a window of ``n_xy`` cells across and ``n_z`` layers."""

    def __init__(self, conditions: _Conditions, n_xy: int, n_z: int) -> None:
        super().__init__(conditions)
        self.window = n_xy, n_z

    def finish(self, cells: Tensor, given: Inputs) -> Tensor:
        """Return cells in the detector's frame and in the window."""
        return self.model.in_window(cells, *self.window, self.conditions.particles(given))


class _Sampler(_Cells):
    def __init__(self, conditions: _Conditions, n_xy: int, n_z: int, schedule: SamplingSchedule) -> None:
        super().__init__(conditions, n_xy, n_z)
        self.sampler = sampler_of(schedule)
        shape, pattern = (grid.float() for grid in self.model.grids(schedule))
        self.register_buffer("shape_grid", shape)
        self.register_buffer("pattern_grid", pattern)
        self.shape_grid: Tensor
        self.pattern_grid: Tensor

    def forward(self, given: Inputs) -> Tensor:
        model, conditions = self.model, self.conditions(given)
        if model.distilled:
            noise = given["shape_noise"], given["pattern_noise"]
            return self.finish(FusedCells(model).showers(conditions, given["energy"], *noise), given)
        go = looped if torch.compiler.is_compiling() else sample
        x = go(lambda z, s: model.denoise_shape(z, s, conditions), given["shape_noise"], self.shape_grid, self.sampler)
        location_scale = model.location_scale_of_pattern(conditions, x)
        pattern = model.pattern(conditions, x, location_scale)
        y = go(
            lambda z, s: denoise(pattern, model.preconditioning, z, s),
            given["pattern_noise"], self.pattern_grid, self.sampler,
        )  # fmt: skip
        return self.finish(model.restore(x, y, location_scale, conditions, given["energy"]), given)


class _Shape(_Graph):
    def forward(self, given: Inputs) -> Tensor:
        return self.model.denoise_shape(given["x"], given["sigma"], self.conditions(given))


class _Pattern(_Graph):
    def forward(self, given: Inputs) -> Tensor:
        return self.model.denoise_pattern(given["y"], given["sigma"], self.conditions(given), given["x"])


class _Decoder(_Cells):
    def forward(self, given: Inputs) -> Tensor:
        conditions, x = self.conditions(given), given["x"]
        location_scale = self.model.location_scale_of_pattern(conditions, x)
        return self.finish(self.model.restore(x, given["y"], location_scale, conditions, given["energy"]), given)


def window_of(surrogate: Surrogate, cells: tuple[int, int] | None) -> tuple[int, int]:
    """Return the cells across and the layers of an export; None stands for those of the surrogate.

    Raises:
        InputError: a window that the surrogate does not generate.
    """
    a = exportable(surrogate).architecture
    if cells is None or cells == (a.n_xy, a.n_z):
        return a.n_xy, a.n_z
    n_xy, n_z = cells
    own, asked = (f"{across} x {across} x {layers}" for across, layers in ((a.n_xy, a.n_z), (n_xy, n_z)))
    if not surrogate.model.takes_particles:
        raise InputError(f"cells: {surrogate.card.name} generates {own} cells alone, not {asked}; leave it out")
    if not (1 <= n_xy <= a.n_xy and n_xy % 2 and 1 <= n_z <= a.n_z):
        raise InputError(
            f"cells: {asked} asked, {surrogate.card.name} generates windows of an odd number of cells across, of up to "
            f"{own}"
        )
    return n_xy, n_z


def parts(surrogate: Surrogate, schedule: SamplingSchedule, window: tuple[int, int]) -> Iterator[Part]:
    """Yield the four parts.

    Args:
        surrogate: surrogate of cells.
        schedule: schedule of a deterministic sampler.
        window: cells across and layers, see `window_of`.
    """
    n_xy, n_z = window
    conditions = _Conditions(surrogate)
    first = [Port("energy", (), "GeV"), Port("dx", (), "cm"), Port("dz", (n_z,), "cm")]
    if surrogate.model.takes_particles:
        first += [Port("particle", (), "PDG number", "int64"), Port("position", (2,), "cm")]
        first += [Port(name, (), "degrees") for name in ("theta", "phi")]
    units = ", ".join(UNITS[name] or "1" for name in DESCRIPTORS)
    last = () if conditions.single else (Port("material", (len(DESCRIPTORS),), units),)
    shape, pattern = ((dim,) for dim in conditions.model.noise_dims)
    made = Port("cells", (n_xy, n_xy, n_z), "GeV")
    x, y, sigma = Port("x", shape), Port("y", pattern), Port("sigma", ())
    noise = (Port("shape_noise", shape), Port("pattern_noise", pattern))
    yield Part("sampler", _Sampler(conditions, *window, schedule), (*first, *noise, *last), made)
    yield Part("shape", _Shape(conditions), (*first, x, sigma, *last), Port("clean", shape))
    yield Part("pattern", _Pattern(conditions), (*first, y, sigma, x, *last), Port("clean", pattern))
    yield Part("decoder", _Decoder(conditions, *window), (*first, x, y, *last), made)


def example(
    part: Part, surrogate: Surrogate, schedule: SamplingSchedule, rows: int, generator: torch.Generator
) -> Inputs:
    """Return inputs of a part: conditions drawn from the trained range, unit normal numbers.

    Noise levels are drawn from a wide range or, of a distilled surrogate, from those that it visits. Entries are drawn
    in the cell.
    """
    materials = surrogate.card.designs.materials
    which = torch.randint(len(materials), (rows,), generator=generator).tolist()
    cards = [surrogate.card.in_cm(material) for material in materials]

    def between(ends: list[tuple[float, float]]) -> Tensor:
        low, high = torch.tensor([ends[k] for k in which]).log().unbind(1)
        drawn: Tensor = (low + (high - low) * torch.rand(rows, generator=generator)).exp()
        return drawn

    sizes = {port.name: port.size for port in part.inputs}
    dx, dz = between([card.dx for card in cards]), between([card.dz for card in cards])
    values = {
        "energy": between([card.energy for card in cards]),
        "dx": dx,
        "dz": dz[:, None].repeat(1, *sizes["dz"]),
        "sigma": torch.empty(rows).uniform_(*LN_SIGMA, generator=generator).exp(),
        "material": numbers_of(*(materials[k] for k in which), like=dz),
    }
    beam = surrogate.card.designs.beam
    if beam is not None:
        known = torch.tensor([PDG[name] for name in beam.particles])
        values |= {
            "particle": known[torch.randint(len(known), (rows,), generator=generator)],
            "position": dx[:, None] * (torch.rand(rows, 2, generator=generator) - 0.5),
            "theta": torch.empty(rows).uniform_(*beam.theta, generator=generator),
            "phi": torch.empty(rows).uniform_(0, 360, generator=generator),
        }
    if part.name in _STAGES and surrogate.model.distilled:
        levels = exportable(surrogate).grids(schedule)[_STAGES.index(part.name)][:-1].to(dz)
        values["sigma"] = levels[torch.randint(len(levels), (rows,), generator=generator)]
    return {
        name: values[name] if name in values else torch.randn(rows, *size, generator=generator)
        for name, size in sizes.items()
    }
