"""Parameters of a design that may change, with their bounds and budgets.

The vector y of a calorimeter with n layers has one of two layouts:

    ("dx", "dz")                 pitch, and one depth for all layers, cm
    ("dx", "dz_1", ..., "dz_n")  pitch, and every layer's depth, cm

Either may end in "density", the density of the material at its given composition, g/cm3.

Optimisers move in u = ln y, where a step is a relative change. Bounds and budgets (total depth sum dz, volume
(n_xy dx)^2 sum dz of the crystals) leave a convex set of u, see `calograd.objective.constraints`.

In TOML:

    parameters = ["dx", "dz"]
    start = { dx = 3.0, dz = 8.0 }
    bounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }
    max_depth = 50.0             # cm; left out: no limit
    max_volume = 8000.0          # cm3; left out: no limit

    material = "PbWO4"           # left out: the one of the surrogate
    cells = [7, 5]               # cells across and layers; left out: those of the surrogate

With one depth a layer, ``dz`` in ``start`` and ``bounds`` is for all layers that are not named.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import inf
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import Material, to_float
from calograd.errors import InputError
from calograd.io.toml import Table
from calograd.objective.constraints import TOLERANCE, Array, Budget, FeasibleSet
from calograd.surrogate import Surrogate

DENSITY = "density"
"""Name of the parameter that is the material's density."""


@dataclass(frozen=True)
class ParameterSpace(ABC):
    """Parameters that may change, their bounds and budgets, whatever they are the parameters of.

    Args:
        names: names of the parameters.
        lower, upper: bounds of every parameter, in its `unit`.
        budgets: limits on sums, see `Budget`.

    Raises:
        InputError: numbers of bounds or weights that do not fit, a lower bound that is not positive or not below the
            upper one.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        self._check_layout()
        if not len(self.lower) == len(self.upper) == len(self.names):
            raise InputError(f"{len(self.lower)} lower and {len(self.upper)} upper bounds for {len(self.names)} names")
        for name, low, high in zip(self.names, self.lower, self.upper, strict=True):
            if not 0 < low < high < inf:
                raise InputError(f"bounds of {name} = [{low:g}, {high:g}] {unit(name)}, expected 0 < lower < upper")
        for budget in self.budgets:
            if len(budget.weights) != len(self.names):
                raise InputError(f"{budget.name} has {len(budget.weights)} weights for {len(self.names)} parameters")

    @abstractmethod
    def _check_layout(self) -> None:
        """Raise `InputError` unless the names are a layout of the space."""

    @abstractmethod
    def design(self, y: Tensor | Array) -> Any:
        """Return the design of the parameters y, shape (p,); differentiable in a tensor y."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain data for records."""

    @cached_property
    def feasible(self) -> FeasibleSet:
        """Set of the allowed logarithms u."""
        return FeasibleSet(np.log(self.lower), np.log(self.upper), self.budgets)

    def to_log(self, y: Array) -> Array:
        """Return u = ln y."""
        u: Array = np.log(y)
        return u

    def from_log(self, u: Array) -> Array:
        """Return y = exp u, never beyond a bound."""
        y: Array = np.clip(np.exp(u), self.lower, self.upper)
        return y

    def project(self, u: Array) -> Array:
        """Return the allowed point nearest to u, shape (p,), in logarithms. Idempotent."""
        inside = self.feasible.shrunk(u)
        if self.feasible.excess(np.clip(u, self.feasible.lower, self.feasible.upper)) <= TOLERANCE:
            return inside
        return np.clip(
            inside + self.feasible.best_move(inside, u - inside, np.eye(len(u))),
            self.feasible.lower,
            self.feasible.upper,
        )

    def active_constraints(self, u: Array, within: float = 1e-6) -> tuple[str, ...]:
        """Return the active bounds and budgets at u as text, e.g. "dx at its lower bound, 1 cm"."""
        found = []
        for name, value, low, high in zip(self.names, u, self.lower, self.upper, strict=True):
            if value <= np.log(low) + within:
                found.append(f"{name} at its lower bound, {low:g} {unit(name)}")
            if value >= np.log(high) - within:
                found.append(f"{name} at its upper bound, {high:g} {unit(name)}")
        found += [f"{b.name} reached, {b.limit:g} {b.unit}" for b in self.budgets if b.excess(u) >= -within]
        return tuple(found)

    def check_feasible(self) -> None:
        """Raise `InputError`, naming the budget, if not even the smallest design keeps to the budgets."""
        smallest = np.log(self.lower)
        for budget in self.budgets:
            if budget.excess(smallest) > TOLERANCE:
                raise InputError(
                    f"{budget.name} = {budget.limit:g} {budget.unit} cannot be met: the smallest design within the "
                    f"bounds has {budget.amount(smallest):.4g} {budget.unit}; raise it or lower the bounds"
                )

    def check_start(self, y: Array) -> None:
        """Raise `InputError`, naming bound or budget, if y, shape (p,), is not an allowed design."""
        self.check_feasible()
        if y.shape != (len(self.names),) or not bool(np.isfinite(y).all() and (y > 0).all()):
            raise InputError(
                f"start {y.tolist()}: expected {len(self.names)} positive numbers, {', '.join(self.names)}"
            )
        for name, value, low, high in zip(self.names, y, self.lower, self.upper, strict=True):
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                of = unit(name)
                raise InputError(f"start: {name} = {value:g} {of} is outside of its bounds, [{low:g}, {high:g}] {of}")
        for budget in self.budgets:
            if budget.excess(np.log(y)) > TOLERANCE:
                raise InputError(
                    f"start: {budget.amount(np.log(y)):.4g} {budget.unit} is above {budget.name} = {budget.limit:g} "
                    f"{budget.unit}; start from a smaller design or raise it"
                )


