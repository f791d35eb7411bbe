"""A small surrogate of cells with random weights."""

from __future__ import annotations

import torch

from calograd.detector.material import MATERIALS
from calograd.surrogate import Card, Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel

SMALL = CellsArchitecture(
    n_xy=3, n_z=2, shape_width=12, shape_blocks=1, pattern_width=16, pattern_blocks=2, embedding=8, moments_width=8
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
    card = Card(
        name="small", architecture=SMALL.to_dict(), energy=(1, 100), dx=(1, 5), dz=(4, 15), unequal_layers=True,
        material=MATERIALS["PbF2"].to_dict(), mode="embedded", training={},
    )  # fmt: skip
    return Surrogate(model.to(dtype).eval().requires_grad_(False), card)
