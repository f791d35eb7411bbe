import base64
import dataclasses
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.synthetic import showers

from calograd.cli import cli
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.evaluation import evaluate, mean_biases
from calograd.evaluation.limits import LimitCheck, summarise
from calograd.evaluation.matching import DesignPoint, Sizes, group, match
from calograd.events.dense import Cells, write_cells


@pytest.fixture(scope="module")
def reference():
    return showers(120, seed=1)


@pytest.fixture(scope="module")
def twin(reference):
    return evaluate(showers(120, seed=2, origin="twin"), reference, classifiers=False)


def replaced(cells: Cells, /, **changes) -> Cells:
    return dataclasses.replace(cells, **changes)


def test_a_perfect_generator_is_at_the_floor_and_misses_no_more_than_expected(twin):
    over = [q.w1_over_floor for p in twin.points for q in p.quantities.values()]
    assert np.mean(over) == pytest.approx(1, abs=0.25)
    for summary in twin.summaries:
        assert summary.passed >= summary.expected - 3 * np.sqrt(summary.checked)
    assert sum(c.significant for c in twin.checks) <= 0.03 * len(twin.checks)
    assert "a perfect generator would miss" in twin.verdict


def test_a_distorted_energy_fails_where_it_should(reference):
    bad = evaluate(showers(120, seed=2, scale=1.02), reference, classifiers=False)
    for point in bad.points:
        bias = point.quantities["E_tot"]
        assert bias.bias == pytest.approx(0.02, abs=4 * bias.bias_error)
    failed = {(c.kind, c.subject) for c in bad.checks if c.significant}
    assert ("bias", "E_tot") in failed
    assert not bad.passed
    assert ("bias", "R_E") not in failed


def test_a_distorted_radius_fails_where_it_should(reference):
    bad = evaluate(showers(120, seed=2, width=1.1), reference, classifiers=False)
    failed = {(c.kind, c.subject) for c in bad.checks if c.significant}
    assert {("bias", "R_E"), ("bias", "sigma_y"), ("W1 / floor", "R_E")} <= failed
    assert ("bias", "E_tot") not in failed


def test_light_biases_equal_the_full_ones(reference, twin):
    light = mean_biases(twin.generated, reference)
    for point in twin.points:
        value, error = light[point.point]["R_E"]
        assert (value, error) == (point.quantities["R_E"].bias, point.quantities["R_E"].bias_error)


def test_classifier_tests_tell_a_distortion_from_a_twin(reference):
    small = {"energies": (10.0,), "designs": ((2.0, 4.0),)}
    ours = showers(300, seed=3, **small)
    for scale, low, high in ((1.0, 0.40, 0.60), (1.05, 0.70, 1.0)):
        result = evaluate(showers(300, seed=4, scale=scale, **small), ours, max_rows=300)
        of = {(s.features, s.classifier): s for s in result.tests if s.threshold}
        assert low < of["observables", "trees"].auc.value < high
        assert low < of["observables", "network"].auc.value < high
        assert 0.38 < of["observables", "trees"].floor.value < 0.62
        assert of["observables", "trees"].floor.n_generated == 150
    assert any(c.kind == "AUC observables" and not c.passed for c in result.checks)


def test_the_result_is_strict_json_and_reproducible(reference, twin):
    text = json.dumps(twin.to_dict(), allow_nan=False)
    again = evaluate(twin.generated, reference, classifiers=False)
    assert json.dumps(again.to_dict(), allow_nan=False) == text
    result = json.loads(text)
    assert result["schema"] == "calograd/evaluation/1"
    assert len(result["points"]) == 4
    assert result["points"][0]["quantities"]["x_mean"]["rrmse"] is None


def test_points_are_matched_within_float32_and_the_others_are_named(reference):
    ours = showers(30, seed=5, energies=(1.0, 50.0, 70.0))
    ours = replaced(ours, dx=ours.dx * np.float32(1 + 3e-6))
    theirs = showers(30, seed=6, energies=(1.0, 50.0, 90.0))
    matched, warnings = match(ours, theirs)
    assert [m.point for m in matched] == [
        DesignPoint(Sizes(dx, (dz,) * 5), e) for dx, dz in ((2, 4), (3, 8)) for e in (1, 50)
    ]
    assert any("70 GeV" in w and "generated" in w for w in warnings)
    assert any("90 GeV" in w and "reference" in w for w in warnings)
    assert sum(map(len, group(ours).values())) == len(ours)


def test_what_cannot_be_compared_is_refused_in_one_line(reference):
    ours = showers(30, seed=5)
    with pytest.raises(InputError, match=r"PbWO4 .*expected one material"):
        evaluate(showers(30, seed=5, material="PbWO4"), reference)
    with pytest.raises(InputError, match="5 x 5 x 4 cells"):
        evaluate(replaced(ours, cells=ours.cells[..., :4], dz=ours.dz[:, :4]), reference)
    with pytest.raises(InputError, match="no point to compare"):
        evaluate(replaced(ours, energy=ours.energy * 3), reference)
    with pytest.raises(InputError, match="fixed points"):
        evaluate(replaced(showers(1000, seed=1), energy=np.linspace(1, 99, 4000, dtype=np.float32)), reference)
    broken = ours.cells.copy()
    broken[7] = np.nan
    with pytest.raises(InputError, match=r"NaN.* row 7"):
        evaluate(replaced(ours, cells=broken), reference)


