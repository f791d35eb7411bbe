"""Figures of gradients and landscapes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from calograd.gradients.autodiff import GradientEstimate
from calograd.gradients.check import GradientCheck
from calograd.gradients.landscape import Landscape
from calograd.objective.space import unit
from calograd.optimisation.state import Step
from calograd.reports.style import GEANT4, KEPT, SURROGATE, SURROGATE_LIGHT

Z95 = 1.959964
"""Standard errors of a band."""
ADAPTED = "#0b6e4f"
"""Of what an adaptation is marked with."""
ARROWS = 7
"""Along each axis of a landscape."""


def parameter_label(name: str) -> str:
    """A parameter as it stands in figures."""
    stem, _, number = name.partition("_")
    return rf"${stem[0]}{stem[1:]}_{{{number}}}$" if number else f"${stem}$"


def draw_gradients(energies: list[float], ours: list[GradientEstimate], both: list[GradientCheck] | None) -> Figure:
    """dU/d ln y over U against energy with bands of 95 %, one panel a parameter; below it the ratio to Geant4's."""
    names = ours[0].names
    rows = 2 if both else 1
    figure = Figure(figsize=(3.1 * len(names) + 0.5, 2.9 + 1.6 * (rows - 1)), layout="constrained")
    axes = figure.subplots(rows, len(names), sharex=True, squeeze=False, height_ratios=[2, 1][:rows])
    size = np.array([abs(b.geant4.value) for b in both] if both else [abs(o.value) for o in ours])
    for j, name in enumerate(names):
        top: Axes = axes[0, j]
        top.axhline(0, color="#9aa0a6", lw=0.8)
        if both:
            _band(
                top,
                energies,
                _known([b.geant4 for b in both], j) / size,
                GEANT4,
                "#c9ccd0",
                "Geant4, central differences",
            )
        _band(top, energies, _known(ours, j) / size, SURROGATE, SURROGATE_LIGHT, "surrogate, back-propagation")
        top.set_title(f"{parameter_label(name)} = {ours[0].y[j]:g} {unit(name)}")
        if both:
            low: Axes = axes[1, j]
            low.axhspan(0.9, 1.1, color=KEPT)
            low.axhline(1, color=GEANT4, lw=0.8)
            ratio = np.array([[b.components[j].ratio, b.components[j].ratio_error] for b in both]).T
            low.errorbar(energies, ratio[0], Z95 * ratio[1], fmt="o", ms=3.5, color=SURROGATE, lw=1)
            low.set_ylim(0.5, 1.5)
        axes[-1, j].set_xscale("log")
        axes[-1, j].set_xlabel("incident energy, GeV")
    axes[0, 0].set_ylabel(r"$\partial U/\partial \ln y\;/\;U$")
    axes[0, 0].legend()
    if both:
        axes[1, 0].set_ylabel("surrogate / Geant4")
    return figure


def _known(estimates: list[GradientEstimate], j: int) -> np.ndarray:
    """Component j with the ends of its 95 % interval, shape (3, estimates)."""
    return np.array([[e.gradient[j], e.interval[0][j], e.interval[1][j]] for e in estimates]).T


def _band(axes: Axes, x: list[float], known: np.ndarray, dark: str, light: str, label: str) -> None:
    """A line through values in a band; ``known``: values and the ends of the band, shape (3, n)."""
    value, low, high = known
    axes.fill_between(x, low, high, color=light, alpha=0.7, lw=0)
    axes.plot(x, value, "o-", ms=3, lw=1, color=dark, label=label)


