"""Observables of showers in stacks of plates.

With A_k and V_k the energies in absorber and active plate of layer k, and d_k the depth of the middle of its active
plate along the normal, in radiation lengths of all plates before it (absorbers, gaps and active ones):

    E_vis        sum_k V_k
    E_dep        energy in all plates
    depth_mean   sum_k V_k d_k / E_vis
    depth_spread sqrt(sum_k V_k (d_k - depth_mean)^2 / E_vis)

A shower without visible energy has no depths (NaN).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calograd.events.plates import PlateShowers
from calograd.metrics.observables import Profile

SINGLE = ("E_vis/E_inc", "E_dep/E_inc", "depth_mean", "depth_spread")
"""The columns of `PlateObservables.table`."""
DEPTH_BIN = 1.0
"""Width of the bins of depth profiles, X0."""


@dataclass(frozen=True)
class PlateObservables:
    """Observables of n showers.

    Args:
        table: one row a shower, columns `SINGLE`, shape (n, 4).
        energy: incident energy, shape (n,), GeV.
        visible, absorbed: energies of active plates and absorbers, shape (n, layers), GeV; zero beyond the last layer.
        depths: d_k of the active plates, shape (n, layers), X0.
        layers: number of layers, shape (n,).
    """

    table: np.ndarray
    energy: np.ndarray
    visible: np.ndarray
    absorbed: np.ndarray
    depths: np.ndarray
    layers: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)

    def rows(self, which: np.ndarray | slice) -> PlateObservables:
        """Return some showers, by mask, indices or slice."""
        return PlateObservables(*(getattr(self, name)[which] for name in self.__dataclass_fields__))

    def column(self, name: str) -> np.ndarray:
        """Return a column of the table, shape (n,)."""
        return np.asarray(self.table[:, SINGLE.index(name)])

    @property
    def shares(self) -> np.ndarray:
        """Energies of active plates, then of absorbers, over the incident energy, shape (n, 2 layers)."""
        return np.asarray(np.concatenate([self.visible, self.absorbed], 1) / self.energy[:, None])


def observe_plates(showers: PlateShowers) -> PlateObservables:
    """Return the observables of showers in stacks of plates."""
    energies, energy, stacks = showers.energies().astype(np.float64), showers.energy.astype(np.float64), showers.stacks
    visible, depths = energies[..., 2], stacks.depths
    total = visible.sum(1)
    share = visible / np.where(total > 0, total, np.nan)[:, None]
    mean = (share * depths).sum(1)
    spread = np.sqrt((share * (depths - mean[:, None]) ** 2).sum(1))
    table = np.column_stack([total / energy, energies.sum((1, 2)) / energy, mean, spread])
    return PlateObservables(table, energy, visible, energies[..., 0], depths, stacks.layers)


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
