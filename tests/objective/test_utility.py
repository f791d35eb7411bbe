from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.detector.design import Design
from calograd.errors import InputError, UtilityError
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import MeasuredEvents, Measurement
from calograd.objective.readout import Readout
from calograd.objective.utility import (
    Containment,
    CustomUtility,
    EnergyResolution,
    Objective,
    PositionResolution,
    SquaredError,
    check_value,
    evaluate_utility,
)

UTILITIES = [
    SquaredError(),
    SquaredError(alpha=0.5, truth="incident"),
    EnergyResolution(),
    EnergyResolution(robust=True),
    Containment(),
    PositionResolution(),
    CustomUtility(lambda cells, design: (cells**2).mean() * design.dx),
]


def in_one_cell(measured: list[float], deposited: list[float], incident: list[float]) -> MeasuredEvents:
    """MeasuredEvents with all their energy in the middle of 3 x 3 x 1 cells."""
    cells = torch.zeros(2, len(measured), 3, 3, 1)
    cells[0, :, 1, 1, 0], cells[1, :, 1, 1, 0] = torch.tensor(measured), torch.tensor(deposited)
    return MeasuredEvents(cells[1], cells[0], torch.tensor(incident), Design(dx=2.0, dz=5.0, n_xy=3, n_z=1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_squared_error_by_hand():
    events = in_one_cell([9.0, 8.0], [8.5, 8.5], [10.0, 10.0])
    assert SquaredError()(events).item() == pytest.approx(1 / (0.01 + 0.25))
    assert SquaredError(alpha=1.0, truth="incident")(events).item() == pytest.approx(1 / (1 + (1 + 4) / 2))


def test_containment_by_hand():
    assert Containment()(in_one_cell([9.0, 8.0], [8.0, 5.0], [10.0, 20.0])).item() == pytest.approx((0.8 + 0.25) / 2)


def test_energy_resolution_by_hand():
    events = in_one_cell([8.0, 9.0, 10.0], [9.0] * 3, [10.0] * 3)
    assert EnergyResolution()(events).item() == pytest.approx(-1 / 9)


def test_the_robust_resolution_is_that_of_a_normal_law_and_ignores_outliers():
    measured = 50 + 2 * torch.randn(20_001, generator=generator())
    plain = in_one_cell(measured.tolist(), measured.tolist(), [60.0] * len(measured))
    assert EnergyResolution(robust=True)(plain).item() == pytest.approx(-2 / 50, rel=0.03)
    measured[:20] = 5.0
    tail = in_one_cell(measured.tolist(), measured.tolist(), [60.0] * len(measured))
    assert EnergyResolution(robust=True)(tail).item() == pytest.approx(-2 / 50, rel=0.03)
    assert EnergyResolution()(tail).item() < -0.045


def test_one_event_has_no_resolution():
    with pytest.raises(InputError, match="1 event, expected two or more"):
        EnergyResolution()(in_one_cell([9.0], [9.0], [10.0]))


def test_position_resolution_by_hand():
    cells = torch.zeros(3, 3, 3, 2)
    cells[0, 0, 2, 0] = 4.0  # y = +2
    cells[1, 2, 0, 1], cells[1, 1, 1, 0] = 1.0, 1.0  # y = -1
    cells[2, :, 1] = 1.0  # y = 0
    events = MeasuredEvents(cells, cells, torch.ones(3), Design(dx=2.0, dz=5.0, n_xy=3, n_z=2))
    assert PositionResolution()(events).item() == pytest.approx(-(((4 + 1 + 0) / 3) ** 0.5))


def test_an_event_without_measured_energy_is_known_to_the_window():
    dx = torch.tensor(2.0, requires_grad=True)
    cells = torch.zeros(2, 3, 3, 1)
    cells[1, 1, 0, 0] = -0.1  # noise alone
    cells.requires_grad_()
    events = MeasuredEvents(cells, cells, torch.ones(2), Design(dx=dx, dz=5.0, n_xy=3, n_z=1))
    value = PositionResolution()(events)
    assert value.item() == pytest.approx(-6 / 12**0.5)
    value.backward()
    assert dx.grad.item() == pytest.approx(-3 / 12**0.5)
    assert torch.isfinite(cells.grad).all()


@pytest.mark.parametrize("utility", UTILITIES)
def test_gradients_agree_with_finite_differences(utility):
    measurement = Measurement(ExponentialBackground(), Readout(light_yield=200, noise=0.005))
    numbers = measurement.draw(6, 3, 2, generator(1), torch.float64)
    signal = torch.rand(6, 3, 3, 2, generator=generator(2), dtype=torch.float64)
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([4.0, 6.0], dtype=torch.float64, requires_grad=True)

    def value(dx: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
        grown = signal * dx**0.3 * dz**0.2
        return evaluate_utility(utility, measurement.measure(grown, 12.0, Design(dx=dx, dz=dz, n_xy=3, n_z=2), numbers))

    assert torch.autograd.gradcheck(value, (dx, dz))


@given(st.floats(0.1, 10), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_resolutions_do_not_depend_on_the_scale(factor, seed):
    cells = torch.rand(8, 3, 3, 1, generator=generator(seed), dtype=torch.float64) + 0.1
    window = Design(dx=2.0, dz=5.0, n_xy=3, n_z=1)
    one, other = (MeasuredEvents(c, c, torch.ones(8), window) for c in (cells, factor * cells))
    for utility in (EnergyResolution(), EnergyResolution(robust=True), PositionResolution()):
        assert utility(other).item() == pytest.approx(utility(one).item(), rel=1e-9)


@pytest.mark.parametrize("utility", [SquaredError(truth="deposited"), Containment(), PositionResolution()])
def test_gradients_stay_finite_for_perfect_events(utility):
    events = in_one_cell([9.0, 9.0], [9.0, 9.0], [10.0, 10.0])
    events.signal.requires_grad_()
    same = MeasuredEvents(events.signal, events.signal, events.energy, events.design)
    evaluate_utility(utility, same).backward()
    assert torch.isfinite(events.signal.grad).all()


def test_a_callable_gets_measured_cells_and_the_design():
    events = in_one_cell([9.0, 8.0], [1.0, 1.0], [10.0, 10.0])
    utility = CustomUtility(lambda cells, design: cells.sum() + design.dx)
    assert utility(events).item() == 19


def my_utility(cells: torch.Tensor, design: Design) -> torch.Tensor:
    return cells.detach().mean()


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (my_utility, "utility 'my_utility' does not depend on the design through torch.*detach"),
        (lambda cells, design: (cells > 1).double().mean(), "has no gradient"),
        (lambda cells, design: cells.sum() * float("nan"), "is nan; check it for divisions by zero"),
        (lambda cells, design: 1 / (cells.sum() * 0), "is inf; check it"),
        (lambda cells, design: cells.sum(0), r"returns a tensor of shape \(3, 3, 1\), expected a tensor without"),
        (lambda cells, design: cells.sum().item(), "returns a float, expected a tensor"),
    ],
)
def test_unusable_values_are_named(function, complaint):
    events = in_one_cell([9.0, 8.0], [1.0, 1.0], [10.0, 10.0])
    events.measured.requires_grad_()
    with pytest.raises(UtilityError, match=complaint) as refusal:
        evaluate_utility(CustomUtility(function), events)
    assert "\n" not in str(refusal.value)


def test_a_gradient_is_missed_only_where_one_is_asked_for():
    events = in_one_cell([9.0, 8.0], [1.0, 1.0], [10.0, 10.0])
    assert evaluate_utility(CustomUtility(my_utility), events).item() > 0
    dx = torch.tensor(2.0, requires_grad=True)
    asked = MeasuredEvents(events.signal, events.measured, events.energy, Design(dx=dx, dz=5.0, n_xy=3, n_z=1))
    with pytest.raises(UtilityError, match="SquaredError"):
        evaluate_utility(SquaredError(), asked)
    with torch.no_grad():
        assert torch.isfinite(evaluate_utility(SquaredError(), asked))
    assert check_value("u", torch.tensor(1.0), need_grad=False) == 1
    with pytest.raises(UtilityError, match="utility 'u'"):
        check_value("u", torch.tensor(1.0), need_grad=True)


def test_an_objective_is_the_weighted_mean_over_energies():
    measurement, window = Measurement(None), Design(dx=2.0, dz=5.0, n_xy=3, n_z=1)
    signals = torch.zeros(2, 4, 3, 3, 1)
    signals[0, :, 1, 1, 0], signals[1, :, 1, 1, 0] = 4.0, 15.0
    for weights, expected in (((1.0, 3.0), (0.8 + 3 * 0.75) / 4), (None, (0.8 + 0.75) / 2)):
        objective = Objective(measurement, Containment(), (5.0, 20.0), weights)
        numbers = objective.draw(4, 3, 1, generator())
        assert objective.value(signals, window, numbers).item() == pytest.approx(expected)
        assert objective.value([*signals], window, numbers).item() == pytest.approx(expected)


def test_an_objective_s_numbers_differ_between_energies_and_repeat_with_the_generator():
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(), (5.0, 20.0))
    one, same = objective.draw(4, 3, 2, generator()), objective.draw(4, 3, 2, generator())
    assert torch.equal(one[1].background.cells, same[1].background.cells)
    assert not torch.equal(one[0].background.cells, one[1].background.cells)


def test_an_objective_s_gradient_agrees_with_finite_differences():
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (8.0, 20.0), (2.0, 1.0))
    numbers = objective.draw(5, 3, 2, generator(), torch.float64)
    base = torch.rand(2, 5, 3, 3, 2, generator=generator(1), dtype=torch.float64)
    dx = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    dz = torch.tensor([4.0, 6.0], dtype=torch.float64, requires_grad=True)

    def value(dx: torch.Tensor, dz: torch.Tensor) -> torch.Tensor:
        return objective.value(base * dx**0.3 * dz**0.2, Design(dx=dx, dz=dz, n_xy=3, n_z=2), numbers)

    assert torch.autograd.gradcheck(value, (dx, dz))


