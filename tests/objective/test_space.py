from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.feasible_sets import SEEDS, check_allowed, random_allowed, random_set
from helpers.hills import make_space
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from calograd.detector.material import MATERIALS
from calograd.errors import InputError
from calograd.io.toml import parse_table
from calograd.objective.constraints import Budget
from calograd.objective.space import DesignSpace, SpaceConfig, check_trained_range
from calograd.surrogate import Surrogate

TWO: dict[str, Any] = {"start": {"dx": 3, "dz": 8}, "bounds": {"dx": [1, 5], "dz": [4, 15]}}
SIX: dict[str, Any] = TWO | {"parameters": ["dx", "dz_1", "dz_2", "dz_3", "dz_4", "dz_5"]}


def random_space(seed: int, p: int) -> tuple[DesignSpace, np.random.Generator]:
    numbers = np.random.default_rng(seed)
    feasible = random_set(numbers, p)
    names = ("dx", "dz") if p == 2 else ("dx", *(f"dz_{k + 1}" for k in range(p - 1)))
    lower, upper = tuple(np.exp(feasible.lower).tolist()), tuple(np.exp(feasible.upper).tolist())
    budgets = [Budget(b.name, b.weights, b.limit * (1 + 1e-12), b.power) for b in feasible.budgets]
    return DesignSpace(names, lower, upper, tuple(budgets), n_z=5 if p == 2 else p - 1), numbers


def test_two_parameters_make_equal_layers_and_pass_gradients() -> None:
    y = torch.tensor([2.5, 6.0], dtype=torch.float64, requires_grad=True)
    design = make_space(2).design(y)
    assert design.dz.tolist() == [6.0] * 5
    (slope,) = torch.autograd.grad(design.dx * design.dz.sum(-1), y)
    assert slope.tolist() == [30.0, 12.5]


def test_six_parameters_make_a_depth_each() -> None:
    y = np.array([2.5, 4.0, 5.0, 6.0, 7.0, 8.0])
    design = make_space(6).design(y)
    assert float(design.dx) == 2.5
    assert design.dz.tolist() == y[1:].tolist()
    with pytest.raises(InputError, match=r"parameters of shape \(2,\), expected \(6,\)"):
        make_space(6).design(y[:2])


