"""The demo's other crystal: the bundled surrogate of PbF2 adapted to few Geant4 showers in PbWO4, before and after."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.evaluation import mean_biases
from calograd.evaluation.matching import DesignPoint, group
from calograd.events.cells import Cells
from calograd.surrogate import Surrogate
from calograd.training.adaptation.adapt import adapt
from calograd.training.adaptation.state import AdaptConfig
from calograd.training.data.rows import load_data

HELD_OUT = 0.1
"""Share of the showers that decides when to stop."""

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total)."""
Biases = dict[DesignPoint, dict[str, tuple[float, float]]]
"""Of means, relative, with standard errors."""


class Adaptation(NamedTuple):
    """What came out.

    Attributes:
        material: of the other detector.
        showers: it learnt from, those that decided when to stop included.
        judged: Geant4 showers that judge, other ones.
        learnt, size: numbers of the adapter, and bytes of its file.
        before, after: biases at the points that judge.
    """

    material: str
    showers: int
    judged: int
    learnt: int
    size: int
    before: Biases
    after: Biases


def adapt_and_judge(
    surrogate: Surrogate, learn: Path, judge: Cells, folder: Path, effort: dict[str, Any], progress: Progress
) -> Adaptation:
    """Adapt by LoRA and compare the means with Geant4's before and after.

    Args:
        surrogate: the base; it stays as it is. Before, it is asked for the other material as if it knew it.
        learn: cells file of the showers to learn from.
        judge: other showers of the same material, at fixed designs and energies.
        folder: of the run.
        effort: fields of `AdaptConfig`.
        progress: called as progress(stage, done, total).
    """
    data = load_data([learn], HELD_OUT, 0)
    outcome = adapt(
        surrogate, AdaptConfig(method="lora", **effort), data, folder,
        progress=lambda phase, step, steps, _: progress(f"adapt: {phase}", step, steps),
    )  # fmt: skip
    before, after = (mean_biases(_like(each, judge), judge) for each in (surrogate, outcome.surrogate))
    return Adaptation(
        data.material.name, data.showers, len(np.unique(judge.shower)), outcome.learnt, outcome.size, before, after
    )


def _like(surrogate: Surrogate, judge: Cells) -> Cells:
    """As many showers as the judge has at each of its points, in its material, with a fixed seed."""
    cells, generator = np.empty_like(judge.cells), torch.Generator().manual_seed(0)
    for point, rows in group(judge).items():
        design = Design(point.design.dx, point.design.dz, judge.material, judge.cells.shape[1], judge.dz.shape[1])
        with torch.inference_mode(), warnings.catch_warnings(category=UserWarning, action="ignore"):
            made = surrogate.sample(design, point.energy, len(rows), generator=generator, extrapolate=True)
        cells[rows] = made.numpy()
    return Cells(
        cells, judge.energy, judge.dx, judge.dz, judge.shower, judge.material, surrogate.card.name, {"seed": 0}
    )
