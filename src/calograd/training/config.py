"""Configurations of trainings, in TOML, and of adaptations.

    name = "pbf2-cells"

    [data]
    files = ["train.h5"]

    [range]
    energy = [1.0, 100.0]
    dx = [1.0, 5.0]
    dz = [4.0, 15.0]

``kind`` in the table ``[model]`` says what is generated: ``cells`` (the default), ``maps``, ``points``, points in a
layered detector, whose range is one of energies alone, or ``plates``, energies of the plates of any stack, whose range
has particles and angles and takes the stacks from the data. With a table ``[distillation]`` a trained surrogate, the
teacher, is distilled into one of few evaluations; ``[model]`` may then give sizes of the student's networks:

    [distillation]
    teacher = "pbf2-cells"
    student_steps = [2, 1]

All other keys have defaults; see the classes below.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator

from calograd.detector.configuration import Particle
from calograd.detector.material import NUMBERS
from calograd.errors import InputError
from calograd.io.toml import Table, parse_table, read_toml
from calograd.nn.lora import Plan
from calograd.surrogate.card import Units
from calograd.surrogate.cells.model import CellsArchitecture
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.surrogate.plates.model import PlatesArchitecture
from calograd.surrogate.points.model import PointsArchitecture
from calograd.training.loop import EarlyStopping, LoopConfig

MIN_TEACHER_STEPS = 3
"""Fewest steps of a teacher's second-order sampler for one step of the student."""
POINTS_STUDENT = ("shower_width", "shower_blocks", "point_width", "embedding")
"""Sizes that a student of points may have of its own."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Interval = tuple[PositiveFloat, PositiveFloat]
ScheduleName = Literal["karras", "linear", "cosine"]
PreconditioningName = Literal["edm", "noise", "residual-noise"]
MaterialNumber = Literal["density", "radiation_length", "moliere_radius", "critical_energy", "mean_atomic_number",
                         "effective_atomic_number"]  # fmt: skip


class TrainingTable(Table):
    """A table whose former keys are refused with their new names."""

    renamed: ClassVar[dict[str, str]] = {
        "moments_steps": "location_scale_steps", "moments_batch": "location_scale_batch",
        "moments_width": "location_scale_width", "look_every": "report_every", "leaps": "student_steps",
        "lessons": "showers",
    }  # fmt: skip


class DataConfig(Table):
    """Files of showers: cells, maps or points files, libraries of plates, or folders of such."""

    files: Annotated[list[Path], Field(min_length=1)]
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the showers, with all their rows, that is held out."""


class RowsConfig(DataConfig):
    """Files of rows of cells or maps."""

    memory: PositiveFloat | None = None
    """Memory in MB for rows in every process; more rows are streamed from the files. None: read all rows at once."""
    balanced: bool = False
    """True if rows are drawn evenly over the logarithm of the energy, however many there are of each; else every row is
    equally probable."""


def _check_interval(name: str, interval: Interval) -> None:
    low, high = interval
    if low > high:
        raise ValueError(f"{name} = [{low}, {high}]: expected the lower end first")
    if low == high:
        raise ValueError(
            f"{name} = [{low}, {high}] is one value, from which nothing is learnt of others; expected a range, "
            "or adapt a surrogate that has one to these data with 'calograd adapt'"
        )


class EnergyRange(Table):
    """Incident energies, GeV, that the surrogate accepts; the data should reach over it."""

    energy: Interval

    @model_validator(mode="after")
    def _check(self) -> EnergyRange:
        for name in set(type(self).model_fields) & {"energy", "dx", "dz"}:
            _check_interval(name, getattr(self, name))
        return self


class DesignRange(EnergyRange):
    """Energies and designs that the surrogate accepts; the data of every material should reach a little beyond them.

    With ``units = "cm"`` sizes are the same for all materials. With ``units = "scaled"`` dx is in Moliere radii and dz
    in radiation lengths, as `calograd segment --scaled` draws them, so that all materials cover the same conditions.
    """

    dx: Interval
    dz: Interval
    units: Units = "cm"
    particles: Annotated[tuple[Particle, ...], Field(min_length=1)] | None = None
    """Particles, with ``model.beam``."""
    theta: tuple[float, float] | None = None
    """Least and largest angle to the normal of the front face, degrees, with ``model.beam``."""


