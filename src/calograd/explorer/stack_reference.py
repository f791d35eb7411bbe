"""Geant4 showers in stacks of plates, for a comparison at the stacks and beams that they are of.

Showers serve that are in one stack with equal layers and without gaps, of one particle, energy and angle, and of
materials that the surrogate knows. Some are bundled; a library adds others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calograd.detector.configuration import PDG
from calograd.errors import InputError
from calograd.events.library.reader import open_plates
from calograd.events.plates import PlateShowers
from calograd.explorer.kinds import check_origin
from calograd.explorer.stack_selection import StackLimits, StackSelection
from calograd.metrics.resolution import MIN_SHOWERS
from calograd.surrogate.storage import ASSETS

FILES = tuple(
    f"sampling-sample/{name}.h5"
    for name in ("reference", "tungsten-0.1", "tungsten-0.15", "tungsten-0.35", "tungsten-0.5")
)
"""Files of bundled showers, see ``runs/sampling-sample.sh``."""
SAME = 1e-3
"""Largest relative difference of thicknesses and energies that count as equal."""
NONE_GIVEN = "no bundled showers are of a stack that this surrogate knows; give a library of some with --reference"
NONE_HERE = "no Geant4 showers of this stack and beam: “nearest Geant4” goes where there are some"


@dataclass(frozen=True)
class StackPoint:
    """Geant4 showers in one stack, of one beam.

    Args:
        selection: the stack and the beam.
        showers: the showers.
    """

    selection: StackSelection
    showers: PlateShowers

    def move(self, selection: StackSelection) -> StackSelection:  # noqa: ARG002 - nothing of it is left
        """Return the selection moved to this stack and beam."""
        return self.selection


class StackReference:
    """All Geant4 showers that a surrogate can be compared with.

    Args:
        limits: limits of the surrogate; bundled showers of stacks that it does not know are left out.
        path: a library of plates beside the bundled ones; its showers come first. None for none.

    Raises:
        InputError: no showers of the library are in one stack that the surrogate knows.
        FormatError: a file that cannot be read.
    """

    def __init__(self, limits: StackLimits, path: Path | None) -> None:
        self.points: list[StackPoint] = []
        if path is not None:
            self.points = _points(path, limits)
            if not self.points:
                raise InputError(
                    f"{path} has no {MIN_SHOWERS} showers in one stack of equal layers without gaps, of one energy, "
                    f"and of materials that {limits.card.name} knows; simulate some: calograd simulate --detector "
                    "sampling"
                )
        bundled = [point for name in FILES if (ASSETS / name).is_file() for point in _points(ASSETS / name, limits)]
        self.points += [point for point in bundled if limits.known(point.selection)]

    @property
    def offered(self) -> bool:
        """True if the page has a button that goes to the nearest Geant4 showers."""
        return bool(self.points)

    def at(self, selection: StackSelection) -> tuple[PlateShowers | None, str]:
        """Return the showers at a selection, or None and a sentence that says why there are none."""
        here = [point for point in self.points if _distance(point, selection) < SAME]
        if here:
            return here[0].showers, ""
        return None, NONE_HERE if self.points else NONE_GIVEN

    def nearest(self, selection: StackSelection) -> StackPoint | None:
        """Return the showers at the smallest relative distance; None if there are none."""
        return min(self.points, key=lambda point: _distance(point, selection), default=None)


def _points(path: Path, limits: StackLimits) -> list[StackPoint]:
    with open_plates(path) as library:
        showers = library.read()
    check_origin(path, showers.origin)
    stacks, names = showers.stacks, {number: name for name, number in PDG.items()}
    thickness, layers = stacks.thickness, stacks.layers
    first = thickness[:, :1]
    present = np.arange(thickness.shape[1]) < layers[:, None]
    equal = (np.isclose(thickness, first, rtol=SAME) | ~present[:, :, None]).all((1, 2)) & (first[:, 0, 1] == 0)
    sizes = np.log(np.maximum(np.column_stack([first[:, 0, 0], first[:, 0, 2], showers.energy]), 1e-9))
    kinds = np.column_stack([stacks.absorber, stacks.active, layers, showers.particle, np.round(10 * showers.theta),
                             *np.round(sizes / SAME).T])  # fmt: skip
    found = []
    for kind in np.unique(kinds[equal], axis=0):
        rows = np.flatnonzero(equal & (kinds == kind).all(1))
        one = rows[0]
        pair = [
            next((each.name for each in known if each.alike(several[number])), None)
            for known, several, number in (
                (limits.trained.absorbers, stacks.absorbers, stacks.absorber[one]),
                (limits.trained.actives, stacks.actives, stacks.active[one]),
            )
        ]
        particle = names.get(int(showers.particle[one]))
        if len(rows) < MIN_SHOWERS or pair[0] is None or pair[1] is None or particle is None:
            continue
        a, t, energy, theta = (
            float(f"{value:.5g}")
            for value in (first[one, 0, 0], first[one, 0, 2], showers.energy[one], showers.theta[one])
        )
        at = StackSelection(pair[0], pair[1], a, t, int(layers[one]), energy, particle, theta)
        found.append(StackPoint(at, showers.rows(rows)))
    return found


def _distance(point: StackPoint, selection: StackSelection) -> float:
    """Return the largest relative difference of thicknesses, layers and energies; other names count as most."""
    a, b = point.selection, selection
    sizes = [np.array([*at.place, at.n_layers, at.energy]) for at in (a, b)]
    other = sum(getattr(a, name) != getattr(b, name) for name in ("absorber", "active", "particle"))
    turned = abs(a.theta - b.theta) / 10
    return float(np.abs(np.log(np.maximum(sizes[0], 1e-9) / np.maximum(sizes[1], 1e-9))).max() + 10 * other + turned)
