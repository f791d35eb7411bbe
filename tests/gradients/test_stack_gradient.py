"""Derivatives of stacks of plates by back-propagation: finite differences of the surrogate, and known functions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_plates import tiny_plates
from helpers.toy_stacks import (
    ACTIVE,
    DESIGN,
    LAYERS,
    deposited_slopes,
    resolution_slopes,
    toy_surrogate,
    visible_slopes,
    write_toy_showers,
)

import calograd
from calograd import (
    Design,
    LearntResolution,
    MeanEnergy,
    Objective,
    ParticleBeam,
    SamplingDesign,
    StackObjective,
    Surrogate,
    VisibleResolution,
)
from calograd.errors import InputError, RangeError
from calograd.gradients import stacks
from calograd.gradients.stacks import StackGradientResult, stack_gradient

ELECTRONS = ParticleBeam("e-")


@pytest.fixture(scope="module")
def plates() -> Surrogate:
    surrogate = tiny_plates()
    surrogate.model.double()
    return surrogate


def test_it_equals_finite_differences_of_the_surrogate_with_common_random_numbers(plates: Surrogate) -> None:
    """Of every quantity and every draw, along a random direction, in an unequal stack at an angle."""
    quantities = (
        MeanEnergy(absorber=(1.0, 0.5, 0.0, 1.0, 1.0)), MeanEnergy(absorber=1.0, layers=(1, 3)), VisibleResolution(),
        VisibleResolution((1.0, 1.1, 1.2, 1.0, 0.9)), LearntResolution(), LearntResolution(0.1),
    )  # fmt: skip
    objective = StackObjective(quantities, beam=ParticleBeam("e-", theta=20.0))
    sizes = np.concatenate([np.linspace(0.25, 0.5, 5), np.linspace(0.6, 0.3, 5)])

    def at(thickness: np.ndarray) -> StackGradientResult:
        stack = SamplingDesign("Pb", "lAr", torch.from_numpy(thickness[:5]), torch.from_numpy(thickness[5:]))
        return stack_gradient(plates, stack, (10.0, 30.0), objective, showers=12, draws=2, seed=7, steps=1)

    step, direction = 1e-5, np.random.default_rng(0).standard_normal(10)
    made, low, high = (at(sizes * np.exp(sign * step * direction)) for sign in (0, -1, 1))
    for own, below, above in zip(made.gradients, low.gradients, high.gradients, strict=True):
        expected, size = (above.values - below.values) / (2 * step), np.linalg.norm(own.draws, axis=1).max()
        np.testing.assert_allclose(own.draws @ direction, expected, rtol=1e-4, atol=1e-5 * size)
    assert all(bool((each.draws != 0).all()) for each in made.gradients)


def test_draws_do_not_depend_on_how_they_are_grouped(plates: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = SamplingDesign("Pb", "lAr", 0.3, 0.4, 4)
    objective = StackObjective((MeanEnergy(), LearntResolution()), beam=ELECTRONS)
    one = stack_gradient(plates, stack, (5.0, 20.0), objective, showers=8, draws=3)
    monkeypatch.setattr(stacks, "ROWS", 16)
    several = stack_gradient(plates, stack, (5.0, 20.0), objective, showers=8, draws=3)
    for a, b in zip(one.gradients, several.gradients, strict=True):
        np.testing.assert_allclose(a.draws, b.draws, rtol=1e-9, atol=1e-12)
    assert not np.allclose(one.gradients[0].values[0], one.gradients[0].values[1])


def test_known_derivatives_of_every_plate_and_of_all() -> None:
    objective = StackObjective((MeanEnergy(), MeanEnergy(absorber=1.0), VisibleResolution()))
    made = stack_gradient(toy_surrogate(), DESIGN, (10.0,), objective, showers=2000, draws=10)
    mean, deposited, resolution = made.gradients
    for own, truth in ((mean, visible_slopes(10.0)), (deposited, deposited_slopes(10.0)),
                       (resolution, resolution_slopes())):  # fmt: skip
        found = own.plates()
        assert np.abs((found.gradient - truth) / found.gradient_error).max() < 5
        assert found.gradient_error.max() < 0.05 * np.abs(truth).max()
        common = own.common()
        assert np.abs((common.gradient - truth.reshape(2, -1).sum(1)) / common.gradient_error).max() < 5
    np.testing.assert_allclose(mean.plates().raw[LAYERS:], mean.plates().gradient[LAYERS:] / ACTIVE)
    np.testing.assert_allclose(mean.plates(relative=True).gradient, mean.plates().gradient / 2.0, rtol=0.01)
    assert resolution.common().value == pytest.approx(np.log(resolution.values).mean())
    for relative in (False, True):  # of equal plates the two common changes are one
        value, error = mean.per_cm(relative)
        np.testing.assert_allclose(value, mean.common(relative).raw)
        np.testing.assert_allclose(error, mean.common(relative).raw_error)


def test_common_changes_of_unequal_plates_differ() -> None:
    """By the same length: the sum of the derivatives per cm. By the same factor: that of those in logarithms."""
    stack = SamplingDesign("Pb", "lAr", 0.3, torch.linspace(0.3, 0.5, LAYERS))
    objective = StackObjective(MeanEnergy(layers=(0, 2)))
    (own,) = stack_gradient(toy_surrogate(), stack, (10.0,), objective, draws=2).gradients
    each = own.plates()
    np.testing.assert_allclose(own.per_cm()[0], each.raw.reshape(2, -1).sum(1))
    np.testing.assert_allclose(own.common().gradient, each.gradient.reshape(2, -1).sum(1))
    assert own.per_cm()[0][1] != pytest.approx(own.common().raw[1], rel=1e-3)


def test_errors_are_those_of_repetitions() -> None:
    objective = StackObjective((VisibleResolution(), LearntResolution()))
    options = {"showers": 60, "draws": 10}
    made = [stack_gradient(toy_surrogate(), DESIGN, (10.0,), objective, seed=k, **options) for k in range(80)]
    for number in range(2):
        estimates = [each.gradients[number].plates() for each in made]
        scatter = np.std([each.gradient for each in estimates], axis=0, ddof=1)
        stated = np.sqrt(np.mean([each.gradient_error**2 for each in estimates], axis=0))
        np.testing.assert_allclose(scatter, stated, rtol=0.35)


def test_it_compares_with_showers_in_random_stacks(tmp_path: Path) -> None:
    """The surrogate and the library are of the same showers, so pulls are those of unit normal numbers."""
    path = write_toy_showers(tmp_path / "random.h5", 4000, profile="smooth", energies=(1.0, 3.0), scatter=0.2)
    quantities = (MeanEnergy(), MeanEnergy(absorber=1.0), VisibleResolution(), LearntResolution())
    objective, stages = StackObjective(quantities, beam=ELECTRONS), list[str]()
    made = calograd.gradient(
        toy_surrogate(), DESIGN, (1.0, 3.0), objective=objective, reference=path, draws=10, showers=2000,
        progress=lambda stage, *_: stages.append(stage),
    )  # fmt: skip
    assert (len(made.checks), made.reference, set(stages)) == (8, "random.h5", {"surrogate", "Geant4"})
    for check, own in zip(made.checks, made.gradients, strict=True):
        assert [c.name for c in check.common.components] == ["absorber", "active"]
        assert max(abs(c.pull) for c in check.common.components) < 4
        assert not any(c.wrong_sign for c in check.common.components)
        assert check.common.geant4.about["energy"] == own.energy
        assert check.plates is not None
        pulls = np.array([c.pull for c in check.plates.components])
        assert np.sqrt((pulls**2).mean()) < 2
        assert len(pulls) == 2 * LAYERS
    assert min(check.common.cosine for check in made.checks[:6]) > 0.95
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    point = plain["points"][0]
    assert (point["quantity"], point["unit"], point["energy"]) == ("mean", "GeV", 1.0)
    assert len(point["absorber"]["per_cm"]) == len(point["active"]["log_error"]) == LAYERS
    assert point["active"]["common"]["log"] == pytest.approx(1.0, abs=0.02)
    assert point["check"]["common"]["components"][0]["name"] == "absorber"
    assert "pull" in made._repr_html_()


def test_errors_beside_a_reference_are_stated_before_showers_are_generated(tmp_path: Path) -> None:
    path = write_toy_showers(tmp_path / "random.h5", 100, energies=(1.0,))
    with pytest.raises(InputError, match=r"random\.h5 has no showers of 2 GeV as the gradient asks, but 1 GeV"):
        calograd.gradient(toy_surrogate(), DESIGN, 2.0, objective=StackObjective(beam=ELECTRONS), reference=str(path))


def test_refusals(plates: Surrogate, surrogate: Surrogate) -> None:
    stack, beam = SamplingDesign("Pb", "lAr", 0.3, 0.4, 4), StackObjective(beam=ELECTRONS)
    batch = SamplingDesign("Pb", "lAr", torch.full((2, 4), 0.3), 0.4)
    few: dict[str, Any] = {"draws": 2, "showers": 4}
    cases: tuple[tuple[Any, ...], ...] = (
        (plates, batch, 10.0, {"objective": beam}, InputError, "2 are given; take them one by one"),
        (plates, stack, None, {"objective": beam}, InputError, "energies are missing"),
        (plates, stack, 10.0, {"objective": beam, "draws": 1}, InputError, "draws = 1: expected at least 2"),
        (plates, stack, 10.0, {"objective": beam, "density": True}, InputError, "density is for designs of cells"),
        (plates, stack, 10.0, {"objective": beam, "step": 0.1}, InputError, "step is for designs of cells"),
        (plates, stack, 10.0, {"objective": VisibleResolution()}, InputError, "expected a StackObjective"),
        (plates, stack, 10.0, {"reference": 3}, InputError, "reference = int: expected a library of plates"),
        (plates, stack, 500.0, {"objective": beam}, RangeError, "energy = 500 GeV is outside 1 to 100 GeV"),
        (plates, Design(2.5, 6.0), 10.0, {}, InputError, "knows no designs of cells"),
        (plates, Design(2.5, 6.0), 10.0, {"objective": beam}, InputError, "is of stacks of plates; expected"),
        (surrogate, stack, 10.0, {"objective": beam}, InputError, "generates no energies of plates; expected"),
    )  # fmt: skip
    for model, design, energies, options, kind, message in cases:
        with pytest.raises(kind, match=message):
            calograd.gradient(model, design, energies, **few | options)
    assert isinstance(beam, StackObjective)
    assert not isinstance(beam, Objective)


def test_energies_of_the_objective_serve_where_none_are_given(plates: Surrogate) -> None:
    stack = SamplingDesign("W", "Si", 0.3, 0.05, 4)
    objective = StackObjective(MeanEnergy(), energies=(2.0, 4.0), beam=ELECTRONS)
    made = calograd.gradient(plates, stack, objective=objective, draws=2, showers=4)
    assert [each.energy for each in made.gradients] == [2.0, 4.0]
    assert made.to_dict()["objective"]["beam"] == "e-, theta 0 degrees"
