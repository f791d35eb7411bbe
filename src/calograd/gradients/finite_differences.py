"""Gradient of an objective from Geant4's showers: central differences with common showers and background.

With u = ln y, h the step and e_j the unit vector of parameter j,

    g_j = ( V(u + h e_j) - V(u - h e_j) ) / 2 h

All V see the same showers, segmented again, and the same background numbers; only the cells differ. Each shower is used
with several independent backgrounds ("replicas"). The error is from the bootstrap over showers, where a shower keeps
all its replicas and both ends see the same samples. The difference is off by V''' h^2 / 6;
`validation/gradient_steps.py` compares steps.

A change of density needs no second simulation. Matter of density rho' = rho / s is the same matter with all lengths
multiplied by s. So the deposits of a library, with positions multiplied by s, are showers of the other density with the
same random numbers (a "scaled library"). To measure them with cells of (dx, dz) is to measure the library itself with
(dx / s, dz / s), which is done here. This is exact but for the density effect in the energy loss of fast electrons and
for the range cut, which scales along; `validation/density.py` compares with simulations of two densities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import to_float
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.gradients.autodiff import BACKGROUND, Parameters
from calograd.gradients.estimates import GradientEstimate, generator_for
from calograd.objective.measurement import MeasuredEvents
from calograd.objective.reference import Reference
from calograd.objective.utility import Objective
from calograd.system.progress import Progress, silent

STEP = 0.04
"""Relative step h of a central difference."""
REPLICAS = 8
"""Number of backgrounds that each shower is seen with."""
BOOTSTRAP = 200
"""Number of bootstrap samples."""
DENSITIES = 1.5
"""Largest factor between a density and that of the library that serves it."""


def neighbouring_designs(space: Parameters, y: np.ndarray, step: float) -> list[Design]:
    """Return the design of ``y``, then those with + and - a step of every parameter in turn."""
    u = np.log(np.asarray(y, float))
    points = [u]
    for j in range(len(u)):
        points += [u + step * np.eye(len(u))[j], u - step * np.eye(len(u))[j]]
    return [space.design(torch.from_numpy(np.exp(point))) for point in points]


def finite_difference_gradient(
    reference: Reference,
    objective: Objective,
    space: Parameters,
    y: np.ndarray,
    *,
    step: float = STEP,
    replicas: int = REPLICAS,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    progress: Progress = silent,
) -> GradientEstimate:
    """Return value and gradient of an objective at ``y`` from Geant4's showers.

    Args:
        space: parameters and the design they make.
        y: parameters, shape (p,), cm.
        step: h, between 0 and 1.
        reference, objective, replicas, bootstrap, seed, progress: see `bootstrap_values`.

    Raises:
        InputError: a step out of range, and see `bootstrap_values`.
        UtilityError: a utility without value.
    """
    if not 0 < step < 1:
        raise InputError(f"step {step} in ln y: expected a number between 0 and 1")
    values, samples = bootstrap_values(
        reference, objective, neighbouring_designs(space, y, step), replicas=replicas, bootstrap=bootstrap, seed=seed,
        progress=progress,
    )  # fmt: skip
    gradients = (samples[:, 1::2] - samples[:, 2::2]) / (2 * step)
    about: dict[str, Any] = {
        "source": "geant4", "file": reference.name, "showers": [reference.count(e) for e in objective.energies],
        "step": step, "replicas": replicas, "bootstrap": bootstrap, "seed": seed, "energies": list(objective.energies),
        "density": to_float(reference.material.density),
    }  # fmt: skip
    return GradientEstimate(
        tuple(space.names), np.asarray(y, float), float(values[0]), float(samples[:, 0].std(ddof=1)),
        (values[1::2] - values[2::2]) / (2 * step), gradients.std(0, ddof=1), gradients, about,
    )  # fmt: skip


def bootstrap_values(
    reference: Reference,
    objective: Objective,
    designs: list[Design],
    *,
    replicas: int = REPLICAS,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Return an objective at several designs on the same showers and backgrounds, with bootstrap samples.

    Args:
        reference: Geant4 showers of the objective's energies.
        objective: utility of the showers.
        designs: any number of designs.
        replicas: number of backgrounds that each shower is seen with.
        bootstrap: number of samples of the showers, the same for all designs.
        seed: seed of background and bootstrap.
        progress: called after every energy and every bootstrap sample.

    Returns:
        Values, shape (designs,), and those of the bootstrap samples, shape (bootstrap, designs).

    Raises:
        InputError: showers or designs that are missing, fewer than two showers, no replicas or bootstrap.
        UtilityError: a utility without value.
    """
    if replicas < 1 or bootstrap < 2:
        raise InputError(f"{replicas} replicas, {bootstrap} bootstraps: expected at least one replica, two bootstraps")
    sizes = [scaled_size(design, reference) for design in designs]
    events: list[list[MeasuredEvents]] = []
    total = len(objective.energies) + bootstrap
    progress(0, total)
    for i, energy in enumerate(objective.energies):
        if reference.count(energy) < 2:
            raise InputError(f"{reference.name} has {reference.count(energy)} showers of {energy:g} GeV; expected two")
        cells = reference.measure(energy, sizes)
        generator = generator_for(seed, BACKGROUND, i)
        particles = [reference.particles(energy, size) for size in sizes]
        events.append(measure_replicas(objective, designs, energy, cells, replicas, generator, particles))
        progress(i + 1, total)
    rng = np.random.default_rng(seed)
    values, samples = _values(objective, events, None, replicas), []
    for done in range(bootstrap):
        samples.append(_values(objective, events, rng, replicas))
        progress(len(objective.energies) + done + 1, total)
    return values, np.array(samples)


