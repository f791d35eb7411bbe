"""Plots and the displays of an event. They are drawn once; later only their data change."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, hypot, tanh
from pathlib import Path
from typing import Any

import numpy as np
import param
from bokeh.events import Tap
from bokeh.models import (
    Arrow,
    ColorBar,
    ColumnDataSource,
    CustomJSTickFormatter,
    FixedTicker,
    HoverTool,
    Label,
    Legend,
    LinearAxis,
    LogAxis,
    LogColorMapper,
    Range1d,
    VeeHead,
)
from bokeh.palettes import YlGnBu9, interp_palette
from bokeh.plotting import figure
from bokeh.plotting.contour import contour_data
from panel.custom import JSComponent

from calograd.detector.incidence import Incidence
from calograd.explorer.cell_selection import CellSelection
from calograd.explorer.kinds import MapAxes, Selection, Slope
from calograd.explorer.landscape import Surface
from calograd.metrics.observables import Profile
from calograd.reports.plots import shares
from calograd.reports.style import GEANT4, PATH, SINGLE, SURROGATE, SURROGATE_LIGHT

FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
PALETTE = list(interp_palette(YlGnBu9[::-1], 256))
BINS = 22
LONGEST = 0.4
"""Largest length of the gradient's arrow, in logarithms of pitch and depth."""
TICKS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 30, 40)
CONTOURS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.97)
"""Levels of the contours, as shares of the largest value, or the smallest as a share of them where this is wanted."""

LOOKS = {"3-D": "3-D", "side": "side", "along the beam": "front"}
"""Projections of the event display by their names on the page."""
DECADES = 4
"""Decades of energy that the colours cover, below the largest energy."""


def frame(x_label: str, y_label: str, height: int, **options: Any) -> Any:
    """Return a figure in the style of the reports, with ticks inside on all sides."""
    made = figure(
        height=height, sizing_mode="stretch_width", toolbar_location=None, x_axis_label=x_label,
        y_axis_label=y_label, output_backend="canvas", **({"tools": ""} | options),
    )  # fmt: skip
    made.min_border_right, made.min_border_top = 12, 6
    made.add_layout((LogAxis if options.get("x_axis_type") == "log" else LinearAxis)(), "above")
    made.add_layout((LogAxis if options.get("y_axis_type") == "log" else LinearAxis)(), "right")
    made.grid.visible = False
    made.outline_line_color = GEANT4
    made.axis.axis_line_color = None
    made.axis.major_tick_in, made.axis.major_tick_out = 6, 0
    made.axis.minor_tick_in, made.axis.minor_tick_out = 3, 0
    made.axis.major_label_text_font_size = "11px"
    made.axis.axis_label_text_font_size = "12px"
    made.axis.axis_label_text_font_style = "normal"
    made.axis.axis_label_standoff = 4
    made.axis.axis_label_text_font = made.axis.major_label_text_font = FONT
    made.axis.axis_label_text_color = made.axis.major_label_text_color = GEANT4
    for axis in (*made.above, *made.right):
        axis.major_label_text_font_size = "0px"
        axis.major_label_standoff = 0
    return made


class Steps:
    """Values in bins: the surrogate's as a line, Geant4's as points with errors."""

    def __init__(self, x_label: str, y_label: str, height: int, legend: bool = False) -> None:
        self.figure = frame(x_label, y_label, height, x_range=Range1d(0, 1), y_range=Range1d(0, 1))
        self._line = ColumnDataSource({"x": [], "y": []})
        self._points = ColumnDataSource({"x": [], "y": [], "low": [], "high": []})
        ours, theirs = ({"legend_label": name} if legend else {} for name in ("surrogate", "Geant4"))
        self.figure.patch("x", "y", source=self._line, fill_color=SURROGATE_LIGHT, fill_alpha=0.45,
                          line_color=SURROGATE, line_width=1.6, **ours)  # fmt: skip
        self.figure.segment("x", "low", "x", "high", source=self._points, color=GEANT4, line_width=1.2)
        self.figure.scatter("x", "y", source=self._points, color=GEANT4, size=4.5, **theirs)
        self.figure.title.update(text="", text_font=FONT, text_font_size="11px", text_font_style="normal",
                                 text_color=GEANT4, offset=4, standoff=3)  # fmt: skip
        if legend:
            _place_legend(self.figure)

    def show(self, ours: Profile, theirs: Profile | None, caption: str = "") -> None:
        """Show values of the surrogate and of Geant4 or None, with a line of text."""
        self.figure.title.text = caption
        self._line.data = {"x": np.repeat(ours.edges, 2), "y": np.concatenate([[0], np.repeat(ours.mean, 2), [0]])}
        top, points = float(ours.mean.max()), dict.fromkeys(("x", "y", "low", "high"), np.zeros(0))
        if theirs is not None:
            some = theirs.mean > 0
            middle, mean, error = (theirs.edges[1:] + theirs.edges[:-1]) / 2, theirs.mean, theirs.error
            middle, mean, error = middle[some], mean[some], error[some]
            points = {"x": middle, "y": mean, "low": mean - error, "high": mean + error}
            top = max(top, float((theirs.mean + theirs.error).max()))
        self._points.data = points
        _show_geant4(self.figure, theirs is not None)
        self.figure.x_range.update(start=ours.edges[0], end=ours.edges[-1])
        self.figure.y_range.update(start=0, end=1.18 * top)


