"""Segmentation: the cells that a design measures of showers.

Cell (i, j, k) collects the deposits with

    i = floor(x / dx + n/2),   j = floor(y / dx + n/2),   z_k <= z < z_{k+1},   z_0 = 0, z_{k+1} = z_k + dz_k

and what falls outside the window is lost to the design. Every shower may have a design of its own. Sums run in
float64 and are stored as float32, so the energy in the window is conserved to float32 rounding.
"""

from __future__ import annotations

import numpy as np

from calograd.errors import InputError

BLOCK = 1 << 18
"""Deposits worked on at once; a block's arrays stay in the cache of one core."""


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
        InputError: sizes that are not positive, or of a shape that does not fit the showers.
    """
    n = len(offsets) - 1
    try:
        pitch = np.broadcast_to(np.asarray(dx, dtype=np.float64), (n,))
        depth = np.asarray(dz, dtype=np.float64)
        depths = np.broadcast_to(depth[:, None] if depth.shape == (n,) != (n_z,) else depth, (n, n_z))
    except ValueError as error:
        raise InputError(
            f"sizes dx {np.shape(dx)}, dz {np.shape(dz)} do not fit {n} showers of {n_z} layers; expected one number, "
            "one a shower, or for dz one a layer or (showers, layers)"
        ) from error
    if not (np.isfinite(pitch).all() and np.isfinite(depths).all() and (pitch > 0).all() and (depths > 0).all()):
        raise InputError(f"cell sizes dx = {dx}, dz = {dz} cm: expected positive numbers")
    cells = np.zeros((n, n_xy, n_xy, n_z), dtype=np.float32)
    start = 0
    while start < n:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + BLOCK, side="right")) - 1)
        part = slice(int(offsets[start]), int(offsets[stop]))
        counts = np.diff(offsets[start : stop + 1])
        cells[start:stop] = _segment_block(
            x[part], y[part], z[part], e[part], counts, pitch[start:stop], depths[start:stop], n_xy
        )
        start = stop
    return cells


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
    inverse = _per_deposit((1 / pitch).astype(np.float32), counts)
    half = np.float32(n_xy / 2)
    u, v = x * inverse + half, y * inverse + half
    inside = (u >= 0) & (u < n_xy) & (v >= 0) & (v < n_xy) & (z >= 0)
    layer = np.zeros(len(z), dtype=np.int32)
    for k in range(1, n_z):
        layer += z >= _per_deposit(edges[:, k], counts)
    inside &= z < _per_deposit(edges[:, n_z], counts)
    index = (u.astype(np.int32) * n_xy + v.astype(np.int32)) * n_z + layer
    index += np.repeat(np.arange(n, dtype=np.int32) * (n_xy * n_xy * n_z), counts)
    overflow = n * n_xy * n_xy * n_z
    index[~inside] = overflow
    sums = np.bincount(index, weights=e, minlength=overflow + 1)[:overflow]
    return sums.reshape(n, n_xy, n_xy, n_z)


def _per_deposit(values: np.ndarray, counts: np.ndarray) -> np.ndarray | np.floating:
    """One value a shower, for every deposit; a scalar where all showers share it."""
    if (values == values[0]).all():
        scalar: np.floating = values[0]
        return scalar
    return np.repeat(values, counts)