def test_what_does_not_fit_an_objective_is_named():
    measurement = Measurement(None)
    for energies, weights, complaint in (
        ((), None, "energies"),
        ((0.0,), None, "energies"),
        ((1.0,), (1.0, 2.0), "2 weights for 1 energies"),
        ((1.0, 2.0), (0.0, 0.0), "not all zero"),
        ((1.0, 2.0), (1.0, -1.0), "zero or more"),
    ):
        with pytest.raises(InputError, match=complaint):
            Objective(measurement, SquaredError(), energies, weights)
    objective = Objective(measurement, SquaredError(), (1.0, 2.0))
    with pytest.raises(InputError, match="showers of 1 and random numbers of 2 energies, expected 2"):
        objective.value(
            torch.zeros(1, 4, 3, 3, 1), Design(dx=2.0, dz=5.0, n_xy=3, n_z=1), objective.draw(4, 3, 1, generator())
        )
    with pytest.raises(InputError, match="alpha = 0"):
        SquaredError(alpha=0)
    with pytest.raises(InputError, match="truth = 'wished'"):
        SquaredError(truth="wished")


def test_float32_showers_give_float64_values():
    cells = torch.rand(100, 5, 5, 5, generator=generator())
    events = MeasuredEvents(cells, cells + 1e-3, torch.full((100,), 60.0), Design(dx=2.0, dz=5.0))
    for utility in UTILITIES[:-1]:
        assert utility(events).dtype == torch.float64
    error = events.measured.numpy().sum((1, 2, 3), np.float64) - cells.numpy().sum((1, 2, 3), np.float64)
    expected = 1 / (0.01 + (error**2).mean())
    assert SquaredError()(events).item() == pytest.approx(expected, rel=1e-12)


def test_an_objective_draws_its_background_and_takes_cells_of_one_energy() -> None:
    objective = Objective(Measurement(ExponentialBackground()), Containment(), (10.0,))
    design = Design(2.0, (4.0, 6.0), n_xy=3, n_z=2)
    cells = torch.rand(4, 3, 3, 2, generator=torch.Generator().manual_seed(0))
    value = objective.value(cells, design)
    assert value == objective.value([cells], design) == objective.value(cells[None], design)
    assert float(value) == pytest.approx(float(cells.sum((1, 2, 3)).mean()) / 10)
    resolution = Objective(Measurement(ExponentialBackground()), EnergyResolution(), (10.0,))
    by_seed = [resolution.value(cells, design, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert by_seed[0] == by_seed[1] != by_seed[2]
    assert objective.describe()["utility"].startswith("containment")
    assert Objective(Measurement(), lambda events: events.measured.mean(), (1.0,)).describe()["utility"] == "<lambda>"
