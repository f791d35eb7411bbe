from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import InputError, RangeError, UtilityError
from calograd.gradients import autodiff
from calograd.gradients.autodiff import Parameters, surrogate_gradient, surrogate_values
from calograd.gradients.estimates import GradientEstimate, generator_for
from calograd.objective.background import ExponentialBackground
from calograd.objective.cost import Cost, DepthCost, PricedUtility, VolumeCost
from calograd.objective.measurement import MeasuredEvents, Measurement
from calograd.objective.utility import EnergyResolution, Objective, SquaredError, Utility
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel


@dataclass(frozen=True)
class Layers:
    """dx and a depth for each of two layers."""

    names: tuple[str, ...] = ("dx", "dz_1", "dz_2")

    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1:], n_xy=3, n_z=2)


AT = np.array([2.5, 6.0, 8.0])


def objective(utility: Utility | None = None, energies: tuple[float, ...] = (10.0, 40.0)) -> Objective:
    return Objective(Measurement(ExponentialBackground()), utility or SquaredError(truth="incident"), energies)


def check_derivative(
    surrogate: Surrogate, of: Objective, space: Parameters, y: np.ndarray, h: float, **options: Any
) -> GradientEstimate:
    """Compare the gradient at y with differences of the values at 2 p neighbours, and return it."""
    made = surrogate_gradient(surrogate, of, space, y, showers=20, draws=2, seed=4, **options)
    moves = h * np.concatenate([np.eye(len(y)), -np.eye(len(y))])
    values, _ = surrogate_values(
        surrogate, of, space, y * np.exp(moves), gradients=False, showers=20, draws=2, seed=4, **options
    )  # fmt: skip
    up, down = values.mean(0).reshape(2, -1)
    np.testing.assert_allclose(made.gradient, (up - down) / (2 * h), rtol=3e-4, atol=1e-7 * abs(made.value))
    assert (abs(made.gradient) > 1e-6 * abs(made.value)).all()
    return made


@pytest.mark.parametrize(
    ("sampler", "utility"),
    [
        ("trigflow-ab2", SquaredError()), ("trigflow-ab2", SquaredError(truth="incident")),
        ("trigflow-ab2", EnergyResolution()), ("heun", SquaredError(truth="incident")), ("ddim", EnergyResolution()),
    ],
)  # fmt: skip
def test_it_is_the_derivative_of_the_value(precise: Surrogate, sampler: str, utility: Utility) -> None:
    """With every sampler, and of every utility."""
    # At h = 1e-5 the third derivative of a narrow resolution is still seen.
    made = check_derivative(precise, objective(utility), Layers(), AT, 1e-7, sampler=sampler, steps=3)
    np.testing.assert_allclose(made.raw * AT, made.gradient)


def test_of_a_distilled_surrogate_it_is_too(precise: Surrogate) -> None:
    architecture = replace(precise.model.architecture, distilled_steps=(2, 1))
    model = CellsModel(architecture).double()
    model.load_state_dict(precise.model.state_dict())
    student = Surrogate(model.eval().requires_grad_(False), precise.card)

    made = check_derivative(student, objective(), Layers(), AT, 1e-7)
    assert {
        "sampler": "progressive",
        "steps": 1,
        "evaluations": 1,
        "shape_evaluations": 2,
    }.items() <= made.about.items()


@dataclass(frozen=True)
class Densities:
    """dx, a depth for both layers, and the density."""

    names: tuple[str, ...] = ("dx", "dz", "density")

    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1], MATERIALS["PbF2"].at_density(y[2]), n_xy=3, n_z=2)


@pytest.mark.parametrize("cost", [DepthCost(), VolumeCost()])
def test_the_density_s_gradient_passes_background_reconstruction_utility_and_cost(
    precise: Surrogate, cost: Cost
) -> None:
    priced = PricedUtility(SquaredError(truth="incident"), ((cost, 0.01),), relative=True)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained on one density
        y = np.array([2.5, 6.0, 7.5])
        check_derivative(precise, objective(priced), Densities(), y, 1e-6, steps=3, extrapolate=True)


