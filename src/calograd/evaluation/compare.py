"""All distances at one design point, each beside its error and its Geant4-against-Geant4 floor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calograd.evaluation.matching import BeamKind, DesignPoint, MatchedRows
from calograd.evaluation.reconstruction import ReconstructionResult
from calograd.metrics import distances as d
from calograd.metrics.observables import Profile

CENTRED = ("x_mean", "y_mean")
"""Quantities that are zero on average: their bias is in units of Geant4's deviation, their RRMSE is not defined."""


@dataclass(frozen=True)
class Quantity:
    """One observable or layer energy at one design point. NaN where not defined.

    ``bias`` is relative to Geant4's mean (for `CENTRED`, to its deviation); ``sigma_ratio`` and ``width68_ratio`` are
    generated over reference with standard error and 95 % interval; ``w1`` is in units of Geant4's deviation.
    """

    name: str
    mean_generated: float
    mean_reference: float
    sigma_generated: float
    sigma_reference: float
    bias: float
    bias_error: float
    sigma_ratio: float
    sigma_ratio_error: float
    sigma_ratio_low: float
    sigma_ratio_high: float
    width68_ratio: float
    width68_ratio_error: float
    w1: float
    w1_floor: float
    w1_floor_spread: float
    rrmse: float
    rrmse_floor: float

    @property
    def w1_over_floor(self) -> float:
        """W1 in units of its floor; about one for a perfect generator."""
        return self.w1 / self.w1_floor if self.w1_floor > 0 else float("nan")


@dataclass(frozen=True)
class PointResult:
    """The comparison at one design point.

    Args:
        point: design and energy.
        rows: rows of the two files that were compared.
        names: names of the columns of both tables.
        generated, reference: quantities of both samples, shape (n, k), showers without energy left out.
        excluded_generated, excluded_reference: numbers of showers without energy.
        quantities: comparisons by name.
        profiles: mean profiles ``along`` and ``across`` the beam, generated and reference.
        correlation: layer correlations; None where the kind of record has none.
        correlation_floor, correlation_floor_spread: largest difference of Geant4 from itself, and its deviation.
        fpd, fpd_floor, fpd_floor_spread: Frechet distance, that of Geant4 from itself, and its deviation.
        null: distances that a perfect generator would have.
        reconstruction: reconstructed entry and direction; None on the axis.
    """

    point: DesignPoint
    rows: MatchedRows
    names: tuple[str, ...]
    generated: np.ndarray = field(repr=False)
    reference: np.ndarray = field(repr=False)
    excluded_generated: int
    excluded_reference: int
    quantities: dict[str, Quantity]
    profiles: dict[str, tuple[Profile, Profile]] = field(repr=False)
    correlation: d.CorrelationDifference | None
    correlation_floor: float
    correlation_floor_spread: float
    fpd: float
    fpd_floor: float
    fpd_floor_spread: float
    null: d.NullDistances = field(repr=False)
    reconstruction: ReconstructionResult | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; NaN is left for the writer to turn into null."""
        result: dict[str, Any] = {
            "dx": self.point.design.dx, "dz": list(self.point.design.dz), "energy": self.point.energy,
            "showers": {"generated": len(self.generated), "reference": len(self.reference)},
            "zero_energy_showers": {"generated": self.excluded_generated, "reference": self.excluded_reference},
            "quantities": {
                name: {k: v for k, v in vars(q).items() if k != "name"} | {"w1_over_floor": q.w1_over_floor}
                for name, q in self.quantities.items()
            },
            "fpd": {"value": self.fpd, "floor": self.fpd_floor, "floor_spread": self.fpd_floor_spread},
            "profiles": {
                name: {who: p._asdict() for who, p in zip(("generated", "reference"), pair, strict=True)}
                for name, pair in self.profiles.items()
            },
        }  # fmt: skip
        beam = self.point.beam
        if beam != BeamKind():
            result["beam"] = {"particle": beam.particle or None, "theta": list(beam.theta) or None}
        if self.reconstruction is not None:
            result["reconstruction"] = self.reconstruction.to_dict()
        if self.correlation is not None:
            result["layer_correlations"] = {
                "generated": self.correlation.generated.tolist(), "reference": self.correlation.reference.tolist(),
                "errors": self.correlation.errors.tolist(), "largest_difference": self.correlation.largest,
                "error": self.correlation.error, "floor": self.correlation_floor,
                "floor_spread": self.correlation_floor_spread,
            }  # fmt: skip
        return result


@dataclass(frozen=True)
class Sample:
    """The showers of one file at one design point.

    Args:
        names: names of the quantities.
        table: quantities, showers without energy left out, shape (n, k); those of layers or slabs come last.
        excluded: number of showers without energy.
        profiles: mean profiles by direction.
    """

    names: tuple[str, ...]
    table: np.ndarray
    excluded: int
    profiles: dict[str, Profile]


def compare_samples(
    rows: MatchedRows, ours: Sample, theirs: Sample, n_z: int, correlated: bool, rng: np.random.Generator
) -> PointResult:
    """Compute all distances at one design point.

    Args:
        rows: rows of the two files.
        ours, theirs: generated and reference showers, four or more of each.
        n_z: number of energies of layers, which are the last columns.
        correlated: True to compare the correlations of those energies.
        rng: generator of bootstraps and splits.
    """
    names, a, b = theirs.names, ours.table, theirs.table
    null = d.null_distances(b, len(a), n_z, rng, centred=is_centred(names))
    correlation = d.compare_correlations(a[:, -n_z:], b[:, -n_z:], rng) if correlated else None
    return PointResult(
        rows.point, rows, names, a, b, ours.excluded, theirs.excluded, compare_quantities(names, a, b, null, rng),
        {name: (ours.profiles[name], theirs.profiles[name]) for name in ours.profiles}, correlation,
        float(null.correlation.mean()), float(null.correlation.std(ddof=1)),
        d.frechet(a, b), float(null.fpd.mean()), float(null.fpd.std(ddof=1)), null,
    )  # fmt: skip


def is_centred(names: tuple[str, ...]) -> np.ndarray:
    """Return which of the quantities are zero on average, shape (k,)."""
    return np.array([name in CENTRED for name in names])


def compare_quantities(
    names: tuple[str, ...], a: np.ndarray, b: np.ndarray, null: d.NullDistances, rng: np.random.Generator
) -> dict[str, Quantity]:
    """Compare every column of the tables a (generated) and b (reference).

    Args:
        names: names of the columns.
        a, b: quantities of generated and reference showers, shapes (n_a, k) and (n_b, k).
        null: distances that a perfect generator would have.
        rng: generator of the bootstraps.
    """
    bias = d.biases(a, b, is_centred(names))
    sigma, width = d.spread_ratios(a, b, rng)
    w1, (error, error_floor) = d.wasserstein(a, b), d.rrmse(a, b)
    columns = (
        a.mean(0), b.mean(0), a.std(0, ddof=1), b.std(0, ddof=1), bias.value, bias.error,
        sigma.value, sigma.error, sigma.low, sigma.high, width.value, width.error,
        w1, null.w1.mean(0), null.w1.std(0, ddof=1),
        np.where(is_centred(names), np.nan, error), np.where(is_centred(names), np.nan, error_floor),
    )  # fmt: skip
    return {name: Quantity(name, *(float(c[k]) for c in columns)) for k, name in enumerate(names)}
