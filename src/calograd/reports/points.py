"""The report of a comparison of points."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calograd.evaluation.points import BATCHES, ENERGIES, MIN_SHOWERS, WINDOW, PointsEvaluation
from calograd.events.layered_readout import GRID, Readout, read_out
from calograd.events.point_showers import PointShowers
from calograd.metrics.observables import Profile
from calograd.metrics.points import SINGLE, PointObservables
from calograd.reports.design_figures import draw_distribution
from calograd.reports.page import templates
from calograd.reports.setup import describe_setup
from calograd.reports.style import GEANT4, SURROGATE, SURROGATE_LIGHT, Drawing, Picture, picture
from calograd.system.progress import StageProgress

MEAN_OF = 2000
"""Most showers whose mean is shown."""
SEEN = 6.0
"""Half width of the display of a shower, cm."""
FAINTEST = 1e-5
"""Lower end of the colours of mean showers, relative to the brightest cell."""
KNOWN = 0.2
"""Largest relative error of Geant4's mean at which a ratio is drawn."""

Pair = tuple[PointObservables, PointObservables]


def render(evaluation: PointsEvaluation, progress: StageProgress) -> str:
    """Return the report as HTML."""
    generated, reference = evaluation.generated, evaluation.reference
    drawings = list(_drawings(evaluation))
    pictures: list[Picture] = []
    for drawing in drawings:
        pictures.append(picture(*drawing[:3]))
        progress("figures", len(pictures), len(drawings))
    page = templates("calograd.reports").get_template("points.html.j2")
    return page.render(
        title=f"{generated.origin} against {reference.origin}", subtitle=describe_setup(reference, generated),
        evaluation=evaluation, pictures=pictures, generated=len(generated), reference=len(reference), batches=BATCHES,
    )  # fmt: skip


def _drawings(evaluation: PointsEvaluation) -> list[Drawing]:
    """Return the figures of the report."""
    both = evaluation.observed
    legend = (
        "Geant4 (points) and generated (line, band: statistical error); the outermost bins hold what lies beyond. "
        "Below: generated over Geant4, grey: Geant4's error."
    )
    profiles = (
        "Mean energy by layer and by distance from the axis, and energies of the hits, with standard errors. Below: "
        "generated over Geant4, where Geant4's mean is known to 20 %; grey: its error."
    )
    found = [
        Drawing(partial(draw_observables, both, None), f"Distributions of observables, all showers. {legend}",
                "distributions of five observables"),
        Drawing(partial(draw_profiles, both), profiles, "longitudinal and radial profiles, spectrum of hits"),
    ]  # fmt: skip
    for energy in ENERGIES:
        near = [np.abs(seen.energy - energy) <= WINDOW for seen in both]
        every = all(rows.all() for rows in near)
        if not every and min(rows.sum() for rows in near) >= MIN_SHOWERS:
            found.append(Drawing(
                partial(draw_observables, both, (near[0], near[1])),
                f"Showers within {WINDOW:g} GeV of {energy:g} GeV. {legend}", f"distributions at {energy:g} GeV",
            ))  # fmt: skip
    generated, reference = evaluation.generated, evaluation.reference
    count = min(MEAN_OF, len(generated), len(reference))
    means = f"Mean of the first {count} showers of each file: energy of the cells, summed along y and over the layers."
    single = "The shower of each file nearest to the mean energy: its points in space; colour and area by energy."
    return [
        *found,
        Drawing(partial(draw_mean_showers, generated, reference), means, "mean showers, side and front"),
        Drawing(partial(draw_points, generated, reference), single, "points of two showers in space"),
    ]


def draw_observables(both: Pair, chosen: tuple[np.ndarray, np.ndarray] | None) -> Figure:
    """Draw the distributions of the single observables with their ratios, of chosen showers or all."""
    figure = Figure(figsize=(11.5, 3.4))
    outer = figure.add_gridspec(1, len(SINGLE), wspace=0.32)
    for number, name in enumerate(SINGLE):
        ours, theirs = (
            seen.table[:, number] if chosen is None else seen.table[chosen[k], number] for k, seen in enumerate(both)
        )
        inner = outer[number].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.05)
        top, bottom = figure.add_subplot(inner[0]), figure.add_subplot(inner[1])
        draw_distribution(top, bottom, ours, theirs, name)
        if number == 0:
            top.set_ylabel("showers (normalised)")
            bottom.set_ylabel("ratio")
            top.legend(loc="upper left", handlelength=1.4)
    return figure


