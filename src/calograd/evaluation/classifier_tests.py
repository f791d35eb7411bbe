"""Classifier tests of an evaluation: designs together and apart, observables and cells, with and without threshold.

Beside every test stands Geant4 against itself: the same test on two random halves of the reference, with half the rows.
Showers without energy above the threshold are left out. Every design point has as many generated as reference rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from calograd.detector.configuration import PDG
from calograd.evaluation.matching import MatchedRows
from calograd.events.dense import Cells
from calograd.metrics.classifier import (
    AUC,
    CLASSIFIERS,
    FOLDS,
    NO_THRESHOLD_SCALE,
    LabelledRows,
    cell_features,
    cross_fitted_auc,
    observable_features,
)
from calograd.metrics.observables import observe, readout
from calograd.system.progress import StageProgress

ALL_DESIGNS = "all designs"
"""Name of the test of all designs together."""


@dataclass(frozen=True)
class ClassifierTest:
    """A classifier test of generated showers, and the same test of Geant4 against itself.

    Args:
        features: name of the features, such as ``observables`` (with layer energies) or ``cells``.
        classifier: name of the classifier, ``trees`` or ``network``.
        auc: generated against reference.
        floor: one half of the reference against the other.
        where: the design, or `ALL_DESIGNS`; all energies together. None where records have no designs.
        threshold: readout threshold, GeV a cell; zero for none.
    """

    features: str
    classifier: str
    auc: AUC
    floor: AUC
    where: str | None = None
    threshold: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        where = {} if self.where is None else {"where": self.where, "threshold": self.threshold}
        return where | {
            "features": self.features, "classifier": self.classifier, "auc": self.auc.to_dict(),
            "floor": self.floor.to_dict(),
        }  # fmt: skip


def run_design_tests(
    generated: Cells,
    reference: Cells,
    matched: Sequence[MatchedRows],
    *,
    threshold: float,
    max_rows: int,
    seed: int,
    progress: StageProgress,
) -> list[ClassifierTest]:
    """Run all classifier tests of cells.

    Args:
        generated, reference: cells of both files.
        matched: rows of the design points.
        threshold: readout threshold, GeV a cell; the tests of all designs are repeated without threshold.
        max_rows: most rows of each class in a test.
        seed: seed of draws and trainings.
        progress: called as ``progress(stage, done, total)``.
    """
    results: list[ClassifierTest] = []
    scopes = _scopes(matched, threshold)
    total = sum(2 * len(scope.classifiers) * len(scope.thresholds) for scope in scopes)
    progress("classifiers", 0, total)
    for number, (where, points, thresholds, classifiers) in enumerate(scopes):
        rng = np.random.default_rng([seed, 2, number])
        ours, theirs = _draw(points, reference.shower, max_rows, rng)
        halves = _halves(reference.shower[theirs], reference.energy[theirs], rng)
        varied = _varied(reference, theirs)
        for cut in thresholds:
            a, b = generated.rows(ours), reference.rows(theirs)
            features_a, features_b = _features(a, cut, varied), _features(b, cut, varied)
            for name in features_a:
                test = _labelled(features_a[name], a.shower, features_b[name], b.shower)
                x, kept = features_b[name]
                one, two = halves & kept, ~halves & kept
                twin = _labelled((x, one), b.shower, (x, two), b.shower)
                for classifier in classifiers:
                    fit = CLASSIFIERS[classifier]
                    results.append(
                        ClassifierTest(name, classifier, cross_fitted_auc(test, fit, rng),
                                       cross_fitted_auc(twin, fit, rng), where, cut)
                    )  # fmt: skip
                    progress("classifiers", len(results), total)
    return results


class _Scope(NamedTuple):
    where: str
    points: list[MatchedRows]
    thresholds: list[float]
    classifiers: list[str]


def _scopes(matched: Sequence[MatchedRows], threshold: float) -> list[_Scope]:
    """Return the rows tested together: all, by every classifier; then every design, by trees, if there are several."""
    designs = sorted({m.point.design for m in matched})
    where = str(designs[0]) if len(designs) == 1 else ALL_DESIGNS
    together = _Scope(where, list(matched), [threshold, 0.0], list(CLASSIFIERS))
    if len(designs) == 1:
        return [together]
    return [
        together,
        *(_Scope(str(d), [m for m in matched if m.point.design == d], [threshold], ["trees"]) for d in designs),
    ]


def _draw(
    points: list[MatchedRows], shower: np.ndarray, max_rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows of both files, equally many at every point, at most about ``max_rows`` of each."""
    share = max(2 * FOLDS, max_rows // len(points))
    ours, theirs = [], []
    for m in points:
        count = min(len(m.generated), len(m.reference), share)
        ours.append(rng.permutation(m.generated)[:count])
        # A shower seen by several designs is kept or left out in all of them, so that few showers come twice.
        theirs.append(m.reference[np.argsort(shower[m.reference], kind="stable")][:count])
    return np.concatenate(ours), np.concatenate(theirs)


def _halves(shower: np.ndarray, energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random half of the showers of every energy as a mask of rows; the rows of a shower stay together."""
    mask = np.zeros(len(shower), dtype=bool)
    for value in np.unique(energy):
        rows = np.flatnonzero(energy == value)
        showers, member = np.unique(shower[rows], return_inverse=True)
        mask[rows] = (rng.permutation(len(showers)) % 2 == 0)[member]
    return mask


def _varied(reference: Cells, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return which columns of energy, dx, dz and the beam vary between the rows."""
    columns = {name: getattr(reference, name)[rows].reshape(len(rows), -1) for name in ("energy", "dx", "dz")}
    varied = {name: np.ptp(values, axis=0) > 1e-4 * values.max(axis=0) for name, values in columns.items()}
    return varied | {"beam": np.ptp(_beam(reference.rows(rows)), axis=0) > 1e-4}


def _beam(rows: Cells) -> np.ndarray:
    """Return what classifiers see of the particles, shape (n, 6): kind and charge, entry in its cell, slopes."""
    incident = rows.incident
    u = incident.position / rows.dx[:, None]
    return np.column_stack(
        [incident.particle == PDG["gamma"], np.sign(incident.particle), u - np.round(u), incident.slopes]
    ).astype(np.float64)


_Features = tuple[np.ndarray, np.ndarray]


def _features(rows: Cells, threshold: float, varied: dict[str, np.ndarray]) -> dict[str, _Features]:
    """Return features by kind, each with the mask of rows that hold energy above the threshold."""
    cells = readout(rows.cells, threshold)
    seen = observe(cells, rows.dx, rows.dz, threshold, rows.incident)
    kept, energy = seen.kept.numpy(), rows.energy.astype(np.float64)
    sizes = [getattr(rows, name).reshape(len(rows), -1)[:, varied[name]] for name in ("energy", "dx", "dz")]
    conditions = np.column_stack([np.log(np.column_stack(sizes)), _beam(rows)[:, varied["beam"]]])
    scale = threshold or NO_THRESHOLD_SCALE
    table = np.ones((len(rows), seen.table().shape[1]))
    table[kept] = seen.table()
    return {
        "observables": (observable_features(table, conditions, energy, scale), kept),
        "cells": (cell_features(cells, conditions, energy, scale), kept),
    }


def _labelled(a: _Features, shower_a: np.ndarray, b: _Features, shower_b: np.ndarray) -> LabelledRows:
    features = np.concatenate([a[0][a[1]], b[0][b[1]]])
    generated = np.r_[np.ones(a[1].sum(), dtype=bool), np.zeros(b[1].sum(), dtype=bool)]
    key = np.r_[shower_a[a[1]], shower_b[b[1]]] * 2 + generated
    return LabelledRows(features, generated, np.unique(key, return_inverse=True)[1])
