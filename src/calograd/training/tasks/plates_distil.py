"""Distillation of a surrogate of stacks of plates into one of few evaluations, see `calograd.diffusion.progressive`.

The student keeps the standardisation, location and scale of its teacher. Its two diffusion networks learn the steps of
the student from targets that the teacher prepares before the training; a network of other sizes than the teacher's
starts anew. The data give stacks, particles and the showers that noise is added to.
"""

from __future__ import annotations

from functools import cached_property
from math import nan

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedStacks
from calograd.surrogate.model import to_device
from calograd.surrogate.plates.model import PlatesArchitecture, PlatesModel, StackTargets
from calograd.surrogate.two_stage import join
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PlatesModelConfig, PlatesRun
from calograd.training.data.plates import PlatesData, StackRows
from calograd.training.distributed import ProcessGroup
from calograd.training.loop import Phase, TrainingProgress, parameters_below
from calograd.training.monitor import Report, report_plates
from calograd.training.tasks.plates import LOCATION_SCALE_PHASES, NETWORKS, PlatesTask, State
from calograd.training.tasks.surrogate import check_shares

STUDENT_SIZES = ("shower_width", "shower_blocks", "layer_width", "layer_blocks", "dense", "embedding", "local_units")
"""Sizes of the networks that a student may have of its own."""
CHUNK = 4096
"""Showers that are drawn at once for targets."""
ROWS = 128
"""Showers that the teacher denoises at once: as few as caches hold."""


