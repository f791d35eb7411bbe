"""Cluster the deposits of a layered detector to points.

    "sub-cells"   A point is the energy in a square of a sixth of a cell, at the middle of its square.
    "crossings"   Each passage of a particle through a layer is put at its centre. A point is the energy of the passages
                  in a square of a sixth of a cell, at the centre of their energy.

**Frame.** In a silicon-tungsten stack positions are those of the detector, whose particles enter on the axis. In a
stack of plates the centre of layer k is where the particle's straight line crosses the middle of its active plate. With
the entry p, the slopes s = tan(theta) (cos(phi), sin(phi)) and the depth z_k of that middle, the deposit at (x, y) of
the detector has the position (x, y) - p - z_k s. The cells of every layer, sub-cells too, lie about that centre.

Geant4 follows one particle at a time, so the deposits of a passage follow each other in a library. A passage ends where
the layer changes or where the next deposit is farther off than `STEP`.

A particle leaves energy in one to three neighbouring sub-cells, so the sub-cells of a layer are far from independent:
drawn independently they hit a quarter more cells than a shower does. Crossings are nearly independent. The cells that
Geant4's deposits hit are counted beside them. Putting a passage at its centre loses 5 % of the hits, where it spans two
cells, and independence adds as many: `STEP` is chosen so. docs/log.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from calograd.detector.configuration import SimulationConfig, SiWStack
from calograd.errors import InputError
from calograd.events.layered_readout import count_hits
from calograd.events.library.reader import Library, PlateLibrary, ShowerLibrary
from calograd.events.library.schema import R
from calograd.events.plates import PlateShowers
from calograd.events.point_showers import PITCH, PointShowers, incident_columns, sort_points
from calograd.events.ragged import Deposits, Showers
from calograd.system.progress import Progress, silent

Clustering = Literal["sub-cells", "crossings"]
SPLIT = 6
"""Number of sub-cells in a cell, each way."""
STEP = 0.15
"""Largest distance of consecutive deposits of one passage, cm."""

_SIZE = PITCH / SPLIT
_ACROSS = 1 << 12
"""Number of sub-cells in a row; a sub-cell and its shower and layer are one whole number."""
_LAYERS = 256
"""Largest number of layers in that number."""


def cluster(library: Library, clustering: Clustering, progress: Progress = silent) -> PointShowers:
    """Return the points of all showers of a library of a silicon-tungsten stack.

    Args:
        library: a library opened for reading.
        clustering: the definition of a point, see above.
        progress: called with the showers done and their number.

    Raises:
        InputError: the library is of another detector.
    """
    stack = stack_of(library)
    config = _config(library, clustering)

    def points(showers: Showers) -> PointShowers:
        common = {"energy": showers.energy.astype(np.float32), "shower": showers.index, "layers": stack.n_layers}
        common |= {"config": config, **incident_columns(config, len(showers))}
        return _points(showers, layers_of(showers.z, stack), clustering, common)

    return _clustered(library, points, progress)


def cluster_plates(library: PlateLibrary, clustering: Clustering, progress: Progress = silent) -> PointShowers:
    """Return the points of all showers of a library of stacks of plates, each in its own number of layers.

    Each deposit of a file that a surrogate generated is a passage already.

    Args:
        library: a library opened for reading with its deposits.
        clustering: the definition of a point, see above.
        progress: called with the showers done and their number.
    """
    config = _config(library, clustering)
    most, generated = library.most_layers, library.provenance.origin != "geant4"

    def points(showers: PlateShowers) -> PointShowers:
        return points_of_plates(showers, clustering, layers=most, config=config, merged=generated)

    return _clustered(library, points, progress)


def points_of_plates(
    showers: PlateShowers, clustering: Clustering, *, layers: int, config: dict[str, Any], merged: bool
) -> PointShowers:
    """Return the points of showers in stacks of plates.

    Args:
        showers: showers with deposits.
        clustering: the definition of a point.
        layers: largest number of layers that a shower can have.
        config: what made the points, as plain data.
        merged: True if each deposit is a passage already, as a surrogate generates them.
    """
    deposits, incident = showers.deposits, showers.incident
    assert deposits is not None
    x, y, layer = showers.points_of(deposits)
    common: dict[str, Any] = {
        "energy": showers.energy, "shower": showers.index, "layers": layers, "n_layers": showers.counts,
        "origin": showers.origin, "config": config, "pdg": incident.particle, "theta": incident.theta,
        "phi": incident.phi,
    }  # fmt: skip
    return _points(replace(deposits, x=x, y=y), layer, clustering, common, STEP if not merged else -1.0)


def _config(library: Library | PlateLibrary, clustering: Clustering) -> dict[str, Any]:
    """Return what made points, as their file holds it."""
    return {"clustering": clustering, "library": library.path.name, **library.about()}


def _clustered(library: ShowerLibrary[R], points: Callable[[R], PointShowers], progress: Progress) -> PointShowers:
    """Return what ``points`` makes of all showers of a library."""
    parts, done = [], 0
    for showers in library.blocks() if len(library) else [library.read()]:
        parts.append(points(showers))
        done += len(showers)
        progress(done, len(library))
    return PointShowers.concatenate(parts)


def _points(
    deposits: Deposits, layer: np.ndarray, clustering: Clustering, common: dict[str, Any], step: float = STEP
) -> PointShowers:
    """Return the points of deposits, and where these are crossings the hits of all deposits beside them.

    Args:
        deposits: at positions from the centre of their layer.
        layer: layer of every deposit.
        clustering: the definition of a point.
        common: all other fields of the showers.
        step: largest distance of consecutive deposits of one passage, cm; below zero each deposit is one.
    """
    of_sub_cells = PointShowers(*sub_cells(deposits, layer), **common)
    if clustering == "sub-cells":
        return of_sub_cells
    return PointShowers(*crossings(deposits, layer, step), **common, hits=count_hits(of_sub_cells))


def stack_of(library: Library) -> SiWStack:
    """Return the stack that a library was simulated in. Raises `InputError` if it is of another detector."""
    config = library.provenance.config
    if isinstance(config, SimulationConfig) and isinstance(config.detector, SiWStack):
        return config.detector
    raise InputError(
        f"{library.path} is not of a silicon-tungsten stack; points need layers: simulate with --detector siw"
    )


def layers_of(z: np.ndarray, stack: SiWStack) -> np.ndarray:
    """Return the layer of every depth z (cm), shape (deposits,), int64: that whose tungsten plate lies before it."""
    return np.clip(np.searchsorted(stack.layer_fronts(), z, side="right") - 1, 0, None)


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The columns x, y, layer, e and offsets of points, as `calograd.events.point_showers.sort_points` returns them."""


