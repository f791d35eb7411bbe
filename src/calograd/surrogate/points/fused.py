"""Fused inference of a distilled points model: everything that the points of a layer share is computed once.

Between two nonlinear steps of the points' network, scales, shifts and products are one product a layer,

    z = c_skip v + c_out (A(k) v' + b(k) + V h)          c in A, b and V

A `FusedPoints` holds the model's own tensors, or small products of them, and is made for every sample, so it cannot be
out of date. The numbers are those of `calograd.surrogate.points.model` but for rounding, the random numbers the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear as affine
from torch.nn.functional import silu

from calograd.diffusion.consistency import CONSISTENCY, Consistency, jump_numbers, noise_grid
from calograd.events.points import Points
from calograd.nn.linear import weights_of
from calograd.nn.point_networks import PointMap
from calograd.surrogate.model import SamplingSchedule
from calograd.surrogate.points.features import Features
from calograd.surrogate.points.moment_matching import Drawn
from calograd.system.random_numbers import RandomNumbers

if TYPE_CHECKING:
    from calograd.surrogate.points.model import PointsModel


class FusedPoints:
    """Fused form of a distilled model as its weights are now, without derivatives.

    Args:
        model: distilled.
    """

    def __init__(self, model: PointsModel) -> None:
        self.model = model
        network, a = model.point_network, model.architecture
        assert isinstance(network, PointMap)
        assert isinstance(model.preconditioning, Consistency)
        start = float(noise_grid(CONSISTENCY, a.schedule, a.steps)[0])
        skip, out, into, level = jump_numbers(model.preconditioning, start)
        dim = network.dim
        (weight, bias), *self.embed = weights_of(network.embed)
        local = len(model.local_mean)
        noise, scaled, number = weight[:, 0], weight[:, 1 : 1 + local] / model.local_scale, weight[:, 1 + local :]
        self.context = ((bias + level * noise - scaled @ model.local_mean) + number.T, scaled.T)
        self.modulate = network.modulate.weight, network.modulate.bias
        factor = torch.tensor([out] * dim + [out * into] * dim**2).to(bias)
        straight = network.affine.bias * factor
        straight[dim:] += skip * torch.eye(dim).to(straight).flatten()
        self.affine = network.affine.weight * factor[:, None], straight
        self.into, self.last = (into * network.into.weight).T, out * network.out.weight
        self.width, self.dim = network.width, dim

    def parameters(self) -> Iterable[Tensor]:
        """Return the model's weights."""
        return self.model.parameters()

    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Points:
        """Generate showers as `Model.generate`, without derivatives."""
        model = self.model
        if schedule.steps > 1:
            return model.generate(conditions, energy, schedule, random)
        conditions, energy = conditions.expand(len(random), -1), energy.expand(len(random))
        features = model.generate_features(conditions, energy, random, schedule.options.smooth)

        def z_of(drawn: Drawn, filled: Tensor) -> Tensor:
            return self._points(features, energy, drawn, filled)

        return model.match_moments(features, energy, random, schedule.options.smooth, z_of)

    def _points(self, features: Features, energy: Tensor, drawn: Drawn, filled: Tensor) -> Tensor:
        """Return z of points, shape (points, dim)."""
        local, number = self.model.local_features(features, energy), len(energy)
        bias, weight = (t.expand(number, *t.shape) for t in self.context)
        k = silu(torch.baddbmm(bias, local, weight)).flatten(0, 1)
        for layer in self.embed:
            k = silu(affine(k, *layer))
        place, dim = drawn.groups.spread(filled), self.dim
        gamma, beta = (half.index_select(0, place) for half in affine(k, *self.modulate).chunk(2, dim=1))
        hidden = silu(beta.addcmul_(drawn.noise @ self.into, gamma), inplace=True)  # in the cache's few hundred kB
        straight = affine(k, *self.affine).T.contiguous().index_select(1, place)
        result = torch.addmm(straight[:dim], self.last, hidden.T)
        for column, values in enumerate(drawn.noise.unbind(1), start=1):
            result.addcmul_(straight[dim * column : dim * (column + 1)], values)
        return result.T
