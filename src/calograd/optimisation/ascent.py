"""Gradient ascent of a utility over designs, by a surrogate's gradients, watched by simulated showers.

In u = ln y, with bounds, budgets and a trust radius (`quasi_newton` says what a step is):

1. The gradient at the present design is averaged over more and more draws until the gain that the next step promises
   is known to a stated precision, or the draws are used up.
2. If by the gradients the last step lost, it is undone and the radius halved.
3. Every few steps, and before the descent ends, the gain since the last checked design as the gradients predict it is
   compared with the gain on simulated showers, common to both designs. They disagree if they are more than three
   standard deviations apart and their ratio is outside of [1/2, 2], or if the simulated gain is negative by more than
   two. Then the radius is halved, and the descent goes back to the checked design unless simulated showers gained, too.
   Where they agree the radius may grow.
4. With an `Adaptation` every step begins with the surrogate that is adapted to the detector there. If it is another one
   than at the step before, the gradient before is taken anew with it, so that what is compared is of one surrogate. No
   check is made that would go beyond the budget of simulated showers.
5. It ends where gradients of pure noise would promise as large a gain: 1 + sqrt(p) of its standard errors; where the
   step is shorter than the tolerance; where steps down to the tolerance were refused; or after the last one.
6. Where it ends by itself, the surrogate is asked once for a better design elsewhere (`multi_start`). If there is one, the
   descent goes on from there, and in the end simulated showers say which of the two ends is better; without checks the
   surrogate does.

Seeds follow from (seed, step), the state is on disk after every step: a descent that is started again goes on from
there and ends with the same numbers as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from calograd.errors import InputError, Interrupted
from calograd.gradients.estimates import (
    AnyGradient,
    GradientFunction,
    Simulate,
    SimulatePair,
    mean_of,
    pair_of,
    seed_of,
)
from calograd.io.toml import Table
from calograd.objective.constraints import Array
from calograd.objective.space import DesignSpace, format_parameters
from calograd.optimisation.multi_start import multi_start
from calograd.optimisation.quasi_newton import GROWTH, LOSS, Move, Point, gain, judge, learn, step
from calograd.optimisation.state import Check, Outcome, PathPoint, State, Step, plain, read_state, write_state

PULL, RATIO = 3.0, 2.0
"""Of a check: pull and ratio beyond which gains disagree."""
SETTLING = 3
"""Steps that have to be left for a multi-start: from there, at least one more, and one to settle which end is better."""
WIDEST = 2.0
"""What the limit of the radius may grow to, of the first radius."""


class AscentConfig(Table):
    """Table of the ascent."""

    steps: Annotated[int, Field(gt=0)] = 30
    radius: Annotated[float, Field(gt=0)] = 0.15
    """Longest step at first, in logarithms: 0.15 is a change by 16 %."""
    tolerance: Annotated[float, Field(gt=0)] = 0.003
    """A step shorter than this, in logarithms, ends the descent."""
    draws: Annotated[int, Field(gt=1)] = 8
    """Of the first estimate of a gradient; doubled until it is precise enough, up to ``max_draws``."""
    max_draws: Annotated[int, Field(gt=1)] = 64
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Standard error of the gain of a step that is aimed at, as a share of that gain."""
    check_every: Annotated[int, Field(gt=0)] = 5
    showers: Annotated[int, Field(gt=1)] = 200
    """Asked of the simulation for a check, of every energy."""
    multi_start: Annotated[int, Field(ge=0)] = 24
    """Designs elsewhere that the surrogate is asked for where the descent ends by itself; 0: none."""
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
    """A surrogate as a step uses it.

    Attributes:
        gradient: its.
        adapter: its name, for the record.
        showers: simulated to adapt it; 0: it is the same as at the step before.
    """

    gradient: GradientFunction
    adapter: str = ""
    showers: int = 0


@dataclass(frozen=True)
class Adaptation:
    """How a surrogate follows a detector that it does not know.

    Args:
        prepare: called as prepare(y, state) before a gradient at y, shape (p,), cm, is taken; what it does follows from
            its arguments alone, so that a step that was interrupted is done again to the same result. Where
            ``state.ending`` is set, what the last step had will do.
        budget: showers to simulate in all, checks included.
        price: showers of a check.
    """

    prepare: Callable[[Array, State], Adapted]
    budget: int
    price: int


