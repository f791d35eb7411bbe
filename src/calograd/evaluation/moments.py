"""Means and standard deviations of generated quantities over Geant4's, with standard errors.

With m and s mean and standard deviation of n values, and k = mu_4 / s^4, var(m) = s^2 / n and var(ln s) = (k - 1) / 4n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MomentRatios:
    """Mean and deviation of a quantity at an incident energy (GeV), generated over Geant4's, with standard errors."""

    name: str
    energy: float
    showers: tuple[int, int]
    mean_ratio: float
    mean_error: float
    spread_ratio: float
    spread_error: float


def compare_moments(name: str, energy: float, a: np.ndarray, b: np.ndarray) -> MomentRatios:
    """Return the ratios of the moments of independent samples.

    Args:
        name: name of the quantity.
        energy: incident energy, GeV.
        a, b: its values in generated and in Geant4's showers, shapes (n_a,) and (n_b,), two or more each.
    """
    mean, spread = a.mean() / b.mean(), a.std(ddof=1) / b.std(ddof=1)
    error = np.sqrt(a.var(ddof=1) / len(a) + mean**2 * b.var(ddof=1) / len(b)) / abs(b.mean())
    spread_error = spread * np.sqrt(spread_variance(a) + spread_variance(b))
    return MomentRatios(
        name, energy, (len(a), len(b)), float(mean), float(error), float(spread), float(spread_error)
    )  # fmt: skip


def spread_variance(values: np.ndarray) -> float:
    """Return the relative variance of the standard deviation of a sample, from its fourth moment."""
    about = values - values.mean()
    variance = (about**2).mean()
    return float(max((about**4).mean() / variance**2 - 1, 0) / (4 * len(values))) if variance > 0 else 0.0
