from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from calograd.errors import FormatError
from calograd.events.layered_readout import read_out
from calograd.events.point_showers import PointShowers
from calograd.readers.showerdata import read_showerdata, write_calochallenge, write_showerdata

Make = Callable[..., PointShowers]


def test_showerdata_comes_back(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds(7)
    write_showerdata(tmp_path / "s.h5", clouds)
    read = read_showerdata(tmp_path / "s.h5")
    for name in ("layer", "e", "offsets", "energy", "shower"):
        np.testing.assert_array_equal(getattr(read, name), getattr(clouds, name), err_msg=name)
    np.testing.assert_allclose(read.x, clouds.x, rtol=1e-6)


def test_the_package_reads_what_is_written_and_the_other_way_round(tmp_path: Path, make_clouds: Make) -> None:
    showerdata = pytest.importorskip("showerdata", reason="the package showerdata is not installed")
    clouds = make_clouds(7)
    write_showerdata(tmp_path / "ours.h5", clouds)
    theirs = showerdata.load(tmp_path / "ours.h5")
    assert theirs.points.shape == (7, clouds.counts.max(), 4)
    np.testing.assert_allclose(theirs.points[2, : clouds.counts[2], 0], 10 * clouds.rows(slice(2, 3)).x, rtol=1e-6)
    np.testing.assert_allclose(theirs.points[..., 3].sum(1), clouds.layer_sums(clouds.e).sum(1), rtol=1e-5)
    assert set(theirs.pdg.tolist()) == {22}
    theirs.save(tmp_path / "theirs.h5")
    np.testing.assert_array_equal(read_showerdata(tmp_path / "theirs.h5").e, clouds.e)


def raw(path: Path, rows: list[np.ndarray], width: int = 5) -> None:
    """A file of the package with points as they come."""
    with h5py.File(path, "w") as file:
        showers = file.create_dataset("showers", (len(rows),), dtype=h5py.vlen_dtype(np.float32))
        for number, row in enumerate(rows):
            showers[number] = row.astype(np.float32).reshape(-1)
        n = len(rows)
        file["energies"] = np.full((n, 1), 20, np.float32)
        file["directions"] = np.tile([0.0, 0, 1], (n, 1))
        file["pdg"] = np.full(n, 22)
        file["shower_ids"] = np.arange(n)
        file["shape"] = np.array([n, max(len(row) for row in rows), width])
        file["num_points"] = np.array([len(row) for row in rows])


def test_padding_times_and_any_order_are_no_trouble(tmp_path: Path) -> None:
    table = np.array([[10, 0, 7, 2e-3, 1.5], [0, 0, 0, 0, 0], [-20, 5, 2, 1e-3, 0.5], [0, 0, 0, 0, 0]])
    raw(tmp_path / "s.h5", [table, np.zeros((0, 5))])
    read = read_showerdata(tmp_path / "s.h5")
    assert read.layer.tolist() == [2, 7]
    np.testing.assert_allclose(read.x, [-2, 1])
    assert read.counts.tolist() == [2, 0]


@pytest.mark.parametrize(("row", "complaint"), [([0, 0, 33, 1.0, 0], "layer 33"), ([0, 0, 3, -1, 0], "negative")])
def test_what_the_detector_cannot_hold_is_refused(tmp_path: Path, row: list[float], complaint: str) -> None:
    raw(tmp_path / "s.h5", [np.array([row])])
    with pytest.raises(FormatError, match=complaint):
        read_showerdata(tmp_path / "s.h5")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="does not exist"):
        read_showerdata(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["showers"] = np.zeros(3)
    with pytest.raises(FormatError, match="lacks energies"):
        read_showerdata(tmp_path / "other.h5")


def test_the_calochallenge_grid(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds(3)
    write_calochallenge(tmp_path / "g.h5", clouds, n_xy=8)
    with h5py.File(tmp_path / "g.h5") as file:
        showers, energies = file["showers"][()], file["incident_energies"][()]
    assert showers.shape == (3, 30 * 64)
    np.testing.assert_allclose(energies[:, 0], 1e3 * clouds.energy)
    grid = read_out(clouds, threshold=0).grid(8)
    np.testing.assert_allclose(showers.reshape(3, 30, 8, 8)[1, 9], 1e3 * grid[1, :, :, 9], rtol=1e-6)
