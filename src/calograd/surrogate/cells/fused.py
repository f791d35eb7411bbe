"""A distilled cells surrogate with all that depends on its noise levels and conditions alone done at once.

In z = x cos(a), where a step is z' = z + sin(d) F (`calograd.diffusion.progressive`), nothing but F is left.
The embeddings of all steps of a network are rows of one product, the scales and shifts of all its blocks columns of
another. The showers are those of `calograd.surrogate.cells.model` but for rounding, from the same random numbers.
"""

from __future__ import annotations

from math import atan, sin

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from calograd.diffusion.progressive import Progressive
from calograd.nn.linear import product
from calograd.nn.location_scale import standardise
from calograd.nn.mlp import ResidualMlp
from calograd.surrogate.base import Model
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.fused import affine, linears
from calograd.surrogate.schedule import Walk
from calograd.surrogate.two_stage import Moments


class FoldedCells:
    """The model above; it does not follow later changes of the weights.

    Args:
        model: distilled.
    """

    def __init__(self, model: CellsModel) -> None:
        self.model = model
        shape, pattern = model.shape_preconditioning, model.preconditioning
        assert isinstance(shape, Progressive)
        assert isinstance(pattern, Progressive)
        self.shape_student, self.pattern_student = _Student(shape), _Student(pattern)
        self.shape, self.pattern = _Mlp(model.shape_network, shape), _Mlp(model.pattern_network, pattern)

    def generate(
        self,
        conditions: Tensor,
        energy: Tensor,
        n: int,
        walk: Walk,  # noqa: ARG002 - there is one
        generator: torch.Generator | None,
        checkpointed: bool = False,  # noqa: ARG002 - nothing is derived
        guidance: float = 0.0,  # noqa: ARG002 - not guided
    ) -> Tensor:
        """As `Model.generate`, without derivatives."""
        model = self.model
        x, y = (torch.randn(n, dim, generator=generator).to(conditions) for dim in model.noise_dims)
        x, student = self.shape_student.first * x, self.shape_student
        for modulation in self.shape.modulations(conditions):
            x = x.add(self.shape(x, modulation), alpha=student.sine)
        moments = model.moments_of_pattern(conditions, x)
        y, student = self.pattern_student.first * y, self.pattern_student
        marks = None
        if model.architecture.local_units:
            marks = standardise(torch.zeros_like(moments[0]), *moments)
        for number, modulation in enumerate(self.pattern.modulations(conditions)):
            y = self._towards(y, self.pattern(y, modulation, x, _scaled(marks, student.into[number])), moments, number)
        return model.restore(x, y, moments, conditions, energy)

    def _towards(self, y: Tensor, output: Tensor, moments: Moments, number: int) -> Tensor:
        """A step of the pattern, with what brings sums closer to one."""
        student, dim = self.pattern_student, y.shape[1]
        if output.shape[1] == dim:
            return y.add(output, alpha=student.sine)
        result, gains = output[:, :dim], output[:, dim:]
        clean = torch.add(student.keep[number] * y, result, alpha=student.out[number])
        more = self.model.towards_sums(clean, *moments, gains)
        if number == len(student.out) - 1:  # the last step ends at what is clean
            return clean + more
        return y.add(result, alpha=student.sine).add(more, alpha=student.sine / student.out[number])


class _Student:
    """Numbers of a student: what noise begins with, sin(d), and at every level c_in, c_skip / c_in, c_out."""

    def __init__(self, student: Progressive) -> None:
        levels = torch.tensor(student.grid[:-1], dtype=torch.float64)
        c = student.coefficients(levels)
        self.first = student.grid[0] / (1 + student.grid[0] ** 2) ** 0.5
        self.sine = sin(atan(student.grid[0]) / student.steps)
        self.into, self.out = c.into.tolist(), c.out.tolist()
        self.keep = (c.skip / c.into).tolist()


class _Mlp:
    """`ResidualMlp` at known noise levels."""

    def __init__(self, network: ResidualMlp, student: Progressive) -> None:
        noise = torch.tensor(student.grid[:-1], dtype=torch.float64).log().to(network.frequencies)[:, None] / 4
        phase = noise * network.frequencies
        known = torch.cat([phase.sin(), phase.cos(), noise], dim=1)
        (weight, bias), second = linears(network.embed)
        levels, self.conditions = weight[:, : known.shape[1]], weight[:, known.shape[1] :].T.contiguous()
        self.levels, self.second = bias + known @ levels.T, affine(*second)
        parts = [(weight, bias + 1) for weight, bias in linears(network.scale)] + linears(network.shift)
        if network.units:
            units = (network.local_into.slope, network.local_offset, network.local_out.slope)
            parts += [(layer.weight, layer.bias) for layer in units]
        self.modulate = affine(torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts]))
        self.sizes = [len(bias) for _, bias in parts]
        self.blocks = list(zip(linears(network.first), linears(network.second), strict=True))
        self.into, self.out = _pair(network.into), _pair(network.out)
        self.gains = _pair(network.gains) if network.gains is not None else None
        self.head = _pair(network.local_head) if network.units else None
        self.units, self.width = network.units, (network.into.out_features,)

    def modulations(self, conditions: Tensor) -> list[tuple[Tensor, ...]]:
        """What conditions (n, ...) and every noise level make of blocks and local units, each of shape (n, ...)."""
        e = silu(self.levels[:, None] + conditions @ self.conditions).flatten(0, 1)
        every = torch.addmm(self.modulate[0], silu(torch.addmm(self.second[0], e, self.second[1])), self.modulate[1])
        return [torch.split(level, self.sizes, dim=1) for level in every.chunk(len(self.levels))]

    def __call__(
        self, x: Tensor, modulation: tuple[Tensor, ...], context: Tensor | None = None, marks: Tensor | None = None
    ) -> Tensor:
        """F of the network; arguments as of its ``forward``."""
        blocks = len(self.blocks)
        parts = [x] if context is None else [x, context]
        if marks is not None:
            slope_in, offset_in, slope_out = modulation[2 * blocks :]
            distance = (x - marks).repeat_interleave(self.units // 2, 1)
            parts.append(torch.addcmul(offset_in, slope_in, distance).tanh())
        h = product(torch.cat(parts, dim=1), *self.into)
        for (first, second), scale, shift in zip(
            self.blocks, modulation[:blocks], modulation[blocks : 2 * blocks], strict=True
        ):
            h = h + product(silu(torch.addcmul(shift, layer_norm(product(h, *first), self.width), scale)), *second)
        result = product(h, *self.out)
        if marks is not None:
            assert self.head is not None
            offset, gain = product(h, *self.head).chunk(2, dim=1)
            distance = (x - marks).repeat_interleave(self.units, 1)
            steps = gain * torch.addcmul(offset, slope_out, distance).tanh()
            result = result + steps.view(len(x), -1, self.units).sum(2)
        return result if self.gains is None else torch.cat([result, product(h, *self.gains)], dim=1)


def _pair(layer: nn.Linear) -> tuple[Tensor, Tensor]:
    return layer.weight, layer.bias


def _scaled(marks: Tensor | None, factor: float) -> Tensor | None:
    return None if marks is None else factor * marks


def fold_cells(model: Model) -> Model | FoldedCells:
    """A distilled cells model with its noise levels folded in; any other as it is."""
    return FoldedCells(model) if isinstance(model, CellsModel) and model.architecture.distilled_steps else model
