"""A training as a row of phases that can be interrupted at any step and gone on with to the same result.

A phase trains some parts of a model on its own loss. The folder of a run holds ``checkpoint.pt``: the weights, their
moving average (EMA), the optimiser, the random generator, where the run is and what it is of. It is read without
unpickling objects and replaced as a whole, always between two steps. What a run is of, what it looks at on its way and
what else it writes is up to the caller. Several processes may share the work, see `calograd.training.distributed`.
"""

from __future__ import annotations

import copy
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import cos, pi
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from calograd.errors import CaloGradError, FormatError, InputError, Interrupted
from calograd.io.files import write_whole
from calograd.system.interrupts import deferred_interrupt
from calograd.training.distributed import Alone, Team

CHECKPOINT = "checkpoint.pt"

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

Progress = Callable[[str, int, int, float], None]
"""Called as progress(phase, step, steps, loss), every few steps."""


@dataclass
class Course(Generic[M]):
    """Everything that changes in a run.

    Attributes:
        model, ema: the weights and their moving average.
        generator: of every random number.
        phase: number of the phase; their count once the run has ended.
        step: steps done in the phase.
        seconds: since the run began, over all phases.
        running: running mean of the loss in the phase.
        optimiser: of the phase; None before its first step.
        beside: what the first phase trains beside the model and is then thrown away; None where there is nothing.
    """

    model: M
    ema: M
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    running: Tensor = field(default_factory=lambda: torch.zeros(()))
    optimiser: torch.optim.Optimizer | None = None
    beside: nn.Module | None = None

    @classmethod
    def start(cls, model: M, seed: int) -> Course[M]:
        """A new run of a model."""
        return cls(model, copy.deepcopy(model).requires_grad_(False), torch.Generator().manual_seed(seed))

    def next_phase(self) -> None:
        """Go on to the first step of the next phase."""
        self.phase, self.step, self.optimiser, self.running = self.phase + 1, 0, None, torch.zeros(())
        self.beside = None


@dataclass(frozen=True)
class Phase(Generic[M]):
    """One part of a training.

    Args:
        name: shown to the user.
        steps: of the optimiser.
        prefixes: of the names of the parameters that are trained.
        loss: of a random batch, its mean, given where the run is; each of several processes takes its share.
        ema: decay of the moving average; 0 follows the weights.
        rate: highest learning rate.
        reports: whether the run is looked at on the way.
        before: called before the first step, or in place of steps where there are none; whatever it changes has to
            follow from the course alone.
    """

    name: str
    steps: int
    prefixes: tuple[str, ...]
    loss: Callable[[Course[M]], Tensor]
    ema: float
    rate: float
    reports: bool = True
    before: Callable[[Course[M]], None] | None = None


@dataclass(frozen=True)
class Pace:
    """How a run is paced: steps of the learning rate's rise, decay of weights, reports and checkpoints."""

    warmup: int
    weight_decay: float
    report_every: int
    checkpoint_minutes: float


@dataclass(frozen=True)
class Hooks(Generic[M]):
    """What the engine calls.

    Args:
        keep: writes a checkpoint.
        report: looks at the run, every ``report_every`` steps of phases that are looked at, and at their end.
        progress: every few steps.
    """

    keep: Callable[[Course[M]], None]
    report: Callable[[Course[M]], None]
    progress: Progress | None = None


