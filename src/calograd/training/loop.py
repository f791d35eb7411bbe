"""The training loop: phases of optimiser steps that resume from a checkpoint to the same result.

A `Task` says what is trained: its phases, each with a loss and the parameters that it trains, and what is monitored.
Everything else is here. `training_step` is one step: with k its number, K those of the phase, W those of the warm-up
and w the trained weights,

    lr  = rate boost min(1, (k + 1) / W) (1 + cos(pi k / K)) / 2
    w   = AdamW(w, gradient of the loss, clipped to norm 1, lr)
    ema = ema + (1 - min(decay, (k + 2) / (k + 11))) (w - ema)

A run is a folder. Its ``checkpoint.pt`` holds the weights, their moving average (EMA), the optimiser, the random
generator, the position in the run and the identity of the task. It is read without unpickling objects and replaced as a
whole, always between two steps, so an interrupted run ends with the same weights as one that was never interrupted.
``log.jsonl`` has one line a report. Several processes may share the work, see `calograd.training.distributed`.
"""

from __future__ import annotations

import copy
import io
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import cos, isfinite, nan, pi
from pathlib import Path
from statistics import stdev
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from calograd.errors import CaloGradError, FormatError, InputError, Interrupted, OutputExistsError
from calograd.io.files import write_whole
from calograd.io.toml import refuse_other
from calograd.surrogate.adapters import ADAPTER
from calograd.surrogate.storage import WEIGHTS
from calograd.system.interrupts import deferred_interrupt
from calograd.training.distributed import ProcessGroup, SingleProcess
from calograd.training.log import LOG, add_to_log, trim_log

CHECKPOINT = "checkpoint.pt"
VERSION = 3
"""Version of the checkpoint's contents; checkpoints of other versions are refused."""
PROGRESS_STEPS = 20
"""Steps between two calls of the progress callback."""
RUNNING_STEPS = 200
"""Steps over which the running mean of the loss is taken."""
MAX_GRADIENT = 1.0
"""Norm to which gradients are clipped."""
FAST_FALL = 0.02
"""Fall of the validation loss between two reports, above which early stopping raises the learning rate."""
BOOST = 1.5
"""Factor by which the learning rate rises then."""
SIGNIFICANT = 2.0
"""Gain of the validation loss over the first, in standard errors, above which early stopping keeps weights."""

FREE = frozenset({"threads", "checkpoint_minutes"})
"""Keys of ``[training]`` that may differ when a run is resumed: they change its speed and, by rounding, its numbers."""

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")

TrainingProgress = Callable[[str, int, int, float], None]
"""Called as ``progress(phase, step, steps, loss)`` every `PROGRESS_STEPS` steps and at the end of a phase."""
OnReport = Callable[[dict[str, Any]], None]
"""Called with every entry of the log."""


@dataclass(frozen=True)
class PhaseResult:
    """Validation losses of a phase with early stopping: at its beginning, at the step that is kept, and its steps."""

    name: str
    before: float
    after: float
    best_step: int
    steps: int


