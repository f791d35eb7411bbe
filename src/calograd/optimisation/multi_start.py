"""Multi-start: a search for a better design than the local maximum where an ascent ended.

An ascent ends on the local maximum next to its start, and a utility may have several. So the surrogate evaluates other
designs. Half of them lie on the lines through the maximum along every parameter, where a ridge along a
parameter shows. Half are spread evenly over the logarithms of all parameters, by additive recurrence with the powers of
the generalised golden ratio (Roberts 2018). All designs see the same random numbers, so their differences have little
noise. The best of them is compared with the maximum again, with other random numbers: as the best of many it looks
better than it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calograd.gradients.estimates import AnyGradient, GradientFunction, ValuesFunction, seed_of, values_of
from calograd.objective.constraints import Array
from calograd.objective.space import ParameterSpace
from calograd.optimisation.quasi_newton import LOSS

PURPOSE = 4
"""Purpose of a seed; the ascent has 0 to 2, its adaptation 3."""
DRAWS = 2
"""Draws of the first estimate at a design; the second has those of the ascent's first gradient."""


class MultiStart(NamedTuple):
    """Result of a multi-start.

    Attributes:
        top: the surrogate's estimate at the local maximum.
        u: the best of the other designs in logarithms, shape (p,); None if none of them is better.
        gain, error: its utility minus that of the local maximum, and the standard error.
    """

    top: AnyGradient
    u: Array | None
    gain: float = 0.0
    error: float = 0.0


def multi_start(
    space: ParameterSpace,
    gradient: GradientFunction,
    u: Array,
    designs: int,
    draws: int,
    seed: int,
    *,
    values: ValuesFunction | None = None,
) -> MultiStart:
    """Search for a better design than u.

    Args:
        space, gradient: space of the designs, and the surrogate's gradient.
        u: the local maximum in logarithms, shape (p,).
        designs: number of other designs.
        draws: draws of the second estimate.
        seed: seed of all random numbers.
        values: the surrogate's utility at several designs; None: taken from ``gradient``, one by one.
    """
    others = elsewhere(space, u, designs)
    utilities = (values or values_of(gradient))(space.from_log(others), DRAWS, seed_of(seed, PURPOSE, 0))
    best = others[int(np.argmax(utilities))]
    top, there = (gradient(space.from_log(each), draws, seed_of(seed, PURPOSE, 1)) for each in (u, best))
    gain, error = float(there.value - top.value), float(np.hypot(there.value_error, top.value_error))
    return MultiStart(top, best, gain, error) if gain > LOSS * error else MultiStart(top, None)


def elsewhere(space: ParameterSpace, u: Array, designs: int) -> Array:
    """Return allowed designs to compare with u, shape (p,), in logarithms, shape (designs, p)."""
    low, width, p = space.feasible.lower, space.feasible.upper - space.feasible.lower, len(u)
    on_lines = designs // 2
    share = -(-on_lines // p)
    lines = np.tile(u, (on_lines, 1))
    rows = np.arange(on_lines)
    along, place = rows % p, rows // p
    lines[rows, along] = low[along] + (place + 0.5) / share * width[along]
    golden = 2.0
    for _ in range(50):
        golden = (1 + golden) ** (1 / (p + 1))
    spread = np.arange(1, designs - on_lines + 1)[:, None] * golden ** -np.arange(1.0, p + 1)
    drawn = low + (0.5 + spread) % 1 * width
    return np.array([space.project(each) for each in np.concatenate([lines, drawn])])
