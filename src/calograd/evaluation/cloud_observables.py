"""Observables of showers as hits of a layered detector, those of the CaloClouds papers (arXiv 2309.05704).

A hit is a cell with more than `calograd.showers.readout.THRESHOLD`; everything counts hits alone. Of a shower:

    N_hits       number of hits
    E_vis/E_inc  energy of the hits over the incident one
    E_long       energy in ten groups of layers, `LAYER_EDGES`
    E_radial     energy in ten rings about the axis, by the middles of the cells, `RADIAL_EDGES`
    m1_X, m1_Y   energy-weighted mean of x and y, cm
    m1_Z         energy-weighted mean depth of the silicon, cm

and of all showers together E_cell, the energies of the hits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calograd.errors import InputError
from calograd.showers.clouds import LAYERS, Clouds
from calograd.showers.cluster import PITCH
from calograd.showers.readout import Hits, Readout, read_out
from calograd.simulation.config import SiWStack

LAYER_EDGES = (0, 8, 11, 13, 15, 16, 18, 19, 21, 24, 30)
"""First layers of the ten groups; the last group holds the last layer."""
RADIAL_EDGES = (0.0, 0.6558, 0.9849, 1.296, 1.7028, 2.3434, 3.3609, 4.0119, 4.8491, 6.8808, 30.0)
"""Of the ten rings, cm."""
SINGLE = ("N_hits", "E_vis/E_inc", "m1_X", "m1_Y", "m1_Z")
"""Columns of `CloudObservables.table` that are observables by themselves; ten each of E_long and E_radial follow."""
RINGS = PITCH * np.append(0, np.arange(20) + 0.5)
"""Edges of the radial profile, cm: as wide as a cell, or rings would hold different numbers of them."""


@dataclass(frozen=True)
class CloudObservables:
    """What is observed of showers.

    Args:
        table: one row a shower, columns `SINGLE`, ten E_long, ten E_radial (GeV), shape (n, 25).
        incident: energy, shape (n,), GeV.
        hits: their energies, in order of showers, shape (hits,), GeV.
        first: first hit of every shower and, last, their number, shape (n + 1,).
        layers: mean energy of every layer, shape (layers,), GeV.
        rings: mean energy between `RINGS`, GeV.
    """

    table: np.ndarray
    incident: np.ndarray
    hits: np.ndarray
    first: np.ndarray
    layers: np.ndarray
    rings: np.ndarray

    def __len__(self) -> int:
        return len(self.incident)

    def rows(self, start: int, stop: int) -> CloudObservables:
        """Showers ``start:stop``; the profiles stay those of all."""
        first, last = self.first[start], self.first[stop]
        return CloudObservables(
            self.table[start:stop], self.incident[start:stop], self.hits[first:last],
            self.first[start : stop + 1] - first, self.layers, self.rings,
        )  # fmt: skip


def silicon_depths(stack: SiWStack | None = None) -> np.ndarray:
    """Depth of the middle of every layer's silicon, shape (layers,), cm."""
    stack = stack or SiWStack()
    return np.asarray(stack.layer_fronts() + stack.plate_thicknesses() + stack.gap + stack.silicon / 2)


def observe_clouds(clouds: Clouds, readout: Readout | None = None) -> CloudObservables:
    """Observe showers; those without a hit have zero everywhere.

    Raises:
        InputError: showers of a detector of another number of layers than the groups are made for.
    """
    if clouds.layers != LAYERS:
        raise InputError(f"the showers have {clouds.layers} layers; the observables are defined for {LAYERS}")
    hits, n = read_out(clouds, readout), len(clouds)
    total = np.bincount(hits.shower, hits.e, n)
    share = hits.e / np.where(total > 0, total, 1)[hits.shower]
    depth = silicon_depths()[hits.layer]
    moments = [np.bincount(hits.shower, share * place, n) for place in (hits.x, hits.y, depth)]
    radius = np.hypot(hits.x, hits.y)
    count = np.bincount(hits.shower, minlength=n)
    table = np.column_stack(
        [count, total / clouds.energy, *moments, _groups(hits, np.array(LAYER_EDGES), hits.layer),
         _groups(hits, np.array(RADIAL_EDGES), radius)]
    )  # fmt: skip
    return CloudObservables(
        table, clouds.energy.astype(np.float64), hits.e, np.concatenate([[0], np.cumsum(count)]),
        np.bincount(hits.layer, hits.e, clouds.layers) / max(n, 1),
        np.histogram(radius, RINGS, weights=hits.e)[0] / max(n, 1),
    )  # fmt: skip


def _groups(hits: Hits, edges: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Energy of every shower between the edges, shape (n, groups); beyond them it is lost."""
    groups = len(edges) - 1
    which = np.searchsorted(edges, place, side="right") - 1
    inside = (which >= 0) & (which < groups)
    index = hits.shower[inside] * groups + which[inside]
    return np.bincount(index, hits.e[inside], hits.n * groups).reshape(hits.n, groups)
