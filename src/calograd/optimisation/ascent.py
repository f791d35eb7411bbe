"""Gradient ascent of a utility over designs: a surrogate gives the gradients, simulated showers check them.

In u = ln y, with bounds, budgets and a trust radius (`calograd.optimisation.quasi_newton` defines a step):

1. The gradient at the present design is averaged over more and more draws. This ends where the gain of the next step
   is known to a stated precision, or the draws are used up.
2. If the last step lost by the gradients, it is undone and the radius is halved.
3. Every few steps, and before the end, a check compares the gain since the last checked design with simulated
   showers, common to both designs. The gains disagree if they are more than three standard deviations apart and their
   ratio is outside of [1/2, 2]. They also disagree if the simulated gain is negative by more than two. Then the radius
   is halved, and the ascent returns to the checked design unless simulated showers gained, too. Where they agree, the
   radius may grow.
4. With an `Adaptation` every step begins with a surrogate that is adapted to the detector there. If it differs from
   that of the step before, the gradient before is computed again with it, so that one surrogate is compared with
   itself. No check is made that would exceed the budget of simulated showers.
5. The ascent ends where gradients of pure noise would promise as large a gain: 1 + sqrt(p) standard errors. It also
   ends where the step is shorter than the tolerance, where checks refused steps down to the tolerance, or after the
   last step.
6. Where it ends by itself, one multi-start searches for a better design elsewhere
   (`calograd.optimisation.multi_start`). If there is one, the ascent goes on from there. In the end simulated showers
   decide which of the two ends is better; without checks the surrogate does.

Seeds follow from (seed, step), and the state is on disk after every step. An ascent that is resumed ends with the same
numbers as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from calograd.errors import InputError, Interrupted
from calograd.gradients.estimates import (
    AnyGradient,
    GradientFunction,
    SimulatePair,
    ValuesFunction,
    mean_of,
    seed_of,
)
from calograd.io.toml import Table
from calograd.objective.constraints import Array
from calograd.objective.space import ParameterSpace, format_parameters
from calograd.optimisation.multi_start import multi_start
from calograd.optimisation.quasi_newton import GROWTH, LOSS, Move, Point, gain, judge, learn, step
from calograd.optimisation.state import Check, Outcome, PathPoint, State, Step, read_state, to_floats, write_state

PULL, RATIO = 3.0, 2.0
"""Pull and ratio beyond which the gains of a check disagree."""
SETTLING = 3
"""Steps that have to be left for a multi-start: the search, one step, and one to settle which end is better."""
WIDEST = 2.0
"""Largest limit of the radius, as a multiple of the first radius."""


class AscentConfig(Table):
    """Table of the ascent."""

    renamed: ClassVar[dict[str, str]] = {"survey": "multi_start"}
    steps: Annotated[int, Field(gt=0)] = 30
    radius: Annotated[float, Field(gt=0)] = 0.15
    """Longest first step, in logarithms: 0.15 is a change by 16 %."""
    tolerance: Annotated[float, Field(gt=0)] = 0.003
    """Length of a step, in logarithms, below which the ascent ends."""
    draws: Annotated[int, Field(gt=1)] = 8
    """Draws of the first estimate of a gradient; doubled until it is precise enough, up to ``max_draws``."""
    max_draws: Annotated[int, Field(gt=1)] = 64
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Target for the standard error of a step's gain, as a share of that gain."""
    check_every: Annotated[int, Field(gt=0)] = 5
    showers: Annotated[int, Field(gt=1)] = 200
    """Simulated showers of every energy in a check."""
    multi_start: Annotated[int, Field(ge=0)] = 24
    """Number of other designs that a multi-start compares where the ascent ends by itself; 0: none."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check(self) -> AscentConfig:
        if self.max_draws < self.draws:
            raise ValueError(f"max_draws = {self.max_draws} is below draws = {self.draws}")
        if self.tolerance >= self.radius:
            raise ValueError(f"tolerance = {self.tolerance:g} is not below radius = {self.radius:g}")
        if self.multi_start == 1:
            raise ValueError("multi_start = 1: expected 2 designs or more, or 0 for none")
        return self


class Adapted(NamedTuple):
    """Gradient of the surrogate that a step uses.

    Attributes:
        gradient: gradient of the surrogate.
        adapter: name of its adapter, for the record.
        showers: showers simulated to adapt it; 0: it is that of the step before.
        values: its utility at several designs; None: taken from ``gradient``.
    """

    gradient: GradientFunction
    adapter: str = ""
    showers: int = 0
    values: ValuesFunction | None = None


@dataclass(frozen=True)
class Adaptation:
    """Adaptation of a surrogate on the way to a detector that it does not know.

    Args:
        prepare: called as ``prepare(y, state)`` before a gradient at y, shape (p,), cm, is taken. Its result follows
            from its arguments alone, so an interrupted step is repeated with the same result. Where ``state.ending``
            is set, it may return the surrogate of the last step.
        budget: showers to simulate in all, checks included; infinite for no limit.
        price: showers of a check.
    """

    prepare: Callable[[Array, State], Adapted]
    budget: float
    price: int


def ascend(
    space: ParameterSpace,
    start: Array,
    gradient: GradientFunction | Adaptation,
    config: AscentConfig,
    *,
    values: ValuesFunction | None = None,
    simulate_pair: SimulatePair | None = None,
    output: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """Improve a design, or resume the ascent in ``output``, and return the last state.

    Args:
        space: parameters with bounds and budgets.
        start: y, shape (p,), cm.
        gradient: the surrogate's gradient, or an adaptation that gives that of every step.
        config: settings of the ascent.
        values: the surrogate's utility at several designs at once, for a multi-start; None: taken from ``gradient``.
        simulate_pair: difference of two utilities on the same simulated showers; None: no checks.
        output: a JSON file for state and history.
        on_step: called after every step, when it is on disk.

    Returns:
        The last state: ``y`` is the design, ``reason`` the reason why it stopped, ``history`` its steps.

    Raises:
        InputError: budgets that cannot be met, a start that is not allowed, a gradient that is not finite; an
            ``output`` of another setting, or one that cannot be written.
        FormatError: ``output`` is damaged.
        Interrupted: Ctrl-C; ``output`` holds the last step.
    """
    start = np.asarray(start, dtype=np.float64)
    space.check_start(start)
    u = space.project(space.to_log(start))
    way = gradient if isinstance(gradient, Adaptation) else _constant(Adapted(gradient, values=values))
    run = _Run(space, way, simulate_pair, config)
    setting = {
        **config.model_dump(), "space": space.to_dict(), "start": start.tolist(), "checks": simulate_pair is not None,
        "budget": way.budget if isfinite(way.budget) else None,
    }  # fmt: skip
    state = read_state(output, setting) if output else None
    try:
        if state is None:
            state = State(
                to_floats(space.from_log(u)), to_floats(u), to_floats(u), (), None, config.radius, config.radius
            )
            if output:
                write_state(output, state, setting)
        while not state.reason:
            state = run.step(state)
            if output:
                write_state(output, state, setting)
            if on_step is not None:
                on_step(state.history[-1])
    except KeyboardInterrupt:
        if output is None:
            raise
        raise Interrupted(f"{output} holds the ascent so far; the same command resumes it") from None
    return state


def _constant(used: Adapted) -> Adaptation:
    """Return the adaptation of a surrogate that stays as it is."""
    return Adaptation(lambda *_: used, inf, 0)


@dataclass(frozen=True)
class _Evaluation:
    """The surrogate's estimate at a design, and the next move.

    Attributes:
        point: value and gradient at the design.
        draws: number of draws in the estimate.
        lost: True to go back to before the last step.
        curvature, radius: curvature and trust radius of the model from now on.
        move: the next step, from ``point`` or, if the last one lost, from before it.
    """

    point: Point
    draws: int
    lost: bool
    curvature: Array
    radius: float
    move: Move


@dataclass(frozen=True)
class _Run:
    """Constants of an ascent."""

    space: ParameterSpace
    way: Adaptation
    pair: SimulatePair | None
    config: AscentConfig

    def step(self, state: State) -> State:
        """Return the state after one more step."""
        used = self.way.prepare(self.space.from_log(np.array(state.u)), state)
        state = replace(state, simulated=state.simulated + used.showers)
        if not state.ending:
            return self._step(state, used)
        return self._multi_start(state, used) if state.rival is None else self._settle(state, used)

    def _step(self, state: State, used: Adapted) -> State:
        number, path = len(state.history), [p.point() for p in state.path]
        if used.showers and path:
            path[-1] = self._estimate_again(path[-1], number, used.gradient)
        look = self._evaluate(state, path[-1] if path else None, used.gradient)
        path += [] if look.lost else [look.point]
        last = self._last(number, state.rival is not None)
        reason = self._ending(look) or last
        due = reason or (number + 1) % self.config.check_every == 0
        check = self._check(number, path) if due and self._affordable(state) else None
        after = replace(
            state,
            u=to_floats(path[-1].u),
            path=tuple(map(PathPoint.of, path)),
            curvature=tuple(map(to_floats, look.curvature)),
            radius=look.radius,
            simulated=state.simulated + (check.showers if check else 0),
        )
        refused = False
        if check is not None:
            after, refused = self._apply_check(check, after)
            if not check.agrees:
                reason = reason if check.gained and reason else self._giving_up(after.radius) or last
                look = replace(look, move=step(self.space.feasible, path[-1], look.curvature, after.radius))
        outcome: Outcome = "refused" if refused else "stopped" if reason else "undone" if look.lost else "moved"
        u = np.array(after.u) if refused or reason else self.space.project(path[-1].u + look.move.d)
        record = self._record(state, look, check, outcome, self._remarks(look, check, outcome, reason), used)
        by_itself = bool(reason) and reason == self._ending(look) and not refused
        room = self.config.steps - number - 1 >= SETTLING and self.config.multi_start > 0
        looking = (by_itself and room and not state.multi_started) or (bool(reason) and state.rival is not None)
        return replace(
            after, y=to_floats(self.space.from_log(u)), u=to_floats(u), history=(*state.history, record),
            reason="" if looking else reason, ending=reason if looking else "",
        )  # fmt: skip

    def _multi_start(self, state: State, used: Adapted) -> State:
        """Return the state after a multi-start, where the ascent has ended by itself."""
        number, u, others = len(state.history), np.array(state.u), f"{self.config.multi_start} others"
        ask, seed = partial(self._estimate, used.gradient), seed_of(self.config.seed, number)
        found = multi_start(
            self.space, ask, u, self.config.multi_start, self.config.draws, seed, values=used.values
        )  # fmt: skip
        there, remark = found.u, f"on from a better design among {others}"
        if there is None:
            remark = f"no better design among {others}"
        elif not self._affordable(state):
            where = format_parameters(self.space.names, self.space.from_log(there))
            there, remark = None, f"the surrogate prefers {where}, but no showers are left to check it"
        remarks = [state.ending, remark]
        look = self._final_evaluation(state, found.top, u if there is None else there, found.gain, found.error)
        record = self._record(state, look, None, "stopped" if there is None else "jumped", remarks, used)
        after = replace(state, history=(*state.history, record), multi_started=True, ending="")
        if there is None:
            return replace(after, reason="; ".join(remarks))
        return replace(
            after, y=to_floats(self.space.from_log(there)), u=to_floats(there), checked=to_floats(there), path=(),
            curvature=None, radius=self.config.radius, limit=self.config.radius, rival=state.u,
        )  # fmt: skip

    def _settle(self, state: State, used: Adapted) -> State:
        """Return the state after the end is compared with the maximum that the ascent had left for a better design."""
        assert state.rival is not None
        number, u, rival = len(state.history), np.array(state.u), np.array(state.rival)
        seed = seed_of(self.config.seed, number)
        here, there = (
            self._estimate(used.gradient, self.space.from_log(each), self.config.draws, seed) for each in (u, rival)
        )
        gain, error = float(here.value - there.value), float(np.hypot(here.value_error, there.value_error))
        check = self._compare(number, rival, u, gain, error) if self.pair is not None else None
        better, known = (check.simulated, check.simulated_error) if check else (gain, error)
        kept = better > 0
        end, other = (u, rival) if kept else (rival, u)
        where = format_parameters(self.space.names, self.space.from_log(other))
        by = f"by {better:.2g} +- {known:.2g}"
        remarks = [state.ending, f"better than {where}, {by}" if kept else f"back, as {where} is no better, {by}"]
        look = self._final_evaluation(state, here, end, gain, error)
        record = self._record(state, look, check, "settled", remarks, used)
        return replace(
            state, y=to_floats(self.space.from_log(end)), u=to_floats(end), simulated=record.simulated, rival=None,
            history=(*state.history, record), ending="", reason="; ".join(remarks),
        )  # fmt: skip

    def _final_evaluation(self, state: State, here: AnyGradient, end: Array, gain: float, error: float) -> _Evaluation:
        """Return the surrogate's estimate where the ascent has ended, with the move from there to ``end``."""
        u = np.array(state.u)
        now = Point(u, here.gradient, here.gradient_error, float(here.value), float(here.value_error))
        move = Move(end - u, float(np.linalg.norm(end - u)), gain, error)
        return _Evaluation(now, self.config.draws, False, np.eye(len(u)), state.radius, move)

    def _apply_check(self, check: Check, state: State) -> tuple[State, bool]:
        """Return the state after a check, and whether it is back at the design that was checked before."""
        if check.agrees:
            state = replace(state, limit=min(GROWTH * state.limit, WIDEST * self.config.radius))
        else:
            state = replace(state, limit=0.5 * state.radius, radius=0.5 * state.radius)
        if check.agrees or check.gained:
            return replace(state, checked=state.u, path=state.path[-1:]), False
        return replace(state, u=state.checked, path=(), curvature=None), True

    def _affordable(self, state: State) -> bool:
        """Return whether the budget allows a check, besides the one that settles the end if it is needed."""
        checks = 1 + (state.rival is not None)
        return state.simulated + checks * self.way.price <= self.way.budget

    def _estimate_again(self, before: Point, number: int, gradient: GradientFunction) -> Point:
        """Return the estimate of this step's surrogate where the last step began."""
        found = self._estimate(
            gradient, self.space.from_log(before.u), self.config.draws, seed_of(self.config.seed, number, 2)
        )
        return Point(before.u, found.gradient, found.gradient_error, float(found.value), float(found.value_error))

    def _evaluate(self, state: State, before: Point | None, gradient: GradientFunction) -> _Evaluation:
        """Average the gradient at the present design until the next step is known well enough."""
        number, u = len(state.history), np.array(state.u)
        y = self.space.from_log(u)
        known = None if state.curvature is None else np.array(state.curvature)
        draws, key = self.config.draws, (self.config.seed, number, 0)
        total = self._estimate(gradient, y, draws, seed_of(*key, 0))
        while True:
            now = Point(u, total.gradient, total.gradient_error, float(total.value), float(total.value_error))
            curvature, here, radius = learn(known, before, now, state.radius), now, state.radius
            lost = False
            if before is not None:
                lost, radius = judge(before, now, state.radius, state.limit)
                here = before if lost else now
            move = step(self.space.feasible, here, curvature, radius)
            known_well = move.error <= self.config.precision * move.gain and not self._is_noise(move)
            if known_well or move.free < self.config.tolerance or 2 * draws > self.config.max_draws or lost:
                break
            total = mean_of(total, self._estimate(gradient, y, draws, seed_of(*key, draws)))
            draws *= 2
        return _Evaluation(now, draws, lost, curvature, radius, move)

    def _is_noise(self, move: Move) -> bool:
        """True if the gain of a step is no larger than that of steps after gradients of pure noise."""
        return bool(move.gain < (1 + len(move.d) ** 0.5) * move.error)

    def _estimate(self, gradient: GradientFunction, y: Array, draws: int, seed: int) -> AnyGradient:
        estimate = gradient(y, draws, seed)
        numbers = np.concatenate(
            [[estimate.value, estimate.value_error], estimate.gradient, estimate.gradient_error], dtype=np.float64
        )
        if numbers.shape != (2 + 2 * len(y),) or not bool(np.isfinite(numbers).all()):
            design = format_parameters(self.space.names, y)
            raise InputError(f"the gradient at {design} is not {len(y)} finite numbers with errors; check the utility")
        return estimate

    def _ending(self, look: _Evaluation) -> str:
        """Return the reason why the ascent ends here by itself; empty if it does not."""
        move, tolerance = look.move, self.config.tolerance
        if move.free >= tolerance and self._is_noise(move) and not look.lost:
            return (
                f"within its noise: the next step would gain {move.gain:.2g} with an error of {move.error:.2g} "
                f"after {look.draws} draws"
            )
        if np.linalg.norm(move.d) < tolerance:
            return f"converged: the next step in ln y is shorter than the tolerance of {tolerance:g}"
        return ""

    def _last(self, number: int, unsettled: bool) -> str:
        """Return the reason why there is no further step; one step is kept where the end is to be settled."""
        return f"the last of {self.config.steps} steps" if number + 1 >= self.config.steps - unsettled else ""

    def _giving_up(self, radius: float) -> str:
        if radius < self.config.tolerance:
            return f"simulated showers refused every step down to the tolerance of {self.config.tolerance:g}"
        return ""

    def _check(self, number: int, path: list[Point]) -> Check | None:
        """Compare the gain along the path with simulated showers; return None if there is nothing to compare."""
        if self.pair is None or len(path) < 2:
            return None
        return self._compare(number, path[0].u, path[-1].u, *gain(path))

    def _compare(self, number: int, u: Array, v: Array, predicted: float, error: float) -> Check:
        """Compare the surrogate's gain of v over u with simulated showers."""
        assert self.pair is not None
        a, b = self.space.from_log(u), self.space.from_log(v)
        found = self.pair(a, b, self.config.showers, seed_of(self.config.seed, number, 1))
        if not (isfinite(found.value) and isfinite(found.error)):
            raise InputError(f"the simulated gain is {found.value} +- {found.error}; check the utility")
        check = Check(to_floats(a), predicted, error, found.value, found.error, found.showers, agrees=True)
        apart = abs(check.pull) > PULL and not predicted / RATIO <= found.value <= predicted * RATIO
        return replace(check, agrees=not (apart or found.value < -LOSS * found.error))

    @staticmethod
    def _remarks(look: _Evaluation, check: Check | None, outcome: Outcome, reason: str) -> list[str]:
        remarks = [reason] if reason else []
        if check is not None and not check.agrees:
            back = "back to the last checked design" if outcome == "refused" else "kept, as they gained"
            remarks.insert(0, f"simulated showers disagree; {back}")
        if look.lost:
            remarks.insert(0, "the last step lost; back before it")
        return remarks

    def _record(
        self, state: State, look: _Evaluation, check: Check | None, outcome: Outcome, remarks: list[str], used: Adapted
    ) -> Step:
        return Step(
            number=len(state.history),
            y=state.y,
            u=state.u,
            value=look.point.value,
            value_error=look.point.value_error,
            gradient=to_floats(look.point.gradient),
            gradient_error=to_floats(look.point.error),
            draws=look.draws,
            outcome=outcome,
            reason="; ".join(remarks),
            move=to_floats(look.move.d),
            gain=look.move.gain,
            gain_error=look.move.error,
            radius=state.radius,
            limit=state.limit,
            simulated=state.simulated + (check.showers if check else 0),
            check=check,
            hits=self.space.active_constraints(np.array(state.u)),
            adapter=used.adapter,
            adaptation=used.showers,
        )
