"""The look of figures: colours, labels, ticks, images."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import FixedLocator, NullLocator

GEANT4 = "#1b1b1b"
"""Colour of Geant4."""
SURROGATE = "#d1380e"
"""Colour of generated showers."""
SURROGATE_LIGHT = "#f4b9a5"
"""Colour of the errors of generated showers."""
KEPT = "#e3efe6"
"""Colour of an allowed range."""
MISSED = "#b3001b"
"""Colour of a limit missed beyond statistics."""
SINGLE = "#2f6f9f"
"""Colour of a single shower beside a mean."""
PATH = "#7a1fa2"
"""Colour of a trajectory of designs."""

STYLE: Any = {
    "font.family": [f for f in ("Helvetica", "Arial", "Liberation Sans", "DejaVu Sans") if f in get_font_names()],
    "mathtext.fontset": "dejavusans",
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.8,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.formatter.useoffset": False,
    "figure.dpi": 100,
    "savefig.dpi": 110,
}
"""Settings of matplotlib for every figure: ticks inside on all sides, small type."""

LABELS = {
    "E_tot": r"$E_\mathrm{tot}$",
    "x_mean": r"$\langle x\rangle$",
    "y_mean": r"$\langle y\rangle$",
    "R_E": r"$R_E$",
    "sigma_x": r"$\sigma_x$",
    "sigma_y": r"$\sigma_y$",
    "z_mean": r"$\langle z\rangle$",
    "sigma_z": r"$\sigma_z$",
    "occupancy": "occupancy",
    "N_hits": "hits",
    "E_vis/E_inc": r"$E_\mathrm{vis}/E_\mathrm{inc}$",
    "E_dep/E_inc": r"$E_\mathrm{dep}/E_\mathrm{inc}$",
    "depth_mean": r"mean depth",
    "depth_spread": r"spread of the depth",
    "m1_X": r"$\langle x\rangle$",
    "m1_Y": r"$\langle y\rangle$",
    "m1_Z": r"$\langle z\rangle$",
}
"""Symbols of observables."""
UNITS = dict.fromkeys(LABELS, "cm") | {
    "E_tot": "GeV", "occupancy": "cells", "N_hits": "", "E_vis/E_inc": "", "E_dep/E_inc": "", "depth_mean": "$X_0$",
    "depth_spread": "$X_0$",
}  # fmt: skip
"""Units of observables; empty for pure numbers."""
TICKS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
"""Ticks of logarithmic axes of sizes, cm."""


def parameter_label(name: str) -> str:
    """Return the label of a parameter in figures."""
    stem, _, number = name.partition("_")
    return rf"${stem[0]}{stem[1:]}_{{{number}}}$" if number else f"${stem}$"


def axis_label(name: str) -> str:
    """Return the label of an observable's axis: its symbol with its unit."""
    return f"{LABELS[name]} [{UNITS[name]}]" if UNITS[name] else LABELS[name]


def plain_ticks(axis: Any, ends: tuple[float, float]) -> None:
    """Set ticks at round numbers between the ends of a logarithmic axis."""
    places = [v for v in TICKS if ends[0] * 0.999 <= v <= ends[1] * 1.001]
    axis.set_major_locator(FixedLocator(places))
    axis.set_major_formatter(lambda v, _: f"{v:g}")
    axis.set_minor_locator(NullLocator())


def png(draw: Callable[[], Figure], dpi: float = STYLE["savefig.dpi"], margin: float | None = None) -> bytes:
    """Draw a figure in the style of the reports.

    It is laid out once and drawn once. Left to itself, matplotlib's ``savefig`` does both twice.

    Args:
        draw: function that makes the figure.
        dpi: pixels an inch.
        margin: what is left around the contents, inches; None: the figure keeps its size.
    """
    with mpl.rc_context(rc=STYLE), BytesIO() as buffer:
        figure = draw()
        figure.dpi = dpi
        layout = figure.get_layout_engine()
        if layout is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)
        contents = None if margin is None else figure.get_tightbbox().padded(margin)
        figure.savefig(buffer, format="png", dpi=dpi, bbox_inches=contents, metadata={"Software": None})
        return buffer.getvalue()
