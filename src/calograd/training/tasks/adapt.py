"""Adaptation of a surrogate to another detector from few of its showers.

A detector changes above all where the coordinates of a shower lie and how wide they are. So the phases are those of
`calograd.training.tasks.denoise`: location and scale learn first, then both diffusion models on what these have
standardised. Every phase starts from the base, or from an adapter of it (a warm start), and learns an adapter
(`calograd.nn.lora`). It ends early when the held-out showers' loss no longer falls and keeps its best weights, so on
these showers no phase makes the surrogate worse. The base's weights and its standardised conditions do not change.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from math import exp, log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calograd.detector.configuration import PDG, Particle
from calograd.errors import InputError
from calograd.io.files import one_writer
from calograd.nn.lora import Plan, Table, attach, merge, tabulate
from calograd.nn.lora import place as place_table
from calograd.surrogate import Surrogate, TrainedDesigns
from calograd.surrogate.adapters import ADAPTER, Adapter, AdapterCard, Base, pack, relative_source
from calograd.surrogate.card import Ranges, TrainedBeam
from calograd.surrogate.model import DesignModel
from calograd.surrogate.storage import WEIGHTS
from calograd.system.random_numbers import RandomNumbers
from calograd.training import loop
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.loop import Identity, LoopConfig, OnReport, Phase, PhaseResult, TrainingProgress, TrainingState
from calograd.training.monitor import Report, report_rows
from calograd.training.tasks.denoise import DIFFUSION, PHASES, PREFIXES, batch_loss, denoising, initial_model
from calograd.training.tasks.surrogate import UNREACHED, check_shape

REPORT_ROWS = (2048, 4096)
"""Fewest and most rows of a report; fewer held-out rows are repeated with other noise."""
LENGTHS = {"mm": 10.0, "m": 0.01}
UNITS = {"energy": ("GeV", {"MeV": 1e3, "keV": 1e6, "TeV": 1e-3}), "dx": ("cm", LENGTHS), "dz": ("cm", LENGTHS)}
"""Unit of each column, and units that its numbers may have by mistake."""
EXCEEDED = 0.15
"""Share of a range, in its logarithm, by which data may exceed it without extending it; training data do on purpose."""
DRAWN = 0.01
"""Share of a range, in its logarithm, by which values drawn from it fall short of its ends."""


@dataclass(frozen=True)
class Outcome:
    """A finished adaptation.

    Attributes:
        surrogate: the adapted surrogate, as `Surrogate.load` of the folder returns it.
        phases: losses of the held-out showers in every phase.
        learnt: count of the learnt numbers.
        size: size of the written file, bytes.
        seconds: time of the training.
        physics: reports on the held-out showers ``before`` (not from scratch) and ``after``, see
            `calograd.training.monitor`.
    """

    surrogate: Surrogate
    phases: list[PhaseResult]
    learnt: int
    size: int
    seconds: float
    physics: dict[str, Report]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "name": self.surrogate.card.name, "phases": [asdict(phase) for phase in self.phases],
            "learnt": self.learnt, "bytes": self.size, "seconds": round(self.seconds, 1), "physics": self.physics,
        }  # fmt: skip


def adapt(
    base: Surrogate,
    config: AdaptConfig,
    data: TrainingData,
    output: Path,
    *,
    start: Adapter | None = None,
    progress: TrainingProgress | None = None,
    on_report: OnReport | None = None,
) -> Outcome:
    """Adapt a surrogate, or resume the run in ``output``.

    Args:
        base: surrogate to adapt, on its device; it is unchanged. It may be an adapted one.
        config: configuration of the adaptation.
        data: rows of the new detector, split by shower.
        output: folder of the run; its name becomes that of the adapted surrogate.
        start: adapter of the same base and by the same method to start from; the result is again one adapter of the
            base. None: start from the base.
        progress: called every few steps.
        on_report: called with every report on the held-out showers.

    Raises:
        InputError: data of other numbers of cells or apparently of another unit, targets that no layer is called, a
            ``start`` that does not fit, ``output`` holds another run or cannot be written, or a loss is NaN.
        OutputExistsError: ``output`` holds results without a checkpoint.
        FormatError: the checkpoint is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    check_data(base, data)
    with one_writer(output):
        device = base.design_model.condition_mean.device
        task = AdaptationTask(base, config.resolved(device), data, start)
        state = loop.begin(task, output)
        loop.run(task, state, output, progress=progress, on_report=on_report)
        return task.outcome(state, output)


