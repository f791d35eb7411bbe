"""The display of an event, on the page's upper left: cells in space, or energies of the layers of a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from panel.layout import Column, FlexBox
from panel.pane import Bokeh
from panel.widgets import RadioButtonGroup

from calograd.explorer.cells import CellKind, CellView
from calograd.explorer.plots import LOOKS, EventDisplay, Layers, scene
from calograd.explorer.stacks import StackKind, StackView

ENERGIES = {"deposited": "deposited", "with background": "recorded", "after the mask": "kept"}
"""Energies of the displayed event by their names on the page; the values are fields of `Event`."""
PLATES = {"active plates": "visible", "absorbers": "absorbed"}
"""Plates of a layer by their names on the page."""
BUTTONS = 40
"""Height of the buttons above a display in pixels."""


class CellDisplay:
    """One shower in space.

    Args:
        kind: computes the event.
        height: height in pixels.
        changed: called when another energy is chosen.

    Attributes:
        panes: the Bokeh panes.
    """

    def __init__(self, kind: CellKind, height: int, changed: Callable[..., None]) -> None:
        self._kind = kind
        self.look = _buttons(LOOKS, "3-D")
        self.energies = _buttons(ENERGIES, "deposited")
        self.energies.param.watch(changed, "value")
        self.event = EventDisplay(height=height - BUTTONS, sizing_mode="stretch_width", margin=(0, 6))
        self.look.link(self.event, value="look")
        self.panes: list[Bokeh] = []

    def layout(self) -> Any:
        """Return buttons and display in a column."""
        return Column(FlexBox(self.look, self.energies, margin=0), self.event, sizing_mode="stretch_width")

    def show(self, view: CellView, number: int) -> None:
        """Show a shower of a view."""
        cells = getattr(self._kind.event(view, number), self.energies.value)
        words = next(name for name, field in ENERGIES.items() if field == self.energies.value)
        self.event.scene = scene(cells, view.selection, words, number, view.particle(number))


class StackDisplay:
    """Energies of the layers: mean and spread, and those of one shower.

    Args:
        kind: not used; there is nothing more to compute.
        height: height in pixels.
        changed: called when other plates or places are chosen.

    Attributes:
        panes: the Bokeh panes.
    """

    def __init__(self, kind: StackKind, height: int, changed: Callable[..., None]) -> None:  # noqa: ARG002
        self.plates = _buttons(PLATES, "visible")
        self.places = _buttons({"by layer": "layer", "by depth": "depth"}, "layer")
        for each in (self.plates, self.places):
            each.param.watch(changed, "value")
        self.layers = Layers(height - BUTTONS)
        self.panes = [Bokeh(self.layers.figure, sizing_mode="stretch_width", margin=(0, 2))]

    def layout(self) -> Any:
        """Return buttons and display in a column."""
        return Column(FlexBox(self.plates, self.places, margin=0), *self.panes, sizing_mode="stretch_width")

    def show(self, view: StackView, number: int) -> None:
        """Show the layers of a view, and of one of its showers."""
        ours, theirs = view.layers(self.plates.value)
        by_layer = self.places.value == "layer"
        x = np.arange(1, ours.shape[1] + 1) if by_layer else view.depths
        words = next(name for name, field in PLATES.items() if field == self.plates.value)
        label = "layer" if by_layer else "depth of the active plate [X₀]"
        self.layers.show(x, label, ours, number, theirs, f"the {words[:-1]}")


def _buttons(options: dict[str, str], value: str) -> RadioButtonGroup:
    return RadioButtonGroup(options=options, value=value, color="light", height=30, margin=(4, 8))
