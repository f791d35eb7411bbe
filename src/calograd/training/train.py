"""Training: location and scale of the coordinates first, then the two diffusion models at once.

    phase "shape moments"     Student t likelihood of g given the conditions, and of its change with the design
    phase "pattern moments"   likewise of c given the conditions and x
    phase "diffusion"         denoising losses of x and y, moments frozen, EMA of the weights

A distillation (`calograd.training.distillation`) has the moments of its teacher, so it is the last phase alone, with a
loss of its own.

A run is a folder: ``checkpoint.pt`` (everything needed to go on), ``log.jsonl`` (a line a report),
``model.safetensors`` (the EMA weights so far; on demand also those of every report). A run that is started again goes
on from its checkpoint and ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import log
from pathlib import Path

import torch
from torch import Tensor

from calograd.errors import InputError, OutputExistsError
from calograd.io.files import one_writer
from calograd.surrogate.card import Card, TrainedDesigns
from calograd.surrogate.model import DesignModel
from calograd.surrogate.storage import WEIGHTS, save
from calograd.surrogate.two_stage import TeacherTargets, TwoStage
from calograd.training import loop as engine
from calograd.training.config import RunConfig
from calograd.training.data.paired_designs import DifferenceScale, pair_loss
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.distillation import DISTILLATION, Teaching
from calograd.training.distributed import Alone, Team
from calograd.training.log import LOG, add_to_log, trim_log
from calograd.training.loop import Course, Progress
from calograd.training.losses import diffusion_loss, lessons_loss, location_scale_loss
from calograd.training.monitor import Losses, Report, denoising, look
from calograd.training.state import DIFFUSION, PHASES, PREFIXES, pace_of, read_checkpoint, start, write_checkpoint

UNREACHED = 0.05
"""Share of a range, in its logarithm, that the data may leave out at either end."""


@dataclass(frozen=True)
class _Run:
    """What stays the same in a run."""

    config: RunConfig
    data: TrainingData
    output: Path
    on_report: Callable[[Report], None] | None
    teaching: Teaching | None
    team: Team
    lessons: TeacherTargets | None = None

    @property
    def losses(self) -> Losses:
        """Of the last phase."""
        return denoising if self.teaching is None else self.teaching.losses

    @property
    def teacher(self) -> str:
        """Identity of what is distilled."""
        return "" if self.teaching is None else self.teaching.surrogate.identity


def train(
    config: RunConfig,
    data: TrainingData,
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    on_report: Callable[[Report], None] | None = None,
    team: Team | None = None,
) -> DesignModel:
    """Train or distil a surrogate, or go on with the run in ``output``.

    Args:
        config: what to train.
        data: rows, split by shower.
        output: folder of the run.
        device: any torch device; that of ``team`` if there is one.
        progress: called every few steps.
        on_report: called with every report (validation loss and physics).
        team: processes that share the work, see `calograd.training.distributed.open_team`; every one calls this
            function, the one that leads writes and reports. A run may be gone on with by another number of them.

    Returns:
        The EMA weights.

    Raises:
        InputError: ``output`` holds a run of another configuration or cannot be written, the data do not reach over
            the range, a loss is NaN, a teacher that does not fit, there is no such device, or a batch that cannot be
            shared out to all processes.
        OutputExistsError: ``output`` holds a surrogate without a checkpoint to go on from.
        FormatError: the checkpoint or the teacher is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    team = team or Alone(device)
    with one_writer(output) if team.leads else nullcontext():
        with team.first():
            run, state = _begin(config, data, output, on_report, team)
        team.wait()  # for all to have read the checkpoint before it is replaced
        team.same(state.model, state.ema, state.beside)
        hooks: engine.Hooks[DesignModel] = engine.Hooks(
            lambda at: write_checkpoint(at, run.config, data, output, run.teacher),
            lambda at: _report(run, at),
            progress,
        )
        if run.teaching is not None and state.phase == DIFFUSION:
            run = replace(run, lessons=run.teaching.lessons(data, config.training.seed, progress))
        engine.run(state, _phases(run, state.model), pace_of(config.training), hooks, output, team)
        if team.leads:
            save(output, state.ema, _card(run.config, data, state))
        return state.ema.eval().requires_grad_(False)


