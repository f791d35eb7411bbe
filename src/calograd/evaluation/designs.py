"""Evaluation of cells and maps: showers are compared at every design and energy that both files hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import Any, cast

import numpy as np

from calograd.errors import InputError
from calograd.evaluation import limits
from calograd.evaluation.classifier_tests import ClassifierTest, run_design_tests
from calograd.evaluation.compare import PointResult, Sample, compare_samples, is_centred
from calograd.evaluation.matching import MIN_SHOWERS, DesignPoint, MatchedRows, Setting, Sizes, match
from calograd.evaluation.reconstruction import METHODS, ResidualComparison, compare_reconstructions
from calograd.evaluation.result import Evaluation, SummaryTable
from calograd.events.dense import Cells, Maps
from calograd.metrics.distances import BOOTSTRAPS, SPLITS, biases
from calograd.metrics.observables import (
    OBSERVABLES,
    READOUT_THRESHOLD,
    Observables,
    longitudinal_profile,
    map_quantity_names,
    observe,
    pixels_as_cells,
    quantity_names,
    transverse_profile,
)
from calograd.system.progress import StageProgress

MAX_ROWS = 12_000
"""Most rows of each class that a classifier test uses."""

RECONSTRUCTION_TITLE = "Reconstructed entry and direction, generated against reference, with standard errors"
"""Title of the table of entries and directions."""
RECONSTRUCTION = (3,)
"""Numbers that follow the seed in the seeds of reconstructed entries and directions."""

Records = Cells | Maps


@dataclass(frozen=True)
class DesignKind:
    """The rules by which one kind of record is observed and judged at design points.

    Args:
        noun: name of the records in sentences.
        schema: schema of the result.
        as_cells: function from records to cells, their pitch and their depths.
        follows: True if windows follow the particles.
        quantities: function from observables to names and table of the quantities.
        limits: limits that are judged.
        shown: observables of the summary table.
        correlated: True if correlations of layer energies are compared.
        classified: True if classifiers are trained.
        stream: numbers that follow the seed in the seeds of bootstraps.
    """

    noun: str
    schema: str
    as_cells: Callable[[Any], tuple[np.ndarray, np.ndarray, np.ndarray]]
    follows: bool
    quantities: Callable[[Observables], tuple[tuple[str, ...], np.ndarray]]
    limits: limits.Limits
    shown: tuple[str, ...]
    correlated: bool
    classified: bool
    stream: tuple[int, ...]

    def sample(self, records: Any, threshold: float) -> Sample:
        """Return quantities and profiles of records at one design point, at a readout threshold in GeV."""
        cells, dx, dz = self.as_cells(records)
        seen = observe(cells, dx, dz, threshold, records.incident if self.follows else None)
        filled = cells[seen.kept.numpy()]
        profiles = {
            "along": longitudinal_profile(filled, dz[0].astype(np.float64)),
            "across": transverse_profile(filled, float(dx[0])),
        }
        return Sample(*self.quantities(seen), seen.excluded, profiles)


CELLS = DesignKind(
    noun="cells", schema="calograd/evaluation/1",
    as_cells=lambda cells: (cells.cells, cells.dx, cells.dz), follows=True,
    quantities=lambda seen: (quantity_names(seen.layers.shape[1]), seen.table()), limits=limits.CELL_LIMITS,
    shown=("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z"), correlated=True, classified=True, stream=(1,),
)  # fmt: skip
"""Cells: all distances, correlations of layers, classifiers."""
MAPS = DesignKind(
    noun="maps", schema="calograd/maps-evaluation/2",
    as_cells=lambda maps: pixels_as_cells(maps.maps, maps.width, maps.depth), follows=False,
    quantities=lambda seen: (map_quantity_names(), seen.map_table()), limits=limits.MAP_LIMITS,
    shown=("E_tot", "R_E", "sigma_y"), correlated=False, classified=False, stream=(),
)  # fmt: skip
"""Maps: the quantities of arXiv 2601.07859."""


@dataclass(frozen=True)
class DesignEvaluation(Evaluation):
    """The outcome of a comparison of cells or maps.

    Args:
        kind: kind of the records.
        points: one result for every design point, in order of design and energy.
        threshold: readout threshold, GeV a cell.
    """

    kind: DesignKind = field(repr=False)
    points: tuple[PointResult, ...] = field(repr=False)
    threshold: float

    @property
    def designs(self) -> list[Sizes]:
        """The designs that were compared, in order of size."""
        return sorted({p.point.design for p in self.points})

    @property
    def settings(self) -> list[Setting]:
        """The designs that were compared, in each kind of beam, in order."""
        return sorted({p.point.setting for p in self.points})

    def at(self, where: Sizes | Setting) -> list[PointResult]:
        """Return the results at one design, or in one kind of beam there, in order of energy."""
        return [p for p in self.points if where in (p.point.design, p.point.setting)]

    @cached_property
    def _checks_by_point(self) -> dict[DesignPoint, list[limits.LimitCheck]]:
        return {p.point: limits.check_point(p, self.kind.limits) for p in self.points}

    def checks_of(self, result: PointResult) -> list[limits.LimitCheck]:
        """Return the checks of one design point."""
        return self._checks_by_point[result.point]

    def tables(self) -> list[SummaryTable]:
        """Return classifier tests, limits and, of few points, biases."""
        title = f"{self.generated.origin} against {self.reference.origin}"
        found = [
            SummaryTable(
                f"{title}: {len(self.points)} points, {self.verdict}",
                ("limits on", "passed", "perfect would", "beyond statistics", "worst", "at"),
                [(s.kind, f"{s.passed} of {s.checked}", f"{s.expected:.0f}", s.significant, s.worst_in_words,
                  f"{s.worst.subject}, {s.worst.where}") for s in limits.summarise(self.checks, merge_subjects=True)],
            )
        ]  # fmt: skip
        if any(p.reconstruction for p in self.points):
            found.append(self._reconstruction())
        if self.tests:
            found.insert(0, SummaryTable(
                f"{title}: classifiers, all energies together (95 % interval)",
                ("where", "features", "threshold", "classifier", "AUC", "Geant4 halves"),
                [(t.where, t.features, f"{1e3 * t.threshold:g} MeV" if t.threshold else "none", t.classifier, t.auc,
                  t.floor) for t in self.tests],
            ))  # fmt: skip
        else:
            found.append(self._biases())
        return found

    def _biases(self) -> SummaryTable:
        rows = []
        for p in self.points:
            shown = [p.quantities[name] for name in self.kind.shown]
            rows.append([p.point, *(f"{100 * q.bias:+.2f} +- {100 * q.bias_error:.2f}" for q in shown),
                         *(f"{q.sigma_ratio:.3f} +- {q.sigma_ratio_error:.3f}" for q in shown)])  # fmt: skip
        names = self.kind.shown
        columns = ("point", *(f"{name} bias, %" for name in names), *(f"{name} spread" for name in names))
        return SummaryTable("Biases of means and ratios of spreads, with standard errors", columns, rows)

    def _reconstruction(self) -> SummaryTable:
        """Return the table of reconstructed entry and direction by point and method."""
        rows = []
        for p in self.points:
            if p.reconstruction is None:
                continue
            for method, residuals in p.reconstruction.residuals.items():
                row = [p.point, METHODS[method], *position_in_words(p.reconstruction.pitch, residuals.get("position"))]
                row += resolution_in_words(residuals.get("theta"), 1.0)
                pulls = np.concatenate([each.pulls.ravel() for each in residuals.values()])
                rows.append([*row, f"{np.sqrt((pulls**2).mean()):.2f} of {len(pulls)}" if len(pulls) else "-"])
        columns = ("point", "by", "entry: largest difference of bias, % of pitch", "floor", "resolution, mm", "ratio",
                   "floor", "theta: resolution, degrees", "ratio", "floor", "pulls, rms")  # fmt: skip
        return SummaryTable(RECONSTRUCTION_TITLE, columns, rows)

    def _contents(self) -> dict[str, Any]:
        return {
            "schema": self.kind.schema,
            "readout_threshold": self.threshold,
            "bootstraps": BOOTSTRAPS,
            "splits": SPLITS,
            "generated": describe(self.generated),
            "reference": describe(self.reference),
            "limits": {
                "passed": self.passed,
                "verdict": self.verdict,
                "tallies": [vars(s) | {"worst": vars(s.worst)} for s in self.summaries],
                "failures": [vars(c) for c in self.checks if not c.passed],
            },
            "points": [p.to_dict() for p in self.points],
            "classifiers": [t.to_dict() for t in self.tests],
        }


def evaluate_designs(
    kind: DesignKind, generated: Records, reference: Records, *, seed: int, threshold: float, classifiers: bool,
    max_rows: int, log_weight: float, progress: StageProgress, warnings: list[str], files: dict[str, str],
) -> DesignEvaluation:  # fmt: skip
    """Compare cells or maps at every design point; see `calograd.evaluation.evaluate`."""
    refuse_incomparable(kind, generated, reference)
    if not (isfinite(log_weight) and log_weight > 0):
        raise InputError(f"w0 = {log_weight:g} of the logarithmic weights: expected a positive number, such as 4")
    matched, left_out = match(generated, reference)
    found = [*warnings, *left_out]
    points = list(_compare(kind, generated, reference, matched, seed, threshold, log_weight, progress, found))
    if not points:
        raise InputError(f"no point has {MIN_SHOWERS} showers with energy in both files; nothing to compare")
    tests: list[ClassifierTest] = []
    if classifiers and kind.classified:
        tests = run_design_tests(
            cast(Cells, generated), cast(Cells, reference), [point.rows for point in points], threshold=threshold,
            max_rows=max_rows, seed=seed, progress=progress,
        )  # fmt: skip
        found += [
            f"{t.classifier} on {t.features}, {t.where}: cannot be measured with so few showers, not judged"
            for t in tests
            if not t.auc.measured
        ]
    checks = [check for point in points for check in limits.check_point(point, kind.limits)]
    checks += [
        limits.check_auc(t.features, t.classifier, str(t.where), t.auc, t.floor)
        for t in tests
        if t.threshold == threshold and t.auc.measured
    ]
    found += [sentence for point in points for sentence in limits.unjudged(point, kind.limits).values()]
    found += _oddities(reference, points)
    return DesignEvaluation(
        generated, reference, tuple(tests), tuple(checks), tuple(found), seed, files, kind, tuple(points), threshold
    )


def _compare(
    kind: DesignKind, generated: Records, reference: Records, matched: tuple[MatchedRows, ...], seed: int,
    threshold: float, log_weight: float, progress: StageProgress, warnings: list[str],
) -> list[PointResult]:  # fmt: skip
    """Compare both records at every point; a point with too few showers goes to the warnings."""
    points = []
    for number, rows in enumerate(matched):
        progress("points", number, len(matched))
        ours, theirs = generated.rows(rows.generated), reference.rows(rows.reference)
        if min(int((part.totals > 0).sum()) for part in (ours, theirs)) < MIN_SHOWERS:
            warnings.append(f"{rows.point}: fewer than {MIN_SHOWERS} showers hold energy, not compared")
            continue
        samples = kind.sample(ours, threshold), kind.sample(theirs, threshold)
        rng = np.random.default_rng([seed, *kind.stream, number])
        n_layers = sum(name not in OBSERVABLES for name in samples[1].names)
        point = compare_samples(rows, *samples, n_layers, kind.correlated, rng)
        if kind.follows:
            rng = np.random.default_rng([seed, *RECONSTRUCTION, number])
            found, left_out = compare_reconstructions(cast(Cells, ours), cast(Cells, theirs), rng, log_weight)
            point = replace(point, reconstruction=found)
            warnings += [f"{rows.point}: {left_out}"] if left_out else []
        points.append(point)
    progress("points", len(matched), len(matched))
    return points


def observe_rows(cells: Cells, rows: np.ndarray, threshold: float = READOUT_THRESHOLD) -> Observables:
    """Return the observables of chosen rows of a cells record."""
    return observe(cells.cells[rows], cells.dx[rows], cells.dz[rows], threshold, cells.incident[rows])


def mean_biases(generated: Cells, reference: Cells) -> dict[DesignPoint, dict[str, tuple[float, float]]]:
    """Return the biases of the means with standard errors, by design point and observable.

    This is the light part of an evaluation, for training. Biases are relative to Geant4's mean; those of the centroid
    are in units of Geant4's deviation.
    """
    refuse_incomparable(CELLS, generated, reference)
    result = {}
    for rows in match(generated, reference)[0]:
        seen = observe_rows(generated, rows.generated), observe_rows(reference, rows.reference)
        ours, theirs = (each.table()[:, : len(OBSERVABLES)] for each in seen)
        bias = biases(ours, theirs, is_centred(OBSERVABLES))
        result[rows.point] = {name: (float(bias.value[k]), float(bias.error[k])) for k, name in enumerate(OBSERVABLES)}
    return result


def refuse_incomparable(kind: DesignKind, generated: Records, reference: Records) -> None:
    """Raise `InputError` unless both are of one material and shape, and hold finite energies."""
    ours, theirs = generated.material, reference.material
    if ours.name != theirs.name or not ours.alike(theirs, 1e-3, ("density",)):
        raise InputError(
            f"generated {kind.noun} are in {ours.name} ({ours.density:g} g/cm3), reference in {theirs.name} "
            f"({theirs.density:g} g/cm3); expected one material"
        )
    for what, values in (
        ({"cells": "cells", "maps": "pixels"}[kind.noun],
         [" x ".join(map(str, part.measured.shape[1:])) for part in (generated, reference)]),
        ("cells across", [str(part.n_xy) for part in (generated, reference)]),
        ("layers", [str(part.dz.shape[1]) for part in (generated, reference)]),
    ):  # fmt: skip
        if values[0] != values[1]:
            raise InputError(
                f"generated showers have {values[0]} {what}, reference showers {values[1]}; expected the same"
            )
    for name, part in (("generated", generated), ("reference", reference)):
        bad = ~np.isfinite(part.measured.reshape(len(part), -1)).all(axis=1)
        if bad.any():
            raise InputError(
                f"{name} {kind.noun} hold NaN or infinite values in {bad.sum()} rows, the first is row "
                f"{np.argmax(bad)}; expected finite energies"
            )


def position_in_words(pitch: float, position: ResidualComparison | None) -> list[str]:
    """Return the largest difference of biases of the entry in % of the pitch, its floor, and the resolution in mm."""
    if position is None:
        return ["-"] * 5
    value, error = (100 * each[position.largest] / pitch for each in (position.difference, position.difference_error))
    return [f"{value:+.2f} +- {error:.2f}", f"{100 * position.floor / pitch:.2f}", *resolution_in_words(position, 10.0)]


def resolution_in_words(residual: ResidualComparison | None, unit: float) -> list[str]:
    """Return the reference's resolution in a unit, the ratio of the generated one, and the floor of its deviation."""
    if residual is None:
        return ["-"] * 3
    b, (ratio, error) = residual.reference, residual.ratio
    return [f"{unit * b.spread:.3g} +- {unit * b.spread_error:.1g}", f"{ratio:.3f} +- {error:.3f}",
            f"{residual.null_ratio.std(ddof=1):.3f}"]  # fmt: skip


def describe(records: Records) -> dict[str, Any]:
    """Return what a record is, for the result file and the report."""
    return {
        "rows": len(records), "origin": records.origin, "material": records.material.name,
        "density": records.material.density, "cells": list(records.measured.shape[1:]), "config": records.config,
    }  # fmt: skip


def _oddities(reference: Records, points: list[PointResult]) -> list[str]:
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
