"""All distances at one point (design, energy), each beside its error and its floor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calograd.evaluation.matching import Matched, Point
from calograd.events.cells import Cells
from calograd.metrics import distances as d
from calograd.metrics.observables import READOUT_THRESHOLD, Observables, observe, quantity_names

CENTRED = ("x_mean", "y_mean")
"""Zero on average: their bias is in units of Geant4's deviation and their RRMSE is not defined."""


@dataclass(frozen=True)
class Quantity:
    """One observable or layer energy at one point. NaN where not defined.

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
    """Everything compared at one point.

    Args:
        point: design and energy.
        rows: which rows of the two files were compared.
        generated, reference: `Observables.table` of either sample, zero-energy showers left out.
        excluded_generated, excluded_reference: showers without energy.
        quantities: by name.
        correlation: of the layer energies, with ``correlation_floor`` and its spread.
        fpd: Frechet distance with its floor and spread.
        null: what a perfect generator would give.
    """

    point: Point
    rows: Matched
    generated: np.ndarray = field(repr=False)
    reference: np.ndarray = field(repr=False)
    excluded_generated: int
    excluded_reference: int
    quantities: dict[str, Quantity]
    correlation: d.CorrelationDifference
    correlation_floor: float
    correlation_floor_spread: float
    fpd: float
    fpd_floor: float
    fpd_floor_spread: float
    null: d.Null = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; NaN is left for the writer to turn into null."""
        return {
            "dx": self.point.design.dx, "dz": list(self.point.design.dz), "energy": self.point.energy,
            "showers": {"generated": len(self.generated), "reference": len(self.reference)},
            "zero_energy_showers": {"generated": self.excluded_generated, "reference": self.excluded_reference},
            "quantities": {
                name: {k: v for k, v in vars(q).items() if k != "name"} | {"w1_over_floor": q.w1_over_floor}
                for name, q in self.quantities.items()
            },
            "layer_correlations": {
                "generated": self.correlation.generated.tolist(), "reference": self.correlation.reference.tolist(),
                "errors": self.correlation.errors.tolist(), "largest_difference": self.correlation.largest,
                "error": self.correlation.error, "floor": self.correlation_floor,
                "floor_spread": self.correlation_floor_spread,
            },
            "fpd": {"value": self.fpd, "floor": self.fpd_floor, "floor_spread": self.fpd_floor_spread},
        }  # fmt: skip


def observe_rows(cells: Cells, rows: np.ndarray, threshold: float = READOUT_THRESHOLD) -> Observables:
    """Observables of the chosen rows of a cells record."""
    return observe(cells.cells[rows], cells.dx[rows], cells.dz[rows], threshold)


def compare_point(
    generated: Cells, reference: Cells, rows: Matched, threshold: float, rng: np.random.Generator
) -> PointResult:
    """All distances at one point. Both samples need showers with energy: at least four."""
    ours = observe_rows(generated, rows.generated, threshold)
    theirs = observe_rows(reference, rows.reference, threshold)
    a, b, n_z = ours.table(), theirs.table(), ours.layers.shape[1]
    names = quantity_names(n_z)
    null = d.null_distances(b, len(a), n_z, rng, centred=is_centred(names))
    correlation = d.compare_correlations(a[:, -n_z:], b[:, -n_z:], rng)
    return PointResult(
        rows.point, rows, a, b, ours.excluded, theirs.excluded, quantities(names, a, b, null, rng), correlation,
        float(null.correlation.mean()), float(null.correlation.std(ddof=1)),
        d.frechet(a, b), float(null.fpd.mean()), float(null.fpd.std(ddof=1)), null,
    )  # fmt: skip


def is_centred(names: tuple[str, ...]) -> np.ndarray:
    """Which of the quantities are zero on average, shape (k,)."""
    return np.array([name in CENTRED for name in names])


def quantities(
    names: tuple[str, ...], a: np.ndarray, b: np.ndarray, null: d.Null, rng: np.random.Generator
) -> dict[str, Quantity]:
    """Every column of the tables a (generated) and b (reference) by name, with what a perfect generator would give."""
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