def test_errors_are_of_independent_draws(surrogate: Surrogate) -> None:
    made = surrogate_gradient(surrogate, objective(), Layers(), AT, showers=30, draws=6, steps=2)
    assert made.draws.shape == (6, 3)
    np.testing.assert_allclose(made.gradient, made.draws.mean(0))
    np.testing.assert_allclose(made.gradient_error, made.draws.std(0, ddof=1) / 6**0.5)
    assert len(np.unique(made.draws[:, 0])) == 6
    first = surrogate_gradient(surrogate, objective(), Layers(), AT, showers=30, draws=2, steps=2)
    np.testing.assert_array_equal(first.draws, made.draws[:2])  # a draw does not depend on how many there are


def test_seed_and_checkpoints(surrogate: Surrogate) -> None:
    first, again, other = (
        surrogate_gradient(surrogate, objective(), Layers(), AT, showers=20, draws=2, seed=s, steps=3, checkpointed=c)
        for s, c in ((1, True), (1, False), (2, True))
    )
    np.testing.assert_allclose(first.gradient, again.gradient, rtol=1e-4)
    assert first.value != other.value


def test_streams_differ_by_every_part_of_their_key() -> None:
    keys = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0), (2**31, 0, 0)]
    assert len({float(torch.rand(1, generator=generator_for(*key), dtype=torch.float64)) for key in keys}) == len(keys)


def blind(events: MeasuredEvents) -> Tensor:
    return events.measured.detach().sum()


def undefined(events: MeasuredEvents) -> Tensor:
    return (events.measured.sum() - 1e9).sqrt()


def kinked(events: MeasuredEvents) -> Tensor:
    return (events.signal * 0).sum().sqrt() + events.signal.sum()


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"draws": 1}, InputError, "expected 2 draws or more"),
        ({"showers": 0}, InputError, "0 showers"),
        ({"y": np.array([6.0, 6.0, 6.0])}, RangeError, "dx = 6 cm is outside"),
        ({"sampler": "ddpm"}, InputError, "adds noise"),
        ({"objective": objective(blind)}, UtilityError, "'blind' does not depend on the design"),
        ({"objective": objective(kinked)}, UtilityError, r"'kinked' is .* but its gradient is \[nan"),
        ({"objective": objective(undefined)}, UtilityError, "'undefined' is nan"),
    ],
)
def test_what_cannot_be(surrogate: Surrogate, arguments: dict, error: type[Exception], complaint: str) -> None:
    usual = {"objective": objective(), "y": AT, "draws": 2, "showers": 5, "steps": 2} | arguments
    with pytest.raises(error, match=complaint):
        surrogate_gradient(surrogate, usual.pop("objective"), Layers(), usual.pop("y"), **usual)


def test_designs_together_are_those_one_by_one(surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients of a batch are those of a loop, at every draw, though it is generated in two groups."""
    points = AT * np.exp(np.random.default_rng(0).uniform(-0.3, 0.3, (5, 3)))
    monkeypatch.setattr(autodiff, "ROWS", 60)
    options = {"showers": 20, "draws": 2, "seed": 4, "steps": 2}
    values, gradients = surrogate_values(surrogate, objective(), Layers(), points, **options)
    assert values.shape == (2, 5)
    for k, y in enumerate(points):
        alone = surrogate_values(surrogate, objective(), Layers(), y[None], **options)
        np.testing.assert_allclose(values[:, k], alone[0][:, 0], rtol=2e-5)
        np.testing.assert_allclose(gradients[:, k], alone[1][:, 0], rtol=2e-3, atol=1e-4 * abs(gradients).max())
    without, none = surrogate_values(surrogate, objective(), Layers(), points, gradients=False, **options)
    np.testing.assert_allclose(without, values, rtol=2e-5)
    assert not none.any()


def test_designs_of_several_densities_are_generated_one_by_one(surrogate: Surrogate) -> None:
    points, options = np.array([[2.5, 6.0, 7.6], [2.0, 7.0, 7.9]]), {"showers": 5, "seed": 4, "steps": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trained on one density
        both, slopes = surrogate_values(surrogate, objective(), Densities(), points, extrapolate=True, **options)
        for k, y in enumerate(points):
            alone = surrogate_values(surrogate, objective(), Densities(), y[None], extrapolate=True, **options)
            np.testing.assert_allclose(both[:, k], alone[0][:, 0], rtol=1e-5)
            np.testing.assert_allclose(slopes[:, k], alone[1][:, 0], rtol=1e-3)
