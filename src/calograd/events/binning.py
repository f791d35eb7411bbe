"""Binning: the energies that cells or pixels collect of showers given as deposits.

A window has one axis for each coordinate that is binned, and every shower may have a window of its own. Cells and maps
are the same sum with other axes:

    cells   i = floor(x / dx + n_xy / 2) - o_k,   j likewise in y,   z_k <= z < z_{k+1},   z_0 = 0, z_{k+1} = z_k + dz_k
    maps    a = floor(p x / (n_xy dx) + p / 2),   b = floor(p z / sum_k dz_k),   y within the window

with p pixels each way and the centre o_k of the window in layer k (`calograd.detector.incidence`); maps of 32 x 32
pixels over 5 x 5 x 5 cells are those of arXiv 2601.07859, but in absolute energies: no map is scaled by its own maximum
as in that paper's published code. Deposits outside the window are left
out. Sums run in float64 and are stored as float32, so the energy in the window is conserved to float32 rounding.
Positions are compared in float32: a deposit within a rounding error of an edge may be counted on either side of it.

A cell with energy E = sum_d e_d has two times, of deposits at times t_d since the particle crossed the front face:

    mean time    sum_d e_d t_d / E
    first time   the earliest t at which the deposits with t_d <= t hold `FIRST_SHARE` of E

The first time is a constant-fraction time. The earliest deposit itself would depend on how finely Geant4 divides the
energy; a share does not, and neither few early deposits nor the late tail move it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from calograd.errors import InputError
from calograd.events import ragged
from calograd.events.ragged import Deposits

D = TypeVar("D", bound=Deposits)

BLOCK = 1 << 18
"""Deposits binned at once; the arrays of a block stay in the cache of one core."""
BLOCK_CELLS = 1 << 24
"""Cells binned at once; their indices fit 32 bits."""
FIRST_SHARE = 0.1
"""Share of a cell's energy that has arrived at its first time."""
PIXELS = 32
"""Pixels of a map, across and along."""


