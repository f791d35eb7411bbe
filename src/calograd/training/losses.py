"""Losses of a batch of rows, in the phases of `calograd.training.state`."""

from __future__ import annotations

import torch
from torch import Tensor

from calograd.surrogate.model import DesignModel
from calograd.surrogate.two_stage import TeacherTargets, TwoStage
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.distributed import Team
from calograd.training.monitor import Losses, denoising
from calograd.training.state import DIFFUSION


def batch_loss(
    model: DesignModel, data: TrainingData, rows: Rows, phase: int, generator: torch.Generator, precision: str
) -> Tensor:
    """Mean loss of a batch in a phase in which ``model`` has something to learn; arguments as of the two below."""
    if phase == DIFFUSION:
        return diffusion_loss(model, data, rows, generator, precision)
    assert isinstance(model, TwoStage)
    return location_scale_loss(model, data, rows, phase, generator)


def location_scale_loss(
    model: TwoStage, data: TrainingData, rows: Rows, phase: int, generator: torch.Generator
) -> Tensor:
    """Mean negative log likelihood of location and scale.

    Args:
        model: the weights.
        data: whose rows these are: their materials.
        rows: of the batch.
        phase: that of the shape's moments, 0, or of the pattern's, 1.
        generator: of what spreads empty cells.
    """
    device = model.condition_mean.device
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    return model.location_scale_loss(phase, cells, energy, data.conditions(model, rows), generator).mean()


def diffusion_loss(
    model: DesignModel,
    data: TrainingData,
    rows: Rows,
    generator: torch.Generator,
    precision: str,
    losses: Losses = denoising,
) -> Tensor:
    """Mean loss of the networks of shape and pattern.

    Args:
        model: the weights.
        data: whose rows these are: their materials, and whether they may be turned and mirrored.
        rows: of the batch.
        generator: of noise and symmetries.
        precision: of the matrix products, ``bf16`` or ``fp32``.
        losses: of a distillation instead of those of diffusion models.
    """
    x, y, conditions = standardised(model, data, rows, generator)
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        shape, pattern = losses(model, x, y, conditions, generator)
    return shape.mean() + pattern.mean()


@torch.no_grad()
def standardised(
    model: DesignModel, data: TrainingData, rows: Rows, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and conditions of rows, turned and mirrored at random where showers may be."""
    device = model.condition_mean.device
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    conditions = data.conditions(model, rows)
    x, y = model.standardise(cells, energy, conditions, generator)
    if data.symmetric:
        turn = torch.randint(len(model.permutations), (len(y),), generator=generator)
        y = y.gather(1, model.permutations[turn.to(device)])
    return x, y, conditions


def lessons_loss(
    model: DesignModel, lessons: TeacherTargets, batch: int, team: Team, generator: torch.Generator, precision: str
) -> Tensor:
    """Mean distillation loss of the share that a process has of a random batch of lessons."""
    assert isinstance(model, TwoStage)
    chosen = torch.randint(len(lessons), (batch,), generator=generator)[team.rows(batch)]
    device = model.condition_mean.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        shape, pattern = model.distillation_losses(lessons.at(chosen.to(device)))
    return shape.mean() + pattern.mean()
