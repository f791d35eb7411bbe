"""Adaptation of a surrogate to another detector from few of its showers.

A detector changes above all where the coordinates of a shower lie and how wide they are. So the phases are those of
`calograd.training.tasks.denoise`: location and scale learn first, then both diffusion models on what these have
standardised. Every phase starts from the base, or from an adapter of it (a warm start), and learns an adapter
(`calograd.nn.lora`). It ends early when the held-out showers' loss no longer falls. Its best weights are kept if they
are better than those at its beginning by more than chance, so where few showers teach nothing the base stays as it is.
The base's weights and its standardised conditions do not change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.nn.lora import Plan, Table, attach, merge, tabulate
from calograd.nn.lora import place as place_table
from calograd.surrogate import Surrogate
from calograd.surrogate.adapters import ADAPTER, Adapter, AdapterCard, Base, pack, relative_source
from calograd.surrogate.card import TrainedDesigns, TrainedStacks
from calograd.surrogate.model import Model
from calograd.surrogate.storage import WEIGHTS
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig
from calograd.training.data.balance import even_odds
from calograd.training.loop import Identity, LoopConfig, Phase, PhaseResult, TrainingState
from calograd.training.monitor import Report
from calograd.training.tasks.denoise import DIFFUSION

REPORT_ROWS = (2048, 4096)
"""Fewest and most rows of a report; fewer held-out rows are repeated with other noise."""
BLOCKS = 20
"""Parts of the held-out showers, whose losses tell what chance does to the mean."""

M = TypeVar("M", bound=Model)
D = TypeVar("D", bound="Data")


class Showers(Protocol):
    """Showers of a kind of data, one a row."""

    @property
    def energy(self) -> Tensor:
        """Incident energies, shape (n,), GeV."""

    def __len__(self) -> int: ...

    def at(self, chosen: Tensor, /) -> Self:
        """Return the chosen rows."""


class Data(Protocol):
    """Properties that every kind of training data has."""

    @property
    def train(self) -> Showers:
        """Showers to learn from."""

    @property
    def validation(self) -> Showers:
        """Showers that are held out."""

    @property
    def fingerprint(self) -> list[float]:
        """Numbers that differ between different data."""

    @property
    def showers(self) -> int:
        """Number of distinct showers in both."""

    @property
    def held_out(self) -> int:
        """Number of distinct showers that are held out."""

    @property
    def held_out_showers(self) -> Tensor:
        """Number of the shower of every held-out row, shape (n,), int64."""

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Origin and configuration of every file."""


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


