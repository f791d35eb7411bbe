"""Detectors, beams and simulations as records, which shower libraries store as JSON.

A simulation and a shower's index fix the shower: energy, random numbers and every deposit follow from ``(seed, index)``
alone, whatever the number of workers and the order in which they run. Lengths are in cm, energies in GeV, angles in
degrees. The front face is z = 0, the axis of the detector x = y = 0, and the beam runs along +z.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil, cos, floor, isfinite, radians, sin, tan
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field, PlainValidator, model_validator
from pydantic_core import PydanticKnownError

from calograd.detector.gdml import Geometry
from calograd.detector.material import Material
from calograd.detector.sampling_stack import SamplingStack, Stack
from calograd.errors import InputError
from calograd.io.toml import Table

Particle = Literal["gamma", "e-", "e+"]
PDG = {"gamma": 22, "e-": 11, "e+": -11}
"""Numbers of the incident particles in the scheme of the Particle Data Group."""

SPEED_OF_LIGHT = 29.9792458
"""Speed of light in vacuum, cm/ns."""
STEEPEST = 80.0
"""Largest angle of a beam that the default block is made for, degrees."""


Span = float | tuple[float, float]
"""One number, or the two ends of a range from which one is drawn evenly for every shower."""


def largest(span: Span) -> float:
    """Return the largest number of a span."""
    return span[1] if isinstance(span, tuple) else span


class Block(Table):
    """A homogeneous block in vacuum.

    The default size serves every design: its showers are cut into the cells of a design afterwards ("embedded"). A
    block of a design's own size is the "stand-alone" setting.
    """

    kind: Literal["block"] = "block"
    material: Material
    size: tuple[float, float, float] = (25.2, 25.2, 76.0)
    """Full lengths in x, y and z, cm."""

    @classmethod
    def holding(
        cls, material: Material, theta: Span = 0.0, position: tuple[float, float] | Literal["uniform"] = (0.0, 0.0)
    ) -> Block:
        """Return the default block, wider for a beam at an angle, so that windows of any design can follow it.

        Args:
            material: of the block.
            theta: angle between the beam and the normal of the front face, degrees, or a range; of any azimuth.
                Beyond `STEEPEST` the block does not grow.
            position: point where the beam meets the front face, cm.
        """
        width, height, depth = cls(material=material).size
        beside = 0.0 if isinstance(position, str) else max(map(abs, position))
        more = 2 * (depth * tan(radians(min(max(largest(theta), 0.0), STEEPEST))) + beside)
        return cls(material=material, size=(width + more, height + more, depth))

    @model_validator(mode="after")
    def _check(self) -> Block:
        if not all(length > 0 for length in self.size):
            sizes = " x ".join(f"{length:g}" for length in self.size)
            raise ValueError(f"the block is {sizes} cm, expected positive sizes")
        return self


class SiWStack(Table):
    """A silicon-tungsten stack like the ILD's electromagnetic calorimeter, with air between the plates."""

    CELL: ClassVar[float] = 0.50883
    """Pitch of the cells that read the silicon out, cm."""

    kind: Literal["siw"] = "siw"
    width: float = 40.0
    """Full length in x and in y, cm."""
    tungsten: tuple[float, float] = (0.21, 0.42)
    """Thickness of a plate in the front and in the back layers, cm."""
    pitch: tuple[float, float] = (0.6235, 0.8335)
    """Distance along z from one layer to the next in front and in the back, cm."""
    layers: tuple[int, int] = (20, 10)
    """Numbers of layers in front and in the back."""
    silicon: float = 0.0525
    """Thickness of a silicon wafer, cm."""
    gap: float = 0.1
    """Distance from the back of a tungsten plate to its silicon, cm."""

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return sum(self.layers)

    def layer_fronts(self) -> np.ndarray:
        """Return z of the front of every tungsten plate, shape (layers,), cm."""
        front, back = self.layers
        z = np.arange(front) * self.pitch[0]
        return np.concatenate([z, front * self.pitch[0] + np.arange(back) * self.pitch[1]])

    def plate_thicknesses(self) -> np.ndarray:
        """Return the thickness of every tungsten plate, shape (layers,), cm."""
        return np.repeat(np.array(self.tungsten), self.layers)