class StackRange(EnergyRange):
    """Energies, particles and angles that a surrogate of plates accepts; stacks are those that the data cover."""

    particles: Annotated[tuple[Particle, ...], Field(min_length=1)]
    theta: tuple[float, float]
    """Least and largest angle to the normal of the front face, degrees."""


_CELLS, _MAPS, _POINTS, _PLATES = CellsArchitecture(), MapsArchitecture(), PointsArchitecture(), PlatesArchitecture()


class DesignModelConfig(TrainingTable):
    """Sizes that surrogates of cells and of maps have in common."""

    shape_width: Positive
    shape_blocks: Positive
    location_scale_width: Positive
    embedding: Positive
    schedule: ScheduleName = "karras"
    preconditioning: PreconditioningName = "edm"
    material_numbers: tuple[MaterialNumber, ...] | None = None
    """None: what showers scale with (density, X0, R_M, E_c) for one material, the atomic number for several."""

    def sizes(self, n_xy: int, n_z: int, materials: int) -> dict[str, Any]:
        """Return the arguments of an architecture for cells and materials of the data."""
        usual = NUMBERS if materials == 1 else ("effective_atomic_number",)
        numbers = usual if self.material_numbers is None else self.material_numbers
        own = self.model_dump(exclude={"kind", "material_numbers"})
        return own | {"n_xy": n_xy, "n_z": n_z, "material_numbers": numbers}


class CellsModelConfig(DesignModelConfig):
    """Sizes of the networks of cells, see `calograd.surrogate.cells.model.CellsArchitecture`."""

    kind: Literal["cells"] = "cells"
    shape_width: Positive = _CELLS.shape_width
    shape_blocks: Positive = _CELLS.shape_blocks
    pattern_width: Positive = _CELLS.pattern_width
    pattern_blocks: Positive = _CELLS.pattern_blocks
    embedding: Positive = _CELLS.embedding
    location_scale_width: Positive = _CELLS.location_scale_width
    local_units: Annotated[int, Field(ge=0, multiple_of=2)] = _CELLS.local_units
    sums: bool = True
    ends: bool = True
    beam: bool = False

    def architecture(self, n_xy: int, n_z: int, materials: int = 1) -> CellsArchitecture:
        """Return the architecture for cells and materials of the data."""
        return CellsArchitecture(**self.sizes(n_xy, n_z, materials))


class MapsModelConfig(DesignModelConfig):
    """Sizes of the networks of maps, see `calograd.surrogate.maps.model.MapsArchitecture`."""

    kind: Literal["maps"]
    coordinates: Literal["shares", "plain"] = _MAPS.coordinates
    slabs: Positive = _MAPS.slabs
    width: Positive = _MAPS.width
    multipliers: Annotated[tuple[Positive, ...], Field(min_length=1)] = _MAPS.multipliers
    blocks: Positive = _MAPS.blocks
    embedding: Positive = _MAPS.embedding
    dropout: Annotated[float, Field(ge=0, lt=1)] = _MAPS.dropout
    patch: Positive = _MAPS.patch
    dropped: Annotated[float, Field(ge=0, lt=1)] = _MAPS.dropped
    shape_width: Positive = _MAPS.shape_width
    shape_blocks: Positive = _MAPS.shape_blocks
    location_scale_width: Positive = _MAPS.location_scale_width

    def architecture(self, n_xy: int, n_z: int, materials: int = 1) -> MapsArchitecture:
        """Return the architecture for cells of the designs and materials of the data."""
        return MapsArchitecture(**self.sizes(n_xy, n_z, materials))


