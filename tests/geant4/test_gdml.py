"""Geometries of GDML files in Geant4: the same showers as in a block, named volumes alone, and every error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.geometries import PBF2, in_geometry, made_up_geometry, write_gdml

from calograd import InputError, open_library, read_cells, read_geometry, simulate
from calograd.detector.configuration import Beam, Block, SimulationConfig
from calograd.detector.gdml import Geometry
from calograd.detector.material import Material
from calograd.errors import TablesError
from calograd.events.ragged import Showers
from calograd.geant4.farm import run_kernel
from calograd.geant4.probe import ask
from calograd.geant4.tables import Tables, find_tables, needed_elements

DEPOSITS = ("offsets", "x", "y", "z", "t", "e")
EXAMPLE = Path(__file__).parents[2] / "examples/crystals.gdml"

pytestmark = pytest.mark.geant4


def shower(detector: Block | Geometry, environment: dict[str, str], showers: int = 4, **beam: Any) -> Showers:
    energies = {"law": "discrete", "values": (1.0, 2.0)}
    config = SimulationConfig(detector=detector, beam=Beam.model_validate({"energies": energies} | beam), seed=3)
    found = run_kernel(config, range(showers), environment)
    assert isinstance(found, Showers)
    return found


@pytest.mark.parametrize("beam", [{}, {"particle": "e-", "theta": 20.0, "phi": 70.0, "position": (0.5, -1.0)}])
def test_a_block_in_a_file_has_the_showers_of_the_block(
    tmp_path: Path, kernel_environment: dict[str, str], beam: dict[str, Any]
) -> None:
    """Of a material of Geant4 bit for bit."""
    file = write_gdml(tmp_path / "block.gdml", [("CRYSTAL0x55d0c0ffee", "G4_PbWO4", 0, 76)], materials="")
    geometry = read_geometry(file, "CRYSTAL")
    assert geometry.sensitive == ("CRYSTAL",)
    block = Block(material=ask(find_tables(), ("G4_PbWO4",)).materials["G4_PbWO4"])
    mine, theirs = (shower(detector, kernel_environment, **beam) for detector in (geometry, block))
    for name in DEPOSITS:
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name), err_msg=name)


def test_a_material_of_the_file_and_a_front_elsewhere(tmp_path: Path, kernel_environment: dict[str, str]) -> None:
    """Geant4's g/cm3 and ours differ by 7e-11, and coordinates are rounded elsewhere: energies agree to float32."""
    files = {
        front: write_gdml(tmp_path / f"{front}.gdml", [("C", "PbF2", front, front + 76)]) for front in (0.0, -25.7)
    }
    block = shower(Block(material=Material.parse("PbF2")), kernel_environment)
    for front, file in files.items():
        geometry = read_geometry(file, ["C"], front=front)
        assert geometry.material.alike(Material.parse("PbF2"))
        assert needed_elements(in_geometry(geometry)) == {"H", "F", "Pb"}
        assert geometry.extent == ((-12.6, 12.6), (-12.6, 12.6), (0, 76))
        assert geometry.world[2] == (-100 - front, 100 - front)
        found = shower(geometry, kernel_environment)
        for name in DEPOSITS[:-1]:
            np.testing.assert_array_equal(getattr(found, name), getattr(block, name), err_msg=f"{name} {front}")
        np.testing.assert_allclose(found.e, block.e, rtol=1e-6, atol=1e-9)


def test_named_volumes_alone_are_recorded(tmp_path: Path, kernel_environment: dict[str, str]) -> None:
    """Together they hold what both hold, and each what lies in it."""
    volumes = [("FRONT", "PbF2", 1, 6), ("BACK0x1", "PbF2", 8, 40), ("PLATE", "G4_Pb", 6, 8)]
    file = write_gdml(tmp_path / "two.gdml", volumes, setup="default")
    front, back, both = (read_geometry(file, names) for names in ("FRONT", "BACK", ("FRONT", "BACK")))
    assert [each.extent[2] for each in (front, back, both)] == [(1, 6), (8, 40), (1, 40)]
    assert set(both.elements) == {"H", "F", "Pb"}
    a, b, ab = (shower(each, kernel_environment, 2) for each in (front, back, both))
    edge = 2.0**-12
    assert a.z.min() >= 1 - edge
    assert a.z.max() <= 6 + edge
    assert b.z.min() >= 8 - edge
    inside = ab.z <= 6 + edge
    assert inside.any()
    assert not ((ab.z > 6 + edge) & (ab.z < 8 - edge)).any()
    np.testing.assert_allclose(ab.e[inside].sum(), a.e.sum(), rtol=1e-5)
    np.testing.assert_allclose(ab.e[~inside].sum(), b.e.sum(), rtol=1e-5)


