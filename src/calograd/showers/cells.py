"""Cells files: what designs measure of showers (HDF5, schema ``calograd/cells/1``).

A row is one shower at one design. Rows made from the same shower share the number in ``shower``; training and test
data are split by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calograd.errors import FormatError
from calograd.material import Material
from calograd.showers.hdf5 import existing_file, new_file, refuse_existing

SCHEMA = "calograd/cells/1"


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

    def rows(self, which: np.ndarray | slice) -> Cells:
        """The chosen rows, by mask, indices or slice."""
        return Cells(
            self.cells[which], self.energy[which], self.dx[which], self.dz[which], self.shower[which],
            self.material, self.origin, self.config,
        )  # fmt: skip


def write_cells(path: Path, cells: Cells) -> None:
    """Write a cells file. Raises `OutputExistsError` if ``path`` exists."""
    refuse_existing(path)
    with new_file(path, SCHEMA) as file:
        rows = max(1, min(len(cells), (1 << 20) // max(1, cells.cells[0].nbytes if len(cells) else 1)))
        file.create_dataset(
            "cells", data=cells.cells.astype(np.float32), chunks=(rows, *cells.cells.shape[1:]),
            compression="gzip", compression_opts=4, shuffle=True,
        )  # fmt: skip
        for name in ("energy", "dx", "dz"):
            file[name] = getattr(cells, name).astype(np.float32)
        file["shower"] = cells.shower.astype(np.int64)
        file.attrs["material"] = cells.material.name
        file.attrs["material_numbers"] = json.dumps(cells.material.to_dict())
        file.attrs["origin"] = cells.origin
        file.attrs["config"] = json.dumps(cells.config)


def read_cells(path: Path) -> Cells:
    """Read a cells file.

    Raises:
        FormatError: missing, cut off, of another kind, newer, with inconsistent shapes, NaN or negative energies.
    """
    with existing_file(path, SCHEMA) as file:
        missing = [name for name in ("cells", "energy", "dx", "dz") if name not in file]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of schema '{SCHEMA}'")
        data = {name: file[name][()] for name in ("cells", "energy", "dx", "dz")}
        shower = file["shower"][()] if "shower" in file else np.arange(len(data["energy"]))
        attributes = dict(file.attrs)
    cells, n = data["cells"], len(data["energy"])
    if cells.ndim != 4 or cells.shape[1] != cells.shape[2] or len(cells) != n:
        raise FormatError(f"{path}: cells have shape {cells.shape}, expected (n, n_xy, n_xy, n_z) with n = {n}")
    if data["dx"].shape != (n,) or data["dz"].shape != (n, cells.shape[3]) or shower.shape != (n,):
        raise FormatError(f"{path}: dx {data['dx'].shape}, dz {data['dz'].shape} do not fit cells {cells.shape}")
    for name, values in data.items():
        bad = ~np.isfinite(values) | (values < 0 if name == "cells" else values <= 0)
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            raise FormatError(
                f"{path}: {name} holds NaN, infinite or {'negative' if name == 'cells' else 'non-positive'} values "
                f"in {len(rows)} rows, the first is row {rows[0]}"
            )
    return Cells(
        cells.astype(np.float32, copy=False), data["energy"].astype(np.float32), data["dx"].astype(np.float32),
        data["dz"].astype(np.float32), shower, _material(attributes, path), str(attributes.get("origin", "unknown")),
        json.loads(attributes.get("config", "{}")),
    )  # fmt: skip


def _material(attributes: dict[str, Any], path: Path) -> Material:
    if "material_numbers" in attributes:
        return Material(**json.loads(attributes["material_numbers"]))
    if "material" not in attributes:
        raise FormatError(f"{path} names no material; expected the attribute 'material'")
    return Material.parse(str(attributes["material"]))
