"""Geant4 showers that designs are compared with: shower libraries, segmented at will, and cells files."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch

from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.detector.particles import ParticleBeam, Particles
from calograd.errors import InputError
from calograd.events.binning import move_deposits, project_deposits, segment_deposits
from calograd.events.dense import CELLS, Cells
from calograd.events.library.reader import Library, open_library
from calograd.events.ragged import Showers
from calograd.events.segmentation import check_windows
from calograd.events.shards import read_shards
from calograd.io.files import shard_files
from calograd.io.hdf5 import schema_of
from calograd.system.random_numbers import RandomNumbers

REMEMBERED = 64
"""Number of designs whose cells are kept."""
RELATIVE = 1e-4
"""Relative tolerance within which energies and sizes are the same."""


_EXACT = torch.zeros(1, dtype=torch.float64)

Size = tuple[float, tuple[float, ...]]
"""Cells of a design: dx, and dz of every layer, cm."""


class Reference(Protocol):
    """Geant4 showers that any design, or some designs, can measure.

    Attributes:
        name: name in errors and records.
        material: material that the showers were simulated in.
        incident: incident particles of the showers.
        any_design: True if every design can be measured.
    """

    name: str
    material: Material
    incident: Incidence
    any_design: bool

    def count(self, energy: float) -> int:
        """Return the number of showers of an energy."""
        ...

    def particles(self, energy: float, design: Size) -> Particles | None:
        """Return the incident particles of the showers of an energy at a design, one a shower; None: on the axis."""
        ...

    def measure(self, energy: float, designs: list[Size]) -> np.ndarray:
        """Measure the showers of an energy with every design (dx, dz of the layers), cm.

        Returns:
            Cells, shape (designs, n, n_xy, n_xy, n_z), or pixels, (designs, n, pixels, 1, pixels), GeV.

        Raises:
            InputError: no such showers, or designs that were not measured (all of them are named).
        """
        ...


class LibraryReference:
    """A reference from a shower library, which any design can measure.

    Args:
        library: library opened for reading, of discrete energies.
        energies: energies that are read into memory, GeV.
        n_xy, n_z: cells of the designs.
        pixels: pixels each way of x-z maps, which are then measured instead of cells, see
            `calograd.objective.measurement`.
        beam: entry and azimuth to which the showers are moved and turned; particle and angle are those of the library.
            None: as simulated.
        seed: seed of entries and azimuths that are drawn; a shower's are in the same place of the cell at every pitch.
    """

    any_design = True

    def __init__(
        self,
        library: Library,
        energies: tuple[float, ...],
        n_xy: int = 5,
        n_z: int = 5,
        pixels: int | None = None,
        beam: ParticleBeam | None = None,
        seed: int = 0,
    ) -> None:
        if library.material is None:
            raise InputError(f"{library.path} is of a layered detector; cells of a design need a homogeneous block")
        self.name, self.material = library.path.name, library.material
        self.n_xy, self.n_z, self.pixels = n_xy, n_z, pixels
        self._check_cells, self._config = library.check_cells, library.config
        self.incident = library.incidence()
        if self.incident.difference(self.incident[:1]):
            raise InputError(
                f"{self.name} has showers of several beams: {self.incident.describe()}; expected one entry and "
                "direction"
            )
        self._simulated = self.incident[:1]
        if beam is not None:
            self._check_beam(beam, library)
            self.incident = beam.draw(torch.ones(1), RandomNumbers(seed, range(len(self.incident)))).to_incidence(
                len(self.incident)
            )
        self.beam, self._seed = beam, seed
        rows = {e: np.flatnonzero(np.isclose(library.energy, e, rtol=RELATIVE)) for e in energies}
        missing = [f"{energy:g}" for energy, found in rows.items() if len(found) == 0]
        if missing:
            have = ", ".join(f"{e:g}" for e in np.unique(library.energy.round(4))[:12])
            raise InputError(
                f"{library.path} has no showers of {', '.join(missing)} GeV; its energies are {have} GeV: "
                "choose among these, or simulate a library with the energies asked"
            )
        self._showers = {energy: _read(library, found) for energy, found in rows.items()}
        self._remembered: dict[tuple[float, Size], np.ndarray] = {}

    def _check_beam(self, beam: ParticleBeam, library: Library) -> None:
        """Raise `InputError` for another particle or angle than the library's, or showers that cannot be moved."""
        asked = Incidence.of(1, beam.particle, theta=beam.theta)
        made = Incidence.of(1, self._simulated.particle, theta=self._simulated.theta)
        difference = made.difference(asked)
        if difference:
            raise InputError(f"{self.name} is of {difference} as asked; choose showers of that particle and angle")
        drawn = beam.scales or isinstance(beam.phi, tuple)
        there = beam.draw(torch.ones(1), RandomNumbers(0, range(1))).to_incidence(1)
        if library.immovable and (drawn or self._simulated.difference(there)):
            raise InputError(f"{self.name} is of {library.immovable}, whose showers cannot be moved or turned")

    def particles(self, energy: float, design: Size) -> Particles | None:
        """See `Reference.particles`."""
        n = self.count(energy)
        if self.beam is not None:
            numbers = RandomNumbers(self._seed, self._of(energy).index)
            return self.beam.draw(torch.tensor(design[:1], dtype=torch.float64), numbers)
        incident = self._simulated[np.zeros(n, int)]
        return None if incident.on_axis else Particles.from_incidence(incident, _EXACT)

    def count(self, energy: float) -> int:
        """See `Reference.count`."""
        return len(self._of(energy))

    def measure(self, energy: float, designs: list[Size]) -> np.ndarray:
        """See `Reference.measure`; cells of the last `REMEMBERED` designs are kept for other objectives."""
        for dx, dz in designs:
            if (energy, (dx, dz)) not in self._remembered:
                self._remembered[energy, (dx, dz)] = self._cut(energy, dx, np.array(dz))
        cells = np.stack([self._remembered[energy, design] for design in designs])
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return cells

    def block(self, start: int, showers: int) -> LibraryReference:
        """Return a reference of consecutive showers of every energy, which continue at the first after the last.

        Raises:
            InputError: more showers than there are.
        """
        block = copy(self)
        block._remembered, block._showers = {}, {e: self._consecutive(e, start, showers) for e in self._showers}
        return block

    def _consecutive(self, energy: float, start: int, showers: int) -> Showers:
        whole = self._of(energy)
        if showers > len(whole):
            raise InputError(f"{self.name} has {len(whole)} showers of {energy:g} GeV, {showers} are asked at a time")
        first = start % len(whole)
        end, beyond = whole.rows(slice(first, first + showers)), first + showers - len(whole)
        return end if beyond <= 0 else Showers.concatenate([end, whole.rows(slice(beyond))])

    def _cut(self, energy: float, dx: float, dz: np.ndarray) -> np.ndarray:
        """Return the cells of a design, or the pixels of its window, shape (n, pixels, 1, pixels)."""
        self._check_cells(dx, dz, self.n_xy, self.n_z)
        showers, n = self._of(energy), self.count(energy)
        if self.pixels is None:
            simulated, particles = self._simulated[np.zeros(n, int)], self.particles(energy, (dx, tuple(dz)))
            incident = simulated if particles is None else particles.to_incidence(n)
            sizes = np.full(n, dx), np.broadcast_to(dz, (n, self.n_z))
            window = incident.window_offsets(*sizes)
            follows = None if incident.on_axis else window
            check_windows(self._config, self.name, simulated, *sizes, self.n_xy, incident, follows)
            if self.beam is not None:
                turn = incident.phi - simulated.phi
                showers = move_deposits(showers, simulated.position, incident.position, turn)
            return segment_deposits(showers, dx, dz, self.n_xy, self.n_z, window)
        return project_deposits(showers, dx, dz, self.n_xy, self.n_z, self.pixels)[:, :, None]

    def _of(self, energy: float) -> Showers:
        found = next((s for e, s in self._showers.items() if np.isclose(e, energy, rtol=RELATIVE)), None)
        if found is None:
            raise InputError(f"{self.name}: {energy:g} GeV were not read; read are {sorted(self._showers)} GeV")
        return found