@dataclass(frozen=True)
class DesignSpace(ParameterSpace):
    """Parameters of a design of cells, their bounds and budgets.

    Args:
        names: one of the layouts of this module.
        lower, upper: bounds of every parameter, in its `unit`.
        budgets: limits on sums, see `Budget`; `SpaceConfig.space` makes those of depth and volume.
        material, n_xy, n_z: fixed properties of the design; with "density" only the material's composition is fixed.

    Raises:
        InputError: another layout, numbers of bounds or weights that do not fit, a lower bound that is not positive
            or not below the upper one.
    """

    material: Material = "PbF2"  # type: ignore[assignment]
    n_xy: int = 5
    n_z: int = 5

    def _check_layout(self) -> None:
        object.__setattr__(self, "material", _parsed(self.material))
        if self.names not in _layouts(self.n_z):
            raise InputError(f"parameters {list(self.names)}: expected {_expected(self.n_z)}")

    def design(self, y: Tensor | Array) -> Design:
        """Return the design of the parameters y, shape (p,); differentiable in a tensor y."""
        values = torch.as_tensor(y)
        if values.shape != (len(self.names),):
            raise InputError(f"parameters of shape {tuple(values.shape)}, expected ({len(self.names)},)")
        material = self.material
        if self.names[-1] == DENSITY:
            material, values = material.at_density(values[-1]), values[:-1]
        dz = values[1] if len(values) == 2 and self.n_z > 1 else values[1:]
        return Design(values[0], dz, material, self.n_xy, self.n_z)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for records."""
        return {
            "names": list(self.names), "lower": list(self.lower), "upper": list(self.upper),
            "budgets": {b.name: b.limit for b in self.budgets}, "material": self.material.name,
            "cells": [self.n_xy, self.n_xy, self.n_z],
        }  # fmt: skip


class SpaceConfig(Table):
    """Table of the parameters, their start, their bounds and budgets; the module's text has an example."""

    parameters: Annotated[tuple[str, ...], Field(min_length=2)] = ("dx", "dz")
    start: dict[str, float]
    bounds: dict[str, tuple[float, float]]
    material: str | None = None
    cells: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    """Cells across and layers of the window, for surrogates that serve several; None: those of the surrogate."""
    max_depth: Annotated[float, Field(gt=0)] | None = None
    max_volume: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _check(self) -> SpaceConfig:
        if self.parameters not in _layouts(len(_sizes(self.parameters)) - 1):
            raise ValueError(f"parameters = {list(self.parameters)}: expected {_expected(None)}")
        for table in ("start", "bounds"):
            given = getattr(self, table)
            for name in given:
                if name not in self.parameters and not (name == "dz" and "dz" not in self.parameters):
                    near = get_close_matches(name, self.parameters, n=1, cutoff=0.5)
                    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(self.parameters)}"
                    raise ValueError(f"unknown parameter '{table}.{name}'; {hint}")
            for name in self.parameters:
                if _key(name, given) not in given:
                    raise ValueError(f"{table}: {name} is missing")
        for name, value in self.start.items():
            if value <= 0:
                raise ValueError(f"start.{name} = {value:g} {unit(name)}: expected a positive number")
        for name, (low, high) in self.bounds.items():
            if not 0 < low < high:
                raise ValueError(
                    f"bounds.{name} = [{low:g}, {high:g}] {unit(name)}: expected positive numbers, lower end first"
                )
        return self

    def start_values(self) -> Array:
        """Return the parameters at the start, shape (p,)."""
        return np.array([self.start[_key(name, self.start)] for name in self.parameters])

    def space(self, material: Material | str = "PbF2", n_xy: int = 5, n_z: int = 5) -> DesignSpace:
        """Return the space for a calorimeter of ``n_xy`` x ``n_xy`` x ``n_z`` cells.

        Raises:
            InputError: depths for another number of layers, or a budget that no design within the bounds can meet.
        """
        bounds = [self.bounds[_key(name, self.bounds)] for name in self.parameters]
        layers = n_z if "dz" in self.parameters else 1
        depth = tuple(float(layers) if name.startswith("dz") else 0.0 for name in self.parameters)
        budgets = []
        if self.max_depth is not None:
            budgets.append(Budget("max_depth", depth, self.max_depth))
        if self.max_volume is not None:
            area = tuple(n_xy**2 * weight for weight in depth)
            budgets.append(Budget("max_volume", area, self.max_volume, 2.0, "cm3"))
        lower, upper = tuple(low for low, _ in bounds), tuple(high for _, high in bounds)
        space = DesignSpace(self.parameters, lower, upper, tuple(budgets), _parsed(material), n_xy, n_z)
        space.check_feasible()
        return space


