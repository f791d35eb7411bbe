from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from calograd.errors import FormatError, InputError
from calograd.events.layered_readout import read_out
from calograd.events.point_showers import PointShowers, read_points, write_points
from calograd.events.ragged import offsets_of
from calograd.readers.showerdata import check_plausible, read_showerdata, write_calochallenge, write_showerdata

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
    clouds = replace(make_clouds(7), pdg=np.full(7, 22))
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
        file["energies"] = np.full((n, 1), 0.2, np.float32)
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


def showers_of(counts: list[int]) -> PointShowers:
    """Showers with these numbers of points, 2 % of 10 GeV in all together."""
    rng, n = np.random.default_rng(0), sum(counts)
    layer = np.concatenate([np.zeros(0, np.int64), *(np.sort(rng.integers(0, 30, c)) for c in counts)])
    e = rng.exponential(1, n) + 1e-3
    x, y = rng.normal(0, 1, (2, n)).astype(np.float32)
    energy = np.full(len(counts), 10, np.float32)
    return PointShowers(
        x, y, layer, (0.2 * e / max(e.sum(), 1)).astype(np.float32), offsets_of(np.array(counts, np.int64)), energy,
        np.arange(len(counts)),
    )  # fmt: skip


@pytest.mark.parametrize("counts", [[5, 7, 6], [5], [5, 5, 5], [0, 0], [0], [1, 1], [1], [3, 0], []])
def test_showers_of_any_number_of_points_come_back(tmp_path: Path, counts: list[int]) -> None:
    showers = showers_of(counts)
    write_showerdata(tmp_path / "s.h5", showers)
    with h5py.File(tmp_path / "s.h5") as file:
        assert [len(row) // 4 for row in file["showers"][()]] == counts
    read = read_showerdata(tmp_path / "s.h5")
    assert read.counts.tolist() == counts
    np.testing.assert_array_equal(read.e, showers.e)


def test_particle_and_direction_travel(tmp_path: Path) -> None:
    showers = showers_of([5, 7])
    angles = np.array([30, 20], np.float32), np.array([0, -45], np.float32)
    known = replace(showers, pdg=np.array([11, 22]), theta=angles[0], phi=angles[1])
    write_showerdata(tmp_path / "s.h5", known)
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["pdg"][()].tolist() == [11, 22]
        np.testing.assert_allclose(file["directions"][0], [0.5, 0, 0.75**0.5], atol=1e-6)
    write_points(tmp_path / "p.h5", read_showerdata(tmp_path / "s.h5"))
    read = read_points(tmp_path / "p.h5")
    assert read.pdg is not None
    assert read.theta is not None
    assert read.phi is not None
    assert read.pdg.tolist() == [11, 22]
    np.testing.assert_allclose(read.theta, angles[0], rtol=1e-5)
    np.testing.assert_allclose(read.phi, angles[1], atol=1e-4)


def test_unknown_particles_and_directions_are_not_made_up(tmp_path: Path) -> None:
    write_showerdata(tmp_path / "s.h5", showers_of([5, 7]))
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["pdg"][()].tolist() == [0, 0]
        assert np.isnan(file["directions"][()]).all()
    read = read_showerdata(tmp_path / "s.h5")
    assert read.pdg is read.theta is read.phi is None


@pytest.mark.parametrize(
    ("beam", "known"),
    [
        ({"particle": "e-", "theta": 20.0, "phi": 90.0}, (11, 20, 90)),
        ({"particle": "gamma", "theta": 0.0}, (22, 0, 0)),
        ({"particle": "pi+", "theta": 20.0}, (None, None, None)),
    ],
)
def test_simulations_say_what_their_particles_are(
    tmp_path: Path, beam: dict[str, Any], known: tuple[int | None, ...]
) -> None:
    write_points(tmp_path / "p.h5", replace(showers_of([5]), config={"simulation": {"beam": beam}}))
    read = read_points(tmp_path / "p.h5")
    found = [None if column is None else column[0] for column in (read.pdg, read.theta, read.phi)]
    assert found == list(known)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"e": 1000}, "hold .* times the incident energy on average; the deposits are in MeV or keV"),
        ({"x": 180}, r"is at x = 1[78]\d, y = .* cm, expected the axis at 0; subtract the entry point"),
    ],
)
def test_other_units_and_positions_are_refused(tmp_path: Path, change: dict[str, float], complaint: str) -> None:
    showers = showers_of([50])
    if "e" in change:
        showers = replace(showers, e=change["e"] * showers.e)
    else:
        showers = replace(showers, x=change["x"] + showers.x)
    write_showerdata(tmp_path / "s.h5", showers)
    with pytest.raises(InputError, match=complaint):
        read_showerdata(tmp_path / "s.h5")


def test_odd_showers_are_remarked_on() -> None:
    showers = showers_of([50])
    assert check_plausible(showers, "these") == []
    (note,) = check_plausible(replace(showers, x=showers.x + 10), "these")
    assert "the middle of the energy of these is at x = " in note
    (note,) = check_plausible(replace(showers, e=100 * showers.e), "these")
    assert "these hold 2 times the incident energy on average; perhaps the deposits are in MeV" in note
