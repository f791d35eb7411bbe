from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.toy_library import write_toy_library

from calograd.detector.configuration import SimulationConfig
from calograd.detector.material import MATERIALS
from calograd.errors import FormatError, InputError
from calograd.events.dense import Cells, extent_of, read_cells, read_dense, write_cells
from calograd.events.library.reader import open_library
from calograd.events.segmentation import segment
from calograd.events.shards import distinct_showers, read_shards

Config = Callable[..., SimulationConfig]


@pytest.fixture
def folder(tmp_path: Path, make_config: Config) -> Path:
    """Three libraries of sixty showers, of other seeds."""
    path = tmp_path / "libraries"
    path.mkdir()
    for seed in (3, 1, 2):
        write_toy_library(path / f"{seed}.h5", make_config(10.0, 50.0, seed=seed))
    return path


def test_a_folder_is_its_libraries_one_behind_the_other(folder: Path) -> None:
    with open_library(folder) as library, open_library(folder / "2.h5") as second:
        assert (len(library), library.wanted, library.lost) == (180, None, 0)
        assert library.index.tolist() == list(range(180))
        assert [first for first, _ in library.shards] == [0, 60, 120]
        assert [made.config.seed for _, made in library.shards] == [1, 2, 3]  # by name
        across, one = library.read(58, 121), second.read()
        assert np.array_equal(across.e[6000:186000], one.e)
        assert np.array_equal(across.offsets[2:63] - 6000, one.offsets)
        assert sum(len(block) for block in library.blocks(10_000)) == 180


def test_a_damaged_library_of_a_folder_is_named(folder: Path) -> None:
    with h5py.File(folder / "2.h5", "r+") as file:
        file["e"][0] *= 1.01
    with open_library(folder) as library:
        library.read(0, 60)
        with pytest.raises(FormatError, match=r"2\.h5 is damaged: the deposits of shower 60 .*; bring an intact copy"):
            library.read()


def test_measured_showers_know_their_library(folder: Path) -> None:
    with open_library(folder) as library, open_library(folder / "3.h5") as third:
        whole, part = (segment(source, designs=[(2.5, 6.0), (4.0, 10.0)], n_xy=5, n_z=5) for source in (library, third))
    assert np.array_equal(whole.cells[240:], part.cells)
    of_whole, of_part = distinct_showers([(whole.config, whole.shower), (part.config, part.shower)])
    assert np.array_equal(of_whole[240:], of_part)
    assert len(np.unique(of_whole)) == 180


def test_the_same_library_twice(folder: Path) -> None:
    (folder / "4.h5").write_bytes((folder / "2.h5").read_bytes())
    with pytest.raises(InputError, match=r"4.h5 has the same showers as .*2.h5, made with the same seed; leave one"):
        open_library(folder)


def test_a_library_of_another_material_or_beam(folder: Path, make_config: Config) -> None:
    write_toy_library(folder / "4.h5", make_config(20.0, seed=9))  # other energies are another shard
    with open_library(folder) as library:
        assert len(library) == 240
    write_toy_library(folder / "5.h5", make_config(10.0, material="PbWO4", seed=5))
    with pytest.raises(InputError, match=r"5.h5: detector.material.name is 'PbWO4', not 'PbF2' as in .*1.h5; a folder"):
        open_library(folder)


def test_the_command_segments_a_folder(calograd: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    code, _, err = calograd("segment", "libraries", "--cell", "2.5", "6", "-o", "cells.h5", "--json", "out.json")
    assert code == 0, err
    assert json.loads((folder.parent / "out.json").read_text())["showers"] == 180
    made = read_cells(folder.parent / "cells.h5")
    assert [shard["first"] for shard in made.config["shards"]] == [0, 60, 120]
    (folder.parent / "empty").mkdir()
    code, _, err = calograd("segment", "empty", "--cell", "2.5", "6", "-o", "none.h5")
    assert code == 2
    assert "empty is a folder without .h5 files" in err


def some_cells(seed: int, n: int = 12, **config: object) -> Cells:
    rng = np.random.default_rng(seed)
    return Cells(
        rng.random((n, 3, 3, 2)).astype(np.float32), np.full(n, 10, np.float32), np.full(n, 2, np.float32),
        np.full((n, 2), 6, np.float32), np.arange(n) // 2, MATERIALS["PbF2"], "geant4", config,
    )  # fmt: skip


def store(folder: Path, *parts: Cells) -> Path:
    folder.mkdir()
    for number, part in enumerate(parts):
        write_cells(folder / f"{number}.h5", part)
    return folder


def test_cells_of_a_folder_keep_their_showers_apart(tmp_path: Path) -> None:
    first, other = {"seed": 1}, {"seed": 2}
    parts = [some_cells(1, simulation=first), some_cells(2, simulation=other), some_cells(3, simulation=first)]
    whole = read_shards(store(tmp_path / "cells", *parts))
    assert isinstance(whole, Cells)
    assert np.array_equal(whole.cells, np.concatenate([part.cells for part in parts]))
    assert whole.shower.tolist() == [*parts[0].shower, *(parts[1].shower + 6), *parts[2].shower]
    assert whole.config["shards"] == [{"first": 0, "simulation": first}, {"first": 6, "simulation": other}]
    assert read_shards(tmp_path / "cells" / "1.h5").shower.tolist() == parts[1].shower.tolist()


def test_cells_of_no_known_simulation_share_no_shower(tmp_path: Path) -> None:
    whole = read_shards(store(tmp_path / "cells", some_cells(1), some_cells(2)))
    assert len(np.unique(whole.shower)) == 12
    assert "shards" not in whole.config


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"material": MATERIALS["PbWO4"]}, "1.h5: its material is PbWO4 of 8.28 g/cm3, that of .*0.h5 is PbF2 of 7.77"),
        ({"origin": "pbf2-cells"}, "1.h5: its origin is pbf2-cells, that of .*0.h5 is geant4"),
        ({"config": {"mode": "stand-alone"}}, "1.h5: its mode is stand-alone, that of .*0.h5 is None"),
        (
            {"cells": np.ones((12, 3, 3, 4), np.float32), "dz": np.ones((12, 4), np.float32)},
            r"1.h5 has cells \(3, 3, 4\)",
        ),
        ({}, "1.h5 holds the same rows as .*0.h5; leave one out"),
    ],
)  # fmt: skip
def test_cells_that_do_not_go_together(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    first = some_cells(1)
    folder = store(tmp_path / "cells", first, replace(first, **changes))
    with pytest.raises(InputError, match=complaint):
        read_shards(folder)


def test_a_part_of_a_file_is_read_and_checked_alone(tmp_path: Path) -> None:
    cells = some_cells(1, n=30)
    write_cells(tmp_path / "cells.h5", cells)
    assert extent_of(tmp_path / "cells.h5")[:3] == (30, (3, 3, 2), 2)
    with h5py.File(tmp_path / "cells.h5", "r+") as file:
        file["cells"][20] = np.nan
    part = read_dense(tmp_path / "cells.h5", slice(4, 20))
    assert np.array_equal(part.measured, cells.cells[4:20])
    assert np.array_equal(part.shower, cells.shower[4:20])
    with pytest.raises(FormatError, match="the first is row 20"):
        read_dense(tmp_path / "cells.h5", slice(15, 25))
