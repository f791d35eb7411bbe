"""Adaptation of a surrogate to another detector from few of its showers.

What a detector changes first is where the coordinates of a shower lie and how wide they are, so the networks of
location and scale learn first, then the two diffusion models on what these have standardised, as in
`calograd.training.train`:

    phase "shape moments"     Student t likelihood of g given the conditions
    phase "pattern moments"   likewise of c given the conditions and x
    phase "diffusion"         denoising losses of x and y, moments frozen

Each starts from the base, or from an adapter of it that was learnt before (a warm start: for more showers of the same
detector, or of a similar one), learns an adapter (`calograd.nn.lora`), averages it over steps (EMA), and looks
at the loss of the held-out showers with that average now and then, first with what it starts from. It ends when these
looks have ceased to improve and keeps the best of them: on the held-out showers no phase makes it worse. The conditions
stay standardised as the base's are; the base's weights are never written to.

A run is a folder: ``adaptation.pt`` (everything needed to go on), ``log.jsonl`` (a line a look), at the end
``adapter.safetensors``, or from scratch ``model.safetensors``. A run that is started again goes on from its checkpoint
and ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calograd.errors import InputError, Interrupted, OutputExistsError
from calograd.io.files import one_writer
from calograd.nn.lora import merge, tabulate
from calograd.surrogate import Surrogate
from calograd.surrogate.adapters import ADAPTER, Adapter, pack
from calograd.surrogate.storage import WEIGHTS
from calograd.system.interrupts import deferred_interrupt
from calograd.training.adaptation.data import card_of, check_data
from calograd.training.adaptation.state import (
    CHECKPOINT,
    AdaptConfig,
    PhaseResult,
    State,
    begin,
    make_optimiser,
    read_checkpoint,
    write_checkpoint,
)
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.log import LOG, add_to_log, trim_log
from calograd.training.loop import CHECKPOINT as TRAINING
from calograd.training.loop import Progress
from calograd.training.losses import batch_loss
from calograd.training.monitor import look
from calograd.training.state import DIFFUSION, PHASES

LOOK_ROWS = (2048, 4096)
"""Held-out rows at a look: fewer are repeated with other noise, more are left out."""
OnLook = Callable[[dict[str, Any]], None]
"""Called with every line of the log."""


@dataclass(frozen=True)
class Outcome:
    """A finished adaptation.

    Attributes:
        surrogate: the adapted one, as `Surrogate.load` of the folder gives it.
        phases: what every phase reached on the held-out showers.
        learnt: how many numbers were learnt.
        size: of the file that was written, bytes.
        seconds: that learning took.
        physics: biases and spreads on the held-out showers ``before`` (not from scratch) and ``after``, as of
            `calograd.training.monitor.Report`.
    """

    surrogate: Surrogate
    phases: list[PhaseResult]
    learnt: int
    size: int
    seconds: float
    physics: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.surrogate.card.name, "phases": [asdict(phase) for phase in self.phases],
            "learnt": self.learnt, "bytes": self.size, "seconds": round(self.seconds, 1), "physics": self.physics,
        }  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """What stays the same in a run."""

    base: Surrogate
    config: AdaptConfig
    data: TrainingData
    output: Path
    progress: Progress | None
    on_look: OnLook | None
    interrupted: Callable[[], bool]

    @cached_property
    def odds(self) -> Tensor | None:
        """Relative odds of every row to be drawn; None: all are equal."""
        return even_odds(self.data.train) if self.config.balanced else None

    def keep(self, state: State) -> None:
        """Write a checkpoint."""
        write_checkpoint(state, self.config, self.base, self.data, self.output)


def even_odds(rows: Rows) -> Tensor:
    """Relative odds of rows, shape (n,), with which every distinct energy is drawn equally often."""
    _, place, count = torch.unique(rows.energy, return_inverse=True, return_counts=True)
    odds: Tensor = 1 / count[place].double()
    return odds


def adapt(
    base: Surrogate,
    config: AdaptConfig,
    data: TrainingData,
    output: Path,
    *,
    start: Adapter | None = None,
    progress: Progress | None = None,
    on_look: OnLook | None = None,
) -> Outcome:
    """Adapt a surrogate, or go on with the run in ``output``.

    Args:
        base: what is adapted, on its device; it stays as it is. It may be an adapted one.
        config: how.
        data: rows of the new detector, split by shower.
        output: folder of the run; its name becomes the adapted surrogate's.
        start: adapter of the same base and by the same method to begin with; the result is again one adapter of the
            base. None: begin with the base.
        progress: called every few steps.
        on_look: called with every look at the held-out showers.

    Raises:
        InputError: data of other numbers of cells or, it seems, another unit; targets that no layer is called; a
            ``start`` of another base, method, rank, alpha or targets; ``output`` holds another run or cannot be
            written; a loss is NaN.
        OutputExistsError: ``output`` holds results without a checkpoint to go on from.
        FormatError: the checkpoint is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    config = config.resolved()
    check_data(base, data)
    with one_writer(output), deferred_interrupt() as interrupted:
        return _adapt(_Run(base, config, data, output, progress, on_look, interrupted), start)