class CrystalMatrix(Table):
    """A matrix of crystals with passive gaps and a plane of silicon behind every layer, in vacuum.

    The cells of the design come first: cell (i, j, k) covers x in [(i - n_xy/2) dx, (i + 1 - n_xy/2) dx), y likewise,
    and z in [z_k, z_k + dz_k), as in `calograd.detector.design`. A cell holds

        its crystal    dx - gap wide, in the middle of the cell; from z_k to z_k + dz_k - silicon
        half a gap     of vacuum on each of its four sides, so crystals are ``gap`` apart
        its silicon    from z_k + dz_k - silicon to z_k + dz_k, across the whole cell: a plane behind the layer

    so ``dx`` includes the gap and ``dz`` includes the silicon. The matrix goes on with equal cells, ``margin`` of them
    on each of its four sides and behind (these as deep as the last layer): the design is a window into it.
    """

    kind: Literal["matrix"] = "matrix"
    material: Material
    """Material of the crystals."""
    dx: Annotated[float, Field(gt=0)]
    """Pitch of the cells, cm."""
    dz: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    """Depth of every layer of the design, cm."""
    n_xy: Annotated[int, Field(ge=1)] = 5
    """Cells of the design across, in x and in y."""
    margin: Annotated[int, Field(ge=0)] = 2
    """Number of cells around and behind the design's; with 0 the design stands alone."""
    gap: Annotated[float, Field(ge=0)] = 0.1
    """Distance between crystals, cm."""
    silicon: Annotated[float, Field(ge=0)] = 0.2
    """Thickness of the silicon plane behind every layer, cm."""
    silicon_signal: bool = False
    """True if deposits in the silicon are recorded too; they then count in the cell that they lie in."""

    @model_validator(mode="after")
    def _check(self) -> CrystalMatrix:
        if self.gap >= self.dx or self.silicon >= min(self.dz):
            raise ValueError(
                f"cells of {self.dx:g} x {min(self.dz):g} cm leave no room for crystals beside a gap of {self.gap:g} "
                f"and {self.silicon:g} cm of silicon"
            )
        return self

    @property
    def width(self) -> float:
        """Full length of the whole matrix in x and in y, cm."""
        return (self.n_xy + 2 * self.margin) * self.dx

    def layers(self) -> tuple[float, ...]:
        """Return the depth of every layer of the whole matrix, cm."""
        return (*self.dz, *(self.dz[-1:] * self.margin))

    def centres(self) -> list[float]:
        """Return x (which is also y) of the middles of the columns of the whole matrix, cm."""
        n = self.n_xy + 2 * self.margin
        return [(i + 0.5 - n / 2) * self.dx for i in range(n)]


Detector = Block | SiWStack | CrystalMatrix | SamplingStack | Geometry


class Energies(Table):
    """Incident energies: discrete values in turn, or one draw from a range for every shower."""

    law: Literal["discrete", "uniform", "log-uniform"]
    """Distribution of the energies."""
    values: tuple[float, ...]
    """The discrete values, or the two ends of the range, GeV."""

    @model_validator(mode="after")
    def _check(self) -> Energies:
        if not self.values or any(not (np.isfinite(v) and v > 0) for v in self.values):
            raise ValueError("energies must be positive numbers in GeV")
        if self.law != "discrete" and (len(self.values) != 2 or self.values[0] >= self.values[1]):
            raise ValueError(f"a {self.law} law takes two energies, low and high")
        return self

    @property
    def mean(self) -> float:
        """Mean energy, GeV."""
        low, high = self.values[0], self.values[-1]
        match self.law:
            case "discrete":
                return sum(self.values) / len(self.values)
            case "uniform":
                return (low + high) / 2
            case "log-uniform":
                return float((high - low) / np.log(high / low))

    def draw(self, index: int, rng: np.random.Generator) -> float:
        """Return the energy of shower ``index``, GeV."""
        if self.law == "discrete":
            return self.values[index % len(self.values)]
        low, high = self.values
        if self.law == "uniform":
            return float(rng.uniform(low, high))
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))


class Incident(NamedTuple):
    """The incident particle of one shower: its kind, its entry on the front face (cm) and its direction (degrees)."""

    particle: Particle
    position: tuple[float, float]
    theta: float
    phi: float


