from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calograd.errors import InputError
from calograd.events.layered_readout import Readout, read_out
from calograd.events.point_showers import PITCH, PointShowers

Make = Callable[..., PointShowers]


def point(x: float, y: float = 0.0, layer: int = 0) -> PointShowers:
    x, y, one = np.float32([x]), np.float32([y]), np.float32([1])
    return PointShowers(x, y, np.array([layer]), one, np.array([0, 1]), 10 * one, np.arange(1))


@pytest.mark.parametrize(("x", "i"), [(0, 0), (0.49, 0), (0.51, 1), (-0.49, 0), (-0.51, -1), (3.2, 3)])
def test_cell_zero_is_centred_on_the_axis(x: float, i: int) -> None:
    hits = read_out(point(x * PITCH, -x * PITCH, 7))
    assert (hits.i.tolist(), hits.j.tolist(), hits.layer.tolist()) == ([i], [-i], [7])


def test_moving_the_grid_is_moving_the_shower(make_clouds: Make) -> None:
    clouds = make_clouds(5)
    moved = read_out(clouds, Readout(offset=(0.2, -0.1)))
    shifted = replace(clouds, x=clouds.x + np.float32(0.2), y=clouds.y - np.float32(0.1))
    np.testing.assert_allclose(np.sort(moved.e), np.sort(read_out(shifted).e), rtol=1e-5)
    assert abs(moved.x.mean() - read_out(clouds).x.mean()) < PITCH


def test_energy_is_conserved_without_a_threshold(make_clouds: Make) -> None:
    clouds = make_clouds(70)
    hits = read_out(clouds, threshold=0)
    np.testing.assert_allclose(
        np.bincount(hits.owner * 30 + hits.layer, hits.e, 70 * 30).reshape(70, 30), clouds.layer_sums(clouds.e),
        rtol=1e-6,
    )  # fmt: skip
    assert (read_out(clouds).e > 1e-4).all()
    assert (np.diff(hits.owner) >= 0).all()


def test_staggering_moves_odd_layers_only() -> None:
    readout = Readout(stagger=PITCH / 2)
    assert read_out(point(0.3 * PITCH, layer=0), readout).i.tolist() == [0]
    assert read_out(point(0.3 * PITCH, layer=1), readout).i.tolist() == [1]
    np.testing.assert_allclose(read_out(point(0.3 * PITCH, layer=1), readout).x, PITCH / 2)


def test_dead_strips_lie_half_a_wafer_from_the_axis() -> None:
    readout = Readout(wafer=2, gap=0.1)
    border = PITCH
    lost = [len(read_out(point(border + d), readout).e) == 0 for d in (-0.06, -0.04, 0.04, 0.06)]
    assert lost == [False, True, True, False]
    with pytest.raises(InputError, match="narrower"):
        Readout(wafer=1, gap=1.0)


def test_the_regular_view_holds_the_cells_around_the_axis() -> None:
    grid = read_out(point(-PITCH, 2 * PITCH, 4)).grid()
    assert grid.shape == (1, 30, 30, 30)
    assert grid[0, 14, 17, 4] == 1
    assert grid.sum() == 1
    assert read_out(point(16 * PITCH)).grid().sum() == 0


def test_no_showers_no_hits() -> None:
    none = np.zeros(0, np.float32)
    empty = PointShowers(none, none, none.astype(np.int64), none, np.zeros(1, np.int64), none, none.astype(np.int64))
    assert len(read_out(empty).e) == 0
