"""The report of a comparison of points: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calograd.evaluation.cloud_evaluate import ENERGIES, MIN_SHOWERS, WINDOW, CloudEvaluation
from calograd.evaluation.cloud_observables import RINGS, SINGLE, CloudObservables
from calograd.evaluation.page import templates
from calograd.evaluation.style import GEANT4, SURROGATE, picture
from calograd.showers.clouds import Clouds
from calograd.showers.hdf5 import refuse_existing, write_new
from calograd.showers.readout import GRID, read_out

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
                "the hits.", "longitudinal and radial profiles, spectrum of cells"),
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
        picture(partial(_display, generated, SURROGATE), "A generated shower; area by energy.",
                "points of a shower in space"),
        picture(partial(_display, reference, GEANT4), "A Geant4 shower.", "points of a Geant4 shower in space"),
    ]  # fmt: skip
    page = templates("calograd.evaluation").get_template("clouds.html.j2").render(
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
    figure = Figure(figsize=(10, 2.8), layout="constrained")
    along, around, cells = figure.subplots(1, 3)
    for o, colour, label in ((both[1], GEANT4, "Geant4"), (both[0], SURROGATE, "generated")):
        along.step(np.arange(len(o.layers)), 1e3 * o.layers, where="mid", color=colour, label=label)
        around.step((RINGS[1:] + RINGS[:-1]) / 2, 1e3 * o.rings, where="mid", color=colour)
        bins = np.geomspace(1e-4, 1, 60)
        cells.hist(o.hits, bins=bins, weights=np.full(len(o.hits), 1 / max(len(o), 1)), histtype="step", color=colour)
    along.set(xlabel="layer", ylabel="MeV a shower")
    along.legend()
    around.set(xlabel="distance from the axis, cm", ylabel="MeV a shower", yscale="log")
    cells.set(xlabel="energy of a hit, GeV", ylabel="hits a shower", xscale="log", yscale="log")
    return figure


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


def _display(clouds: Clouds, colour: str) -> Figure:
    filled = np.flatnonzero(clouds.counts > 0)
    chosen = filled[np.argmin(np.abs(clouds.energy[filled] - 50))] if len(filled) else 0
    shower = clouds.rows(np.array([chosen])) if len(filled) else clouds.rows(slice(0, 0))
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot(projection="3d")
    seen = np.maximum(np.abs(shower.x), np.abs(shower.y)) < SEEN
    axes.scatter(shower.layer[seen], shower.x[seen], shower.y[seen], s=np.clip(1.5e4 * shower.e[seen], 1, 80),
                 c=colour, alpha=0.6, linewidths=0)  # fmt: skip
    axes.set(xlabel="layer", ylabel="x, cm", zlabel="y, cm", xlim=(0, clouds.layers), ylim=(-SEEN, SEEN),
             zlim=(-SEEN, SEEN))  # fmt: skip
    axes.minorticks_off()
    axes.grid(False)
    axes.set_title(f"{float(shower.energy[0]):.0f} GeV" if len(shower) else "no shower")
    return figure
