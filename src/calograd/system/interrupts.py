"""Ctrl-C where Python's own ``KeyboardInterrupt`` is lost or breaks what it meets.

It is raised wherever the program happens to be: in a callback of the garbage collector, of an import or of HDF5 it is
printed and ignored, or turned into another error, and threads of a library that starts do not survive it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C came, to be asked where the state is whole; a second Ctrl-C stops at once."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield lambda: came
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def checked_interrupt() -> Iterator[Callable[[], None]]:
    """A function that raises ``KeyboardInterrupt`` if Ctrl-C came; see `deferred_interrupt`."""
    with deferred_interrupt() as came:

        def check() -> None:
            if came():
                raise KeyboardInterrupt

        yield check
