"""Maps: the projection of a shower on the x-z plane, 32 x 32 pixels over the window of a design.

With n_xy cells of pitch dx across and layers of depths dz_k, pixel (a, b) collects the deposits in the window with

    a = floor(32 x / (n_xy dx) + 16),     b = floor(32 z / sum_k dz_k)

so a pixel is 5 dx / 32 by 5 dz / 32 for the 5 x 5 x 5 cells of arXiv 2601.07859. Energies are absolute: what is in the
window is in the map, and no map is scaled by its own maximum as that paper's published code does. Sums run in float64
and are stored as float32.

A maps file (HDF5, schema ``calograd/maps/1``) holds `Maps`: a row is one shower in the window of one design.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.material import Material
from calograd.errors import FormatError, InputError
from calograd.events.cells import SCHEMA as CELLS_SCHEMA
from calograd.events.cells import Cells, read_cells, write_cells
from calograd.events.dense import ALL, Extent, check_numbers, read_extent, read_file, write_file
from calograd.events.segmentation import check_sizes, collect, per_deposit, spans
from calograd.io.hdf5 import schema_of

SCHEMA = "calograd/maps/1"
PIXELS = 32
"""Across and along."""
DIMENSIONS = 3
"""Of an array of maps."""


@dataclass(frozen=True)
class Maps:
    """Rows of x-z maps with the designs whose windows they show.

    Args:
        maps: deposited energy, shape (n, pixels across, pixels along), GeV, float32.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depth of every layer, shape (n, n_z), cm.
        n_xy: cells across: the window is n_xy dx wide and sum dz deep.
        shower: which shower of the source a row shows, shape (n,).
        material: of the calorimeter.
        origin: ``geant4`` or the name of a surrogate.
        config: what made the rows (simulation and projection, or sampling), as plain data.
    """

    maps: np.ndarray
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    n_xy: int
    shower: np.ndarray
    material: Material
    origin: str
    config: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def measured(self) -> np.ndarray:
        """What was measured of every shower, as `calograd.events.cells.Cells` has it too."""
        return self.maps

    @property
    def totals(self) -> np.ndarray:
        """Energy of every row, shape (n,), GeV."""
        return np.asarray(self.maps.sum((1, 2)))

    @property
    def width(self) -> np.ndarray:
        """Width of the window, shape (n,), cm."""
        return np.asarray(self.n_xy * self.dx.astype(np.float64))

    @property
    def depth(self) -> np.ndarray:
        """Depth of the window, shape (n,), cm."""
        return np.asarray(self.dz.sum(1, dtype=np.float64))

    def rows(self, which: np.ndarray | slice) -> Maps:
        """The chosen rows, by mask, indices or slice."""
        return Maps(
            self.maps[which], self.energy[which], self.dx[which], self.dz[which], self.n_xy, self.shower[which],
            self.material, self.origin, self.config,
        )  # fmt: skip


def project(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    e: np.ndarray,
    offsets: np.ndarray,
    dx: float | np.ndarray,
    dz: float | np.ndarray,
    n_xy: int = 5,
    n_z: int = 5,
    pixels: int = PIXELS,
) -> np.ndarray:
    """Maps of showers.

    Args:
        x, y, z: positions of the deposits, shape (deposits,), cm.
        e: energies of the deposits, shape (deposits,), GeV.
        offsets: shower s owns deposits ``offsets[s]:offsets[s + 1]``, shape (n + 1,).
        dx: cell pitch in cm, one number or one a shower, shape (n,).
        dz: layer depth in cm: one number, one a layer (n_z,), or one a shower and layer (n, n_z).
        n_xy: cells across.
        n_z: layers.
        pixels: across and along.

    Returns:
        Energies, shape (n, pixels, pixels), GeV, float32: x first, then z.

    Raises:
        InputError: sizes that are not positive or do not fit the showers, no pixels, deposits that are NaN.
    """
    if pixels < 1:
        raise InputError(f"{pixels} x {pixels} pixels: expected at least one each way")
    n = len(offsets) - 1
    pitch, depths = check_sizes(dx, dz, n, n_xy, n_z)
    width, depth = n_xy * pitch, depths.sum(1)
    maps = np.zeros((n, pixels, pixels), dtype=np.float32)
    for rows, part, counts in spans(offsets, pixels * pixels):
        maps[rows] = _project_block(x[part], y[part], z[part], e[part], counts, width[rows], depth[rows], pixels)
    if not np.isfinite(maps).all():
        raise InputError("deposits hold energies that are NaN or infinite; expected GeV")
    return maps


def _project_block(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    e: np.ndarray,
    counts: np.ndarray,
    width: np.ndarray,
    depth: np.ndarray,
    pixels: int,
) -> np.ndarray:
    half = np.float32(pixels / 2)
    across = per_deposit((pixels / width).astype(np.float32), counts)
    along = per_deposit((pixels / depth).astype(np.float32), counts)
    u, v, w = x * across + half, y * across + half, z * along
    inside = (u >= 0) & (u < pixels) & (v >= 0) & (v < pixels) & (w >= 0) & (w < pixels)
    with np.errstate(invalid="ignore"):  # far outside there is no integer; those are overwritten below
        index = u.astype(np.int32) * pixels + w.astype(np.int32)
    return collect(index, inside, (x, y, z), e, counts, pixels * pixels).reshape(-1, pixels, pixels)


def resample(images: np.ndarray, pixels: int = PIXELS) -> np.ndarray:
    """Images with other numbers of pixels over the same window; every image keeps its energy.

    A new pixel takes of every old one the share of its area that it covers, as if energy were spread evenly in it.

    Args:
        images: shape (n, across, along).
        pixels: of the result, across and along.

    Returns:
        Shape (n, pixels, pixels), float32.
    """
    across, along = (_overlaps(size, pixels) for size in images.shape[1:])
    return np.asarray(across @ images @ along.T, dtype=np.float32)


def _overlaps(old: int, new: int) -> np.ndarray:
    """Share of each old pixel that lies in each new one, shape (new, old); columns add up to one."""
    edges = np.linspace(0, old, new + 1)
    low, high = np.maximum(edges[:-1, None], np.arange(old)), np.minimum(edges[1:, None], np.arange(1, old + 1))
    return np.asarray(np.clip(high - low, 0, None))


def write_maps(path: Path, maps: Maps) -> None:
    """Write a maps file.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    write_file(path, SCHEMA, "maps", vars(maps), n_xy=maps.n_xy)


