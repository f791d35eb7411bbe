"""runs/paper.sh, in small and with one of its surrogates."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import forking

SCRIPT = Path(__file__).parents[2] / "runs" / "paper.sh"


def run(folder: Path, *commands: Path) -> str:
    path = os.pathsep.join(map(str, [*commands, Path(sys.executable).parent, os.environ["PATH"]]))
    environment = os.environ | {
        "PATH": path, "MODELS": "ours", "WORKERS": "1",
        "THREADS": "1",  # two threads wait for each other where all processors are busy: five times as long
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(SCRIPT), "--small", str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.geant4
def test_the_papers_experiment_in_small_from_simulation_to_figures(tmp_path: Path) -> None:
    folder = tmp_path / "paper"
    with forking.command() as command:
        run(folder, command)
    for name in ("maps", "profiles", "rrmse", "unseen", "gradients"):
        assert (folder / f"{name}-ours.png").stat().st_size > 10_000
    table = (folder / "table.md").read_text()
    assert all(f"| ours | {when} |" in table for when in ("families", "before", "after"))
    assert "ms a shower, one thread" in table
    stages = (folder / "times.txt").read_text()
    assert "== " not in run(folder)  # what is finished is skipped
    assert (folder / "times.txt").read_text() == stages
