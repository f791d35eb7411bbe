"""Report and figures of the energy resolution: sigma / E against energy, fits, ratio to Geant4, gradient."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.evaluation import DesignEvaluation, PlatesEvaluation, PointsEvaluation
from calograd.gradients.estimates import seed_of
from calograd.gradients.resolution import ResolutionGradient, ResolutionResult, pixels_of, resolution
from calograd.metrics.resolution import ResolutionCurve
from calograd.objective.measurement import Measurement
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.style import GEANT4, SURROGATE, parameter_label
from calograd.system.progress import StageProgress

COLUMNS = 3
"""Most panels side by side."""
PARAMETERS = ("#2f6f9f", "#7a1fa2", "#0b6e4f", "#b07d00", "#8d99a6", "#b3001b", "#1b1b1b")
"""Colours of parameters."""
WIDE = 5.0
"""Largest derivative that is drawn on a linear scale."""
NARROW = 30.0
"""Ratio of the ends of an axis below which more than its powers of ten have labels."""
DEFINED = {
    "std": "standard deviation over mean of the reconstructed energy",
    "incident": "standard deviation of the reconstructed energy over the incident energy",
    "width68": "half the central 68 % width over the median of the reconstructed energy",
}
"""Definitions of sigma / E in words."""
ABOUT = (
    "Points: {definition}, with standard errors. Lines: the fit a/√E ⊕ b/E ⊕ c (E in GeV, ⊕ in quadrature), with its "
    "χ² over degrees of freedom; a term that comes out as zero has a 95 % upper limit."
)
"""Legend of the figures."""


class Panel(NamedTuple):
    """A column of a figure.

    Attributes:
        title: title above it.
        curves: the surrogate's and Geant4's curve; None for a source that is not there.
        gradients: their gradients, likewise.
    """

    title: str
    curves: tuple[ResolutionCurve | None, ResolutionCurve | None]
    gradients: tuple[ResolutionGradient | None, ResolutionGradient | None] = (None, None)


class Resolved(NamedTuple):
    """The energy resolution in a report.

    Attributes:
        drawings: figures of the panels with two energies or more, in the group ``resolution``.
        rows: table of every point: panel, and the columns of `calograd.metrics.resolution.COLUMNS`.
    """

    drawings: list[Drawing]
    rows: list[list[str]]


def resolution_section(
    panels: Sequence[Panel], names: tuple[str, str], what: str, definition: str, common: bool = False
) -> Resolved:
    """Return the figures and the table of resolutions; one energy has a row and no figure.

    Args:
        panels: resolutions, those without a curve are left out.
        names: names of the two sources of every panel.
        what: the energy whose resolution it is, in words.
        definition: definition of sigma / E, see `calograd.metrics.resolution.DEFINITIONS`.
        common: whether the panels of a figure have one scale of sigma / E.
    """
    curves = [(panel, [curve for curve in panel.curves if curve is not None]) for panel in panels]
    drawn = [panel for panel, known in curves if any(len(curve.energies) > 1 for curve in known)]
    drawings = [
        Drawing(
            partial(draw_resolution, some, names, common),
            f"Energy resolution of {what}. {ABOUT.format(definition=DEFINED[definition])}"
            + (" Below: the ratio to Geant4's." if any(None not in panel.curves for panel in some) else ""),
            f"Energy resolution against energy, {what}", "resolution",
        )
        for some in (drawn[start : start + COLUMNS] for start in range(0, len(drawn), COLUMNS))
    ]  # fmt: skip
    labels = [", ".join(filter(None, (panel.title, what))) for panel in panels]
    rows = [[label, *row] for label, (_, known) in zip(labels, curves, strict=True)
            for curve in known for row in curve.rows()]  # fmt: skip
    return Resolved(drawings, rows)


def draw_resolution(
    panels: Sequence[Panel], names: tuple[str, str] = ("surrogate", "Geant4"), common: bool = False
) -> Figure:
    """Draw sigma / E with its fits, below it the ratio to Geant4's and d ln(sigma / E) / d ln y, where there are any.

    Args:
        panels: columns, side by side.
        names: names of the two sources of every panel.
        common: whether the panels have one scale of sigma / E.
    """
    compared = any(None not in panel.curves for panel in panels)
    derived = any(known is not None for panel in panels for known in panel.gradients)
    heights = [2.6, *([1.0] if compared else []), *([1.5] if derived else [])]
    figure = Figure(figsize=(max(4.4, 0.6 + 3.7 * len(panels)), 0.6 + 1.25 * sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), len(panels), sharex=True, squeeze=False, height_ratios=heights)
    for column, panel in zip(axes.T, panels, strict=True):
        _draw_curves(column[0], panel, names)
        column[0].set_title(panel.title)
        if compared:
            _draw_ratio(column[1], panel)
        if derived:
            handles = _draw_gradients(column[-1], panel, names)
            if column[0] is axes[0, 0]:
                figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
        column[-1].set_xlabel("incident energy [GeV]")
    if common:
        limits = np.array([each.get_ylim() for each in axes[0]])
        for each in axes[0]:
            each.set_ylim(limits.min(), limits.max())
    axes[0, 0].set_ylabel(r"$\sigma\,/\,E$ [%]")
    if compared:
        axes[1, 0].set_ylabel(f"ratio to\n{names[1]}")
    if derived:
        axes[-1, 0].set_ylabel(r"$\partial\,\ln(\sigma/E)\;/\;\partial\,\ln y$")
    return figure


def formula(curve: ResolutionCurve) -> str:
    """Return the fit of a curve with mathematical signs, or why there is none."""
    if curve.fit is None:
        return curve.note
    return str(curve.fit).replace("sqrt(E)", "√E").replace("(+)", "⊕").replace("+-", "±")


def agreement(curve: ResolutionCurve) -> str:
    """Return chi2 over degrees of freedom of the fit of a curve; empty without a fit."""
    return f"χ² {curve.fit.chi2:.1f} / {curve.fit.degrees}" if curve.fit else ""


def _draw_curves(axes: Axes, panel: Panel, names: tuple[str, str]) -> None:
    highest = lowest = None
    for curve, name, colour, filled in zip(panel.curves, names, (SURROGATE, GEANT4), (True, False), strict=True):
        if curve is None:
            continue
        values, errors = 100 * curve.values, 100 * curve.errors
        label = f"{name}   {agreement(curve)}\n{formula(curve)}"
        face = colour if filled else "white"
        axes.errorbar(
            curve.energies, values, errors, fmt="o", ms=4, lw=1, color=colour, mfc=face, label=label, zorder=3
        )
        if curve.fit is not None:
            e = np.geomspace(curve.energies.min() / 1.1, curve.energies.max() * 1.1, 100)
            axes.plot(e, 100 * curve.fit(e), color=colour, lw=1, ls="-" if filled else "--", zorder=2)
        highest, lowest = max(highest or 0, float(values.max())), min(lowest or np.inf, float(values.min()))
    axes.set(xscale="log", yscale="log")
    if highest and lowest:
        axes.set_ylim(0.6 * lowest, highest * (highest / lowest) ** 0.4 * 1.5)
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(_twos_and_fives if high < NARROW * low else lambda *_: "")
    axes.legend(loc="upper right", fontsize=6.2, handlelength=1.2)


def _twos_and_fives(value: float, _: object) -> str:
    """Return the label of a minor tick: none but at 2 and 5 times a power of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _draw_ratio(axes: Axes, panel: Panel) -> None:
    ours, theirs = panel.curves
    axes.axhline(1, color=GEANT4, lw=0.7)
    if ours is None or theirs is None:
        return
    i, j = np.nonzero(np.isclose(ours.energies[:, None], theirs.energies, rtol=1e-3))
    ratio = ours.values[i] / theirs.values[j]
    mine, other = ours.errors[i] / ours.values[i], theirs.errors[j] / theirs.values[j]
    axes.errorbar(ours.energies[i], ratio, ratio * np.hypot(mine, other), fmt="o", ms=3.5, lw=0.9, color=SURROGATE)
    axes.set_ylim(0.4, 1.6)


