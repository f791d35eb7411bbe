"""A surrogate of stacks of plates with random weights, small and quick."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from calograd.detector.material import MATERIALS
from calograd.surrogate import Card, Surrogate, TrainedStacks
from calograd.surrogate.card import TrainedBeam
from calograd.surrogate.plates.coordinates import SHOWER
from calograd.surrogate.plates.model import PlatesArchitecture, PlatesModel
from calograd.surrogate.plates.points import QUANTILES

SMALL = PlatesArchitecture(
    layers=12, shower_width=8, shower_blocks=1, layer_width=8, layer_blocks=1, embedding=8, location_scale_width=8,
    steps=3,
)  # fmt: skip
STACKS = TrainedStacks(
    absorbers=(MATERIALS["Pb"], MATERIALS["W"]), actives=(MATERIALS["Si"], MATERIALS["lAr"]),
    pairs=(("Pb", "lAr"), ("W", "Si"), ("Pb", "Si")), layers=(4, 12), absorber_thickness=(0.2, 3.0),
    active_thickness=((0.01, 0.1), (0.1, 1.0)), beam=TrainedBeam(particles=("gamma", "e-"), theta=(0, 40)),
)  # fmt: skip


def tiny_plates(seed: int = 0, **sizes: Any) -> Surrogate:
    """Photons and electrons of 1 to 100 GeV in four to twelve layers of lead or tungsten and silicon or argon."""
    architecture = replace(SMALL, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PlatesModel(architecture)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.1 if name.endswith("weight") else 0.03)
    with torch.no_grad():
        for part, location in ((model.shower_location_scale, [3.0, 0.0, 0.0, -1.0, -0.2]),
                               (model.layer_location_scale, [1.0, 0.0])):  # fmt: skip
            last = part.network[-1]
            assert isinstance(last, torch.nn.Linear)
            last.bias.copy_(torch.cat([torch.tensor(location), torch.full((len(location),), -2.0)]))
    assert len(model.shower_location_scale.symmetry_class) == SHOWER
    card = Card(
        name="tiny-plates", kind="plates", architecture=architecture.to_dict(), energy=(1, 100), trained=STACKS,
        training={},
    )  # fmt: skip
    return Surrogate(model.eval().requires_grad_(False), card)


def tiny_plate_points(seed: int = 0) -> Surrogate:
    """The same with points in the active plates."""
    first = tiny_plates(seed)
    architecture = replace(
        SMALL, points=True, feature_width=8, feature_blocks=1, feature_steps=2, point_width=8, point_blocks=1,
        point_steps=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PlatesModel(architecture)
        for name, parameter in model.named_parameters():
            if name.startswith("points."):
                torch.nn.init.normal_(parameter, std=0.1 if name.endswith("weight") else 0.03)
    model.load_state_dict(first.model.state_dict(), strict=False)
    stage = model.points
    assert stage is not None
    with torch.no_grad():  # a twentieth of the losses' points, half a Moliere radius away
        stage.unit.fill_(20.0)
        stage.reach.fill_(30.0)
        biases = stage.quantiles.network[-1].bias.view(2, QUANTILES)  # type: ignore[union-attr, operator]
        biases[:, 0] = torch.tensor([-1.0, 0.5])
        biases[:, 1:] = torch.tensor([[-0.5], [-0.7]])
    card = first.card.model_copy(update={"name": "tiny-plate-points", "architecture": architecture.to_dict()})
    return Surrogate(model.eval().requires_grad_(False), card)
