"""Report and figures of gradients and of landscapes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from calograd.gradients.check import GradientCheck
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.gradient import GradientResult
from calograd.gradients.landscape import Landscape
from calograd.gradients.spectra import Spectrum, curves_of, definition_of
from calograd.io.files import refuse_existing, write_whole
from calograd.objective.space import format_parameters, unit
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.resolution import Panel, resolution_section
from calograd.reports.style import GEANT4, KEPT, PATH, SURROGATE, SURROGATE_LIGHT, parameter_label, plain_ticks

Z95 = 1.959964
"""Half width of a 95 % band in standard errors."""
ARROWS = 7
"""Arrows along each axis of a landscape."""
PRECISE = 0.05
"""Largest relative error of Geant4's vector that counts as precise."""


def draw_gradients(
    energies: Sequence[float], estimates: Sequence[GradientEstimate], checks: Sequence[GradientCheck]
) -> Figure:
    """Draw dU/d ln y over |U| against energy with 95 % bands, one panel a parameter; below it the ratio to Geant4's.

    |U| is Geant4's value if there are checks, else the surrogate's. A positive value means that U grows with y.
    """
    names, rows = estimates[0].names, 2 if checks else 1
    figure = Figure(figsize=(3.1 * len(names) + 0.5, 2.9 + 1.6 * (rows - 1)), layout="constrained")
    axes = figure.subplots(rows, len(names), sharex=True, squeeze=False, height_ratios=[2, 1][:rows])
    size = np.array([abs(c.geant4.value) for c in checks] if checks else [abs(e.value) for e in estimates])
    for j, name in enumerate(names):
        top: Axes = axes[0, j]
        top.axhline(0, color="#9aa0a6", lw=0.8)
        if checks:
            geant4 = _intervals([c.geant4 for c in checks], j) / size
            draw_band(top, energies, geant4, GEANT4, "#c9ccd0", "Geant4, central differences")
        ours = _intervals(estimates, j) / size
        draw_band(top, energies, ours, SURROGATE, SURROGATE_LIGHT, "surrogate, back-propagation")
        top.set_title(f"{parameter_label(name)} = {estimates[0].y[j]:g} {unit(name)}")
        if checks:
            low: Axes = axes[1, j]
            low.axhspan(0.9, 1.1, color=KEPT)
            low.axhline(1, color=GEANT4, lw=0.8)
            ratio = np.array([[c.components[j].ratio, c.components[j].ratio_error] for c in checks]).T
            low.errorbar(energies, ratio[0], Z95 * ratio[1], fmt="o", ms=3.5, color=SURROGATE, lw=1)
            low.set_ylim(0.5, 1.5)
        axes[-1, j].set_xscale("log")
        axes[-1, j].set_xlabel("incident energy, GeV")
    axes[0, 0].set_ylabel(r"$(\partial U/\partial \ln y)\;/\;|U|$")
    axes[0, 0].legend()
    if checks:
        axes[1, 0].set_ylabel("surrogate / Geant4")
    return figure


def _intervals(estimates: Sequence[GradientEstimate], j: int) -> np.ndarray:
    """Return component j with the ends of its 95 % interval, shape (3, estimates)."""
    return np.array([[e.gradient[j], e.interval[0][j], e.interval[1][j]] for e in estimates]).T


def draw_band(axes: Axes, x: Sequence[float], known: np.ndarray, dark: str, light: str, label: str) -> None:
    """Draw a line through values in a band; ``known`` has the values and the ends of the band, shape (3, n)."""
    value, low, high = known
    axes.fill_between(x, low, high, color=light, alpha=0.7, lw=0)
    axes.plot(x, value, "o-", ms=3, lw=1, color=dark, label=label)


