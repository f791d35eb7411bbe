"""Observables of showers as hits of a layered detector, those of the CaloClouds papers (arXiv 2309.05704).

A hit is a cell with more than `calograd.events.layered_readout.THRESHOLD`. Every observable counts hits alone:

    N_hits       number of hits
    E_vis/E_inc  energy of the hits over the incident energy
    E_long       energy in ten groups of layers, `LAYER_EDGES`
    E_radial     energy in ten rings about the axis, by the centres of the cells, `RADIAL_EDGES`
    m1_X, m1_Y   energy-weighted mean of x and y, cm
    m1_Z         energy-weighted mean depth of the silicon, cm
    E_cell       energies of the hits of all showers together
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calograd.detector.configuration import SiWStack
from calograd.errors import InputError
from calograd.events.layered_readout import Hits, Readout, read_out
from calograd.events.point_showers import LAYERS, PITCH, PointShowers
from calograd.metrics.observables import Profile

LAYER_EDGES = (0, 8, 11, 13, 15, 16, 18, 19, 21, 24, 30)
"""First layers of the ten groups of E_long; the last number ends the last group."""
RADIAL_EDGES = (0.0, 0.6558, 0.9849, 1.296, 1.7028, 2.3434, 3.3609, 4.0119, 4.8491, 6.8808, 30.0)
"""Edges of the ten rings of E_radial, cm."""
SINGLE = ("N_hits", "E_vis/E_inc", "m1_X", "m1_Y", "m1_Z")
"""The first columns of `PointObservables.table`; ten columns each of E_long and E_radial follow."""
RADIAL_PROFILE_EDGES = PITCH * np.append(0, np.arange(20) + 0.5)
"""Edges of the radial profile, cm. The rings are as wide as a cell, or they would hold different numbers of cells."""
SPECTRUM_EDGES = np.geomspace(1e-4, 0.3, 50)
"""Edges of the spectrum of hits, GeV; the last bin holds what lies beyond."""


@dataclass(frozen=True)
class PointObservables:
    """Observables of n showers, and their mean profiles.

    Args:
        table: one row a shower; columns `SINGLE`, ten E_long, ten E_radial (GeV); shape (n, 25).
        energy: incident energy, shape (n,), GeV.
        hits: energies of the hits in order of showers, shape (hits,), GeV.
        first: index of every shower's first hit, then the number of hits, shape (n + 1,).
        layers: mean energy of every layer, GeV.
        radial: mean energy between `RADIAL_PROFILE_EDGES`, GeV.
        spectrum: mean number of hits with energies between `SPECTRUM_EDGES`.
    """

    table: np.ndarray
    energy: np.ndarray
    hits: np.ndarray
    first: np.ndarray
    layers: Profile
    radial: Profile
    spectrum: Profile

    def __len__(self) -> int:
        return len(self.energy)

    def rows(self, which: slice) -> PointObservables:
        """Return the showers of a slice without a step; the profiles stay those of all showers."""
        start, stop, _ = which.indices(len(self))
        first, last = self.first[start], self.first[stop]
        return PointObservables(
            self.table[which], self.energy[which], self.hits[first:last], self.first[start : stop + 1] - first,
            self.layers, self.radial, self.spectrum,
        )  # fmt: skip


def silicon_depths(stack: SiWStack | None = None) -> np.ndarray:
    """Return the depth of the middle of every layer's silicon, shape (layers,), cm."""
    stack = stack or SiWStack()
    return np.asarray(stack.layer_fronts() + stack.plate_thicknesses() + stack.gap + stack.silicon / 2)


def observe_points(points: PointShowers, readout: Readout | None = None) -> PointObservables:
    """Return the observables of showers; a shower without a hit has zero everywhere.

    Args:
        points: showers of a detector of `LAYERS` layers.
        readout: cells of the layers; by default those of the stack.

    Raises:
        InputError: the detector has another number of layers than the groups are defined for, or is a stack of plates.
    """
    if points.n_layers is not None:
        raise InputError(
            "the showers are in stacks of plates; the observables of points are defined for the silicon-tungsten stack"
        )
    if points.layers != LAYERS:
        raise InputError(f"the showers have {points.layers} layers; the observables are defined for {LAYERS}")
    hits, n = read_out(points, readout), len(points)
    total = np.bincount(hits.owner, hits.e, n)
    share = hits.e / np.where(total > 0, total, 1)[hits.owner]
    depth = silicon_depths()[hits.layer]
    means = [np.bincount(hits.owner, share * position, n) for position in (hits.x, hits.y, depth)]
    radius = np.hypot(hits.x, hits.y)
    count = np.bincount(hits.owner, minlength=n)
    table = np.column_stack(
        [count, total / points.energy, *means, _binned(hits, np.array(LAYER_EDGES), hits.layer, hits.e),
         _binned(hits, np.array(RADIAL_EDGES), radius, hits.e)]
    )  # fmt: skip
    layers = np.arange(points.layers + 1)
    capped = np.minimum(hits.e, SPECTRUM_EDGES[-1] * (1 - 1e-9))
    return PointObservables(
        table, points.energy.astype(np.float64), hits.e, np.concatenate([[0], np.cumsum(count)]),
        _mean_profile(_binned(hits, layers, hits.layer, hits.e), layers - 0.5),
        _mean_profile(_binned(hits, RADIAL_PROFILE_EDGES, radius, hits.e), RADIAL_PROFILE_EDGES),
        _mean_profile(_binned(hits, SPECTRUM_EDGES, capped, None), SPECTRUM_EDGES),
    )  # fmt: skip


def _mean_profile(values: np.ndarray, edges: np.ndarray) -> Profile:
    """Return the mean over showers of ``values`` (n, bins), a bin and not a unit of length, with its error."""
    n = len(values)
    error = values.std(0, ddof=min(n - 1, 1)) / n**0.5 if n else 0 * values.sum(0)
    return Profile(edges, values.sum(0) / max(n, 1), error)


def _binned(hits: Hits, edges: np.ndarray, position: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Return every shower's weight (None: number of hits) between the edges, shape (n, bins); beyond it is lost."""
    bins = len(edges) - 1
    which = np.searchsorted(edges, position, side="right") - 1
    inside = (which >= 0) & (which < bins)
    index = hits.owner[inside] * bins + which[inside]
    chosen = None if weight is None else weight[inside]
    return np.bincount(index, chosen, len(hits) * bins).reshape(len(hits), bins)
