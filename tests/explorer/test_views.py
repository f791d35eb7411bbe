"""What the explorer shows, as numbers, against the surrogate, Geant4's bundled showers and finite differences."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calograd.detector.design import Design
from calograd.errors import InputError, RangeError
from calograd.explorer.cell_selection import CellLimits, CellSelection
from calograd.explorer.cells import PREVIEW
from calograd.explorer.landscape import Surface
from calograd.explorer.text import to_toml
from calograd.explorer.views import Explorer
from calograd.gradients.autodiff import SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.optimisation.run import CellSetup, parse_optimisation
from calograd.surrogate import Surrogate


def surface_of(explorer: Explorer, selection: CellSelection) -> Surface:
    *_, last = explorer.landscape(selection)
    assert isinstance(last, Surface)
    return last


def test_a_preview_is_near_the_refined_showers_and_those_near_geant4(explorer: Explorer) -> None:
    start = explorer.start()
    assert (start.dx, start.depth, start.energy, start.material) == (2.5, 6.0, 50.0, "PbF2")
    preview, first = explorer.preview(start), next(explorer.refined(start))
    expected = explorer.surrogate.sample(Design(2.5, 6.0), 50.0, PREVIEW, generator=generator_for(0, SHOWERS, 2, 0))
    assert np.array_equal(first.cells, expected.numpy())
    assert preview.cells.shape == (PREVIEW, 5, 5, 5)
    assert preview.observables.E_tot.mean() == pytest.approx(float(first.observables.E_tot.mean()), rel=1e-3)
    assert first.reference is not None
    assert len(first.reference.E_tot) == 200
    assert first.observables.E_tot.mean() == pytest.approx(float(first.reference.E_tot.mean()), rel=3e-3)


def test_refinement_adds_showers_and_keeps_the_first(tiny: Explorer) -> None:
    views = list(tiny.refined(tiny.start()))
    assert [view.complete for view in views] == [False] * (len(views) - 1) + [True]
    assert len(views[-1].cells) == PREVIEW + 40
    assert np.array_equal(views[-1].cells[:PREVIEW], views[0].cells)


def test_the_event_gains_background_and_the_mask_takes(explorer: Explorer) -> None:
    view = explorer.preview(replace(explorer.start(), background=20.0))
    event = explorer.kind.event(view, 3)
    assert np.array_equal(event.deposited, view.cells[3])
    assert (event.recorded > event.deposited).all()
    assert event.deposited.sum() < event.kept.sum() < event.recorded.sum()
    without = explorer.kind.event(explorer.preview(replace(explorer.start(), background=0.0)), 3)
    assert np.array_equal(without.deposited, without.recorded)
    assert np.array_equal(without.deposited, without.kept)


def test_what_was_not_trained_on_is_refused_in_one_line(explorer: Explorer) -> None:
    with pytest.raises(RangeError, match=r"dx = 9 cm is outside 1 to 5 cm"):
        explorer.preview(replace(explorer.start(), dx=9.0))
    with pytest.raises(InputError, match="material 'Fe' is none of PbF2"):
        explorer.preview(replace(explorer.start(), material="Fe"))
    with pytest.raises(InputError, match=r"cost\.0?\.?.*weight"):
        explorer.preview(replace(explorer.start(), price=-1.0))
    expected = "expected a surrogate of cells, as pbf2-cells, or of stacks of plates, as sampling"
    with pytest.raises(InputError, match=f"the explorer got a str; {expected}"):
        Explorer("pbf2-cells")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"siw-cloud generates points in one detector, without designs; {expected}"):
        Explorer(Surrogate.load("siw-cloud"))


def test_the_arrow_is_the_slope_of_the_utility(tiny: Explorer) -> None:
    """Central differences of the mean of the same draws."""
    start, h = tiny.start(), 0.01
    slope = tiny.slope(start)
    assert len(slope.estimate.gradient) == 3
    wider, narrower = (tiny.slope(replace(start, dx=start.dx * np.exp(s * h))).estimate.value for s in (1, -1))
    expected = (wider - narrower) / (2 * h) / slope.estimate.value
    assert slope.arrow[0] == pytest.approx(expected, rel=0.02, abs=2e-3)
    deeper, flatter = (
        tiny.slope(replace(start, dz=tuple(d * float(np.exp(s * h)) for d in start.dz))).estimate.value for s in (1, -1)
    )
    assert slope.arrow[1] == pytest.approx((deeper - flatter) / (2 * h) / slope.estimate.value, rel=0.02, abs=2e-3)
    assert np.isfinite(slope.arrow_error).all()


def test_the_landscape_goes_through_its_points_and_keeps_its_showers(
    tiny: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, sampled = tiny.start(), 0
    sample = Surrogate.sample

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        nonlocal sampled
        sampled += 1
        return sample(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Surrogate, "sample", counted)
    first = surface_of(tiny, start)
    assert sampled == 4
    other = surface_of(tiny, replace(start, background=10.0, dx=2.0))
    assert sampled == 4
    assert not np.allclose(other.values, first.values)
    surface_of(tiny, replace(start, energy=20.0))
    assert sampled == 2 * 4
    fine = first.fine
    assert fine.values[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx(first.values[[0, 0, -1, -1], [0, -1, 0, -1]])
    numeric = np.gradient(fine.values, np.log(fine.dx), axis=0)[1:-1]
    assert np.abs(fine.slopes[1:-1, :, 0] - numeric).max() < 0.02 * np.abs(numeric).max()


def test_dropped_landscapes_go_on_where_they_were(tiny: Explorer) -> None:
    start = tiny.start()
    stages = tiny.landscape(start)
    shares = [next(stages) for _ in range(3)]
    assert shares == [k / 4 for k in range(3)]
    assert next(iter(tiny.landscape(start))) == 2 / 4


def test_geant4_is_shown_where_it_is_bundled(explorer: Explorer) -> None:
    start = explorer.start()
    assert len(explorer.reference.points) == 33
    assert explorer.reference.at(replace(start, dx=2.6))[0] is None
    near = explorer.reference.nearest(replace(start, dx=1.1, dz=(5.2,) * 5, energy=12.0))
    assert near is not None
    moved = near.move(start)
    assert (moved.dx, moved.dz, moved.energy) == (1.0, (5.0,) * 5, 10.0)
    assert explorer.reference.at(moved)[0] is near


def test_geant4_of_other_windows_is_not(tiny: Explorer) -> None:
    assert tiny.reference.points == []
    assert tiny.reference.nearest(tiny.start()) is None


def test_an_ascent_gains(tiny: Explorer) -> None:
    path: list[tuple[CellSelection, float]] = []
    reason = tiny.ascend(tiny.start(), lambda selection, value: path.append((selection, value)))
    assert reason
    assert path[0][0] == tiny.start()
    assert max(value for _, value in path) == pytest.approx(path[-1][1], rel=0.05)
    assert path[-1][1] >= path[0][1]


@pytest.mark.parametrize("unequal", [False, True])
def test_the_toml_of_a_choice_is_an_optimisation(explorer: Explorer, unequal: bool) -> None:
    selection = replace(explorer.start(), density=7.5, background=0.0 if unequal else 3.0)
    if unequal:
        selection = replace(selection, dz=(5.0, 6.0, 7.0, 8.0, 9.0))
    raw = tomllib.loads(to_toml(explorer.limits.tables(selection)))
    setup = CellSetup.of(explorer.surrogate, parse_optimisation(raw, "view.toml", Path()))
    assert setup.start.tolist() == [2.5, *(selection.dz if unequal else (6.0,))]
    assert setup.objective == explorer.limits.objective(selection)
    assert setup.space.material.alike(explorer.limits.material(selection), 1e-4)


def test_limits_are_the_surrogates(explorer: Explorer) -> None:
    limits = CellLimits.of(explorer.surrogate)
    assert (limits.dx, limits.dz, limits.energy) == ((1, 5), (4, 15), (1, 100))
    assert limits.densities
    assert limits.unequal


def test_a_distilled_surrogate_takes_its_own_steps_everywhere() -> None:
    explorer = Explorer(Surrogate.load("crystals-fast"))
    start = explorer.start()
    preview, first = explorer.preview(start), next(explorer.refined(start))
    assert preview.steps is None
    assert np.array_equal(preview.cells, first.cells)
    assert np.isfinite(surface_of(explorer, start).values).all()
