"""Thicknesses of a stack of plates as parameters that may change, with bounds and budgets.

The vector y of a stack of n layers has one of two layouts, in cm:

    ("absorber", "active")                                              one thickness for all absorbers, one for all
                                                                        active plates
    ("absorber_0", ..., "absorber_n-1", "active_0", ..., "active_n-1")  every thickness

Budgets limit the depth of the stack (gaps included), the thickness of all absorbers, and that of all active plates.
Each is a sum with weights that are not negative, so the stacks that keep to them are a convex set in u = ln y
(`calograd.objective.constraints`). A limit of the sampling fraction is not such a budget: it is a ratio of two sums,
and the stacks within are not convex in u.

In TOML:

    kind = "stack"
    absorber = "Pb"              # materials, as everywhere
    active = "lAr"
    layers = 40
    gap_thickness = 0.1          # cm; left out: no gap
    gap_material = "G4_AIR"
    per_layer = false            # true: every thickness is a parameter
    start = { absorber = 0.2, active = 0.4 }        # cm: one for all layers, or a list with one a layer
    bounds = { absorber = [0.1, 0.4], active = [0.2, 0.6] }     # cm, of every plate
    max_depth = 40.0             # cm, with gaps; left out: no limit
    max_absorber = 8.0           # cm, all absorbers
    max_active = 16.0            # cm, all active plates
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import LONGEST
from calograd.errors import InputError
from calograd.io.toml import Table
from calograd.objective.constraints import Array, Budget
from calograd.objective.space import ParameterSpace
from calograd.surrogate import Surrogate

KINDS = ("absorber", "active")
"""The kinds of plates whose thicknesses are parameters."""


def plate_names(layers: int) -> tuple[str, ...]:
    """Return the names of all plates: those of the absorbers, then those of the active plates, layers from 0."""
    return tuple(f"{kind}_{layer}" for kind in KINDS for layer in range(layers))


def grouped(names: Sequence[str]) -> dict[str, list[int]]:
    """Return the places of parameters that are shown together, by the name of the group: all plates of a kind.

    Any other parameter is a group of its own.
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        kind, _, layer = name.rpartition("_")
        groups.setdefault(kind if kind in KINDS and layer.isdigit() else name, []).append(place)
    return groups


