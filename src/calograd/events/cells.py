"""Cells files: what designs measure of showers (HDF5, schema ``calograd/cells/1``).

A row is one shower at one design. Rows made from the same shower share the number in ``shower``; training and test
data are split by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.material import Material
from calograd.errors import FormatError
from calograd.events.dense import ALL, check_numbers, read_file, write_file

SCHEMA = "calograd/cells/1"
DIMENSIONS = 4
"""Of an array of cells."""


@dataclass(frozen=True)
class Cells:
    """Rows of cell energies with the designs that measured them.

    Args:
        cells: deposited energy, shape (n, n_xy, n_xy, n_z), GeV, float32.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depth of every layer, shape (n, n_z), cm.
        shower: which shower of the source a row shows, shape (n,).
        material: of the calorimeter.
        origin: ``geant4`` or the name of a surrogate.
        config: what made the rows (simulation and segmentation, or sampling), as plain data.
    """

    cells: np.ndarray
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    shower: np.ndarray
    material: Material
    origin: str
    config: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def n_xy(self) -> int:
        """Cells across."""
        return int(self.cells.shape[1])

    @property
    def measured(self) -> np.ndarray:
        """What was measured of every shower, as `calograd.events.maps.Maps` has it too."""
        return self.cells

    @property
    def totals(self) -> np.ndarray:
        """Energy of every row, shape (n,), GeV."""
        return np.asarray(self.cells.sum((1, 2, 3)))

    def rows(self, which: np.ndarray | slice) -> Cells:
        """The chosen rows, by mask, indices or slice."""
        return Cells(
            self.cells[which], self.energy[which], self.dx[which], self.dz[which], self.shower[which],
            self.material, self.origin, self.config,
        )  # fmt: skip


def write_cells(path: Path, cells: Cells) -> None:
    """Write a cells file.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    write_file(path, SCHEMA, "cells", vars(cells))


def read_cells(path: Path, rows: slice = ALL) -> Cells:
    """Read a cells file.

    Args:
        path: of the file.
        rows: which to read, from the first to the last or a part.

    Raises:
        FormatError: missing, cut off, of another kind, newer, with inconsistent shapes, NaN or negative energies.
    """
    stored = read_file(path, SCHEMA, "cells", rows)
    shape = stored.numbers["cells"].shape
    if len(shape) != DIMENSIONS or shape[1] != shape[2]:
        raise FormatError(f"{path}: cells have shape {shape}, expected (n, n_xy, n_xy, n_z)")
    check_numbers(stored, shape[3], path, rows.start or 0)
    return Cells(**stored.fields(path))
