"""The worker: results in order, none for what is no longer asked for, errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, Queue

import pytest

from calograd.explorer import worker as work
from calograd.explorer.cells import CellSlope, CellView
from calograd.explorer.landscape import Surface
from calograd.explorer.views import Explorer
from calograd.explorer.worker import Complete, Converged, Failure, LandscapeProgress, Result, Step, Worker

JOIN_TIME = 60


@pytest.fixture
def results() -> Queue[Result]:
    return Queue()


@pytest.fixture
def worker(tiny: Explorer, results: Queue[Result], monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(work, "SETTLING_TIME", 0.01)
    made = Worker(tiny, results.put)
    yield made
    made.stop()
    assert made.join(JOIN_TIME)


def until(results: Queue[Result], kind: type[Result]) -> list[Result]:
    found: list[Result] = []
    while not found or not isinstance(found[-1], kind):
        found.append(results.get(timeout=JOIN_TIME))
    return found


def test_stages_come_in_order(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(tiny.start())
    kinds = [type(each) for each in until(results, Complete)]
    unique = list(dict.fromkeys(kinds))
    assert unique == [CellView, CellSlope, LandscapeProgress, Surface, Complete]


def test_only_the_latest_choice_is_finished(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    start = tiny.start()
    for k in range(20):
        worker.ask(replace(start, dx=2.0 + 0.05 * k))
    found = until(results, Complete)
    assert isinstance(found[-1], Complete)
    assert found[-1].selection.dx == pytest.approx(2.95)
    assert {each.selection.dx for each in found if isinstance(each, CellSlope | Surface)} == {2.0 + 0.05 * 19}
    with pytest.raises(Empty):
        results.get(timeout=0.2)


def test_errors_are_told_and_the_worker_goes_on(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(replace(tiny.start(), dx=50.0))
    failure = results.get(timeout=JOIN_TIME)
    assert isinstance(failure, Failure)
    assert "dx = 50 cm is outside 1 to 5 cm" in failure.message
    assert "\n" not in failure.message
    worker.ask(tiny.start())
    assert isinstance(results.get(timeout=JOIN_TIME), CellView)


def test_an_ascent_tells_its_steps_and_its_end(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(tiny.start(), ascend=True)
    *steps, end = until(results, Converged)
    assert [step.number for step in steps if isinstance(step, Step)] == list(range(len(steps)))
    assert isinstance(end, Converged)
    assert end.reason
