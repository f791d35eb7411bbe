"""Work on the latest choice, in a thread of its own: results in order, the best last, and nothing for a choice that
is no longer asked for.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Condition, Thread
from time import perf_counter

from calograd.errors import CaloGradError
from calograd.explorer.landscape import Surface
from calograd.explorer.selection import Choice
from calograd.explorer.views import Explorer, Slope, View

SETTLE = 0.25
"""Seconds without a change before anything but a preview is begun."""

PATIENCE = 20.0
"""Seconds that the interpreter's end waits for a piece of work."""


@dataclass(frozen=True)
class Progress:
    """How far the landscape is, 0 to 1."""

    choice: Choice
    share: float


@dataclass(frozen=True)
class Waypoint:
    """A design on the way up.

    Args:
        choice: the design.
        value: its utility.
        number: from 0.
    """

    choice: Choice
    value: float
    number: int


@dataclass(frozen=True)
class Summit:
    """The end of a climb, and why it ended there."""

    reason: str


@dataclass(frozen=True)
class Failure:
    """What went wrong, in one line."""

    message: str


@dataclass(frozen=True)
class Done:
    """Everything is shown of this choice."""

    choice: Choice


Result = View | Slope | Surface | Progress | Waypoint | Summit | Failure | Done


class _NewerError(Exception):
    """Another choice was made."""


class Worker:
    """A thread that works for one page.

    Args:
        explorer: what computes.
        publish: called with every result, in the thread.
    """

    def __init__(self, explorer: Explorer, publish: Callable[[Result], None]) -> None:
        self._explorer = explorer
        self._publish = publish
        self._changed = Condition()
        self._asked = 0
        self._choice: Choice | None = None
        self._climbs = False
        self._stopped = False
        self._thread = Thread(target=self._run, name="explorer", daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def ask(self, choice: Choice, *, climb: bool = False) -> None:
        """Show a choice, or climb from it; what was asked before is dropped."""
        with self._changed:
            self._asked += 1
            self._choice, self._climbs = choice, climb
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, after the piece of work that it is at."""
        with self._changed:
            self._asked += 1
            self._stopped = True
            self._changed.notify()
        atexit.unregister(self._end)

    def join(self, seconds: float) -> bool:
        """Wait for the thread's end; whether it came."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _end(self) -> None:
        """At the interpreter's end: torch must not be at work then."""
        self.stop()
        self.join(PATIENCE)

    def _run(self) -> None:
        number = 0
        while True:
            with self._changed:
                while self._asked == number and not self._stopped:
                    self._changed.wait()
                if self._stopped:
                    return
                number, choice, climbs = self._asked, self._choice, self._climbs
            assert choice is not None
            try:
                for result in self._climb(choice, number) if climbs else self._stages(choice, number):
                    self._check(number)
                    self._publish(result)
            except _NewerError:
                continue
            except CaloGradError as error:
                self._publish(Failure(" ".join(str(error).split())))

    def _stages(self, choice: Choice, number: int) -> Iterator[Result]:
        began = perf_counter()
        yield self._explorer.preview(choice)
        self._settle(number, began)
        yield from self._explorer.refined(choice)
        yield self._explorer.slope(choice, lambda: self._check(number))
        for stage in self._explorer.landscape(choice):
            yield Progress(choice, stage) if isinstance(stage, float) else stage
        yield Done(choice)

    def _climb(self, choice: Choice, number: int) -> Iterator[Result]:
        steps = 0

        def told(at: Choice, value: float) -> None:
            nonlocal steps
            self._check(number)
            self._publish(Waypoint(at, value, steps))
            steps += 1

        yield Summit(self._explorer.climb(choice, told))

    def _settle(self, number: int, began: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._asked != number, timeout=max(0.0, began + SETTLE - perf_counter())
            )
        self._check(number)

    def _check(self, number: int) -> None:
        if self._stopped or self._asked != number:
            raise _NewerError
