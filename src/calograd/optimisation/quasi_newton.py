"""Steps from noisy gradients: a quadratic model of the utility within a trust radius.

Near u the utility is modelled as U(u) + g . d - d . B d / 2. The curvature B is positive definite and learnt from
the gradients: after a step s that changed the gradient by -y, the damped BFGS update (Powell 1978; Nocedal and
Wright, procedure 18.2) is

    B <- B - B s s^T B / (s . B s) + r r^T / (s . r),     r = t y + (1 - t) B s,

with t = 1 unless s . y < 0.2 s . B s, where t makes s . r just that. The update is left out where s . y differs from
s . B s by less than its standard error, as it would learn noise.

The step maximises the model minus one standard error of its gain, within the trust radius, the bounds and the budgets.
Where it is zero, no allowed move gains anything to first order. The steps of Adam, projected, would stop elsewhere on a
budget. The step does not depend on the utility's unit.

The gain of a step from a to b is (g_a + g_b) . (b - a) / 2 by the trapezoid rule. It is known much better than the
difference of noisy utilities, and worse where a step passes a narrow maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import NamedTuple

import numpy as np

from calograd.objective.constraints import Array, FeasibleSet

DAMPING = 0.2
"""Smallest s . r, as a share of s . B s, that the damped update allows."""
_ROUNDS = 3
"""Rounds that find the step with the error of its gain."""
LOSS = 2.0
"""Number of standard errors beyond which a negative gain is a loss."""
GROWTH = 1.25
"""Factor by which a good trust radius grows."""
FLATTEST = 1e-8
"""Smallest curvature as a share of the largest, so that B stays positive definite in floating point."""
UNKNOWN = 1e-3
"""First curvature as a share of the one whose free step is as long as the radius; bounds may block most of it."""


@dataclass(frozen=True)
class Point:
    """A utility and its gradient at a design.

    Args:
        u: logarithms of the parameters, shape (p,).
        gradient, error: dU/du and its standard error, shape (p,).
        value, value_error: U and its standard error, infinite if U is not known.
    """

    u: Array
    gradient: Array
    error: Array
    value: float = 0.0
    value_error: float = inf


class Move(NamedTuple):
    """A step.

    Attributes:
        d: the step in u, shape (p,).
        free: length of the step if the gradient had no error.
        gain, error: g . d, the gain of the utility to first order, and its standard error.
    """

    d: Array
    free: float
    gain: float
    error: float


def learn(curvature: Array | None, before: Point | None, now: Point, radius: float) -> Array:
    """Return the curvature B at ``now``, shape (p, p), positive definite.

    Args:
        curvature: B at ``before``; None if nothing is known, and then the first step is as long as the radius.
        before: the point where the last step began; None if there was none.
        now: the point where it ended.
        radius: the trust radius.
    """
    if curvature is None:
        return np.eye(len(now.u)) * max(UNKNOWN * float(np.linalg.norm(now.gradient)), 1e-300) / radius
    if before is None:
        return curvature
    s, y = now.u - before.u, before.gradient - now.gradient
    if not s.any():
        return curvature
    sy, noise = float(s @ y), float(np.linalg.norm(s * np.hypot(before.error, now.error)))
    bs = curvature @ s
    sbs = float(s @ bs)
    if abs(sy - sbs) <= noise:
        return curvature
    t = 1.0 if sy >= DAMPING * sbs else (1 - DAMPING) * sbs / (sbs - sy)
    r = t * y + (1 - t) * bs
    updated = curvature - np.outer(bs, bs) / sbs + np.outer(r, r) / float(s @ r)
    values, vectors = np.linalg.eigh(updated)
    positive: Array = (vectors * np.maximum(values, FLATTEST * values[-1])) @ vectors.T
    return positive


def step(feasible: FeasibleSet, now: Point, curvature: Array, radius: float) -> Move:
    """Return the move that maximises the model's gain minus one standard error of g . d.

    That error is the length of (error_i d_i). In the model it acts as a curvature error_i^2 / length, so a few rounds
    with this curvature added give the move. It is shorter in directions where the gradient is uncertain.
    """
    move = feasible.best_move(now.u, now.gradient, curvature, radius)
    free = float(np.linalg.norm(move))
    for _ in range(_ROUNDS):
        noise = float(np.linalg.norm(now.error * move))
        if noise > 0:
            move = feasible.best_move(now.u, now.gradient, curvature + np.diag(now.error**2) / noise, radius)
    return Move(move, free, float(now.gradient @ move), float(np.linalg.norm(now.error * move)))


def judge(before: Point, now: Point, radius: float, limit: float) -> tuple[bool, float]:
    """Return whether the step from ``before`` to ``now`` lost, and the next radius.

    The step lost if its gain, by the gradients or by the values, is negative by more than `LOSS` of its standard
    errors; the radius is then half the step's length. A step about as long as the radius, at whose end the utility
    still rises along it, makes the radius grow by `GROWTH`, up to ``limit``.
    """
    s = now.u - before.u
    length, (value, error) = float(np.linalg.norm(s)), gain([before, now])
    fall, uncertainty = before.value - now.value, float(np.hypot(before.value_error, now.value_error))
    if value < -LOSS * error or fall > LOSS * uncertainty:
        return True, 0.5 * length
    rising = length > 0.9 * radius and float(now.gradient @ s) > 0
    return False, min(GROWTH * radius, limit) if rising else radius


def gain(path: list[Point]) -> tuple[float, float]:
    """Return the gain of the utility along a path by its gradients, and its standard error; zero for a single point."""
    if len(path) < 2:
        return 0.0, 0.0
    moves = [b.u - a.u for a, b in pairwise(path)]
    still = [np.zeros_like(moves[0])]
    weights = [0.5 * (before + after) for before, after in zip(still + moves, moves + still, strict=True)]
    value = sum(float(w @ point.gradient) for w, point in zip(weights, path, strict=True))
    variance = sum(float(np.sum((w * point.error) ** 2)) for w, point in zip(weights, path, strict=True))
    return value, float(np.sqrt(variance))
