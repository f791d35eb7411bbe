"""A surrogate of points with random weights, small and quick."""

from __future__ import annotations

import torch

from calograd.surrogate import Card, Surrogate, TrainedDetector
from calograd.surrogate.points.features import LEADS, TAIL
from calograd.surrogate.points.model import PointsArchitecture, PointsModel

SMALL = PointsArchitecture(
    layers=6, shower_width=12, shower_blocks=1, point_width=8, point_blocks=1, embedding=8, location_scale_width=8,
    steps=3, shower_steps=4,
)  # fmt: skip


def tiny_clouds(seed: int = 0, **changes: object) -> Surrogate:
    """Some tens of points a layer; 10 to 90 GeV."""
    architecture = PointsArchitecture(**(SMALL.to_dict() | changes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PointsModel(architecture)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.1 if name.endswith("weight") else 0.03)
    layers, step = architecture.layers, torch.linspace(-TAIL, TAIL, model.distance_table.shape[1])
    model.distance_table.copy_((-1 + 0.8 * step).repeat(layers, 1))
    model.energy_table.copy_((-9 + 0.7 * step).repeat(layers, 1))
    model.unit.fill_(5e-3)
    model.condition_mean.fill_(3.8)
    model.condition_scale.fill_(0.5)
    bias = model.shower_location_scale.network[-1].bias
    with torch.no_grad():
        location = [torch.full((layers,), -1.8), torch.zeros(3 * layers + 1)]
        bias.copy_(torch.cat([*location, torch.full((4 * layers + 1,), -2.3)]))
    model.shower_leads.start_from(torch.tensor([1.2, 1.0, -3.6, 0.0, 0.0, 0.0]), torch.full((LEADS,), 0.1))
    card = Card(
        name="tiny-cloud", kind="points", architecture=architecture.to_dict(), energy=(10, 90), training={},
        trained=TrainedDetector(detector={"kind": "siw"}, clustering="crossings"),
    )  # fmt: skip
    return Surrogate(model.eval().requires_grad_(False), card)
