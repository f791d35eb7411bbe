"""Gradient of a utility at a design, by a surrogate and, for comparison, by Geant4.

`gradient` serves designs of cells; for stacks of plates it calls `calograd.gradients.stacks.stack_gradient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.detector.material import to_float
from calograd.detector.particles import ParticleBeam
from calograd.detector.sampling_design import SamplingDesign
from calograd.errors import InputError
from calograd.events.library.reader import PlateLibrary
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.check import GradientCheck, compare_gradients
from calograd.gradients.estimates import GradientEstimate, seed_of
from calograd.gradients.finite_differences import REPLICAS, STEP, finite_difference_gradient, scaled_size
from calograd.gradients.stacks import StackGradientResult, stack_gradient
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.reference import Reference, open_reference
from calograd.objective.space import DesignSpace, space_around
from calograd.objective.stacks import StackObjective
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


@overload
def gradient(
    surrogate: Surrogate | str | Path,
    design: SamplingDesign,
    energies: float | Sequence[float] | None = ...,
    *,
    objective: StackObjective | None = ...,
    reference: PlateLibrary | str | Path | None = ...,
    showers: int = ...,
    draws: int = ...,
    sampler: str | None = ...,
    steps: int | None = ...,
    seed: int = ...,
    extrapolate: bool = ...,
    progress: StageProgress = ...,
) -> StackGradientResult: ...


@overload
def gradient(
    surrogate: Surrogate | str | Path,
    design: Design,
    energies: float | Sequence[float] | None = ...,
    *,
    objective: Objective | None = ...,
    reference: Reference | str | Path | None = ...,
    per_layer: bool | None = ...,
    density: bool = ...,
    showers: int = ...,
    draws: int = ...,
    sampler: str | None = ...,
    steps: int | None = ...,
    step: float = ...,
    replicas: int = ...,
    seed: int = ...,
    extrapolate: bool = ...,
    progress: StageProgress = ...,
) -> GradientResult: ...


def gradient(
    surrogate: Surrogate | str | Path,
    design: Design | SamplingDesign,
    energies: float | Sequence[float] | None = None,
    *,
    objective: Objective | StackObjective | None = None,
    reference: Reference | PlateLibrary | str | Path | None = None,
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
) -> GradientResult | StackGradientResult:
    """Return the gradient of a utility in the sizes of a design, or of quantities in the thicknesses of a stack.

        calograd.gradient("pbf2-cells", Design(2.5, 6.0), [10.0, 50.0], reference="library.h5")
        calograd.gradient("sampling", SamplingDesign("Pb", "lAr", 0.2, 0.4, 40), 10.0,
                          objective=StackObjective(VisibleResolution(), beam=ParticleBeam("e-")))

    Args:
        surrogate: a surrogate of cells, maps or stacks of plates, its bundled name or its folder.
        design: the design at which the gradient is taken.
        energies: incident energies, GeV, one gradient for each; None: those of the objective.
        objective: utility, background, readout and mask; for a stack a `StackObjective`, quantities and beam. Its
            energies serve only if none are given. None: the squared error of the deposited energy under the default
            background; for a stack mean and resolution of the visible energy of photons along the normal.
        reference: Geant4 showers to compare with, or their file: a shower library, or a cells file that holds the
            neighbouring designs; for a stack a library of random stacks around it.
        per_layer: True for a parameter for the depth of every layer; None: if the depths differ. A stack always has a
            parameter for every plate.
        density: True if the density of the material is a parameter too; not for stacks.
        showers: generated showers of every energy in a draw.
        draws: independent draws, which give the error.
        sampler, steps: see `Surrogate.sample`.
        step: relative step of Geant4's central differences; not for stacks.
        replicas: backgrounds that every Geant4 shower is seen with; not for stacks.
        seed: seed of all random numbers; every energy has its own.
        extrapolate: warn instead of refusing outside the trained range.
        progress: called with the stages "surrogate" and "Geant4".

    Raises:
        RangeError: the design or an energy is outside the trained range.
        InputError: no energies, a batch of designs, an objective or an option that is not for this kind of design, or
            showers of the reference that are missing.
        UtilityError: a utility without value or gradient.
    """
    if not isinstance(surrogate, Surrogate):
        surrogate = Surrogate.load(surrogate)
    if isinstance(design, SamplingDesign):
        given = {"per_layer": per_layer is not None, "density": density, "step": step != STEP,
                 "replicas": replicas != REPLICAS}  # fmt: skip
        for name in (name for name, is_given in given.items() if is_given):
            raise InputError(f"{name} is for designs of cells; leave it out for a stack of plates")
        objective, source = _of_stack(objective, reference)
        return stack_gradient(
            surrogate, design, as_energies(objective.energies or None if energies is None else energies), objective,
            reference=source, showers=showers, draws=draws, sampler=sampler, steps=steps, seed=seed,
            extrapolate=extrapolate, progress=progress,
        )  # fmt: skip
    if isinstance(objective, StackObjective) or isinstance(reference, PlateLibrary):
        raise InputError("the objective or the reference is of stacks of plates; expected a SamplingDesign")
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


def _of_stack(objective: Any, reference: Any) -> tuple[StackObjective, PlateLibrary | Path | None]:
    """Return objective and reference of a stack. Raises `InputError` for those of cells."""
    objective = StackObjective() if objective is None else objective
    if not isinstance(objective, StackObjective):
        raise InputError(
            f"objective = {type(objective).__name__}: a stack of plates has quantities; expected a StackObjective, as "
            "StackObjective(VisibleResolution())"
        )
    if not isinstance(reference, PlateLibrary | str | Path | None):
        raise InputError(
            f"reference = {type(reference).__name__}: expected a library of plates, as calograd simulate --detector "
            "sampling writes it"
        )
    return objective, Path(reference) if isinstance(reference, str) else reference


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
