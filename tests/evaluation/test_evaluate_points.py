from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calograd.errors import InputError
from calograd.evaluation import evaluate
from calograd.evaluation.points import OBSERVABLES, evaluate_points, labelled, moment_ratios, score_observable, w1
from calograd.events.layered_readout import read_out
from calograd.events.point_showers import PointShowers
from calograd.metrics.classifier import cross_fitted_auc, fit_trees
from calograd.metrics.points import (
    LAYER_EDGES,
    RADIAL_EDGES,
    SINGLE,
    observe_points,
    silicon_depths,
)
from calograd.system.progress import silent

Make = Callable[..., PointShowers]


def one(x: list[float], layer: list[int], e: list[float]) -> PointShowers:
    n = len(x)
    return PointShowers(np.array(x, np.float32), np.zeros(n, np.float32), np.array(layer), np.array(e, np.float32),
                  np.array([0, n]), np.array([10], np.float32), np.arange(1))  # fmt: skip


def test_observables_of_a_shower_by_hand() -> None:
    o = observe_points(one([0, 1.02, 0.01, 7.1, 3.0], [0, 7, 29, 10, 20], [1e-3, 2e-3, 3e-3, 4e-3, 0.9e-4]))
    row = dict(zip(SINGLE, o.table[0], strict=False))
    assert row["N_hits"] == 4  # the last is below the threshold
    assert row["E_vis/E_inc"] == pytest.approx(1e-3)
    assert row["m1_X"] == pytest.approx((2 * 2 * 0.50883 + 4 * 14 * 0.50883) / 10)
    assert row["m1_Y"] == pytest.approx(0)
    depth = silicon_depths()
    assert row["m1_Z"] == pytest.approx((depth[0] + 2 * depth[7] + 3 * depth[29] + 4 * depth[10]) / 10)
    along, around = o.table[0, 5:15], o.table[0, 15:25]
    np.testing.assert_allclose(along, [3e-3, 4e-3, 0, 0, 0, 0, 0, 0, 0, 3e-3], rtol=1e-6)
    np.testing.assert_allclose(around, [4e-3, 0, 2e-3, 0, 0, 0, 0, 0, 0, 4e-3], rtol=1e-6)


def test_groups_hold_all_energy(make_clouds: Make) -> None:
    clouds = make_clouds(20)
    o = observe_points(clouds)
    total = np.bincount(read_out(clouds).owner, read_out(clouds).e, 20)
    np.testing.assert_allclose(o.table[:, 5:15].sum(1), total)
    np.testing.assert_allclose(o.table[:, 15:25].sum(1), total)
    np.testing.assert_allclose(o.layers.mean.sum(), total.mean())
    np.testing.assert_allclose(o.spectrum.mean.sum(), o.table[:, 0].mean())
    assert len(LAYER_EDGES) == len(RADIAL_EDGES) == 11
    np.testing.assert_array_equal(np.diff(o.first), o.table[:, 0])


def test_profiles_have_the_error_of_a_mean_of_showers(make_clouds: Make) -> None:
    parts = [observe_points(make_clouds(50, seed=seed)) for seed in range(40)]
    means, errors = (np.array([getattr(o.layers, what) for o in parts]) for what in ("mean", "error"))
    ratio = means.std(0, ddof=1) / np.sqrt((errors**2).mean(0))
    assert 0.8 < ratio.mean() < 1.2


def test_a_shower_without_points_has_zeros() -> None:
    none = np.zeros(0, np.float32)
    empty = PointShowers(none, none, none.astype(int), none, np.zeros(2, int), np.array([10.0]), np.arange(1))
    assert (observe_points(empty).table == 0).all()


def test_other_numbers_of_layers_are_refused(make_clouds: Make) -> None:
    with pytest.raises(InputError, match="6 layers"):
        observe_points(make_clouds(3, layers=6))
    with pytest.raises(InputError, match="the showers are in stacks of plates"):
        observe_points(replace(make_clouds(3), n_layers=np.full(3, 30)))


