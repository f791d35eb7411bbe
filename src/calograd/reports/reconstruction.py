"""Figures of reconstructed entry and direction: S-curve, bias and resolution against entry, angle and energy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calograd.evaluation.compare import PointResult
from calograd.evaluation.designs import DesignEvaluation
from calograd.evaluation.reconstruction import METHODS, BinnedResiduals, ReconstructionResult, ResidualComparison
from calograd.reports.page import Drawing
from calograd.reports.style import GEANT4, KEPT, SURROGATE

COLUMNS = 4
"""Most points side by side in one figure."""
PROFILES = ("position", "projected angle")
"""Residuals that are drawn against the entry."""
MARKERS = "osD^v"
"""Markers of the kinds of beam and energies in a trend."""


def reconstruction_drawings(evaluation: DesignEvaluation) -> Iterator[Drawing]:
    """Yield the figures of entry and direction in the group ``reconstruction``; none on the axis."""
    points = [p for p in evaluation.points if p.reconstruction is not None]
    limit = evaluation.kind.limits.position_bias
    scanned = [p for p in points if p.reconstruction is not None and p.reconstruction.scanned]
    for method, words in METHODS.items():
        for start in range(0, len(scanned), COLUMNS):
            some = scanned[start : start + COLUMNS]
            yield Drawing(
                partial(draw_entries, some, method, limit),
                f"Entry by {words} against the true entry within the cell, x and y together. Geant4 (points) and "
                "generated (line), with standard errors. From above: S-curve; bias, reconstructed minus true; "
                "generated minus Geant4, with the floor of Geant4 against itself in grey and the limit in green; "
                "position resolution; resolution of the projected angles, of two or more layers; "
                "at drawn azimuths it contains the bias of the polar angle.",
                f"S-curve and resolutions by {words} at {'; '.join(str(p.point) for p in some)}", "reconstruction",
            )  # fmt: skip
    if len(points) > 1:
        yield Drawing(
            partial(draw_resolutions, points),
            "Position and angular resolution over the whole cell, Geant4 (black) and generated (red), with standard "
            "errors, and generated over Geant4; grey: scatter of Geant4 against itself. Bars along the axis: band of "
            "angles.", "Position and angular resolution of all points", "reconstruction",
        )  # fmt: skip


def draw_entries(points: Sequence[PointResult], method: str, limit: float | None) -> Figure:
    """Draw S-curve, bias and resolutions against the entry, one column a point.

    Args:
        points: points with several entries.
        method: method of the reconstruction.
        limit: largest allowed difference of biases in pitches; None for none.
    """
    found = [(p, p.reconstruction) for p in points if p.reconstruction is not None]
    angles = any("projected angle" in each.residuals[method] for _, each in found)
    rows = 5 if angles else 4
    figure = Figure(figsize=(0.9 + 2.6 * max(len(found), 2), 1.9 * rows))
    axes = figure.subplots(rows, len(found), sharex=True, sharey="row", squeeze=False,
                           gridspec_kw={"hspace": 0.1, "wspace": 0.08})  # fmt: skip
    labels = ["reconstructed / pitch", "bias [% of pitch]", "difference\n[% of pitch]", "position\nresolution [mm]",
              "projected angle\nresolution [degrees]"]  # fmt: skip
    for column, (p, each) in enumerate(found):
        _draw_column(axes[:, column], each, method, limit)
        axes[0, column].set_title(_short(p), fontsize=8)
        axes[-1, column].set_xlabel("true entry / pitch")
    for row in range(rows):
        axes[row, 0].set_ylabel(labels[row], fontsize=8)
    for row in range(3, rows):
        axes[row, 0].set_ylim(bottom=0)
    axes[0, 0].legend(loc="upper left", handlelength=1.4)
    figure.align_ylabels(axes[:, 0])
    return figure


def _draw_column(axes: Any, found: ReconstructionResult, method: str, limit: float | None) -> None:
    residuals, pitch = found.residuals[method], found.pitch
    position = residuals.get("position")
    if position is None:
        return
    u = (position.edges[1:] + position.edges[:-1]) / 2
    axes[0].plot([-0.5, 0.5], [-0.5, 0.5], color="0.7", lw=0.7)
    axes[1].axhline(0, color="0.7", lw=0.7)
    for who, each in (("generated", position.generated), ("Geant4", position.reference)):
        share = each.bias / pitch, each.bias_error / pitch
        _draw(axes[0], who, position.edges, u + share[0], share[1])
        _draw(axes[1], who, position.edges, 100 * share[0], 100 * share[1])
        _draw(axes[3], who, position.edges, 10 * each.resolution, 10 * each.resolution_error)
    if limit is not None:
        axes[2].axhspan(-100 * limit, 100 * limit, color=KEPT, lw=0, zorder=0)
    floor = 100 * np.sqrt((position.null_bias**2).mean(0)) / pitch
    axes[2].stairs(floor, position.edges, baseline=-floor, fill=True, color="0.82", lw=0, zorder=1)
    axes[2].axhline(0, color=GEANT4, lw=0.7)
    axes[2].errorbar(u, 100 * position.difference / pitch, 100 * position.difference_error / pitch, fmt="o", ms=2.8,
                     lw=0.9, color=SURROGATE)  # fmt: skip
    if "projected angle" in residuals and len(axes) > 4:
        angle = residuals["projected angle"]
        for who, each in (("generated", angle.generated), ("Geant4", angle.reference)):
            _draw(axes[4], who, angle.edges, each.resolution, each.resolution_error)
    axes[0].set_xlim(-0.5, 0.5)


def _draw(axes: Any, who: str, edges: np.ndarray, values: np.ndarray, errors: np.ndarray) -> None:
    """Draw values in bins: a line in a band for generated showers, points for Geant4's."""
    u = (edges[1:] + edges[:-1]) / 2
    if who == "Geant4":
        axes.errorbar(u, values, errors, fmt="o", ms=2.8, lw=0.9, color=GEANT4, label=who, zorder=3)
        return
    axes.plot(u, values, color=SURROGATE, lw=1.3, label=who, zorder=2)
    axes.fill_between(u, values - errors, values + errors, color=SURROGATE, alpha=0.2, lw=0, zorder=1)