class PlatesDistillationTask(PlatesTask):
    """Distillation of a surrogate of stacks of plates.

    Args:
        config: configuration of the run, with a table ``distillation``.
        data: showers to distil on and to validate with.
        group: processes that share the work.
        progress: called while the teacher prepares targets.

    Raises:
        FormatError: the teacher is missing or damaged.
        InputError: a teacher of another kind, sizes that are the teacher's, or data or a range beyond its own.
    """

    def __init__(
        self, config: PlatesRun, data: PlatesData, group: ProcessGroup, progress: TrainingProgress | None = None
    ) -> None:
        assert config.distillation is not None
        self.distillation, self.progress = config.distillation, progress
        check_shares(config.training, group.size, self.distillation.student_steps)
        self.surrogate = Surrogate.load(self.distillation.teacher, group.device)
        self.teacher = self._check_teacher(config, data)
        super().__init__(self._resolved(config), data, group, {"teacher": self.surrogate.identity})

    @cached_property
    def model(self) -> PlatesModel:
        """The student before its first step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.training.seed)
            student = self._architecture(self.config.model).build()
        ours, theirs = student.state_dict(), self.teacher.state_dict()
        for prefix in NETWORKS:
            names = [name for name in ours if name.startswith(prefix)]
            if {name: ours[name].shape for name in names} == {
                name: value.shape for name, value in theirs.items() if name.startswith(prefix)
            }:
                ours |= {name: theirs[name] for name in names}
        student.load_state_dict(ours | {name: v for name, v in theirs.items() if not name.startswith(NETWORKS)})
        return to_device(student, self.group.device)

    @cached_property
    def phases(self) -> tuple[Phase[PlatesModel], ...]:
        """Location and scale are the teacher's, so the first two phases are empty."""
        t = self.config.training
        empty: list[Phase[PlatesModel]] = [Phase(name, monitored=False) for name in LOCATION_SCALE_PHASES]
        trained = parameters_below(self.model, *NETWORKS)
        return *empty, Phase("distillation", t.steps, trained, self._distillation_loss, t.ema, t.learning_rate)

    def monitor(self, state: State) -> Report:
        """Return validation losses and physics."""
        return report_plates(state.ema, self.data, self._losses)

    @cached_property
    def targets(self) -> StackTargets | None:
        """Targets that the teacher prepares before the training; None: every step makes its own."""
        wanted, generator = self.distillation.showers, torch.Generator().manual_seed(self.config.training.seed)
        if not wanted:
            return None
        parts = []
        for start in range(0, wanted, CHUNK):
            n = min(CHUNK, wanted - start)
            parts.append(self._targets(generator, n))
            if self.progress is not None:
                self.progress("teacher targets", start + n, wanted, nan)
        return join(parts)

    def _targets(self, generator: torch.Generator, n: int, mine: slice = slice(None)) -> StackTargets:
        """Return targets of ``mine`` of n random training showers."""
        chosen = torch.randint(len(self.data.train), (n,), generator=generator)[mine]
        rows = self.data.train.at(chosen).to(self.teacher.condition_mean.device)
        random = RandomNumbers.from_generator(generator, n).rows(mine)
        alike = torch.split(rows.counts.argsort(stable=True), ROWS)  # few layers take less time
        return join([self._targets_of(rows.at(part), random.rows(part.cpu().numpy())) for part in alike])

    def _targets_of(self, rows: StackRows, random: RandomNumbers) -> StackTargets:
        """Return targets of some showers."""
        teacher = self.teacher
        with torch.no_grad():
            conditions = self.data.conditions(teacher, rows)
            g, c, _ = teacher.encode(rows.energies, conditions, rows.energy, random)
            x, y = teacher.standardise(g, c, conditions, rows.energy)
            steps = self.distillation.sub_steps
            return self.model.teacher_targets(teacher, steps, x, y, conditions, rows.energy, random)

    def _losses(
        self, model: PlatesModel, x: Tensor, y: Tensor, conditions: Tensor, energy: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return the distillation losses of shower and layers of a student."""
        with torch.no_grad():
            steps = self.distillation.sub_steps
            targets = model.teacher_targets(self.teacher, steps, x, y, conditions, energy, random)
        return model.distillation_losses(targets)

    def _distillation_loss(self, state: State) -> Tensor:
        """Return the distillation loss of a batch of targets."""
        batch = self.config.training.batch
        if self.targets is None:
            targets = self._targets(state.generator, batch, self.group.rows(batch))
        else:
            chosen = torch.randint(len(self.targets), (batch,), generator=state.generator)[self.group.rows(batch)]
            targets = self.targets.at(chosen.to(self.targets.x.device))
        shower, layers = state.model.distillation_losses(targets)
        return shower.mean() + layers.mean()

    def _architecture(self, sizes: PlatesModelConfig) -> PlatesArchitecture:
        return sizes.architecture(self.distillation.student_steps)

    def _check_teacher(self, config: PlatesRun, data: PlatesData) -> PlatesModel:
        """Return the teacher's weights. Raises `InputError` for one of another kind, steps, data or range."""
        model, card = self.surrogate.model, self.surrogate.card
        if not isinstance(model, PlatesModel) or not isinstance(card.trained, TrainedStacks):
            raise InputError(f"the teacher {card.name} is of {card.kind}; expected a surrogate of plates")
        theirs, ours = model.architecture.distilled_steps, self.distillation.student_steps
        if theirs is not None and any(many % few for many, few in zip(theirs, ours, strict=True)):
            raise InputError(
                f"distillation.student_steps = {list(ours)}: expected numbers that divide those of the teacher "
                f"{card.name}, {list(theirs)}, which is distilled itself"
            )
        known, wanted = card.trained, config.range
        for role, several, trained in (
            ("absorber", data.absorbers, known.absorbers), ("active material", data.actives, known.actives)
        ):  # fmt: skip
            for material in several:
                if material not in trained:
                    raise InputError(
                        f"the data have the {role} {material.name}, on which the teacher {card.name} was not trained"
                    )
        for what, unit, (low, high), (least, most) in (
            ("energy", "GeV", wanted.energy, card.energy), ("theta", "degrees", wanted.theta, known.beam.theta)
        ):  # fmt: skip
            if low < least or high > most:
                raise InputError(
                    f"range.{what}, {low:g} to {high:g} {unit}, reaches beyond that of the teacher {card.name}, "
                    f"{least:g} to {most:g} {unit}; narrow it"
                )
        return model

    def _resolved(self, config: PlatesRun) -> PlatesRun:
        """Return the configuration with the teacher's sizes. Raises `InputError` for sizes that cannot differ."""
        known = PlatesModelConfig.model_fields
        theirs = {name: v for name, v in self.teacher.architecture.to_dict().items() if name in known}
        sizes = PlatesModelConfig.model_validate({"kind": "plates"} | theirs)
        own = {name: getattr(config.model, name) for name in config.model.model_fields_set if name != "kind"}
        for name, wanted in own.items():
            found = getattr(sizes, name)
            if name not in STUDENT_SIZES and wanted != found:
                raise InputError(f"model.{name} is {wanted}, {found} in the teacher {self.surrogate.card.name}")
        return config.model_copy(update={"model": sizes.model_copy(update=own)})