def scaled_size(design: Design, reference: Reference) -> tuple[float, tuple[float, ...]]:
    """Return the dx and dz, cm, with which a reference gives what ``design`` measures at its own density.

    Raises:
        InputError: another composition, or a density farther than a factor `DENSITIES`.
    """
    asked, have = design.material, reference.material
    scale = 1.0 if asked.alike(have) else to_float(asked.density) / to_float(have.density)
    if scale != 1.0 and not (asked.same_composition(have) and 1 / DENSITIES <= scale <= DENSITIES):
        raise InputError(
            f"{reference.name} is of {have.name} ({to_float(have.density):g} g/cm3), the design of {asked.name} "
            f"({to_float(asked.density):g} g/cm3); choose one of the design's material"
        )
    return scale * float(design.dx), tuple(scale * depth for depth in design.dz.tolist())


def measure_replicas(
    objective: Objective,
    designs: list[Design],
    energy: float,
    cells: np.ndarray | Tensor,
    replicas: int,
    generator: torch.Generator,
    particles: Sequence[Particles | None] | None = None,
) -> list[MeasuredEvents]:
    """Measure the showers with every design, each ``replicas`` times in a row, with common random numbers."""
    _, n, n_xy, _, n_z = cells.shape
    numbers = objective.measurement.draw(n * replicas, n_xy, n_z, generator)
    rows = torch.arange(n).repeat_interleave(replicas)
    measured = []
    for shower, design, incident in zip(cells, designs, particles or [None] * len(designs), strict=True):
        own = None if incident is None else incident.rows(rows)
        signal = torch.as_tensor(shower)[rows]
        measured.append(objective.measurement.measure(signal, energy, design, numbers, particles=own))
    return measured


def _values(
    objective: Objective, events: list[list[MeasuredEvents]], rng: np.random.Generator | None, replicas: int
) -> np.ndarray:
    """Return the objective at every design, of a bootstrap sample of the showers if ``rng`` is given."""
    chosen: list[list[MeasuredEvents]] = []
    for designs in events:
        if rng is None:
            chosen.append(designs)
            continue
        n = len(designs[0].energy) // replicas
        showers = torch.from_numpy(rng.integers(n, size=n))
        rows = (showers[:, None] * replicas + torch.arange(replicas)).flatten()
        chosen.append([each.select(rows) for each in designs])
    return np.array([float(objective.average(list(at))) for at in zip(*chosen, strict=True)])
