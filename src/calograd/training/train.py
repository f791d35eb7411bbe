"""Training of surrogates of any kind from their configuration.

A run is a folder: ``checkpoint.pt``, ``log.jsonl`` (one line a report) and ``model.safetensors``, the averaged weights
so far. A run that is started again resumes from its checkpoint and ends with the same weights as one that was never
interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from calograd.errors import InputError
from calograd.io.files import one_writer
from calograd.surrogate.model import DesignModel
from calograd.surrogate.plates.model import PlatesModel
from calograd.surrogate.points.model import PointsModel
from calograd.training import loop
from calograd.training.config import DesignRun, PlatesRun, PointsRun, RunConfig, precision_for
from calograd.training.data.plates import PlatesData, load_plates
from calograd.training.data.points import PointsData, load_points
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.distributed import ProcessGroup, SingleProcess
from calograd.training.loop import OnReport, TrainingProgress
from calograd.training.tasks.denoise import DenoisingTask
from calograd.training.tasks.distil import DistillationTask
from calograd.training.tasks.plates import PlatesTask
from calograd.training.tasks.plates_distil import PlatesDistillationTask
from calograd.training.tasks.points import PointsTask
from calograd.training.tasks.surrogate import SurrogateTask

Data = TrainingData | PointsData | PlatesData
"""Training data of any kind."""


def read_data(config: RunConfig) -> Data:
    """Read the training data of a configuration; ``str`` describes them to the user.

    Raises:
        InputError: files that do not fit each other, or too few showers.
        FormatError: a file that cannot be used.
    """
    return _KINDS[config.model.kind].read(config)


def train(
    config: RunConfig,
    output: Path,
    *,
    data: Data | None = None,
    device: str = "cpu",
    progress: TrainingProgress | None = None,
    on_report: OnReport | None = None,
    group: ProcessGroup | None = None,
) -> DesignModel | PointsModel | PlatesModel:
    """Train or distil a surrogate, or resume the run in ``output``.

    Args:
        config: configuration of the run, see `calograd.training.config.read_config`.
        output: folder of the run.
        data: training data, as `read_data` returns them; None: read them.
        device: any torch device; that of ``group`` if there is one.
        progress: called every few steps.
        on_report: called with every report, as it is logged.
        group: processes that share the work, see `calograd.training.distributed.open_process_group`. Every one calls
            this function; the leader writes and reports. Another number of them may resume the run.

    Returns:
        The averaged weights.

    Raises:
        InputError: ``output`` holds another run or cannot be written, the data do not reach over the range, a loss is
            NaN, a teacher that does not fit, there is no such device, or batches that processes cannot share.
        OutputExistsError: ``output`` holds a surrogate without a checkpoint.
        FormatError: the checkpoint, the data or the teacher is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    group = group or SingleProcess(device)
    if isinstance(config, DesignRun):
        precision = precision_for(config.training.precision, group.device)
        config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})
    data = read_data(config) if data is None else data
    with one_writer(output) if group.leads else nullcontext():
        with group.first():
            task = make_task(config, data, group, progress)
            state = loop.begin(task, output)
        group.wait()  # until all have read the checkpoint, which is then replaced
        group.same(state.model, state.ema, state.auxiliary)
        loop.run(task, state, output, group=group, progress=progress, on_report=on_report)
        averaged: DesignModel | PointsModel | PlatesModel = state.ema.eval().requires_grad_(False)
        return averaged


def make_task(
    config: RunConfig, data: Data, group: ProcessGroup, progress: TrainingProgress | None = None
) -> SurrogateTask[Any]:
    """Return the task of a configuration; arguments and errors are those of `train`."""
    return _KINDS[config.model.kind].task(config, data, group, progress)


class _Kind(NamedTuple):
    """Data and task of one kind of surrogate; ``task`` takes the arguments of `make_task`."""

    read: Callable[[Any], Data]
    task: Callable[..., SurrogateTask[Any]]


def _read_rows(config: DesignRun) -> TrainingData:
    data, beams = config.data, config.range.particles is not None
    return load_data(
        data.files, data.validation, config.training.seed, memory=data.memory, beams=beams, balanced=data.balanced
    )


def _design_task(
    config: DesignRun, data: TrainingData, group: ProcessGroup, progress: TrainingProgress | None
) -> SurrogateTask[DesignModel]:
    if config.distillation is None:
        return DenoisingTask(config, data, group)
    return DistillationTask(config, data, group, progress)


def _read_points(config: PointsRun) -> PointsData:
    return load_points(config.data.files, config.data.validation, config.range.energy, config.training.seed)


def _points_task(
    config: PointsRun, data: PointsData, group: ProcessGroup, _progress: TrainingProgress | None
) -> SurrogateTask[PointsModel]:
    if group.size > 1:
        raise InputError("several processes are for cells, maps and plates; leave --processes and --nodes out")
    return PointsTask(config, data, group.device)


def _read_plates(config: PlatesRun) -> PlatesData:
    return load_plates(config.data.files, config.data.validation, config.training.seed, points=config.model.points)


def _plates_task(
    config: PlatesRun, data: PlatesData, group: ProcessGroup, progress: TrainingProgress | None
) -> SurrogateTask[PlatesModel]:
    if config.distillation is not None and not config.training.start:
        return PlatesDistillationTask(config, data, group, progress)
    return PlatesTask(config, data, group)


_DESIGNS = _Kind(_read_rows, _design_task)
_KINDS = {
    "cells": _DESIGNS, "maps": _DESIGNS, "points": _Kind(_read_points, _points_task),
    "plates": _Kind(_read_plates, _plates_task),
}  # fmt: skip
