from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from calograd.errors import FormatError, OutputExistsError
from calograd.events.point_showers import PointShowers, read_points, write_points

Make = Callable[..., PointShowers]


def assert_same(a: PointShowers, b: PointShowers) -> None:
    for name in ("x", "y", "layer", "e", "offsets", "energy", "shower"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert (a.layers, a.origin, a.config) == (b.layers, b.origin, b.config)


def test_a_file_comes_back(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds()
    write_points(tmp_path / "c.h5", clouds)
    assert_same(read_points(tmp_path / "c.h5"), clouds)
    with pytest.raises(OutputExistsError):
        write_points(tmp_path / "c.h5", clouds)


def test_hits_come_back_and_go_with_their_showers(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds()
    clouds = replace(clouds, hits=np.arange(len(clouds)) + 5)
    write_points(tmp_path / "c.h5", clouds)
    read = read_points(tmp_path / "c.h5")
    np.testing.assert_array_equal(read.hits, clouds.hits)
    np.testing.assert_array_equal(read.rows(np.array([2, 0])).hits, [7, 5])
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        del file["hits"]
        file["hits"] = np.arange(2)
    with pytest.raises(FormatError, match="2 numbers of hits"):
        read_points(tmp_path / "c.h5")


def test_showers_without_a_point_are_kept(tmp_path: Path) -> None:
    none = np.zeros(0, np.float32)
    empty = PointShowers(none, none, none.astype(np.int64), none, np.zeros(3, np.int64), np.array([10, 20], np.float32),
                   np.arange(2))  # fmt: skip
    write_points(tmp_path / "c.h5", empty)
    read = read_points(tmp_path / "c.h5")
    assert len(read) == 2
    assert read.counts.tolist() == [0, 0]


def test_unsorted_and_padded_points_are_put_in_order(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds(5)
    order = np.concatenate([a + np.random.default_rng(0).permutation(b - a)
                            for a, b in zip(clouds.offsets[:-1], clouds.offsets[1:], strict=True)])  # fmt: skip
    mixed = replace(clouds, **{name: getattr(clouds, name)[order] for name in ("x", "y", "layer", "e")})
    padded = replace(
        mixed, x=np.append(mixed.x, 0), y=np.append(mixed.y, 0), layer=np.append(mixed.layer, 3),
        e=np.append(mixed.e, 0), offsets=np.append(mixed.offsets[:-1], mixed.offsets[-1] + 1),
    )  # fmt: skip
    write_points(tmp_path / "c.h5", padded)
    read = read_points(tmp_path / "c.h5")
    np.testing.assert_array_equal(read.offsets, clouds.offsets)
    np.testing.assert_array_equal(read.layer, clouds.layer)
    np.testing.assert_allclose(read.layer_sums(read.e), clouds.layer_sums(clouds.e), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [("layer", 30, "layer 30"), ("e", np.nan, "no finite"), ("e", -1, "negative"), ("x", np.inf, "no finite"),
     ("energy", 0, "incident energy")],
)  # fmt: skip
def test_what_no_shower_can_have_is_refused(
    tmp_path: Path, make_clouds: Make, name: str, value: float, complaint: str
) -> None:
    write_points(tmp_path / "c.h5", make_clouds(3))
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file[name][1] = value
    with pytest.raises(FormatError, match=complaint):
        read_points(tmp_path / "c.h5")


@pytest.mark.parametrize("name", ["x", "layer", "energy", "shower", "offsets"])
def test_text_in_place_of_numbers_is_refused(tmp_path: Path, make_clouds: Make, name: str) -> None:
    write_points(tmp_path / "c.h5", make_clouds(3))
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        shape = file[name].shape
        del file[name]
        file[name] = np.full(shape, b"abc")
    with pytest.raises(FormatError, match=rf"{name} is of type \|S3, expected"):
        read_points(tmp_path / "c.h5")


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path, make_clouds: Make) -> None:
    write_points(tmp_path / "c.h5", make_clouds(3))
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        file["offsets"][-1] += 1
    with pytest.raises(FormatError, match="offsets"):
        read_points(tmp_path / "c.h5")


def test_chosen_showers(make_clouds: Make) -> None:
    clouds = make_clouds(6)
    chosen = clouds.rows(np.array([4, 1]))
    assert chosen.shower.tolist() == [4, 1]
    np.testing.assert_array_equal(chosen.layer_sums(chosen.e), clouds.layer_sums(clouds.e)[[4, 1]])
    assert len(clouds.rows(slice(2, 5))) == 3
