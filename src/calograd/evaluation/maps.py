"""Compare generated x-z maps with Geant4's: the observables of arXiv 2601.07859 at every point both files hold.

With I_p the energy of pixel p, (x_p, z_p) its centre in cm and E_tot = sum_p I_p:

    x_mean = sum I x / E_tot                                  z_mean likewise
    sigma_y = sqrt( sum I (x - x_mean)^2 / E_tot )            the spread across the beam, which that paper calls y
    sigma_z likewise, along the beam
    R_E    = sqrt( sum I r^2 / E_tot ),   r from the centroid in the plane of the map

so R_E^2 = sigma_y^2 + sigma_z^2. (Of cells R_E is transverse: a map has no second transverse axis.) S_0, S_1 ... are
the energies of slabs of equal numbers of pixels along z. Maps without energy are left out and counted. Every figure
stands beside its error or what Geant4 gives against itself (`calograd.metrics.distances`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from calograd.errors import InputError
from calograd.evaluation.compare import Quantity, is_centred, quantities
from calograd.evaluation.evaluate import describe, jsonable, versions
from calograd.evaluation.matching import MIN_SHOWERS, Point, match
from calograd.events.maps import Maps
from calograd.metrics import distances as d
from calograd.metrics.observables import Profile, profile

SCHEMA = "calograd/maps-evaluation/1"
OBSERVABLES = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z")
SLABS = 8
HIGH_ENERGY = 10.0
"""GeV: the limits hold from here on."""
BIAS_LIMITS = {"E_tot": 0.005, "R_E": 0.01, "sigma_y": 0.01}
"""Relative."""


@dataclass(frozen=True)
class MapsPoint:
    """What was compared at one point.

    Args:
        point: design and energy.
        quantities: by name; those of `OBSERVABLES` and the slabs.
        showers: with energy, generated and reference.
        excluded: without energy, likewise.
        along, across: mean profiles, generated and reference.
    """

    point: Point
    quantities: dict[str, Quantity]
    showers: tuple[int, int]
    excluded: tuple[int, int]
    along: tuple[Profile, Profile]
    across: tuple[Profile, Profile]

    def missed(self) -> dict[str, bool]:
        """Observables whose bias exceeds its limit, and whether by more than two standard errors."""
        if self.point.energy < HIGH_ENERGY:
            return {}
        chosen = {name: self.quantities[name] for name in BIAS_LIMITS}
        return {
            name: abs(q.bias) - 2 * q.bias_error > BIAS_LIMITS[name]
            for name, q in chosen.items()
            if not abs(q.bias) <= BIAS_LIMITS[name]
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "dx": self.point.design.dx, "dz": list(self.point.design.dz), "energy": self.point.energy,
            "showers": dict(zip(("generated", "reference"), self.showers, strict=True)),
            "zero_energy_showers": dict(zip(("generated", "reference"), self.excluded, strict=True)),
            "quantities": {
                name: {key: value for key, value in vars(q).items() if key != "name"}
                for name, q in self.quantities.items()
            },
            "profiles": {
                name: {
                    who: {"edges": p.edges.tolist(), "mean": p.mean.tolist(), "error": p.error.tolist()}
                    for who, p in zip(("generated", "reference"), pair, strict=True)
                }
                for name, pair in (("along", self.along), ("across", self.across))
            },
        }  # fmt: skip


@dataclass(frozen=True)
class MapsEvaluation:
    """The outcome of a comparison of maps.

    Args:
        generated, reference: what was compared.
        points: in order of design and energy.
        warnings: what was left out.
        seed: as given.
    """

    generated: Maps = field(repr=False)
    reference: Maps = field(repr=False)
    points: tuple[MapsPoint, ...] = field(repr=False)
    warnings: tuple[str, ...]
    seed: int

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        checked = len(BIAS_LIMITS) * sum(p.point.energy >= HIGH_ENERGY for p in self.points)
        missed = [beyond for p in self.points for beyond in p.missed().values()]
        return f"{checked - len(missed)} of {checked} biases within limits, {sum(missed)} missed beyond statistics"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data of finite numbers, strings and null, ready for strict JSON."""
        result = jsonable(
            {
                "schema": SCHEMA, "versions": versions(), "seed": self.seed,
                "generated": describe(self.generated), "reference": describe(self.reference),
                "warnings": list(self.warnings), "limits": BIAS_LIMITS, "verdict": self.verdict,
                "points": [p.to_dict() for p in self.points],
            }
        )  # fmt: skip
        assert isinstance(result, dict)
        return result


