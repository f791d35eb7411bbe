"""Evaluation of showers in stacks of plates: energies of layers, visible energy, its resolution, depth of the shower.

`calograd.metrics.plates` defines the observables. There are two situations.

**One stack.** All showers of both files are in the same stack, of one particle and angle. They are compared at every
incident energy, or in bins of a continuous spectrum (`calograd.metrics.resolution`). Showers of the two files are
independent, and errors are those of both sides, of a standard deviation from the fourth moment.

    W1        of the share of the incident energy in every plate, in units of Geant4's deviation; its floor is that of
              random halves of Geant4 (`calograd.metrics.distances`)

**A stack for every shower.** The generated file was made ``--like`` the reference, so that row i of one has stack,
energy, particle and direction of row i of the other, or k rows have with ``--repeat k``. Rows are compared in pairs:

    mean      1 + mean of d,  d = 2 (g - r) / (g + r) with g generated and r Geant4's; of k rows d is their mean.
              g and r of a perfect generator can be exchanged, so d is zero on average. The error is that of the mean
              of d over rows
    spread    S_g / S_r with 2 S_g^2 = <d^2> of two generated rows of one shower, S_r^2 = <d^2> - S_g^2 - <d>^2 of
              generated and Geant4's: relative deviations in single stacks. Of energies the means over rows have weights
              E_inc, since their relative variance is nearly as 1 / E. The error is by bootstrap of the rows; with k = 1
              nothing is known of the spread in a single stack
    W1        as above; its floor is that after exchanging random pairs, which a perfect generator has

Classifiers see the energies of all plates and the observables, with logarithms of energies, and in the second situation
energy, particle, angle and stack. There generated showers of a random half of the rows are compared with Geant4's of
the other half: rows of one stack in both classes would teach a classifier to expect the other class.

Where both files have deposits, R_E and the number of hits are compared as well.

**Limits**: the mean of E_vis within 0.5 %, its resolution within 5 %, means of depth_mean and depth_spread within 1 %,
of R_E and N_hits within 2 %, or within two standard errors; W1 within three floors in 95 % of the layers; AUC at most
0.60.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from math import erf, isfinite
from typing import Any

import numpy as np

from calograd.detector.configuration import PDG
from calograd.detector.incidence import SAME_ANGLE
from calograd.detector.material import to_float
from calograd.errors import InputError
from calograd.evaluation.classifier_tests import ClassifierTest
from calograd.evaluation.limits import LimitCheck, check_auc
from calograd.evaluation.moments import MomentRatios, compare_moments
from calograd.evaluation.points import ENERGY_MARGIN
from calograd.evaluation.result import Evaluation, SummaryTable
from calograd.events.library.schema import values_problem
from calograd.events.plates import PlateShowers
from calograd.metrics.classifier import CLASSIFIERS, FOLDS, LabelledRows, cross_fitted_auc
from calograd.metrics.distances import BOOTSTRAPS, null_wasserstein, swapped_wasserstein, wasserstein
from calograd.metrics.plates import PlateObservables, layer_profiles, observe_plates, radial_profile
from calograd.metrics.resolution import (
    COLUMNS,
    MIN_SHOWERS,
    EnergyGroup,
    ResolutionCurve,
    group_by_energy,
    resolution_curves,
)
from calograd.system.progress import StageProgress, silent

SCHEMA = "calograd/plates-evaluation/1"
MEAN_LIMITS = {"E_vis/E_inc": 0.005, "depth_mean": 0.01, "depth_spread": 0.01, "R_E": 0.02, "N_hits": 0.02}
"""Largest relative differences of means."""
RESOLUTION_LIMIT = 0.05
"""Largest relative difference of the resolution of the visible energy."""
W1_LIMIT, W1_SHARE = 3.0, 0.95
"""Largest W1 of a layer's energy in units of its floor, and the share of the layers that has to keep it."""
SAME_ENERGY = 1e-5
"""Relative difference below which two incident energies are the same."""
SOFT = 1e-5
"""Energy in GeV below which logarithms of energies of plates turn linear for classifiers."""
PLATES = ("active plates", "absorbers")
"""The plates of a layer whose energies are compared."""
WHOLE = "all energies"
"""Name of the comparison of all rows of showers in stacks of their own."""


