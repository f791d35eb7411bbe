"""Downloads of a view: the design as TOML, showers as HDF5, numbers as JSON, a picture, an HTML page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calograd.explorer.kinds import Kind, Slope, View
from calograd.explorer.landscape import Surface
from calograd.explorer.numbers import to_dict
from calograd.explorer.text import to_toml
from calograd.reports.gradient import draw_landscape
from calograd.reports.page import picture, render
from calograd.reports.plots import central_bins, draw_steps, plot_observable
from calograd.reports.style import GEANT4, SURROGATE, png

LINE = 130
"""Characters of a line of the picture's title."""


@dataclass(frozen=True)
class Snapshot:
    """The state of the page at the time of a download.

    Args:
        model: name of the surrogate.
        kind: what differs between kinds of designs.
        view: the showers.
        slope: derivatives; None before it is computed.
        surface: landscape; None before it is computed.
        path: trajectory of an optimisation, places on the map, shape (n, 2), cm.
        event: index of the displayed shower.
    """

    model: str
    kind: Kind
    view: View
    slope: Slope | None
    surface: Surface | None
    path: np.ndarray
    event: int


def design_toml(snapshot: Snapshot) -> bytes:
    """Return the design and its utility as TOML, as ``calograd optimise`` reads it."""
    head = f"# calograd optimise MODEL design.toml -o run\n# From the explorer of {json.dumps(snapshot.model)}.\n"
    return (head + to_toml(snapshot.kind.limits.tables(snapshot.view.selection))).encode()


def showers_hdf5(snapshot: Snapshot) -> bytes:
    """Return the showers as a file of their kind."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "showers.h5"
        snapshot.kind.write(snapshot.view, path)
        return path.read_bytes()


def numbers_json(snapshot: Snapshot) -> bytes:
    """Return everything that the page shows as JSON, schema ``calograd/view/1``."""
    content = to_dict(snapshot.view, snapshot.slope, snapshot.surface, snapshot.model)
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def picture_png(snapshot: Snapshot) -> bytes:
    """Return the view as one PNG figure in the style of the reports."""
    return png(lambda: draw(snapshot), dpi=160)


def page_html(snapshot: Snapshot) -> bytes:
    """Return the view as one HTML file that needs no network; every string is escaped."""
    view = snapshot.view
    drawn = picture(
        lambda: draw(snapshot), "The event, the landscape and the observables.", f"Explorer at {view.selection}"
    )
    return render(
        "view.html.j2", "calograd.explorer", title=f"{snapshot.model} at {view.selection}", picture=drawn,
        columns=view.columns(), view=view, derivatives=snapshot.slope.table() if snapshot.slope else None,
        lines=snapshot.slope.lines() if snapshot.slope else [],
        toml=to_toml(snapshot.kind.limits.tables(view.selection)),
    ).encode()  # fmt: skip


def draw(snapshot: Snapshot) -> Figure:
    """Draw the event, the landscape, three observables and the profile."""
    view = snapshot.view
    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    snapshot.kind.draw_event(view, snapshot.event, axes[0, 0])
    _draw_landscape(axes[0, 1], snapshot)
    labels, places = snapshot.kind.limits.labels, (axes[0, 2], axes[1, 0], axes[1, 1])
    for place, (name, label) in zip(places, labels.histograms.items(), strict=True):
        ours, theirs = view.values(name)
        both = ours if theirs is None else np.concatenate([ours, theirs])
        bins = central_bins(both, 20).tolist()
        if theirs is not None:
            plot_observable(theirs, place, label, bins, label="Geant4", color=GEANT4)
        plot_observable(ours, place, label, bins, label="surrogate", color=SURROGATE)
        place.set(ylim=(0, 1.25 * place.get_ylim()[1]), title=view.caption(name))
    axes[0, 2].legend()
    profiles = zip(view.profile(), (SURROGATE, GEANT4), strict=True)
    for profile, colour in ((each, of) for each, of in profiles if each is not None):
        draw_steps(axes[1, 2], profile, {"color": colour})
    axes[1, 2].set(xlabel=labels.profile[0], ylabel=labels.profile[1])
    title = f"{snapshot.model.replace('$', '')}: {view.selection}"
    figure.suptitle("\n".join(wrap(title, LINE)), fontsize=10, x=0.01, ha="left")
    return figure


def _draw_landscape(axes: Axes, snapshot: Snapshot) -> None:
    """Draw the landscape with design, gradient and trajectory; before it is computed, the axes alone."""
    about = snapshot.kind.limits.axes(snapshot.view.selection)
    x, y = snapshot.view.selection.place
    axes.set(xscale="log", yscale="log")
    if snapshot.surface is not None:
        fine = snapshot.surface.fine
        levels = np.geomspace(fine.values.min(), fine.values.max(), 19)
        colours = draw_landscape(axes, fine, levels, snapshot.path if len(snapshot.path) else None)
        figure: Any = axes.get_figure()
        figure.colorbar(colours, ax=axes, label=f"{about.quantity} [{about.unit}]", format="%.2g")
    if snapshot.slope is not None:
        g = np.array(snapshot.slope.arrow)
        step = 0.4 * np.tanh(np.linalg.norm(g)) * g / max(float(np.linalg.norm(g)), 1e-9)
        head = (x * np.exp(step[0]), y * np.exp(step[1]))
        arrow = {"arrowstyle": "-|>", "color": SURROGATE, "lw": 2}
        axes.annotate("", head, (x, y), arrowprops=arrow)
    axes.plot(x, y, "o", ms=7, mfc="white", mec=SURROGATE, mew=1.8, label="this design")
    axes.set(xlim=about.ranges[0], ylim=about.ranges[1], xlabel=about.labels[0], ylabel=about.labels[1])
    axes.legend(loc="upper right", fontsize=7, frameon=True, framealpha=0.85, edgecolor="none")