class AdaptationTask:
    """Adaptation of a surrogate of cells or maps, see `calograd.training.loop.Task`.

    Args:
        base: surrogate to adapt.
        config: resolved configuration.
        data: rows of the new detector.
        first: adapter to start from.

    Raises:
        InputError: a target that no layer is called, or a ``first`` of another base or another plan.
    """

    auxiliary = None

    def __init__(self, base: Surrogate, config: AdaptConfig, data: TrainingData, first: Adapter | None = None) -> None:
        self.base, self.config, self.data, self.first, self.plan = base, config, data, first, config.plan()
        self.frozen: DesignModel = base.design_model if data.symmetric else base.design_model.asymmetric()
        if first is not None:
            check_first(first, base, config, self.frozen)
        if config.method == "scratch":
            device = base.design_model.condition_mean.device
            new = initial_model(base.design_model.architecture, data, config.seed)
            self.frozen = new.to(device).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model, self._learnt = attach(self.frozen, self.plan, self.generator)
        if first is not None:
            place_table(self._learnt, self.frozen, self.plan, first.table)
        self._odds = {id(rows): even_odds(rows) if config.balanced else None for rows in (data.train, data.validation)}

    @cached_property
    def phases(self) -> tuple[Phase[DesignModel], ...]:
        """Phases of the denoising that have something to learn; the others are empty."""
        c = self.config
        assert c.steps is not None
        assert c.location_scale_steps is not None
        assert c.learning_rate is not None
        made: list[Phase[DesignModel]] = []
        for name, prefixes in zip(PHASES, PREFIXES, strict=True):
            trained = frozenset(parameter for parameter in self._learnt if parameter.startswith(prefixes))
            steps = c.steps if name == DIFFUSION else c.location_scale_steps
            made.append(
                Phase(name, steps, trained, self._loss, c.ema, c.learning_rate)
                if trained
                else Phase(name, monitored=False)
            )
        return tuple(made)

    @property
    def loop(self) -> LoopConfig:
        """Settings of the loop."""
        return self.config.loop()

    @property
    def identity(self) -> Identity:
        """Return what a checkpoint must agree with."""
        origins = {"base": self.base.identity} | ({"start": self.first.identity()} if self.first else {})
        return Identity("adaptation", self.config.model_dump(mode="json"), self.data.fingerprint, origins)

    def monitor(self, state: TrainingState[DesignModel]) -> Report:
        """Return the held-out showers' loss with the averaged weights, merged as they will be used."""
        rows, (few, many) = self.data.validation, REPORT_ROWS
        generator = torch.Generator().manual_seed(0)
        odds = self._odds[id(rows)]
        if odds is not None:
            order = torch.multinomial(odds, many, replacement=True, generator=generator)
        else:
            order = torch.randperm(len(rows), generator=generator)
            order = order.repeat(-(-few // len(rows)))[:many]
        model = merge(self.frozen, self.plan, self._table(state))
        random, loss = RandomNumbers.from_generator(generator, len(order)), 0.0
        with torch.no_grad():
            for start in range(0, len(order), model.most_rows):
                part = slice(start, start + model.most_rows)
                chosen = rows.at(order[part])
                mean = batch_loss(model, self.data, chosen, state.phase, random.rows(part), "fp32")
                loss += float(mean) * (len(chosen) / len(order))
        return {"validation_loss": loss}

    def save(self, state: TrainingState[DesignModel], output: Path) -> None:
        """Write the adapter, or from scratch the surrogate, once the run has ended."""
        if state.phase == len(self.phases):
            adapted, adapter = self._adapted(state, output)
            (adapted if adapter is None else adapter).save(output)

    def outcome(self, state: TrainingState[DesignModel], output: Path) -> Outcome:
        """Return the adapted surrogate of a run that has ended, with reports on its physics and the base's."""
        adapted, adapter = self._adapted(state, output)
        adapted.source = str(output)
        written, before = (WEIGHTS, {}) if adapter is None else (ADAPTER, {"before": self.base})
        physics = {
            when: report_rows(surrogate.design_model, self.data, denoising)
            for when, surrogate in (before | {"after": adapted}).items()
        }
        learnt, size = sum(value.numel() for value in self._learnt.values()), (output / written).stat().st_size
        return Outcome(adapted, state.results, learnt, size, state.seconds, physics)

    def _adapted(self, state: TrainingState[DesignModel], output: Path) -> tuple[Surrogate, Adapter | None]:
        """Return the adapted surrogate of a run that has ended, and its adapter; from scratch there is none."""
        card, table = self._card(state, output), self._table(state)
        if self.config.method == "scratch":
            return Surrogate(merge(self.frozen, self.plan, table), card.adapted(self.base.card)), None
        adapter = Adapter(card, pack(table))
        return self.base.with_adapter(adapter), adapter

    def _loss(self, state: TrainingState[DesignModel]) -> Tensor:
        """Return the loss of a random batch."""
        c, data, generator = self.config, self.data, state.generator
        batch = c.batch if PHASES[state.phase] == DIFFUSION else c.location_scale_batch
        odds = self._odds[id(data.train)]
        if odds is None:
            drawn = torch.randint(len(data.train), (batch,), generator=generator)
        else:
            drawn = torch.multinomial(odds, batch, replacement=True, generator=generator)
        random = RandomNumbers.from_generator(generator, batch)
        return batch_loss(state.model, data, data.train.at(drawn), state.phase, random, c.precision)

    def _table(self, state: TrainingState[DesignModel]) -> Table:
        """Return the averaged adapter of a state."""
        averages = {name: state.ema.get_parameter(name) for name in self._learnt}
        return tabulate(self.frozen, self.plan, averages)

    def _card(self, state: TrainingState[DesignModel], output: Path) -> AdapterCard:
        """Return the card of a run that has ended."""
        base, config, data, plan = self.base, self.config, self.data, self.plan
        trusted, card = config.range == "base", base.card.in_cm(data.material)
        source = relative_source(base.source, output) if base.source else ""
        done = {"phase": "adapted", "step": sum(r.steps for r in state.results), "seconds": round(state.seconds)}
        energy, dx, dz = (_range(card, data, name, trusted) for name in ("energy", "dx", "dz"))
        designs = TrainedDesigns(
            dx=dx, dz=dz, unequal_layers=data.unequal_layers or (trusted and base.card.designs.unequal_layers),
            materials=(data.material,), mode=data.mode, beam=_beam(base.card.designs.beam, data, trusted),
        )  # fmt: skip
        training = {
            "config": config.model_dump(mode="json"), "base": base.card.name, "data": data.provenance,
            "showers": data.showers, "held_out": data.held_out, "phases": [asdict(r) for r in state.results],
            "done": done,
        } | ({"start": self.first.identity()} if self.first else {})  # fmt: skip
        return AdapterCard(
            name=output.resolve().name, base=Base(name=base.card.name, identity=base.identity, source=source),
            method=plan.method, rank=plan.rank, alpha=plan.alpha, targets=plan.targets, energy=energy,
            trained=designs, symmetric=self.frozen.architecture.symmetric, training=training,
        )  # fmt: skip


def even_odds(rows: Rows) -> Tensor:
    """Return relative odds of rows, shape (n,), with which every distinct energy is drawn equally often."""
    _, place, count = torch.unique(rows.energy, return_inverse=True, return_counts=True)
    odds: Tensor = 1 / count[place].double()
    return odds


def refuse_distilled(base: Surrogate) -> None:
    """Raise `InputError` for a base without a denoising loss to adapt by."""
    if base.model.distilled:
        raise InputError(
            f"{base.card.name} is distilled and cannot be adapted; adapt the surrogate that it was distilled from and "
            "distil the result"
        )


def check_data(base: Surrogate, data: TrainingData) -> None:
    """Refuse data that ``base`` cannot be adapted to.

    Raises:
        InputError: a distilled base, maps for cells or cells for maps, other numbers of cells, or numbers that look
            like another unit.
    """
    refuse_distilled(base)
    check_shape(base, data)
    _check_units(base, data)


def _check_units(base: Surrogate, data: TrainingData) -> None:
    """Raise `InputError` for energies or sizes that look like another unit."""
    share = float((data.train.cells.flatten(1).double().sum(1) / data.train.energy).mean())
    if not 1e-2 <= share <= 1.2:
        what = "the cells are in MeV or keV" if share > 1 else "the incident energies are in MeV or keV"
        raise InputError(
            f"the cells hold {share:.3g} times the incident energy on average; perhaps {what}: expected GeV for both"
        )
    card = base.card.in_cm(data.material)
    for name, (unit, others) in UNITS.items():
        values, (low, high) = getattr(data.train, name), getattr(card, name)
        if float(values.min()) <= high and float(values.max()) >= low:
            continue
        for other, factor in others.items():
            if low <= float(values.median()) / factor <= high:
                raise InputError(
                    f"{name} is {float(values.min()):g} to {float(values.max()):g} {unit} in the data, {low:g} to "
                    f"{high:g} {unit} in {base.card.name}; perhaps it is in {other}: expected {unit}"
                )


def check_first(first: Adapter, base: Surrogate, config: AdaptConfig, frozen: DesignModel) -> None:
    """Refuse an adapter that an adaptation of ``base`` cannot start from.

    Raises:
        InputError: it belongs to another base, changes other layers or in another way, is of another symmetry, or the
            adaptation is from scratch.
    """
    name, card = first.card.name, first.card
    if config.method == "scratch":
        raise InputError(f"an adaptation from scratch starts from nothing; leave the adapter '{name}' out (--start)")
    if card.base.identity != base.identity:
        raise InputError(
            f"adapter '{name}' belongs to the base '{card.base.name}' ({card.base.identity[:12]}) and cannot start an "
            f"adaptation of '{base.card.name}' ({base.identity[:12]}); adapt its base, or leave it out (--start)"
        )
    if card.plan() != config.plan():
        raise InputError(
            f"adapter '{name}' is {_describe(card.plan())}, this adaptation is {_describe(config.plan())}; give the "
            "same --method, --rank, --alpha and --targets, or leave it out (--start)"
        )
    if card.symmetric != frozen.architecture.symmetric:
        kinds = ("a beam off the axis or not along it", "a beam along the axis")
        raise InputError(
            f"adapter '{name}' is of {kinds[card.symmetric]}, the data are of "
            f"{kinds[frozen.architecture.symmetric]}; leave it "
            "out (--start)"
        )


def _describe(plan: Plan) -> str:
    """Describe a plan for the user."""
    how = f"{plan.method} of rank {plan.rank} and alpha {plan.alpha:g}" if plan.method == "lora" else plan.method
    return f"{how} of {', '.join(plan.targets)}"


def _range(base: Ranges, data: TrainingData, name: str, trusted: bool) -> tuple[float, float]:
    """Return the range of the data, or the whole range of the base where it is trusted.

    An end of the base's range that the data almost reach, or exceed a little, is taken as the end, and so is an end of
    the range from which the data say that they were drawn. Any other end is that of the data.
    """
    values, (low, high) = getattr(data.train, name), getattr(base, name)
    lowest, highest = float(values.min()), float(values.max())
    if trusted:
        return min(low, lowest), max(high, highest)
    span = log(high / low)
    near = [-UNREACHED * span <= beyond <= EXCEEDED * span for beyond in (log(low / lowest), log(highest / high))]
    slack, (asked_low, asked_high) = exp(DRAWN * span), _asked(data, name) or (lowest, highest)
    least = asked_low if asked_low <= lowest <= asked_low * slack else lowest
    most = asked_high if asked_high / slack <= highest <= asked_high else highest
    return low if near[0] else least, high if near[1] else most


def _asked(data: TrainingData, name: str) -> tuple[float, float] | None:
    """Return the ends of the ranges from which the files say that their energies or sizes were drawn, if all do."""
    found = list[float]()
    for each in data.provenance:
        config: Any = each["config"]
        try:
            if name == "energy":
                found += config["simulation"]["beam"]["energies"]["values"]
            else:
                found += config["segmentation"][f"{name}_range"]
        except (KeyError, TypeError):
            return None
    return (min(found), max(found)) if found else None


def _beam(base: TrainedBeam | None, data: TrainingData, trusted: bool) -> TrainedBeam | None:
    """Return the particles and angles of the data, or with those of the base where it is trusted."""
    particles = data.train.particles
    if base is None or particles is None:
        return base
    known: tuple[Particle, ...] = ("gamma", "e-", "e+")
    names = tuple(name for name in known if (particles.particle == PDG[name]).any())
    low, high = (float(end) for end in particles.theta.aminmax())
    if trusted:
        names = tuple(name for name in known if name in {*names, *base.particles})
        low, high = min(low, base.theta[0]), max(high, base.theta[1])
    return TrainedBeam(particles=names, theta=(low, high))
