"""Distances between two samples of showers at one design point, each beside that of Geant4 from itself.

Samples are tables, one row a shower, one column a quantity: a (n_a, k) generated, b (n_b, k) reference.

* bias: (mean a - mean b) / mean b, and its standard error. A centroid is zero on average, so its bias is given in
  units of Geant4's deviation.
* ratio of the standard deviations, and of the central 68 % widths (q84 - q16), with bootstrap intervals.
* W1 = integral |F_a - F_b| / sigma_b.
* sliced W1 of all columns at once: the mean W1 of the projections on random unit vectors, after every column was
  divided by its sigma_b (Bonneel et al., J. Math. Imaging Vis. 51 (2015) 22). It sees how columns go together.
* RRMSE = sqrt(mean over pairs (a_i - b_j)^2) / mean b. Showers of the two samples are independent, so any pairing is
  arbitrary: the mean over all pairs is taken, var a + var b + (mean a - mean b)^2. A perfect generator gives
  sqrt(2) sigma_b / mean b, its floor.
* layer correlations: largest |rho_a - rho_b| over the pairs of layers; a layer that never fires correlates with none.
* FPD = |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^1/2) of the columns standardised by the reference (Frechet
  distance of the Gaussians fitted to them). Finite samples bias it upwards in proportion to 1/n_a + 1/n_b to first
  order: `value - floor` is the estimate for infinite samples.

**Floors.** Two finite samples of one distribution differ. Their distance at the sizes of the comparison is estimated by
random splits of the reference into halves of m = n_b // 2 showers. The halves are independent samples of Geant4, so
their distance is unbiased for sizes (m, m). Its asymptotic behaviour brings it to the sizes (n_a, n_b): the factor is
((1/n_a + 1/n_b) / (2/m))^p, with p = 1/2 for W1, biases, spreads and correlations (Donsker) and p = 1 for FPD. A
bootstrap of both samples from the reference would be biased low, because it never leaves the showers seen. The spread
of a floor is the standard deviation over splits: the scatter of the distance of a perfect generator.

All random numbers come from the generator given. Undefined values, as of a quantity that never varies, are NaN.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BOOTSTRAPS = 200
"""Number of bootstrap samples behind an error."""
SPLITS = 100
"""Number of random splits of the reference behind a floor."""
DIRECTIONS = 500
"""Number of random unit vectors behind a sliced distance."""
_BATCH = 4_000_000
"""Most numbers that a bootstrap holds at once."""


class Estimates(NamedTuple):
    """Values of several quantities with their standard errors, each shape (k,)."""

    value: np.ndarray
    error: np.ndarray


class Ratios(NamedTuple):
    """Ratios with bootstrap standard error and 95 % interval, each shape (k,)."""

    value: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray


def biases(a: np.ndarray, b: np.ndarray, centred: np.ndarray | None = None) -> Estimates:
    """Return the biases of the means of a against b, with standard errors.

    Args:
        a: generated quantities, shape (n_a, k).
        b: reference quantities, shape (n_b, k).
        centred: True for quantities that are zero on average, shape (k,); their bias is in units of b's deviation.
    """
    mean_a, mean_b = a.mean(0), b.mean(0)
    var_a, var_b = a.var(0, ddof=1) / len(a), b.var(0, ddof=1) / len(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale, pull = np.abs(mean_b), mean_a / mean_b
        if centred is not None:
            scale = np.where(centred, b.std(0, ddof=1), scale)
            pull = np.where(centred, 1.0, pull)
        value = (mean_a - mean_b) / scale
        return Estimates(_finite(value), _finite(np.sqrt(var_a + pull**2 * var_b) / scale))


def spread_ratios(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[Ratios, Ratios]:
    """Return the ratios a / b of standard deviations and of central 68 % widths, with errors by bootstrap of both."""
    std_a, width_a = _bootstrap_spreads(a, rng)
    std_b, width_b = _bootstrap_spreads(b, rng)
    return (
        _ratio(a.std(0, ddof=1), b.std(0, ddof=1), std_a, std_b),
        _ratio(_width(np.sort(a, axis=0)), _width(np.sort(b, axis=0)), width_a, width_b),
    )


def wasserstein(a: np.ndarray, b: np.ndarray, scale: np.ndarray | None = None) -> np.ndarray:
    """Return the 1-Wasserstein distance of every column divided by a scale, by default the deviation of b, (k,)."""
    scale = b.std(0, ddof=1) if scale is None else scale
    with np.errstate(divide="ignore", invalid="ignore"):
        if len(a) == len(b):
            return _finite(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean(0) / scale)
        from scipy.stats import wasserstein_distance

        raw = [float(wasserstein_distance(a[:, k], b[:, k])) for k in range(a.shape[1])]
        return _finite(np.array(raw) / scale)


def sliced_wasserstein(
    a: np.ndarray,
    b: np.ndarray,
    rng: np.random.Generator,
    scale: np.ndarray | None = None,
    *,
    directions: int = DIRECTIONS,
) -> float:
    """Return the sliced 1-Wasserstein distance of two samples of standardised columns; NaN if no column varies.

    Args:
        a: generated quantities, shape (n_a, k).
        b: reference quantities, shape (n_b, k).
        rng: generator of the unit vectors.
        scale: what columns are divided by, shape (k,), by default the deviations of b; columns with zero are left out.
        directions: number of unit vectors.
    """
    scale = b.std(0, ddof=1) if scale is None else scale
    varies = scale > 0
    vectors = rng.standard_normal((int(varies.sum()), directions))
    if not len(vectors):
        return float("nan")
    vectors /= np.linalg.norm(vectors, axis=0)
    of_a, of_b = (sample[:, varies] / scale[varies] @ vectors for sample in (a, b))
    return float(wasserstein(of_a, of_b, np.ones(directions)).mean())


def rrmse(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the relative root mean square error over all pairs, and its floor for a perfect generator, (k,) each."""
    mean = b.mean(0)
    square = a.var(0) + b.var(0) + (a.mean(0) - mean) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return _finite(np.sqrt(square) / np.abs(mean)), _finite(np.sqrt(2 * b.var(0)) / np.abs(mean))


