"""Optimisation of stacks of plates: every thickness free, within budgets, to an optimum that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_plates import tiny_plates
from helpers.toy_stacks import ABSORBER, ACTIVE, DESIGN, LAYERS, SHARES, toy_surrogate
from scipy.optimize import minimize

from calograd import LearntResolution, MeanEnergy, SamplingDesign, StackObjective, VisibleResolution
from calograd.errors import InputError
from calograd.gradients.stacks import resolution_utility, stack_gradient
from calograd.objective.stack_space import StackSpace, plate_names
from calograd.optimisation.ascent import AscentConfig, ascend

ENDS: dict[str, Any] = {"absorber": (0.25, 0.45), "active": (0.3, 0.6)}


def log_resolution(y: np.ndarray) -> float:
    """Truth: ln(sigma/E_vis) of the toy showers in a stack."""
    a, t, c = np.log(y[:LAYERS] / ABSORBER).mean(), np.log(y[LAYERS:] / ACTIVE).mean(), SHARES.numpy() * y[LAYERS:]
    return float(0.5 * a - 0.4 * t + 0.5 * np.log(0.07**2 + 0.01 * (c**2).sum() / c.sum() ** 2))


def test_the_best_stack_within_a_depth(tmp_path: Path) -> None:
    """Every thickness is free. The optimum is that of scipy for the known function."""
    space, depth = StackSpace.around(DESIGN, **ENDS, max_depth=3.5), 3.5
    objective = StackObjective(VisibleResolution(), energies=(2.0, 10.0))
    gradient = resolution_utility(toy_surrogate(), space, objective, showers=1000)
    config = AscentConfig(steps=40, draws=4, max_draws=16, multi_start=0, seed=1)
    state = ascend(space, space.start, gradient, config, output=tmp_path / "ascent.json")
    found = np.array(state.y)
    best = minimize(
        log_resolution, space.start, bounds=list(zip(space.lower, space.upper, strict=True)), method="SLSQP",
        constraints={"type": "ineq", "fun": lambda y: depth - y.sum()},
    )  # fmt: skip
    start, end = log_resolution(space.start), log_resolution(found)
    assert found.sum() == pytest.approx(depth, rel=1e-3)
    np.testing.assert_allclose(found[:LAYERS], 0.25, rtol=0.01)
    assert start - end > 0.97 * (start - best.fun) > 0.1
    assert any("max_depth reached" in each for each in space.active_constraints(np.log(found), 1e-4))


def test_the_utility_is_minus_the_logarithm_of_the_quantity() -> None:
    """Over the energies, with derivatives of every thickness, or of one of all plates of a kind."""
    surrogate, stack = tiny_plates(), SamplingDesign("Pb", "lAr", 0.3, 0.4, 4)
    objective = StackObjective(LearntResolution(), energies=(5.0, 20.0))
    made = stack_gradient(surrogate, stack, (5.0, 20.0), objective, showers=20, draws=3, seed=2, steps=1)
    values = -np.mean([np.log(each.values) for each in made.gradients], axis=0)
    slopes = -np.mean([each.draws / each.values[:, None] for each in made.gradients], axis=0).mean(0)
    for per_layer in (True, False):
        space = StackSpace.around(stack, (0.2, 0.5), (0.2, 0.6), per_layer=per_layer)
        found = resolution_utility(surrogate, space, objective, showers=20, steps=1)(space.start, 3, 2)
        assert found.names == space.names
        assert found.value == pytest.approx(values.mean(), rel=1e-5)
        expected = slopes if per_layer else slopes.reshape(2, 4).sum(1)
        np.testing.assert_allclose(found.gradient, expected, rtol=1e-3, atol=1e-6)


def test_layouts_and_budgets() -> None:
    stack = SamplingDesign("W", "Si", [0.2, 0.3, 0.4], 0.05, gap_thickness=0.1)
    every = StackSpace.around(stack, (0.1, 0.5), (0.02, 0.1), max_depth=1.6, max_absorber=1.0, max_active=0.2)
    assert (
        every.names == plate_names(3) == ("absorber_0", "absorber_1", "absorber_2", "active_0", "active_1", "active_2")
    )
    np.testing.assert_allclose(every.start, [0.2, 0.3, 0.4, 0.05, 0.05, 0.05], rtol=1e-6)
    u = np.log(every.start)
    assert [budget.amount(u) for budget in every.budgets] == pytest.approx([1.05, 0.9, 0.15])
    assert [budget.limit for budget in every.budgets] == pytest.approx([1.3, 1.0, 0.2])  # the depth without its gaps
    one = StackSpace.around(stack, (0.1, 0.5), (0.02, 0.1), per_layer=False, max_depth=1.6)
    assert one.names == ("absorber", "active")
    assert one.budgets[0].amount(np.log(one.start)) == pytest.approx(1.05)
    y = torch.tensor([0.3, 0.06], dtype=torch.float64, requires_grad=True)
    design = one.design(y)
    assert design.depth.item() == pytest.approx(3 * 0.36 + 0.3)
    assert torch.autograd.grad(design.depth, y)[0].tolist() == pytest.approx([3.0, 3.0])
    assert every.design(every.start) == SamplingDesign(
        "W", "Si", torch.tensor(every.start[:3]), torch.tensor(every.start[3:]), gap_thickness=stack.gap_thickness
    )
    assert every.to_dict()["layers"] == 3


def test_refusals() -> None:
    space = StackSpace.around(DESIGN, **ENDS)
    cases: tuple[tuple[Any, str], ...] = (
        (lambda: StackSpace.around(DESIGN, **ENDS, max_depth=2.0), "max_depth = 2 cm cannot be met: the smallest"),
        (lambda: StackSpace.around(DESIGN, (0.5, 0.4), (0.3, 0.6)), "expected 0 < lower < upper"),
        (lambda: StackSpace.around(DESIGN.expand(2), **ENDS), "2 are given; take one of them"),
        (lambda: space.design(np.ones(3)), r"parameters of shape \(3,\), expected \(10,\)"),
        (lambda: StackSpace(("dx", "dz"), (1, 1), (2, 2), stack=DESIGN), "expected absorber and active, or one of"),
        (lambda: resolution_utility(toy_surrogate(), space, StackObjective(MeanEnergy())), "one quantity and its"),
    )  # fmt: skip
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
