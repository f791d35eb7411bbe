"""What tests of the explorer share: one of the bundled surrogate, and two of random weights that are quick."""

from __future__ import annotations

import pytest
import torch
from helpers.cards import design_card
from helpers.tiny import tiny_surrogate_of_particles

from calograd.explorer import landscape, views
from calograd.explorer.views import Explorer
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel

SMALL = {
    "shape_width": 8, "shape_blocks": 1, "pattern_width": 8, "pattern_blocks": 1, "embedding": 8,
    "location_scale_width": 8,
}  # fmt: skip


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    return Explorer(Surrogate.load("pbf2-cells"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is less to compute than usual."""
    monkeypatch.setattr(landscape, "POINTS", 4)
    for name, value in (("ASCENT_STEPS", 4), ("BATCHES", 2), ("BATCH", 20), ("ALL_SHOWERS", views.PREVIEW + 40)):
        monkeypatch.setattr(views, name, value)


@pytest.fixture
def tiny(quick: None) -> Explorer:
    """Its name is not to be trusted."""
    architecture = CellsArchitecture(n_xy=3, n_z=2, **SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CellsModel(architecture).requires_grad_(False)
    card = design_card("<img src=x onerror=alert(1)>", architecture, unequal_layers=True)
    return Explorer(Surrogate(model, card))


@pytest.fixture(scope="session")
def of_particles() -> Explorer:
    return Explorer(tiny_surrogate_of_particles())


@pytest.fixture
def tilted(quick: None, of_particles: Explorer) -> Explorer:
    """Of a surrogate that takes particles."""
    return of_particles