class PointsModelConfig(TrainingTable):
    """Sizes of the networks of points and how they are sampled, see `PointsArchitecture`.

    The first CaloClouds is ``schedule = "linear"``, ``preconditioning = "noise"``, ``sampler = "ddpm"`` and
    ``steps = 100`` (100 evaluations). CaloClouds II is ``sampler = "heun"``, ``steps = 13`` (25 evaluations). That
    makes the spread of z 6 % too wide, which the default of 12 steps does not.
    """

    kind: Literal["points"]
    shower_width: Positive = _POINTS.shower_width
    shower_blocks: Positive = _POINTS.shower_blocks
    point_width: Positive = _POINTS.point_width
    point_blocks: Positive = _POINTS.point_blocks
    embedding: Positive = _POINTS.embedding
    location_scale_width: Positive = _POINTS.location_scale_width
    schedule: ScheduleName = "karras"
    preconditioning: PreconditioningName = "edm"
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp-2m", "trigflow-ab2"] = "trigflow-ab2"
    steps: Positive = _POINTS.steps
    shower_steps: Positive = _POINTS.shower_steps

    def architecture(self, layers: int) -> PointsArchitecture:
        """Return the architecture for a detector of ``layers`` layers."""
        return PointsArchitecture(layers=layers, **self.model_dump(exclude={"kind"}))

    def student(self, teacher: PointsArchitecture) -> PointsArchitecture:
        """Return the architecture of a student: networks of these sizes, all else as in the teacher."""
        own = self.model_dump(include=set(POINTS_STUDENT))
        return replace(teacher, **own, sampler="consistency", steps=1, shower_steps=1)


class PlatesModelConfig(TrainingTable):
    """Sizes of the networks of plates and how they are sampled, see `PlatesArchitecture`."""

    kind: Literal["plates"]
    layers: Positive = _PLATES.layers
    shower_width: Positive = _PLATES.shower_width
    shower_blocks: Positive = _PLATES.shower_blocks
    layer_width: Positive = _PLATES.layer_width
    layer_blocks: Positive = _PLATES.layer_blocks
    local_units: Annotated[int, Field(ge=0, multiple_of=2)] = _PLATES.local_units
    embedding: Positive = _PLATES.embedding
    dense: bool = False
    """True for a network of the layers that sees all at once, for students."""
    location_scale_width: Positive = _PLATES.location_scale_width
    layer_location_scale_width: Positive = _PLATES.layer_location_scale_width
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp-2m", "trigflow-ab2"] = "trigflow-ab2"
    steps: Positive = _PLATES.steps
    points: bool = False
    """True to learn points in the active plates too; the libraries need deposits (``--record points``)."""
    feature_width: Positive = _PLATES.feature_width
    feature_blocks: Positive = _PLATES.feature_blocks
    feature_steps: Positive = _PLATES.feature_steps
    point_width: Positive = _PLATES.point_width
    point_blocks: Positive = _PLATES.point_blocks
    point_steps: Positive = _PLATES.point_steps
    point_sampler: Literal["ddpm", "ddim", "heun", "dpmpp-2m", "trigflow-ab2"] = "trigflow-ab2"

    def architecture(
        self, distilled_steps: tuple[int, int] | None = None, distilled_point_steps: tuple[int, int] | None = None
    ) -> PlatesArchitecture:
        """Return the architecture of a diffusion model, or of a student of these steps."""
        return PlatesArchitecture(
            **self.model_dump(exclude={"kind"}), distilled_steps=distilled_steps,
            distilled_point_steps=distilled_point_steps,
        )  # fmt: skip


Precision = Literal["auto", "bf16", "fp32"]
"""Precision of matrix products; ``auto``: bf16 where the device multiplies it in hardware, otherwise fp32."""


def precision_for(wanted: Precision, device: torch.device | str) -> Precision:
    """Return the precision with ``auto`` resolved for a device.

    Without instructions of its own for bf16 a processor takes up to sixty times as long for it as for fp32.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if str(device).partition(":")[0] != "cpu" or processor_has_bf16() else "fp32"


@cache
def processor_has_bf16() -> bool:
    """Return True if the processor multiplies bf16 in hardware, as Linux says; False elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = re.findall(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    return bool(flags) and bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags[0].split()))


class LoopTable(TrainingTable):
    """Keys of the loop, common to the training of all kinds."""

    learning_rate: PositiveFloat = 2e-3
    warmup: Positive = 500
    """Steps in which the learning rate rises."""
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    """Decay of the moving average of the weights."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 leaves their number to torch."""
    report_every: Positive = 2000
    """Steps between two reports of validation loss and physics."""
    checkpoint_minutes: PositiveFloat = 2.0
    keep: bool = False
    """True if to keep the weights of every report, in folders ``step-NUMBER``."""

    def loop(self) -> LoopConfig:
        """Return the settings of the loop."""
        return LoopConfig(self.warmup, self.weight_decay, self.report_every, self.checkpoint_minutes)


