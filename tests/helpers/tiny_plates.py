"""A surrogate of stacks of plates with random weights, small and quick."""

from __future__ import annotations

import torch

from calograd.detector.material import MATERIALS
from calograd.surrogate import Card, Surrogate, TrainedStacks
from calograd.surrogate.card import TrainedBeam
from calograd.surrogate.plates.coordinates import SHOWER
from calograd.surrogate.plates.model import PlatesArchitecture, PlatesModel

SMALL = PlatesArchitecture(
    layers=12, shower_width=8, shower_blocks=1, layer_width=8, layer_blocks=1, embedding=8, location_scale_width=8,
    steps=3,
)  # fmt: skip
STACKS = TrainedStacks(
    absorbers=(MATERIALS["Pb"], MATERIALS["W"]), actives=(MATERIALS["Si"], MATERIALS["lAr"]),
    pairs=(("Pb", "lAr"), ("W", "Si"), ("Pb", "Si")), layers=(4, 12), absorber_thickness=(0.2, 3.0),
    active_thickness=((0.01, 0.1), (0.1, 1.0)), beam=TrainedBeam(particles=("gamma", "e-"), theta=(0, 40)),
)  # fmt: skip


def tiny_plates(seed: int = 0) -> Surrogate:
    """Photons and electrons of 1 to 100 GeV in four to twelve layers of lead or tungsten and silicon or argon."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PlatesModel(SMALL)
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
        name="tiny-plates", kind="plates", architecture=SMALL.to_dict(), energy=(1, 100), trained=STACKS, training={}
    )
    return Surrogate(model.eval().requires_grad_(False), card)
