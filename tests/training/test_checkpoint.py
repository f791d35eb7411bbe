"""Checkpoints: damage is noticed bit by bit, nothing in them is executed, one is there before anything else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_task import ToyTask
from torch import nn

from calograd.errors import FormatError, InputError
from calograd.training.loop import (
    CHECKPOINT,
    Identity,
    Phase,
    TrainingState,
    begin,
    parameters_below,
    read_checkpoint,
    run,
    save_checkpoint,
)


@pytest.fixture
def task() -> ToyTask:
    torch.manual_seed(0)
    return ToyTask(nn.Linear(40, 40))


def test_a_flipped_bit_in_a_weight_is_noticed(task: ToyTask, tmp_path: Path) -> None:
    task.phases = [Phase("one", trained=parameters_below(task.model, ""))]
    save_checkpoint(begin(task, tmp_path), task, tmp_path)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    at = content.index(task.model.weight.detach().numpy().tobytes())
    for place in (at + 2, at + 4001):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged .*; remove .* to start anew"):
            read_checkpoint(tmp_path, dict)
    path.write_bytes(content)
    assert read_checkpoint(tmp_path, dict) is not None


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_in_it_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"phase": Evil()}, tmp_path / CHECKPOINT)
    with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged"):
        read_checkpoint(tmp_path, dict)
    assert not (tmp_path / "executed").exists()


def test_it_is_there_before_the_first_report(task: ToyTask, tmp_path: Path) -> None:
    """A process that is killed within its first report has to leave something to resume from."""

    def loss(state: TrainingState[nn.Linear]) -> torch.Tensor:
        return state.model(torch.ones(1, 40)).square().mean()

    task.phases = [Phase("one", 2, parameters_below(task.model, ""), loss, 0.9, 1e-3)]
    task.watched = tmp_path / CHECKPOINT
    run(task, begin(task, tmp_path), tmp_path)
    assert task.reports == [True, True]


def test_a_run_resumes_with_other_threads_and_with_nothing_else_changed(task: ToyTask, tmp_path: Path) -> None:
    def identity(**training: int) -> Identity:
        table = {"batch": 4, "threads": 2, "checkpoint_minutes": 2} | training
        return Identity("toy", {"name": "one", "training": table}, [])

    task.phases = [Phase("one", trained=parameters_below(task.model, ""))]
    task.identity = identity()
    state = begin(task, tmp_path)
    state.step = 3
    save_checkpoint(state, task, tmp_path)
    task.identity = identity(threads=1, checkpoint_minutes=9)
    assert begin(task, tmp_path).step == 3
    task.identity = identity(threads=1, batch=8)
    with pytest.raises(InputError, match=r"another configuration: training\.batch is 8, was 4; change it back"):
        begin(task, tmp_path)
