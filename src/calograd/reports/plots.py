"""Figures of arrays: functions that take matplotlib axes, draw on them and return them.

    import matplotlib.pyplot as plt
    from calograd.reports.plots import plot_event, plot_observable, style

    with style():
        figure, (left, right) = plt.subplots(1, 2)
        plot_event(cells[0], dx=2.5, dz=6.0, axes=left)
        plot_observable(R_E, axes=right, label="surrogate")

Without ``axes`` a figure of one panel is made. Further arguments, such as colours and labels, go to matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calograd.detector.incidence import Incidence
from calograd.errors import InputError
from calograd.metrics.observables import Array, Profile, longitudinal_profile, transverse_profile
from calograd.reports.style import LABELS, STYLE, SURROGATE, axis_label

PROJECTIONS = {"xz": ((1,), "z [cm]", "x [cm]"), "yz": ((0,), "z [cm]", "y [cm]"), "xy": ((2,), "x [cm]", "y [cm]")}
"""Projections by name: the axis that is summed over, and the labels of the axes drawn."""
LOWEST = 1e-4
"""Lower end of the colours, relative to the largest energy."""


def style() -> AbstractContextManager[None]:
    """Return a context in the style of the reports: ticks inside on all sides, small type."""
    manager: AbstractContextManager[None] = mpl.rc_context(rc=STYLE)
    return manager


def plot_event(
    cells: Array,
    dx: float,
    dz: float | Sequence[float],
    axes: Axes | None = None,
    projection: str = "xz",
    incident: Incidence | None = None,
    **options: Any,
) -> Axes:
    """Draw the energies of one shower, or of a mean one, summed along one axis, on a logarithmic scale of colours.

    Args:
        cells: energies, shape (n_x, n_y, n_z), GeV.
        dx: pitch of the cells, cm.
        dz: depth of all layers or one a layer, cm.
        axes: axes to draw on; None for a new figure.
        projection: ``xz``, ``yz`` or ``xy``.
        incident: the incident particle, of one shower. Its line is drawn, and every layer's window lies where it
            follows the line; see `calograd.detector.incidence`. None: windows on the axis, and no line.
        options: further arguments of matplotlib's ``pcolormesh``.

    Raises:
        InputError: cells of another shape, an unknown projection, or particles of several showers.
    """
    energies = _array(cells)
    if energies.ndim != 3:
        raise InputError(f"cells have shape {energies.shape}, expected one shower, (n_x, n_y, n_z)")
    if projection not in PROJECTIONS:
        raise InputError(f"unknown projection '{projection}'; expected one of {', '.join(PROJECTIONS)}")
    if incident is not None and len(incident) != 1:
        raise InputError(f"incident has {len(incident)} particles, expected that of the one shower")
    summed, across, up = PROJECTIONS[projection]
    depths = np.broadcast_to(np.asarray(dz, dtype=float), energies.shape[2:])
    z = np.r_[0.0, np.cumsum(depths)]
    placed, (x, y) = _placed(energies, dx, depths, incident)
    image, sides = placed.sum(summed[0]), y if projection == "yz" else x
    along = z
    if projection == "xy":
        image, along, sides = image.T, x, y
    axes, largest = _axes(axes), max(float(image.max()), 1e-9)
    defaults: dict[str, Any] = {"norm": LogNorm(LOWEST * largest, largest), "cmap": "YlGnBu"}
    mesh = axes.pcolormesh(along, sides, np.ma.maximum(image, LOWEST * largest), **defaults | options)
    if incident is not None:
        line = np.column_stack([incident.at(z[None, [0, -1]])[0], z[[0, -1]]])
        columns = {"xz": (2, 0), "yz": (2, 1), "xy": (0, 1)}[projection]
        axes.plot(*line[:, columns].T, "o--", color=SURROGATE, lw=1.2, ms=3.5, markevery=[0])
        axes.set(xlim=along[[0, -1]], ylim=sides[[0, -1]])
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(mesh, ax=axes, label="energy [GeV]")
    return axes


def _placed(
    energies: np.ndarray, dx: float, depths: np.ndarray, incident: Incidence | None
) -> tuple[np.ma.MaskedArray[Any, Any], tuple[np.ndarray, np.ndarray]]:
    """Return cells where the windows of their layers lie, masked beside these, and their edges in x and y, cm."""
    sizes, n_z = np.array(energies.shape[:2]), len(depths)
    offsets = np.zeros((n_z, 2), int)
    if incident is not None:
        offsets = incident.window_offsets(np.array([dx]), depths[None])[0]
    low = offsets.min(0)
    shape = (*(sizes + offsets.max(0) - low), n_z)
    placed: np.ma.MaskedArray[Any, Any] = np.ma.masked_all(shape, energies.dtype)  # type: ignore[no-untyped-call]
    i, j = (np.arange(size)[:, None] + offsets[:, axis] - low[axis] for axis, size in enumerate(sizes))
    placed[i[:, None], j[None], np.arange(n_z)] = energies
    edges = [
        (np.arange(n + 1) + first - size / 2) * dx for n, first, size in zip(placed.shape, low, sizes, strict=False)
    ]
    return placed, (edges[0], edges[1])


def plot_observable(
    values: Array, axes: Axes | None = None, name: str = "", bins: int | Sequence[float] = 30, **options: Any
) -> Axes:
    """Draw the distribution of an observable as shares of the showers, with statistical errors.

    Args:
        values: one value a shower, shape (n,).
        axes: axes to draw on; None for a new figure.
        name: one of `calograd.metrics.observables.OBSERVABLES`, or a label of your own.
        bins: number of bins over the central 99 % of the values, or their edges; the outermost hold what lies beyond.
        options: further arguments of matplotlib's ``stairs``.
    """
    numbers = _array(values)
    edges = central_bins(numbers, bins) if isinstance(bins, int) else np.asarray(bins, dtype=float)
    axes = draw_steps(axes, shares(numbers, edges), options)
    axes.set_xlabel(axis_label(name) if name in LABELS else name)
    axes.set_ylabel("share of showers")
    return axes


def central_bins(values: np.ndarray, bins: int, whole: bool = False) -> np.ndarray:
    """Return edges of bins that hold 99 % of the values, so that one far value leaves no plot of two bins.

    Args:
        values: the values, shape (n,).
        bins: number of bins.
        whole: whether the values are whole numbers, which stand in the middle of bins.
    """
    low, high = np.quantile(values, [0.005, 0.998])
    if whole:
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        step = max(1, int(np.ceil((high - low) / 30)))
        return np.arange(low, high + step, step)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    return np.linspace(low, high, bins + 1)


def shares(values: np.ndarray, edges: np.ndarray) -> Profile:
    """Return the shares of values in bins with statistical errors; the outermost bins hold what lies beyond."""
    counts = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    return Profile(edges, counts / len(values), np.sqrt(counts) / len(values))


def plot_profile(
    cells: Array, dx: float, dz: float | Sequence[float], axes: Axes | None = None, along: str = "z", **options: Any
) -> Axes:
    """Draw the mean energy per cm with its standard error, along the shower or across it.

    Args:
        cells: energies of one design, shape (n, n_x, n_y, n_z), GeV.
        dx: pitch of the cells, cm.
        dz: depth of all layers or one a layer, cm.
        axes: axes to draw on; None for a new figure.
        along: ``z`` or ``x``.
        options: further arguments of matplotlib's ``stairs``.

    Raises:
        InputError: another direction.
    """
    if along not in ("x", "z"):
        raise InputError(f"unknown direction '{along}'; expected x or z")
    energies = _array(cells)
    depths = np.broadcast_to(np.asarray(dz, dtype=float), (energies.shape[3],))
    profile = longitudinal_profile(energies, depths) if along == "z" else transverse_profile(energies, dx)
    axes = draw_steps(axes, profile, options)
    axes.set_xlabel(f"{along} [cm]")
    axes.set_ylabel(f"dE/d{along} [GeV/cm]")
    return axes


def draw_steps(axes: Axes | None, known: Profile, options: dict[str, Any]) -> Axes:
    """Draw values in bins as steps with error bars; ``options`` go to matplotlib's ``stairs``."""
    axes = _axes(axes)
    drawn = axes.stairs(known.mean, known.edges, **({"color": SURROGATE} | options))
    middles = (known.edges[1:] + known.edges[:-1]) / 2
    axes.errorbar(middles, known.mean, known.error, fmt="none", lw=0.8, ecolor=drawn.get_edgecolor())
    return axes


def _array(values: Array) -> np.ndarray:
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu())


def _axes(axes: Axes | None) -> Axes:
    return Figure(figsize=(4.2, 3.2), layout="constrained").subplots() if axes is None else axes
