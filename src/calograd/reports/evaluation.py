"""Reports of evaluations and resolutions: one HTML file with its figures inside, no network, every string escaped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.configuration import PDG
from calograd.detector.sampling_stack import Stacks, describe_materials
from calograd.evaluation import DesignEvaluation, Evaluation, PlatesEvaluation, PointsEvaluation
from calograd.evaluation.compare import CENTRED, PointResult
from calograd.evaluation.designs import RECONSTRUCTION_TITLE, describe
from calograd.evaluation.limits import summarise
from calograd.evaluation.matching import Setting
from calograd.evaluation.plates import W1_LIMIT, PlatesPoint
from calograd.evaluation.points import BATCHES, ENERGIES, MIN_SHOWERS, WINDOW
from calograd.events.plates import PlateShowers
from calograd.gradients.resolution import ResolutionResult
from calograd.io.files import refuse_existing, write_new
from calograd.metrics.distances import BOOTSTRAPS
from calograd.metrics.plates import depth_edges, layer_profiles, radial_profile
from calograd.metrics.points import SINGLE
from calograd.reports import figures
from calograd.reports.page import Drawing, pictures, render
from calograd.reports.reconstruction import reconstruction_drawings
from calograd.reports.resolution import Resolved, design_resolutions, point_resolutions, render_resolution
from calograd.reports.style import LABELS
from calograd.system.progress import StageProgress, silent

PARTICLES = {"gamma": "photons", "e-": "electrons", "e+": "positrons"}
"""Names of particles in sentences."""
MAX_DETAILED = 3
"""Most designs that are shown in detail: the best, the median and the worst."""
SPREADS = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z", "occupancy")
"""Observables whose spreads are shown."""
VERDICTS = (
    "Green: allowed range. Filled red: limit missed beyond statistics; hollow: missed, though statistics can explain "
    "it; triangles: beyond the axis."
)
"""Legend of the figures of trends."""
FOLLOWING = " Windows follow the particle: x and y are from the middle of the window in every layer."
"""Sentence on the axes of figures off the axis."""
PAIRS = (
    "Geant4 showers (points) and generated (line, band: statistical error). The outermost bins hold what lies beyond. "
    "Lower panels: generated over Geant4, grey: Geant4's error."
)
"""Legend of the figures of distributions."""


def write_report(path: Path, result: Evaluation | ResolutionResult, progress: StageProgress = silent) -> None:
    """Write the report of an evaluation or of a resolution.

    Args:
        path: the HTML file; it must not exist.
        result: result of `calograd.evaluate` or of `calograd.resolution`.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: ``path`` cannot be written.
    """
    refuse_existing(path)
    write_new(path, RENDERERS[type(result)](result, progress).encode())


def render_designs(evaluation: DesignEvaluation, progress: StageProgress) -> str:
    """Return the report of a comparison of cells or maps as HTML."""
    chosen, resolved = choose_designs(evaluation), design_resolutions(evaluation)
    drawings = [*overview(evaluation, resolved), *(each for design in chosen for each in _details(evaluation, design))]
    both = {"generated": evaluation.generated, "reference": evaluation.reference}
    points = evaluation.points
    counts = {"generated": [len(p.generated) for p in points], "reference": [len(p.reference) for p in points]}
    return render(
        "designs.html.j2", **_titles(evaluation), kind=evaluation.kind, pictures=pictures(drawings, progress),
        sections=[(design, *_missed(evaluation, design), chosen.get(design, "")) for design in evaluation.settings],
        about={name: describe(records) for name, records in both.items()},
        windows={name: describe_window(records) for name, records in both.items()},
        configs={name: json.dumps(records.config, indent=1, sort_keys=True) for name, records in both.items()},
        summaries=evaluation.summaries, summary=summarise(evaluation.checks, merge_subjects=True),
        entries=next((t for t in evaluation.tables() if t.title == RECONSTRUCTION_TITLE), None),
        names=[name for name in LABELS if name in points[0].names], centred=CENTRED,
        zero={"generated": sum(p.excluded_generated for p in points),
              "reference": sum(p.excluded_reference for p in points)},
        counts={name: [min(n), max(n), sum(n)] for name, n in counts.items()},
        colour=partial(_colour, evaluation), bootstraps=BOOTSTRAPS, resolved=resolved,
    )  # fmt: skip


def render_points(evaluation: PointsEvaluation, progress: StageProgress) -> str:
    """Return the report of a comparison of points as HTML."""
    resolved = point_resolutions(evaluation)
    drawings = [*_point_drawings(evaluation), *resolved.drawings]
    return render(
        "points.html.j2", **_titles(evaluation), pictures=pictures(drawings, progress), resolved=resolved,
        generated=len(evaluation.generated), reference=len(evaluation.reference), batches=BATCHES,
    )  # fmt: skip


def render_plates(evaluation: PlatesEvaluation, progress: StageProgress) -> str:
    """Return the report of a comparison of plates as HTML."""
    resolved = point_resolutions(evaluation)
    drawings = [*_plate_drawings(evaluation), *resolved.drawings]
    tables = {table.title.partition(" ")[0]: table for table in evaluation.tables()[1:3]}
    return render(
        "plates.html.j2", **_titles(evaluation), pictures=pictures(drawings, progress), resolved=resolved,
        generated=len(evaluation.generated), reference=len(evaluation.reference),
        summary=summarise(evaluation.checks), moments=tables["Means"], distances=tables["W1"],
    )  # fmt: skip


RENDERERS: dict[type[Evaluation | ResolutionResult], Callable[[Any, StageProgress], str]] = {
    DesignEvaluation: render_designs, PointsEvaluation: render_points, PlatesEvaluation: render_plates,
    ResolutionResult: render_resolution,
}  # fmt: skip
"""Functions that render each kind of result."""


def _titles(evaluation: Evaluation) -> dict[str, Any]:
    """Return what the templates of all evaluations need."""
    generated, reference = evaluation.generated, evaluation.reference
    return {
        "title": f"{generated.origin} against {reference.origin}",
        "subtitle": describe_setup(reference, generated), "evaluation": evaluation,
    }  # fmt: skip


def choose_designs(evaluation: DesignEvaluation) -> dict[Setting, str]:
    """Return the designs and beams shown in detail, with the reason: fewest, median and most limits missed."""
    ranked = sorted(evaluation.settings, key=lambda design: _missed(evaluation, design)[0])
    if len(ranked) <= MAX_DETAILED:
        return dict.fromkeys(ranked, "")
    positions = {0: "fewest limits missed", len(ranked) // 2: "median", len(ranked) - 1: "most limits missed"}
    return {ranked[position]: why for position, why in positions.items()}


def overview(e: DesignEvaluation, resolved: Resolved | None = None) -> Iterator[Drawing]:
    """Yield the figures of all designs: classifier tests, trends that the kind of record has, energy resolution.

    Args:
        e: the evaluation.
        resolved: its resolutions; None: taken here.
    """
    if e.tests:
        yield Drawing(
            partial(figures.draw_classifiers, e.tests),
            "Classifier tests, all energies together, with 95 % intervals: generated against Geant4 (colour) and two "
            "halves of Geant4 against each other (grey). Circles: gradient-boosted trees; diamonds: network; hollow: "
            "without readout threshold. Green: within the limit.", "Classifier AUCs with intervals", "classifiers",
        )  # fmt: skip
    limits, names = e.kind.limits, tuple(e.kind.limits.bias)
    shown = tuple(name for name in SPREADS if name in e.points[0].names) if limits.sigma_ratio else names
    trends = [("bias", figures.BIAS, names, True), ("spread", figures.SPREAD, shown, limits.sigma_ratio is not None)]
    trends.append(("distances", *((figures.RRMSE, names, False) if limits.w1 is None
                                  else (figures.DISTANCE, shown, True))))  # fmt: skip
    for group, trend, quantities, limited in trends:
        for start in range(0, len(e.settings), figures.COLUMNS):
            some = e.settings[start : start + figures.COLUMNS]
            yield Drawing(
                partial(figures.draw_trend, e, some, trend, quantities),
                f"{trend.caption} {VERDICTS if limited else ''}",
                f"{trend.caption.split('.')[0]}. Designs {', '.join(map(str, some))}", group,
            )  # fmt: skip
    yield from (resolved or design_resolutions(e)).drawings
    yield from reconstruction_drawings(e)


def _details(e: DesignEvaluation, design: Setting) -> Iterator[Drawing]:
    """Yield the figures of one design, in a group of its name."""
    picked, group = pick_energies(e.at(design)), str(design)
    for p in picked:
        yield distributions(p, group)
    yield profiles(picked, group)
    yield showers(e, picked[len(picked) // 2], group)
    if e.kind.correlated:
        yield Drawing(
            partial(figures.draw_correlations, picked),
            f"{design}: Pearson correlations of the layer energies. Largest difference beside its "
            "Geant4-against-Geant4 floor: " + "; ".join(
                f"{p.point.energy:g} GeV {p.correlation.largest:.3f} (floor {p.correlation_floor:.3f} "
                f"+- {p.correlation_floor_spread:.3f})" for p in picked if p.correlation
            ) + ".", f"Correlations of layer energies, {design}", group,
        )  # fmt: skip


def distributions(p: PointResult, group: str) -> Drawing:
    """Return the figure of the distributions of observables at a point."""
    names = [name for name in figures.PANELS if name in p.names]
    columns = [p.names.index(name) for name in names]
    return Drawing(
        partial(figures.draw_distributions, names, p.generated[:, columns], p.reference[:, columns], 2),
        f"{p.point}: {len(p.generated)} generated and {len(p.reference)} {PAIRS}",
        f"Distributions of observables at {p.point}", group,
    )  # fmt: skip


def profiles(points: Sequence[PointResult], group: str) -> Drawing:
    """Return the figure of the mean profiles at points of one design."""
    design = points[0].point.setting
    return Drawing(
        partial(figures.draw_profiles, points),
        f"{design}: mean profiles with standard errors, and generated over Geant4."
        f"{FOLLOWING if points[0].reconstruction else ''}",
        f"Longitudinal and transverse profiles, {design}", group,
    )  # fmt: skip


def showers(e: DesignEvaluation, p: PointResult, group: str) -> Drawing:
    """Return the event display of a point."""
    return Drawing(
        lambda: figures.draw_showers(figures.views_of(e, p)),
        f"{p.point}: the first {figures.SINGLES} showers of each file, not chosen, and the mean of all; cells from the "
        f"side (x-z) and along the beam (x-y).{FOLLOWING if p.reconstruction else ''}",
        f"Event displays at {p.point}", group,
    )  # fmt: skip


def pick_energies(points: list[PointResult]) -> list[PointResult]:
    """Return the points of lowest energy, of the energy nearest to half the highest, and of the highest."""
    energies = np.array([p.point.energy for p in points])
    chosen = sorted({0, int(np.argmin(np.abs(energies - energies[-1] / 2))), len(points) - 1})
    return [points[k] for k in chosen]


def _missed(e: DesignEvaluation, design: Setting) -> tuple[int, int]:
    """Return how many limits are missed at a design, and how many of them beyond statistics."""
    checks = [check for p in e.at(design) for check in e.checks_of(p)]
    return sum(not check.passed for check in checks), sum(check.significant for check in checks)


def _colour(e: DesignEvaluation, p: PointResult, name: str, kind: str) -> str:
    """Return the class of a number: ``bad`` missed beyond statistics, ``warn`` missed though Geant4 would not."""
    found = [c for c in e.checks_of(p) if c.kind == kind and (c.subject == name or c.where.startswith(f"{name},"))]
    if any(c.significant for c in found):
        return "bad"
    return "warn" if any(not c.passed and c.chance > 0.5 for c in found) else ""


def _point_drawings(evaluation: PointsEvaluation) -> Iterator[Drawing]:
    """Yield the figures of a comparison of points."""
    both, generated, reference = evaluation.observed, evaluation.generated, evaluation.reference
    ours, theirs = (seen.table[:, : len(SINGLE)] for seen in both)
    yield Drawing(
        partial(figures.draw_distributions, SINGLE, ours, theirs, 1),
        f"Distributions of observables, all showers. {PAIRS}", f"distributions of {len(SINGLE)} observables",
    )  # fmt: skip
    yield Drawing(
        partial(figures.draw_point_profiles, both),
        "Mean energy by layer and by distance from the axis, and energies of the hits, with standard errors. Below: "
        "generated over Geant4, where Geant4's mean is known to 20 %; grey: its error.",
        "longitudinal and radial profiles, spectrum of hits",
    )
    for energy in ENERGIES:
        near = [np.abs(seen.energy - energy) <= WINDOW for seen in both]
        if min(rows.sum() for rows in near) >= MIN_SHOWERS and not all(rows.all() for rows in near):
            yield Drawing(
                partial(figures.draw_distributions, SINGLE, ours[near[0]], theirs[near[1]], 1),
                f"Showers within {WINDOW:g} GeV of {energy:g} GeV. {PAIRS}", f"distributions at {energy:g} GeV",
            )  # fmt: skip
    count = min(figures.MEAN_OF, len(generated), len(reference))
    yield Drawing(
        partial(figures.draw_mean_points, generated, reference),
        f"Mean of the first {count} showers of each file: energy of the cells, summed along y and over the layers.",
        "mean showers, side and front",
    )
    yield Drawing(
        partial(figures.draw_points, generated, reference),
        "The shower of each file nearest to the mean energy: its points in space; colour and area by energy.",
        "points of two showers in space",
    )


def _plate_drawings(evaluation: PlatesEvaluation) -> Iterator[Drawing]:
    """Yield the figures of a comparison of plates; profiles and distributions are those of up to three energies."""
    points = evaluation.points
    yield plate_distances(evaluation, "distances")
    for number in sorted({0} if evaluation.paired else {0, len(points) // 2, len(points) - 1}):
        yield from plate_point(evaluation, points[number])


def plate_point(evaluation: PlatesEvaluation, point: PlatesPoint, group: str = "") -> Iterator[Drawing]:
    """Yield the profiles and the distributions of one comparison of plates."""
    paired = evaluation.paired
    ours, theirs = (seen.rows(rows) for seen, rows in zip(evaluation.observed, point.rows, strict=True))
    edges = depth_edges(theirs) if paired else None
    profiles = (layer_profiles(seen, paired, edges) for seen in (ours, theirs))
    where = "each shower in its own stack" if paired else point.where
    yield Drawing(
        partial(figures.draw_plate_profiles, list(zip(*profiles, strict=True)),
                "depth of the layer [$X_0$]" if paired else "layer"),
        f"Longitudinal profile, {where}: mean energy in the active plates (visible) and in the absorbers, with "
        "standard errors. Below: generated over Geant4, where Geant4's mean is known to 20 %; grey: its error."
        + (" Layers are in bins of 1 X0 of the depth of their active plate along the normal." if paired else ""),
        f"longitudinal profiles of visible and absorbed energy, {where}", group,
    )  # fmt: skip
    yield Drawing(
        partial(figures.draw_distributions, ours.names, ours.table, theirs.table, 1),
        f"Distributions of observables, {where}. {PAIRS}", f"distributions of observables, {where}", group,
    )  # fmt: skip
    if ours.rings is not None:
        yield Drawing(
            partial(figures.draw_rings, radial_profile(ours), radial_profile(theirs)),
            f"Radial profile, {where}: mean energy in the active plates in rings about the particle's line, with "
            "standard errors; the last ring holds what lies beyond. Below: generated over Geant4, where Geant4's mean "
            "is known to 20 %; grey: its error.",
            f"radial profile of the visible energy, {where}", group,
        )  # fmt: skip


def plate_distances(evaluation: PlatesEvaluation, group: str = "") -> Drawing:
    """Return the figure of the Wasserstein distances of all layers."""
    return Drawing(
        partial(figures.draw_layer_distances, evaluation.points),
        "1-Wasserstein distance of the energy of every layer over its floor, and in grey 95 % of those of a perfect "
        f"generator at these numbers of showers, all energies together. Dashed: the limit, {W1_LIMIT:g}.",
        "Wasserstein distances of all layers over their floors", group,
    )  # fmt: skip


def describe_setup(*records: Any) -> str:
    """Return particle, energies, detector and beam in words, as far as one of the records knows them.

    Args:
        records: cells, maps or points; the first whose configuration knows the beam is described.
    """
    known = next((r for r in records if isinstance(find(r.config, "beam"), Mapping)), records[0])
    beam = find(known.config, "beam") or {}
    incident = next((r.incident for r in records if not r.incident.on_axis), known.incident)
    numbers = {number: PARTICLES[name] for name, number in PDG.items()}
    if incident.on_axis and isinstance(beam.get("particle", ""), str):
        who = PARTICLES.get(beam.get("particle", ""), beam.get("particle")) or "particles that the files do not name,"
    else:
        who = " and ".join(numbers.get(int(each), "other particles") for each in np.unique(incident.particle))
    low, high = float(np.min(known.energy)), float(np.max(known.energy))
    energies = f"{low:g} GeV" if np.isclose(low, high) else f"{low:.4g} to {high:.4g} GeV"
    line = (
        f", {incident.describe_line()}" if not incident.on_axis else ", at normal incidence" if "theta" in beam else ""
    )
    return f"{who[:1].upper()}{who[1:]} of {energies} in {_detector(known)}{line}"


def _detector(records: Any) -> str:
    """Return the detector in words."""
    if isinstance(records, PlateShowers):
        return _stacks(records.stacks)
    if (find(records.config, "detector") or {}).get("kind") == "siw" or not hasattr(records, "material"):
        return f"a silicon-tungsten stack of {records.layers} layers"
    return f"{records.material.name} ({records.material.density:g} g/cm³)"


def _stacks(stacks: Stacks) -> str:
    """Return stacks of plates in words."""
    layers = " to ".join(map(str, dict.fromkeys((int(stacks.layers.min()), int(stacks.layers.max())))))
    names = describe_materials(stacks.absorbers, stacks.actives)
    return f"{'a stack' if stacks.alike else 'stacks'} of {layers} layers of {names}"


def describe_window(records: Any) -> str:
    """Return whether cells or maps show a window into a larger block or the whole of it, from the configuration."""
    if isinstance(mode := find(records.config, "mode"), str):
        return mode
    size = find(records.config, "size")
    if not (isinstance(size, list | tuple) and len(size) == 3):
        return "not stated"
    window = np.column_stack([records.dx * records.n_xy, records.dz.sum(axis=1)])
    whole = np.allclose(window, [size[0], size[2]], rtol=1e-3)
    return "stand-alone block" if whole else "embedded (a window into a larger block)"


def find(config: Any, key: str) -> Any:
    """Return the first value under ``key`` anywhere in nested configuration, None if there is none."""
    if isinstance(config, Mapping):
        if key in config:
            return config[key]
        return next((v for v in (find(c, key) for c in config.values()) if v is not None), None)
    if isinstance(config, list | tuple):
        return next((v for v in (find(c, key) for c in config) if v is not None), None)
    return None
