"""Progress of long work: bars on a terminal, a line now and then where the output is a file or a pipe."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Lock, Thread
from time import monotonic

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from calograd.cli.common import console

FIRST_LINE, NEXT_LINE = 4.0, 30.0
"""Seconds until the first line where the output is no terminal, and between the next ones."""


@contextmanager
def progress(work: str) -> Iterator[Display]:
    """Show the progress of work on standard error while the block runs.

    On a terminal every stage has a bar with the time left. Elsewhere there is a line after `FIRST_LINE` seconds and
    then one every `NEXT_LINE` seconds, which says what is done and about how long the rest takes.

    Args:
        work: the work in a word or two; shown until a stage reports.
    """
    display = _Bars(work) if console.is_terminal else _Lines(work)
    with display.shown():
        yield display


class Display(ABC):
    """The progress that is shown; it is a `calograd.system.progress.StageProgress`."""

    @abstractmethod
    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        """Show that ``done`` of ``total`` parts of a stage are finished, with a note such as the current loss."""

    def counter(self, stage: str) -> Callable[[int, int], None]:
        """Return the callback ``progress(done, total)`` of a stage."""
        return lambda done, total: self(stage, done, total)

    def say(self, line: str) -> None:
        """Print a line above what is shown."""
        console.print(line)

    @abstractmethod
    def shown(self) -> AbstractContextManager[None]:
        """Show the progress while the block runs."""


class _Bars(Display):
    def __init__(self, work: str) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._work: TaskID | None = self._bars.add_task(work, total=None)

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        if self._work is not None:
            self._bars.remove_task(self._work)
            self._work = None
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        description = f"{stage}: {note}" if note else stage
        self._bars.update(self._tasks[stage], completed=done, total=total, description=description)

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self._bars:
            yield


class _Stage:
    """A stage that is shown in lines. Its rate counts from its first report, because a resumed stage begins above 0."""

    def __init__(self, name: str, done: int) -> None:
        self.name, self.note = name, ""
        self.began, self.first, self.done = monotonic(), done, done
        self.total: int | None = None

    @property
    def ended(self) -> bool:
        return self.total is not None and self.done >= self.total

    def __str__(self) -> str:
        taken = monotonic() - self.began
        text = f"{self.name}: {self.done}" + (f" of {self.total}" if self.total is not None else "")
        text += f", {self.note}" if self.note else ""
        if self.ended or self.total is None or self.done == self.first:
            return f"{text}, {duration(taken)} so far"
        left = taken * (self.total - self.done) / (self.done - self.first)
        return f"{text}, {duration(taken)} so far, about {duration(left)} left"


class _Lines(Display):
    def __init__(self, work: str) -> None:
        self._begin = _Stage(work, 0)
        self._stages: dict[str, _Stage] = {}
        self._lock, self._end = Lock(), Event()

    def __call__(self, stage: str, done: int, total: int | None, note: str = "") -> None:
        with self._lock:
            shown = self._stages.get(stage)
            if shown is None or done < shown.done:  # the stage begins, or begins anew
                shown = self._stages[stage] = _Stage(stage, done)
            shown.done, shown.total, shown.note = done, total, note

    @contextmanager
    def shown(self) -> Iterator[None]:
        thread = Thread(target=self._run, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _run(self) -> None:
        wait = FIRST_LINE
        while not self._end.wait(wait):
            console.print(self._line(), soft_wrap=True, highlight=False)
            wait = NEXT_LINE

    def _line(self) -> str:
        with self._lock:
            stages = list(self._stages.values())
            going = [stage for stage in stages if not stage.ended] or stages[-1:]
            return (
                "; ".join(map(str, going)) or f"{self._begin.name}: {duration(monotonic() - self._begin.began)} so far"
            )


def duration(seconds: float) -> str:
    """Return a time in words, as ``40 s``, ``12 min`` or ``3 h 20 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
