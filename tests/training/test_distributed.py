from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from helpers.made_up import tables, tiny_config
from test_train_maps import PLAIN
from test_train_maps import config_of as maps_config

from calograd.errors import InputError, Interrupted
from calograd.surrogate.storage import load
from calograd.system.random_numbers import RandomNumbers
from calograd.training.data.rows import load_data
from calograd.training.distributed import (
    SingleProcess,
    check_process_group,
    leader_reports_interrupt,
    open_process_group,
)
from calograd.training.log import read_log
from calograd.training.loop import CHECKPOINT
from calograd.training.tasks.denoise import DIFFUSION, PHASES, batch_loss
from calograd.training.train import make_task, train

Start = Callable[..., subprocess.Popen[str]]
BARE = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start ``python -m calograd train`` on a tiny run in the test's folder."""
    pytest.importorskip("lightning_fabric", reason="Lightning Fabric is not installed (extra cluster)")
    as_toml = {
        name: ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items())
        for name, table in tables(tmp_path, threads=1).items()
        if isinstance(table, dict)
    }
    text = "\n".join(['name = "tiny"', *(f"{name} = {{ {inner} }}" for name, inner in as_toml.items())])
    (tmp_path / "tiny.toml").write_text(text)

    def begin(*arguments: str, program: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [sys.executable, *program, "-m", "calograd", "train", "tiny.toml", *arguments]
        return subprocess.Popen(
            command, cwd=tmp_path, env=BARE | {"OMP_NUM_THREADS": "1"}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    return begin


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and standard error of all its processes."""
    _, err = process.communicate(timeout=600)
    return process.returncode, err


def assert_close(folder: Path, other: Path) -> None:
    """The same loss curve and the same weights, but for the order of sums."""
    ours, theirs = read_log(folder), read_log(other)
    assert [report["step"] for report in ours] == [report["step"] for report in theirs] != []
    for name in ("train_loss", "validation_loss"):
        assert [r[name] for r in ours] == pytest.approx([r[name] for r in theirs], rel=1e-4)
    for (name, mine), its in zip(
        load(folder)[0].state_dict().items(), load(other)[0].state_dict().values(), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_give_the_loss_curve_of_one_interrupted_or_not(
    start: Start, calograd: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    config = tiny_config(tmp_path, threads=1)
    train(config, tmp_path / "one", data=load_data(config.data.files, 0.2, 0))

    code, err = finish(start("-o", "two", "--processes", "2", "--json", "two.json"))
    assert code == 0, err
    assert_close(tmp_path / "two", tmp_path / "one")
    assert err.count("surrogate in two") == 1  # one process speaks
    assert json.loads((tmp_path / "two.json").read_text()) == read_log(tmp_path / "two")[-1]

    process = start("-o", "cut", "--processes", "2")
    while not (tmp_path / "cut" / CHECKPOINT).exists():
        assert process.poll() is None, finish(process)
    process.send_signal(signal.SIGINT)  # to the first process alone: the other learns of it
    code, err = finish(process)
    if code:  # else it had ended before the signal came
        assert code == 130, err
        assert err.count("interrupted:") == 1
    code, _, err = calograd("train", "tiny.toml", "-o", "cut")  # one process goes on with the run of two
    assert code == 0, err
    assert_close(tmp_path / "cut", tmp_path / "one")


def test_processes_that_torchrun_started(start: Start, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    code, err = finish(start("-o", "two", "--processes", "2", program=torchrun))
    assert code == 0, err
    assert err.count("surrogate in two") == 1
    assert [report["step"] for report in read_log(tmp_path / "two")] == [20, 40]


def test_an_error_of_all_is_told_once(start: Start, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "log.jsonl").write_text("{}\n")
    code, err = finish(start("-o", "two", "--processes", "2"))
    assert code == 2
    assert err.count("error: ") == 1, err
    assert "exists but no checkpoint.pt to resume from" in err


@pytest.mark.parametrize(
    ("kind", "phase"), [*product(("cells", "shares"), range(len(PHASES))), ("plain", PHASES.index(DIFFUSION))]
)
def test_losses_of_shares_are_parts_of_the_whole_loss(tmp_path: Path, kind: str, phase: int) -> None:
    """Also where numbers are dropped at random, in maps in plain coordinates, which have no location and scale."""
    config = tiny_config(tmp_path) if kind == "cells" else maps_config(tmp_path, PLAIN if kind == "plain" else None)
    data = load_data(config.data.files, 0.2, 0)
    model = make_task(config, data, SingleProcess()).model
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1, generator=generator)

    def gradients(*shares: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        for mine in shares:
            random = RandomNumbers(1, mine.numpy())
            loss = batch_loss(model, data, data.train.at(mine), phase, random, "fp32") / len(shares)
            loss.backward()
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        assert any(bool(g.abs().max() > 0) for g in found)
        return found

    whole = gradients(torch.arange(12))
    halves = gradients(torch.arange(6), torch.arange(6, 12))
    for a, b in zip(whole, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.abs().max()) + 1e-7)


class OneOf(SingleProcess):
    """As one of several processes sees itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.leads = size, False


@pytest.mark.parametrize(("batch", "size"), [(32, 3), (30, 4), (33, 2)])
def test_batches_that_cannot_be_shared_out(tmp_path: Path, batch: int, size: int) -> None:
    config = tiny_config(tmp_path, batch=batch)
    with pytest.raises(InputError, match=rf"training.batch = {batch} cannot be shared out to {size} .*of {2 * size}"):
        train(config, tmp_path / "run", data=load_data(config.data.files, 0.2, 0), group=OneOf(size))


def test_followers_leave_the_interruption_to_the_leader() -> None:
    with pytest.raises(SystemExit, match="0"), leader_reports_interrupt(OneOf(2)):
        raise Interrupted("told by another")
    with pytest.raises(Interrupted), leader_reports_interrupt(SingleProcess()):
        raise Interrupted("told here")


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        ((0, 1, "cpu"), {}, "--processes is 0, expected at least 1"),
        ((1, -1, "cpu"), {}, "--nodes is -1"),
        ((2, 1, "cuda:1"), {}, "--device cuda:1 with several processes: expected cpu or cuda"),
        ((1, 2, "cpu"), {}, "--nodes 2: MASTER_ADDR, MASTER_PORT, NODE_RANK not set; start the command with srun"),
        ((2, 1, "cpu"), {"WORLD_SIZE": "4"}, "one of 4 processes, --processes 2 --nodes 1 are 2"),
        ((1, 1, "cpu"), {"WORLD_SIZE": "2"}, "one of 2 processes"),
        (
            (1, 2, "cpu"), {"MASTER_ADDR": "no such.host", "MASTER_PORT": "29500", "NODE_RANK": "1"},
            "MASTER_ADDR=no such.host, MASTER_PORT=29500: .*; expected the name and a free port of the first node",
        ),
    ],
)  # fmt: skip
def test_teams_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[int, int, str], environment: dict[str, str], complaint: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=complaint):
        check_process_group(*arguments)


def test_without_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(InputError, match=r"pip install 'calograd\[cluster\]'"):
        open_process_group(2, 1, "cpu")
    assert isinstance(open_process_group(1, 1, "cpu"), SingleProcess)
