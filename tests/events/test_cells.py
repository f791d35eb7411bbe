from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from calograd.detector.material import MATERIALS, Material
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.dense import Cells, extent_of, read_cells, write_cells
from calograd.io.files import write_whole
from calograd.io.hdf5 import new_file


def make_cells(n: int = 50) -> Cells:
    rng = np.random.default_rng(0)
    return Cells(
        cells=rng.gamma(0.3, size=(n, 3, 3, 2)).astype(np.float32),
        energy=rng.uniform(1, 100, n).astype(np.float32),
        dx=rng.uniform(1, 5, n).astype(np.float32),
        dz=rng.uniform(4, 15, (n, 2)).astype(np.float32),
        shower=np.arange(n) // 2,
        material=Material.parse("mine:5.5:PbF2"),
        origin="geant4",
        config={"mode": "embedded", "seed": 3},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_cells(tmp_path / "cells.h5", make_cells())
    return tmp_path / "cells.h5"


def test_what_is_written_is_read(path: Path) -> None:
    cells, original = read_cells(path), make_cells()
    for name in ("cells", "energy", "dx", "dz", "shower"):
        np.testing.assert_array_equal(getattr(cells, name), getattr(original, name))
        assert getattr(cells, name).dtype == getattr(original, name).dtype
    assert (cells.material, cells.origin, cells.config) == (original.material, original.origin, original.config)
    assert [p.name for p in path.parent.iterdir()] == ["cells.h5"]


def test_no_rows(tmp_path: Path) -> None:
    write_cells(tmp_path / "none.h5", make_cells().rows(slice(0, 0)))
    assert len(read_cells(tmp_path / "none.h5")) == 0


def test_rows_are_chosen_together() -> None:
    cells = make_cells()
    some = cells.rows(cells.energy > 50)
    assert len(some) == (cells.energy > 50).sum() == len(some.cells) == len(some.dz) == len(some.shower)
    np.testing.assert_array_equal(some.dx, cells.dx[cells.energy > 50])


def test_foreign_writers_may_leave_out_shower_origin_and_config(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["shower"], file.attrs["origin"], file.attrs["config"], file.attrs["material_numbers"]
        del file.attrs["digest"]
        file.attrs["material"] = "PbWO4"
    cells = read_cells(path)
    np.testing.assert_array_equal(cells.shower, np.arange(50))
    assert (cells.material, cells.origin, cells.config) == (MATERIALS["PbWO4"], "unknown", {})


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_file(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match=r"cells\.h5 (is cut off|is not a readable HDF5 file); expected"):
        read_cells(path)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.7, 0.99])
def test_damaged_cells(path: Path, place: float) -> None:
    """The cells' bytes carry a checksum. (Damage to HDF5's own structures can crash libhdf5 itself.)"""
    with h5py.File(path, "r") as file:
        chunk = file["cells"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + int(place * chunk.size)] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"cells\.h5 is damaged and cannot be read completely"):
        read_cells(path)


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ("calograd/cells/3", "this version reads up to 'calograd/cells/2'; update calograd"),
        ("calograd/cells/x", "update calograd"),
        ("calograd/library/1", "is schema 'calograd/library/1', expected 'calograd/cells/2'"),
        (None, "an HDF5 file without a schema"),
    ],
)
def test_foreign_and_newer_files(path: Path, schema: str | None, complaint: str) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs["schema"]
        if schema is not None:
            file.attrs["schema"] = schema
    with pytest.raises(FormatError, match=complaint):
        read_cells(path)


def set_value(name: str, value: float) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[name][(3,) + (0,) * (file[name].ndim - 1)] = value

    return change


