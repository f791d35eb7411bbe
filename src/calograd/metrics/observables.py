"""Observables of showers measured in cells.

With I_c the energy of cell c, (x_c, y_c, z_c) its centre and E_tot = sum_c I_c:

    x_mean  = sum I x / E_tot                                 y_mean, z_mean likewise
    sigma_x = sqrt( sum I (x - x_mean)^2 / E_tot )            sigma_y, sigma_z likewise
    R_E     = sqrt( sum I r^2 / E_tot ) = sqrt( sigma_x^2 + sigma_y^2 ),   r from the centroid
    E_k     = sum of the cells of layer k
    occupancy = number of cells at or above the threshold

Windows follow particles off the axis. Positions across the beam are then taken from the particle's line in the middle
of each layer: with o_k the centre of the window and x(z) the line (`calograd.detector.incidence`),

    x_c = (o_k + i + (1 - n_xy)/2) dx - x(z_k),    z_k the middle of layer k,    i = 0 ... n_xy - 1

On the axis o_k = 0 and x(z) = 0. Profiles across the beam are those of the columns of the window.

**Entry and direction** (`reconstruct`). With x_c from the particle's line, weights w_c and E_k as above,

    X_k = sum_{c in k} w_c x_c / sum_{c in k} w_c           w_c = I_c, or w_c = max(0, w0 + ln(I_c / E_k))
    entry: sum_k E_k X_k / sum_k E_k                         difference from the true entry
    slope: the straight line through the points (zeta_k, X_k), least squares with weights E_k; difference from the true

with zeta_k the depth at which the line passes X_k on average. It is not the middle z_k of the layer: where a shower
rises, its energy lies behind the middle, and a plane across a tilted shower cuts more of the side that is farther along
the axis. Both go with the slope g_k of the logarithm of the longitudinal profile f = dE/dz. To first order in it

    zeta_k = z_k + g_k (dz_k^2 / 12 + cos(theta) s_k^2)      g_k = (f_{k+1/2} - f_{k-1/2}) / E_k

f at a face between layers is the geometric mean of E_k / dz_k on both sides, zero at the front face, and
extrapolated at the last one, |g_k| <= 6 / dz_k. s_k^2 is the variance across the axis as the weights see it: with
v = dw/d(ln I) and t = tan(theta) of the line through (z_k, X_k),

    V_k = sum_{c in k} v_c |x_c - X_k|^2 / sum_{c in k} w_c = (2 + t^2) s_k^2 + (dx^2 + dy^2 + t^2 dz_k^2) / 12

in x and y together, dy = dx. A line through (z_k, X_k) has a slope that is a tenth to a third too small.

The first weights give the centre of gravity of all cells. The second are the logarithmic weights of Awes et al., Nucl.
Instrum. Meth. A 311 (1992) 130, which follow the exponential tails of a shower; cells below exp(-w0) of their layer do
not count. Every layer is taken to the front face along the true direction, so the entry does not suffer from the
reconstructed one.

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

from calograd.detector.incidence import Incidence

Array = np.ndarray | Tensor

READOUT_THRESHOLD = 1e-3
"""Readout threshold of a cell, GeV."""

LOG_WEIGHT = 4.0
"""Parameter w0 of the logarithmic weights of `reconstruct`; 3.5 to 5 are usual."""

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
        x_mean, y_mean: energy-weighted mean position from the particle's line, shape (n,), cm.
        z_mean: energy-weighted mean depth, shape (n,), cm.
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


def observe(
    cells: Array,
    dx: Array | float,
    dz: Array,
    threshold: float = READOUT_THRESHOLD,
    incident: Incidence | None = None,
) -> Observables:
    """Return the observables of showers.

    Args:
        cells: energies, shape (n, n_x, n_y, n_z), GeV; numpy or a tensor, which may require a gradient.
        dx: cell pitch in cm, shape () or (n,).
        dz: depths of the layers in cm, shape (n_z,) or (n, n_z).
        threshold: readout threshold of the occupancy, GeV a cell.
        incident: particles of the n showers, whose lines the windows follow; None: windows on the axis.
    """
    filled = _filled(cells, dx, dz)
    cells, pitch, depths, total, layers = filled.cells, filled.pitch, filled.depths, filled.total, filled.layers
    across = [_transverse_centres(pitch, size) for size in cells.shape[1:3]]
    x = _moments(cells.sum(dim=(2, 3), dtype=torch.float64), across[0], total)
    y = _moments(cells.sum(dim=(1, 3), dtype=torch.float64), across[1], total)
    z = _moments(layers, depths.cumsum(1) - depths / 2, total)
    if incident is not None and not incident.on_axis:
        shift = _from_line(incident[filled.kept.cpu().numpy()], pitch, depths)
        x = _displaced(x, cells.sum(dim=2, dtype=torch.float64), across[0], layers, shift[..., 0], total)
        y = _displaced(y, cells.sum(dim=1, dtype=torch.float64), across[1], layers, shift[..., 1], total)
    fired = (cells >= threshold) & (cells > 0)
    return Observables(
        total, x.mean, y.mean, _root(x.variance + y.variance), _root(x.variance), _root(y.variance), z.mean,
        _root(z.variance), fired.sum(dim=(1, 2, 3)).double(), layers, filled.kept,
    )  # fmt: skip


@dataclass(frozen=True)
class Reconstruction:
    """Entry and direction reconstructed from cells, as differences from the true ones; see the module. Float64.

    NaN stands where nothing can be reconstructed: a slope needs two layers with energy.

    Args:
        entry: reconstructed minus true entry on the front face, shape (n, 2), cm.
        slope: reconstructed minus true slope dx/dz and dy/dz, shape (n, 2).
        kept: True for each given shower that holds energy, shape (showers given,), bool.
    """

    entry: Tensor
    slope: Tensor
    kept: Tensor


def reconstruct(
    cells: Array, dx: Array | float, dz: Array, incident: Incidence, log_weight: float | None = None
) -> Reconstruction:
    """Return the entry and direction of showers by the layers' mean positions; differentiable in cells, dx and dz.

    Args:
        cells, dx, dz, incident: as for `observe`.
        log_weight: parameter w0 of logarithmic weights; None for weights by energy.
    """
    filled = _filled(cells, dx, dz)
    pitch, depths = filled.pitch, filled.depths
    shift = _from_line(incident[filled.kept.cpu().numpy()], pitch, depths)
    weights = filled.cells.double() if log_weight is None else _log_weights(filled.cells, filled.layers, log_weight)
    response = weights if log_weight is None else (weights > 0).double()
    norm = weights.sum(dim=(1, 2))
    held = norm > 0
    norm = torch.where(held, norm, 1.0)
    means, variance = [], torch.zeros_like(norm)
    for axis in (1, 2):
        centres = _transverse_centres(pitch, weights.shape[axis])[:, :, None]
        means.append((weights.sum(dim=3 - axis) * centres).sum(1) / norm)
        variance = variance + (response.sum(dim=3 - axis) * (centres - means[-1][:, None]) ** 2).sum(1) / norm
    at, energy = torch.stack(means, dim=2) + shift, torch.where(held, filled.layers, 0.0)
    middle = depths.cumsum(1) - depths / 2
    true = torch.from_numpy(incident[filled.kept.cpu().numpy()].slopes).to(at.device)
    square = ((true + _slope(middle, at, energy)) ** 2).sum(1, keepdim=True)
    across = ((variance - pitch[:, None] ** 2 / 6 - square * depths**2 / 12) / (2 + square)).clamp(min=0)
    behind = _profile_slopes(energy, depths) * (depths**2 / 12 + across / (1 + square).sqrt())
    slope = _slope(middle + behind, at - behind[..., None] * true[:, None], energy)
    slope = torch.where((held.sum(1) > 1)[:, None], slope, torch.nan)
    return Reconstruction((energy[..., None] * at).sum(1) / energy.sum(1, keepdim=True), slope, filled.kept)


def _slope(depth: Tensor, at: Tensor, energy: Tensor) -> Tensor:
    """Return the slopes of straight lines through points of layers, weighted by energy; zero for one layer.

    Args:
        depth, energy: shape (n, n_z).
        at: positions, shape (n, n_z, 2).
    """
    arm = depth - (energy * depth).sum(1, keepdim=True) / energy.sum(1, keepdim=True)
    lever = (energy * arm**2).sum(1, keepdim=True)
    flat = lever <= 0
    return torch.where(flat, 0.0, ((energy * arm)[..., None] * at).sum(1) / torch.where(flat, 1.0, lever))


def _profile_slopes(energy: Tensor, depths: Tensor) -> Tensor:
    """Return g of every layer, the slope of the logarithm of the longitudinal profile, shape (n, n_z), 1/cm."""
    density = energy / depths
    root = _root(density)
    between = root[:, 1:] * root[:, :-1]
    before, end = root[:, -2:][:, :1], root[:, -1:]
    falls = end < before
    last = density[:, -1:] * torch.where(falls, end / torch.where(falls, before, 1.0), 1.0)
    faces = torch.cat([torch.zeros_like(last), between, last], dim=1)
    slopes = faces.diff(dim=1) / torch.where(energy > 0, energy, 1.0)
    return slopes.clamp(min=-6 / depths, max=6 / depths)


class _Filled(NamedTuple):
    """The showers that hold energy; sums in float64."""

    cells: Tensor
    pitch: Tensor
    depths: Tensor
    total: Tensor
    layers: Tensor
    kept: Tensor


def _filled(cells: Array, dx: Array | float, dz: Array) -> _Filled:
    cells = torch.as_tensor(cells)
    kept = cells.detach().sum(dim=(1, 2, 3), dtype=torch.float64) > 0
    n, n_z = len(cells), cells.shape[3]
    pitch = torch.as_tensor(dx, dtype=torch.float64, device=cells.device).expand(n)[kept]
    depths = torch.as_tensor(dz, dtype=torch.float64, device=cells.device).expand(n, n_z)[kept]
    cells = cells[kept]
    total = cells.sum(dim=(1, 2, 3), dtype=torch.float64)
    return _Filled(cells, pitch, depths, total, cells.sum(dim=(1, 2), dtype=torch.float64), kept)


def _from_line(incident: Incidence, pitch: Tensor, depths: Tensor) -> Tensor:
    """Return the centres of the windows from the particles' lines in the middle of every layer, (n, n_z, 2), cm."""
    sizes = (size.detach().cpu().numpy() for size in (pitch, depths))
    offsets, entry, slopes = (
        torch.from_numpy(np.asarray(values, np.float64)).to(pitch.device)
        for values in (incident.window_offsets(*sizes), incident.position, incident.slopes)
    )
    middle = depths.cumsum(1) - depths / 2
    return offsets * pitch[:, None, None] - entry[:, None] - middle[..., None] * slopes[:, None]


def _log_weights(cells: Tensor, layers: Tensor, log_weight: float) -> Tensor:
    """Return the weights max(0, w0 + ln(I_c / E_k)), zero for cells without energy."""
    share = cells.double() / torch.where(layers > 0, layers, 1.0)[:, None, None]
    return torch.where(share > 0, log_weight + torch.where(share > 0, share, 1.0).log(), 0.0).clamp(min=0)


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


def _displaced(
    window: _Moments, weights: Tensor, centres: Tensor, layers: Tensor, shift: Tensor, total: Tensor
) -> _Moments:
    """Return the moments of positions whose layers are shifted.

    Args:
        window: moments without the shifts.
        weights: energies of rows of cells by layer, shape (n, cells across, n_z).
        centres: centres of these rows, shape (n, cells across), cm.
        layers: energies of the layers, shape (n, n_z).
        shift: of every layer, shape (n, n_z), cm.
        total: energies of the showers, shape (n,).
    """
    mean = (layers * shift).sum(1) / total
    away = shift - mean[:, None]
    cross = ((weights * (centres - window.mean[:, None])[..., None]).sum(1) * away).sum(1) / total
    return _Moments(window.mean + mean, window.variance + (layers * away**2).sum(1) / total + 2 * cross)


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