class TwoStageTraining(LoopTable):
    """Training of a model of two stages: shape and pattern of cells or maps, shower and layers of plates."""

    steps: Positive = 20_000
    location_scale_steps: Positive | tuple[Positive, Positive] = 2500
    """Steps of either network of location and scale, or those of the first stage's and those of the second's.

    Of plates the layers' learns from as many rows as there are layers, the shower's soon knows its few by heart.
    """

    @property
    def phase_steps(self) -> tuple[int, int]:
        """Steps of the networks of location and scale of the first and of the second stage."""
        steps = self.location_scale_steps
        return steps if isinstance(steps, tuple) else (steps, steps)


class DesignTraining(TwoStageTraining):
    """Training of a surrogate of cells or maps."""

    batch: Positive = 1024
    location_scale_batch: Positive = 4096
    precision: Precision = "auto"
    """Precision of the matrix products; weights, optimiser and sampling are float32 always."""
    start: str = ""
    """A surrogate, bundled or a folder, whose weights to start from; empty: random weights."""


class PlatesTraining(TwoStageTraining):
    """Training of a surrogate of plates."""

    batch: Positive = 512
    location_scale_batch: Positive = 512
    start: str = ""
    """A surrogate of plates, bundled or a folder, to which points are added: its networks stay as they are."""
    only_match: bool = False
    """Keep the points of ``start`` as well, and match only their numbers and distances to those of the data."""
    feature_location_scale_steps: Positive = 2000
    """Steps of the quantiles of points, and then of location and scale of the features of layers."""
    feature_steps: Positive = 6000
    """Steps of the network of the features of layers."""
    point_steps: Positive = 6000
    """Steps of the points' network."""
    point_batch: Positive = 32
    """Showers a step, with all their points, of the points' network and of their quantiles."""
    match_showers: Annotated[int, Field(ge=0)] = 40_000
    """Training showers that numbers of hits and R_E are matched to, at most all; 0: none."""


class PointsTraining(LoopTable):
    """Training of a surrogate of points."""

    location_scale_steps: Positive = 2000
    """Steps of the networks of location and scale."""
    location_scale_batch: Positive = 1024
    shower_steps: Annotated[int, Field(ge=0)] = 20_000
    shower_batch: Positive = 512
    point_steps: Positive = 20_000
    point_batch: Positive = 192
    """Layers a step, with all their points; a student sees some of the points."""
    hit_showers: Annotated[int, Field(ge=0)] = 4000
    """Showers generated, twice, to match numbers of hits to those of the data; 0: numbers of points stay as learnt."""


class ProgressiveDistillation(TrainingTable):
    """Progressive distillation of a surrogate of cells, maps or plates, see `calograd.diffusion.progressive`.

    Of plates the shape is the shower as a whole, and the pattern its layers. With `PlatesTraining.start` the points of
    the teacher are distilled, and added to that surrogate: then the shape is the features of the layers, and the
    pattern the points.
    """

    teacher: Path
    """Bundled name or folder. A teacher that is distilled itself takes its own steps, a multiple of the student's."""
    student_steps: tuple[Positive, Positive]
    """Evaluations of the student's networks of shape and of pattern."""
    shape_steps: Positive = 24
    """Steps of the teacher's sampler of the shape; a step of the student takes its part of them, three at least."""
    pattern_steps: Positive = 12
    """Steps of the teacher's sampler of the pattern, shared in the same way."""
    showers: Annotated[int, Field(ge=0)] = 0
    """Showers whose targets the teacher prepares before the training, some 1.5 kB each; 0: every step makes its own."""

    @property
    def sub_steps(self) -> tuple[int, int]:
        """Steps of the teacher for every step of the student, of shape and of pattern."""
        shape, pattern = self.student_steps
        return (
            max(MIN_TEACHER_STEPS, ceil(self.shape_steps / shape)),
            max(MIN_TEACHER_STEPS, ceil(self.pattern_steps / pattern)),
        )