def draw_landscapes(
    landscapes: Sequence[Landscape], title: str, path: np.ndarray | None = None, at: tuple[float, float] | None = None
) -> Figure:
    """Draw objectives over dx and dz with arrows along the gradient in ln y.

    Args:
        landscapes: panels side by side; all share the first one's colours.
        title: title of the objective.
        path: trajectory of an optimisation, shape (steps, 2), cm.
        at: a design to mark, cm.
    """
    figure = Figure(figsize=(4.5 * len(landscapes) + 0.6, 3.9), layout="constrained")
    axes = figure.subplots(1, len(landscapes), sharex=True, sharey=True, squeeze=False)[0]
    every = np.concatenate([each.values.ravel() for each in landscapes])
    levels = np.unique(np.quantile(every, np.linspace(0, 1, 19)))
    for panel, each in zip(axes, landscapes, strict=True):
        filled = draw_landscape(panel, each, levels, path, at)
        panel.set_title("Geant4" if each.source == "geant4" else f"surrogate {each.source}")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    axes[0].set_ylabel("$dz$, cm")
    figure.colorbar(filled, ax=axes, label=title, format="%.3g")
    return figure


def draw_landscape(
    panel: Axes, each: Landscape, levels: np.ndarray, path: np.ndarray | None, at: tuple[float, float] | None = None
) -> ContourSet:
    """Draw one landscape as coloured levels with arrows to better ones; see `draw_landscapes`."""
    panel.set_xscale("log")
    panel.set_yscale("log")
    colours = "YlGnBu_r" if each.least else "YlGnBu"
    filled = panel.contourf(each.dx, each.dz, each.values.T, levels=levels, cmap=colours, extend="both")
    some = tuple(slice(step // 2, None, step) for step in (max(1, len(v) // ARROWS) for v in (each.dx, each.dz)))
    slopes = -each.slopes[some] if each.least else each.slopes[some]
    length = np.linalg.norm(slopes, axis=2, keepdims=True)
    along = slopes / np.where(length > 0, length, 1)
    centres = np.stack(np.meshgrid(np.log(each.dx[some[0]]), np.log(each.dz[some[1]]), indexing="ij"), axis=2)
    gaps = np.diff(centres[:, 0, 0]), np.diff(centres[0, :, 1])
    reach = 0.45 * min(gap.min(initial=1) for gap in gaps)
    dark = GEANT4 if each.source == "geant4" else SURROGATE
    for centre, way in zip(centres.reshape(-1, 2), along.reshape(-1, 2), strict=True):
        head, tail = np.exp(centre + reach * way), np.exp(centre - reach * way)
        arrow = panel.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": dark, "lw": 1})
        if arrow.arrow_patch is not None:
            arrow.arrow_patch.set_clip_path(panel.patch)
    best = each.best()
    label = f"best of the grid: {best[0]:.3g} x {best[1]:.3g} cm"
    panel.plot(best[0], best[1], "*", ms=13, mfc="white", mec=dark, label=label)
    if path is not None:
        panel.plot(path[:, 0], path[:, 1], "o-", ms=3, lw=1.2, color=PATH, label="trajectory")
    if at is not None:
        panel.plot(*at, "s", ms=7, mfc="none", mec=PATH, mew=1.5, label="this design")
    plain_ticks(panel.xaxis, (each.dx[0], each.dx[-1]))
    plain_ticks(panel.yaxis, (each.dz[0], each.dz[-1]))
    panel.set_xlabel("$dx$, cm")
    return filled


@dataclass(frozen=True)
class Count:
    """Numbers of components that agree.

    Args:
        components: number of components of all points.
        known, right: signs that Geant4 knows, and the right ones of these.
        close: pulls below 2.
        cosine: the smallest cosine in ln y where Geant4's vector is precise, else of all.
        precise: whether any vector is.
    """

    components: int
    known: int
    right: int
    close: int
    cosine: float
    precise: bool


def count(checks: Sequence[GradientCheck]) -> Count:
    """Return the numbers of components that agree over all points."""
    components = [component for each in checks for component in each.components]
    precise = [each.cosine for each in checks if each.precision < PRECISE]
    return Count(
        len(components), sum(c.known for c in components), sum(c.known and not c.wrong_sign for c in components),
        sum(abs(c.pull) < 2 for c in components), min(precise or [each.cosine for each in checks]), bool(precise),
    )  # fmt: skip


def write_gradient_report(
    path: Path,
    result: GradientResult,
    landscapes: Sequence[Landscape] = (),
    landscape_energy: float | None = None,
    spectra: Sequence[Spectrum] = (),
    beam: str = "photons on the axis",
) -> None:
    """Write the report of gradients at one design, an HTML file with its figures inside.

    Args:
        path: the HTML file.
        result: the gradients.
        landscapes: landscapes of the utility; may be none.
        landscape_energy: energy of the landscapes, GeV.
        spectra: measured energies at the design, whose resolution is shown; may be none.
        beam: particle and direction, for the title.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    first, checks = result.estimates[0], result.checks
    drawings = [
        Drawing(
            partial(draw_gradients, result.energies, result.estimates, checks),
            "Change of the utility U, as a share of |U|, for a relative change of a parameter, with 95 % bands. Where "
            "it is positive, U grows with the parameter."
            + (" Below: surrogate over Geant4; green: within 10 %." if checks else ""),
            "Gradient against energy", "gradient",
        )
    ]  # fmt: skip
    if landscapes:
        at = (float(first.y[0]), float(first.y[1])) if len(first.y) == 2 else None
        drawings.append(Drawing(
            partial(draw_landscapes, landscapes, f"U at {landscape_energy:g} GeV", at=at),
            f"The utility U at {landscape_energy:g} GeV over pitch and depth of equal layers, with arrows along its "
            "gradient in ln y. Geant4's arrows are from differences on the grid.",
            "Utility over dx and dz", "landscape",
        ))  # fmt: skip
    panels = [Panel("", curves_of(spectra, definition_of(result.objective)))]
    resolved = resolution_section(
        panels, (result.surrogate, "Geant4"), "the measured energy", definition_of(result.objective)
    )
    drawings += resolved.drawings
    reference, sizes = " and Geant4" if checks else "", format_parameters(first.names, first.y)
    page = render(
        "gradient.html.j2", title=f"CaloGrad: gradient of a utility, {beam} into {result.design.material.name}",
        subtitle=f"{result.surrogate}{reference} · {sizes}", pictures=pictures(drawings),
        judged=result.objective.describe().items(), values=value_rows(result), rows=gradient_rows(result),
        count=count(checks) if checks else None, resolved=resolved,
        about=json.dumps([each.about for each in result.estimates] + [each.geant4.about for each in checks], indent=1),
    )  # fmt: skip
    write_whole(path, page.encode())


def value_rows(result: GradientResult) -> list[list[str]]:
    """Return the rows of the table of U: one for each energy."""
    u = getattr(result.objective.utility, "unit", "")
    rows = []
    for k, (energy, ours) in enumerate(zip(result.energies, result.estimates, strict=True)):
        each = [ours, result.checks[k].geant4] if result.checks else [ours]
        rows.append([f"{energy:g}", *(f"{e.value:.4g} ± {e.value_error:.2g} {u}".strip() for e in each)])
    return rows


def gradient_rows(result: GradientResult) -> list[list[Any]]:
    """Return the rows of the table of gradients: one for each component."""
    rows: list[list[Any]] = []
    for k, (energy, estimate) in enumerate(zip(result.energies, result.estimates, strict=True)):
        for j, name in enumerate(estimate.names):
            row: list[Any] = [
                f"{energy:g}", f"{name} = {estimate.y[j]:g} {unit(name)}", f"{estimate.gradient[j]:.4g}",
                _interval(estimate.interval[0][j], estimate.interval[1][j]),
            ]  # fmt: skip
            if result.checks:
                check = result.checks[k]
                c = check.components[j]
                cosines = [f"{check.cosine:.4f}", f"{check.cosine_raw:.4f}"] if j == 0 else ["", ""]
                row += [f"{c.geant4:.4g}", _interval(*c.geant4_interval), f"{c.ratio:.3f} ± {c.ratio_error:.3f}",
                        f"{c.pull:+.2f}", *cosines]  # fmt: skip
            rows.append(row)
    return rows


def _interval(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"
