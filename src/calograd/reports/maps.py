"""The report of a comparison of maps: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calograd.evaluation.compare import Quantity
from calograd.evaluation.maps import BIAS_LIMITS, HIGH_ENERGY, MapsEvaluation, MapsPoint
from calograd.evaluation.matching import Sizes, group
from calograd.events.maps import Maps
from calograd.io.hdf5 import refuse_existing, write_new
from calograd.reports.page import templates
from calograd.reports.style import GEANT4, KEPT, LABELS, SURROGATE, SURROGATE_LIGHT, picture

SHOWN = tuple(BIAS_LIMITS)
COLUMNS = 5
"""Designs side by side in one figure."""
EXAMPLES = 3
"""Maps of either kind in a row of examples, before their mean."""
SPREAD_BAND = (0.9, 1.1)
FAINTEST = 1e-4
"""Of the colour scale, relative to its brightest pixel."""


def write_maps_report(path: Path, evaluation: MapsEvaluation, files: Mapping[str, str]) -> None:
    """Write the report to ``path``; ``files`` names what was compared (keys ``generated`` and ``reference``).

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    points = evaluation.points
    designs = sorted({p.point.design for p in points})
    blocks = [designs[start : start + COLUMNS] for start in range(0, len(designs), COLUMNS)]
    trends = [
        picture(partial(draw, points, block), caption, f"{caption} Designs {', '.join(map(str, block))}")
        for draw, caption in (
            (_biases, "Bias of the mean against incident energy, with standard errors; green: the limits."),
            (_spreads, "Standard deviation, generated over Geant4's, with standard errors; green: within 10 %."),
            (_rrmse, "RRMSE of generated (colour) and of Geant4 against Geant4 (grey): the floor."),
        )
        for block in blocks
    ]
    sections = []
    for design in designs:
        mine = [p for p in points if p.point.design == design]
        chosen = mine[len(mine) // 2]
        sections.append(
            (
                design,
                mine,
                [
                    picture(partial(_profiles, mine), f"{design}: mean profiles, generated (lines with bands of the "
                            "standard error) and Geant4 (points).", f"profiles along and across of {design}"),
                    picture(partial(_examples, evaluation.generated, evaluation.reference, chosen),
                            f"{chosen.point}: the first {EXAMPLES} maps of each file, not chosen, and the mean of all.",
                            f"maps at {chosen.point}"),
                ],
            )
        )  # fmt: skip
    page = templates("calograd.reports").get_template("maps.html.j2").render(
        title="Maps of showers", subtitle=f"{files['generated']} against {files['reference']}", files=files,
        evaluation=evaluation, trends=trends, sections=sections, names=SHOWN, limits=BIAS_LIMITS, high=HIGH_ENERGY,
    )  # fmt: skip
    write_new(path, page.encode())


def _biases(points: Sequence[MapsPoint], designs: Sequence[Sizes]) -> Figure:
    def band(name: str) -> tuple[float, float]:
        return -100 * BIAS_LIMITS[name], 100 * BIAS_LIMITS[name]

    return _trend(points, designs, "bias of {} [%]", lambda q: (100 * q.bias, 100 * q.bias_error), band)


def _spreads(points: Sequence[MapsPoint], designs: Sequence[Sizes]) -> Figure:
    return _trend(
        points, designs, r"$\sigma$ ratio, {}", lambda q: (q.sigma_ratio, q.sigma_ratio_error), lambda _: SPREAD_BAND
    )


def _rrmse(points: Sequence[MapsPoint], designs: Sequence[Sizes]) -> Figure:
    return _trend(points, designs, "RRMSE of {} [%]", lambda q: (100 * q.rrmse, 0.0), None)


def _trend(
    points: Sequence[MapsPoint],
    designs: Sequence[Sizes],
    label: str,
    value: Callable[[Quantity], tuple[float, float]],
    band: Callable[[str], tuple[float, float]] | None,
) -> Figure:
    """A number with its error against energy: a row of panels a quantity, a column a design."""
    figure = Figure(figsize=(max(3.2, 0.8 + 2.1 * len(designs)), 0.5 + 1.5 * len(SHOWN)), layout="constrained")
    panels = figure.subplots(len(SHOWN), len(designs), sharex=True, sharey="row", squeeze=False)
    for row, name in zip(panels, SHOWN, strict=True):
        for axes, design in zip(row, designs, strict=True):
            mine = [p for p in points if p.point.design == design]
            energies = [p.point.energy for p in mine]
            if band is not None:
                low, high = band(name)
                axes.axhspan(low, high, color=KEPT, lw=0)
                axes.axhline((low + high) / 2, color="0.6", lw=0.8)
            else:
                floors = [100 * p.quantities[name].rrmse_floor for p in mine]
                axes.plot(energies, floors, "o--", ms=3, lw=0.8, color="0.55")
                axes.set_yscale("log")
            values, errors = np.array([value(p.quantities[name]) for p in mine]).T
            axes.errorbar(energies, values, errors if errors.any() else None, fmt="o", ms=3, lw=1, color=SURROGATE)
        row[0].set_ylabel(label.format(LABELS[name]))
    for axes, design in zip(panels[0], designs, strict=True):
        axes.set_title(str(design))
    for axes in panels[-1]:
        axes.set_xlabel("incident energy [GeV]")
    return figure


def _profiles(points: Sequence[MapsPoint]) -> Figure:
    """Mean profiles along and across at the lowest, a middle and the highest energy."""
    chosen = [points[k] for k in sorted({0, len(points) // 2, len(points) - 1})]
    figure = Figure(figsize=(9.5, 2.3 * len(chosen)), layout="constrained")
    for row, p in zip(figure.subplots(len(chosen), 2, squeeze=False), chosen, strict=True):
        for axes, pair, where in ((row[0], p.along, "z"), (row[1], p.across, "x")):
            ours, theirs = pair
            middle = (theirs.edges[1:] + theirs.edges[:-1]) / 2
            axes.fill_between(middle, ours.mean - ours.error, ours.mean + ours.error, color=SURROGATE_LIGHT, lw=0)
            axes.plot(middle, ours.mean, color=SURROGATE, lw=1, label="generated")
            axes.errorbar(middle, theirs.mean, theirs.error, fmt=".", ms=3, lw=0.8, color=GEANT4, label="Geant4")
            axes.set(xlabel=f"{where} [cm]", ylabel=f"dE/d{where} [GeV/cm]")
            if where == "x":
                axes.set_yscale("log")
        row[0].set_title(f"{p.point.energy:g} GeV")
        row[0].legend()
    return figure


def _examples(generated: Maps, reference: Maps, p: MapsPoint) -> Figure:
    figure = Figure(figsize=(9.5, 4.4), layout="constrained")
    rows = [(maps, group(maps)[p.point]) for maps in (reference, generated)]
    images = [[*maps.maps[which[:EXAMPLES]], maps.maps[which].mean(0, dtype=np.float64)] for maps, which in rows]
    top = 1e3 * max(float(image.max()) for row in images for image in row)
    maps, which = rows[0]
    half, depth = maps.width[which[0]] / 2, maps.depth[which[0]]
    panels = figure.subplots(2, EXAMPLES + 1, sharex=True, sharey=True, squeeze=False)
    for row, some, label in zip(panels, images, ("Geant4", "generated"), strict=True):
        for number, (axes, image) in enumerate(zip(row, some, strict=True)):
            shown = axes.imshow(
                np.ma.masked_less_equal(1e3 * image, 0), origin="lower", aspect="auto", cmap="inferno_r",
                extent=(0, depth, -half, half), norm=LogNorm(FAINTEST * top, top),
            )  # fmt: skip
            axes.set_title("mean" if number == EXAMPLES else f"shower {number + 1}")
        row[0].set_ylabel(f"{label}: x [cm]")
    for axes in panels[-1]:
        axes.set_xlabel("z [cm]")
    figure.colorbar(shown, ax=panels.ravel().tolist(), label="MeV a pixel", pad=0.01)
    return figure
