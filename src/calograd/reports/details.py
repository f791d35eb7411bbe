"""Figures of single points: distributions with ratio panels, profiles, event displays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calograd.evaluation.compare import PointResult
from calograd.events.cells import Cells
from calograd.metrics.observables import OBSERVABLES, Profile, longitudinal_profile, transverse_profile
from calograd.reports.style import GEANT4, LABELS, SURROGATE, SURROGATE_LIGHT, UNITS

PANELS = ("E_tot", "R_E", "sigma_x", "sigma_y", "x_mean", "z_mean", "sigma_z", "occupancy")


def draw_distributions(point: PointResult) -> Figure:
    """Distributions of the observables, Geant4 as points and generated as a line, each above its ratio."""
    figure = Figure(figsize=(10.6, 6.2))
    outer = figure.add_gridspec(2, 4, hspace=0.28, wspace=0.27)
    for number, name in enumerate(PANELS):
        inner = outer[number // 4, number % 4].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
        top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
        k = OBSERVABLES.index(name)
        _distribution(top, bottom, point.generated[:, k], point.reference[:, k], name)
        if number % 4 == 0:
            top.set_ylabel("showers (normalised)")
            bottom.set_ylabel("ratio")
        if number == 0:
            top.legend(loc="upper left", handlelength=1.4)
    return figure


def _bins(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """Edges that hold 99 % of both; the rest is counted in the outermost bins."""
    low, high = np.quantile(np.r_[a, b], [0.005, 0.998])
    if name == "occupancy":
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        step = max(1, int(np.ceil((high - low) / 30)))
        return np.arange(low, high + step, step)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    return np.linspace(low, high, int(np.clip(1.2 * min(len(a), len(b)) ** 0.5, 10, 36)))


def _distribution(top: Any, bottom: Any, a: np.ndarray, b: np.ndarray, name: str) -> None:
    edges = _bins(a, b, name)
    centres = (edges[1:] + edges[:-1]) / 2
    n_a, n_b = (np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0].astype(float) for v in (a, b))
    share_a, share_b = n_a / len(a), n_b / len(b)
    error_a, error_b = np.sqrt(n_a) / len(a), np.sqrt(n_b) / len(b)
    top.stairs(share_a, edges, color=SURROGATE, lw=1.3, label="generated", zorder=2)
    top.fill_between(edges, np.r_[share_a - error_a, 0], np.r_[share_a + error_a, 0], step="post",
                     color=SURROGATE_LIGHT, alpha=0.6, lw=0, zorder=1)  # fmt: skip
    filled = n_b > 0
    top.errorbar(centres[filled], share_b[filled], error_b[filled], fmt="o", ms=2.8, lw=0.9, color=GEANT4,
                 label="Geant4", zorder=3)  # fmt: skip
    top.set_xlim(edges[0], edges[-1])
    if name == "E_tot":
        top.set_yscale("log")
        top.set_ylim(0.3 / max(len(a), len(b)), 6 * max(share_a.max(), share_b.max()))
    else:
        top.set_ylim(0, 1.32 * max(share_a.max(), share_b.max()))
    top.tick_params(labelbottom=False)
    both = filled & (n_a > 0)
    ratio = share_a[both] / share_b[both]
    band = np.where(filled, error_b / np.where(filled, share_b, 1), 0)
    bottom.fill_between(edges, np.r_[1 - band, 1], np.r_[1 + band, 1], step="post", color="0.85", lw=0)
    bottom.axhline(1, color=GEANT4, lw=0.7)
    bottom.errorbar(centres[both], ratio, ratio / np.sqrt(n_a[both]), fmt="o", ms=2.4, lw=0.8, color=SURROGATE)
    bottom.set_xlim(edges[0], edges[-1])
    bottom.set_ylim(0.4, 1.6)
    bottom.set_xlabel(f"{LABELS[name]} [{UNITS[name]}]", labelpad=1)


def draw_profiles(generated: Cells, reference: Cells, points: Sequence[PointResult]) -> Figure:
    """Mean longitudinal and transverse profiles with their ratios, one column an energy of one design."""
    figure = Figure(figsize=(0.6 + 3.3 * len(points), 6.6))
    outer = figure.add_gridspec(2, len(points), hspace=0.26, wspace=0.28)
    for column, p in enumerate(points):
        samples = [(generated, p.rows.generated), (reference, p.rows.reference)]
        rows = (
            ([longitudinal_profile(c.cells[r], np.array(p.point.design.dz)) for c, r in samples], "z [cm]", "dE/dz"),
            ([transverse_profile(c.cells[r], p.point.design.dx) for c, r in samples], "x [cm]", "dE/dx"),
        )
        for row, ((ours, theirs), label_x, label_y) in enumerate(rows):
            inner = outer[row, column].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
            top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            _profile(top, bottom, ours, theirs)
            bottom.set_xlabel(label_x, labelpad=1)
            if column == 0:
                top.set_ylabel(f"mean {label_y} [GeV/cm]")
                bottom.set_ylabel("ratio")
            if row == 0:
                top.set_title(f"{p.point.energy:g} GeV")
            if row == column == 0:
                top.legend(loc="upper right", handlelength=1.4)
    return figure


def _profile(top: Any, bottom: Any, ours: Profile, theirs: Profile) -> None:
    edges, centres = theirs.edges, (theirs.edges[1:] + theirs.edges[:-1]) / 2
    low, high = (np.clip(ours.mean + s * ours.error, 1e-9, None) for s in (-1, 1))
    top.stairs(ours.mean, edges, color=SURROGATE, lw=1.3, label="generated", zorder=2)
    top.fill_between(edges, np.r_[low, low[-1]], np.r_[high, high[-1]], step="post", color=SURROGATE_LIGHT, lw=0)
    seen = theirs.mean > 0
    top.errorbar(centres[seen], theirs.mean[seen], theirs.error[seen], fmt="o", ms=3.2, lw=0.9, color=GEANT4,
                 label="Geant4", zorder=3)  # fmt: skip
    top.set_yscale("log")
    top.set_xlim(edges[0], edges[-1])
    top.tick_params(labelbottom=False)
    both = seen & (ours.mean > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        band = np.where(seen, theirs.error / theirs.mean, 0)
        ratio, error = ours.mean / theirs.mean, ours.error / theirs.mean
    bottom.fill_between(edges, np.r_[1 - band, 1], np.r_[1 + band, 1], step="post", color="0.85", lw=0)
    bottom.axhline(1, color=GEANT4, lw=0.7)
    bottom.errorbar(centres[both], ratio[both], error[both], fmt="o", ms=2.6, lw=0.9, color=SURROGATE)
    spread = float(np.max(np.abs(ratio[both] - 1), initial=0.03))
    reach = min(0.5, 1.5 * max(spread, 0.06))
    bottom.set_ylim(1 - reach, 1 + reach)
    bottom.set_xlim(edges[0], edges[-1])


def draw_showers(generated: Cells, reference: Cells, point: PointResult, singles: int = 3) -> Figure:
    """Single showers and the mean of all, seen from the side (x-z) and along the beam (x-y).

    The showers are the first with energy of either file; colours are the energy in the projected cells, MeV.
    """
    design = point.point.design
    n = generated.cells.shape[1]
    xs = (np.arange(n + 1) - n / 2) * design.dx
    zs = np.r_[0.0, np.cumsum(design.dz)]
    columns = [_stack(c.cells[r], singles) for c, r in
               ((reference, point.rows.reference), (generated, point.rows.generated))]  # fmt: skip
    top = max(float(stack.sum(axis=2).max()) for stack in columns) * 1e3
    norm = LogNorm(max(0.1, top * 1e-5), top)
    figure = Figure(figsize=(10.6, 7.6))
    outer = figure.add_gridspec(2, 1, height_ratios=[1, 1.5], hspace=0.14)
    views = ((zs, "z [cm]", "x [cm]", _from_the_side), (xs, "x [cm]", "y [cm]", _along_the_beam))
    every: list[Any] = []
    for view, (across, label_x, label_y, project) in enumerate(views):
        inner = outer[view].subgridspec(2, singles + 1, hspace=0.08, wspace=0.08)
        for (row, column), ax in np.ndenumerate(inner.subplots()):
            mesh = ax.pcolormesh(across, xs, 1e3 * project(columns[row][column]), norm=norm, cmap="inferno_r")
            ax.minorticks_off()
            ax.tick_params(labelleft=column == 0, labelbottom=row == 1, labelsize=7)
            if view == 1:
                ax.set_aspect("equal")
            if column == 0:
                name, colour = (("Geant4", GEANT4), ("generated", SURROGATE))[row]
                ax.set_ylabel(f"{name}\n{label_y}", color=colour)
            if row == 1:
                ax.set_xlabel(label_x, labelpad=1)
            elif view == 0:
                ax.set_title(f"shower {column + 1}" if column < singles else "mean of all")
            every.append(ax)
    bar = figure.colorbar(mesh, ax=every, pad=0.015, aspect=45, fraction=0.03)
    bar.set_label("energy in the projected cell [MeV]")
    return figure


def _from_the_side(cells: np.ndarray) -> np.ndarray:
    """Rows x, columns z."""
    return np.asarray(cells.sum(1))


def _along_the_beam(cells: np.ndarray) -> np.ndarray:
    """Rows y, columns x."""
    return np.asarray(cells.sum(2).T)


def _stack(cells: np.ndarray, singles: int) -> np.ndarray:
    """The first showers with energy, then the mean of all, shape (singles + 1, n_x, n_y, n_z)."""
    with_energy = np.flatnonzero(cells.sum(axis=(1, 2, 3)) > 0)[:singles]
    return np.concatenate([cells[with_energy], cells.mean(axis=0, keepdims=True)])
