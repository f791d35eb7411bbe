"""Evaluation of points: showers of a layered detector are compared over a spectrum of incident energies.

**W1**, the measure of the CaloClouds papers: with a quantity standardised by Geant4's deviation, the 1-Wasserstein
distance of equally large samples a and b, sorted,

    W1 = mean |a_(i) - b_(i)| / sigma,      in units of 10^-2

for E_long and E_radial the mean over their ten columns; for E_cell of as many hits, drawn at random, as there are
showers. (The published table is headed 10^-3; its entries are in units of 10^-2, as equal distributions show.)

    over batches      mean and standard error over ten disjoint batches; the floor is batch k of Geant4 against k + 1
    of all showers    all showers at once; the floor is from random halves of Geant4, which are samples of half the
                      size, times sqrt(1/2)

The W1 of a perfect generator is about its floor. Where more showers were generated than there are of Geant4
(``sample --like --repeat``), W1 and the classifiers take as many as there are, with energies like Geant4's; means
and spreads take all.

The energy resolution is that of the visible energy, the energy of all hits, against the incident energy
(`calograd.metrics.resolution`): of discrete energies, or in bins of a continuous spectrum.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from calograd.errors import InputError
from calograd.evaluation.classifier_tests import ClassifierTest
from calograd.evaluation.moments import MomentRatios, compare_moments
from calograd.evaluation.result import Evaluation, SummaryTable
from calograd.events.layered_readout import GRID, Hits, Readout, read_out
from calograd.events.point_showers import LAYERS, PointShowers
from calograd.metrics.classifier import CLASSIFIERS, LabelledRows, cross_fitted_auc
from calograd.metrics.grid_classifier import grid_rows
from calograd.metrics.points import SINGLE, PointObservables, observe_points
from calograd.metrics.resolution import COLUMNS, ResolutionCurve, resolution_curves
from calograd.system.progress import StageProgress, silent

SCHEMA = "calograd/cloud-evaluation/1"
OBSERVABLES = ("N_hits", "E_vis/E_inc", "E_cell", "E_long", "E_radial", "m1_X", "m1_Y", "m1_Z")
"""Observables that have a W1."""
BATCHES = 10
"""Number of disjoint batches of the published measure."""
SPLITS = 20
"""Number of random halves of Geant4 that make the floor."""
UNIT = 1e-2
"""Unit in which W1 is stated."""
ENERGIES = (10.0, 50.0, 90.0)
"""Incident energies in GeV at which means and spreads are compared."""
WINDOW = 2.5
"""Largest distance in GeV of an incident energy from one of `ENERGIES` to which it counts."""
ENERGY_MARGIN = 0.1
"""Largest difference of the ends of both files' energies, as a share of the largest."""
MIN_SHOWERS = 40
"""Fewest showers of either file, and at one of `ENERGIES`."""
MAX_GRIDS = 5000
"""Most showers of either file whose grids are classified, the slowest part."""


@dataclass(frozen=True)
class W1Score:
    """W1 of an observable in units of 10^-2.

    Args:
        name: name of the observable.
        value, error: mean and standard error over batches.
        floor, floor_error: the same of Geant4 against itself.
        whole, whole_floor: W1 of all showers at once, and that of Geant4 against itself.
    """

    name: str
    value: float
    error: float
    floor: float
    floor_error: float
    whole: float
    whole_floor: float

    @property
    def over_floor(self) -> float:
        """W1 of all showers in units of its floor."""
        return self.whole / self.whole_floor if self.whole_floor > 0 else float("nan")