def histograms(ours: np.ndarray, theirs: np.ndarray | None) -> tuple[Profile, Profile | None]:
    """Return shares of an observable's values in equal bins: the surrogate's and Geant4's, if any."""
    both = ours if theirs is None else np.concatenate([ours, theirs])
    low, high = np.quantile(both, (0.004, 0.996))
    reach = max(0.12 * (high - low), 1e-3 * abs(high), 1e-9)
    edges = np.linspace(low - reach, high + reach, BINS + 1)
    return shares(ours, edges), None if theirs is None else shares(theirs, edges)


class Map:
    """Map of a quantity over two sizes, with the design, the direction of improvement and a trajectory.

    Args:
        axes: sizes and quantity.
        height: height in pixels.
        chosen: called with both sizes of a click, cm.
    """

    def __init__(self, axes: MapAxes, height: int, chosen: Callable[[float, float], None]) -> None:
        self._axes = axes
        self.figure = made = frame(
            *axes.labels, height, x_axis_type="log", y_axis_type="log",
            x_range=Range1d(*axes.ranges[0]), y_range=Range1d(*axes.ranges[1]),
        )  # fmt: skip
        made.on_event(Tap, lambda event: chosen(event.x, event.y))
        for axis in (*made.below, *made.above, *made.left, *made.right):
            axis.ticker = FixedTicker(ticks=list(TICKS))
            axis.formatter = CustomJSTickFormatter(code="return String(+tick.toPrecision(3))")
        self._colours = LogColorMapper(PALETTE[::-1] if axes.least else PALETTE, low=1e-3, high=1)
        self._image = ColumnDataSource({"image": [], "x": [], "y": [], "w": [], "h": []})
        self._here = ColumnDataSource({"x": [], "y": []})
        self._best = ColumnDataSource({"x": [], "y": []})
        self._path = ColumnDataSource({"x": [], "y": [], "u": [], "n": []})
        self._arrow = ColumnDataSource({"x0": [], "y0": [], "x1": [], "y1": []})
        made.image("image", "x", "y", "w", "h", source=self._image, color_mapper=self._colours)
        self._lines = ColumnDataSource({"xs": [], "ys": []})
        made.multi_line("xs", "ys", source=self._lines, line_color="#ffffff", line_alpha=0.75)
        made.line("x", "y", source=self._path, color=PATH, line_width=2, legend_label="trajectory")
        dots = made.scatter("x", "y", source=self._path, color=PATH, size=6)
        made.scatter("x", "y", source=self._best, marker="star", size=17, fill_color="#ffffff", line_color=GEANT4,
                     legend_label="best")  # fmt: skip
        made.scatter("x", "y", source=self._here, size=11, fill_color="#ffffff", line_color=SURROGATE, line_width=2.5,
                     legend_label="this design")  # fmt: skip
        made.add_layout(
            Arrow(x_start="x0", y_start="y0", x_end="x1", y_end="y1", source=self._arrow, line_color=SURROGATE,
                  line_width=3, end=VeeHead(size=14, fill_color=SURROGATE, line_color=SURROGATE))
        )  # fmt: skip
        made.add_tools(
            HoverTool(renderers=[dots], tooltips=[("step", "@n"), (axes.quantity, f"@u{{0.0000}} {axes.unit}")])
        )
        bar = ColorBar(color_mapper=self._colours, width=12, title=f"{axes.quantity} [{axes.unit}]", label_standoff=6,
                       border_line_color=None, bar_line_color=GEANT4, title_text_font=FONT, title_text_font_size="12px",
                       title_text_font_style="normal", major_label_text_font=FONT, major_label_text_font_size="11px",
                       major_tick_line_color=GEANT4)  # fmt: skip
        made.add_layout(bar, "right")
        self._note = Label(x=12, y=12, x_units="screen", y_units="screen", text="", text_font=FONT,
                           text_font_size="12px", background_fill_color="white", background_fill_alpha=0.85,
                           visible=False)  # fmt: skip
        made.add_layout(self._note)
        _place_legend(made)
        made.legend.background_fill_alpha = 0.85

    def note(self, text: str) -> None:
        """Write a line in the corner; an empty one hides it."""
        self._note.update(text=text, visible=bool(text))

    def here(self, selection: Selection, axes: MapAxes) -> None:
        """Mark the design and remove the arrow of another one; a map of other materials is emptied."""
        (x, y), self._arrow.data = selection.place, {"x0": [], "y0": [], "x1": [], "y1": []}
        self._here.data = {"x": [x], "y": [y]}
        if axes.labels != self._axes.labels:
            self._axes = axes
            self._image.data = {"image": [], "x": [], "y": [], "w": [], "h": []}
            self._lines.data, self._best.data = {"xs": [], "ys": []}, {"x": [], "y": []}
            self.figure.below[0].axis_label, self.figure.left[0].axis_label = axes.labels
            self._reach(axes.ranges)

    def slope(self, slope: Slope) -> None:
        """Show the direction of improvement as an arrow with a length that saturates."""
        g, (x, y) = slope.arrow, slope.selection.place
        size = hypot(*g)
        step = LONGEST * tanh(size) / size if size > 0 else 0.0
        self._arrow.data = {"x0": [x], "y0": [y], "x1": [x * exp(step * g[0])], "y1": [y * exp(step * g[1])]}

    def surface(self, surface: Surface) -> None:
        """Show the quantity as colours and contours."""
        fine = surface.fine
        x, y, low, high = fine.dx, fine.dz, float(fine.values.min()), float(fine.values.max())
        self._reach(((x[0], x[-1]), (y[0], y[-1])))
        self._colours.update(low=low, high=high)
        self._image.data = {"image": [fine.values.T.astype(np.float32)], "x": [x[0]], "y": [y[0]],
                            "w": [x[-1] - x[0]], "h": [y[-1] - y[0]]}  # fmt: skip
        levels = [low / share for share in CONTOURS[::-1]] if surface.axes.least else [high * s for s in CONTOURS]
        within = [level for level in levels if low < level < high]
        lines = contour_data(x, y, fine.values.T, within, want_fill=False).line_data if within else None
        self._lines.data = {"xs": lines.xs, "ys": lines.ys} if lines else {"xs": [], "ys": []}
        best = fine.best()
        self._best.data = {"x": [best[0]], "y": [best[1]]}

    def _reach(self, ranges: tuple[tuple[float, float], tuple[float, float]]) -> None:
        for axis, (start, end) in zip((self.figure.x_range, self.figure.y_range), ranges, strict=True):
            axis.update(start=start, end=end)

    def path(self, places: list[tuple[float, float]], values: list[float]) -> None:
        """Show a trajectory: places, cm, and the quantity there."""
        x, y = ([place[axis] for place in places] for axis in (0, 1))
        self._path.data = {"x": x, "y": y, "u": values, "n": list(range(len(places)))}