@dataclass(frozen=True)
class StackSpace(ParameterSpace):
    """Thicknesses of a stack that may change, their bounds and budgets; `around` makes it.

    Args:
        names: one of the layouts of this module.
        lower, upper: bounds of every parameter, cm.
        budgets: limits on sums.
        stack: materials, number of layers and gaps; its thicknesses of absorbers and active plates are not used.

    Raises:
        InputError: another layout, or see `ParameterSpace`.
    """

    stack: SamplingDesign = field(kw_only=True)

    @classmethod
    def around(
        cls,
        stack: SamplingDesign,
        absorber: tuple[float, float],
        active: tuple[float, float],
        *,
        per_layer: bool = True,
        max_depth: float | None = None,
        max_absorber: float | None = None,
        max_active: float | None = None,
    ) -> StackSpace:
        """Return the space of the stacks of the same materials, gaps and number of layers.

        Args:
            stack: one stack.
            absorber, active: least and largest thickness of every plate, cm.
            per_layer: True for every thickness as a parameter, False for one of all absorbers and one of all active
                plates.
            max_depth: largest depth of the stack with its gaps, cm; None: no limit.
            max_absorber, max_active: largest thickness of all absorbers, and of all active plates, cm.

        Raises:
            InputError: a batch of stacks, or a budget that no stack within the bounds can meet.
        """
        if stack.batched:
            raise InputError(f"a space is around one stack, {stack.n} are given; take one of them")
        names = plate_names(stack.n_layers) if per_layer else KINDS
        each = stack.n_layers if per_layer else 1
        of = {
            kind: np.array([float(name.startswith(kind)) for name in names]) * stack.n_layers / each for kind in KINDS
        }
        gaps = float(stack.gap_thickness.detach().sum())
        limits = (
            ("max_depth without gaps" if gaps else "max_depth", of["absorber"] + of["active"], max_depth, gaps),
            ("max_absorber", of["absorber"], max_absorber, 0.0),
            ("max_active", of["active"], max_active, 0.0),
        )  # fmt: skip
        if max_depth is not None and max_depth <= gaps:
            raise InputError(f"max_depth = {max_depth:g} cm cannot be met: the gaps alone have {gaps:.4g} cm; raise it")
        budgets = [
            Budget(name, tuple(weights.tolist()), limit - less) for name, weights, limit, less in limits
            if limit is not None
        ]  # fmt: skip
        lower, upper = ((absorber[end],) * each + (active[end],) * each for end in (0, 1))
        space = cls(names, lower, upper, tuple(budgets), stack=stack)
        space.check_feasible()
        return space

    def _check_layout(self) -> None:
        if self.names not in (KINDS, plate_names(self.stack.n_layers)):
            raise InputError(f"parameters {list(self.names)}: expected {' and '.join(KINDS)}, or one of every plate")

    @property
    def start(self) -> Array:
        """The thicknesses of the stack that the space is around as parameters, shape (p,), cm: 0.3, not 0.300000012."""
        given = [getattr(self.stack, f"{kind}_thickness").detach().cpu().numpy() for kind in KINDS]
        sizes = [np.array([float(str(number)) for number in each]) for each in given]
        return np.concatenate(sizes) if self.names != KINDS else np.array([each.mean() for each in sizes])

    def design(self, y: Tensor | Array) -> SamplingDesign:
        """Return the stack of the parameters y, shape (p,), cm; differentiable in a tensor y."""
        values, stack = torch.as_tensor(y), self.stack
        if values.shape != (len(self.names),):
            raise InputError(f"parameters of shape {tuple(values.shape)}, expected ({len(self.names)},)")
        half = len(values) // 2
        sizes = (values[0], values[1]) if self.names == KINDS else (values[:half], values[half:])
        return SamplingDesign(
            stack.absorber, stack.active, sizes[0], sizes[1], stack.n_layers, stack.gap_material, stack.gap_thickness
        )

    def gathered(self, slopes: Array) -> Array:
        """Return derivatives in ln y, shape (..., p), from those in the logarithms of all thicknesses."""
        if self.names != KINDS:
            return slopes
        gathered: Array = slopes.reshape(*slopes.shape[:-1], 2, self.stack.n_layers).sum(-1)
        return gathered

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for records."""
        return {
            "names": list(self.names), "lower": list(self.lower), "upper": list(self.upper),
            "budgets": {b.name: b.limit for b in self.budgets}, "absorber": self.stack.absorber.name,
            "active": self.stack.active.name, "layers": self.stack.n_layers,
            "gap_material": self.stack.gap_material.name, "gap_thickness": self.stack.gap_thickness.tolist(),
        }  # fmt: skip

    def thicknesses(self, y: Array) -> dict[str, Array]:
        """Return the thickness of the absorber and of the active plate of every layer, shape (n_layers,) each, cm."""
        each = len(y) // 2
        return {kind: np.resize(y[k * each : (k + 1) * each], self.stack.n_layers) for k, kind in enumerate(KINDS)}


Thickness = Annotated[float, Field(gt=0)]


class StackStart(Table):
    """Table of the thicknesses at the start, cm: one for all layers, or one a layer."""

    absorber: Thickness | tuple[Thickness, ...]
    active: Thickness | tuple[Thickness, ...]


class StackBounds(Table):
    """Table of the least and largest thickness of every plate, cm."""

    absorber: tuple[float, float]
    active: tuple[float, float]

    @model_validator(mode="after")
    def _check(self) -> StackBounds:
        for kind in KINDS:
            low, high = getattr(self, kind)
            if not 0 < low < high:
                raise ValueError(f"{kind} = [{low:g}, {high:g}] cm: expected positive numbers, lower end first")
        return self


class StackSpaceConfig(Table):
    """Table of a stack of plates, the bounds of its thicknesses and its budgets; the module's text has an example."""

    kind: Literal["stack"]
    absorber: str
    active: str
    layers: Annotated[int, Field(gt=0)]
    gap_material: str = "G4_AIR"
    gap_thickness: Annotated[float, Field(ge=0)] = 0.0
    """Thickness of the gap between the plates of a layer, cm; it is no parameter."""
    per_layer: bool = False
    """True if every thickness is a parameter, False for one of all absorbers and one of all active plates."""
    start: StackStart
    bounds: StackBounds
    max_depth: Thickness | None = None
    max_absorber: Thickness | None = None
    max_active: Thickness | None = None

    @model_validator(mode="after")
    def _check(self) -> StackSpaceConfig:
        for kind in KINDS:
            given = getattr(self.start, kind)
            if not isinstance(given, tuple):
                continue
            if len(given) != self.layers:
                raise ValueError(
                    f"start.{kind} has {len(given)} thicknesses for {self.layers} layers; expected one, or one a layer"
                )
            if not self.per_layer and len(set(given)) > 1:
                raise ValueError(
                    f"start.{kind} has different thicknesses, but all layers have the same parameter; add per_layer = "
                    "true, or give one thickness"
                )
        for name in ("max_depth", "max_absorber", "max_active"):
            limit = getattr(self, name)
            if limit is not None and limit > LONGEST:
                raise ValueError(f"{name} = {limit:g} cm; is this in mm? Give cm, as {limit / 10:g}")
        return self

    def space(self) -> StackSpace:
        """Return the space around the stack at the start.

        Raises:
            InputError: unknown materials, thicknesses that were probably meant in mm, or a budget that no stack within
                the bounds can meet.
        """
        sizes = [np.resize(np.array(getattr(self.start, kind)), self.layers) for kind in KINDS]
        stack = SamplingDesign(
            self.absorber, self.active, sizes[0], sizes[1], self.layers, self.gap_material, self.gap_thickness
        )
        return StackSpace.around(
            stack, self.bounds.absorber, self.bounds.active, per_layer=self.per_layer, max_depth=self.max_depth,
            max_absorber=self.max_absorber, max_active=self.max_active,
        )  # fmt: skip


def check_trained_stacks(space: StackSpace, surrogate: Surrogate) -> None:
    """Raise `InputError` if bounds reach beyond the thicknesses that a surrogate of stacks was trained on."""
    trained = surrogate.card.stacks.thickness_ranges(space.stack.absorber, space.stack.active)
    materials = {"absorber": space.stack.absorber.name, "active": space.stack.active.name}
    for kind, places in grouped(space.names).items():
        low, high, (least, most) = space.lower[places[0]], space.upper[places[0]], trained[kind]
        if low >= least * (1 - 1e-4) and high <= most * (1 + 1e-4):
            continue
        mm = "; are they in mm? Give cm" if least <= low / 10 and high / 10 <= most else "; narrow them"
        raise InputError(
            f"space.bounds of {kind} = [{low:g}, {high:g}] cm reach beyond what {surrogate.card.name} was trained on, "
            f"{least:.3g} to {most:.3g} cm of {materials[kind]}{mm}"
        )