def replace(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if isinstance(values, str):
            file.create_group(name)
        else:
            file[name] = values

    return change


def set_attribute(name: str, value: str | None) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file.attrs[name]
        if value is not None:
            file.attrs[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_value("cells", np.nan), "cells holds NaN, infinite or negative values in 1 rows, the first is row 3"),
        (set_value("cells", np.inf), "cells holds NaN"),
        (set_value("cells", -1e-6), "negative values in 1 rows"),
        (set_value("energy", 0.0), "energy holds NaN, infinite or non-positive values in 1 rows, the first is row 3"),
        (set_value("energy", np.nan), "energy holds"),
        (set_value("dx", -1.0), "dx holds"),
        (set_value("dz", np.inf), "dz holds"),
        (lambda file: file.__delitem__("dx"), "lacks dx"),
        (replace("energy", "group"), "lacks energy"),
        (replace("cells", np.ones((50, 9, 2))), r"cells have shape \(50, 9, 2\), expected \(n, n_xy, n_xy, n_z\)"),
        (replace("cells", np.ones((50, 3, 2, 2))), r"cells have shape \(50, 3, 2, 2\)"),
        (replace("cells", 1.0), r"cells have shape \(\)"),
        (replace("energy", np.ones((50, 1))), r"energy has shape \(50, 1\), expected \(50,\)"),
        (replace("dx", np.ones(49)), r"dx has shape \(49,\), expected \(50,\)"),
        (replace("dz", np.ones((50, 3))), r"dz has shape \(50, 3\), expected \(50, 2\)"),
        (replace("shower", np.ones(3, int)), r"shower has shape \(3,\)"),
        (replace("shower", np.ones(50)), "shower are of type float64"),
        (replace("energy", np.array([b"a"] * 50)), r"energy are of type \|S1, expected numbers"),
        (set_attribute("material", None), "names no material"),
        (set_attribute("material_numbers", "{"), "material cannot be used"),
        (set_attribute("material_numbers", '{"name": "x"}'), "material cannot be used"),
        (set_attribute("material_numbers", "[1]"), "material cannot be used"),
        (set_attribute("config", "{"), "'config' is not JSON"),
        (set_attribute("config", "[]"), "'config' is a list"),
    ],
)
def test_invalid_contents(path: Path, change: Callable[[h5py.File], None], complaint: str) -> None:
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(FormatError, match=complaint):
        read_cells(path)


def test_missing_and_other_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist or is not a file"):
        read_cells(tmp_path / "none.h5")
    with pytest.raises(FormatError, match="does not exist or is not a file"):
        read_cells(tmp_path)
    (tmp_path / "text.h5").write_text("cells")
    with pytest.raises(FormatError, match="not a readable HDF5 file"):
        read_cells(tmp_path / "text.h5")


def test_nothing_is_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match=r"cells\.h5 exists already"):
        write_cells(path, make_cells(3))
    assert path.read_bytes() == before


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write_cells(tmp_path / "none" / "cells.h5", make_cells())


