"""Evaluation off the axis: entry, direction, kinds of beam, and the beams that are refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers.entries import s_curve, slanted, tilted

from calograd.errors import InputError
from calograd.evaluation import evaluate
from calograd.evaluation.matching import BeamKind, match
from calograd.evaluation.reconstruction import compare_reconstructions


def mixed(seed: int, n: int = 1000, **options: object):
    rng = np.random.default_rng(seed)
    return tilted(n, seed=seed, theta=rng.uniform(0, 40, n), particle=rng.choice([22, 11], n), **options)


def compared(ours, theirs):
    return compare_reconstructions(ours, theirs, np.random.default_rng(0))


@pytest.fixture(scope="module")
def normal():
    return tilted(3000, seed=1)


def test_the_s_curve_is_that_of_the_showers(normal) -> None:
    found, left_out = compared(tilted(3000, seed=2), normal)
    assert left_out is None
    position = found.residuals["cog"]["position"]
    fine = np.linspace(-0.5, 0.5, 1001)
    known = s_curve(fine, 1.3, 7, np.hypot(0.4, 0.1)) - fine * 1.3
    expected = np.array([known[i : i + 101].mean() for i in range(0, 1000, 100)])
    assert np.abs(expected).max() > 0.03  # there is a curve to be found
    for each in (position.generated, position.reference):
        assert np.abs(each.bias - expected).max() < 4 * each.bias_error.max()
    assert np.sqrt((position.pulls**2).mean()) == pytest.approx(1, abs=0.45)
    assert abs(position.ratio[0] - 1) < 3 * position.ratio[1]
    assert np.abs(position.difference).max() < 3 * position.floor


def test_a_shifted_and_a_wider_entry_are_seen(normal) -> None:
    wide = tilted(3000, seed=2, jitter=0.13)
    ratio, error = compared(wide, normal)[0].residuals["cog"]["position"].ratio
    assert ratio - 1 > 5 * error
    moved = tilted(3000, seed=2)
    cells = np.roll(moved.cells, 1, axis=1) * 0.02 + moved.cells * 0.98
    position = compared(dataclasses.replace(moved, cells=cells), normal)[0].residuals["cog"]["position"]
    # x moves by 2 % of the pitch, y does not: 1 % of the mean of both.
    assert np.nanmean(position.difference) == pytest.approx(0.01 * 1.3, rel=0.35)
    result = evaluate(dataclasses.replace(wide, cells=wide.cells), normal, classifiers=False)
    assert ("position resolution", "centre of gravity") in {(c.kind, c.subject) for c in result.checks if c.significant}


def test_the_angle_is_that_of_the_showers() -> None:
    bend = 0.05
    theirs, ours = slanted(800, seed=1, theta=25.0), slanted(800, seed=2, theta=25.0, bend=bend)
    theta = compared(ours, theirs)[0].residuals["cog"]["theta"]
    expected = np.degrees(np.arctan(np.tan(np.radians(25)) + bend)) - 25
    assert theta.reference.mean == pytest.approx(0, abs=1.0)
    assert theta.generated.mean - theta.reference.mean == pytest.approx(expected, abs=0.4)


def test_kinds_of_beam_are_compared_apart_and_look_like_a_floor() -> None:
    result = evaluate(mixed(1), mixed(2), classifiers=False)
    beams = [p.point.beam for p in result.points]
    assert beams == [BeamKind(name, (low, low + 10.0)) for name in ("e-", "gamma") for low in (0.0, 10.0, 20.0, 30.0)]
    assert sum(len(p.generated) for p in result.points) == 1000
    assert sum(c.significant for c in result.checks) <= 0.03 * len(result.checks)
    pulls = np.concatenate([r.pulls.ravel() for p in result.points for m in p.reconstruction.residuals.values()
                            for r in m.values()])  # fmt: skip
    assert np.sqrt((pulls**2).mean()) == pytest.approx(1.05, abs=0.2)
    first = json.loads(json.dumps(result.to_dict(), allow_nan=False))["points"][0]
    assert first["beam"] == {"particle": "e-", "theta": [0.0, 10.0]}
    assert set(first["reconstruction"]) == {"log_weight", "cog", "log"}
    assert any(table.title.startswith("Reconstructed entry") for table in result.tables())


def test_angles_of_a_few_values_are_kinds_of_beam() -> None:
    n = 200
    theta = np.repeat([0.0, 25.0], n // 2)
    rows, _ = match(tilted(n, seed=1, theta=theta), tilted(n, seed=2, theta=theta))
    assert [m.point.beam.theta for m in rows] == [(0.0,), (25.0,)]
    single, _ = match(tilted(n, seed=1, theta=25.0), tilted(n, seed=2, theta=25.0))
    assert [m.point.beam for m in single] == [BeamKind()]


def test_on_the_axis_nothing_is_said_of_entries() -> None:
    ours, theirs = (tilted(60, seed=seed, position=(0.0, 0.0)) for seed in (1, 2))
    result = evaluate(ours, theirs, classifiers=False)
    assert result.points[0].reconstruction is None
    assert not result.warnings
    assert "reconstruction" not in result.to_dict()["points"][0]
    silent = evaluate(*(dataclasses.replace(each, incidence=None) for each in (ours, theirs)), classifiers=False)
    assert silent.to_dict()["points"] == result.to_dict()["points"]


def test_few_showers_are_named() -> None:
    result = evaluate(tilted(25, seed=1), tilted(25, seed=2), classifiers=False)
    assert any("fewer than 20 entries in each of 5 bins of the cell" in w for w in result.warnings)
    some = evaluate(tilted(100, seed=1), tilted(100, seed=2), classifiers=False)
    assert len(some.points[0].reconstruction.residuals["cog"]["position"].edges) == 6  # five bins hold enough


def test_other_beams_are_refused_and_equal_distributions_are_not() -> None:
    ours, theirs = tilted(300, seed=1), tilted(200, seed=2)
    evaluate(ours, theirs, classifiers=False)
    for other, message in (
        (tilted(300, seed=1, particle="e-"), "e- entering .* not gamma entering .* expected one beam"),
        (tilted(300, seed=1, theta=10.0), "at theta = 10 degrees, not gamma entering"),
        (tilted(300, seed=1, position=(0.0, 0.0)), "on the axis, not gamma entering"),
        (dataclasses.replace(ours, incidence=None), "the generated file names no particles: photons on the axis"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(other, theirs, classifiers=False)
    with pytest.raises(InputError, match="w0 = -1 of the logarithmic weights: expected a positive number"):
        evaluate(ours, theirs, classifiers=False, log_weight=-1.0)


def test_classifiers_see_the_beam_and_find_no_difference_of_twins() -> None:
    result = evaluate(mixed(1, 400), mixed(2, 400), max_rows=400)
    tests = [t for t in result.tests if t.classifier == "network" and t.threshold]
    assert all(0.38 < t.auc.value < 0.62 for t in tests)
