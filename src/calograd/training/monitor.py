"""A look at a training: validation loss and the physics of generated showers, on showers never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from calograd.events.dense import MAPS
from calograd.surrogate.model import DesignModel
from calograd.surrogate.randomness import RandomNumbers
from calograd.training.data.rows import MAX_ROWS, Rows, TrainingData

BINS = 3

Losses = Callable[[DesignModel, Tensor, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""Losses of shape and pattern of a model, given x, y, conditions and a generator, see `DesignModel.losses`."""


def denoising(
    model: DesignModel, x: Tensor, y: Tensor, conditions: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The losses of diffusion models."""
    return model.losses(x, y, conditions, generator)


@dataclass(frozen=True)
class Report:
    """What a training looked like at one step.

    Attributes:
        step: of the diffusion phase.
        seconds: since the run began, over all phases.
        train_loss: running mean.
        validation_loss: with the same noise at every look.
        bias: relative bias of means in per cent, by observable, one value for each of three energy bins.
        error: its standard error.
        spread: ratio of standard deviations to Geant4's, likewise.
    """

    step: int
    seconds: float
    train_loss: float
    validation_loss: float
    bias: dict[str, list[float]]
    error: dict[str, list[float]]
    spread: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; None for what is undefined, as the width of a single layer."""
        plain = asdict(self)
        for name in ("bias", "error", "spread"):
            plain[name] = {key: [v if isfinite(v) else None for v in values] for key, values in plain[name].items()}
        return plain


def look(
    model: DesignModel, data: TrainingData, step: int, train_loss: float, seconds: float, losses: Losses = denoising
) -> Report:
    """Validation loss and biases of ``model`` on the validation rows (at most `MAX_ROWS`)."""
    generator = torch.Generator().manual_seed(0)
    device = model.condition_mean.device
    chosen = torch.randperm(len(data.validation), generator=generator)[:MAX_ROWS]
    rows = data.validation.at(chosen)
    cells, energy = rows.cells.to(device), rows.energy.to(device)
    with torch.no_grad():
        conditions = data.conditions(model, rows)
        x, y = model.standardise(cells, energy, conditions, generator)
        most, loss = model.most_rows, 0.0
        for start in range(0, len(x), most):
            part = slice(start, start + most)
            shape, pattern = losses(model, x[part], y[part], conditions[part], generator)
            loss += float(shape.mean() + pattern.mean()) * (len(shape) / len(x))
        schedule, random = model.sampling_schedule(), RandomNumbers(generator)
        made = torch.cat(
            [
                model.generate(c, e, len(e), schedule, random)
                for c, e in zip(*(torch.split(values, min(1000, most)) for values in (conditions, energy)), strict=True)
            ]
        )
    bias, error, spread = _biases(made.cpu(), rows, data.held_out)
    return Report(step, round(seconds, 1), train_loss, loss, bias, error, spread)


def _biases(made: Tensor, rows: Rows, showers: int) -> tuple[dict[str, list[float]], ...]:
    """Of E_tot/E, R_E/dx, sigma_y/dx, longitudinal mean/dz and width/dz in energy bins of equal counts.

    Rows of one shower at several designs are far from independent, so errors count distinct ``showers``.
    """
    ours, theirs = _observables(made, rows), _observables(rows.cells, rows)
    bins = torch.tensor_split(torch.argsort(rows.energy, stable=True), BINS)
    bias: dict[str, list[float]] = {name: [] for name in ours}
    error: dict[str, list[float]] = {name: [] for name in ours}
    spread: dict[str, list[float]] = {name: [] for name in ours}
    for name in ours:
        for chosen in bins:
            a, g = ours[name][chosen], theirs[name][chosen]
            bias[name].append(round(100 * float(a.mean() / g.mean() - 1), 4))
            error[name].append(round(100 * float((a - g).std() / min(len(a), showers / BINS) ** 0.5 / g.mean()), 4))
            spread[name].append(round(float(a.std() / g.std()), 4))
    return bias, error, spread


def _observables(cells: Tensor, rows: Rows) -> dict[str, Tensor]:
    """In units of the cell, so that designs can be averaged; see `calograd.metrics.observables` for cm."""
    cells = cells.double()
    if cells.ndim == len(MAPS.axes):
        return _map_observables(cells, rows)
    n = cells.shape[1]
    total = cells.sum((1, 2, 3)).clamp(min=1e-12)
    place = torch.arange(n).double() - (n - 1) / 2
    layers, x, y = cells.sum((1, 2)), cells.sum((2, 3)), cells.sum((1, 3))
    depth = torch.arange(cells.shape[3]).double() + 0.5

    (_, vx), (_, vy), (mz, vz) = _moments(x, place, total), _moments(y, place, total), _moments(layers, depth, total)
    return {
        "E_tot": total / rows.energy, "R_E": (vx + vy).sqrt(), "sigma_y": vy.sqrt(),
        "z_mean": mz, "z_width": vz.sqrt(),
    }  # fmt: skip


def _map_observables(maps: Tensor, rows: Rows) -> dict[str, Tensor]:
    """Of maps, in pixels; R_E, in the plane of the map, in pixels along for as many cells across as layers."""
    total, pixels = maps.sum((1, 2)).clamp(min=1e-12), maps.shape[1]
    place = torch.arange(pixels).double() + 0.5
    (_, vx), (mz, vz) = (_moments(profile, place, total) for profile in (maps.sum(2), maps.sum(1)))
    aspect = rows.dx.double() / rows.dz.double().mean(1)
    return {
        "E_tot": total / rows.energy, "R_E": (vx * aspect**2 + vz).sqrt(), "sigma_y": vx.sqrt(),
        "z_mean": mz, "z_width": vz.sqrt(),
    }  # fmt: skip


def _moments(profile: Tensor, at: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the places ``at`` with the weights ``profile``, which add up to ``total``."""
    mean = profile @ at / total
    return mean, (profile @ at**2 / total - mean**2).clamp(min=0)
