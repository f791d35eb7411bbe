from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calograd.detector.material import MATERIALS
from calograd.events.dense import Cells, read_cells, write_cells
from calograd.events.segmentation import GDML
from calograd.surrogate import Surrogate
from calograd.training.tasks.denoise import PHASES

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--steps", "40", "--batch", "32", "--validation", "0.25")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps for the networks of location and scale, which have no options of their own."""
    from calograd.training import config

    quick = {name: defaults | {"location_scale_steps": 20} for name, defaults in config.METHOD_DEFAULTS.items()}
    monkeypatch.setattr(config, "METHOD_DEFAULTS", quick)


@pytest.fixture
def data(tmp_path: Path, make_cells: Callable[..., Cells]) -> Path:
    rng = np.random.default_rng(0)
    dx, dz = (np.exp(rng.uniform(np.log(a), np.log(b), 48)) for a, b in ((1, 5), (4, 15)))
    cells = make_cells([2.0, 10.0, 50.0], dx, dz)
    write_cells(tmp_path / "cells.h5", replace(cells, material=MATERIALS["PbWO4"], config={"mode": "stand-alone"}))
    write_cells(tmp_path / "mev.h5", replace(cells, cells=cells.cells * 1000))
    write_cells(tmp_path / "flat.h5", replace(cells, cells=cells.cells[..., :3], dz=cells.dz[:, :3]))
    return tmp_path / "cells.h5"


def test_a_run_its_repetition_and_its_use(calograd: Run, tiny: str, data: Path, tmp_path: Path) -> None:
    command = ("adapt", tiny, "--data", "cells.h5", *QUICK, "--showers", "40", "--rank", "2", "--balanced", "-o", "new")
    code, _, err = calograd(*command, "--json", "out.json")
    assert code == 0, err
    text = " ".join(err.split())
    assert "40 showers of PbWO4, 10 of them held out: 30 rows to learn from, 10 to validate on" in text
    assert "lora of tiny" in text
    assert "adapted surrogate in new" in text
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"checkpoint.pt", "log.jsonl", "adapter.safetensors"}
    result = json.loads((tmp_path / "out.json").read_text())
    assert [phase["name"] for phase in result["phases"]] == list(PHASES)
    assert set(result["physics"]) == {"before", "after"}
    assert result["bytes"] == (tmp_path / "new" / "adapter.safetensors").stat().st_size
    code, _, err = calograd(*command, "--json", "again.json")
    assert code == 0, err
    assert (tmp_path / "again.json").read_text() == (tmp_path / "out.json").read_text()
    code, _, err = calograd("sample", "new", "--cell", "2.5", "6", "--energy", "10", "-n", "3", "-o", "made.h5")
    assert code == 0, err
    assert Surrogate.load(tmp_path / "new").card.designs.mode == "stand-alone"
    code, _, err = calograd(*command, "--seed", "1")
    assert code == 2
    assert "seed is 1, was 0; change it back or choose another output" in err


@pytest.mark.parametrize("method", ["bitfit", "full", "scratch"])
def test_other_methods(calograd: Run, tiny: str, data: Path, tmp_path: Path, method: str) -> None:
    code, _, err = calograd("adapt", tiny, "--data", "cells.h5", *QUICK, "--method", method, "-o", "new")
    assert code == 0, err
    assert f"{method} of tiny" in " ".join(err.split())
    assert Surrogate.load(tmp_path / "new").card.designs.material.name == "PbWO4"


def test_a_run_that_begins_with_an_adapter(calograd: Run, tiny: str, data: Path, tmp_path: Path) -> None:
    command = ("adapt", tiny, "--data", "cells.h5", *QUICK, "--method", "bitfit")
    assert calograd(*command, "-o", "first")[0] == 0
    code, _, err = calograd(*command, "--start", "first", "-o", "second")
    assert code == 0, err
    assert [adapter.card.name for adapter in Surrogate.load(tmp_path / "second").adapters] == ["second"]
    code, _, err = calograd(*command[:-1], "full", "--start", "first", "-o", "third")
    assert code == 2
    assert "error: adapter 'first' is bitfit of *, this adaptation is full of *" in err


