"""Report and figures of an optimisation: one HTML file with its figures inside."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from calograd.detector.particles import ON_AXIS
from calograd.gradients.spectra import Spectrum, curves_of
from calograd.io.files import write_whole
from calograd.objective.space import format_parameters, unit
from calograd.objective.stack_space import grouped
from calograd.optimisation.run import OptimisationResult
from calograd.optimisation.setup import Setup
from calograd.optimisation.state import Step
from calograd.reports.evaluation import PARTICLES
from calograd.reports.gradient import Z95, draw_band, draw_landscapes
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.resolution import Panel, resolution_section
from calograd.reports.stack_gradient import TITLES
from calograd.reports.style import GEANT4, PATH, SURROGATE, SURROGATE_LIGHT, parameter_label

ADAPTED = "#0b6e4f"
"""Colour of steps that the surrogate was adapted for."""
START, END = "#8d99a6", PATH
"""Colours of the first and the last design."""


def draw_ascent(history: tuple[Step, ...], names: tuple[str, ...]) -> Figure:
    """Draw parameters and the surrogate's utility against steps, and the utility against simulated showers, if any.

    The thicknesses of all plates of a kind are drawn as their mean, with a band from the least to the largest.
    """
    simulated = any(step.check is not None or step.adaptation for step in history)
    figure = Figure(figsize=(11 if simulated else 7.6, 3.4), layout="constrained")
    left, middle, *right = figure.subplots(1, 2 + simulated)
    number = [step.number for step in history]
    for name, places in grouped(names).items():
        several = np.array([step.y for step in history])[:, places]
        line = left.plot(number, several.mean(1), "o-", ms=3, lw=1, label=parameter_label(name))
        if len(places) > 1:
            left.fill_between(number, several.min(1), several.max(1), color=line[0].get_color(), alpha=0.15, lw=0)
    left.set_yscale("log")
    left.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    left.yaxis.set_minor_formatter(lambda v, _: f"{v:g}" if _is_labelled(v) else "")
    left.set_ylabel(f"parameter, {' or '.join(dict.fromkeys(map(unit, names)))}")
    left.legend(ncols=2)
    value, error = np.array([[step.value, step.value_error] for step in history]).T
    band = np.stack([value, value - Z95 * error, value + Z95 * error])
    draw_band(middle, [float(n) for n in number], band, SURROGATE, SURROGATE_LIGHT, "surrogate")
    middle.set_ylabel("utility")
    adapted = [step for step in history if step.adaptation]
    if adapted:
        middle.plot([s.number for s in adapted], [s.value for s in adapted], "^", ms=6, color=ADAPTED, label="adapted")
    for axes in right:
        _draw_showers(axes, history)
        axes.set_xlabel("simulated showers")
        axes.set_ylabel("utility")
    for axes in (left, middle):
        axes.set_xlabel("step")
    middle.legend()
    return figure


def _is_labelled(size: float) -> bool:
    """Return whether a minor tick of sizes has a label; those below 1 cm are of thin plates."""
    return size in (1, 2, 3, 4, 5, 6, 8, 12, 15) if size >= 1 else f"{size:e}"[0] in "235"


def _draw_showers(axes: Axes, history: tuple[Step, ...]) -> None:
    """Draw the utility against simulated showers: gains that checks confirmed, and the adapted surrogate's values."""
    total, variance, first = history[0].value, 0.0, history[0].adaptation
    showers, geant4, predicted = [first], [(total, 0.0)], [total]
    away = False  # from a top to a design elsewhere, until the two are compared
    for step in history:
        away = step.outcome == "jumped" or (away and step.outcome != "settled")
        if step.check is None or away:
            continue
        if not (step.check.simulated > 0 if step.outcome == "settled" else step.check.agrees):
            continue
        variance += step.check.simulated_error**2
        showers.append(step.simulated)
        predicted.append(total + step.check.predicted)
        total += step.check.simulated
        geant4.append((total, variance**0.5))
    if history[0].adaptation:
        paid = np.array([step.simulated - (step.check.showers if step.check else 0) for step in history])
        value = np.array([step.value for step in history])
        new = np.array([step.adaptation > 0 for step in history])
        axes.plot(paid, value, "-", lw=1, color=SURROGATE_LIGHT)
        axes.plot(paid[new], value[new], "^", ms=5, color=ADAPTED, label="surrogate, adapted here")
    if any(step.check is not None for step in history):
        values, errors = np.array(geant4).T
        axes.errorbar(showers, values, Z95 * errors, fmt="o-", ms=4, lw=1, color=GEANT4,
                      label="Geant4's gains, added up")  # fmt: skip
        axes.plot(showers, predicted, "s", ms=5, mfc="none", color=SURROGATE, label="predicted")
    axes.legend()


