"""The report of a comparison of points: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calograd.evaluation.points import ENERGIES, MIN_SHOWERS, WINDOW, CloudEvaluation
from calograd.events.clouds import Clouds
from calograd.events.layered_readout import GRID, read_out
from calograd.io.hdf5 import refuse_existing, write_new
from calograd.metrics.point_observables import CELL_EDGES, RINGS, SINGLE, CloudObservables, PerShower
from calograd.reports.page import templates
from calograd.reports.style import GEANT4, SURROGATE, picture

OVERLAID = 2000
"""Showers of an overlay."""
SEEN = 6.0
"""From the axis, of the display of a shower, cm."""
_LABELS = {"N_hits": "hits", "E_vis/E_inc": r"$E_\mathrm{vis}/E$", "m1_X": "mean x, cm", "m1_Y": "mean y, cm",
           "m1_Z": "mean z, cm"}  # fmt: skip


def write_cloud_report(
    path: Path, evaluation: CloudEvaluation, generated: Clouds, reference: Clouds, files: Mapping[str, str]
) -> None:
    """Write the report to ``path``; ``files`` names what was compared (keys ``generated`` and ``reference``).

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    both = (evaluation.generated, evaluation.reference)
    pictures = [
        picture(partial(_single, both), "Observables of showers; Geant4 filled.", "histograms of five observables"),
        picture(partial(_profiles, both), "Mean energy by layer and by distance from the axis, and the energies of "
                "the hits; below, generated over Geant4's, with standard errors.",
                "longitudinal and radial profiles, spectrum of cells"),
    ]  # fmt: skip
    for energy in ENERGIES:
        near = [np.abs(o.incident - energy) <= WINDOW for o in both]
        if min(rows.sum() for rows in near) >= MIN_SHOWERS:
            chosen = (near[0], near[1])
            caption = f"Showers within {WINDOW:g} GeV of {energy:g} GeV."
            pictures.append(picture(partial(_single, both, chosen), caption, f"histograms at {energy:g} GeV"))
    pictures += [
        picture(partial(_overlay, generated, reference), f"Mean energy of {OVERLAID} showers at most, summed along y "
                "and along z (logarithmic).", "overlaid showers from the side and from the front"),
        picture(partial(_displays, generated, reference), "A generated shower, and one of Geant4's; area by energy.",
                "points of two showers in space"),
    ]  # fmt: skip
    page = templates("calograd.reports").get_template("clouds.html.j2").render(
        title="Points of a layered detector", subtitle=f"{files['generated']} against {files['reference']}",
        evaluation=evaluation, files=files, pictures=pictures, generated=len(generated), reference=len(reference),
    )  # fmt: skip
    write_new(path, page.encode())


def _compare(axes: Axes, ours: np.ndarray, theirs: np.ndarray, bins: np.ndarray) -> None:
    """Two histograms of one area: Geant4 filled, generated as a line."""
    for values, style in ((theirs, {"color": GEANT4, "alpha": 0.25}), (ours, {"color": SURROGATE, "histtype": "step"})):
        axes.hist(values, bins=bins.tolist(), weights=np.full(len(values), 1 / max(len(values), 1)), **style)


def _single(
    both: tuple[CloudObservables, CloudObservables], chosen: tuple[np.ndarray, np.ndarray] | None = None
) -> Figure:
    figure = Figure(figsize=(10, 2.3), layout="constrained")
    for number, (axes, name) in enumerate(zip(figure.subplots(1, len(SINGLE)), SINGLE, strict=True)):
        ours, theirs = (
            o.table[:, number] if chosen is None else o.table[chosen[k], number] for k, o in enumerate(both)
        )
        low, high = np.quantile(theirs, [0.002, 0.998])
        _compare(axes, ours, theirs, np.linspace(low, high + 1e-12, 41))
        axes.set_xlabel(_LABELS[name])
        axes.set_yticks([])
    return figure