@dataclass
class ValidationRecord:
    """Course of the validation loss in a phase with early stopping.

    Attributes:
        first, last, best: losses at the first, last and best report; NaN before the first report.
        best_step: step of the best report.
        kept, kept_step: loss and step of the report whose weights are kept: the best that is better than the first by
            more than chance, else the first.
        blocks: losses of the first report, each of a part of the showers; empty if the task does not give them.
        boost: factor of the learning rate. Few showers show a small shift badly, and small steps suit it best; they
            show a large shift well, and small steps do not get through it.
    """

    first: float = nan
    last: float = nan
    best: float = nan
    best_step: int = 0
    kept: float = nan
    kept_step: int = 0
    blocks: list[float] = field(default_factory=list)
    boost: float = 1.0

    def update(self, loss: float, step: int, most: float, blocks: Sequence[float] = ()) -> bool:
        """Record a loss and return whether its weights are to be kept; a fast fall raises the boost, up to ``most``.

        Of many reports one is the best by chance. So it must be better than the first by `SIGNIFICANT` standard errors,
        which follow from the differences of ``blocks``, the losses of parts of the showers in the same order.
        """
        if step == 0:
            self.first = self.last = self.best = self.kept = loss
            self.blocks = list(blocks)
            return True
        if self.last - loss > FAST_FALL:
            self.boost = min(most, BOOST * self.boost)
        self.last = loss
        if loss >= self.best:
            return False
        self.best, self.best_step = loss, step
        gains = [before - after for before, after in zip(self.blocks, blocks, strict=True)]
        if len(gains) > 1 and self.first - loss <= SIGNIFICANT * stdev(gains) / len(gains) ** 0.5:
            return False
        self.kept, self.kept_step = loss, step
        return True


@dataclass
class TrainingState(Generic[M]):
    """Everything that changes in a run.

    Attributes:
        model, ema: weights and their moving average.
        generator: source of every random number.
        phase: index of the phase; the number of phases once the run has ended.
        step: steps done in the phase.
        seconds: time since the run began, over all phases.
        running: running mean of the loss in the phase.
        optimiser: optimiser of the phase; None before its first step.
        auxiliary: network that the first phase trains beside the model and that is then dropped; None: there is none.
        validation: validation losses of the phase, with early stopping.
        best: averaged weights of the phase that are kept, by name, with early stopping.
        results: phases with early stopping that have ended.
        averaged: moving average and weights of every parameter that the phase trains.
    """

    model: M
    ema: M
    generator: torch.Generator
    phase: int = 0
    step: int = 0
    seconds: float = 0.0
    running: Tensor = field(default_factory=lambda: torch.zeros(()))
    optimiser: torch.optim.Optimizer | None = None
    auxiliary: nn.Module | None = None
    validation: ValidationRecord = field(default_factory=ValidationRecord)
    best: dict[str, Tensor] = field(default_factory=dict)
    results: list[PhaseResult] = field(default_factory=list)
    averaged: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    @classmethod
    def start(cls, model: M, generator: torch.Generator, auxiliary: nn.Module | None = None) -> TrainingState[M]:
        """Return the state before the first step."""
        return cls(model, copy.deepcopy(model).requires_grad_(False), generator, auxiliary=auxiliary)

    def next_phase(self) -> None:
        """Go to the beginning of the next phase."""
        self.phase, self.step, self.optimiser, self.running = self.phase + 1, 0, None, torch.zeros(())
        self.auxiliary, self.validation, self.best = None, ValidationRecord(), {}


def _no_loss(state: TrainingState[M]) -> Tensor:
    """Raise, since a phase without steps has no loss."""
    raise AssertionError(f"phase {state.phase} has no loss")


@dataclass(frozen=True)
class Phase(Generic[M]):
    """One part of a training.

    Args:
        name: name for the user.
        steps: steps of the optimiser; 0 leaves the phase to ``before``.
        trained: names of the parameters that are trained.
        loss: mean loss of a random batch; each of several processes takes its share of the batch.
        ema: decay of the moving average; 0 follows the weights.
        learning_rate: highest learning rate.
        monitored: True if reports are made.
        before: called before the first step. Its changes must follow from the state alone, since a run that was killed
            in the first steps repeats them.
    """

    name: str
    steps: int = 0
    trained: frozenset[str] = frozenset()
    loss: Callable[[TrainingState[M]], Tensor] = _no_loss
    ema: float = 0.0
    learning_rate: float = 0.0
    monitored: bool = True
    before: Callable[[TrainingState[M]], None] | None = None