@pytest.mark.skipif(not Path("/dev/full").exists() or os.name != "posix", reason="needs /dev/full")
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes go to a device that is always full, in place of the temporary file."""
    monkeypatch.setattr(Path, "with_name", lambda self, name: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    with pytest.raises(InputError, match="result cannot be written: No space left on device; make room"):
        write_whole(tmp_path / "result", b"0" * 100_000, "; make room")


def test_a_failure_leaves_neither_the_file_nor_a_part_of_it(tmp_path: Path) -> None:
    def half() -> None:
        with new_file(tmp_path / "cells.h5", "calograd/cells/1") as file:
            file["cells"] = np.ones(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert list(tmp_path.iterdir()) == []


def test_whole_files_replace_what_is_there(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_whole(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"cells": torch.full((4, 5, 5, 5), 0.07)}, None),
        ({"cells": np.full((4, 5, 5, 5), 0.07).tolist()}, None),
        ({"energy": 10.0, "dx": 2.5, "dz": 6.0}, None),
        ({"dz": [4.0, 5.0, 6.0, 8.0, 10.0]}, None),
        ({"material": "PbF2"}, None),
        ({"config": {"seed": np.int64(1), "dx": np.ones(2), "file": Path("a")}}, None),
        ({"cells": np.full((4, 5, 5, 5), -1e-6)}, "cells holds NaN, infinite or negative values in 4 rows"),
        ({"cells": np.full((4, 5, 5, 5), np.nan)}, "cells holds NaN, infinite or negative values in 4 rows"),
        ({"cells": np.ma.masked_array(np.ones((4, 5, 5, 5)), mask=True)}, "cells holds NaN, infinite or negative"),
        ({"cells": np.ones((4, 5, 4, 5))}, r"cells have shape \(4, 5, 4, 5\), expected \(n, n_xy, n_xy, n_z\)"),
        ({"energy": np.full(3, 10.0)}, r"energy has shape \(3,\), expected \(4,\)"),
        ({"energy": "ten"}, "energy is of type <U3, expected numbers"),
        ({"shower": np.arange(4.0)}, "shower is of type float64, expected whole numbers"),
        ({"config": []}, "config is a list, expected a dictionary"),
        ({"config": {"x": object()}}, "config cannot be stored as JSON: object"),
    ],
)
def test_what_is_written_can_be_read(tmp_path: Path, change: dict[str, Any], complaint: str | None) -> None:
    fields: dict[str, Any] = {
        "cells": np.full((4, 5, 5, 5), 0.07), "energy": np.full(4, 10.0), "dx": np.full(4, 2.5),
        "dz": np.full((4, 5), 6.0), "shower": np.arange(4), "material": MATERIALS["PbF2"], "origin": "geant4",
    }  # fmt: skip
    path = tmp_path / "cells.h5"
    if complaint is None:
        write_cells(path, Cells(**(fields | change)))
        read = read_cells(path)
        assert (read.energy == 10).all()
        assert read.dz.shape == (4, 5)
        assert read.material.name == "PbF2"
    else:
        with pytest.raises(InputError, match=rf"cells\.h5 is not written: {complaint}"):
            write_cells(path, Cells(**(fields | change)))
        assert not path.exists()


def test_a_file_that_another_process_holds_is_called_locked(path: Path) -> None:
    script = "import h5py, sys; file = h5py.File(sys.argv[1], 'r+', locking=True); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(FormatError, match=r"cells\.h5 is locked: another process has it open for writing; wait"):
            read_cells(path)
        holder.communicate()
    read_cells(path)


def with_times(cells: Cells) -> Cells:
    """A fifth of the cells is empty and has no times."""
    energies = np.where(np.random.default_rng(1).random(cells.cells.shape) < 0.2, 0, cells.cells).astype(np.float32)
    mean = np.where(energies > 0, 1 + energies, np.nan).astype(np.float32)
    return dataclasses.replace(cells, cells=energies, mean_time=mean, first_time=mean / 2)


def test_times_are_written_read_chosen_and_concatenated(tmp_path: Path) -> None:
    cells = with_times(make_cells())
    write_cells(tmp_path / "timed.h5", cells)
    read, part = read_cells(tmp_path / "timed.h5"), read_cells(tmp_path / "timed.h5", slice(5, 9))
    joined = Cells.concatenate([cells.rows(slice(0, 20)), cells.rows(np.arange(20, 50))], cells.shower)
    for name in ("mean_time", "first_time"):
        for found in (read, joined):
            np.testing.assert_array_equal(getattr(found, name), getattr(cells, name))
        np.testing.assert_array_equal(getattr(part, name), getattr(cells, name)[5:9])
    assert read.mean_time.dtype == np.float32
    assert extent_of(tmp_path / "timed.h5").rows == 50
    mixed = Cells.concatenate([cells, make_cells()], np.arange(100))
    assert mixed.mean_time is None
    assert len(mixed) == 100


def test_times_are_covered_by_the_checksum(tmp_path: Path) -> None:
    write_cells(tmp_path / "timed.h5", with_times(make_cells()))
    with h5py.File(tmp_path / "timed.h5", "r+") as file:
        file["first_time"][0, 0, 0, 0] = 77
    for reader in (read_cells, extent_of):
        with pytest.raises(FormatError, match="its contents do not fit its checksum"):
            reader(tmp_path / "timed.h5")


def test_times_that_cannot_be(tmp_path: Path) -> None:
    cells = with_times(make_cells())
    with pytest.raises(InputError, match=r"mean_time is NaN or infinite in cells with energy in 50 rows.*expected ns"):
        write_cells(tmp_path / "no.h5", dataclasses.replace(cells, mean_time=np.full_like(cells.cells, np.nan)))
    with pytest.raises(InputError, match=r"first_time has shape \(50, 3\), expected"):
        write_cells(tmp_path / "no.h5", dataclasses.replace(cells, first_time=np.ones((50, 3))))