def test_another_unit_is_refused_and_an_odd_response_is_warned_of(reference):
    ours = showers(30, seed=5)
    with pytest.raises(InputError, match=r"reference cells hold .* times the incident energy .*MeV"):
        evaluate(ours, replaced(reference, cells=1000 * reference.cells), classifiers=False)
    with pytest.raises(InputError, match=r"generated cells hold .* times the incident energy .*MeV"):
        evaluate(replaced(ours, cells=1000 * ours.cells), reference, classifiers=False)
    odd = evaluate(replaced(ours, cells=2 * ours.cells), reference, classifiers=False)
    assert any(w.startswith("generated cells hold") and "perhaps" in w for w in odd.warnings)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), 0.0, -1e-3])
def test_a_threshold_is_a_positive_number(reference, threshold):
    with pytest.raises(InputError, match=r"threshold = .*: expected a positive number"):
        evaluate(reference, reference, threshold=threshold, classifiers=False)


def test_two_kinds_or_none_are_refused(reference):
    with pytest.raises(InputError, match="ndarray cannot be evaluated; expected a path, or a record of cells, maps"):
        evaluate(reference.cells, reference)


def test_a_value_that_is_not_defined_never_hides_the_worst(reference):
    """W1 has no unit where Geant4 never varies: such a check is counted apart, the largest finite one is named."""
    empty = reference.cells.copy()
    empty[..., 4] = 0
    filled = showers(120, seed=2).cells
    result = evaluate(replaced(reference, cells=filled), replaced(reference, cells=empty), classifiers=False)
    (layers,) = [s for s in result.summaries if (s.kind, s.subject) == ("W1 / floor", "layer energies")]
    assert layers.undefined == 2
    assert np.isfinite(layers.worst.value)
    assert "not defined" in layers.worst_in_words
    assert all("nan" not in str(cell) for table in result.tables() for row in table.rows for cell in row)


def test_classifiers_of_too_few_showers_are_not_shown_as_measured():
    small = {"energies": (10.0,), "designs": ((2.0, 4.0),)}
    result = evaluate(showers(60, seed=3, **small), showers(60, seed=4, **small))
    trees = [t for t in result.tests if t.classifier == "trees"]
    assert all(not t.auc.measured and not t.floor.measured for t in trees)
    assert {str(t.auc) for t in trees} == {"not measurable"}
    assert not any(c.kind.startswith("AUC") and c.subject == "trees" for c in result.checks)
    assert any("trees on observables" in w and "cannot be measured with so few showers" in w for w in result.warnings)
    assert result.to_dict()["classifiers"][0]["floor"]["value"] is None


def test_limits_that_geant4_would_miss_are_told_from_misses():
    def check(passed: bool, significant: bool, chance: float) -> LimitCheck:
        return LimitCheck("bias", "E_tot", "here", 0.01, 0.005, "0.2 %", 2.0, passed, significant, chance)

    def state(*checks: LimitCheck) -> str:
        (summary,) = summarise(checks)
        return summary.state

    assert state(check(True, False, 0.9)) == "kept"
    assert state(*[check(False, False, 0.2)] * 5) == "statistics"
    assert state(*[check(False, False, 0.99)] * 5) == "unclear"
    assert state(check(False, True, 0.99), check(True, False, 0.99)) == "missed"


def test_showers_without_energy_are_counted_and_left_out(reference):
    cells = showers(60, seed=5)
    empty = cells.cells.copy()
    empty[:15] = 0
    result = evaluate(replaced(cells, cells=empty), reference, classifiers=False)
    assert result.points[0].excluded_generated == 15
    assert any("15 of 240 generated showers hold no energy" in w for w in result.warnings)
    empty[:45] = 0
    result = evaluate(replaced(cells, cells=empty), reference, classifiers=False)
    assert len(result.points) == 3


@pytest.mark.parametrize(("energy", "missed"), [(0.0, False), (1e-4, False), (0.01, True)])
def test_a_layer_that_geant4_leaves_empty_is_named_not_judged(reference, energy, missed):
    """Its deviation is no measure; only energy that E_tot would not forgive is a miss."""
    empty, filled = reference.cells.copy(), showers(120, seed=2).cells.copy()
    empty[..., 4], filled[..., 4] = 0, 0
    filled[::2, 2, 2, 4] = 2 * energy * reference.energy[::2]
    result = evaluate(replaced(reference, cells=filled), replaced(reference, cells=empty), classifiers=False)
    of_layer = [check for check in result.checks if check.where.startswith("E_4")]
    assert all(not check.passed and check.significant for check in of_layer)
    assert len(of_layer) == (2 * len(result.points) if missed else 0)
    named = [warning for warning in result.warnings if warning.startswith("E_4")]
    assert len(named) == (len(result.points) if energy and not missed else 0)
    assert all("0 GeV in every shower of Geant4's" in each and each.endswith("; not judged") for each in named)


def test_the_command_writes_json_and_a_report_and_never_overwrites(tmp_path, reference):
    small = {"energies": (10.0,), "designs": ((2.0, 4.0),)}
    ours, theirs = tmp_path / "ours.h5", tmp_path / "theirs.h5"
    write_cells(ours, showers(60, seed=1, **small))
    write_cells(theirs, showers(60, seed=2, **small))
    out, report = tmp_path / "out.json", tmp_path / "report.html"
    command = ["evaluate", str(ours), str(theirs), "--json", str(out), "--report", str(report), "--no-classifier"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(out.read_text())["files"]["generated"] == str(ours)
    page = report.read_text()
    assert page.startswith("<!doctype html>")
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(pictures) == 7
    assert all(base64.b64decode(p).startswith(b"\x89PNG") for p in pictures)
    again = CliRunner().invoke(cli, command)
    assert isinstance(again.exception, OutputExistsError)
    missing = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "no.h5"), str(theirs)])
    assert isinstance(missing.exception, FormatError)
    assert "Example" in CliRunner().invoke(cli, ["evaluate", "--help"]).output
