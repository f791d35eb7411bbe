"""Distillation of a surrogate of designs into one of few evaluations, see `calograd.diffusion.leaps`.

The student begins with all weights of its teacher and keeps its conditions' standardisation and its moments; its two
networks learn the leaps. The data give energies, designs and the showers that noise is added to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.learning.config import Distillation, MapsModelConfig, ModelConfig, RangeConfig, RunConfig
from calograd.learning.data import TrainingData
from calograd.learning.engine import Course
from calograd.learning.state import DIFFUSION
from calograd.material import plain
from calograd.surrogate import MARGIN, Surrogate, load_designs
from calograd.surrogate.kinds import architecture
from calograd.surrogate.model import Model, place
from calograd.surrogate.two_stage import TwoStage

DISTILLATION = "distillation"
"""Name of the phase, which takes the place of the diffusion."""


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
            InputError: a surrogate that cannot be distilled, or whose leaps are no multiple of the student's, or a
                device that torch does not have.
        """
        surrogate = load_designs(config.teacher, device)
        model, name = surrogate.model, surrogate.card.name
        if not isinstance(model, TwoStage):
            raise InputError(f"the teacher {name} is of maps in plain coordinates, which cannot be distilled")
        theirs, ours = model.architecture.leaps, config.leaps
        if theirs is not None and any(many % few for many, few in zip(theirs, ours, strict=True)):
            raise InputError(
                f"distillation.leaps = {list(ours)}: expected numbers that divide those of the teacher {name}, "
                f"{list(theirs)}, which is distilled itself"
            )
        return cls(surrogate, model, config)

    def resolved(self, config: RunConfig, data: TrainingData) -> RunConfig:
        """The configuration with the teacher's sizes.

        Raises:
            InputError: data, a range or sizes that are not the teacher's.
        """
        self._check_data(data)
        self._check_range(config.range, data)
        a, card = self.model.architecture.to_dict(), self.surrogate.card
        form: type[ModelConfig | MapsModelConfig] = ModelConfig if card.kind == "cells" else MapsModelConfig
        sizes = form.model_validate({"kind": card.kind} | {name: a[name] for name in form.model_fields if name in a})
        for name in config.model.model_fields_set if "model" in config.model_fields_set else ():
            wanted, found = getattr(config.model, name), getattr(sizes, name, None)
            if wanted != found:
                raise InputError(f"model.{name} is {wanted}, {found} in the teacher {card.name}; leave [model] out")
        return config.model_copy(update={"model": sizes})

    def start(self, seed: int, device: str) -> Course[Model]:
        """A new run, at the beginning of its only phase."""
        form = self.model.architecture.to_dict() | {"leaps": list(self.config.leaps)}
        with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
            student = architecture(self.surrogate.card.kind, form).build()
        student.load_state_dict(self.model.state_dict())
        course = Course.start(place(student, device), seed)
        course.phase = DIFFUSION
        return course

    def losses(
        self, model: Model, x: Tensor, y: Tensor, conditions: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Of shape and pattern of a student, see `calograd.surrogate.two_stage.TwoStage.leap_losses`."""
        assert isinstance(model, TwoStage)
        return model.leap_losses(self.model, self.config.sub_steps, x, y, conditions, generator)

    def _check_data(self, data: TrainingData) -> None:
        """Refuse data that are not of what the teacher was trained on."""
        card, a, found = self.surrogate.card, self.model.architecture, tuple(data.train.cells.shape[1:])
        if (data.kind, found, data.n_xy, data.train.dz.shape[1]) != (card.kind, self.model.shape, a.n_xy, a.n_z):
            raise InputError(
                f"the data are {data.kind} of {' x '.join(map(str, found))}, the teacher {card.name} generates "
                f"{card.kind} of {' x '.join(map(str, self.model.shape))}; expected the same"
            )
        if data.mode != card.mode:
            raise InputError(f"the data are {data.mode}, the teacher {card.name} is {card.mode}; expected the same")
        if data.unequal_layers and not card.unequal_layers:
            raise InputError(
                f"the data have layers of different depths, on which the teacher {card.name} was not trained; "
                "segment without --unequal"
            )
        for material in data.materials:
            if not self.surrogate.material_status(material)[0]:
                names = ", ".join(theirs.name for theirs in card.substances())
                raise InputError(f"the data are of {material.name}, the teacher {card.name} was trained on {names}")

    def _check_range(self, wanted: RangeConfig, data: TrainingData) -> None:
        """Refuse a range beyond the teacher's."""
        for material in data.materials:
            card, scaled = self.surrogate.card.in_cm(material), wanted.units == "scaled"
            radius, length = plain(material.moliere_radius), plain(material.radiation_length)
            for name, unit, size in (
                ("energy", "GeV", 1.0), ("dx", "cm", radius if scaled else 1.0), ("dz", "cm", length if scaled else 1.0)
            ):  # fmt: skip
                (low, high), (lowest, highest) = (size * v for v in getattr(wanted, name)), getattr(card, name)
                if low < lowest * (1 - MARGIN) or high > highest * (1 + MARGIN):
                    raise InputError(
                        f"range.{name}, {low:g} to {high:g} {unit} in {material.name}, reaches beyond that of the "
                        f"teacher {card.name}, {lowest:g} to {highest:g} {unit}; narrow it"
                    )