def draw_landscapes(
    landscapes: list[Landscape], title: str, path: np.ndarray | None = None, at: tuple[float, float] | None = None
) -> Figure:
    """Objectives over dx and dz with arrows along the gradient in ln y.

    Args:
        landscapes: panels side by side; all share the first one's colours.
        title: of the objective.
        path: trajectory of an optimisation, shape (steps, 2), cm.
        at: a design to mark, cm.
    """
    figure = Figure(figsize=(4.5 * len(landscapes) + 0.6, 3.9), layout="constrained")
    axes = figure.subplots(1, len(landscapes), sharex=True, sharey=True, squeeze=False)[0]
    every = np.concatenate([each.values.ravel() for each in landscapes])
    levels = np.quantile(every, np.linspace(0, 1, 19))
    levels = np.unique(levels)
    for panel, each in zip(axes, landscapes, strict=True):
        filled = panel.contourf(each.dx, each.dz, each.values.T, levels=levels, cmap="YlGnBu", extend="both")
        step_x, step_z = max(1, len(each.dx) // ARROWS), max(1, len(each.dz) // ARROWS)
        some = (slice(step_x // 2, None, step_x), slice(step_z // 2, None, step_z))
        slopes = each.slopes[some]
        length = np.linalg.norm(slopes, axis=2, keepdims=True)
        along = slopes / np.where(length > 0, length, 1)
        x, z = np.meshgrid(np.log(each.dx[some[0]]), np.log(each.dz[some[1]]), indexing="ij")
        reach = 0.45 * min(np.diff(x[:, 0]).min(initial=1), np.diff(z[0]).min(initial=1))
        dark = GEANT4 if each.source == "geant4" else SURROGATE
        for start in np.ndindex(x.shape):
            head = np.exp([x[start] + reach * along[start][0], z[start] + reach * along[start][1]])
            tail = np.exp([x[start] - reach * along[start][0], z[start] - reach * along[start][1]])
            arrow = panel.annotate("", head, tail, arrowprops={"arrowstyle": "->", "color": dark, "lw": 1})
            if arrow.arrow_patch is not None:
                arrow.arrow_patch.set_clip_path(panel.patch)
        best = each.best()
        label = f"best of the grid: {best[0]:.2f} x {best[1]:.1f} cm"
        panel.plot(best[0], best[1], "*", ms=13, mfc="white", mec=dark, label=label)
        if path is not None:
            panel.plot(path[:, 0], path[:, 1], "o-", ms=3, lw=1.2, color="#7a1fa2", label="trajectory")
        if at is not None:
            panel.plot(*at, "s", ms=7, mfc="none", mec="#7a1fa2", mew=1.5, label="this design")
        panel.set_title("Geant4" if each.source == "geant4" else f"surrogate {each.source}")
        panel.set_xscale("log")
        panel.set_yscale("log")
        _plain_ticks(panel, each)
        panel.set_xlabel("$dx$, cm")
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    axes[0].set_ylabel("$dz$, cm")
    figure.colorbar(filled, ax=axes, label=title, format="%.3g")
    return figure


def _plain_ticks(panel: Axes, each: Landscape) -> None:
    """Ticks at whole numbers on logarithmic axes."""
    for axis, values in ((panel.xaxis, each.dx), (panel.yaxis, each.dz)):
        low, high = float(values[0]), float(values[-1])
        places = [v for v in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20) if low * 0.999 <= v <= high * 1.001]
        axis.set_major_locator(FixedLocator(places))
        axis.set_major_formatter(lambda v, _: f"{v:g}")
        axis.set_minor_locator(FixedLocator([]))


def draw_ascent(history: tuple[Step, ...], names: tuple[str, ...]) -> Figure:
    """Parameters and the surrogate's utility against steps; where showers were simulated, utility against these."""
    simulated = any(step.check is not None or step.adaptation for step in history)
    figure = Figure(figsize=(11 if simulated else 7.6, 3.4), layout="constrained")
    left, middle, *right = figure.subplots(1, 2 + simulated)
    number = [step.number for step in history]
    for j, name in enumerate(names):
        left.plot(number, [step.y[j] for step in history], "o-", ms=3, lw=1, label=parameter_label(name))
    left.set_yscale("log")
    left.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    left.yaxis.set_minor_formatter(lambda v, _: f"{v:g}" if v in (1, 2, 3, 4, 5, 6, 8, 12, 15) else "")
    left.set_ylabel(f"parameter, {' or '.join(dict.fromkeys(map(unit, names)))}")
    left.legend(ncols=2)
    value, error = np.array([[step.value, step.value_error] for step in history]).T
    band = np.stack([value, value - Z95 * error, value + Z95 * error])
    _band(middle, [float(n) for n in number], band, SURROGATE, SURROGATE_LIGHT, "surrogate")
    middle.set_ylabel("utility")
    adapted = [step for step in history if step.adaptation]
    if adapted:
        middle.plot([s.number for s in adapted], [s.value for s in adapted], "^", ms=6, color=ADAPTED, label="adapted")
    for axes in right:
        _draw_showers(axes, history)
        axes.set_xlabel("simulated showers")
        axes.set_ylabel("utility")
    for axes in (left, middle):
        axes.set_xlabel("step")
    middle.legend()
    return figure


def _draw_showers(axes: Axes, history: tuple[Step, ...]) -> None:
    """Utility against simulated showers: the gains that checks confirmed, and with adaptation the surrogate's word."""
    total, variance, first = history[0].value, 0.0, history[0].adaptation
    showers, geant4, predicted = [first], [(total, 0.0)], [total]
    away = False  # from a top to a design elsewhere, until the two are compared
    for step in history:
        away = step.outcome == "jumped" or (away and step.outcome != "settled")
        if step.check is None or away:
            continue
        if not (step.check.simulated > 0 if step.outcome == "settled" else step.check.agrees):
            continue
        variance += step.check.simulated_error**2
        showers.append(step.simulated)
        predicted.append(total + step.check.predicted)
        total += step.check.simulated
        geant4.append((total, variance**0.5))
    if history[0].adaptation:
        paid = np.array([step.simulated - (step.check.showers if step.check else 0) for step in history])
        value = np.array([step.value for step in history])
        new = np.array([step.adaptation > 0 for step in history])
        axes.plot(paid, value, "-", lw=1, color=SURROGATE_LIGHT)
        axes.plot(paid[new], value[new], "^", ms=5, color=ADAPTED, label="surrogate, adapted here")
    if any(step.check is not None for step in history):
        values, errors = np.array(geant4).T
        axes.errorbar(showers, values, Z95 * errors, fmt="o-", ms=4, lw=1, color=GEANT4,
                      label="Geant4's gains, added up")  # fmt: skip
        axes.plot(showers, predicted, "s", ms=5, mfc="none", color=SURROGATE, label="predicted")
    axes.legend()
