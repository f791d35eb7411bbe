"""What an optimiser is told: estimates with standard errors, from a surrogate or from simulated showers.

Every random number of an estimate follows from the seed that it is asked for with: the same arguments give the same
estimate. Designs are vectors y of physical parameters, shape (p,), in the units of their `Space` (cm).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from calograd.objective.constraints import Array


class ValueAndGradient(NamedTuple):
    """The utility U of a design and its gradient in logarithms of the parameters.

    Attributes:
        value, value_error: U and its standard error.
        gradient, gradient_error: dU/du with u = ln y, shape (p,), and standard errors over independent draws.
    """

    value: float
    value_error: float
    gradient: Array
    gradient_error: Array


class SimulatedUtility(NamedTuple):
    """A utility, or the difference of two, on simulated showers.

    Attributes:
        value, error: with its standard error.
        showers: how many were simulated for it.
    """

    value: float
    error: float
    showers: int


class GradientLike(Protocol):
    """What has the attributes of a `ValueAndGradient`; `calograd.gradients.autodiff.GradientEstimate` does."""

    @property
    def value(self) -> float:
        """U."""
        ...

    @property
    def value_error(self) -> float:
        """Its standard error."""
        ...

    @property
    def gradient(self) -> Array:
        """dU/du, shape (p,)."""
        ...

    @property
    def gradient_error(self) -> Array:
        """Its standard errors, shape (p,)."""
        ...


Gradient = Callable[[Array, int, int], GradientLike]
"""Called as gradient(y, draws, seed): the mean over that many independent draws."""

Simulate = Callable[[Array, int, int], SimulatedUtility]
"""Called as simulate(y, showers, seed): U at y."""

SimulatePair = Callable[[Array, Array, int, int], SimulatedUtility]
"""Called as simulate_pair(y_a, y_b, showers, seed): U at y_b less U at y_a, on the same showers."""


def seed_of(*key: int) -> int:
    """A seed in [0, 2^63) that follows from non-negative numbers, e.g. from (run's seed, step, purpose)."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def mean_of(a: GradientLike, b: GradientLike) -> ValueAndGradient:
    """The mean of two independent estimates over equal numbers of draws."""
    return ValueAndGradient(
        0.5 * (a.value + b.value),
        0.5 * float(np.hypot(a.value_error, b.value_error)),
        0.5 * (a.gradient + b.gradient),
        0.5 * np.hypot(a.gradient_error, b.gradient_error),
    )


def pair_of(simulate: Simulate) -> SimulatePair:
    """A pair from two simulations with the same seed; its error is theirs as if they were independent."""

    def pair(a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        at_a, at_b = simulate(a, showers, seed), simulate(b, showers, seed)
        error = float(np.hypot(at_a.error, at_b.error))
        return SimulatedUtility(at_b.value - at_a.value, error, at_a.showers + at_b.showers)

    return pair
