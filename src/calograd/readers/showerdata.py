"""Point clouds and grids in other projects' HDF5 files.

**showerdata** (PyPI, FLC-QU-hep/ShowerData, 0.7): ``showers`` (n,) of variable length, each the flattened points
(x, y, layer, e) or (x, y, layer, e, t), mm and GeV; ``energies`` (n, 1) GeV; ``directions`` (n, 3); ``pdg`` (n,);
``shower_ids`` (n,); ``shape`` = (n, most points, 4 or 5); ``num_points`` (n,); attribute ``showerdata_version``.
Padding (points without energy) is dropped, points in any order are sorted, times are left out.

**CaloChallenge** (arXiv 2410.21611): ``incident_energies`` (n, 1) and ``showers`` (n, voxels), both MeV. Here the
voxels are cells of the regular view, layer by layer: number (layer n_xy + i) n_xy + j.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from calograd.errors import FormatError
from calograd.events.layered_readout import GRID, Readout, read_out
from calograd.events.point_showers import LAYERS, PointShowers, check_points, sort_points
from calograd.io.files import refuse_existing
from calograd.io.hdf5 import new_file, reading

SHOWERDATA_VERSION = "0.7.0"
PDG = {"gamma": 22, "e-": 11, "e+": -11}
_DATASETS = ("showers", "energies", "directions", "pdg", "shower_ids", "shape", "num_points")
_MM = 10.0
"""In a cm."""
_BATCH = 500
"""Showers whose grids are made at once."""


def write_showerdata(path: Path, clouds: PointShowers, particle: str = "gamma") -> None:
    """Write points as the package ``showerdata`` reads them.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    n, counts = len(clouds), clouds.counts
    table = np.stack([_MM * clouds.x, _MM * clouds.y, clouds.layer, clouds.e], axis=1).astype(np.float32)
    with new_file(path, None) as file:
        showers = file.create_dataset("showers", (n,), dtype=h5py.vlen_dtype(np.float32))
        flat = np.empty(n, dtype=object)
        for row, (start, stop) in enumerate(zip(clouds.offsets[:-1], clouds.offsets[1:], strict=True)):
            flat[row] = table[start:stop].reshape(-1)
        if n:
            showers[...] = flat
        file["energies"] = clouds.energy[:, None].astype(np.float32)
        file["directions"] = np.tile(np.array([0, 0, 1], np.float32), (n, 1))
        file["pdg"] = np.full(n, PDG[particle], np.int32)
        file["shower_ids"] = clouds.shower.astype(np.int32)
        file["shape"] = np.array([n, int(counts.max(initial=0)), 4], np.int32)
        file["num_points"] = counts.astype(np.int32)
        file.attrs["showerdata_version"] = SHOWERDATA_VERSION


def read_showerdata(path: Path, layers: int = LAYERS) -> PointShowers:
    """Read points of a file that the package ``showerdata`` wrote; see above for what is left out.

    Raises:
        FormatError: missing, damaged, of another kind, layers outside the detector, or energies that are negative or
            no numbers.
    """
    with reading(path, "a file of the package showerdata") as file:
        missing = [name for name in _DATASETS if name not in file]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of the package showerdata")
        for name in ("shape", "energies", "shower_ids"):
            if file[name].dtype.kind not in "iuf":
                raise FormatError(f"{path}: {name} is of type {file[name].dtype}, expected numbers")
        width = int(file["shape"][-1])
        rows, energy = file["showers"][()], file["energies"][()].reshape(-1)
        shower = file["shower_ids"][()].astype(np.int64)
        if width not in (4, 5) or any(len(row) % width for row in rows):
            raise FormatError(f"{path}: points of {width} numbers; expected x, y, layer, e (and t)")
        if not len(rows) == len(energy) == len(shower):
            raise FormatError(
                f"{path}: {len(rows)} showers, {len(energy)} energies, {len(shower)} numbers; expected equal"
            )
        counts = np.array([len(row) // width for row in rows], dtype=np.int64)
        table = np.concatenate([np.zeros((0, width)), *(row.reshape(-1, width) for row in rows)])
        owner = np.repeat(np.arange(len(rows)), counts)
        filled = table[:, 3] != 0
        table, owner = table[filled], owner[filled]
        layer = np.floor(table[:, 2] + 0.1).astype(np.int64)  # 0.1 as showerdata rounds
        check_points(str(path), energy, layers, table[:, 0], table[:, 1], layer, table[:, 3])
    x, y, layer, e, offsets = sort_points(table[:, 0] / _MM, table[:, 1] / _MM, layer, table[:, 3], owner, len(rows))
    return PointShowers(
        x, y, layer, e, offsets, energy.astype(np.float32), shower, layers, "showerdata", {"file": path.name}
    )


def write_calochallenge(path: Path, clouds: PointShowers, readout: Readout | None = None, n_xy: int = GRID) -> None:
    """Write the regular view as the CaloChallenge's evaluation reads it; no threshold is applied.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    with new_file(path, None) as file:
        n, voxels = len(clouds), clouds.layers * n_xy**2
        file["incident_energies"] = 1e3 * clouds.energy[:, None].astype(np.float64)
        chunks = (max(1, min(n, 64)), voxels) if n else None
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if chunks else {}
        showers = file.create_dataset("showers", (n, voxels), dtype="<f4", chunks=chunks, **packing)
        for start in range(0, n, _BATCH):
            some = clouds.rows(slice(start, start + _BATCH))
            grid = read_out(some, readout, 0.0).grid(n_xy)
            showers[start : start + len(some)] = 1e3 * np.moveaxis(grid, 3, 1).reshape(len(some), voxels)
        file.attrs["shape"] = np.array([clouds.layers, n_xy, n_xy])
        file.attrs["origin"] = clouds.origin
