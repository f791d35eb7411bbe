"""Compare generated showers of a layered detector with Geant4's.

**W1**, the measure of the CaloClouds papers: with a quantity standardised by Geant4's deviation, the 1-Wasserstein
distance of equally large samples a and b, sorted,

    W1 = mean |a_(i) - b_(i)| / sigma,      in units of 10^-2

for E_long and E_radial the mean over their ten columns; for E_cell of as many hits, drawn at random, as there are
showers. (The published table is headed 10^-3; its entries are in units of 10^-2, as two samples of one law tell.)

    over batches   mean and standard error over ten disjoint batches; the floor is batch k of Geant4 against its k+1
    of all         all showers at once; the floor from random halves of Geant4, which are samples of half the size,
                   times sqrt(1/2)

A generator without a fault has W1 of about its floor. Where more showers were generated than there are of Geant4
(``sample --like --repeat``), W1 and the classifiers take as many as there are, of energies like Geant4's; means and
spreads take all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from calograd.errors import InputError
from calograd.evaluation.evaluate import jsonable, versions
from calograd.events.clouds import LAYERS, Clouds
from calograd.events.grids import Grids
from calograd.events.layered_readout import GRID, Readout
from calograd.metrics.classifier import AUC, CLASSIFIERS, LabelledRows, cross_fitted_auc
from calograd.metrics.grid_classifier import grid_rows
from calograd.metrics.point_observables import SINGLE, CloudObservables, observe_clouds

SCHEMA = "calograd/cloud-evaluation/1"
OBSERVABLES = ("N_hits", "E_vis/E_inc", "E_cell", "E_long", "E_radial", "m1_X", "m1_Y", "m1_Z")
BATCHES = 10
SPLITS = 20
UNIT = 1e-2
ENERGIES = (10.0, 50.0, 90.0)
"""GeV, where means and spreads are compared."""
WINDOW = 2.5
"""Showers within so many GeV count as of that energy."""
MIN_SHOWERS = 40
"""In either file."""
MAX_GRIDS = 5000
"""Showers of either file whose grids are classified, which takes longest."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Score:
    """W1 of an observable in units of 10^-2: over batches with standard errors, and of all showers."""

    name: str
    value: float
    error: float
    floor: float
    floor_error: float
    whole: float
    whole_floor: float

    @property
    def over_floor(self) -> float:
        """That of all showers in units of its floor."""
        return self.whole / self.whole_floor if self.whole_floor > 0 else float("nan")


@dataclass(frozen=True)
class Comparison:
    """Mean and deviation of a quantity at an energy (GeV), generated over Geant4's, with standard errors."""

    name: str
    energy: float
    showers: tuple[int, int]
    mean_ratio: float
    mean_error: float
    spread_ratio: float
    spread_error: float


@dataclass(frozen=True)
class Told:
    """How well a classifier tells generated showers from Geant4's, beside one half of Geant4's from the other.

    ``features`` is ``high-level`` or ``30 x 30 x 30 grid``.
    """

    features: str
    classifier: str
    auc: AUC
    floor: AUC