def _read(library: Library, rows: np.ndarray) -> Showers:
    """Return the showers ``rows`` of a library, one or more."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return Showers.concatenate([library.read(int(run[0]), int(run[-1]) + 1) for run in runs])


class CellsReference:
    """A reference from a cells file, for the designs that it holds of the same showers.

    Args:
        cells: rows of showers at several designs.
        name: name of the file.
    """

    any_design = False

    def __init__(self, cells: Cells, name: str | Path) -> None:
        self.name, self.material, self.incident = str(name), cells.material, cells.incident
        self._cells = cells

    def particles(self, energy: float, design: Size) -> Particles | None:
        """See `Reference.particles`."""
        incident = self.incident[self._rows(energy, design)]
        return None if incident.on_axis else Particles.from_incidence(incident, _EXACT)

    def _rows(self, energy: float, design: Size) -> np.ndarray:
        """Return the rows of an energy and a design, in the order of their showers."""
        c, (dx, dz) = self._cells, design
        at_energy, at_pitch = (np.isclose(a, b, rtol=RELATIVE) for a, b in ((c.energy, energy), (c.dx, dx)))
        rows = np.flatnonzero(at_energy & at_pitch & np.isclose(c.dz, dz, rtol=RELATIVE).all(1))
        return rows[np.argsort(c.shower[rows], kind="stable")]

    def count(self, energy: float) -> int:
        """See `Reference.count`."""
        return len(np.unique(self._cells.shower[np.isclose(self._cells.energy, energy, rtol=RELATIVE)]))

    def measure(self, energy: float, designs: list[Size]) -> np.ndarray:
        """See `Reference.measure`."""
        c, found, missing = self._cells, [], []
        for dx, dz in designs:
            found.append(self._rows(energy, (dx, dz)))
            if len(found[-1]) == 0:
                missing.append(f"dx = {dx:.6g} with dz = {','.join(f'{v:.6g}' for v in dict.fromkeys(dz))} cm")
        if missing:
            raise InputError(
                f"{self.name} lacks {len(missing)} of {len(designs)} designs at {energy:g} GeV: {'; '.join(missing)}; "
                "give a shower library, or a cells file that holds these"
            )
        if any(not np.array_equal(c.shower[rows], c.shower[found[0]]) for rows in found):
            raise InputError(
                f"{self.name}: its designs are not of the same showers at {energy:g} GeV; segment them anew"
            )
        return np.stack([c.cells[rows] for rows in found])


def open_reference(
    path: Path,
    energies: Sequence[float],
    n_xy: int = 5,
    n_z: int = 5,
    *,
    pixels: int | None = None,
    beam: ParticleBeam | None = None,
    seed: int = 0,
) -> LibraryReference | CellsReference:
    """Open a shower library, or for cells a cells file, as a reference.

    Args:
        path: path of the file.
        energies: energies that are read from a library, GeV.
        n_xy, n_z: cells of the designs.
        pixels: pixels each way of maps; None: for cells.
        beam, seed: see `LibraryReference`.

    Raises:
        FormatError: the file is missing, damaged or of another kind.
        InputError: showers of an energy are missing.
    """
    kind = (schema_of(shard_files(path)[0]) or "").rpartition("/")[0]
    if pixels is None and kind == CELLS.schema.rpartition("/")[0]:
        return CellsReference(cast(Cells, read_shards(path)), path.name)
    with open_library(path) as library:
        return LibraryReference(library, tuple(energies), n_xy, n_z, pixels=pixels, beam=beam, seed=seed)
