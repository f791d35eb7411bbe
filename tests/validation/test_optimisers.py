from __future__ import annotations

import json
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers.hills import Hill, make_space, parabola
from optimisers import METHODS, Trace, run

from calograd.errors import InputError
from calograd.gradients.estimates import SimulatedUtility
from calograd.objective.constraints import TOLERANCE, Array
from calograd.objective.space import DesignSpace

START = np.array([1.5, 5.0])
TOP = np.log([3.0, 9.0])
LIGHT = ("random", "fd", "cma")


def hill(noise: float = 0.05, top: Array = TOP) -> Hill:
    return parabola(top, np.diag([1.0, 3.0]), noise)


def search(name: str, space: DesignSpace | None = None, evaluations: int = 40, seed: int = 0, **settings: Any) -> Trace:
    """With 100 showers an evaluation, of a standard error of 0.005."""
    arguments: dict[str, Any] = {"simulate": hill().simulate} | settings
    return run(name, space or make_space(2), START, **arguments, budget_showers=100 * evaluations,
               showers_per_evaluation=100, seed=seed)  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, Trace]:
    """A trace of every method, under a depth that excludes the top."""
    space = make_space(2, max_depth=35.0)
    return {name: search(name, space, 8 if name == "bayes" else 40) for name in METHODS}


@pytest.mark.parametrize("name", METHODS)
def test_it_improves_over_the_start_within_what_is_allowed(found: dict[str, Trace], name: str) -> None:
    trace, space = found[name], make_space(2, max_depth=35.0)
    best = hill().function(space.project(np.log([3.0, 7.0])))
    reached = [hill().function(np.log(e.incumbent)) for e in trace.evaluations]
    assert reached[-1] > best + 0.35 * (hill().function(np.log(START)) - best)
    for e in trace.evaluations:
        for y in (e.y, e.incumbent):
            assert space.feasible.excess(np.log(y)) <= 2 * TOLERANCE
            assert (np.array(y) >= space.lower).all()
            assert (np.array(y) <= space.upper).all()


@pytest.mark.parametrize("name", METHODS)
def test_it_spends_its_budget_and_not_more(found: dict[str, Trace], name: str) -> None:
    evaluations, budget = found[name].evaluations, 800 if name == "bayes" else 4000
    spent = [e.showers for e in evaluations]
    assert spent == [100 * (k + 1) for k in range(len(spent))]
    generation = {"cma": 600, "fd": 400}.get(name, 100)
    assert budget - generation < spent[-1] <= budget
    assert all(e.error == pytest.approx(0.005) for e in evaluations)


@pytest.mark.parametrize("name", LIGHT)
def test_the_same_seed_gives_the_same_trace_another_seed_another(name: str) -> None:
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # type: ignore[index,union-attr]  # noqa: NPY002
    traces = [search(name, evaluations=15, seed=seed) for seed in (1, 1, 2)]
    assert traces[0] == traces[1]
    assert [e.value for e in traces[0].evaluations] != [e.value for e in traces[2].evaluations]
    assert (np.random.get_state()[1] == before[0]).all()  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), before[1])


def test_bayesian_optimisation_is_reproducible_and_leaves_global_numbers_alone(found: dict[str, Trace]) -> None:
    before = torch.random.get_rng_state()
    torch.manual_seed(5)
    space = make_space(2, max_depth=35.0)
    state = torch.random.get_rng_state()
    assert search("bayes", space, 8) == found["bayes"]
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.random.set_rng_state(before)


def test_bayesian_optimisation_needs_few_evaluations_and_knows_no_unit() -> None:
    """Eleven evaluations of a utility without noise and in an odd unit."""
    exact = parabola(TOP, np.diag([1.0, 3.0]), unit=1e-10)
    trace = search("bayes", evaluations=11, simulate=exact.simulate)
    np.testing.assert_allclose(trace.incumbent, [3, 9], rtol=0.1)


def test_the_best_seen_is_what_random_search_reports(found: dict[str, Trace]) -> None:
    evaluations = found["random"].evaluations
    assert evaluations[0].y == pytest.approx(tuple(START))
    for k, e in enumerate(evaluations):
        best = max(evaluations[: k + 1], key=lambda e: e.value)
        assert e.incumbent == best.y


