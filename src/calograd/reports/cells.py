"""The report of an evaluation: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from calograd._version import __version__
from calograd.evaluation import limits
from calograd.evaluation.compare import PointResult
from calograd.evaluation.evaluate import Evaluation, Progress, describe
from calograd.evaluation.matching import Sizes
from calograd.events.cells import Cells
from calograd.io.hdf5 import refuse_existing, write_new
from calograd.reports import details, overview
from calograd.reports.style import LABELS, Picture, picture

MAX_DETAILED = 3
"""Designs that are shown in detail: the best, the median and the worst."""


@dataclass(frozen=True)
class DesignSection:
    """What the report shows of one design: its results, why it was chosen for details, its figures."""

    design: Sizes
    points: list[PointResult]
    failed: int
    chosen: str
    pictures: list[Picture]


def write_report(
    path: Path, evaluation: Evaluation, files: Mapping[str, str], progress: Progress | None = None
) -> None:
    """Write the report to ``path``; ``files`` names what was compared (keys ``generated`` and ``reference``).

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    write_new(path, render(evaluation, files, progress).encode())


def render(evaluation: Evaluation, files: Mapping[str, str], progress: Progress | None = None) -> str:
    """The report as HTML."""
    environment = Environment(
        loader=PackageLoader("calograd.reports", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": _number, "percent": _percent, "energy": lambda e: f"{e:g} GeV"}
    chosen = choose_designs(evaluation)
    drawings = list(_overview(evaluation))
    per_design = {design: list(_details(evaluation, design)) if design in chosen else []
                  for design in _designs(evaluation)}  # fmt: skip
    total = len(drawings) + sum(map(len, per_design.values()))
    drawn = 0

    def draw(task: _Drawing) -> Picture:
        nonlocal drawn
        result = picture(task.draw, task.caption, task.alt)
        drawn += 1
        if progress:
            progress("figures", drawn, total)
        return result

    groups: dict[str, list[Picture]] = {}
    for task in drawings:
        groups.setdefault(task.group, []).append(draw(task))
    sections = [
        DesignSection(design, _at(evaluation, design), _failed(evaluation, design), chosen.get(design, ""),
                      [draw(task) for task in tasks])
        for design, tasks in per_design.items()
    ]  # fmt: skip
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation, files=files, groups=groups, sections=sections, version=__version__,
        generated=describe(evaluation.generated), reference=describe(evaluation.reference),
        settings={name: setting(cells) for name, cells in
                  (("generated", evaluation.generated), ("reference", evaluation.reference))},
        configs={name: json.dumps(cells.config, indent=1, sort_keys=True) for name, cells in
                 (("generated", evaluation.generated), ("reference", evaluation.reference))},
        tallies=evaluation.tallies, summary=limits.tally(evaluation.checks, merge_subjects=True),
        names=tuple(LABELS), limits=limits, zero=_zero_energy(evaluation), counts=_counts(evaluation),
    )  # fmt: skip


def choose_designs(evaluation: Evaluation) -> dict[Sizes, str]:
    """The designs shown in detail, with the reason: fewest, median and most limits missed."""
    ranked = sorted(_designs(evaluation), key=lambda design: _failed(evaluation, design))
    if len(ranked) <= MAX_DETAILED:
        return dict.fromkeys(ranked, "")
    places = {0: "fewest limits missed", len(ranked) // 2: "median", len(ranked) - 1: "most limits missed"}
    return {ranked[place]: why for place, why in places.items()}


def setting(cells: Cells) -> str:
    """Whether the cells are a window into a larger block or the whole of it, from the stored configuration."""
    if isinstance(mode := _find(cells.config, "mode"), str):
        return mode
    size = _find(cells.config, "size")
    if not (isinstance(size, list | tuple) and len(size) == 3):
        return "not stated"
    window = np.column_stack([cells.dx * cells.cells.shape[1], cells.dz.sum(axis=1)])
    whole = np.allclose(window, [size[0], size[2]], rtol=1e-3)
    return "stand-alone block" if whole else "embedded (a window into a larger block)"


@dataclass(frozen=True)
class _Drawing:
    group: str
    draw: Callable[[], Any]
    caption: str
    alt: str


def _overview(e: Evaluation) -> Iterator[_Drawing]:
    if e.separability:
        yield _Drawing(
            "classifiers", partial(overview.draw_classifiers, e.separability),
            "Classifier tests, all energies together, with 95 % intervals: generated against Geant4 (colour) and two "
            "halves of Geant4 against each other (grey). Circles: gradient-boosted trees; diamonds: network; hollow: "
            "without readout threshold. Green: within the limit.", "Classifier AUCs with intervals",
        )  # fmt: skip
    designs = _designs(e)
    for group, trend, caption in (
        ("bias", overview.BIAS, "Bias of the mean against incident energy, with standard errors."),
        ("spread", overview.SPREAD, "Standard deviation, generated over Geant4, with bootstrap standard errors."),
        ("w1", overview.W1, "1-Wasserstein distance in units of its Geant4-against-Geant4 floor."),
    ):
        for start in range(0, len(designs), overview.COLUMNS):
            some = designs[start : start + overview.COLUMNS]
            yield _Drawing(
                group, partial(overview.draw_trend, e.points, some, trend),
                f"{caption} Green: allowed range. Red: limit missed, filled "
                "where statistics cannot explain it, hollow where they can; triangles: beyond the axis.",
                f"{caption} Designs {', '.join(map(str, some))}",
            )  # fmt: skip


def _details(e: Evaluation, design: Sizes) -> Iterator[_Drawing]:
    points = _at(e, design)
    picked = _pick(points)
    for p in picked:
        yield _Drawing(
            "", partial(details.draw_distributions, p),
            f"{p.point}: {len(p.reference)} Geant4 showers (points) and {len(p.generated)} generated (line, band: "
            "statistical error). The outermost bins hold what lies beyond. Lower panels: generated over Geant4, grey: "
            "Geant4's error.", f"Distributions of observables at {p.point}",
        )  # fmt: skip
    yield _Drawing(
        "", partial(details.draw_profiles, e.generated, e.reference, picked),
        f"{design}: mean profiles with standard errors.", f"Longitudinal and transverse profiles, {design}",
    )  # fmt: skip
    middle = picked[len(picked) // 2]
    yield _Drawing(
        "", partial(details.draw_showers, e.generated, e.reference, middle),
        f"{middle.point}: the first three showers of each file, not chosen, and the mean of all; side view (x-z) and "
        "front view (x-y).", f"Event displays at {middle.point}",
    )  # fmt: skip
    yield _Drawing(
        "", partial(overview.draw_correlations, picked),
        f"{design}: Pearson correlations of the layer energies. Largest difference beside its Geant4-against-Geant4 "
        "floor: " + "; ".join(
            f"{p.point.energy:g} GeV {p.correlation.largest:.3f} (floor {p.correlation_floor:.3f} "
            f"+- {p.correlation_floor_spread:.3f})" for p in picked
        ) + ".", f"Correlations of layer energies, {design}",
    )  # fmt: skip


def _pick(points: list[PointResult]) -> list[PointResult]:
    """Lowest energy, the one nearest to half the highest, and the highest."""
    energies = np.array([p.point.energy for p in points])
    chosen = sorted({0, int(np.argmin(np.abs(energies - energies[-1] / 2))), len(points) - 1})
    return [points[k] for k in chosen]


def _designs(e: Evaluation) -> list[Sizes]:
    return sorted({p.point.design for p in e.points})


def _at(e: Evaluation, design: Sizes) -> list[PointResult]:
    return [p for p in e.points if p.point.design == design]


def _failed(e: Evaluation, design: Sizes) -> int:
    return sum(not check.passed for p in _at(e, design) for check in limits.check_point(p))


def _counts(e: Evaluation) -> dict[str, list[int]]:
    """Least and most showers a point."""
    sizes = {"generated": [len(p.generated) for p in e.points], "reference": [len(p.reference) for p in e.points]}
    return {name: [min(n), max(n), sum(n)] for name, n in sizes.items()}


def _zero_energy(e: Evaluation) -> dict[str, int]:
    return {
        "generated": sum(p.excluded_generated for p in e.points),
        "reference": sum(p.excluded_reference for p in e.points),
    }


def _find(config: Any, key: str) -> Any:
    """The first value under ``key`` anywhere in nested configuration."""
    if isinstance(config, Mapping):
        if key in config:
            return config[key]
        return next((v for v in (_find(c, key) for c in config.values()) if v is not None), None)
    if isinstance(config, list | tuple):
        return next((v for v in (_find(c, key) for c in config) if v is not None), None)
    return None


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}g}" if isfinite(value) else "-"


def _percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:+.{digits}f}" if isfinite(value) else "-"
