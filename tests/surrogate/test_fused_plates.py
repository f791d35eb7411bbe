"""Fused inference of dense students of stacks of plates equals the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.tiny_plates import tiny_plates
from torch import Tensor

from calograd import SamplingDesign
from calograd.detector.particles import Particles
from calograd.surrogate.plates.fused import FusedPlates
from calograd.surrogate.plates.model import PlatesModel
from calograd.system.random_numbers import RandomNumbers

SHOWERS = 6


def student(**sizes: Any) -> PlatesModel:
    model = tiny_plates(**{"dense": True, "distilled_steps": (2, 1)} | sizes).model.double()
    assert isinstance(model, PlatesModel)
    return model


def made(one: Any, model: PlatesModel, rows: int = 1) -> Tensor:
    """Energies of all plates of showers in one stack of nine layers, or in stacks of their own."""
    like = model.condition_mean
    thickness = torch.linspace(0.2, 0.4, rows).to(like)[:, None].expand(-1, 9)
    energy = torch.linspace(5, 50, rows).to(like)
    particles = Particles.of(rows, "e-", (0.0, 0.0), 10.0, 0.0, like=energy)
    conditions = model.condition(SamplingDesign("Pb", "lAr", thickness, 0.5), energy, particles)
    showers = one.generate(conditions, energy, model.sampling_schedule(), RandomNumbers(1, range(SHOWERS)))
    return torch.stack([showers.active, showers.absorber])


@pytest.mark.parametrize("rows", [1, SHOWERS])
@pytest.mark.parametrize("sizes", [{}, {"local_units": 2}, {"distilled_steps": (1, 3)}, {"layer_blocks": 2}])
def test_it_makes_the_showers_of_the_model(sizes: dict[str, Any], rows: int) -> None:
    model = student(**sizes)
    wanted = made(model, model, rows)
    torch.testing.assert_close(made(FusedPlates(model), model, rows), wanted, rtol=1e-9, atol=1e-12)
    assert float(wanted.std(1).max()) > 1e-3


def test_every_weight_of_the_networks_is_in_it() -> None:
    model = student()
    before, changed = made(FusedPlates(model), model), 0
    for name, weight in model.named_parameters():
        kept = weight.clone()
        weight.mul_(1.05).add_(0.02)
        assert not torch.equal(made(FusedPlates(model), model), before), name
        weight.copy_(kept)
        changed += 1
    assert changed > 20
    assert torch.equal(made(FusedPlates(model), model), before)


def test_only_students_that_see_all_layers_at_once_have_it() -> None:
    assert isinstance(student().fused(), FusedPlates)
    for sizes in ({"dense": False}, {"distilled_steps": None}):
        model = student(**sizes)
        assert model.fused() is model
