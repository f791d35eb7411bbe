"""Energy resolution: the relative width of the reconstructed energy, and its fit against the incident energy.

With x the reconstructed energies of n showers of one incident energy E, m their mean, s their standard deviation (n - 1
in the denominator), g = mu_3 / s^3 and k = mu_4 / s^4, a width r = sigma / E is by one of `DEFINITIONS`

    std        r = s / m                          var(ln r) = ((k - (n - 3) / (n - 1)) / 4 - g r + r^2) / n
    incident   r = s / E                          var(ln r) = (k - (n - 3) / (n - 1)) / 4 n
    width68    r = (q84 - q16) / (2 q50)          error by bootstrap

The errors of ``std`` and ``incident`` hold for any distribution to first order in 1/n: they are the exact variance of
s^2 (Cramer, Mathematical Methods of Statistics, 27.4) with that of the mean and their covariance. A few showers that
leak raise k, and with it the error. ``width68`` does not see such tails. Background that the mask leaves is in m, and
makes s / m smaller than the resolution of a calibrated energy; ``incident`` does not divide by m. The response m / E
stands beside r.

The fit in quadrature is linear in the squares of its terms,

    r^2 = a^2 / E + b^2 / E^2 + c^2           a: stochastic, sqrt(GeV)    b: noise, GeV    c: constant

It is by least squares with a^2, b^2, c^2 >= 0. The variance of a point is (2 e f)^2 with e its relative error and f the
fitted r^2, iterated: weights from the points themselves would favour points that fluctuate down. Errors are those of
linear propagation; a term that comes out as zero has an upper limit instead. If fewer energies than terms are given, or
energies too close to tell terms apart, b and then c are left out, which a note says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from calograd.errors import InputError
from calograd.io.markup import table

DEFINITIONS = ("std", "incident", "width68")
"""Definitions of sigma / E: standard deviation over mean, standard deviation over incident energy, half the central
68 % width over the median."""
POINTS = 8
"""Number of bins of a continuous spectrum of incident energies."""
SAME = 1e-4
"""Relative difference below which two energies or sizes count as the same."""
OFFSET = 0.05
"""Change of the response over the energies from which background in the mean is worth a note."""
COLUMNS = ("source", "E, GeV", "sigma / E, %", "response", "showers")
"""Columns of the table of a curve."""
TERMS = ("a", "b", "c")
"""Names of the terms: stochastic, noise, constant."""
POWERS = (1, 2, 0)
"""Powers of 1/E that the squares of the terms have in r^2."""
MIN_SHOWERS = 20
"""Fewest showers of an energy whose width is taken."""
BOOTSTRAPS = 400
"""Number of bootstrap samples behind the error of ``width68``."""
ONE_SIDED_95 = 1.645
"""Standard errors of a one-sided 95 % limit."""
DEGENERATE = 0.02
"""Smallest singular value of the fit's unit columns at which its terms can be told apart."""
ITERATIONS = 100
"""Most iterations of the fit's weights."""
ONE_SIGMA = (0.1586553, 0.5, 0.8413447)
"""Probabilities below -1, 0 and 1 standard deviations of a normal distribution."""
_BATCH = 4_000_000


@dataclass(frozen=True)
class ResolutionFit:
    """The fit r^2 = a^2 / E + b^2 / E^2 + c^2.

    Args:
        terms: names of the terms that were free, some of `TERMS`.
        squares: a^2 (GeV), b^2 (GeV^2), c^2, shape (3,); zero for terms that were not free.
        squares_covariance: their covariance, shape (3, 3); zero for terms that are zero.
        upper: upper limits (95 %) of a, b, c where a free term is zero, shape (3,); NaN elsewhere.
        chi2: sum of squared pulls of the points.
        degrees: energies minus terms that are not zero.
        note: what was left out and why; empty if nothing.
    """

    terms: tuple[str, ...]
    squares: np.ndarray
    squares_covariance: np.ndarray
    upper: np.ndarray
    chi2: float
    degrees: int
    note: str = ""

    @property
    def values(self) -> np.ndarray:
        """The terms a (sqrt(GeV)), b (GeV) and c, shape (3,)."""
        return np.asarray(np.sqrt(self.squares))

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of a, b, c by linear propagation, shape (3, 3); zero for terms that are zero."""
        slope = np.divide(0.5, self.values, out=np.zeros(3), where=self.squares > 0)
        return np.asarray(slope[:, None] * self.squares_covariance * slope)

    @property
    def errors(self) -> np.ndarray:
        """Standard errors of a, b, c, shape (3,); zero for terms that are zero."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    def __call__(self, energies: Any) -> np.ndarray:
        """Return r at energies in GeV."""
        return np.asarray(np.sqrt(_columns(np.asarray(energies, float)) @ self.squares))

    def __str__(self) -> str:
        """The formula with its numbers; (+) stands for a sum in quadrature."""
        parts = []
        for j, (unit, scale) in enumerate((("%/sqrt(E)", 100.0), ("MeV/E", 1e3), ("%", 100.0))):
            if TERMS[j] not in self.terms:
                continue
            if self.squares[j] == 0:
                parts.append(f"(< {scale * self.upper[j]:.2g} {unit})")
            else:
                parts.append(f"{rounded(scale * self.values[j], scale * self.errors[j])} {unit}")
        return " (+) ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "terms": list(self.terms),
            **dict(zip(TERMS, self.values.tolist(), strict=True)),
            "errors": self.errors.tolist(), "covariance": self.covariance.tolist(),
            "upper_95": [None if np.isnan(value) else value for value in self.upper.tolist()],
            "chi2": self.chi2, "degrees": self.degrees, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True)
