"""What trainings of all surrogates of a layered detector share: the run's folder, its card, and going on with it.

A run is a folder: ``checkpoint.pt``, ``log.jsonl`` (a line a report), ``model.safetensors`` (the moving average of the
weights so far). A run that is started again goes on from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from calograd.errors import InputError, OutputExistsError
from calograd.io.differences import refuse_other
from calograd.surrogate.card import Card, TrainedDetector
from calograd.surrogate.model import Model
from calograd.surrogate.storage import WEIGHTS, save
from calograd.training.data.points import Source
from calograd.training.log import LOG, add_to_log, trim_log
from calograd.training.loop import (
    CHECKPOINT,
    Course,
    Hooks,
    Pace,
    Phase,
    Progress,
    read_stored,
    resume,
    run,
    write_checkpoint,
)
from calograd.training.points.config import CloudRunConfig, StackRange
from calograd.training.points.monitor import CloudReport

S = TypeVar("S", bound=Model)

Reports = Callable[[CloudReport], None]


@dataclass(frozen=True)
class Task:
    """What a run is of: its configuration, where the showers come from and which they are, and the run's folder."""

    config: CloudRunConfig
    source: Source
    fingerprint: list[float]
    showers: int
    output: Path


def prepare(output: Path, threads: int) -> None:
    """Set the threads, and refuse a folder that no run can go on in.

    Raises:
        OutputExistsError: it holds a surrogate without a checkpoint to go on from.
    """
    if threads:
        torch.set_num_threads(threads)
    if not (output / CHECKPOINT).exists():
        for name in (WEIGHTS, LOG):
            if (output / name).exists():
                raise OutputExistsError(
                    f"{output / name} exists but no checkpoint to go on from; choose another output"
                )


def check_range(wanted: StackRange, energy: torch.Tensor) -> None:
    """Refuse a range that the data do not reach over: a surrogate must not claim what it never saw."""
    low, high = wanted.energy
    lowest, highest = float(energy.min()), float(energy.max())
    slack = 0.05 * (high - low)
    if lowest > low + slack or highest < high - slack:
        raise InputError(
            f"range.energy = [{low:g}, {high:g}] GeV reaches beyond the data, {lowest:.3g} to {highest:.3g} GeV; "
            "narrow it or add data"
        )


def go_through(
    task: Task,
    course: Course[S],
    phases: Sequence[Phase[S]],
    pace: Pace,
    look_at: Callable[[Course[S]], CloudReport],
    progress: Progress | None,
    on_report: Reports | None,
) -> S:
    """Go through the phases, or what an earlier run has left of them; returns the moving average.

    Raises:
        InputError: the folder holds a run of another configuration or cannot be written, or a loss is NaN.
        FormatError: the checkpoint is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    output, identity = task.output, _flat(task.config) | {"data": task.fingerprint}

    def go_on(stored: dict[str, Any]) -> None:
        refuse_other(output, identity, stored["identity"])
        resume(course, stored, [phase.prefixes for phase in phases], pace)

    def report(at: Course[S]) -> None:
        found = look_at(at)
        add_to_log(output, found.to_dict())
        save(output, at.ema, _card(task, at))
        if on_report is not None:
            on_report(found)

    def known(entry: dict[str, Any]) -> bool:
        return (names.index(entry["phase"]), entry["step"]) <= (course.phase, course.step)

    names = [phase.name for phase in phases]
    read_stored(output, go_on)
    trim_log(output, known)
    hooks = Hooks(lambda at: write_checkpoint(at, output, {"identity": identity}), report, progress)
    run(course, phases, pace, hooks, output)
    save(output, course.ema, _card(task, course))
    return course.ema.eval().requires_grad_(False)


def _flat(config: CloudRunConfig) -> dict[str, Any]:
    """Every value of a configuration by its dotted name, plain."""
    flat: dict[str, Any] = {}
    for name, value in config.model_dump(mode="json").items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _card(task: Task, course: Course[S]) -> Card:
    config = task.config
    resolved = config.model_dump(mode="json")
    resolved["data"]["files"] = [file.name for file in config.data.files]
    if config.distillation is not None:
        resolved["distillation"]["teacher"] = config.distillation.teacher.name
    done = {"phase": course.phase, "step": course.step, "seconds": round(course.seconds)}
    return Card(
        name=config.name, kind=config.model.kind, architecture=course.model.architecture.to_dict(),
        energy=config.range.energy,
        trained=TrainedDetector(detector=task.source.detector, clustering=task.source.clustering),
        training={"config": resolved, "data": task.source.provenance, "showers": task.showers, "done": done},
    )  # fmt: skip
