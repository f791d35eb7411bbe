from __future__ import annotations

import os
from pathlib import Path

import pytest

from calograd.errors import TablesError
from calograd.geant4.tables import ELEMENT_FILES, OTHER_VARIABLES, find_tables, needed_elements

VARIABLES = ("CALOGRAD_GEANT4_DATA", "G4LEDATA", "G4ENSDFSTATEDATA", "GEANT4_DATA_DIR", "XDG_DATA_HOME")


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without any tables."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def make_set(folder: Path, elements: list[int], version: str = "8.8", levels: str = "x") -> Path:
    for z in elements:
        for pattern in ELEMENT_FILES:
            file = folder / f"G4EMLOW{version}" / pattern.format(z=z)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("0\n")
    (folder / "G4ENSDFSTATE3.0").mkdir(parents=True, exist_ok=True)
    (folder / "G4ENSDFSTATE3.0/ENSDFSTATE.dat").write_text(levels)
    return folder


def test_without_tables_one_line_says_what_to_do() -> None:
    with pytest.raises(TablesError, match=r"tables --download.*CALOGRAD_GEANT4_DATA"):
        find_tables()


def test_official_set_wins_over_an_earlier_reduced_one(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reduced = make_set(nowhere / "reduced", [1, 9, 82], levels="")
    monkeypatch.setenv("GEANT4_DATA_DIR", str(reduced))
    assert find_tables().name == "G4EMLOW8.8, G4ENSDFSTATE3.0 (reduced, 3 elements)"
    official = make_set(nowhere / "home/.geant4_pybind", list(range(1, 93)))
    assert find_tables().emlow == official / "G4EMLOW8.8"
    assert find_tables().name.endswith("(official)")
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(reduced))
    assert not find_tables().official


def test_explicit_folder_without_tables_is_an_error_even_if_others_exist(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(nowhere / "home/.geant4_pybind", [1])
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(nowhere / "no"))
    with pytest.raises(TablesError, match="mend the variable or unset it"):
        find_tables()


def test_newest_version_by_number_not_by_letter(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("8.8", "8.10"):
        make_set(nowhere / "sets", [1], version)
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(nowhere / "sets"))
    assert find_tables().emlow.name == "G4EMLOW8.10"


def test_geant4s_own_variables(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_set(nowhere / "own", [1])
    monkeypatch.setenv("G4LEDATA", str(folder / "G4EMLOW8.8"))
    monkeypatch.setenv("G4ENSDFSTATEDATA", str(folder / "G4ENSDFSTATE3.0"))
    assert find_tables().origin == "G4LEDATA and G4ENSDFSTATEDATA"


def test_download_folder_of_calograd(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(nowhere / "data"))
    make_set(nowhere / "data/calograd/geant4", [1])
    assert find_tables().origin == "the download folder of calograd"


def test_check_names_the_element_and_what_a_reduced_set_has(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(make_set(nowhere / "reduced", [1, 9, 82], levels="")))
    tables = find_tables()
    tables.check({"H", "Pb", "F"})
    with pytest.raises(TablesError, match=r"no Geant4 tables for W: .*br74 is missing; this reduced set has H F Pb;"):
        tables.check({"H", "W"})
    (tables.emlow / "epics2017/rayl/re-cs-82.dat").unlink()
    with pytest.raises(TablesError, match="re-cs-82"):
        tables.check({"Pb"})
    (tables.ensdfstate / "ENSDFSTATE.dat").unlink()
    with pytest.raises(TablesError, match=r"ENSDFSTATE\.dat is missing"):
        tables.check({"F"})


def test_environment_sets_all_twelve_and_keeps_geant4_pybind_from_tidying(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_set(nowhere / "sets", [1])
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(folder))
    environment = find_tables().environment({"CI": "true", "GEANT4_DATA_DIR": "/stale", "G4PIIDATA": "/mine"})
    assert environment["G4LEDATA"] == str(folder / "G4EMLOW8.8")
    assert environment["G4ENSDFSTATEDATA"] == str(folder / "G4ENSDFSTATE3.0")
    assert {environment[variable] for variable in OTHER_VARIABLES} == {str(folder), "/mine"}
    assert len(environment) == 12


def test_needed_elements(make_config) -> None:
    assert needed_elements(make_config(1.0, material="PbWO4")) == {"H", "Pb", "W", "O"}


def test_command_without_tables_is_one_line(run_calograd) -> None:
    code, out, err = run_calograd("tables")
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: Geant4's data tables were not found")


def test_command_checks(nowhere: Path, monkeypatch: pytest.MonkeyPatch, run_calograd) -> None:
    monkeypatch.setenv("CALOGRAD_GEANT4_DATA", str(make_set(nowhere / "reduced", [1, 8, 9, 74, 82], levels="")))
    monkeypatch.setenv("COLUMNS", "200")
    code, _, err = run_calograd("tables", "--check")
    assert code == 0
    assert "reduced, 5 elements" in err
    assert "PbF2, PbWO4, W, Pb" in err
    assert os.environ["CALOGRAD_GEANT4_DATA"] in err