class ResolutionCurve:
    """Resolution of one source of showers against the incident energy.

    Args:
        source: name of the surrogate, or ``Geant4``.
        definition: one of `DEFINITIONS`.
        energies: incident energies, ascending, shape (k,), GeV.
        values, errors: r = sigma / E with standard errors, shape (k,).
        response, response_errors: mean (of ``width68``: median) reconstructed over incident energy, shape (k,).
        showers: number of showers, shape (k,).
        fit: the fit; None if there is none.
        note: why there is no fit; empty if there is one.
    """

    source: str
    definition: str
    energies: np.ndarray
    values: np.ndarray
    errors: np.ndarray
    response: np.ndarray
    response_errors: np.ndarray
    showers: np.ndarray
    fit: ResolutionFit | None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        columns = ("energies", "values", "errors", "response", "response_errors", "showers")
        return {"source": self.source, "definition": self.definition} | {
            name: getattr(self, name).tolist() for name in columns
        } | {"fit": self.fit.to_dict() if self.fit else None, "note": self.note}  # fmt: skip

    def rows(self) -> list[list[str]]:
        """Return the rows of a table with the columns `COLUMNS`: one for each energy."""
        columns = (self.energies, self.values, self.errors, self.response, self.response_errors, self.showers)
        return [
            [self.source, f"{e:.4g}", rounded(100 * r, 100 * error), rounded(m, m_error), str(n)]
            for e, r, error, m, m_error, n in zip(*columns, strict=True)
        ]

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return table(f"{self.source}: {self.fit or self.note}", COLUMNS[1:], [row[1:] for row in self.rows()])


class EnergyGroup(NamedTuple):
    """Showers of one incident energy, or of a bin of a continuous spectrum.

    Attributes:
        energy: incident energy, GeV; of a bin the inverse of the mean of 1/E, so that a stochastic term is exact.
        rows: indices of the showers.
        exact: False for a bin.
    """

    energy: float
    rows: np.ndarray
    exact: bool

    def at_energy(self, energy: np.ndarray, measured: np.ndarray) -> np.ndarray:
        """Return the reconstructed energies of some showers of the group as if all had its energy, GeV.

        The response is taken as linear in the logarithm of the energy within a bin.

        Args:
            energy, measured: incident and reconstructed energies, shape (n,), GeV.
        """
        if self.exact:
            return measured
        response, log = measured / energy, np.log(energy / self.energy)
        slope = np.polyfit(log, response, 1)[0] if np.ptp(log) > 0 else 0.0
        return np.asarray((response - slope * log) * self.energy)


