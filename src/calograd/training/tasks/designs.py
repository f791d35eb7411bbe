"""Common parts of all trainings of surrogates of cells and maps: identity, reports, card, range."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calograd.errors import InputError
from calograd.surrogate.card import Card, TrainedDesigns
from calograd.surrogate.model import DesignModel
from calograd.surrogate.storage import save
from calograd.training.config import DesignRange, DesignRun, DesignTraining, RunConfig
from calograd.training.data.rows import TrainingData
from calograd.training.loop import Identity, LoopConfig, Phase, TrainingState
from calograd.training.monitor import Losses, Report, report_rows

UNREACHED = 0.05
"""Share of a range, in its logarithm, that the data may leave out at either end."""


class DesignTask(ABC):
    """A training of a surrogate of cells or maps, see `calograd.training.loop.Task`.

    Args:
        config: resolved configuration.
        data: rows, split by shower.
    """

    def __init__(self, config: DesignRun, data: TrainingData) -> None:
        self.config, self.data = config, data

    @property
    @abstractmethod
    def model(self) -> DesignModel:
        """Initial weights."""

    @property
    @abstractmethod
    def auxiliary(self) -> nn.Module | None:
        """Network that is trained beside the model in the first phase."""

    @property
    @abstractmethod
    def phases(self) -> Sequence[Phase[DesignModel]]:
        """All phases in order."""

    @property
    @abstractmethod
    def losses(self) -> Losses:
        """Losses of the last phase, which reports show."""

    @property
    def origins(self) -> dict[str, str]:
        """Identities of the surrogates that the run starts from."""
        return {}

    @property
    def generator(self) -> torch.Generator:
        """Random numbers of the run, before its first step."""
        return torch.Generator().manual_seed(self.config.training.seed)

    @property
    def loop(self) -> LoopConfig:
        """Settings of the loop."""
        return self.config.training.loop()

    @property
    def identity(self) -> Identity:
        """Return what a checkpoint must agree with."""
        return Identity("training", plain_config(self.config), data_fingerprint(self.data), self.origins)

    def monitor(self, state: TrainingState[DesignModel]) -> Report:
        """Return validation loss and physics."""
        return report_rows(state.ema, self.data, self.losses)

    def save(self, state: TrainingState[DesignModel], output: Path) -> None:
        """Write the surrogate, and with ``keep`` a copy of the report's."""
        card = self._card(state)
        save(output, state.ema, card)
        if self.config.training.keep and state.phase < len(self.phases):
            save(output / f"step-{state.step:07d}", state.ema, card)

    def _card(self, state: TrainingState[DesignModel]) -> Card:
        config, data, last = self.config, self.data, self.phases[-1]
        ended = state.phase == len(self.phases)
        done = {
            "phase": last.name if ended else self.phases[state.phase].name,
            "step": last.steps if ended else state.step,
            "seconds": round(state.seconds),
        }
        designs = TrainedDesigns(
            dx=config.range.dx, dz=config.range.dz, units=config.range.units, unequal_layers=data.unequal_layers,
            materials=tuple(data.materials), mode=data.mode,
        )  # fmt: skip
        return Card(
            name=config.name, kind=config.model.kind, architecture=state.model.architecture.to_dict(),
            energy=config.range.energy, trained=designs,
            training={"config": without_folders(config), "data": data.provenance, "showers": data.showers,
                      "done": done},
        )  # fmt: skip


def plain_config(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data that do not depend on the folder in which it was read."""
    plain = config.model_dump(mode="json")
    plain["data"]["files"] = [str(file.resolve()) for file in config.data.files]
    return plain


def without_folders(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data with the names of files and teacher alone, for a card."""
    plain = config.model_dump(mode="json")
    plain["data"]["files"] = [file.name for file in config.data.files]
    if config.distillation is not None:
        plain["distillation"]["teacher"] = config.distillation.teacher.name
    return plain


def data_fingerprint(data: TrainingData) -> list[float]:
    """Return numbers that differ between different training data."""
    rows = data.train
    return [len(rows), len(data.validation), float(rows.energy.double().sum()), float(rows.dx.double().sum())]


def check_shares(training: DesignTraining, processes: int, student_steps: Sequence[int] = ()) -> None:
    """Refuse batches that several processes cannot share with the result of one. Raises `InputError`."""
    for name, batch in (("batch", training.batch), ("location_scale_batch", training.location_scale_batch)):
        if batch % (2 * processes) and processes > 1:
            raise InputError(
                f"training.{name} = {batch} cannot be shared out to {processes} processes; expected a multiple of "
                f"{2 * processes}"
            )
    if any((training.batch // processes) % steps for steps in student_steps) and processes > 1:
        raise InputError(
            f"training.batch = {training.batch} on {processes} processes: the steps {list(student_steps)} of a student "
            f"are dealt out along the batch; expected a multiple of {processes} times each of them"
        )


def check_range(wanted: DesignRange, data: TrainingData) -> None:
    """Refuse a range that the data of a material do not reach over. Raises `InputError`."""
    numbers, scaled = data.numbers(data.train, data.train.energy), wanted.units == "scaled"
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
            values = column[mine]
            if values.numel() == 0:
                raise InputError(f"no row of {material.name} has energy and is trained on; add data or leave it out")
            _check_reached(f"range.{name}", getattr(wanted, name), unit, values, what)


def _check_reached(name: str, interval: tuple[float, float], unit: str, values: Tensor, what: str) -> None:
    """Raise `InputError` if values leave out more than `UNREACHED` of an interval at either end."""
    (low, high), lowest, highest = interval, float(values.min()), float(values.max())
    slack = UNREACHED * log(high / low)
    if log(lowest / low) <= slack and log(high / highest) <= slack:
        return
    if lowest == highest:
        found = f"{lowest:.3g} {unit} alone; add others, or adapt a surrogate to it with 'calograd adapt'"
    else:
        found = f"{lowest:.3g} to {highest:.3g} {unit}; narrow it or add data"
    raise InputError(f"{name} = [{low:g}, {high:g}] {unit} reaches beyond {what}, {found}")
