"""Surrogates of 8 x 8 maps with random weights, small and quick."""

from __future__ import annotations

from typing import Any

import torch

from calograd.surrogate import Surrogate
from calograd.surrogate.maps.model import MapsArchitecture
from helpers.cards import design_card

SMALL: dict[str, Any] = {
    "pixels": 8, "slabs": 4, "width": 8, "multipliers": (1, 2), "embedding": 8, "shape_width": 12, "shape_blocks": 1,
    "location_scale_width": 8,
}  # fmt: skip


def tiny_maps(seed: int = 0, **sizes: Any) -> Surrogate:
    architecture = MapsArchitecture(**(SMALL | sizes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture.build()
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2 if name.endswith("weight") else 0.1)
    model.condition_mean.copy_(torch.tensor([8.0, 0.1, 2.2, 2.0, 0.0, 0.8, -4.7]))
    model.condition_scale.copy_(torch.tensor([1.3, 0.5, 0.4, 1.0, 1.0, 1.0, 1.0]))
    card = design_card("tiny-maps", architecture, "maps")
    return Surrogate(model.eval().requires_grad_(False), card)
