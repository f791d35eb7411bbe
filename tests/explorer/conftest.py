"""What tests of the explorer share: one of the bundled surrogate, and one of random weights that is quick."""

from __future__ import annotations

import pytest
import torch
from helpers.cards import design_card

from calograd.explorer import landscape, views
from calograd.explorer.views import Explorer
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    return Explorer(Surrogate.load("pbf2-cells"))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """Its name is not to be trusted; there is less to compute than usual."""
    monkeypatch.setattr(landscape, "POINTS", 4)
    for name, value in (("ASCENT_STEPS", 4), ("BATCHES", 2), ("BATCH", 20), ("ALL_SHOWERS", views.PREVIEW + 40)):
        monkeypatch.setattr(views, name, value)
    architecture = CellsArchitecture(
        n_xy=3,
        n_z=2,
        shape_width=8,
        shape_blocks=1,
        pattern_width=8,
        pattern_blocks=1,
        embedding=8,
        location_scale_width=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CellsModel(architecture).requires_grad_(False)
    card = design_card("<img src=x onerror=alert(1)>", architecture, unequal_layers=True)
    return Explorer(Surrogate(model, card))
