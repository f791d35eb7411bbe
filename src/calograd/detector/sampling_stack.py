"""Stacks of absorber and active plates as records, and how each shower of a simulation draws its own.

A layer is an absorber plate, then a passive gap, then an active plate; layers follow each other without anything
between. Layer k of n begins at z_k = sum of the layers before it, the front face is z = 0. So the absorber comes first
in the stack, and an active plate comes last.

The silicon-tungsten stack of the ILD is such a stack, with all air of a layer (0.361 cm) in front of its silicon. There
0.1 cm of it lies before and 0.261 cm behind (`calograd.detector.configuration.SiWStack`). Energies of plates do not
depend on the place of a gap, since air stops nothing and plates are wide; points in the silicon are that much wider.

**Laws.** A thickness is fixed (one number, or one a layer) or a range. From a range each shower draws, with u uniform
in (0, 1) and x_k = (k + 1/2) / n,

    equal     ln t_k = ln low + u_0 ln(high / low), the same in all layers
    smooth    ln t_k = fold(P(x_k) + s g_k)
              P(x) = (1 - x)^2 p_0 + 2 x (1 - x) p_1 + x^2 p_2 with p_i = ln low + u_i ln(high / low)
    stepped   ln t_k = p_0 where x_k < u_2, and p_1 beyond

P is a quadratic Bezier curve, which stays within the range, g_k are unit normal, and s is the ``scatter``. ``fold``
reflects at the ends of the range. Number of layers and materials are drawn evenly. Thicknesses are rounded to float32,
as files hold them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, isfinite, log, radians, tan
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticKnownError

from calograd.detector.material import Material, to_float
from calograd.io.toml import Table

MOST_LAYERS = 1000
"""Largest number of layers; more is taken for a slip."""
THICKEST = 3.0
"""Mean thickness of the absorber plates, in radiation lengths, beyond which it was probably meant in mm."""
LONGEST = 200.0
"""Depth of a stack, cm, beyond which thicknesses were probably meant in mm."""
STEEPEST = 80.0
"""Largest angle of a beam that plates are made wide for, degrees."""
SAME_THICKNESS = 1e-5
"""Relative difference below which two thicknesses are the same."""
PLATES = ("absorber", "gap", "active")
"""The plates of a layer, in the order of the beam."""
RECORDED_LAYERS = 256
"""Largest number of layers with which deposits are recorded; points files number no more."""
RECORDED_ABSORBER = 1e-3
"""Least thickness of absorbers with which deposits are recorded, cm; deposits of two layers lie this far apart."""


class ThicknessRange(Table):
    """A range of thicknesses, cm, from which every shower draws log-uniformly."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"{self.low:g}:{self.high:g} is no range; expected the lower end first")
        return self


Thickness = float | tuple[float, ...] | ThicknessRange
"""One thickness, one a layer, or a range, cm."""


def millimetre_problem(absorber: float, radiation_length: float, active: float, depth: float) -> str | None:
    """Return why thicknesses were probably given in mm, or None.

    Args:
        absorber: mean thickness of the absorber plates, cm.
        radiation_length: of the absorber, cm.
        active: mean thickness of the active plates, cm.
        depth: of the whole stack, cm.
    """
    if absorber > THICKEST * radiation_length:
        return (
            f"absorber_thickness: plates of {absorber:.3g} cm are {absorber / radiation_length:.1f} radiation lengths; "
            f"is this in mm? Give cm, as {absorber / 10:.3g}"
        )
    if depth > LONGEST:
        return (
            f"active_thickness: plates of {active:.3g} cm with absorbers of {absorber:.3g} cm make a stack of "
            f"{depth:.0f} cm; is this in mm? Give cm, as {active / 10:.3g}"
        )
    return None


def _materials(value: Any) -> Any:
    several = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not several:
        raise ValueError("expected a material")
    return several


def _different(materials: tuple[Material, ...]) -> tuple[Material, ...]:
    for number, material in enumerate(materials):
        if material in materials[:number]:
            raise ValueError(f"{material.name} is named twice; expected different materials")
    return materials


def _thickness(value: Any) -> Any:
    """Return numbers as floats and tuples, a range as it is; refuse what is no thickness."""
    if isinstance(value, ThicknessRange | dict):
        return value
    several = value if isinstance(value, list | tuple) else (value,)
    for one in several:
        if not isinstance(one, int | float) or isinstance(one, bool) or not isfinite(one):
            raise PydanticKnownError("float_type")
        if one < 0:
            raise PydanticKnownError("greater_than_equal", {"ge": 0})
    if not several:
        raise ValueError("expected one thickness, or one a layer")
    return tuple(map(float, several)) if len(several) > 1 else float(several[0])