def beam_direction(theta: float, phi: float) -> tuple[float, float, float]:
    """Return the unit vector along a beam of polar angle theta and azimuth phi, in degrees."""
    a, b = radians(theta), radians(phi)
    return sin(a) * cos(b), sin(a) * sin(b), cos(a)


def _particles(value: Any) -> Particle | tuple[Particle, ...]:
    several = value if isinstance(value, list | tuple) else (value,)
    if not several or len(set(map(str, several))) < len(several) or any(one not in PDG for one in several):
        names = [repr(name) for name in get_args(Particle)]
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(names[:-1])} or {names[-1]}"})
    return tuple(several) if len(several) > 1 else several[0]


def _span(least: float | None, below: float | None) -> Callable[[Any], Span]:
    """Return a validator of numbers, or ranges of numbers, from ``least`` to less than ``below``."""

    def validate(value: Any) -> Span:
        ends = value if isinstance(value, list | tuple) else (value,)
        for end in ends:
            if not isinstance(end, int | float) or isinstance(end, bool) or not isfinite(end):
                raise PydanticKnownError("float_type")
            if least is not None and end < least:
                raise PydanticKnownError("greater_than_equal", {"ge": least})
            if below is not None and end >= below:
                raise PydanticKnownError("less_than", {"lt": below})
        numbers = [float(end) for end in ends]
        if len(numbers) == 1:
            return numbers[0]
        if len(numbers) != 2 or numbers[0] > numbers[1]:
            raise ValueError("expected one number, or the two ends of a range, the lower first")
        return (numbers[0], numbers[1]) if numbers[0] < numbers[1] else numbers[0]

    return validate


def _entry(value: Any) -> tuple[float, float] | Literal["uniform"]:
    if value == "uniform":
        return "uniform"
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("expected two coordinates in cm, or the word uniform")
    x, y = (_span(None, None)(coordinate) for coordinate in value)
    if isinstance(x, tuple) or isinstance(y, tuple):
        raise PydanticKnownError("float_type")
    return x, y


if TYPE_CHECKING:
    _Particles = Particle | tuple[Particle, ...]
    _Entry = tuple[float, float] | Literal["uniform"]
    _Polar = Span
    _Azimuth = Span
else:
    _Particles = Annotated[Any, PlainValidator(_particles)]
    _Entry = Annotated[Any, PlainValidator(_entry)]
    _Polar = Annotated[Any, PlainValidator(_span(0, 90))]
    _Azimuth = Annotated[Any, PlainValidator(_span(None, None))]


class Beam(Table):
    """The incident particles. Each starts ``upstream`` cm before the point (x, y, 0) that it aims at.

    A shower's energy is drawn first, then particle, direction and entry. So a beam at another angle, or of another
    particle, has the same energies.
    """

    particle: _Particles = "gamma"
    """The particle, or several of which each shower has one, drawn evenly."""
    energies: Energies
    position: _Entry = (0.0, 0.0)
    """Point where the axis of the beam meets the front face, cm; ``uniform``: drawn evenly in the central cell."""
    theta: _Polar = 0.0
    """Angle between the beam and the normal of the front face, degrees."""
    phi: _Azimuth = 0.0
    """Azimuth of the beam's direction, degrees."""
    upstream: Annotated[float, Field(gt=0)] = 1.0
    """Distance from the start of the particle to the front face, along the beam, cm."""

    @property
    def drawn(self) -> bool:
        """True if showers differ in particle, entry or direction."""
        return self.position == "uniform" or any(
            isinstance(each, tuple) for each in (self.particle, self.theta, self.phi)
        )

    def draw(self, index: int, rng: np.random.Generator, pitch: float = 0.0) -> tuple[float, Incident]:
        """Return energy (GeV) and incident particle of shower ``index``.

        Args:
            index: of the shower.
            rng: random numbers of the shower, see `shower_generator`.
            pitch: of the cells in which a uniform position is drawn, cm.
        """
        energy = self.energies.draw(index, rng)
        u = rng.random(5)
        particle = self.particle if isinstance(self.particle, str) else self.particle[int(u[0] * len(self.particle))]
        theta, phi = (
            span if isinstance(span, float) else span[0] + share * (span[1] - span[0])
            for span, share in ((self.theta, u[1]), (self.phi, u[2]))
        )
        if isinstance(self.position, str):
            return energy, Incident(particle, (pitch * (u[3] - 0.5), pitch * (u[4] - 0.5)), theta, phi)
        return energy, Incident(particle, self.position, theta, phi)

    def start(self, incident: Incident) -> tuple[float, float, float]:
        """Return the point at which a particle starts, cm."""
        x, y, z = beam_direction(incident.theta, incident.phi)
        return incident.position[0] - self.upstream * x, incident.position[1] - self.upstream * y, -self.upstream * z

    def outermost_starts(self) -> Iterator[tuple[float, float, float]]:
        """Yield starts of particles with which every start is in their bounding box, cm; not of uniform positions."""
        if isinstance(self.position, str):
            return
        ends = [(span, span) if isinstance(span, float) else span for span in (self.theta, self.phi)]
        low, high = ends[1]
        along_axes = [90.0 * turn for turn in range(ceil(low / 90), floor(high / 90) + 1)[:4]]
        for theta in ends[0]:
            for phi in (low, high, *along_axes):
                yield self.start(Incident("gamma", self.position, theta, phi))