def _adapt(run: _Run, start: Adapter | None) -> Outcome:
    """See `adapt`."""
    output = run.output
    stored = read_checkpoint(run.config, run.base, run.data, output, start)
    if stored is None:
        _refuse_others(output)
    state = stored or begin(run.base, run.config, run.data, start)
    trim_log(output, lambda entry: _logged(entry, state))
    try:
        if stored is None:
            run.keep(state)  # before anything else is there that could not be gone on with
        while state.phase < len(PHASES):
            _run_phase(run, state)
            state.next_phase()
            run.keep(state)
        return _finish(run, state)
    except KeyboardInterrupt:
        raise Interrupted(f"{output} holds its last checkpoint; the same command goes on from it") from None


def _run_phase(run: _Run, state: State) -> None:
    c, names = run.config, state.names()
    if not names:
        return
    assert c.steps is not None
    assert c.location_scale_steps is not None
    steps, batch = (c.steps, c.batch) if state.phase == DIFFUSION else (c.location_scale_steps, c.location_scale_batch)
    for name, parameter in state.learnt.items():
        parameter.requires_grad_(name in names)
    if state.optimiser is None:
        state.optimiser = make_optimiser(state, c)
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    if state.step == 0:
        _look(run, state)
    while state.step < steps and (state.step - state.best_step) < c.patience * c.look_every:
        _step(run, state, steps, batch)
        state.seconds = time.monotonic() - started
        if run.progress is not None and (state.step % 20 == 0 or state.step == steps):
            run.progress(PHASES[state.phase], state.step, steps, float(state.running))
        if state.step % c.look_every == 0 or state.step == steps:
            _look(run, state)
        if run.interrupted() or time.monotonic() - saved > 60 * c.checkpoint_minutes:
            run.keep(state)
            saved = time.monotonic()
        if run.interrupted():
            raise Interrupted(f"{run.output} holds a checkpoint; the same command goes on from it")
    state.results.append(
        PhaseResult(PHASES[state.phase], state.first_loss, state.best_loss, state.best_step, state.step)
    )


