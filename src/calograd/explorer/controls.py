"""Sliders and buttons of the page, and the selection that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil, floor, log10
from typing import Any

from panel.layout import Column, FlexBox, Row
from panel.pane import HTML
from panel.widgets import Button, Checkbox, EditableFloatSlider, FileDownload, FloatSlider, IntSlider, Select

from calograd.detector.material import to_float
from calograd.detector.particles import ParticleBeam
from calograd.explorer.cell_selection import MOST_BACKGROUND, MOST_PRICE, STRETCH, CellLimits, CellSelection
from calograd.explorer.cells import PREVIEW
from calograd.explorer.stack_selection import StackLimits, StackSelection

WIDTH, HEIGHT = 292, 856
"""Width and height of the sidebar in pixels."""
NARROW = 158
"""Width of the sliders of the particle in pixels."""
STEPS = 30
"""Fewest steps of a slider of thicknesses."""
FULL_TURN = (0.0, 360.0)
"""Azimuths that the page offers, degrees."""


class Controls(ABC):
    """Sliders and buttons of a page; a kind of designs has its own sliders.

    Args:
        changed: called when the selection may have changed.

    Attributes:
        event: slider with the index of the displayed shower.
        ascend: button that follows the gradient.
        nearest: button that goes to the nearest Geant4 showers.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._moving = False
        self.event = IntSlider(label="displayed shower", start=0, end=PREVIEW - 1, value=0, width=WIDTH - 26,
                               margin=(2, 8))  # fmt: skip
        half = (WIDTH - 44) // 2
        self.ascend = Button(label="follow the gradient", color="primary", width=half, margin=(6, 4, 4, 8))
        self.nearest = Button(label="nearest Geant4", width=half, margin=(6, 8, 4, 4))

    @abstractmethod
    def selection(self) -> Any:
        """Return the selection that the widgets show. Raises `InputError` for one that is none."""

    @abstractmethod
    def strip(self) -> Any:
        """Return the widgets above the plots in a row; None if there are none."""

    @abstractmethod
    def _groups(self) -> list[tuple[str, list[Any]]]:
        """Return the titles of groups of widgets, and the widgets; an empty title continues the group."""

    @abstractmethod
    def _show(self, selection: Any) -> None:
        """Show a selection."""

    def layout(self, downloads: list[FileDownload], css: str) -> Any:
        """Return all widgets in a column."""
        groups = [*self._groups(), ("event", [self.event]), ("download this view", [Row(*downloads, margin=(0, 4))])]
        widgets = []
        for title, group in groups:
            head = HTML(f'<div class="head">{title}</div>', stylesheets=[css], margin=(2, 4, 0, 4))
            widgets += [head, *group]
        return Column(
            *widgets, width=WIDTH, min_height=HEIGHT, margin=0,
            styles={"background": "#f6f7f8", "border-right": "1px solid #dcdfe2", "align-self": "stretch"},
        )  # fmt: skip

    def move(self, selection: Any) -> None:
        """Show a selection; ``changed`` is called once."""
        self._quietly(lambda: self._show(selection))
        self._changed()

    def _moved(self, _: Any) -> None:
        if not self._moving:
            self._changed()

    def _quietly(self, change: Callable[[], None]) -> None:
        """Change widgets as part of one change."""
        moving, self._moving = self._moving, True
        try:
            change()
        finally:
            self._moving = moving


