"""How figures look, and how they become part of an HTML page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

GEANT4 = "#1b1b1b"
SURROGATE = "#d1380e"
SURROGATE_LIGHT = "#f4b9a5"
KEPT = "#e3efe6"
MISSED = "#b3001b"

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
}
UNITS = dict.fromkeys(LABELS, "cm") | {"E_tot": "GeV", "occupancy": "cells"}


@dataclass(frozen=True)
class Picture:
    """A figure as it stands in the page: a data URI, what it shows, and what a screen reader says."""

    uri: str
    caption: str
    alt: str


def picture(draw: Callable[[], Figure], caption: str, alt: str) -> Picture:
    """Draw a figure in the style of the report, as PNG."""
    with mpl.rc_context(rc=STYLE), BytesIO() as buffer:
        figure = draw()
        figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})
        encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/png;base64,{encoded}", caption, alt)
