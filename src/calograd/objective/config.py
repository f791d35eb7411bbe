"""Configuration of an objective in TOML.

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

    [beam]                       # left out: photons on the axis
    particle = "e-"              # "gamma", "e+"
    position = "uniform"         # evenly over the central cell; or [0.2, -0.4], cm, or with unit = "pitch" in pitches
    theta = 20                   # degrees
    phi = [0, 360]               # one angle, or a range

    [spectrum]
    energies = [1, 10, 50, 100]  # GeV
    weights = [1, 1, 1, 1]

The spectrum's energies are required. Other values default to those of the classes below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from calograd.detector.configuration import Particle
from calograd.detector.particles import ParticleBeam
from calograd.io.toml import Table, parse_table, read_toml
from calograd.objective.background import BackgroundMap, ExponentialBackground, read_background_map
from calograd.objective.cost import ChannelCost, Cost, DepthCost, PricedUtility, VolumeCost
from calograd.objective.measurement import Measurement
from calograd.objective.readout import Readout
from calograd.objective.reconstruction import SoftMask
from calograd.objective.stacks import LearntResolution, StackObjective, VisibleResolution
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


class Builder(Table):
    """A table whose keys, but for ``kind``, are the arguments of what it builds."""

    builds: ClassVar[Callable[..., Any]]

    def build(self) -> Any:
        """Return what the table describes."""
        return self.builds(**self.model_dump(exclude={"kind"}))


class EmulatorConfig(Builder):
    """Table of `calograd.objective.background.ExponentialBackground`."""

    builds = ExponentialBackground
    kind: Literal["emulator"]
    b0: Positive = ExponentialBackground.b0
    lam: Positive = ExponentialBackground.lam
    sigma_event: NotNegative = ExponentialBackground.sigma_event
    shape_cell: Positive = ExponentialBackground.shape_cell
    diffusion: Annotated[float, Field(ge=0, le=1)] = ExponentialBackground.diffusion


class MapConfig(Table):
    """Table of a background map, see `calograd.objective.background.write_background_map`."""

    kind: Literal["map"]
    file: Path

    def build(self) -> BackgroundMap:
        """Return the background that the file holds."""
        return read_background_map(self.file)


class NoBackgroundConfig(Table):
    """Table of a measurement without background and mask."""

    kind: Literal["none"]

    def build(self) -> None:
        """No background."""


class ReadoutConfig(Builder):
    """Table of `calograd.objective.readout.Readout`."""

    builds = Readout
    light_yield: Positive | None = None
    saturation: Positive | None = None
    noise: NotNegative = Readout.noise
    threshold: float | None = None
    threshold_width: Positive = Readout.threshold_width


class MaskConfig(Builder):
    """Table of `calograd.objective.reconstruction.SoftMask`."""

    builds = SoftMask
    k: Positive | None = None


class SquaredErrorConfig(Builder):
    """Table of `calograd.objective.utility.SquaredError`."""

    builds = SquaredError
    kind: Literal["squared-error"]
    alpha: Positive = SquaredError.alpha
    truth: Literal["deposited", "incident"] = SquaredError.truth


class EnergyResolutionConfig(Builder):
    """Table of `calograd.objective.utility.EnergyResolution`."""

    builds = EnergyResolution
    kind: Literal["energy-resolution"]
    robust: bool = False


class ContainmentConfig(Builder):
    """Table of `calograd.objective.utility.Containment`."""

    builds = Containment
    kind: Literal["containment"]


class PositionResolutionConfig(Builder):
    """Table of `calograd.objective.utility.PositionResolution`."""

    builds = PositionResolution
    kind: Literal["position-resolution"]


class CostConfig(Table):
    """Table of a cost, see `calograd.objective.cost`."""

    kind: Literal["volume", "channels", "depth"]
    weight: NotNegative
    area: Positive | None = None
    """Area that the channels cover, cm2; for the cost ``channels`` alone."""

    @model_validator(mode="after")
    def _check(self) -> CostConfig:
        if self.area is not None and self.kind != "channels":
            raise ValueError(f"area = {self.area} does not apply to a cost of kind '{self.kind}'; leave it out")
        return self

    def build(self) -> Cost:
        """Return the cost."""
        if self.kind == "channels":
            return ChannelCost() if self.area is None else ChannelCost(self.area)
        return VolumeCost() if self.kind == "volume" else DepthCost()


class SpectrumConfig(Table):
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


class BeamConfig(Builder):
    """Table of `calograd.detector.particles.ParticleBeam`: of an objective, and of the target of an adaptation."""

    builds = ParticleBeam
    particle: Particle = ParticleBeam.particle
    position: tuple[float, float] | Literal["uniform"] = ParticleBeam.position
    theta: Annotated[float, Field(ge=0, lt=90)] = ParticleBeam.theta
    phi: float | tuple[float, float] = ParticleBeam.phi
    unit: Literal["cm", "pitch"] = ParticleBeam.unit


class ObjectiveConfig(Table):
    """Tables of a `calograd.objective.utility.Objective`."""

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
    """Formula that applies the costs, see `calograd.objective.cost.PricedUtility`."""
    beam: BeamConfig = BeamConfig()
    spectrum: SpectrumConfig

    def build(self, pixels: int | None = None) -> Objective:
        """Return the objective, of cells or of x-z maps with ``pixels`` each way.

        Raises:
            FormatError: a background map that is missing or cannot be used.
            InputError: a utility that maps do not have.
        """
        utility: Utility = self.utility.build()
        if self.cost:
            costs = tuple((cost.build(), cost.weight) for cost in self.cost)
            utility = PricedUtility(utility, costs, self.pricing == "relative")
        readout = self.readout.build() if self.readout else None
        measurement = Measurement(self.background.build(), readout, self.mask.build(), pixels)
        return Objective(measurement, utility, self.spectrum.energies, self.spectrum.weights, self.beam.build())

    def located(self, folder: Path) -> ObjectiveConfig:
        """Return the configuration with an absolute path to the background map, which was relative to ``folder``."""
        if not isinstance(self.background, MapConfig):
            return self
        file = (folder / self.background.file).resolve()
        return self.model_copy(update={"background": self.background.model_copy(update={"file": file})})


class VisibleResolutionConfig(Builder):
    """Table of `calograd.objective.stacks.VisibleResolution`."""

    builds = VisibleResolution
    kind: Literal["visible-resolution"]


class LearntResolutionConfig(Builder):
    """Table of `calograd.objective.stacks.LearntResolution`."""

    builds = LearntResolution
    kind: Literal["learnt-resolution"]
    penalty: NotNegative = LearntResolution.penalty


class StackBeamConfig(Table):
    """Table of the beam of a stack of plates, which are wide: entry and azimuth change nothing."""

    particle: Particle = ParticleBeam.particle
    theta: Annotated[float, Field(ge=0, lt=90)] = ParticleBeam.theta


class StackObjectiveConfig(Table):
    """Tables of a `calograd.objective.stacks.StackObjective`."""

    utility: Annotated[VisibleResolutionConfig | LearntResolutionConfig, Field(discriminator="kind")] = (
        VisibleResolutionConfig(kind="visible-resolution")
    )
    beam: StackBeamConfig = StackBeamConfig()
    spectrum: SpectrumConfig

    def build(self) -> StackObjective:
        """Return the objective."""
        beam = ParticleBeam(self.beam.particle, theta=self.beam.theta)
        return StackObjective((self.utility.build(),), self.spectrum.energies, beam)


def parse_objective(raw: dict[str, Any], source: str, folder: Path) -> ObjectiveConfig:
    """Validate the tables of an objective; ``source`` is named in errors, paths are relative to ``folder``.

    Raises:
        InputError: an unknown key (with the nearest valid name) or a value that does not fit.
    """
    return parse_table(ObjectiveConfig, raw, source).located(folder)


def read_objective(
    path: Path | None,
    energies: Sequence[float],
    *,
    truth: str | None = None,
    pixels: int | None = None,
    beam: Mapping[str, Any] | None = None,
) -> Objective:
    """Return the objective of a TOML file, or without a ``path`` the default one.

    Args:
        path: path of the file.
        energies: incident energies, GeV, in place of the file's spectrum.
        truth: truth of the squared error, in place of the file's.
        pixels: pixels each way of maps; None: for cells.
        beam: keys of the table of the beam, in place of the file's.

    Raises:
        InputError: the file cannot be read, or a table in it is wrong.
    """
    raw = {} if path is None else read_toml(path)
    if truth is not None:
        raw["utility"] = {"kind": "squared-error", **raw.get("utility", {}), "truth": truth}
    raw["spectrum"] = {"energies": list(energies)}
    if beam:
        raw["beam"] = raw.get("beam", {}) | dict(beam)
    return parse_objective(raw, str(path or "options"), path.parent if path else Path()).build(pixels)
