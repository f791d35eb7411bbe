"""The limits that a surrogate has to keep to stand in for Geant4, and the verdict on them.

A check compares one number at one design point with its limit. `LimitCheck.passed` is the bare comparison.
`LimitCheck.significant` says that a miss is more than statistics:

* a bias exceeds the limit by more than two standard errors;
* the whole 95 % interval of an AUC lies above the limit;
* W1 exceeds the limit by more than Geant4 differs from itself in 97.5 % of the splits of the reference;
* a correlation does so, and by more than two bootstrap errors;
* a ratio of deviations does so, and its bootstrap interval lies outside;
* a bias of the entry exceeds the limit by more than two standard errors; a resolution's ratio lies outside by as much.

With few showers even Geant4 misses limits against itself. `LimitCheck.chance` is the probability that a perfect
generator passes at these sample sizes, from random halves of the reference (`calograd.metrics.distances`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Literal, NamedTuple

import numpy as np

from calograd.evaluation.compare import PointResult, Quantity
from calograd.evaluation.matching import DesignPoint
from calograd.evaluation.reconstruction import METHODS, ResidualComparison
from calograd.metrics.classifier import AUC
from calograd.metrics.observables import OBSERVABLES

KINDS = (
    "bias", "sigma ratio", "W1 / floor", "layer correlations", "position bias", "position resolution",
    "angular resolution", "energy resolution", "W1 of layers", "AUC observables", "AUC cells", "AUC layers",
)  # fmt: skip
"""Kinds of checks in the order of summaries."""
HIGH_ENERGY = 10.0
"""Incident energy in GeV from which the tighter limits on biases hold; the looser limits, written for 1 GeV, hold
below."""
LAYERS = "layer energies"
"""Subject of the checks of all layer energies."""
AUC_LIMITS = {"observables": 0.60, "cells": 0.70, "layers": 0.60}
"""Largest AUC of a classifier by its features."""
CHANCE_SHARE = 0.03
"""Share of checks that may miss significantly by chance, at 97.5 % confidence each."""

State = Literal["kept", "statistics", "unclear", "missed"]
"""Outcome of several checks of one kind, see `LimitSummary.state`."""


class BiasLimit(NamedTuple):
    """A limit on the relative bias of a mean.

    Attributes:
        low: limit below `HIGH_ENERGY`; None where biases are not judged there.
        high: limit from `HIGH_ENERGY` on.
        or_compatible: True if a bias within two standard errors of zero passes, too.
    """

    low: float | None
    high: float
    or_compatible: bool

    def at(self, energy: float) -> float | None:
        """Return the limit at an incident energy in GeV, None where there is none."""
        return self.high if energy >= HIGH_ENERGY * (1 - 1e-4) else self.low


@dataclass(frozen=True)
class Limits:
    """The limits on one kind of record.

    Args:
        bias: limits on biases of means by observable.
        sigma_ratio: range of the ratio of standard deviations; None for no limit.
        w1: largest W1 in units of its floor; None for no limit.
        correlation: largest difference of two layer correlations; None for no limit.
        position_bias: largest difference of biases of the entry anywhere in the cell, as a share of the pitch; None
            for no limit. A difference within two standard errors of zero passes, too.
        resolution: range of the ratio of position resolutions, and of those of theta; None for no limit. A ratio within
            two standard errors of one passes, too.
    """

    bias: dict[str, BiasLimit] = field(default_factory=dict)
    sigma_ratio: tuple[float, float] | None = None
    w1: float | None = None
    correlation: float | None = None
    position_bias: float | None = None
    resolution: tuple[float, float] | None = None


CELL_LIMITS = Limits(
    bias={"E_tot": BiasLimit(0.005, 0.002, False)}
    | dict.fromkeys(("R_E", "sigma_y", "z_mean", "sigma_z"), BiasLimit(0.02, 0.01, True)),
    sigma_ratio=(0.9, 1.1),
    w1=3.0,
    correlation=0.05,
    position_bias=0.01,
    resolution=(0.95, 1.05),
)
"""Limits on showers in cells."""
MAP_LIMITS = Limits(
    bias={name: BiasLimit(None, high, False) for name, high in (("E_tot", 0.005), ("R_E", 0.01), ("sigma_y", 0.01))}
)
"""Limits on maps of showers."""


@dataclass(frozen=True)
class LimitCheck:
    """One number against its limit.

    Args:
        kind: one of `KINDS`.
        subject: the quantity or the classifier.
        where: the design point, or the design.
        value, error: the number and its standard error; NaN where not defined.
        limit: the limit in words.
        excess: distance of the value from its ideal in units of the limit; above one is a miss.
        passed, significant, chance: see the module.
    """

    kind: str
    subject: str
    where: str
    value: float
    error: float
    limit: str
    excess: float
    passed: bool
    significant: bool
    chance: float


@dataclass(frozen=True)
class LimitSummary:
    """The checks of one kind and subject, counted.

    Args:
        kind, subject, limit: see `LimitCheck`.
        checked, passed, significant: numbers of checks, of those passed, of those missed significantly.
        expected, expected_spread: number that a perfect generator would pass, and its standard deviation.
        undefined: number of checks whose value is not defined, because Geant4's quantity never varies.
        worst: the check with the largest excess among those defined.
    """

    kind: str
    subject: str
    limit: str
    checked: int
    passed: int
    significant: int
    expected: float
    expected_spread: float
    undefined: int
    worst: LimitCheck

    @property
    def state(self) -> State:
        """The outcome, judged against what Geant4 itself would reach.

        ``kept``: every check passed. ``missed``: more checks miss significantly than chance allows. ``statistics``: no
        more checks miss than Geant4 against itself would at these sample sizes. ``unclear``: more miss than that,
        though no more of them significantly than chance allows.
        """
        if self.passed == self.checked:
            return "kept"
        if self.significant > CHANCE_SHARE * self.checked:
            return "missed"
        return "statistics" if self.passed >= self.expected - 2 * self.expected_spread - 0.5 else "unclear"

    @property
    def worst_in_words(self) -> str:
        """The worst value with its error, and how many are not defined; never NaN."""
        worst = "" if isnan(self.worst.value) else f"{self.worst.value:+.3g}"
        if worst and not isnan(self.worst.error):
            worst += f" +- {self.worst.error:.1g}"
        undefined = f"{self.undefined} not defined" if self.undefined else ""
        return "; ".join(part for part in (worst, undefined) if part)


def check_point(result: PointResult, limits: Limits) -> list[LimitCheck]:
    """Return every check at one design point.

    Quantities of `unjudged` are left out, and those that are the same constant in both samples.
    """
    checks = [check for name in limits.bias for check in _bias(result, name, limits.bias[name])]
    left_out = unjudged(result, limits)
    for k, (name, q) in enumerate(result.quantities.items()):
        if name in left_out or (q.sigma_reference == 0 and _same_constant(q, len(result.generated))):
            continue
        if limits.sigma_ratio is not None:
            checks.append(_sigma_ratio(result, name, k, limits.sigma_ratio))
        if limits.w1 is not None:
            checks.append(_w1(result, name, k, limits.w1))
    if limits.correlation is not None and result.correlation is not None:
        checks.append(_correlation(result, result.correlation.largest, result.correlation.error, limits.correlation))
    return checks + _reconstruction(result, limits)


def unjudged(result: PointResult, limits: Limits) -> dict[str, str]:
    """Return the layers of which no spread or distance can be given, by name, each with a sentence on it.

    In such a layer Geant4 always leaves the same energy, in practice none, so its deviation is no measure. A generated
    mean that differs by less than the limit on E_tot is named in the sentence; a larger one misses its checks.
    """
    if limits.sigma_ratio is None and limits.w1 is None:
        return {}
    allowed = limits.bias["E_tot"].high * result.quantities["E_tot"].mean_reference
    return {
        name: f"{name}, {result.point}: {q.mean_reference:.3g} GeV in every shower of Geant4's, on average "
        f"{q.mean_generated:.3g} +- {q.sigma_generated / len(result.generated) ** 0.5:.2g} GeV in the generated ones; "
        "not judged"
        for name, q in result.quantities.items()
        if name not in OBSERVABLES
        and q.sigma_reference == 0
        and not _same_constant(q, len(result.generated))
        and abs(q.mean_generated - q.mean_reference) <= allowed
    }


def check_auc(features: str, classifier: str, where: str, auc: AUC, floor: AUC) -> LimitCheck:
    """Return the check of an AUC; ``floor`` is that of Geant4 against itself."""
    limit = AUC_LIMITS[features]
    return LimitCheck(
        f"AUC {features}", classifier, where, auc.value, (auc.high - auc.low) / 3.92, f"{limit:g}",
        (auc.value - 0.5) / (limit - 0.5), auc.value <= limit, auc.low > limit, float(floor.value <= limit),
    )  # fmt: skip


def describe_outcome(checks: Sequence[LimitCheck]) -> str:
    """Return the verdict on the checks in words."""
    if not checks:
        return "no limits apply"
    failed = sum(not c.passed for c in checks)
    if not failed:
        return f"all {len(checks)} limits kept"
    return (
        f"{failed} of {len(checks)} limits missed, {sum(c.significant for c in checks)} beyond statistics; "
        f"a perfect generator would miss about {sum(1 - c.chance for c in checks):.0f} at these sample sizes"
    )


def summarise(checks: Iterable[LimitCheck], *, merge_subjects: bool = False) -> tuple[LimitSummary, ...]:
    """Return the checks counted by kind and subject, or by kind alone, in order of kind and appearance."""
    groups: dict[tuple[str, str], list[LimitCheck]] = {}
    for check in checks:
        subject = "all" if merge_subjects else check.subject
        groups.setdefault((check.kind, subject), []).append(check)
    return tuple(
        LimitSummary(
            kind, subject, _limits_in_words(members), len(members), sum(c.passed for c in members),
            sum(c.significant for c in members), sum(c.chance for c in members),
            sum(c.chance * (1 - c.chance) for c in members) ** 0.5, sum(isnan(c.excess) for c in members),
            max(members, key=lambda c: -np.inf if isnan(c.excess) else c.excess),
        )
        for (kind, subject), members in sorted(groups.items(), key=lambda item: KINDS.index(item[0][0]))
    )  # fmt: skip


def _limits_in_words(checks: list[LimitCheck]) -> str:
    return " / ".join(sorted({c.limit for c in checks}, key=lambda limit: (len(limit), limit)))


def _bias(result: PointResult, name: str, bias: BiasLimit) -> list[LimitCheck]:
    limit = bias.at(result.point.energy)
    if limit is None:
        return []
    q, k = result.quantities[name], list(result.quantities).index(name)
    compatible = bias.or_compatible and abs(q.bias) <= 2 * q.bias_error
    null = np.abs(result.null.bias[:, k])
    chance = (null <= max(limit, 2 * q.bias_error if bias.or_compatible else 0)).mean()
    check = LimitCheck(
        "bias", name, str(result.point), q.bias, q.bias_error, f"{limit:.1%}", abs(q.bias) / limit,
        abs(q.bias) <= limit or compatible, abs(q.bias) - 2 * q.bias_error > limit, float(chance),
    )  # fmt: skip
    return [check]


def _same_constant(q: Quantity, n: int) -> bool:
    return bool(abs(q.mean_generated - q.mean_reference) <= 2 * q.sigma_generated / float(n) ** 0.5)


def _subject(name: str, point: DesignPoint) -> tuple[str, str]:
    """Return subject and place of a check; the layer energies are one subject."""
    return (name, str(point)) if name in OBSERVABLES else (LAYERS, f"{name}, {point}")


def _sigma_ratio(result: PointResult, name: str, k: int, limit: tuple[float, float]) -> LimitCheck:
    low, high = limit
    q = result.quantities[name]
    value = q.sigma_ratio
    null = result.null.spread[:, k]
    least, most = np.nanquantile(null, [0.025, 0.975]) if np.isfinite(null).any() else (1.0, 1.0)
    outside = isnan(value) or value > high * most or value < low * least
    return LimitCheck(
        "sigma ratio", *_subject(name, result.point), value, q.sigma_ratio_error, f"{low:g} to {high:g}",
        max((value - 1) / (high - 1), (1 - value) / (1 - low)), low <= value <= high,
        bool(outside and not (q.sigma_ratio_low <= high and q.sigma_ratio_high >= low)),
        float(((null >= low) & (null <= high)).mean()),
    )  # fmt: skip


def _w1(result: PointResult, name: str, k: int, limit: float) -> LimitCheck:
    q = result.quantities[name]
    null = result.null.w1[:, k] / q.w1_floor if q.w1_floor > 0 else np.ones(1)
    value = q.w1_over_floor
    return LimitCheck(
        "W1 / floor", *_subject(name, result.point), value, float(null.std()), f"{limit:g}", value / limit,
        value <= limit, bool(not value - (np.quantile(null, 0.975) - 1) <= limit), float((null <= limit).mean()),
    )  # fmt: skip


def _reconstruction(result: PointResult, limits: Limits) -> list[LimitCheck]:
    """Return the checks of reconstructed entry and direction: biases in every bin of the cell, and resolutions."""
    found = result.reconstruction
    checks: list[LimitCheck] = []
    for method, residuals in ({} if found is None else found.residuals).items():
        position, subject = residuals.get("position"), METHODS[method]
        if found is not None and position is not None and limits.position_bias is not None:
            limit, middle = limits.position_bias, (position.edges[1:] + position.edges[:-1]) / 2
            for k in np.flatnonzero(np.isfinite(position.difference)):
                value, error = position.difference[k] / found.pitch, position.difference_error[k] / found.pitch
                null = np.abs(position.null_bias[:, k]) / found.pitch
                checks.append(LimitCheck(
                    "position bias", subject, f"{result.point}, entry at {middle[k]:+.2f} pitches", float(value),
                    float(error), f"{limit:.1%}", abs(float(value)) / limit, bool(abs(value) <= max(limit, 2 * error)),
                    bool(abs(value) - 2 * error > limit), float((null <= max(limit, 2 * error)).mean()),
                ))  # fmt: skip
        for name, kind in (("position", "position resolution"), ("theta", "angular resolution")):
            if name in residuals and limits.resolution is not None:
                checks.append(_resolution(kind, subject, str(result.point), residuals[name], limits.resolution))
    return checks


def _resolution(
    kind: str, subject: str, where: str, residual: ResidualComparison, limit: tuple[float, float]
) -> LimitCheck:
    (low, high), (value, error), null = limit, residual.ratio, residual.null_ratio
    least, most = min(low, 1 - 2 * error), max(high, 1 + 2 * error)
    return LimitCheck(
        kind, subject, where, value, error, f"{low:g} to {high:g}",
        max((value - 1) / (high - 1), (1 - value) / (1 - low)), least <= value <= most,
        value - 2 * error > high or value + 2 * error < low, float(((null >= least) & (null <= most)).mean()),
    )  # fmt: skip


def _correlation(result: PointResult, value: float, error: float, limit: float) -> LimitCheck:
    null = result.null.correlation
    return LimitCheck(
        "layer correlations", "largest difference", str(result.point), value, error, f"{limit:g}", value / limit,
        value <= limit, value > limit + max(2 * error, float(np.quantile(null, 0.975))),
        float((null <= limit).mean()),
    )  # fmt: skip
