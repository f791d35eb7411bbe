from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_clouds import tiny_clouds

from calograd.errors import CaloGradError
from calograd.evaluation.stopwatch import time_apart


def test_every_batch_is_timed_in_another_process() -> None:
    surrogate = tiny_clouds()
    found = list(time_apart(surrogate, surrogate.model.sampling_schedule(), (20.0, 80.0), [(1, 3), (4, 2)], 2))
    assert len(found) == 2
    for clock, processor in found:
        assert len(clock) == len(processor) == 2
        assert all(0 < value < 1e4 for value in clock + processor)


def test_what_it_dies_of_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = tiny_clouds()

    def save(folder: Path, *, compact: bool = False) -> None:
        folder.mkdir()

    monkeypatch.setattr(surrogate, "save", save)
    with pytest.raises(CaloGradError, match=r"timing tiny-cloud failed: .*FormatError"):
        list(time_apart(surrogate, surrogate.model.sampling_schedule(), (20.0, 80.0), [(1, 1)], 1))
