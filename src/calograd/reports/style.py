"""The look of figures: colours, labels, and figures as data URIs for pages."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

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
    "m1_X": r"$\langle x\rangle$",
    "m1_Y": r"$\langle y\rangle$",
    "m1_Z": r"$\langle z\rangle$",
}
"""Symbols of observables."""
UNITS = dict.fromkeys(LABELS, "cm") | {"E_tot": "GeV", "occupancy": "cells", "N_hits": "", "E_vis/E_inc": ""}
"""Units of observables; empty for pure numbers."""


def axis_label(name: str) -> str:
    """Return the label of an observable's axis: its symbol with its unit."""
    return f"{LABELS[name]} [{UNITS[name]}]" if UNITS[name] else LABELS[name]


@dataclass(frozen=True)
class Picture:
    """A figure in a page.

    Args:
        uri: image as a data URI.
        caption: sentences below the figure.
        alt: text for screen readers.
    """

    uri: str
    caption: str
    alt: str


class Drawing(NamedTuple):
    """A figure to be drawn.

    Attributes:
        draw: function that draws it.
        caption, alt: as in `Picture`.
        group: part of the page that it belongs to.
    """

    draw: Callable[[], Figure]
    caption: str
    alt: str
    group: str = ""


def picture(draw: Callable[[], Figure], caption: str, alt: str) -> Picture:
    """Draw a figure in the style of the reports, as PNG."""
    with mpl.rc_context(rc=STYLE), BytesIO() as buffer:
        figure = draw()
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})
        encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/png;base64,{encoded}", caption, alt)
