"""Progress of long work: one callback for every function that takes long."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` after each part of the work; the units are those of the work (showers, draws)."""
StageProgress = Callable[[str, int, int], None]
"""Called as ``progress(stage, done, total)`` by work of several stages; ``stage`` is a short name for the user."""


def silent(*_: object) -> None:
    """Ignore progress: the default of every function that reports it."""