def group_by_energy(energy: np.ndarray, asked: np.ndarray | None = None) -> list[EnergyGroup]:
    """Return the showers of every discrete energy or, of a continuous spectrum, of bins.

    Args:
        energy: incident energies, shape (n,), GeV; discrete if at least `MIN_SHOWERS` showers share one on average.
        asked: discrete energies that are kept, or centres of the bins, GeV. None: all, or `POINTS` bins.
    """
    groups = np.unique(np.exp(np.log(energy).round(4)), return_inverse=True)[1]
    if int(groups.max()) + 1 <= max(1, len(energy) // MIN_SHOWERS):
        rows = [np.flatnonzero(groups == number) for number in np.unique(groups)]
        found = [EnergyGroup(float(f"{np.median(energy[of]):.6g}"), of, True) for of in rows]
        return [each for each in found if asked is None or np.isclose(each.energy, asked, rtol=SAME, atol=0).any()]
    centres = np.geomspace(energy.min(), energy.max(), 2 * POINTS + 1)[1::2] if asked is None else asked
    logs = np.log(centres)
    half = np.diff(logs) / 2 if len(logs) > 1 else np.array([0.2])
    edges = np.r_[logs[0] - half[0] - SAME, logs[:-1] + half[: len(logs) - 1], logs[-1] + half[-1] + SAME]
    which = np.digitize(np.log(energy), edges) - 1
    rows = [np.flatnonzero(which == number) for number in range(len(centres))]
    return [EnergyGroup(1 / float((1 / energy[of]).mean()), of, False) for of in rows if len(of)]


def resolution_curves(
    sources: Sequence[str],
    energies: Sequence[np.ndarray],
    measured: Sequence[np.ndarray],
    *,
    definition: str = "std",
    seed: int = 0,
) -> tuple[ResolutionCurve, ...]:
    """Return the resolutions of several sources of showers at the energies, or bins, that all of them have.

    Args:
        sources: names of what made the showers.
        energies, measured: incident and reconstructed energies of the showers of every source, shape (n,), GeV.
        definition, seed: see `resolution_curve`.

    Raises:
        InputError: no energy with `MIN_SHOWERS` showers of every source, and see `resolution_curve`.
    """
    owner = np.repeat(np.arange(len(sources)), [len(each) for each in energies])
    energy, x = (np.concatenate(list(columns)).astype(np.float64) for columns in (energies, measured))
    kept, samples = list[float](), list[list[np.ndarray]]()
    for group in group_by_energy(energy):
        rows = [group.rows[owner[group.rows] == number] for number in range(len(sources))]
        if min(map(len, rows)) >= MIN_SHOWERS:
            kept.append(group.energy)
            samples.append([group.at_energy(energy[of], x[of]) for of in rows])
    if not kept:
        raise InputError(f"no energy has {MIN_SHOWERS} showers of {' and '.join(sources)}; expected at least one")
    return tuple(
        resolution_curve(source, kept, of, definition=definition, seed=seed)
        for source, of in zip(sources, zip(*samples, strict=True), strict=True)
    )


def resolution_curve(
    source: str,
    energies: Sequence[float] | np.ndarray,
    samples: Sequence[np.ndarray],
    *,
    definition: str = "std",
    terms: Sequence[str] = TERMS,
    seed: int = 0,
) -> ResolutionCurve:
    """Return the resolution of showers at several energies, with its fit.

    Args:
        source: name of what made the showers.
        energies: incident energies, shape (k,), GeV.
        samples: reconstructed energies of the showers of every energy, GeV.
        definition: one of `DEFINITIONS`.
        terms: terms of the fit, some of `TERMS`.
        seed: seed of the bootstrap.

    Raises:
        InputError: an unknown definition or term, too few showers, no spread, a mean that is not positive.
    """
    terms = check_terms(terms)
    if definition not in DEFINITIONS:
        raise InputError(f"definition = '{definition}': expected one of {', '.join(DEFINITIONS)}")
    order = np.argsort(energies)
    energy = np.asarray(energies, float)[order]
    rng = np.random.default_rng(seed)
    rows = np.array([_width(energy[i], np.asarray(samples[k], float), definition, rng) for i, k in enumerate(order)])
    values, errors, middle, middle_error = rows.T
    fit, note = None, ""
    try:
        fit = fit_resolution(energy, values, errors, terms)
    except InputError as error:
        note = str(error)
    showers = np.array([len(samples[k]) for k in order])
    return ResolutionCurve(
        source, definition, energy, values, errors, middle / energy, middle_error / energy, showers, fit, note
    )


def fit_resolution(
    energies: Sequence[float] | np.ndarray,
    values: Sequence[float] | np.ndarray,
    errors: Sequence[float] | np.ndarray,
    terms: Sequence[str] = TERMS,
) -> ResolutionFit:
    """Fit a / sqrt(E) + b / E + c, added in quadrature, to resolutions.

    Args:
        energies: incident energies, shape (k,), GeV.
        values, errors: resolutions with standard errors, shape (k,), all positive.
        terms: terms that are free, some of `TERMS`; ``("a", "c")`` for a detector without noise.

    Raises:
        InputError: fewer than two energies, values or errors that are not positive, an unknown term.

    Example:
        >>> energies = np.array([1.0, 4.0, 25.0, 100.0])
        >>> fit = fit_resolution(energies, np.sqrt(0.1**2 / energies + 0.01**2), [1e-3] * 4, ("a", "c"))
        >>> fit.values.round(4).tolist()
        [0.1, 0.0, 0.01]
    """
    energy, r, e = (np.asarray(column, float) for column in (energies, values, errors))
    terms = check_terms(terms)
    if not (energy.ndim == 1 and energy.shape == r.shape == e.shape):
        raise InputError(f"fit: {energy.shape}, {r.shape}, {e.shape} energies, values, errors; expected one length")
    for name, column in (("energies", energy), ("values", r), ("errors", e)):
        if not ((column > 0) & np.isfinite(column)).all():
            raise InputError(f"fit: {name} = {column.tolist()}, expected positive numbers")
    distinct = len(np.unique(energy.round(9)))
    if distinct < 2:
        raise InputError(f"no fit: {distinct} energy; expected two or more")
    free, note = _separable(energy, e / r, terms, distinct)
    chosen = np.array([name in free for name in TERMS])
    y, relative, squares = r**2, e / r, np.zeros(3)
    columns = _columns(energy)
    squares[chosen] = _iterate(columns[:, chosen], y, relative, constrained=True)
    positive = squares > 0
    fitted = columns @ squares
    error = 2 * relative * fitted
    covariance = np.zeros((3, 3))
    covariance[np.ix_(positive, positive)] = _covariance(columns[:, positive], error)
    upper = np.full(3, np.nan)
    for j in np.flatnonzero(chosen & ~positive):
        beside = positive.copy()
        beside[j] = True
        spread = _covariance(columns[:, beside], error)
        at = int(np.count_nonzero(beside[:j]))
        upper[j] = np.sqrt(ONE_SIDED_95 * np.sqrt(spread[at, at]))
    chi2 = float((((y - fitted) / error) ** 2).sum())
    return ResolutionFit(free, squares, covariance, upper, chi2, len(energy) - int(positive.sum()), note)


def fit_gradient(
    fit: ResolutionFit, energies: np.ndarray, values: np.ndarray, relative: np.ndarray, slopes: np.ndarray
) -> np.ndarray:
    """Return the derivatives of a, b, c from those of ln r at every energy, shape (3, p).

    The squares A of the terms that are not zero solve F = sum_i x_i (y_i - x_i A) / (e_i x_i A)^2 = 0 with y = r^2, so
    dA = - (dF/dA)^-1 (dF/dy) dy (implicit function theorem) at constant relative errors e_i. Terms that are zero
    have no derivative: NaN.

    Args:
        fit: says which terms are free and not zero.
        energies, values: incident energies (GeV) and r, shape (k,), which may be another sample than that of ``fit``.
        relative: relative errors of r, shape (k,).
        slopes: d ln r / d u at every energy, shape (k, p).
    """
    positive, found = fit.squares > 0, np.full((3, slopes.shape[1]), np.nan)
    x, y = _columns(energies)[:, positive], values**2
    squares = _iterate(x, y, relative, constrained=False)
    fitted = x @ squares
    weight = 1 / (relative * fitted) ** 2
    curvature = (x * (weight * (1 + 2 * (y - fitted) / fitted))[:, None]).T @ x
    change = np.linalg.solve(curvature, x.T @ (weight[:, None] * 2 * y[:, None] * slopes))
    found[positive] = change / (2 * np.sqrt(np.maximum(squares, fit.squares[positive] / 4)))[:, None]
    return found


def rounded(value: float, error: float) -> str:
    """Return a value with its error, both to the second digit of the error."""
    if not (np.isfinite(error) and error > 0):
        return f"{value:.3g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{digits}f} +- {error:.{digits}f}"


def check_terms(terms: Sequence[str]) -> tuple[str, ...]:
    """Return the terms in the order of `TERMS`. Raises `InputError` for none, or for unknown ones."""
    unknown = [term for term in terms if term not in TERMS]
    if unknown or not len(terms):
        raise InputError(f"terms = {','.join(terms) or 'none'}: expected some of {', '.join(TERMS)}")
    return tuple(term for term in TERMS if term in terms)


def _columns(energy: np.ndarray) -> np.ndarray:
    """Return what the squares of the terms are multiplied by, shape (k, 3)."""
    return np.stack([energy ** -float(power) for power in POWERS], axis=-1)


def _separable(
    energy: np.ndarray, relative: np.ndarray, terms: tuple[str, ...], distinct: int
) -> tuple[tuple[str, ...], str]:
    """Return the terms that the energies can tell apart, with a note of those left out: b first, then c."""
    free, dropped, why = list(terms), list[str](), ""
    while len(free) > 1:
        x = _columns(energy)[:, [TERMS.index(term) for term in free]] / relative[:, None]
        x = x * energy[:, None]  # the size of 1 / r^2 of a stochastic term
        if distinct < len(free):
            why = why or f"{distinct} energies for {len(terms)} terms"
        elif np.linalg.svd(x / np.linalg.norm(x, axis=0), compute_uv=False)[-1] < DEGENERATE:
            why = why or f"{energy.min():g} to {energy.max():g} GeV cannot tell {', '.join(free)} apart"
        else:
            break
        dropped.append(next(term for term in ("b", "c", "a") if term in free))
        free.remove(dropped[-1])
    return tuple(free), f"{why}: {' and '.join(dropped)} left out of the fit" if dropped else ""


def _iterate(x: np.ndarray, y: np.ndarray, relative: np.ndarray, *, constrained: bool) -> np.ndarray:
    """Return the squares of the fit's terms, with weights from the fitted values."""
    fitted, squares = y, np.zeros(x.shape[1])
    for _ in range(ITERATIONS):
        weighted = x / (relative * fitted)[:, None]
        size = np.linalg.norm(weighted, axis=0)
        target = y / (relative * fitted)
        solved = nnls(weighted / size, target)[0] if constrained else np.linalg.lstsq(weighted / size, target)[0]
        last, squares = squares, solved / size
        fitted = np.maximum(x @ squares, 1e-3 * y)
        if np.allclose(squares, last, rtol=1e-12, atol=0):
            break
    return np.asarray(squares)


def _covariance(x: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Return the covariance of the squares of terms with columns x, shape (k, terms)."""
    weighted = x / error[:, None]
    size = np.linalg.norm(weighted, axis=0)
    unit = weighted / size
    return np.asarray(np.linalg.pinv(unit.T @ unit) / np.outer(size, size))


def _width(
    energy: float, x: np.ndarray, definition: str, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return r, its error, the mean or median, and its error, of the reconstructed energies x at one energy."""
    n = len(x)
    if n < MIN_SHOWERS:
        raise InputError(f"{n} showers of {energy:g} GeV: expected at least {MIN_SHOWERS} for a resolution")
    if definition == "width68":
        return _width68(energy, x, rng)
    mean, sigma = float(x.mean()), float(x.std(ddof=1))
    _check(energy, mean, sigma)
    return *relative_spread(x, energy if definition == "incident" else None), mean, sigma / n**0.5


def relative_spread(x: np.ndarray, energy: float | None = None) -> tuple[float, float]:
    """Return the standard deviation of reconstructed energies over their mean, or over an energy, and its error.

    Args:
        x: reconstructed energies, shape (n,), GeV.
        energy: incident energy, GeV; None: the definition ``std``.
    """
    x = np.asarray(x, np.float64)
    n, mean, sigma = len(x), float(x.mean()), float(x.std(ddof=1))
    if not sigma > 0:
        return 0.0, 0.0
    pulls = (x - mean) / sigma
    skewness, kurtosis = float((pulls**3).mean()), float((pulls**4).mean())
    variance = (kurtosis - (n - 3) / (n - 1)) / (4 * n)
    if energy is not None:
        return sigma / energy, sigma / energy * max(variance, 0.0) ** 0.5
    r = sigma / mean
    variance += (r**2 - skewness * r) / n
    return r, abs(r) * max(variance, 0.0) ** 0.5


def _width68(energy: float, x: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float, float]:
    low, middle, high = np.quantile(x, ONE_SIGMA)
    _check(energy, float(middle), float(high - low))
    n, widths, middles = len(x), list[np.ndarray](), list[np.ndarray]()
    size = max(1, _BATCH // n)
    for start in range(0, BOOTSTRAPS, size):
        drawn = x[rng.integers(n, size=(min(size, BOOTSTRAPS - start), n))]
        ends = np.quantile(drawn, ONE_SIGMA, axis=1)
        widths.append((ends[2] - ends[0]) / (2 * ends[1]))
        middles.append(ends[1])
    errors = (float(np.concatenate(column).std(ddof=1)) for column in (widths, middles))
    error, middle_error = errors
    return float((high - low) / (2 * middle)), error, float(middle), middle_error


def _check(energy: float, middle: float, width: float) -> None:
    if not middle > 0:
        raise InputError(
            f"the mean reconstructed energy at {energy:g} GeV is {middle:.3g} GeV; a resolution needs a positive one: "
            "check threshold and noise of the readout"
        )
    if not width > 0:
        raise InputError(f"all showers of {energy:g} GeV have the same energy; expected some that differ")