def _begin(
    config: RunConfig, data: TrainingData, output: Path, on_report: Callable[[Report], None] | None, team: Team
) -> tuple[_Run, Course[DesignModel]]:
    """A run and where it begins or is gone on with; the errors are those of `train`."""
    teaching = None
    if config.distillation is not None:
        teaching = Teaching.of(config.distillation, team.device)
        config = teaching.resolved(config, data)
    run = _Run(config, data, output, on_report, teaching, team)
    _check_shares(run)
    state = read_checkpoint(config, data, output, team.device, run.teacher)
    if state is None:
        _refuse_others(output)
        _check_range(config, data)
        state = start(config, data, team.device) if teaching is None else teaching.start(config, team.device)
    if state.phase <= DIFFUSION:
        done = state.step if state.phase == DIFFUSION else 0
        trim_log(output, lambda entry: entry["step"] <= done)
    return run, state


def _phases(run: _Run, model: DesignModel) -> list[engine.Phase[DesignModel] | None]:
    """As the configuration has them; those of moments only for a model that has these."""
    t = run.config.training
    phases: list[engine.Phase[DesignModel] | None] = [None] * DIFFUSION
    if isinstance(model, TwoStage):
        loss = _location_scale_loss(run, model)
        phases = [
            engine.Phase(name, t.location_scale_steps, prefixes, loss, 0.0, t.learning_rate, False)
            for name, prefixes in zip(PHASES[:DIFFUSION], PREFIXES[:DIFFUSION], strict=True)
        ]
    name = DISTILLATION if run.teaching else PHASES[DIFFUSION]
    return [*phases, engine.Phase(name, t.steps, PREFIXES[DIFFUSION], _loss(run), t.ema, t.learning_rate)]


def _loss(run: _Run) -> Callable[[Course[DesignModel]], Tensor]:
    """Mean loss of a batch of rows in the last phase."""
    data, t, lessons = run.data, run.config.training, run.lessons

    def loss(state: Course[DesignModel]) -> Tensor:
        if lessons is not None:
            return lessons_loss(state.model, lessons, t.batch, run.team, state.generator, t.precision)
        rows = _drawn(run, t.batch, state)
        with run.team.share(t.batch, state.generator):
            return diffusion_loss(state.model, data, rows, state.generator, t.precision, run.losses)

    return loss


