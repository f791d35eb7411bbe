"""Deferred handling of Ctrl-C.

Python raises ``KeyboardInterrupt`` wherever the program happens to be. In a callback of the garbage collector, of an
import or of HDF5 it is printed and ignored, or turned into another error; it can kill the threads of a library.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C came, to call between steps; a second Ctrl-C stops at once."""
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
    """Yield a function that raises ``KeyboardInterrupt`` if Ctrl-C came; see `deferred_interrupt`."""
    with deferred_interrupt() as came:

        def check() -> None:
            if came():
                raise KeyboardInterrupt

        yield check