def evaluate_maps(
    generated: Maps,
    reference: Maps,
    *,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,  # noqa: ARG005
) -> MapsEvaluation:
    """Compare generated maps with Geant4's at every design and energy that both hold.

    Args:
        generated: rows to judge.
        reference: Geant4's rows, independent of the generated ones.
        seed: of every bootstrap and split.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        InputError: different materials, pixels or windows, or no common point.
    """
    _refuse_incomparable(generated, reference)
    matched, warnings = match(generated, reference)
    points, found = [], list(warnings)
    for number, rows in enumerate(matched):
        progress("points", number, len(matched))
        samples = [
            _filled(maps.rows(which)) for maps, which in ((generated, rows.generated), (reference, rows.reference))
        ]
        if min(len(sample) for sample, _ in samples) < MIN_SHOWERS:
            found.append(f"{rows.point}: fewer than {MIN_SHOWERS} maps hold energy, not compared")
            continue
        (ours, no_ours), (theirs, no_theirs) = samples
        points.append(_compare(rows.point, ours, theirs, (no_ours, no_theirs), np.random.default_rng([seed, number])))
    progress("points", len(matched), len(matched))
    if not points:
        raise InputError(f"no point has {MIN_SHOWERS} maps with energy in both files; nothing to compare")
    return MapsEvaluation(generated, reference, tuple(points), tuple(found), seed)


def observe_maps(maps: Maps) -> np.ndarray:
    """`OBSERVABLES` and the energies of the slabs, shape (n, 6 + `SLABS`), float64; NaN where there is no energy."""
    energies = maps.maps.astype(np.float64)
    across, along = energies.sum(2), energies.sum(1)
    total = along.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, variance_x = _moments(across, maps.width, total)
        z, variance_z = _moments(along, maps.depth, total)
    slabs = [part.sum(1) for part in np.array_split(along, SLABS, axis=1)]
    x = x - maps.width / 2
    columns = (total, x, np.sqrt(variance_x + variance_z), np.sqrt(variance_x), z, np.sqrt(variance_z), *slabs)
    return np.column_stack(columns)


def _moments(weights: np.ndarray, length: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean place in cm from the window's edge and its variance, of pixels (n, pixels) along ``length`` (n,) cm."""
    places = (np.arange(weights.shape[1]) + 0.5) / weights.shape[1]
    mean = weights @ places / total
    variance = (weights * (places - mean[:, None]) ** 2).sum(1) / total
    return mean * length, variance * length**2


def profiles(maps: Maps) -> tuple[Profile, Profile]:
    """Mean dE/dz along and dE/dx across, of maps of one design."""
    depth, width = maps.depth[0], maps.width[0]
    _, n_x, n_z = maps.maps.shape
    along = profile(maps.maps.sum(1, dtype=np.float64), np.linspace(0, depth, n_z + 1))
    return along, profile(maps.maps.sum(2, dtype=np.float64), np.linspace(-width / 2, width / 2, n_x + 1))


def _compare(point: Point, ours: Maps, theirs: Maps, excluded: tuple[int, int], rng: np.random.Generator) -> MapsPoint:
    names = (*OBSERVABLES, *(f"S_{k}" for k in range(SLABS)))
    a, b = observe_maps(ours), observe_maps(theirs)
    null = d.null_distances(b, len(a), SLABS, rng, centred=is_centred(names))
    (along, across), (along_b, across_b) = profiles(ours), profiles(theirs)
    return MapsPoint(
        point, quantities(names, a, b, null, rng), (len(a), len(b)), excluded, (along, along_b), (across, across_b)
    )


def _filled(maps: Maps) -> tuple[Maps, int]:
    """The maps that hold energy, and how many do not."""
    kept = maps.totals > 0
    return maps.rows(kept), int((~kept).sum())


def _refuse_incomparable(generated: Maps, reference: Maps) -> None:
    ours, theirs = generated.material, reference.material
    if not ours.alike(theirs, 1e-3):
        raise InputError(f"generated maps are in {ours.name}, reference in {theirs.name}; expected one material")
    for what, values in (
        ("pixels", [" x ".join(map(str, maps.maps.shape[1:])) for maps in (generated, reference)]),
        ("cells across", [str(maps.n_xy) for maps in (generated, reference)]),
        ("layers", [str(maps.dz.shape[1]) for maps in (generated, reference)]),
    ):
        if values[0] != values[1]:
            raise InputError(f"generated maps have {values[0]} {what}, reference {values[1]}; expected the same")
