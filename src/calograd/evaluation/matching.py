"""Design points: the rows of two files of cells or maps that share design and incident energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calograd.errors import InputError
from calograd.events.dense import Cells, Maps

TOLERANCE = 1e-4
"""Relative difference below which two sizes or two energies count as the same."""

MIN_SHOWERS = 20
"""Fewest showers of either file at a design point that is compared."""

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
class DesignPoint:
    """A design and an incident energy in GeV."""

    design: Sizes
    energy: float

    def __str__(self) -> str:
        return f"{self.design}, {self.energy:g} GeV"


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
        InputError: no point can be compared.
    """
    ours, theirs = group(generated), group(reference)
    matched: list[MatchedRows] = []
    small: list[MatchedRows] = []
    unmatched = dict(theirs)
    only_generated = []
    for point, rows in ours.items():
        twin = next((other for other in unmatched if _same(point, other)), None)
        if twin is None:
            only_generated.append(point)
            continue
        found = MatchedRows(twin, rows, unmatched.pop(twin))
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


def _point(row: np.ndarray) -> DesignPoint:
    dx, *dz, energy = (float(f"{value:.6g}") for value in row)
    return DesignPoint(Sizes(dx, tuple(dz)), energy)


def _same(one: DesignPoint, two: DesignPoint) -> bool:
    a, b = (np.array([p.design.dx, *p.design.dz, p.energy]) for p in (one, two))
    return bool(np.allclose(a, b, rtol=TOLERANCE, atol=0))


def _listed(points: list[DesignPoint], most: int = 4) -> str:
    shown = "; ".join(str(p) for p in points[:most]) or "none"
    return shown + (f"; and {len(points) - most} more" if len(points) > most else "")
