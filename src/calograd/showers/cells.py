"""Cells files: what designs measure of showers (HDF5, schema ``calograd/cells/1``).

A row is one shower at one design. Rows made from the same shower share the number in ``shower``; training and test
data are split by it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import FormatError
from calograd.material import Material
from calograd.showers.hdf5 import existing_file, new_file, refuse_existing

SCHEMA = "calograd/cells/1"
_NUMBERS = ("cells", "energy", "dx", "dz")


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
    """Write a cells file.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    with new_file(path, SCHEMA) as file:
        shape = cells.cells.shape
        row = max(1, 4 * shape[1] * shape[2] * shape[3])
        chunks = (max(1, min(len(cells), (1 << 20) // row)), *shape[1:]) if cells.cells.size else None
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if chunks else {}
        file.create_dataset("cells", data=cells.cells.astype(np.float32), chunks=chunks, **packing)
        for name in _NUMBERS[1:]:
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
        missing = [name for name in _NUMBERS if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of schema '{SCHEMA}'")
        data = {name: file[name][()] for name in _NUMBERS}
        shower = file["shower"][()] if "shower" in file else np.arange(len(file["cells"]))
        attributes = dict(file.attrs)
    _check_numbers(data, shower, path)
    return Cells(
        **{name: values.astype(np.float32, copy=False) for name, values in data.items()},
        shower=shower.astype(np.int64),
        material=_material(attributes, path),
        origin=str(attributes.get("origin", "unknown")),
        config=_config(attributes, path),
    )


def _check_numbers(data: dict[str, np.ndarray], shower: np.ndarray, path: Path) -> None:
    """Refuse numbers that do not fit each other or that no shower can have."""
    cells, n = data["cells"], len(data["cells"]) if data["cells"].ndim else 0
    if cells.ndim != 4 or cells.shape[1] != cells.shape[2]:
        raise FormatError(f"{path}: cells have shape {cells.shape}, expected (n, n_xy, n_xy, n_z)")
    expected = {"energy": (n,), "dx": (n,), "dz": (n, cells.shape[3]), "shower": (n,)}
    for name, values in {**data, "shower": shower}.items():
        if values.dtype.kind not in ("iu" if name == "shower" else "fiu"):
            raise FormatError(f"{path}: {name} are of type {values.dtype}, expected numbers")
        if values.shape != expected.get(name, cells.shape):
            raise FormatError(
                f"{path}: {name} has shape {values.shape}, expected {expected[name]} as cells {cells.shape}"
            )
    for name, values in data.items():
        lowest = 0.0 if name == "cells" else np.finfo(np.float32).tiny
        bad = ~((values >= lowest) & (values < np.inf))
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            raise FormatError(
                f"{path}: {name} holds NaN, infinite or {'negative' if name == 'cells' else 'non-positive'} values "
                f"in {len(rows)} rows, the first is row {rows[0]}; make the file anew"
            )


def _material(attributes: dict[str, Any], path: Path) -> Material:
    if "material" not in attributes:
        raise FormatError(f"{path} names no material; expected the attribute 'material'")
    try:
        if "material_numbers" in attributes:
            return Material(**json.loads(attributes["material_numbers"]))
        return Material.parse(str(attributes["material"]))
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: the material cannot be used: {error}") from error


def _config(attributes: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        config = json.loads(attributes.get("config", "{}"))
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: the attribute 'config' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError(f"{path}: the attribute 'config' is a {type(config).__name__}, expected a JSON object")
    return config
