"""Fused inference of a distilled cells model: everything that depends on its noise levels alone is computed at once.

The parts are those of `calograd.surrogate.fused`. The showers are those of `calograd.surrogate.cells.model` but for
rounding, from the same random numbers.

A `FusedCells` holds the model's own tensors and is made for every sample, so it cannot be out of date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calograd.diffusion.progressive import Progressive
from calograd.nn.location_scale import restore, standardise
from calograd.surrogate.fused import FusedLocationScale, FusedMlp, steps_of
from calograd.surrogate.model import SamplingSchedule
from calograd.surrogate.two_stage import LocationScale
from calograd.system.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from calograd.surrogate.cells.model import CellsModel


class FusedCells:
    """Fused form of a distilled model as its weights are now, without derivatives.

    Args:
        model: distilled.
    """

    def __init__(self, model: CellsModel) -> None:
        self.model = model
        shape, pattern = model.shape_preconditioning, model.preconditioning
        assert isinstance(shape, Progressive)
        assert isinstance(pattern, Progressive)
        self.shape_steps, self.pattern_steps = steps_of(shape), steps_of(pattern)
        self.shape, self.pattern = FusedMlp(model.shape_network, shape), FusedMlp(model.pattern_network, pattern)
        self.locations = [
            FusedLocationScale(model.shape_location_scale),
            FusedLocationScale(model.pattern_location_scale),
        ]

    def parameters(self) -> list[Tensor]:
        """Return the model's weights."""
        layers = [*self.shape.layers, *self.pattern.layers, *self.locations[0].layers, *self.locations[1].layers]
        return [weight for layer in layers for weight in layer]

    def generate(
        self,
        conditions: Tensor,
        energy: Tensor,
        schedule: SamplingSchedule,  # noqa: ARG002 - there is one
        random: RandomNumbers,
    ) -> Tensor:
        """Generate showers as `Model.generate`, without derivatives."""
        x, y = (random.normal(dim, like=conditions) for dim in self.model.noise_dims)
        return self.showers(conditions, energy, x, y)

    def showers(self, conditions: Tensor, energy: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return showers that begin with unit normal numbers ``x`` of the shape and ``y`` of the pattern."""
        model = self.model
        x, steps = self.shape_steps.first * x, self.shape_steps
        for modulation in self.shape.modulations(conditions):
            x = x.add(self.shape(x, modulation), alpha=steps.sine)
        location_scale = self.locations[1](torch.cat([conditions.expand(len(x), -1), x], dim=1))
        y, steps = self.pattern_steps.first * y, self.pattern_steps
        thresholds = None
        if model.architecture.local_units:
            thresholds = standardise(torch.zeros_like(location_scale[0]), *location_scale)
        for number, modulation in enumerate(self.pattern.modulations(conditions)):
            scaled = None if thresholds is None else steps.into[number] * thresholds
            y = self._towards(y, self.pattern(y, modulation, x, scaled), location_scale, number)
        g = restore(x, *self.locations[0](conditions))
        return model.decode(g, restore(y, *location_scale), energy.expand(len(x)), conditions)

    def _towards(self, y: Tensor, output: Tensor, location_scale: LocationScale, number: int) -> Tensor:
        """Return y after a step of the pattern, with what brings sums closer to one."""
        steps, dim = self.pattern_steps, y.shape[1]
        if output.shape[1] == dim:
            return y.add(output, alpha=steps.sine)
        result, gains = output[:, :dim], output[:, dim:]
        clean = torch.add(steps.keep[number] * y, result, alpha=steps.out[number])
        more = self.model.towards_sums(clean, *location_scale, gains, steps.out[number])
        if number == len(steps.out) - 1:  # the last step ends at what is clean
            return clean + more
        return y.add(result, alpha=steps.sine).add(more, alpha=steps.sine / steps.out[number])
