"""What can be kept of a view: the design as TOML, showers as HDF5, numbers as JSON, a picture, a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from calograd._version import __version__
from calograd.events.cells import Cells, write_cells
from calograd.explorer.landscape import Surface
from calograd.explorer.numbers import UNITS, columns, to_dict
from calograd.explorer.selection import Limits, to_toml
from calograd.explorer.views import Slope, View
from calograd.reports.page import templates
from calograd.reports.plots import plot_event, plot_observable, plot_profile
from calograd.reports.style import GEANT4, STYLE, SURROGATE, picture

PATH = "#7a1fa2"


@dataclass(frozen=True)
class Shown:
    """What the page shows when something is kept.

    Args:
        model: the surrogate's name.
        limits: its ranges.
        view: the showers.
        slope, surface: what is known of the utility; None while it is not.
        path: a trajectory, shape (n, 2), cm.
        event: number of the displayed shower.
    """

    model: str
    limits: Limits
    view: View
    slope: Slope | None
    surface: Surface | None
    path: np.ndarray
    event: int


def design_toml(shown: Shown) -> bytes:
    """The design and its utility, as ``calograd optimise`` reads them."""
    head = f"# calograd optimise MODEL design.toml -o run\n# From the explorer of {json.dumps(shown.model)}.\n"
    return (head + to_toml(shown.limits.tables(shown.view.choice))).encode()


def showers_hdf5(shown: Shown) -> bytes:
    """The showers as a cells file, schema ``calograd/cells/1``."""
    view, choice = shown.view, shown.view.choice
    n = len(view.cells)
    config = {"model": shown.model, "explorer": __version__, "steps": view.steps}
    cells = Cells(
        view.cells, np.full(n, choice.energy, np.float32), np.full(n, choice.dx, np.float32),
        np.tile(np.array(choice.dz, np.float32), (n, 1)), np.arange(n), shown.limits.material(choice), shown.model,
        config,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "showers.h5"
        write_cells(path, cells)
        return path.read_bytes()


def numbers_json(shown: Shown) -> bytes:
    """Everything that is shown, schema ``calograd/view/1``."""
    content = to_dict(shown.view, shown.slope, shown.surface, shown.model)
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def picture_png(shown: Shown) -> bytes:
    """The view as one figure in the style of the reports."""
    with mpl.rc_context(rc=STYLE), BytesIO() as buffer:
        draw(shown).savefig(buffer, format="png", dpi=160, metadata={"Software": None})
        return buffer.getvalue()


def page_html(shown: Shown) -> bytes:
    """The view as one HTML file: no network, every string escaped."""
    choice = shown.view.choice
    drawn = picture(lambda: draw(shown), "The event, the utility and the observables.", f"Explorer at {choice}")
    page = templates("calograd.explorer").get_template("view.html.j2")
    return page.render(
        title=f"{shown.model} at {choice}", picture=drawn, columns=columns(shown.view), units=UNITS, shown=shown,
        toml=to_toml(shown.limits.tables(choice)),
    ).encode()  # fmt: skip


def draw(shown: Shown) -> Figure:
    """Event, utility, three observables and the profile."""
    view, choice = shown.view, shown.view.choice
    figure = Figure(figsize=(11.5, 6.6), layout="constrained")
    axes = figure.subplots(2, 3)
    plot_event(view.cells[shown.event], choice.dx, choice.dz, axes[0, 0], "xz")
    axes[0, 0].set_title(f"shower {shown.event}, {choice.energy:g} GeV in {choice.material}")
    _draw_utility(axes[0, 1], shown)
    for place, name in ((axes[0, 2], "E_tot"), (axes[1, 0], "R_E"), (axes[1, 1], "z_mean")):
        ours = getattr(view.observables, name)
        theirs = getattr(view.reference, name) if view.reference else None
        both = ours.numpy() if theirs is None else np.concatenate([ours.numpy(), theirs.numpy()])
        low, high = np.quantile(both, (0.004, 0.996)).tolist()
        bins = np.linspace(low, high, 21).tolist()
        if theirs is not None:
            plot_observable(theirs, place, name, bins, label="Geant4", color=GEANT4)
        plot_observable(ours, place, name, bins, label="surrogate", color=SURROGATE)
        place.set_ylim(0, 1.25 * place.get_ylim()[1])
    axes[0, 2].legend()
    if view.bundled is not None:
        plot_profile(view.bundled.cells.cells, choice.dx, choice.dz, axes[1, 2], "z", color=GEANT4)
    plot_profile(view.cells, choice.dx, choice.dz, axes[1, 2], "z", color=SURROGATE)
    figure.suptitle(f"{shown.model.replace('$', '')}: {choice}", fontsize=10, x=0.01, ha="left")
    return figure


def _draw_utility(axes: Axes, shown: Shown) -> None:
    """The landscape with design, arrow and trajectory; without one the axes alone."""
    choice = shown.view.choice
    axes.set_xscale("log")
    axes.set_yscale("log")
    if shown.surface is not None:
        fine = shown.surface.fine
        mesh = axes.pcolormesh(fine.dx, fine.dz, fine.values.T, cmap="YlGnBu", shading="gouraud", rasterized=True,
                               norm=LogNorm(fine.values.min(), fine.values.max()))  # fmt: skip
        axes.contour(fine.dx, fine.dz, fine.values.T, [s * fine.values.max() for s in (0.5, 0.75, 0.9)], colors="w",
                     linewidths=0.8)  # fmt: skip
        figure = axes.get_figure()
        assert figure is not None
        figure.colorbar(mesh, ax=axes, label="U [1/GeV$^2$]")
        axes.plot(*fine.best()[:2], "*", ms=12, mfc="white", mec=GEANT4, label="best")
    if len(shown.path):
        axes.plot(shown.path[:, 0], shown.path[:, 1], "o-", ms=3, lw=1.2, color=PATH, label="trajectory")
    if shown.slope is not None:
        g = np.array(shown.slope.arrow)
        step = 0.4 * np.tanh(np.linalg.norm(g)) * g / max(float(np.linalg.norm(g)), 1e-9)
        head = (choice.dx * np.exp(step[0]), choice.depth * np.exp(step[1]))
        arrow = {"arrowstyle": "-|>", "color": SURROGATE, "lw": 2}
        axes.annotate("", head, (choice.dx, choice.depth), arrowprops=arrow)
    axes.plot(choice.dx, choice.depth, "o", ms=7, mfc="white", mec=SURROGATE, mew=1.8, label="this design")
    sizes = shown.limits.sizes(choice)
    axes.set_xlim(*sizes[0])
    axes.set_ylim(*sizes[1])
    for axis, ends in zip((axes.xaxis, axes.yaxis), sizes, strict=True):
        axis.set_major_locator(FixedLocator([t for t in (1, 2, 3, 4, 5, 6, 8, 10, 15) if ends[0] <= t <= ends[1]]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("$dx$ [cm]")
    axes.set_ylabel("$dz$ [cm]")
    axes.legend(loc="upper right", fontsize=7)
