from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calograd.detector.material import MATERIALS
from calograd.events.dense import Cells, write_cells

CONFIG = """
name = "tiny"
[data]
files = ["cells.h5"]
validation = 0.3
[range]
energy = [1.5, 80]
dx = [1.2, 4.5]
dz = [4.5, 13]
[model]
shape_width = 16
shape_blocks = 1
pattern_width = 16
pattern_blocks = 1
embedding = 8
location_scale_width = 8
[training]
steps = {steps}
batch = 32
location_scale_steps = 20
location_scale_batch = 32
warmup = 5
report_every = 20
threads = 1
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def config(tmp_path: Path) -> Path:
    rng, n = np.random.default_rng(0), 40
    energy = np.exp(np.linspace(0, np.log(100), n)).astype(np.float32)
    cells = rng.gamma(1.0, size=(n, 3, 3, 2))
    cells *= (rng.uniform(0.9, 0.98, n) * energy / cells.sum((1, 2, 3)))[:, None, None, None]
    cells[3] = 0
    dx, dz = (np.exp(np.linspace(np.log(a), np.log(b), n)).astype(np.float32) for a, b in ((1, 5), (4, 15)))
    write_cells(
        tmp_path / "cells.h5",
        Cells(
            cells.astype(np.float32), energy, rng.permutation(dx), rng.permutation(dz)[:, None].repeat(2, 1),
            np.arange(n), MATERIALS["PbF2"], "geant4",
        ),
    )  # fmt: skip
    (tmp_path / "run.toml").write_text(CONFIG.format(steps=40))
    return tmp_path / "run.toml"


def test_a_run_and_its_repetition(calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd("train", "run.toml", "-o", "run", "--json", "out.json")
    assert code == 0, err
    assert "1 rows without energy left out" in " ".join(err.split())
    assert "surrogate in run" in err
    names = {"checkpoint.pt", "log.jsonl", "model.safetensors", "training.png"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
    assert (tmp_path / "run" / "training.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out.json").read_text())["step"] == 40
    code, _, err = calograd("train", "run.toml", "-o", "run", "--json", "again.json")
    assert code == 0, err
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()
    (tmp_path / "run.toml").write_text(CONFIG.format(steps=50))
    code, _, err = calograd("train", "run.toml", "-o", "run")
    assert code == 2
    assert "training.steps is 50, was 40" in err


def test_a_distillation_from_the_command_line(calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd("train", "run.toml", "-o", "teacher")
    assert code == 0, err
    head, tail = (tmp_path / "run.toml").read_text().split("[model]")
    tail = tail[tail.index("[training]") :]
    table = '[distillation]\nteacher = "teacher"\nstudent_steps = [2, 1]\n'
    (tmp_path / "distil.toml").write_text(head.replace('"tiny"', '"fast"') + table + tail)
    code, _, err = calograd("train", "distil.toml", "-o", "fast", "--json", "out.json")
    assert code == 0, err
    assert "distillation, step 40: validation loss" in " ".join(err.split())
    assert json.loads((tmp_path / "out.json").read_text())["step"] == 40
    code, _, err = calograd("sample", "fast", "--cell", "2", "6", "--energy", "10", "-n", "3", "-o", "made.h5")
    assert code == 0, err
    assert "progressive" in err
    (tmp_path / "distil.toml").write_text((tmp_path / "distil.toml").read_text().replace('"teacher"', '"nobody"'))
    code, _, err = calograd("train", "distil.toml", "-o", "other")
    assert code == 2
    assert "no surrogate 'nobody'" in err


def test_ctrl_c_leaves_a_state_to_resume(start_calograd: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG.format(steps=1_000_000).replace("report_every = 20", "report_every = 10"))
    process = start_calograd("train", "run.toml", "-o", "run")
    waited = time.monotonic() + 100
    while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < waited:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "interrupted: run holds a checkpoint; the same command resumes from it" in err
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.toml", "-o", "run"], "none.toml cannot be read: No such file or directory"),
        (["bad.toml", "-o", "run"], "unknown key 'training.stepps'; did you mean 'steps'?"),
        (["run.toml", "-o", "run", "--json", "cells.h5"], "cells.h5 exists already"),
        (["run.toml", "-o", "run", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["run.toml", "-o", "cells.h5"], "cells.h5 is a file, expected a folder"),
    ],
)
def test_errors_are_one_line(calograd: Run, tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "bad.toml").write_text((tmp_path / "run.toml").read_text().replace("steps = 40", "stepps = 40"))
    code, _, err = calograd("train", *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "Traceback" not in err


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own
def test_tensorboard_gets_the_losses(calograd: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    code, _, err = calograd("train", "run.toml", "-o", "run", "--tensorboard")
    assert code == 0, err
    assert b"loss/validation" in next((tmp_path / "run").glob("events.out.tfevents.*")).read_bytes()


def test_tensorboard_that_is_not_installed(calograd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, _, err = calograd("train", "run.toml", "-o", "run", "--tensorboard")
    assert code == 2
    assert "--tensorboard needs tensorboard: pip install 'calograd[tensorboard]'" in err
