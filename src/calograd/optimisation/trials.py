"""Utilities on simulated showers: what a design is worth by Geant4, at the price of showers.

A trial of n showers a energy takes n showers that the seed chooses: a block of a shower library, or showers simulated
for it. Both designs of a pair see the same showers and backgrounds, so the price of a pair is n, and its difference is
better known than either value. Errors are from the bootstrap over showers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calograd.optimisation.budget import Array
from calograd.optimisation.estimates import Simulation
from calograd.optimisation.reference import LibraryReference, Reference, bootstrap_values
from calograd.optimisation.space import Space
from calograd.optimisation.utility import Objective
from calograd.showers.library import open_library
from calograd.showers.produce import produce
from calograd.simulation.config import Beam, Block, Energies, MaterialRecord, SimulationConfig

Source = Callable[[int, int], Reference]
"""Called as source(showers, seed): that many showers of every energy."""


@dataclass(frozen=True)
class Trials:
    """Simulated utilities.

    Args:
        source: of the showers.
        objective: of the showers.
        space: the designs.
        replicas: backgrounds that each shower is seen with.
        bootstrap: samples.
    """

    source: Source
    objective: Objective
    space: Space
    replicas: int = 4
    bootstrap: int = 100

    def value(self, y: Array, showers: int, seed: int) -> Simulation:
        """The utility at y, shape (p,), cm, on ``showers`` showers of every energy."""
        values, samples = self._values([y], showers, seed)
        return Simulation(float(values[0]), float(samples[:, 0].std(ddof=1)), self._price(showers))

    def difference(self, a: Array, b: Array, showers: int, seed: int) -> Simulation:
        """The utility at b less that at a, on the same showers."""
        values, samples = self._values([a, b], showers, seed)
        error = float((samples[:, 1] - samples[:, 0]).std(ddof=1))
        return Simulation(float(values[1] - values[0]), error, self._price(showers))

    def _values(self, points: list[Array], showers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        return bootstrap_values(
            self.source(showers, seed), self.objective, [self.space.design(y) for y in points],
            replicas=self.replicas, bootstrap=self.bootstrap, seed=seed,
        )  # fmt: skip

    def _price(self, showers: int) -> int:
        return showers * len(self.objective.energies)


def from_library(reference: LibraryReference) -> Source:
    """Showers of a library, in blocks that begin where the seed says."""

    def source(showers: int, seed: int) -> Reference:
        return reference.block(int(np.random.default_rng(seed).integers(2**31)), showers)

    return source


def from_geant4(
    folder: Path, objective: Objective, space: Space, *, workers: int = 1, scheduler: str | None = None
) -> Source:
    """Showers simulated for the trial, kept in ``folder`` and found there again by a run that is resumed.

    Args:
        folder: a shower library a trial.
        objective: its energies are simulated.
        space: its material is, at the middle density where that is a parameter (then it has to stay within a factor
            `calograd.optimisation.reference.DENSITIES` of it).
        workers, scheduler: see `calograd.showers.produce.produce`.
    """
    middle = np.sqrt(np.multiply(space.lower, space.upper))
    material = MaterialRecord(**space.design(middle).substance.to_dict())

    def source(showers: int, seed: int) -> Reference:
        path = folder / f"{seed:020d}-{showers}.h5"
        wanted = showers * len(objective.energies)
        beam = Beam(energies=Energies(law="discrete", values=objective.energies))
        config = SimulationConfig(detector=Block(material=material), beam=beam, seed=seed % 2**31)
        if not (path.exists() and not path.with_name(f"{path.name}.parts").exists()):
            folder.mkdir(parents=True, exist_ok=True)
            produce(path, config, wanted, workers=workers, scheduler=scheduler)
        with open_library(path) as library:
            return LibraryReference(library, objective.energies, space.n_xy, space.n_z)

    return source
