"""Stacks as Geant4 simulates them: what each shower draws, and what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from calograd.detector.sampling_stack import PLATES, SamplingStack, ThicknessRange

FIXED: dict[str, Any] = {
    "absorber": "Pb", "active": "G4_lAr", "layers": 4, "absorber_thickness": 0.2, "active_thickness": 0.4,
}  # fmt: skip
RANGES: dict[str, Any] = FIXED | {
    "layers": (10, 60),
    "absorber_thickness": ThicknessRange(low=0.1, high=0.4),
    "active_thickness": ThicknessRange(low=0.2, high=0.9),
}


def make(**changed: Any) -> SamplingStack:
    return SamplingStack.model_validate(FIXED | changed)


def test_a_fixed_stack_is_drawn_as_it_is() -> None:
    stack = make(absorber_thickness=(0.1, 0.2, 0.3, 0.4), gap_thickness=0.05)
    drawn = stack.draw(np.random.default_rng(0))
    expected = np.float32([[t, 0.05, 0.4] for t in (0.1, 0.2, 0.3, 0.4)])
    np.testing.assert_array_equal(drawn.thickness, expected)
    assert (drawn.absorber, drawn.active, stack.drawn, stack.has_gaps) == (0, 0, False, True)
    assert drawn.faces()[:4].tolist() == pytest.approx([0, 0.1, 0.15, 0.55])
    assert stack.largest_depth() == pytest.approx(1.0 + 4 * 0.45)
    assert [material.name for material in stack.materials] == ["Pb", "lAr", "air"]


def test_a_record_survives_json() -> None:
    for changed in ({}, RANGES, {"absorber_thickness": (0.1, 0.2, 0.3, 0.4), "absorber": ("Pb", "W")}):
        stack = make(**changed)
        assert SamplingStack.model_validate_json(stack.model_dump_json()) == stack


def test_draws_are_even_in_the_logarithm_number_and_materials() -> None:
    stack = make(**RANGES | {"absorber": ("Pb", "W", "Fe"), "active": ("lAr", "Si")})
    drawn = [stack.draw(np.random.default_rng(k)) for k in range(2000)]
    for column, (low, high) in ((0, (0.1, 0.4)), (2, (0.2, 0.9))):
        u = [np.log(each.thickness[0, column] / low) / np.log(high / low) for each in drawn]
        assert stats.kstest(u, "uniform").pvalue > 1e-3
    counts = np.bincount([len(each.thickness) for each in drawn], minlength=61)
    assert counts[:10].sum() == 0
    assert stats.chisquare(counts[10:]).pvalue > 1e-3
    for kinds, name in ((3, "absorber"), (2, "active")):
        assert stats.chisquare(np.bincount([getattr(each, name) for each in drawn], minlength=kinds)).pvalue > 1e-3
    assert all((each.thickness == each.thickness[0]).all() for each in drawn)
    pairs = np.array([np.log(each.thickness[0, [0, 2]]) for each in drawn])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.1


@given(seed=st.integers(0, 2**32), scatter=st.floats(0, 1), layers=st.integers(1, 60))
def test_a_smooth_profile_stays_in_its_range(seed: int, scatter: float, layers: int) -> None:
    stack = make(**RANGES | {"layers": layers, "profile": "smooth", "scatter": scatter})
    thickness = stack.draw(np.random.default_rng(seed)).thickness
    assert thickness.shape == (layers, 3)
    for column, (low, high) in ((0, (0.1, 0.4)), (2, (0.2, 0.9))):
        assert (thickness[:, column] >= np.float32(low) * (1 - 1e-6)).all()
        assert (thickness[:, column] <= np.float32(high) * (1 + 1e-6)).all()
    assert (thickness[:, 1] == 0).all()


def test_thicknesses_scatter_about_a_profile_that_is_smooth() -> None:
    smooth, rough = (make(**RANGES | {"layers": 60, "profile": "smooth", "scatter": s}) for s in (0.0, 0.1))
    bends, deviations = [], []
    for seed in range(100):
        with_none, with_some = (np.log(s.draw(np.random.default_rng(seed)).thickness[:, 0]) for s in (smooth, rough))
        bends.append(np.abs(np.diff(with_none, n=3)).max())  # a parabola has no third difference
        deviations.append(with_some - with_none)
    assert max(bends) < 1e-5
    inner = np.abs(deviations) < 0.3  # reflections at the ends of the range make some larger
    assert np.std(np.array(deviations)[inner]) == pytest.approx(0.1, rel=0.1)
    spread = [np.ptp(smooth.draw(np.random.default_rng(seed)).thickness[:, 0]) for seed in range(100)]
    assert np.median(spread) > 0.05


def test_a_stepped_profile_has_two_thicknesses_in_its_range() -> None:
    stack, steps, gaps = make(**RANGES | {"layers": 30, "profile": "stepped"}), [], []
    for seed in range(200):
        thickness = stack.draw(np.random.default_rng(seed)).thickness
        for column, (low, high) in ((0, (0.1, 0.4)), (2, (0.2, 0.9))):
            changes = np.flatnonzero(np.diff(thickness[:, column]))
            assert len(changes) <= 1
            steps.extend(changes + 1)
            assert (low * (1 - 1e-6) <= thickness[:, column]).all()
            assert (thickness[:, column] <= high * (1 + 1e-6)).all()
        gaps.append(np.log(thickness[-1, 0] / thickness[0, 0]))
    assert np.mean(steps) == pytest.approx(15, abs=1.5)
    assert abs(np.mean(gaps)) < 0.1  # thicker behind as often as in front


def test_two_laws_share_what_they_have_in_common() -> None:
    """The same shower has the same absorbers whatever the law of the active plates is."""
    one, two = make(**RANGES), make(**RANGES | {"active_thickness": 0.3, "gap_thickness": 0.1})
    for seed in range(5):
        a, b = (stack.draw(np.random.default_rng(seed)).thickness for stack in (one, two))
        np.testing.assert_array_equal(a[:, 0], b[:, 0])


def test_the_law_is_that_of_every_earlier_library() -> None:
    """Golden numbers: changing them makes old libraries impossible to continue."""
    stack = make(**RANGES | {"profile": "smooth", "absorber": ("Pb", "W"), "active": ("lAr", "Si")})
    drawn = stack.draw(np.random.default_rng(1))
    assert (len(drawn.thickness), drawn.absorber, drawn.active) == (17, 1, 1)
    assert drawn.thickness[[0, -1], 0].tolist() == pytest.approx([0.3288491, 0.1793324], rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"absorber": "cheese"}, "unknown material 'cheese'"),
        ({"absorber": ()}, "expected a material"),
        ({"layers": 0}, "greater than or equal to 1"),
        ({"layers": 2.5}, "valid integer"),
        ({"layers": 5000}, "less than or equal to 1000"),
        ({"layers": (20, 10)}, "the lower first"),
        ({"layers": (10, 20, 30)}, "the two ends of a range"),
        ({"absorber_thickness": 0}, "absorber_thickness: 0 cm; expected a positive thickness"),
        ({"active_thickness": (0.4, 0.4, 0, 0.4)}, "active_thickness: 0 cm; expected a positive thickness"),
        ({"active_thickness": -1}, "greater than or equal to 0"),
        ({"active_thickness": float("nan")}, "valid number"),
        ({"active_thickness": "thin"}, "valid number"),
        ({"active_thickness": ()}, "expected one thickness, or one a layer"),
        ({"active_thickness": {"low": 0.4, "high": 0.2}}, "0.4:0.2 is no range"),
        ({"absorber_thickness": (0.2, 0.2)}, "absorber_thickness: 2 thicknesses for 4 layers; expected one, or one a"),
        ({"absorber_thickness": (0.2,) * 4, "layers": (4, 5)}, "needs a fixed number of layers, not a range"),
        ({"absorber_thickness": 2.0}, r"2 cm are 3.6 radiation lengths; is this in mm\? Give cm, as 0.2"),
        ({"active_thickness": {"low": 50, "high": 200}}, r"make a stack of 401 cm; is this in mm\?"),
        ({"scatter": -0.1}, "greater than or equal to 0"),
        ({"width": 0}, "greater than 0"),
        ({"absorber": ("Pb", "G4_Pb")}, "Pb is named twice"),
        ({"profile": "smooth"}, "profile: a smooth profile needs a range"),
        ({"profile": "wild"}, "'equal', 'smooth' or 'stepped'"),
        ({"record": "tracks"}, "'energies' or 'points'"),
        ({"record": "points", "layers": 300, "active_thickness": 0.1}, "record: 300 layers; points are .* up to 256"),
        ({"record": "points", "absorber_thickness": 5e-4}, "record: absorbers of 0.0005 cm; points need 0.001 cm or"),
    ],
)
def test_stacks_that_cannot_be(changed: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        make(**changed)


def test_plates_are_in_the_order_of_the_beam() -> None:
    assert PLATES == ("absorber", "gap", "active")
