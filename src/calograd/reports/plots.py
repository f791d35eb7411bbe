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
    **options: Any,
) -> Axes:
    """Draw the energies of one shower, or of a mean one, summed along one axis, on a logarithmic scale of colours.

    Args:
        cells: energies, shape (n_x, n_y, n_z), GeV.
        dx: pitch of the cells, cm.
        dz: depth of all layers or one a layer, cm.
        axes: axes to draw on; None for a new figure.
        projection: ``xz``, ``yz`` or ``xy``.
        options: further arguments of matplotlib's ``pcolormesh``.

    Raises:
        InputError: cells of another shape, or an unknown projection.
    """
    energies = _array(cells)
    if energies.ndim != 3:
        raise InputError(f"cells have shape {energies.shape}, expected one shower, (n_x, n_y, n_z)")
    if projection not in PROJECTIONS:
        raise InputError(f"unknown projection '{projection}'; expected one of {', '.join(PROJECTIONS)}")
    summed, across, up = PROJECTIONS[projection]
    energies = energies.sum(axis=summed)
    n_z = _array(cells).shape[2]
    sides = (np.arange(energies.shape[0] + 1) - energies.shape[0] / 2) * dx
    depths = np.concatenate([[0.0], np.cumsum(np.broadcast_to(np.asarray(dz, dtype=float), (n_z,)))])
    image = energies.T if projection == "xy" else energies
    along = (np.arange(energies.shape[0] + 1) - energies.shape[0] / 2) * dx if projection == "xy" else depths
    axes = _axes(axes)
    largest = max(float(energies.max()), 1e-9)
    defaults: dict[str, Any] = {"norm": LogNorm(LOWEST * largest, largest), "cmap": "YlGnBu"}
    mesh = axes.pcolormesh(along, sides, np.maximum(image, LOWEST * largest), **defaults | options)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    figure = axes.get_figure()
    if figure is not None:
        figure.colorbar(mesh, ax=axes, label="energy [GeV]")
    return axes


def plot_observable(
    values: Array, axes: Axes | None = None, name: str = "", bins: int | Sequence[float] = 30, **options: Any
) -> Axes:
    """Draw the distribution of an observable as shares of the showers, with statistical errors.

    Args:
        values: one value a shower, shape (n,).
        axes: axes to draw on; None for a new figure.
        name: one of `calograd.metrics.observables.OBSERVABLES`, or a label of your own.
        bins: number of bins or their edges.
        options: further arguments of matplotlib's ``stairs``.
    """
    numbers = _array(values)
    counts, edges = np.histogram(numbers, bins)
    axes = _axes(axes)
    share, error = counts / len(numbers), np.sqrt(counts) / len(numbers)
    drawn = axes.stairs(share, edges, **({"color": SURROGATE} | options))
    middle = (edges[1:] + edges[:-1]) / 2
    axes.errorbar(middle, share, error, fmt="none", lw=0.8, ecolor=drawn.get_edgecolor())
    axes.set_xlabel(axis_label(name) if name in LABELS else name)
    axes.set_ylabel("share of showers")
    return axes


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
    profile: Profile = longitudinal_profile(energies, depths) if along == "z" else transverse_profile(energies, dx)
    axes = _axes(axes)
    drawn = axes.stairs(profile.mean, profile.edges, **({"color": SURROGATE} | options))
    axes.errorbar((profile.edges[1:] + profile.edges[:-1]) / 2, profile.mean, profile.error, fmt="none", lw=0.8,
                  ecolor=drawn.get_edgecolor())  # fmt: skip
    axes.set_xlabel(f"{along} [cm]")
    axes.set_ylabel(f"dE/d{along} [GeV/cm]")
    return axes


def _array(values: Array) -> np.ndarray:
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu())


def _axes(axes: Axes | None) -> Axes:
    return Figure(figsize=(4.2, 3.2), layout="constrained").subplots() if axes is None else axes