def space_around(
    dx: float,
    dz: float | tuple[float, ...],
    dx_bounds: tuple[float, float],
    dz_bounds: tuple[float, float],
    material: Material | str = "PbF2",
    n_xy: int = 5,
    n_z: int = 5,
    *,
    density: tuple[float, float] | None = None,
) -> tuple[DesignSpace, Array]:
    """Return the space around a design, and the design's parameters y.

    Args:
        dx: pitch, cm.
        dz: depth, cm; one for all layers makes ("dx", "dz"), one a layer ("dx", "dz_1", ...).
        dx_bounds, dz_bounds: smallest and largest, cm.
        material, n_xy, n_z: fixed properties of the design.
        density: bounds of the density, g/cm3, if it is a parameter too.
    """
    depths = (dz,) if isinstance(dz, float | int) else dz
    names = ("dx", "dz") if isinstance(dz, float | int) else ("dx", *(f"dz_{k + 1}" for k in range(n_z)))
    lower, upper = (dx_bounds[0], *(dz_bounds[0] for _ in depths)), (dx_bounds[1], *(dz_bounds[1] for _ in depths))
    at = [dx, *depths]
    if density is not None:
        names, lower, upper = (*names, DENSITY), (*lower, density[0]), (*upper, density[1])
    space = DesignSpace(names, lower, upper, (), _parsed(material), n_xy, n_z)
    return space, np.array(at if density is None else [*at, to_float(space.material.density)], float)


def check_trained_range(space: DesignSpace, surrogate: Surrogate) -> None:
    """Raise `InputError` if bounds reach beyond the trained range, or to a density that was not trained on."""
    ends = [space.design(np.array(y)).material for y in (space.lower, space.upper)]
    for material in ends:
        known, outside = surrogate.card.material_status(material)
        if not known and outside and space.names[-1] == DENSITY:
            raise InputError(
                f"space.bounds of density reach to {to_float(material.density):g} g/cm3, {surrogate.card.name} was not "
                f"trained on {material.name} of that: {outside}; narrow them or train on more densities"
            )
        ranges = surrogate.card.in_cm(material)
        for name, low, high in zip(_sizes(space.names), space.lower, space.upper, strict=False):
            trained = ranges.dx if name == "dx" else ranges.dz
            if low < trained[0] * (1 - 1e-4) or high > trained[1] * (1 + 1e-4):
                raise InputError(
                    f"space.bounds of {name} = [{low:g}, {high:g}] cm reach beyond what {surrogate.card.name} was "
                    f"trained on, {trained[0]:g} to {trained[1]:g} cm; narrow them"
                )


def unit(name: str) -> str:
    """Return the unit of a parameter."""
    return "g/cm3" if name == DENSITY else "cm"


def format_parameters(names: Sequence[str], y: Sequence[float] | Array) -> str:
    """Return parameters with their units as text, e.g. "dx = 2.5 cm, dz = 6 cm"."""
    return ", ".join(f"{name} = {value:.4g} {unit(name)}" for name, value in zip(names, y, strict=True))


def _parsed(material: Material | str) -> Material:
    return Material.parse(material) if isinstance(material, str) else material


def _sizes(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parameters that are lengths."""
    return names[:-1] if names[-1] == DENSITY else names


def _layouts(n_z: int) -> tuple[tuple[str, ...], ...]:
    layouts = ("dx", "dz"), ("dx", *(f"dz_{k + 1}" for k in range(n_z)))
    return *layouts, *((*layout, DENSITY) for layout in layouts)


def _expected(n_z: int | None) -> str:
    layers = "every layer" if n_z is None else f"each of {n_z} layers"
    return f'["dx", "dz"], or ["dx", "dz_1", ...] with one depth for {layers}; "density" may come last'


def _key(name: str, table: dict[str, Any]) -> str:
    """Return the key of a table that holds a parameter: its own, or the one for all layers."""
    return "dz" if name.startswith("dz") and name not in table else name
