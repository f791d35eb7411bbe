"""What is simulated, in one record that is stored with every library.

The record and a shower's index fix the shower: energies, random numbers and hence every deposit follow
from ``(seed, index)`` alone, whatever the number of workers or the order in which they run.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from calograd.detector.material import Material


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MaterialRecord(_Record):
    """A material as stored; see `calograd.detector.material.Material`."""

    name: str
    density: Annotated[float, Field(gt=0)]
    mass_fractions: dict[str, float]
    geant4_name: str | None = None

    def material(self) -> Material:
        """The material with its derived numbers."""
        return Material(self.name, self.density, self.mass_fractions, self.geant4_name)


class Block(_Record):
    """A homogeneous block, front face at z = 0, axis x = y = 0, in vacuum.

    The default size is the large block that serves every design ("embedded"); a block of a design's own
    size is the "stand-alone" setting.
    """

    kind: Literal["block"] = "block"
    material: MaterialRecord
    size: tuple[float, float, float] = (25.2, 25.2, 76.0)
    """Full lengths in x, y, z, cm."""


class SiWStack(_Record):
    """A silicon-tungsten stack like the ILD ECAL: 20 thin and 10 thick tungsten layers, air between. cm."""

    kind: Literal["siw"] = "siw"
    width: float = 40.0
    tungsten: tuple[float, float] = (0.21, 0.42)
    pitch: tuple[float, float] = (0.6235, 0.8335)
    layers: tuple[int, int] = (20, 10)
    silicon: float = 0.0525
    gap: float = 0.1
    """Distance from the back of a tungsten plate to its silicon."""

    def layer_fronts(self) -> np.ndarray:
        """z of the front of every tungsten plate, shape (layers,), cm."""
        thin, thick = self.layers
        fronts = np.arange(thin) * self.pitch[0]
        return np.concatenate([fronts, thin * self.pitch[0] + np.arange(thick) * self.pitch[1]])

    def plate_thicknesses(self) -> np.ndarray:
        """Thickness of every tungsten plate, shape (layers,), cm."""
        return np.repeat(np.array(self.tungsten), self.layers)


class Matrix(_Record):
    """A matrix of crystals with passive gaps and a plane of silicon behind every layer, in vacuum. cm.

    The cells of the design come first: cell (i, j, k) covers x in [(i - n_xy/2) dx, (i + 1 - n_xy/2) dx), y likewise,
    and z in [z_k, z_k + dz_k), as in `calograd.detector.design`. A cell holds

        its crystal    dx - gap wide, in the middle of the cell; from z_k to z_k + dz_k - silicon
        half a gap     of vacuum on each of its four sides, so crystals are ``gap`` apart
        its silicon    from z_k + dz_k - silicon to z_k + dz_k, across the whole cell: a plane behind the layer

    so ``dx`` includes the gap and ``dz`` includes the silicon. The matrix goes on with equal cells, ``margin`` of them
    on each of its four sides and behind (these as deep as the last layer): the design is a window into it.
    """

    kind: Literal["matrix"] = "matrix"
    material: MaterialRecord
    """Of the crystals."""
    dx: Annotated[float, Field(gt=0)]
    dz: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Depth of every layer of the design."""
    n_xy: Annotated[int, Field(ge=1)] = 5
    margin: Annotated[int, Field(ge=0)] = 2
    """Cells around and behind the design's; with none it stands alone."""
    gap: Annotated[float, Field(ge=0)] = 0.1
    silicon: Annotated[float, Field(ge=0)] = 0.2
    silicon_signal: bool = False
    """Whether deposits in the silicon are recorded too; they then count in the cell that they lie in."""

    @model_validator(mode="after")
    def _check(self) -> Matrix:
        if self.gap >= self.dx or self.silicon >= min(self.dz):
            raise ValueError(
                f"cells of {self.dx:g} x {min(self.dz):g} cm leave no room for crystals beside a gap of {self.gap:g} "
                f"and {self.silicon:g} cm of silicon"
            )
        return self

    @property
    def width(self) -> float:
        """Of the whole matrix in x and y, cm."""
        return (self.n_xy + 2 * self.margin) * self.dx

    def layers(self) -> tuple[float, ...]:
        """Depth of every layer of the whole matrix, cm."""
        return (*self.dz, *(self.dz[-1:] * self.margin))

    def centres(self) -> list[float]:
        """x, and y, of the middles of the columns of the whole matrix, cm."""
        n = self.n_xy + 2 * self.margin
        return [(i + 0.5 - n / 2) * self.dx for i in range(n)]


class Energies(_Record):
    """Incident energies in GeV: discrete values in turn, or one draw from a range for every shower."""

    law: Literal["discrete", "uniform", "log-uniform"]
    values: tuple[float, ...]
    """The values, or the two ends of the range."""

    @model_validator(mode="after")
    def _check(self) -> Energies:
        if not self.values or any(not (np.isfinite(v) and v > 0) for v in self.values):
            raise ValueError("energies must be positive numbers in GeV")
        if self.law != "discrete" and (len(self.values) != 2 or self.values[0] >= self.values[1]):
            raise ValueError(f"a {self.law} law takes two energies, low and high")
        return self

    def draw(self, index: int, rng: np.random.Generator) -> float:
        """Energy of shower ``index`` in GeV."""
        if self.law == "discrete":
            return self.values[index % len(self.values)]
        low, high = self.values
        if self.law == "uniform":
            return float(rng.uniform(low, high))
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class Beam(_Record):
    """The incident particle. It starts ``upstream`` cm before the point (x, y, 0) that it aims at."""

    particle: Literal["gamma", "e-", "e+"] = "gamma"
    energies: Energies
    position: tuple[float, float] = (0.0, 0.0)
    """Where the axis of the beam meets the front face, cm."""
    theta: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Angle to the normal, degrees."""
    phi: float = 0.0
    """Azimuth of the tilt, degrees."""
    upstream: Annotated[float, Field(gt=0)] = 1.0


class SimulationConfig(_Record):
    """Everything that fixes a shower library but its number of showers."""

    detector: Annotated[Block | SiWStack | Matrix, Field(discriminator="kind")]
    beam: Beam
    seed: Annotated[int, Field(ge=0)] = 0
    range_cut: Annotated[float, Field(gt=0)] = 0.07
    """Production cut in range for gamma, e- and e+, cm."""


def shower_generator(seed: int, index: int) -> tuple[int, np.random.Generator]:
    """Seed of Geant4's engine and numpy generator of one shower, from (seed, index) alone."""
    sequence = np.random.SeedSequence([seed, index])
    engine_seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(2))
    return engine_seed, np.random.default_rng(sequence.spawn(1)[0])
