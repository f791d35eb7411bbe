"""Figures of comparisons of generated showers with Geant4's.

Over all design points: biases, spreads and distances against energy, classifier tests. Of chosen showers:
distributions and profiles above their ratios, event displays, correlations of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from calograd.evaluation.classifier_tests import ClassifierTest
from calograd.evaluation.compare import PointResult, Quantity
from calograd.evaluation.designs import DesignEvaluation
from calograd.evaluation.limits import AUC_LIMITS, Limits
from calograd.evaluation.matching import Setting
from calograd.evaluation.plates import W1_LIMIT, PlatesPoint
from calograd.events.layered_readout import GRID, Readout, read_out
from calograd.events.point_showers import PointShowers
from calograd.metrics.observables import Profile
from calograd.metrics.points import PointObservables
from calograd.reports.plots import central_bins, shares
from calograd.reports.style import GEANT4, KEPT, LABELS, MISSED, SURROGATE, SURROGATE_LIGHT, axis_label

COLUMNS = 5
"""Most designs side by side in one figure."""
PANELS = ("E_tot", "R_E", "sigma_x", "sigma_y", "x_mean", "z_mean", "sigma_z", "occupancy")
"""Observables whose distributions are shown."""
FAINTEST = 1e-5
"""Lower end of the colours of event displays, relative to the brightest pixel."""
SINGLES = 3
"""Showers of either file in an event display, before their mean."""
MEAN_OF = 2000
"""Most showers of points whose mean is shown."""
SEEN = 6.0
"""Half width of the display of points, cm."""
KNOWN = 0.2
"""Largest relative error of Geant4's mean at which a ratio of profiles of points is drawn."""
COLOURS = colormaps["plasma"]
"""Colours of several energies."""
ROWS = (("Geant4", GEANT4), ("generated", SURROGATE))
"""Names and colours of the rows of event displays."""


@dataclass(frozen=True)
class Trend:
    """A number against the incident energy: a row of panels a quantity, a column a design.

    Args:
        kind: kind of the checks, as in `calograd.evaluation.limits.KINDS`.
        label: label of the vertical axis, with the quantity's symbol in place of ``{}``.
        caption: caption of the figure.
        value: value of a quantity and its error.
        band: allowed range of a quantity at an energy in GeV; None where there is no limit.
        ideal: value of a perfect generator.
        floor: value of Geant4 against itself, where it differs from quantity to quantity.
        log: whether the vertical axis is logarithmic.
    """

    kind: str
    label: str
    caption: str
    value: Callable[[Quantity], tuple[float, float]]
    band: Callable[[Limits, str, float], tuple[float, float] | None]
    ideal: float | None
    floor: Callable[[Quantity], float] | None = None
    log: bool = False

    def ends(self, quantity: Quantity) -> tuple[float, float, float]:
        """Return the value of a quantity with the lower and upper end of its error bar."""
        value, error = self.value(quantity)
        return value, value - error, value + error


def _bias_band(limits: Limits, name: str, energy: float) -> tuple[float, float] | None:
    limit = limits.bias[name].at(energy)
    return None if limit is None else (-100 * limit, 100 * limit)


BIAS = Trend(
    "bias", "bias of {} [%]", "Bias of the mean against incident energy, with standard errors.",
    lambda q: (100 * q.bias, 100 * q.bias_error), _bias_band, 0.0,
)  # fmt: skip
SPREAD = Trend(
    "sigma ratio", r"$\sigma$ ratio, {}",
    "Standard deviation, generated over Geant4, with bootstrap standard errors.",
    lambda q: (q.sigma_ratio, q.sigma_ratio_error), lambda limits, _n, _e: limits.sigma_ratio, 1.0,
)  # fmt: skip
DISTANCE = Trend(
    "W1 / floor", r"$W_1$ / floor, {}", "1-Wasserstein distance in units of its Geant4-against-Geant4 floor.",
    lambda q: (q.w1_over_floor, 0.0), lambda limits, _n, _e: None if limits.w1 is None else (0.0, limits.w1), 1.0,
    log=True,
)  # fmt: skip
RRMSE = Trend(
    "RRMSE", "RRMSE of {} [%]",
    "Relative root mean square difference (RRMSE) of generated and Geant4 showers. Grey: Geant4 against Geant4, the "
    "floor.", lambda q: (100 * q.rrmse, 0.0), lambda _l, _n, _e: None, None, lambda q: 100 * q.rrmse_floor, log=True,
)  # fmt: skip


