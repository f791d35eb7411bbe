from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers.deposits import depths, pitches, random_deposits, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.errors import InputError
from calograd.events import binning as module
from calograd.events.binning import FIRST_SHARE, bin_times, cell_axes, segment_deposits
from calograd.events.ragged import Deposits


def one_by_one(d: Deposits, dx: Any, dz: Any, n_xy: int, n_z: int) -> np.ndarray:
    """The definition, deposit by deposit."""
    n = len(d.offsets) - 1
    dx, dz = np.broadcast_to(dx, n), np.broadcast_to(dz, (n, n_z))
    cells = np.zeros((n, n_xy, n_xy, n_z))
    for s in range(n):
        edges = [sum(dz[s, :k]) for k in range(n_z + 1)]
        for t in range(d.offsets[s], d.offsets[s + 1]):
            i = int(np.floor(float(d.x[t]) / dx[s] + n_xy / 2))
            j = int(np.floor(float(d.y[t]) / dx[s] + n_xy / 2))
            layers = [k for k in range(n_z) if edges[k] <= d.z[t] < edges[k + 1]]
            if 0 <= i < n_xy and 0 <= j < n_xy and layers:
                cells[s, i, j, layers[0]] += float(d.e[t])
    return cells


@given(seeds, pitches, depths, st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_it_is_the_definition(seed: int, dx: float, dz: float, n_xy: int, n_z: int) -> None:
    d = random_deposits(seed)
    cells = segment_deposits(d, dx, dz, n_xy, n_z)
    assert cells.dtype == np.float32
    np.testing.assert_allclose(cells, one_by_one(d, dx, dz, n_xy, n_z), rtol=1e-6, atol=0)


@given(seeds, st.integers(1, 5))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_designs_of_their_own_equal_one_by_one(seed: int, n_z: int) -> None:
    d, rng = random_deposits(seed), np.random.default_rng(seed)
    dx, dz = rng.uniform(0.5, 4, 5), rng.uniform(1, 10, (5, n_z))
    cells = segment_deposits(d, dx, dz, 4, n_z)
    np.testing.assert_allclose(cells, one_by_one(d, dx, dz, 4, n_z), rtol=1e-6, atol=0)
    for s in range(5):
        np.testing.assert_array_equal(segment_deposits(d.rows(slice(s, s + 1)), dx[s], dz[s], 4, n_z)[0], cells[s])


@given(seeds)
@settings(max_examples=10, deadline=None, derandomize=True)
def test_energy_is_conserved_in_a_window_that_holds_all(seed: int) -> None:
    d = random_deposits(seed, mean=2000)
    d = replace(d, z=np.abs(d.z))
    cells = segment_deposits(d, 40.0, 8.0, 5, 5)
    totals = [d.e[a:b].sum(dtype=np.float64) for a, b in zip(d.offsets[:-1], d.offsets[1:], strict=True)]
    np.testing.assert_allclose(cells.sum((1, 2, 3), dtype=np.float64), totals, rtol=2e-7)


@given(seeds, pitches, depths, st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_merged_fine_cells_are_the_coarse_ones(seed: int, dx: float, dz: float, n_xy: int, n_z: int) -> None:
    d = random_deposits(seed)
    coarse = segment_deposits(d, dx, dz, n_xy, n_z)
    fine = segment_deposits(d, dx / 2, dz / 2, 2 * n_xy, 2 * n_z)
    merged = fine.reshape(5, n_xy, 2, n_xy, 2, n_z, 2).sum((2, 4, 6))
    np.testing.assert_allclose(merged, coarse, rtol=1e-6, atol=1e-12)


@given(seeds, pitches, st.integers(1, 6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_symmetries_of_the_square_commute(seed: int, dx: float, n_xy: int) -> None:
    d = random_deposits(seed)
    cells = segment_deposits(d, dx, 5.0, n_xy, 4)
    np.testing.assert_array_equal(segment_deposits(replace(d, x=-d.x), dx, 5.0, n_xy, 4), cells[:, ::-1])
    np.testing.assert_array_equal(segment_deposits(replace(d, y=-d.y), dx, 5.0, n_xy, 4), cells[:, :, ::-1])
    swapped = segment_deposits(replace(d, x=d.y, y=d.x), dx, 5.0, n_xy, 4)
    np.testing.assert_array_equal(swapped, cells.swapaxes(1, 2))


def test_cells_are_half_open_and_what_is_outside_is_lost() -> None:
    """Window of 2 x 2 cells of 2 cm and layers of 1 and 3 cm: x, y in [-2, 2), z in [0, 4)."""
    places = {
        (-2.0, -2.0, 0.0): (0, 0, 0),
        (0.0, -0.5, 1.0): (1, 0, 1),
        (-1e-3, 0.0, np.nextafter(np.float32(1), np.float32(0))): (0, 1, 0),
        (1.999, 1.999, 3.999): (1, 1, 1),
        (2.0, 0.0, 0.5): None,
        (0.0, 2.0, 0.5): None,
        (-2.001, 0.0, 0.5): None,
        (0.0, 0.0, 4.0): None,
        (0.0, 0.0, -1e-6): None,
        (1e30, 0.0, 0.5): None,
        (0.0, -np.inf, 0.5): None,
    }
    for place, cell in places.items():
        x, y, z = (np.array([p], np.float32) for p in place)
        cells = segment_deposits(
            Deposits(x, y, z, np.ones(1, np.float32), np.array([0, 1])), 2.0, np.array([1.0, 3.0]), 2, 2
        )
        filled = [tuple(int(i) for i in index) for index in np.argwhere(cells[0])]
        assert filled == ([] if cell is None else [cell]), place


@pytest.mark.parametrize(("dx", "dz"), [(1.5, 4.0), ("each", "each")])
def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch, dx: Any, dz: Any) -> None:
    d, rng = random_deposits(3, showers=40), np.random.default_rng(3)
    dx = rng.uniform(0.5, 4, 40) if dx == "each" else dx
    dz = rng.uniform(1, 10, (40, 5)) if dz == "each" else dz
    whole = segment_deposits(d, dx, dz)
    for deposits, cells in ((1, 1 << 24), (100, 1 << 24), (1 << 18, 200), (1 << 18, 1)):
        monkeypatch.setattr(module, "BLOCK", deposits)
        monkeypatch.setattr(module, "BLOCK_CELLS", cells)
        np.testing.assert_array_equal(segment_deposits(d, dx, dz), whole)


def test_five_depths_for_five_showers_are_one_a_layer() -> None:
    """Depths of shape (n_z,) belong to layers, also where there are as many showers."""
    d, dz = random_deposits(7), np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    cells = segment_deposits(d, 2.0, dz, 5, 5)
    np.testing.assert_array_equal(cells, segment_deposits(d, 2.0, np.tile(dz, (5, 1)), 5, 5))
    np.testing.assert_allclose(cells, one_by_one(d, 2.0, dz, 5, 5), rtol=1e-6)


def test_no_showers_and_no_deposits() -> None:
    nothing = np.zeros(0, np.float32)
    assert segment_deposits(Deposits(nothing, nothing, nothing, nothing, np.array([0])), 2.0, 3.0).shape == (0, 5, 5, 5)
    assert not segment_deposits(Deposits(nothing, nothing, nothing, nothing, np.array([0, 0, 0])), 2.0, 3.0).any()


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"dx": 0.0}, r"dx = 0\.0 cm: expected a positive number"),
        ({"dx": np.array([1, 2, np.nan, 3, 4])}, "dx = nan cm"),
        ({"dz": -1.0}, r"dz = -1\.0 cm"),
        ({"dz": np.inf}, "dz = inf cm"),
        ({"dx": np.ones(4)}, r"dx has shape \(4,\), expected one number or one a shower, \(5,\)"),
        ({"dz": np.ones(5)}, r"dz has shape \(5,\), expected one number, one a layer \(3,\)"),
        ({"dz": np.ones((5, 1))}, r"dz has shape \(5, 1\)"),
        ({"dz": np.ones((3, 5))}, r"or one a shower and layer \(5, 3\)"),
        ({"n_xy": 0}, "0 x 0 x 3 cells: expected at least one"),
        ({"n_z": 0}, "at least one"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        segment_deposits(random_deposits(1), **{"dx": 2.0, "dz": 3.0, "n_xy": 4, "n_z": 3} | sizes)


@pytest.mark.parametrize("name", ["x", "y", "z", "e"])
def test_deposits_that_are_nan(name: str) -> None:
    d = random_deposits(1)
    getattr(d, name)[np.argmin(np.abs(d.x) + np.abs(d.y) + np.abs(d.z - 5))] = np.nan
    with pytest.raises(InputError, match="NaN"):
        segment_deposits(d, 2.0, 3.0)


def times_one_by_one(d: Deposits, dx: float, dz: float, n_xy: int, n_z: int) -> tuple[np.ndarray, np.ndarray]:
    """The definitions of the mean and the first time, cell by cell."""
    assert d.t is not None
    mean, first = np.full((2, len(d), n_xy, n_xy, n_z), np.nan)
    for s in range(len(d)):
        part = d.rows(slice(s, s + 1))
        places = [np.floor(part.x / dx + n_xy / 2), np.floor(part.y / dx + n_xy / 2), np.floor(part.z / dz)]
        for cell in np.ndindex(n_xy, n_xy, n_z):
            here = np.all([place == c for place, c in zip(places, cell, strict=True)], axis=0)
            e, t = part.e[here].astype(np.float64), part.t[here].astype(np.float64)
            if e.sum() > 0:
                mean[(s, *cell)] = (e * t).sum() / e.sum()
                reached = [at for at in np.sort(t) if e[t <= at].sum() >= FIRST_SHARE * e.sum()]
                first[(s, *cell)] = reached[0]
    return mean, first


def times_of(d: Deposits, *sizes: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return bin_times(d, cell_axes(d, *sizes))


@given(seeds, st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_times_are_their_definitions(seed: int, n_xy: int, n_z: int) -> None:
    d = random_deposits(seed, mean=200)
    cells, mean, first = times_of(d, 2.0, 6.0, n_xy, n_z)
    np.testing.assert_array_equal(cells, segment_deposits(d, 2.0, 6.0, n_xy, n_z))
    wanted = times_one_by_one(d, 2.0, 6.0, n_xy, n_z)
    np.testing.assert_allclose(mean, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(first, wanted[1], rtol=1e-6)
    assert mean.dtype == first.dtype == np.float32


def test_known_times() -> None:
    """One cell: 1 % early, 80 % at 1 ns, the rest very late; and one deposit without energy in a second layer."""
    e, t = np.float32([0.01, 0.3, 0.5, 0.19, 0.0]), np.float32([0.1, 1.0, 1.0, 50.0, 2.0])
    z, zero, order = np.float32([1, 1, 1, 1, 6]), np.zeros(5, np.float32), np.array([3, 1, 0, 4, 2])
    d = Deposits(zero, zero, z[order], e[order], np.array([0, 5]), t=t[order])
    cells, mean, first = times_of(d, 2.0, 5.0, 1, 2)
    assert cells.ravel().tolist() == [1.0, 0.0]
    np.testing.assert_allclose(mean.ravel(), [0.001 + 0.8 + 9.5, np.nan], rtol=1e-6)
    np.testing.assert_allclose(first.ravel(), [1.0, np.nan])


def test_blocks_do_not_show_in_times(monkeypatch: pytest.MonkeyPatch) -> None:
    d = random_deposits(3, showers=40)
    whole = times_of(d, 2.0, 5.0)
    for deposits, cells in ((1, 1 << 24), (100, 1 << 24), (1 << 18, 200)):
        monkeypatch.setattr(module, "BLOCK", deposits)
        monkeypatch.setattr(module, "BLOCK_CELLS", cells)
        for one, other in zip(times_of(d, 2.0, 5.0), whole, strict=True):
            np.testing.assert_array_equal(one, other)


def test_times_without_deposits_and_deposits_without_times() -> None:
    nothing = np.zeros(0, np.float32)
    _, mean, first = times_of(Deposits(*[nothing] * 4, np.array([0, 0]), t=nothing), 2.0, 3.0)
    assert np.isnan(mean).all()
    assert np.isnan(first).all()
    with pytest.raises(InputError, match="deposits without times; expected t"):
        times_of(replace(random_deposits(1), t=None), 2.0, 3.0)
    d = random_deposits(1)
    with pytest.raises(InputError, match="times that are NaN or infinite"):
        times_of(replace(d, t=np.where(np.arange(len(d.e)) % 50, d.t, np.nan)), 8.0, 30.0)
