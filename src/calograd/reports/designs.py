"""The report of a comparison of cells or maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np
from matplotlib.figure import Figure

from calograd.evaluation.compare import CENTRED, PointResult
from calograd.evaluation.designs import DesignEvaluation, describe
from calograd.evaluation.limits import LimitCheck, summarise
from calograd.evaluation.matching import Sizes
from calograd.metrics.distances import BOOTSTRAPS
from calograd.reports import design_figures as figures
from calograd.reports.page import templates
from calograd.reports.setup import describe_setup, describe_window
from calograd.reports.style import LABELS, Drawing, Picture, picture
from calograd.system.progress import StageProgress

MAX_DETAILED = 3
"""Most designs that are shown in detail: the best, the median and the worst."""
VERDICTS = (
    "Green: allowed range. Filled red: limit missed beyond statistics; hollow: missed, though statistics can explain "
    "it; triangles: beyond the axis."
)
"""Legend of the figures of trends."""


@dataclass(frozen=True)
class DesignSection:
    """The part of the report on one design.

    Args:
        design: sizes of the cells.
        points: results by energy.
        failed, significant: numbers of limits missed, and of those missed beyond statistics.
        chosen: why it is shown in detail, empty if it is not.
        pictures: figures.
    """

    design: Sizes
    points: list[PointResult]
    failed: int
    significant: int
    chosen: str
    pictures: list[Picture]


def render(evaluation: DesignEvaluation, progress: StageProgress) -> str:
    """Return the report as HTML."""
    environment = templates("calograd.reports")
    environment.filters |= {"number": _number, "percent": _percent, "energy": lambda e: f"{e:g} GeV"}
    chosen = choose_designs(evaluation)
    overview = list(_overview(evaluation))
    per_design = {design: list(_details(evaluation, design)) if design in chosen else []
                  for design in evaluation.designs}  # fmt: skip
    total = len(overview) + sum(map(len, per_design.values()))
    drawn = 0

    def draw(task: Drawing) -> Picture:
        nonlocal drawn
        result = picture(*task[:3])
        drawn += 1
        progress("figures", drawn, total)
        return result

    groups: dict[str, list[Picture]] = {}
    for task in overview:
        groups.setdefault(task.group, []).append(draw(task))
    sections = [
        DesignSection(design, evaluation.at(design), *_missed(evaluation, design), chosen.get(design, ""),
                      [draw(task) for task in tasks])
        for design, tasks in per_design.items()
    ]  # fmt: skip
    generated, reference = evaluation.generated, evaluation.reference
    both = {"generated": generated, "reference": reference}
    return environment.get_template("designs.html.j2").render(
        title=f"{generated.origin} against {reference.origin}", subtitle=describe_setup(reference, generated),
        evaluation=evaluation, kind=evaluation.kind, groups=groups, sections=sections,
        about={name: describe(records) for name, records in both.items()},
        windows={name: describe_window(records) for name, records in both.items()},
        configs={name: json.dumps(records.config, indent=1, sort_keys=True) for name, records in both.items()},
        summaries=evaluation.summaries, summary=summarise(evaluation.checks, merge_subjects=True),
        names=[name for name in LABELS if name in evaluation.points[0].names], centred=CENTRED,
        zero=_zero_energy(evaluation), counts=_counts(evaluation), colour=partial(_colour, evaluation),
        bootstraps=BOOTSTRAPS,
    )  # fmt: skip


def choose_designs(evaluation: DesignEvaluation) -> dict[Sizes, str]:
    """Return the designs shown in detail, with the reason: fewest, median and most limits missed."""
    ranked = sorted(evaluation.designs, key=lambda design: _missed(evaluation, design)[0])
    if len(ranked) <= MAX_DETAILED:
        return dict.fromkeys(ranked, "")
    positions = {0: "fewest limits missed", len(ranked) // 2: "median", len(ranked) - 1: "most limits missed"}
    return {ranked[position]: why for position, why in positions.items()}


def _overview(e: DesignEvaluation) -> Iterator[Drawing]:
    if e.tests:
        yield Drawing(
            partial(figures.draw_classifiers, e.tests),
            "Classifier tests, all energies together, with 95 % intervals: generated against Geant4 (colour) and two "
            "halves of Geant4 against each other (grey). Circles: gradient-boosted trees; diamonds: network; hollow: "
            "without readout threshold. Green: within the limit.", "Classifier AUCs with intervals", "classifiers",
        )  # fmt: skip
    for group, trend, caption in _trends(e):
        for start in range(0, len(e.designs), figures.COLUMNS):
            some = e.designs[start : start + figures.COLUMNS]
            yield Drawing(
                partial(figures.draw_trend, e, some, trend), caption,
                f"{caption.split('.')[0]}. Designs {', '.join(map(str, some))}", group,
            )  # fmt: skip


def _trends(e: DesignEvaluation) -> Iterator[tuple[str, figures.Trend, str]]:
    """Yield group, trend and caption of the trends that the kind of record has."""
    limits = e.kind.limits
    names = tuple(limits.bias)
    spreads = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy")
    shown = tuple(name for name in spreads if name in e.points[0].names) if limits.sigma_ratio else names
    biases = "Bias of the mean against incident energy, with standard errors."
    yield "bias", figures.trend_of_biases(names), f"{biases} {VERDICTS}"
    ratios = "Standard deviation, generated over Geant4, with bootstrap standard errors."
    yield "spread", figures.trend_of_spreads(shown), f"{ratios} {VERDICTS if limits.sigma_ratio else ''}"
    if limits.w1 is not None:
        distances = "1-Wasserstein distance in units of its Geant4-against-Geant4 floor."
        yield "distances", figures.trend_of_distances(shown), f"{distances} {VERDICTS}"
    else:
        rrmse = "Relative root mean square difference (RRMSE) of generated and Geant4 showers."
        yield "distances", figures.trend_of_rrmse(names), f"{rrmse} Grey: Geant4 against Geant4, the floor."


def _details(e: DesignEvaluation, design: Sizes) -> Iterator[Drawing]:
    picked = pick_energies(e.at(design))
    for p in picked:
        yield Drawing(
            partial(figures.draw_distributions, p),
            f"{p.point}: {len(p.reference)} Geant4 showers (points) and {len(p.generated)} generated (line, band: "
            "statistical error). The outermost bins hold what lies beyond. Lower panels: generated over Geant4, grey: "
            "Geant4's error.", f"Distributions of observables at {p.point}",
        )  # fmt: skip
    yield Drawing(
        partial(figures.draw_profiles, picked),
        f"{design}: mean profiles with standard errors, and generated over Geant4.",
        f"Longitudinal and transverse profiles, {design}",
    )  # fmt: skip
    middle = picked[len(picked) // 2]
    displays: dict[str, tuple[Callable[..., Figure], str]] = {
        "cells": (figures.draw_showers, "; side view (x-z) and front view (x-y)"), "maps": (figures.draw_maps, ""),
    }  # fmt: skip
    draw, views = displays[e.kind.noun]
    yield Drawing(
        partial(draw, e.generated, e.reference, middle),
        f"{middle.point}: the first {figures.SINGLES} showers of each file, not chosen, and the mean of all{views}.",
        f"Event displays at {middle.point}",
    )  # fmt: skip
    if e.kind.correlated:
        yield Drawing(
            partial(figures.draw_correlations, picked),
            f"{design}: Pearson correlations of the layer energies. Largest difference beside its "
            "Geant4-against-Geant4 floor: " + "; ".join(
                f"{p.point.energy:g} GeV {p.correlation.largest:.3f} (floor {p.correlation_floor:.3f} "
                f"+- {p.correlation_floor_spread:.3f})" for p in picked if p.correlation
            ) + ".", f"Correlations of layer energies, {design}",
        )  # fmt: skip


def pick_energies(points: list[PointResult]) -> list[PointResult]:
    """Return the points of lowest energy, of the energy nearest to half the highest, and of the highest."""
    energies = np.array([p.point.energy for p in points])
    chosen = sorted({0, int(np.argmin(np.abs(energies - energies[-1] / 2))), len(points) - 1})
    return [points[k] for k in chosen]


def _missed(e: DesignEvaluation, design: Sizes) -> tuple[int, int]:
    """Return how many limits are missed at a design, and how many of them beyond statistics."""
    checks = [check for p in e.at(design) for check in e.checks_of(p)]
    return sum(not check.passed for check in checks), sum(check.significant for check in checks)


def _colour(e: DesignEvaluation, p: PointResult, name: str, kind: str) -> str:
    """Return the class of a number: ``bad`` missed beyond statistics, ``warn`` missed though Geant4 would not."""
    found: list[LimitCheck] = [
        c for c in e.checks_of(p) if c.kind == kind and (c.subject == name or c.where.startswith(f"{name},"))
    ]
    if any(c.significant for c in found):
        return "bad"
    return "warn" if any(not c.passed and c.chance > 0.5 for c in found) else ""


def _counts(e: DesignEvaluation) -> dict[str, list[int]]:
    """Return least, most and all showers of the points."""
    sizes = {"generated": [len(p.generated) for p in e.points], "reference": [len(p.reference) for p in e.points]}
    return {name: [min(n), max(n), sum(n)] for name, n in sizes.items()}


def _zero_energy(e: DesignEvaluation) -> dict[str, int]:
    return {
        "generated": sum(p.excluded_generated for p in e.points),
        "reference": sum(p.excluded_reference for p in e.points),
    }


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isfinite(value) else "-"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:+.{digits}f}" if isfinite(value) else "-"