@dataclass(frozen=True)
class CloudEvaluation:
    """The outcome.

    Args:
        generated, reference: what was observed, of equally many showers.
        scores: by `OBSERVABLES`.
        comparisons: at `ENERGIES`.
        told: by features and classifier; empty if not asked for.
        batch: showers of a batch.
        warnings: what was left out.
    """

    generated: CloudObservables = field(repr=False)
    reference: CloudObservables = field(repr=False)
    scores: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    told: tuple[Told, ...]
    batch: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for strict JSON."""
        result = {
            "schema": SCHEMA, "versions": versions(), "unit": "10^-2", "batches": BATCHES, "batch": self.batch,
            "showers": {"generated": len(self.generated), "reference": len(self.reference)},
            "w1": {s.name: asdict(s) | {"over_floor": s.over_floor} for s in self.scores},
            "energies": [asdict(c) for c in self.comparisons],
            "classifiers": [asdict(t) for t in self.told],
            "profiles": {
                which: {name + of: getattr(getattr(o, name), what) for name in ("layers", "rings", "spectrum")
                        for of, what in (("", "mean"), ("_error", "error"))}
                for which, o in (("generated", self.generated), ("reference", self.reference))
            },
            "warnings": list(self.warnings),
        }  # fmt: skip
        cleaned: dict[str, Any] = jsonable(result)
        return cleaned


def evaluate_clouds(
    generated: Clouds,
    reference: Clouds,
    *,
    readout: Readout | None = None,
    seed: int = 0,
    classifiers: bool = True,
    progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
) -> CloudEvaluation:
    """Compare showers; their incident energies should follow one law, best one to one (``sample --like``).

    Args:
        generated: to judge.
        reference: Geant4's, independent of them.
        readout: of the cells.
        seed: of everything that is drawn.
        classifiers: whether to train them; needs scikit-learn.
        progress: called as progress(stage, done, total).

    Raises:
        InputError: other numbers of layers, too few showers, or none with a hit.
    """
    n = min(len(generated), len(reference))
    if n < MIN_SHOWERS:
        raise InputError(f"{n} showers in one of the files; expected {MIN_SHOWERS} or more in each")
    warnings = []
    for name, clouds in (("generated", generated), ("reference", reference)):
        if (empty := int((clouds.counts == 0).sum())) > 0:
            warnings.append(f"{empty} of {len(clouds)} {name} showers have no point")
    rng = np.random.default_rng(seed)
    progress("observables", 0, 2)
    # drawn into any order: a file may be in order of energies
    generated = generated.rows(like_first(generated.energy, n, rng))
    reference = reference.rows(like_first(reference.energy, n, rng))
    all_ours = observe_clouds(generated, readout)
    progress("observables", 1, 2)
    all_theirs = observe_clouds(reference, readout)
    progress("observables", 2, 2)
    for name, seen in (("generated", all_ours), ("reference", all_theirs)):
        if len(seen.hits) == 0:
            raise InputError(
                f"no {name} shower has a cell above 0.1 MeV; expected showers of 10 to 90 GeV, in GeV and cm"
            )
    ours, theirs = all_ours.rows(0, n), all_theirs.rows(0, n)
    scores = tuple(score(name, ours, theirs, rng) for name in OBSERVABLES)
    comparisons = tuple(c for e in ENERGIES for c in compare_at(e, all_ours, all_theirs))
    told: tuple[Told, ...] = ()
    if classifiers:
        grids = tuple(Grids.of(clouds.rows(slice(0, MAX_GRIDS)), readout) for clouds in (generated, reference))
        told = tell_apart(ours, theirs, (grids[0], grids[1]), rng, progress)
    return CloudEvaluation(ours, theirs, scores, comparisons, told, n // BATCHES, tuple(warnings))


def like_first(energy: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """An order of showers, at random but that the first n have energies like all.

    Args:
        energy: incident, shape (showers,).
        n: at most their number.
        rng: of the order.
    """
    by_energy = np.lexsort((rng.random(len(energy)), energy))
    first = by_energy[((np.arange(n) + 0.5) * len(energy) / n).astype(np.int64)]
    rest = np.setdiff1d(by_energy, first, assume_unique=True)
    return np.concatenate([rng.permutation(first), rng.permutation(rest)])


def tell_apart(
    ours: CloudObservables,
    theirs: CloudObservables,
    grids: tuple[Grids, Grids],
    rng: np.random.Generator,
    progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
) -> tuple[Told, ...]:
    """Every classifier on high-level features, and a network on grids, see `calograd.metrics.grid_classifier`.

    Args:
        ours, theirs: equally many showers.
        grids: generated and Geant4's, perhaps of fewer showers.
        rng: of everything that is drawn.
        progress: called as progress(stage, done, total).
    """
    half, few = len(theirs) // 2, len(grids[1]) // 2
    told, total = [], len(CLASSIFIERS) + 1
    for number, (name, fit) in enumerate(CLASSIFIERS.items()):
        progress("classifiers", number, total)
        pairs = ((ours, theirs), (theirs.rows(0, half), theirs.rows(half, 2 * half)))
        found = [cross_fitted_auc(labelled(a, b), fit, rng) for a, b in pairs]
        told.append(Told("high-level", name, found[0], found[1]))
    progress("classifiers", len(CLASSIFIERS), total)
    halves = (grids[1].rows(0, few), grids[1].rows(few, 2 * few))
    found = [cross_fitted_auc(*grid_rows(*pair), rng) for pair in (grids, halves)]
    progress("classifiers", total, total)
    return (*told, Told(f"{GRID} x {GRID} x {LAYERS} grid", "convolutions", found[0], found[1]))


def score(name: str, ours: CloudObservables, theirs: CloudObservables, rng: np.random.Generator) -> Score:
    """W1 of an observable of equally many showers."""
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
    return Score(
        name, float(found.mean()), float(found.std(ddof=1) / BATCHES**0.5), float(floor.mean()),
        float(floor.std(ddof=1) / BATCHES**0.5), w1(a, b), float(np.mean(halves) * 0.5**0.5),
    )  # fmt: skip


def w1(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the columns of the 1-Wasserstein distance of equally large samples (n, k); NaN of no columns."""
    if a.shape[1] == 0:
        return float("nan")
    return float(np.abs(np.sort(a, axis=0) - np.sort(b, axis=0)).mean())


