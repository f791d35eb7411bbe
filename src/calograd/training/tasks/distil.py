"""Distillation of a surrogate of cells or maps into one of few evaluations, see `calograd.diffusion.progressive`.

The student starts with all weights of its teacher and keeps its standardisation, location and scale. Its two diffusion
networks learn the steps of the student; a network of other sizes than the teacher's starts anew. The data give
energies, designs and the showers that noise is added to.
"""

from __future__ import annotations

from functools import cached_property
from math import nan
from typing import Any

import torch
from torch import Tensor

from calograd.detector.material import to_float
from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import MARGIN
from calograd.surrogate.model import DesignModel, to_device
from calograd.surrogate.registry import architecture
from calograd.surrogate.two_stage import TeacherTargets, TwoStage, join
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import CellsModelConfig, DesignRange, DesignRun, MapsModelConfig
from calograd.training.data.rows import TrainingData
from calograd.training.distributed import ProcessGroup
from calograd.training.loop import Phase, TrainingProgress, TrainingState, parameters_below
from calograd.training.monitor import Report, report_rows
from calograd.training.tasks.denoise import DIFFUSION, PHASES, PREFIXES, diffusion_loss, drawn_rows, standardised
from calograd.training.tasks.surrogate import SurrogateTask, check_shape, check_shares, trained_designs

DISTILLATION = "distillation"
"""Name of the phase in place of the diffusion."""
STUDENT_SIZES = (
    "shape_width", "shape_blocks", "pattern_width", "pattern_blocks", "embedding", "local_units",
    "width", "multipliers", "blocks",
)  # fmt: skip
"""Sizes of the networks of cells and of maps that a student may have of its own."""
CHUNK = 4096
"""Showers whose targets are made at once."""
NETWORKS = PREFIXES[PHASES.index(DIFFUSION)]


