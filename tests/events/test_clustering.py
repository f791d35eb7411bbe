from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from calograd.detector.configuration import Beam, Energies, SimulationConfig, SiWStack
from calograd.errors import InputError
from calograd.events.clustering import SPLIT, cluster, crossings, layers_of, sub_cells
from calograd.events.layered_readout import count_hits, read_out
from calograd.events.library.reader import open_library
from calograd.events.point_showers import PITCH
from calograd.events.ragged import Showers
from calograd.geant4.production import simulate_library

SIZE = PITCH / SPLIT


def showers(x: list[float], e: list[float], owners: list[int], n: int = 1) -> Showers:
    """Deposits along x at y = 0."""
    counts = np.bincount(owners, minlength=n)
    return Showers(
        np.array(x, np.float32), np.zeros(len(x), np.float32), np.zeros(len(x), np.float32), np.array(e, np.float32),
        np.concatenate([[0], np.cumsum(counts)]), np.full(n, 10, np.float32), np.arange(n), np.zeros(n, np.uint64),
    )  # fmt: skip


def test_layers_are_those_of_the_tungsten_before_them() -> None:
    stack = SiWStack()
    silicon = stack.layer_fronts() + stack.plate_thicknesses() + stack.gap + stack.silicon / 2
    np.testing.assert_array_equal(layers_of(silicon, stack), np.arange(30))
    np.testing.assert_array_equal(layers_of(silicon + stack.silicon / 2, stack), np.arange(30))


def test_deposits_of_a_sub_cell_are_one_point_at_its_middle() -> None:
    made = showers([0.1 * SIZE, 0.9 * SIZE, 1.1 * SIZE, 0.2 * SIZE], [1, 2, 4, 8], [0, 0, 0, 0])
    x, y, layer, e, offsets = sub_cells(made, np.array([3, 3, 3, 5]))
    np.testing.assert_allclose(x, np.array([0.5, 1.5, 0.5]) * SIZE, rtol=1e-5)
    np.testing.assert_allclose(y, 0.5 * SIZE, rtol=1e-5)
    assert (layer.tolist(), e.tolist(), offsets.tolist()) == ([3, 3, 5], [3, 4, 8], [0, 3])


def test_a_crossing_ends_with_its_layer_its_shower_and_a_jump() -> None:
    made = showers([0, 0.06, 0.12, 1.0, 1.0, 1.0], [1, 1, 2, 4, 8, 16], [0, 0, 0, 0, 0, 1], 2)
    x, _, layer, e, offsets = crossings(made, np.array([3, 3, 3, 3, 4, 4]))
    np.testing.assert_allclose(x, [0.075, 1, 1, 1], rtol=1e-6)
    assert (layer.tolist(), e.tolist(), offsets.tolist()) == ([3, 3, 4, 4], [4, 4, 8, 16], [0, 3, 4])


def test_passages_through_one_sub_cell_are_one_point() -> None:
    made = showers([0, 0.5, 0.02], [1, 1, 3], [0, 0, 0])
    x, _, _, e, _ = crossings(made, np.array([3, 3, 3]))
    np.testing.assert_allclose(x, [0.015, 0.5], rtol=1e-6)
    assert e.tolist() == [4, 1]


def test_no_deposits_no_points() -> None:
    for make in (sub_cells, crossings):
        columns = make(showers([], [], [], 2), np.zeros(0, np.int64))
        assert columns[4].tolist() == [0, 0, 0]


@pytest.mark.geant4
def test_points_of_simulated_showers_hold_all_energy(tmp_path: Path) -> None:
    beam = Beam(energies=Energies(law="discrete", values=(2.0,)), upstream=0.1)
    simulate_library(tmp_path / "siw.h5", SimulationConfig(detector=SiWStack(), beam=beam, seed=3), 4, workers=1)
    with open_library(tmp_path / "siw.h5") as library:
        deposits = library.read()
        made = {kind: cluster(library, kind) for kind in ("sub-cells", "crossings")}
    total = np.add.reduceat(deposits.e.astype(np.float64), deposits.offsets[:-1])
    for clouds in made.values():
        np.testing.assert_allclose(clouds.layer_sums(clouds.e).sum(1), total, rtol=1e-5)
    hits = [len(read_out(clouds).e) for clouds in made.values()]
    assert made["sub-cells"].hits is None
    np.testing.assert_array_equal(made["crossings"].hits, count_hits(made["sub-cells"]))
    assert 0.85 < hits[1] / hits[0] < 1.02
    assert 0.01 < total.mean() / 2 < 0.05


@pytest.mark.geant4
def test_a_block_has_no_layers(tmp_path: Path, make_config: object) -> None:
    assert callable(make_config)
    simulate_library(tmp_path / "block.h5", make_config(0.1), 1, workers=1)
    with open_library(tmp_path / "block.h5") as library, pytest.raises(InputError, match="siw"):
        cluster(library, "crossings")
    assert os.listdir(tmp_path) == ["block.h5"]  # noqa: PTH208