@dataclass(frozen=True)
class EarlyStopping:
    """End a phase when its validation loss no longer falls, and keep its best weights, see `ValidationRecord`.

    Args:
        patience: reports without a new best loss before a phase ends.
        max_boost: highest factor of the learning rate while the loss falls fast, see `ValidationRecord`.
    """

    patience: int
    max_boost: float = 1.0


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the loop.

    Args:
        warmup: steps in which the learning rate rises.
        weight_decay: decay of AdamW.
        report_every: steps between two reports.
        checkpoint_minutes: time between two checkpoints.
        early_stopping: None: phases run all their steps.
    """

    warmup: int
    weight_decay: float
    report_every: int
    checkpoint_minutes: float
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True)
class Identity:
    """Identity of a run that may be resumed: a checkpoint of anything else is refused.

    Args:
        task: kind of the run, such as ``training``.
        config: resolved configuration, as plain data.
        data: numbers that differ between different training data.
        origins: identities of the surrogates and adapters that the run starts from, by their role.
    """

    task: str
    config: dict[str, Any]
    data: list[float]
    origins: dict[str, str] = field(default_factory=dict)


class Task(Protocol[M]):
    """The model that a run trains."""

    @property
    def model(self) -> M:
        """Initial weights; they follow from the configuration alone."""

    @property
    def auxiliary(self) -> nn.Module | None:
        """Network that is trained beside the model in the first phase and then dropped."""

    @property
    def generator(self) -> torch.Generator:
        """Random numbers of the run, before its first step."""

    @property
    def phases(self) -> Sequence[Phase[M]]:
        """All phases in order."""

    @property
    def loop(self) -> LoopConfig:
        """Settings of the loop."""

    @property
    def identity(self) -> Identity:
        """Return what a checkpoint must agree with."""

    def monitor(self, state: TrainingState[M]) -> dict[str, Any]:
        """Return the entries of a report, plain data.

        With early stopping ``validation_loss`` is among them. ``block_losses``, losses of parts of the showers, tell
        what chance does to it; they are not logged.
        """

    def save(self, state: TrainingState[M], output: Path) -> None:
        """Write the surrogate learnt so far; called after every report and at the end."""


def parameters_below(model: nn.Module, *prefixes: str) -> frozenset[str]:
    """Return the names of the model's parameters that begin with one of the prefixes."""
    return frozenset(name for name, _ in model.named_parameters() if name.startswith(prefixes))


def begin(task: Task[M], output: Path) -> TrainingState[M]:
    """Return the state of the run in ``output``: that of its checkpoint, or a new one.

    Raises:
        InputError: the checkpoint is of another task, configuration, data or origin.
        OutputExistsError: the folder holds results but no checkpoint.
        FormatError: the checkpoint or the log is damaged.
    """

    def restore(stored: dict[str, Any]) -> None:
        _refuse_other(stored, task.identity, output)
        _restore(state, stored, task)

    if not (output / CHECKPOINT).exists():
        for name in (WEIGHTS, ADAPTER, LOG):
            if (output / name).exists():
                raise OutputExistsError(
                    f"{output / name} exists but no {CHECKPOINT} to resume from; choose another output"
                )
    state = TrainingState.start(task.model, task.generator, task.auxiliary)
    read_checkpoint(output, restore)
    trim_log(output, [phase.name for phase in task.phases], state.phase, state.step)
    return state


