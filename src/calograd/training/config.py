"""What a training is, in one TOML file.

    name = "pbf2-cells"

    [data]
    files = ["train.h5"]

    [range]
    energy = [1.0, 100.0]
    dx = [1.0, 5.0]
    dz = [4.0, 15.0]

With a table ``[distillation]`` a trained surrogate is distilled into one of few evaluations; its sizes are
the teacher's but for those of its two networks that ``[model]`` gives:

    [distillation]
    teacher = "pbf2-cells"
    student_steps = [2, 1]

Every other key has a default; see the classes below.
"""

from __future__ import annotations

import tomllib
from difflib import get_close_matches
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calograd.detector.material import NUMBERS
from calograd.errors import InputError
from calograd.surrogate.card import Units
from calograd.surrogate.cells.model import CellsArchitecture
from calograd.surrogate.maps.model import MapsArchitecture
from calograd.surrogate.registry import KINDS

FEWEST = 3
"""Steps of a teacher's second-order sampler for one step of the student."""
Positive = Annotated[int, Field(gt=0)]
MaterialNumber = Literal["density", "radiation_length", "moliere_radius", "critical_energy", "mean_atomic_number",
                         "effective_atomic_number"]  # fmt: skip
Interval = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Table(BaseModel):
    """A table of a TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Table):
    """Where the showers come from. Cells files, each with its own numbering of showers, or folders of such."""

    files: Annotated[list[Path], Field(min_length=1)]
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of the showers, with all their rows, that is never trained on."""


class RowsConfig(DataConfig):
    """Where rows of cells or maps come from."""

    memory: Annotated[float, Field(gt=0)] | None = None
    """MB that they may take in every process; more are read from the files as the training goes on."""


class RangeConfig(Table):
    """The range that the surrogate will accept; the data of every material should reach a little beyond it.

    Energies in GeV. With ``units = "cm"`` sizes are the same for all materials; with ``units = "scaled"`` dx is in
    Moliere radii and dz in radiation lengths, as `calograd segment --scaled` draws them, so that the conditions cover
    the same region in all materials.
    """

    energy: Interval
    dx: Interval
    dz: Interval
    units: Units = "cm"

    @model_validator(mode="after")
    def _check(self) -> RangeConfig:
        for name in ("energy", "dx", "dz"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low}, {high}]: expected the lower end first")
            if low == high:
                raise ValueError(
                    f"{name} = [{low}, {high}] is one value, from which nothing is learnt of others; expected a range, "
                    "or adapt a surrogate that has one to these data with 'calograd adapt'"
                )
        return self


_DEFAULT = CellsArchitecture()


class ModelConfig(Table):
    """Sizes of the networks; meaning and defaults are those of `calograd.surrogate.cells.model.CellsArchitecture`.

    ``material_numbers`` left out: density, X0, R_M and E_c for one material, the mean atomic number for several.
    """

    kind: Literal["cells"] = "cells"
    shape_width: Positive = _DEFAULT.shape_width
    shape_blocks: Positive = _DEFAULT.shape_blocks
    pattern_width: Positive = _DEFAULT.pattern_width
    pattern_blocks: Positive = _DEFAULT.pattern_blocks
    embedding: Positive = _DEFAULT.embedding
    location_scale_width: Positive = _DEFAULT.location_scale_width
    local_units: Annotated[int, Field(ge=0, multiple_of=2)] = _DEFAULT.local_units
    sums: bool = True
    """Files from before it was there have none."""
    ends: bool = True
    """Likewise."""
    schedule: Literal["karras", "linear", "cosine"] = "karras"
    preconditioning: Literal["edm", "noise", "residual-noise"] = "edm"
    material_numbers: tuple[MaterialNumber, ...] | None = None

    def architecture(self, n_xy: int, n_z: int, materials: int = 1) -> CellsArchitecture:
        """With the numbers of cells and of materials of the data."""
        numbers = _material_numbers(self.material_numbers, materials)
        sizes = self.model_dump(exclude={"kind", "material_numbers"})
        return CellsArchitecture(n_xy=n_xy, n_z=n_z, material_numbers=numbers, **sizes)


def _material_numbers(chosen: tuple[MaterialNumber, ...] | None, materials: int) -> tuple[str, ...]:
    """The chosen ones; else those that showers scale with for one material, the effective atomic number for several."""
    usual = NUMBERS if materials == 1 else ("effective_atomic_number",)
    return usual if chosen is None else chosen


_MAPS = MapsArchitecture()


class MapsModelConfig(Table):
    """Sizes of the networks of maps; see `calograd.surrogate.maps.model.MapsArchitecture`.

    ``material_numbers`` left out: as of `ModelConfig`.
    """

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
    schedule: Literal["karras", "linear", "cosine"] = "karras"
    preconditioning: Literal["edm", "noise", "residual-noise"] = "edm"
    material_numbers: tuple[MaterialNumber, ...] | None = None

    def architecture(self, n_xy: int, n_z: int, materials: int = 1) -> MapsArchitecture:
        """With the numbers of cells of the designs and of materials of the data."""
        numbers = _material_numbers(self.material_numbers, materials)
        sizes = self.model_dump(exclude={"kind", "material_numbers"})
        return MapsArchitecture(n_xy=n_xy, n_z=n_z, material_numbers=numbers, **sizes)


