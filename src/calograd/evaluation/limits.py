"""The limits a surrogate has to keep to stand in for Geant4, and the verdict on them.

A check compares one number at one point with its limit. `Check.passed` is the bare comparison; `Check.significant`
says that a failure is more than statistics: a bias exceeds the limit by more than two standard errors; the whole 95 %
interval of an AUC lies outside; W1 exceeds the limit by more than Geant4 differs from itself in 97.5 % of the splits of
the reference; a correlation does so and by more than two bootstrap errors; a ratio of deviations does so and its
bootstrap interval lies outside. With few
showers even Geant4 fails against itself: `Check.chance` is the probability that a perfect generator passes at these
sample sizes, from random halves of the reference (see `distances.Null`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import isnan

import numpy as np

from calograd.evaluation.compare import PointResult, Quantity
from calograd.evaluation.matching import Point
from calograd.metrics.classifier import AUC
from calograd.metrics.observables import OBSERVABLES

KINDS = ("bias", "sigma ratio", "W1 / floor", "layer correlations", "AUC observables", "AUC cells")

HIGH_ENERGY = 10.0
"""GeV: from here on the tighter limits on biases hold; the looser ones, written for 1 GeV, hold below."""

BIAS_LIMITS = {  # (below HIGH_ENERGY, from there on, or within two standard errors of zero)
    "E_tot": (0.005, 0.002, False),
    "R_E": (0.02, 0.01, True),
    "sigma_y": (0.02, 0.01, True),
    "z_mean": (0.02, 0.01, True),
    "sigma_z": (0.02, 0.01, True),
}
SIGMA_RATIO_LIMITS = (0.9, 1.1)
W1_LIMIT = 3.0
CORRELATION_LIMIT = 0.05
LAYERS = "layer energies"
AUC_LIMITS = {"observables": 0.60, "cells": 0.70}


@dataclass(frozen=True)
class Check:
    """One number against its limit.

    Args:
        kind: ``bias``, ``sigma ratio``, ``W1 / floor``, ``layer correlations``, ``AUC observables``, ``AUC cells``.
        subject: the quantity or the classifier.
        where: the point or design.
        value, error: the number and its standard error (NaN: not defined).
        limit: in words.
        excess: distance of the value from its ideal in units of the limit; above one is a failure.
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
class Tally:
    """The checks of one kind and subject: how many, passed, failed significantly, expected to pass, and the worst."""

    kind: str
    subject: str
    limit: str
    checked: int
    passed: int
    significant: int
    expected: float
    worst: Check


def check_point(result: PointResult) -> list[Check]:
    """Every check at one point, without those of `unjudged` and of what is the same constant in both."""
    checks = [_bias(result, name) for name in BIAS_LIMITS]
    left_out = unjudged(result)
    for k, (name, q) in enumerate(result.quantities.items()):
        if name in left_out or (q.sigma_reference == 0 and _same_constant(q, len(result.generated))):
            continue
        checks.append(_sigma_ratio(result, name, k))
        checks.append(_w1(result, name, k))
    value, error = result.correlation.largest, result.correlation.error
    checks.append(
        Check("layer correlations", "largest difference", str(result.point), value, error, f"{CORRELATION_LIMIT:g}",
              value / CORRELATION_LIMIT, value <= CORRELATION_LIMIT,
              value > CORRELATION_LIMIT + max(2 * error, float(np.quantile(result.null.correlation, 0.975))),
              float((result.null.correlation <= CORRELATION_LIMIT).mean()))
    )  # fmt: skip
    return checks


def unjudged(result: PointResult) -> dict[str, str]:
    """Layers that no spread or distance can be given of, by name, each with a sentence on it.

    In such a layer Geant4 leaves always the same, in practice nothing, so its deviation is no measure. If the generated
    mean differs by less than the limit on E_tot, that is said and no more; if by more, its checks are missed.
    """
    total, limit = result.quantities["E_tot"].mean_reference, BIAS_LIMITS["E_tot"][1]
    return {
        name: f"{name}, {result.point}: {q.mean_reference:.3g} GeV in every shower of Geant4's, on average "
        f"{q.mean_generated:.3g} +- {q.sigma_generated / len(result.generated) ** 0.5:.2g} GeV in the generated ones; "
        "not judged"
        for name, q in result.quantities.items()
        if name not in OBSERVABLES
        and q.sigma_reference == 0
        and not _same_constant(q, len(result.generated))
        and abs(q.mean_generated - q.mean_reference) <= limit * total
    }


