"""The worker: results in order, none for what is no longer asked for, errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from queue import Empty, Queue

import pytest

from calograd.explorer import worker as work
from calograd.explorer.landscape import Surface
from calograd.explorer.views import Explorer, Slope, View
from calograd.explorer.worker import Done, Failure, Progress, Result, Summit, Waypoint, Worker

PATIENCE = 60


@pytest.fixture
def results() -> Queue[Result]:
    return Queue()


@pytest.fixture
def worker(tiny: Explorer, results: Queue[Result], monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setattr(work, "SETTLE", 0.01)
    made = Worker(tiny, results.put)
    yield made
    made.stop()
    assert made.join(PATIENCE)


def until(results: Queue[Result], kind: type[Result]) -> list[Result]:
    found: list[Result] = []
    while not found or not isinstance(found[-1], kind):
        found.append(results.get(timeout=PATIENCE))
    return found


def test_stages_come_in_order(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(tiny.start())
    kinds = [type(each) for each in until(results, Done)]
    unique = list(dict.fromkeys(kinds))
    assert unique == [View, Slope, Progress, Surface, Done]


def test_only_the_latest_choice_is_finished(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    start = tiny.start()
    for k in range(20):
        worker.ask(replace(start, dx=2.0 + 0.05 * k))
    found = until(results, Done)
    assert isinstance(found[-1], Done)
    assert found[-1].choice.dx == pytest.approx(2.95)
    assert {each.choice.dx for each in found if isinstance(each, Slope | Surface)} == {2.0 + 0.05 * 19}
    with pytest.raises(Empty):
        results.get(timeout=0.2)


def test_errors_are_told_and_the_worker_goes_on(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(replace(tiny.start(), dx=50.0))
    failure = results.get(timeout=PATIENCE)
    assert isinstance(failure, Failure)
    assert "dx = 50 cm is outside 1 to 5 cm" in failure.message
    assert "\n" not in failure.message
    worker.ask(tiny.start())
    assert isinstance(results.get(timeout=PATIENCE), View)


def test_a_climb_tells_its_steps_and_its_end(worker: Worker, tiny: Explorer, results: Queue[Result]) -> None:
    worker.ask(tiny.start(), climb=True)
    *steps, end = until(results, Summit)
    assert [step.number for step in steps if isinstance(step, Waypoint)] == list(range(len(steps)))
    assert isinstance(end, Summit)
    assert end.reason