def run(
    task: Task[M],
    state: TrainingState[M],
    output: Path,
    *,
    group: ProcessGroup | None = None,
    progress: TrainingProgress | None = None,
    on_report: OnReport | None = None,
) -> None:
    """Run the phases that are left.

    Args:
        task: model, phases and reports of the run.
        state: state that `begin` returned; it ends after the last phase.
        output: folder of the run.
        group: processes that share the work; None: this process alone. The leader reports and writes.
        progress: called every few steps.
        on_report: called with every report.

    Raises:
        InputError: a loss is NaN or infinite, or the folder cannot be written.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    group = group or SingleProcess()
    with deferred_interrupt() as interrupted:
        loop = _Loop(task, output, group, group.agreed(interrupted), progress, on_report)
        try:
            if not (output / CHECKPOINT).exists():
                loop.checkpoint(state)  # before any result that could not be resumed
            for phase in task.phases[state.phase :]:
                loop.run_phase(state, phase)
                if loop.interrupted():
                    loop.checkpoint(state)
                    group.wait()
                    raise Interrupted(f"{output} holds a checkpoint; the same command resumes from it")
                if task.loop.early_stopping and phase.trained:
                    _keep_best(state, phase)
                state.next_phase()
                loop.checkpoint(state)
            if group.leads:
                task.save(state, output)
        except KeyboardInterrupt:
            raise Interrupted(f"{output} holds its last checkpoint; the same command resumes from it") from None


def training_step(state: TrainingState[M], phase: Phase[M], loop: LoopConfig, group: ProcessGroup) -> None:
    """Take one step of the optimiser on one random batch.

    Raises:
        InputError: the loss is NaN or infinite.
    """
    assert state.optimiser is not None
    (parameters,) = state.optimiser.param_groups
    parameters["lr"] = learning_rate(phase, loop, state.step, state.validation.boost)
    loss = phase.loss(state)
    state.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    loss = group.average(loss, parameters["params"]).detach()
    _refuse_nan(float(loss), phase, state.step)
    nn.utils.clip_grad_norm_(parameters["params"], MAX_GRADIENT)
    state.optimiser.step()
    state.step += 1
    update_ema(state, phase)
    state.running = state.running + (loss - state.running) / min(state.step, RUNNING_STEPS)


def learning_rate(phase: Phase[M], loop: LoopConfig, step: int, boost: float = 1.0) -> float:
    """Return the learning rate of a step: a linear rise, then half a cosine down to zero."""
    warm = min(1.0, (step + 1) / loop.warmup)
    return phase.learning_rate * boost * warm * 0.5 * (1 + cos(pi * step / phase.steps))


@torch.no_grad()
def update_ema(state: TrainingState[M], phase: Phase[M]) -> None:
    """Move the averaged weights of the phase towards the weights; the memory is short in the first steps."""
    decay = min(phase.ema, (1 + state.step) / (10 + state.step))
    for average, weights in state.averaged:
        average.lerp_(weights, 1 - decay)


@dataclass(frozen=True)
class _Loop(Generic[M]):
    """The constants of a run while it goes through its phases."""

    task: Task[M]
    output: Path
    group: ProcessGroup
    interrupted: Callable[[], bool]
    progress: TrainingProgress | None
    on_report: OnReport | None

    def run_phase(self, state: TrainingState[M], phase: Phase[M]) -> None:
        """Take steps up to the end of the phase, to early stopping or to Ctrl-C."""
        loop = self.task.loop
        started = time.monotonic() - state.seconds
        self._prepare(state, phase)
        saved = time.monotonic()
        state.seconds = saved - started
        if loop.early_stopping and phase.trained and state.step == 0:
            self._report(state, phase)
        while state.step < phase.steps and not _stops(state, loop) and not self.interrupted():
            training_step(state, phase, loop, self.group)
            state.seconds = time.monotonic() - started
            last = state.step == phase.steps
            if self.progress and self.group.leads and (state.step % PROGRESS_STEPS == 0 or last):
                self.progress(phase.name, state.step, phase.steps, float(state.running))
            if phase.monitored and (state.step % loop.report_every == 0 or last):
                self._report(state, phase)
            if time.monotonic() - saved > 60 * loop.checkpoint_minutes:
                self.checkpoint(state)
                saved = time.monotonic()
        if phase.monitored and phase.steps == 0:
            self._report(state, phase)

    def checkpoint(self, state: TrainingState[M]) -> None:
        """Let the leader write a checkpoint."""
        if self.group.leads:
            save_checkpoint(state, self.task, self.output)

    def _prepare(self, state: TrainingState[M], phase: Phase[M]) -> None:
        """Let exactly the trained parameters require gradients; make their optimiser and pair them with averages."""
        parameters = _trained(state, phase)
        state.model.requires_grad_(False)
        for parameter in parameters:
            parameter.requires_grad_(True)
        if state.optimiser is None:
            if phase.before is not None:
                phase.before(state)
            if parameters:
                state.optimiser = _optimiser(parameters, self.task.loop)
        pairs = zip(state.ema.named_parameters(), state.model.parameters(), strict=True)
        state.averaged = [(average, weights) for (name, average), weights in pairs if name in phase.trained]

    def _report(self, state: TrainingState[M], phase: Phase[M]) -> None:
        """Let the leader monitor the run, log it and write the surrogate learnt so far."""
        if not self.group.leads:
            return
        entry: dict[str, Any] = {
            "phase": phase.name, "step": state.step, "seconds": round(state.seconds, 1),
            "train_loss": float(state.running) if state.step else None,
        }  # fmt: skip
        entry |= self.task.monitor(state)
        if self.task.loop.early_stopping:
            loss = entry["validation_loss"]
            _refuse_nan(loss, phase, state.step)
            most, blocks = self.task.loop.early_stopping.max_boost, entry.pop("block_losses", ())
            if state.validation.update(loss, state.step, most, blocks):
                averages = state.ema.named_parameters()
                state.best = {name: value.detach().clone() for name, value in averages if name in phase.trained}
            entry["best"] = state.validation.kept_step == state.step
        add_to_log(self.output, entry)
        self.task.save(state, self.output)
        if self.on_report is not None:
            self.on_report(entry)


def _stops(state: TrainingState[M], loop: LoopConfig) -> bool:
    """Return whether early stopping ends the phase."""
    stopping = loop.early_stopping
    return stopping is not None and state.step - state.validation.best_step >= stopping.patience * loop.report_every


@torch.no_grad()
def _keep_best(state: TrainingState[M], phase: Phase[M]) -> None:
    """Set the weights of a phase that has ended to those that are kept."""
    record = state.validation
    state.results.append(PhaseResult(phase.name, record.first, record.kept, record.kept_step, state.step))
    for model in (state.model, state.ema):
        for name, value in model.named_parameters():
            if name in phase.trained:
                value.copy_(state.best[name])


def _trained(state: TrainingState[M], phase: Phase[M]) -> list[nn.Parameter]:
    """Return the parameters that a phase trains."""
    own = [parameter for name, parameter in state.model.named_parameters() if name in phase.trained]
    return own + (list(state.auxiliary.parameters()) if state.auxiliary else [])


def _optimiser(parameters: list[nn.Parameter], loop: LoopConfig) -> torch.optim.Optimizer:
    """Return AdamW; its learning rate is set before every step."""
    return torch.optim.AdamW(parameters, weight_decay=loop.weight_decay, fused=True)


def _refuse_nan(loss: float, phase: Phase[M], step: int) -> None:
    """Raise `InputError` for a loss that is NaN or infinite."""
    if not isfinite(loss):
        raise InputError(
            f"the loss is {loss} in phase '{phase.name}', step {step}; check the data, or lower the learning rate "
            "(training.learning_rate, --learning-rate)"
        )


def save_checkpoint(state: TrainingState[M], task: Task[M], output: Path) -> None:
    """Write a checkpoint of a state between two steps. Raises `InputError` if it cannot be written."""
    content = io.BytesIO()
    torch.save(
        {
            "version": VERSION, "identity": asdict(task.identity), "phase": state.phase, "step": state.step,
            "seconds": state.seconds, "running": state.running, "generator": state.generator.get_state(),
            "model": _weights(state.model, task.phases), "ema": _weights(state.ema, task.phases), "best": state.best,
            "optimiser": state.optimiser.state_dict() if state.optimiser else None,
            "auxiliary": state.auxiliary.state_dict() if state.auxiliary else None,
            "validation": asdict(state.validation), "results": [asdict(result) for result in state.results],
        },
        content,
    )  # fmt: skip
    then = "; mend this and repeat the command, it resumes from the last checkpoint"
    write_whole(output / CHECKPOINT, content.getvalue(), then)


def read_checkpoint(output: Path, read: Callable[[dict[str, Any]], T]) -> T | None:
    """Return what ``read`` makes of the checkpoint in ``output``; None if there is none.

    Raises:
        FormatError: the checkpoint is damaged.
        InputError: as ``read`` raises it.
    """
    path = output / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as records:  # torch does not verify the checksums that it writes
            if damaged := records.testzip():
                raise ValueError(f"{damaged} does not fit its checksum")
        return read(torch.load(path, map_location="cpu", weights_only=True))
    except CaloGradError:
        raise
    except Exception as error:  # whatever torch raises for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise FormatError(f"{path} is damaged ({reason}); remove {output} to start anew") from error


def _weights(model: nn.Module, phases: Sequence[Phase[Any]]) -> dict[str, Tensor]:
    """Return the trained parameters and the buffers of a model by name; everything else follows from the task."""
    trained = frozenset[str]().union(*(phase.trained for phase in phases))
    fixed = {name for name, _ in model.named_parameters()} - trained
    return {name: value for name, value in model.state_dict().items() if name not in fixed}


def _restore(state: TrainingState[M], stored: Mapping[str, Any], task: Task[M]) -> None:
    """Bring a state to where a checkpoint was written."""
    for model, weights in ((state.model, stored["model"]), (state.ema, stored["ema"])):
        other = weights.keys() ^ _weights(model, task.phases).keys()
        if other:
            raise ValueError(f"weights '{min(other)}' are missing or too many")
        model.load_state_dict(weights, strict=False)
    state.generator.set_state(stored["generator"])
    state.phase, state.step, state.seconds = stored["phase"], stored["step"], stored["seconds"]
    state.running, state.validation = stored["running"], ValidationRecord(**stored["validation"])
    state.results = [PhaseResult(**result) for result in stored["results"]]
    state.best = {name: value.to(state.ema.get_parameter(name)) for name, value in stored["best"].items()}
    if stored["auxiliary"] is None:
        state.auxiliary = None
    elif state.auxiliary is not None:
        state.auxiliary.load_state_dict(stored["auxiliary"])
    if stored["optimiser"] is not None:
        state.optimiser = _optimiser(_trained(state, task.phases[state.phase]), task.loop)
        state.optimiser.load_state_dict(stored["optimiser"])


def _refuse_other(stored: Mapping[str, Any], mine: Identity, output: Path) -> None:
    """Raise `InputError` unless a checkpoint is of the same version, task, configuration, data and origins."""
    if stored.get("version") != VERSION:
        raise InputError(f"{output} holds a checkpoint of another version of calograd; choose another output")
    theirs = Identity(**stored["identity"])
    if theirs.task != mine.task:
        raise InputError(f"{output} holds a run of '{theirs.task}', this is '{mine.task}'; choose another output")
    refuse_other(output, _fixed(mine.config), _fixed(theirs.config))
    if theirs.data != mine.data:
        raise InputError(f"{output} holds a run on other rows of data; bring them back or choose another output")
    for role in sorted(theirs.origins.keys() | mine.origins.keys()):
        before, now = (identity.origins.get(role, "none")[:12] for identity in (theirs, mine))
        if before != now:
            raise InputError(
                f"{output} holds a run of another {role}: it was {before}, now it is {now}; bring it back or choose "
                "another output"
            )


def _fixed(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys that may change."""
    table = config.get("training")
    if not isinstance(table, dict):
        return config
    return config | {"training": {key: value for key, value in table.items() if key not in FREE}}