def check_auc(features: str, classifier: str, where: str, auc: AUC) -> Check:
    """An AUC against its limit."""
    limit = AUC_LIMITS[features]
    return Check(
        f"AUC {features}", classifier, where, auc.value, (auc.high - auc.low) / 3.92, f"{limit:g}",
        (auc.value - 0.5) / (limit - 0.5), auc.value <= limit, auc.low > limit, 1.0,
    )  # fmt: skip


def tally(checks: Iterable[Check], *, merge_subjects: bool = False) -> tuple[Tally, ...]:
    """Checks counted by kind and subject, or by kind alone, in order of kind and appearance."""
    groups: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        subject = "all" if merge_subjects else check.subject
        groups.setdefault((check.kind, subject), []).append(check)
    return tuple(
        Tally(
            kind, subject, _limits_in_words(members), len(members), sum(c.passed for c in members),
            sum(c.significant for c in members), sum(c.chance for c in members),
            max(members, key=lambda c: np.inf if isnan(c.excess) else c.excess),
        )
        for (kind, subject), members in sorted(groups.items(), key=lambda item: KINDS.index(item[0][0]))
    )  # fmt: skip


def _limits_in_words(checks: list[Check]) -> str:
    return " / ".join(sorted({c.limit for c in checks}, key=lambda limit: (len(limit), limit)))


def _bias(result: PointResult, name: str) -> Check:
    low, high, or_compatible = BIAS_LIMITS[name]
    limit = high if result.point.energy >= HIGH_ENERGY * (1 - 1e-4) else low
    q, k = result.quantities[name], list(result.quantities).index(name)
    compatible = or_compatible and abs(q.bias) <= 2 * q.bias_error
    null = np.abs(result.null.bias[:, k])
    chance = (null <= max(limit, 2 * q.bias_error if or_compatible else 0)).mean()
    return Check(
        "bias", name, str(result.point), q.bias, q.bias_error, f"{limit:.1%}", abs(q.bias) / limit,
        abs(q.bias) <= limit or compatible, abs(q.bias) - 2 * q.bias_error > limit, float(chance),
    )  # fmt: skip


def _same_constant(q: Quantity, n: int) -> bool:
    return bool(abs(q.mean_generated - q.mean_reference) <= 2 * q.sigma_generated / float(n) ** 0.5)


def _subject(name: str, point: Point) -> tuple[str, str]:
    """Subject and place of a check: the layer energies are one subject."""
    return (name, str(point)) if name in OBSERVABLES else (LAYERS, f"{name}, {point}")


def _sigma_ratio(result: PointResult, name: str, k: int) -> Check:
    low, high = SIGMA_RATIO_LIMITS
    q = result.quantities[name]
    value = q.sigma_ratio
    null = result.null.spread[:, k]
    least, most = np.nanquantile(null, [0.025, 0.975]) if np.isfinite(null).any() else (1.0, 1.0)
    outside = isnan(value) or value > high * most or value < low * least
    return Check(
        "sigma ratio", *_subject(name, result.point), value, q.sigma_ratio_error, f"{low:g} to {high:g}",
        max((value - 1) / (high - 1), (1 - value) / (1 - low)), low <= value <= high,
        bool(outside and not (q.sigma_ratio_low <= high and q.sigma_ratio_high >= low)),
        float(((null >= low) & (null <= high)).mean()),
    )  # fmt: skip


def _w1(result: PointResult, name: str, k: int) -> Check:
    q = result.quantities[name]
    null = result.null.w1[:, k] / q.w1_floor if q.w1_floor > 0 else np.ones(1)
    value = q.w1_over_floor
    return Check(
        "W1 / floor", *_subject(name, result.point), value, float(null.std()), f"{W1_LIMIT:g}", value / W1_LIMIT,
        value <= W1_LIMIT, bool(not value - (np.quantile(null, 0.975) - 1) <= W1_LIMIT),
        float((null <= W1_LIMIT).mean()),
    )  # fmt: skip
