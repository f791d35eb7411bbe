"""Figures of comparisons at design points.

Over all points: biases, spreads and distances against energy, classifier tests. Of single points: distributions with
ratio panels, profiles, event displays, correlations of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from calograd.evaluation.classifier_tests import ClassifierTest
from calograd.evaluation.compare import PointResult, Quantity
from calograd.evaluation.designs import DesignEvaluation
from calograd.evaluation.limits import AUC_LIMITS, Limits
from calograd.evaluation.matching import Sizes
from calograd.events.dense import Cells, Maps
from calograd.metrics.observables import Profile
from calograd.reports.style import (
    GEANT4,
    KEPT,
    LABELS,
    MISSED,
    SURROGATE,
    SURROGATE_LIGHT,
    axis_label,
)

COLUMNS = 5
"""Most designs side by side in one figure."""
PANELS = ("E_tot", "R_E", "sigma_x", "sigma_y", "x_mean", "z_mean", "sigma_z", "occupancy")
"""Observables whose distributions are shown."""
FAINTEST = 1e-4
"""Lower end of the colours of maps, relative to the brightest pixel."""
SINGLES = 3
"""Showers of either file in an event display, before their mean."""


@dataclass(frozen=True)
class Trend:
    """A number against the incident energy: a row of panels a quantity, a column a design.

    Args:
        kind: kind of the checks, as in `calograd.evaluation.limits.KINDS`.
        rows: the quantities.
        label: label of the vertical axis, from the quantity's symbol.
        value: value of a quantity with the lower and upper end of its error bar.
        band: allowed range of a quantity at an energy in GeV; None where there is no limit.
        ideal: value of a perfect generator.
        floor: value of Geant4 against itself, where it differs from quantity to quantity.
        log: whether the vertical axis is logarithmic.
    """

    kind: str
    rows: tuple[str, ...]
    label: Callable[[str], str]
    value: Callable[[Quantity], tuple[float, float, float]]
    band: Callable[[Limits, str, float], tuple[float, float] | None]
    ideal: float | None
    floor: Callable[[Quantity], float] | None = None
    log: bool = False


def _bias_band(limits: Limits, name: str, energy: float) -> tuple[float, float] | None:
    limit = limits.bias[name].at(energy)
    return None if limit is None else (-100 * limit, 100 * limit)


def trend_of_biases(names: tuple[str, ...]) -> Trend:
    """Return the biases of means with standard errors, per cent."""

    def value(q: Quantity) -> tuple[float, float, float]:
        return 100 * q.bias, 100 * (q.bias - q.bias_error), 100 * (q.bias + q.bias_error)

    return Trend("bias", names, lambda s: f"bias of {s} [%]", value, _bias_band, 0.0)


def trend_of_spreads(names: tuple[str, ...]) -> Trend:
    """Return the ratios of standard deviations with bootstrap standard errors."""

    def value(q: Quantity) -> tuple[float, float, float]:
        return q.sigma_ratio, q.sigma_ratio - q.sigma_ratio_error, q.sigma_ratio + q.sigma_ratio_error

    return Trend(
        "sigma ratio", names, lambda s: rf"$\sigma$ ratio, {s}", value, lambda limits, _n, _e: limits.sigma_ratio, 1.0
    )


def trend_of_distances(names: tuple[str, ...]) -> Trend:
    """Return W1 in units of its floor."""

    def band(limits: Limits, _name: str, _energy: float) -> tuple[float, float] | None:
        return None if limits.w1 is None else (0.0, limits.w1)

    return Trend(
        "W1 / floor", names, lambda s: rf"$W_1$ / floor, {s}", lambda q: (q.w1_over_floor,) * 3, band, 1.0, log=True
    )


def trend_of_rrmse(names: tuple[str, ...]) -> Trend:
    """Return RRMSE beside that of Geant4 against itself, per cent."""
    return Trend(
        "RRMSE", names, lambda s: f"RRMSE of {s} [%]", lambda q: (100 * q.rrmse,) * 3, lambda _l, _n, _e: None, None,
        lambda q: 100 * q.rrmse_floor, log=True,
    )  # fmt: skip


def draw_trend(evaluation: DesignEvaluation, designs: Sequence[Sizes], trend: Trend) -> Figure:
    """Draw a trend for up to `COLUMNS` designs; vertical axes are shared along a row over all designs."""
    width = max(3.6, 0.8 + 2.1 * len(designs))
    figure = Figure(figsize=(width, 0.45 + 1.25 * len(trend.rows)))
    axes = figure.subplots(len(trend.rows), len(designs), sharex=True, sharey="row", squeeze=False,
                           gridspec_kw={"hspace": 0.06, "wspace": 0.06})  # fmt: skip
    for i, name in enumerate(trend.rows):
        ends = _range(evaluation, name, trend)
        for j, design in enumerate(designs):
            _panel(axes[i, j], evaluation, evaluation.at(design), name, trend, ends)
        axes[i, 0].set_ylabel(trend.label(LABELS[name]), fontsize=8)
    for j, design in enumerate(designs):
        axes[0, j].set_title(str(design))
        axes[-1, j].set_xlabel("incident energy [GeV]")
    figure.align_ylabels(axes[:, 0])
    return figure


def _range(evaluation: DesignEvaluation, name: str, trend: Trend) -> tuple[float, float]:
    """Return the ends of the vertical axis of a row."""
    points, limits = evaluation.points, evaluation.kind.limits
    ends = np.array([trend.value(p.quantities[name]) for p in points])
    ends = ends[np.isfinite(ends)]
    bands = [b for b in (trend.band(limits, name, p.point.energy) for p in points) if b is not None]
    if trend.floor is not None:
        floors = np.array([trend.floor(p.quantities[name]) for p in points])
        both = np.r_[ends, floors[np.isfinite(floors)]]
        both = both[both > 0]
        return (0.7 * both.min(), 1.4 * both.max()) if len(both) else (0.1, 10.0)
    if trend.log:
        highest = max([1.0, *(high for _, high in bands)])
        return 0.3, float(min(max(3 * highest, 1.5 * ends.max(initial=1.0)), 300.0))
    ideal = trend.ideal or 0.0
    far = float(np.quantile(np.abs(ends - ideal), 0.97)) if len(ends) else 0.1
    half = float(np.abs(np.array(bands) - ideal).max()) if bands else far / 1.4
    reach = 1.15 * min(max(1.4 * half, far), 12 * half)
    return ideal - reach, ideal + reach


def _panel(
    ax: Any, evaluation: DesignEvaluation, points: Sequence[PointResult], name: str, trend: Trend,
    ends: tuple[float, float],
) -> None:  # fmt: skip
    energies = np.array([p.point.energy for p in points])
    values = np.array([trend.value(p.quantities[name]) for p in points]).reshape(-1, 3)
    edges = np.r_[0.0, (energies[1:] + energies[:-1]) / 2, energies[-1] + 6] if len(energies) else np.zeros(1)
    for k, energy in enumerate(energies):
        band = trend.band(evaluation.kind.limits, name, energy)
        if band is not None:
            ax.fill_between(edges[k : k + 2], max(band[0], ends[0]), band[1], color=KEPT, lw=0, zorder=0)
    if trend.ideal is not None:
        ax.axhline(trend.ideal, color="0.55", lw=0.7, zorder=1)
    if trend.floor is not None:
        ax.plot(energies, [trend.floor(p.quantities[name]) for p in points], "o--", ms=3, lw=0.8, color="0.55")
    _draw_verdicts(ax, energies, values, np.array([_verdict(evaluation, p, name, trend.kind) for p in points]), ends)
    if trend.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(ends)
    ax.set_xlim(edges[0] - 2 if len(energies) else 0, edges[-1] if len(energies) else 1)


def _draw_verdicts(
    ax: Any, energies: np.ndarray, values: np.ndarray, verdicts: np.ndarray, ends: tuple[float, float]
) -> None:
    """Draw values with error bars by verdict; those beyond the axis are triangles at its end."""
    lowest, highest = ends
    inside = (values[:, 0] >= lowest) & (values[:, 0] <= highest)
    shown = np.clip(values[:, 0], lowest, highest)
    for verdict, color, face in ((0, GEANT4, GEANT4), (1, GEANT4, "white"), (2, MISSED, MISSED)):
        use = (verdicts == verdict) & inside
        bars = np.abs(values[use][:, 1:] - values[use][:, :1]).T
        ax.errorbar(energies[use], values[use, 0], yerr=bars, fmt="o", ms=3.2, lw=0.9, color=color, mfc=face, zorder=3)
        for off in np.flatnonzero((verdicts == verdict) & ~inside & np.isfinite(values[:, 0])):
            marker = "^" if values[off, 0] > highest else "v"
            ax.plot(energies[off], shown[off], marker, ms=5, color=color, mfc=face, clip_on=False, zorder=4)


def _verdict(evaluation: DesignEvaluation, point: PointResult, name: str, kind: str) -> int:
    """Return 0 where the limit is kept, 1 where it is missed within statistics, 2 where it is missed beyond them."""
    found = [c for c in evaluation.checks_of(point) if (c.kind, c.subject) == (kind, name)]
    return max((0 if c.passed else 1 + c.significant for c in found), default=0)


def draw_classifiers(tests: Sequence[ClassifierTest]) -> Figure:
    """Draw AUCs with their intervals beside Geant4's against itself; tests without threshold are hollow."""
    kinds = [kind for kind in AUC_LIMITS if any(t.features == kind for t in tests)]
    rows = {kind: [t for t in tests if t.features == kind] for kind in kinds}
    height = 0.9 + 0.27 * max(len(r) for r in rows.values())
    figure = Figure(figsize=(9.6, height))
    axes = figure.subplots(1, len(kinds), squeeze=False, sharex=True, gridspec_kw={"wspace": 0.62})[0]
    most = max([0.75, *(t.auc.high + 0.02 for t in tests)])
    for ax, kind in zip(axes, kinds, strict=True):
        ax.axvspan(0.0, AUC_LIMITS[kind], color=KEPT, lw=0, zorder=0)
        ax.axvline(0.5, color="0.55", lw=0.7, zorder=1)
        for y, t in enumerate(rows[kind]):
            missed = t.threshold > 0 and t.auc.low > AUC_LIMITS[kind]
            for auc, color, shift in ((t.floor, "0.6", 0.17), (t.auc, MISSED if missed else SURROGATE, -0.17)):
                if not auc.measured:
                    ax.text(0.5, y + shift, " not measurable", fontsize=6.5, color=color, va="center")
                    continue
                ax.plot([auc.low, auc.high], [y + shift] * 2, color=color, lw=1.2, zorder=2)
                face = color if t.threshold > 0 else "white"
                ax.plot(auc.value, y + shift, "o" if t.classifier == "trees" else "D", ms=4.5, mfc=face, mec=color)
        labels = [f"{t.where}, {t.classifier}" + ("" if t.threshold else ", no thr.") for t in rows[kind]]
        ax.set_yticks(range(len(labels)), labels)
        ax.yaxis.set_minor_locator(NullLocator())
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(labels) - 0.4, -0.6)
        ax.set_xlim(0.40, min(most, 1.01))
        ax.set_title({"observables": "observables and layer energies", "cells": "raw cells"}[kind])
        ax.set_xlabel("AUC")
    return figure


