"""The worker: a thread that computes the results of the latest selection and publishes them in order.

Work on a selection ends as soon as another one is requested.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter

from calograd.errors import CaloGradError
from calograd.explorer.kinds import Selection, Slope, View
from calograd.explorer.landscape import Surface
from calograd.explorer.views import Explorer

SETTLING_TIME = 0.25
"""Seconds without a change before anything but a preview is computed."""

JOIN_TIME = 20.0
"""Seconds that the end of the interpreter waits for the thread."""


@dataclass(frozen=True)
class LandscapeProgress:
    """Share of the landscape that is computed, from 0 to 1."""

    selection: Selection
    share: float


@dataclass(frozen=True)
class Step:
    """One step of an ascent.

    Args:
        selection: the design.
        value: the quantity that is improved.
        number: index of the step.
    """

    selection: Selection
    value: float
    number: int


@dataclass(frozen=True)
class Converged:
    """The end of an ascent, with its reason."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """An error, in one line."""

    message: str


@dataclass(frozen=True)
class Complete:
    """Everything of this selection is computed."""

    selection: Selection


Result = View | Slope | Surface | LandscapeProgress | Step | Converged | Failure | Complete


class _NewerError(Exception):
    """Another selection was requested."""


class Worker:
    """A thread that works for one page.

    Args:
        explorer: the explorer that computes.
        publish: called with every result, from the thread.
    """

    def __init__(self, explorer: Explorer, publish: Callable[[Result], None]) -> None:
        self._explorer = explorer
        self._publish = publish
        self._changed = Condition()
        self._asked = 0
        self._selection: Selection | None = None
        self._ascends = False
        self._stopped = False
        self._thread = Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def ask(self, selection: Selection, *, ascend: bool = False) -> None:
        """Request the results of a selection, or an ascent from it; earlier requests are dropped."""
        with self._changed:
            self._asked += 1
            self._selection, self._ascends = selection, ascend
            self._changed.notify()

    def drop(self) -> None:
        """Drop earlier requests."""
        with self._changed:
            self._asked += 1
            self._selection = None
            self._changed.notify()

    def stop(self) -> None:
        """End the thread after its current piece of work."""
        with self._changed:
            self._asked += 1
            self._stopped = True
            self._changed.notify()
        atexit.unregister(self._end)

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread. Return whether it ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _end(self) -> None:
        """End the thread before the interpreter ends, when torch must not be at work."""
        self.stop()
        self.join(JOIN_TIME)

    def _run(self) -> None:
        number = 0
        while True:
            with self._changed:
                while self._asked == number and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                number, selection, ascends = self._asked, self._selection, self._ascends
            if selection is None:
                continue
            try:
                for result in self._ascend(selection, number) if ascends else self._stages(selection, number):
                    self._check(number)
                    self._publish(result)
            except _NewerError:
                continue
            except CaloGradError as error:
                self._publish(Failure(" ".join(str(error).split())))

    def _stages(self, selection: Selection, number: int) -> Iterator[Result]:
        began = perf_counter()
        yield self._explorer.preview(selection)
        self._settle(number, began)
        yield from self._explorer.refined(selection)
        yield self._explorer.slope(selection, lambda: self._check(number))
        for stage in self._explorer.landscape(selection):
            yield LandscapeProgress(selection, stage) if isinstance(stage, float) else stage
        yield Complete(selection)

    def _ascend(self, selection: Selection, number: int) -> Iterator[Result]:
        steps = 0

        def on_step(at: Selection, value: float) -> None:
            nonlocal steps
            self._check(number)
            self._publish(Step(at, value, steps))
            steps += 1

        yield Converged(self._explorer.ascend(selection, on_step))

    def _settle(self, number: int, began: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._asked != number, timeout=max(0.0, began + SETTLING_TIME - perf_counter())
            )
        self._check(number)

    def _check(self, number: int) -> None:
        if self._stopped or self._asked != number:
            raise _NewerError
