"""What has changed since it was written is noticed; what others wrote, without a digest, is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from calograd.detector.material import MATERIALS
from calograd.errors import FormatError
from calograd.events.dense import Cells, Maps, read_cells, read_maps, write_cells, write_maps
from calograd.events.library.reader import open_library
from calograd.events.library.schema import CHECKSUM, Heads, Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.point_showers import PointShowers, read_points, write_points
from calograd.events.ragged import Showers
from calograd.io.hdf5 import checksum_of
from calograd.objective.background import BackgroundMap, read_background_map, write_background_map

Reader = Callable[[Path], Any]


def showers(first: int = 0, n: int = 3, each: int = 40) -> Showers:
    x, y, z, e, t = np.random.default_rng(first).gamma(1.0, size=(5, n * each)).astype(np.float32)
    index = np.arange(first, first + n)
    offsets, energy = np.arange(0, n * each + 1, each), np.full(n, 9, np.float32)
    return Showers(x, y, z, e, offsets, energy, index, index.astype("u8"), t=t)


@pytest.fixture
def provenance(make_config) -> Provenance:
    return Provenance(make_config(9.0), "11.4.1", "none")


@pytest.fixture
def library(tmp_path: Path, provenance: Provenance) -> Path:
    (tmp_path / "library.h5").write_bytes(pack(showers(), provenance))
    return tmp_path / "library.h5"


def _cells(path: Path) -> Reader:
    column = np.float32([2, 3, 4])
    values = np.random.default_rng(0).random((3, 2, 2, 1)).astype(np.float32)
    write_cells(path, Cells(values, column, column, column[:, None], np.arange(3), MATERIALS["PbF2"], "geant4"))
    return read_cells


def _maps(path: Path) -> Reader:
    column = np.float32([2, 3, 4])
    values = np.random.default_rng(0).random((3, 4, 4)).astype(np.float32)
    write_maps(path, Maps(values, column, column, column[:, None], 5, np.arange(3), MATERIALS["PbF2"], "geant4"))
    return read_maps


def _clouds(path: Path) -> Reader:
    column, layer = np.float32([2, 3, 4]), np.array([0, 1, 2])
    write_points(path, PointShowers(column, column, layer, column, np.array([0, 3]), column[:1], np.array([7])))
    return read_points


def _background(path: Path) -> Reader:
    edges, density = torch.linspace(0, 3, 3, dtype=torch.float64), torch.rand(2, 2, 2, dtype=torch.float64)
    write_background_map(path, BackgroundMap(
        density=density, x=edges, y=edges, z=edges, sigma_event=0.1, shape_cell=2.0, diffusion=0.1
    ))  # fmt: skip
    return read_background_map


@pytest.mark.parametrize(
    ("make", "dataset", "attribute"),
    [
        (_cells, "energy", ("origin", "geant5")),
        (_maps, "dx", ("n_xy", 6)),
        (_clouds, "shower", ("layers", 29)),
        (_background, "density", ("sigma_event", 0.2)),
    ],
)
def test_a_plausible_change_is_noticed(tmp_path: Path, make, dataset: str, attribute: tuple[str, Any]) -> None:
    path = tmp_path / "file.h5"
    read = make(path)
    read(path)
    with h5py.File(path, "r+") as file:
        was = file[dataset][0]
        file[dataset][0] = was + 1
    with pytest.raises(FormatError, match=r"file\.h5 is damaged: its contents do not fit its checksum; .*'digest'\)"):
        read(path)
    with h5py.File(path, "r+") as file:
        file[dataset][0] = was
    read(path)
    name, value = attribute
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(FormatError, match="do not fit its checksum"):
        read(path)
    with h5py.File(path, "r+") as file:
        del file.attrs["digest"]
    read(path)


@pytest.mark.parametrize("name", ["energy", "seed", "index", CHECKSUM])
def test_a_library_notices_it_in_its_heads(library: Path, name: str) -> None:
    with h5py.File(library, "r+") as file:
        file[name][1] += 1
    with pytest.raises(FormatError, match="do not fit its checksum"):
        open_library(library)


@pytest.mark.parametrize("name", ["x", "y", "z", "e", "t"])
def test_a_library_notices_it_in_its_deposits(library: Path, name: str) -> None:
    with h5py.File(library, "r+") as file:
        file[name][50] *= 1.01
    with open_library(library) as opened:
        opened.read(0, 1)
        with pytest.raises(FormatError, match=r"the deposits of shower 1 do not fit their checksum; bring an intact"):
            opened.read()


def test_a_library_of_before_there_were_checksums_is_read(library: Path) -> None:
    with h5py.File(library, "r+") as file:
        del file[CHECKSUM], file.attrs["digest"]
        file["x"][50] *= 1.01
    with open_library(library) as opened:
        assert len(opened.read().energy) == 3
    with_sums = Heads.of(showers())
    assert Heads.join([with_sums, replace(with_sums, checksum=None)]).checksum is None


def test_a_damaged_part_is_named_and_simulated_again(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "library.h5"
    with open_writer(path, provenance, 6) as writer:
        writer.add(pack(showers(), provenance))
        writer.add(pack(showers(3), provenance))
    part = sorted(tmp_path.glob("library.h5.parts/*.h5"))[1]
    with h5py.File(part, "r+") as file:
        file["e"][0] *= 1.01
    with open_writer(path, provenance, 6) as writer:
        assert writer.missing() == []
        with pytest.raises(FormatError, match=rf"{part.name} is damaged: .* shower 3 .*; remove that file and repeat"):
            writer.finish(lambda done, total: None, 1)
    with h5py.File(part, "r+") as file:
        file["energy"][0] += 1
    with pytest.raises(FormatError, match=rf"{part.name} is damaged: .*; remove that file and repeat: its showers are"):
        open_writer(path, provenance, 6).__enter__()
    part.unlink()
    with open_writer(path, provenance, 6) as writer:
        assert writer.missing() == [range(3, 6)]
        writer.add(pack(showers(3), provenance))
        writer.finish(lambda done, total: None, 1)
    with open_library(path) as opened:
        assert opened.read().e.tolist() == [*showers().e.tolist(), *showers(3).e.tolist()]


def test_the_digest_tells_types_shapes_names_and_attributes_apart() -> None:
    zeros = np.zeros(4, np.float32)
    digests = [
        checksum_of({}, {}), checksum_of({"a": 1}, {}), checksum_of({"a": "1"}, {}), checksum_of({"b": 1}, {}),
        checksum_of({}, {"a": zeros}), checksum_of({}, {"b": zeros}), checksum_of({}, {"a": zeros.reshape(2, 2)}),
        checksum_of({}, {"a": zeros.view(np.int32)}),
    ]  # fmt: skip
    assert len(set(digests)) == len(digests)


def test_a_file_cannot_claim_more_than_it_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5"
    _cells(path)
    with h5py.File(path, "r+") as file:
        del file["energy"]
        file.create_dataset("energy", shape=(1 << 40,), dtype="<f4", chunks=(1 << 20,))
    with pytest.raises(FormatError, match=r"cells\.h5 is damaged .* energy claims 4398046511104 bytes in a file of"):
        read_cells(path)