def run(
    course: Course[M],
    phases: Sequence[Phase[M] | None],
    pace: Pace,
    hooks: Hooks[M],
    output: Path,
    team: Team | None = None,
) -> None:
    """Go through the phases that are left of the run in the folder ``output``.

    Args:
        course: where the run is.
        phases: all of them; None stands for one in which the model has nothing to learn.
        pace: of the run.
        hooks: what is called on the way, by the process that leads.
        output: folder of the run.
        team: processes that share the work; None: this one alone.

    Raises:
        InputError: a loss that is no number, or a folder that cannot be written.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    team = team or Alone()
    if not team.leads:
        hooks = Hooks(_nothing, _nothing)
    with deferred_interrupt() as came:
        interrupted = team.agreed(came)
        try:
            if not (output / CHECKPOINT).exists():
                hooks.keep(course)  # before anything else is there that could not be gone on with
            while course.phase < len(phases):
                phase = phases[course.phase]
                if phase is not None:
                    _run_phase(course, phase, pace, hooks, interrupted, team)
                if interrupted():
                    hooks.keep(course)
                    team.wait()
                    raise Interrupted(f"{output} holds a checkpoint; the same command goes on from it")
                course.next_phase()
                hooks.keep(course)
        except KeyboardInterrupt:
            raise Interrupted(f"{output} holds its last checkpoint; the same command goes on from it") from None


def _nothing(course: Course[M]) -> None:
    """What a process that does not lead does with a course."""


def _run_phase(
    course: Course[M], phase: Phase[M], pace: Pace, hooks: Hooks[M], interrupted: Callable[[], bool], team: Team
) -> None:
    """Steps up to the end of the phase or to Ctrl-C."""
    parameters = trained(course, phase.prefixes)
    course.model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    if course.optimiser is None:
        if phase.before is not None:
            phase.before(course)
        course.optimiser = _optimiser(parameters, pace)
    started, saved = time.monotonic() - course.seconds, time.monotonic()
    while course.step < phase.steps and not interrupted():
        for group in course.optimiser.param_groups:
            group["lr"] = _rate(phase, pace, course.step)
        loss = phase.loss(course)
        course.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        loss = team.average(loss, parameters)
        if not bool(torch.isfinite(loss)):
            raise InputError(
                f"the loss is {loss.item()} in phase '{phase.name}', step {course.step}; check the data, or lower "
                "training.learning_rate"
            )
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        course.optimiser.step()
        course.step += 1
        _average(course, phase)
        course.running = course.running + (loss.detach() - course.running) / min(course.step, 200)
        course.seconds = time.monotonic() - started
        last = course.step == phase.steps
        if hooks.progress is not None and (course.step % 20 == 0 or last):
            hooks.progress(phase.name, course.step, phase.steps, float(course.running))
        looked = phase.reports and (course.step % pace.report_every == 0 or last)
        if looked:
            hooks.report(course)
        if looked or time.monotonic() - saved > 60 * pace.checkpoint_minutes:
            hooks.keep(course)
            saved = time.monotonic()
    if phase.steps == 0 and phase.reports:
        hooks.report(course)


def _rate(phase: Phase[M], pace: Pace, step: int) -> float:
    """Learning rate: linear at first, then half a cosine down to zero."""
    return phase.rate * min(1.0, (step + 1) / pace.warmup) * 0.5 * (1 + cos(pi * step / phase.steps))


def trained(course: Course[M], prefixes: tuple[str, ...]) -> list[nn.Parameter]:
    """What a phase trains."""
    own = [parameter for name, parameter in course.model.named_parameters() if name.startswith(prefixes)]
    return own + (list(course.beside.parameters()) if course.beside else [])


def _optimiser(parameters: list[nn.Parameter], pace: Pace) -> torch.optim.Optimizer:
    """AdamW; the rate is set before every step."""
    return torch.optim.AdamW(parameters, weight_decay=pace.weight_decay, fused=True)


def _average(course: Course[M], phase: Phase[M]) -> None:
    """EMA of what the phase trains, with a short memory at its start."""
    decay = min(phase.ema, (1 + course.step) / (10 + course.step))
    with torch.no_grad():
        pairs = zip(course.ema.named_parameters(), course.model.parameters(), strict=True)
        for (name, ours), theirs in pairs:
            if name.startswith(phase.prefixes):
                ours.lerp_(theirs, 1 - decay)


def write_checkpoint(course: Course[M], output: Path, identity: dict[str, Any]) -> None:
    """Keep a course, which has to be between two steps, beside what the run is of (plain data).

    Raises:
        InputError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save(
        identity
        | {
            "phase": course.phase, "step": course.step, "seconds": course.seconds, "running": course.running,
            "model": course.model.state_dict(), "ema": course.ema.state_dict(),
            "optimiser": course.optimiser.state_dict() if course.optimiser else None,
            "difference": course.beside.state_dict() if course.beside else None,
            "generator": course.generator.get_state(),
        },
        content,
    )  # fmt: skip
    then = "; mend this and repeat the command, it goes on from the last checkpoint"
    write_whole(output / CHECKPOINT, content.getvalue(), then)


def read_stored(output: Path, read: Callable[[dict[str, Any]], T], name: str = CHECKPOINT) -> T | None:
    """What ``read`` makes of the checkpoint called ``name`` in ``output``; None if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: as ``read`` raises it.
    """
    path = output / name
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as records:  # torch does not look at the checksums that it writes
            if damaged := records.testzip():
                raise ValueError(f"{damaged} does not fit its checksum")
        return read(torch.load(path, map_location="cpu", weights_only=True))
    except CaloGradError:
        raise
    except Exception as error:  # whatever torch raises for a damaged file, or for one of another version
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is damaged ({reason}); remove {output} to start anew") from error


def resume(course: Course[M], stored: dict[str, Any], prefixes: Sequence[tuple[str, ...]], pace: Pace) -> None:
    """Bring a course to where a checkpoint was written.

    Args:
        course: of a model of the same architecture; its ``beside`` is of the same form as that stored, or None.
        stored: the checkpoint.
        prefixes: of every phase.
        pace: of the run.
    """
    course.model.load_state_dict(stored["model"])
    course.ema.load_state_dict(stored["ema"])
    course.generator.set_state(stored["generator"])
    course.phase, course.step, course.seconds = stored["phase"], stored["step"], stored["seconds"]
    course.running = stored.get("running", torch.zeros(()))
    if course.beside is not None:
        course.beside.load_state_dict(stored["difference"])
    if stored["optimiser"] is not None:
        course.optimiser = _optimiser(trained(course, prefixes[course.phase]), pace)
        course.optimiser.load_state_dict(stored["optimiser"])
