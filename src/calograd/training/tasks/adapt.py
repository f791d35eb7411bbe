"""Adaptation of surrogates to another detector from few of its showers; `calograd.training.tasks.adaptation` says how.

`DesignAdaptation` is that of cells and maps, `calograd.training.tasks.adapt_plates.PlatesAdaptation` that of plates.
"""

from __future__ import annotations

from math import exp, log
from pathlib import Path
from typing import Any

from torch import Tensor

from calograd.errors import InputError
from calograd.io.files import one_writer
from calograd.surrogate import Surrogate, TrainedDesigns
from calograd.surrogate.adapters import Adapter
from calograd.surrogate.card import Ranges, TrainedBeam
from calograd.surrogate.model import DesignModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training import loop
from calograd.training.config import AdaptConfig
from calograd.training.data.plates import PlatesData
from calograd.training.data.rows import Rows, TrainingData
from calograd.training.loop import OnReport, TrainingProgress
from calograd.training.monitor import Report, report_rows
from calograd.training.tasks.adapt_plates import PlatesAdaptation
from calograd.training.tasks.adaptation import AdaptationTask, Outcome, refuse_distilled
from calograd.training.tasks.denoise import PHASES, PREFIXES, batch_loss, denoising, initial_model
from calograd.training.tasks.plates import beam_of
from calograd.training.tasks.surrogate import UNREACHED, check_shape

LENGTHS = {"mm": 10.0, "m": 0.01}
UNITS = {"energy": ("GeV", {"MeV": 1e3, "keV": 1e6, "TeV": 1e-3}), "dx": ("cm", LENGTHS), "dz": ("cm", LENGTHS)}
"""Unit of each column, and units that its numbers may have by mistake."""
EXCEEDED = 0.15
"""Share of a range, in its logarithm, by which data may exceed it without extending it; training data do on purpose."""
DRAWN = 0.01
"""Share of a range, in its logarithm, by which values drawn from it fall short of its ends."""


def adapt(
    base: Surrogate,
    config: AdaptConfig,
    data: TrainingData | PlatesData,
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
        data: showers of the new detector, split into those to learn from and those held out.
        output: folder of the run; its name becomes that of the adapted surrogate.
        start: adapter of the same base and by the same method to start from; the result is again one adapter of the
            base. None: start from the base.
        progress: called every few steps.
        on_report: called with every report on the held-out showers.

    Raises:
        InputError: a distilled base, data of another kind or apparently of another unit, targets that no layer is
            called, a ``start`` that does not fit, ``output`` holds another run or cannot be written, or a loss is NaN.
        OutputExistsError: ``output`` holds results without a checkpoint.
        FormatError: the checkpoint is damaged.
        Interrupted: Ctrl-C; a checkpoint was written.
    """
    refuse_distilled(base)
    with one_writer(output):
        task = task_of(base, config.resolved(base.model.condition_mean.device), data, start)
        state = loop.begin(task, output)
        loop.run(task, state, output, progress=progress, on_report=on_report)
        return task.outcome(state, output)


def task_of(
    base: Surrogate, config: AdaptConfig, data: TrainingData | PlatesData, first: Adapter | None
) -> AdaptationTask[Any, Any]:
    """Return the adaptation of a base's kind, of the arguments of `AdaptationTask`.

    Raises:
        InputError: see `adapt`.
    """
    if isinstance(data, PlatesData):
        return PlatesAdaptation(base, config, data, first)
    return DesignAdaptation(base, config, data, first)


class DesignAdaptation(AdaptationTask[DesignModel, TrainingData]):
    """Adaptation of a surrogate of cells or maps, see `AdaptationTask`.

    Raises:
        InputError: data that the base cannot be adapted to, see `check_data`.
    """

    PHASES = PHASES
    PREFIXES = PREFIXES

    def __init__(self, base: Surrogate, config: AdaptConfig, data: TrainingData, first: Adapter | None = None) -> None:
        check_data(base, data)
        super().__init__(base, config, data, first)

    def _base_model(self) -> DesignModel:
        """Return the base's model, without symmetry where the beam has none."""
        model = self.base.design_model
        return model if self.data.symmetric else model.asymmetric()

    def _fresh_model(self) -> DesignModel:
        """Return random weights, standardised over the data."""
        return initial_model(self.base.design_model.architecture, self.data, self.config.seed)

    @property
    def symmetric(self) -> bool:
        """True if location and scale stay equal by symmetry."""
        return self.frozen.architecture.symmetric

    def _batch_loss(self, model: DesignModel, rows: Rows, phase: int, random: RandomNumbers, precision: str) -> Tensor:
        """Return the mean loss of rows in a phase."""
        return batch_loss(model, self.data, rows, phase, random, precision)

    def _most_rows(self, model: DesignModel) -> int:
        """Return the largest number of rows at once."""
        return model.most_rows

    def report(self, surrogate: Surrogate) -> Report:
        """Return the physics of a surrogate on the held-out showers."""
        return report_rows(surrogate.design_model, self.data, denoising)

    def _trained(self, trusted: bool) -> tuple[tuple[float, float], TrainedDesigns]:
        """Return energies and designs of the data, or those of the base, too."""
        base, data = self.base, self.data
        card = base.card.in_cm(data.material)
        energy, dx, dz = (_range(card, data, name, trusted) for name in ("energy", "dx", "dz"))
        designs = TrainedDesigns(
            dx=dx, dz=dz, unequal_layers=data.unequal_layers or (trusted and base.card.designs.unequal_layers),
            materials=(data.material,), mode=data.mode, beam=_beam(base.card.designs.beam, data, trusted),
        )  # fmt: skip
        return energy, designs


def check_data(base: Surrogate, data: TrainingData) -> None:
    """Refuse data that ``base`` cannot be adapted to.

    Raises:
        InputError: maps for cells or cells for maps, other numbers of cells, or numbers that look like another unit.
    """
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
    own = beam_of(particles)
    return base.joined(own) if trusted else own