def _layers(value: Any) -> Any:
    ends = tuple(value) if isinstance(value, list | tuple) else (value,)
    for end in ends:
        if not isinstance(end, int) or isinstance(end, bool):
            raise PydanticKnownError("int_type")
        if end < 1:
            raise PydanticKnownError("greater_than_equal", {"ge": 1})
        if end > MOST_LAYERS:
            raise PydanticKnownError("less_than_equal", {"le": MOST_LAYERS})
    if len(ends) == 1 or (len(ends) == 2 and ends[0] == ends[1]):
        return ends[0]
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ValueError("expected one number, or the two ends of a range, the lower first")
    return ends


if TYPE_CHECKING:
    _Materials = tuple[Material, ...]
    _Thickness = Thickness
    _Layers = int | tuple[int, int]
else:
    _Materials = Annotated[tuple[Material, ...], BeforeValidator(_materials), AfterValidator(_different)]
    _Thickness = Annotated[ThicknessRange | float | tuple[float, ...], BeforeValidator(_thickness)]
    _Layers = Annotated[int | tuple[int, int], BeforeValidator(_layers)]


@dataclass(frozen=True)
class Stack:
    """The stack of one shower.

    Attributes:
        absorber, active: numbers of its materials among those of its `SamplingStack`.
        thickness: of absorber, gap and active plate of every layer, shape (layers, 3), cm, float32.
    """

    absorber: int
    active: int
    thickness: np.ndarray

    def faces(self) -> np.ndarray:
        """Return z of the faces of all plates, shape (3 layers + 1,), cm, float64."""
        return np.concatenate([[0.0], np.cumsum(self.thickness.astype(np.float64).ravel())])


@dataclass(frozen=True)
class Stacks:
    """The stacks of n showers, which may differ in materials, number of layers and every thickness.

    Args:
        absorbers, actives: materials of absorbers and active plates.
        gap_material: material of the gaps.
        absorber, active: number of each shower's material among these, shape (n,), int32.
        thickness: of absorber, gap and active plate of every layer, shape (n, layers, 3), cm, float32; zero beyond the
            last layer of a shower.
    """

    absorbers: tuple[Material, ...]
    actives: tuple[Material, ...]
    gap_material: Material
    absorber: np.ndarray
    active: np.ndarray
    thickness: np.ndarray

    @classmethod
    def of(cls, law: SamplingStack, stacks: Sequence[Stack]) -> Stacks:
        """Return stacks that were drawn from a law, one a shower."""
        thickness = np.zeros((len(stacks), max(len(stack.thickness) for stack in stacks), len(PLATES)), np.float32)
        for row, stack in zip(thickness, stacks, strict=True):
            row[: len(stack.thickness)] = stack.thickness
        absorber, active = (
            np.array([getattr(stack, name) for stack in stacks], np.int32) for name in ("absorber", "active")
        )
        return cls(law.absorber, law.active, law.gap_material, absorber, active, thickness)

    def __len__(self) -> int:
        return len(self.thickness)

    def __getitem__(self, which: np.ndarray | slice) -> Stacks:
        """Return the stacks of some showers, by mask, indices or slice."""
        chosen = {name: getattr(self, name)[which] for name in ("absorber", "active", "thickness")}
        return replace(self, **chosen)

    @property
    def layers(self) -> np.ndarray:
        """Number of layers of every stack, shape (n,)."""
        return np.asarray((self.thickness[..., 0] > 0).sum(1))

    @property
    def radiation_lengths(self) -> np.ndarray:
        """Thicknesses in radiation lengths, shape (n, layers, 3), float64."""
        of_absorbers, of_actives = (
            np.array([to_float(material.radiation_length) for material in several])[which]
            for several, which in ((self.absorbers, self.absorber), (self.actives, self.active))
        )
        of_gaps = np.full(len(self), to_float(self.gap_material.radiation_length))
        return np.asarray(self.thickness / np.stack([of_absorbers, of_gaps, of_actives], 1)[:, None])

    @property
    def depths(self) -> np.ndarray:
        """Depth of the middle of every active plate, along the normal, shape (n, layers), X0."""
        lengths = self.radiation_lengths
        return np.asarray(lengths.sum(2).cumsum(1) - lengths[..., 2] / 2)

    @property
    def alike(self) -> bool:
        """True if all showers have the same stack."""
        columns = (self.absorber, self.active, self.thickness)
        return len(self) == 0 or all(bool((column == column[0]).all()) for column in columns)

    def difference(self, other: Stacks) -> str | None:
        """Return in words how the stacks of as many showers differ, row by row; None if they are the same."""
        for role in ("absorber", "active"):
            numbers = np.stack([getattr(each, role) for each in (self, other)], 1)
            for pair in np.unique(numbers, axis=0):
                mine, theirs = (
                    getattr(each, f"{role}s")[number] for each, number in zip((self, other), pair, strict=True)
                )
                if not mine.alike(theirs):
                    row = int(np.argmax((numbers == pair).all(1)))
                    return f"{role} of shower {row} is {mine.name}, not {theirs.name}"
        if (self.layers != other.layers).any():
            row = int(np.argmax(self.layers != other.layers))
            return f"shower {row} has {self.layers[row]} layers, not {other.layers[row]}"
        most = int(self.layers.max(initial=0))
        a, b = self.thickness[:, :most], other.thickness[:, :most]
        wrong = ~np.isclose(a, b, rtol=SAME_THICKNESS, atol=0)
        if wrong.any():
            row, layer, plate = (int(number) for number in np.argwhere(wrong)[0])
            return (
                f"{PLATES[plate]}_thickness of layer {layer} of shower {row} is {a[row, layer, plate]:g} cm, "
                f"not {b[row, layer, plate]:g} cm"
            )
        return None


