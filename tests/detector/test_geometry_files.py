"""Geometries of GDML files without Geant4: what names their contents, and beams that start in their world."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from helpers.geometries import in_geometry, made_up_geometry
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from calograd.detector.configuration import Beam, Energies, SimulationConfig, shower_generator
from calograd.detector.gdml import digest_of, setup_of
from calograd.errors import InputError


def test_a_file_alone_has_the_digest_of_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "one.gdml"
    file.write_bytes(b'<gdml><!-- <file name="not.gdml"/> --></gdml>\n')
    assert digest_of(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_included_files_count(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    main, entity, module = (tmp_path / name for name in ("main.gdml", "materials.xml", "parts/module.gdml"))
    main.write_bytes(
        b"""<!DOCTYPE gdml [<!ENTITY materials SYSTEM "materials.xml">]>
        <gdml>&materials;<physvol><file volname="V"\n name='parts/module.gdml'/></physvol></gdml>"""
    )
    entity.write_bytes(b"<materials/>")
    with pytest.raises(
        InputError, match=r"module\.gdml cannot be read .*main\.gdml includes it as 'parts/module\.gdml"
    ):
        digest_of(main)
    module.write_bytes(b"<gdml/>")
    first = digest_of(main)
    assert first == hashlib.sha256(main.read_bytes() + entity.read_bytes() + module.read_bytes()).hexdigest()
    for file in (main, entity, module):
        file.write_bytes(file.read_bytes() + b"\n")
        assert digest_of(main) != first
        first = digest_of(main)


def test_the_setup_may_have_any_name(tmp_path: Path) -> None:
    file = tmp_path / "root.gdml"
    file.write_text(
        '<gdml><!-- <setup name="old"> --><setup version="1.0" name="default"><world ref="w"/></setup></gdml>'
    )
    assert setup_of(file) == "default"
    file.write_text("<gdml/>")
    assert setup_of(file) == "Default"


def test_files_that_are_no_gdml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.gdml cannot be read \(No such file"):
        digest_of(tmp_path / "none.gdml")
    with pytest.raises(InputError, match="Is a directory"):
        digest_of(tmp_path)
    (tmp_path / "text.gdml").write_text("hello")
    with pytest.raises(InputError, match=r"text\.gdml is no GDML file; expected XML with the element <gdml>"):
        digest_of(tmp_path / "text.gdml")


def test_a_file_that_has_changed(tmp_path: Path) -> None:
    geometry = made_up_geometry(tmp_path)
    geometry.check_file()
    Path(geometry.file).write_text("<gdml> </gdml>")
    with pytest.raises(
        InputError, match=r"made_up\.gdml has changed since it was read: its SHA-256 is \w{12}\.\.\., was"
    ):
        geometry.check_file()


def test_it_is_stored_as_a_detector(tmp_path: Path) -> None:
    config = in_geometry(made_up_geometry(tmp_path, front=-4.0))
    again = SimulationConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.front == -4


@pytest.mark.parametrize(
    ("beam", "words"),
    [
        ({"upstream": 21}, r"starts at \(0, 0, -25\) cm in made_up\.gdml, outside of its world within x -50 to 50"),
        ({"position": (51, 0)}, r"starts at \(51, 0, -5\)"),
        ({"theta": (0, 60), "upstream": 58}, r"starts at \(0, 0, -62\)"),
        ({"theta": 80, "phi": (10, 100), "upstream": 50.5}, r"starts at \(0, -49\.73, -12\.77\)"),
        ({"position": "uniform"}, "position = uniform is drawn in the cells of a crystal matrix"),
    ],
)
def test_particles_that_start_outside_of_the_world(tmp_path: Path, beam: dict[str, object], words: str) -> None:
    geometry = made_up_geometry(tmp_path, front=-4.0, world=((-50, 50), (-49.5, 50), (-20, 80)))
    with pytest.raises(ValidationError, match=words):
        in_geometry(geometry, **beam)


@given(
    theta=st.tuples(st.floats(0, 89), st.floats(0, 89)).map(sorted),
    phi=st.tuples(st.floats(-400, 400), st.floats(-400, 400)).map(sorted),
    seed=st.integers(0, 1000),
)
def test_every_start_is_between_the_outermost(theta: list[float], phi: list[float], seed: int) -> None:
    beam = Beam(
        energies=Energies(law="discrete", values=(1.0,)),
        theta=tuple(theta),
        phi=tuple(phi),
        position=(1, 2),
        upstream=3,
    )
    least, most = ([pick(values) for values in zip(*beam.outermost_starts(), strict=True)] for pick in (min, max))
    for index in range(5):
        start = beam.start(beam.draw(index, shower_generator(seed, index)[1])[1])
        assert all(a - 1e-9 <= at <= b + 1e-9 for a, at, b in zip(least, start, most, strict=True))