class AdaptationTask(ABC, Generic[M, D]):
    """Adaptation of a surrogate of any kind, see `calograd.training.loop.Task`.

    Args:
        base: surrogate to adapt.
        config: resolved configuration.
        data: showers of the new detector.
        first: adapter to start from.

    Raises:
        InputError: a target that no layer is called, or a ``first`` of another base or another plan.
    """

    auxiliary = None
    PHASES: ClassVar[tuple[str, ...]]
    """Names of the phases; all but the last are of location and scale."""
    PREFIXES: ClassVar[tuple[tuple[str, ...], ...]]
    """Beginnings of the names of the weights that each phase learns."""
    TARGETS: ClassVar[tuple[str, ...]] = ("*",)
    """Layers that change unless the configuration names others."""

    def __init__(self, base: Surrogate, config: AdaptConfig, data: D, first: Adapter | None = None) -> None:
        if config.targets is None and config.method != "scratch":
            config = config.model_copy(update={"targets": self.TARGETS})
        self.base, self.config, self.data, self.first, self.plan = base, config, data, first, config.plan()
        self.frozen: M = self._base_model()
        if first is not None:
            check_first(first, base, config, self.symmetric)
        if config.method == "scratch":
            self.frozen = self._fresh_model().to(base.model.condition_mean).requires_grad_(False)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model, self._learnt = attach(self.frozen, self.plan, self.generator)
        if first is not None:
            place_table(self._learnt, self.frozen, self.plan, first.table)
        halves, balanced = (data.train, data.validation), config.balanced
        self._odds = {id(rows): even_odds(rows.energy) if balanced else None for rows in halves}

    @abstractmethod
    def _base_model(self) -> M:
        """Return the base's model, able to learn the data."""

    @abstractmethod
    def _fresh_model(self) -> M:
        """Return a model of the same architecture with random weights, standardised over the data."""

    @property
    @abstractmethod
    def symmetric(self) -> bool:
        """True if location and scale stay equal by symmetry, see `calograd.surrogate.model.Model.asymmetric`."""

    @abstractmethod
    def _batch_loss(self, model: M, rows: Any, phase: int, random: RandomNumbers, precision: str) -> Tensor:
        """Return the mean loss of rows in a phase."""

    @abstractmethod
    def _most_rows(self, model: M) -> int:
        """Return the largest number of rows at once."""

    @abstractmethod
    def report(self, surrogate: Surrogate) -> Report:
        """Return the physics of a surrogate on the held-out showers."""

    @abstractmethod
    def _trained(self, trusted: bool) -> tuple[tuple[float, float], TrainedDesigns | TrainedStacks]:
        """Return energies (GeV) and designs that the result is for; ``trusted``: the base's, too."""

    @cached_property
    def phases(self) -> tuple[Phase[M], ...]:
        """Phases of the denoising that have something to learn; the others are empty."""
        c = self.config
        assert c.steps is not None
        assert c.location_scale_steps is not None
        assert c.learning_rate is not None
        made: list[Phase[M]] = []
        for name, prefixes in zip(self.PHASES, self.PREFIXES, strict=True):
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

    def monitor(self, state: TrainingState[M]) -> Report:
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
        random, losses = RandomNumbers.from_generator(generator, len(order)), []
        _, shower = torch.unique(self.data.held_out_showers[order], return_inverse=True)
        blocks = [
            torch.nonzero(shower % BLOCKS == block).flatten() for block in range(min(BLOCKS, int(shower.max()) + 1))
        ]
        with torch.no_grad():
            for block in blocks:
                loss = 0.0
                for part in torch.split(block, self._most_rows(model)):
                    mean = self._batch_loss(model, rows.at(order[part]), state.phase, random.rows(part.numpy()), "fp32")
                    loss += float(mean) * len(part) / len(block)
                losses.append(loss)
        whole = sum(loss * len(block) for loss, block in zip(losses, blocks, strict=True)) / len(order)
        return {"validation_loss": whole, "block_losses": losses}

    def save(self, state: TrainingState[M], output: Path) -> None:
        """Write the adapter, or from scratch the surrogate, once the run has ended."""
        if state.phase == len(self.phases):
            adapted, adapter = self._adapted(state, output)
            (adapted if adapter is None else adapter).save(output)

    def outcome(self, state: TrainingState[M], output: Path) -> Outcome:
        """Return the adapted surrogate of a run that has ended, with reports on its physics and the base's."""
        adapted, adapter = self._adapted(state, output)
        adapted.source = str(output)
        written, before = (WEIGHTS, {}) if adapter is None else (ADAPTER, {"before": self.base})
        physics = {when: self.report(surrogate) for when, surrogate in (before | {"after": adapted}).items()}
        learnt, size = sum(value.numel() for value in self._learnt.values()), (output / written).stat().st_size
        return Outcome(adapted, state.results, learnt, size, state.seconds, physics)

    def _adapted(self, state: TrainingState[M], output: Path) -> tuple[Surrogate, Adapter | None]:
        """Return the adapted surrogate of a run that has ended, and its adapter; from scratch there is none."""
        card, table = self._card(state, output), self._table(state)
        if self.config.method == "scratch":
            return Surrogate(merge(self.frozen, self.plan, table), card.adapted(self.base.card)), None
        adapter = Adapter(card, pack(table))
        return self.base.with_adapter(adapter), adapter

    def _loss(self, state: TrainingState[M]) -> Tensor:
        """Return the loss of a random batch."""
        c, data, generator = self.config, self.data, state.generator
        batch = c.batch if self.PHASES[state.phase] == DIFFUSION else c.location_scale_batch
        odds = self._odds[id(data.train)]
        if odds is None:
            drawn = torch.randint(len(data.train), (batch,), generator=generator)
        else:
            drawn = torch.multinomial(odds, batch, replacement=True, generator=generator)
        random = RandomNumbers.from_generator(generator, batch)
        return self._batch_loss(state.model, data.train.at(drawn), state.phase, random, c.precision)

    def _table(self, state: TrainingState[M]) -> Table:
        """Return the averaged adapter of a state."""
        averages = {name: state.ema.get_parameter(name) for name in self._learnt}
        return tabulate(self.frozen, self.plan, averages)

    def _card(self, state: TrainingState[M], output: Path) -> AdapterCard:
        """Return the card of a run that has ended."""
        base, config, data, plan = self.base, self.config, self.data, self.plan
        source = relative_source(base.source, output) if base.source else ""
        done = {"phase": "adapted", "step": sum(r.steps for r in state.results), "seconds": round(state.seconds)}
        energy, trained = self._trained(config.range == "base")
        training = {
            "config": config.model_dump(mode="json"), "base": base.card.name, "data": data.provenance,
            "showers": data.showers, "held_out": data.held_out, "phases": [asdict(r) for r in state.results],
            "done": done,
        } | ({"start": self.first.identity()} if self.first else {})  # fmt: skip
        return AdapterCard(
            name=output.resolve().name, base=Base(name=base.card.name, identity=base.identity, source=source),
            method=plan.method, rank=plan.rank, alpha=plan.alpha, targets=plan.targets, energy=energy,
            trained=trained, symmetric=self.symmetric, training=training,
        )  # fmt: skip


def refuse_distilled(base: Surrogate) -> None:
    """Raise `InputError` for a base without a denoising loss to adapt by."""
    if base.model.distilled:
        raise InputError(
            f"{base.card.name} is distilled and cannot be adapted; adapt the surrogate that it was distilled from and "
            "distil the result"
        )


def check_first(first: Adapter, base: Surrogate, config: AdaptConfig, symmetric: bool) -> None:
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
    if card.symmetric != symmetric:
        kinds = ("a beam off the axis or not along it, or a GDML geometry", "a beam along the axis")
        raise InputError(
            f"adapter '{name}' is of {kinds[card.symmetric]}, the data are of "
            f"{kinds[symmetric]}; leave it out (--start)"
        )


def _describe(plan: Plan) -> str:
    """Describe a plan for the user."""
    how = f"{plan.method} of rank {plan.rank} and alpha {plan.alpha:g}" if plan.method == "lora" else plan.method
    return f"{how} of {', '.join(plan.targets)}"
