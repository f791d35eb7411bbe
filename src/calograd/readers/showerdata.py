"""Points and grids in other projects' HDF5 files.

**showerdata** (PyPI, FLC-QU-hep/ShowerData, 0.7): ``showers`` (n,) of variable length, each the flattened points
(x, y, layer, e) or (x, y, layer, e, t), mm and GeV; ``energies`` (n, 1) GeV; ``directions`` (n, 3); ``pdg`` (n,);
``shower_ids`` (n,); ``shape`` = (n, most points, 4 or 5); ``num_points`` (n,); attribute ``showerdata_version``.
Padding (points without energy) is dropped, points in any order are sorted, times are left out. An unknown particle has
``pdg`` 0, an unknown direction is NaN.

**CaloChallenge** (arXiv 2410.21611): ``incident_energies`` (n, 1) and ``showers`` (n, voxels), both MeV. Here the
voxels are cells of the regular view, layer by layer: number (layer n_xy + i) n_xy + j.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from calograd.detector.configuration import beam_direction
from calograd.errors import FormatError
from calograd.events.layered_readout import GRID, Readout, read_out
from calograd.events.plausibility import SAMPLING, check_axis, check_energies
from calograd.events.point_showers import LAYERS, PointShowers, check_points, sort_points
from calograd.io.files import refuse_existing
from calograd.io.hdf5 import check_datasets, new_file, reading

SHOWERDATA_VERSION = "0.7.0"
"""Version of the package whose files are written."""
_DATASETS = ("showers", "energies", "directions", "pdg", "shower_ids", "shape", "num_points")
_MM = 10.0
"""Millimetres in a centimetre."""
_BATCH = 500
"""Number of showers whose grids are made at a time."""


def write_showerdata(path: Path, showers: PointShowers) -> None:
    """Write points as the package ``showerdata`` reads them.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: the file cannot be written.
    """
    refuse_existing(path)
    n, counts = len(showers), showers.counts
    table = np.stack([_MM * showers.x, _MM * showers.y, showers.layer, showers.e], axis=1).astype(np.float32)
    with new_file(path, None) as file:
        rows = file.create_dataset("showers", (n,), dtype=h5py.vlen_dtype(np.float32))
        for row, (start, stop) in enumerate(zip(showers.offsets[:-1], showers.offsets[1:], strict=True)):
            rows[row] = table[start:stop].reshape(-1)
        file["energies"] = showers.energy[:, None].astype(np.float32)
        file["directions"] = _directions(showers)
        file["pdg"] = (np.zeros(n) if showers.pdg is None else showers.pdg).astype(np.int32)
        file["shower_ids"] = showers.shower.astype(np.int32)
        file["shape"] = np.array([n, int(counts.max(initial=0)), 4], np.int32)
        file["num_points"] = counts.astype(np.int32)
        file.attrs["showerdata_version"] = SHOWERDATA_VERSION


def _directions(showers: PointShowers) -> np.ndarray:
    """Return unit vectors along the incident particles, shape (n, 3); NaN where unknown."""
    if showers.theta is None or showers.phi is None:
        return np.full((len(showers), 3), np.nan, np.float32)
    angles = zip(showers.theta.tolist(), showers.phi.tolist(), strict=True)
    return np.array([beam_direction(theta, phi) for theta, phi in angles], np.float32).reshape(-1, 3)


def read_showerdata(path: Path, layers: int = LAYERS) -> PointShowers:
    """Read points of a file that the package ``showerdata`` wrote; see the module's text for what is left out.

    Raises:
        FormatError: the file is missing, damaged, of another kind, or holds layers outside the detector, energies that
            are negative or no numbers.
        InputError: energies in another unit, or showers far from their axis.
    """
    with reading(path, "a file of the package showerdata") as file:
        check_datasets(file, path, _DATASETS, "a file of the package showerdata")
        for name in _DATASETS[1:]:
            if file[name].dtype.kind not in "iuf":
                raise FormatError(f"{path}: {name} is of type {file[name].dtype}, expected numbers")
        width, rows = int(file["shape"][-1]), [np.asarray(row).reshape(-1) for row in file["showers"][()]]
        energy, shower = file["energies"][()].reshape(-1), file["shower_ids"][()].astype(np.int64)
        pdg, directions = file["pdg"][()].astype(np.int64), file["directions"][()].astype(np.float64)
    n = len(rows)
    if width not in (4, 5) or any(len(row) % width for row in rows):
        raise FormatError(f"{path}: points of {width} numbers; expected x, y, layer, e (and t)")
    if not n == len(energy) == len(shower) == len(pdg) or directions.shape != (n, 3):
        raise FormatError(
            f"{path}: {n} showers, {len(energy)} energies, {len(shower)} numbers, {len(pdg)} particles and directions "
            f"of shape {directions.shape}; expected equal numbers, and directions of three"
        )
    table = np.concatenate([np.zeros((0, width)), *(row.reshape(-1, width) for row in rows)])
    owner = np.repeat(np.arange(n), [len(row) // width for row in rows])
    filled = table[:, 3] != 0
    table, owner = table[filled], owner[filled]
    layer = np.floor(table[:, 2] + 0.1).astype(np.int64)  # 0.1 as showerdata rounds
    check_points(str(path), energy, layers, table[:, 0], table[:, 1], layer, table[:, 3])
    columns = sort_points(table[:, 0] / _MM, table[:, 1] / _MM, layer, table[:, 3], owner, n)
    showers = PointShowers(
        *columns, energy.astype(np.float32), shower, layers, "showerdata", {"file": path.name},
        pdg=pdg if (pdg != 0).all() else None, **_angles(directions),
    )  # fmt: skip
    check_plausible(showers, str(path))
    return showers


def _angles(directions: np.ndarray) -> dict[str, np.ndarray]:
    """Return theta and phi in degrees of directions, shape (n, 3); nothing if one of them is none."""
    length = np.linalg.norm(directions, axis=1)
    if not (np.isfinite(length) & (length > 0)).all():
        return {}
    x, y, z = directions.T
    theta, phi = np.degrees(np.arctan2(np.hypot(x, y), z)), np.degrees(np.arctan2(y, x))
    return {"theta": theta.astype(np.float32), "phi": phi.astype(np.float32)}


def check_plausible(showers: PointShowers, what: str) -> list[str]:
    """Return sentences on what looks odd in showers as points: energies, and for normal incidence the position.

    Raises:
        InputError: energies in another unit, or showers far from their axis.
    """
    total = np.bincount(showers.owner, showers.e, len(showers))
    notes = check_energies(total, showers.energy, what, SAMPLING)
    if len(showers.e) and not (showers.theta is not None and showers.theta.any()):
        x, y = (float(np.average(values, weights=showers.e)) for values in (showers.x, showers.y))
        notes += check_axis(x, y, what)
    return notes


def write_calochallenge(path: Path, showers: PointShowers, readout: Readout | None = None, n_xy: int = GRID) -> None:
    """Write the regular view as the CaloChallenge's evaluation reads it; no threshold is applied.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: the file cannot be written.
    """
    refuse_existing(path)
    with new_file(path, None) as file:
        n, voxels = len(showers), showers.layers * n_xy**2
        file["incident_energies"] = 1e3 * showers.energy[:, None].astype(np.float64)
        chunks = (max(1, min(n, 64)), voxels) if n else None
        packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if chunks else {}
        grids = file.create_dataset("showers", (n, voxels), dtype="<f4", chunks=chunks, **packing)
        for start in range(0, n, _BATCH):
            some = showers.rows(slice(start, start + _BATCH))
            grid = read_out(some, readout, 0.0).grid(n_xy)
            grids[start : start + len(some)] = 1e3 * np.moveaxis(grid, 3, 1).reshape(len(some), voxels)
        file.attrs["shape"] = np.array([showers.layers, n_xy, n_xy])
        file.attrs["origin"] = showers.origin
