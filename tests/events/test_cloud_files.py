from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.point_showers import PointShowers, incident_columns, read_points, write_points

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


def test_every_shower_may_have_its_own_number_of_layers(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds(6)
    own = np.array([int(clouds.layer[a:b].max()) + 1 for a, b in zip(clouds.offsets, clouds.offsets[1:], strict=False)])
    write_points(tmp_path / "c.h5", replace(clouds, n_layers=own))
    read = read_points(tmp_path / "c.h5")
    np.testing.assert_array_equal(read.n_layers, own)
    np.testing.assert_array_equal(read.rows(np.array([2, 0])).n_layers, own[[2, 0]])
    assert read.layer_sums().shape == (6, 30)
    write_points(tmp_path / "without.h5", clouds)
    with h5py.File(tmp_path / "without.h5") as file:
        assert "n_layers" not in file
    for wrong, complaint in (
        (np.append(own[:-1], own[-1] - 1), rf"is in layer {own[-1] - 1}, its shower has the layers 0 to {own[-1] - 2}"),
        (np.append(31, own[1:]), "shower 0 has 31 layers, expected 1 to 30"),
        (np.append(0, own[1:]), "shower 0 has 0 layers"),
        (own[:-1], "5 numbers of n_layers"),
        (own + 0.5, "n_layers is of type float64, expected whole numbers"),
    ):
        with pytest.raises(InputError, match=complaint):
            write_points(tmp_path / "wrong.h5", replace(clouds, n_layers=wrong))
        with h5py.File(tmp_path / "c.h5", "r+") as file:
            del file["n_layers"]
            file["n_layers"] = wrong
        with pytest.raises(FormatError, match=complaint):
            read_points(tmp_path / "c.h5")


def test_columns_say_what_a_beam_leaves_open(make_clouds: Make) -> None:
    clouds = make_clouds(3)
    beam = {"particle": ["gamma", "e-"], "theta": [0, 40], "phi": 90.0, "position": [1.0, 2.0]}
    columns = {"pdg": np.array([22, 11, 22]), "theta": np.float32([0, 20, 40]), "phi": np.float32([90] * 3)}
    known = replace(clouds, config={"simulation": {"beam": beam}}, **columns)
    assert known.incident.particle.tolist() == [22, 11, 22]
    np.testing.assert_allclose(known.incident.theta, [0, 20, 40])
    np.testing.assert_allclose(known.incident.position, [[1, 2]] * 3)
    with pytest.raises(InputError, match="particle of the beam is drawn"):
        _ = replace(known, pdg=None).incident
    assert incident_columns(known.config, 3) == {}


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
