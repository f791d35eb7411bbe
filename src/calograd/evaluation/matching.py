"""Design points: the rows of two files of cells or maps that share design, incident energy and kind of beam.

At every design and energy both files must have the same particles, entries and directions, as distributions
(`Incidence.difference`). Rows of several particles, or of several angles, are then compared apart: each particle, and
each angle or, of a continuous range, each band of `BAND` degrees. Entries and azimuths stay together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calograd.detector.configuration import PDG
from calograd.detector.incidence import FEW, SAME_ANGLE, Incidence, beam_of
from calograd.errors import InputError
from calograd.events.dense import Cells, Maps

TOLERANCE = 1e-4
"""Relative difference below which two sizes or two energies count as the same."""

MIN_SHOWERS = 20
"""Fewest showers of either file at a design point that is compared."""

BAND = 10.0
"""Width of the bands of theta in which showers of a continuous range are compared, degrees."""

_MAX_POINTS = 3000
"""Most design points of a file; more mean that energies or sizes were drawn from a continuous range."""


@dataclass(frozen=True, order=True)
class Sizes:
    """Sizes of the cells of a design: pitch ``dx`` and the depth ``dz`` of every layer, cm."""

    dx: float
    dz: tuple[float, ...]

    def __str__(self) -> str:
        depths = f"{self.dz[0]:g}" if len(set(self.dz)) == 1 else "(" + ", ".join(f"{d:g}" for d in self.dz) + ")"
        return f"{self.dx:g} x {depths} cm"


@dataclass(frozen=True, order=True)
class BeamKind:
    """One kind of particle in one band of angles; fields are empty where both files have only one.

    Args:
        particle: name of the particle.
        theta: the angle, or the ends of the band, degrees.
    """

    particle: str = ""
    theta: tuple[float, ...] = ()

    def __str__(self) -> str:
        angles = " to ".join(f"{angle:g}" for angle in self.theta)
        return ", ".join(part for part in (self.particle, f"{angles} degrees" if angles else "") if part)


@dataclass(frozen=True, order=True)
class Setting:
    """A design in one kind of beam."""

    design: Sizes
    beam: BeamKind

    def __str__(self) -> str:
        return f"{self.design}, {self.beam}" if self.beam != BeamKind() else str(self.design)


@dataclass(frozen=True, order=True)
class DesignPoint:
    """A design and an incident energy in GeV, and the kind of beam where there are several."""

    design: Sizes
    energy: float
    beam: BeamKind = BeamKind()

    @property
    def setting(self) -> Setting:
        """Design and beam without the energy."""
        return Setting(self.design, self.beam)

    def __str__(self) -> str:
        return f"{self.design}, {self.energy:g} GeV" + (f", {self.beam}" if self.beam != BeamKind() else "")


@dataclass(frozen=True)
class MatchedRows:
    """Indices of the rows of both files at one design point."""

    point: DesignPoint
    generated: np.ndarray
    reference: np.ndarray


def group(cells: Cells | Maps) -> dict[DesignPoint, np.ndarray]:
    """Return the rows of every design point, in order of design and energy.

    Raises:
        InputError: there are so many points that energies or sizes must be continuous.
    """
    table = np.column_stack([cells.dx, cells.dz, cells.energy]).astype(np.float64)
    unique, inverse = np.unique(table, axis=0, return_inverse=True)
    if len(unique) > _MAX_POINTS:
        raise InputError(
            f"the {cells.origin} file holds {len(unique)} different (design, energy) points in {len(cells)} rows; "
            "evaluate compares at fixed points: make the file with a list of energies and designs"
        )
    merged = np.arange(len(unique))
    for i in range(len(unique)):
        close = np.all(np.isclose(unique[: i + 1], unique[i], rtol=TOLERANCE, atol=0), axis=1)
        merged[i] = merged[np.argmax(close)]
    labels = merged[inverse.reshape(-1)]
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = {_point(unique[labels[rows[0]]]): rows for rows in np.split(order, cuts)} if len(order) else {}
    return dict(sorted(groups.items()))


def match(generated: Cells | Maps, reference: Cells | Maps) -> tuple[tuple[MatchedRows, ...], tuple[str, ...]]:
    """Return the design points with `MIN_SHOWERS` or more showers in both files, and warnings that name the others.

    Raises:
        InputError: no point can be compared, or the files differ in their beams.
    """
    ours, theirs = group(generated), group(reference)
    matched: list[MatchedRows] = []
    small: list[MatchedRows] = []
    unmatched = dict(theirs)
    only_generated = []
    incident = generated.incident, reference.incident
    beams = _Beams.of(*incident)
    for point, rows in ours.items():
        twin = next((other for other in unmatched if _same(point, other)), None)
        if twin is None:
            only_generated.append(point)
            continue
        both = MatchedRows(twin, rows, unmatched.pop(twin))
        difference = incident[0][both.generated].difference(incident[1][both.reference])
        if difference:
            raise InputError(_other_beam(generated, reference, difference, both.point))
        for found in beams.split(both):
            (matched if min(len(found.generated), len(found.reference)) >= MIN_SHOWERS else small).append(found)
    warnings = [
        f"{len(points)} points only in the {name} file, not compared: {_listed(points)}"
        for name, points in (("generated", only_generated), ("reference", list(unmatched)))
        if points
    ]
    if small:
        points = [m.point for m in small]
        warnings.append(f"{len(small)} points with fewer than {MIN_SHOWERS} showers, not compared: {_listed(points)}")
    if not matched:
        raise InputError(
            f"no point to compare: generated holds {_listed(list(ours))}; reference holds {_listed(list(theirs))}; "
            f"expected common designs and energies with at least {MIN_SHOWERS} showers each"
        )
    return tuple(sorted(matched, key=lambda m: m.point)), tuple(warnings)


def _other_beam(generated: Cells | Maps, reference: Cells | Maps, difference: str, point: DesignPoint) -> str:
    """Return the sentence on particles that have other distributions at a design and energy."""
    files = {"generated": generated, "reference": reference}
    silent = [name for name, part in files.items() if part.incidence is None and beam_of(part.config) is None]
    hint = f" (the {' and the '.join(silent)} file names no particles: photons on the axis)" if silent else ""
    noun = generated.LAYOUT.name
    return f"generated {noun} are of {difference} as the reference{hint}; expected one beam (at {point})"


@dataclass(frozen=True)
class _Beams:
    """The kinds of beam of two files: particles by number, and angles or edges of bands in degrees."""

    particles: np.ndarray
    angles: np.ndarray
    banded: bool
    columns: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, *incident: Incidence) -> _Beams:
        """Return the beams of the particles of several files."""
        columns = tuple((each.particle, each.theta.astype(np.float64)) for each in incident)
        particles, theta = (np.unique(np.concatenate(column)) for column in zip(*columns, strict=True))
        angles = theta[np.r_[True, np.diff(theta) > SAME_ANGLE]] if len(theta) else theta
        banded = len(angles) > FEW
        if banded:
            low, high = np.floor(theta[0] / BAND), np.floor(theta[-1] / BAND + 1)
            edges = BAND * np.arange(low, high + 1)
            angles = edges if theta[-1] - theta[0] > BAND else edges[[0, -1]]
            # An upper end that is a multiple of the width, such as 0:40, belongs to the band below it.
            angles = angles[:-1] if len(angles) > 2 and theta[-1] - angles[-2] <= SAME_ANGLE else angles
        return cls(particles, angles, banded, columns)

    def split(self, rows: MatchedRows) -> list[MatchedRows]:
        """Return the rows of every kind of beam, in order; all together where there is only one."""
        labels = [self._labels(*columns, of) for columns, of in zip(self.columns, rows_of(rows), strict=True)]
        return [
            MatchedRows(replace(rows.point, beam=self._beam(label)),
                        *(of[mine == label] for of, mine in zip(rows_of(rows), labels, strict=True)))
            for label in np.union1d(*labels)
        ]  # fmt: skip

    def _labels(self, particle: np.ndarray, theta: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the number of the kind of beam of every row."""
        if self.banded:
            band = np.searchsorted(self.angles[1:-1], theta[rows], side="right")
        else:
            band = np.searchsorted(self.angles, theta[rows] + SAME_ANGLE, side="right") - 1
        return np.asarray(np.searchsorted(self.particles, particle[rows]) * len(self.angles) + band)

    def _beam(self, label: int) -> BeamKind:
        names = {number: name for name, number in PDG.items()}
        particle, band = divmod(int(label), len(self.angles))
        ends = self.angles[band : band + 2] if self.banded else self.angles[band : band + 1]
        return BeamKind(
            names.get(int(self.particles[particle]), "another particle") if len(self.particles) > 1 else "",
            tuple(float(f"{angle:.4g}") for angle in ends) if len(self.angles) > 1 + self.banded else (),
        )


def rows_of(rows: MatchedRows) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of both files."""
    return rows.generated, rows.reference


def _point(row: np.ndarray) -> DesignPoint:
    dx, *dz, energy = (float(f"{value:.6g}") for value in row)
    return DesignPoint(Sizes(dx, tuple(dz)), energy)


def _same(one: DesignPoint, two: DesignPoint) -> bool:
    a, b = (np.array([p.design.dx, *p.design.dz, p.energy]) for p in (one, two))
    return bool(np.allclose(a, b, rtol=TOLERANCE, atol=0))


def _listed(points: list[DesignPoint], most: int = 4) -> str:
    shown = "; ".join(str(p) for p in points[:most]) or "none"
    return shown + (f"; and {len(points) - most} more" if len(points) > most else "")