@dataclass(frozen=True)
class LayerDistances:
    """W1 of the energies of layers at one energy.

    Args:
        plates: one of `PLATES`.
        w1, floor: W1 of every layer's energy in units of Geant4's deviation, and what a perfect generator has on
            average, shape (layers,); NaN where Geant4's energy never varies.
        null: distances of a perfect generator, shape (splits, layers).
    """

    plates: str
    w1: np.ndarray
    floor: np.ndarray
    null: np.ndarray = field(repr=False)

    @property
    def over_floor(self) -> np.ndarray:
        """W1 in units of its floor, shape (layers,)."""
        return np.asarray(self.w1 / np.where(self.floor > 0, self.floor, np.nan))

    @property
    def share(self) -> float:
        """Share of the layers within `W1_LIMIT` floors; NaN of no layer."""
        return _share(self.over_floor)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "plates": self.plates, "w1": self.w1.tolist(), "floor": self.floor.tolist(),
            "over_floor": self.over_floor.tolist(), "share_within_limit": self.share,
        }  # fmt: skip


@dataclass(frozen=True)
class PlatesPoint:
    """The comparison at one incident energy, or of all rows.

    Args:
        where: the energy in words, or `WHOLE`.
        energy: incident energy, GeV; of a bin or of all rows a mean one.
        rows: rows of the generated and of Geant4's observables that were compared.
        moments: moments of the columns of `calograd.metrics.plates.PlateObservables.table`.
        resolution: sigma / mean of the visible energy, generated over Geant4's, with its standard error; NaN where it
            is not known.
        layers: distances of active plates and absorbers.
    """

    where: str
    energy: float
    rows: tuple[np.ndarray, np.ndarray] = field(repr=False)
    moments: tuple[MomentRatios, ...]
    resolution: tuple[float, float]
    layers: tuple[LayerDistances, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "where": self.where, "energy": self.energy,
            "showers": dict(zip(("generated", "reference"), map(len, self.rows), strict=True)),
            "moments": [asdict(each) for each in self.moments],
            "resolution": {"ratio": self.resolution[0], "error": self.resolution[1]},
            "layers": [each.to_dict() for each in self.layers],
        }  # fmt: skip


@dataclass(frozen=True)
class PlatesEvaluation(Evaluation):
    """The outcome of a comparison of showers in stacks of plates.

    Args:
        paired: True if every shower has a stack of its own, and rows were compared in pairs.
        repeat: generated rows for every row of the reference, where rows are paired.
        observed: observables of generated and reference showers, without those that hold no visible energy.
        points: comparisons at the energies, of pairs also that of all rows, which comes first.
        resolution: energy resolution in one stack; empty of pairs.
    """

    paired: bool
    repeat: int
    observed: tuple[PlateObservables, PlateObservables] = field(repr=False)
    points: tuple[PlatesPoint, ...]
    resolution: tuple[ResolutionCurve, ...] = ()

    def tables(self) -> list[SummaryTable]:
        """Return limits, moments, distances of layers, resolutions and classifier tests."""
        title = f"{self.generated.origin} against {self.reference.origin}"
        how = "row by row, each in its own stack" if self.paired else "in one stack"
        found = [
            SummaryTable(
                f"{title}, {how}: {self.verdict}",
                ("limits on", "of", "passed", "perfect would", "beyond statistics", "worst", "at"),
                [(s.kind, s.subject, f"{s.passed} of {s.checked}", f"{s.expected:.1f}", s.significant,
                  s.worst_in_words, s.worst.where) for s in self.summaries],
            ),
            SummaryTable(
                "Means and spreads over Geant4's", ("energy", "quantity", "showers", "mean", "spread"),
                [row for point in self.points for row in _moment_rows(point, self.paired)],
            ),
            SummaryTable(
                "W1 of the energy of layers, in units of its floor",
                ("energy", "plates", "layers", "median", "largest", "in layer", f"within {W1_LIMIT:g} floors"),
                [row for point in self.points for row in _distance_rows(point)],
            ),
        ]  # fmt: skip
        if self.resolution:
            rows = [row for curve in self.resolution for row in curve.rows()]
            found.append(SummaryTable("Energy resolution of the visible energy", COLUMNS, rows))
        if self.tests:
            found.append(SummaryTable(
                "Classifiers (95 % interval)", ("features", "classifier", "showers of each", "AUC", "Geant4 halves"),
                [(t.features, t.classifier, t.auc.n_reference, t.auc, t.floor) for t in self.tests],
            ))  # fmt: skip
        return found

    def _contents(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA, "paired": self.paired, "repeat": self.repeat,
            "showers": dict(zip(("generated", "reference"), map(len, self.observed), strict=True)),
            "limits": {
                "passed": self.passed, "verdict": self.verdict, "checks": [vars(check) for check in self.checks],
            },
            "points": [point.to_dict() for point in self.points],
            "resolution": [curve.to_dict() for curve in self.resolution],
            "classifiers": [test.to_dict() for test in self.tests],
            "profiles": {
                which: {
                    name: profile._asdict()
                    for name, profile in zip(("visible", "absorbed"), layer_profiles(seen, self.paired), strict=True)
                } | ({} if seen.rings is None else {"radial": radial_profile(seen)._asdict()})
                for which, seen in zip(("generated", "reference"), self.observed, strict=True)
            },
        }  # fmt: skip


