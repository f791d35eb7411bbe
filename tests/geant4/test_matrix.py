"""The crystal matrix: where its crystals are, and that Geant4 has them there."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from calograd.detector.configuration import Beam, CrystalMatrix, Energies, SimulationConfig
from calograd.detector.material import Material
from calograd.events.binning import segment_deposits
from calograd.events.ragged import Deposits, Showers
from calograd.geant4.farm import run_kernel
from calograd.geant4.recording import POSITION_GRID
from calograd.geant4.tables import needed_elements

PBF2 = Material.parse("PbF2")


def matrix_config(energy: float, **matrix: object) -> SimulationConfig:
    detector = CrystalMatrix.model_validate({"material": PBF2, "dx": 2.0, "dz": (5.0,) * 5} | matrix)
    return SimulationConfig(
        detector=detector, beam=Beam(energies=Energies(law="discrete", values=(energy,))), seed=4
    )  # fmt: skip


def offsets_in_cell(showers: Showers, matrix: CrystalMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Return distances of deposits from the middle of their column (larger of x, y) and from their layer's front."""
    n = matrix.n_xy + 2 * matrix.margin
    across = [np.abs((place / matrix.dx + n / 2) % 1 - 0.5) * matrix.dx for place in (showers.x, showers.y)]
    edges = np.cumsum([0, *matrix.layers()])
    layer = np.clip(np.searchsorted(edges, showers.z + POSITION_GRID, side="right") - 1, 0, len(edges) - 2)
    return np.maximum(*across), showers.z - edges[layer]


def test_numbers_of_a_matrix() -> None:
    matrix = CrystalMatrix(material=PBF2, dx=2.5, dz=(4.0, 6.0), n_xy=3)
    assert matrix.width == 17.5
    assert matrix.layers() == (4.0, 6.0, 6.0, 6.0)
    assert matrix.centres() == [-7.5, -5.0, -2.5, 0.0, 2.5, 5.0, 7.5]
    assert CrystalMatrix(material=PBF2, dx=1.0, dz=(4.0,), n_xy=2, margin=1).centres() == [-1.5, -0.5, 0.5, 1.5]
    assert needed_elements(matrix_config(1.0)) == {"H", "Si", "Pb", "F"}