def test_one_layer_has_one_depth_in_either_layout() -> None:
    for names in (("dx", "dz"), ("dx", "dz_1")):
        space = DesignSpace(names, (1.0, 4.0), (5.0, 15.0), n_z=1)
        assert space.design(np.array([2.0, 9.0])).dz.tolist() == [9.0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"names": ("dz", "dx")}, 'expected \\["dx", "dz"\\], or .* for each of 5 layers'),
        ({"names": ("dx", "dz_1")}, "for each of 5 layers"),
        ({"lower": (1.0,)}, "1 lower and 2 upper bounds for 2 names"),
        ({"lower": (0.0, 4.0)}, r"bounds of dx = \[0, 5\] cm, expected 0 < lower < upper"),
        ({"upper": (1.0, 15.0)}, r"bounds of dx = \[1, 1\] cm"),
        ({"upper": (5.0, float("nan"))}, "bounds of dz"),
        ({"budgets": (Budget("deep", (0.0, 1.0, 1.0), 9.0),)}, "deep has 3 weights for 2 parameters"),
    ],
)
def test_spaces_that_cannot_be(change: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = {"names": ("dx", "dz"), "lower": (1.0, 4.0), "upper": (5.0, 15.0)}
    with pytest.raises(InputError, match=complaint):
        DesignSpace(**(given | change))


@settings(max_examples=100, deadline=None)
@given(SEEDS, st.sampled_from([2, 3, 6]), st.sampled_from([0.1, 1.0, 10.0]))
def test_projections_are_allowed_and_idempotent_and_nearest(seed: int, p: int, reach: float) -> None:
    space, numbers = random_space(seed, p)
    feasible = space.feasible
    u = feasible.lower + reach * numbers.standard_normal(p)
    v = space.project(u)
    check_allowed(feasible, v)
    assert (space.project(v) == v).all()
    for _ in range(40):  # no allowed point is on u's side of the plane through v across the way from u to v
        z = random_allowed(feasible, numbers, v)
        assert (u - v) @ (z - v) <= 1e-8 * max(1.0, np.linalg.norm(u - v)) * max(1e-2, np.linalg.norm(z - v))


@settings(deadline=None)
@given(SEEDS, st.sampled_from([2, 6]))
def test_allowed_points_are_not_moved(seed: int, p: int) -> None:
    space, numbers = random_space(seed, p)
    u = random_allowed(space.feasible, numbers, space.feasible.lower)
    assert (space.project(u) == u).all()


def test_projection_on_a_depth_is_along_it() -> None:
    u = make_space(2, max_depth=30).project(np.log([2.0, 12.0]))
    np.testing.assert_allclose(np.exp(u), [2, 6], rtol=1e-8)


def test_projection_on_a_volume_against_a_search_along_it() -> None:
    target = np.log([4.0, 12.0])

    def on_surface(dx: float) -> np.ndarray:
        return np.log([dx, 5000 / (25 * 5 * dx**2)])

    best = minimize_scalar(lambda dx: float(np.sum((on_surface(dx) - target) ** 2)), (1.5, 3), options={"xtol": 1e-12})
    u = make_space(2, max_volume=5000).project(target)
    np.testing.assert_allclose(u, on_surface(best.x), atol=1e-6)


def test_logarithms_there_and_back_stay_within_bounds() -> None:
    space = DesignSpace(("dx", "dz"), (1.1, 4.3), (4.7, 14.9))
    for y in (np.array(space.lower), np.array(space.upper), np.array([2.0, 7.7])):
        back = space.from_log(space.to_log(y))
        np.testing.assert_allclose(back, y, rtol=1e-15)
        space.check_start(back)
        assert (back >= space.lower).all()
        assert (back <= space.upper).all()


def test_hits_are_named() -> None:
    space = make_space(2, max_depth=30, max_volume=5000)
    assert space.active_constraints(np.log([2.0, 5.0])) == ()
    assert space.active_constraints(np.log([1.0, 6.0])) == ("dx at its lower bound, 1 cm", "max_depth reached, 30 cm")
    assert space.active_constraints(np.log([5.0, 1.6])) == (
        "dx at its upper bound, 5 cm",
        "dz at its lower bound, 4 cm",
        "max_volume reached, 5000 cm3",
    )


def test_budgets_that_no_design_meets() -> None:
    make_space(2, max_depth=20, max_volume=500).check_feasible()
    with pytest.raises(InputError, match=r"max_depth = 19 cm cannot be met: the smallest .* has 20 cm; raise it or"):
        make_space(6, max_depth=19).check_feasible()
    with pytest.raises(InputError, match=r"max_volume = 400 cm3 cannot be met: the smallest .* has 500 cm3"):
        make_space(2, max_volume=400).check_feasible()


@pytest.mark.parametrize(
    ("y", "complaint"),
    [
        ([6.0, 5.0], r"start: dx = 6 cm is outside of its bounds, \[1, 5\] cm"),
        ([2.0, 5.0, 5.0], "expected 2 positive numbers, dx, dz"),
        ([2.0, -5.0], "expected 2 positive numbers"),
        ([2.0, float("nan")], "expected 2 positive numbers"),
        ([2.0, 7.0], "start: 35 cm is above max_depth = 30 cm; start from a smaller design or raise it"),
    ],
)
def test_starts_that_are_not_allowed(y: list[float], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make_space(2, max_depth=30).check_start(np.array(y))


def test_a_configuration_makes_a_space() -> None:
    config = parse_table(SpaceConfig, SIX | {"max_depth": 50, "max_volume": 8000}, "run.toml")
    space = config.space("PbWO4", n_xy=3)
    assert space.names == tuple(SIX["parameters"])
    assert (space.lower, space.upper) == ((1, 4, 4, 4, 4, 4), (5, 15, 15, 15, 15, 15))
    assert config.start_values().tolist() == [3, 8, 8, 8, 8, 8]
    u = np.log([2.0, 4, 5, 6, 7, 8])
    assert [b.amount(u) for b in space.budgets] == pytest.approx([30, 9 * 4 * 30])
    assert space.design(np.exp(u)).material.name == "PbWO4"
    two = parse_table(SpaceConfig, TWO | {"max_depth": 50, "max_volume": 8000}, "run.toml").space(n_z=4)
    assert [b.amount(np.log([2.0, 6.0])) for b in two.budgets] == pytest.approx([24, 25 * 4 * 24])


def test_a_layer_may_have_its_own_start_and_bounds() -> None:
    own = {"start": {"dx": 3, "dz": 8, "dz_2": 9}, "bounds": {"dx": [1, 5], "dz": [4, 15], "dz_5": [5, 10]}}
    config = parse_table(SpaceConfig, SIX | own, "run.toml")
    assert config.start_values().tolist() == [3, 8, 9, 8, 8, 8]
    assert config.space().upper == (5, 15, 15, 15, 15, 10)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"max_dept": 3}, "unknown key 'max_dept'; did you mean 'max_depth'?"),
        ({"parameters": ["dx", "dy"]}, 'expected ["dx", "dz"], or ["dx", "dz_1", ...] with one depth for every layer'),
        ({"parameters": ["dx", "dz_1", "dz_3"]}, "one depth for every layer"),
        ({"start": {"dx": 3}}, "start: dz is missing"),
        ({"start": {"dx": 3, "dz": 8, "dzz": 8}}, "unknown parameter 'start.dzz'; did you mean 'dz'?"),
        ({"start": {"dx": 3, "dz": 8, "qqq": 8}}, "unknown parameter 'start.qqq'; known here: dx, dz"),
        ({"start": {"dx": -3, "dz": 8}}, "start.dx = -3 cm: expected a positive number"),
        ({"bounds": {"dz": [4, 15]}}, "bounds: dx is missing"),
        ({"bounds": {"dx": [5, 1], "dz": [4, 15]}}, "bounds.dx = [5, 1] cm: expected positive numbers, lower end"),
        ({"bounds": {"dx": [1, float("inf")], "dz": [4, 15]}}, "finite"),
        ({"max_depth": 0}, "max_depth: Input should be greater than 0"),
    ],
)
def test_configurations_that_do_not_fit(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_table(SpaceConfig, TWO | change, "run.toml")
    assert str(refusal.value).startswith("run.toml: ")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_configuration_of_an_empty_space_or_of_other_layers_is_refused() -> None:
    with pytest.raises(InputError, match="max_depth = 10 cm cannot be met"):
        SpaceConfig(**TWO, max_depth=10).space()
    with pytest.raises(InputError, match="for each of 4 layers"):
        SpaceConfig(**SIX).space(n_z=4)


@pytest.mark.parametrize("names", [("dx", "dz"), ("dx", "dz_1", "dz_2")])
def test_a_density_may_be_a_parameter(names: tuple[str, ...]) -> None:
    lower, upper = (1.0, *(4.0 for _ in names[1:]), 6.0), (5.0, *(15.0 for _ in names[1:]), 9.0)
    space = DesignSpace((*names, "density"), lower, upper, material="PbWO4", n_z=2)
    y = torch.tensor([2.0, *(6.0 for _ in names[1:]), 7.0], dtype=torch.float64, requires_grad=True)
    design = space.design(y)
    assert design.dz.tolist() == [6.0, 6.0]
    slope = torch.autograd.grad(design.material.radiation_length, y)[0]  # X0 goes as 1 / density
    assert slope[:-1].eq(0).all()
    assert float(slope[-1]) == pytest.approx(-MATERIALS["PbWO4"].radiation_length * 8.28 / 7.0**2)
    assert space.material.name == "PbWO4"
    assert space.active_constraints(np.log([2.0, *(6.0 for _ in names[1:]), 9.0])) == (
        "density at its upper bound, 9 g/cm3",
    )


def test_a_configuration_with_a_density() -> None:
    own = {
        "parameters": ["dx", "dz", "density"], "start": {"dx": 3, "dz": 8, "density": 7.5}, "max_depth": 50,
        "bounds": {"dx": [1, 5], "dz": [4, 15], "density": [6, 9]}, "material": "PbWO4",
    }  # fmt: skip
    config = parse_table(SpaceConfig, own, "run.toml")
    space = config.space(config.material or "PbF2")
    assert config.start_values().tolist() == [3, 8, 7.5]
    assert [b.amount(np.log([3.0, 8.0, 7.5])) for b in space.budgets] == pytest.approx([40])
    with pytest.raises(InputError, match="start: density is missing"):
        parse_table(SpaceConfig, own | {"start": {"dx": 3, "dz": 8}}, "run.toml")
    with pytest.raises(InputError, match=r"bounds\.density = \[9, 6\] g/cm3: expected positive numbers"):
        parse_table(SpaceConfig, own | {"bounds": {"dx": [1, 5], "dz": [4, 15], "density": [9, 6]}}, "run.toml")


def test_bounds_have_to_be_within_what_was_trained_on_at_every_density(surrogate: Surrogate) -> None:
    def check(upper: float, densities: tuple[float, float], trained: Surrogate) -> None:
        space = DesignSpace(
            ("dx", "dz", "density"), (1.6, 6.0, densities[0]), (upper, 12.0, densities[1]), (), "PbF2", 3, 2
        )
        check_trained_range(space, trained)

    lead = MATERIALS["PbF2"]
    sizes = {"units": "scaled", "dx": (0.5, 2.0), "dz": (4.0, 16.0)}
    architecture = surrogate.card.architecture | {"material_numbers": ("critical_energy",)}
    trained = surrogate.card.designs.model_copy(update=sizes)
    card = surrogate.card.model_copy(update={"trained": trained, "architecture": architecture})
    model = copy.deepcopy(surrogate.model)
    model.architecture = replace(model.architecture, material_numbers=("critical_energy",))
    scaled = Surrogate(model, card)
    check(2 * lead.moliere_radius * 7.77 / 8.5, (7.0, 8.5), scaled)
    with pytest.raises(InputError, match=r"bounds of dx = \[1\.6, 4\.3\] cm reach beyond what small was trained"):
        check(4.3, (7.0, 8.5), scaled)
    with pytest.raises(InputError, match=r"bounds of density reach to 7 g/cm3, small was not trained on PbF2 of that"):
        check(4.0, (7.0, 8.5), surrogate)
