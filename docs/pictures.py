"""Pictures of the documentation, from bundled data and from the tables of the results pages.

    python docs/pictures.py [NAME ...]      # make pictures: docs/overview.png and docs/results/figures/*.png
    python docs/pictures.py explorer        # docs/explorer.png, with Chromium

The gallery is drawn at every build of the documentation. The overview and the figures of the results pages are kept in
the repository, so that they show where the pages are read as they are.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from calograd import (
    Cells,
    Design,
    ExponentialBackground,
    Measurement,
    Objective,
    SquaredError,
    Surrogate,
    evaluate,
    gradient,
    observe,
    optimise,
    plot_event,
    plot_observable,
    plot_profile,
    read_cells,
    style,
)
from calograd.demo.chain import bundled_entries
from calograd.gradients.landscape import Landscape
from calograd.io.toml import read_toml
from calograd.reports.gradient import draw_gradients
from calograd.reports.reconstruction import draw_entries
from calograd.reports.style import GEANT4, LABELS, SURROGATE
from calograd.surrogate.generation import generate, rows_like
from calograd.surrogate.storage import ASSETS

DOCS = Path(__file__).parent
BLUE = "#2f6f9f"
VIOLET = "#7a1fa2"
GREY = "#9aa0a6"


def showers(energy: float, n: int = 200) -> torch.Tensor:
    """Generate showers at 2.5 x 6 cm."""
    generator = torch.Generator().manual_seed(0)
    return Surrogate.load("pbf2-cells-fast").sample(Design(2.5, 6.0), energy, n, generator=generator)


@cache
def geant4() -> Cells:
    """Return the bundled Geant4 showers: 200 at each of eleven energies and three designs."""
    return read_cells(ASSETS / "pbf2-sample" / "reference.h5")


def geant4_showers(energy: float, dx: float = 2.5) -> np.ndarray:
    """Return the bundled Geant4 showers of one energy and pitch."""
    reference = geant4()
    return reference.cells[(reference.energy == energy) & (abs(reference.dx - dx) < 0.01)]


# The gallery: drawn at every build, each with its code.


def events() -> Figure:
    """One generated shower of 50 GeV from the side and along the beam."""
    cells = showers(50.0)[0]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    side, front = figure.subplots(1, 2)
    plot_event(cells, 2.5, 6.0, side, "xz")
    plot_event(cells, 2.5, 6.0, front, "xy")
    return figure


def observables() -> Figure:
    """Observables at 50 GeV, generated against 200 bundled Geant4 showers."""
    depths = torch.full((5,), 6.0)
    both = {"Geant4": observe(geant4_showers(50.0), 2.5, depths), "surrogate": observe(showers(50.0), 2.5, depths)}
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("E_tot", "R_E", "z_mean"), strict=True):
        values = np.concatenate([getattr(found, name).numpy() for found in both.values()])
        bins = np.linspace(*np.quantile(values, (0.005, 0.995)), 21).tolist()  # one far shower would leave two bins
        for (label, found), colour in zip(both.items(), (GEANT4, SURROGATE), strict=True):
            plot_observable(getattr(found, name), axes, name, bins, label=label, color=colour)
        axes.legend()
    return figure


def profiles() -> Figure:
    """Mean profiles of 10 and 100 GeV along and across the shower."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    along, across = figure.subplots(1, 2)
    for energy, colour in ((10.0, BLUE), (100.0, SURROGATE)):
        cells = showers(energy)
        plot_profile(cells, 2.5, 6.0, along, "z", color=colour, label=f"{energy:g} GeV")
        plot_profile(cells, 2.5, 6.0, across, "x", color=colour, label=f"{energy:g} GeV")
    for axes in (along, across):
        axes.set_yscale("log")
        axes.legend()
    return figure


def response() -> Figure:
    """Deposited share of the energy against energy for three depths of a layer, with the standard error."""
    surrogate = Surrogate.load("pbf2-cells-fast")
    energies = np.geomspace(1, 100, 9)
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    for dz, colour in ((4.0, BLUE), (5.0, VIOLET), (6.0, SURROGATE)):
        totals = [
            surrogate.sample(Design(2.5, dz), float(e), 1000, generator=torch.Generator().manual_seed(0)).sum((1, 2, 3))
            for e in energies
        ]
        pairs = zip(totals, energies, strict=True)
        shares = np.array([(float(t.mean() / e), float(t.std() / e / 1000**0.5)) for t, e in pairs]).T
        axes.errorbar(energies, shares[0], shares[1], fmt="o-", ms=3, lw=1, color=colour, label=f"dz = {dz:g} cm")
    axes.set_xscale("log")
    axes.set_xlabel("incident energy [GeV]")
    axes.set_ylabel(r"mean $E_\mathrm{tot}$ / E")
    axes.legend()
    return figure


