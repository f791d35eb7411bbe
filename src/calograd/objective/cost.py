"""Costs of a design, and utilities minus a cost.

VolumeCost     n_xy^2 dx^2 sum dz     cm3 of crystal in the window
ChannelCost    area / dx^2 n_z        cells of a detector that covers a given area
DepthCost      sum dz / X0            radiation lengths
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.objective.measurement import MeasuredEvents
from calograd.objective.utility import Utility, description_of, evaluate_utility, name_of

Cost = Callable[[Design], Tensor]
"""A function of a design that returns a tensor without dimensions, for a batch one value a design."""


@dataclass(frozen=True)
class VolumeCost:
    """Volume of the window's crystals, n_xy^2 dx^2 sum dz, cm3."""

    def __call__(self, design: Design) -> Tensor:
        """Return the cost."""
        return (design.n_xy * design.dx) ** 2 * design.dz.sum(-1)


@dataclass(frozen=True)
class ChannelCost:
    """Channels of a detector that covers a given area with cells of the design, area / dx^2 n_z.

    Args:
        area: area across the beam, cm2.

    Raises:
        InputError: the area is not positive.
    """

    area: float = 1e4

    def __post_init__(self) -> None:
        if not 0 < self.area < inf:
            raise InputError(f"cost: area = {self.area} cm2, expected a positive number")

    def __call__(self, design: Design) -> Tensor:
        """Return the cost."""
        return self.area / design.dx**2 * design.n_z


@dataclass(frozen=True)
class DepthCost:
    """Depth of the calorimeter in radiation lengths, sum dz / X0."""

    def __call__(self, design: Design) -> Tensor:
        """Return the cost."""
        return design.dz.sum(-1) / design.material.radiation_length


@dataclass(frozen=True)
class PricedUtility:
    """A utility minus costs. With C = sum of weight times cost it is

        U - C                                     absolute
        U / (1 + C) where U > 0, else U (1 + C)   relative: C = 1 halves a positive U

    Args:
        utility: U.
        costs: pairs of a cost and its weight, zero or more, in units of the utility (relative: of one) per unit of
            the cost.
        relative: True for the second formula.

    Raises:
        InputError: a weight that is negative or not finite.
    """

    utility: Utility
    costs: tuple[tuple[Cost, float], ...]
    relative: bool = False

    def __post_init__(self) -> None:
        for cost, weight in self.costs:
            if not 0 <= weight < inf:
                raise InputError(f"cost {name_of(cost)}: weight = {weight}, expected zero or more")

    @property
    def name(self) -> str:
        """Name of the utility, for errors."""
        return name_of(self.utility)

    def __call__(self, events: MeasuredEvents) -> Tensor:
        """Return the utility minus the costs."""
        u = evaluate_utility(self.utility, events)
        prices = (weight * cost(events.design).mean().to(u) for cost, weight in self.costs)
        price = sum(prices, start=torch.zeros_like(u))
        if not self.relative:
            return u - price
        return torch.where(u > 0, u / (1 + price), u * (1 + price))

    @property
    def unit(self) -> str:
        """Unit of the utility."""
        return str(getattr(self.utility, "unit", ""))

    @property
    def needs_y(self) -> bool:
        """True if the utility needs the second transverse axis, which maps do not have."""
        return bool(getattr(self.utility, "needs_y", False))

    def __str__(self) -> str:
        costs = " + ".join(f"{weight:g} {name_of(cost)}" for cost, weight in self.costs)
        return f"{description_of(self.utility)}; " + (f"U / (1 + {costs})" if self.relative else f"U - ({costs})")
