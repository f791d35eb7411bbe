from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from calograd.events.layered_readout import THRESHOLD, Hits, read_out
from calograd.events.point_showers import PointShowers
from calograd.metrics.classifier import cross_fitted_auc
from calograd.metrics.grid_classifier import grid_rows, images

Make = Callable[..., PointShowers]


def test_the_dense_view_is_the_grid_of_the_readout(make_clouds: Make) -> None:
    clouds = make_clouds(12)
    grids, rows = read_out(clouds).within(), np.array([7, 0, 7])
    expected = np.moveaxis(read_out(clouds).grid(), 3, 1)[rows]
    np.testing.assert_array_equal(np.moveaxis(grids.rows(rows).grid(), 3, 1), expected)
    dense = images(grids, rows).numpy()
    np.testing.assert_allclose(dense[:, 0], np.log1p(expected / THRESHOLD) / 4, rtol=1e-5)
    np.testing.assert_allclose(dense[:, 1], 1e3 * expected / clouds.energy[rows, None, None, None], rtol=1e-5)
    assert (dense[:, 0] > 0).sum() == (expected > 0).sum() > 0


def test_parts_and_wholes_hold_the_same_showers(make_clouds: Make) -> None:
    grids = read_out(make_clouds(10)).within()
    again = Hits.concatenate([grids.rows(slice(0, 4)), grids.rows(slice(4, 10))])
    np.testing.assert_array_equal(again.grid(), grids.grid())
    np.testing.assert_array_equal(grids.rows(slice(3, 6)).grid()[1], grids.grid()[4])


def test_a_shower_without_hits_is_an_empty_grid() -> None:
    none = np.zeros(0, np.float32)
    empty = PointShowers(none, none, none.astype(int), none, np.zeros(2, int), np.array([10.0]), np.arange(1))
    assert not read_out(empty).within().grid().any()


@pytest.mark.parametrize(("factor", "low", "high"), [(1.0, 0.3, 0.7), (2.0, 0.8, 1.0)])
def test_convolutions_tell_a_wrong_width_and_nothing_where_nothing_is(
    make_clouds: Make, factor: float, low: float, high: float
) -> None:
    reference, clouds = make_clouds(100, seed=1), make_clouds(100, seed=2)
    other = replace(clouds, x=factor * clouds.x, y=factor * clouds.y)
    auc = cross_fitted_auc(*grid_rows(read_out(other).within(), read_out(reference).within()), np.random.default_rng(0))
    assert low < auc.value <= high
