"""Surrogates with random weights, small and quick: of 3 x 3 x 2 cells, and one that takes particles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedBeam
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


def tiny_surrogate_of_particles(name: str = "tilted") -> Surrogate:
    """Photons and electrons of 0 to 40 degrees, in windows of up to 7 x 7 x 6 cells."""
    architecture = replace(
        TINY, n_xy=7, n_z=6, pattern_blocks=1, beam=True, sums=True, ends=True, material_numbers=()
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CellsModel(architecture).eval().requires_grad_(False)
    beam = TrainedBeam(particles=("gamma", "e-"), theta=(0, 40))
    sizes = {"dz": (3, 15), "unequal_layers": True}
    return Surrogate(model, design_card(name, architecture, beam=beam, **sizes))
