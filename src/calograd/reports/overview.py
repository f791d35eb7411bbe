"""Figures over all points: biases, spreads and W1 against energy, classifier tests, layer correlations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from calograd.evaluation import limits
from calograd.evaluation.compare import PointResult, Quantity
from calograd.evaluation.matching import Point, Sizes
from calograd.evaluation.separability import Separability
from calograd.reports.style import GEANT4, KEPT, LABELS, MISSED, SURROGATE

COLUMNS = 5
"""Designs side by side in one figure."""


@dataclass(frozen=True)
class Trend:
    """A number against the incident energy, one row of panels a quantity, one column a design.

    Args:
        kind: of the checks, as in `limits.KINDS`.
        rows: the quantities.
        label: of the vertical axis, from the quantity's symbol.
        value: value with lower and upper end of the error bar of a quantity.
        band: allowed range of a quantity at an energy in GeV.
        ideal: what a perfect generator gives. log: whether the vertical axis is logarithmic.
    """

    kind: str
    rows: tuple[str, ...]
    label: Callable[[str], str]
    value: Callable[[Quantity], tuple[float, float, float]]
    band: Callable[[str, float], tuple[float, float]]
    ideal: float
    log: bool = False


def _percent(q: Quantity) -> tuple[float, float, float]:
    return 100 * q.bias, 100 * (q.bias - q.bias_error), 100 * (q.bias + q.bias_error)


def _bias_band(name: str, energy: float) -> tuple[float, float]:
    low, high, _ = limits.BIAS_LIMITS[name]
    limit = 100 * (high if energy >= limits.HIGH_ENERGY * (1 - 1e-4) else low)
    return -limit, limit


BIAS = Trend("bias", tuple(limits.BIAS_LIMITS), lambda s: f"bias of {s} [%]", _percent, _bias_band, 0.0)
SPREAD = Trend(
    "sigma ratio",
    ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy"),
    lambda s: rf"$\sigma$ ratio, {s}",
    lambda q: (q.sigma_ratio, q.sigma_ratio - q.sigma_ratio_error, q.sigma_ratio + q.sigma_ratio_error),
    lambda _name, _energy: limits.SIGMA_RATIO_LIMITS,
    1.0,
)
W1 = Trend(
    "W1 / floor",
    SPREAD.rows,
    lambda s: rf"$W_1$ / floor, {s}",
    lambda q: (q.w1_over_floor, q.w1_over_floor, q.w1_over_floor),
    lambda _name, _energy: (0.0, limits.W1_LIMIT),
    1.0,
    log=True,
)


def draw_trend(points: Sequence[PointResult], designs: Sequence[Sizes], trend: Trend) -> Figure:
    """A trend for up to `COLUMNS` designs. Vertical axes are shared along a row over all ``points``."""
    width = max(3.2, 0.8 + 2.1 * len(designs))
    figure = Figure(figsize=(width, 0.45 + 1.25 * len(trend.rows)))
    axes = figure.subplots(len(trend.rows), len(designs), sharex=True, sharey="row", squeeze=False,
                           gridspec_kw={"hspace": 0.06, "wspace": 0.06})  # fmt: skip
    verdicts = {p.point: _verdicts(p, trend.kind) for p in points if p.point.design in designs}
    for i, name in enumerate(trend.rows):
        limits_y = _range(points, name, trend)
        for j, design in enumerate(designs):
            _panel(
                axes[i, j],
                [p for p in points if p.point.design == design],
                name,
                trend,
                verdicts_of=verdicts,
                limits_y=limits_y,
            )
        axes[i, 0].set_ylabel(trend.label(LABELS[name]), fontsize=8)
    for j, design in enumerate(designs):
        axes[0, j].set_title(str(design))
        axes[-1, j].set_xlabel("incident energy [GeV]")
    figure.align_ylabels(axes[:, 0])
    return figure


def _range(points: Sequence[PointResult], name: str, trend: Trend) -> tuple[float, float]:
    ends = np.array([trend.value(p.quantities[name]) for p in points])
    ends = ends[np.isfinite(ends)]
    bands = np.array([trend.band(name, p.point.energy) for p in points])
    if trend.log:
        low, high = 0.3, max(3 * limits.W1_LIMIT, 1.5 * ends.max(initial=1.0))
        return low, float(min(high, 300.0))
    half = float(np.abs(bands - trend.ideal).max())
    far = float(np.quantile(np.abs(ends - trend.ideal), 0.97)) if len(ends) else half
    reach = 1.15 * min(max(1.4 * half, far), 12 * half)
    return trend.ideal - reach, trend.ideal + reach


def _panel(
    ax: Any,
    points: Sequence[PointResult],
    name: str,
    trend: Trend,
    *,
    verdicts_of: dict[Point, dict[str, int]],
    limits_y: tuple[float, float],
) -> None:
    energies = np.array([p.point.energy for p in points])
    values = np.array([trend.value(p.quantities[name]) for p in points]).reshape(-1, 3)
    bands = np.array([trend.band(name, e) for e in energies]).reshape(-1, 2)
    edges = np.r_[0.0, (energies[1:] + energies[:-1]) / 2, energies[-1] + 6] if len(energies) else np.zeros(1)
    for k, (low, high) in enumerate(bands):
        ax.fill_between(edges[k : k + 2], max(low, limits_y[0]), high, color=KEPT, lw=0, zorder=0)
    ax.axhline(trend.ideal, color="0.55", lw=0.7, zorder=1)
    lowest, highest = limits_y
    inside = (values[:, 0] >= lowest) & (values[:, 0] <= highest)
    shown = np.clip(values[:, 0], lowest, highest)
    verdicts = np.array([verdicts_of[p.point].get(name, 0) for p in points])
    for verdict, color, face in ((0, GEANT4, GEANT4), (1, MISSED, "white"), (2, MISSED, MISSED)):
        use = (verdicts == verdict) & inside
        bars = np.abs(values[use][:, 1:] - values[use][:, :1]).T
        ax.errorbar(energies[use], values[use, 0], yerr=bars, fmt="o", ms=3.2, lw=0.9, color=color, mfc=face, zorder=3)
        for off in np.flatnonzero((verdicts == verdict) & ~inside & np.isfinite(values[:, 0])):
            marker = "^" if values[off, 0] > highest else "v"
            ax.plot(energies[off], shown[off], marker, ms=5, color=color, mfc=face, clip_on=False, zorder=4)
    if trend.log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(limits_y)
    ax.set_xlim(edges[0] - 2 if len(energies) else 0, edges[-1] if len(energies) else 1)


def _verdicts(point: PointResult, kind: str) -> dict[str, int]:
    """By quantity. 0: the limit is kept; 1: missed, within statistics; 2: missed beyond statistics."""
    found = [c for c in limits.check_point(point) if c.kind == kind]
    return {c.subject: 0 if c.passed else 1 + c.significant for c in found}


def draw_classifiers(tests: Sequence[Separability]) -> Figure:
    """AUCs with their intervals beside Geant4's against itself; tests without threshold hollow."""
    kinds = [kind for kind in limits.AUC_LIMITS if any(t.features == kind for t in tests)]
    rows = {kind: [t for t in tests if t.features == kind] for kind in kinds}
    height = 0.9 + 0.27 * max(len(r) for r in rows.values())
    figure = Figure(figsize=(9.6, height))
    axes = figure.subplots(1, len(kinds), squeeze=False, sharex=True, gridspec_kw={"wspace": 0.62})[0]
    most = max([0.75, *(t.auc.high + 0.02 for t in tests)])
    for ax, kind in zip(axes, kinds, strict=True):
        ax.axvspan(0.0, limits.AUC_LIMITS[kind], color=KEPT, lw=0, zorder=0)
        ax.axvline(0.5, color="0.55", lw=0.7, zorder=1)
        for y, t in enumerate(rows[kind]):
            missed = t.threshold > 0 and t.auc.value > limits.AUC_LIMITS[kind]
            for auc, color, shift in ((t.floor, "0.6", 0.17), (t.auc, MISSED if missed else SURROGATE, -0.17)):
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
    """Correlations of the layer energies: Geant4, generated, difference; one row an energy of one design."""
    figure = Figure(figsize=(8.2, 0.5 + 2.35 * len(points)))
    axes = figure.subplots(len(points), 3, squeeze=False, gridspec_kw={"hspace": 0.28, "wspace": 0.1})
    for row, point in zip(axes, points, strict=True):
        c = point.correlation
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
