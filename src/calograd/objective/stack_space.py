"""Thicknesses of a stack of plates as parameters that may change, with bounds and budgets.

The vector y of a stack of n layers has one of two layouts, in cm:

    ("absorber", "active")                                              one thickness for all absorbers, one for all
                                                                        active plates
    ("absorber_0", ..., "absorber_n-1", "active_0", ..., "active_n-1")  every thickness

Budgets limit the depth of the stack (gaps included), the thickness of all absorbers, and that of all active plates.
Each is a sum with weights that are not negative, so the stacks that keep to them are a convex set in u = ln y
(`calograd.objective.constraints`). A limit of the sampling fraction is not such a budget: it is a ratio of two sums,
and the stacks within are not convex in u.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError
from calograd.objective.constraints import Array, Budget
from calograd.objective.space import ParameterSpace

KINDS = ("absorber", "active")
"""The kinds of plates whose thicknesses are parameters."""


def plate_names(layers: int) -> tuple[str, ...]:
    """Return the names of all plates: those of the absorbers, then those of the active plates, layers from 0."""
    return tuple(f"{kind}_{layer}" for kind in KINDS for layer in range(layers))


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
            ("max_depth", of["absorber"] + of["active"], max_depth, gaps),
            ("max_absorber", of["absorber"], max_absorber, 0.0),
            ("max_active", of["active"], max_active, 0.0),
        )  # fmt: skip
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