def evaluate_plates(
    generated: PlateShowers, reference: PlateShowers, *, seed: int, classifiers: bool, progress: StageProgress,
    warnings: list[str], files: dict[str, str], **_: Any,
) -> PlatesEvaluation:  # fmt: skip
    """Compare showers in stacks of plates; see `calograd.evaluation.evaluate`."""
    for name, showers in (("generated", generated), ("reference", reference)):
        problem = values_problem(showers) if len(showers) else "there are no showers"
        if problem:
            raise InputError(f"{name} plates: {problem}; expected energies and thicknesses of zero or more")
    alone = all(_in_one_stack(showers) for showers in (generated, reference))
    repeat = 1 if alone else _pairs(generated, reference)
    if alone:
        _refuse_another_stack(generated, reference)
    deposits = all(showers.deposits is not None for showers in (generated, reference))
    both = tuple(observe_plates(showers, deposits) for showers in (generated, reference))
    filled = [np.isfinite(seen.table).all(1) for seen in both]
    found = list(warnings)
    for name, kept in zip(("generated", "reference"), filled, strict=True):
        if not kept.all():
            found.append(f"{int((~kept).sum())} of {len(kept)} {name} showers hold no visible energy; left out")
    if not alone:  # a row is left out as a whole
        rows = filled[1] & filled[0].reshape(-1, repeat).all(1)
        filled = [np.repeat(rows, repeat), rows]
    kept = [np.flatnonzero(each) for each in filled]
    ours, theirs = both[0].rows(kept[0]), both[1].rows(kept[1])
    if min(len(ours), len(theirs)) < MIN_SHOWERS:
        raise InputError(
            f"{min(len(ours), len(theirs))} showers with visible energy in one of the files; expected {MIN_SHOWERS} or "
            "more in each"
        )
    rng = np.random.default_rng(seed)
    curves: tuple[ResolutionCurve, ...] = ()
    if alone:
        points = _compare_stack(ours, theirs, rng, progress)
        with suppress(InputError):  # a resolution of zero
            measured = [seen.column("E_vis/E_inc") * seen.energy for seen in (ours, theirs)]
            energies = [seen.energy for seen in (ours, theirs)]
            curves = resolution_curves((generated.origin, reference.origin), energies, measured, seed=seed)
            points = [_with_resolution(point, curves) for point in points]
    else:
        points = _compare_pairs(ours, theirs, repeat, rng, progress)
    tests: list[ClassifierTest] = []
    if classifiers:
        sides = [(showers.rows(which), seen) for showers, which, seen in
                 zip((generated, reference), kept, (ours, theirs), strict=True)]  # fmt: skip
        features = [_features(showers, seen, conditions=not alone) for showers, seen in sides]
        features[0] = features[0][::repeat]
        tests = run_plate_tests(features[0], features[1], not alone, rng, progress)
        found += [f"{t.classifier} on {t.features}: cannot be measured with so few showers, not judged"
                  for t in tests if not t.auc.measured]  # fmt: skip
    checks = [check for point in points for check in check_plates(point)]
    checks += [check_auc(t.features, t.classifier, WHOLE, t.auc, t.floor) for t in tests if t.auc.measured]
    if reference.origin != "geant4":
        found.append(f"the reference's origin is '{reference.origin}', not geant4")
    return PlatesEvaluation(
        generated, reference, tuple(tests), tuple(checks), tuple(found), seed, files, not alone, repeat,
        (ours, theirs), tuple(points), curves,
    )  # fmt: skip