Profile = Literal["equal", "smooth", "stepped"]
"""Courses of drawn thicknesses through the layers of a shower."""


class SamplingStack(Table):
    """Stacks of plates in vacuum: one for all showers, or one that every shower draws; see the module."""

    kind: Literal["sampling"] = "sampling"
    absorber: _Materials
    """Material of the absorbers, or several of which each shower has one."""
    active: _Materials
    """Material of the active plates, or several of which each shower has one."""
    layers: _Layers
    """Number of layers, or the two ends of a range, both included."""
    absorber_thickness: _Thickness
    """Thickness of the absorbers, cm: one, one a layer, or a range."""
    active_thickness: _Thickness
    """Thickness of the active plates, cm."""
    gap_thickness: _Thickness = 0.0
    """Thickness of the passive gap between absorber and active plate, cm; zero leaves it out."""
    gap_material: Material = Field(default="G4_AIR", validate_default=True)
    """Material of the gap."""
    profile: Profile = "equal"
    """Course of drawn thicknesses through a shower's layers: the same in all, scattered about a smooth profile, or one
    up to a layer and another one beyond."""
    scatter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Relative standard deviation of drawn thicknesses about a smooth profile."""
    width: Annotated[float, Field(gt=0)] = 40.0
    """Full length of the plates in x and in y, cm."""
    record: Literal["energies", "points"] = "energies"
    """Record of a simulation: the energies of all plates, or also the deposits in active plates, which points need."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in PLATES:
            thickness = self._law(name)
            if isinstance(thickness, tuple) and (self.layers_range[0] != self.layers_range[1]):
                raise ValueError(f"{name}_thickness: one thickness a layer needs a fixed number of layers, not a range")
            if isinstance(thickness, tuple) and len(thickness) != self.layers:
                raise ValueError(
                    f"{name}_thickness: {len(thickness)} thicknesses for {self.layers} layers; expected one, or one a "
                    "layer"
                )
            if name != "gap" and _low(thickness) <= 0:
                raise ValueError(f"{name}_thickness: {_low(thickness):g} cm; expected a positive thickness")
        if self.profile != "equal" and not any(isinstance(self._law(name), ThicknessRange) for name in PLATES):
            raise ValueError(
                f"profile: a {self.profile} profile needs a range of thicknesses to draw from; all are fixed"
            )
        layers = sum(self.layers_range) / 2
        means = [_mean(self._law(name)) for name in PLATES]
        length = max(to_float(material.radiation_length) for material in self.absorber)
        problem = millimetre_problem(means[0], length, means[2], layers * sum(means))
        if problem:
            raise ValueError(problem)
        if self.record == "points" and self.layers_range[1] > RECORDED_LAYERS:
            raise ValueError(f"record: {self.layers_range[1]} layers; points are recorded of up to {RECORDED_LAYERS}")
        if self.record == "points" and self.thinnest("absorber") < RECORDED_ABSORBER:
            raise ValueError(
                f"record: absorbers of {self.thinnest('absorber'):g} cm; points need {RECORDED_ABSORBER:g} cm or more, "
                "which tell the deposits of two layers apart"
            )
        return self

    @property
    def layers_range(self) -> tuple[int, int]:
        """Least and largest number of layers."""
        return self.layers if isinstance(self.layers, tuple) else (self.layers, self.layers)

    @property
    def materials(self) -> tuple[Material, ...]:
        """All materials of the plates, each once."""
        gap = (self.gap_material,) if self.has_gaps else ()
        return tuple(dict.fromkeys((*self.absorber, *self.active, *gap)))

    @property
    def has_gaps(self) -> bool:
        """True if any shower has a gap."""
        return _high(self.gap_thickness) > 0

    @property
    def drawn(self) -> bool:
        """True if showers differ in their stacks."""
        ranges = any(isinstance(self._law(name), ThicknessRange) for name in PLATES)
        return ranges or isinstance(self.layers, tuple) or len(self.absorber) > 1 or len(self.active) > 1

    def widened(self, theta: float, beside: float) -> SamplingStack:
        """Return the same stacks, wider for a beam at an angle, so that its axis stays as far from their edges.

        Args:
            theta: angle between the beam and the normal of the front face, degrees, the largest of a range; of any
                azimuth. Beyond `STEEPEST` the plates do not grow.
            beside: distance of the entry from the axis, cm.
        """
        more = 2 * (self.largest_depth() * tan(radians(min(max(theta, 0.0), STEEPEST))) + beside)
        return self.model_copy(update={"width": self.width + more})

    def largest_depth(self) -> float:
        """Return the depth of the deepest stack that a shower can have, cm."""
        most = self.layers_range[1]
        parts = (self._law(name) for name in PLATES)
        return sum(sum(each) if isinstance(each, tuple) else most * _high(each) for each in parts)

    def thinnest(self, name: str) -> float:
        """Return the least thickness of the plates ``absorber``, ``gap`` or ``active``, cm; zero if there are none."""
        return min((end for end in _ends(self._law(name)) if end > 0), default=0.0)

    def draw(self, rng: np.random.Generator) -> Stack:
        """Return the stack of a shower.

        Args:
            rng: random numbers of the shower's stack. The same numbers are used whatever is drawn, so stacks of two
                simulations that differ in one law differ in that alone.
        """
        pair, number = rng.random(2), rng.random()
        ends = rng.random((3, 3))
        low, high = self.layers_range
        layers = low + int(number * (high + 1 - low))
        scatter = rng.standard_normal((high, 3))[:layers]
        x = (np.arange(layers) + 0.5) / layers
        curve = np.stack([(1 - x) ** 2, 2 * x * (1 - x), x**2])
        thickness = np.empty((layers, 3))
        for column, name in enumerate(PLATES):
            law = self._law(name)
            if not isinstance(law, ThicknessRange):
                thickness[:, column] = law
                continue
            u = np.full(layers, ends[column, 0])
            if self.profile == "smooth":
                share = self.scatter / log(law.high / law.low)
                u = _folded(ends[column] @ curve + share * scatter[:, column])
            elif self.profile == "stepped":
                u = np.where(x < ends[column, 2], ends[column, 0], ends[column, 1])
            thickness[:, column] = law.low * np.exp(u * log(law.high / law.low))
        absorber, active = int(pair[0] * len(self.absorber)), int(pair[1] * len(self.active))
        return Stack(absorber, active, thickness.astype(np.float32))

    def describe(self) -> str:
        """Return the materials of absorbers and active plates in words, as ``Pb or W / lAr``."""
        return describe_materials(self.absorber, self.active)

    def _law(self, name: str) -> Thickness:
        law: Thickness = getattr(self, f"{name}_thickness")
        return law


def describe_materials(absorbers: Sequence[Material], actives: Sequence[Material]) -> str:
    """Return the materials of absorbers and active plates in words, as ``Pb or W / lAr``."""
    return " / ".join(" or ".join(m.name for m in several) for several in (absorbers, actives))


def _ends(law: Thickness) -> Sequence[float]:
    if isinstance(law, ThicknessRange):
        return law.low, law.high
    return law if isinstance(law, tuple) else (law,)


def _low(law: Thickness) -> float:
    return min(_ends(law))


def _high(law: Thickness) -> float:
    return max(_ends(law))


def _mean(law: Thickness) -> float:
    """Return the mean thickness; of a range its geometric mean."""
    if isinstance(law, ThicknessRange):
        return exp((log(law.low) + log(law.high)) / 2)
    return sum(_ends(law)) / len(_ends(law))


def _folded(u: np.ndarray) -> np.ndarray:
    """Return numbers reflected at 0 and at 1 until they lie between."""
    return np.asarray(1 - np.abs(1 - np.mod(u, 2)))