class SimulationConfig(Table):
    """Everything that fixes the showers of a library, except their number."""

    detector: Annotated[Detector, Field(discriminator="kind")]
    beam: Beam
    seed: Annotated[int, Field(ge=0)] = 0
    range_cut: Annotated[float, Field(gt=0)] = 0.07
    """Production cut in range for gamma, e- and e+, cm."""

    @model_validator(mode="after")
    def _check(self) -> SimulationConfig:
        if self.beam.position == "uniform" and not isinstance(self.detector, CrystalMatrix):
            raise ValueError(
                "position = uniform is drawn in the cells of a crystal matrix; the showers of a block are moved "
                "when they are segmented (calograd segment --position uniform), and plates have no cells"
            )
        if isinstance(self.detector, Geometry):
            for point in self.beam.outermost_starts():
                if any(not low < at < high for at, (low, high) in zip(point, self.detector.world, strict=True)):
                    raise outside_world(self.detector, point)
        return self

    @property
    def front(self) -> float:
        """z of the front face in Geant4's world, cm; zero but for a geometry of a GDML file."""
        return self.detector.front if isinstance(self.detector, Geometry) else 0.0

    def draw(self, index: int) -> tuple[int, float, Incident]:
        """Return the seed of Geant4's engine, the energy (GeV) and the incident particle of shower ``index``."""
        engine_seed, rng = shower_generator(self.seed, index)
        pitch = self.detector.dx if isinstance(self.detector, CrystalMatrix) else 0.0
        return engine_seed, *self.beam.draw(index, rng, pitch)

    def draw_stack(self, index: int) -> Stack:
        """Return the stack of shower ``index``, from numbers of its own: the beam is the same whatever is drawn.

        Raises:
            TypeError: the detector is no stack of plates.
        """
        if not isinstance(self.detector, SamplingStack):
            raise TypeError(f"a {self.detector.kind} is no stack of plates")
        return self.detector.draw(stack_generator(self.seed, index))


def outside_world(geometry: Geometry, point: tuple[float, float, float]) -> InputError:
    """Return the error of a particle that starts at ``point`` (cm, in the frame of the library), beyond the world."""
    moved = (0.0, 0.0, geometry.front)
    start = ", ".join(f"{round(at + more, 6) + 0.0:.4g}" for at, more in zip(point, moved, strict=True))
    bounds = ", ".join(
        f"{axis} {low + more:.4g} to {high + more:.4g}"
        for axis, (low, high), more in zip("xyz", geometry.world, moved, strict=True)
    )
    return InputError(
        f"the particle starts at ({start}) cm in {geometry.name}, outside of its world within {bounds} cm; choose "
        "another front, position or angle, or a start nearer to the front face (upstream)"
    )


def shower_generator(seed: int, index: int) -> tuple[int, np.random.Generator]:
    """Return the seed of Geant4's engine and a numpy generator for one shower, from (seed, index) alone."""
    sequence = np.random.SeedSequence([seed, index])
    engine_seed = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(2))
    return engine_seed, np.random.default_rng(sequence.spawn(1)[0])


def stack_generator(seed: int, index: int) -> np.random.Generator:
    """Return the numpy generator of one shower's stack, from (seed, index) alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, index], spawn_key=(1,)))  # the second that it spawns