class PointsDistillation(TrainingTable):
    """Distillation of a surrogate of points into one evaluation, see `calograd.diffusion.consistency`."""

    teacher: Path
    """Bundled name or folder."""
    showers: Positive = 131_072
    """Showers whose trajectories the teacher prepares before the training."""
    layers: Positive = 262_144
    """Layers of these showers, at most, whose points' trajectories are prepared."""
    steps: Positive = 16
    """Steps of the teacher's sampler."""
    spread_steps: Positive = 1000
    """Steps of the fit of the showers' mean and covariance."""


class DesignRun(Table):
    """Training or distillation of a surrogate of cells or maps."""

    name: Name
    data: RowsConfig
    range: DesignRange
    model: Annotated[CellsModelConfig | MapsModelConfig, Field(discriminator="kind")] = CellsModelConfig()
    training: DesignTraining = DesignTraining()
    distillation: ProgressiveDistillation | None = None

    @model_validator(mode="after")
    def _beam_has_its_range(self) -> DesignRun:
        given = [name for name in ("particles", "theta") if getattr(self.range, name) is not None]
        if isinstance(self.model, CellsModelConfig) and self.model.beam:
            if len(given) < 2:
                raise ValueError("model.beam needs range.particles and range.theta")
        elif given and self.distillation is None:
            raise ValueError(f"range.{given[0]} belongs to model.beam = true")
        return self

    @model_validator(mode="after")
    def _one_beginning(self) -> DesignRun:
        if self.distillation is not None and self.training.start:
            raise ValueError("training.start has no place beside [distillation]: a student begins with its teacher")
        return self

    @model_validator(mode="before")
    @classmethod
    def _cells_by_default(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and isinstance(raw.get("model"), dict):
            return raw | {"model": {"kind": "cells"} | raw["model"]}
        return raw


class PointsRun(Table):
    """Training or distillation of a surrogate of points."""

    name: Name
    data: DataConfig
    range: EnergyRange
    model: PointsModelConfig
    training: PointsTraining = PointsTraining()
    distillation: PointsDistillation | None = None

    @field_validator("distillation")
    @classmethod
    def _sizes_of_a_student(cls, distillation: PointsDistillation | None, info: ValidationInfo) -> Any:
        model = info.data.get("model")  # missing if it does not fit itself
        foreign = sorted(model.model_fields_set - {"kind", *POINTS_STUDENT}) if model else []
        if distillation is not None and foreign:
            raise ValueError(f"model.{foreign[0]} is the teacher's; expected no more than {', '.join(POINTS_STUDENT)}")
        return distillation


class PlatesRun(Table):
    """Training or distillation of a surrogate of plates."""

    name: Name
    data: DataConfig
    range: StackRange
    model: PlatesModelConfig
    training: PlatesTraining = PlatesTraining()
    distillation: ProgressiveDistillation | None = None

    @model_validator(mode="after")
    def _start_of_points(self) -> PlatesRun:
        if self.training.start and not self.model.points:
            raise ValueError("training.start adds points to a surrogate of plates; set model.points = true")
        if self.training.only_match and (
            not self.training.start or self.distillation or not self.training.match_showers
        ):
            raise ValueError(
                "training.only_match keeps the points of training.start and matches them to training.match_showers "
                "showers; set both, and leave [distillation] out"
            )
        return self


RunConfig = DesignRun | PointsRun | PlatesRun
_FORMER_KINDS = {"cloud": "points", "map32": "maps"}
_RUNS: dict[str, type[DesignRun] | type[PointsRun] | type[PlatesRun]] = {
    "cells": DesignRun, "maps": DesignRun, "points": PointsRun, "plates": PlatesRun,
}  # fmt: skip


def read_config(path: Path) -> RunConfig:
    """Read the TOML file of a training of any kind; paths in it are relative to the file.

    Raises:
        InputError: missing, not TOML, an unknown key (with the nearest known one) or a value that does not fit.
    """
    return parse_config(read_toml(path), str(path), path.parent)


def parse_config(raw: dict[str, Any], source: str, folder: Path) -> RunConfig:
    """Return the configuration of a training from plain data.

    Args:
        raw: tables, as `read_toml` returns them.
        source: origin of the tables; errors begin with it.
        folder: paths are relative to it.
    """
    model = raw.get("model")
    kind = model.get("kind", "cells") if isinstance(model, dict) else "cells"
    if isinstance(kind, str) and kind in _FORMER_KINDS:
        raise InputError(f"{source}: model.kind = '{kind}' is now called '{_FORMER_KINDS[kind]}'; rename it")
    if not isinstance(kind, str) or kind not in _RUNS:
        raise InputError(f"{source}: model.kind: expected one of {', '.join(_RUNS)}")
    config = parse_table(_RUNS[kind], raw, source)
    files = [(folder / file).resolve() for file in config.data.files]
    changes: dict[str, Any] = {"data": config.data.model_copy(update={"files": files})}
    begun = config.training.start if isinstance(config, DesignRun | PlatesRun) else ""
    if begun and (folder / begun).is_dir():
        start = str((folder / begun).resolve())
        changes["training"] = config.training.model_copy(update={"start": start})
    if config.distillation is not None and (folder / config.distillation.teacher).is_dir():
        teacher = (folder / config.distillation.teacher).resolve()
        changes["distillation"] = config.distillation.model_copy(update={"teacher": teacher})
    return config.model_copy(update=changes)


class AdaptConfig(TrainingTable):
    """Adaptation of a surrogate; keys that are None have a default for every method, see `METHOD_DEFAULTS`."""

    method: Literal["lora", "bitfit", "full", "scratch"] = "lora"
    """``scratch``: new weights of the base's architecture, as a control."""
    rank: Positive = 8
    alpha: PositiveFloat = 16.0
    targets: tuple[str, ...] | None = None
    """Patterns of names of linear layers, see `calograd.nn.lora.Plan`; None: those of the base's kind, see
    `calograd.training.tasks.adaptation.AdaptationTask.TARGETS`."""
    balanced: bool = False
    """True if all energies of the data count alike, evenly over their logarithm, however many showers have them; else
    every row does."""
    range: Literal["data", "base"] = "data"
    """Range of the adapted surrogate: that of the data, or on trust that of its base."""
    steps: Positive | None = None
    """Most steps of the diffusion; it stops when the loss of the held-out showers no longer falls."""
    location_scale_steps: Positive | None = None
    """Most steps of either network of location and scale."""
    learning_rate: PositiveFloat | None = None
    boost: Annotated[float, Field(ge=1)] | None = None
    """Highest factor of the learning rate while the loss falls fast, see `calograd.training.loop.ValidationRecord`."""
    batch: Positive = 256
    location_scale_batch: Positive = 1024
    warmup: Positive = 50
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.99
    report_every: Positive = 50
    """Steps between two reports of the held-out showers' loss."""
    patience: Positive = 8
    """Reports without a new best loss before a phase ends."""
    precision: Precision = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    checkpoint_minutes: PositiveFloat = 2.0

    def plan(self) -> Plan:
        """Return the plan of the adapter, whose targets are known; from scratch everything is learnt."""
        if self.method == "scratch":
            return Plan("full")
        assert self.targets is not None
        return Plan(self.method, self.rank, self.alpha, self.targets)

    def resolved(self, device: torch.device | str = "cpu") -> AdaptConfig:
        """Return the configuration with the method's defaults in place of None, and the precision for a device."""
        defaults = METHOD_DEFAULTS[self.method]
        missing: dict[str, Any] = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return self.model_copy(update=missing | {"precision": precision_for(self.precision, device)})

    def loop(self) -> LoopConfig:
        """Return the settings of the loop of a resolved configuration; an adapter is not drawn to zero."""
        assert self.boost is not None
        weight_decay = 1e-4 if self.method == "scratch" else 0.0
        return LoopConfig(
            self.warmup, weight_decay, self.report_every, self.checkpoint_minutes,
            EarlyStopping(self.patience, self.boost),
        )  # fmt: skip


METHOD_DEFAULTS: dict[str, dict[str, float]] = {
    "lora": {"steps": 1500, "location_scale_steps": 1500, "learning_rate": 5e-4, "boost": 4.0},
    "bitfit": {"steps": 1500, "location_scale_steps": 1500, "learning_rate": 5e-3, "boost": 4.0},
    "full": {"steps": 1500, "location_scale_steps": 1500, "learning_rate": 5e-4, "boost": 4.0},
    "scratch": {"steps": 6000, "location_scale_steps": 2500, "learning_rate": 2e-3, "boost": 1.0},
}
"""Defaults of `AdaptConfig` by method."""