def _place_legend(made: Any) -> None:
    made.legend.location = "top_left"
    made.legend.border_line_color = None
    made.legend.background_fill_alpha = 0.0
    made.legend.label_text_font = FONT
    made.legend.label_text_font_size = "11px"
    made.legend.padding, made.legend.margin, made.legend.spacing = 2, 6, 0
    made.legend.glyph_height, made.legend.label_height = 14, 14


def _show_geant4(made: Any, visible: bool) -> None:
    """Show or hide the entries of Geant4 in the legend of a figure, if it has one."""
    for item in (item for legend in made.select(Legend) for item in legend.items):
        if item.label.value.startswith("Geant4"):
            item.visible = visible


class Layers:
    """Energies of layers: mean and spread over the surrogate's showers, one shower, and Geant4's mean.

    Args:
        height: height in pixels.
    """

    def __init__(self, height: int) -> None:
        self.figure = frame("layer", "energy of a layer [GeV]", height, x_range=Range1d(0, 1), y_range=Range1d(0, 1))
        self._band = ColumnDataSource({"x": [], "low": [], "high": []})
        self._mean = ColumnDataSource({"x": [], "y": []})
        self._one = ColumnDataSource({"x": [], "y": []})
        self._points = ColumnDataSource({"x": [], "y": [], "low": [], "high": []})
        self.figure.varea("x", "low", "high", source=self._band, fill_color=SURROGATE_LIGHT, fill_alpha=0.45,
                          legend_label="mean ± standard deviation")  # fmt: skip
        self.figure.line("x", "y", source=self._mean, color=SURROGATE, line_width=1.8,
                         legend_label="mean ± standard deviation")  # fmt: skip
        self.figure.line("x", "y", source=self._one, color=SINGLE, line_width=1.2, legend_label="the displayed shower")
        self.figure.scatter("x", "y", source=self._one, color=SINGLE, size=4, legend_label="the displayed shower")
        self.figure.segment("x", "low", "x", "high", source=self._points, color=GEANT4, line_width=1.2)
        self.figure.scatter("x", "y", source=self._points, color=GEANT4, size=4.5, legend_label="Geant4, mean")
        _place_legend(self.figure)
        self.figure.legend.location = "top_right"

    def show(
        self, x: np.ndarray, label: str, ours: np.ndarray, number: int, theirs: np.ndarray | None, what: str
    ) -> None:
        """Show energies of the layers.

        Args:
            x: places of the layers, shape (layers,).
            label: label of these.
            ours, theirs: energies of the surrogate's and of Geant4's showers or None, shape (n, layers), GeV.
            number: index of the displayed shower.
            what: name of the plates.
        """
        mean, spread = ours.mean(0), ours.std(0, ddof=1)
        self._band.data = {"x": x, "low": np.maximum(mean - spread, 0), "high": mean + spread}
        self._mean.data, self._one.data = {"x": x, "y": mean}, {"x": x, "y": ours[number]}
        points = dict.fromkeys(("x", "y", "low", "high"), np.zeros(0))
        if theirs is not None:
            middle, error = theirs.mean(0), theirs.std(0, ddof=1) / len(theirs) ** 0.5
            points = {"x": x, "y": middle, "low": middle - error, "high": middle + error}
        self._points.data = points
        _show_geant4(self.figure, theirs is not None)
        self.figure.below[0].axis_label, self.figure.left[0].axis_label = label, f"energy in {what} of a layer [GeV]"
        step = (x[-1] - x[0]) / max(len(x) - 1, 1)
        self.figure.x_range.update(start=x[0] - step / 2, end=x[-1] + step / 2)
        self.figure.y_range.update(start=0, end=1.1 * max(float((mean + spread).max()), float(ours[number].max())))