@dataclass(frozen=True)
class PointsEvaluation(Evaluation):
    """The outcome of a comparison of points.

    Args:
        observed: observables of generated and reference showers, equally many.
        scores: W1 of `OBSERVABLES`.
        ratios: ratios of moments at `ENERGIES`.
        batch: showers of a batch.
        resolution: energy resolution of generated and reference showers; empty where no energy has enough of both.
    """

    observed: tuple[PointObservables, PointObservables] = field(repr=False)
    scores: tuple[W1Score, ...]
    ratios: tuple[MomentRatios, ...]
    batch: int
    resolution: tuple[ResolutionCurve, ...] = ()

    def tables(self) -> list[SummaryTable]:
        """Return W1 scores, ratios of moments, resolutions and classifier tests."""
        title = f"{self.generated.origin} against {self.reference.origin}"
        batches, whole = f"{BATCHES} batches of {self.batch}", f"all {len(self.observed[1])}"
        found = [
            SummaryTable(
                f"{title}: W1 in 10^-2", ("observable", batches, "floor", whole, "floor", "ratio"),
                [(s.name, f"{s.value:.2f} +- {s.error:.2f}", f"{s.floor:.2f} +- {s.floor_error:.2f}", f"{s.whole:.2f}",
                  f"{s.whole_floor:.2f}", f"{s.over_floor:.1f}") for s in self.scores],
            )
        ]  # fmt: skip
        if self.ratios:
            found.append(SummaryTable(
                "Means and spreads over Geant4's", ("energy, GeV", "quantity", "showers", "mean", "spread"),
                [(f"{r.energy:g}", r.name, " / ".join(map(str, r.showers)), f"{r.mean_ratio:.4f} +- {r.mean_error:.4f}",
                  f"{r.spread_ratio:.3f} +- {r.spread_error:.3f}") for r in self.ratios],
            ))  # fmt: skip
        if self.resolution:
            rows = [row for curve in self.resolution for row in curve.rows()]
            found.append(SummaryTable("Energy resolution of the visible energy", COLUMNS, rows))
        if self.tests:
            found.append(SummaryTable(
                "Classifiers (95 % interval)", ("features", "classifier", "AUC", "Geant4 halves"),
                [(t.features, t.classifier, t.auc, t.floor) for t in self.tests],
            ))  # fmt: skip
        return found

    def _contents(self) -> dict[str, Any]:
        names = {"layers": "layers", "rings": "radial", "spectrum": "spectrum"}
        return {
            "schema": SCHEMA, "unit": "10^-2", "batches": BATCHES, "batch": self.batch,
            "showers": dict(zip(("generated", "reference"), map(len, self.observed), strict=True)),
            "w1": {s.name: asdict(s) | {"over_floor": s.over_floor} for s in self.scores},
            "energies": [asdict(r) for r in self.ratios],
            "resolution": [curve.to_dict() for curve in self.resolution],
            "classifiers": [t.to_dict() for t in self.tests],
            "profiles": {
                which: {key + of: getattr(getattr(o, name), what) for key, name in names.items()
                        for of, what in (("", "mean"), ("_error", "error"))}
                for which, o in zip(("generated", "reference"), self.observed, strict=True)
            },
        }  # fmt: skip


def _refuse_incomparable(generated: PointShowers, reference: PointShowers) -> None:
    """Raise `InputError` unless both are of one beam, the same energies and, where files say so, one detector."""
    difference = generated.incident.difference(reference.incident)
    if difference:
        raise InputError(f"generated points are of {difference} as the reference; expected one beam")
    ends = [np.array([part.energy.min(), part.energy.max()]) for part in (generated, reference)]
    if (np.abs(ends[0] - ends[1]) > ENERGY_MARGIN * ends[1][1]).any():
        said = ["{:g} to {:g} GeV".format(*end) for end in ends]
        raise InputError(f"generated points have energies of {said[0]}, the reference {said[1]}; expected the same")
    detectors = [(part.config.get("simulation") or {}).get("detector") for part in (generated, reference)]
    if all(detectors) and detectors[0] != detectors[1]:
        raise InputError("generated points and the reference were simulated in different detectors; expected one")


