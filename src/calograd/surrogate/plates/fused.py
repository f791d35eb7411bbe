"""Fused inference of a distilled surrogate of plates whose layers' network sees all layers at once.

The parts are those of `calograd.surrogate.fused`. The showers are those of `calograd.surrogate.plates.model` but for
rounding, from the same random numbers.

A `FusedPlates` holds the model's own tensors and is made for every sample, so it cannot be out of date.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from calograd.diffusion.progressive import Progressive
from calograd.events.layer_energies import LayerEnergies
from calograd.events.points import Points
from calograd.nn.location_scale import restore
from calograd.nn.mlp import ResidualMlp
from calograd.surrogate.fused import FusedLocationScale, FusedMlp, steps_of
from calograd.surrogate.model import SamplingSchedule
from calograd.surrogate.plates.coordinates import LAYER, SHOWER, decode, decode_shower
from calograd.system.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from calograd.surrogate.plates.model import PlatesModel


class FusedPlates:
    """Fused form of a distilled, dense model of layer energies as its weights are now, without derivatives.

    Args:
        model: distilled, with a layers' network that sees all layers at once.
    """

    def __init__(self, model: PlatesModel) -> None:
        self.model = model
        first, second = model.preconditionings
        assert isinstance(first, Progressive)
        assert isinstance(second, Progressive)
        assert isinstance(model.layer_network, ResidualMlp)
        self.steps = steps_of(first), steps_of(second)
        self.networks = FusedMlp(model.shower_network, first), FusedMlp(model.layer_network, second)
        self.of_shower = FusedLocationScale(model.shower_location_scale)
        self.of_layers = FusedLocationScale(model.layer_location_scale)

    def parameters(self) -> list[Tensor]:
        """Return the model's weights."""
        layers = [layer for part in (*self.networks, self.of_shower, self.of_layers) for layer in part.layers]
        others = [] if self.model.points is None else self.model.points.parameters()
        return [*(weight for layer in layers for weight in layer), *others]

    def generate(
        self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers
    ) -> LayerEnergies | Points:
        """Generate showers as `Model.generate`, without derivatives."""
        model = self.model
        sizes = SHOWER, LAYER * model.architecture.layers
        x, y = (random.normal(size, like=conditions) for size in sizes)
        (first, second), (of_shower, of_layers) = self.steps, self.networks
        stack = model.stack_of(conditions, energy)
        x = first.first * x
        for modulation in of_shower.modulations(stack.conditions):
            x = x.add(of_shower(x, modulation), alpha=first.sine)
        g = restore(x, *self.of_shower(stack.conditions))
        shower = decode_shower(g, stack.plates, stack.energy, stack.expected)
        features = model.features(stack, shower)
        location, scale = self.of_layers.of_items(*features, model.common_of_layers(stack, x))
        known = model.dense_inputs(stack, features, x, model.thresholds(stack, shower, (location, scale)))
        y = second.first * y
        for into, modulation in zip(second.into, of_layers.modulations(stack.conditions), strict=True):
            made = of_layers(y * known.present, modulation, known.context, into * known.thresholds)
            y = y.add(made * known.present, alpha=second.sine)
        y = y.view(len(y), LAYER, -1)[..., : location.shape[2]]
        energies = decode(restore(y, location, scale), stack.plates, shower)
        return model.finish_layers(stack, shower, x, energies, energy, schedule, random)
