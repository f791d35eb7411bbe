"""Segmentation: the cells that a design measures of showers.

Cell (i, j, k) collects the deposits with

    i = floor(x / dx + n/2),   j = floor(y / dx + n/2),   z_k <= z < z_{k+1},   z_0 = 0, z_{k+1} = z_k + dz_k

and what falls outside the window is lost to the design. Every shower may have a design of its own. Sums run in
float64 and are stored as float32, so the energy in the window is conserved to float32 rounding. Positions are compared
in float32: a deposit within a rounding error of an edge may be counted on either side of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from calograd.errors import InputError

BLOCK = 1 << 18
"""Deposits worked on at once; a block's arrays stay in the cache of one core."""
BLOCK_CELLS = 1 << 24
"""Cells worked on at once; their indices fit 32 bits."""


def segment(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    e: np.ndarray,
    offsets: np.ndarray,
    dx: float | np.ndarray,
    dz: float | np.ndarray,
    n_xy: int = 5,
    n_z: int = 5,
) -> np.ndarray:
    """Cell energies of showers.

    Args:
        x, y, z: positions of the deposits, shape (deposits,), cm.
        e: energies of the deposits, shape (deposits,), GeV.
        offsets: shower s owns deposits ``offsets[s]:offsets[s + 1]``, shape (n + 1,).
        dx: cell pitch in cm, one number or one a shower, shape (n,).
        dz: layer depth in cm: one number, one a layer (n_z,), or one a shower and layer (n, n_z).
        n_xy: cells across.
        n_z: layers.

    Returns:
        Energies, shape (n, n_xy, n_xy, n_z), GeV, float32.

    Raises:
        InputError: sizes that are not positive or do not fit the showers, fewer than one cell, deposits that are NaN.
    """
    n = len(offsets) - 1
    pitch, depths = check_sizes(dx, dz, n, n_xy, n_z)
    cells = np.zeros((n, n_xy, n_xy, n_z), dtype=np.float32)
    for rows, part, counts in spans(offsets, n_xy * n_xy * n_z):
        cells[rows] = _segment_block(x[part], y[part], z[part], e[part], counts, pitch[rows], depths[rows], n_xy)
    if not np.isfinite(cells).all():
        raise InputError("deposits hold energies that are NaN or infinite; expected GeV")
    return cells


def spans(offsets: np.ndarray, cells: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Showers to work on at once: which, their deposits, and how many of these each has.

    Args:
        offsets: as of `segment`.
        cells: that a shower is cut into.
    """
    start = 0
    while start < len(offsets) - 1:
        stop = int(np.searchsorted(offsets, offsets[start] + BLOCK, side="right")) - 1
        stop = max(start + 1, min(stop, start + BLOCK_CELLS // cells))
        part = slice(int(offsets[start]), int(offsets[stop]))
        yield slice(start, stop), part, np.diff(offsets[start : stop + 1])
        start = stop


def check_sizes(
    dx: float | np.ndarray, dz: float | np.ndarray, n: int, n_xy: int, n_z: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pitch (n,) and depths (n, n_z) of every shower, checked."""
    if n_xy < 1 or n_z < 1:
        raise InputError(f"{n_xy} x {n_xy} x {n_z} cells: expected at least one each way")
    pitch, depths = np.asarray(dx, dtype=np.float64), np.asarray(dz, dtype=np.float64)
    if pitch.shape not in ((), (n,)):
        raise InputError(f"dx has shape {pitch.shape}, expected one number or one a shower, ({n},)")
    if depths.shape not in ((), (n_z,), (n, n_z)):
        expected = f"one number, one a layer ({n_z},), or one a shower and layer ({n}, {n_z})"
        raise InputError(f"dz has shape {depths.shape}, expected {expected}")
    for name, sizes in (("dx", pitch), ("dz", depths)):
        bad = sizes[~(np.isfinite(sizes) & (sizes > 0))]
        if bad.size:
            raise InputError(f"cell size {name} = {bad.flat[0]} cm: expected a positive number")
    return np.broadcast_to(pitch, (n,)), np.broadcast_to(depths, (n, n_z))


def _segment_block(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray,
    e: np.ndarray,
    counts: np.ndarray,
    pitch: np.ndarray,
    depths: np.ndarray,
    n_xy: int,
) -> np.ndarray:
    n, n_z = depths.shape
    edges = np.concatenate([np.zeros((n, 1)), np.cumsum(depths, axis=1)], axis=1).astype(np.float32)
    inverse = per_deposit((1 / pitch).astype(np.float32), counts)
    half = np.float32(n_xy / 2)
    u, v = x * inverse + half, y * inverse + half
    inside = (u >= 0) & (u < n_xy) & (v >= 0) & (v < n_xy) & (z >= 0)
    layer = np.zeros(len(z), dtype=np.int32)
    for k in range(1, n_z):
        layer += z >= per_deposit(edges[:, k], counts)
    inside &= z < per_deposit(edges[:, n_z], counts)
    with np.errstate(invalid="ignore"):  # far outside there is no integer; those are overwritten below
        index = (u.astype(np.int32) * n_xy + v.astype(np.int32)) * n_z + layer
    return collect(index, inside, (x, y, z), e, counts, n_xy * n_xy * n_z).reshape(n, n_xy, n_xy, n_z)


def collect(
    index: np.ndarray,
    inside: np.ndarray,
    places: tuple[np.ndarray, ...],
    e: np.ndarray,
    counts: np.ndarray,
    cells: int,
) -> np.ndarray:
    """Energy in every cell of some showers, shape (n, cells), float64.

    Args:
        index: of every deposit's cell in its shower, int32; overwritten.
        inside: which deposits are in a cell at all.
        places: positions of the deposits, to find out why they are not.
        e: energies of the deposits.
        counts: deposits of every shower, shape (n,).
        cells: of a shower.
    """
    n = len(counts)
    index += np.repeat(np.arange(n, dtype=np.int32) * cells, counts)
    overflow = n * cells
    lost = ~inside
    index[lost] = overflow
    if any(np.isnan(place[lost]).any() for place in places):
        raise InputError("deposits hold positions that are NaN; expected cm")
    return np.bincount(index, weights=e, minlength=overflow + 1)[:overflow].reshape(n, cells)


def per_deposit(values: np.ndarray, counts: np.ndarray) -> np.ndarray | np.floating:
    """One value a shower, for every deposit; a scalar where all showers share it."""
    if (values == values[0]).all():
        scalar: np.floating = values[0]
        return scalar
    return np.repeat(values, counts)
