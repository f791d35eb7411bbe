"""Common parts of all trainings of surrogates: identity, card, and the range that the data must reach over."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from calograd.detector.configuration import PDG
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import Card, TrainedBeam, TrainedDesigns, TrainedDetector, TrainedStacks
from calograd.surrogate.model import Model
from calograd.surrogate.storage import save
from calograd.training.config import DesignRange, DesignTraining, PlatesTraining, RunConfig
from calograd.training.data.plates import PlatesData
from calograd.training.data.points import PointsData
from calograd.training.data.rows import TrainingData
from calograd.training.loop import Identity, Phase, TrainingState
from calograd.training.monitor import Report

M = TypeVar("M", bound=Model)

UNREACHED = 0.05
"""Share of a range that the data may leave out at either end."""


class SurrogateTask(ABC, Generic[M]):
    """A training of a surrogate of any kind, see `calograd.training.loop.Task`.

    Args:
        config: resolved configuration.
        data: showers, split into those to train on and those to validate on.
        trained: designs, stacks or the detector that the surrogate is trained on.
        origins: identities of the surrogates that the run starts from, by their role.
        start: card of the surrogate whose weights the run keeps a part of; None if it keeps none.
    """

    def __init__(
        self,
        config: RunConfig,
        data: TrainingData | PointsData | PlatesData,
        trained: TrainedDesigns | TrainedDetector | TrainedStacks,
        origins: dict[str, str],
        start: Card | None = None,
    ) -> None:
        self.generator = torch.Generator().manual_seed(config.training.seed)
        self.loop = config.training.loop()
        self.identity = Identity("training", plain_config(config), data.fingerprint, origins)
        self._run, self._data, self._trained, self._start = config, data, trained, start

    @property
    @abstractmethod
    def model(self) -> M:
        """Initial weights."""

    @property
    @abstractmethod
    def auxiliary(self) -> nn.Module | None:
        """Network that is trained beside the model in the first phase."""

    @property
    @abstractmethod
    def phases(self) -> Sequence[Phase[M]]:
        """All phases in order."""

    @abstractmethod
    def monitor(self, state: TrainingState[M]) -> Report:
        """Return validation loss and physics."""

    def save(self, state: TrainingState[M], output: Path) -> None:
        """Write the surrogate, and with ``keep`` a copy of the report's."""
        config, last, ended = self._run, self.phases[-1], state.phase == len(self.phases)
        done = {
            "phase": last.name if ended else self.phases[state.phase].name,
            "step": last.steps if ended else state.step,
            "seconds": round(state.seconds),
        }
        card = Card(
            name=config.name, kind=config.model.kind, architecture=state.model.architecture.to_dict(),
            energy=config.range.energy, trained=self._trained,
            training={"config": without_folders(config), "data": self._data.provenance, "showers": self._data.showers,
                      "done": done} | ({} if self._start is None else {"earlier": training_record(self._start)}),
        )  # fmt: skip
        save(output, state.ema, card)
        if config.training.keep and not ended:
            save(output / f"step-{state.step:07d}", state.ema, card)


def training_record(card: Card) -> dict[str, Any]:
    """Return how a surrogate was trained, for the card of one that keeps a part of its weights: all but its data."""
    kept = {name: value for name, value in card.training.items() if name != "data"}
    if "config" in kept:
        kept["config"] = {name: value for name, value in kept["config"].items() if name != "data"}
    return kept


def trained_designs(wanted: DesignRange, data: TrainingData) -> TrainedDesigns:
    """Return the designs of a range and what the data say of them."""
    beam = None
    if wanted.particles is not None and wanted.theta is not None:
        beam = TrainedBeam(particles=wanted.particles, theta=wanted.theta)
    return TrainedDesigns(
        dx=wanted.dx, dz=wanted.dz, units=wanted.units, unequal_layers=data.unequal_layers,
        materials=tuple(data.materials), mode=data.mode, beam=beam,
    )  # fmt: skip