def evaluate_points(
    generated: PointShowers, reference: PointShowers, *, seed: int, classifiers: bool, progress: StageProgress,
    warnings: list[str], files: dict[str, str], readout: Readout | None = None, **_: Any,
) -> PointsEvaluation:  # fmt: skip
    """Compare points over all their energies; see `calograd.evaluation.evaluate`."""
    n = min(len(generated), len(reference))
    if n < MIN_SHOWERS:
        raise InputError(f"{n} showers in one of the files; expected {MIN_SHOWERS} or more in each")
    _refuse_incomparable(generated, reference)
    found = list(warnings)
    for name, points in (("generated", generated), ("reference", reference)):
        if (empty := int((points.counts == 0).sum())) > 0:
            found.append(f"{empty} of {len(points)} {name} showers have no point")
    rng = np.random.default_rng(seed)
    progress("observables", 0, 2)
    # Rows are put into a random order, because a file may be sorted by energy.
    mixed = [points.rows(order_like_all(points.energy, n, rng)) for points in (generated, reference)]
    all_ours = observe_points(mixed[0], readout)
    progress("observables", 1, 2)
    all_theirs = observe_points(mixed[1], readout)
    progress("observables", 2, 2)
    for name, seen in (("generated", all_ours), ("reference", all_theirs)):
        if len(seen.hits) == 0:
            raise InputError(
                f"no {name} shower has a cell above 0.1 MeV; expected showers of 10 to 90 GeV, in GeV and cm"
            )
    ours, theirs = all_ours.rows(slice(0, n)), all_theirs.rows(slice(0, n))
    scores = tuple(score_observable(name, ours, theirs, rng) for name in OBSERVABLES)
    ratios = tuple(r for e in ENERGIES for r in moment_ratios(e, all_ours, all_theirs))
    curves: tuple[ResolutionCurve, ...] = ()
    with suppress(InputError):  # too few showers at every energy, or none that differ
        both = (all_ours, all_theirs)
        curves = resolution_curves(
            (generated.origin, reference.origin), [o.energy for o in both],
            [o.table[:, SINGLE.index("E_vis/E_inc")] * o.energy for o in both], seed=seed,
        )  # fmt: skip
    tests: tuple[ClassifierTest, ...] = ()
    if classifiers:
        first, second = (read_out(points.rows(slice(0, MAX_GRIDS)), readout).within() for points in mixed)
        tests = run_point_tests(ours, theirs, (first, second), rng, progress)
        found += [f"{t.classifier} on {t.features}: cannot be measured with so few showers"
                  for t in tests if not t.auc.measured]  # fmt: skip
    return PointsEvaluation(
        generated,
        reference,
        tests,
        (),
        tuple(found),
        seed,
        files,
        (ours, theirs),
        scores,
        ratios,
        n // BATCHES,
        curves,
    )


