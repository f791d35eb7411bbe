"""Comparisons of showers in stacks of plates: samples of one law, samples that differ in a known way, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.plate_showers import in_many_stacks, in_one_stack, with_deposits

from calograd.detector.material import MATERIALS
from calograd.detector.sampling_stack import Stacks
from calograd.errors import InputError
from calograd.evaluation import PlatesEvaluation, evaluate, plates
from calograd.evaluation.moments import MomentRatios, compare_moments
from calograd.events.plates import PlateShowers
from calograd.events.ragged import Deposits
from calograd.metrics.classifier import fit_network
from calograd.metrics.distances import null_wasserstein, swapped_wasserstein, wasserstein
from calograd.metrics.plates import RING_EDGES, SINGLE, depth_edges, layer_profiles, observe_plates, radial_profile
from calograd.reports.evaluation import write_report


def compare(ours: PlateShowers, theirs: PlateShowers, **options: Any) -> PlatesEvaluation:
    result = evaluate(ours, theirs, **({"classifiers": False} | options))
    assert isinstance(result, PlatesEvaluation)
    return result


def moments(result: PlatesEvaluation, name: str, where: int = 0) -> MomentRatios:
    return next(each for each in result.points[where].moments if each.name == name)


def test_observables_of_a_shower_by_hand() -> None:
    pb, si, air = (MATERIALS[name] for name in ("Pb", "Si", "air"))
    thickness = np.float32([[[0.5, 1.0, 0.1], [1.0, 0.0, 0.2], [0, 0, 0]]])
    stacks = Stacks((pb,), (si,), air, np.zeros(1, np.int32), np.zeros(1, np.int32), thickness)
    showers = in_one_stack(1, 0)
    one = PlateShowers.of(stacks, np.array([[2.0, 3, 0]]), np.array([[0.1, 0.3, 0]]), np.array([8.0]),
                          showers.incident, seed=0, origin="toy", config={})  # fmt: skip
    x0 = [float(material.radiation_length) for material in (pb, air, si)]
    first = 0.5 / x0[0] + 1.0 / x0[1] + 0.05 / x0[2]
    second = 1.5 / x0[0] + 1.0 / x0[1] + 0.2 / x0[2]
    mean = (first + 3 * second) / 4
    spread = np.sqrt(((first - mean) ** 2 + 3 * (second - mean) ** 2) / 4)
    seen = observe_plates(one)
    np.testing.assert_allclose(seen.table[0], [0.4 / 8, 5.4 / 8, mean, spread], rtol=1e-6)
    assert (seen.layers.tolist(), seen.visible.shape) == ([2], (1, 2))
    edges = depth_edges(seen)
    assert edges[-1] == np.ceil(second)
    visible, absorbed = layer_profiles(seen, of_depth=True)
    np.testing.assert_allclose(visible.mean[[int(first), int(second)]], [0.1 / 8, 0.3 / 8], rtol=1e-6)
    np.testing.assert_allclose((visible.mean.sum(), absorbed.mean.sum()), (0.4 / 8, 5 / 8), rtol=1e-6)
    visible, absorbed = layer_profiles(seen, of_depth=False)
    np.testing.assert_allclose(absorbed.mean, [2 / 8, 3 / 8])
    dark = observe_plates(replace(one, active_energy=0 * one.active_energy))
    assert np.isnan(dark.column("depth_mean")).all()


def test_observables_of_deposits_by_hand() -> None:
    showers = in_one_stack(2, 0, theta=30.0, position=(1.0, -2.0))
    z = showers.middles().reshape(2, -1)
    centre = np.array([1.0, -2.0]) + z[0, :3, None] * np.array([np.tan(np.pi / 6), 0.0])  # of the first three layers
    place = np.array([[0.35, -0.1, 0.25], [0.0, 0.4, 0.05]])
    x, y = centre.T + place
    e = np.array([2e-4, 1e-4, 0.5e-4])
    deposits = Deposits(*(np.float32(values) for values in (x, y, z[0, :3], e)), np.array([0, 3, 3]))
    seen = observe_plates(replace(showers, deposits=deposits), deposits=True)
    assert seen.names == (*SINGLE, "R_E", "N_hits")
    share = e / e.sum()
    square = ((place - (share * place).sum(1, keepdims=True)) ** 2).sum(0)
    assert seen.column("R_E")[0] == pytest.approx(np.sqrt((share * square).sum()), rel=1e-4)
    assert np.isnan(seen.column("R_E")[1])
    assert seen.column("N_hits").tolist() == [1, 0]  # 0.2 MeV is one, of 0.1 and 0.05 neither is
    assert seen.rings is not None
    rings = np.histogram(np.hypot(*place), RING_EDGES, weights=e)[0]
    np.testing.assert_allclose(seen.rings, [rings, 0 * rings], rtol=1e-5)
    np.testing.assert_allclose(radial_profile(seen.rows(slice(0, 1))).mean, rings / 10, rtol=1e-5)


@pytest.mark.parametrize("tilted", [0.0, 35.0])
def test_deposits_are_compared_where_both_files_have_them(tilted: float) -> None:
    ours, theirs = (in_one_stack(400, seed, theta=tilted) for seed in (3, 4))
    same = compare(with_deposits(ours, 5), with_deposits(theirs, 6))
    wider = compare(with_deposits(ours, 5, wide=1.1), with_deposits(theirs, 6))
    more = compare(with_deposits(ours, 5, per_layer=3.6), with_deposits(theirs, 6))
    for name in ("R_E", "N_hits"):
        assert abs(moments(same, name).mean_ratio - 1) < 4 * moments(same, name).mean_error
    assert moments(wider, "R_E").mean_ratio == pytest.approx(1.1, rel=0.02)
    assert moments(more, "N_hits").mean_ratio == pytest.approx(4.6 / 4, rel=0.05)
    missed = {(check.kind, check.subject) for check in wider.checks if not check.passed}
    assert ("bias", "R_E") in missed
    radial = same.to_dict()["profiles"]["reference"]["radial"]["mean"]
    assert sum(radial) == pytest.approx(theirs.visible.mean() / 10, rel=1e-3)
    alone = compare(with_deposits(ours, 5), theirs)
    assert [each.name for each in alone.points[0].moments] == list(SINGLE)
    assert "radial" not in alone.to_dict()["profiles"]["reference"]


def test_deposits_are_compared_row_by_row_and_shown(tmp_path: Path) -> None:
    theirs = with_deposits(in_many_stacks(120, 2), 6)
    ours = with_deposits(in_many_stacks(120, 1, repeat=2), 5, wide=0.9)
    result = compare(ours, theirs)
    assert result.paired
    assert moments(result, "R_E").mean_ratio == pytest.approx(0.9, rel=0.02)
    assert moments(result, "R_E").spread_ratio > 0
    write_report(tmp_path / "report.html", result)
    assert "radial profile of the visible energy" in (tmp_path / "report.html").read_text()


def test_samples_of_one_law_in_one_stack_agree() -> None:
    result = compare(in_one_stack(1200, 3, (5.0, 20.0)), in_one_stack(1000, 4, (5.0, 20.0)))
    assert not result.paired
    assert [point.where for point in result.points] == ["5 GeV", "20 GeV"]
    for point in result.points:
        for each in point.moments:
            assert abs(each.mean_ratio - 1) < 4 * each.mean_error
            assert abs(each.spread_ratio - 1) < 4 * each.spread_error
        ratio, error = point.resolution
        assert abs(ratio - 1) < 4 * error < 0.2
        for layers in point.layers:
            assert 0.5 < np.median(layers.over_floor) < 2
            assert layers.share == 1
    assert result.passed
    assert len(result.resolution[1].energies) == 2
    json.dumps(result.to_dict(), allow_nan=False)


def test_errors_are_the_scatter_of_samples() -> None:
    seen = [observe_plates(in_one_stack(200, seed)).table for seed in range(120)]
    for number, name in enumerate(SINGLE):
        found = [
            compare_moments(name, 10.0, a[:, number], b[:, number]) for a, b in zip(seen[::2], seen[1::2], strict=True)
        ]
        for what in ("mean", "spread"):
            values, errors = (
                np.array([getattr(each, f"{what}_{kind}") for each in found]) for kind in ("ratio", "error")
            )
            assert 0.75 < values.std(ddof=1) / np.sqrt((errors**2).mean()) < 1.3


@pytest.mark.parametrize("repeat", [1, 3])
def test_samples_of_one_law_in_stacks_of_their_own_agree(repeat: int) -> None:
    result = compare(in_many_stacks(400, 1, repeat), in_many_stacks(400, 2))
    assert (result.paired, result.repeat) == (True, repeat)
    assert result.points[0].where == "all energies"
    assert len(result.points) > 4
    for each in result.points[0].moments:
        assert abs(each.mean_ratio - 1) < 4 * each.mean_error
        if repeat > 1:
            assert abs(each.spread_ratio - 1) < 4 * each.spread_error
        else:
            assert np.isnan(each.spread_ratio)
    for layers in result.points[0].layers:
        assert 0.5 < np.median(layers.over_floor) < 2
        assert layers.share > 0.9
    assert sum(check.significant for check in result.checks) <= 0.1 * len(result.checks)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize("make", [in_one_stack, in_many_stacks])
def test_a_bias_of_the_visible_energy_is_found_and_measured(make: Any) -> None:
    result = compare(make(600, 1, visible=1.05), make(600, 2))
    found = moments(result, "E_vis/E_inc")
    assert found.mean_ratio == pytest.approx(1.05, abs=4 * found.mean_error)
    assert found.mean_error < 0.006
    missed = {(check.kind, check.subject) for check in result.checks if check.significant}
    assert ("bias", "E_vis/E_inc") in missed
    assert ("bias", "depth_mean") not in missed
    assert np.nanmedian(result.points[0].layers[0].over_floor) > 1.1


@pytest.mark.parametrize(("make", "repeat"), [(in_one_stack, {}), (in_many_stacks, {"repeat": 4})])
def test_a_resolution_that_is_too_large_is_measured(make: Any, repeat: dict[str, int]) -> None:
    result = compare(make(800, 1, spread=1.3, **repeat), make(800, 2))
    ratio, error = result.points[0].resolution
    assert ratio == pytest.approx(1.3, abs=4 * error)
    assert error < 0.08
    checks = [check for check in result.checks if check.kind == "energy resolution"]
    assert checks[0].significant
    assert moments(result, "E_vis/E_inc").mean_ratio == pytest.approx(1, abs=0.02)


def test_deeper_showers_are_found() -> None:
    result = compare(in_many_stacks(400, 1, deeper=0.5), in_many_stacks(400, 2))
    found = moments(result, "depth_mean")
    assert found.mean_ratio - 1 > 4 * found.mean_error
    assert {check.subject for check in result.checks if check.significant} >= {"depth_mean", "active plates"}


def test_the_floor_of_pairs_is_the_distance_of_a_perfect_generator() -> None:
    rng = np.random.default_rng(0)
    common = 10 * rng.standard_normal((300, 1))
    draws = [common + rng.standard_normal((300, 1)) for _ in range(30)]
    distances = [float(wasserstein(a, b)[0]) for a, b in zip(draws[1:], draws[:-1], strict=True)]
    floors = [float(swapped_wasserstein(a, b, rng).mean()) for a, b in zip(draws[1:6], draws[:5], strict=True)]
    assert np.mean(distances) == pytest.approx(np.mean(floors), rel=0.2)
    assert null_wasserstein(draws[0], 300, rng).mean() > 3 * np.mean(floors)


def test_classifiers_find_what_differs_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plates, "CLASSIFIERS", {"network": fit_network})
    tests = compare(in_one_stack(400, 1, visible=1.15), in_one_stack(400, 2), classifiers=True).tests
    assert [(test.features, test.classifier) for test in tests] == [("layers", "network")]
    network = tests[0]
    assert network.auc.value > 0.75
    assert 0.38 < network.floor.value < 0.62
    assert (network.auc.n_generated, network.auc.n_reference, network.floor.n_generated) == (400, 400, 200)
    result = compare(in_many_stacks(400, 1), in_many_stacks(400, 2), classifiers=True)
    pairs = result.tests[0]
    assert 0.38 < pairs.auc.value < 0.62
    assert (pairs.auc.n_generated, pairs.floor.n_generated) == (200, 200)
    assert any(check.kind == "AUC layers" for check in result.checks)


def test_empty_showers_are_left_out_and_said() -> None:
    ours = in_many_stacks(60, 1)
    dark = np.where(ours.owner == 7, 0, ours.active_energy).astype(np.float32)
    result = compare(replace(ours, active_energy=dark), in_many_stacks(60, 2))
    assert "1 of 60 generated showers hold no visible energy; left out" in result.warnings
    assert [len(seen) for seen in result.observed] == [59, 59]


THEIRS = in_one_stack(60, 2)
MANY = in_many_stacks(60, 2)


def scaled(showers: PlateShowers, **factor: float) -> PlateShowers:
    return replace(showers, **{name: (getattr(showers, name) * f).astype(np.float32) for name, f in factor.items()})


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (
            scaled(THEIRS, absorber_thickness=1.1),
            THEIRS,
            "absorber_thickness of layer 0 of shower 0 is 0.44 cm, not 0.4",
        ),
        (replace(THEIRS, actives=(MATERIALS["Si"],)), THEIRS, "active of shower 0 is Si, not lAr"),
        (in_one_stack(60, 1, particle="gamma"), THEIRS, "shower 0 is of gamma, not e-"),
        (in_one_stack(60, 1, theta=20.0), THEIRS, "theta of shower 0 is 20, not 0 degrees"),
        (in_one_stack(60, 1, (20.0,)), THEIRS, "have energies of 20 GeV, the reference 10 GeV"),
        (in_one_stack(60, 1, (10.0, 10.5)), in_one_stack(60, 1, (10.1, 10.4)), "no energy, or bin of energies, has 20"),
        (in_one_stack(15, 1), THEIRS, "15 showers with visible energy in one of the files; expected 20 or more"),
        (MANY.rows(slice(0, 50)), MANY, "50 generated showers for 60 of the reference; .* --like REFERENCE"),
        (MANY.rows(np.arange(60)[::-1]), MANY, "row by row, generated and reference differ: .*; .* --like REFERENCE"),
        (scaled(MANY, energy=1.01), MANY, "energy of shower 0 is .*; .* --like REFERENCE"),
        (in_many_stacks(60, 1, particle="gamma"), MANY, "shower 0 is of gamma, not e-; .* --like REFERENCE"),
        (in_one_stack(60, 1), MANY, "row by row, generated and reference differ: "),
        (scaled(THEIRS, active_energy=np.nan), THEIRS, "generated plates: active_energy of shower 0 holds NaN"),
        (scaled(THEIRS, active_energy=1e3, absorber_energy=1e3), THEIRS, "the deposits are in MeV or keV"),
        (THEIRS.rows(slice(0, 0)), THEIRS, "generated plates: there are no showers"),
        (replace(THEIRS, absorbers=()), THEIRS, "have no materials; read them from their file with open_plates"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(ours: PlateShowers, theirs: PlateShowers, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        compare(ours, theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [in_one_stack, in_many_stacks])
def test_files_tables_and_report(make: Any, tmp_path: Path) -> None:
    ours = make(80, 1, origin="toy")
    ours.write(tmp_path / "made.h5")
    result = compare(tmp_path / "made.h5", make(80, 2), classifiers=True)  # type: ignore[arg-type]
    assert result.to_dict()["schema"] == "calograd/plates-evaluation/1"
    assert result.files == {"generated": str(tmp_path / "made.h5")}
    titles = [table.title for table in result.tables()]
    assert titles[0].startswith("toy against geant4, ")
    assert all(len(row) == len(table.columns) for table in result.tables() for row in table.rows)
    write_report(tmp_path / "report.html", result)
    page = (tmp_path / "report.html").read_text()
    assert "Longitudinal profile" in page
    assert "layers of Pb" in page
    assert page.count("<figure>") >= 2