def test_the_example_as_a_user_runs_it(calograd: Any, tmp_path: Path) -> None:
    (tmp_path / "crystals.gdml").write_bytes(EXAMPLE.read_bytes())
    command = ("simulate", "--detector", "gdml", "--geometry", "crystals.gdml", "--sensitive", "CRYSTAL")
    beam = ("--front", "-15", "--energies", "1", "--seed", "1", "-o", "library.h5")
    code, _, err = calograd(*command, *beam, "--showers", "3")
    assert code == 0, err
    with open_library(tmp_path / "library.h5") as library:
        geometry = library.provenance.geometry
        assert geometry is not None
        assert (geometry.front, Path(geometry.file)) == (-15, tmp_path / "crystals.gdml")
        assert geometry.extent == ((-6.245, 6.245), (-6.245, 6.245), (0, 30))
        assert geometry.elements == ("H", "F", "Al", "Pb")
        found = library.read()
    column = np.abs((found.x / 2.5 + 0.5) % 1 - 0.5) * 2.5
    assert column.max() <= 1.245 + 2.0**-12  # no deposit in the walls
    assert np.unique(np.round(found.x / 2.5)).size > 1
    # In another folder it is the same geometry, and the run goes on; with other contents it is not.
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved/crystals.gdml").write_bytes(EXAMPLE.read_bytes())
    moved = [word.replace("crystals.gdml", "moved/crystals.gdml") for word in command]
    code, _, err = calograd(*moved, *beam, "--showers", "4", "--append")
    assert code == 0, err
    (tmp_path / "moved/crystals.gdml").write_bytes(EXAMPLE.read_bytes() + b"\n")
    code, _, err = calograd(*moved, *beam, "--showers", "5", "--append")
    assert code == 2
    assert "moved/crystals.gdml has changed since: its SHA-256 was" in err
    assert calograd("segment", "library.h5", "--cell", "2.5", "6", "-o", "cells.h5")[0] == 0
    cells = read_cells(tmp_path / "cells.h5")
    assert cells.config["mode"] == "GDML geometry"
    assert ((cells.totals > 0.85) & (cells.totals < 1)).all()


def test_a_world_that_is_turned_and_copied(tmp_path: Path) -> None:
    """The bounds of the sensitive volumes follow rotations; copies of a replica are somewhere in their mother."""
    file = tmp_path / "turned.gdml"
    file.write_text(
        """<gdml><define/><materials/><solids><box name="w" x="200" y="200" z="200" lunit="cm"/>
        <box name="m" x="10" y="20" z="40" lunit="cm"/><box name="c" x="2" y="6" z="10" lunit="cm"/>
        <box name="s" x="10" y="20" z="4" lunit="cm"/></solids>
        <structure><volume name="CRYSTAL"><materialref ref="G4_Si"/><solidref ref="c"/></volume>
        <volume name="SLICE"><materialref ref="G4_Si"/><solidref ref="s"/></volume>
        <volume name="SLICED"><materialref ref="G4_Galactic"/><solidref ref="m"/><replicavol number="10">
        <volumeref ref="SLICE"/><replicate_along_axis><direction z="1"/><width value="4" unit="cm"/>
        <offset value="0" unit="cm"/></replicate_along_axis></replicavol></volume>
        <volume name="MOTHER"><materialref ref="G4_Galactic"/><solidref ref="m"/><physvol><volumeref ref="CRYSTAL"/>
        <position name="p" x="3" y="5" z="-15" unit="cm"/></physvol></volume>
        <volume name="W"><materialref ref="G4_Galactic"/><solidref ref="w"/><physvol><volumeref ref="MOTHER"/>
        <position name="q" x="1" y="2" z="50" unit="cm"/><rotation name="r" x="90" unit="deg"/></physvol>
        <physvol><volumeref ref="SLICED"/><position name="q2" y="-40" z="50" unit="cm"/></physvol></volume></structure>
        <setup name="Default" version="1.0"><world ref="W"/></setup></gdml>"""
    )
    (x, y, z) = read_geometry(file, "CRYSTAL").extent
    assert x == (3, 5)
    assert y[1] - y[0] == pytest.approx(10)
    assert z[1] - z[0] == pytest.approx(6)
    # A rotation by 90 degrees about x turns (y, z) of the mother into (z, -y) or (-z, y) of the world.
    assert {y, z} in ({(-18, -8), (42, 48)}, {(12, 22), (52, 58)}, {(12, 22), (42, 48)}, {(-18, -8), (52, 58)})
    assert read_geometry(file, "SLICE").extent == ((-5, 5), (-50, -30), (30, 70))


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        (
            {},
            {"sensitive": "CRYSTALS"},
            r"c\.gdml has no logical volume 'CRYSTALS' in its world; it has CRYSTAL, P, W",
        ),
        ({}, {"sensitive": ()}, r"sensitive = \(\): expected the name of a logical volume, or several"),
        ({}, {"sensitive": "0x5"}, "expected the name of a logical volume"),
        (
            {},
            {"front": 101},
            r"front = 101 cm is outside of the world of c\.gdml, .* z = -100 to 100 cm",
        ),
        ({}, {"front": 1}, r"front = 1 cm is not before the sensitive volumes of c\.gdml, .* z = 0 to 10 cm"),
        ({}, {"sensitive": ["CRYSTAL", "P"]}, r"the sensitive volumes of c\.gdml are of G4_Pb, PbF2; .*--material"),
        ({"materials": PBF2.replace('ref="F"', 'ref="Hg"')}, {}, r"c\.gdml: material PbF2: unknown element 'Hg'"),
        ({"materials": ""}, {}, r"Geant4 cannot read .*c\.gdml: Referenced material 'PbF2' was not found!"),
        ({"world": '<box name="world" x="1" lunit="what"/>'}, {}, r"Geant4 cannot read .*c\.gdml: "),
    ],
)
def test_files_that_cannot_be_used(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    file = write_gdml(tmp_path / "c.gdml", [("CRYSTAL", "PbF2", 0, 10), ("P", "G4_Pb", 10, 11)], **changes)
    with pytest.raises(InputError, match=words) as error:
        read_geometry(file, **({"sensitive": "CRYSTAL"} | options))
    assert "\n" not in str(error.value)


def test_without_a_world(tmp_path: Path) -> None:
    file = write_gdml(tmp_path / "c.gdml", [("CRYSTAL", "PbF2", 0, 10)])
    text = file.read_text()
    file.write_text(text[: text.index("<setup")] + "</gdml>")
    with pytest.raises(InputError, match=r"c\.gdml names no world; expected <setup>"):
        read_geometry(file, "CRYSTAL")


def test_materials_that_are_said(tmp_path: Path) -> None:
    """An element that surrogates do not know is no matter in volumes of showers that are said to be of another."""
    file = write_gdml(tmp_path / "c.gdml", [("CRYSTAL", "PbF2", 0, 10)], PBF2.replace('ref="F"', 'ref="Hg"'))
    geometry = read_geometry(file, "CRYSTAL", material="PbF2")
    assert geometry.material == Material.parse("PbF2")
    assert geometry.elements == ("H", "Hg", "Pb")
    without = Tables(find_tables().emlow, find_tables().ensdfstate, "here")
    if 80 not in without.elements():
        with pytest.raises(TablesError, match="no Geant4 tables for Hg"):
            without.check(needed_elements(in_geometry(geometry)))


def test_a_kernel_refuses_a_file_that_has_changed(tmp_path: Path, kernel_environment: dict[str, str]) -> None:
    """In one line and at once, where another machine has another file, or while it is changed."""
    geometry = made_up_geometry(tmp_path)
    config = in_geometry(geometry)
    Path(geometry.file).write_text("<gdml> </gdml>")
    with pytest.raises(InputError, match=r"made_up\.gdml has changed since it was read") as error:
        run_kernel(config, [0], kernel_environment)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="has changed since it was read"):
        simulate(tmp_path / "library.h5", 1.0, 1, detector=geometry)
    Path(geometry.file).unlink()
    with pytest.raises(InputError, match=r"made_up\.gdml cannot be read \(No such file"):
        run_kernel(config, [0], kernel_environment)
    assert not list(tmp_path.glob("library*"))


