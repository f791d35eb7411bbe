"""Target of an adaptation: a detector and a beam that differ from the surrogate's, as Geant4 simulates them.

[adapt.detector]
kind = "block"               # homogeneous and large: showers of one simulation serve every design
material = "PbWO4"           # or NAME:DENSITY:FORMULA; left out: the surrogate's

[adapt.detector]
kind = "matrix"              # crystals: dx includes the gap, dz the silicon; showers serve the design simulated alone
material = "PbF2"
gap = 0.1                    # cm
silicon = 0.2                # cm

[adapt.beam]
particle = "e-"
theta = 20.0                 # degrees to the normal
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from calograd.detector.configuration import Beam, Block, CrystalMatrix, Energies, SimulationConfig
from calograd.detector.design import Design
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import InputError
from calograd.events.library.reader import Library, read_heads
from calograd.events.library.schema import DEPOSIT_LIBRARY, PLATE_LIBRARY
from calograd.geant4.production import simulate_library
from calograd.io.toml import Table
from calograd.objective.config import BeamConfig
from calograd.objective.space import DesignSpace


class BlockTarget(Table):
    """Table of a homogeneous block, see `calograd.detector.configuration.Block`."""

    kind: Literal["block"]
    material: str | None = None
    serves_all: ClassVar = True
    """True if the showers of one simulation can be measured with every design."""

    def build(self, design: Design, beam: BeamConfig) -> Block:
        """Return the detector of a design, wide enough for the beam."""
        return Block.holding(design.material, beam.theta, beam.position)

    def check_space(self, space: DesignSpace) -> None:
        """Accept any cells."""


class MatrixTarget(Table):
    """Table of crystals with gaps and silicon in the design's cells.

    See `calograd.detector.configuration.CrystalMatrix`.
    """

    kind: Literal["matrix"]
    material: str | None = None
    gap: Annotated[float, Field(ge=0)] = 0.1
    silicon: Annotated[float, Field(ge=0)] = 0.2
    margin: Annotated[int, Field(ge=0)] = 2
    silicon_signal: bool = False
    serves_all: ClassVar = False

    def build(self, design: Design, beam: BeamConfig) -> CrystalMatrix:  # noqa: ARG002 - its margin is given
        """Return the detector of a design."""
        return CrystalMatrix(
            material=design.material, dx=float(design.dx), dz=tuple(design.dz.tolist()), n_xy=design.n_xy,
            **self.model_dump(exclude={"kind", "material"}),
        )  # fmt: skip

    def check_space(self, space: DesignSpace) -> None:
        """Raise `InputError` if the smallest cells within the bounds leave no room for crystals."""
        needed = (("dx", space.lower[0], "gap", self.gap), ("dz", min(space.lower[1:]), "silicon", self.silicon))
        for name, size, what, needs in needed:
            if size <= needs:
                raise InputError(
                    f"adapt.detector.{what} = {needs:g} cm leaves no room for crystals in cells of {name} = {size:g} "
                    "cm, which space.bounds allow; raise the bound"
                )


class Target(Table):
    """A detector and its beam; by default the large block with photons on its axis."""

    detector: Annotated[BlockTarget | MatrixTarget, Field(discriminator="kind")] = BlockTarget(kind="block")
    beam: BeamConfig = BeamConfig()

    @model_validator(mode="after")
    def _check(self) -> Target:
        beam = self.beam
        for name, value, no_good, expected in (
            ("position", beam.position, isinstance(beam.position, str), "x and y in cm"),
            ("phi", beam.phi, isinstance(beam.phi, tuple), "one angle"),
            ("unit", beam.unit, beam.unit != "cm", "cm, as the beam does not move with the cells"),
        ):
            if no_good:
                raise ValueError(f"beam.{name} = {value}: an adaptation is to one beam; expected {expected}")
        return self

    @property
    def beam_keys(self) -> dict[str, Any]:
        """Particle, position, theta and phi as keys of `calograd.detector.configuration.Beam`."""
        return self.beam.model_dump(exclude={"unit"})

    def simulation(self, design: Design, energies: tuple[float, ...], seed: int) -> SimulationConfig:
        """Return the configuration of a simulation with Geant4.

        Args:
            design: gives the material, and the cells of a matrix.
            energies: incident energies in turn, GeV.
            seed: seed of the showers.
        """
        beam = Beam(energies=Energies(law="discrete", values=energies), **self.beam_keys)
        return SimulationConfig(detector=self.detector.build(design, self.beam), beam=beam, seed=seed % 2**31)

    def check_library(self, library: Library, space: DesignSpace) -> None:
        """Raise `InputError` if showers of a library are not of this detector, or do not serve all designs."""
        made, material = library.provenance.config, space.design(np.array(space.lower)).material
        if library.material is not None and not library.material.alike(material):
            raise InputError(f"{library.path} is of {library.material.name}, adapt.detector of {material.name}")
        if library.matrix is not None:
            raise InputError(
                f"{library.path} is of a crystal matrix and serves one design alone; for checks use simulate = true"
            )
        if library.immovable:
            raise InputError(f"{library.path} is of {library.immovable}, adapt.detector is a {self.detector.kind}")
        if not isinstance(made, SimulationConfig):
            return
        if not self.detector.serves_all:
            raise InputError(f"{library.path} is of no crystal matrix as adapt.detector is; use simulate = true")
        for name, wanted in self.beam_keys.items():
            if (found := getattr(made.beam, name)) != wanted:
                raise InputError(f"{library.path} has {name} {found}, adapt.beam {wanted}; choose showers of that beam")


def simulate(path: Path, config: SimulationConfig, showers: int, **options: Any) -> None:
    """Simulate showers into the library ``path``, in a folder that is created; an unfinished library is completed.

    Args:
        path, config, showers, options: see `calograd.geant4.production.simulate_library`.
    """
    layout = PLATE_LIBRARY if isinstance(config.detector, SamplingStack) else DEPOSIT_LIBRARY
    if path.exists() and read_heads(path, layout)[2] is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    simulate_library(path, config, showers, **options)
