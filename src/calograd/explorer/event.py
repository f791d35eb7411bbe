"""The event display: drawn by ``event.js`` on a canvas, in space and flat; it needs no WebGL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import param
from panel.custom import JSComponent

from calograd.explorer.selection import Choice

LOOKS = {"3-D": "3-D", "side": "side", "along the beam": "front"}
"""Ways to look at an event, by their names on the page."""
DECADES = 4
"""Of the colours, below the largest energy."""


class EventDisplay(JSComponent):  # type: ignore[misc]
    """One shower.

    Attributes:
        scene: what `scene` makes.
        look: one of `LOOKS`.
    """

    _esm = Path(__file__).with_name("event.js")
    scene = param.Dict(default={})
    look = param.Selector(default="3-D", objects=list(LOOKS.values()))


def scene(cells: np.ndarray, choice: Choice, what: str, number: int) -> dict[str, Any]:
    """What the display draws of cells, shape (n_xy, n_xy, n_z), GeV."""
    largest = float(cells.max())
    total = float(cells.sum())
    subtitle = f"{choice.energy:g} GeV in {choice.material}, cells of {choice.dx:g} cm, layers of {_depths(choice)} cm"
    return {
        "cells": np.round(np.asarray(cells, float), 9).tolist(), "dx": choice.dx, "dz": list(choice.dz),
        "top": max(largest, 1e-6), "decades": DECADES,
        "title": f"shower {number}, {what}: {total:.4g} GeV",
        "subtitle": subtitle,
        "beam": f"{choice.energy:g} GeV",
    }  # fmt: skip


def _depths(choice: Choice) -> str:
    return f"{choice.dz[0]:g}" if choice.equal else ", ".join(f"{depth:g}" for depth in choice.dz)
