from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import uproot

from calograd.events.library.reader import open_library

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def steps(tmp_path: Path) -> Path:
    """Three events of 100 steps in cm and GeV; the beam of 2 GeV goes along -z and meets the face at z = 30 cm."""
    rng = np.random.default_rng(0)
    n = 300
    with uproot.recreate(tmp_path / "run.root") as file:
        file.mktree("hits/steps", {"EventID": "i4", "x": "f4", "y": "f4", "z": "f4", "Edep": "f8", "E0": "f8"})
        file["hits/steps"].extend(
            {
                "EventID": np.repeat(np.arange(3, dtype="i4"), 100), "x": rng.normal(0, 1, n).astype("f4"),
                "y": rng.normal(5, 1, n).astype("f4"), "z": (30 - rng.gamma(4, 2, n)).astype("f4"),
                "Edep": np.full(n, 0.0196), "E0": np.full(n, 2000.0),
            }
        )  # fmt: skip
    return tmp_path / "run.root"


OPTIONS = (
    "--branch", "event=EventID", "--branch", "deposit=Edep", "--branch", "energy=E0", "--length-unit", "cm",
    "--energy-unit", "GeV", "--incident-unit", "MeV", "--axis", "-z", "--origin", "0", "5", "30",
    "--material", "PbWO4", "--particle", "e-",
)  # fmt: skip


def test_import_then_segment(calograd: Run, steps: Path) -> None:
    code, _, err = calograd("import", "run.root", *OPTIONS, "-o", "library.h5", "--json", "out.json")
    assert code == 0, err
    assert "note:" not in err
    summary = json.loads((steps.parent / "out.json").read_text())
    assert (summary["showers"], summary["deposits"], summary["fraction"]) == (3, 300, pytest.approx(0.98))
    assert summary["depth"] == pytest.approx(8, rel=0.1)
    with open_library(steps.parent / "library.h5") as library:
        assert library.material is not None
        assert library.material.name == "PbWO4"
        assert library.provenance.config.beam.particle == "e-"  # type: ignore[union-attr]
    code, _, err = calograd("segment", "library.h5", "--cell", "3", "10", "-o", "cells.h5", "--json", "cells.json")
    assert code == 0, err
    assert json.loads((steps.parent / "cells.json").read_text())["mean_fraction"] == pytest.approx(0.98, rel=1e-3)
    code, _, err = calograd("import", "run.root", *OPTIONS, "-o", "library.h5")
    assert (code, err.splitlines()[-1][:34]) == (2, "error: library.h5 exists already; ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.root"], "none.root does not exist"),
        (["run.root"], "no branch 'deposit' for deposit; did you mean 'Edep'?; its branches: EventID x y z Edep E0"),
        (
            ["run.root", "--branch", "evnt=EventID"],
            "'evnt' is none of event, x, y, z, deposit, energy; did you mean 'e",
        ),
        (["run.root", "--branch", "event"], "expected one name of a branch for event, as --branch event=NAME"),
        (["run.root", *OPTIONS, "--branch", "event=x"], "expected one name of a branch for event"),
        (["run.root", *OPTIONS, "--energy", "2"], "leave out --branch energy=NAME"),
        (["run.root", "--theta", "90"], "--theta: Input should be less than 90, not 90.0"),
        (["run.root", "--energy", "nan"], "'--energy': nan is not a finite number"),
        (["run.root", "--origin", "0", "0", "inf"], "'--origin': inf is not a finite number"),
        (["run.root", "--material", "Kryptonite"], "unknown material 'Kryptonite'"),
        (["run.root", *OPTIONS, "--incident-unit", "keV"], "event 0 deposits 1.96 GeV of 0.002 GeV; 3 of 3 events"),
        (["run.root", *OPTIONS, "--tree", "hits/step"], "no tree 'hits/step'; did you mean 'hits/steps'"),
    ],
)
def test_errors_are_one_line(calograd: Run, steps: Path, arguments: list[str], complaint: str) -> None:
    code, _, err = calograd("import", *arguments, "-o", "library.h5")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert complaint in lines[0]
    assert list(steps.parent.iterdir()) == [steps]


def test_help_has_examples(calograd: Run) -> None:
    code, out, _ = calograd("import", "--help")
    assert code == 0
    assert "calograd import steps.root" in out
