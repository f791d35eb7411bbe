"""The gallery's figures, from bundled data: `calograd.reports.plots` on a page's worth of axes each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch
from matplotlib.figure import Figure

from calograd import Design, Surrogate
from calograd.events.cells import read_cells
from calograd.metrics.observables import observe
from calograd.reports.plots import plot_event, plot_observable, plot_profile, style
from calograd.surrogate.storage import ASSETS

SHOWERS = 200


def showers(energy: float) -> torch.Tensor:
    """Generated at 2.5 x 6 cm."""
    generator = torch.Generator().manual_seed(0)
    return Surrogate.load("pbf2-cells").sample(Design(2.5, 6.0), energy, SHOWERS, generator=generator)


def events() -> Figure:
    """One shower of 50 GeV from the side and along the beam."""
    cells = showers(50.0)[0]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    side, front = figure.subplots(1, 2)
    plot_event(cells, 2.5, 6.0, side, "xz")
    plot_event(cells, 2.5, 6.0, front, "xy")
    return figure


def observables() -> Figure:
    """Observables at 50 GeV, generated against 200 bundled Geant4 showers."""
    reference = read_cells(ASSETS / "pbf2-sample" / "reference.h5")
    chosen = (reference.energy == 50) & (abs(reference.dx - 2.5) < 0.01)
    both = {
        "Geant4": observe(reference.cells[chosen], 2.5, torch.full((5,), 6.0)),
        "surrogate": observe(showers(50.0), 2.5, torch.full((5,), 6.0)),
    }
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("E_tot", "R_E", "z_mean"), strict=True):
        bins = torch.histogram(getattr(both["Geant4"], name), 20).bin_edges.tolist()
        for (label, found), colour in zip(both.items(), ("#1b1b1b", "#d1380e"), strict=True):
            plot_observable(getattr(found, name), axes, name, bins, label=label, color=colour)
        axes.legend()
    return figure


def profiles() -> Figure:
    """Mean profiles of 10 and 100 GeV."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    along, across = figure.subplots(1, 2)
    for energy, colour in ((10.0, "#2f6f9f"), (100.0, "#d1380e")):
        cells = showers(energy)
        plot_profile(cells, 2.5, 6.0, along, "z", color=colour, label=f"{energy:g} GeV")
        plot_profile(cells, 2.5, 6.0, across, "x", color=colour, label=f"{energy:g} GeV")
    for axes in (along, across):
        axes.set_yscale("log")
        axes.legend()
    return figure


GALLERY: tuple[Callable[[], Figure], ...] = (events, observables, profiles)


def write_learning_curves(folder: Path) -> None:
    """Figure and table of what validation/learning_curves.py measured, to be included in a page beside ``folder``."""
    root = Path(__file__).parent.parent / "validation"
    spec = spec_from_file_location("learning_curves", root / "learning_curves.py")
    assert spec is not None
    assert spec.loader is not None
    curves = module_from_spec(spec)
    spec.loader.exec_module(curves)
    done = json.loads((root / "learning-curves.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    with style():
        curves.draw(done).savefig(folder / "learning-curves.png", dpi=110)
    figure = "![Learning curves by shift and method.](learning-curves.png)"
    (folder / "learning-curves.md").write_text(f"{figure}\n\n{curves.table_of(done)}\n", encoding="utf-8")


def write_gallery(folder: Path) -> None:
    """The figures and a page that shows each with the code that drew it."""
    folder.mkdir(exist_ok=True)
    lines = ["# Gallery", "", "Made from bundled data when these pages are built, by `docs/pictures.py`."]
    for draw in GALLERY:
        with style():
            draw().savefig(folder / f"{draw.__name__}.png", dpi=110)
        caption = str(draw.__doc__)
        lines += ["", f"## {draw.__name__.capitalize()}", "", f"![{caption}]({draw.__name__}.png)", "", caption, "",
                  "```python", inspect.getsource(draw).rstrip(), "```"]  # fmt: skip
    (folder / "index.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