def points() -> Figure:
    """Points of one photon shower of 50 GeV in the silicon-tungsten stack, from the side and along the beam."""
    shower = Surrogate.load("siw-cloud-cm").sample(50.0, 1, generator=torch.Generator().manual_seed(0))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    side, front = figure.subplots(1, 2, width_ratios=[1.5, 1])
    colours = LogNorm(0.05, 20)
    size = 40 * shower.e.sqrt() / shower.e.max().sqrt()
    for axes, along in ((side, shower.layer), (front, shower.x)):
        across = shower.x if axes is side else shower.y
        axes.scatter(
            along, across, s=size, c=1e3 * shower.e, cmap="YlGnBu", norm=colours, linewidths=0.2, edgecolors=GREY
        )
        axes.set_ylim(-6, 6)
    side.set_xlabel("layer")
    side.set_ylabel("x [cm]")
    front.set_xlim(-6, 6)
    front.set_xlabel("x [cm]")
    front.set_ylabel("y [cm]")
    figure.colorbar(front.collections[0], ax=(side, front), label="energy of a point [MeV]")
    return figure


GALLERY: tuple[Callable[[], Figure], ...] = (events, observables, profiles, response, points)


def write_gallery(folder: Path) -> None:
    """Write the gallery's figures and a page that shows each with the code that drew it."""
    folder.mkdir(exist_ok=True)
    lines = ["# Gallery", "", "`docs/pictures.py` draws these figures from bundled data at every build of these pages."]
    for draw in GALLERY:
        with style():
            draw().savefig(folder / f"{draw.__name__}.png", dpi=110)
        caption = str(draw.__doc__)
        lines += ["", f"## {draw.__name__.capitalize()}", "", f"![{caption}]({draw.__name__}.png)", "", caption, "",
                  "```python", inspect.getsource(draw).rstrip(), "```"]  # fmt: skip
    (folder / "index.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def write_learning_curves(folder: Path) -> None:
    """Write figures and tables of what validation/learning_curves.py measured, for a page to include."""
    root = DOCS.parent / "validation"
    spec = spec_from_file_location("learning_curves", root / "learning_curves.py")
    assert spec is not None
    assert spec.loader is not None
    curves = module_from_spec(spec)
    spec.loader.exec_module(curves)
    folder.mkdir(parents=True, exist_ok=True)
    for path in root.glob("learning-curves*.json"):
        done = json.loads(path.read_text(encoding="utf-8"))
        with style():
            curves.draw(done).savefig(folder / f"{path.stem}.png", dpi=110)
        figure = f"![Learning curves by shift and method.]({path.stem}.png)"
        tables = "\n\n".join(filter(None, [curves.table_of(done), curves.nearer_of(done)]))
        (folder / f"{path.stem}.md").write_text(f"{figure}\n\n{tables}\n", encoding="utf-8")


# Figures that are kept in the repository.


def ascent() -> tuple[Landscape, np.ndarray]:
    """Return the utility of examples/optimise.toml over pitch and depth, and the designs of an ascent on it."""
    config = read_toml(DOCS.parent / "examples" / "optimise.toml")
    del config["check"]
    with TemporaryDirectory() as folder:
        found = optimise("pbf2-cells-fast", config, Path(folder) / "run", landscape=15)
    return found.landscapes[0], np.array([step.y for step in found.state.history])


def overview() -> Figure:
    """Generated beside Geant4, and the way to a better design."""
    figure = Figure(figsize=(11.4, 3.5), layout="constrained")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[1.05, 1.0, 1.25])
    top, bottom = left.subplots(2, 1, sharex=True)
    reference = geant4_showers(50.0)
    typical = int(np.argsort(observe(reference, 2.5, torch.full((5,), 6.0)).R_E)[len(reference) // 2])
    made = showers(50.0, 1000)
    alike = int(np.argsort(observe(made, 2.5, torch.full((5,), 6.0)).R_E)[len(made) // 2])
    for axes, cells, title in (
        (top, reference[typical], "Geant4, 241 ms"),
        (bottom, made[alike], "generated, 0.03 ms"),
    ):
        plot_event(cells, 2.5, 6.0, axes, vmin=1e-3, vmax=10, norm="log")
        axes.set_title(title)
    top.set_xlabel("")
    axes = middle.subplots()
    widths = [observe(cells, 2.5, torch.full((5,), 6.0)).R_E for cells in (reference, made)]
    bins = np.linspace(1.4, 1.6, 21)
    counts, edges = np.histogram(widths[0], bins)
    middles, n = (edges[1:] + edges[:-1]) / 2, len(widths[0])
    axes.errorbar(middles, counts / n, np.sqrt(counts) / n, fmt="o", ms=3.5, lw=1, color=GEANT4, label="Geant4")
    share = np.histogram(widths[1], bins)[0] / len(widths[1])
    axes.stairs(share, edges, color=SURROGATE, lw=1.4, label="generated")
    axes.set_xlabel(r"radius $R_E$ [cm], 50 GeV photons")
    axes.set_ylabel("share of showers")
    axes.set_title("PbF$_2$, cells of 2.5 x 2.5 x 6 cm$^3$")
    axes.legend()
    axes = right.subplots()
    landscape, path = ascent()
    filled = axes.contourf(
        landscape.dx, landscape.dz, landscape.values.T, levels=np.linspace(0, landscape.values.max(), 15), cmap="YlGnBu"
    )
    axes.plot(path[:, 0], path[:, 1], "o-", ms=3, lw=1.3, color=VIOLET, label="gradient ascent")
    axes.plot(*path[-1], "*", ms=13, mfc="white", mec=VIOLET, label=f"{path[-1][0]:.2f} x {path[-1][1]:.1f} cm")
    axes.set_xlabel("pitch dx [cm]")
    axes.set_ylabel("depth of a layer dz [cm]")
    axes.set_title("Follow the gradient to a better design")
    axes.legend(loc="upper right")
    right.colorbar(filled, ax=axes, label="utility under background", format="%.2f")
    return figure


def right() -> Figure:
    """Draw biases of the default surrogate at the bundled points."""
    surrogate, reference = Surrogate.load("pbf2-cells"), geant4()
    figure = Figure(figsize=(10.5, 3.3), layout="constrained")
    panels = dict(zip(("E_tot", "R_E", "z_mean"), figure.subplots(1, 3), strict=True))
    energies = sorted(set(reference.energy.tolist()))
    for (dx, dz), colour, shift in (((1, 5), BLUE, 0.97), ((2.5, 6), SURROGATE, 1.0), ((4, 10), VIOLET, 1.03)):
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in panels}
        for energy in energies:
            made = surrogate.sample(Design(dx, dz), energy, 1600, generator=torch.Generator().manual_seed(1))
            depths = torch.full((5,), float(dz))
            ours, theirs = observe(made, dx, depths), observe(geant4_showers(energy, dx), dx, depths)
            for name, found in rows.items():
                a, b = getattr(ours, name), getattr(theirs, name)
                a, b = a[a.isfinite()], b[b.isfinite()]
                error = float((a.var() / len(a) + b.var() / len(b)).sqrt())
                found.append((100 * float(a.mean() / b.mean() - 1), 100 * error / float(b.mean())))
        for name, found in rows.items():
            bias, error = np.array(found).T
            panels[name].errorbar(
                np.array(energies) * shift, bias, error, fmt="o", ms=3, lw=1, color=colour, label=f"{dx:g} x {dz:g} cm"
            )
    for name, axes in panels.items():
        axes.axhline(0, color=GREY, lw=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("incident energy [GeV]")
        axes.set_ylabel(f"bias of {LABELS[name]} [%]")
    panels["E_tot"].legend()
    return figure


def off_axis() -> Figure:
    """Draw S-curve, bias and resolutions of the entry by the centre of gravity at the bundled points."""
    surrogate, reference = Surrogate.load("crystals-fast"), bundled_entries()
    rows = rows_like(surrogate, reference, 8)
    made = generate(surrogate, rows.energy, rows.dx, rows.dz, material=rows.material, incident=rows.incident,
                    n_xy=rows.n_xy, seed=1)  # fmt: skip
    found = evaluate(made, reference, classifiers=False)
    return draw_entries(found.points, "cog", found.kind.limits.position_bias)


def gradients() -> Figure:
    """Draw the gradient against energy beside Geant4's from the bundled showers."""
    utility = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (1.0, 10.0, 50.0, 100.0))
    neighbours = ASSETS / "pbf2-sample" / "neighbours.h5"
    design = Design(2.5, 6.0)
    found = gradient("pbf2-cells-fast", design, objective=utility, reference=neighbours, showers=1000, draws=16)
    return draw_gradients(found.energies, found.estimates, found.checks)


def sampling() -> Figure:
    """Draw derivatives with respect to the plates of a published stack, from validation/hepemshow-layers.json."""
    found = json.loads((DOCS.parent / "validation" / "hepemshow-layers.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(8.4, 3.1), layout="constrained")
    titles = {"absorber": "absorbers, 2.30 mm PbWO$_4$", "active": "gaps, 5.70 mm liquid argon"}
    for axes, (kind, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        layers = np.arange(len(found[kind]["geant4"]))
        axes.axhline(0, color=GREY, lw=0.8)
        for who, colour, shift, label in (
            ("geant4", GEANT4, 0.18, "Geant4, regression"), ("surrogate", SURROGATE, -0.18, "surrogate")
        ):  # fmt: skip
            errors = 1.96 * np.array(found[kind][f"{who}_error"])
            axes.errorbar(layers + shift, found[kind][who], errors, fmt="o", ms=3, lw=1, color=colour, label=label)
        axes.set_title(title)
        axes.set_xlabel("layer, from 0")
    figure.axes[0].set_ylabel(r"$\partial E\,/\,\partial t$ [GeV/cm]")
    figure.axes[0].legend()
    return figure


def speed() -> Figure:
    """Draw milliseconds a shower."""
    crystals, fast, stack = tables("speed.md", 0), tables("speed.md", 1), tables("speed.md", 2)
    bars = {
        "Geant4, PbF$_2$, 50 GeV": number(crystals["Geant4, ms a shower"][2]),
        "pbf2-cells": number(crystals["Geant4, ms a shower"][2]) / number(crystals["Geant4 over `pbf2-cells`"][2]),
        "pbf2-cells-fast": number(fast["ms a shower in batches of 4 000"][1]),
        "Geant4, Si-W, 10 to 90 GeV": number(stack["Geant4"][1]),
        "siw-cloud": number(stack["`siw-cloud`"][3]),
        "siw-cloud-cm": number(stack["`siw-cloud-cm`"][3]),
    }
    figure = Figure(figsize=(7.4, 2.7), layout="constrained")
    axes = figure.subplots()
    colours = [GEANT4 if name.startswith("Geant4") else SURROGATE for name in bars]
    drawn = axes.barh(list(bars), list(bars.values()), color=colours, height=0.6)
    axes.bar_label(drawn, [f"{value:.2g}" if value < 100 else f"{value:.0f}" for value in bars.values()], padding=4)
    axes.set_xscale("log")
    axes.set_xlim(0.01, 1500)
    axes.invert_yaxis()
    axes.tick_params(axis="y", which="both", length=0)
    axes.set_xlabel("milliseconds a shower, one thread, in batches")
    return figure


def optimisers() -> Figure:
    """Draw the utility against simulated showers."""
    figure = Figure(figsize=(6.2, 3.4), layout="constrained")
    axes = figure.subplots()
    found = [row for key, row in rows("optimisation.md", 1) if key == "2"]
    for row, colour in zip(found, (SURROGATE, BLUE, GREY, VIOLET, "#0b6e4f"), strict=True):
        known = [(x, *interval(cell)) for x, cell in zip((300, 600, 1200, 3000), row[1:], strict=True) if cell]
        x, value, low, high = np.array(known).T
        axes.errorbar(x, value, [value - low, high - value], fmt="o-", ms=4, lw=1.2, capsize=2, color=colour,
                      label=row[0].split(",")[0])  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks([300, 600, 1200, 3000], ["300", "600", "1 200", "3 000"], minor=False)
    axes.xaxis.set_tick_params(which="minor", length=0, labelbottom=False)
    axes.set_xlabel("simulated showers")
    axes.set_ylabel("utility in Geant4")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def materials() -> Figure:
    """Draw the largest biases in each crystal."""
    found = rows("materials.md", 0)
    names = ("E_tot", "R_E", "sigma_y", "z_mean")
    figure = Figure(figsize=(9.5, 2.7), layout="constrained")
    for j, (axes, name) in enumerate(zip(figure.subplots(1, 4, sharey=True), names, strict=True)):
        axes.axvline(0, color=GREY, lw=0.8)
        for k, (material, row) in enumerate(found):
            bias, error = (float(part) for part in row[j].split("+-"))
            colour = VIOLET if "never" in material else SURROGATE
            axes.errorbar(bias, k, xerr=error, fmt="o", ms=4, lw=1.2, color=colour)
        axes.set_yticks(range(len(found)), [material.split(",")[0] for material, _ in found])
        axes.yaxis.set_tick_params(which="minor", length=0)
        axes.set_xlabel(f"bias of {LABELS[name]} [%]")
        axes.margins(x=0.15)
        axes.invert_yaxis() if j == 0 else None
    return figure


def points_distances() -> Figure:
    """Draw W1 of eight observables."""
    found = rows("points.md", 0)
    names = ("N_{hits}", "E_{vis}/E", "E_{cell}", "E_{long}", "E_{radial}", "m_{1,X}", "m_{1,Y}", "m_{1,Z}")
    shown = {
        "the 10 000 Geant4 showers of the training": ("Geant4, training's showers", GEANT4, "_"),
        "`siw-cloud`": ("siw-cloud", BLUE, "o"), "`siw-cloud-cm`": ("siw-cloud-cm", SURROGATE, "o"),
        "published at 50 000, floor 0.7 to 1.1: CaloClouds II": ("CaloClouds II, published", GREY, "s"),
        "CaloClouds II (CM)": ("CaloClouds II (CM), published", GREY, "D"),
    }  # fmt: skip
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for key, row in found:
        if key == "floor":
            axes.stairs([float(cell) for cell in row], np.arange(9) - 0.5, color=GEANT4, ls=":", label="floor")
        if key in shown:
            label, colour, marker = shown[key]
            axes.plot(range(8), [float(cell) for cell in row], marker, ms=12 if marker == "_" else 5, mew=1.6,
                      color=colour, label=label, mfc="none" if "published" in label else colour)  # fmt: skip
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.set_xticks(range(8), [f"${name}$" for name in names])
    axes.xaxis.set_tick_params(which="minor", length=0)
    axes.set_ylabel("W1, hundredths of a standard deviation")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "overview": overview, "right": right, "off-axis": off_axis, "gradients": gradients, "speed": speed,
    "optimisers": optimisers, "materials": materials, "points": points_distances, "sampling": sampling,
}  # fmt: skip
"""Kept figures by file name: overview.png in docs, the others in docs/results/figures."""


def rows(page: str, which: int) -> list[tuple[str, list[str]]]:
    """Return the rows of a table of a results page below its heading: the first cell and the others."""
    text = (DOCS / "results" / page).read_text(encoding="utf-8")
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[which].splitlines()]
    return [(line[0], line[1:]) for line in lines[2:]]


def tables(page: str, which: int) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    return dict(rows(page, which))


def number(cell: str) -> float:
    """Return the first number of a table's cell."""
    return float(re.findall(r"[-+]?[\d.]+", cell)[0])


def interval(cell: str) -> tuple[float, float, float]:
    """Return value, lower and upper end of a cell such as "0.052 (0.036 to 0.250)"; the value alone is its own ends."""
    values = [float(part) for part in re.findall(r"[\d.]+", cell)]
    return (values[0], values[1], values[2]) if len(values) == 3 else (values[0],) * 3


def write_explorer(path: Path, seconds: float = 120.0) -> None:
    """Write the explorer's page after an ascent; Chromium and Playwright take the picture (group browser)."""
    sys.path.insert(0, str(DOCS.parent / "tests"))
    from helpers.browser import opened, served

    with served() as (address, _), opened(address) as (page, _):
        page.wait_for_timeout(1e3 * seconds)  # for the landscape
        page.get_by_text("follow the gradient").click()
        page.wait_for_timeout(1e3 * seconds)
        page.screenshot(path=path)


def write_figures(names: list[str]) -> None:
    """Write the kept figures, or some of them; ``explorer`` only if it is named."""
    if "explorer" in names:
        write_explorer(DOCS / "explorer.png")
        names = [name for name in names if name != "explorer"]
        if not names:
            return
    for name in names or FIGURES:
        path = DOCS / "overview.png" if name == "overview" else DOCS / "results" / "figures" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        with style():
            FIGURES[name]().savefig(path, dpi=110)


if __name__ == "__main__":
    write_figures(sys.argv[1:])