def _step(run: _Run, state: State, steps: int, batch: int) -> None:
    """One step of the optimiser, at a rate that rises linearly, then falls to zero as half a cosine."""
    c, data, optimiser = run.config, run.data, state.optimiser
    assert c.learning_rate is not None
    assert optimiser is not None
    for group in optimiser.param_groups:
        warm = min(1.0, (state.step + 1) / c.warmup)
        group["lr"] = c.learning_rate * state.boost * warm * 0.5 * (1 + cos(pi * state.step / steps))
    drawn = (
        torch.randint(len(data.train), (batch,), generator=state.generator)
        if run.odds is None
        else torch.multinomial(run.odds, batch, replacement=True, generator=state.generator)
    )
    rows = data.train.at(drawn)
    loss = batch_loss(state.trainee, data, rows, state.phase, state.generator, c.precision)
    _refuse_nan(loss.item(), state)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
    optimiser.step()
    state.step += 1
    state.running = state.running + (loss.detach().cpu() - state.running) / min(state.step, 200)
    decay = min(c.ema, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for name in state.names():
            state.ema[name].lerp_(state.learnt[name], 1 - decay)


def _look(run: _Run, state: State) -> None:
    """Loss of the held-out showers with the averaged weights, merged as they will be used; keep them if it is best."""
    rows, (few, many) = run.data.validation, LOOK_ROWS
    generator = torch.Generator().manual_seed(0)
    if run.config.balanced:
        order = torch.multinomial(even_odds(rows), many, replacement=True, generator=generator)
    else:
        order = torch.randperm(len(rows), generator=generator)
        order = order.repeat(-(-few // len(rows)))[:many]
    model = state.merged(run.config.plan(), state.ema)
    with torch.no_grad():
        parts = torch.split(order, model.most_rows)
        losses = [batch_loss(model, run.data, rows.at(part), state.phase, generator, "fp32") for part in parts]
        loss = sum(float(value) * (len(p) / len(order)) for p, value in zip(parts, losses, strict=True))
    _refuse_nan(loss, state)
    assert run.config.boost is not None
    if state.heed(loss, run.config.boost):
        for name in state.names():
            state.best[name].copy_(state.ema[name])
    line = {
        "phase": PHASES[state.phase], "step": state.step, "seconds": round(state.seconds, 1),
        "train_loss": float(state.running) if state.step else None,
        "validation_loss": loss, "best": state.best_step == state.step,
    }  # fmt: skip
    add_to_log(run.output, line)
    if run.on_look is not None:
        run.on_look(line)


def _refuse_nan(loss: float, state: State) -> None:
    if not isfinite(loss):
        raise InputError(
            f"the loss is {loss} in phase '{PHASES[state.phase]}', step {state.step}; "
            "check the data, or lower the learning rate"
        )


def _finish(run: _Run, state: State) -> Outcome:
    """The adapted surrogate, stored, with a look at its physics and the base's."""
    base, config = run.base, run.config
    best = tabulate(state.start, config.plan(), state.best)
    card = card_of(base, config, run.data, state, run.output)
    if config.method == "scratch":
        adapted, written = Surrogate(merge(state.start, config.plan(), best), card.adapted(base.card)), WEIGHTS
        adapted.save(run.output)
    else:
        adapter, written = Adapter(card, pack(best)), ADAPTER
        adapted = base.with_adapter(adapter)
        adapter.save(run.output)
    adapted.source = str(run.output)
    if not state.physics:
        before = {} if config.method == "scratch" else {"before": base}
        state.physics = {
            when: _physics(surrogate, run.data) for when, surrogate in (before | {"after": adapted}).items()
        }
        run.keep(state)
    learnt, size = sum(value.numel() for value in state.learnt.values()), (run.output / written).stat().st_size
    return Outcome(adapted, state.results, learnt, size, state.seconds, state.physics)


def _physics(surrogate: Surrogate, data: TrainingData) -> dict[str, Any]:
    """Biases and spreads on the held-out showers."""
    report = look(surrogate.design_model, data, 0, 0.0, 0.0).to_dict()
    return {name: report[name] for name in ("validation_loss", "bias", "error", "spread")}


def _refuse_others(output: Path) -> None:
    """Refuse a folder that holds something else: it would be overwritten or hide the adapter."""
    for name in (ADAPTER, WEIGHTS, LOG, TRAINING):
        if (output / name).exists():
            raise OutputExistsError(f"{output / name} exists but no {CHECKPOINT} to go on from; choose another output")


def _logged(entry: dict[str, Any], state: State) -> bool:
    """Whether a line of the log is of before the state; the look at the beginning is made anew."""
    at = (PHASES.index(entry["phase"]), entry["step"])
    return at <= (state.phase, state.step) and not (at == (state.phase, 0) and state.step == 0)
