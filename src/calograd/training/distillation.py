"""Distillation of a surrogate of designs into one of few evaluations, see `calograd.diffusion.progressive`.

The student begins with all weights of its teacher and keeps its conditions' standardisation and its moments; its two
networks learn the steps. A network that is given other sizes than the teacher's begins anew. The data give energies,
designs and the showers that noise is added to.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from calograd.training.config import Distillation, MapsModelConfig, ModelConfig, RangeConfig, RunConfig
from calograd.training.data.rows import TrainingData
from calograd.training.loop import Course, Progress
from calograd.training.losses import standardised
from calograd.training.state import DIFFUSION

DISTILLATION = "distillation"
"""Name of the phase, which takes the place of the diffusion."""
OWN_SIZES = (
    "shape_width", "shape_blocks", "pattern_width", "pattern_blocks", "embedding", "local_units",
    "width", "multipliers", "blocks",
)  # fmt: skip
"""Of a model's configuration what a student may have of its own: sizes of the two networks of cells and of maps."""
CHUNK = 4096
"""Showers of which lessons are made at once."""
NETWORKS = ("shape_network.", "pattern_network.")


@dataclass(frozen=True)
class Teaching:
    """A teacher and how it teaches.

    Args:
        surrogate: the teacher.
        model: its weights.
        config: of the distillation.
    """

    surrogate: Surrogate
    model: TwoStage
    config: Distillation

    @classmethod
    def of(cls, config: Distillation, device: str) -> Teaching:
        """Load the teacher.

        Raises:
            FormatError: it is missing or damaged.
            InputError: a surrogate that cannot be distilled, or whose steps are no multiple of the student's, or a
                device that torch does not have.
        """
        surrogate = Surrogate.load(config.teacher, device)
        model, name = surrogate.design_model, surrogate.card.name
        if not isinstance(model, TwoStage):
            raise InputError(f"the teacher {name} is of maps in plain coordinates, which cannot be distilled")
        theirs, ours = model.architecture.distilled_steps, config.student_steps
        if theirs is not None and any(many % few for many, few in zip(theirs, ours, strict=True)):
            raise InputError(
                f"distillation.student_steps = {list(ours)}: expected numbers that divide those of the teacher {name}, "
                f"{list(theirs)}, which is distilled itself"
            )
        return cls(surrogate, model, config)

    def resolved(self, config: RunConfig, data: TrainingData) -> RunConfig:
        """The configuration with the teacher's sizes where it has none of its own.

        Raises:
            InputError: data, a range or sizes that cannot differ from the teacher's and do.
        """
        self._check_data(data)
        self._check_range(config.range, data)
        a, card = self.model.architecture.to_dict(), self.surrogate.card
        form: type[ModelConfig | MapsModelConfig] = ModelConfig if card.kind == "cells" else MapsModelConfig
        sizes = form.model_validate({"kind": card.kind} | {name: a[name] for name in form.model_fields if name in a})
        own: dict[str, Any] = {}
        for name in config.model.model_fields_set if "model" in config.model_fields_set else ():
            wanted, found = getattr(config.model, name), getattr(sizes, name, None)
            if name in OWN_SIZES and name in form.model_fields:
                own[name] = wanted
            elif wanted != found:
                raise InputError(f"model.{name} is {wanted}, {found} in the teacher {card.name}; leave it out")
        return config.model_copy(update={"model": sizes.model_copy(update=own)})

    def start(self, config: RunConfig, device: str) -> Course[DesignModel]:
        """A new run of a resolved configuration, at the beginning of its only phase."""
        sizes = {name: getattr(config.model, name) for name in OWN_SIZES if hasattr(config.model, name)}
        form = self._form() | sizes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.training.seed)
            student = architecture(self.surrogate.card.kind, form).build()
        first, theirs = student.state_dict(), self.model.state_dict()
        for prefix in NETWORKS:
            ours, taught = (
                {name: value for name, value in weights.items() if name.startswith(prefix)}
                for weights in (first, theirs)
            )
            if {name: value.shape for name, value in ours.items()} != {n: value.shape for n, value in taught.items()}:
                theirs = {name: value for name, value in theirs.items() if name not in taught} | ours
        student.load_state_dict(theirs)
        course = Course.start(to_device(student, device), config.training.seed)
        course.phase = DIFFUSION
        return course

    def _form(self) -> dict[str, Any]:
        """Of a student of the teacher's sizes."""
        return self.model.architecture.to_dict() | {"distilled_steps": self.config.student_steps}

    def losses(
        self, model: DesignModel, x: Tensor, y: Tensor, conditions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Of shape and pattern of a student, see `calograd.surrogate.two_stage.TwoStage.distillation_losses`."""
        assert isinstance(model, TwoStage)
        return model.distillation_losses(
            model.teacher_targets(self.model, self.config.sub_steps, x, y, conditions, generator)
        )

    def lessons(self, data: TrainingData, seed: int, progress: Progress | None = None) -> TeacherTargets | None:
        """All lessons of a run of so many; None where every step has its own.

        Args:
            data: rows to train on, any number of times each.
            seed: of all random numbers.
            progress: called every chunk.
        """
        wanted, generator = self.config.showers, torch.Generator().manual_seed(seed)
        if not wanted:
            return None
        with torch.random.fork_rng(devices=[]):
            student = architecture(self.surrogate.card.kind, self._form()).build()
        student.load_state_dict(self.model.state_dict())  # knows the coordinates; its networks are not asked
        assert isinstance(student, TwoStage)
        to_device(student, str(self.model.condition_mean.device))
        parts = []
        for start in range(0, wanted, CHUNK):
            n = min(CHUNK, wanted - start)
            data.move_to(DIFFUSION, start // CHUNK, n)
            rows = data.rows(data.draw(n, generator))
            with torch.no_grad():
                x, y, conditions = standardised(student, data, rows, generator)
                parts.append(student.teacher_targets(self.model, self.config.sub_steps, x, y, conditions, generator))
            if progress is not None:
                progress("teacher targets", start + n, wanted, nan)
        return join(parts)

    def _check_data(self, data: TrainingData) -> None:
        """Refuse data that are not of what the teacher was trained on."""
        card, a, found = self.surrogate.card, self.model.architecture, tuple(data.train.cells.shape[1:])
        if (data.kind, found, data.n_xy, data.train.dz.shape[1]) != (card.kind, self.model.shape, a.n_xy, a.n_z):
            raise InputError(
                f"the data are {data.kind} of {' x '.join(map(str, found))}, the teacher {card.name} generates "
                f"{card.kind} of {' x '.join(map(str, self.model.shape))}; expected the same"
            )
        if data.mode != card.designs.mode:
            raise InputError(
                f"the data are {data.mode}, the teacher {card.name} is {card.designs.mode}; expected the same"
            )
        if data.unequal_layers and not card.designs.unequal_layers:
            raise InputError(
                f"the data have layers of different depths, on which the teacher {card.name} was not trained; "
                "segment without --unequal"
            )
        for material in data.materials:
            if not self.surrogate.card.material_status(material)[0]:
                names = ", ".join(theirs.name for theirs in card.designs.materials)
                raise InputError(f"the data are of {material.name}, the teacher {card.name} was trained on {names}")

    def _check_range(self, wanted: RangeConfig, data: TrainingData) -> None:
        """Refuse a range beyond the teacher's."""
        for material in data.materials:
            ranges, scaled = self.surrogate.card.in_cm(material), wanted.units == "scaled"
            radius, length = to_float(material.moliere_radius), to_float(material.radiation_length)
            for name, unit, size in (
                ("energy", "GeV", 1.0), ("dx", "cm", radius if scaled else 1.0), ("dz", "cm", length if scaled else 1.0)
            ):  # fmt: skip
                (low, high), (lowest, highest) = (size * v for v in getattr(wanted, name)), getattr(ranges, name)
                if low < lowest * (1 - MARGIN) or high > highest * (1 + MARGIN):
                    raise InputError(
                        f"range.{name}, {low:g} to {high:g} {unit} in {material.name}, reaches beyond that of the "
                        f"teacher {self.surrogate.card.name}, {lowest:g} to {highest:g} {unit}; narrow it"
                    )