def correlations(layers: np.ndarray) -> np.ndarray:
    """Return Pearson correlations of layer energies, (..., n, n_z) -> (..., n_z, n_z); zero for constant layers."""
    centred = layers - layers.mean(-2, keepdims=True)
    norm = np.sqrt((centred**2).sum(-2, keepdims=True))
    unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    return np.asarray(np.swapaxes(unit, -1, -2) @ unit)


@dataclass(frozen=True)
class CorrelationDifference:
    """Layer correlations of both samples, their difference, its bootstrap errors, and the largest of it.

    ``generated``, ``reference`` and ``errors`` have shape (n_z, n_z); ``largest`` is the largest absolute difference
    and ``error`` the standard error of that entry.
    """

    generated: np.ndarray
    reference: np.ndarray
    errors: np.ndarray
    largest: float
    error: float


def compare_correlations(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> CorrelationDifference:
    """Compare the correlations of generated layer energies a (n_a, n_z) with those of b (n_b, n_z)."""
    of_a, of_b = correlations(a), correlations(b)
    variance = np.zeros_like(of_b)
    for sample in (a, b):
        replicas = [correlations(sample[rng.integers(len(sample), size=len(sample))]) for _ in range(BOOTSTRAPS // 2)]
        variance += np.var(replicas, axis=0, ddof=1)
    difference, errors = np.abs(of_a - of_b), np.sqrt(variance)
    worst = np.unravel_index(np.argmax(difference), difference.shape)
    return CorrelationDifference(of_a, of_b, errors, float(difference[worst]), float(errors[worst]))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Return the FPD, the Frechet distance of the Gaussians fitted to a and b.

    Columns are standardised by b; those constant in b are left out.
    """
    scale = b.std(0, ddof=1)
    varies = scale > 0
    if not varies.any():
        return float("nan")
    a, b = a[:, varies] / scale[varies], b[:, varies] / scale[varies]
    shift = a.mean(0) - b.mean(0)
    cov_a, cov_b = (np.atleast_2d(np.cov(sample, rowvar=False)) for sample in (a, b))
    values, vectors = np.linalg.eigh(cov_b)
    root_b = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root_b @ cov_a @ root_b), 0, None)).sum()
    return float(max(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.0))


@dataclass(frozen=True)
class NullDistances:
    """Distances of a perfect generator at the sizes of the comparison, one row a split of the reference.

    Args:
        bias: biases of means, shape (splits, k).
        spread: ratios of standard deviations, shape (splits, k).
        w1: Wasserstein distances, shape (splits, k).
        correlation: largest differences of layer correlations, shape (splits,).
        fpd: Frechet distances, shape (splits,).
    """

    bias: np.ndarray
    spread: np.ndarray
    w1: np.ndarray
    correlation: np.ndarray
    fpd: np.ndarray


def null_distances(
    b: np.ndarray,
    n_a: int,
    n_z: int,
    rng: np.random.Generator,
    *,
    centred: np.ndarray | None = None,
    splits: int = SPLITS,
) -> NullDistances:
    """Return the distances of Geant4 from itself at sizes (n_a, len(b)), by random halves of b.

    Args:
        b: reference quantities of four or more showers, shape (n_b, k).
        n_a: number of generated showers.
        n_z: number of layer energies, which are the last columns.
        rng: generator of the splits.
        centred: see `biases`.
        splits: number of splits.
    """
    factor = _factor(n_a, len(b))
    scale = b.std(0, ddof=1)
    rows = []
    for one, two in _halves(b, splits, rng):
        w1 = wasserstein(one, two, scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = one.std(0, ddof=1) / two.std(0, ddof=1)
        corr = np.abs(correlations(one[:, -n_z:]) - correlations(two[:, -n_z:])).max()
        rows.append((biases(one, two, centred).value, ratio, w1, corr, frechet(one, two)))
    bias, spread, w1_all, correlation, fpd = (np.array(column) for column in zip(*rows, strict=True))
    root = np.sqrt(factor)
    spread = np.exp(np.log(np.where(spread > 0, spread, np.nan)) * root)
    return NullDistances(bias * root, _finite(spread), _finite(w1_all * root), correlation * root, fpd * factor)


def null_sliced_wasserstein(
    b: np.ndarray, n_a: int, rng: np.random.Generator, *, directions: int = DIRECTIONS, splits: int = SPLITS
) -> np.ndarray:
    """Return sliced Wasserstein distances of Geant4 from itself at sizes (n_a, len(b)), shape (splits,).

    Arguments are those of `null_distances` and `sliced_wasserstein`.
    """
    scale = b.std(0, ddof=1)
    found = [sliced_wasserstein(one, two, rng, scale, directions=directions) for one, two in _halves(b, splits, rng)]
    return np.asarray(np.array(found) * np.sqrt(_factor(n_a, len(b))))


def null_wasserstein(b: np.ndarray, n_a: int, rng: np.random.Generator, *, splits: int = SPLITS) -> np.ndarray:
    """Return Wasserstein distances alone of Geant4 from itself at sizes (n_a, len(b)), shape (splits, k).

    Arguments are those of `null_distances`.
    """
    scale = b.std(0, ddof=1)
    found = np.array([wasserstein(one, two, scale) for one, two in _halves(b, splits, rng)])
    return np.asarray(found * np.sqrt(_factor(n_a, len(b))))


def swapped_wasserstein(a: np.ndarray, b: np.ndarray, rng: np.random.Generator, *, splits: int = SPLITS) -> np.ndarray:
    """Return Wasserstein distances of a perfect generator whose showers come in pairs with Geant4's.

    Row i of both samples shares everything that both were asked for. The two are then exchangeable, so distances after
    exchanging random rows have the distribution of the distance of a perfect generator. What differs from row to row
    drops out, which halves of the reference would count as noise.

    Args:
        a, b: generated and reference quantities, shape (n, k) each.
        rng: generator of the exchanges.
        splits: number of exchanges.

    Returns:
        Distances in units of the deviation of b, shape (splits, k).
    """
    scale, found = b.std(0, ddof=1), []
    for _ in range(splits):
        kept = (rng.random(len(a)) < 0.5)[:, None]
        found.append(wasserstein(np.where(kept, a, b), np.where(kept, b, a), scale))
    return np.array(found)


def _halves(b: np.ndarray, splits: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield random halves of a sample."""
    half = len(b) // 2
    for _ in range(splits):
        order = rng.permutation(len(b))
        yield b[order[:half]], b[order[half : 2 * half]]


def _factor(n_a: int, n_b: int) -> float:
    """Return the factor that brings squared distances of halves of n_b showers to the sizes (n_a, n_b)."""
    return (1 / n_a + 1 / n_b) / (2 / (n_b // 2))


def _bootstrap_spreads(sample: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return bootstrap replicas of standard deviation and 68 % width, each (BOOTSTRAPS, k).

    Columns are sorted first, so that one sort of the drawn ranks gives the quantiles of every column; the joint
    distribution of the columns is not needed for their separate errors.
    """
    ordered = np.sort(sample - sample.mean(0), axis=0)
    n, k = ordered.shape
    batch = max(1, _BATCH // (n * k))
    stds, widths = [], []
    for start in range(0, BOOTSTRAPS, batch):
        draws = np.sort(rng.integers(n, size=(min(batch, BOOTSTRAPS - start), n)), axis=1)
        replicas = ordered[draws]
        stds.append(replicas.std(axis=1, ddof=1))
        widths.append(_width(replicas))
    return np.concatenate(stds), np.concatenate(widths)


def _width(ordered: np.ndarray) -> np.ndarray:
    """Return q84 - q16 of samples sorted along the axis before the last, by linear interpolation."""
    n = ordered.shape[-2]

    def quantile(q: float) -> np.ndarray:
        position = q * (n - 1)
        low = int(position)
        high = min(low + 1, n - 1)
        values: np.ndarray = ordered[..., low, :] * (low + 1 - position) + ordered[..., high, :] * (position - low)
        return values

    return np.asarray(quantile(0.8413447) - quantile(0.1586553))


def _ratio(a: np.ndarray, b: np.ndarray, replicas_a: np.ndarray, replicas_b: np.ndarray) -> Ratios:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _finite(a / b)
        replicas = np.where(replicas_b > 0, replicas_a / replicas_b, np.inf)
    low, mid_low, mid_high, high = np.quantile(replicas, [0.025, 0.1586553, 0.8413447, 0.975], axis=0, method="nearest")
    with np.errstate(invalid="ignore"):
        return Ratios(value, _finite((mid_high - mid_low) / 2), _finite(low), _finite(high))


def _finite(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(np.isfinite(values), values, np.nan))