def check_plates(point: PlatesPoint) -> list[LimitCheck]:
    """Return every check of one comparison."""
    checks = []
    for moments in point.moments:
        if moments.name in MEAN_LIMITS:
            difference = (moments.mean_ratio - 1, moments.mean_error)
            checks.append(_within("bias", moments.name, point.where, *difference, MEAN_LIMITS[moments.name]))
    if isfinite(point.resolution[0]):
        difference = (point.resolution[0] - 1, point.resolution[1])
        checks.append(_within("energy resolution", "E_vis/E_inc", point.where, *difference, RESOLUTION_LIMIT))
    for layers in point.layers:
        null = np.array([_share(row / layers.floor) for row in layers.null])
        if isfinite(layers.share):
            kept, chance = layers.share >= W1_SHARE, float((null >= W1_SHARE).mean())
            checks.append(LimitCheck(
                "W1 of layers", layers.plates, point.where, layers.share, float(null.std()),
                f"{W1_LIMIT:g} floors in {W1_SHARE:.0%}", (1 - layers.share) / (1 - W1_SHARE), kept,
                bool(not kept and layers.share < np.quantile(null, 0.025)), chance,
            ))  # fmt: skip
    return checks


def _within(kind: str, subject: str, where: str, value: float, error: float, limit: float) -> LimitCheck:
    """Return the check that a relative difference is within a limit or two standard errors."""
    most = max(limit, 2 * error)
    chance = erf(most / (error * 2**0.5)) if error > 0 else 1.0
    return LimitCheck(
        kind, subject, where, value, error, f"{limit:.1%}", abs(value) / limit, abs(value) <= most,
        abs(value) - 2 * error > limit, chance,
    )  # fmt: skip


def _in_one_stack(showers: PlateShowers) -> bool:
    """Return whether all showers have one stack, particle and angle."""
    one_particle = len(np.unique(showers.particle)) <= 1 and np.ptp(showers.theta) <= SAME_ANGLE
    return bool(one_particle and showers.stacks.alike)


def _refuse_another_stack(generated: PlateShowers, reference: PlateShowers) -> None:
    """Raise `InputError` unless both are in the same stack, of the same particle, angle and energies."""
    first = [showers.rows(slice(0, 1)) for showers in (generated, reference)]
    _refuse_difference(first[0], first[1], "all showers of")
    ends = [np.array([part.energy.min(), part.energy.max()]) for part in (generated, reference)]
    if (np.abs(ends[0] - ends[1]) > ENERGY_MARGIN * ends[1][1]).any():
        said = [" to ".join(f"{end:g}" for end in dict.fromkeys(pair.tolist())) + " GeV" for pair in ends]
        raise InputError(f"generated showers have energies of {said[0]}, the reference {said[1]}; expected the same")