def test_a_kernel_refuses_a_start_beside_a_round_world(tmp_path: Path, kernel_environment: dict[str, str]) -> None:
    """Its bounds hold the start, the world does not."""
    world = '<orb name="world" r="500" lunit="mm"/>'
    file = write_gdml(tmp_path / "c.gdml", [("CRYSTAL", "PbF2", 0, 10)], world=world)
    config = in_geometry(read_geometry(file, "CRYSTAL"), position=(40.0, 0.0), upstream=35)
    with pytest.raises(InputError, match=r"starts at \(40, 0, -35\) cm in c\.gdml, outside of its world"):
        run_kernel(config, [0], kernel_environment)


def test_included_files_are_found_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_environment: dict[str, str]
) -> None:
    """An entity and a module, from another folder than the process's; the kernel finds them too."""
    (tmp_path / "files").mkdir()
    (tmp_path / "elsewhere").mkdir()
    module = write_gdml(tmp_path / "files/module.gdml", [("CRYSTAL", "G4_Si", 0, 10)])
    whole = write_gdml(tmp_path / "files/whole.gdml", [("PLATE", "PbF2", 20, 21)])
    text = module.read_text().replace('x="1000" y="1000" z="2000"', 'x="260" y="260" z="210"')
    module.write_text(text.replace("World", "Inner").replace('"world"', '"inner"').replace("solid0", "part0"))
    text = whole.read_text().replace(PBF2, "&materials;")
    text = text.replace(
        '<?xml version="1.0"?>', '<?xml version="1.0"?><!DOCTYPE gdml [<!ENTITY materials SYSTEM "m.xml">]>'
    )
    text = text.replace('ref="world"/>', 'ref="world"/><physvol><file name="module.gdml"/></physvol>')
    whole.write_text(text)
    (tmp_path / "files/m.xml").write_text(PBF2)
    monkeypatch.chdir(tmp_path / "elsewhere")
    geometry = read_geometry("../files/whole.gdml", "CRYSTAL")
    assert geometry.extent == ((-12.6, 12.6), (-12.6, 12.6), (0, 10))
    assert geometry.elements == ("H", "F", "Si", "Pb")
    assert shower(geometry, kernel_environment, 1).z.max() <= 10 + 2.0**-12
    module.write_text(module.read_text() + "\n")
    with pytest.raises(InputError, match=r"whole\.gdml has changed"):
        geometry.check_file()
