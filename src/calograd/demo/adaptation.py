"""Adaptation in the demo: the bundled surrogate of PbF2 adapts to few Geant4 showers in PbWO4."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.evaluation import mean_biases
from calograd.evaluation.matching import DesignPoint, group
from calograd.events.dense import Cells
from calograd.surrogate import Surrogate
from calograd.system.progress import StageProgress
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import load_data
from calograd.training.tasks.adapt import adapt

HELD_OUT = 0.1
"""Share of the showers that is held out and decides when to stop."""

Biases = dict[DesignPoint, dict[str, tuple[float, float]]]
"""Relative biases of means with standard errors, by point and observable."""


class Adaptation(NamedTuple):
    """An adaptation and its biases against Geant4.

    Attributes:
        material: material of the other detector.
        showers: showers used, including those held out.
        judged: other Geant4 showers that the biases refer to.
        learnt, size: numbers of the adapter, and bytes of its file.
        before, after: biases before and after the adaptation.
    """

    material: str
    showers: int
    judged: int
    learnt: int
    size: int
    before: Biases
    after: Biases


def adapt_and_judge(
    surrogate: Surrogate, learn: Path, judge: Cells, folder: Path, effort: dict[str, Any], progress: StageProgress
) -> Adaptation:
    """Adapt by LoRA and compare the means with Geant4's before and after.

    Args:
        surrogate: the base, which does not change. Before the adaptation it extrapolates to the other material.
        learn: cells file with the showers to learn from.
        judge: other showers of the same material, at fixed designs and energies.
        folder: folder of the run.
        effort: fields of `AdaptConfig`.
        progress: called after each step.
    """
    data = load_data([learn], HELD_OUT, 0)
    result = adapt(
        surrogate, AdaptConfig(method="lora", **effort), data, folder,
        progress=lambda phase, step, steps, _: progress(f"adapt: {phase}", step, steps),
    )  # fmt: skip
    before, after = (mean_biases(_like(each, judge), judge) for each in (surrogate, result.surrogate))
    return Adaptation(
        data.material.name, data.showers, len(np.unique(judge.shower)), result.learnt, result.size, before, after
    )


def _like(surrogate: Surrogate, judge: Cells) -> Cells:
    """Generate as many showers as the judge has at each of its points, in its material, with a fixed seed."""
    cells, generator = np.empty_like(judge.cells), torch.Generator().manual_seed(0)
    for point, rows in group(judge).items():
        design = Design(point.design.dx, point.design.dz, judge.material, judge.cells.shape[1], judge.dz.shape[1])
        with torch.inference_mode(), warnings.catch_warnings(category=UserWarning, action="ignore"):
            made = surrogate.sample(design, point.energy, len(rows), generator=generator, extrapolate=True)
        cells[rows] = made.numpy()
    return Cells(
        cells, judge.energy, judge.dx, judge.dz, judge.shower, judge.material, surrogate.card.name, {"seed": 0}
    )
