"""Estimates for an optimiser: values and gradients with standard errors, from a surrogate or from simulated showers.

Every random number of an estimate follows from the seed that it is asked for with: the same arguments give the same
estimate. Designs are vectors y of physical parameters, shape (p,), in the units of their `Space` (cm).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import t as student_t

from calograd.io.markup import table
from calograd.objective.constraints import Array


@dataclass(frozen=True)
class GradientEstimate:
    """Value and gradient of an objective in logarithmic coordinates, with standard errors.

    Args:
        names: names of the parameters.
        y: the parameters, shape (p,), cm.
        value, value_error: the objective and its standard error.
        gradient, gradient_error: dV/du, shape (p,).
        draws: estimates of the gradient that give the error, shape (m, p): the surrogate's independent draws, or
            Geant4's bootstrap replicas.
        about: settings of the estimate, as plain data.
        degrees: degrees of freedom of the errors; infinite for a bootstrap.
    """

    names: tuple[str, ...]
    y: np.ndarray
    value: float
    value_error: float
    gradient: np.ndarray
    gradient_error: np.ndarray
    draws: np.ndarray
    about: dict[str, Any]
    degrees: float = inf

    @classmethod
    def from_draws(
        cls, names: tuple[str, ...], y: np.ndarray, values: np.ndarray, draws: np.ndarray, about: dict[str, Any]
    ) -> GradientEstimate:
        """Return the estimate of independent draws with values, shape (m,), and gradients, shape (m, p)."""
        root = len(values) ** 0.5
        return cls(
            names, y, float(values.mean()), float(values.std(ddof=1) / root), draws.mean(0),
            draws.std(0, ddof=1) / root, draws, about, len(values) - 1,
        )  # fmt: skip

    @property
    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the 95 % intervals of the gradient, each of shape (p,): Student's t with the degrees of freedom."""
        reach = float(student_t.ppf(0.975, self.degrees)) * self.gradient_error
        return self.gradient - reach, self.gradient + reach

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows: components with their 95 % intervals."""
        low, high = self.interval
        rows = [
            (name, f"{self.y[j]:g}", f"{self.gradient[j]:.4g} +- {self.gradient_error[j]:.2g}",
             f"{low[j]:.4g} to {high[j]:.4g}")
            for j, name in enumerate(self.names)
        ]  # fmt: skip
        title = f"V = {self.value:.4g} +- {self.value_error:.2g}"
        return table(title, ("parameter", "y", "dV / d ln y", "95 % interval"), rows)

    @property
    def raw(self) -> np.ndarray:
        """dV/dy, shape (p,), per cm."""
        raw: np.ndarray = self.gradient / self.y
        return raw

    @property
    def raw_error(self) -> np.ndarray:
        """Standard error of `raw`, shape (p,), per cm."""
        error: np.ndarray = self.gradient_error / self.y
        return error

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, without the draws."""
        return {
            "parameters": dict(zip(self.names, self.y.tolist(), strict=True)),
            "value": self.value, "value_error": self.value_error,
            "gradient": self.gradient.tolist(), "gradient_error": self.gradient_error.tolist(),
            "interval": [end.tolist() for end in self.interval],
            "raw": self.raw.tolist(), "about": self.about,
        }  # fmt: skip


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
        value, error: value and standard error.
        showers: number of showers simulated for it.
    """

    value: float
    error: float
    showers: int


AnyGradient = ValueAndGradient | GradientEstimate
"""A gradient with value and errors, with or without its draws."""

GradientFunction = Callable[[Array, int, int], AnyGradient]
"""Called as ``gradient(y, draws, seed)``; returns the mean over that many independent draws."""

ValuesFunction = Callable[[Array, int, int], Array]
"""Called as ``values(points, draws, seed)`` with designs of shape (n, p), cm.

Returns the mean of U over the draws, shape (n,), with common random numbers at all designs.
"""

Simulate = Callable[[Array, int, int], SimulatedUtility]
"""Called as ``simulate(y, showers, seed)``; returns U at y."""

SimulatePair = Callable[[Array, Array, int, int], SimulatedUtility]
"""Called as ``simulate_pair(y_a, y_b, showers, seed)``; returns U at y_b minus U at y_a on the same showers."""


def generator_for(*key: int) -> torch.Generator:
    """Return a generator whose state follows from a tuple of numbers, each zero or more."""
    state = np.random.SeedSequence([len(key), *key]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed((int(state[0]) << 31) ^ int(state[1]))


def seed_of(*key: int) -> int:
    """Return a seed in [0, 2^63) that follows from non-negative numbers, e.g. from (run's seed, step, purpose)."""
    return int(np.random.SeedSequence((len(key), *key)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def mean_of(a: AnyGradient, b: AnyGradient) -> ValueAndGradient:
    """Return the mean of two independent estimates over equal numbers of draws."""
    return ValueAndGradient(
        0.5 * (a.value + b.value),
        0.5 * float(np.hypot(a.value_error, b.value_error)),
        0.5 * (a.gradient + b.gradient),
        0.5 * np.hypot(a.gradient_error, b.gradient_error),
    )


def values_of(gradient: GradientFunction) -> ValuesFunction:
    """Return a function of several designs that takes a gradient at each of them."""
    return lambda points, draws, seed: np.array([gradient(y, draws, seed).value for y in points])
