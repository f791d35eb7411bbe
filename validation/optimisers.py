"""Optimisers that know simulated showers only, for comparison with the gradient ascent at equal budgets.

    random   uniform in u = ln y over the allowed designs; reports the best value seen
    fd       central differences of the simulation on common showers, with the steps of `quasi_newton`; reports the
             present design
    cma      CMA-ES (Hansen, arXiv 1604.00772) in the unit cube of u between its bounds; reports the distribution's mean
    bayes    Bayesian optimisation, see `bayesian.py`; reports the maximum of the model's mean

All maximise, begin at the same design and evaluate allowed designs only. The caller states the cost of an evaluation,
as a simulation whose showers serve several designs costs less than one for each.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from bayesian import botorch_ready, propose

from calograd.errors import InputError
from calograd.gradients.estimates import Simulate, seed_of
from calograd.objective.constraints import Array
from calograd.objective.space import DesignSpace
from calograd.optimisation.quasi_newton import Point, judge, learn, step
from calograd.optimisation.state import Vector, to_floats

DIFFERENCE, RADIUS, LEAST_RADIUS = 0.1, 0.15, 0.01
"""Finite differences: step to either side, first and smallest trust radius, in logarithms."""
SPREAD = 0.2
"""CMA-ES: first standard deviation as a share of the distance between the bounds."""
POOL = 256
"""Bayesian optimisation: number of designs that cover the space; the first are evaluated before there is a model."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, and the optimiser's answer after it.

    Attributes:
        showers: simulated so far, this evaluation included.
        y: the design, cm.
        value, error: simulated utility and its error.
        incumbent: the answer after it, cm.
    """

    showers: float
    y: Vector
    value: float
    error: float
    incumbent: Vector


@dataclass(frozen=True)
class Trace:
    """All evaluations of an optimiser, in order."""

    name: str
    seed: int
    evaluations: tuple[Evaluation, ...]

    @property
    def incumbent(self) -> Vector:
        """The design it ends with, cm."""
        return self.evaluations[-1].incumbent

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


class _SpentError(Exception):
    """The next evaluation would exceed the budget."""


@dataclass
class Bench:
    """Record of evaluations within a budget.

    Args:
        space: parameters with bounds and budgets.
        simulate: the utility.
        budget: showers that may be simulated.
        each: showers of an evaluation.
        cost: showers that an evaluation counts as.
        seed: of the run; the k-th draw of showers follows from (seed, k).
    """

    space: DesignSpace
    simulate: Simulate
    budget: float
    each: int
    cost: float
    seed: int
    u: list[Array] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    incumbents: list[Array] = field(default_factory=list)

    def affordable(self, n: int) -> bool:
        """Return whether n more evaluations are within the budget."""
        return (len(self.u) + n) * self.cost <= self.budget * (1 + 1e-12)

    def evaluate(self, u: Array, incumbent: Array | None = None, showers_of: int | None = None) -> float:
        """Return the value at an allowed u; ``incumbent``, by default u itself, is the answer after it.

        Evaluations with the same ``showers_of`` are on the same showers; by default they are on their own.
        """
        if not self.affordable(1):
            raise _SpentError
        y = self.space.from_log(u)
        key = len(self.u) if showers_of is None else showers_of
        found = self.simulate(y, self.each, seed_of(self.seed, key))
        if not (isfinite(found.value) and isfinite(found.error)):
            raise InputError(f"the simulated utility at y = {y.tolist()} cm is {found.value} +- {found.error}")
        self.u.append(u)
        self.values.append(float(found.value))
        self.errors.append(float(found.error))
        self.incumbents.append(u if incumbent is None else incumbent)
        return self.values[-1]

    def trace(self, name: str) -> Trace:
        """Return the record."""
        designs = [to_floats(self.space.from_log(u)) for u in self.u]
        answers = [to_floats(self.space.from_log(u)) for u in self.incumbents]
        rows = zip(designs, self.values, self.errors, answers, strict=True)
        return Trace(name, self.seed, tuple(Evaluation(self.cost * (k + 1), *row) for k, row in enumerate(rows)))


def run(
    name: str,
    space: DesignSpace,
    start: Array,
    simulate: Simulate,
    budget_showers: float,
    showers_per_evaluation: int,
    seed: int,
    *,
    cost: float | None = None,
) -> Trace:
    """Optimise with simulated showers only, until the budget does not allow another step.

    A step is a gradient of fd, a generation of cma, else an evaluation.

    Args:
        name: "random", "fd", "cma" or "bayes".
        space: parameters with bounds and budgets.
        start: y, shape (p,), cm.
        simulate: the utility on simulated showers.
        budget_showers: showers that may be simulated.
        showers_per_evaluation: asked of ``simulate``.
        seed: of the optimiser and of the showers.
        cost: showers that an evaluation counts as; ``showers_per_evaluation`` by default.

    Raises:
        InputError: no such optimiser or its package is missing, a budget too small for its first step, budgets of the
            space that cannot be met or a start that is not allowed, a utility that is not finite.
    """
    if name not in METHODS:
        raise InputError(f"no optimiser '{name}'; known: {', '.join(METHODS)}")
    method, least = METHODS[name]
    start = np.asarray(start, dtype=np.float64)
    space.check_start(start)
    cost = showers_per_evaluation if cost is None else cost
    bench = Bench(space, simulate, budget_showers, showers_per_evaluation, cost, seed)
    first = least(len(start))
    if not (cost > 0 and showers_per_evaluation > 0 and bench.affordable(first)):
        raise InputError(
            f"{name}: a budget of {budget_showers:g} showers at {cost:g} an evaluation, expected at least "
            f"{first} evaluations"
        )
    with suppress(_SpentError):
        method(bench, space.project(space.to_log(start)))
    return bench.trace(name)


def _random(bench: Bench, start: Array) -> None:
    generator = np.random.default_rng(seed_of(bench.seed, 0, 1))
    best, top, u = start, -np.inf, start
    while True:
        value = bench.evaluate(u)
        if value > top:
            best, top = u, value
        bench.incumbents[-1] = best
        u = draw(bench.space, lambda: generator.random(len(start)))


def draw(space: DesignSpace, unit: Callable[[], Array]) -> Array:
    """Return the first allowed of many points of the unit cube, or the allowed point nearest to the last of them."""
    lower, width = space.feasible.lower, space.feasible.upper - space.feasible.lower
    for _ in range(1000):
        u = lower + width * unit()
        if space.feasible.excess(u) <= 0:
            break
    return space.project(u)


def _differences(bench: Bench, start: Array) -> None:
    """Ascend by finite differences.

    The gradient g solves (u_i+ - u_i-) . g = U(u_i+) - U(u_i-), with steps to either side within what is allowed.
    """
    u, radius = start, RADIUS
    before: Point | None = None
    curvature: Array | None = None
    while bench.affordable(2 * len(u)):
        number, moves, changes = len(bench.u), [], []
        for direction in np.eye(len(u)):
            sides = [bench.space.project(u + sign * DIFFERENCE * direction) for sign in (-1, 1)]
            values = [bench.evaluate(side, u, number) for side in sides]
            moves.append(sides[1] - sides[0])
            changes.append(values[1] - values[0])
        gradient = np.linalg.lstsq(np.array(moves), np.array(changes), rcond=1e-9)[0]
        now = Point(u, gradient, np.zeros_like(u))
        curvature = learn(curvature, before, now, radius)
        if before is not None:
            lost, radius = judge(before, now, radius, 2 * RADIUS)
            now, radius = before if lost else now, max(radius, LEAST_RADIUS)
        before = now
        u = bench.space.project(now.u + step(bench.space.feasible, now, curvature, radius).d)
        bench.incumbents[-1] = u


def _population(p: int) -> int:
    """Return the evaluations of a generation of CMA-ES by default."""
    return 4 + int(3 * np.log(p))


def _evolution(bench: Bench, start: Array) -> None:
    try:
        import cma
    except ImportError as error:
        raise InputError("CMA-ES needs cma: pip install --group baselines") from error
    generator = np.random.default_rng(seed_of(bench.seed, 0, 2))
    lower, width = bench.space.feasible.lower, bench.space.feasible.upper - bench.space.feasible.lower
    options = {
        "verbose": -9,
        "seed": np.nan,  # numpy's global generator is left alone
        "randn": lambda *shape: generator.standard_normal(shape),
        "popsize": _population(len(start)),
    }
    search, answer = cma.CMAEvolutionStrategy((start - lower) / width, SPREAD, options), start
    while bench.affordable(_population(len(start))):
        points, values = [], []
        for x in search.ask():
            u = bench.space.project(lower + width * x)
            values.append(bench.evaluate(u, answer))
            points.append(x if (u == lower + width * x).all() else (u - lower) / width)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="cma")  # of its step size and of points it did not draw
            search.tell(points, [-value for value in values])
        answer = bench.space.project(lower + width * search.mean)
        bench.incumbents[-1] = answer


def _bayes(bench: Bench, start: Array) -> None:
    with botorch_ready():  # or refuse before anything is simulated
        pass
    seed = seed_of(bench.seed, 0, 3)
    sequence = torch.quasirandom.SobolEngine(len(start), scramble=True, seed=seed)  # type: ignore[no-untyped-call]

    def unit() -> Array:
        return np.asarray(sequence.draw(1, dtype=torch.float64)[0])

    pool, u = np.array([draw(bench.space, unit) for _ in range(POOL)]), start
    while bench.affordable(1):
        bench.evaluate(u)
        known = len(bench.u)
        if known < _initial(len(start)):
            bench.incumbents[-1], u = bench.u[int(np.argmax(bench.values))], pool[known]
        else:
            seed = seed_of(bench.seed, known, 3)
            bench.incumbents[-1], u = propose(bench.space, pool, bench.u, bench.values, bench.errors, seed)


def _initial(p: int) -> int:
    """Return the number of designs evaluated before there is a model."""
    return 2 * p + 1


METHODS: dict[str, tuple[Callable[[Bench, Array], None], Callable[[int], int]]] = {
    "random": (_random, lambda p: 1),  # noqa: ARG005
    "fd": (_differences, lambda p: 2 * p),
    "cma": (_evolution, _population),
    "bayes": (_bayes, _initial),
}
