"""The objective of an optimisation in TOML.

    [background]                 # left out: the emulator with its defaults
    kind = "emulator"            # "map" with a file; "none"
    b0 = 5e-3                    # GeV/cm3

    [readout]                    # left out: energies are read as they are
    light_yield = 2000           # photo-electrons per GeV

    [mask]
    k = 200                      # 1/GeV; left out: 4 / standard deviation of the background

    [utility]                    # left out: the squared error with its defaults
    kind = "squared-error"       # "energy-resolution", "containment", "position-resolution"
    truth = "incident"

    [[cost]]
    kind = "volume"              # "channels", "depth"
    weight = 1e-5

    [spectrum]
    energies = [1, 10, 50, 100]  # GeV
    weights = [1, 1, 1, 1]

The spectrum's energies have to be given; all that is left out has the defaults of the classes below.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from calograd.errors import InputError
from calograd.objective.background import Background, Emulator, read_density_map
from calograd.objective.cost import Channels, Cost, Depth, Priced, Volume
from calograd.objective.readout import Readout
from calograd.objective.reconstruction import Chain, SoftMask
from calograd.objective.utility import (
    Containment,
    EnergyResolution,
    Objective,
    PositionResolution,
    SquaredError,
    Utility,
)

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_EMULATOR = Emulator()


class EmulatorConfig(_Table):
    """Meaning and defaults are those of `calograd.objective.background.Emulator`."""

    kind: Literal["emulator"]
    b0: Positive = _EMULATOR.b0
    lam: Positive = _EMULATOR.lam
    sigma_event: NotNegative = _EMULATOR.sigma_event
    shape_cell: Positive = _EMULATOR.shape_cell
    diffusion: Annotated[float, Field(ge=0, le=1)] = _EMULATOR.diffusion

    def build(self) -> Background:
        """The background."""
        return Emulator(**self.model_dump(exclude={"kind"}))


class MapConfig(_Table):
    """A background map, see `calograd.objective.background.write_density_map`."""

    kind: Literal["map"]
    file: Path

    def build(self) -> Background:
        """The background, from the file."""
        return read_density_map(self.file)


class NoBackgroundConfig(_Table):
    """No background, and no mask."""

    kind: Literal["none"]

    def build(self) -> None:
        """No background."""


_READOUT = Readout()


class ReadoutConfig(_Table):
    """Meaning and defaults are those of `calograd.objective.readout.Readout`."""

    light_yield: Positive | None = None
    saturation: Positive | None = None
    noise: NotNegative = _READOUT.noise
    threshold: float | None = None
    threshold_width: Positive = _READOUT.threshold_width

    def build(self) -> Readout:
        """The readout."""
        return Readout(**self.model_dump())


class MaskConfig(_Table):
    """Meaning and default are those of `calograd.objective.reconstruction.SoftMask`."""

    k: Positive | None = None


_SQUARED_ERROR = SquaredError()


class SquaredErrorConfig(_Table):
    """See `calograd.objective.utility.SquaredError`."""

    kind: Literal["squared-error"]
    alpha: Positive = _SQUARED_ERROR.alpha
    truth: Literal["deposited", "incident"] = _SQUARED_ERROR.truth

    def build(self) -> Utility:
        """The utility."""
        return SquaredError(self.alpha, self.truth)


class EnergyResolutionConfig(_Table):
    """See `calograd.objective.utility.EnergyResolution`."""

    kind: Literal["energy-resolution"]
    robust: bool = False

    def build(self) -> Utility:
        """The utility."""
        return EnergyResolution(self.robust)


class ContainmentConfig(_Table):
    """See `calograd.objective.utility.Containment`."""

    kind: Literal["containment"]

    def build(self) -> Utility:
        """The utility."""
        return Containment()


class PositionResolutionConfig(_Table):
    """See `calograd.objective.utility.PositionResolution`."""

    kind: Literal["position-resolution"]

    def build(self) -> Utility:
        """The utility."""
        return PositionResolution()


class CostConfig(_Table):
    """See the costs of `calograd.objective.utility`."""

    kind: Literal["volume", "channels", "depth"]
    weight: NotNegative
    area: Positive | None = None
    """Of channels only, cm2."""

    @model_validator(mode="after")
    def _check(self) -> CostConfig:
        if self.area is not None and self.kind != "channels":
            raise ValueError(f"area = {self.area} means nothing to a cost of kind '{self.kind}'; leave it out")
        return self

    def build(self) -> Cost:
        """The cost."""
        if self.kind == "channels":
            return Channels() if self.area is None else Channels(self.area)
        return Volume() if self.kind == "volume" else Depth()


class SpectrumConfig(_Table):
    """Incident energies in GeV and their weights."""

    energies: Annotated[tuple[Positive, ...], Field(min_length=1)]
    weights: tuple[NotNegative, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> SpectrumConfig:
        if self.weights is not None and (len(self.weights) != len(self.energies) or not sum(self.weights) > 0):
            raise ValueError(
                f"weights = {list(self.weights)} for {len(self.energies)} energies; expected one each, not all zero"
            )
        return self


class ObjectiveConfig(_Table):
    """Everything that a `calograd.objective.utility.Objective` is made of."""

    background: Annotated[EmulatorConfig | MapConfig | NoBackgroundConfig, Field(discriminator="kind")] = (
        EmulatorConfig(kind="emulator")
    )
    readout: ReadoutConfig | None = None
    mask: MaskConfig = MaskConfig()
    utility: Annotated[
        SquaredErrorConfig | EnergyResolutionConfig | ContainmentConfig | PositionResolutionConfig,
        Field(discriminator="kind"),
    ] = SquaredErrorConfig(kind="squared-error")
    cost: tuple[CostConfig, ...] = ()
    pricing: Literal["absolute", "relative"] = "absolute"
    """How costs are subtracted, see `calograd.objective.cost.Priced`."""
    spectrum: SpectrumConfig

    def build(self) -> Objective:
        """The objective.

        Raises:
            FormatError: a background map that is missing or cannot be used.
        """
        utility = self.utility.build()
        if self.cost:
            costs = tuple((cost.build(), cost.weight) for cost in self.cost)
            utility = Priced(utility, costs, self.pricing == "relative")
        readout = self.readout.build() if self.readout else None
        chain = Chain(self.background.build(), readout, SoftMask(self.mask.k))
        return Objective(chain, utility, self.spectrum.energies, self.spectrum.weights)

    def located(self, folder: Path) -> ObjectiveConfig:
        """The same, with a path to a background map that was relative to ``folder`` made absolute."""
        if not isinstance(self.background, MapConfig):
            return self
        file = (folder / self.background.file).resolve()
        return self.model_copy(update={"background": self.background.model_copy(update={"file": file})})


def parse_objective(raw: dict[str, Any], source: str, folder: Path) -> ObjectiveConfig:
    """Check the tables of an objective; ``source`` is named in errors, paths are relative to ``folder``.

    Raises:
        InputError: an unknown key (with the nearest valid name) or a value that does not fit.
    """
    try:
        return ObjectiveConfig.model_validate(raw).located(folder)
    except ValidationError as error:
        raise InputError(f"{source}: {first_complaint(error, ObjectiveConfig)}") from error


def first_complaint(error: ValidationError, root: type[BaseModel]) -> str:
    """One line about the first thing that is wrong in tables of the model ``root``, which may hold tagged unions."""
    first = error.errors()[0]
    tables, where = [root], list[str]()
    unknown = first["type"] == "extra_forbidden"
    for part in first["loc"][:-1] if unknown else first["loc"]:
        holder = next((table for table in tables if part in table.model_fields), None)
        if holder is not None:
            tables = _tables(holder.model_fields[str(part)].annotation)
        elif isinstance(part, str):  # the tag of a union
            tables = [table for table in tables if part in get_args(table.model_fields["kind"].annotation)]
            continue
        where.append(str(part))
    if not unknown:
        return f"{'.'.join(where)}: {first['msg']}"
    key, known = str(first["loc"][-1]), [name for table in tables for name in table.model_fields]
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{'.'.join([*where, key])}'; {hint}"


def _tables(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation: itself, members of a union, elements of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]
