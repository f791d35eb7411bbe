"""``calograd optimise --adapt`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from calograd.surrogate import Surrogate

Run = Callable[..., tuple[int, str, str]]
CONFIG = """
[space]
start = { dx = 2.5, dz = 7.0 }
bounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }
[background]
kind = "none"
[utility]
kind = "containment"
[spectrum]
energies = [1]
[gradient]
showers = 30
steps = 2
[ascent]
steps = 3
draws = 2
max_draws = 2
tolerance = 1e-4
"""
ADAPT = """
[adapt]
budget = 30
first = 24
showers = 6
designs = 3
steps = 20
later_steps = 10
[adapt.detector]
kind = "block"
material = "PbWO4"
[adapt.beam]
particle = "e-"
theta = 20
"""


def command(model: str, output: str) -> tuple[str, ...]:
    return ("optimise", model, "config.toml", "--adapt", "-o", output, "--landscape", "0")


@pytest.mark.geant4
def test_a_run_that_adapts_killed_and_resumed(
    tiny: str, start_calograd: Callable[..., subprocess.Popen[str]], calograd: Run, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(CONFIG + ADAPT)
    code, _, err = calograd(*command(tiny, "whole"), "--json", "out.json")
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["adaptation"] == {"showers": 30, "budget": 30, "adapter": "adapters/step-001"}
    assert "30 simulated showers, 30 of them to adapt to" in " ".join(err.split())
    card = Surrogate.load(tmp_path / "whole" / "adapters" / "step-001").card
    assert (card.designs.material.name, card.energy) == ("PbWO4", (1, 100))
    process = start_calograd(*command(tiny, "cut"))
    learning, end = tmp_path / "cut" / "adapters" / "step-000" / "checkpoint.pt", time.monotonic() + 300
    while not learning.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert learning.exists()
    code, _, err = calograd(*command(tiny, "cut"))
    assert code == 0, err
    assert (tmp_path / "cut" / "ascent.json").read_bytes() == (tmp_path / "whole" / "ascent.json").read_bytes()
    for name in ("step-000", "step-001"):
        showers = [(tmp_path / run / "adapters" / name / "showers.h5").read_bytes() for run in ("cut", "whole")]
        assert showers[0] == showers[1]


@pytest.mark.parametrize(
    ("config", "flags", "complaint"),
    [
        (CONFIG + ADAPT, (), "the configuration has a table [adapt]; add --adapt to follow it, or remove the table"),
        (CONFIG, ("--adapt",), "adaptation needs a table [adapt] with the detector and a budget; add it, or omit"),
        (CONFIG + "[adapt]\nbugdet = 3\n", ("--adapt",), "unknown key 'adapt.bugdet'; did you mean 'budget'?"),
        (CONFIG + ADAPT + "thta = 3\n", ("--adapt",), "unknown key 'adapt.beam.thta'; did you mean 'theta'?"),
    ],
)
def test_what_cannot_be(
    tiny: str, calograd: Run, tmp_path: Path, config: str, flags: tuple[str, ...], complaint: str
) -> None:
    (tmp_path / "config.toml").write_text(config)
    code, _, err = calograd("optimise", tiny, "config.toml", "-o", "run", *flags)
    assert code == 2
    assert complaint in " ".join(err.split())
    assert not (tmp_path / "run").exists()
