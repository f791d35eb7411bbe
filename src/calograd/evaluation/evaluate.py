"""Compare generated showers with Geant4's: every point, every classifier test, and the verdict."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from calograd._version import __version__
from calograd.errors import InputError
from calograd.evaluation import limits
from calograd.evaluation.compare import PointResult, compare_point, is_centred, observe_rows
from calograd.evaluation.matching import MIN_SHOWERS, Point, match
from calograd.evaluation.separability import Separability, count_tests, separabilities
from calograd.events.cells import Cells
from calograd.events.maps import Maps
from calograd.io.markup import table
from calograd.metrics.distances import BOOTSTRAPS, SPLITS, Estimates, biases
from calograd.metrics.observables import OBSERVABLES, READOUT_THRESHOLD

SCHEMA = "calograd/evaluation/1"
MAX_ROWS = 12_000
"""Most rows of each class that a classifier test uses."""

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total)."""


@dataclass(frozen=True)
class Evaluation:
    """The outcome of a comparison.

    Args:
        generated, reference: what was compared.
        points: one result a point, in order of design and energy.
        separability: classifier tests; empty if they were not asked for.
        checks: every number that has a limit.
        warnings: what was left out, and what is odd.
        seed, threshold: as given.
    """

    generated: Cells = field(repr=False)
    reference: Cells = field(repr=False)
    points: tuple[PointResult, ...] = field(repr=False)
    separability: tuple[Separability, ...]
    checks: tuple[limits.Check, ...] = field(repr=False)
    warnings: tuple[str, ...]
    seed: int
    threshold: float

    @property
    def tallies(self) -> tuple[limits.Tally, ...]:
        """The verdict: checks counted by kind and subject (see `limits.tally` for other ways)."""
        return limits.tally(self.checks)

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        failed = sum(not c.passed for c in self.checks)
        if not failed:
            return f"all {len(self.checks)} limits kept"
        beyond = sum(c.significant for c in self.checks)
        expected = sum(1 - c.chance for c in self.checks)
        return (
            f"{failed} of {len(self.checks)} limits missed, {beyond} beyond statistics; "
            f"a perfect generator would miss about {expected:.0f} at these sample sizes"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and its counts."""
        rows = [
            (t.kind, t.subject, t.limit, f"{t.passed} of {t.checked}", f"{t.expected:.0f}", t.significant)
            for t in self.tallies
        ]
        columns = ("limit on", "of", "limit", "kept", "expected of a perfect generator", "missed beyond statistics")
        title = f"{self.generated.origin} against {self.reference.origin}, {len(self.points)} points: {self.verdict}"
        return table(title, columns, rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data of finite numbers, strings and null, ready for strict JSON."""
        result = {
            "schema": SCHEMA,
            "versions": versions(),
            "seed": self.seed,
            "readout_threshold": self.threshold,
            "bootstraps": BOOTSTRAPS,
            "splits": SPLITS,
            "generated": describe(self.generated),
            "reference": describe(self.reference),
            "warnings": list(self.warnings),
            "limits": {
                "passed": self.passed,
                "verdict": self.verdict,
                "tallies": [vars(t) | {"worst": vars(t.worst)} for t in self.tallies],
                "failures": [vars(c) for c in self.checks if not c.passed],
            },
            "points": [p.to_dict() for p in self.points],
            "classifiers": [s.to_dict() for s in self.separability],
        }
        plain = jsonable(result)
        assert isinstance(plain, dict)
        return plain


def evaluate(
    generated: Cells,
    reference: Cells,
    *,
    seed: int = 0,
    threshold: float = READOUT_THRESHOLD,
    classifiers: bool = True,
    max_rows: int = MAX_ROWS,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare generated showers with Geant4's at every design and energy that both hold.

    Args:
        generated: rows to judge.
        reference: Geant4's rows, independent of the generated ones.
        seed: of every bootstrap, split and classifier.
        threshold: of the readout, GeV a cell: for the occupancy and the classifiers.
        classifiers: whether to run the classifier tests, the slow part; needs scikit-learn.
        max_rows: most rows of each class in a classifier test.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        InputError: different materials or cell counts, NaN, or no common point.
    """
    refuse_incomparable(generated, reference)
    matched, warnings = match(generated, reference)
    tell = progress or _silent
    points: list[PointResult] = []
    found = list(warnings)
    for number, rows in enumerate(matched):
        tell("points", number, len(matched))
        rng = np.random.default_rng([seed, 1, number])
        with_energy = [int((c.cells[r].sum(axis=(1, 2, 3)) > 0).sum()) for c, r in _both(generated, reference, rows)]
        if min(with_energy) < MIN_SHOWERS:
            found.append(f"{rows.point}: fewer than {MIN_SHOWERS} showers hold energy, not compared")
            continue
        points.append(compare_point(generated, reference, rows, threshold, rng))
    tell("points", len(matched), len(matched))
    if not points:
        raise InputError(f"no point has {MIN_SHOWERS} showers with energy in both files; nothing to compare")
    tests: list[Separability] = []
    if classifiers:
        rows_left = [p.rows for p in points]
        total = count_tests(rows_left)
        tell("classifiers", 0, total)
        tests = separabilities(
            generated, reference, rows_left, threshold=threshold, max_rows=max_rows, seed=seed,
            step=_counter(tell, "classifiers", total),
        )  # fmt: skip
    checks = [check for point in points for check in limits.check_point(point)]
    checks += [limits.check_auc(t.features, t.classifier, t.where, t.auc) for t in tests if t.threshold == threshold]
    found += [sentence for point in points for sentence in limits.unjudged(point).values()]
    found += _oddities(reference, points)
    return Evaluation(generated, reference, tuple(points), tuple(tests), tuple(checks), tuple(found), seed, threshold)


def mean_biases(generated: Cells, reference: Cells) -> dict[Point, dict[str, tuple[float, float]]]:
    """Biases of the means with standard errors, by point and observable: the light part of `evaluate`, for training.

    Relative to Geant4's mean; those of the centroid are in units of Geant4's deviation.
    """
    refuse_incomparable(generated, reference)
    result = {}
    for rows in match(generated, reference)[0]:
        tables = [observe_rows(c, r).table()[:, : len(OBSERVABLES)] for c, r in _both(generated, reference, rows)]
        bias: Estimates = biases(tables[0], tables[1], is_centred(OBSERVABLES))
        result[rows.point] = {name: (float(bias.value[k]), float(bias.error[k])) for k, name in enumerate(OBSERVABLES)}
    return result


def refuse_incomparable(generated: Cells, reference: Cells) -> None:
    """Raise `InputError` unless both are of one material and one number of cells, and hold numbers."""
    ours, theirs = generated.material, reference.material
    if ours.name != theirs.name or not ours.alike(theirs, 1e-3, ("density",)):
        raise InputError(
            f"generated showers are in {ours.name} ({ours.density:g} g/cm3), reference in {theirs.name} "
            f"({theirs.density:g} g/cm3); expected one material"
        )
    if generated.cells.shape[1:] != reference.cells.shape[1:]:
        raise InputError(
            f"generated showers have {_times(generated)} cells, reference {_times(reference)}; expected the same"
        )
    for name, cells in (("generated", generated), ("reference", reference)):
        bad = ~np.isfinite(cells.cells).all(axis=(1, 2, 3))
        if bad.any():
            raise InputError(f"{name} cells hold NaN or infinite values in {bad.sum()} rows, the first is row "
                             f"{np.argmax(bad)}; expected finite energies")  # fmt: skip


def describe(cells: Cells | Maps) -> dict[str, Any]:
    """What a cells record is, for the result file and the report."""
    return {
        "rows": len(cells), "origin": cells.origin, "material": cells.material.name,
        "density": cells.material.density, "cells": list(cells.measured.shape[1:]), "config": cells.config,
    }  # fmt: skip


def _oddities(reference: Cells, points: list[PointResult]) -> list[str]:
    found = []
    if reference.origin != "geant4":
        found.append(f"the reference's origin is '{reference.origin}', not geant4")
    for name, empty, tables in (
        ("generated", [p.excluded_generated for p in points], [p.generated for p in points]),
        ("reference", [p.excluded_reference for p in points], [p.reference for p in points]),
    ):
        if sum(empty):
            total = sum(len(t) for t in tables) + sum(empty)
            found.append(f"{sum(empty)} of {total} {name} showers hold no energy; they are left out of everything")
    return found


def _both(generated: Cells, reference: Cells, rows: Any) -> tuple[tuple[Cells, np.ndarray], tuple[Cells, np.ndarray]]:
    return (generated, rows.generated), (reference, rows.reference)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress to show."""


def _counter(tell: Progress, stage: str, total: int) -> Callable[[], None]:
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        tell(stage, done, total)

    return step


def _times(cells: Cells) -> str:
    return " x ".join(map(str, cells.cells.shape[1:]))


def versions() -> dict[str, str | None]:
    """Of what a result depends on; None for what is not installed."""
    found: dict[str, str | None] = {"calograd": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "scikit-learn", "scipy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def jsonable(value: Any) -> Any:
    """Numpy numbers as Python's, NaN and infinities as None, tuples as lists."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
