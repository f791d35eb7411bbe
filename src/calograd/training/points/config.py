"""What the training of a surrogate of a layered detector is, in one TOML file.

    name = "siw-cloud"

    [data]
    files = ["train-points.h5"]

    [range]
    energy = [10.0, 90.0]

    [model]
    kind = "points"

With a table ``[distillation]`` and a ``teacher`` in it, a trained surrogate is distilled into one whose networks take a
single evaluation; ``[model]`` then gives the sizes of these networks and nothing else. ``kind = "grid30"`` is the
baseline of `calograd.surrogate.points.grids`. Every other key has a default; see the classes below.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from calograd.errors import InputError
from calograd.io.differences import bring_up_to_date
from calograd.surrogate.points.model import PointsArchitecture
from calograd.training.config import (
    DataConfig,
    Interval,
    Positive,
    RunConfig,
    Table,
    first_complaint,
    parse_config,
    read_tables,
)

_DEFAULT = PointsArchitecture()
STUDENT = ("shower_width", "shower_blocks", "point_width", "embedding")
"""What a student may have of its own."""


GONE = {
    "distillation.shower_steps": "a student's showers take one evaluation; leave it out",
    "distillation.ema": "the moving average is that of the training: write training.ema",
}
"""Keys of older releases."""


class StackRange(Table):
    """The range of energies that the surrogate will accept, GeV; the data should fill it."""

    energy: Interval

    @model_validator(mode="after")
    def _check(self) -> StackRange:
        if self.energy[0] >= self.energy[1]:
            raise ValueError(f"energy = {list(self.energy)}: expected the lower end first")
        return self


class CloudModelConfig(Table):
    """Sizes of the networks and how they are sampled; see `calograd.surrogate.points.model.PointsArchitecture`.

    The variants of the literature: ``schedule = "linear"``, ``preconditioning = "noise"``, ``sampler = "ddpm"``,
    ``steps = 100`` is the first CaloClouds' (100 evaluations); ``sampler = "heun"``, ``steps = 13`` CaloClouds II's (25
    evaluations). It makes the spread of z 6 % too wide, which the default, of 12, does not.
    """

    kind: Literal["points"] = "points"
    shower_width: Positive = _DEFAULT.shower_width
    shower_blocks: Positive = _DEFAULT.shower_blocks
    point_width: Positive = _DEFAULT.point_width
    point_blocks: Positive = _DEFAULT.point_blocks
    embedding: Positive = _DEFAULT.embedding
    location_scale_width: Positive = _DEFAULT.location_scale_width
    schedule: Literal["karras", "linear", "cosine"] = "karras"
    preconditioning: Literal["edm", "noise", "residual-noise"] = "edm"
    sampler: Literal["ddpm", "ddim", "heun", "dpmpp-2m", "trigflow-ab2"] = "trigflow-ab2"
    steps: Positive = _DEFAULT.steps
    shower_steps: Positive = _DEFAULT.shower_steps

    def architecture(self, layers: int) -> PointsArchitecture:
        """For a detector of so many layers."""
        return PointsArchitecture(layers=layers, **self.model_dump(exclude={"kind"}))

    def student(self, teacher: PointsArchitecture) -> PointsArchitecture:
        """Of a student: networks of these sizes, all else the teacher's."""
        own = self.model_dump(include=set(STUDENT))
        return replace(teacher, **own, sampler="consistency", steps=1, shower_steps=1)


class Distillation(Table):
    """Of a trained surrogate into one of a single evaluation, see `calograd.training.points.distillation`."""

    teacher: Path
    """Its folder."""
    showers: Positive = 131_072
    """Showers whose trajectories are walked."""
    layers: Positive = 262_144
    """Layers of these showers of whose points trajectories are walked, at most."""
    steps: Positive = 16
    """Of a trajectory."""
    spread_steps: Positive = 1000
    """Of the fit of the showers' mean and covariance."""


class CloudTraining(Table):
    """How it is trained."""

    location_scale_steps: Positive = 2000
    location_scale_batch: Positive = 1024
    shower_steps: Annotated[int, Field(ge=0)] = 20_000
    shower_batch: Positive = 512
    point_steps: Positive = 20_000
    point_batch: Positive = 192
    """Layers a step, with all their points; of a student with some."""
    hit_showers: Annotated[int, Field(ge=0)] = 4000
    """Generated, twice, to bring numbers of hits to those of the data; 0: points stay as many as they were taught."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Positive = 500
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    seed: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 leaves it to torch."""
    report_every: Positive = 2000
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0


class CloudRunConfig(Table):
    """A whole training."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    data: DataConfig
    range: StackRange
    model: CloudModelConfig = CloudModelConfig()
    training: CloudTraining = CloudTraining()
    distillation: Distillation | None = None

    @field_validator("distillation")
    @classmethod
    def _check(cls, distillation: Distillation | None, so_far: ValidationInfo) -> Distillation | None:
        model = so_far.data.get("model")  # missing if it does not fit itself
        foreign = sorted(model.model_fields_set - {"kind", *STUDENT}) if model else []
        if distillation is not None and foreign:
            raise ValueError(f"model.{foreign[0]} is the teacher's; expected no more than {', '.join(STUDENT)}")
        return distillation


def read_training(path: Path) -> RunConfig | CloudRunConfig:
    """Read a TOML file of any kind of surrogate; paths in it are relative to the file.

    Raises:
        InputError: missing, not TOML, an unknown key (with the nearest valid name) or a value that does not fit.
    """
    raw = read_tables(path)
    model = raw.get("model")
    kind = model.get("kind") if isinstance(model, dict) else None
    if kind == "points":
        return parse_cloud_config(raw, str(path), path.parent)
    return parse_config(raw, str(path), path.parent)


def parse_cloud_config(raw: dict[str, Any], source: str, folder: Path) -> CloudRunConfig:
    """Check a configuration; ``source`` is named in errors, paths are relative to ``folder``.

    Raises:
        InputError: an unknown key (with the nearest valid name) or a value that does not fit.
    """
    raw = bring_up_to_date(raw, source, {}, GONE)
    try:
        config = CloudRunConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {first_complaint(error, CloudRunConfig)}") from error
    files = [(folder / file).resolve() for file in config.data.files]
    changes: dict[str, Any] = {"data": config.data.model_copy(update={"files": files})}
    if config.distillation is not None and (folder / config.distillation.teacher).is_dir():
        teacher = (folder / config.distillation.teacher).resolve()
        changes["distillation"] = config.distillation.model_copy(update={"teacher": teacher})
    return config.model_copy(update=changes)
