"""From the deposits of a layered detector to points.

    "sub-cells"   deposits summed over squares of a sixth of a cell; a point is the middle of its square
    "crossings"   passages of single particles through a layer, each put at its centre, and then those of a square
                  summed; a point is the centre of their energy

Geant4 follows one particle at a time, so the deposits of a passage come one behind the other in a library: a passage
ends where the layer changes or where the next deposit is farther off than `STEP`.

A particle leaves energy in one to three sub-cells, and those are neighbours, so the points of a layer are far from
independent of each other: drawn independently they hit a quarter more cells than a shower does. Crossings are nearly
independent; the cells that Geant4's deposits hit are counted beside them. `STEP` is such that what is lost by putting
a passage at its centre (5 % of the hits, where it spans two cells) and what independence adds (as much) cancel;
docs/log.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from calograd.detector.configuration import SimulationConfig, SiWStack
from calograd.errors import InputError
from calograd.events.layered_readout import count_hits
from calograd.events.library.reader import Library, Showers
from calograd.events.point_showers import PITCH, PointShowers, incident_columns, sort_points
from calograd.events.ragged import offsets_of

Clustering = Literal["sub-cells", "crossings"]
SPLIT = 6
"""Sub-cells in a cell, each way."""
STEP = 0.15
"""Farthest that two deposits of one passage follow each other, cm."""

_SIZE = PITCH / SPLIT
_ACROSS = 1 << 12
"""Sub-cells in a row of numbers."""
_LAYERS = 256

Report = Callable[[int, int], None]
"""Called with showers done and their number."""


def cluster(library: Library, clustering: Clustering, report: Report = lambda done, total: None) -> PointShowers:  # noqa: ARG005
    """The points of all showers of a library of a layered detector.

    Args:
        library: opened for reading.
        clustering: what a point is, see above.
        report: called with showers done and their number.

    Raises:
        InputError: the library is not of a silicon-tungsten stack.
    """
    stack = stack_of(library)
    make = {"sub-cells": sub_cells, "crossings": crossings}[clustering]
    parts, hits, done = [], [], 0
    for showers in library.blocks():
        layer = layers_of(showers.z, stack)
        parts.append(make(showers, layer))
        if clustering == "crossings":
            columns, number = sub_cells(showers, layer), np.arange(len(showers))
            hits.append(count_hits(PointShowers(*columns, number.astype(np.float32), number, sum(stack.layers))))
        done += len(showers)
        report(done, len(library))
    x, y, layer, e = (np.concatenate([p[k] for p in parts]) if parts else np.zeros(0, np.float32) for k in range(4))
    counts = [np.diff(p[4]) for p in parts]
    offsets = offsets_of(np.concatenate(counts) if counts else np.zeros(0, np.int64))
    config: dict[str, Any] = {
        "clustering": clustering, "library": library.path.name,
    } | library.about()  # fmt: skip
    return PointShowers(
        x, y, layer, e, offsets, library.energy.astype(np.float32), library.index, sum(stack.layers), "geant4", config,
        np.concatenate(hits) if hits else None, **incident_columns(config, len(library)),
    )  # fmt: skip


def stack_of(library: Library) -> SiWStack:
    """The stack that a library was simulated in. Raises `InputError` if it is of another detector."""
    config = library.provenance.config
    if not isinstance(config, SimulationConfig) or not isinstance(config.detector, SiWStack):
        raise InputError(f"{library.path} is not of a silicon-tungsten stack; points need layers: simulate with "
                         "--detector siw")  # fmt: skip
    return config.detector


def layers_of(z: np.ndarray, stack: SiWStack) -> np.ndarray:
    """Layer of every depth z (cm), shape (deposits,), int64: that whose tungsten plate lies before it."""
    return np.clip(np.searchsorted(stack.layer_fronts(), z, side="right") - 1, 0, None)


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""x, y, layer, e, offsets of points, as `calograd.events.point_showers.sort_points` gives them."""


def sub_cells(showers: Showers, layer: np.ndarray) -> Columns:
    """Deposits summed over sub-cells; cell 0 is centred on the axis."""
    owner = showers.owner
    found, group = np.unique(_squares(owner, layer, showers.x, showers.y), return_inverse=True)
    e = np.bincount(group, weights=showers.e, minlength=len(found))
    indices = (found // _ACROSS % _ACROSS, found % _ACROSS)
    middle = [(index - _ACROSS // 2 + 0.5 - SPLIT / 2) * _SIZE for index in indices]
    place = found // _ACROSS**2
    return sort_points(middle[0], middle[1], place % _LAYERS, e, place // _LAYERS, len(showers))


def crossings(showers: Showers, layer: np.ndarray) -> Columns:
    """Passages of single particles through a layer, those of a sub-cell summed."""
    owner = showers.owner
    x, y, e = (values.astype(np.float64) for values in (showers.x, showers.y, showers.e))
    far = np.hypot(np.diff(x), np.diff(y)) > STEP
    starts = np.concatenate([np.ones(min(1, len(x)), bool), (np.diff(owner) != 0) | (np.diff(layer) != 0) | far])
    first = np.flatnonzero(starts)
    x, y, e = _merged(x, y, e, np.cumsum(starts) - 1, len(first))
    found, group = np.unique(_squares(owner[first], layer[first], x, y), return_inverse=True)
    x, y, e = _merged(x, y, e, group, len(found))
    place = found // _ACROSS**2
    return sort_points(x, y, place % _LAYERS, e, place // _LAYERS, len(showers))


def _squares(owner: np.ndarray, layer: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One number for the shower, layer and sub-cell of every place, rising in that order."""
    i, j = (np.floor(place / _SIZE + SPLIT / 2).astype(np.int64) + _ACROSS // 2 for place in (x, y))
    if len(i) and not (min(i.min(), j.min()) >= 0 and max(i.max(), j.max()) < _ACROSS):
        raise InputError("deposits lie more than a metre from the axis; expected a stack of 40 cm")
    number: np.ndarray = ((owner * _LAYERS + layer) * _ACROSS + i) * _ACROSS + j
    return number


def _merged(
    x: np.ndarray, y: np.ndarray, e: np.ndarray, group: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre and energy of groups of deposits."""
    total = np.bincount(group, weights=e, minlength=groups)
    filled = np.where(total > 0, total, 1)
    centre = [np.bincount(group, weights=e * place, minlength=groups) / filled for place in (x, y)]
    return centre[0], centre[1], total