def _pairs(generated: PlateShowers, reference: PlateShowers) -> int:
    """Return the generated rows for every row of the reference. Raises `InputError` unless they belong together."""
    repeat = len(generated) // max(len(reference), 1)
    advice = "showers in stacks of their own are compared row by row, make them with sample --like REFERENCE"
    if repeat < 1 or repeat * len(reference) != len(generated):
        raise InputError(f"{len(generated)} generated showers for {len(reference)} of the reference; {advice}")
    repeated = reference.rows(np.repeat(np.arange(len(reference)), repeat))
    _refuse_difference(generated, repeated, "row by row,", advice)
    wrong = ~np.isclose(generated.energy, repeated.energy, rtol=SAME_ENERGY)
    if wrong.any():
        row = int(np.argmax(wrong))
        said = f"energy of shower {row} is {generated.energy[row]:g}, not {repeated.energy[row]:g} GeV"
        raise InputError(f"generated and reference differ: {said}; {advice}")
    return repeat


def _refuse_difference(generated: PlateShowers, reference: PlateShowers, what: str, advice: str = "") -> None:
    """Raise `InputError` if stacks, particles or angles of as many showers differ."""
    found = generated.stacks.difference(reference.stacks)
    names = {number: name for name, number in PDG.items()}
    strange = generated.particle != reference.particle
    tilted = np.abs(generated.theta - reference.theta) > SAME_ANGLE
    if found is None and strange.any():
        row = int(np.argmax(strange))
        ours, theirs = (names.get(int(part.particle[row]), part.particle[row]) for part in (generated, reference))
        found = f"shower {row} is of {ours}, not {theirs}"
    if found is None and tilted.any():
        row = int(np.argmax(tilted))
        found = f"theta of shower {row} is {generated.theta[row]:g}, not {reference.theta[row]:g} degrees"
    if found is not None:
        advice = advice or "expected the stack, particle and angle of the reference"
        raise InputError(f"{what} generated and reference differ: {found}; {advice}")


def _compare_stack(
    ours: PlateObservables, theirs: PlateObservables, rng: np.random.Generator, progress: StageProgress
) -> list[PlatesPoint]:
    """Compare showers in one stack at every energy."""
    groups = _groups(np.concatenate([ours.energy, theirs.energy]), len(ours))
    if not groups:
        raise InputError(f"no energy, or bin of energies, has {MIN_SHOWERS} showers of both files; nothing to compare")
    points = []
    for number, (group, rows, other) in enumerate(groups):
        progress("energies", number, len(groups))
        a, b = ours.rows(rows), theirs.rows(other)
        moments = []
        for name in a.names:
            x, y = a.column(name), b.column(name)
            if name.endswith("/E_inc"):
                x, y = (group.at_energy(seen.energy, v * seen.energy) / group.energy for seen, v in ((a, x), (b, y)))
            moments.append(compare_moments(name, group.energy, x, y))
        w1, null = wasserstein(a.shares, b.shares), null_wasserstein(b.shares, len(a), rng)
        points.append(PlatesPoint(
            f"{group.energy:.4g} GeV", group.energy, (rows, other), tuple(moments), (float("nan"),) * 2,
            _split(w1, null),
        ))  # fmt: skip
    progress("energies", len(groups), len(groups))
    return points


def _groups(energy: np.ndarray, n: int) -> list[tuple[EnergyGroup, np.ndarray, np.ndarray]]:
    """Return the energies, or bins, that both samples have, with the rows of each; the first n showers are ours."""
    found = []
    for group in group_by_energy(energy):
        rows, other = group.rows[group.rows < n], group.rows[group.rows >= n] - n
        if min(len(rows), len(other)) >= MIN_SHOWERS:
            found.append((group, rows, other))
    return found


def _with_resolution(point: PlatesPoint, curves: Sequence[ResolutionCurve]) -> PlatesPoint:
    """Return a point with the ratio of the resolutions at its energy."""
    ours, theirs = curves
    at = int(np.argmin(np.abs(ours.energies - point.energy)))
    ratio = ours.values[at] / theirs.values[at]
    error = ratio * np.hypot(ours.errors[at] / ours.values[at], theirs.errors[at] / theirs.values[at])
    return PlatesPoint(point.where, point.energy, point.rows, point.moments, (float(ratio), float(error)), point.layers)