def draw_spectra(spectra: tuple[Spectrum, ...]) -> Figure:
    """Draw measured over incident energy at the first and the last design, one panel an energy, a row a source."""
    sources = list(dict.fromkeys(each.source for each in spectra))
    columns = max(sum(each.source == source for each in spectra) for source in sources)
    figure = Figure(figsize=(3.7 * columns + 0.4, 2.8 * len(sources) + 0.2), layout="constrained")
    panels = figure.subplots(len(sources), columns, squeeze=False, sharex="col")
    for row, source in zip(panels, sources, strict=True):
        for axes, each in zip(row, (each for each in spectra if each.source == source), strict=False):
            _draw_spectrum(axes, each)
    for axes in panels[-1]:
        axes.set_xlabel("measured / incident energy")
    return figure


def _draw_spectrum(axes: Axes, spectrum: Spectrum) -> None:
    ratios = [values / spectrum.energy for values in spectrum.measured]
    low, high = np.quantile(np.concatenate(ratios), [0.005, 0.995])
    bins = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), 41).tolist()
    ends = zip(("start", "result"), (START, END), ratios, spectrum.resolutions(), strict=True)
    for name, color, values, (resolution, error) in ends:
        label = f"{name}: resolution {100 * resolution:.2f} ± {100 * error:.2f} %"
        axes.hist(values, bins, histtype="step", lw=1.4, color=color, label=label, density=True)
    axes.set_title(f"{spectrum.source}, {spectrum.energy:g} GeV")
    axes.set_yticks([])
    axes.set_ylim(top=1.35 * axes.get_ylim()[1])
    axes.legend(loc="upper left")


def draw_profiles(start: Mapping[str, np.ndarray], end: Mapping[str, np.ndarray]) -> Figure:
    """Draw the thickness of the plates of every layer at the start and at the result, one panel a kind of plates."""
    figure = Figure(figsize=(8.4, 3.1), layout="constrained")
    panels = figure.subplots(1, len(start), squeeze=False)[0]
    for panel, kind in zip(panels, start, strict=True):
        for name, colour, sizes in zip(("start", "result"), (START, END), (start[kind], end[kind]), strict=True):
            edges = np.arange(len(sizes) + 1) - 0.5
            panel.stairs(
                sizes, edges, baseline=None, color=colour, lw=1.6, label=f"{name}, {sizes.sum():.2f} cm in all"
            )
        panel.set_title(TITLES[kind])
        panel.set_xlabel("layer, from 0")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylim(0, 1.3 * max(start[kind].max(), end[kind].max()))
        panel.legend(loc="upper left", ncols=2)
    panels[0].set_ylabel("thickness [cm]")
    return figure


