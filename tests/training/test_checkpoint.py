"""Checkpoints: damage is noticed bit by bit, nothing in them is executed, one is there before anything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from calograd.errors import FormatError
from calograd.training.loop import CHECKPOINT, Course, Hooks, Pace, Phase, read_stored, run, write_checkpoint

PACE = Pace(warmup=1, weight_decay=0.0, report_every=1, checkpoint_minutes=60.0)


@pytest.fixture
def course() -> Course[nn.Linear]:
    torch.manual_seed(0)
    return Course.start(nn.Linear(40, 40), 0)


def test_a_flipped_bit_in_a_weight_is_noticed(course: Course[nn.Linear], tmp_path: Path) -> None:
    write_checkpoint(course, tmp_path, {})
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    at = content.index(course.model.weight.detach().numpy().tobytes())
    for place in (at + 2, at + 4001):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged .*; remove .* to start anew"):
            read_stored(tmp_path, dict)
    path.write_bytes(content)
    assert read_stored(tmp_path, dict) is not None


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_in_it_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"phase": Evil()}, tmp_path / CHECKPOINT)
    with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged"):
        read_stored(tmp_path, dict)
    assert not (tmp_path / "executed").exists()


def test_it_is_there_before_the_first_report(course: Course[nn.Linear], tmp_path: Path) -> None:
    """A process that is killed within its first report has to leave something to go on from."""
    seen = []

    def loss(at: Course[nn.Linear]) -> torch.Tensor:
        return at.model(torch.ones(1, 40)).square().mean()

    hooks: Hooks[nn.Linear] = Hooks(
        lambda at: write_checkpoint(at, tmp_path, {}), lambda at: seen.append((tmp_path / CHECKPOINT).exists())
    )
    run(course, [Phase("one", 2, ("",), loss, 0.9, 1e-3)], PACE, hooks, tmp_path)
    assert seen == [True, True]