def test_w1_of_a_shift_is_the_shift() -> None:
    values = np.random.default_rng(0).normal(size=(500, 2))
    assert w1(values + 0.3, values) == pytest.approx(0.3)
    assert w1(values[::-1], values) == 0


def test_a_shifted_observable_scores_its_shift_in_hundredths(make_clouds: Make) -> None:
    theirs = observe_points(make_clouds(200))
    scale = theirs.table[:, 1].std()
    shifted = theirs.table.copy()
    shifted[:, 1] += 0.25 * scale
    found = score_observable("E_vis/E_inc", replace(theirs, table=shifted), theirs, np.random.default_rng(0))
    assert found.value == pytest.approx(25, rel=1e-6)
    assert found.whole == pytest.approx(25, rel=1e-6)
    assert found.error == pytest.approx(0, abs=1e-6)
    same = score_observable("E_vis/E_inc", theirs, theirs, np.random.default_rng(0))
    assert same.whole == 0


def test_the_floor_is_what_an_independent_sample_of_the_same_law_scores(make_clouds: Make) -> None:
    rng = np.random.default_rng(1)
    base = observe_points(make_clouds(100))
    sample = [replace(base, table=np.tile(rng.normal(size=(2000, 1)), (1, 25)), energy=np.ones(2000),
                      first=np.arange(2001), hits=rng.normal(size=2000)) for _ in range(8)]  # fmt: skip
    scores = [score_observable("m1_X", a, b, rng) for a, b in zip(sample[1:], sample[:-1], strict=True)]
    whole = np.mean([s.whole for s in scores])
    assert whole == pytest.approx(np.mean([s.whole_floor for s in scores]), rel=0.3)
    assert np.mean([s.value for s in scores]) == pytest.approx(np.mean([s.floor for s in scores]), rel=0.2)


def test_equal_laws_pass_and_others_are_found(make_clouds: Make) -> None:
    reference, other = make_clouds(200, seed=1), make_clouds(200, seed=2)
    result = evaluate(other, reference, classifiers=False)
    assert tuple(s.name for s in result.scores) == OBSERVABLES
    right = {s.name: s.over_floor for s in result.scores}
    assert max(right.values()) < 5
    wide = replace(other, x=3 * other.x, y=3 * other.y)
    wrong = {s.name: s.over_floor for s in evaluate(wide, reference, classifiers=False).scores}
    assert wrong["E_radial"] > max(3, 2 * right["E_radial"])
    assert wrong["E_vis/E_inc"] < 5
    json.dumps(result.to_dict(), allow_nan=False)


def test_means_and_spreads_at_an_energy(make_clouds: Make) -> None:
    clouds = make_clouds(400, low=48, high=52)
    ours = observe_points(clouds)
    bright = replace(ours, table=ours.table * np.r_[1, 1.1, np.ones(23)])
    for found in moment_ratios(50, bright, ours):
        assert found.mean_ratio == pytest.approx(1.1 if found.name == "E_vis/E_inc" else 1)
        assert found.spread_ratio == pytest.approx(found.mean_ratio)
        assert 0 < found.spread_error < 0.2
    assert moment_ratios(10, ours, ours) == []


def test_the_resolution_of_the_visible_energy_is_in_table_and_json(make_clouds: Make) -> None:
    result = evaluate(make_clouds(600, seed=1), make_clouds(500, seed=2), classifiers=False)
    ours, theirs = result.resolution
    np.testing.assert_array_equal(ours.energies, theirs.energies)
    assert len(ours.energies) > 2
    assert ours.showers.sum() <= 600
    visible = result.observed[1].table[:, SINGLE.index("E_vis/E_inc")].mean()
    assert np.average(theirs.response, weights=theirs.showers) == pytest.approx(visible, rel=0.02)
    table = next(each for each in result.tables() if each.title.startswith("Energy resolution"))
    assert len(table.rows) == 2 * len(ours.energies)
    assert result.to_dict()["resolution"][1]["values"] == theirs.values.tolist()
    at_one = [make_clouds(60, seed=seed, low=10, high=10 + 1e-4) for seed in (1, 2)]
    assert [len(curve.energies) for curve in evaluate(*at_one, classifiers=False).resolution] == [1, 1]