def draw_trend(evaluation: DesignEvaluation, settings: Sequence[Setting], trend: Trend, names: Sequence[str]) -> Figure:
    """Draw a trend for up to `COLUMNS` designs or beams; vertical axes are shared along a row over all of these."""
    width = max(3.6, 0.8 + 2.1 * len(settings))
    figure = Figure(figsize=(width, 0.45 + 1.25 * len(names)))
    axes = figure.subplots(len(names), len(settings), sharex=True, sharey="row", squeeze=False,
                           gridspec_kw={"hspace": 0.06, "wspace": 0.06})  # fmt: skip
    for i, name in enumerate(names):
        ends = _range(evaluation, name, trend)
        for j, setting in enumerate(settings):
            _panel(axes[i, j], evaluation, evaluation.at(setting), name, trend, ends)
        axes[i, 0].set_ylabel(trend.label.format(LABELS[name]), fontsize=8)
    for j, setting in enumerate(settings):
        axes[0, j].set_title(f"{setting.design}\n{setting.beam}".strip())
        axes[-1, j].set_xlabel("incident energy [GeV]")
    figure.align_ylabels(axes[:, 0])
    return figure


def _range(evaluation: DesignEvaluation, name: str, trend: Trend) -> tuple[float, float]:
    """Return the ends of the vertical axis of a row."""
    points, limits = evaluation.points, evaluation.kind.limits
    ends = np.array([trend.ends(p.quantities[name]) for p in points])
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
    values = np.array([trend.ends(p.quantities[name]) for p in points]).reshape(-1, 3)
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


def _pair_of_axes(figure: Figure, place: Any) -> tuple[Any, Any]:
    """Return two axes below each other, for a comparison and its ratio."""
    inner = place.subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
    top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
    top.tick_params(labelbottom=False)
    return top, bottom


def draw_pair(
    top: Any, bottom: Any, ours: Profile, theirs: Profile, *, reach: float | None = None, known: float = np.inf
) -> None:
    """Draw generated values above their ratio to Geant4's, both with standard errors.

    Geant4's values are points, generated ones a line in a band. Geant4's error is a grey band of the ratio.

    Args:
        top, bottom: axes of the values and of the ratio.
        ours, theirs: values in bins, generated and Geant4's.
        reach: half height of the axis of the ratio; None for one that holds all ratios up to 2.
        known: largest relative error of Geant4's value at which the ratio is drawn.
    """
    edges, log = theirs.edges, top.get_xscale() == "log"
    centres = np.sqrt(edges[1:] * edges[:-1]) if log else (edges[1:] + edges[:-1]) / 2
    low, high = (np.clip(ours.mean + sign * ours.error, 0, None) for sign in (-1, 1))
    top.stairs(high, edges, baseline=low, fill=True, color=SURROGATE_LIGHT, alpha=0.6, lw=0, zorder=1)
    top.stairs(ours.mean, edges, color=SURROGATE, lw=1.3, label="generated", zorder=2)
    seen = theirs.mean > 0
    top.errorbar(centres[seen], theirs.mean[seen], theirs.error[seen], fmt="o", ms=2.8, lw=0.9, color=GEANT4,
                 label="Geant4", zorder=3)  # fmt: skip
    scale = np.where(seen, theirs.mean, 1.0)
    both = seen & (ours.mean > 0) & (theirs.error < known * scale)
    ratio, error, band = ours.mean / scale, ours.error / scale, np.where(seen, theirs.error / scale, 0.0)
    bottom.stairs(1 + band, edges, baseline=1 - band, fill=True, color="0.85", lw=0)
    bottom.axhline(1, color=GEANT4, lw=0.7)
    bottom.errorbar(centres[both], ratio[both], error[both], fmt="o", ms=2.5, lw=0.8, color=SURROGATE)
    if reach is None:
        reach = float(np.clip(1.3 * np.abs(ratio[both] - 1).max(initial=0.0), 0.1, 1.0))
    bottom.set_ylim(1 - reach, 1 + reach)
    for axes in (top, bottom):
        axes.set_xlim(edges[0], edges[-1])


