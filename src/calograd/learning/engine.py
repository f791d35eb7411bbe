"""A training as a row of phases that can be interrupted at any step and gone on with to the same result.

A phase trains some parts of a model on its own loss. The folder of a run holds ``checkpoint.pt`` (everything needed to
go on, read without unpickling objects) and what the caller writes at every report. See `calograd.learning.train` for
the surrogate of cells, which has its own loop.
"""

from __future__ import annotations

import copy
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from calograd.errors import FormatError, InputError, Interrupted
from calograd.learning.state import CHECKPOINT
from calograd.learning.train import Progress, deferred_interrupt
from calograd.showers.hdf5 import write_whole

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Phase(Generic[M]):
    """One part of a training.

    Args:
        name: shown to the user.
        steps: of the optimiser.
        parts: names of the submodules that are trained.
        loss: of the model, its moving average and a generator: the mean loss of a batch.
        ema: decay of the moving average; 0 follows the weights.
        rate: highest learning rate.
        reports: whether the run is looked at on the way.
    """

    name: str
    steps: int
    parts: tuple[str, ...]
    loss: Callable[[M, M, torch.Generator], Tensor]
    ema: float
    rate: float
    reports: bool = True


@dataclass
class Course(Generic[M]):
    """Everything that changes in a run.

    Attributes:
        model, ema: the weights and their moving average.
        generator: of every random number.
        phase: number of the phase; their count once the run has ended.
        step: steps done in the phase.
        seconds: since the run began.
        running: running mean of the loss in the phase.
        optimiser: of the phase; None before its first step.
    """

    model: M
    ema: M
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    running: Tensor = field(default_factory=lambda: torch.zeros(()))
    optimiser: torch.optim.Optimizer | None = None

    @classmethod
    def start(cls, model: M, seed: int) -> Course[M]:
        """A new run of a model."""
        return cls(model, copy.deepcopy(model).requires_grad_(False), torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Pace:
    """How a run is paced: steps of the learning rate's rise, decay of weights, reports and checkpoints."""

    warmup: int
    weight_decay: float
    report_every: int
    checkpoint_minutes: float


def run(
    course: Course[M],
    phases: Sequence[Phase[M]],
    pace: Pace,
    output: Path,
    identity: dict[str, Any],
    report: Callable[[Course[M]], None],
    progress: Progress | None = None,
) -> None:
    """Go through the phases that are left.

    Args:
        course: where the run is.
        phases: of the training.
        pace: of it.
        output: folder of the run.
        identity: what the checkpoint must be of, plain data: configuration and data.
        report: called every ``report_every`` steps of phases that are looked at, and at their end.
        progress: called every few steps.

    Raises:
        InputError: a loss that is no number, or a folder that cannot be written.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    again = f"{output} holds a checkpoint; the same command goes on from it"
    with deferred_interrupt() as interrupted:
        try:
            while course.phase < len(phases):
                _run_phase(course, phases[course.phase], pace, output, identity, report, progress, interrupted)
                if interrupted():
                    write_checkpoint(course, output, identity)
                    raise Interrupted(again)
                course.phase, course.step, course.optimiser = course.phase + 1, 0, None
                course.running = torch.zeros(())
                write_checkpoint(course, output, identity)
        except KeyboardInterrupt:
            raise Interrupted(again) from None


def _run_phase(
    course: Course[M], phase: Phase[M], pace: Pace, output: Path, identity: dict[str, Any],
    report: Callable[[Course[M]], None], progress: Progress | None, interrupted: Callable[[], bool],
) -> None:  # fmt: skip
    """Steps up to the end of the phase or to Ctrl-C."""
    course.model.requires_grad_(False)
    parameters = _parameters(course.model, phase)
    for parameter in parameters:
        parameter.requires_grad_(True)
    if course.optimiser is None:
        course.optimiser = _optimiser(parameters, phase, pace)
    started, saved = time.monotonic() - course.seconds, time.monotonic()
    while course.step < phase.steps and not interrupted():
        for group in course.optimiser.param_groups:
            rise = min(1.0, (course.step + 1) / pace.warmup)
            group["lr"] = phase.rate * rise * 0.5 * (1 + cos(pi * course.step / phase.steps))
        loss = phase.loss(course.model, course.ema, course.generator)
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"the loss is {loss.item()} in phase '{phase.name}', step {course.step}; check the data, or lower "
                "training.learning_rate"
            )
        course.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        course.optimiser.step()
        course.step += 1
        _average(course, phase)
        course.running = course.running + (loss.detach() - course.running) / min(course.step, 200)
        course.seconds = time.monotonic() - started
        last = course.step == phase.steps
        if progress is not None and (course.step % 20 == 0 or last):
            progress(phase.name, course.step, phase.steps, float(course.running))
        looked = phase.reports and (course.step % pace.report_every == 0 or last)
        if looked:
            report(course)
        if looked or time.monotonic() - saved > 60 * pace.checkpoint_minutes:
            write_checkpoint(course, output, identity)
            saved = time.monotonic()


def _parameters(model: nn.Module, phase: Phase[M]) -> list[nn.Parameter]:
    return [parameter for part in phase.parts for parameter in model.get_submodule(part).parameters()]


def _optimiser(parameters: list[nn.Parameter], phase: Phase[M], pace: Pace) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=phase.rate, weight_decay=pace.weight_decay, fused=True)


def _average(course: Course[M], phase: Phase[M]) -> None:
    """EMA of what the phase trains, with a short memory at its start."""
    decay = min(phase.ema, (1 + course.step) / (10 + course.step))
    with torch.no_grad():
        pairs = zip(_parameters(course.ema, phase), _parameters(course.model, phase), strict=True)
        for ours, theirs in pairs:
            ours.lerp_(theirs, 1 - decay)


def write_checkpoint(course: Course[M], output: Path, identity: dict[str, Any]) -> None:
    """Keep a course, which has to be between two steps. Raises `InputError` if it cannot be written."""
    content = io.BytesIO()
    torch.save(
        {
            "identity": identity, "phase": course.phase, "step": course.step, "seconds": course.seconds,
            "running": course.running, "model": course.model.state_dict(), "ema": course.ema.state_dict(),
            "optimiser": course.optimiser.state_dict() if course.optimiser else None,
            "generator": course.generator.get_state(),
        },
        content,
    )  # fmt: skip
    then = "; mend this and repeat the command, it goes on from the last checkpoint"
    write_whole(output / CHECKPOINT, content.getvalue(), then)


def read_checkpoint(
    course: Course[M], phases: Sequence[Phase[M]], pace: Pace, output: Path, identity: dict[str, Any]
) -> bool:
    """Bring a new course to where the run in ``output`` is; False if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: it is of another configuration or of other data.
    """
    path = output / CHECKPOINT
    if not path.exists():
        return False
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        theirs = stored["identity"]
        changed = [key for key in identity if identity[key] != theirs.get(key)]
        if changed:
            raise InputError(
                f"{output} holds a run of another configuration: {changed[0]} is {identity[changed[0]]}, was "
                f"{theirs.get(changed[0])}; change it back or choose another output"
            )
        course.model.load_state_dict(stored["model"])
        course.ema.load_state_dict(stored["ema"])
        course.generator.set_state(stored["generator"])
        course.phase, course.step, course.seconds = stored["phase"], stored["step"], stored["seconds"]
        course.running = stored["running"]
        if stored["optimiser"] is not None:
            phase = phases[course.phase]
            course.optimiser = _optimiser(_parameters(course.model, phase), phase, pace)
            course.optimiser.load_state_dict(stored["optimiser"])
    except InputError:
        raise
    except Exception as error:  # whatever torch raises for a damaged file, or for one of another version
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is damaged ({reason}); remove {output} to start anew") from error
    return True
