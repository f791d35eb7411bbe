from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.images import write_images
from helpers.toy_library import write_library

from calograd.detector.configuration import SimulationConfig
from calograd.detector.material import MATERIALS
from calograd.errors import FormatError, InputError
from calograd.events.binning import project_deposits
from calograd.events.library.reader import open_library
from calograd.events.library.schema import Provenance
from calograd.readers import images as images_module
from calograd.readers.images import maps_of_images, read_images

SHOWERS = 6
SIZES = [(0.5, 0.3), (0.4, 0.2)]


@pytest.fixture
def stored(tmp_path: Path, make_config: Callable[..., SimulationConfig]) -> Path:
    """A library of random showers and the file of images of them."""
    folder = tmp_path
    provenance = Provenance(make_config(0.01, 0.02), "11.4.1", "G4EMLOW8.8 (test)")
    with open_library(write_library(folder / "library.h5", provenance, SHOWERS, mean=100)) as library:
        write_images(folder / "images.h5", library, SIZES)
    return folder


@pytest.fixture
def path(stored: Path) -> Path:
    return stored / "images.h5"


def replace(path: Path, **values: np.ndarray) -> Path:
    with h5py.File(path, "a") as file:
        for name, data in values.items():
            del file[name]
            file[name] = data
    return path


def as_if(path: Path, factor: float) -> Path:
    """With incident energies that are ``factor`` times what the images hold."""
    with h5py.File(path) as file:
        totals = file["images_xz"][()].sum((1, 2))
    return replace(path, labels_energy=np.maximum(totals, totals.max() / 100) * factor)


def test_images_are_those_of_the_deposits(stored: Path) -> None:
    images = read_images(stored / "images.h5")
    assert len(images) == SHOWERS * len(SIZES)
    with open_library(stored / "library.h5") as library:
        d = library.read()
    for number, (pitch, depth) in enumerate(SIZES):
        rows = slice(number * SHOWERS, (number + 1) * SHOWERS)
        np.testing.assert_array_equal(images.xz[rows], project_deposits(d, pitch, depth, pixels=100))
        np.testing.assert_array_equal(
            images.yz[rows], project_deposits(dataclasses.replace(d, x=d.y, y=d.x), pitch, depth, pixels=100)
        )
        np.testing.assert_array_equal(images.energy[rows], d.energy)
    np.testing.assert_allclose(images.xz.sum((1, 2)), images.yz.sum((1, 2)), rtol=1e-5)  # one window


