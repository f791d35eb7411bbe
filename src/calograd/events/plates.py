"""Showers in stacks of plates: the energy of every absorber, gap and active plate, and deposits in active plates.

Rows are the layers of a shower, in the order of the beam, so showers in stacks of different numbers of layers are
ragged columns (`calograd.events.ragged`). `calograd.detector.sampling_stack` describes the stacks.

Deposits lie in active plates alone, at positions in the frame of the detector. Layer k begins at z_k, its active plate
at a_k and ends at z_{k+1}. Positions are rounded, so a deposit may lie just outside of its plate: it is of the layer k
with (z_k + a_k) / 2 <= z < (z_{k+1} + a_{k+1}) / 2. The limits are the middles of what lies between active plates.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from calograd.detector.incidence import Incidence
from calograd.detector.material import MATERIALS, Material
from calograd.detector.sampling_stack import PLATES, Stacks
from calograd.errors import InputError
from calograd.events.point_showers import PointShowers
from calograd.events.ragged import Deposits, Ragged, offsets_of, owners

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
        index: number of every shower in the simulation or sample, shape (n,), int64.
        seed: seed of Geant4's engine for every shower, of a generated one that of the sample, shape (n,), uint64.
        particle, position, theta, phi: incident particles, see `calograd.detector.incidence.Incidence`.
        absorber, active: numbers of each shower's materials among ``absorbers`` and ``actives``, shape (n,), int32.
        absorbers, actives: materials of absorbers and active plates. A kernel leaves them out, which knows them from
            its simulation; whoever reads a file has them.
        gap_material: material of the gaps.
        origin: ``geant4`` or the name of a surrogate.
        config: what made the showers, as plain data.
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
    absorbers: tuple[Material, ...] = ()
    actives: tuple[Material, ...] = ()
    gap_material: Material = MATERIALS["air"]
    origin: str = "geant4"
    config: dict[str, Any] = field(default_factory=dict)
    deposits: Deposits | None = None

    @classmethod
    def of(
        cls,
        stacks: Stacks,
        absorber: np.ndarray,
        active: np.ndarray,
        energy: np.ndarray,
        incident: Incidence,
        *,
        seed: int,
        origin: str,
        config: dict[str, Any],
        points: PointShowers | None = None,
    ) -> PlateShowers:
        """Return showers from padded energies; their gaps absorb nothing.

        Args:
            stacks: the stack of every shower.
            absorber, active: energies of absorbers and active plates, shape (n, layers), GeV; what is beyond a stack's
                last layer is left out.
            energy: incident energy, shape (n,), GeV.
            incident: incident particles.
            seed, origin, config: see the class.
            points: points of the same showers, from where the particle's line crosses the middle of the active plate;
                they become the deposits, at that depth.
        """
        n, counts = len(stacks), stacks.layers
        layers = int(counts.max(initial=0))
        present = np.arange(layers) < counts[:, None]
        of_plates = (absorber[:, :layers], np.zeros((n, layers)), active[:, :layers])
        thicknesses = np.moveaxis(stacks.thickness[:, :layers], 2, 0)
        flat = [values[present].astype(np.float32) for values in (*of_plates, *thicknesses)]
        made = cls(
            **dict(zip(cls.FLAT, flat, strict=True)), offsets=offsets_of(counts), energy=energy.astype(np.float32),
            index=np.arange(n), seed=np.full(n, seed, np.uint64), **vars(incident),
            absorber=stacks.absorber.astype(np.int32), active=stacks.active.astype(np.int32),
            absorbers=stacks.absorbers, actives=stacks.actives, gap_material=stacks.gap_material, origin=origin,
            config=config,
        )  # fmt: skip
        return made if points is None else replace(made, deposits=made.deposits_at(points))

    def points_of(self, deposits: Deposits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return x and y from where the particle's line crosses the middle of the active plate, cm, and the layer.

        Args:
            deposits: deposits in the active plates of these showers.

        Returns:
            Shape (deposits,) each; the layer is that of `layers_of`.
        """
        layer, owner = self.layers_of(deposits), deposits.owner
        _, centre = self._crossings(owner, layer)
        return deposits.x - centre[:, 0], deposits.y - centre[:, 1], layer

    def deposits_at(self, points: PointShowers) -> Deposits:
        """Return points as deposits in the middle of their active plates: the inverse of `points_of`."""
        z, centre = self._crossings(points.owner, points.layer)
        x, y, z = (values.astype(np.float32) for values in (points.x + centre[:, 0], points.y + centre[:, 1], z))
        return Deposits(x, y, z, points.e, points.offsets)

    def _crossings(self, owner: np.ndarray, layer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return z of the middle of active plates, cm, and x and y where the particle's line crosses it, (n, 2)."""
        incident, z = self.incident, self.middles()[self.offsets[owner] + layer]
        return z, incident.position[owner] + z[:, None] * incident.slopes[owner]

    def write(self, path: Path) -> None:
        """Write the file of generated showers, see `calograd.events.library.generated.write_plates`."""
        from calograd.events.library.generated import write_plates  # it imports this module

        write_plates(path, self)

    @property
    def stacks(self) -> Stacks:
        """The stack of every shower. Raises `InputError` if the materials are left out."""
        if not (self.absorbers and self.actives):
            raise InputError("the showers of plates have no materials; read them from their file with open_plates")
        materials = self.absorbers, self.actives, self.gap_material
        return Stacks(*materials, self.absorber, self.active, self.thicknesses())

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