class CellControls(Controls):
    """Sliders of pitch, depths, material, background, price, and of the particle where there are several.

    Args:
        limits: limits of the surrogate.
        changed: see `Controls`.
    """

    def __init__(self, limits: CellLimits, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self._limits = limits
        start = limits.start()
        self._place = (0.0, 0.0)
        self.dx = _slider("pitch dx [cm]", limits.dx, 0.05, start.dx, "0.00")
        self.dz = _slider("depth of all layers dz [cm]", limits.dz, 0.1, start.dz[0], "0.0")
        self.layers = [
            FloatSlider(label=f"depth of layer {k + 1} [cm]", start=limits.dz[0], end=limits.dz[1], step=0.1, value=dz,
                        format="0.0", width=WIDTH - 26, margin=(0, 8))
            for k, dz in enumerate((*start.dz, *start.dz[-1:] * (limits.n_z - start.n_z)))
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
        self._make_particle(start)
        self.own = Column(*self.layers, visible=False, margin=0)
        self._show_layers()
        self._watch()

    def _make_particle(self, start: CellSelection) -> None:
        """Make the widgets of particle, entry, direction and window."""
        self.n_xy = Select(
            label="cells across", options=self._limits.windows, value=start.n_xy, width=88, margin=(0, 6)
        )
        self.n_z = Select(label="layers", options=self._limits.layers, value=start.n_z, width=70, margin=(0, 6))
        particles, theta = (
            (self._limits.beam.particles, self._limits.beam.theta) if self._limits.beam else (("gamma",), (0.0, 0.0))
        )
        self.particle = Select(label="particle", options=list(particles), value=particles[0], width=86, margin=(0, 6))
        half_cell = (-start.dx / 2, start.dx / 2)
        self.x = _narrow("entry x [cm]", half_cell, 0.01, "0.00")
        self.y = _narrow("entry y [cm]", half_cell, 0.01, "0.00")
        self.uniform = Checkbox(label="all over the cell", value=False, width=112, margin=(20, 4, 0, 4))
        self.theta = _narrow("theta [°]", (theta[0], max(theta[1], theta[0] + 1)), 0.5, "0.0", theta[0])
        self.theta.visible = theta[1] > theta[0]
        self.phi = _narrow("phi [°]", FULL_TURN, 1.0, "0")

    def _watch(self) -> None:
        """Follow changes of the widgets."""
        for slider in (self.dz, self.energy, self.density, self.background, self.price, self.theta, self.phi,
                       self.particle, self.n_xy, *self.layers):  # fmt: skip
            slider.param.watch(self._moved, "value")
        self.dx.param.watch(self._repitched, "value")
        self.n_z.param.watch(self._layered, "value")
        for slider in (self.x, self.y):
            slider.param.watch(self._entered, "value")
        self.uniform.param.watch(self._spread, "value")
        self.unequal.param.watch(self._split, "value")
        self.material.param.watch(self._swapped, "value")

    def _groups(self) -> list[tuple[str, list[Any]]]:
        return [
            ("design", [self.dx, self.dz, self.unequal, self.own, self.material, self.density]),
            ("beam and background", [self.energy, self.background]),
            ("utility", [self.price, Row(self.ascend, self.nearest, margin=0)]),
        ]

    def strip(self) -> Any:
        """Return the widgets of particle, entry, direction and window in a row; None where there is one beam."""
        if self._limits.beam is None:
            return None
        return FlexBox(
            self.particle, self.x, self.y, self.uniform, self.theta, self.phi, self.n_xy, self.n_z,
            margin=(2, 0), sizing_mode="stretch_width", styles={"border-bottom": "1px solid #dcdfe2"},
        )  # fmt: skip

    def selection(self) -> CellSelection:
        """Return the selection that the widgets show. Raises `InputError` for angles that are none."""
        n_z = int(self.n_z.value)
        depths = [layer.value for layer in self.layers[:n_z]] if self.unequal.value else [self.dz.value] * n_z
        beam = None
        if self._limits.beam is not None:
            entry: Any = "uniform" if self.uniform.value else self._place
            beam = ParticleBeam(
                str(self.particle.value), entry, float(self.theta.value), float(self.phi.value), "pitch"  # type: ignore[arg-type]
            )  # fmt: skip
        return CellSelection(
            float(self.dx.value), tuple(float(depth) for depth in depths), float(self.energy.value),
            str(self.material.value), float(self.density.value), float(self.background.value),
            float(self.price.value), n_xy=int(self.n_xy.value), beam=beam,
        )  # fmt: skip

    def _show(self, selection: CellSelection) -> None:
        self.material.value = selection.material
        self.density.value = selection.density
        self.dx.value, self.dz.value, self.energy.value = selection.dx, selection.depth, selection.energy
        self.background.value, self.price.value = selection.background, selection.price
        self.n_xy.value, self.n_z.value = selection.n_xy, selection.n_z
        for layer, depth in zip(self.layers, selection.dz, strict=False):
            layer.value = depth
        self.unequal.value = not selection.equal
        self._show_layers()
        if selection.beam is not None:
            position = selection.beam.position
            self.uniform.value, self.particle.value = isinstance(position, str), selection.beam.particle
            self.theta.value, self.phi.value = selection.beam.theta, selection.beam.phi
            if not isinstance(position, str):
                self._place = position
            self._show_entry()

    def _repitched(self, _: Any) -> None:
        """Keep the place of the entry in a cell of another pitch."""
        if not self._moving and self._limits.beam is not None and self.dx.value > 0:
            self._quietly(self._show_entry)
        self._moved(None)

    def _entered(self, _: Any) -> None:
        """Take the place in the cell from the sliders."""
        if not self._moving:
            self._place = float(self.x.value) / self.dx.value, float(self.y.value) / self.dx.value
        self._moved(None)

    def _spread(self, _: Any) -> None:
        self.x.disabled = self.y.disabled = bool(self.uniform.value)
        self._moved(None)

    def _layered(self, _: Any) -> None:
        self._show_layers()
        self._moved(None)

    def _show_entry(self) -> None:
        """Show the entry in cm, in sliders that end at the cell's edges."""
        pitch = float(self.dx.value)
        for slider, share in zip((self.x, self.y), self._place, strict=True):
            slider.param.update(start=-pitch / 2, end=pitch / 2, value=share * pitch)

    def _show_layers(self) -> None:
        """Show sliders of the layers that there are."""
        for k, layer in enumerate(self.layers):
            layer.visible = k < self.n_z.value

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
                there = self.layers[: self.n_z.value]
                self.dz.value = round(sum(layer.value for layer in there) / len(there), 3)
        finally:
            self._moving = False
        self._changed()

    def _swapped(self, _: Any) -> None:
        """Set the density to that of another material."""
        material = self._limits.materials[str(self.material.value)]
        middle = to_float(material.density)
        ends = {"start": (1 - STRETCH) * middle, "end": (1 + STRETCH) * middle}
        self._quietly(lambda: self.density.param.update(**ends, value=middle))
        self._moved(None)


class StackControls(Controls):
    """Widgets of materials, thicknesses and number of layers of a stack, and of the beam.

    Args:
        limits: limits of the surrogate.
        changed: see `Controls`.
    """

    def __init__(self, limits: StackLimits, changed: Callable[[], None]) -> None:
        super().__init__(changed)
        self._limits = limits
        start, beam = limits.start(), limits.trained.beam
        wide = {"width": WIDTH - 26, "margin": (4, 8)}
        self.absorber = Select(label="absorber", options=limits.absorbers, value=start.absorber, **wide)
        self.active = Select(
            label="active material", options=limits.actives(start.absorber), value=start.active, **wide
        )  # fmt: skip
        first, second = limits.sizes(start)
        self.absorber_thickness = _slider("thickness of every absorber [cm]", first, 0.01, start.absorber_thickness,
                                          "0.[0000]")  # fmt: skip
        self.active_thickness = _slider("thickness of every active plate [cm]", second, 0.01, start.active_thickness,
                                        "0.[0000]")  # fmt: skip
        low, high = limits.trained.layers
        self.n_layers = IntSlider(label="layers", start=low, end=high, value=start.n_layers, width=WIDTH - 26,
                                  margin=(2, 8))  # fmt: skip
        self.particle = Select(label="particle", options=list(beam.particles), value=start.particle, **wide)
        self.energy = _slider("energy [GeV]", limits.card.energy, 1.0, start.energy, "0.0")
        self.theta = _slider("theta [°]", (beam.theta[0], max(beam.theta[1], beam.theta[0] + 1)), 0.5, start.theta,
                             "0.0")  # fmt: skip
        self.theta.visible = beam.theta[1] > beam.theta[0]
        self._fit()
        self.absorber.param.watch(self._swapped, "value")
        self.active.param.watch(self._fitted, "value")
        for widget in (self.absorber_thickness, self.active_thickness, self.n_layers, self.particle, self.energy,
                       self.theta):  # fmt: skip
            widget.param.watch(self._moved, "value")

    def selection(self) -> StackSelection:
        """Return the selection that the widgets show."""
        return StackSelection(
            str(self.absorber.value), str(self.active.value), float(self.absorber_thickness.value),
            float(self.active_thickness.value), int(self.n_layers.value), float(self.energy.value),
            str(self.particle.value), float(self.theta.value),
        )  # fmt: skip

    def strip(self) -> None:
        """Return None: all widgets are beside the plots."""

    def _groups(self) -> list[tuple[str, list[Any]]]:
        return [
            ("stack", [self.absorber, self.absorber_thickness, self.active, self.active_thickness, self.n_layers]),
            ("beam", [self.particle, self.energy, self.theta]),
            ("energy resolution", [Row(self.ascend, self.nearest, margin=0)]),
        ]

    def _show(self, selection: StackSelection) -> None:
        self.absorber.value = selection.absorber
        self.active.options = self._limits.actives(selection.absorber)
        self.active.value = selection.active
        self._fit()
        self.absorber_thickness.value, self.active_thickness.value = selection.place
        self.n_layers.value, self.energy.value = selection.n_layers, selection.energy
        self.particle.value, self.theta.value = selection.particle, selection.theta

    def _swapped(self, _: Any) -> None:
        """Offer the active materials that were trained on with another absorber."""

        def change() -> None:
            actives = self._limits.actives(str(self.absorber.value))
            active = self.active.value if self.active.value in actives else actives[0]
            self.active.param.update(options=actives, value=active)

        if not self._moving:
            self._quietly(change)
        self._fitted(None)

    def _fitted(self, _: Any) -> None:
        """Move thicknesses into the range of other materials."""
        if not self._moving:
            self._quietly(lambda: self._show(self._limits.nearest(self.selection())))
        self._moved(None)

    def _fit(self) -> None:
        """Let the sliders of thicknesses end where the range of the materials does, at round numbers."""
        ranges = self._limits.sizes(self.selection())
        for slider, (low, high) in zip((self.absorber_thickness, self.active_thickness), ranges, strict=True):
            step = 10.0 ** floor(log10(high / STEPS))
            slider.param.update(start=round(ceil(low / step - 1e-6) * step, 6),
                                end=round(floor(high / step + 1e-6) * step, 6), step=step)  # fmt: skip


def _slider(name: str, ends: tuple[float, float], step: float, value: float, shown: str) -> EditableFloatSlider:
    return EditableFloatSlider(
        label=name, start=ends[0], end=ends[1], step=step, value=value, format=shown, width=WIDTH - 26, margin=(0, 8)
    )


def _narrow(name: str, ends: tuple[float, float], step: float, shown: str, value: float = 0.0) -> FloatSlider:
    return FloatSlider(
        label=name, start=ends[0], end=ends[1], step=step, value=value, format=shown, width=NARROW, margin=(4, 8)
    )


def _densities(start: CellSelection) -> tuple[float, float]:
    return (1 - STRETCH) * start.density, (1 + STRETCH) * start.density