def sub_cells(showers: Deposits, layer: np.ndarray) -> Columns:
    """Return the points that are sums over sub-cells; ``layer`` is that of every deposit."""
    found, group = np.unique(_numbers(showers.owner, layer, showers.x, showers.y), return_inverse=True)
    e = np.bincount(group, weights=showers.e, minlength=len(found))
    x, y = ((k - _ACROSS // 2 + 0.5 - SPLIT / 2) * _SIZE for k in (found // _ACROSS % _ACROSS, found % _ACROSS))
    return _sorted(found, x, y, e, len(showers))


def crossings(showers: Deposits, layer: np.ndarray, step: float = STEP) -> Columns:
    """Return the points that are passages, those of a sub-cell summed.

    Args:
        showers: deposits.
        layer: layer of every deposit.
        step: largest distance of consecutive deposits of one passage, cm.
    """
    owner = showers.owner
    x, y, e = (values.astype(np.float64) for values in (showers.x, showers.y, showers.e))
    far = np.hypot(np.diff(x), np.diff(y)) > step
    starts = np.concatenate([np.ones(min(1, len(x)), bool), (np.diff(owner) != 0) | (np.diff(layer) != 0) | far])
    first = np.flatnonzero(starts)
    x, y, e = _merged(x, y, e, np.cumsum(starts) - 1, len(first))
    found, group = np.unique(_numbers(owner[first], layer[first], x, y), return_inverse=True)
    return _sorted(found, *_merged(x, y, e, group, len(found)), len(showers))


def _numbers(owner: np.ndarray, layer: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return one number for the shower, layer and sub-cell of every position; it rises in that order."""
    i, j = (np.floor(coordinate / _SIZE + SPLIT / 2).astype(np.int64) + _ACROSS // 2 for coordinate in (x, y))
    if len(i) and not (min(i.min(), j.min()) >= 0 and max(i.max(), j.max()) < _ACROSS):
        raise InputError("deposits lie more than a metre from the axis; expected a stack of 40 cm")
    number: np.ndarray = ((owner * _LAYERS + layer) * _ACROSS + i) * _ACROSS + j
    return number


def _sorted(number: np.ndarray, x: np.ndarray, y: np.ndarray, e: np.ndarray, showers: int) -> Columns:
    """Return points at (x, y) of the showers and layers in `_numbers`, in order."""
    group = number // _ACROSS**2
    return sort_points(x, y, group % _LAYERS, e, group // _LAYERS, showers)


def _merged(
    x: np.ndarray, y: np.ndarray, e: np.ndarray, group: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centre and the energy of groups of deposits."""
    total = np.bincount(group, weights=e, minlength=groups)
    filled = np.where(total > 0, total, 1)
    x, y = (np.bincount(group, weights=e * coordinate, minlength=groups) / filled for coordinate in (x, y))
    return x, y, total
