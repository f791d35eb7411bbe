"""What tests of the explorer share: one of the bundled surrogate, and two of random weights that are quick."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from helpers.tiny import SMALL, fresh_surrogate, tiny_surrogate_of_particles

from calograd.explorer import cells, landscape, views
from calograd.explorer import worker as work
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


JOIN_TIME = 60


@pytest.fixture
def wait() -> Callable[..., None]:
    """Wait until something is true of a page."""

    def until(page: Any, ready: Callable[[], object]) -> None:
        end = time.monotonic() + JOIN_TIME
        while not ready():
            assert time.monotonic() < end, f"not in time: {page.bar.object}"
            time.sleep(0.01)

    return until


@pytest.fixture
def finish(wait: Callable[..., None]) -> Callable[[Any], None]:
    """Wait until everything of the present selection is shown."""
    return lambda page: wait(
        page, lambda: "complete" in page.bar.object and page.view.selection == page.controls.selection()
    )


@pytest.fixture
def make_page(finish: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Explorer], Any]]:
    """Make a page that has shown everything."""
    from calograd.explorer.page import Page

    monkeypatch.setattr(work, "SETTLING_TIME", 0.01)
    made: list[Page] = []

    def make(explorer: Explorer) -> Page:
        made.append(Page(explorer))
        finish(made[-1])
        return made[-1]

    yield make
    for page in made:
        page.worker.stop()
        assert page.worker.join(JOIN_TIME)