def test_maps_of_them_keep_energy_and_designs(path: Path) -> None:
    images = read_images(as_if(path, 1.05))
    maps = images.maps()
    assert maps.maps.shape == (len(images), 32, 32)
    np.testing.assert_allclose(maps.totals, images.xz.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(maps.width, 5 * images.dx, rtol=1e-6)
    np.testing.assert_allclose(maps.depth, 5 * images.dz, rtol=1e-6)
    assert maps.material == MATERIALS["PbF2"]
    one = images.of("PbF2").maps({"PbF2": MATERIALS["BGO"]}, pixels=100)
    np.testing.assert_allclose(one.maps, images.xz, rtol=1e-6)
    assert one.material == MATERIALS["BGO"]


def test_a_single_geometry_is_as_good(stored: Path, tmp_path: Path) -> None:
    with open_library(stored / "library.h5") as library:
        write_images(tmp_path / "one.h5", library, SIZES[:1])
    maps = read_images(as_if(tmp_path / "one.h5", 1.05)).maps()
    assert np.isfinite(maps.maps).all()
    assert len(np.unique(maps.dx)) == 1


def test_images_scaled_to_their_maximum_have_no_energy(path: Path) -> None:
    with h5py.File(path) as file:
        images = file["images_xz"][()]
    largest = images.max((1, 2), keepdims=True)
    scaled = read_images(replace(path, images_xz=images / np.where(largest > 0, largest, 1)))
    assert scaled.normalised
    with pytest.raises(InputError, match="scaled to it and their energy is lost"):
        scaled.maps()


def test_other_units_of_energy_are_noticed(path: Path) -> None:
    images = read_images(as_if(path, 1.05e-3))
    with pytest.raises(InputError, match=r"\d+ times the incident energy on average; expected GeV, perhaps .* in MeV"):
        images.maps()
    np.testing.assert_allclose(images.maps(unit="MeV").totals, 1e-3 * images.xz.sum((1, 2)), rtol=1e-5)


def test_numbers_for_materials_need_a_meaning(path: Path) -> None:
    n = SHOWERS * len(SIZES)
    images = read_images(replace(as_if(path, 1.05), labels_material=np.arange(n) % 2))
    with pytest.raises(InputError, match="holds images of 0, 1; choose those of one"):
        images.maps()
    with pytest.raises(InputError, match="label '1': say what it means; unknown material '1'"):
        images.of("1").maps()
    with pytest.raises(InputError, match="label '1' is not among those that are known: 0"):
        images.of("1").maps({"0": MATERIALS["PbF2"]})
    assert len(images.of("1").maps({"1": MATERIALS["PbF2"]})) == n // 2


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"labels_xy": np.ones(3)}, r"labels_xy has shape \(3,\), expected one for each of the 12 images"),
        ({"labels_energy": np.zeros(12)}, "labels_energy holds numbers that are not positive, first in row 0"),
        ({"labels_z": np.array([1.0] * 5 + [np.nan] * 7)}, "labels_z holds .*, first in row 5"),
        ({"labels_xy": np.array([b"a"] * 12)}, "labels_xy are of type"),
        ({"images_yz": np.zeros((12, 64, 64))}, r"images_yz has shape \(12, 64, 64\), expected \(12, 100, 100\)"),
        ({"images_yz": np.zeros((11, 100, 100))}, r"images_yz has shape \(11, 100, 100\)"),
        ({"images_xz": -np.ones((12, 100, 100))}, "images_xz holds NaN or negative energies, first in row 0"),
        ({"images_xz": np.zeros((0, 100, 100))}, "holds no images"),
    ],
)
def test_inconsistent_files(path: Path, values: dict[str, np.ndarray], complaint: str) -> None:
    with pytest.raises(FormatError, match=complaint):
        read_images(replace(path, **values))


def test_missing_labels_and_files_that_are_none(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["labels_z"]
    with pytest.raises(FormatError, match="lacks labels_z"):
        read_images(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(FormatError, match="is not a readable HDF5 file; expected the images of"):
        read_images(path)
    with pytest.raises(FormatError, match="does not exist"):
        read_images(path.with_name("none.h5"))


def test_a_file_in_blocks_is_the_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, seen = SHOWERS * len(SIZES), list[tuple[int, int]]()
    monkeypatch.setattr(images_module, "BLOCK", 5)
    maps, whole = maps_of_images(as_if(path, 1.05), progress=lambda *done: seen.append(done)), read_images(path).maps()
    for name in ("maps", "energy", "dx", "dz", "shower"):
        np.testing.assert_array_equal(getattr(maps, name), getattr(whole, name))
    assert seen == [(5, n), (10, n), (n, n)]
    replace(path, labels_material=np.array([b"PbF2"] * 6 + [b"7"] * 6))
    with pytest.raises(InputError, match="holds images of 7, PbF2; choose those of one"):
        maps_of_images(path)
    with pytest.raises(InputError, match="holds no images of 'BGO', it has those of 7, PbF2"):
        maps_of_images(path, "BGO")
    np.testing.assert_array_equal(maps_of_images(path, "PbF2").maps, whole.maps[:6])
    assert maps_of_images(path, "7", MATERIALS["BGO"]).material == MATERIALS["BGO"]
    labels = np.ones(n)
    labels[7] = np.nan
    with pytest.raises(FormatError, match=r"labels_xy holds .*, first in row 7"):
        maps_of_images(replace(path, labels_xy=labels), "PbF2")