def draw_distributions(names: Sequence[str], generated: np.ndarray, reference: np.ndarray, rows: int) -> Figure:
    """Draw the distributions of observables above their ratios; the outermost bins hold what lies beyond.

    Args:
        names: names of the observables.
        generated, reference: their values, generated and Geant4's, shape (n, names).
        rows: rows of panels.
    """
    columns = -(-len(names) // rows)
    figure = Figure(figsize=(min(2.65 * columns, 11.5), 3.2 * rows))
    outer = figure.add_gridspec(rows, columns, hspace=0.28, wspace=0.3)
    for number, (name, a, b) in enumerate(zip(names, generated.T, reference.T, strict=True)):
        top, bottom = _pair_of_axes(figure, outer[number // columns, number % columns])
        edges = central_bins(np.r_[a, b], int(np.clip(1.2 * min(len(a), len(b)) ** 0.5, 10, 36)), name == "occupancy")
        ours, theirs = (shares(values, edges) for values in (a, b))
        draw_pair(top, bottom, ours, theirs, reach=0.6)
        highest = max(ours.mean.max(), theirs.mean.max())
        if name == "E_tot":
            top.set_yscale("log")
            top.set_ylim(0.3 / max(len(a), len(b)), 6 * highest)
        else:
            top.set_ylim(0, 1.32 * highest)
        bottom.set_xlabel(axis_label(name), labelpad=1)
        if number % columns == 0:
            top.set_ylabel("showers (normalised)")
            bottom.set_ylabel("ratio")
        if number == 0:
            top.legend(loc="upper left", handlelength=1.4)
    return figure


def draw_profiles(points: Sequence[PointResult]) -> Figure:
    """Draw mean profiles along and across above their ratios, one column an energy of one design."""
    figure = Figure(figsize=(0.6 + 3.3 * max(len(points), 2), 6.6))
    outer = figure.add_gridspec(2, len(points), hspace=0.26, wspace=0.28)
    for column, p in enumerate(points):
        for row, (name, axis) in enumerate((("along", "z"), ("across", "x"))):
            top, bottom = _pair_of_axes(figure, outer[row, column])
            draw_pair(top, bottom, *p.profiles[name])
            top.set_yscale("log")
            bottom.set_xlabel(f"{axis} [cm]", labelpad=1)
            if column == 0:
                top.set_ylabel(f"mean dE/d{axis} [GeV/cm]")
                bottom.set_ylabel("ratio")
            if row == 0:
                top.set_title(f"{p.point.energy:g} GeV")
            if row == column == 0:
                top.legend(loc="upper right", handlelength=1.4)
    return figure


def draw_point_profiles(both: tuple[PointObservables, PointObservables]) -> Figure:
    """Draw the mean energy by layer and by radius, and the spectrum of hits, above their ratios."""
    figure = Figure(figsize=(11, 4.2))
    outer = figure.add_gridspec(1, 3, wspace=0.28)
    columns = (
        ("layers", 1e3, "linear", "linear", "mean energy of a layer [MeV]", "layer"),
        ("radial", 1e3, "linear", "log", "mean energy of a ring [MeV]", "distance from the axis [cm]"),
        ("spectrum", 1.0, "log", "log", "hits a shower and bin", "energy of a hit [GeV]"),
    )
    for number, (name, unit, across, up, label, below) in enumerate(columns):
        top, bottom = _pair_of_axes(figure, outer[number])
        top.set(xscale=across, yscale=up, ylabel=label)
        bottom.set(xscale=across, xlabel=below)
        found = (getattr(each, name) for each in both)
        draw_pair(top, bottom, *(Profile(p.edges, unit * p.mean, unit * p.error) for p in found), known=KNOWN)
        if name == "layers":
            top.legend()
            bottom.set_ylabel("ratio")
    return figure


def draw_plate_profiles(pairs: Sequence[tuple[Profile, Profile]], below: str) -> Figure:
    """Draw the mean energies in active plates and in absorbers above their ratios.

    Args:
        pairs: generated and Geant4's mean shares of the incident energy, of active plates, then of absorbers.
        below: label of the horizontal axis.
    """
    figure = Figure(figsize=(9.0, 4.2))
    outer = figure.add_gridspec(1, len(pairs), wspace=0.28)
    for number, (pair, name) in enumerate(zip(pairs, ("active plates", "absorbers"), strict=True)):
        top, bottom = _pair_of_axes(figure, outer[number])
        draw_pair(top, bottom, *(Profile(p.edges, 100 * p.mean, 100 * p.error) for p in pair), known=KNOWN)
        top.set(ylabel=f"mean energy in {name}\n[% of the incident energy]")
        top.set_ylim(0, 1.1 * max(100 * p.mean.max() for p in pair))
        bottom.set_xlabel(below)
        if number == 0:
            top.legend()
            bottom.set_ylabel("ratio")
    return figure


def draw_layer_distances(points: Sequence[PlatesPoint]) -> Figure:
    """Draw W1 of every layer over its floor at several energies: of active plates, and of absorbers.

    A band holds 95 % of the distances of a perfect generator, of all energies together.

    Args:
        points: comparisons in one stack, or of all rows.
    """
    figure = Figure(figsize=(9.0, 2.8), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, number in zip(panels, range(2), strict=True):
        of = [point.layers[number] for point in points]
        perfect = np.concatenate([each.null / np.where(each.floor > 0, each.floor, np.nan) for each in of])
        known = np.isfinite(perfect).any(0)
        layer = np.flatnonzero(known)
        low, high = np.nanquantile(perfect[:, known], (0.025, 0.975), axis=0)
        axes.fill_between(layer, low, high, step="mid", color="0.85", lw=0, label="a perfect generator, 95 %")
        axes.axhline(W1_LIMIT, color="0.4", lw=0.8, ls="--")
        for point, each, colour in zip(points, of, np.linspace(0.1, 0.85, len(points)), strict=True):
            axes.plot(each.over_floor, "o", ms=3, color=COLOURS(colour), label=point.where)
        axes.set(yscale="log", xlabel="layer, from 0")
        axes.set_title(of[0].plates)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "235" else ""))
    panels[0].set_ylabel("$W_1$ over its floor")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper")
    return figure


def draw_rings(ours: Profile, theirs: Profile) -> Figure:
    """Draw the mean visible energies in rings, shares of the incident energy, above their ratio."""
    figure = Figure(figsize=(5.0, 4.2))
    top, bottom = _pair_of_axes(figure, figure.add_gridspec(1, 1)[0])
    draw_pair(top, bottom, *(Profile(p.edges, 100 * p.mean, 100 * p.error) for p in (ours, theirs)), known=KNOWN)
    top.set(ylabel="mean energy of the ring\n[% of the incident energy]", yscale="log")
    top.legend()
    bottom.set(xlabel="distance from the particle's line [cm]", ylabel="ratio")
    return figure


class View(NamedTuple):
    """Showers of both files, projected onto a plane.

    Attributes:
        x, y: edges of the pixels, cm.
        label_x, label_y: labels of the axes.
        images: energies of the pixels, Geant4's and generated, shape (2, SINGLES + 1, rows, columns), GeV.
    """

    x: np.ndarray
    y: np.ndarray
    label_x: str
    label_y: str
    images: np.ndarray


def _first(showers: np.ndarray) -> np.ndarray:
    """Return the first showers, those with energy before those without, then the mean of all."""
    empty = showers.sum(axis=tuple(range(1, showers.ndim))) <= 0
    some = np.resize(np.argsort(empty, kind="stable"), SINGLES)
    return np.concatenate([showers[some], showers.mean(axis=0, keepdims=True, dtype=np.float64)])


def views_of(evaluation: DesignEvaluation, point: PointResult) -> list[View]:
    """Return the views of showers at a point: from the side (x-z) and, of more than one row, along the beam (x-y)."""
    rows, shown, edges = point.rows, [], list[np.ndarray]()
    pairs = ((evaluation.reference, rows.reference), (evaluation.generated, rows.generated))
    for records, chosen in pairs:
        cells, dx, dz = evaluation.kind.as_cells(records)
        shown.append(_first(cells[chosen]))
        edges = [(np.arange(n + 1) - n / 2) * dx[chosen[0]] for n in cells.shape[1:3]]
        edges.append(np.r_[0.0, np.cumsum(dz[chosen[0]], dtype=float)])
    showers, (x, y, z) = np.stack(shown), edges
    side = View(z, x, "z [cm]", "x [cm]", showers.sum(3))
    return [side] if len(y) == 2 else [side, View(x, y, "x [cm]", "y [cm]", showers.sum(4).swapaxes(2, 3))]


def draw_showers(views: Sequence[View]) -> Figure:
    """Draw single showers and the mean of all in every view, on one scale of colours."""
    top = 1e3 * max(float(view.images.max()) for view in views)
    norm, every = LogNorm(FAINTEST * top, top), list[Any]()
    figure = Figure(figsize=(10.6, 4.2 * len(views) - 0.8 * (len(views) - 1)))
    outer = figure.add_gridspec(len(views), 1, height_ratios=[1, 1.5][: len(views)], hspace=0.14)
    for number, view in enumerate(views):
        panels = outer[number].subgridspec(2, SINGLES + 1, hspace=0.08, wspace=0.08).subplots()
        for (row, column), axes in np.ndenumerate(panels):
            mesh = axes.pcolormesh(view.x, view.y, 1e3 * view.images[row, column], norm=norm, cmap="inferno_r")
            axes.minorticks_off()
            axes.tick_params(labelleft=column == 0, labelbottom=row == 1, labelsize=7)
            if view.label_x == "x [cm]":
                axes.set_aspect("equal")
            if column == 0:
                axes.set_ylabel(f"{ROWS[row][0]}\n{view.label_y}", color=ROWS[row][1])
            if row == 1:
                axes.set_xlabel(view.label_x, labelpad=1)
            elif number == 0:
                axes.set_title(f"shower {column + 1}" if column < SINGLES else "mean of all")
            every.append(axes)
    figure.colorbar(mesh, ax=every, pad=0.015, aspect=45, fraction=0.03, label="projected energy [MeV]")
    return figure


def draw_mean_points(generated: PointShowers, reference: PointShowers) -> Figure:
    """Draw the mean of showers of points from the side and from the front, on one scale of colours for each view."""
    count = min(MEAN_OF, len(generated), len(reference))
    views = [_mean_views(points.rows(slice(0, count))) for points in (reference, generated)]
    half = (GRID + 1) / 2 * Readout().pitch
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(1.25, 1))
    extents = ((-0.5, reference.layers - 0.5, -half, half), (-half, half, -half, half))
    for column, extent in enumerate(extents):
        top = max(float(view[column].max()) for view in views)
        for row, (label, colour) in enumerate(ROWS):
            axes = panels[row, column]
            shown = axes.imshow(
                np.ma.masked_less_equal(views[row][column], 0), origin="lower", cmap="inferno_r", aspect="auto",
                extent=extent, norm=LogNorm(FAINTEST * top, top),
            )  # fmt: skip
            axes.set_ylabel(f"{label}\nx [cm]" if column == 0 else "y [cm]", color=colour if column == 0 else GEANT4)
            axes.set_xlabel(("layer", "x [cm]")[column] if row == 1 else "")
            axes.minorticks_off()
        figure.colorbar(shown, ax=panels[:, column].tolist(), pad=0.02, aspect=35,
                        label="mean energy of the cells [MeV]")  # fmt: skip
        panels[0, column].set_title(("side view", "front view")[column])
    return figure


def _mean_views(points: PointShowers) -> tuple[np.ndarray, np.ndarray]:
    """Return mean energies (MeV) of the cells from the side (x, layer) and from the front (y, x)."""
    hits = read_out(points)
    half = GRID // 2
    inside = (np.abs(hits.i) <= half) & (np.abs(hits.j) <= half)
    i, j, layer, e = hits.i[inside] + half, hits.j[inside] + half, hits.layer[inside], hits.e[inside]
    side, front = np.zeros((GRID + 1, points.layers)), np.zeros((GRID + 1, GRID + 1))
    np.add.at(side, (i, layer), e)
    np.add.at(front, (j, i), e)
    return 1e3 * side / len(points), 1e3 * front / len(points)


def draw_points(generated: PointShowers, reference: PointShowers) -> Figure:
    """Draw the points of one shower of each file in space, on one scale of energies."""
    showers = [_typical(points) for points in (reference, generated)]
    energies = np.concatenate([shower.e for shower in showers])
    norm = LogNorm(1e3 * float(np.quantile(energies, 0.02)), 1e3 * float(energies.max())) if len(energies) else None
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    every = []
    for number, (shower, label) in enumerate(zip(showers, ("Geant4", "generated"), strict=True)):
        axes: Any = figure.add_subplot(1, 2, number + 1, projection="3d")
        seen = np.maximum(np.abs(shower.x), np.abs(shower.y)) < SEEN
        drawn = axes.scatter(
            shower.layer[seen], shower.x[seen], shower.y[seen], c=1e3 * shower.e[seen], norm=norm, cmap="inferno_r",
            s=np.clip(1.5e4 * shower.e[seen], 1.5, 80), alpha=0.75, linewidths=0,
        )  # fmt: skip
        axes.set(xlabel="layer", ylabel="x [cm]", zlabel="y [cm]", xlim=(0, shower.layers), ylim=(-SEEN, SEEN),
                 zlim=(-SEEN, SEEN))  # fmt: skip
        axes.minorticks_off()
        axes.set_title(f"{label}, {float(shower.energy[0]):.3g} GeV, {len(shower.e)} points" if len(shower)
                       else f"{label}, no shower with points")  # fmt: skip
        every.append(axes)
    figure.colorbar(drawn, ax=every, pad=0.06, aspect=35, shrink=0.8, label="energy of a point [MeV]")
    return figure


def _typical(points: PointShowers) -> PointShowers:
    """Return the shower with points whose energy is nearest to the mean energy; none if all are empty."""
    filled = np.flatnonzero(points.counts > 0)
    if not len(filled):
        return points.rows(slice(0, 0))
    nearest = np.argmin(np.abs(points.energy[filled] - points.energy.mean()))
    return points.rows(filled[nearest : nearest + 1])
