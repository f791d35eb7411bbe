"""Training of the baseline of `calograd.surrogate.points.grids`, by the evidence lower bound of the cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.events.grids import Grids
from calograd.events.layered_readout import GRID, THRESHOLD
from calograd.io.hdf5 import one_writer
from calograd.surrogate.base import place
from calograd.surrogate.points.grids import GridModel
from calograd.training.data.points import Split
from calograd.training.loop import Course, Pace, Phase, Progress
from calograd.training.points.config import GridRunConfig
from calograd.training.points.monitor import CloudReport, physics_of, some_of
from calograd.training.points.task import Reports, Task, check_range, go_through, prepare

NATS = 1e-3
"""The loss that is minimised and shown is of kilonats a shower."""
LEAST = 0.05
"""Hits that a ring of cells counts as having at least, so that no cell is impossible."""


@dataclass(frozen=True)
class _Data:
    """Grids of the training and of the validation showers, and the latter's points."""

    train: Grids
    validation: Grids
    split: Split


def train_grids(
    config: GridRunConfig,
    split: Split,
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    on_report: Reports | None = None,
) -> GridModel:
    """Train the baseline, or go on with the run in ``output``; returns the moving average.

    Raises:
        InputError: ``output`` holds a run of another configuration or cannot be written, the data do not fill the
            range or have no hit, a loss is NaN, or there is no such device.
        OutputExistsError: ``output`` holds a surrogate without a checkpoint to go on from.
        FormatError: the checkpoint is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    with one_writer(output):
        t = config.training
        prepare(output, t.threads)
        data = _Data(Grids.of(split.train), Grids.of(split.validation), split)
        check_range(config.range, torch.from_numpy(split.train.energy))
        course = Course.start(place(_model(config, data), device), t.seed)

        def loss(at: Course[GridModel]) -> Tensor:
            rows = torch.randint(len(data.train), (t.batch,), generator=at.generator)
            cells, code = at.model.losses(*_batch(at.model, data.train, rows), at.generator)
            return NATS * (cells + code).mean()

        def look_at(at: Course[GridModel]) -> CloudReport:
            return _look(at, data)

        phases = [Phase("grids", t.steps, ("encoder_network.", "decoder_network."), loss, t.ema, t.learning_rate)]
        pace = Pace(t.warmup, t.weight_decay, t.report_every, t.checkpoint_minutes)
        task = Task(config, split.source, split.fingerprint, len(data.train), output)
        return go_through(task, course, phases, pace, look_at, progress, on_report)


def _model(config: GridRunConfig, data: _Data) -> GridModel:
    """First weights from the seed, and what is known before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        model = config.model.architecture(data.train.layers).build()
    grids = data.train
    if not len(grids.e):
        raise InputError(f"no shower has a cell above {1e3 * THRESHOLD:g} MeV in the view; bring others")
    share, mean, deviation, highest = by_rings(grids)
    incident = torch.from_numpy(grids.incident.astype(np.float32))
    model.calibrate(incident, torch.from_numpy(share), torch.from_numpy(mean), deviation, highest)
    return model


def by_rings(grids: Grids) -> tuple[np.ndarray, np.ndarray, float, float]:
    """What cells are like on average; as azimuths are alike, over all cells of a layer at the distance of each.

    Returns:
        Share of the showers in which each cell is a hit, shape (layers, GRID, GRID); mean s of its hits, likewise, by
        way of a few hits of the mean of all that every ring has beside its own; deviation of all s; and the largest.
    """
    number = np.arange(GRID) - GRID // 2
    distances, ring = np.unique(number[:, None] ** 2 + number**2, return_inverse=True)
    rings = len(distances)
    place = (np.arange(grids.layers)[:, None] * rings + ring.ravel()).ravel()  # layer and ring of every cell
    total = grids.layers * rings
    s = np.log(np.maximum(grids.e / THRESHOLD - 1, 1e-4))
    count, sums = np.bincount(place[grids.cell], minlength=total), np.bincount(place[grids.cell], s, total)
    showers_cells = len(grids) * np.maximum(np.bincount(place, minlength=total), 1)
    share, mean = np.maximum(count, LEAST) / showers_cells, (sums + 10 * s.mean()) / (count + 10)
    shape = (grids.layers, GRID, GRID)
    share, mean = (column[place].reshape(shape).astype(np.float32) for column in (share, mean))
    return share, mean, float(s.std()), float(s.max())


def _batch(model: GridModel, grids: Grids, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Cells and incident energies of chosen showers."""
    number = rows.numpy()
    incident = torch.from_numpy(grids.incident[number].astype(np.float32))
    return torch.from_numpy(grids.dense(number)).to(model.unit), incident.to(model.unit)


def _look(at: Course[GridModel], data: _Data) -> CloudReport:
    """Losses and physics of the moving average on validation showers."""
    generator = torch.Generator().manual_seed(0)
    chosen = some_of(len(data.validation), generator)
    with torch.no_grad():
        cells, code = at.ema.losses(*_batch(at.ema, data.validation, chosen), generator)
    bias, spread = physics_of(at.ema, data.split.validation.rows(chosen.numpy()), generator)
    losses = {"cells": NATS * float(cells.mean()), "code": NATS * float(code.mean())}
    return CloudReport("grids", at.step, round(at.seconds, 1), float(at.running), losses, bias, spread)
