"""Observables of showers measured in cells.

With I_c the energy of cell c, (x_c, y_c, z_c) its centre and E_tot = sum_c I_c:

    x_mean  = sum I x / E_tot                                 y_mean, z_mean likewise
    sigma_x = sqrt( sum I (x - x_mean)^2 / E_tot )            sigma_y, sigma_z likewise
    R_E     = sqrt( sum I r^2 / E_tot ) = sqrt( sigma_x^2 + sigma_y^2 ),   r from the centroid
    E_k     = sum of the cells of layer k
    occupancy = number of cells at or above the threshold

The paper (arXiv 2601.07859, eq. A.6) prints sigma_y without the root that its code applies; the root is taken here.
A map is a shower of cells of one row in y (`pixels_as_cells`). Its observables are those of arXiv 2601.07859: sigma_x
is called sigma_y there, R_E = sqrt(sigma_x^2 + sigma_z^2) lies in the plane of the map, and the energies of `SLABS`
slabs take the place of those of layers.

A shower without energy has no centroid. Such showers are excluded from every observable; `Observables.kept` says which
showers are kept, and `Observables.excluded` counts the others. All but the occupancy is differentiable in the cell
energies, dx and dz. Sums run in float64. Units: GeV, cm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

READOUT_THRESHOLD = 1e-3
"""Readout threshold of a cell, GeV."""

OBSERVABLES = ("E_tot", "x_mean", "y_mean", "R_E", "sigma_x", "sigma_y", "z_mean", "sigma_z", "occupancy")


MAP_OBSERVABLES = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z")
"""Observables of a map, the first columns of `Observables.map_table`."""
SLABS = 8
"""Number of slabs along z whose energies follow the observables of a map."""


def quantity_names(n_z: int) -> tuple[str, ...]:
    """Return the names of the columns of `Observables.table`: observables, then layer energies E_0, E_1 ..."""
    return (*OBSERVABLES, *(f"E_{k}" for k in range(n_z)))


def map_quantity_names() -> tuple[str, ...]:
    """Return the names of the columns of `Observables.map_table`: observables, then the slabs S_0, S_1 ..."""
    return (*MAP_OBSERVABLES, *(f"S_{k}" for k in range(SLABS)))


@dataclass(frozen=True)
class Observables:
    """Observables of the showers that hold energy; every tensor float64.

    Args:
        E_tot: deposited energy, shape (n,), GeV.
        x_mean, y_mean, z_mean: energy-weighted mean position, shape (n,), cm.
        R_E: energy-weighted radius about the centroid, shape (n,), cm.
        sigma_x, sigma_y, sigma_z: energy-weighted deviations, shape (n,), cm.
        occupancy: cells at or above the threshold, shape (n,).
        layers: energy of every layer, shape (n, n_z), GeV.
        kept: True for each given shower that holds energy, shape (showers given,), bool.
    """

    E_tot: Tensor
    x_mean: Tensor
    y_mean: Tensor
    R_E: Tensor
    sigma_x: Tensor
    sigma_y: Tensor
    z_mean: Tensor
    sigma_z: Tensor
    occupancy: Tensor
    layers: Tensor
    kept: Tensor

    @property
    def excluded(self) -> int:
        """Number of showers that are left out because they hold no energy."""
        return int((~self.kept).sum())

    def table(self) -> np.ndarray:
        """Return all quantities as columns in the order of `quantity_names`, shape (n, 9 + n_z), float64, detached."""
        columns = [getattr(self, name).detach()[:, None] for name in OBSERVABLES]
        return torch.cat([*columns, self.layers.detach()], dim=1).cpu().numpy()

    def map_table(self) -> np.ndarray:
        """Return the quantities of maps as columns in the order of `map_quantity_names`, shape (n, 6 + `SLABS`)."""
        radius = (self.sigma_x**2 + self.sigma_z**2).sqrt()
        columns = torch.stack([self.E_tot, self.x_mean, radius, self.sigma_x, self.z_mean, self.sigma_z], dim=1)
        slabs = [part.sum(1, keepdim=True) for part in torch.tensor_split(self.layers, SLABS, dim=1)]
        return torch.cat([columns, *slabs], dim=1).detach().cpu().numpy()


def pixels_as_cells(
    maps: np.ndarray, width: np.ndarray, depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return maps as cells with their sizes, as `observe` takes them.

    Args:
        maps: energies, shape (n, pixels across, pixels along), GeV.
        width, depth: sizes of the window, shape (n,), cm.

    Returns:
        Cells of one row in y, shape (n, n_x, 1, n_z), GeV; their pitch, shape (n,), cm; and depths, shape (n, n_z), cm.
    """
    _, n_x, n_z = maps.shape
    return maps[:, :, None], width / n_x, np.repeat(depth[:, None] / n_z, n_z, axis=1)


