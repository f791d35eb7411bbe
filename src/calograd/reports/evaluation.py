"""The report of an evaluation: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from calograd.evaluation import DesignEvaluation, Evaluation, PointsEvaluation
from calograd.io.files import refuse_existing, write_new
from calograd.reports import designs, points
from calograd.system.progress import StageProgress, silent

RENDERERS: dict[type[Evaluation], Callable[[Any, StageProgress], str]] = {
    DesignEvaluation: designs.render,
    PointsEvaluation: points.render,
}
"""The function that renders each kind of result."""


def write_report(path: Path, evaluation: Evaluation, progress: StageProgress = silent) -> None:
    """Write the report of an evaluation.

    Args:
        path: the HTML file; it must not exist.
        evaluation: result of `calograd.evaluate`.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    write_new(path, RENDERERS[type(evaluation)](evaluation, progress).encode())