class TrainingConfig(Table):
    """How it is trained."""

    steps: Positive = 20_000
    batch: Positive = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Positive = 500
    ema: Annotated[float, Field(gt=0, lt=1)] = 0.9995
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    location_scale_steps: Positive = 2500
    location_scale_batch: Positive = 4096
    precision: Literal["bf16", "fp32"] = "bf16"
    """Of the matrix products; weights, optimiser and sampling are float32 always."""
    seed: Annotated[int, Field(ge=0)] = 0
    start: str = ""
    """A surrogate whose weights to begin with, bundled or a folder; random ones if left out."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads; 0 leaves it to torch."""
    report_every: Positive = 2000
    """Steps between two looks at validation loss and physics."""
    checkpoint_minutes: Annotated[float, Field(gt=0)] = 2.0
    keep: bool = False
    """Whether to keep the weights of every report, in folders ``step-NUMBER``."""


class Distillation(Table):
    """Of a trained surrogate into one of few evaluations, see `calograd.diffusion.progressive`."""

    teacher: Path
    """A bundled name, or its folder. Distilled itself, it takes its own steps, a multiple of these."""
    student_steps: tuple[Positive, Positive]
    """Evaluations of the student, of shape and pattern."""
    shape_steps: Positive = 24
    """Steps of a diffusion model's sampler; a step of the student takes its part of them, three at least."""
    pattern_steps: Positive = 12
    """Likewise."""
    showers: Annotated[int, Field(ge=0)] = 0
    """Showers whose targets the teacher prepares before the training, some 1.5 kB each. 0: every
    step has targets of its own."""

    @property
    def sub_steps(self) -> tuple[int, int]:
        """Steps of a diffusion model for every step of the student, of shape and pattern."""
        shape, pattern = self.student_steps
        return max(FEWEST, ceil(self.shape_steps / shape)), max(FEWEST, ceil(self.pattern_steps / pattern))


class RunConfig(Table):
    """A whole training."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
    data: RowsConfig
    range: RangeConfig
    model: Annotated[ModelConfig | MapsModelConfig, Field(discriminator="kind")] = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _one_beginning(self) -> RunConfig:
        if self.distillation is not None and self.training.start:
            raise ValueError("training.start has no place beside [distillation]: a student begins with its teacher")
        return self

    @model_validator(mode="before")
    @classmethod
    def _cells_by_default(cls, raw: Any) -> Any:
        """A model that does not say its kind is of cells."""
        if isinstance(raw, dict) and isinstance(raw.get("model"), dict):
            return raw | {"model": {"kind": "cells"} | raw["model"]}
        return raw


def read_config(path: Path) -> RunConfig:
    """Read a training's TOML file; paths in it are relative to the file.

    Raises:
        InputError: missing, not TOML, an unknown key (with the nearest valid name) or a value that does not fit.
    """
    return parse_config(read_tables(path), str(path), path.parent)


def read_tables(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `InputError` if it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def parse_config(raw: dict[str, Any], source: str, folder: Path) -> RunConfig:
    """Check a configuration; ``source`` is named in errors, paths are relative to ``folder``."""
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {first_complaint(error, RunConfig)}") from error
    files = [(folder / file).resolve() for file in config.data.files]
    changes: dict[str, Any] = {"data": config.data.model_copy(update={"files": files})}
    if config.training.start and (folder / config.training.start).is_dir():
        start = str((folder / config.training.start).resolve())
        changes["training"] = config.training.model_copy(update={"start": start})
    if config.distillation is not None and (folder / config.distillation.teacher).is_dir():
        teacher = (folder / config.distillation.teacher).resolve()
        changes["distillation"] = config.distillation.model_copy(update={"teacher": teacher})
    return config.model_copy(update=changes)


_MODELS: dict[str, type[BaseModel]] = {"cells": ModelConfig, "maps": MapsModelConfig}


def first_complaint(error: ValidationError, whole: type[BaseModel]) -> str:
    """The first thing wrong with a configuration of the class ``whole``, in words."""
    first = error.errors()[0]
    kind = next((str(part) for part in first["loc"][1:2] if first["loc"][0] == "model"), "")
    parts = [str(part) for number, part in enumerate(first["loc"]) if number != 1 or kind not in _MODELS]
    if first["type"] == "union_tag_invalid":
        return f"model.kind: expected one of {', '.join(KINDS)}"
    where = ".".join(parts)
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    table = whole
    for part in parts[:-1]:
        table = _table_of(_MODELS.get(kind, table.model_fields[part].annotation))
    near = get_close_matches(parts[-1], table.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(table.model_fields)}"
    return f"unknown key '{where}'; {hint}"


def _table_of(annotation: Any) -> type[BaseModel]:
    """The table that a field holds, which may be optional."""
    choices = [choice for choice in (annotation, *get_args(annotation)) if isinstance(choice, type)]
    return next(choice for choice in choices if issubclass(choice, BaseModel))