def draw_profiles(both: Pair) -> Figure:
    """Draw the mean energy by layer and by radius, and the spectrum of hits, with their ratios."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    grid = figure.subplots(2, 3, sharex="col", height_ratios=(2.4, 1))
    columns = (
        ("layers", 1e3, {"ylabel": "mean energy of a layer [MeV]"}, {"xlabel": "layer"}),
        ("radial", 1e3, {"ylabel": "mean energy of a ring [MeV]", "yscale": "log"},
         {"xlabel": "distance from the axis [cm]"}),
        ("spectrum", 1, {"ylabel": "hits a shower and bin", "yscale": "log"},
         {"xlabel": "energy of a hit [GeV]", "xscale": "log"}),
    )  # fmt: skip
    for (top, below), (name, unit, upper, lower) in zip(grid.T, columns, strict=True):
        ours, theirs = (getattr(seen, name) for seen in both)
        _draw_means(top, ours, theirs, unit)
        top.set(**upper)
        _draw_ratio(below, ours, theirs)
        below.set(**lower)
    grid[0, 0].legend()
    grid[1, 0].set_ylabel("ratio")
    return figure


def _centres(edges: np.ndarray) -> np.ndarray:
    """Return the middles of bins, geometric ones where the edges are."""
    return np.asarray(np.sqrt(edges[1:] * edges[:-1]) if edges[0] > 0 else (edges[1:] + edges[:-1]) / 2)


def _draw_means(axes: Axes, ours: Profile, theirs: Profile, unit: float) -> None:
    """Draw Geant4's means as points and generated ones as a line, both with standard errors."""
    low, high = (unit * np.clip(ours.mean + sign * ours.error, 0, None) for sign in (-1, 1))
    axes.stairs(high, ours.edges, baseline=low, fill=True, color=SURROGATE_LIGHT, lw=0)
    axes.stairs(unit * ours.mean, ours.edges, color=SURROGATE, lw=1.2, label="generated")
    seen = theirs.mean > 0
    axes.errorbar(_centres(theirs.edges)[seen], unit * theirs.mean[seen], unit * theirs.error[seen], fmt="o", ms=2.6,
                  lw=0.8, color=GEANT4, label="Geant4")  # fmt: skip


def _draw_ratio(axes: Axes, ours: Profile, theirs: Profile) -> None:
    """Draw generated over Geant4's with standard errors, and Geant4's own error as a band."""
    known = (theirs.error < KNOWN * theirs.mean) & (ours.mean > 0)
    scale = np.where(known, theirs.mean, 1.0)
    band = np.where(known, theirs.error / scale, np.nan)
    axes.stairs(1 + band, theirs.edges, baseline=1 - band, fill=True, color="0.85", lw=0)
    axes.errorbar(_centres(theirs.edges)[known], (ours.mean / scale)[known], (ours.error / scale)[known], fmt="o",
                  ms=2.6, lw=0.8, color=SURROGATE)  # fmt: skip
    axes.axhline(1, color=GEANT4, lw=0.7)
    farthest = float(np.abs(np.where(known, ours.mean / scale, 1.0) - 1).max(initial=0.0))
    reach = min(max(0.15, 1.1 * farthest), 1.0)
    axes.set_ylim(1 - reach, 1 + reach)


def draw_mean_showers(generated: PointShowers, reference: PointShowers) -> Figure:
    """Draw the mean of showers from the side and from the front, on one scale of colours for each view."""
    count = min(MEAN_OF, len(generated), len(reference))
    views = [_mean_views(points.rows(slice(0, count))) for points in (reference, generated)]
    half = (GRID + 1) / 2 * Readout().pitch
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    panels = figure.subplots(2, 2, width_ratios=(1.25, 1))
    extents = ((-0.5, reference.layers - 0.5, -half, half), (-half, half, -half, half))
    for column, extent in enumerate(extents):
        top = max(float(view[column].max()) for view in views)
        for row, (label, colour) in enumerate((("Geant4", GEANT4), ("generated", SURROGATE))):
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
    panels[0, 0].set_title("side view")
    panels[0, 1].set_title("front view")
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