def _compare_pairs(
    ours: PlateObservables, theirs: PlateObservables, repeat: int, rng: np.random.Generator, progress: StageProgress
) -> list[PlatesPoint]:
    """Compare rows in pairs: all of them, then at every energy or in bins."""
    chosen = [(WHOLE, float(theirs.energy.mean()), np.arange(len(theirs)))]
    groups = [group for group in group_by_energy(theirs.energy) if len(group.rows) >= MIN_SHOWERS]
    chosen += [(f"{g.energy:.4g} GeV", g.energy, g.rows) for g in groups] if len(groups) > 1 else []
    points = []
    for number, (where, energy, rows) in enumerate(chosen):
        progress("energies", number, len(chosen))
        every = (rows[:, None] * repeat + np.arange(repeat)).ravel()
        a, b = ours.rows(every), theirs.rows(rows)
        moments = tuple(_compare_paired(name, energy, a, b, repeat, rng) for name in a.names)
        first = a.rows(slice(None, None, repeat)).shares
        layers = _split(wasserstein(first, b.shares), swapped_wasserstein(first, b.shares, rng))
        resolution = moments[0].spread_ratio, moments[0].spread_error
        points.append(PlatesPoint(where, energy, (every, rows), moments, resolution, layers))
    progress("energies", len(chosen), len(chosen))
    return points


def _compare_paired(
    name: str, energy: float, ours: PlateObservables, theirs: PlateObservables, repeat: int, rng: np.random.Generator
) -> MomentRatios:
    """Return mean and spread of a quantity in pairs of rows, see the module."""
    g, r = ours.column(name).reshape(-1, repeat), theirs.column(name)
    each = _relative(g, r[:, None])
    d = each.mean(1)
    error = float(d.std(ddof=1) / len(d) ** 0.5)
    weight = theirs.energy if name.endswith("/E_inc") else np.ones(len(r))
    spread = spread_error = float("nan")
    if repeat > 1:
        one, two = np.triu_indices(repeat, 1)
        among = _relative(g[:, one], g[:, two])
        columns = weight[:, None] * np.column_stack([np.ones(len(r)), (among**2).mean(1), (each**2).mean(1)])
        spread = _spread_ratio(columns.sum(0), d.mean())
        drawn = rng.integers(len(r), size=(BOOTSTRAPS, len(r)))
        replicas = [_spread_ratio(columns[rows].sum(0), d[rows].mean()) for rows in drawn]
        spread_error = float(np.nanstd(replicas, ddof=1))
    return MomentRatios(name, energy, (g.size, len(r)), 1 + float(d.mean()), error, spread, spread_error)


