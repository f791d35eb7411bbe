"""Objective on simulated showers: utilities and their differences by Geant4, at the price of showers.

An evaluation with n showers of every energy takes n showers that the seed chooses: a block of a shower library, or
showers simulated for it. Both designs of a pair see the same showers and backgrounds. So the price of a pair is n, and
its difference is better known than either value. Showers of a crystal matrix serve one design alone. Then n are
simulated for each design, with the same seeds, and the price of a pair is 2 n. Errors are from the bootstrap over
showers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calograd.detector.design import Design
from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.detector.particles import ON_AXIS, Particles
from calograd.events.library.reader import open_library
from calograd.gradients.estimates import SimulatedUtility
from calograd.gradients.finite_differences import bootstrap_values
from calograd.gradients.spectra import Spectrum, geant4_spectra
from calograd.objective.config import BeamConfig
from calograd.objective.constraints import Array
from calograd.objective.reference import LibraryReference, Reference, Size
from calograd.objective.space import DesignSpace
from calograd.objective.utility import Objective
from calograd.optimisation.target import Target, simulate
from calograd.system.progress import Progress, silent

Source = Callable[[int, int], Reference]
"""Called as ``source(showers, seed)``; returns that many showers of every energy."""


@dataclass(frozen=True)
class SimulatedObjective:
    """An objective on simulated showers.

    Args:
        source: gives the showers.
        objective, replicas, bootstrap: see `calograd.gradients.finite_differences.bootstrap_values`.
        space: space of the designs.
        serves_all: True if the same showers serve every design; else every design needs its own.
        progress: called with parts of a comparison done and their number.
    """

    source: Source
    objective: Objective
    space: DesignSpace
    replicas: int = 4
    bootstrap: int = 100
    serves_all: bool = True
    progress: Progress = silent

    def price(self, showers: int, designs: int = 2) -> int:
        """Return the number of simulated showers that ``showers`` of every energy cost, by default for a pair."""
        return showers * len(self.objective.energies) * (1 if self.serves_all else designs)

    def value(self, y: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at y, shape (p,), cm, on ``showers`` showers of every energy."""
        values, samples = self._values([y], showers, seed)
        return SimulatedUtility(float(values[0]), float(samples[:, 0].std(ddof=1)), self.price(showers, 1))

    def difference(self, a: Array, b: Array, showers: int, seed: int) -> SimulatedUtility:
        """Return the utility at b minus that at a, on the same showers."""
        values, samples = self._values([a, b], showers, seed)
        error = float((samples[:, 1] - samples[:, 0]).std(ddof=1))
        return SimulatedUtility(float(values[1] - values[0]), error, self.price(showers))

    def spectra(self, start: Array, end: Array, showers: int, seed: int) -> list[Spectrum]:
        """Return the measured energies at two designs on the same ``showers`` showers of every energy."""
        designs = [self.space.design(y) for y in (start, end)]
        return geant4_spectra(self.source(showers, seed), self.objective, designs, seed=seed)

    def _values(self, points: list[Array], showers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return bootstrap_values(
            self.source(showers, seed), self.objective, [self.space.design(y) for y in points],
            replicas=self.replicas, bootstrap=self.bootstrap, seed=seed, progress=self.progress,
        )  # fmt: skip


def from_library(reference: LibraryReference) -> Source:
    """Return a source of a library's showers, in blocks whose first shower follows from the seed."""

    def source(showers: int, seed: int) -> Reference:
        return reference.block(int(np.random.default_rng(seed).integers(2**31)), showers)

    return source


@dataclass
class PerDesignReference:
    """A reference whose showers are simulated for every design.

    Args:
        name: name in errors and records.
        material: material of the crystals.
        incident: incident particle of all showers, one row.
        open: called with a design (dx, dz of the layers), cm; returns its showers, simulated at the first call.
        showers: number of showers of every energy.
    """

    name: str
    material: Material
    incident: Incidence
    open: Callable[[Size], LibraryReference]
    showers: int
    any_design: bool = True

    def count(self, energy: float) -> int:  # noqa: ARG002
        """See `Reference.count`."""
        return self.showers

    def particles(self, energy: float, design: Size) -> Particles | None:  # noqa: ARG002 - the same at every design
        """See `Reference.particles`."""
        incident = self.incident[np.zeros(self.showers, int)]
        return None if incident.on_axis else Particles.from_incidence(incident, torch.zeros(1, dtype=torch.float64))

    def measure(self, energy: float, designs: list[Size]) -> np.ndarray:
        """See `Reference.measure`; showers of equal number have equal seeds."""
        return np.concatenate([self.open(design).measure(energy, [design]) for design in designs])


def from_geant4(
    folder: Path,
    objective: Objective,
    space: DesignSpace,
    *,
    target: Target | None = None,
    **options: Any,
) -> Source:
    """Return a source of showers that are simulated, and kept in ``folder`` for a run that is resumed.

    Args:
        folder: holds a shower library for every seed.
        objective: its energies are simulated.
        space: its material is simulated. If the density is a parameter, the middle density is; the others have to be
            within a factor `calograd.gradients.finite_differences.DENSITIES` of it.
        target: the detector and its beam; None: the large block, with the objective's particle and angle.
        options: see `calograd.geant4.production.simulate_library`.
    """
    beam = objective.beam
    target = target or Target(beam=BeamConfig(particle=beam.particle, theta=beam.theta))
    moved = None if beam == ON_AXIS else beam

    def simulated(stem: str, showers: int, seed: int, design: Design) -> LibraryReference:
        path = folder / f"{stem}.h5"
        config = target.simulation(design, objective.energies, seed)
        simulate(path, config, showers * len(objective.energies), **options)
        with open_library(path) as library:
            return LibraryReference(library, objective.energies, space.n_xy, space.n_z, beam=moved)

    def source(showers: int, seed: int) -> Reference:
        middle = np.sqrt(np.multiply(space.lower, space.upper))
        some, stem = space.design(middle), f"{seed:020d}-{showers}"
        if target.detector.serves_all:
            return simulated(stem, showers, seed, some)

        def of_design(size: Size) -> LibraryReference:
            cells = Design(size[0], size[1], some.material, space.n_xy, space.n_z)
            return simulated(f"{stem}-{hashlib.sha256(repr(size).encode()).hexdigest()[:12]}", showers, seed, cells)

        beam = Incidence.of_beam(target.beam_keys, 1)
        return PerDesignReference(f"{folder.name}/{stem}", some.material, beam, of_design, showers)

    return source
