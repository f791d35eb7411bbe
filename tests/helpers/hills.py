"""Utilities with known optima in u = ln y, as a surrogate and a simulation would tell of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from calograd.gradients.estimates import Simulate, SimulatedUtility, SimulatePair, ValueAndGradient
from calograd.objective.constraints import Array, Budget
from calograd.objective.space import DesignSpace


def make_space(p: int, max_depth: float | None = None, max_volume: float | None = None) -> DesignSpace:
    """dx in [1, 5] cm and dz in [4, 15] cm, two parameters or one depth for each of p - 1 layers."""
    layers = 5 if p == 2 else p - 1
    names = ("dx", "dz") if p == 2 else ("dx", *(f"dz_{k + 1}" for k in range(layers)))
    depth = (0.0, 5.0) if p == 2 else (0.0, *(1.0 for _ in range(layers)))
    budgets = []
    if max_depth is not None:
        budgets.append(Budget("max_depth", depth, max_depth))
    if max_volume is not None:
        budgets.append(Budget("max_volume", tuple(25 * w for w in depth), max_volume, 2.0, "cm3"))
    return DesignSpace(names, (1.0,) + (4.0,) * (p - 1), (5.0,) + (15.0,) * (p - 1), tuple(budgets), n_z=layers)


def tilted(p: int, condition: float, seed: int = 0) -> Array:
    """A curvature whose axes are not those of the parameters, shape (p, p)."""
    axes, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((p, p)))
    return axes @ np.diag(np.geomspace(1, condition, p)) @ axes.T


@dataclass
class Hill:
    """U = function(u) with a given slope; gradients have noise, which falls with draws, and so have simulations.

    ``calls`` lists what was asked: ("gradient", y, draws, seed) and ("simulate", y, showers, seed).
    """

    function: Callable[[Array], float]
    slope: Callable[[Array], Array]
    noise: float = 0.0
    sign: float = 1.0
    calls: list[tuple[str, tuple[float, ...], int, int]] = field(default_factory=list)

    def gradient(self, y: Array, draws: int, seed: int) -> ValueAndGradient:
        self.calls.append(("gradient", tuple(y), draws, seed))
        error = self.noise / draws**0.5
        u, numbers = np.log(y), np.random.default_rng(seed)
        slope = self.sign * self.slope(u) + error * numbers.standard_normal(len(u))
        return ValueAndGradient(self.sign * self.function(u), error, slope, np.full(len(u), error))

    def simulate(self, y: Array, showers: int, seed: int) -> SimulatedUtility:
        self.calls.append(("simulate", tuple(y), showers, seed))
        error = self.noise / showers**0.5
        return SimulatedUtility(self.function(np.log(y)) + error * np.random.default_rng(seed).normal(), error, showers)

    def pair(self, a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        at_a, at_b = self.simulate(a, showers, seed), self.simulate(b, showers, seed)
        return SimulatedUtility(at_b.value - at_a.value, 0.1 * at_a.error, showers)


def parabola(centre: Array, curvature: Array, noise: float = 0.0, sign: float = 1.0, unit: float = 1.0) -> Hill:
    """U = -unit (u - centre) . curvature (u - centre) / 2."""

    def function(u: Array) -> float:
        return float(-0.5 * unit * (u - centre) @ curvature @ (u - centre))

    return Hill(function, lambda u: -unit * curvature @ (u - centre), noise, sign)


def peak(centre: Array, curvature: Array, width: float, noise: float = 0.0) -> Hill:
    """U = 1 / (width^2 + (u - centre) . curvature (u - centre)), which is concave only near its top."""

    def function(u: Array) -> float:
        return float(1 / (width**2 + (u - centre) @ curvature @ (u - centre)))

    return Hill(function, lambda u: -2 * function(u) ** 2 * curvature @ (u - centre), noise)


def ridge(centre: Array) -> Hill:
    """Rosenbrock's: U = -x^2 - 10 (z - x^2)^2 with (x, z) = u - centre, a bent ridge with its top at the centre."""

    def function(u: Array) -> float:
        x, z = u - centre
        return float(-(x**2) - 10 * (z - x**2) ** 2)

    def slope(u: Array) -> Array:
        x, z = u - centre
        return np.array([-2 * x + 40 * x * (z - x**2), -20 * (z - x**2)])

    return Hill(function, slope)


def pair_of(simulate: Simulate) -> SimulatePair:
    """Return a function of pairs from two simulations with the same seed; their errors are taken as independent."""

    def pair(a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        at_a, at_b = simulate(a, showers, seed), simulate(b, showers, seed)
        error = float(np.hypot(at_a.error, at_b.error))
        return SimulatedUtility(at_b.value - at_a.value, error, at_a.showers + at_b.showers)

    return pair