def _location_scale_loss(run: _Run, model: TwoStage) -> Callable[[Course[DesignModel]], Tensor]:
    """Mean loss of a batch of rows, or of pairs of rows, half as many, where those tell of derivatives."""
    data, batch, team = run.data, run.config.training.location_scale_batch, run.team

    def loss(state: Course[DesignModel]) -> Tensor:
        if state.beside is None:
            rows = _drawn(run, batch, state)
            with team.share(batch, state.generator):
                return location_scale_loss(model, data, rows, state.phase, state.generator)
        assert isinstance(state.beside, DifferenceScale)
        pairs = max(1, batch // 2)
        data.move_to(state.phase, state.step, pairs)
        first, partner = (rows[team.rows(pairs)] for rows in data.draw_pairs(pairs, state.generator))
        rows = data.rows(torch.cat([first, partner]))
        conditions = data.conditions(model, rows)
        cells, energy = rows.cells.to(conditions.device), rows.energy.to(conditions.device)
        with team.share(pairs, state.generator, copies=2):
            g = model.encode_shape(cells, energy, state.generator)
        return pair_loss(model.shape_location_scale, state.beside, g, conditions).mean()

    return loss


def _drawn(run: _Run, batch: int, state: Course[DesignModel]) -> Rows:
    """The share of this process of a random batch."""
    run.data.move_to(state.phase, state.step, batch)
    return run.data.rows(run.data.draw(batch, state.generator)[run.team.rows(batch)])


def _check_shares(run: _Run) -> None:
    """Refuse batches that cannot be shared out to all processes with the result of one."""
    t, size = run.config.training, run.team.size
    for name, batch in (("batch", t.batch), ("location_scale_batch", t.location_scale_batch)):
        if batch % (2 * size) and size > 1:
            raise InputError(
                f"training.{name} = {batch} cannot be shared out to {size} processes; expected a multiple of {2 * size}"
            )
    steps = run.config.distillation.student_steps if run.config.distillation else (1, 1)
    if any((t.batch // size) % many for many in steps) and size > 1:
        raise InputError(
            f"training.batch = {t.batch} on {size} processes: the steps {list(steps)} of a distillation are dealt out "
            f"along the batch; expected a multiple of {size} times each of them"
        )


def _report(run: _Run, state: Course[DesignModel]) -> None:
    """Look at the run, log it, and store the weights so far."""
    report = look(state.ema, run.data, state.step, float(state.running), state.seconds, run.losses)
    add_to_log(run.output, report.to_dict())
    card = _card(run.config, run.data, state)
    save(run.output, state.ema, card)
    if run.config.training.keep:
        save(run.output / f"step-{state.step:07d}", state.ema, card)
    if run.on_report is not None:
        run.on_report(report)


def _card(config: RunConfig, data: TrainingData, state: Course[DesignModel]) -> Card:
    ended = state.phase == len(PHASES)
    done = {
        "phase": DISTILLATION if config.distillation else PHASES[min(state.phase, DIFFUSION)],
        "step": config.training.steps if ended else state.step,
        "seconds": round(state.seconds),
    }
    resolved = config.model_dump(mode="json")
    resolved["data"]["files"] = [file.name for file in config.data.files]
    if config.distillation is not None:
        resolved["distillation"]["teacher"] = config.distillation.teacher.name
    return Card(
        name=config.name,
        kind=config.model.kind,
        architecture=state.model.architecture.to_dict(),
        energy=config.range.energy,
        trained=TrainedDesigns(
            dx=config.range.dx,
            dz=config.range.dz,
            units=config.range.units,
            unequal_layers=data.unequal_layers,
            materials=tuple(data.materials),
            mode=data.mode,
        ),
        training={"config": resolved, "data": data.provenance, "showers": data.showers, "done": done},
    )


def _refuse_others(output: Path) -> None:
    """Refuse a folder that holds results without a checkpoint: they would be overwritten."""
    for name in (WEIGHTS, LOG):
        if (output / name).exists():
            raise OutputExistsError(f"{output / name} exists but no checkpoint to go on from; choose another output")


def _check_range(config: RunConfig, data: TrainingData) -> None:
    """Refuse a range that the data do not reach over: a surrogate must not claim what it never saw."""
    numbers, scaled = data.numbers(data.train, data.train.energy), config.range.units == "scaled"
    rows, (x0, r_m) = data.train, numbers.T[1:3]
    columns = {
        "energy": ("GeV", rows.energy),
        "dx": ("Moliere radii", rows.dx / r_m) if scaled else ("cm", rows.dx),
        "dz": ("radiation lengths", rows.dz / x0[:, None]) if scaled else ("cm", rows.dz),
    }
    for number, material in enumerate(data.materials):
        mine = slice(None) if rows.which is None else rows.which == number
        what = "the data" if rows.which is None else f"the data of {material.name}"
        for name, (unit, column) in columns.items():
            low, high = getattr(config.range, name)
            values = column[mine]
            if values.numel() == 0:
                raise InputError(f"no row of {material.name} has energy and is trained on; add data or leave it out")
            lowest, highest = float(values.min()), float(values.max())
            slack = UNREACHED * log(high / low)
            if log(lowest / low) > slack or log(high / highest) > slack:
                raise InputError(
                    f"range.{name} = [{low:g}, {high:g}] {unit} reaches beyond {what}, "
                    + (
                        f"{lowest:.3g} {unit} alone; add others, or adapt a surrogate to it with 'calograd adapt'"
                        if lowest == highest
                        else f"{lowest:.3g} to {highest:.3g} {unit}; narrow it or add data"
                    )
                )