def _profiles(both: tuple[CloudObservables, CloudObservables]) -> Figure:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    grid = figure.subplots(2, 3, sharex="col", height_ratios=(2.4, 1))
    layers = np.arange(len(both[0].layers.mean) + 1) - 0.5
    columns = (
        ("layers", layers, 1e3, {"ylabel": "MeV a shower"}, {"xlabel": "layer"}),
        ("rings", RINGS, 1e3, {"ylabel": "MeV a shower", "yscale": "log"}, {"xlabel": "distance from the axis, cm"}),
        ("spectrum", CELL_EDGES, 1, {"ylabel": "hits a shower", "yscale": "log"},
         {"xlabel": "energy of a hit, GeV", "xscale": "log"}),
    )  # fmt: skip
    for (top, below), (name, edges, unit, upper, lower) in zip(grid.T, columns, strict=True):
        ours, theirs = (getattr(o, name) for o in both)
        top.stairs(unit * theirs.mean, edges, color=GEANT4, alpha=0.25, fill=True, label="Geant4")
        top.stairs(unit * ours.mean, edges, color=SURROGATE, label="generated")
        top.set(**upper)
        _ratio(below, ours, theirs, edges)
        below.set(**lower)
    grid[0, 0].legend()
    grid[1, 0].set_ylabel("over Geant4")
    return figure


def _ratio(axes: Axes, ours: PerShower, theirs: PerShower, edges: np.ndarray) -> None:
    """Generated over Geant4's with standard errors, Geant4's own as a band, where that knows its mean to a fifth."""
    known = (theirs.error < 0.2 * theirs.mean) & (ours.mean > 0)
    scale = np.where(known, theirs.mean, 1.0)
    band = np.where(known, theirs.error / scale, np.nan)
    axes.stairs(1 + band, edges, baseline=1 - band, fill=True, color=GEANT4, alpha=0.25, lw=0)
    logarithmic = edges[0] > 0
    middles = np.sqrt(edges[1:] * edges[:-1]) if logarithmic else (edges[1:] + edges[:-1]) / 2
    axes.errorbar(middles[known], (ours.mean / scale)[known], (ours.error / scale)[known], fmt=".", ms=3, lw=0.8,
                  color=SURROGATE)  # fmt: skip
    axes.axhline(1, color=GEANT4, lw=0.6)
    farthest = float(np.abs(np.where(known, ours.mean / scale, 1.0) - 1).max(initial=0.0))
    most = min(max(0.15, 1.1 * farthest), 1.0)
    axes.set_ylim(1 - most, 1 + most)


def _overlay(generated: Clouds, reference: Clouds) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    for row, (clouds, label) in zip(figure.subplots(2, 2), ((reference, "Geant4"), (generated, "generated")),
                                    strict=True):  # fmt: skip
        some = clouds.rows(slice(0, OVERLAID))
        hits = read_out(some)
        half = GRID // 2
        inside = (np.abs(hits.i) <= half) & (np.abs(hits.j) <= half)
        i, j, layer, e = hits.i[inside] + half, hits.j[inside] + half, hits.layer[inside], hits.e[inside]
        side, front = np.zeros((GRID + 1, clouds.layers)), np.zeros((GRID + 1, GRID + 1))
        np.add.at(side, (i, layer), e)
        np.add.at(front, (i, j), e)
        for axes, image in zip(row, (side, front), strict=True):
            axes.imshow(np.log10(image / len(some) + 1e-7), origin="lower", cmap="inferno", aspect="auto", vmin=-7)
            axes.set_ylabel(f"{label}: cell in x")
        row[0].set_xlabel("layer")
        row[1].set_xlabel("cell in y")
    return figure


def _displays(generated: Clouds, reference: Clouds) -> Figure:
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for number, (clouds, colour, label) in enumerate(((generated, SURROGATE, "generated"),
                                                      (reference, GEANT4, "Geant4"))):  # fmt: skip
        filled = np.flatnonzero(clouds.counts > 0)
        chosen = filled[np.argmin(np.abs(clouds.energy[filled] - 50))] if len(filled) else 0
        shower = clouds.rows(np.array([chosen])) if len(filled) else clouds.rows(slice(0, 0))
        axes = figure.add_subplot(1, 2, number + 1, projection="3d")
        seen = np.maximum(np.abs(shower.x), np.abs(shower.y)) < SEEN
        axes.scatter(shower.layer[seen], shower.x[seen], shower.y[seen], s=np.clip(1.5e4 * shower.e[seen], 1, 80),
                     c=colour, alpha=0.6, linewidths=0)  # fmt: skip
        axes.set(xlabel="layer", ylabel="x, cm", zlabel="y, cm", xlim=(0, clouds.layers), ylim=(-SEEN, SEEN),
                 zlim=(-SEEN, SEEN))  # fmt: skip
        axes.minorticks_off()
        axes.grid(False)
        axes.set_title(f"{label}, {float(shower.energy[0]):.0f} GeV" if len(shower) else f"{label}, no shower")
    return figure