def order_like_all(energy: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random order of showers whose first n have energies like all of them.

    Args:
        energy: incident energies, shape (showers,), GeV.
        n: number of showers that are to be like all, at most ``showers``.
        rng: generator of the order.
    """
    by_energy = np.lexsort((rng.random(len(energy)), energy))
    first = by_energy[((np.arange(n) + 0.5) * len(energy) / n).astype(np.int64)]
    rest = np.setdiff1d(by_energy, first, assume_unique=True)
    return np.concatenate([rng.permutation(first), rng.permutation(rest)])


def run_point_tests(
    ours: PointObservables, theirs: PointObservables, grids: tuple[Hits, Hits], rng: np.random.Generator,
    progress: StageProgress = silent,
) -> tuple[ClassifierTest, ...]:  # fmt: skip
    """Train every classifier on high-level features, and a network on grids (`calograd.metrics.grid_classifier`).

    Args:
        ours, theirs: equally many generated and reference showers.
        grids: generated and Geant4's grids, perhaps of fewer showers.
        rng: generator of everything that is drawn.
        progress: called as ``progress(stage, done, total)``.
    """
    half, few = len(theirs) // 2, len(grids[1]) // 2
    tests, total = [], len(CLASSIFIERS) + 1
    for number, (name, fit) in enumerate(CLASSIFIERS.items()):
        progress("classifiers", number, total)
        pairs = ((ours, theirs), (theirs.rows(slice(0, half)), theirs.rows(slice(half, 2 * half))))
        auc, floor = (cross_fitted_auc(labelled(a, b), fit, rng) for a, b in pairs)
        tests.append(ClassifierTest("high-level", name, auc, floor))
    progress("classifiers", len(CLASSIFIERS), total)
    halves = (grids[1].rows(slice(0, few)), grids[1].rows(slice(few, 2 * few)))
    auc, floor = (cross_fitted_auc(*grid_rows(*pair), rng) for pair in (grids, halves))
    progress("classifiers", total, total)
    return (*tests, ClassifierTest(f"{GRID} x {GRID} x {LAYERS} grid", "convolutions", auc, floor))


def score_observable(name: str, ours: PointObservables, theirs: PointObservables, rng: np.random.Generator) -> W1Score:
    """Return W1 of an observable of equally many generated and reference showers."""
    a, b = _columns(name, ours, rng), _columns(name, theirs, rng)
    scale = np.atleast_1d(theirs.hits.std() if name == "E_cell" else b.std(0))
    varies = scale > 0  # a column in which Geant4 does not vary has no scale
    a, b = a[:, varies] / (scale[varies] * UNIT), b[:, varies] / (scale[varies] * UNIT)
    size = len(b) // BATCHES
    cut = [slice(k * size, (k + 1) * size) for k in range(BATCHES)]
    found = np.array([w1(a[rows], b[rows]) for rows in cut])
    floor = np.array([w1(b[rows], b[other]) for rows, other in zip(cut, cut[1:] + cut[:1], strict=True)])
    half = len(b) // 2
    halves = []
    for _ in range(SPLITS):
        order = rng.permutation(len(b))
        halves.append(w1(b[order[:half]], b[order[half : 2 * half]]))
    return W1Score(
        name, float(found.mean()), float(found.std(ddof=1) / BATCHES**0.5), float(floor.mean()),
        float(floor.std(ddof=1) / BATCHES**0.5), w1(a, b), float(np.mean(halves) * 0.5**0.5),
    )  # fmt: skip


def w1(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over columns of the 1-Wasserstein distance of equally large samples (n, k); NaN of none."""
    if a.shape[1] == 0:
        return float("nan")
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())


def _columns(name: str, seen: PointObservables, rng: np.random.Generator) -> np.ndarray:
    """Return the columns of an observable, shape (n, k)."""
    if name == "E_cell":
        drawn: np.ndarray = rng.choice(seen.hits, len(seen), replace=len(seen.hits) < len(seen))
        return drawn[:, None]
    if name in SINGLE:
        return seen.table[:, SINGLE.index(name), None]
    first = len(SINGLE) + 10 * (name == "E_radial")
    return seen.table[:, first : first + 10]


def moment_ratios(energy: float, ours: PointObservables, theirs: PointObservables) -> list[MomentRatios]:
    """Return the ratios of E_vis / E_inc and of N_hits within `WINDOW` of an energy (GeV); none of few showers."""
    near = [np.abs(o.energy - energy) <= WINDOW for o in (ours, theirs)]
    counts = (int(near[0].sum()), int(near[1].sum()))
    if min(counts) < MIN_SHOWERS:
        return []
    result = []
    for name in ("E_vis/E_inc", "N_hits"):
        a, b = (o.table[rows, SINGLE.index(name)] for o, rows in zip((ours, theirs), near, strict=True))
        if name == "N_hits":  # within the window the number of hits grows with the energy
            a, b = (v / o.energy[rows] for v, o, rows in zip((a, b), (ours, theirs), near, strict=True))
        result.append(compare_moments(name, energy, a, b))
    return result


def labelled(ours: PointObservables, theirs: PointObservables) -> LabelledRows:
    """Return the high-level features of both samples: the 25 observables, energies as logarithms, and ln E_inc."""
    parts = []
    for o in (ours, theirs):
        energies = np.log(o.table[:, len(SINGLE) :] / o.energy[:, None] + 1e-6)
        parts.append(np.column_stack([o.table[:, : len(SINGLE)], energies, np.log(o.energy)]))
    label = np.repeat([True, False], [len(ours), len(theirs)])
    group = np.arange(len(label))
    return LabelledRows(np.concatenate(parts).astype(np.float32), label, group)
