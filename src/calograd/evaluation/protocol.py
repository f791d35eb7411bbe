"""The one way to compare generated showers with Geant4's, whatever kind of record they are.

A kind of record takes part by an entry in `KINDS`. Cells and maps are compared at every design and energy that
both hold (`calograd.evaluation.designs`), points over a spectrum of energies (`calograd.evaluation.points`), plates in
one stack or row by row (`calograd.evaluation.plates`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calograd.errors import InputError
from calograd.evaluation.designs import CELLS, MAPS, MAX_ROWS, evaluate_designs
from calograd.evaluation.plates import evaluate_plates
from calograd.evaluation.points import evaluate_points
from calograd.evaluation.result import Evaluation
from calograd.events.dense import Cells, Maps
from calograd.events.plates import PlateShowers
from calograd.events.plausibility import HOMOGENEOUS, SAMPLING, check_energies
from calograd.events.point_showers import PointShowers
from calograd.events.shards import read_showers
from calograd.metrics.observables import LOG_WEIGHT, READOUT_THRESHOLD
from calograd.system.extras import require
from calograd.system.progress import StageProgress, silent

Records = Cells | Maps | PointShowers | PlateShowers


class RecordKind(NamedTuple):
    """The part of one kind of record in an evaluation.

    Attributes:
        noun: name of the records in sentences.
        evaluate: comparison of two records.
        deposited: energy of every shower, GeV.
        lowest: smallest plausible share of the incident energy, see `calograd.events.plausibility`.
    """

    noun: str
    evaluate: Callable[..., Evaluation]
    deposited: Callable[[Any], np.ndarray]
    lowest: float


KINDS: dict[type, RecordKind] = {
    Cells: RecordKind("cells", partial(evaluate_designs, CELLS), lambda cells: cells.totals, HOMOGENEOUS),
    Maps: RecordKind("maps", partial(evaluate_designs, MAPS), lambda maps: maps.totals, HOMOGENEOUS),
    PointShowers: RecordKind("points", evaluate_points, lambda points: points.layer_sums(points.e).sum(1), SAMPLING),
    PlateShowers: RecordKind("plates", evaluate_plates, lambda plates: plates.totals, HOMOGENEOUS),
}
"""The kinds of records that can be compared."""


def evaluate(
    generated: str | Path | Records,
    reference: str | Path | Records,
    *,
    seed: int = 0,
    threshold: float = READOUT_THRESHOLD,
    classifiers: bool = True,
    max_rows: int = MAX_ROWS,
    log_weight: float = LOG_WEIGHT,
    progress: StageProgress = silent,
) -> Evaluation:
    """Compare generated showers with Geant4's.

    Cells and maps are compared at every design and energy that both hold, of cells each particle and band of angles
    apart and, off the axis, with the reconstructed entry and direction; points by the observables of the CaloClouds
    papers over all their energies; plates in one stack at every energy, or row by row where every shower has a stack
    of its own and the generated ones were made like the reference. Every number stands beside its error and what
    Geant4 gives against itself.

    Args:
        generated: showers to judge: a file or folder of cells, maps, points or plates, or such records.
        reference: Geant4's showers of the same kind, independent of the generated ones.
        seed: seed of every bootstrap, split and classifier.
        threshold: readout threshold, GeV a cell, for the occupancy and the classifiers of cells.
        classifiers: True to run the classifier tests, the slow part; they need scikit-learn.
        max_rows: most rows of each class in a classifier test of cells.
        log_weight: parameter w0 of the logarithmic weights that reconstruct entries and directions off the axis, see
            `calograd.metrics.observables`.
        progress: called as ``progress(stage, done, total)``.

    Returns:
        The result; `Evaluation.verdict`, `Evaluation.tables` and `Evaluation.to_dict` show it, and
        `calograd.reports.evaluation.write_report` writes it with figures.

    Raises:
        InputError: different kinds, materials, stacks, beams or cell counts, energies in another unit, NaN, too few
            showers, or no common design point.
        FormatError: a file is missing or damaged.

    Example:
        >>> from calograd.evaluation import evaluate
        >>> result = evaluate("generated.h5", "reference.h5", classifiers=False)   # doctest: +SKIP
        >>> result.verdict                                                         # doctest: +SKIP
        'all 1353 limits kept'
    """
    if not (isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold = {threshold:g} GeV: expected a positive number")
    if classifiers:
        require("a classifier test (classifiers=False, --no-classifier leave it out)", "report", "sklearn")
    given = {"generated": generated, "reference": reference}
    files = {name: str(value) for name, value in given.items() if isinstance(value, str | Path)}
    ours, theirs = (_records(value) for value in given.values())
    kind, other = KINDS[type(ours)], KINDS[type(theirs)]
    if kind is not other:
        raise InputError(
            f"generated showers are {kind.noun}, reference showers {other.noun}; expected two records of one kind"
        )
    warnings = [
        warning
        for name, records in (("generated", ours), ("reference", theirs))
        for warning in check_energies(
            kind.deposited(records), records.energy, f"{name} {kind.noun}", kind.lowest
        )
    ]  # fmt: skip
    return kind.evaluate(
        ours, theirs, seed=seed, threshold=threshold, classifiers=classifiers, max_rows=max_rows,
        log_weight=log_weight, progress=progress, warnings=warnings, files=files,
    )  # fmt: skip


def _records(given: str | Path | Records) -> Records:
    """Return the records of a file or folder, or those given. Raises `InputError` for anything else."""
    if isinstance(given, str | Path):
        return read_showers(Path(given), deposits=True)
    if type(given) not in KINDS:
        raise InputError(
            f"{type(given).__name__} cannot be evaluated; expected a path, or a record of "
            f"{', '.join(kind.noun for kind in KINDS.values())}"
        )
    return given
