"""Report of the demo: one HTML file with its figures inside that needs no network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from calograd.demo.chain import Biases, DemoResult
from calograd.demo.stack import ENERGY, PARTICLE, StackStudy
from calograd.evaluation import limits
from calograd.evaluation.compare import PointResult
from calograd.evaluation.designs import RECONSTRUCTION_TITLE
from calograd.evaluation.matching import Sizes
from calograd.io.files import write_whole
from calograd.reports import evaluation as shown
from calograd.reports.evaluation import PARTICLES
from calograd.reports.gradient import draw_gradients, draw_landscapes
from calograd.reports.optimisation import draw_ascent
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.reconstruction import reconstruction_drawings
from calograd.reports.resolution import point_resolutions
from calograd.reports.stack_gradient import stack_gradient_drawings
from calograd.reports.style import GEANT4, LABELS, SINGLE, SURROGATE
from calograd.reports.training import draw_training
from calograd.system.progress import StageProgress, silent

JUDGED = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z")
"""Observables whose biases are listed."""
FIRST_LOOK = 50.0
"""Energy in GeV: the point of the middle design nearest to it is shown in detail."""
INTERVAL = 1.96
"""Half width of a 95 % interval in standard errors."""


def write_page(path: Path, result: DemoResult, progress: StageProgress = silent) -> None:
    """Write the report to ``path``."""
    e, card = result.evaluation, result.models.cells.card
    ranges = (f"{low:g} to {high:g}" for low, high in (card.energy, card.designs.dx, card.designs.dz))
    energy, dx, dz = ranges
    page = render(
        "demo.html.j2", "calograd.demo", title="CaloGrad: a calorimeter's showers without Geant4",
        subtitle=f"{card.name} · photons of {energy} GeV in {card.designs.material.name} · cells of {dx} cm by {dz} cm "
        f"· the whole chain in {sum(result.seconds.values()):.0f} s",
        o=result, e=e, card=card, pictures=pictures(_drawings(result), progress), designs=e.designs,
        summary=limits.summarise(e.checks, merge_subjects=True), machine=result.benchmark.machine,
        headline=result.headline(), last=result.log[-1], first=result.log[0],
        scratch=_rms(bundled=result.biases[0], scratch=result.biases[1]), adaptation=adaptation_rows(result),
        reference_showers=sum(len(p.reference) for p in e.points),
        generated_showers=sum(len(p.generated) for p in e.points),
        entries=next(table for table in result.anywhere.tables() if table.title == RECONSTRUCTION_TITLE),
        plates_summary=limits.summarise(result.plates.checks, merge_subjects=True),
        missed=[check for check in result.plates.checks if not check.passed],
        stack_setup=shown.describe_setup(result.plates.reference),
    )  # fmt: skip
    write_whole(path, page.encode())


def first_look(points: tuple[PointResult, ...]) -> PointResult:
    """Return the point that is shown in detail."""
    designs = sorted({p.point.design for p in points})
    middle = [p for p in points if p.point.design == designs[len(designs) // 2]]
    return min(middle, key=lambda p: abs(p.point.energy - FIRST_LOOK))


def adaptation_rows(result: DemoResult) -> list[dict[str, Any]]:
    """Return root mean square biases (%) in the other crystal, before and after, and those of noise."""
    return _rms(before=result.adaptation.before, after=result.adaptation.after)


def _rms(**columns: Biases) -> list[dict[str, Any]]:
    rows = []
    for name in JUDGED:
        row: dict[str, Any] = {"name": name}
        for who, biases in columns.items():
            values = np.array([point[name] for point in biases.values()])
            row[who], row[f"{who} noise"] = 100 * np.sqrt((values**2).mean(0))
        rows.append(row)
    return rows


def _drawings(o: DemoResult) -> list[Drawing]:
    """Return the figures of the report."""
    e, study, adaptation, look = o.evaluation, o.study, o.adaptation, first_look(o.evaluation.points)
    middle, judged = look.point.design, next(iter(adaptation.after)).design
    column = e.at(middle)
    return [
        shown.showers(e, look, "showers"),
        shown.distributions(look, "distributions"),
        shown.profiles([column[k] for k in sorted({0, column.index(look), len(column) - 1})], "profiles"),
        *(each for each in shown.overview(e) if each.group != "distances"),
        *reconstruction_drawings(o.anywhere),
        *_stack_drawings(o),
        Drawing(
            partial(draw_training, o.log, 0),
            "The training from scratch. Left: denoising loss of the running weights and, on showers held out, of "
            "their moving average. Middle and right: bias of means and ratio of standard deviations on those held-out "
            "showers that are in the lowest third of energies. Standard errors stand at the end of the lines; the "
            "showers are few and the same at every step, so the trend is better known than the level.",
            "Course of the training", "training",
        ),
        Drawing(
            partial(draw_biases, {"bundled": o.biases[0], "from scratch": o.biases[1]}, middle),
            f"{middle}: bias of means of the bundled surrogate and of the one trained just now.",
            "Biases of the bundled surrogate and of one from scratch", "scratch",
        ),
        Drawing(
            partial(draw_biases, {"before": adaptation.before, "after": adaptation.after}, judged),
            f"{adaptation.material}, {judged}: bias of means against Geant4 showers that the adaptation has not seen, "
            "before and after, with standard errors.", "Biases before and after the adaptation", "adaptation",
        ),
        Drawing(
            partial(draw_gradients, study.energies, [g.surrogate for g in study.gradients], study.gradients),
            "Relative change of the utility for a relative change of pitch and depth, with 95 % bands; below: "
            "surrogate over Geant4.", "Gradient against energy", "gradients",
        ),
        Drawing(
            partial(draw_ascent, study.state.history, ("dx", "dz")), "Course of the optimisation.",
            "Course of the optimisation", "ascent",
        ),
        Drawing(
            partial(draw_landscapes, [study.landscape], "utility", np.array([step.y for step in study.state.history])),
            "The utility over pitch and depth from the surrogate, with arrows along its gradient in ln y and the "
            "optimisation's trajectory.", "Utility over pitch and depth", "landscape",
        ),
    ]  # fmt: skip


def _stack_drawings(o: DemoResult) -> list[Drawing]:
    """Return the figures of the stack of plates."""
    e, study = o.plates, o.stack
    at_energy = min(e.points, key=lambda p: abs(p.energy - ENERGY))
    absorber, steady, known = study.design.absorber, study.design.active_thickness, [p.showers for p in study.geant4]
    return [
        *shown.plate_point(e, at_energy, "plates"),
        shown.plate_distances(e, "plates"),
        *(each._replace(group="plates resolution") for each in point_resolutions(e).drawings),
        *(each._replace(group="plates gradients") for each in stack_gradient_drawings(study.gradient)),
        Drawing(
            partial(draw_scan, study),
            f"{absorber.name} of {study.design.n_layers} layers, each with {float(steady.mean()):g} cm of "
            f"{study.design.active.name}: sigma/E of the visible energy of {ENERGY:g} GeV {PARTICLES[PARTICLE]} "
            f"against the thickness, with standard errors. {study.scan[0].showers} generated showers a point, of "
            f"Geant4 {min(known)} to {max(known)}. Blue: the slope from back-propagation, with its 95 % interval.",
            "Resolution against the thickness of the absorbers", "scan",
        ),
    ]  # fmt: skip


def draw_scan(study: StackStudy) -> Figure:
    """Draw the resolution against the thickness of the absorbers, with the slope at the stack of the derivatives."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for points, colour, filled, label in (
        (study.scan, SURROGATE, True, study.gradient.surrogate), (study.geant4, GEANT4, False, "Geant4"),
    ):  # fmt: skip
        t, values, errors = np.array([each[:3] for each in points]).T
        axes.errorbar(t, 100 * values, 100 * errors, fmt="o", ms=4, lw=1, color=colour,
                      mfc=colour if filled else "white", label=label)  # fmt: skip
    resolution = study.gradient.gradients[-1]
    at, value = resolution.common().y[0], 100 * resolution.values.mean()
    slope, error = (each[0] for each in resolution.per_cm())
    reach = np.linspace(-0.2, 0.2, 41) * at
    ends = [value + 100 * (slope + sign * INTERVAL * error) * reach for sign in (-1, 1)]
    axes.fill_between(at + reach, np.minimum(*ends), np.maximum(*ends), color=SINGLE, alpha=0.3, lw=0)
    axes.plot(at + reach, value + 100 * slope * reach, color=SINGLE, lw=1.4, label="slope by back-propagation")
    axes.set(xlabel=f"{study.design.absorber.name} of a layer [cm]", ylabel=r"$\sigma\,/\,E$ [%]")
    axes.legend()
    return figure


def draw_biases(biases: dict[str, Biases], design: Sizes) -> Figure:
    """Draw biases of two surrogates, named as in the legend, against energy at one design."""
    figure = Figure(figsize=(10.6, 2.6))
    panels = figure.subplots(1, 3, gridspec_kw={"wspace": 0.3})
    for axes, name in zip(panels, ("E_tot", "R_E", "sigma_z"), strict=True):
        for (who, found), colour in zip(biases.items(), (GEANT4, SURROGATE), strict=True):
            at = {p.energy: value[name] for p, value in found.items() if p.design == design}
            values = 100 * np.array(list(at.values()))
            axes.errorbar(list(at), values[:, 0], values[:, 1], fmt="o", ms=3.4, lw=0.9, color=colour, label=who)
        axes.axhline(0, color="0.55", lw=0.7)
        axes.set_ylabel(f"bias of {LABELS[name]} [%]")
        axes.set_xlabel("incident energy [GeV]")
    panels[0].legend()
    return figure