class DistillationTask(SurrogateTask[DesignModel]):
    """Distillation of a surrogate of cells or maps.

    Args:
        config: configuration of the run, with a table ``distillation``.
        data: rows, split by shower.
        group: processes that share the work.
        progress: called while the teacher prepares targets.

    Raises:
        FormatError: the teacher is missing or damaged.
        InputError: a surrogate that cannot be distilled, or data, a range, sizes or steps that do not fit it.
    """

    auxiliary = None

    def __init__(
        self, config: DesignRun, data: TrainingData, group: ProcessGroup, progress: TrainingProgress | None = None
    ) -> None:
        assert config.distillation is not None
        self.distillation, self.group, self.progress = config.distillation, group, progress
        self.surrogate = Surrogate.load(self.distillation.teacher, group.device)
        self.teacher = self._check_teacher()
        _check_data(self.surrogate, data)
        _check_range(self.surrogate, config.range, data)
        self.config, self.data = self._resolved(config), data
        super().__init__(self.config, data, trained_designs(config.range, data), {"teacher": self.surrogate.identity})
        check_shares(config.training, group.size, self.distillation.student_steps)

    @cached_property
    def model(self) -> DesignModel:
        """The student before its first step."""
        sizes = {name: getattr(self.config.model, name) for name in STUDENT_SIZES if hasattr(self.config.model, name)}
        student = self._student(sizes, self.config.training.seed)
        first, theirs = student.state_dict(), self.teacher.state_dict()
        for prefix in NETWORKS:
            ours, taught = (
                {name: value for name, value in weights.items() if name.startswith(prefix)}
                for weights in (first, theirs)
            )
            if {name: value.shape for name, value in ours.items()} != {n: value.shape for n, value in taught.items()}:
                theirs = {name: value for name, value in theirs.items() if name not in taught} | ours
        student.load_state_dict(theirs)
        return to_device(student, self.group.device)

    @cached_property
    def phases(self) -> tuple[Phase[DesignModel], ...]:
        """Location and scale are the teacher's, so the first two phases are empty."""
        t = self.config.training
        empty: list[Phase[DesignModel]] = [Phase(name, monitored=False) for name in PHASES[:2]]
        trained = parameters_below(self.model, *NETWORKS)
        return *empty, Phase(DISTILLATION, t.steps, trained, self._loss, t.ema, t.learning_rate)

    def losses(
        self, model: DesignModel, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return the distillation losses of shape and pattern of a student."""
        student, steps = model.two_stage, self.distillation.sub_steps
        return student.distillation_losses(student.teacher_targets(self.teacher, steps, x, y, conditions, random))

    def monitor(self, state: TrainingState[DesignModel]) -> Report:
        """Return validation loss and physics."""
        return report_rows(state.ema, self.data, self.losses)

    @cached_property
    def targets(self) -> TeacherTargets | None:
        """Targets that the teacher prepares before the training; None: every step makes its own."""
        wanted, generator = self.distillation.showers, torch.Generator().manual_seed(self.config.training.seed)
        if not wanted:
            return None
        student = self._student({}, 0)  # it knows the coordinates; its networks are not used
        student.load_state_dict(self.teacher.state_dict())
        to_device(student, self.group.device)
        parts = []
        for start in range(0, wanted, CHUNK):
            n = min(CHUNK, wanted - start)
            self.data.move_to(PHASES.index(DIFFUSION), start // CHUNK, n)
            rows = self.data.rows(self.data.draw(n, generator))
            random = RandomNumbers.from_generator(generator, n)
            with torch.no_grad():
                x, y, conditions = standardised(student, self.data, rows, random)
                sub_steps = self.distillation.sub_steps
                parts.append(student.teacher_targets(self.teacher, sub_steps, x, y, conditions, random))
            if self.progress is not None:
                self.progress("teacher targets", start + n, wanted, nan)
        return join(parts)

    def _loss(self, state: TrainingState[DesignModel]) -> Tensor:
        """Return the distillation loss of a batch of prepared targets, or of rows."""
        t, model = self.config.training, state.model
        if self.targets is None:
            rows, random = drawn_rows(self.data, self.group, state, t.batch)
            return diffusion_loss(model, self.data, rows, random, t.precision, self.losses)
        chosen = torch.randint(len(self.targets), (t.batch,), generator=state.generator)[self.group.rows(t.batch)]
        device = model.condition_mean.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=t.precision == "bf16"):
            shape, pattern = model.two_stage.distillation_losses(self.targets.at(chosen.to(device)))
        return shape.mean() + pattern.mean()

    def _student(self, sizes: dict[str, Any], seed: int) -> TwoStage:
        """Return a student with random weights, of the teacher's sizes where ``sizes`` has none."""
        form = self.teacher.architecture.to_dict() | {"distilled_steps": self.distillation.student_steps}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            student: TwoStage = architecture(self.surrogate.card.kind, form | sizes).build().two_stage
        return student

    def _check_teacher(self) -> TwoStage:
        """Return the teacher's weights. Raises `InputError` if it cannot be distilled into these steps."""
        model, name = self.surrogate.design_model, self.surrogate.card.name
        try:
            teacher = model.two_stage
        except InputError as error:
            raise InputError(f"the teacher {name} cannot be distilled: {error}") from None
        theirs, ours = model.architecture.distilled_steps, self.distillation.student_steps
        if theirs is not None and any(many % few for many, few in zip(theirs, ours, strict=True)):
            raise InputError(
                f"distillation.student_steps = {list(ours)}: expected numbers that divide those of the teacher {name}, "
                f"{list(theirs)}, which is distilled itself"
            )
        return teacher

    def _resolved(self, config: DesignRun) -> DesignRun:
        """Return the configuration with the teacher's sizes. Raises `InputError` for sizes that cannot differ."""
        a, card = self.teacher.architecture.to_dict(), self.surrogate.card
        form: type[CellsModelConfig | MapsModelConfig] = (
            CellsModelConfig if card.kind == "cells" else MapsModelConfig
        )  # fmt: skip
        sizes = form.model_validate({"kind": card.kind} | {name: a[name] for name in form.model_fields if name in a})
        own: dict[str, Any] = {}
        for name in config.model.model_fields_set if "model" in config.model_fields_set else ():
            wanted, found = getattr(config.model, name), getattr(sizes, name, None)
            if name in STUDENT_SIZES and name in form.model_fields:
                own[name] = wanted
            elif wanted != found:
                raise InputError(f"model.{name} is {wanted}, {found} in the teacher {card.name}; leave it out")
        return config.model_copy(update={"model": sizes.model_copy(update=own)})


def _check_data(teacher: Surrogate, data: TrainingData) -> None:
    """Raise `InputError` for data that are not of what the teacher was trained on."""
    check_shape(teacher, data)
    card = teacher.card
    if data.mode != card.designs.mode:
        raise InputError(f"the data are {data.mode}, the teacher {card.name} is {card.designs.mode}; expected the same")
    if data.unequal_layers and not card.designs.unequal_layers:
        raise InputError(
            f"the data have layers of different depths, on which the teacher {card.name} was not trained; "
            "segment without --unequal"
        )
    for material in data.materials:
        if not card.material_status(material)[0]:
            names = ", ".join(theirs.name for theirs in card.designs.materials)
            raise InputError(f"the data are of {material.name}, the teacher {card.name} was trained on {names}")


def _check_range(teacher: Surrogate, wanted: DesignRange, data: TrainingData) -> None:
    """Raise `InputError` for a range beyond the teacher's."""
    for material in data.materials:
        ranges, scaled = teacher.card.in_cm(material), wanted.units == "scaled"
        radius, length = to_float(material.moliere_radius), to_float(material.radiation_length)
        for name, unit, size in (
            ("energy", "GeV", 1.0), ("dx", "cm", radius if scaled else 1.0), ("dz", "cm", length if scaled else 1.0)
        ):  # fmt: skip
            (low, high), (lowest, highest) = (size * v for v in getattr(wanted, name)), getattr(ranges, name)
            if low < lowest * (1 - MARGIN) or high > highest * (1 + MARGIN):
                raise InputError(
                    f"range.{name}, {low:g} to {high:g} {unit} in {material.name}, reaches beyond that of the "
                    f"teacher {teacher.card.name}, {lowest:g} to {highest:g} {unit}; narrow it"
                )
