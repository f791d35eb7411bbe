"""Report of the demo: one HTML file with its figures inside that needs no network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from calograd.demo.adaptation import Biases
from calograd.demo.chain import DemoResult
from calograd.demo.figures import SHOWN, draw_biases, draw_training
from calograd.evaluation import limits
from calograd.evaluation.compare import PointResult
from calograd.evaluation.matching import Sizes
from calograd.evaluation.timing import short
from calograd.io.files import write_whole
from calograd.reports import design_figures
from calograd.reports.gradient import draw_gradients, draw_landscapes
from calograd.reports.optimisation import draw_ascent
from calograd.reports.page import templates
from calograd.reports.style import Picture, picture
from calograd.system.progress import StageProgress, silent

SPREADS = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy")
"""Observables whose spreads are shown."""
FIRST_LOOK = 50.0
"""Energy in GeV: the point of the middle design nearest to it is shown in detail."""


class _Task(NamedTuple):
    """A figure to draw."""

    name: str
    draw: Callable[[], Figure]
    caption: str


def write_page(path: Path, result: DemoResult, progress: StageProgress = silent) -> None:
    """Write the report to ``path``."""
    write_whole(path, render(result, progress).encode())


def render(result: DemoResult, progress: StageProgress) -> str:
    """Return the report as HTML."""
    e = result.evaluation
    designs = sorted({p.point.design for p in e.points})
    look = first_look(e.points)
    column = [p for p in e.points if p.point.design == look.point.design]
    shown = [column[k] for k in sorted({0, column.index(look), len(column) - 1})]
    tasks = _tasks(result, designs, look, shown)
    pictures: dict[str, Picture] = {}
    for number, task in enumerate(tasks):
        progress("figures", number, len(tasks))
        pictures[task.name] = picture(task.draw, task.caption, f"Figure: {task.name}")
    progress("figures", len(tasks), len(tasks))
    environment = templates("calograd.demo")
    environment.filters |= {"g3": lambda value: "-" if value is None else short(value)}
    card = result.surrogate.card
    return environment.get_template("demo.html.j2").render(
        title="CaloGrad: a calorimeter's showers without Geant4", subtitle=_subtitle(result),
        o=result, e=e, card=card, pictures=pictures, look=look, designs=designs,
        summary=limits.summarise(e.checks, merge_subjects=True), machine=result.benchmark.machine,
        headline=result.headline(), last=result.log[-1], first=result.log[0],
        scratch=scratch_rows(result), adaptation=adaptation_rows(result),
        reference_showers=sum(len(p.reference) for p in e.points),
        generated_showers=sum(len(p.generated) for p in e.points),
    )  # fmt: skip


def _subtitle(o: DemoResult) -> str:
    card = o.surrogate.card
    energy, dx, dz = (f"{low:g} to {high:g}" for low, high in (card.energy, card.designs.dx, card.designs.dz))
    return (
        f"{card.name} · photons of {energy} GeV in {card.designs.material.name} · cells of {dx} cm by {dz} cm · "
        f"the whole chain in {sum(o.seconds.values()):.0f} s"
    )


def first_look(points: tuple[PointResult, ...]) -> PointResult:
    """Return the point that is shown in detail."""
    designs = sorted({p.point.design for p in points})
    middle = [p for p in points if p.point.design == designs[len(designs) // 2]]
    return min(middle, key=lambda p: abs(p.point.energy - FIRST_LOOK))


def scratch_rows(result: DemoResult) -> list[dict[str, Any]]:
    """Return root mean square biases (%) over the reference points, bundled and from scratch, and those of noise."""
    return _rms({"bundled": result.biases[0], "scratch": result.biases[1]})


def adaptation_rows(result: DemoResult) -> list[dict[str, Any]]:
    """Return root mean square biases (%) in the other crystal, before and after, and those of noise."""
    return _rms({"before": result.adaptation.before, "after": result.adaptation.after})


def _rms(columns: dict[str, Biases]) -> list[dict[str, Any]]:
    rows = []
    for name in SHOWN:
        row: dict[str, Any] = {"name": name}
        for who, biases in columns.items():
            values = np.array([point[name] for point in biases.values()])
            row[who] = 100 * float(np.sqrt((values[:, 0] ** 2).mean()))
            row[f"{who} noise"] = 100 * float(np.sqrt((values[:, 1] ** 2).mean()))
        rows.append(row)
    return rows


def _tasks(o: DemoResult, designs: list[Sizes], look: PointResult, shown: list[PointResult]) -> list[_Task]:
    e = o.evaluation
    middle, judged = look.point.design, next(iter(o.adaptation.after)).design
    kept = "Green: allowed range. Filled red: limit missed beyond statistics; hollow: missed within statistics."
    tasks = [
        _Task(
            "showers", partial(design_figures.draw_showers, e.generated, e.reference, look),
            f"{look.point}: the first three showers of each sample, not chosen, and the mean of all; seen from the "
            "side (x-z) and along the beam (x-y).",
        ),
        _Task(
            "distributions", partial(design_figures.draw_distributions, look),
            f"{look.point}: {len(look.reference)} Geant4 showers (points) and {len(look.generated)} generated (line, "
            "band: statistical error). The outermost bins hold what lies beyond. Lower panels: generated over Geant4, "
            "grey: Geant4's error.",
        ),
        _Task(
            "profiles", partial(design_figures.draw_profiles, shown),
            f"{middle}: mean profiles with standard errors.",
        ),
        _Task(
            "bias",
            partial(design_figures.draw_trend, e, designs, design_figures.trend_of_biases(tuple(e.kind.limits.bias))),
            f"Bias of the mean against incident energy, with standard errors. {kept}",
        ),
        _Task(
            "spread", partial(design_figures.draw_trend, e, designs, design_figures.trend_of_spreads(SPREADS)),
            f"Standard deviation, generated over Geant4, with bootstrap standard errors. {kept}",
        ),
        _Task(
            "training", partial(draw_training, o.log),
            "The training from scratch. Left: denoising loss of the running weights and, on showers held out, of "
            "their moving average. Middle and right: bias of means and ratio of standard deviations on those held-out "
            "showers that are in the lowest third of energies. Standard errors stand at the end of the lines; the "
            "showers are few and the same at every step, so the trend is better known than the level.",
        ),
        _Task(
            "scratch", partial(draw_biases, {"bundled": o.biases[0], "from scratch": o.biases[1]}, middle),
            f"{middle}: bias of means of the bundled surrogate and of the one trained just now.",
        ),
        _Task(
            "adaptation", partial(draw_biases, {"before": o.adaptation.before, "after": o.adaptation.after}, judged),
            f"{o.adaptation.material}, {judged}: bias of means against Geant4 showers that the adaptation has not "
            "seen, before and after, with standard errors.",
        ),
    ]  # fmt: skip
    study = o.study
    path = np.array([step.y for step in study.state.history])
    tasks += [
        _Task(
            "gradients",
            partial(draw_gradients, list(study.energies), [g.surrogate for g in study.gradients],
                    study.gradients),
            "Relative change of the utility for a relative change of pitch and depth, with 95 % bands; below: "
            "surrogate over Geant4.",
        ),
        _Task("ascent", partial(draw_ascent, study.state.history, ("dx", "dz")), "Course of the optimisation."),
        _Task(
            "landscape", partial(draw_landscapes, [study.landscape], "utility", path),
            "The utility over pitch and depth from the surrogate, with arrows along its gradient in ln y and the "
            "optimisation's trajectory.",
        ),
    ]  # fmt: skip
    if e.tests:
        tasks.append(
            _Task(
                "classifiers", partial(design_figures.draw_classifiers, e.tests),
                "Classifier tests with 95 % intervals: generated against Geant4 (colour) and two halves of Geant4 "
                "against each other (grey). Circles: gradient-boosted trees; diamonds: network; hollow: without "
                "readout threshold. Green: within the limit.",
            )
        )  # fmt: skip
    return tasks
