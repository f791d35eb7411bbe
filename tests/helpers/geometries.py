"""GDML files, and their geometries without Geant4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calograd.detector.configuration import Beam, SimulationConfig
from calograd.detector.gdml import Geometry, digest_of
from calograd.detector.material import MATERIALS

PBF2 = f"""<material name="PbF2"><D value="7.77" unit="g/cm3"/>
    <fraction n="{MATERIALS["PbF2"].mass_fractions["Pb"]!r}" ref="Pb"/>
    <fraction n="{MATERIALS["PbF2"].mass_fractions["F"]!r}" ref="F"/></material>"""
"""PbF2 as CaloGrad makes it, of Geant4's elements."""


def write_gdml(
    file: Path,
    volumes: list[tuple[str, str, float, float]],
    materials: str = PBF2,
    world: str = '<box name="world" x="1000" y="1000" z="2000" lunit="mm"/>',
    setup: str = "Default",
) -> Path:
    """Write a GDML file of boxes of 25.2 x 25.2 cm, one behind the other, in a world of vacuum.

    Args:
        file: the file.
        volumes: names, materials, begin and end in z (cm) of the boxes.
        materials: elements of the materials.
        world: solid of the world.
        setup: name of the setup.
    """
    solids = "".join(
        f'<box name="solid{n}" x="252" y="252" z="{10 * (end - begin)!r}" lunit="mm"/>'
        for n, (_, _, begin, end) in enumerate(volumes)
    )
    logical = "".join(
        f'<volume name="{name}"><materialref ref="{material}"/><solidref ref="solid{n}"/></volume>'
        for n, (name, material, _, _) in enumerate(volumes)
    )
    placed = "".join(
        f'<physvol><volumeref ref="{name}"/><position name="at{n}" z="{5 * (begin + end)!r}" unit="mm"/></physvol>'
        for n, (name, _, begin, end) in enumerate(volumes)
    )
    file.write_text(
        f"""<?xml version="1.0"?><gdml><define/><materials>{materials}</materials><solids>{world}{solids}</solids>
        <structure>{logical}<volume name="World"><materialref ref="G4_Galactic"/><solidref ref="world"/>{placed}
        </volume></structure><setup name="{setup}" version="1.0"><world ref="World"/></setup></gdml>"""
    )
    return file


def made_up_geometry(folder: Path, **changes: Any) -> Geometry:
    """A geometry of sensitive volumes 20 x 10 x 30 cm, which begin at the front face, with x from -8 cm."""
    file = folder / "made_up.gdml"
    file.write_text("<gdml/>")
    return Geometry(
        **{
            "file": str(file), "digest": digest_of(file), "sensitive": ("CRYSTAL",), "material": MATERIALS["PbF2"],
            "elements": ("H", "F", "Pb"), "world": ((-50, 50), (-50, 50), (-20, 80)),
            "extent": ((-8, 12), (-5, 5), (0, 30)),
        } | changes
    )  # fmt: skip


def in_geometry(geometry: Geometry, **beam: Any) -> SimulationConfig:
    """Photons of 1, 2 and 3 GeV in a geometry."""
    energies = {"law": "discrete", "values": (1.0, 2.0, 3.0)}
    return SimulationConfig(detector=geometry, beam=Beam.model_validate({"energies": energies} | beam), seed=1)
