from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.deposits import depths, pitches, random_deposits, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.detector.material import Material
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events import binning
from calograd.events.binning import PIXELS, project_deposits, resample, segment_deposits
from calograd.events.dense import Cells, Maps, read_dense, read_maps, write_dense, write_maps
from calograd.events.ragged import Deposits


@given(seeds, pitches, depths, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_coarse_pixels_are_layers_and_columns_of_cells(seed: int, dx: float, dz: float, n_xy: int, n_z: int) -> None:
    d = random_deposits(seed)
    maps = project_deposits(d, dx, dz, n_xy, n_z)
    coarse = maps.reshape(-1, n_xy, PIXELS // n_xy, n_z, PIXELS // n_z).sum((2, 4))
    np.testing.assert_allclose(coarse, segment_deposits(d, dx, dz, n_xy, n_z).sum(2), rtol=1e-5, atol=1e-9)


@given(seeds)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_energy_is_conserved_in_a_window_that_holds_all(seed: int) -> None:
    d = random_deposits(seed, mean=2000)
    kept = replace(d, z=np.abs(d.z))
    totals = np.add.reduceat(np.append(d.e.astype(np.float64), 0), d.offsets[:-1]) * (np.diff(d.offsets) > 0)
    np.testing.assert_allclose(project_deposits(kept, 100.0, 100.0).sum((1, 2)), totals, rtol=1e-5)


def test_a_deposit_lies_in_the_pixel_of_the_formula() -> None:
    x, z = np.float32([0.01, -0.01, -2.49, 2.51, 0.0]), np.float32([0.01, 24.99, 12.6, 1.0, -0.1])
    y = np.float32([0, 2.4, -2.4, 0, 0])
    maps = project_deposits(Deposits(x, y, z, np.float32([1, 2, 4, 8, 16]), np.array([0, 5])), 1.0, 5.0)
    found = {tuple(place): maps[(0, *place)] for place in np.argwhere(maps[0])}
    assert found == {(16, 0): 1, (15, 31): 2, (0, 16): 4}


def test_designs_of_their_own_equal_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    d, rng = random_deposits(3), np.random.default_rng(0)
    dx, dz = rng.uniform(0.5, 4, 5), rng.uniform(1, 10, (5, 3))
    monkeypatch.setattr(binning, "BLOCK", 70)  # some showers are larger, some share a block
    maps = project_deposits(d, dx, dz, 4, 3)
    for s in range(5):
        np.testing.assert_array_equal(project_deposits(d.rows(slice(s, s + 1)), dx[s], dz[s], 4, 3)[0], maps[s])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"x": np.float32([np.nan])}, "positions that are NaN"),
        ({"e": np.float32([np.inf])}, "energies that are NaN or infinite"),
        ({"dx": 0.0}, "cell size dx = 0.0 cm"),
        ({"dz": np.ones(3)}, "dz has shape"),
        ({"pixels": 0}, "0 x 0 pixels"),
    ],
)
def test_bad_input(change: dict, complaint: str) -> None:
    columns = {name: change.pop(name, np.float32([1])) for name in ("x", "y", "z", "e")}
    deposits = Deposits(**columns, offsets=np.array([0, 1]))
    with pytest.raises(InputError, match=complaint):
        project_deposits(deposits, **{"dx": 1.0, "dz": 5.0} | change)


@given(seeds, st.integers(1, 100), st.integers(1, 100), st.integers(1, 64))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_resampling_keeps_the_energy_and_the_place(seed: int, across: int, along: int, pixels: int) -> None:
    images = np.random.default_rng(seed).exponential(size=(2, across, along))
    made = resample(images, pixels)
    np.testing.assert_allclose(made.sum((1, 2)), images.sum((1, 2)), rtol=1e-5)
    centre = (np.arange(pixels) + 0.5) / pixels, (np.arange(along) + 0.5) / along
    np.testing.assert_allclose(
        made.sum(1) @ centre[0] / made.sum((1, 2)), images.sum(1) @ centre[1] / images.sum((1, 2)),
        atol=1 / pixels + 1 / along,
    )  # fmt: skip
    flat = resample(np.ones((1, across, along)), pixels)
    np.testing.assert_allclose(flat, across * along / pixels**2, rtol=1e-5)


