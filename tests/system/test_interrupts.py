"""Ctrl-C that Python would lose."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from calograd.system.interrupts import checked_interrupt, deferred_interrupt


def test_one_in_a_callback_is_not_lost(interrupt_in_a_callback: Callable[[], None]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with checked_interrupt() as check:
        check()
        interrupt_in_a_callback()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_stops_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with deferred_interrupt() as came:
        assert not came()
        os.kill(os.getpid(), signal.SIGINT)
        assert came()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_have_none() -> None:
    answers: list[bool] = []

    def ask() -> None:
        with deferred_interrupt() as came:
            answers.append(came())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]
