"""Observables of x-z maps (arXiv 2601.07859).

With I_p the energy of pixel p, (x_p, z_p) its centre in cm and E_tot = sum_p I_p:

    x_mean  = sum I x / E_tot                                 z_mean likewise
    sigma_y = sqrt( sum I (x - x_mean)^2 / E_tot )            spread across the beam; the paper calls that axis y
    sigma_z   likewise, along the beam
    R_E     = sqrt( sum I r^2 / E_tot ) = sqrt( sigma_y^2 + sigma_z^2 ),   r from the centroid in the plane of the map
    S_k     = energy of slab k; the slabs hold equal numbers of pixels along z

R_E of cells is transverse instead: a map has no second transverse axis. Sums run in float64. Units: GeV, cm.
"""

from __future__ import annotations

import numpy as np

MAP_OBSERVABLES = ("E_tot", "x_mean", "R_E", "sigma_y", "z_mean", "sigma_z")
"""Observables of a map, the first columns of `observe_maps`."""
SLABS = 8
"""Number of slabs along z whose energies follow the observables."""


def map_quantity_names() -> tuple[str, ...]:
    """Return the names of the columns of `observe_maps`: the observables, then the slabs S_0, S_1 ..."""
    return (*MAP_OBSERVABLES, *(f"S_{k}" for k in range(SLABS)))


def observe_maps(maps: np.ndarray, width: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return the observables and slab energies of maps; NaN where a map holds no energy.

    Args:
        maps: energies, shape (n, pixels across, pixels along), GeV.
        width: width of the window, shape (n,), cm.
        depth: depth of the window, shape (n,), cm.

    Returns:
        One column for each of `map_quantity_names`, shape (n, 6 + `SLABS`), float64.
    """
    energies = maps.astype(np.float64)
    across, along = energies.sum(2), energies.sum(1)
    total = along.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x, variance_x = _moments(across, width, total)
        z, variance_z = _moments(along, depth, total)
    slabs = [part.sum(1) for part in np.array_split(along, SLABS, axis=1)]
    x = x - width / 2
    columns = (total, x, np.sqrt(variance_x + variance_z), np.sqrt(variance_x), z, np.sqrt(variance_z), *slabs)
    return np.column_stack(columns)


def _moments(weights: np.ndarray, length: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean position from the window's edge (cm) and its variance, of pixels (n, pixels) along ``length``."""
    centres = (np.arange(weights.shape[1]) + 0.5) / weights.shape[1]
    mean = weights @ centres / total
    variance = (weights * (centres - mean[:, None]) ** 2).sum(1) / total
    return mean * length, variance * length**2