def _relative(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the relative differences 2 (a - b) / (a + b) of numbers that are not negative; 0 of two zeros."""
    total = a + b
    return np.asarray(2 * (a - b) / np.where(total > 0, total, 1))


def _spread_ratio(sums: np.ndarray, bias: float) -> float:
    """Return S_g / S_r of the module from sums over rows of w, w d^2 of two generated ones, and w d^2."""
    generated = sums[1] / sums[0] / 2
    reference = sums[2] / sums[0] - generated - bias**2
    return float(np.sqrt(generated / reference)) if reference > 0 else float("nan")


def _split(w1: np.ndarray, null: np.ndarray) -> tuple[LayerDistances, ...]:
    """Return distances of active plates and absorbers, which are the columns of w1 and of its null distances."""
    layers = len(w1) // len(PLATES)
    return tuple(
        LayerDistances(name, w1[part], null[:, part].mean(0), null[:, part])
        for name, part in zip(PLATES, (slice(0, layers), slice(layers, None)), strict=True)
    )


def _share(over_floor: np.ndarray) -> float:
    defined = over_floor[np.isfinite(over_floor)]
    return float((defined <= W1_LIMIT).mean()) if len(defined) else float("nan")


def run_plate_tests(
    ours: np.ndarray, theirs: np.ndarray, paired: bool, rng: np.random.Generator, progress: StageProgress = silent
) -> list[ClassifierTest]:
    """Train every classifier on features of generated and Geant4's showers, and on two halves of Geant4's.

    Args:
        ours, theirs: features, shapes (n, d) and (m, d); of pairs n = m, in the same order.
        paired: whether row i of both belong together. Each class then has other rows.
        rng: generator of everything that is drawn.
        progress: called as ``progress(stage, done, total)``.
    """
    order = rng.permutation(len(theirs))
    half = len(order) // 2
    one, two = order[:half], order[half : 2 * half]
    if paired:
        pairs = (ours[one], theirs[two])
    else:
        n = min(len(ours), len(theirs))
        pairs = (ours[rng.permutation(len(ours))[:n]], theirs[order[:n]])
    tests: list[ClassifierTest] = []
    if min(half, *map(len, pairs)) < FOLDS:
        return tests
    for number, (name, fit) in enumerate(CLASSIFIERS.items()):
        progress("classifiers", number, len(CLASSIFIERS))
        auc, floor = (cross_fitted_auc(_labelled(*each), fit, rng) for each in (pairs, (theirs[one], theirs[two])))
        tests.append(ClassifierTest("layers", name, auc, floor))
    progress("classifiers", len(CLASSIFIERS), len(CLASSIFIERS))
    return tests


def _labelled(a: np.ndarray, b: np.ndarray) -> LabelledRows:
    label = np.repeat([True, False], [len(a), len(b)])
    return LabelledRows(np.concatenate([a, b]).astype(np.float32), label, np.arange(len(label)))


def _features(showers: PlateShowers, seen: PlateObservables, conditions: bool) -> np.ndarray:
    """Return what classifiers see: observables, logarithms of the energies of all plates, incident energy.

    Args:
        showers, seen: showers and their observables.
        conditions: whether particle, angle and stack are features too.
    """
    visible, deposited = seen.column("E_vis/E_inc"), np.clip(seen.column("E_dep/E_inc"), 1e-6, 1 - 1e-6)
    plates = np.log(
        np.concatenate([seen.visible, seen.absorbed], 1) / seen.energy[:, None] + SOFT / seen.energy[:, None]
    )
    parts = [np.log(visible), np.log(deposited / (1 - deposited)), seen.table[:, 2:], plates, np.log(seen.energy)]
    if conditions:
        stacks = showers.stacks
        lengths, layers = stacks.radiation_lengths, stacks.layers
        materials = [
            np.array(
                [[to_float(material.radiation_length), to_float(material.critical_energy)] for material in several]
            )
            for several in (stacks.absorbers, stacks.actives)
        ]
        parts += [
            showers.particle == PDG["gamma"], np.sign(showers.particle), showers.theta, layers,
            np.log(lengths[..., [0, 2]].sum(1) / layers[:, None]), lengths.sum(2).cumsum(1)[:, -1],
            np.log(materials[0][stacks.absorber]), np.log(materials[1][stacks.active]),
        ]  # fmt: skip
    return np.column_stack(parts)


def _moment_rows(point: PlatesPoint, paired: bool) -> list[tuple[str, ...]]:
    """Return the rows of the table of moments at one energy; spreads of pairs are relative ones already."""
    showers = " / ".join(str(len(rows)) for rows in point.rows)
    rows: list[tuple[str, ...]] = [
        (point.where, m.name, showers, f"{m.mean_ratio:.4f} +- {m.mean_error:.4f}",
         f"{m.spread_ratio:.3f} +- {m.spread_error:.3f}" if isfinite(m.spread_ratio) else "-")
        for m in point.moments
    ]  # fmt: skip
    ratio, error = point.resolution
    if isfinite(ratio) and not paired:
        rows.append((point.where, "sigma / mean of E_vis", showers, f"{ratio:.3f} +- {error:.3f}", ""))
    return rows


def _distance_rows(point: PlatesPoint) -> list[tuple[str, ...]]:
    """Return the rows of the table of W1 at one energy."""
    rows: list[tuple[str, ...]] = []
    for layers in point.layers:
        ratio = layers.over_floor
        defined = ratio[np.isfinite(ratio)]
        if len(defined):
            worst = int(np.nanargmax(ratio))
            rows.append((point.where, layers.plates, str(len(defined)), f"{np.median(defined):.2f}",
                         f"{ratio[worst]:.2f}", str(worst), f"{layers.share:.0%}"))  # fmt: skip
    return rows