def draw_correlations(points: Sequence[PointResult]) -> Figure:
    """Draw the correlations of layer energies: Geant4, generated, difference; one row an energy of one design."""
    figure = Figure(figsize=(8.2, 0.5 + 2.35 * len(points)))
    axes = figure.subplots(len(points), 3, squeeze=False, gridspec_kw={"hspace": 0.28, "wspace": 0.1})
    for row, point in zip(axes, points, strict=True):
        c = point.correlation
        assert c is not None
        shows = ((c.reference, "Geant4"), (c.generated, "generated"), (c.generated - c.reference, "difference"))
        for ax, (matrix, title) in zip(row, shows, strict=True):
            size = 1.0 if title != "difference" else 0.25
            ax.imshow(matrix, cmap="RdBu_r", vmin=-size, vmax=size)
            for i, k in np.ndindex(matrix.shape):
                dark = abs(matrix[i, k]) > 0.6 * size
                ax.text(k, i, f"{round(float(matrix[i, k]), 2) + 0.0:+.2f}", ha="center", va="center", fontsize=7,
                        color="white" if dark else "black")  # fmt: skip
            ax.set_title(f"{title}, {point.point.energy:g} GeV")
            ax.set_xticks(range(len(matrix)), [f"$E_{k}$" for k in range(len(matrix))])
            ax.set_yticks(range(len(matrix)), [f"$E_{k}$" if ax is row[0] else "" for k in range(len(matrix))])
            ax.minorticks_off()
            ax.tick_params(length=0)
    return figure


