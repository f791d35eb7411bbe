"""Gradient check: comparison of a surrogate's gradient with Geant4's.

For every component j, with standard errors s and S of both:

    ratio_j = g_j / G_j        pull_j = (g_j - G_j) / sqrt(s_j^2 + S_j^2)
    sign:  "known" where |G_j| > 3 S_j, and then right or wrong

The vectors are compared by the cosine of the angle between them: in u = ln y, where each component is a change per
relative change of its parameter, and in y itself, where the parameter with the smallest scale dominates. The error of
a cosine is the standard deviation over pairs of replicas of both. `GradientEstimate.interval` has the 95 % intervals.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np

from calograd.gradients.estimates import GradientEstimate

KNOWN = 3.0
"""Number of standard errors above which a sign is known."""


@dataclass(frozen=True)
class Component:
    """One component of both gradients in logarithmic coordinates, with standard errors and 95 % intervals."""

    name: str
    surrogate: float
    surrogate_error: float
    surrogate_interval: tuple[float, float]
    geant4: float
    geant4_error: float
    geant4_interval: tuple[float, float]

    @property
    def pull(self) -> float:
        """Difference over its standard error."""
        error = sqrt(self.surrogate_error**2 + self.geant4_error**2)
        return (self.surrogate - self.geant4) / error if error > 0 else 0.0

    @property
    def ratio(self) -> float:
        """Ratio of the surrogate's value to Geant4's."""
        return self.surrogate / self.geant4 if self.geant4 else float("nan")

    @property
    def ratio_error(self) -> float:
        """Standard error of the ratio."""
        if self.geant4 == 0:
            return float("nan")
        return sqrt(self.surrogate_error**2 + (self.ratio * self.geant4_error) ** 2) / abs(self.geant4)

    @property
    def known(self) -> bool:
        """True if Geant4 knows the sign."""
        return abs(self.geant4) > KNOWN * self.geant4_error

    @property
    def precision(self) -> float:
        """Relative error of Geant4's value."""
        return self.geant4_error / abs(self.geant4) if self.geant4 else float("inf")

    @property
    def wrong_sign(self) -> bool:
        """True if the surrogate has the other sign where Geant4 knows it."""
        return self.known and self.surrogate * self.geant4 < 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        record: dict[str, Any] = {"name": self.name}
        for source, value, error, interval in (
            ("surrogate", self.surrogate, self.surrogate_error, self.surrogate_interval),
            ("geant4", self.geant4, self.geant4_error, self.geant4_interval),
        ):
            record[source] = {"value": value, "error": error, "interval": list(interval)}
        finite = isfinite(self.ratio) and isfinite(self.ratio_error)
        return record | {
            "ratio": self.ratio if finite else None, "ratio_error": self.ratio_error if finite else None,
            "pull": self.pull, "sign_known": self.known, "wrong_sign": self.wrong_sign,
        }  # fmt: skip


@dataclass(frozen=True)
class GradientCheck:
    """Comparison of both gradients at one point; ``cosine`` is in logarithmic coordinates, ``cosine_raw`` in cm."""

    surrogate: GradientEstimate
    geant4: GradientEstimate
    components: tuple[Component, ...]
    cosine: float
    cosine_error: float
    cosine_raw: float

    @property
    def precision(self) -> float:
        """Relative error of Geant4's vector: root of the sum of its squared errors over its length."""
        length = float(np.linalg.norm(self.geant4.gradient))
        return float(np.linalg.norm(self.geant4.gradient_error)) / length if length else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "surrogate": self.surrogate.to_dict(), "geant4": self.geant4.to_dict(),
            "components": [component.to_dict() for component in self.components],
            "cosine_log": self.cosine, "cosine_log_error": self.cosine_error, "cosine_raw": self.cosine_raw,
            "geant4_precision": self.precision if isfinite(self.precision) else None,
        }  # fmt: skip


def compare_gradients(surrogate: GradientEstimate, geant4: GradientEstimate, seed: int = 0) -> GradientCheck:
    """Compare two gradients of the same parameters at the same point, component by component and by their angle.

    The ``seed`` is that of the replicas which give the cosine's error.
    """
    ends = [np.stack(each.interval, axis=1) for each in (surrogate, geant4)]
    components = tuple(
        Component(
            name, float(surrogate.gradient[j]), float(surrogate.gradient_error[j]), _pair(ends[0][j]),
            float(geant4.gradient[j]), float(geant4.gradient_error[j]), _pair(ends[1][j]),
        )
        for j, name in enumerate(surrogate.names)
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    shape = (200, len(components))
    ours = surrogate.gradient + surrogate.gradient_error * rng.standard_normal(shape)
    theirs = geant4.draws[rng.integers(len(geant4.draws), size=200)]
    spread = [cosine(a, b) for a, b in zip(ours, theirs, strict=True)]
    return GradientCheck(
        surrogate, geant4, components, cosine(surrogate.gradient, geant4.gradient), float(np.std(spread, ddof=1)),
        cosine(surrogate.raw, geant4.raw),
    )  # fmt: skip


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cosine of the angle between two vectors; zero if one of them is zero."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0


def _pair(ends: np.ndarray) -> tuple[float, float]:
    return float(ends[0]), float(ends[1])
