"""``calograd simulate`` as a user runs it: killed, interrupted, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable

import h5py
import numpy as np
import pytest

from calograd.detector.material import Material
from calograd.errors import InputError, Interrupted
from calograd.events.dense import read_cells
from calograd.events.library.reader import open_library
from calograd.geant4.production import simulate, simulate_library

MATRIX = ("--energies", "1", "--detector", "matrix", "--cell", "2", "5")
SAMPLING = ("--energies", "1", "--detector", "sampling")
LEAD = (*SAMPLING, "--absorber", "Pb", "--active", "lAr", "--layers", "4")
PLATES = (*LEAD, "--absorber-thickness", "0.2")
GDML = ("--energies", "1", "--detector", "gdml", "--geometry", "none.gdml")
SIMULATE = ("simulate", "--energies", "3,6", "--showers", "64", "--seed", "3", "--workers", "2")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited a minute in vain"
        time.sleep(0.05)


@pytest.mark.geant4
def test_kill_the_whole_command_read_interrupt_and_resume(start_calograd, calograd, tmp_path) -> None:
    path = tmp_path / "library.h5"
    first = start_calograd(*SIMULATE, "-o", "library.h5")
    wait_until(lambda: path.exists() and len(open_library(path)) >= 1)
    first.kill()
    first.communicate()
    with h5py.File(path) as file:
        n = len(file["energy"])
        assert len(file["offsets"]) == n + 1
        assert len(file["e"]) == file["offsets"][-1]
        assert np.isfinite(file["e"][()]).all()
    second = start_calograd(*SIMULATE, "-o", "library.h5")
    wait_until(lambda: (tmp_path / "library.h5.parts/lock").read_text() == f"process {second.pid}")
    os.killpg(second.pid, signal.SIGINT)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 130
    assert "Traceback" not in err
    assert "the same command goes on from there" in err.splitlines()[-1]
    with open_library(path) as library:
        assert 0 < len(library) < 128
        before = library.read()
    code, _, err = calograd(*SIMULATE, "-o", "library.h5", "--json", "summary.json")
    assert code == 0, err
    assert json.loads((tmp_path / "summary.json").read_text())["simulated"] == 128 - len(before)
    assert not path.with_name("library.h5.parts").exists()
    code, _, err = calograd(*SIMULATE, "-o", "library.h5")
    assert (code, err.splitlines()[-1][:34]) == (2, "error: library.h5 exists already w")
    code, _, err = calograd(*SIMULATE, "-o", "at_once.h5")
    assert code == 0, err
    assert (tmp_path / "at_once.h5").read_bytes() == path.read_bytes()


@pytest.mark.geant4
@pytest.mark.parametrize(("after", "kept"), [(0, "no shower was finished yet"), (1, r"\d+ of 6 showers are finished")])
def test_an_interrupt_that_python_would_lose(make_config, interrupt_in_a_callback, tmp_path, after, kept) -> None:
    def report(what: str, done: int, total: int) -> None:
        if done >= after:
            interrupt_in_a_callback()

    with pytest.raises(Interrupted, match=kept):
        simulate_library(tmp_path / "library.h5", make_config(50.0), 6, progress=report)
    assert (tmp_path / "library.h5").exists() == bool(after)


@pytest.mark.geant4
def test_append_and_stand_alone(calograd, tmp_path) -> None:
    alone = ("simulate", "--stand-alone", "1", "5", "--energies", "2", "-o", "alone.h5")
    assert calograd(*alone, "--showers", "2")[0] == 0
    assert calograd(*alone, "--showers", "3")[0] == 2
    assert calograd(*alone, "--showers", "3", "--append")[0] == 0
    with open_library(tmp_path / "alone.h5") as library:
        assert library.index.tolist() == [0, 1, 2]
        showers = library.read()
        assert library.provenance.config.detector.size == (5, 5, 25)
    assert np.abs(showers.x).max() <= 2.5
    assert showers.z.max() <= 25


@pytest.mark.geant4
def test_a_matrix_has_its_own_cells_alone(calograd, tmp_path) -> None:
    """The library stores the options; another design is refused in a line with the right one."""
    detector = ("--detector", "matrix", "--cell", "2", "5,6", "--cells", "3", "2")
    code, _, err = calograd(
        "simulate",
        *detector,
        "--silicon",
        "0.1",
        "--material",
        "BGO",
        "--energies",
        "1",
        "--showers",
        "2",
        "-o",
        "matrix.h5",
    )
    assert code == 0, err
    with open_library(tmp_path / "matrix.h5") as library:
        matrix = library.matrix
        assert matrix is not None
        assert (matrix.dx, matrix.dz, matrix.n_xy, matrix.margin) == (2, (5, 6), 3, 2)
        assert (matrix.gap, matrix.silicon, matrix.silicon_signal) == (0.1, 0.1, False)
        assert library.material == Material.parse("BGO")
    for dx, dz, n_xy in (("2.01", "5,6", "3"), ("2", "5,6.1", "3"), ("2", "5,6", "2"), ("2", "6", "3")):
        design = ("--cell", dx, dz, "--cells", n_xy, "2")
        code, _, err = calograd("segment", "matrix.h5", *design, "-o", "cells.h5")
        assert code == 2
        line = err.splitlines()[-1]
        assert line == (
            "error: matrix.h5 is of a crystal matrix and has the cells of that alone: "
            "measure it with --cell 2 5,6 --cells 3 2"
        )
    assert calograd("segment", "matrix.h5", "--designs", "2", "--cells", "3", "2", "-o", "c.h5")[0] == 2
    code, _, err = calograd("segment", "matrix.h5", "--cell", "2", "5,6", "--cells", "3", "2", "-o", "cells.h5")
    assert code == 0, err
    cells = read_cells(tmp_path / "cells.h5")
    assert cells.config["mode"] == "crystal matrix"
    total = cells.cells.sum((1, 2, 3))
    assert ((total > 0.5) & (total < 1)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--energies", "nan"], "'--energies': 'nan' in 'nan'; expected positive numbers"),
        (["--energies", "0"], "'0' in '0'; expected positive numbers"),
        (["--energies", "5:1"], "'5:1' is no range; expected LOW:HIGH"),
        (["--energies", "1,x"], "'x' in '1,x'; expected positive numbers"),
        (["--energies", "1:2:3"], "or a range LOW:HIGH"),
        (["--energies", "1", "--law", "uniform"], "--law uniform needs a range"),
        (["--energies", "1", "--showers", "0"], "'--showers': 0 is not in the range x>=1"),
        (["--energies", "1", "--workers", "0"], "'--workers': 0 is not in the range x>=1"),
        (["--energies", "1", "--theta", "90"], "--theta: Input should be less than 90, not 90"),
        (["--energies", "1", "--position", "nan", "0"], "'--position': 'nan' in 'nan,0'; expected numbers"),
        (["--energies", "1", "--block", "1", "1", "-1"], "'--block': -1.0 is not in the range x>0"),
        (["--energies", "1", "--block", "1", "1", "1", "--stand-alone", "1", "1"], "leave one out"),
        (["--energies", "1", "--cells", "3", "3"], "--cells belongs to --stand-alone"),
        (["--energies", "1", "--detector", "siw", "--material", "PbF2"], "leave it out with --detector siw"),
        (["--energies", "1", "--gap", "0"], "--gap is of another detector; leave it out with --detector block"),
        (["--energies", "1", "--detector", "matrix"], "needs the cells it is made of: --cell DX DZ"),
        (["--energies", "1", "--detector", "matrix", "--block", "1", "1", "1"], "leave it out with --detector matrix"),
        ([*MATRIX, "--gap", "2"], "cells of 2 x 5 cm leave no room for crystals beside a gap of 2 and 0.2 cm"),
        ([*MATRIX, "--silicon", "nan"], "'--silicon': nan is not a finite number"),
        ([*MATRIX, "--margin", "-1"], "'--margin': -1 is not in the range x>=0"),
        ([*MATRIX, "--cells", "5", "0"], "'--cells': 0 is not in the range x>=1"),
        (
            ["--energies", "1", "--detector", "matrix", "--cell", "-2", "5"],
            "'--cell': '-2' in '-2'; expected positive numbers",
        ),
        (["--energies", "1", "--detector", "matrix", "--cell", "2", "5,6"], "expected one DX, and one DZ or 5"),
        (["--energies", "1", "--material", "Kryptonite"], "unknown material 'Kryptonite'"),
        (["--energies", "1", "--layers", "4"], "--layers is of another detector; leave it out with --detector block"),
        ([*SAMPLING, "--material", "Pb"], "--material is of another detector; leave it out with --detector sampling"),
        ([*SAMPLING, "--absorber", "Pb"], "--detector sampling needs --active"),
        ([*LEAD], "--detector sampling needs --absorber-thickness"),
        ([*PLATES, "--active-thickness", "0"], "'0' in '0'; expected positive numbers"),
        ([*PLATES, "--active-thickness", "0.4:0.2"], "'0.4:0.2' is no range; expected LOW:HIGH"),
        ([*PLATES, "--active-thickness", "4x"], "'4x'; expected numbers, or NUMBERxTHICKNESS as 20x0.21,10x0.42"),
        ([*PLATES, "--active-thickness", "99999x0.1"], "expected numbers, or NUMBERxTHICKNESS"),
        (
            [*PLATES, "--active-thickness", "3x0.4"],
            "--active-thickness: 3 thicknesses for 4 layers; expected one, or one a layer",
        ),
        ([*PLATES, "--active-thickness", "0.4", "--gap-thickness", "-1"], "'-1'; expected thicknesses of zero or more"),
        ([*PLATES, "--active-thickness", "0.4", "--gap-thickness", "0:1"], "'0:1'; expected a range that begins above"),
        (
            [*PLATES, "--active-thickness", "400"],
            "plates of 400 cm with absorbers of 0.2 cm make a stack of 1601 cm; is this in mm",
        ),
        (["--energies", "1", "--record", "points"], "--record is of another detector; leave it out with --detector bl"),
        ([*PLATES, "--active-thickness", "0.4", "--record", "tracks"], "'tracks' is not one of 'energies', 'points'"),
        (
            [*PLATES, "--active-thickness", "0.1", "--layers", "300", "--record", "points"],
            "--record: 300 layers; points are recorded of up to 256",
        ),
        ([*PLATES, "--active-thickness", "0.4", "--layers", "0"], "'0'; expected a number of layers, or a range"),
        ([*PLATES, "--active-thickness", "0.4", "--layers", "60:10"], "--layers: expected one number, or the two ends"),
        ([*PLATES, "--active-thickness", "0.4", "--layers", "2000"], "--layers: Input should be less than or equal to"),
        (
            [*PLATES, "--active-thickness", "0.4,0.4,0.4,0.4", "--layers", "2:4"],
            "--active-thickness: one thickness a layer needs a fixed number of layers, not a range",
        ),
        ([*PLATES, "--active-thickness", "0.4", "--absorber", "Pb,W,G4_Pb"], "--absorber: Pb is named twice"),
        ([*PLATES, "--active-thickness", "0.4", "--scatter", "0.2"], "--scatter is about a smooth profile; add --prof"),
        (
            [*PLATES, "--active-thickness", "0.4", "--profile", "smooth"],
            "--profile: a smooth profile needs a range of thicknesses to draw from; all are fixed",
        ),
        ([*PLATES, "--active-thickness", "0.4", "--absorber", "Pb,Kryptonite"], "unknown material 'Kryptonite'"),
        ([*PLATES, "--active-thickness", "0.4", "--scatter", "2"], "'--scatter': 2.0 is not in the range 0<=x<=1"),
        (
            [*PLATES, "--active-thickness", "0.4", "--absorber-thickness", "2"],
            "--absorber-thickness: plates of 2 cm are 3.6 radiation lengths; is this in mm? Give cm, as 0.2",
        ),
        ([*PLATES, "--active-thickness", "0.4", "--position", "uniform"], "and plates have no cells"),
        (["--energies", "1", "--detector", "gdml"], "--detector gdml needs the GDML file: --geometry"),
        ([*GDML], "--detector gdml needs the volumes in which deposits are recorded: --sensitive"),
        (
            [*GDML, "--sensitive", "CRYSTAL"],
            "none.gdml cannot be read (No such file or directory); expected a GDML file",
        ),
        ([*GDML, "--cell", "2", "5"], "--cell is of another detector; leave it out with --detector gdml"),
        (["--energies", "1", "--front", "0"], "--front is of another detector; leave it out with --detector block"),
    ],
)
def test_bad_options_are_one_line_and_start_nothing(tmp_path, monkeypatch, capsys, options, words) -> None:
    from calograd.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["calograd", "simulate", *options, "-o", "library.h5"]
    monkeypatch.setattr("sys.argv", arguments if "--showers" in options else [*arguments, "--showers", "1"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == (4 if err.startswith("Usage:") else 1)  # click says how to use the command first
    assert list(tmp_path.iterdir()) == []


def test_without_tables(tmp_path, monkeypatch, calograd) -> None:
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(tmp_path))
    code, _, err = calograd("simulate", "--energies", "1", "--showers", "1", "-o", "library.h5")
    assert code == 2
    assert err.count("\n") == 1
    assert "G4EMLOW8.8" in err


def test_help_has_examples(calograd) -> None:
    for command in ("simulate", "tables"):
        code, out, _ = calograd(command, "--help")
        assert code == 0
        assert f"calograd {command} --" in out


@pytest.mark.geant4
def test_the_function_simulates_what_the_command_does(calograd, tmp_path) -> None:
    options = ("--energies", "0.1,0.2", "--showers", "1", "--seed", "3", "--material", "BGO", "--theta", "10")
    code, _, err = calograd("simulate", *options, "-o", "command.h5")
    assert code == 0, err
    made = simulate(tmp_path / "function.h5", (0.1, 0.2), 1, seed=3, detector="BGO", theta=10)
    assert (made.showers, made.simulated, made.gev) == (2, 2, pytest.approx(0.3))
    assert (tmp_path / "function.h5").read_bytes() == (tmp_path / "command.h5").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"energies": None}, "energies: Input should be a valid tuple, not None"),
        ({"energies": "1,10"}, "energies: Input should be a valid tuple, not 1,10"),
        ({"energies": (1, -1)}, "energies: energies must be positive numbers in GeV"),
        ({"energies": (1, 2, 3), "law": "uniform"}, "energies: a uniform law takes two energies"),
        ({"showers": 2.0}, "showers = 2.0: expected a whole number"),
        ({"workers": 0}, "workers = 0: expected at least 1"),
        ({"detector": "cheese"}, "unknown material 'cheese'"),
        ({"detector": 3}, "detector: Input should be a valid dictionary or object"),
        ({"particle": "mu-"}, "particle: Input should be 'gamma', 'e-' or 'e\\+', not mu-"),
        ({"theta": 90}, "theta: Input should be less than 90, not 90"),
        ({"position": (1, "x")}, "position: Input should be a valid number"),
        ({"scheduler": "here"}, "'here' is no address of a Dask scheduler"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, arguments, complaint) -> None:
    with pytest.raises(InputError, match=complaint):
        simulate(**{"path": tmp_path / "library.h5", "energies": 1.0, "showers": 1} | arguments)
    assert list(tmp_path.iterdir()) == []