def _short(p: PointResult) -> str:
    """Return the name of a point in lines that fit a column."""
    beam = f"\n{p.point.beam}" if str(p.point.beam) else ""
    return f"{p.point.design}, {p.point.energy:g} GeV{beam}"


def draw_resolutions(points: Sequence[PointResult]) -> Figure:
    """Draw position and angular resolution of all points, against the angle where it varies, else against the energy.

    The upper panels show both resolutions, the lower ones generated over Geant4.
    """
    angled = len({p.point.beam.theta for p in points}) > 1
    figure = Figure(figsize=(10.2, 3.1 * len(METHODS)))
    outer = figure.add_gridspec(len(METHODS), 2, hspace=0.42, wspace=0.24)
    series = sorted({_series(p, angled) for p in points})
    for row, (method, words) in enumerate(METHODS.items()):
        for column, (name, unit, label) in enumerate(
            (("position", 10.0, "position resolution [mm]"), ("theta", 1.0, r"$\theta$ resolution [degrees]"))
        ):
            inner = outer[row, column].subgridspec(2, 1, height_ratios=[2.2, 1], hspace=0.06)
            top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
            bottom.axhline(1, color=GEANT4, lw=0.7)
            for number, key in enumerate(series):
                some = [p for p in points if _series(p, angled) == key]
                _draw_series(top, bottom, some, (method, name), unit, angled, MARKERS[number % len(MARKERS)], key)
            top.set_ylabel(label, fontsize=8)
            top.set_ylim(bottom=0)
            top.set_title(words, fontsize=8)
            top.tick_params(labelbottom=False)
            bottom.set_ylabel("ratio", fontsize=8)
            bottom.set_xlabel(r"$\theta$ [degrees]" if angled else "incident energy [GeV]")
            bottom.set_xlim(top.get_xlim())
            if len(series) > 1 and row == column == 0:
                top.legend(fontsize=6.5, ncols=2)
    return figure


def _series(p: PointResult, angled: bool) -> str:
    """Return the name of the points that a line joins."""
    parts = [str(p.point.design), p.point.beam.particle, f"{p.point.energy:g} GeV" if angled else ""]
    return ", ".join(part for part in parts if part)


def _draw_series(
    top: Any, bottom: Any, points: Sequence[PointResult], which: tuple[str, str], unit: float, angled: bool,
    marker: str, label: str,
) -> None:  # fmt: skip
    found: list[tuple[float, float, ResidualComparison]] = []
    for p in points:
        residual = p.reconstruction and p.reconstruction.residuals[which[0]].get(which[1])
        theta = p.point.beam.theta or (0.0,)
        if residual:
            found.append((float(np.mean(theta)), float(np.ptp(theta)) / 2, residual) if angled
                         else (p.point.energy, 0.0, residual))  # fmt: skip
    if not found:
        return
    at, half = np.array([(x, width) for x, width, _ in found]).T
    both: tuple[tuple[str, list[BinnedResiduals]], ...] = (
        (GEANT4, [r.reference for *_, r in found]), (SURROGATE, [r.generated for *_, r in found]),
    )  # fmt: skip
    for color, each in both:
        values, errors = (unit * np.array([getattr(b, name) for b in each]) for name in ("spread", "spread_error"))
        top.errorbar(at, values, errors, half, fmt=marker, ms=3.2, lw=0.9, color=color, mfc="white",
                     label=label if color == GEANT4 else None)  # fmt: skip
    ratio, error = np.array([r.ratio for *_, r in found]).T
    scatter = np.array([r.null_ratio.std(ddof=1) for *_, r in found])
    bottom.errorbar(at, np.ones_like(at), scatter, fmt="none", lw=5, color="0.85", zorder=0)
    bottom.errorbar(at, ratio, error, half, fmt=marker, ms=3.2, lw=0.9, color=SURROGATE, mfc="white")
