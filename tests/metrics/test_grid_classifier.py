from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calograd.events.clouds import Clouds
from calograd.events.grids import Grids
from calograd.events.layered_readout import THRESHOLD, read_out
from calograd.metrics.classifier import cross_fitted_auc
from calograd.metrics.grid_classifier import grid_rows, images

Make = Callable[..., Clouds]


def test_the_dense_view_is_the_grid_of_the_readout(make_clouds: Make) -> None:
    clouds = make_clouds(12)
    grids, rows = Grids.of(clouds), np.array([7, 0, 7])
    expected = np.moveaxis(read_out(clouds).grid(clouds.layers), 3, 1)[rows]
    np.testing.assert_allclose(grids.dense(rows), expected, rtol=1e-6)
    dense = images(grids, rows).numpy()
    np.testing.assert_allclose(dense[:, 0], np.log1p(expected / THRESHOLD) / 4, rtol=1e-5)
    np.testing.assert_allclose(dense[:, 1], 1e3 * expected / clouds.energy[rows, None, None, None], rtol=1e-5)
    assert (dense[:, 0] > 0).sum() == (expected > 0).sum() > 0


def test_parts_and_wholes_hold_the_same_showers(make_clouds: Make) -> None:
    grids = Grids.of(make_clouds(10))
    again = grids.rows(0, 4).join(grids.rows(4, 10))
    every = np.arange(10)
    np.testing.assert_array_equal(again.dense(every), grids.dense(every))
    np.testing.assert_array_equal(grids.rows(3, 6).dense(np.array([1])), grids.dense(np.array([4])))


def test_a_shower_without_hits_is_an_empty_grid() -> None:
    none = np.zeros(0, np.float32)
    empty = Clouds(none, none, none.astype(int), none, np.zeros(2, int), np.array([10.0]), np.arange(1))
    assert not Grids.of(empty).dense(np.array([0])).any()


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.3, 0.7), (2.0, 0.8, 1.0)])
def test_convolutions_tell_a_wrong_width_and_nothing_where_nothing_is(
    make_clouds: Make, factor: float, low: float, high: float
) -> None:
    reference, clouds = make_clouds(100, seed=1), make_clouds(100, seed=2)
    other = replace(clouds, x=factor * clouds.x, y=factor * clouds.y)
    auc = cross_fitted_auc(*grid_rows(Grids.of(other), Grids.of(reference)), np.random.default_rng(0))
    assert low < auc.value <= high
