"""Observables of showers in stacks of plates.

With A_k and V_k the energies in absorber and active plate of layer k, and d_k the depth of the middle of its active
plate along the normal, in radiation lengths of all plates before it (absorbers, gaps and active ones):

    E_vis        sum_k V_k
    E_dep        energy in all plates
    depth_mean   sum_k V_k d_k / E_vis
    depth_spread sqrt(sum_k V_k (d_k - depth_mean)^2 / E_vis)

Where both files have deposits in the active plates, positions x, y are from where the particle's straight line crosses
the middle of the plate, in the plane of the plates (`calograd.events.plates`):

    R_E          sqrt(sum e ((x - <x>)^2 + (y - <y>)^2) / E_vis), <x> and <y> weighted with e
    N_hits       cells of 0.509 cm about the line with more than 0.1 MeV (`calograd.events.layered_readout`)

A shower without visible energy has no depths and no R_E (NaN).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calograd.events.clustering import points_of_plates
from calograd.events.layered_readout import count_hits
from calograd.events.plates import PlateShowers
from calograd.metrics.observables import Profile

SINGLE = ("E_vis/E_inc", "E_dep/E_inc", "depth_mean", "depth_spread")
"""The columns of `PlateObservables.table` that energies give."""
TRANSVERSE = ("R_E", "N_hits")
"""Further columns that deposits give."""
RING_EDGES = np.array([0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9, 1.2, 1.6, 2.1, 2.8, 3.7, 5.0, 7.0, 10.0])
"""Edges of the rings of the radial profile, cm; the last ring holds what lies beyond."""
DEPTH_BIN = 1.0
"""Width of the bins of depth profiles, X0."""


@dataclass(frozen=True)
class PlateObservables:
    """Observables of n showers.

    Args:
        table: one row a shower, columns ``names``, shape (n, 4) or with deposits (n, 6).
        energy: incident energy, shape (n,), GeV.
        visible, absorbed: energies of active plates and absorbers, shape (n, layers), GeV; zero beyond the last layer.
        depths: d_k of the active plates, shape (n, layers), X0.
        layers: number of layers, shape (n,).
        rings: energy between `RING_EDGES` about the particle's line, shape (n, rings), GeV; None without deposits.
    """

    table: np.ndarray
    energy: np.ndarray
    visible: np.ndarray
    absorbed: np.ndarray
    depths: np.ndarray
    layers: np.ndarray
    rings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def rows(self, which: np.ndarray | slice) -> PlateObservables:
        """Return some showers, by mask, indices or slice."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return replace(self, **{name: column[which] for name, column in columns.items() if column is not None})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of the table."""
        return SINGLE if self.rings is None else SINGLE + TRANSVERSE

    def column(self, name: str) -> np.ndarray:
        """Return a column of the table, shape (n,)."""
        return np.asarray(self.table[:, self.names.index(name)])

    @property
    def shares(self) -> np.ndarray:
        """Energies of active plates, then of absorbers, over the incident energy, shape (n, 2 layers)."""
        return np.asarray(np.concatenate([self.visible, self.absorbed], 1) / self.energy[:, None])


def observe_plates(showers: PlateShowers, deposits: bool = False) -> PlateObservables:
    """Return the observables of showers in stacks of plates; ``deposits``: with those that deposits give."""
    energies, energy, stacks = showers.energies().astype(np.float64), showers.energy.astype(np.float64), showers.stacks
    visible, depths = energies[..., 2], stacks.depths
    total = visible.sum(1)
    share = visible / np.where(total > 0, total, np.nan)[:, None]
    mean = (share * depths).sum(1)
    spread = np.sqrt((share * (depths - mean[:, None]) ** 2).sum(1))
    table = np.column_stack([total / energy, energies.sum((1, 2)) / energy, mean, spread])
    more, rings = _transverse(showers) if deposits else (np.zeros((len(table), 0)), None)
    return PlateObservables(
        np.concatenate([table, more], 1), energy, visible, energies[..., 0], depths, stacks.layers, rings
    )


def _transverse(showers: PlateShowers) -> tuple[np.ndarray, np.ndarray]:
    """Return R_E and N_hits, shape (n, 2), and energies in rings, shape (n, rings), GeV."""
    assert showers.deposits is not None
    x, y, _ = showers.points_of(showers.deposits)
    owner, e, n = showers.deposits.owner, showers.deposits.e.astype(np.float64), len(showers)
    total = np.bincount(owner, e, n)
    total = np.where(total > 0, total, np.nan)
    means = [np.bincount(owner, e * place, n) / total for place in (x, y)]
    square = (x - means[0][owner]) ** 2 + (y - means[1][owner]) ** 2
    radius = np.sqrt(np.bincount(owner, e * square, n) / total)
    bins = len(RING_EDGES) - 1
    which = np.clip(np.searchsorted(RING_EDGES, np.hypot(x, y), side="right") - 1, 0, bins - 1)
    rings = np.bincount(owner * bins + which, e, n * bins).reshape(n, bins)
    cells = points_of_plates(
        showers, "sub-cells", layers=int(showers.counts.max(initial=1)), config={}, merged=True
    )  # fmt: skip
    return np.column_stack([radius, count_hits(cells)]), rings


def radial_profile(seen: PlateObservables) -> Profile:
    """Return the mean share of the incident energy in the rings, with standard errors."""
    assert seen.rings is not None
    shares, n = seen.rings / seen.energy[:, None], len(seen)
    return Profile(RING_EDGES, shares.mean(0), shares.std(0, ddof=min(n - 1, 1)) / n**0.5)


def layer_profiles(seen: PlateObservables, of_depth: bool, edges: np.ndarray | None = None) -> tuple[Profile, Profile]:
    """Return the mean shares of the incident energy in active plates and in absorbers, with standard errors.

    Args:
        seen: showers.
        of_depth: in bins of the depth of the layer's active plate, X0, for showers in different stacks; otherwise in
            layers.
        edges: edges of the bins; None: `depth_edges` of the showers, or the layers.
    """
    layers = seen.visible.shape[1]
    if edges is None:
        edges = depth_edges(seen) if of_depth else np.arange(layers + 1) - 0.5
    n, bins = len(seen), len(edges) - 1
    profiles = []
    for values in (seen.visible, seen.absorbed):
        shares = values / seen.energy[:, None]
        if of_depth:
            which = np.clip(np.searchsorted(edges, seen.depths, side="right") - 1, 0, bins - 1)
            index = (np.arange(n)[:, None] * bins + which).ravel()
            shares = np.bincount(index, shares.ravel(), n * bins).reshape(n, bins)
        profiles.append(Profile(edges, shares.mean(0), shares.std(0, ddof=min(n - 1, 1)) / n**0.5))
    return profiles[0], profiles[1]


def depth_edges(seen: PlateObservables) -> np.ndarray:
    """Return the edges of bins of depth that hold all layers, X0."""
    present = np.arange(seen.depths.shape[1]) < seen.layers[:, None]
    deepest = float(seen.depths[present].max(initial=DEPTH_BIN))
    return DEPTH_BIN * np.arange(int(np.ceil(deepest / DEPTH_BIN)) + 1)
