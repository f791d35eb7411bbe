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

from calograd._version import __version__
from calograd.events.dense import Cells, write_cells
from calograd.explorer.landscape import Surface
from calograd.explorer.numbers import UNITS, columns, to_dict
from calograd.explorer.selection import SelectionLimits, to_toml
from calograd.explorer.views import LocalGradient, View
from calograd.reports.gradient import draw_landscape
from calograd.reports.page import picture, render
from calograd.reports.plots import central_bins, plot_event, plot_observable, plot_profile
from calograd.reports.style import GEANT4, SURROGATE, png

LINE = 130
"""Characters of a line of the picture's title."""


@dataclass(frozen=True)
class Snapshot:
    """The state of the page at the time of a download.

    Args:
        model: name of the surrogate.
        limits: its limits.
        view: the showers.
        slope: gradient of the utility; None before it is computed.
        surface: landscape of the utility; None before it is computed.
        path: trajectory of an optimisation, pitches and mean depths, shape (n, 2), cm.
        event: index of the displayed shower.
    """

    model: str
    limits: SelectionLimits
    view: View
    slope: LocalGradient | None
    surface: Surface | None
    path: np.ndarray
    event: int


def design_toml(snapshot: Snapshot) -> bytes:
    """Return the design and its utility as TOML, as ``calograd optimise`` reads it."""
    head = f"# calograd optimise MODEL design.toml -o run\n# From the explorer of {json.dumps(snapshot.model)}.\n"
    return (head + to_toml(snapshot.limits.tables(snapshot.view.selection))).encode()


def showers_hdf5(snapshot: Snapshot) -> bytes:
    """Return the showers as a cells file."""
    view, selection = snapshot.view, snapshot.view.selection
    n = len(view.cells)
    config = {"model": snapshot.model, "explorer": __version__, "steps": view.steps}
    cells = Cells(
        view.cells, np.full(n, selection.energy, np.float32), np.full(n, selection.dx, np.float32),
        np.tile(np.array(selection.dz, np.float32), (n, 1)), np.arange(n), snapshot.limits.material(selection),
        snapshot.model, config, incidence=view.incident,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "showers.h5"
        write_cells(path, cells)
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
    selection = snapshot.view.selection
    drawn = picture(lambda: draw(snapshot), "The event, the utility and the observables.", f"Explorer at {selection}")
    return render(
        "view.html.j2", "calograd.explorer", title=f"{snapshot.model} at {selection}", picture=drawn,
        columns=columns(snapshot.view), units=UNITS, snapshot=snapshot, toml=to_toml(snapshot.limits.tables(selection)),
    ).encode()  # fmt: skip


def draw(snapshot: Snapshot) -> Figure:
    """Draw the event, the utility, three observables and the profile."""
    view, selection = snapshot.view, snapshot.view.selection
    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    particle = view.particle(snapshot.event)
    plot_event(
        view.cells[snapshot.event], selection.dx, selection.dz, axes[0, 0], "xz", incident=particle
    )  # fmt: skip
    axes[0, 0].set_title(f"shower {snapshot.event}, {selection.energy:g} GeV in {selection.material}")
    _draw_utility(axes[0, 1], snapshot)
    for place, name in ((axes[0, 2], "E_tot"), (axes[1, 0], "R_E"), (axes[1, 1], "z_mean")):
        ours = getattr(view.observables, name)
        theirs = getattr(view.reference, name) if view.reference else None
        both = ours.numpy() if theirs is None else np.concatenate([ours.numpy(), theirs.numpy()])
        bins = central_bins(both, 20).tolist()
        if theirs is not None:
            plot_observable(theirs, place, name, bins, label="Geant4", color=GEANT4)
        plot_observable(ours, place, name, bins, label="surrogate", color=SURROGATE)
        place.set_ylim(0, 1.25 * place.get_ylim()[1])
    axes[0, 2].legend()
    if view.bundled is not None:
        plot_profile(view.bundled.cells.cells, selection.dx, selection.dz, axes[1, 2], "z", color=GEANT4)
    plot_profile(view.cells, selection.dx, selection.dz, axes[1, 2], "z", color=SURROGATE)
    title = f"{snapshot.model.replace('$', '')}: {selection}"
    figure.suptitle("\n".join(wrap(title, LINE)), fontsize=10, x=0.01, ha="left")
    return figure


def _draw_utility(axes: Axes, snapshot: Snapshot) -> None:
    """Draw the landscape with design, gradient and trajectory; before it is computed, the axes alone."""
    selection = snapshot.view.selection
    axes.set(xscale="log", yscale="log")
    if snapshot.surface is not None:
        fine = snapshot.surface.fine
        levels = np.geomspace(fine.values.min(), fine.values.max(), 19)
        colours = draw_landscape(axes, fine, levels, snapshot.path if len(snapshot.path) else None)
        figure: Any = axes.get_figure()
        figure.colorbar(colours, ax=axes, label="U [1/GeV$^2$]", format="%.2g")
    if snapshot.slope is not None:
        g = np.array(snapshot.slope.arrow)
        step = 0.4 * np.tanh(np.linalg.norm(g)) * g / max(float(np.linalg.norm(g)), 1e-9)
        head = (selection.dx * np.exp(step[0]), selection.depth * np.exp(step[1]))
        arrow = {"arrowstyle": "-|>", "color": SURROGATE, "lw": 2}
        axes.annotate("", head, (selection.dx, selection.depth), arrowprops=arrow)
    axes.plot(selection.dx, selection.depth, "o", ms=7, mfc="white", mec=SURROGATE, mew=1.8, label="this design")
    sizes = snapshot.limits.sizes(selection)
    axes.set(xlim=sizes[0], ylim=sizes[1], xlabel="$dx$ [cm]", ylabel="$dz$ [cm]")
    axes.legend(loc="upper right", fontsize=7)
