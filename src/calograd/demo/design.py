"""The demo's design part: a gradient with its Geant4 check, and a short optimisation.

The utility is the squared error of the energy under beam-induced background, truth incident, at one energy for the
optimisation: leakage wants large cells, background small ones. A price on depth keeps the optimum off the bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from calograd.events.cells import Cells
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.check import GradientCheck, compare_gradients
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.finite_differences import finite_difference_gradient
from calograd.gradients.landscape import Landscape, grid, surrogate_landscape
from calograd.objective.background import ExponentialBackground
from calograd.objective.cost import DepthCost, PricedUtility
from calograd.objective.measurement import Measurement
from calograd.objective.reference import CellsReference
from calograd.objective.space import space_around
from calograd.objective.utility import Objective, SquaredError
from calograd.optimisation.ascent import AscentConfig, ascend
from calograd.optimisation.state import State, Step
from calograd.surrogate import Surrogate

AT = (2.5, 6.0)
"""Pitch and depth of the gradient, cm; the bundled sample holds its neighbours."""
START = (3.5, 12.0)
"""Of the optimisation, cm."""
ENERGY = 50.0
"""Of the optimisation, GeV."""
PRICE = 0.02
"""Of a radiation length of depth: U / (1 + 0.02 depth / X0)."""

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total)."""


class Effort(NamedTuple):
    """How much of everything.

    Attributes:
        energies: of the gradients, GeV.
        showers, draws: of a gradient on the way of the optimisation.
        compared: draws of a gradient that is compared with Geant4's.
        steps: of the optimisation.
        landscape: points along each axis.
    """

    energies: tuple[float, ...]
    showers: int
    draws: int
    compared: int
    steps: int
    landscape: int


class Steering(NamedTuple):
    """What came out.

    Attributes:
        energies: of the gradients, GeV.
        gradients: beside Geant4's, one an energy.
        state: the optimisation.
        landscape: of its utility, from the surrogate.
    """

    energies: tuple[float, ...]
    gradients: list[GradientCheck]
    state: State
    landscape: Landscape


def steer(surrogate: Surrogate, reference: Cells, effort: Effort, progress: Progress) -> Steering:
    """Gradients, optimisation, landscape.

    Args:
        surrogate: the bundled one.
        reference: Geant4's showers at `AT` and its neighbours.
        effort: how much of everything.
        progress: called as progress(stage, done, total).
    """
    card = surrogate.card
    space, at = space_around(*AT, card.dx, card.dz)
    gradients = []
    for number, energy in enumerate(effort.energies):
        objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (energy,))
        # With one seed for all, one accident of the background would show at every energy.
        ours = surrogate_gradient(
            surrogate, objective, space, at, showers=effort.showers, draws=effort.compared, seed=number
        )
        beside = CellsReference(reference, "the bundled sample")
        theirs = finite_difference_gradient(beside, objective, space, at, seed=len(effort.energies) + number)
        gradients.append(compare_gradients(ours, theirs))
        progress("gradients", number + 1, len(effort.energies))
    utility = PricedUtility(SquaredError(truth="incident"), ((DepthCost(), PRICE),), relative=True)
    priced = Objective(Measurement(ExponentialBackground()), utility, (ENERGY,))

    def gradient(y: np.ndarray, draws: int, seed: int) -> GradientEstimate:
        return surrogate_gradient(surrogate, priced, space, y, showers=effort.showers, draws=draws, seed=seed)

    def report(step: Step) -> None:
        progress("optimisation", step.number + 1, effort.steps)

    config = AscentConfig(steps=effort.steps, draws=effort.draws, max_draws=effort.draws)
    state = ascend(space, np.array(START), gradient, config, on_step=report)
    drawn = surrogate_landscape(
        surrogate, priced, grid(*card.dx, effort.landscape), grid(*card.dz, effort.landscape), showers=200,
        progress=lambda done, total: progress("landscape", done, total),
    )  # fmt: skip
    return Steering(effort.energies, gradients, state, drawn)