def test_few_showers_are_refused(make_clouds: Make) -> None:
    with pytest.raises(InputError, match="expected 40 or more"):
        evaluate(make_clouds(30), make_clouds(60))


def test_classifiers_tell_a_wrong_width(make_clouds: Make) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    reference, other = (observe_points(make_clouds(150, seed=seed)) for seed in (1, 2))
    clouds = make_clouds(150, seed=2)
    wide = observe_points(replace(clouds, x=2 * clouds.x, y=2 * clouds.y))
    rng = np.random.default_rng(0)
    assert cross_fitted_auc(labelled(wide, reference), fit_trees, rng).value > 0.8
    assert cross_fitted_auc(labelled(other, reference), fit_trees, rng).value < 0.7


def test_every_classifier_runs_beside_geant4_against_itself(make_clouds: Make) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    reference = make_clouds(60, seed=2)
    clouds = make_clouds(60, seed=1)
    result = evaluate(replace(clouds, x=3 * clouds.x, y=3 * clouds.y), reference)
    tests = {t.classifier: t for t in result.tests}
    assert tests.keys() == {"trees", "network", "convolutions"}
    assert tests["network"].auc.low > 0.5
    assert tests["convolutions"].floor.n_reference == 30
    assert not tests["trees"].auc.measured  # too few showers for a leaf
    assert any("trees on high-level: cannot be measured" in warning for warning in result.warnings)
    assert result.to_dict()["classifiers"][0]["auc"]["value"] is None
    assert "not measurable" in [str(cell) for cell in result.tables()[-1].rows[0]]


def test_more_generated_showers_sharpen_means_alone(make_clouds: Make) -> None:
    theirs = make_clouds(120, seed=2)
    repeated = np.repeat(np.arange(120), 3)
    result = evaluate(theirs.rows(repeated), theirs, classifiers=False)
    assert len(result.observed[0]) == len(result.observed[1]) == 120
    profiles = result.to_dict()["profiles"]["generated"]
    assert len(profiles["layers"]) == len(profiles["layers_error"]) == 30
    assert np.allclose(np.sort(result.observed[0].energy), np.sort(result.observed[1].energy))
    assert all(score.whole == pytest.approx(0, abs=1e-9) for score in result.scores if score.name != "E_cell")
    for ratio in result.ratios:
        assert ratio.showers[0] == 3 * ratio.showers[1]
        assert ratio.mean_ratio == pytest.approx(1)


def test_showers_without_a_hit_are_refused(make_clouds: Make) -> None:
    clouds = make_clouds(50)
    faint = replace(clouds, e=1e-9 * clouds.e)
    with pytest.raises(InputError, match="no generated shower has a cell above"):
        evaluate_points(
            faint, clouds, seed=0, classifiers=False, progress=silent, warnings=[], files={}
        )  # fmt: skip
    with pytest.raises(InputError, match=r"generated points hold .* times the incident energy"):
        evaluate(faint, clouds, classifiers=False)


def test_the_report_is_one_page(make_clouds: Make, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from calograd.reports.evaluation import write_report

    ours, theirs = make_clouds(60, seed=1), make_clouds(60, seed=2)
    result = evaluate(ours, theirs, classifiers=False)
    write_report(tmp_path / "r.html", replace(result, files={"generated": "<a>", "reference": "b"}))
    page = (tmp_path / "r.html").read_text()
    assert "&lt;a&gt;" in page
    assert page.count("data:image/png") >= 4
    assert "://" not in page  # base64 of a picture may hold "http", but no colon