def test_resampling_by_a_whole_factor_adds_up() -> None:
    images = np.arange(64.0).reshape(1, 8, 8)
    np.testing.assert_allclose(resample(images, 4)[0], images.reshape(4, 2, 4, 2).sum((1, 3)))


def make_maps(n: int = 20) -> Maps:
    rng = np.random.default_rng(0)
    return Maps(
        maps=rng.gamma(0.3, size=(n, PIXELS, PIXELS)).astype(np.float32),
        energy=rng.uniform(1, 100, n).astype(np.float32),
        dx=rng.uniform(1, 5, n).astype(np.float32),
        dz=rng.uniform(4, 15, (n, 5)).astype(np.float32),
        n_xy=5,
        shower=np.arange(n) // 2,
        material=Material.parse("mine:5.5:PbF2"),
        origin="geant4",
        config={"mode": "embedded", "seed": 3},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_maps(tmp_path / "maps.h5", make_maps())
    return tmp_path / "maps.h5"


def test_what_is_written_is_read(path: Path) -> None:
    maps, original = read_maps(path), make_maps()
    for name in ("maps", "energy", "dx", "dz", "shower"):
        np.testing.assert_array_equal(getattr(maps, name), getattr(original, name))
        assert getattr(maps, name).dtype == getattr(original, name).dtype
    assert (maps.material, maps.origin, maps.config, maps.n_xy) == (original.material, "geant4", original.config, 5)
    assert [p.name for p in path.parent.iterdir()] == ["maps.h5"]
    with pytest.raises(OutputExistsError):
        write_maps(path, original)


def test_no_rows(tmp_path: Path) -> None:
    write_maps(tmp_path / "none.h5", make_maps().rows(slice(0, 0)))
    assert len(read_maps(tmp_path / "none.h5")) == 0


def test_windows_and_totals() -> None:
    maps = make_maps().rows(np.array([3, 5]))
    np.testing.assert_allclose(maps.width, 5 * maps.dx)
    np.testing.assert_allclose(maps.depth, maps.dz.sum(1), rtol=1e-6)
    np.testing.assert_allclose(maps.totals, maps.measured.sum((1, 2)))


def test_either_kind_of_file_is_read_and_written(tmp_path: Path) -> None:
    maps = make_maps()
    cells = Cells(
        np.ones((20, 5, 5, 5), np.float32), maps.energy, maps.dx, maps.dz, maps.shower, maps.material, "geant4"
    )
    for name, rows in (("maps.h5", maps), ("cells.h5", cells)):
        write_dense(tmp_path / name, rows)
        again = read_dense(tmp_path / name)
        assert type(again) is type(rows)
        np.testing.assert_array_equal(again.measured, rows.measured)
    with pytest.raises(FormatError, match="does not exist"):
        read_dense(tmp_path / "none.h5")


def change(name: str, do: Callable[[np.ndarray], np.ndarray]) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        values = do(file[name][()])
        del file[name]
        file[name] = values

    return apply


def nan(values: np.ndarray) -> np.ndarray:
    values[7] = np.nan
    return values


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda file: file.pop("dz"), "lacks dz"),
        (lambda file: file.attrs.pop("material"), "names no material"),
        (lambda file: file.attrs.pop("n_xy"), "'n_xy' is None"),
        (lambda file: file.attrs.__setitem__("schema", "calograd/cells/1"), "expected 'calograd/maps/2'"),
        (lambda file: file.attrs.__setitem__("schema", "calograd/maps/9"), "update calograd"),
        (change("energy", lambda e: e[:-1]), r"energy has shape \(19,\), expected \(20,\) as maps \(20, 32, 32\)"),
        (change("maps", lambda m: m[:, 0]), r"maps have shape \(20, 32\)"),
        (change("maps", nan), "maps holds NaN, infinite or negative values in 1 rows, the first is row 7"),
        (change("maps", lambda m: -m), "maps holds NaN, infinite or negative values in 20 rows, the first is row 0"),
        (change("dx", lambda d: d.astype("S4")), "dx are of type"),
    ],
)
def test_damaged_files(path: Path, damage: Callable[[h5py.File], None], complaint: str) -> None:
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(FormatError, match=complaint):
        read_maps(path)


def test_a_file_that_was_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FormatError, match="is cut off"):
        read_maps(path)
