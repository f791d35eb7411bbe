"""A look beyond a top: whether the surrogate knows a better design elsewhere.

An ascent ends on the top of the hill that it began on, and a utility may have several. So the surrogate is asked for
the utility at other designs, half of them on the lines through the top along every parameter, where a ridge that runs
along a parameter shows, half spread evenly over the logarithms of all (additive recurrence by the powers of the
generalised golden ratio, Roberts 2018). All designs see the same random numbers, which their differences hardly do. The
best of them is asked for again with others, beside the top: chosen as the best, it looks better than it is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calograd.gradients.estimates import AnyGradient, GradientFunction, seed_of
from calograd.objective.constraints import Array
from calograd.objective.space import DesignSpace
from calograd.optimisation.quasi_newton import LOSS

PURPOSE = 4
"""Of a seed; a descent has 0 to 2, its adaptation 3."""
DRAWS = 2
"""Of the first look at a design; the second has those of a descent's first gradient."""


class MultiStart(NamedTuple):
    """Result of a multi-start.

    Attributes:
        top: what the surrogate says at the top.
        u: the best of the other designs in logarithms, shape (p,); None if none of them is better.
        gain, error: of its utility over the top's, and the standard error.
    """

    top: AnyGradient
    u: Array | None
    gain: float = 0.0
    error: float = 0.0


def multi_start(space: DesignSpace, gradient: GradientFunction, u: Array, designs: int, draws: int, seed: int) -> MultiStart:
    """Ask the surrogate for better designs than u.

    Args:
        space: of the designs.
        gradient: the surrogate's.
        u: the top, in logarithms, shape (p,).
        designs: how many others.
        draws: of the second look.
        seed: of all random numbers.
    """
    others = elsewhere(space, u, designs)
    values = [gradient(space.from_log(each), DRAWS, seed_of(seed, PURPOSE, 0)).value for each in others]
    best = others[int(np.argmax(values))]
    top, there = (gradient(space.from_log(each), draws, seed_of(seed, PURPOSE, 1)) for each in (u, best))
    gain, error = float(there.value - top.value), float(np.hypot(there.value_error, top.value_error))
    return MultiStart(top, best, gain, error) if gain > LOSS * error else MultiStart(top, None)


def elsewhere(space: DesignSpace, u: Array, designs: int) -> Array:
    """Allowed designs to look at from u, shape (p,), in logarithms, shape (designs, p)."""
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