def write_optimisation_report(path: Path, result: OptimisationResult) -> None:
    """Write the report of an optimisation; an existing one is replaced, as it belongs to the run's folder.

    Args:
        path: the HTML file.
        result: the optimisation.
    """
    setup, state, adapted = result.setup, result.state, result.adapted_showers
    names, end = setup.space.names, np.array(state.y)
    rows = [(step, _shown(setup, np.array(step.y))) for step in state.history]
    marks = (
        " Triangles mark the steps that the surrogate was adapted for, with their showers on the right. Utilities "
        "there are of different adapters."
    )
    several = len(grouped(names)) < len(names)
    parameters = "the thicknesses, mean and range over all layers" if several else "the parameters"
    drawings = [
        Drawing(
            partial(draw_ascent, state.history, names),
            f"Left: {parameters}. Middle: the surrogate's utility with its 95 % band. Right: gains that simulated "
            "showers confirmed, added up from the surrogate's first value, beside those that the gradients predicted."
            + (marks if adapted else ""),
            "Course of the optimisation", "ascent",
        )
    ]  # fmt: skip
    profiles = setup.profiles(setup.start), setup.profiles(end)
    how = setup.measured if profiles[0] else "with background and readout"
    if profiles[0]:
        drawings.append(Drawing(
            partial(draw_profiles, *profiles), "Thickness of the plates of every layer at the start and at the result.",
            "Thicknesses of all layers", "profiles",
        ))  # fmt: skip
    if result.spectra:
        drawings.append(Drawing(
            partial(draw_spectra, result.spectra),
            f"Measured over incident energy before and after, {how}. The resolution is the standard deviation over the "
            "mean.", "Measured energies at the first and the last design", "spectra",
        ))  # fmt: skip
    designs = (("start", setup.start), ("result", end))
    panels = [
        Panel(
            f"{name}: {format_parameters(names, y)}" if len(names) < 3 else name,
            curves_of(result.spectra, setup.definition, number),
        )
        for number, (name, y) in enumerate(designs)
    ]
    resolved = resolution_section(
        panels,
        (setup.surrogate.card.name, "Geant4"),
        setup.measured,
        setup.definition,
        common=True,
    )  # fmt: skip
    drawings += resolved.drawings
    if result.landscapes:
        trajectory = np.array([step.y for step in state.history])
        drawings.append(Drawing(
            partial(draw_landscapes, result.landscapes, "U", path=trajectory),
            "The utility over pitch and depth with the trajectory; arrows along the gradient in ln y."
            + (" By the last adapter, which has seen showers along the trajectory alone." if adapted else ""),
            "Trajectory on the landscape", "landscape",
        ))  # fmt: skip
    about = setup.surrogate.card.name + (" adapted on the way" if adapted else "")
    energies = ", ".join(f"{energy:g}" for energy in setup.objective.energies)
    page = render(
        "optimisation.html.j2",
        title=f"CaloGrad: optimisation of a design, {describe_beam(setup)} into {setup.detector}",
        subtitle=f"{energies} GeV · {about} · {len(state.history)} steps · {state.simulated} simulated showers",
        pictures=pictures(drawings), resolved=resolved, state=state, result=result, rows=rows,
        judged=setup.describe().items(), start=_shown(setup, setup.start), end=_shown(setup, end), adapted=adapted,
        config=setup.config.model_dump_json(indent=1), utility_unit=setup.utility_unit,
    )  # fmt: skip
    write_whole(path, page.encode())


def describe_beam(setup: Setup) -> str:
    """Return the particle, its direction and its entry, if this is drawn, as text."""
    beam = setup.beam
    if beam is None or beam == ON_AXIS:
        return "photons on the axis"
    direction = f"at {beam.theta:g} degrees" if beam.theta else "at normal incidence"
    entry = " anywhere in the cell" if beam.position == "uniform" else ""
    return f"{PARTICLES[beam.particle]} {direction}{entry}"


def _shown(setup: Setup, y: np.ndarray) -> list[tuple[str, float, str]]:
    """Return name, value and unit of the parameters; of all plates of a kind the mean thickness, and the depth."""
    names = setup.space.names
    groups = grouped(names)
    shown = [
        (name if len(of) == 1 else f"mean {name}", float(y[of].mean()), unit(names[of[0]]))
        for name, of in groups.items()
    ]
    depth = setup.sizes(y).get("depth")
    return shown if depth is None else [*shown, ("depth", depth, "cm")]