class EventDisplay(JSComponent):  # type: ignore[misc]
    """Display of one shower: ``event.js`` draws it on a canvas, without WebGL.

    Attributes:
        scene: result of the function `scene`.
        look: projection, one of `LOOKS`.
    """

    _esm = Path(__file__).with_name("event.js")
    scene = param.Dict(default={})
    look = param.Selector(default="3-D", objects=list(LOOKS.values()))


def scene(
    cells: np.ndarray, selection: CellSelection, what: str, number: int, particle: Incidence | None = None
) -> dict[str, Any]:
    """Return the data of the event display.

    Args:
        cells: energies, shape (n_xy, n_xy, n_z), GeV.
        selection: the design.
        what: name of the energies.
        number: index of the shower.
        particle: its incident particle, whose line is drawn and which the windows follow; None: on the axis.
    """
    largest = float(cells.max())
    total = float(cells.sum())
    subtitle = (
        f"{selection.energy:g} GeV in {selection.material}, cells of {selection.dx:g} cm, "
        f"layers of {selection.depths} cm"
    )
    offsets, line = np.zeros((selection.n_z, 2), int), None
    if particle is not None:
        offsets = particle.window_offsets(np.array([selection.dx]), np.array([selection.dz]))[0]
        line = {"entry": particle.position[0].astype(float).tolist(), "slopes": particle.slopes[0].tolist()}
    name = "" if particle is None else f"{particle.to_beam()['particle']}, "
    return {
        "cells": np.round(np.asarray(cells, float), 9).tolist(), "dx": selection.dx, "dz": list(selection.dz),
        "offsets": offsets.tolist(), "line": line,
        "top": max(largest, 1e-6), "decades": DECADES,
        "title": f"shower {number}, {what}: {total:.4g} GeV",
        "subtitle": subtitle, "particle": particle.describe() if particle is not None else "",
        "beam": f"{name}{selection.energy:g} GeV",
    }  # fmt: skip
