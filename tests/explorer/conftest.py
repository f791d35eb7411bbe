"""What tests of the explorer share: one of the bundled surrogate, and two of random weights that are quick."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.tiny import SMALL, fresh_surrogate, tiny_surrogate_of_particles

from calograd.explorer import cells, landscape, views
from calograd.explorer.views import Explorer
from calograd.surrogate import Surrogate


@pytest.fixture(scope="session")
def explorer() -> Explorer:
    return Explorer(Surrogate.load("pbf2-cells"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is less to compute than usual."""
    monkeypatch.setattr(landscape, "POINTS", 4)
    monkeypatch.setattr(views, "ASCENT_STEPS", 4)
    monkeypatch.setattr(cells, "ALL_SHOWERS", cells.PREVIEW + 40)
    for name, value in (("batch", 20), ("showers", cells.PREVIEW + 40)):
        monkeypatch.setattr(cells.CellKind, name, value)


@pytest.fixture
def tiny(quick: None) -> Explorer:
    """Its name is not to be trusted."""
    return Explorer(fresh_surrogate("<img src=x onerror=alert(1)>", replace(SMALL, n_xy=3, n_z=2), unequal_layers=True))


@pytest.fixture(scope="session")
def of_particles() -> Explorer:
    return Explorer(tiny_surrogate_of_particles())


@pytest.fixture
def tilted(quick: None, of_particles: Explorer) -> Explorer:
    """Of a surrogate that takes particles."""
    return of_particles
