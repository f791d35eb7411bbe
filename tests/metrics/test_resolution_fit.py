"""Widths with errors, and the fit in quadrature, against samples whose resolution is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from calograd.errors import InputError
from calograd.metrics.resolution import (
    DEFINITIONS,
    TERMS,
    check_terms,
    fit_gradient,
    fit_resolution,
    group_by_energy,
    resolution_curve,
    resolution_curves,
    rounded,
)

ENERGIES = np.geomspace(1, 100, 8)
TRUTH = np.array([0.05, 0.03, 0.01])


def resolution_of(energies: np.ndarray, terms: np.ndarray = TRUTH) -> np.ndarray:
    a, b, c = terms
    return np.sqrt(a**2 / energies + b**2 / energies**2 + c**2)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_the_terms_are_recovered_within_their_errors(definition: str) -> None:
    rng, pulls, covered, chi2 = np.random.default_rng(0), [], [], []
    for seed in range(60):
        samples = [e * (1 + r * rng.normal(size=2000)) for e, r in zip(ENERGIES, resolution_of(ENERGIES), strict=True)]
        curve = resolution_curve("made up", ENERGIES, samples, definition=definition, seed=seed)
        assert curve.fit is not None
        pulls.append((curve.fit.values - TRUTH) / curve.fit.errors)
        covered.append((curve.values - resolution_of(ENERGIES)) / curve.errors)
        chi2.append(curve.fit.chi2)
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.45
    assert np.abs(np.std(pulls, axis=0) - 1).max() < 0.3
    assert np.std(covered) == pytest.approx(1, abs=0.15)
    assert np.mean(chi2) == pytest.approx(5, abs=1.2)


def test_errors_know_of_tails_that_a_normal_error_misses() -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(400):
        x = 10 + rng.standard_t(6, 500)
        found.append(resolution_curve("x", [10.0], [x]))
    values, errors = (np.array([getattr(each, name)[0] for each in found]) for name in ("values", "errors"))
    assert np.median(errors) == pytest.approx(values.std(ddof=1), rel=0.15)
    assert np.median(errors) > 1.2 * values.mean() / np.sqrt(2 * 500)


def test_the_error_of_a_mean_that_fluctuates_with_the_width() -> None:
    """With r near one, mean and skewness matter: s / m of an exponential distribution is known to 1 / sqrt(n)."""
    rng = np.random.default_rng(2)
    found = [resolution_curve("x", [1.0], [rng.exponential(size=2000)]) for _ in range(300)]
    values, errors = (np.array([getattr(each, name)[0] for each in found]) for name in ("values", "errors"))
    assert values.std(ddof=1) == pytest.approx(np.sqrt(1 / 2000), rel=0.15)
    assert errors.mean() == pytest.approx(values.std(ddof=1), rel=0.15)
    incident = resolution_curve("x", [2.0], [rng.exponential(size=2000)], definition="incident")
    assert incident.values[0] == pytest.approx(0.5, rel=0.1)


def test_a_term_that_is_zero_has_a_limit_and_no_error() -> None:
    values = np.sqrt(0.1**2 / ENERGIES - 1e-6 / ENERGIES**2)
    fit = fit_resolution(ENERGIES, values, 0.02 * values)
    assert fit.squares[1] == 0
    assert fit.errors[1] == 0
    assert 0 < fit.upper[1] < 0.1
    assert np.isnan(fit.upper[0])
    assert fit.degrees == len(ENERGIES) - np.count_nonzero(fit.squares)
    assert "(< " in str(fit)
    assert json.loads(json.dumps(fit.to_dict(), allow_nan=False))["a"] == pytest.approx(0.1, rel=0.02)


def test_the_limit_covers_a_small_term() -> None:
    rng, below, zero = np.random.default_rng(3), 0, 0
    truth = np.array([0.05, 0.0, 0.01])
    for _ in range(200):
        r = resolution_of(ENERGIES, truth)
        fit = fit_resolution(ENERGIES, r * (1 + 0.03 * rng.normal(size=8)), 0.03 * r)
        zero += fit.squares[1] == 0
        below += fit.squares[1] < 2 * np.sqrt(fit.squares_covariance[1, 1]) + 1e-30
    assert 60 < zero < 140
    assert below > 180


def test_fewer_energies_than_terms_leave_terms_out_and_say_so() -> None:
    r = resolution_of(np.array([1.0, 10.0]))
    fit = fit_resolution([1.0, 10.0], r, 0.01 * r)
    assert fit.terms == ("a", "c")
    assert fit.note == "2 energies for 3 terms: b left out of the fit"
    assert fit.squares[1] == 0
    close = np.array([10.0, 10.5, 11.0, 11.5])
    fit = fit_resolution(close, resolution_of(close), 0.01 * resolution_of(close))
    assert "cannot tell a, b, c apart" in fit.note
    assert "b" not in fit.terms
    curve = resolution_curve("x", [10.0], [np.random.default_rng(0).normal(10, 1, 100)])
    assert curve.fit is None
    assert curve.note == "no fit: 1 energy; expected two or more"


def test_chosen_terms() -> None:
    r = resolution_of(ENERGIES, np.array([0.1, 0.0, 0.01]))
    fit = fit_resolution(ENERGIES, r, 0.01 * r, ("c", "a"))
    assert fit.terms == ("a", "c")
    np.testing.assert_allclose(fit.values, [0.1, 0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(fit(ENERGIES), r, rtol=1e-6)
    assert check_terms("cab") == TERMS


def test_the_gradient_of_the_fit_is_that_of_finite_differences() -> None:
    rng = np.random.default_rng(4)
    r = resolution_of(ENERGIES) * (1 + 0.05 * rng.normal(size=8))  # so that points are off the fit
    relative, slopes, h = np.full(8, 0.04), rng.normal(size=(8, 2)), 1e-5
    fit = fit_resolution(ENERGIES, r, relative * r)
    found = fit_gradient(fit, ENERGIES, r, relative, slopes)
    for j in range(2):
        moved = [r * np.exp(sign * h * slopes[:, j]) for sign in (1, -1)]
        up, down = (fit_resolution(ENERGIES, each, relative * each).values for each in moved)
        np.testing.assert_allclose(found[:, j], (up - down) / (2 * h), rtol=1e-4)


@pytest.mark.parametrize(
    ("complaint", "given"),
    [
        ("expected one of std, incident, width68", {"definition": "fwhm"}),
        ("terms = a,d: expected some of a, b, c", {"terms": ("a", "d")}),
        ("terms = none", {"terms": ()}),
        ("5 showers of 1 GeV: expected at least 20", {"samples": [np.ones(5)]}),
        ("all showers of 1 GeV have the same energy", {"samples": [np.ones(50)]}),
        ("mean reconstructed energy at 1 GeV is -1 GeV", {"samples": [np.linspace(-2, 0, 51)]}),
    ],
)
def test_what_cannot_be(complaint: str, given: dict[str, object]) -> None:
    with pytest.raises(InputError, match=complaint):
        resolution_curve("x", **{"energies": [1.0], "samples": [np.linspace(1, 2, 50)]} | given)  # type: ignore[arg-type]


def test_a_fit_of_nonsense_is_refused() -> None:
    with pytest.raises(InputError, match=r"values = \[0.0, 1.0\], expected positive"):
        fit_resolution([1.0, 2.0], [0.0, 1.0], [1.0, 1.0])
    with pytest.raises(InputError, match="expected one length"):
        fit_resolution([1.0, 2.0], [1.0], [1.0, 1.0])


def test_rounding_to_the_error() -> None:
    assert rounded(1.23456, 0.0123) == "1.235 +- 0.012"
    assert rounded(1234.5, 56.7) == "1234 +- 57"
    assert rounded(0.5, 0.0) == "0.5"


@pytest.mark.parametrize("discrete", [True, False])
def test_two_sources_are_compared_at_common_energies(discrete: bool) -> None:
    """A stochastic term of 10 % and 20 %; the response rises with the energy, which must not widen a bin."""
    rng, n = np.random.default_rng(3), 16000
    energy = rng.choice([5.0, 20.0, 80.0], n) if discrete else rng.uniform(5, 80, n)
    measured = [
        energy * (0.8 + 0.05 * np.log(energy)) * (1 + a * energy**-0.5 * rng.normal(size=n)) for a in (0.1, 0.2)
    ]
    rows = slice(0, n), slice(n // 2, n)
    curves = resolution_curves(
        ("fine", "coarse"), [energy[of] for of in rows], [x[of] for x, of in zip(measured, rows, strict=True)]
    )
    assert [curve.source for curve in curves] == ["fine", "coarse"]
    assert len(curves[0].energies) == (3 if discrete else 8)
    np.testing.assert_array_equal(curves[0].energies, curves[1].energies)
    for curve, a in zip(curves, (0.1, 0.2), strict=True):
        pulls = (curve.values - a * curve.energies**-0.5) / curve.errors
        assert np.abs(pulls).max() < 3.5
    assert curves[0].showers.sum() == n


def test_energies_that_one_source_lacks_are_left_out() -> None:
    energy = np.repeat([1.0, 10.0], 100)
    x = energy * (1 + 0.1 * np.random.default_rng(0).normal(size=200))
    curves = resolution_curves(("a", "b"), (energy, energy[:100]), (x, x[:100]))
    assert [curve.energies.tolist() for curve in curves] == [[1.0], [1.0]]
    with pytest.raises(InputError, match="no energy has 20 showers of a and b"):
        resolution_curves(("a", "b"), (energy[:100], energy[100:]), (x[:100], x[100:]))
    assert [group.exact for group in group_by_energy(energy)] == [True, True]