def test_ctrl_c_leaves_a_state_to_resume(
    start_calograd: Callable[..., subprocess.Popen[str]], tiny: str, data: Path, tmp_path: Path
) -> None:
    process = start_calograd(
        "adapt", tiny, "--data", "cells.h5", "--validation", "0.25", "--steps", "1000000", "-o", "new"
    )
    waited = time.monotonic() + 200
    while not (tmp_path / "new" / "log.jsonl").exists() and time.monotonic() < waited:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 130
    assert "interrupted: new holds a checkpoint; the same command resumes from it" in err
    assert (tmp_path / "new" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "none.h5"], "none.h5 does not exist"),
        (["--start", "none"], "none does not exist; expected an adapter"),
        (["--data", "mev.h5"], "perhaps the cells are in MeV or keV: expected GeV for both"),
        (["--data", "flat.h5"], "the data have 5 x 5 x 3 cells, tiny generates 5 x 5 x 5; segment with --cells 5 5"),
        (["--showers", "1000"], "1000 showers were asked for, the data have 48; ask for fewer or add data"),
        (["--showers", "12"], "12 showers are too few to split off 25%; expected 20 or more"),
        (["--showers", "0"], "'--showers': 0 is not in the range x>=1"),
        (["--validation", "1.5"], "'--validation': 1.5 is not in the range 0<x<1"),
        (["--targets", "patern_network"], "no linear layer is called 'patern_network'; did you mean 'pattern_network'"),
        (["--targets", ","], "no layer is given to adapt"),
        (["--rank", "0"], "'--rank': 0 is not in the range x>=1"),
        (["--learning-rate", "-1"], "'--learning-rate': -1.0 is not in the range x>0"),
        (["--rank", "4", "--method", "full"], "--rank belongs to --method lora, not to full"),
        (["--targets", "*", "--method", "scratch"], "--targets and --method scratch exclude each other"),
        (["--json", "cells.h5"], "cells.h5 exists already"),
        (["--device", "abacus"], "device 'abacus' cannot be used"),
        (["-o", "cells.h5"], "cells.h5 is a file, expected a folder"),
    ],
)
def test_errors_are_one_line(
    calograd: Run, tiny: str, data: Path, tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    files = [] if "--data" in arguments else ["--data", "cells.h5"]
    code, _, err = calograd("adapt", tiny, *files, *QUICK, "-o", "new", *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "Traceback" not in err
    assert not (tmp_path / "new").exists()


def test_an_adapted_folder_on_another_base(calograd: Run, tiny: str, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "base"
    Surrogate.load(tiny).save(moved)
    code, _, err = calograd("adapt", "base", "--data", "cells.h5", *QUICK, "--method", "bitfit", "-o", "new")
    assert code == 0, err
    other = Surrogate.load(moved)
    other.model.pattern_network.out.bias.add_(1)
    other.save(moved)
    code, _, err = calograd("sample", "new", "--cell", "2.5", "6", "--energy", "10", "-n", "3", "-o", "made.h5")
    assert code == 2
    assert "error: adapter 'new' belongs to the base 'tiny' (" in err


def test_cells_of_a_geometry_are_a_new_detector(calograd: Run, tiny: str, data: Path, tmp_path: Path) -> None:
    """The adapted surrogate says what it is of, and takes no symmetry from its base."""
    cells = replace(read_cells(data), config={"mode": GDML})
    write_cells(tmp_path / "others.h5", cells)
    code, _, err = calograd("adapt", tiny, "--data", "others.h5", *QUICK, "--method", "bitfit", "-o", "new")
    assert code == 0, err
    adapted = Surrogate.load(tmp_path / "new")
    assert adapted.card.designs.mode == "GDML geometry"
    assert not adapted.design_model.architecture.symmetric
    assert Surrogate.load(tiny).design_model.architecture.symmetric