@given(
    dx=st.floats(0.5, 6),
    dz=st.lists(st.floats(0.5, 15), min_size=1, max_size=4),
    n_xy=st.integers(1, 6),
    margin=st.integers(0, 3),
    data=st.data(),
)
def test_a_cell_of_the_design_is_a_crystal_of_the_matrix(
    dx: float, dz: list[float], n_xy: int, margin: int, data: st.DataObject
) -> None:
    """The corners of every crystal, 1 micrometre inside, lie in its cell; those of the margin lie in none."""
    gap, silicon = data.draw(st.floats(0.01, 0.4)), data.draw(st.floats(0.01, 0.4))
    matrix = CrystalMatrix(material=PBF2, dx=dx, dz=tuple(dz), n_xy=n_xy, margin=margin, gap=gap, silicon=silicon)
    fronts = np.cumsum([0, *matrix.layers()[:-1]])
    half = (dx - gap) / 2 - 1e-4
    across = [[c - half, c + half] for c in matrix.centres()]
    along = [[f + 1e-4, f + d - silicon - 1e-4] for f, d in zip(fronts, matrix.layers(), strict=True)]
    x, y, z = (a.ravel() for a in np.meshgrid(across, across, along, indexing="ij"))
    deposits = Deposits(x, y, z, np.ones(len(x)), np.array([0, len(x)]))
    cells = segment_deposits(deposits, dx, np.array(dz), n_xy, len(dz))
    np.testing.assert_array_equal(cells, 8)


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ({"gap": 2.0}, "cells of 2 x 5 cm leave no room for crystals beside a gap of 2 and 0.2 cm of silicon"),
        ({"silicon": 5.0}, "leave no room"),
        ({"gap": -0.1}, "greater than or equal to 0"),
        ({"dz": ()}, "at least 1 item"),
        ({"n_xy": 0}, "greater than or equal to 1"),
        ({"margin": -1}, "greater than or equal to 0"),
    ],
)
def test_matrices_that_cannot_be(matrix: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        matrix_config(1.0, **matrix)


CHECK = """
import json, os, sys
import geant4_pybind as g4
from calograd.detector.configuration import SimulationConfig
from calograd.geant4.geometry import build
kept = build(g4, SimulationConfig.model_validate_json(sys.argv[1])).kept
placed = [each for each in kept if isinstance(each, g4.G4PVPlacement)]
overlaps = sum(each.CheckOverlaps(300, 0.0, False) for each in placed)
volume = {}
for each in placed:
    if each.GetMotherLogical() is not None:
        name = each.GetLogicalVolume().GetName() + "/" + each.GetMotherLogical().GetName()
        volume[name] = volume.get(name, 0) + each.GetLogicalVolume().GetSolid().GetCubicVolume() / 1000
box = g4.G4Box("box", 30, 30, 30)
logical = g4.G4LogicalVolume(box, g4.G4NistManager.Instance().FindOrBuildMaterial("G4_Si"), "box")
layer = next(each.GetLogicalVolume() for each in placed if each.GetLogicalVolume().GetName() == "layer")
noticed = g4.G4PVPlacement(None, g4.G4ThreeVector(), logical, "box", layer, False, 0).CheckOverlaps(300, 0.0, False)
print("\\nanswer", json.dumps([len(placed), overlaps, volume, noticed]), flush=True)
os._exit(0)
"""


@pytest.mark.geant4
@pytest.mark.parametrize("matrix", [{}, {"dz": (3.0, 5.0), "n_xy": 4}, {"gap": 0.0, "silicon": 0.0, "margin": 0}])
def test_volumes_do_not_overlap(matrix: dict[str, object], kernel_environment: dict[str, str]) -> None:
    config = matrix_config(1.0, **matrix)
    detector = config.detector
    assert isinstance(detector, CrystalMatrix)
    words = [sys.executable, "-P", "-c", CHECK, config.model_dump_json()]
    done = subprocess.run(words, env=kernel_environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("answer ")]
    assert lines, done.stderr
    placed, overlaps, volume, noticed = json.loads(lines[0].removeprefix("answer "))
    assert overlaps == 0
    assert noticed
    layers, columns = detector.layers(), len(detector.centres()) ** 2
    different = len(set(layers))
    assert placed == 1 + len(layers) + different * (columns + (detector.silicon > 0))
    side, across = detector.dx - detector.gap, detector.width**2
    crystals = sum(columns * side**2 * (depth - detector.silicon) for depth in set(layers))
    assert volume["layer/world"] == pytest.approx(across * sum(layers))
    assert volume["sensitive/layer"] == pytest.approx(crystals)
    assert volume.get("silicon/layer", 0.0) == pytest.approx(different * across * detector.silicon)


@pytest.mark.geant4
def test_deposits_lie_in_crystals_and_add_up(kernel_environment: dict[str, str]) -> None:
    """Recording the silicon changes nothing else; both together are the energy of the photon but for what leaks."""
    config = matrix_config(5.0, margin=5)
    crystals = run_kernel(config, range(2), kernel_environment)
    matrix = config.detector
    assert isinstance(matrix, CrystalMatrix)
    across, depth = offsets_in_cell(crystals, matrix)
    assert across.max() <= 0.95 + POSITION_GRID
    assert depth.min() >= -POSITION_GRID
    assert depth.max() <= 4.8 + POSITION_GRID
    assert across.max() > 0.9
    assert depth.max() > 4.7

    both = run_kernel(matrix_config(5.0, margin=5, silicon_signal=True), range(2), kernel_environment)
    across, depth = offsets_in_cell(both, matrix)
    silicon = depth > 4.8 + POSITION_GRID
    assert depth.max() <= 5 + POSITION_GRID
    assert (across[silicon] > 0.95).any()
    assert both.e[~silicon].sum(dtype=float) == pytest.approx(crystals.e.sum(dtype=float), rel=1e-3)
    total = np.add.reduceat(both.e.astype(float), both.offsets[:-1]) / both.energy
    assert ((total > 0.97) & (total <= 1)).all()
    assert 0.002 < both.e[silicon].sum() / both.e.sum() < 0.03


@pytest.mark.geant4
def test_without_gaps_and_silicon_it_is_a_block(make_config, kernel_environment: dict[str, str]) -> None:
    block = run_kernel(make_config(2.0), range(4), kernel_environment)
    matrix = run_kernel(matrix_config(2.0, gap=0.0, silicon=0.0, margin=5), range(4), kernel_environment)
    shares = [showers.e.sum(dtype=float) / showers.energy.sum() for showers in (block, matrix)]
    assert shares[1] == pytest.approx(shares[0], abs=0.01)
    assert (np.abs(offsets_in_cell(matrix, matrix_config(2.0, gap=0.0, silicon=0.0).detector)[0] - 1) < 0.01).any()
