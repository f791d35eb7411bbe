"""Gradient of a utility at a design, by a surrogate and, for comparison, by Geant4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.detector.material import to_float
from calograd.detector.particles import ParticleBeam
from calograd.errors import InputError
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.check import GradientCheck, compare_gradients
from calograd.gradients.estimates import GradientEstimate, seed_of
from calograd.gradients.finite_differences import REPLICAS, STEP, finite_difference_gradient, scaled_size
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import Reference, open_reference
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.utility import Objective, SquaredError
from calograd.surrogate import Surrogate
from calograd.system.progress import Progress, StageProgress, silent
from calograd.system.random_numbers import RandomNumbers


@dataclass(frozen=True)
class GradientResult:
    """Gradients of a utility at one design, one for each energy.

    Args:
        surrogate: name of the surrogate.
        design: the design.
        objective: the utility, with its background, readout and mask.
        energies: incident energies, GeV.
        estimates: gradients by the surrogate.
        checks: comparisons with Geant4; empty without a reference.
    """

    surrogate: str
    design: Design
    objective: Objective
    energies: tuple[float, ...]
    estimates: tuple[GradientEstimate, ...]
    checks: tuple[GradientCheck, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        points = [each.to_dict() for each in self.checks] or [{"surrogate": each.to_dict()} for each in self.estimates]
        return {
            "objective": self.objective.describe(),
            "points": [{"energy": energy} | point for energy, point in zip(self.energies, points, strict=True)],
        }


def gradient(
    surrogate: Surrogate | str | Path,
    design: Design,
    energies: float | Sequence[float] | None = None,
    *,
    objective: Objective | None = None,
    reference: Reference | str | Path | None = None,
    per_layer: bool | None = None,
    density: bool = False,
    showers: int = 1000,
    draws: int = 8,
    sampler: str | None = None,
    steps: int | None = None,
    step: float = STEP,
    replicas: int = REPLICAS,
    seed: int = 0,
    extrapolate: bool = False,
    progress: StageProgress = silent,
) -> GradientResult:
    """Return the gradient of a utility with respect to the sizes of a design, in logarithms.

    Args:
        surrogate: a surrogate of cells or maps, its bundled name or its folder.
        design: the design at which the gradient is taken.
        energies: incident energies, GeV, one gradient for each; None: those of the objective.
        objective: utility, background, readout and mask; its energies serve only if none are given. None: the squared
            error of the deposited energy under the default background.
        reference: Geant4 showers to compare with, or their file: a shower library, or a cells file that holds the
            neighbouring designs.
        per_layer: True for a parameter for the depth of every layer; None: if the depths differ.
        density: True if the density of the material is a parameter too.
        showers: generated showers of every energy in a draw.
        draws: independent draws, which give the error.
        sampler, steps: see `Surrogate.sample`.
        step: relative step of Geant4's central differences.
        replicas: backgrounds that every Geant4 shower is seen with.
        seed: seed of all random numbers; every energy has its own.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with the stages "surrogate" and "Geant4".

    Raises:
        RangeError: the design or an energy is outside the trained range.
        InputError: no energies, a batch of designs, or showers of the reference that are missing.
        UtilityError: a utility without value or gradient.
    """
    if not isinstance(surrogate, Surrogate):
        surrogate = Surrogate.load(surrogate)
    objective = objective or Objective(default_measurement(surrogate), SquaredError(), as_energies(energies))
    energies = objective.energies if energies is None else as_energies(energies)
    space, y = space_at(surrogate, design, per_layer=per_layer, density=density)
    if isinstance(reference, str | Path):
        moved = objective.beam if surrogate.model.takes_particles else None
        reference = open_reference(
            Path(reference), energies, design.n_xy, design.n_z, pixels=objective.measurement.pixels, beam=moved,
            seed=seed,
        )  # fmt: skip
    if reference is not None:
        surrogate.card.check_incidence(reference.incident, reference.name)
        if surrogate.model.takes_particles:
            check_beam(reference, objective.beam, energies, design)
    estimates, checks = list[GradientEstimate](), list[GradientCheck]()
    for k, energy in enumerate(energies):
        at_energy, own_seed = replace(objective, energies=(energy,), weights=None), seed_of(seed, k)
        estimates.append(
            surrogate_gradient(
                surrogate, at_energy, space, y, showers=showers, draws=draws, seed=own_seed, sampler=sampler,
                steps=steps, extrapolate=extrapolate, progress=_part(progress, "surrogate", k, len(energies)),
            )
        )  # fmt: skip
        if reference is not None:
            of_geant4 = finite_difference_gradient(
                reference, at_energy, space, y, step=step, replicas=replicas, seed=own_seed,
                progress=_part(progress, "Geant4", k, len(energies)),
            )  # fmt: skip
            checks.append(compare_gradients(estimates[-1], of_geant4, own_seed))
    name = surrogate.card.name
    return GradientResult(name, design, objective, energies, tuple(estimates), tuple(checks))


def check_beam(reference: Reference, beam: ParticleBeam, energies: Sequence[float], design: Design) -> None:
    """Raise `InputError` unless the showers of a reference are of a beam, at every energy."""
    size = scaled_size(design, reference)
    for energy in energies:
        n, particles = reference.count(energy), reference.particles(energy, size)
        found = reference.incident[np.zeros(n, int)] if particles is None else particles.to_incidence(n)
        asked = beam.draw(torch.tensor(size[:1]), RandomNumbers(0, range(n))).to_incidence(n)
        difference = found.difference(asked) if len(found) == n else None
        if difference:
            raise InputError(
                f"{reference.name} at {energy:g} GeV is of {difference} as the objective asks; choose such showers, or "
                "ask for these (--particle, --position, --theta, --phi)"
            )


def space_at(
    surrogate: Surrogate, design: Design, *, per_layer: bool | None = None, density: bool = False
) -> tuple[DesignSpace, np.ndarray]:
    """Return the space of a design's parameters within a surrogate's trained range, and the parameters.

    Raises:
        InputError: a batch of designs, or unequal depths with one depth for all layers.
    """
    if design.batched:
        raise InputError(f"a gradient is taken at one design, {design.n} are given; take them one by one")
    depths, rho = tuple(design.dz.tolist()), to_float(design.material.density)
    equal = len(set(depths)) == 1
    if per_layer is None:
        per_layer = not equal
    elif not per_layer and not equal:
        raise InputError("the layers have different depths; leave out per_layer=False")
    card = surrogate.card.in_cm(design.material)
    return space_around(
        float(design.dx), depths if per_layer else depths[0], card.dx, card.dz, design.material, design.n_xy,
        design.n_z, density=(rho / 2, 2 * rho) if density else None,
    )  # fmt: skip


def default_measurement(surrogate: Surrogate) -> Measurement:
    """Return the default measurement of what a surrogate generates, cells or maps."""
    return Measurement(ExponentialBackground(), pixels=pixels_of(surrogate))


def pixels_of(surrogate: Surrogate) -> int | None:
    """Return the pixels each way of the maps that a surrogate generates; None if it generates cells."""
    shape = surrogate.design_model.shape
    return shape[0] if len(shape) == 2 else None


def as_energies(energies: float | Sequence[float] | None) -> tuple[float, ...]:
    """Return energies as a tuple. Raises `InputError` if there are none."""
    if energies is None:
        raise InputError("energies are missing; give one or more in GeV, or an objective that has them")
    return (float(energies),) if isinstance(energies, int | float) else tuple(float(energy) for energy in energies)


def _part(progress: StageProgress, stage: str, number: int, parts: int) -> Progress:
    """Return a progress callback for one of several equal parts of a stage."""

    def tell(done: int, total: int) -> None:
        progress(stage, number * total + done, parts * total)

    return tell