def draw_distributions(point: PointResult) -> Figure:
    """Draw the distributions of observables, Geant4 as points and generated as a line, each above its ratio."""
    names = [name for name in PANELS if name in point.names]
    columns = (len(names) + 1) // 2
    figure = Figure(figsize=(10.6, 6.2))
    outer = figure.add_gridspec(2, columns, hspace=0.28, wspace=0.27)
    for number, name in enumerate(names):
        inner = outer[number // columns, number % columns].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
        top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
        k = point.names.index(name)
        draw_distribution(top, bottom, point.generated[:, k], point.reference[:, k], name)
        if number % columns == 0:
            top.set_ylabel("showers (normalised)")
            bottom.set_ylabel("ratio")
        if number == 0:
            top.legend(loc="upper left", handlelength=1.4)
    return figure


def _bins(a: np.ndarray, b: np.ndarray, name: str) -> np.ndarray:
    """Return edges that hold 99 % of both samples; the rest is counted in the outermost bins."""
    low, high = np.quantile(np.r_[a, b], [0.005, 0.998])
    if name == "occupancy":
        low, high = np.floor(low) - 0.5, np.ceil(high) + 0.5
        step = max(1, int(np.ceil((high - low) / 30)))
        return np.arange(low, high + step, step)
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-12):
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    return np.linspace(low, high, int(np.clip(1.2 * min(len(a), len(b)) ** 0.5, 10, 36)))


