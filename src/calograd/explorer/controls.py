"""Sliders and buttons of the page, and the selection that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from panel.layout import Column, Row
from panel.pane import HTML
from panel.widgets import Button, Checkbox, EditableFloatSlider, FileDownload, FloatSlider, IntSlider, Select

from calograd.detector.material import to_float
from calograd.explorer.selection import MOST_BACKGROUND, MOST_PRICE, STRETCH, Selection, SelectionLimits
from calograd.explorer.views import PREVIEW

WIDTH, HEIGHT = 292, 856
"""Width and height of the sidebar in pixels."""


class Controls:
    """Sliders and buttons.

    Args:
        limits: limits of the surrogate.
        changed: called when the selection may have changed.

    Attributes:
        event: slider with the index of the displayed shower.
        ascend: button that follows the gradient.
        nearest: button that goes to the nearest bundled Geant4 showers.
    """

    def __init__(self, limits: SelectionLimits, changed: Callable[[], None]) -> None:
        self._limits = limits
        self._changed = changed
        self._moving = False
        start = limits.start()
        self.dx = _slider("pitch dx [cm]", limits.dx, 0.05, start.dx, "0.00")
        self.dz = _slider("depth of all layers dz [cm]", limits.dz, 0.1, start.dz[0], "0.0")
        self.layers = [
            FloatSlider(label=f"depth of layer {k + 1} [cm]", start=limits.dz[0], end=limits.dz[1], step=0.1, value=dz,
                        format="0.0", width=WIDTH - 26, margin=(0, 8))
            for k, dz in enumerate(start.dz)
        ]  # fmt: skip
        self.unequal = Checkbox(label="every layer its own depth", value=False, margin=(0, 8), visible=limits.unequal)
        self.energy = _slider("energy [GeV]", limits.energy, 1.0, start.energy, "0.0")
        self.material = Select(
            label="material", options=list(limits.materials), value=start.material, width=WIDTH - 26, margin=(4, 8)
        )
        self.density = _slider("density [g/cm³]", _densities(start), 0.01, start.density, "0.00")
        self.density.visible = limits.densities
        self.background = _slider("background at the front [MeV/cm³]", (0.0, MOST_BACKGROUND), 0.5,
                                  start.background, "0.0")  # fmt: skip
        self.price = _slider("price of depth [1/X₀]", (0.0, MOST_PRICE), 0.005, start.price, "0.000")
        self.event = IntSlider(label="displayed shower", start=0, end=PREVIEW - 1, value=0, width=WIDTH - 26,
                               margin=(2, 8))  # fmt: skip
        half = (WIDTH - 44) // 2
        self.ascend = Button(label="follow the gradient", color="primary", width=half, margin=(6, 4, 4, 8))
        self.nearest = Button(label="nearest Geant4", width=half, margin=(6, 8, 4, 4))
        for slider in (self.dx, self.dz, self.energy, self.density, self.background, self.price, *self.layers):
            slider.param.watch(self._moved, "value")
        self.unequal.param.watch(self._split, "value")
        self.material.param.watch(self._swapped, "value")
        self.own = Column(*self.layers, visible=False, margin=0)

    def layout(self, downloads: list[FileDownload], css: str) -> Any:
        """Return all widgets in a column."""

        def head(text: str) -> HTML:
            return HTML(f'<div class="head">{text}</div>', stylesheets=[css], margin=(2, 4, 0, 4))

        return Column(
            head("design"), self.dx, self.dz, self.unequal, self.own, self.material, self.density,
            head("beam and background"), self.energy, self.background,
            head("utility"), self.price, Row(self.ascend, self.nearest, margin=0),
            head("event"), self.event, head("download this view"), Row(*downloads, margin=(0, 4)),
            width=WIDTH, min_height=HEIGHT, margin=0,
            styles={"background": "#f6f7f8", "border-right": "1px solid #dcdfe2", "align-self": "stretch"},
        )  # fmt: skip

    def selection(self) -> Selection:
        """Return the selection that the widgets show."""
        depths = [layer.value for layer in self.layers] if self.unequal.value else [self.dz.value] * self._limits.n_z
        return Selection(
            float(self.dx.value), tuple(float(depth) for depth in depths), float(self.energy.value),
            str(self.material.value), float(self.density.value), float(self.background.value),
            float(self.price.value),
        )  # fmt: skip

    def move(self, selection: Selection) -> None:
        """Show a selection; ``changed`` is called once."""
        self._moving = True
        try:
            self.material.value = selection.material
            self.density.value = selection.density
            self.dx.value, self.dz.value, self.energy.value = selection.dx, selection.depth, selection.energy
            for layer, depth in zip(self.layers, selection.dz, strict=True):
                layer.value = depth
            self.unequal.value = not selection.equal
        finally:
            self._moving = False
        self._changed()

    def _moved(self, _: Any) -> None:
        if not self._moving:
            self._changed()

    def _split(self, _: Any) -> None:
        """Switch between one depth and one a layer; the sizes stay."""
        own = bool(self.unequal.value)
        self.own.visible, self.dz.visible = own, not own
        if self._moving:
            return
        self._moving = True
        try:
            if own:
                for layer in self.layers:
                    layer.value = self.dz.value
            else:
                self.dz.value = round(sum(layer.value for layer in self.layers) / len(self.layers), 3)
        finally:
            self._moving = False
        self._changed()

    def _swapped(self, _: Any) -> None:
        """Set the density to that of another material."""
        material = self._limits.materials[str(self.material.value)]
        middle = to_float(material.density)
        moving, self._moving = self._moving, True
        try:
            self.density.param.update(start=(1 - STRETCH) * middle, end=(1 + STRETCH) * middle, value=middle)
        finally:
            self._moving = moving
        self._moved(None)


def _slider(name: str, ends: tuple[float, float], step: float, value: float, shown: str) -> EditableFloatSlider:
    return EditableFloatSlider(
        label=name, start=ends[0], end=ends[1], step=step, value=value, format=shown, width=WIDTH - 26, margin=(0, 8)
    )


def _densities(start: Selection) -> tuple[float, float]:
    return (1 - STRETCH) * start.density, (1 + STRETCH) * start.density
