"""A surrogate of 3 x 3 x 2 cells with random weights, small and quick."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from helpers.cards import design_card

TINY = CellsArchitecture(
    n_xy=3,
    n_z=2,
    shape_width=12,
    shape_blocks=1,
    pattern_width=16,
    pattern_blocks=2,
    embedding=8,
    location_scale_width=8,
)


def tiny_surrogate(seed: int = 0, **sizes: Any) -> Surrogate:
    architecture = replace(TINY, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CellsModel(architecture)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3 if name.endswith("weight") else 0.1)
        model.condition_mean.copy_(torch.tensor([8.0, 0.1, 2.2, 2.2, 2.0, 0.0, 0.8, -4.7]))
        model.condition_scale.copy_(torch.tensor([1.3, 0.5, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0]))
    card = design_card("tiny", architecture)
    return Surrogate(model.eval().requires_grad_(False), card)
