"""Gradients and optimisation in the demo: gradients with their Geant4 check, and a short optimisation.

The utility is the squared error of the energy under beam-induced background, against the incident energy. Leakage
favours large cells, background small ones. A price on depth keeps the optimum off the bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from calograd.events.dense import Cells
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
from calograd.system.progress import StageProgress

AT = (2.5, 6.0)
"""Pitch and depth of the gradient, cm; the bundled sample has showers at its neighbours."""
START = (3.5, 12.0)
"""Pitch and depth at the start of the optimisation, cm."""
ENERGY = 50.0
"""Incident energy of the optimisation, GeV."""
PRICE = 0.02
"""Price of a radiation length of depth: the utility is U / (1 + 0.02 depth / X0)."""


class StudySettings(NamedTuple):
    """The sizes of gradients and optimisation.

    Attributes:
        energies: incident energies of the gradients, GeV.
        showers: showers of a draw, and of a point of the landscape.
        draws: draws of a gradient in the optimisation.
        compared: draws of a gradient that is compared with Geant4's.
        steps: steps of the optimisation.
        landscape: points of the landscape along each axis.
    """

    energies: tuple[float, ...]
    showers: int
    draws: int
    compared: int
    steps: int
    landscape: int


class DesignStudy(NamedTuple):
    """Gradients and an optimisation.

    Attributes:
        energies: incident energies of the gradients, GeV.
        gradients: comparison with Geant4's gradient at each energy.
        state: the optimisation.
        landscape: landscape of its utility, from the surrogate.
    """

    energies: tuple[float, ...]
    gradients: list[GradientCheck]
    state: State
    landscape: Landscape


def study_design(surrogate: Surrogate, reference: Cells, effort: StudySettings, progress: StageProgress) -> DesignStudy:
    """Compute gradients, follow them from `START`, and compute the landscape.

    Args:
        surrogate: the bundled surrogate.
        reference: Geant4 showers at `AT` and its neighbours.
        effort: sizes of gradients and optimisation.
        progress: called after each gradient, step and point.
    """
    card = surrogate.card
    space, at = space_around(*AT, card.designs.dx, card.designs.dz)
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
        surrogate, priced, *(grid(*ends, effort.landscape) for ends in (card.designs.dx, card.designs.dz)),
        showers=effort.showers, progress=lambda done, total: progress("landscape", done, total),
    )  # fmt: skip
    return DesignStudy(effort.energies, gradients, state, drawn)