def _draw_gradients(axes: Axes, panel: Panel, names: tuple[str, str]) -> list[Any]:
    """Draw gradients, on a scale that is linear about zero; return what a legend shows."""
    handles, largest = list[Any](), 0.0
    axes.axhline(0, color="0.55", lw=0.7)
    for known, name, filled, shift in zip(panel.gradients, names, (True, False), (0.97, 1.03), strict=True):
        if known is None:
            continue
        for j, parameter in enumerate(known.names):
            colour = PARAMETERS[j % len(PARAMETERS)]
            drawn = axes.errorbar(
                known.energies * shift, known.values[:, j], known.errors[:, j], fmt="o-" if filled else "o", ms=3.5,
                lw=0.9, color=colour, mfc=colour if filled else "white", label=f"{parameter_label(parameter)}, {name}",
            )  # fmt: skip
            handles.append(drawn)
        largest = max(largest, float(np.abs(known.values).max()))
    if largest > WIDE:
        axes.set_yscale("symlog", linthresh=1.0, linscale=0.7, subs=[2, 5])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return handles


def design_resolutions(evaluation: DesignEvaluation) -> Resolved:
    """Return the resolution in an evaluation of cells or maps: deposited, and with the default background.

    Showers without spread have none.
    """
    drawings, rows = list[Drawing](), list[list[str]]()
    for what, definition, measurement in (
        ("the deposited energy", "std", Measurement(pixels=pixels_of(evaluation.reference))),
        ("the energy with the default background and mask", "incident", None),
    ):
        panels = []
        for sizes in evaluation.designs:
            energies = sorted({p.point.energy for p in evaluation.at(sizes)})  # all kinds of beam together
            records = evaluation.generated, evaluation.reference
            design = Design(sizes.dx, sizes.dz, records[1].material, records[1].n_xy, len(sizes.dz))
            with suppress(InputError):
                ours, theirs = (
                    resolution(
                        reference=each, design=design, energies=energies, measurement=measurement,
                        definition=definition, seed=seed_of(evaluation.seed, number),
                    ).stages[-1].geant4 for number, each in enumerate(records)
                )  # fmt: skip
                panels.append(Panel(str(sizes), (ours, theirs)))
        found = resolution_section(panels, ("generated", "Geant4"), what, definition)
        drawings, rows = drawings + found.drawings, rows + found.rows
    return Resolved(drawings, rows)