def draw_distribution(top: Any, bottom: Any, a: np.ndarray, b: np.ndarray, name: str) -> None:
    """Draw the distributions of one observable, generated a and Geant4's b, above their ratio."""
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
    bottom.set_xlabel(axis_label(name), labelpad=1)


def draw_profiles(points: Sequence[PointResult]) -> Figure:
    """Draw mean profiles along and across with their ratios, one column an energy of one design."""
    figure = Figure(figsize=(0.6 + 3.3 * max(len(points), 2), 6.6))
    outer = figure.add_gridspec(2, len(points), hspace=0.26, wspace=0.28)
    for column, p in enumerate(points):
        for row, (name, axis) in enumerate((("along", "z"), ("across", "x"))):
            inner = outer[row, column].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
            top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            _profile(top, bottom, *p.profiles[name])
            bottom.set_xlabel(f"{axis} [cm]", labelpad=1)
            if column == 0:
                top.set_ylabel(f"mean dE/d{axis} [GeV/cm]")
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


def draw_showers(generated: Cells, reference: Cells, point: PointResult) -> Figure:
    """Draw single showers and the mean of all, seen from the side (x-z) and along the beam (x-y).

    The showers are the first with energy of either file; colours are the energy in the projected cells, MeV.
    """
    singles = SINGLES
    design = point.point.design
    n = generated.cells.shape[1]
    xs = (np.arange(n + 1) - n / 2) * design.dx
    zs = np.r_[0.0, np.cumsum(design.dz)]
    columns = [_displayed(c.cells[r], singles) for c, r in
               ((reference, point.rows.reference), (generated, point.rows.generated))]  # fmt: skip
    top = max(float(shown.sum(axis=2).max()) for shown in columns) * 1e3
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
    """Return the sum over y: rows x, columns z."""
    return np.asarray(cells.sum(1))


def _along_the_beam(cells: np.ndarray) -> np.ndarray:
    """Return the sum over z: rows y, columns x."""
    return np.asarray(cells.sum(2).T)


def _displayed(cells: np.ndarray, singles: int) -> np.ndarray:
    """Return the first showers with energy, then the mean of all, shape (singles + 1, n_x, n_y, n_z)."""
    with_energy = np.flatnonzero(cells.sum(axis=(1, 2, 3)) > 0)[:singles]
    return np.concatenate([cells[with_energy], cells.mean(axis=0, keepdims=True)])


def draw_maps(generated: Maps, reference: Maps, point: PointResult) -> Figure:
    """Draw the first maps of each file and the mean of all; colours are the energy of a pixel, MeV."""
    figure = Figure(figsize=(10.6, 4.6), layout="constrained")
    rows = [(reference, point.rows.reference), (generated, point.rows.generated)]
    images = [[*maps.maps[which[:SINGLES]], maps.maps[which].mean(0, dtype=np.float64)] for maps, which in rows]
    top = 1e3 * max(float(image.max()) for row in images for image in row)
    first = rows[0][1][0]
    half, depth = reference.width[first] / 2, reference.depth[first]
    panels = figure.subplots(2, SINGLES + 1, sharex=True, sharey=True, squeeze=False)
    for row, some, (label, color) in zip(panels, images, (("Geant4", GEANT4), ("generated", SURROGATE)), strict=True):
        for number, (axes, image) in enumerate(zip(row, some, strict=True)):
            shown = axes.imshow(
                np.ma.masked_less_equal(1e3 * image, 0), origin="lower", aspect="auto", cmap="inferno_r",
                extent=(0, depth, -half, half), norm=LogNorm(FAINTEST * top, top),
            )  # fmt: skip
            axes.minorticks_off()
            if row is panels[0]:
                axes.set_title("mean of all" if number == SINGLES else f"shower {number + 1}")
        row[0].set_ylabel(f"{label}\nx [cm]", color=color)
    for axes in panels[-1]:
        axes.set_xlabel("z [cm]")
    figure.colorbar(shown, ax=panels.ravel().tolist(), label="energy of a pixel [MeV]", pad=0.01)
    return figure