def test_cma_reports_the_mean_of_its_distribution_after_every_generation(found: dict[str, Trace]) -> None:
    evaluations = found["cma"].evaluations
    reported = [e.incumbent for e in evaluations]
    assert [a != b for a, b in pairwise(reported)] == [k % 6 == 4 for k in range(len(reported) - 1)]
    assert not {e.y for e in evaluations} & set(reported[5:])


def test_finite_differences_share_showers_and_report_the_present_design() -> None:
    simulator = hill()
    trace = search("fd", evaluations=12, simulate=simulator.simulate)
    seeds = [call[3] for call in simulator.calls]
    assert [len(set(seeds[k : k + 4])) for k in (0, 4, 8)] == [1, 1, 1]
    assert len(set(seeds)) == 3
    first = trace.evaluations[:4]
    np.testing.assert_allclose(
        np.log([e.y for e in first]) - np.log(START), 0.1 * np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])
    )
    assert [e.incumbent == pytest.approx(tuple(START)) for e in first] == [True, True, True, False]
    assert len({e.incumbent for e in trace.evaluations[3:7]}) == 1


def test_finite_differences_are_exact_for_a_parabola_also_at_bounds_and_budgets() -> None:
    """On common showers the noise of a parabola cancels: the ascent reaches the best allowed design."""
    space = make_space(6, max_depth=35.0)
    top = np.log([0.8, 7.0, 8.0, 9.0, 10.0, 3.0])
    simulator = parabola(top, np.eye(6), noise=10.0)
    trace = run("fd", space, np.array([1.2, 5.0, 5.0, 5.0, 5.0, 5.0]), simulator.simulate, 300, 1, 0)
    np.testing.assert_allclose(np.log(trace.incumbent), space.project(top), atol=0.01)


def test_finite_differences_go_on_in_noise() -> None:
    """Where every other step seems to lose, the radius does not shrink to nothing."""

    def simulate(y: Array, n: int, seed: int) -> SimulatedUtility:
        return SimulatedUtility(np.random.default_rng([seed, int(1e9 * y.sum())]).normal(), 1.0, n)

    trace = search("fd", evaluations=200, simulate=simulate)
    designs = np.log([e.incumbent for e in trace.evaluations[3::4]])
    assert np.linalg.norm(np.diff(designs, axis=0), axis=1)[-10:].max() > 5e-4


def test_the_caller_says_what_an_evaluation_costs() -> None:
    trace = search("fd", evaluations=8, cost=25.0)
    assert [e.showers for e in trace.evaluations] == [25.0 * (k + 1) for k in range(32)]


def test_a_trace_is_plain_data(found: dict[str, Trace]) -> None:
    stored = json.loads(json.dumps(found["cma"].to_dict()))
    assert stored["name"] == "cma"
    assert stored["seed"] == 0
    assert stored["evaluations"][-1]["incumbent"] == list(found["cma"].incumbent)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": "sgd"}, "no optimiser 'sgd'; known: random, fd, cma, bayes"),
        (
            {"name": "fd", "evaluations": 3},
            "fd: a budget of 300 showers at 100 an evaluation, expected at least 4 eval",
        ),
        ({"name": "cma", "evaluations": 5}, "expected at least 6 evaluations"),
        ({"name": "bayes", "evaluations": 4}, "expected at least 5 evaluations"),
        ({"cost": 0.0}, "at 0 an evaluation"),
        ({"space": make_space(2, max_depth=19)}, "max_depth = 19 cm cannot be met"),
        ({"space": make_space(2, max_depth=22)}, "start: 25 cm is above max_depth = 22 cm"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(change: dict[str, Any], complaint: str) -> None:
    simulator = hill()
    with pytest.raises(InputError, match=complaint):
        search(**({"name": "random", "simulate": simulator.simulate} | change))
    assert simulator.calls == []


@pytest.mark.parametrize(("name", "package"), [("cma", "cma"), ("bayes", "botorch")])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    for module in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    simulator = hill()
    with pytest.raises(InputError, match=rf"needs {package}: pip install --group baselines"):
        search(name, simulate=simulator.simulate)
    assert simulator.calls == []


def test_a_utility_that_is_no_number_is_named() -> None:
    with pytest.raises(InputError, match=r"the simulated utility at y = \[1\.5, .*\] cm is nan \+- 1\.0"):
        search("random", simulate=lambda y, n, seed: SimulatedUtility(np.nan, 1.0, n))
