"""Reconstructed entry and direction of showers against the true ones: S-curve, position and angular resolution.

Entry and slopes are those of `calograd.metrics.observables.reconstruct`, by energy weights (centre of gravity) and by
logarithmic ones. Three residuals are compared, reconstructed minus true:

* ``position``: entry in x and in y, cm.
* ``projected angle``: arctan of dx/dz and of dy/dz, degrees.
* ``theta``: polar angle in the plane of the true direction, arctan(tan(theta) + (s - s_true) . n) - theta with
  n = (cos(phi), sin(phi)), degrees.

The first two are taken in 10 bins, or 5 where 10 hold too few (`BINS`), of the true entry within its cell,
u = p/dx - round(p/dx) from -1/2 to 1/2. Cells are square, so x against u_x and y against u_y go to the same bins. In a
bin

    bias = mean residual,      resolution = standard deviation of the residual about it

and the S-curve is the mean of the reconstructed entry, u + bias/dx, against u. Over the whole cell the bias is the mean
of all residuals, and the resolution is that about the means of the bins, so that the S-curve is no part of it.

Errors come from a bootstrap of the showers. Pull = difference of generated and reference over its error, of the
biases and of the logarithms of the resolutions. The floors are those of `calograd.metrics.distances`: random halves of
the reference, scaled to the sizes compared. A bin with fewer than `MIN_PER_BIN` entries in either file is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from calograd.events.dense import Cells
from calograd.metrics.distances import BOOTSTRAPS, SPLITS
from calograd.metrics.observables import LOG_WEIGHT, reconstruct

BINS = (10, 5)
"""Numbers of bins of the entry within its cell: the first by which no bin is left out, or the last."""
MIN_PER_BIN = 20
"""Fewest entries of either file in a bin that is compared."""
METHODS = {"cog": "centre of gravity", "log": "logarithmic weights"}
"""Methods of reconstruction by name."""
_BATCH = 4_000_000
"""Most weights of showers that a bootstrap holds at once."""


@dataclass(frozen=True)
class BinnedResiduals:
    """Bias and resolution of a residual in bins and over the whole cell, with standard errors; NaN where left out.

    Args:
        counts: entries in every bin, shape (bins,).
        bias, bias_error, resolution, resolution_error: of every bin, shape (bins,).
        mean, mean_error, spread, spread_error: bias and resolution over the whole cell.
    """

    counts: np.ndarray
    bias: np.ndarray
    bias_error: np.ndarray
    resolution: np.ndarray
    resolution_error: np.ndarray
    mean: float
    mean_error: float
    spread: float
    spread_error: float


@dataclass(frozen=True)
class ResidualComparison:
    """A residual of generated and reference showers by one method.

    Args:
        edges: edges of the bins of u, shape (bins + 1,); one bin for ``theta``.
        generated, reference: bias and resolution of both.
        null_bias: differences of the biases of Geant4 and itself, shape (splits, bins).
        null_mean, null_ratio: the same of the bias over the whole cell, and ratios of resolutions, shape (splits,).
    """

    edges: np.ndarray
    generated: BinnedResiduals
    reference: BinnedResiduals
    null_bias: np.ndarray = field(repr=False)
    null_mean: np.ndarray = field(repr=False)
    null_ratio: np.ndarray = field(repr=False)

    @property
    def difference(self) -> np.ndarray:
        """Bias of the generated minus that of the reference showers in every bin, shape (bins,)."""
        return np.asarray(self.generated.bias - self.reference.bias)

    @property
    def difference_error(self) -> np.ndarray:
        """Standard errors of `difference`, shape (bins,)."""
        return np.asarray(np.hypot(self.generated.bias_error, self.reference.bias_error))

    @property
    def ratio(self) -> tuple[float, float]:
        """Resolution over the whole cell, generated over reference, with its standard error."""
        a, b = self.generated, self.reference
        value = a.spread / b.spread if b.spread > 0 else float("nan")
        return value, value * float(self._log_error(a.spread, a.spread_error, b.spread, b.spread_error))

    @property
    def largest(self) -> int:
        """Number of the bin whose biases differ most."""
        return int(np.nanargmax(np.abs(self.difference)))

    @property
    def floor(self) -> float:
        """Mean over the splits of the largest difference of biases of Geant4 and itself."""
        return float(np.nanmax(np.abs(self.null_bias), axis=1).mean())

    @property
    def pulls(self) -> np.ndarray:
        """Pulls of biases and of resolutions in the bins that are compared, shape (2, bins compared)."""
        a, b = self.generated, self.reference
        with np.errstate(divide="ignore", invalid="ignore"):
            both = np.array([
                self.difference / self.difference_error,
                np.log(a.resolution / b.resolution)
                / self._log_error(a.resolution, a.resolution_error, b.resolution, b.resolution_error),
            ])  # fmt: skip
        return both[:, np.isfinite(both).all(0)]

    @staticmethod
    def _log_error(a: Any, error_a: Any, b: Any, error_b: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.hypot(np.divide(error_a, a), np.divide(error_b, b))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        ratio, error = self.ratio
        return {
            "edges": self.edges.tolist(),
            "generated": vars(self.generated), "reference": vars(self.reference),
            "bias_difference": self.difference, "bias_difference_error": self.difference_error,
            "bias_difference_floor": np.abs(self.null_bias).mean(0),
            "largest_bias_difference": self.difference[self.largest], "largest_bias_difference_floor": self.floor,
            "resolution_ratio": {"value": ratio, "error": error, "floor_spread": float(self.null_ratio.std(ddof=1))},
            "pulls": {"bias": self.pulls[0], "resolution": self.pulls[1]},
        }  # fmt: skip


@dataclass(frozen=True)
class ReconstructionResult:
    """Reconstructed entry and direction at one design point.

    Args:
        pitch: pitch of the cells, cm.
        log_weight: parameter of the logarithmic weights.
        scanned: True if the entries lie in several bins, so that there is an S-curve.
        residuals: comparisons by method, one of `METHODS`, and name: ``position``, and of two or more layers
            ``projected angle`` and ``theta``.
    """

    pitch: float
    log_weight: float
    scanned: bool
    residuals: dict[str, dict[str, ResidualComparison]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        units = {"position": "cm", "projected angle": "degrees", "theta": "degrees"}
        return {"log_weight": self.log_weight} | {
            method: {name: {"unit": units[name]} | found.to_dict() for name, found in each.items()}
            for method, each in self.residuals.items()
        }


class _Residuals(NamedTuple):
    """Residuals of showers, (n, components), with the bin of each; NaN where a shower has none."""

    values: np.ndarray
    bins: np.ndarray
    n_bins: int


def compare_reconstructions(
    generated: Cells, reference: Cells, rng: np.random.Generator, log_weight: float = LOG_WEIGHT
) -> tuple[ReconstructionResult | None, str | None]:
    """Compare reconstructed entries and directions at one design point.

    Args:
        generated, reference: rows of the design point.
        rng: generator of bootstraps and splits.
        log_weight: parameter w0 of the logarithmic weights.

    Returns:
        The comparison, and a sentence on what was left out. No comparison, and no sentence, on the axis.
    """
    if generated.incident.on_axis and reference.incident.on_axis:
        return None, None
    for n_bins in BINS:
        entries = [_entry_bins(part, n_bins) for part in (generated, reference)]
        counts = np.array([np.bincount(bins.ravel(), minlength=n_bins) for bins in entries])
        enough = (counts >= MIN_PER_BIN).all(0)
        few = int(((counts > 0).any(0) & ~enough).sum())
        if not few:
            break
    if not enough.any():
        return None, (
            f"fewer than {MIN_PER_BIN} entries in each of {n_bins} bins of the cell; entry and direction are not "
            "compared: generate and simulate more showers"
        )
    sentence = f"fewer than {MIN_PER_BIN} entries in {few} of {n_bins} bins of the cell, which are left out"
    found: dict[str, dict[str, ResidualComparison]] = {}
    for method in METHODS:
        ours, theirs = (
            _residuals(part, bins, n_bins, None if method == "cog" else log_weight)
            for part, bins in zip((generated, reference), entries, strict=True)
        )
        compared = {name: _compare(ours[name], theirs[name], rng) for name in ours}
        found[method] = {name: each for name, each in compared.items() if each is not None}
    scanned = int((counts > 0).any(0).sum()) > 2
    result = ReconstructionResult(float(reference.dx[0]), log_weight, scanned, found)
    return result, sentence if few else None


def _entry_bins(cells: Cells, n_bins: int) -> np.ndarray:
    """Return the bin of the true entry within its cell in x and y, shape (n, 2)."""
    u = cells.incident.position.astype(np.float64) / cells.dx.astype(np.float64)[:, None]
    return np.clip(((u - np.round(u) + 0.5) * n_bins).astype(np.int64), 0, n_bins - 1)


def _residuals(cells: Cells, bins: np.ndarray, n_bins: int, log_weight: float | None) -> dict[str, _Residuals]:
    """Return the residuals of showers with energy by name."""
    seen = reconstruct(cells.cells, cells.dx, cells.dz, cells.incident, log_weight)
    kept = seen.kept.numpy()
    entry, off, bins, incident = seen.entry.numpy(), seen.slope.numpy(), bins[kept], cells.incident[kept]
    found = {"position": _Residuals(entry, bins, n_bins)}
    if cells.dz.shape[1] > 1:
        true, theta, phi = incident.slopes, *(np.radians(a.astype(np.float64)) for a in (incident.theta, incident.phi))
        projected = np.degrees(np.arctan(true + off) - np.arctan(true))
        along = np.tan(theta) + off[:, 0] * np.cos(phi) + off[:, 1] * np.sin(phi)
        polar = np.degrees(np.arctan(along) - theta)[:, None]
        found["projected angle"] = _Residuals(projected, bins, n_bins)
        found["theta"] = _Residuals(polar, np.zeros_like(bins[:, :1]), 1)
    return found


def _compare(ours: _Residuals, theirs: _Residuals, rng: np.random.Generator) -> ResidualComparison | None:
    """Compare residuals; None where no bin has enough of them."""
    sums = [_Sums.of(each) for each in (ours, theirs)]
    used = np.min([each.counts for each in sums], axis=0) >= MIN_PER_BIN
    if not used.any():
        return None
    a, b = (each.summary(used, rng) for each in sums)
    one, two = sums[1].halves(used, rng)
    factor = np.sqrt((1 / sums[0].n + 1 / sums[1].n) / (2 / (sums[1].n // 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.exp(np.log(one.spread / two.spread) * factor)
    return ResidualComparison(
        np.linspace(-0.5, 0.5, ours.n_bins + 1), a, b, (one.bias - two.bias) * factor, (one.mean - two.mean) * factor,
        ratio,
    )  # fmt: skip


class _Moments(NamedTuple):
    """Biases and resolutions of replicas of showers.

    Attributes:
        bias, resolution: in every bin, shape (replicas, bins).
        mean, spread: over the whole cell, shape (replicas,).
    """

    bias: np.ndarray
    resolution: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


class _Sums(NamedTuple):
    """Number of entries, sum and sum of squares of the residuals of every shower in every bin, shape (3, n, bins)."""

    sums: np.ndarray

    @classmethod
    def of(cls, residuals: _Residuals) -> _Sums:
        values, bins, n_bins = residuals
        known = np.isfinite(values)
        n, index = len(values), np.arange(len(values))[:, None] * n_bins + bins
        sums = [
            np.bincount(index[known], values[known] ** power, minlength=n * n_bins).reshape(n, n_bins)
            for power in range(3)
        ]
        return cls(np.stack(sums))

    @property
    def n(self) -> int:
        """Number of showers."""
        return int(self.sums.shape[1])

    @property
    def counts(self) -> np.ndarray:
        """Entries in every bin, shape (bins,)."""
        return np.asarray(self.sums[0].sum(0))

    def moments(self, weights: np.ndarray, used: np.ndarray) -> _Moments:
        """Return the moments of showers with weights, shape (replicas, n), in the bins that are used."""
        count, first, second = (weights @ each for each in self.sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            square = np.maximum(second - first**2 / count, 0.0)
            bias = np.where(used, first / count, np.nan)
            resolution = np.where(used, np.sqrt(square / (count - 1)), np.nan)
        freedom = count[:, used].sum(1) - used.sum()
        mean = first[:, used].sum(1) / count[:, used].sum(1)
        return _Moments(bias, resolution, mean, np.sqrt(np.nansum(square[:, used], axis=1) / freedom))

    def summary(self, used: np.ndarray, rng: np.random.Generator) -> BinnedResiduals:
        """Return bias and resolution with errors from a bootstrap of the showers."""
        (bias,), (resolution,), (mean,), (spread,) = self.moments(np.ones((1, self.n)), used)
        errors = [np.std(values, axis=0, ddof=1) for values in self._replicas(BOOTSTRAPS, used, self._resampled, rng)]
        return BinnedResiduals(
            self.counts.astype(np.int64), bias, errors[0], resolution, errors[1], float(mean), float(errors[2]),
            float(spread), float(errors[3]),
        )  # fmt: skip

    def halves(self, used: np.ndarray, rng: np.random.Generator) -> tuple[_Moments, _Moments]:
        """Return the moments of random halves of the showers, `SPLITS` of each."""
        both = self._replicas(SPLITS, used, self._split, rng)
        one, two = (_Moments(*(values[k::2] for values in both)) for k in (0, 1))
        return one, two

    def _replicas(
        self, count: int, used: np.ndarray, draw: Callable[[int, np.random.Generator], np.ndarray],
        rng: np.random.Generator,
    ) -> _Moments:  # fmt: skip
        """Return the moments of replicas drawn a batch at a time, so that their weights fit the memory."""
        batch = max(1, _BATCH // self.n)
        parts = [
            self.moments(draw(min(batch, count - start), rng), used) for start in range(0, count, batch)
        ]  # fmt: skip
        return _Moments(*(np.concatenate(values) for values in zip(*parts, strict=True)))

    def _resampled(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return how often every shower is drawn, shape (count, n)."""
        drawn = rng.integers(self.n, size=(count, self.n)) + self.n * np.arange(count)[:, None]
        return np.bincount(drawn.ravel(), minlength=count * self.n).reshape(count, self.n).astype(np.float64)

    def _split(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return masks of random halves, one and its other half in turn, shape (2 count, n)."""
        rank = rng.permuted(np.tile(np.arange(self.n), (count, 1)), axis=1)
        half = self.n // 2
        masks = np.stack([rank < half, (rank >= half) & (rank < 2 * half)], axis=1)
        return masks.reshape(2 * count, self.n).astype(np.float64)