def _columns(name: str, of: CloudObservables, rng: np.random.Generator) -> np.ndarray:
    """The columns of an observable, shape (n, k)."""
    if name == "E_cell":
        drawn: np.ndarray = rng.choice(of.hits, len(of), replace=len(of.hits) < len(of))
        return drawn[:, None]
    if name in SINGLE:
        return of.table[:, SINGLE.index(name), None]
    first = len(SINGLE) + 10 * (name == "E_radial")
    return of.table[:, first : first + 10]


def compare_at(energy: float, ours: CloudObservables, theirs: CloudObservables) -> list[Comparison]:
    """Means and spreads of E_vis / E_inc and of N_hits within `WINDOW` of an energy (GeV); none of few showers."""
    near = [np.abs(o.incident - energy) <= WINDOW for o in (ours, theirs)]
    counts = (int(near[0].sum()), int(near[1].sum()))
    if min(counts) < MIN_SHOWERS:
        return []
    result = []
    for name in ("E_vis/E_inc", "N_hits"):
        a, b = (o.table[rows, SINGLE.index(name)] for o, rows in zip((ours, theirs), near, strict=True))
        if name == "N_hits":  # within the window it goes with the energy
            a, b = (v / o.incident[rows] for v, o, rows in zip((a, b), (ours, theirs), near, strict=True))
        spread = a.std(ddof=1) / b.std(ddof=1)
        error = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b)) / b.mean()
        result.append(
            Comparison(name, energy, counts, float(a.mean() / b.mean()), float(error), float(spread),
                       float(spread * np.sqrt(_relative_variance(a) + _relative_variance(b))))
        )  # fmt: skip
    return result


def _relative_variance(values: np.ndarray) -> float:
    """Of the standard deviation of a sample, from its fourth moment."""
    about = values - values.mean()
    variance = (about**2).mean()
    return float(max((about**4).mean() / variance**2 - 1, 0) / (4 * len(values))) if variance > 0 else 0.0


def labelled(ours: CloudObservables, theirs: CloudObservables) -> LabelledRows:
    """High-level features of generated and reference showers: the 25 observables, energies as logarithms, and ln E."""
    parts = []
    for o in (ours, theirs):
        energies = np.log(o.table[:, len(SINGLE) :] / o.incident[:, None] + 1e-6)
        parts.append(np.column_stack([o.table[:, : len(SINGLE)], energies, np.log(o.incident)]))
    label = np.repeat([True, False], [len(ours), len(theirs)])
    group = np.arange(len(label))
    return LabelledRows(np.concatenate(parts).astype(np.float32), label, group)