def point_resolutions(evaluation: PointsEvaluation | PlatesEvaluation) -> Resolved:
    """Return the resolution of the visible energy in an evaluation of points or plates."""
    panels = [Panel("", (evaluation.resolution[0], evaluation.resolution[1]))] if evaluation.resolution else []
    return resolution_section(panels, ("generated", "Geant4"), "the visible energy", "std")


def render_resolution(result: ResolutionResult, progress: StageProgress) -> str:
    """Return the report of a resolution as HTML."""
    names = result.surrogate or "surrogate", "Geant4"
    panels = [Panel(s.name, (s.surrogate, s.geant4), (s.gradient, s.geant4_gradient)) for s in result.stages]
    compared = any(None not in panel.curves for panel in panels)
    derived = any(s.gradient is not None for s in result.stages)
    caption = ABOUT.format(definition=DEFINED[result.definition])
    if compared:
        caption += " Below: the ratio to Geant4's."
    if derived:
        caption += " At the bottom: the gradient in the design, negative where a larger size helps; standard errors."
    draw = partial(draw_resolution, panels, names)
    drawing = Drawing(draw, caption, "Energy resolution against energy", "resolution")
    design = result.design
    depths = ", ".join(f"{depth:g}" for depth in dict.fromkeys(np.round(design.dz.tolist(), 6).tolist()))
    return render(
        "resolution.html.j2", title=f"Energy resolution of {design.material.name}, {float(design.dx):g} x {depths} cm",
        subtitle=" and ".join(filter(None, (result.surrogate, result.reference and f"Geant4 ({result.reference})"))),
        pictures=pictures([drawing], progress), result=result, definition=DEFINED[result.definition],
        stages=[(s.name, s.measurement.describe().items()) for s in result.stages], fits=_fits(result),
        parameters=next((s.gradient.names for s in result.stages if s.gradient), ()),
        record=json.dumps(result.to_dict(), indent=1),
    )  # fmt: skip


def _fits(result: ResolutionResult) -> list[tuple[Any, ...]]:
    """Return stage, source, formula, agreement and note of every fit."""
    return [
        (stage.name, curve.source, formula(curve), agreement(curve), curve.fit.note if curve.fit else "")
        for stage in result.stages
        for curve in stage.curves
    ]
