"""Plots draw what they are given, on the axes that they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")

from matplotlib.figure import Figure

from calograd.detector.incidence import Incidence
from calograd.errors import InputError
from calograd.reports.plots import plot_event, plot_observable, plot_profile, style


@pytest.fixture
def cells() -> np.ndarray:
    return np.random.default_rng(0).gamma(2.0, 1.0, (40, 5, 5, 4))


@pytest.mark.parametrize(("projection", "shape", "summed"), [("xz", (5, 4), 1), ("yz", (5, 4), 0), ("xy", (5, 5), 2)])
def test_events(cells: np.ndarray, projection: str, shape: tuple[int, int], summed: int) -> None:
    axes = Figure().subplots()
    assert plot_event(torch.from_numpy(cells[0]), 2.0, (1, 2, 3, 4), axes, projection) is axes
    drawn = axes.collections[0].get_array()
    expected = cells[0].sum(summed)
    assert drawn.shape == shape
    assert np.allclose(drawn, expected.T if projection == "xy" else expected)
    assert axes.get_xlim() == ((-5, 5) if projection == "xy" else (0, 10))
    assert axes.get_ylim() == (-5, 5)


@pytest.mark.parametrize(("projection", "axis"), [("xz", 0), ("yz", 1)])
def test_windows_of_an_event_lie_where_they_follow_the_line(cells: np.ndarray, projection: str, axis: int) -> None:
    particle = Incidence.of(1, "e-", (0.5, 0.3), 40.0, 30.0)
    axes = plot_event(cells[0], 1.5, 3.0, Figure().subplots(), projection, incident=particle)
    offsets = particle.window_offsets(np.array([1.5]), np.full((1, 4), 3.0))[0][:, axis]
    assert offsets[-1] > offsets[0]
    drawn, first = axes.collections[0].get_array(), offsets - offsets.min()
    assert drawn.shape == (5 + offsets.max() - offsets.min(), 4)
    for k in range(4):
        rows = slice(first[k], first[k] + 5)
        assert np.allclose(drawn[rows, k], cells[0].sum(1 - axis)[:, k])
        assert np.ma.getmaskarray(drawn)[:, k].sum() == len(drawn) - 5
    z, x = axes.lines[0].get_data()
    assert np.allclose(z, [0, 12])
    assert np.allclose(x, particle.at(np.array([[0.0, 12.0]]))[0, :, axis])
    assert axes.get_ylim() == pytest.approx(((offsets.min() - 2.5) * 1.5, (offsets.max() + 2.5) * 1.5))


def test_an_event_off_the_axis_along_the_beam(cells: np.ndarray) -> None:
    particle = Incidence.of(1, theta=40.0)
    axes = plot_event(cells[0], 1.5, 3.0, Figure().subplots(), "xy", incident=particle)
    drawn = axes.collections[0].get_array()
    assert drawn.shape[0] == 5 < drawn.shape[1]
    assert np.isclose(drawn.sum(), cells[0].sum())
    with pytest.raises(InputError, match="incident has 2 particles"):
        plot_event(cells[0], 1.5, 3.0, incident=Incidence.of(2))


def test_observables_are_shares_with_errors() -> None:
    values = np.r_[np.full(30, 0.5), np.full(10, 1.5)]
    axes = plot_observable(values, name="R_E", bins=[0, 1, 2], color="black")
    assert axes.patches[0].get_data().values.tolist() == [0.75, 0.25]
    assert axes.get_xlabel().endswith("[cm]")


def test_one_far_value_does_not_empty_the_bins_of_the_others() -> None:
    values = np.r_[np.random.default_rng(0).normal(1.5, 0.02, 999), 40.0]
    drawn = plot_observable(values, bins=20).patches[0].get_data()
    assert drawn.edges[-1] < 1.7
    assert (drawn.values > 0).sum() > 15
    assert np.isclose(drawn.values.sum(), 1)  # the far value is in the last bin


def test_profiles(cells: np.ndarray) -> None:
    axes = plot_profile(cells, 2.0, (1, 2, 3, 4))
    values, edges, _ = axes.patches[0].get_data()
    assert np.allclose(values, cells.sum((1, 2)).mean(0) / [1, 2, 3, 4])
    assert edges.tolist() == [0, 1, 3, 6, 10]
    across = plot_profile(cells, 2.0, 1.0, along="x").patches[0].get_data()
    assert np.isclose((across.values * np.diff(across.edges)).sum(), cells.sum((1, 2, 3)).mean())


def test_empty_showers_and_the_style() -> None:
    with style():
        axes = plot_event(np.zeros((5, 5, 5)), 1.0, 1.0)
        assert axes.xaxis.get_major_ticks()[0].get_tickdir() == "in"


def test_what_cannot_be_drawn_is_refused(cells: np.ndarray) -> None:
    for arguments, words in (((cells, 1.0, 1.0), "expected one shower"), ((cells[0], 1.0, 1.0, None, "zz"), "'zz'")):
        with pytest.raises(InputError, match=words):
            plot_event(*arguments)
    with pytest.raises(InputError, match="direction 'y'"):
        plot_profile(cells, 1.0, 1.0, along="y")
