"""Observables of showers as hits of a layered detector, those of the CaloClouds papers (arXiv 2309.05704).

A hit is a cell with more than `calograd.events.layered_readout.THRESHOLD`; everything counts hits alone. Of a shower:

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
from typing import NamedTuple

import numpy as np

from calograd.detector.configuration import SiWStack
from calograd.errors import InputError
from calograd.events.clouds import LAYERS, PITCH, Clouds
from calograd.events.layered_readout import Hits, Readout, read_out

LAYER_EDGES = (0, 8, 11, 13, 15, 16, 18, 19, 21, 24, 30)
"""First layers of the ten groups; the last group holds the last layer."""
RADIAL_EDGES = (0.0, 0.6558, 0.9849, 1.296, 1.7028, 2.3434, 3.3609, 4.0119, 4.8491, 6.8808, 30.0)
"""Of the ten rings, cm."""
SINGLE = ("N_hits", "E_vis/E_inc", "m1_X", "m1_Y", "m1_Z")
"""Columns of `CloudObservables.table` that are observables by themselves; ten each of E_long and E_radial follow."""
RINGS = PITCH * np.append(0, np.arange(20) + 0.5)
"""Edges of the radial profile, cm: as wide as a cell, or rings would hold different numbers of them."""
CELL_EDGES = np.geomspace(1e-4, 0.3, 50)
"""Of the spectrum of hits, GeV; the last holds what is beyond."""


class PerShower(NamedTuple):
    """Means of showers and their standard errors, shape (bins,) each."""

    mean: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> PerShower:
        """Of values of single showers, shape (n, bins)."""
        n = len(values)
        return cls(values.sum(0) / max(n, 1), values.std(0, ddof=min(n - 1, 1)) / n**0.5 if n else 0 * values.sum(0))


@dataclass(frozen=True)
class CloudObservables:
    """What is observed of showers.

    Args:
        table: one row a shower, columns `SINGLE`, ten E_long, ten E_radial (GeV), shape (n, 25).
        incident: energy, shape (n,), GeV.
        hits: their energies, in order of showers, shape (hits,), GeV.
        first: first hit of every shower and, last, their number, shape (n + 1,).
        layers: energy of every layer, GeV.
        rings: energy between `RINGS`, GeV.
        spectrum: number of hits with energies between `CELL_EDGES`.
    """

    table: np.ndarray
    incident: np.ndarray
    hits: np.ndarray
    first: np.ndarray
    layers: PerShower
    rings: PerShower
    spectrum: PerShower

    def __len__(self) -> int:
        return len(self.incident)

    def rows(self, start: int, stop: int) -> CloudObservables:
        """Showers ``start:stop``; the profiles stay those of all."""
        first, last = self.first[start], self.first[stop]
        return CloudObservables(
            self.table[start:stop], self.incident[start:stop], self.hits[first:last],
            self.first[start : stop + 1] - first, self.layers, self.rings, self.spectrum,
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
        [count, total / clouds.energy, *moments, _groups(hits, np.array(LAYER_EDGES), hits.layer, hits.e),
         _groups(hits, np.array(RADIAL_EDGES), radius, hits.e)]
    )  # fmt: skip
    return CloudObservables(
        table, clouds.energy.astype(np.float64), hits.e, np.concatenate([[0], np.cumsum(count)]),
        *(PerShower.of(_groups(hits, edges, place, weight)) for edges, place, weight in (
            (np.arange(clouds.layers + 1), hits.layer, hits.e), (RINGS, radius, hits.e),
            (CELL_EDGES, np.minimum(hits.e, CELL_EDGES[-1] * (1 - 1e-9)), None))),
    )  # fmt: skip


def _groups(hits: Hits, edges: np.ndarray, place: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Weight of every shower (None: number of hits) between the edges, shape (n, groups); beyond them it is lost."""
    groups = len(edges) - 1
    which = np.searchsorted(edges, place, side="right") - 1
    inside = (which >= 0) & (which < groups)
    index = hits.shower[inside] * groups + which[inside]
    chosen = None if weight is None else weight[inside]
    return np.bincount(index, chosen, hits.n * groups).reshape(hits.n, groups)
