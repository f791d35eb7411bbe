"""The explorer's page: controls, an event, a landscape, observables. A `Worker` computes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, singledispatchmethod
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from panel.io.notebook import push_notebook
from panel.layout import Column, Row
from panel.pane import HTML, Bokeh
from panel.viewable import Viewer
from panel.widgets import FileDownload

from calograd.errors import CaloGradError, InputError
from calograd.explorer import downloads
from calograd.explorer.cells import CellKind, CellSlope, CellView
from calograd.explorer.controls import CellControls, StackControls
from calograd.explorer.displays import CellDisplay, StackDisplay
from calograd.explorer.kinds import Selection, Slope, View
from calograd.explorer.landscape import Surface
from calograd.explorer.numbers import slope_html, table_html
from calograd.explorer.plots import Map, Steps, histograms
from calograd.explorer.stacks import StackKind, StackSlope, StackView
from calograd.explorer.views import Explorer
from calograd.explorer.worker import Complete, Converged, Failure, LandscapeProgress, Result, Step, Worker

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
WIDGETS: dict[type, tuple[Any, Any]] = {
    CellKind: (CellControls, CellDisplay), StackKind: (StackControls, StackDisplay),
}  # fmt: skip
"""Controls and display of the kinds of designs."""
DOWNLOADS: dict[str, tuple[str, Callable[[downloads.Snapshot], bytes]]] = {
    "TOML": ("design.toml", downloads.design_toml), "HDF5": ("showers.h5", downloads.showers_hdf5),
    "PNG": ("view.png", downloads.picture_png), "JSON": ("view.json", downloads.numbers_json),
    "HTML": ("view.html", downloads.page_html),
}  # fmt: skip
UPPER, LOWER = 446, 284
"""Heights of the upper and lower row of plots in pixels."""
STRIP, ABOUT, LINE = 62, 26, 18
"""Heights of the controls of the particle, of the facts of the design and of a line of derivatives in pixels; the upper
row is lower by them."""


class Page(Viewer):  # type: ignore[misc]
    """The page of one visitor. As the last line of a notebook's cell it is shown.

    Args:
        explorer: the explorer that computes.
        path: selections of an optimisation with their utilities, to show as a trajectory.
        query: parameters of the page's address, see `Limits.parse` of `calograd.explorer.kinds`.

    Attributes:
        view, slope, surface: the results that are shown; None before they are computed.
        message: the error that is shown, or an empty string.
        remark: the reason why an ascent ended at this selection, or an empty string.
    """

    def __init__(
        self,
        explorer: Explorer,
        path: list[tuple[Selection, float]] | None = None,
        query: Mapping[str, str] | None = None,
        **params: Any,
    ) -> None:
        super().__init__(**params)
        self.explorer = explorer
        self.view: View | None = None
        self.slope: Slope | None = None
        self.surface: Surface | None = None
        self.message = ""
        self.remark = ""
        self._refused = ""
        self._path = list(path or [])
        self._results = deque[Result]()
        self._document = pn.state.curdoc
        make_controls, make_display = WIDGETS[type(explorer.kind)]
        self.controls = make_controls(explorer.limits, self._changed)
        self.controls.ascend.on_click(self._ascend)
        self.controls.nearest.on_click(self._nearest)
        self.controls.nearest.visible = explorer.reference.offered
        self.controls.event.param.watch(self._draw_event, "value")
        start, labels = explorer.start(), explorer.limits.labels
        self._strip = self.controls.strip()
        upper = UPPER - (STRIP if self._strip is not None else 0) - (ABOUT if labels.about else 0)
        self.display = make_display(explorer.kind, upper, self._draw_event)
        self.map = Map(explorer.limits.axes(start), upper - 4 - LINE * labels.lines, self._clicked)
        self.histograms = {
            name: Steps(label, "share of showers", LOWER, legend=number == 0)
            for number, (name, label) in enumerate(labels.histograms.items())
        }
        x_label, y_label = labels.profile
        self.profile = Steps(x_label, y_label, LOWER)
        figures = [self.map.figure, *(each.figure for each in self.histograms.values()), self.profile.figure]
        self._plots = [Bokeh(each, sizing_mode="stretch_width", margin=(0, 2)) for each in figures]
        self.bar, self.error, self.about, self.utility, self.table = (
            HTML("", stylesheets=[CSS], sizing_mode="stretch_width", margin=0) for _ in range(5)
        )
        self.downloads = [self._download(name) for name in DOWNLOADS]
        self._layout = self._arrange()
        self._draw_path()
        self.worker = Worker(explorer, self._publish)
        if self._document is not None:
            pn.state.on_session_destroyed(lambda _: self.worker.stop())
        self._open(query or {})

    def __panel__(self) -> Any:
        return self._layout

    def _arrange(self) -> Any:
        plots = Column(
            *([] if self._strip is None else [self._strip]),
            self.about,
            Row(
                self.display.layout(),
                Column(self.utility, self._plots[0], sizing_mode="stretch_width"),
            ),
            Row(*self._plots[1:], sizing_mode="stretch_width"),
            self.table,
            sizing_mode="stretch_width", margin=(4, 10),
        )  # fmt: skip
        controls = self.controls.layout(self.downloads, CSS)
        self.error.visible = self.about.visible = False
        return Column(
            self.bar, self.error, Row(controls, plots, sizing_mode="stretch_width", margin=0),
            sizing_mode="stretch_width", margin=0, min_width=1180, css_classes=["explorer"],
        )  # fmt: skip

    def _open(self, query: Mapping[str, str]) -> None:
        """Show the selection of an address; an error in it is shown beside the selection that a page opens with."""
        try:
            selection = self.explorer.limits.parse(query)
            self.explorer.check(selection)
        except CaloGradError as error:
            self._refused = " ".join(str(error).split())
            self._tell(self._refused)
            self._ask("computing")
        else:
            self.controls.move(selection)

    def _changed(self) -> None:
        self._refused = ""
        self._ask("computing")

    def _ask(self, text: str, *, ascend: bool = False) -> None:
        """Request the results of the selection."""
        self.remark = ""
        if (selection := self._selection()) is not None:
            self._state(text, busy=True)
            self.worker.ask(selection, ascend=ascend)

    def _selection(self) -> Any:
        """Return the selection that the controls show; None, and an error on the page, if there is none such."""
        try:
            return self.controls.selection()
        except InputError as error:
            self.worker.drop()
            self._show(Failure(str(error)))
            return None

    def _ascend(self, _: Any) -> None:
        self._path = []
        self._draw_path()
        self._ask("following the gradient", ascend=True)

    def _nearest(self, _: Any) -> None:
        if (selection := self._selection()) is None:
            return
        found = self.explorer.reference.nearest(selection)
        if found is None:
            self._tell("no bundled Geant4 showers fit this surrogate; simulate some: calograd simulate --help")
        else:
            self.controls.move(found.move(selection))

    def _clicked(self, x: float, y: float) -> None:
        """Go to a design on the map."""
        if (selection := self._selection()) is not None:
            self.controls.move(self.explorer.limits.moved(selection, x, y))

    def _publish(self, result: Result) -> None:
        """Show a result; called from the worker's thread."""
        if self._document is None:
            self._show(result)
            push_notebook(*self._plots, *self.display.panes)
        else:
            with suppress(RuntimeError):  # the visitor has left
                self._results.append(result)
                self._document.add_next_tick_callback(partial(self._show_pending))

    def _show_pending(self) -> None:
        """Show all results that are not shown, in their order.

        Callbacks of a busy document need not run in theirs, and one that is added while a page opens may be lost.
        """
        while self._results:
            self._show(self._results.popleft())

    @singledispatchmethod
    def _show(self, result: Any) -> None:
        raise TypeError(f"nothing shows {type(result).__name__}")

    @_show.register
    def _(self, view: CellView | StackView) -> None:
        if self.view is None or self.view.selection != view.selection:
            self.map.here(view.selection, self.explorer.limits.axes(view.selection))
            self.slope = None
            self.utility.object = '<div class="utility old">derivatives: as soon as the design rests</div>'
        self._tell(self._refused)
        self.view = view
        self._draw_event()
        for name, histogram in self.histograms.items():
            ours, theirs = view.values(name)
            if len(ours):
                histogram.show(*histograms(ours, theirs), view.caption(name))
        self.profile.show(*view.profile())
        about = view.about()
        self.about.object, self.about.visible = f'<div class="about">{escape(about)}</div>', bool(about)
        self.table.object = table_html(view)
        how = f"preview, {view.steps} steps" if view.steps else f"of {self.explorer.kind.showers}"
        self._state(f"{len(view)} showers {how} · {view.milliseconds:.0f} ms", busy=True)

    @_show.register
    def _(self, slope: CellSlope | StackSlope) -> None:
        self.slope = slope
        self.map.slope(slope)
        self.utility.object = f'<div class="utility">{slope_html(slope)}</div>'

    @_show.register
    def _(self, surface: Surface) -> None:
        self.surface = surface
        self.map.surface(surface)
        self.map.note(self.remark)

    @_show.register
    def _(self, progress: LandscapeProgress) -> None:
        self.map.note(f"landscape at {progress.selection.energy:g} GeV: {100 * progress.share:.0f} %")

    @_show.register
    def _(self, step: Step) -> None:
        self._path.append((step.selection, step.value))
        self._draw_path()
        axes = self.explorer.limits.axes(step.selection)
        self._state(f"step {step.number}: {axes.quantity} = {step.value:.4g} {axes.unit}", busy=True)

    @_show.register
    def _(self, converged: Converged) -> None:
        self._tell("")
        self.controls.move(self._path[-1][0].rounded())
        self.remark = f"the ascent ended: {converged.reason.partition(':')[0]}"
        self.map.note(self.remark)

    @_show.register
    def _(self, failure: Failure) -> None:
        self._tell(failure.message)
        self._state("not computed", busy=False)

    @_show.register
    def _(self, _: Complete) -> None:
        assert self.view is not None
        self._state(f"{len(self.view)} showers, gradient and landscape are complete", busy=False)
        self.map.note(self.remark)

    def _draw_event(self, *_: Any) -> None:
        if self.view is None:
            return
        self.display.show(self.view, int(self.controls.event.value))

    def _draw_path(self) -> None:
        self.map.path([selection.place for selection, _ in self._path], [value for _, value in self._path])

    def _tell(self, message: str) -> None:
        """Show an error in one line; an empty one hides it."""
        self.message = message
        self.error.object = f'<div class="error" role="alert">{escape(message)}</div>' if message else ""
        self.error.visible = bool(message)

    def _state(self, text: str, *, busy: bool) -> None:
        name, at = escape(self.explorer.surrogate.card.name), self.view.selection if self.view else ""
        self.bar.object = (
            f'<div class="bar"><b>CaloGrad explorer</b><span class="model">{name}</span>'
            f'<span class="model">{escape(str(at))}</span>'
            f'<span class="state {"busy" if busy else "done"}">{escape(text)}</span></div>'
        )

    def _download(self, name: str) -> FileDownload:
        file, make = DOWNLOADS[name]
        return FileDownload(
            callback=partial(self._keep, make), filename=file, label=name, color="default", icon=None,
            width=52, margin=(2, 1), styles={"font-size": "11px"},
        )  # fmt: skip

    def _keep(self, make: Callable[[downloads.Snapshot], bytes]) -> BytesIO:
        """Return the content of a download; it is empty before anything is shown."""
        if self.view is None:
            return BytesIO()
        path = np.array([selection.place for selection, _ in self._path]).reshape(-1, 2)
        snapshot = downloads.Snapshot(
            self.explorer.surrogate.card.name, self.explorer.kind, self.view, self.slope, self.surface, path,
            int(self.controls.event.value),
        )  # fmt: skip
        return BytesIO(make(snapshot))