def plain_config(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data that do not depend on the folder in which it was read."""
    plain = config.model_dump(mode="json")
    plain["data"]["files"] = [str(file.resolve()) for file in config.data.files]
    return plain


def without_folders(config: RunConfig) -> dict[str, Any]:
    """Return a configuration as plain data with the names of files, start and teacher alone, for a card."""
    plain = config.model_dump(mode="json")
    plain["data"]["files"] = [file.name for file in config.data.files]
    if plain["training"].get("start"):
        plain["training"]["start"] = Path(plain["training"]["start"]).name
    if config.distillation is not None:
        plain["distillation"]["teacher"] = config.distillation.teacher.name
    return plain


def check_shape(surrogate: Surrogate, data: TrainingData) -> None:
    """Refuse data of another kind, or of other cells, than a surrogate generates. Raises `InputError`."""
    model, name = surrogate.design_model, surrogate.card.name
    if data.kind != surrogate.card.kind:
        raise InputError(
            f"the data are for a surrogate of kind '{data.kind}', {name} is of kind '{surrogate.card.kind}'; "
            f"segment {'without' if data.kind == 'maps' else 'with'} --maps"
        )
    a, found = model.architecture, tuple(data.train.cells.shape[1:])
    if found != model.shape or (data.n_xy, data.train.dz.shape[1]) != (a.n_xy, a.n_z):
        raise InputError(
            f"the data have {' x '.join(map(str, found))} cells, {name} generates "
            f"{' x '.join(map(str, model.shape))}; segment with --cells {a.n_xy} {a.n_z}, or train a surrogate of "
            "their own"
        )


def check_shares(
    training: DesignTraining | PlatesTraining, processes: int, student_steps: Sequence[int] = (), groups: int = 2
) -> None:
    """Refuse batches that several processes cannot share with the result of one.

    Args:
        training: its batches.
        processes: number of processes.
        student_steps: numbers of steps of a student.
        groups: number of groups in a batch that are shared out each.

    Raises:
        InputError: a batch that is no multiple of the groups and the processes, or of these and a student's steps.
    """
    for name, batch in (("batch", training.batch), ("location_scale_batch", training.location_scale_batch)):
        if batch % (groups * processes) and processes > 1:
            raise InputError(
                f"training.{name} = {batch} cannot be shared out to {processes} processes; expected a multiple of "
                f"{groups * processes}"
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
            check_reached(f"range.{name}", getattr(wanted, name), unit, values, what)
    if wanted.particles is None or wanted.theta is None or rows.particles is None:
        return
    check_particles(wanted.particles, wanted.theta, rows.particles)


def check_particles(wanted: Sequence[str], theta: tuple[float, float], particles: Particles) -> None:
    """Refuse particles, and a range of angles in degrees, that the data do not have. Raises `InputError`."""
    present = {name for name, number in PDG.items() if (particles.particle == number).any()}
    if not present.issuperset(wanted):
        missing = next(name for name in wanted if name not in present)
        raise InputError(f"range.particles has {missing}, the data have {' and '.join(sorted(present))}; add data")
    check_reached("range.theta", theta, "degrees", particles.theta, "the data", scale=float)


def check_reached(
    name: str,
    interval: tuple[float, float],
    unit: str,
    values: Tensor,
    what: str,
    scale: Callable[[float], float] = log,
) -> None:
    """Raise `InputError` if values leave out more than `UNREACHED` of an interval, on a scale, at either end."""
    (low, high), lowest, highest = interval, float(values.min()), float(values.max())
    slack = UNREACHED * (scale(high) - scale(low))
    if scale(lowest) - scale(low) <= slack and scale(high) - scale(highest) <= slack:
        return
    if lowest == highest:
        found = f"{lowest:.3g} {unit} alone; add others, or adapt a surrogate to it with 'calograd adapt'"
    else:
        found = f"{lowest:.3g} to {highest:.3g} {unit}; narrow it or add data"
    raise InputError(f"{name} = [{low:g}, {high:g}] {unit} reaches beyond {what}, {found}")