def ascend(
    space: DesignSpace,
    start: Array,
    gradient: GradientFunction | Adaptation,
    config: AscentConfig,
    *,
    simulate: Simulate | None = None,
    simulate_pair: SimulatePair | None = None,
    output: Path | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> State:
    """Improve a design, or go on with the descent in ``output``.

    Args:
        space: what may change.
        start: y, shape (p,), cm.
        gradient: the surrogate's; or what adapts the surrogate and gives that of every step.
        config: how.
        simulate: utility on simulated showers; asked with the same seed at both designs of a check.
        simulate_pair: difference of two utilities on the same showers, taken in place of ``simulate``. Without either
            nothing is checked.
        output: a JSON file for state and history.
        on_step: called after every step, when it is on disk.

    Returns:
        The last state: ``y`` is the design, ``reason`` says why it stopped, ``history`` what it did.

    Raises:
        InputError: budgets that cannot be met, a start that is not allowed, a gradient that is not finite, or
            ``output`` holds a descent of another setting or cannot be written.
        FormatError: ``output`` is damaged.
        Interrupted: Ctrl-C; ``output`` holds the last step.
    """
    start = np.asarray(start, dtype=np.float64)
    space.check_start(start)
    u = space.project(space.to_log(start))
    pair = simulate_pair or (pair_of(simulate) if simulate else None)
    run = _Run(space, gradient, pair, config)
    setting = {
        **config.model_dump(), "space": space.to_dict(), "start": start.tolist(), "checks": pair is not None,
        "budget": gradient.budget if isinstance(gradient, Adaptation) else None,
    }  # fmt: skip
    state = read_state(output, setting) if output else None
    try:
        if state is None:
            state = State(plain(space.from_log(u)), plain(u), plain(u), (), None, config.radius, config.radius)
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
        raise Interrupted(f"{output} holds the descent so far; the same command goes on from it") from None
    return state


@dataclass(frozen=True)
class _Look:
    """What the surrogate says at a design, and what to do about it.

    Attributes:
        point: value and gradient there.
        draws: it is averaged over.
        lost: whether to go back to before the last step.
        curvature, radius: of the model from now on.
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
    """What stays the same in a descent."""

    space: DesignSpace
    gradient: GradientFunction | Adaptation
    pair: SimulatePair | None
    config: AscentConfig

    def step(self, state: State) -> State:
        """The state after one more step."""
        if not isinstance(self.gradient, Adaptation):
            return self._next(state, Adapted(self.gradient))
        used = self.gradient.prepare(self.space.from_log(np.array(state.u)), state)
        return self._next(replace(state, simulated=state.simulated + used.showers), used)

    def _next(self, state: State, used: Adapted) -> State:
        if not state.ending:
            return self._step(state, used)
        return self._multi_start(state, used) if state.rival is None else self._settle(state, used)

    def _step(self, state: State, used: Adapted) -> State:
        number, path = len(state.history), [p.point() for p in state.path]
        if used.showers and path:
            path[-1] = self._again(path[-1], number, used.gradient)
        look = self._look(state, path[-1] if path else None, used.gradient)
        path += [] if look.lost else [look.point]
        last = self._last(number, state.rival is not None)
        reason = self._ending(look) or last
        due = reason or (number + 1) % self.config.check_every == 0
        check = self._check(number, path) if due and self._affordable(state) else None
        after = replace(
            state,
            u=plain(path[-1].u),
            path=tuple(map(PathPoint.of, path)),
            curvature=tuple(map(plain, look.curvature)),
            radius=look.radius,
            simulated=state.simulated + (check.showers if check else 0),
        )
        refused = False
        if check is not None:
            after, refused = self._heed(check, after)
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
            after, y=plain(self.space.from_log(u)), u=plain(u), history=(*state.history, record),
            reason="" if looking else reason, ending=reason if looking else "",
        )  # fmt: skip

    def _multi_start(self, state: State, used: Adapted) -> State:
        """The state after a look for better designs elsewhere, where the descent has ended by itself."""
        number, u, others = len(state.history), np.array(state.u), f"{self.config.multi_start} others"
        ask, seed = partial(self._estimate, used.gradient), seed_of(self.config.seed, number)
        found = multi_start(self.space, ask, u, self.config.multi_start, self.config.draws, seed)
        there, remark = found.u, f"on from a better design among {others}"
        if there is None:
            remark = f"no better design among {others}"
        elif not self._affordable(state):
            where = format_parameters(self.space.names, self.space.from_log(there))
            there, remark = None, f"the surrogate prefers {where}, but no showers are left to check it"
        remarks = [state.ending, remark]
        look = self._final_look(state, found.top, u if there is None else there, found.gain, found.error)
        record = self._record(state, look, None, "stopped" if there is None else "jumped", remarks, used)
        after = replace(state, history=(*state.history, record), multi_started=True, ending="")
        if there is None:
            return replace(after, reason="; ".join(remarks))
        return replace(
            after, y=plain(self.space.from_log(there)), u=plain(there), checked=plain(there), path=(), curvature=None,
            radius=self.config.radius, limit=self.config.radius, rival=state.u,
        )  # fmt: skip

    def _settle(self, state: State, used: Adapted) -> State:
        """The state after the end is compared with the top that the descent had left for a better design."""
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
        look = self._final_look(state, here, end, gain, error)
        record = self._record(state, look, check, "settled", remarks, used)
        return replace(
            state, y=plain(self.space.from_log(end)), u=plain(end), simulated=record.simulated, rival=None,
            history=(*state.history, record), ending="", reason="; ".join(remarks),
        )  # fmt: skip

    def _final_look(self, state: State, here: AnyGradient, end: Array, gain: float, error: float) -> _Look:
        """What the surrogate says where the descent has ended, and the way from there to ``end``."""
        u = np.array(state.u)
        now = Point(u, here.gradient, here.gradient_error, float(here.value), float(here.value_error))
        move = Move(end - u, float(np.linalg.norm(end - u)), gain, error)
        return _Look(now, self.config.draws, False, np.eye(len(u)), state.radius, move)

    def _heed(self, check: Check, state: State) -> tuple[State, bool]:
        """The state after a check, and whether it is back at the design that was checked before."""
        if check.agrees:
            state = replace(state, limit=min(GROWTH * state.limit, WIDEST * self.config.radius))
        else:
            state = replace(state, limit=0.5 * state.radius, radius=0.5 * state.radius)
        if check.agrees or check.gained:
            return replace(state, checked=state.u, path=state.path[-1:]), False
        return replace(state, u=state.checked, path=(), curvature=None), True

    def _affordable(self, state: State) -> bool:
        """Whether the budget allows a check, beside that which settles the end if there is to be one."""
        limit = self.gradient if isinstance(self.gradient, Adaptation) else None
        checks = 1 + (state.rival is not None)
        return limit is None or state.simulated + checks * limit.price <= limit.budget

    def _again(self, before: Point, number: int, gradient: GradientFunction) -> Point:
        """What the surrogate of this step says where the last one began."""
        found = self._estimate(
            gradient, self.space.from_log(before.u), self.config.draws, seed_of(self.config.seed, number, 2)
        )
        return Point(before.u, found.gradient, found.gradient_error, float(found.value), float(found.value_error))

    def _look(self, state: State, before: Point | None, gradient: GradientFunction) -> _Look:
        """Average the gradient at the present design until the step that follows from it is known well enough."""
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
        return _Look(now, draws, lost, curvature, radius, move)

    def _is_noise(self, move: Move) -> bool:
        """Whether the gain of a step is no larger than that of steps after gradients of pure noise."""
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

    def _ending(self, look: _Look) -> str:
        """Why the descent ends here by itself, or nothing."""
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
        """Why there is no further step, or nothing; one is kept where something is to be settled in the end."""
        return f"the last of {self.config.steps} steps" if number + 1 >= self.config.steps - unsettled else ""

    def _giving_up(self, radius: float) -> str:
        if radius < self.config.tolerance:
            return f"simulated showers refused every step down to the tolerance of {self.config.tolerance:g}"
        return ""

    def _check(self, number: int, path: list[Point]) -> Check | None:
        """Compare the gain along the path with simulated showers; None if there is nothing to compare."""
        if self.pair is None or len(path) < 2:
            return None
        return self._compare(number, path[0].u, path[-1].u, *gain(path))

    def _compare(self, number: int, u: Array, v: Array, predicted: float, error: float) -> Check:
        """Compare what the surrogate says that v gains over u with simulated showers."""
        assert self.pair is not None
        a, b = self.space.from_log(u), self.space.from_log(v)
        found = self.pair(a, b, self.config.showers, seed_of(self.config.seed, number, 1))
        if not (isfinite(found.value) and isfinite(found.error)):
            raise InputError(f"the simulated gain is {found.value} +- {found.error}; check the utility")
        check = Check(plain(a), predicted, error, found.value, found.error, found.showers, agrees=True)
        apart = abs(check.pull) > PULL and not predicted / RATIO <= found.value <= predicted * RATIO
        return replace(check, agrees=not (apart or found.value < -LOSS * found.error))

    @staticmethod
    def _remarks(look: _Look, check: Check | None, outcome: Outcome, reason: str) -> list[str]:
        remarks = [reason] if reason else []
        if check is not None and not check.agrees:
            back = "back to the last checked design" if outcome == "refused" else "kept, as they gained"
            remarks.insert(0, f"simulated showers disagree; {back}")
        if look.lost:
            remarks.insert(0, "the last step lost; back before it")
        return remarks

    def _record(
        self, state: State, look: _Look, check: Check | None, outcome: Outcome, remarks: list[str], used: Adapted
    ) -> Step:
        return Step(
            number=len(state.history),
            y=state.y,
            u=state.u,
            value=look.point.value,
            value_error=look.point.value_error,
            gradient=plain(look.point.gradient),
            gradient_error=plain(look.point.error),
            draws=look.draws,
            outcome=outcome,
            reason="; ".join(remarks),
            move=plain(look.move.d),
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