class Uniform(NamedTuple):
    """An axis of equal bins: bin = floor(scale * coordinate + start).

    Args:
        bins: number of bins.
        scale: bins per cm of every shower, shape (n,), float32.
        start: the coordinate 0 in bins.
        summed: keep only whether a deposit lies on the axis, and sum over its bins.
    """

    bins: int
    scale: np.ndarray
    start: float = 0.0
    summed: bool = False

    def locate(
        self, coordinate: np.ndarray, rows: slice, counts: np.ndarray, shift: np.ndarray | None = None
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return the bin of every deposit (None if the axis is summed) and whether there is one.

        Args:
            coordinate: of the deposits, cm.
            rows: their showers.
            counts: deposits of each shower.
            shift: first bin of the window that each deposit lies in, shape (deposits,), float32; None for 0.
        """
        at = coordinate * _per_deposit(self.scale[rows], counts)
        if self.start:
            at += np.float32(self.start)
        if shift is not None:  # exact in float32: a window is a crop of a larger one
            at = np.floor(at) - shift
        with np.errstate(invalid="ignore"):  # far outside there is no integer; those are dropped
            return None if self.summed else at.astype(np.int32), (at >= 0) & (at < self.bins)


class Edges(NamedTuple):
    """An axis of unequal bins.

    Args:
        edges: rising, cm, of every shower, shape (n, bins + 1), float32.
    """

    edges: np.ndarray

    @property
    def bins(self) -> int:
        """Number of bins."""
        return int(self.edges.shape[1]) - 1

    @property
    def summed(self) -> bool:
        """Return False: the bins are kept."""
        return False

    def locate(self, coordinate: np.ndarray, rows: slice, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the bin of every deposit and whether there is one."""
        edges = self.edges[rows]
        index = np.zeros(len(coordinate), dtype=np.int32)
        inside = coordinate >= _per_deposit(edges[:, 0], counts)
        for k in range(1, self.bins):
            index += coordinate >= _per_deposit(edges[:, k], counts)
        return index, inside & (coordinate < _per_deposit(edges[:, self.bins], counts))


def bin_deposits(
    deposits: Deposits, axes: tuple[Uniform, Uniform, Uniform | Edges], windows: np.ndarray | None = None
) -> np.ndarray:
    """Return the energy in every bin of every shower.

    Args:
        deposits: the deposits of the showers.
        axes: the window of every shower, an axis each for x, y and z.
        windows: centres of the windows in x and y of every bin in z, shape (n, bins, 2), in bins; None: on the axis.

    Returns:
        Energies, shape (n, *bins), GeV, float32, without the summed axes.

    Raises:
        InputError: deposits with positions or energies that are NaN or infinite.
    """
    shape = _bins_of(axes)
    cells = np.zeros((len(deposits), *shape), dtype=np.float32)
    for rows, part, counts, index, inside in _located(deposits, axes, windows):
        cells[rows] = sum_bins(index, inside, deposits.e[part], counts, int(np.prod(shape))).reshape(-1, *shape)
    return _checked(cells)


def bin_times(
    deposits: Deposits, axes: tuple[Uniform, Uniform, Uniform | Edges], windows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the energy, the mean time and the first time in every bin of every shower.

    Args:
        deposits, axes, windows: see `bin_deposits`; the deposits have times.

    Returns:
        Energies as of `bin_deposits`, and times of the same shape, ns, float32, NaN in bins without energy.

    Raises:
        InputError: deposits without times, or with numbers that are NaN or infinite.
    """
    if deposits.t is None:
        raise InputError("deposits without times; expected t, ns, of every deposit")
    shape = _bins_of(axes)
    cells, mean, first = (np.zeros((len(deposits), *shape), dtype=np.float32) for _ in range(3))
    for rows, part, counts, index, inside in _located(deposits, axes, windows):
        e, t = deposits.e[part], deposits.t[part]
        energy = sum_bins(index, inside, e, counts, int(np.prod(shape)))
        times = _times(index[inside], e[inside], t[inside], energy.size)
        for result, values in zip((cells, mean, first), (energy, *times), strict=True):
            result[rows] = values.reshape(-1, *shape)
    filled = _checked(cells) > 0
    if not (np.isfinite(mean[filled]).all() and np.isfinite(first[filled]).all()):
        raise InputError("deposits hold times that are NaN or infinite; expected ns")
    return cells, mean, first


def _times(index: np.ndarray, e: np.ndarray, t: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and first time of every bin, shape (bins,), of deposits in bins ``index``; NaN without energy."""
    order = np.lexsort((t, index))
    index, e, t = index[order], e[order].astype(np.float64), t[order].astype(np.float64)
    starts = np.flatnonzero(np.diff(index, prepend=-1))
    ends = np.append(starts[1:], len(index)) - 1
    arrived, energy = np.cumsum(e), np.add.reduceat(e, starts)
    at = np.searchsorted(arrived, arrived[starts] - e[starts] + FIRST_SHARE * energy)
    mean, first = np.full((2, bins), np.nan, dtype=np.float32)
    with np.errstate(invalid="ignore"):  # deposits without energy have no mean
        mean[index[starts]] = np.add.reduceat(e * t, starts) / energy
    first[index[starts]] = np.where(energy > 0, t[np.clip(at, starts, ends)], np.nan)
    return mean, first


def _bins_of(axes: tuple[Uniform, Uniform, Uniform | Edges]) -> tuple[int, ...]:
    return tuple(axis.bins for axis in axes if not axis.summed)


def _checked(cells: np.ndarray) -> np.ndarray:
    if not np.isfinite(cells).all():
        raise InputError("deposits hold energies that are NaN or infinite; expected GeV")
    return cells


def _located(
    deposits: Deposits, axes: tuple[Uniform, Uniform, Uniform | Edges], windows: np.ndarray | None
) -> Iterator[tuple[slice, slice, np.ndarray, np.ndarray, np.ndarray]]:
    """Yield showers a block at a time: the showers, their deposits, how many, their bins and whether there is one."""
    for rows, part, counts in deposit_blocks(deposits.offsets, int(np.prod(_bins_of(axes)))):
        here = [coordinate[part] for coordinate in (deposits.x, deposits.y, deposits.z)]
        layer, inside = axes[2].locate(here[2], rows, counts)
        shifts: tuple[np.ndarray | None, ...] = (None, None)
        if windows is not None and layer is not None:
            first = np.repeat(np.arange(len(counts), dtype=np.int32) * axes[2].bins, counts)
            first += layer  # `Edges.locate` gives every deposit a layer, also those before and behind all of them
            shifts = tuple(windows[rows, :, axis].astype(np.float32).ravel().take(first) for axis in (0, 1))
        index: np.ndarray = np.zeros(1, np.int32)
        for axis, coordinate, shift in zip(axes[:2], here[:2], shifts, strict=True):
            bins, on_axis = axis.locate(coordinate, rows, counts, shift)
            index = index if bins is None else index * axis.bins + bins
            inside = inside & on_axis
        index = index if layer is None else index * axes[2].bins + layer
        if any(np.isnan(coordinate).any() for coordinate in here):
            raise InputError("deposits hold positions that are NaN; expected cm")
        yield rows, part, counts, index, inside


def deposit_blocks(offsets: np.ndarray, cells: int) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Yield showers to bin at once: which showers, which deposits, and how many deposits each shower has.

    Args:
        offsets: of all showers, shape (n + 1,).
        cells: bins of a shower.
    """
    for rows in ragged.blocks(offsets, BLOCK, BLOCK_CELLS // cells):
        ends = offsets[rows.start : rows.stop + 1]
        yield rows, slice(int(ends[0]), int(ends[-1])), np.diff(ends)


def sum_bins(index: np.ndarray, inside: np.ndarray, e: np.ndarray, counts: np.ndarray, cells: int) -> np.ndarray:
    """Return the energy in every bin of some showers, shape (n, cells), float64.

    Args:
        index: bin of every deposit in its shower, int32; becomes its bin among those of all showers, or n cells.
        inside: whether a deposit is in a bin.
        e: energies of the deposits.
        counts: deposits of every shower, shape (n,).
        cells: bins of a shower.
    """
    n = len(counts)
    index += np.repeat(np.arange(n, dtype=np.int32) * cells, counts)
    index[~inside] = n * cells
    return np.bincount(index, weights=e, minlength=n * cells + 1)[: n * cells].reshape(n, cells)


def _per_deposit(values: np.ndarray, counts: np.ndarray) -> np.ndarray | np.floating:
    """Return one value a shower for every deposit, or a scalar where all showers share it."""
    if (values == values[0]).all():
        scalar: np.floating = values[0]
        return scalar
    return np.repeat(values, counts)


def segment_deposits(
    deposits: Deposits,
    dx: float | np.ndarray,
    dz: float | np.ndarray,
    n_xy: int = 5,
    n_z: int = 5,
    windows: np.ndarray | None = None,
) -> np.ndarray:
    """Return the cell energies of showers.

    Args:
        deposits: the deposits of the showers.
        dx: cell pitch in cm, one number or one a shower, shape (n,).
        dz: layer depth in cm: one number, one a layer (n_z,), or one a shower and layer (n, n_z).
        n_xy: cells across.
        n_z: layers.
        windows: centres of the windows in every layer, shape (n, n_z, 2), in cells, as
            `calograd.detector.incidence.Incidence.window_offsets` returns; None: on the axis.

    Returns:
        Energies, shape (n, n_xy, n_xy, n_z), GeV, float32.

    Raises:
        InputError: sizes that are not positive or do not fit the showers, fewer than one cell, deposits that are NaN.
    """
    return bin_deposits(deposits, cell_axes(deposits, dx, dz, n_xy, n_z), windows)


def cell_axes(
    deposits: Deposits, dx: float | np.ndarray, dz: float | np.ndarray, n_xy: int = 5, n_z: int = 5
) -> tuple[Uniform, Uniform, Edges]:
    """Return the axes of cells for `bin_deposits` and `bin_times`; arguments and errors as of `segment_deposits`."""
    dx, dz = check_sizes(dx, dz, len(deposits), n_xy, n_z)
    across = Uniform(n_xy, (1 / dx).astype(np.float32), n_xy / 2)
    edges = np.concatenate([np.zeros((len(dz), 1)), np.cumsum(dz, axis=1)], axis=1).astype(np.float32)
    return across, across, Edges(edges)


def move_deposits(deposits: D, entry: np.ndarray, position: np.ndarray, turn: np.ndarray) -> D:
    """Return showers turned about their entry by an angle, with the entry moved to a position.

    Args:
        deposits: showers whose particles enter at ``entry``.
        entry, position: entry before and after, shape (n, 2), cm.
        turn: angle, shape (n,), degrees; from x towards y.
    """
    angle, counts = np.radians(turn.astype(np.float64)), np.diff(deposits.offsets)
    columns = (np.cos(angle), np.sin(angle), *entry.T, *position.T)
    cosine, sine, x0, y0, x1, y1 = (np.repeat(column.astype(np.float32), counts) for column in columns)
    x, y = deposits.x - x0, deposits.y - y0
    return replace(deposits, x=x * cosine - y * sine + x1, y=x * sine + y * cosine + y1)


def project_deposits(
    deposits: Deposits,
    dx: float | np.ndarray,
    dz: float | np.ndarray,
    n_xy: int = 5,
    n_z: int = 5,
    pixels: int = PIXELS,
) -> np.ndarray:
    """Return the x-z maps of showers in the windows of designs.

    Args:
        deposits, dx, dz, n_xy, n_z: as for `segment_deposits`.
        pixels: pixels of a map, across and along.

    Returns:
        Energies, shape (n, pixels, pixels), GeV, float32: x first, then z.

    Raises:
        InputError: sizes that are not positive or do not fit the showers, no pixels, deposits that are NaN.
    """
    if pixels < 1:
        raise InputError(f"{pixels} x {pixels} pixels: expected at least one each way")
    dx, dz = check_sizes(dx, dz, len(deposits), n_xy, n_z)
    across = Uniform(pixels, (pixels / (n_xy * dx)).astype(np.float32), pixels / 2)
    along = Uniform(pixels, (pixels / dz.sum(1)).astype(np.float32))
    return bin_deposits(deposits, (across, across._replace(summed=True), along))


def check_sizes(
    dx: float | np.ndarray, dz: float | np.ndarray, n: int, n_xy: int, n_z: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return dx, shape (n,), and dz, shape (n, n_z), in float64. Raises `InputError` if they do not fit."""
    if n_xy < 1 or n_z < 1:
        raise InputError(f"{n_xy} x {n_xy} x {n_z} cells: expected at least one each way")
    dx, dz = np.asarray(dx, dtype=np.float64), np.asarray(dz, dtype=np.float64)
    if dx.shape not in ((), (n,)):
        raise InputError(f"dx has shape {dx.shape}, expected one number or one a shower, ({n},)")
    if dz.shape not in ((), (n_z,), (n, n_z)):
        expected = f"one number, one a layer ({n_z},), or one a shower and layer ({n}, {n_z})"
        raise InputError(f"dz has shape {dz.shape}, expected {expected}")
    for name, sizes in (("dx", dx), ("dz", dz)):
        bad = sizes[~(np.isfinite(sizes) & (sizes > 0))]
        if bad.size:
            raise InputError(f"cell size {name} = {bad.flat[0]} cm: expected a positive number")
    return np.broadcast_to(dx, (n,)), np.broadcast_to(dz, (n, n_z))


def resample(images: np.ndarray, pixels: int = PIXELS) -> np.ndarray:
    """Return images with another number of pixels over the same window; every image keeps its energy.

    A new pixel takes from every old one the share of the area that it covers.

    Args:
        images: shape (n, across, along).
        pixels: pixels of the result, across and along.

    Returns:
        Images, shape (n, pixels, pixels), float32.
    """
    across, along = (_overlaps(size, pixels) for size in images.shape[1:])
    return np.asarray(across @ images @ along.T, dtype=np.float32)


def _overlaps(old: int, new: int) -> np.ndarray:
    """Return the share of each old pixel that lies in each new one, shape (new, old); columns add up to one."""
    edges = np.linspace(0, old, new + 1)
    low, high = np.maximum(edges[:-1, None], np.arange(old)), np.minimum(edges[1:, None], np.arange(1, old + 1))
    return np.asarray(np.clip(high - low, 0, None))
