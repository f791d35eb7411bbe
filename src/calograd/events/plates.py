"""Showers in stacks of plates: the energy of every absorber, gap and active plate, and deposits in active plates.

Rows are the layers of a shower, in the order of the beam, so showers in stacks of different numbers of layers are
ragged columns (`calograd.events.ragged`). `calograd.detector.sampling_stack` describes the stacks.

Deposits lie in active plates alone, at positions in the frame of the detector. Layer k begins at z_k, its active plate
at a_k and ends at z_{k+1}. Positions are rounded, so a deposit may lie just outside of its plate: it is of the layer k
with (z_k + a_k) / 2 <= z < (z_{k+1} + a_{k+1}) / 2. The limits are the middles of what lies between active plates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calograd.detector.incidence import Incidence
from calograd.detector.sampling_stack import PLATES
from calograd.events.ragged import Deposits, Ragged, owners

ENERGIES = tuple(f"{plate}_energy" for plate in PLATES)
"""Columns of the energies of a layer's plates, GeV."""
THICKNESSES = tuple(f"{plate}_thickness" for plate in PLATES)
"""Columns of their thicknesses, cm."""


@dataclass(frozen=True)
class PlateShowers(Ragged):
    """Showers in stacks of plates; shower s owns the layers ``offsets[s]:offsets[s + 1]``.

    Args:
        absorber_energy, gap_energy, active_energy: energy deposited in the plates of every layer, shape (layers of all
            showers,), GeV, float32.
        absorber_thickness, gap_thickness, active_thickness: their thicknesses, of the same shape, cm, float32.
        offsets: shape (n + 1,), int64.
        energy: incident energy of every shower, shape (n,), GeV, float32.
        index: number of every shower in the simulation, shape (n,), int64.
        seed: seed of Geant4's engine for every shower, shape (n,), uint64.
        particle, position, theta, phi: incident particles, see `calograd.detector.incidence.Incidence`.
        absorber, active: numbers of each shower's materials among those of its simulation, shape (n,), int32.
        deposits: deposits in the active plates of the same showers; None if they were not recorded or not read.
    """

    FLAT: ClassVar = (*ENERGIES, *THICKNESSES)
    PARTS: ClassVar = {"deposits": Deposits}
    HEADS: ClassVar = ("energy", "index", "seed", "particle", "position", "theta", "phi", "absorber", "active")
    absorber_energy: np.ndarray
    gap_energy: np.ndarray
    active_energy: np.ndarray
    absorber_thickness: np.ndarray
    gap_thickness: np.ndarray
    active_thickness: np.ndarray
    offsets: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    seed: np.ndarray
    particle: np.ndarray
    position: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    absorber: np.ndarray
    active: np.ndarray
    deposits: Deposits | None = None

    @property
    def incident(self) -> Incidence:
        """The incident particle of every shower."""
        return Incidence(self.particle, self.position, self.theta, self.phi)

    @property
    def totals(self) -> np.ndarray:
        """Energy in all plates, shape (n,), GeV, float64."""
        return self._sums(*ENERGIES)

    @property
    def visible(self) -> np.ndarray:
        """Energy in the active plates, shape (n,), GeV, float64."""
        return self._sums("active_energy")

    @property
    def leakage(self) -> np.ndarray:
        """Energy that leaves the stack, shape (n,), GeV, float64: the incident energy without that of the plates.

        A positron that leaves counts with the 1 MeV of its annihilation. One that enters brings as much to the plates,
        beyond its incident energy.
        """
        return np.asarray(self.energy - self.totals)

    def energies(self) -> np.ndarray:
        """Return the energies of absorber, gap and active plates, shape (n, layers, 3), GeV, float32.

        ``layers`` is the largest number of layers; where a shower has fewer, the rest is zero.
        """
        return np.stack([self._padded(name) for name in ENERGIES], -1)

    def thicknesses(self) -> np.ndarray:
        """Return the thicknesses of the plates, shape (n, layers, 3), cm, float32, with zeros as `energies` has."""
        return np.stack([self._padded(name) for name in THICKNESSES], -1)

    def middles(self) -> np.ndarray:
        """Return z of the middle of every active plate, shape (layers of all showers,), cm, float64."""
        ends = self._ends()
        begins = np.concatenate([[0.0], ends])[self.offsets[:-1]]
        return np.asarray(ends - self.active_thickness / 2 - np.repeat(begins, self.counts))

    def layers_of(self, deposits: Deposits) -> np.ndarray:
        """Return the layer, from 0, of every deposit in the active plates of these showers, int64; see the module."""
        ends = self._ends()
        begins = np.concatenate([[0.0], ends])
        active = ends - self.active_thickness
        owner = deposits.owner
        first = self.offsets[:-1]
        depth = deposits.z + begins[first][owner]
        layer = np.searchsorted((begins[:-1] + active) / 2, depth, side="right") - 1
        return np.asarray(layer - first[owner])

    def _ends(self) -> np.ndarray:
        """Return where the layers end if all stacks are put one behind the other, cm, float64."""
        return np.cumsum(sum(getattr(self, name).astype(np.float64) for name in THICKNESSES))

    def _padded(self, name: str) -> np.ndarray:
        counts = self.counts
        rows = np.zeros((len(self), int(counts.max(initial=0))), np.float32)
        rows[np.arange(rows.shape[1]) < counts[:, None]] = getattr(self, name)
        return rows

    def _sums(self, *names: str) -> np.ndarray:
        values = sum(getattr(self, name).astype(np.float64) for name in names)
        return np.bincount(owners(self.offsets), weights=values, minlength=len(self))