def read_maps(path: Path, rows: slice = ALL) -> Maps:
    """Read a maps file.

    Args:
        path: of the file.
        rows: which to read, from the first to the last or a part.

    Raises:
        FormatError: missing, cut off, of another kind, newer, with inconsistent shapes, NaN or negative energies.
    """
    stored = read_file(path, SCHEMA, "maps", rows)
    n_xy, shape, depths = stored.attributes.get("n_xy"), stored.numbers["maps"].shape, stored.numbers["dz"].shape
    if not isinstance(n_xy, int | np.integer) or n_xy < 1:
        raise FormatError(f"{path}: the attribute 'n_xy' is {n_xy}, expected the number of cells across")
    if len(shape) != DIMENSIONS or min(shape[1:]) < 1:
        raise FormatError(f"{path}: maps have shape {shape}, expected (n, pixels across, pixels along)")
    check_numbers(stored, depths[1] if len(depths) > 1 else 1, path, rows.start or 0)
    return Maps(**stored.fields(path), n_xy=int(n_xy))


def read_rows(path: Path, rows: slice = ALL) -> Cells | Maps:
    """Read a cells file or a maps file, whichever it is.

    Raises:
        FormatError: as `read_cells` and `read_maps`.
    """
    return read_maps(path, rows) if _holds_maps(path) else read_cells(path, rows)


def rows_in(path: Path) -> Extent:
    """How much a cells file or a maps file holds. Raises `FormatError` as `read_rows`, but for the numbers in it."""
    return read_extent(path, SCHEMA, "maps") if _holds_maps(path) else read_extent(path, CELLS_SCHEMA, "cells")


def _holds_maps(path: Path) -> bool:
    schema = schema_of(path) if path.is_file() else None
    return schema is not None and schema.startswith("calograd/maps/")


def write_rows(path: Path, rows: Cells | Maps) -> None:
    """Write a cells file or a maps file, whichever fits.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    if isinstance(rows, Maps):
        write_maps(path, rows)
    else:
        write_cells(path, rows)