def observe(cells: Array, dx: Array | float, dz: Array, threshold: float = READOUT_THRESHOLD) -> Observables:
    """Return the observables of showers.

    Args:
        cells: energies, shape (n, n_x, n_y, n_z), GeV; numpy or a tensor, which may require a gradient.
        dx: cell pitch in cm, shape () or (n,).
        dz: depths of the layers in cm, shape (n_z,) or (n, n_z).
        threshold: readout threshold of the occupancy, GeV a cell.
    """
    cells = torch.as_tensor(cells)
    kept = cells.detach().sum(dim=(1, 2, 3), dtype=torch.float64) > 0
    n, n_z = len(cells), cells.shape[3]
    pitch = torch.as_tensor(dx, dtype=torch.float64, device=cells.device).expand(n)[kept]
    depths = torch.as_tensor(dz, dtype=torch.float64, device=cells.device).expand(n, n_z)[kept]
    cells = cells[kept]
    total = cells.sum(dim=(1, 2, 3), dtype=torch.float64)
    layers = cells.sum(dim=(1, 2), dtype=torch.float64)
    x = _moments(cells.sum(dim=(2, 3), dtype=torch.float64), _transverse_centres(pitch, cells.shape[1]), total)
    y = _moments(cells.sum(dim=(1, 3), dtype=torch.float64), _transverse_centres(pitch, cells.shape[2]), total)
    z = _moments(layers, depths.cumsum(1) - depths / 2, total)
    fired = (cells >= threshold) & (cells > 0)
    return Observables(
        total, x.mean, y.mean, _root(x.variance + y.variance), _root(x.variance), _root(y.variance), z.mean,
        _root(z.variance), fired.sum(dim=(1, 2, 3)).double(), layers, kept,
    )  # fmt: skip


def readout(cells: np.ndarray, threshold: float) -> np.ndarray:
    """Return the cells that a readout sees: those below the threshold (GeV) are zero."""
    return np.where(cells >= threshold, cells, np.float32(0))


class Profile(NamedTuple):
    """A mean profile over showers.

    Attributes:
        edges: edges of the bins, shape (bins + 1,).
        mean: mean of every bin, shape (bins,); of a profile in space dE/dl, GeV/cm.
        error: standard error of the mean, shape (bins,).
    """

    edges: np.ndarray
    mean: np.ndarray
    error: np.ndarray


def longitudinal_profile(cells: np.ndarray, dz: np.ndarray) -> Profile:
    """Return the mean dE/dz of showers of one design: cells (n, n_x, n_y, n_z) in GeV, dz (n_z,) in cm."""
    return profile(cells.sum(axis=(1, 2), dtype=np.float64), np.concatenate([[0.0], np.cumsum(dz)]))


def transverse_profile(cells: np.ndarray, dx: float) -> Profile:
    """Return the mean dE/dx, summed over y and z, of cells (n, n_x, n_y, n_z) in GeV of one design, dx in cm."""
    n_x = cells.shape[1]
    return profile(cells.sum(axis=(2, 3), dtype=np.float64), (np.arange(n_x + 1) - n_x / 2) * dx)


class _Moments(NamedTuple):
    mean: Tensor
    variance: Tensor


def _moments(weights: Tensor, centres: Tensor, total: Tensor) -> _Moments:
    mean = (weights * centres).sum(1) / total
    return _Moments(mean, (weights * (centres - mean[:, None]) ** 2).sum(1) / total)


def _transverse_centres(pitch: Tensor, n: int) -> Tensor:
    return pitch[:, None] * (torch.arange(n, device=pitch.device, dtype=torch.float64) + (1 - n) / 2)


def _root(variance: Tensor) -> Tensor:
    """Return the root, with gradient zero instead of infinite for showers of a single column or layer."""
    positive = variance > 0
    return torch.where(positive, torch.where(positive, variance, 1.0).sqrt(), 0.0)


def profile(energies: np.ndarray, edges: np.ndarray) -> Profile:
    """Return the mean density of energies (n, bins) in GeV between edges (bins + 1,) in cm."""
    density = energies / np.diff(edges)
    error = density.std(axis=0, ddof=1) / np.sqrt(len(density)) if len(density) > 1 else np.zeros(density.shape[1])
    return Profile(edges, density.mean(axis=0), error)
