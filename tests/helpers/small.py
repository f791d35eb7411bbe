"""A small surrogate of cells with random weights."""

from __future__ import annotations

import torch

from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from helpers.cards import design_card

SMALL = CellsArchitecture(
    n_xy=3,
    n_z=2,
    shape_width=12,
    shape_blocks=1,
    pattern_width=16,
    pattern_blocks=2,
    embedding=8,
    location_scale_width=8,
)


def small_surrogate(dtype: torch.dtype) -> Surrogate:
    """3 x 3 x 2 cells, random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = CellsModel(SMALL)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.3 if name.endswith("weight") else 0.1)
        model.condition_mean.copy_(torch.tensor([8.0, 0.1, 2.2, 2.2, 2.0, 0.0, 0.8, -4.7]))
        model.condition_scale.copy_(torch.tensor([1.3, 0.5, 0.4, 0.4, 1.0, 1.0, 1.0, 1.0]))
    card = design_card("small", SMALL, unequal_layers=True)
    return Surrogate(model.to(dtype).eval().requires_grad_(False), card)
