"""Beam-induced background (BIB): random energy in every cell, differentiable in the design.

The random numbers are drawn first and the design is applied after, so that gradients pass (reparametrisation).
With rho the mean energy density, m_c is the integral of rho over cell c. In an event the cell holds

    E_c   = f ( (1 - d) m_c g_c + d/4 sum_{c'} m_c' g_c' )        c' the 4 transverse neighbours of c
    f     = exp(s xi - s^2/2)       one for an event, xi normal:  unit mean
    g_c   = Gamma(shape a) / a      one for a cell:               unit mean

A share d of every cell's energy diffuses to its neighbours. The window is part of a larger calorimeter. Its outermost
cells receive energy from a ring of cells around it, so a uniform mean is conserved exactly. Hence

    mean_c = (1 - d) m_c + d/4 sum m_c'
    var_c  = (exp(s^2) - 1) mean_c^2 + exp(s^2)/a ( (1 - d)^2 m_c^2 + (d/4)^2 sum m_c'^2 )

The pixels of x-z maps have neighbours across in x alone; there 1 - d/2 replaces 1 - d and c' are 2 pixels.

`ExponentialBackground` has rho = b0 exp(-z/lam). `BackgroundMap` has voxels from a simulation of the interface between
machine and detector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from math import exp, expm1, inf
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.special import gammainccinv, gammaincinv, gammaln, log_ndtr, ndtr
from torch import Tensor

from calograd.errors import FormatError, InputError
from calograd.io.files import refuse_existing
from calograd.io.hdf5 import existing_file, load, new_file, store_checksum, verify_checksum
from calograd.system.random_numbers import RandomNumbers

SCHEMA = "calograd/background/1"
SMALLEST_STD = 1e-12
"""Smallest standard deviation of a cell, GeV, so that a division by it stays finite."""
_SLACK = 1e-5
"""Share of a map's extent by which a design may reach beyond it; float32 designs need it."""
_ARRAYS = ("density", "x", "y", "z")
_FLUCTUATIONS = ("sigma_event", "shape_cell", "diffusion")


class BackgroundDraws(NamedTuple):
    """Random factors of unit mean: f, shape (n,), and g, shape (n, n_xy + 2, n_xy + 2, n_z)."""

    event: Tensor
    cells: Tensor


class Moments(NamedTuple):
    """Mean and standard deviation of the energy in every cell, shape (n_xy, n_xy, n_z), GeV."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, kw_only=True)
class Background(ABC):
    """A background with the fluctuations of this module; a subclass gives the mean energy of the cells.

    Args:
        sigma_event: s, standard deviation of the logarithm of an event's factor.
        shape_cell: a, shape of the gamma factor of a cell; its relative deviation is 1/sqrt(a).
        diffusion: d, share of a cell's energy that goes to its transverse neighbours.

    Raises:
        InputError: s < 0, a <= 0, d outside 0 to 1.
    """

    sigma_event: float = 0.4
    shape_cell: float = 4.0
    diffusion: float = 0.1

    def __post_init__(self) -> None:
        _check("sigma_event", self.sigma_event, 0 <= self.sigma_event < inf, "zero or more")
        _check("shape_cell", self.shape_cell, 0 < self.shape_cell < inf, "a positive number")
        _check("diffusion", self.diffusion, 0 <= self.diffusion <= 1, "0 to 1")

    @abstractmethod
    def mean_energy(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """Return m_c of a window and of the ring of cells around it, shape (..., n_xy + 2, n_xy + 2, n_z), GeV.

        Args:
            dx: pitch, a tensor without dimensions or one a shower, shape (n,), cm.
            dz: depths, shape (n_z,) or (n, n_z), cm.
            n_xy: cells across the window.
        """

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> BackgroundDraws:
        """Draw the random factors of ``n`` events in windows of n_xy x n_xy x n_z cells of any size.

        Event i depends on a seed that is drawn from ``generator``, and on i, alone; the numbers are the same in every
        ``dtype``.
        """
        return self.draw_factors(n, (n_xy + 2, n_xy + 2, n_z), generator, dtype)

    def draw_factors(
        self, n: int, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> BackgroundDraws:
        """Draw the random factors of ``n`` events with cells in any arrangement, the ring included."""
        random = RandomNumbers.from_generator(generator, n)
        xi = torch.from_numpy(random.normal_array()).double()
        event = torch.exp(self.sigma_event * xi - self.sigma_event**2 / 2)
        cells = gamma_from_normal(random.normal_array(*shape), self.shape_cell) / self.shape_cell
        return BackgroundDraws(event.to(dtype), torch.from_numpy(cells).to(dtype))

    def energy(self, draws: BackgroundDraws, dx: Tensor, dz: Tensor) -> Tensor:
        """Return the energy in every cell, shape (n, n_xy, n_xy, n_z), GeV; differentiable in ``dx`` and ``dz``.

        The result is on the device of the design and has the type of the random numbers.
        """
        return self.energy_from_means(draws, self.mean_energy(dx, dz, draws.cells.shape[1] - 2))

    def moments(self, dx: Tensor, dz: Tensor, n_xy: int) -> Moments:
        """Return mean and standard deviation in closed form, differentiable in ``dx`` and ``dz``.

        Deviations are at least `SMALLEST_STD`.
        """
        return self.moments_from_means(self.mean_energy(dx, dz, n_xy))

    def energy_from_means(self, draws: BackgroundDraws, means: Tensor) -> Tensor:
        """Return the energies of cells whose ``means``, the ring included, are given; see `energy`."""
        means = means.to(draws.cells.dtype)
        event, cells = draws.event.to(means.device), draws.cells.to(means.device)
        own, each = self._shares(means)
        return event[:, None, None, None] * _diffuse(means * cells, own, each)

    def moments_from_means(self, means: Tensor) -> Moments:
        """Return the moments of cells whose ``means``, the ring included, are given; see `moments`."""
        s2, (own, each) = self.sigma_event**2, self._shares(means)
        mean = _diffuse(means, own, each)
        cells = _diffuse(means**2, own**2, each**2) / self.shape_cell
        variance = expm1(s2) * mean**2 + exp(s2) * cells
        return Moments(mean, variance.clamp(min=SMALLEST_STD**2).sqrt())

    def _fluctuations(self) -> str:
        return (
            f"; fluctuations {self.sigma_event:g} (logarithm, events) and {self.shape_cell**-0.5:.2g} (cells), "
            f"diffusion {self.diffusion:g}"
        )

    def _shares(self, means: Tensor) -> tuple[float, float]:
        """Return the share of its energy that a cell keeps, and the share that each neighbour receives."""
        neighbours = 2 if means.shape[-2] == 1 else 4
        return 1 - neighbours * self.diffusion / 4, self.diffusion / 4


@dataclass(frozen=True, kw_only=True)
class ExponentialBackground(Background):
    """Background whose mean energy density b0 exp(-z/lam) falls with depth and is uniform across the beam.

    A cell that begins at depth z holds m = b0 dx^2 lam e^(-z/lam) (1 - e^(-dz/lam)) on average.

    Args:
        b0: density at the front face, GeV/cm3.
        lam: depth over which the density falls by a factor e, cm.

    Raises:
        InputError: b0 or lam is not positive.
    """

    b0: float = 5e-3
    lam: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("b0", self.b0, 0 < self.b0 < inf, "a positive number of GeV/cm3")
        _check("lam", self.lam, 0 < self.lam < inf, "a positive number of cm")

    def __str__(self) -> str:
        return f"{1e3 * self.b0:g} MeV/cm3 at the front face, falling by e in {self.lam:g} cm" + self._fluctuations()

    def mean_energy(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """See `Background.mean_energy`."""
        front = torch.exp(-(dz.cumsum(-1) - dz) / self.lam)
        layers = self.b0 * dx[..., None] ** 2 * self.lam * front * -torch.expm1(-dz / self.lam)
        return layers[..., None, None, :].expand(*layers.shape[:-1], n_xy + 2, n_xy + 2, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class BackgroundMap(Background):
    """Background whose mean energy density is constant in each voxel of a grid and zero outside.

    A cell's mean is the exact integral over the cell, sum_abc rho_abc X_a Y_b Z_c, with X_a the length that the cell
    shares with voxel a. X_a is the difference, at the cell's ends, of the cumulative integral, which is linear between
    voxel edges. Where an end lies on a voxel's edge, the derivative is the mean of those on both sides, as for central
    differences. The window has to lie within the map. The ring around it counts as empty where it reaches beyond.

    Args:
        density: rho, shape (nx, ny, nz), GeV/cm3.
        x, y, z: edges of the voxels, ascending, shapes (nx + 1,), (ny + 1,), (nz + 1,), cm; the beam axis is x = y = 0
            and the front face z = 0.

    Raises:
        InputError: shapes that do not fit, edges that do not ascend, a density that is negative or not finite; a
            design that reaches beyond the map.
    """

    density: Tensor
    x: Tensor
    y: Tensor
    z: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("density", "x", "y", "z"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        for name, edges in (("x", self.x), ("y", self.y), ("z", self.z)):
            ascending = edges.ndim == 1 and len(edges) > 1 and bool((edges.diff() > 0).all())
            if not (ascending and bool(torch.isfinite(edges).all())):
                raise InputError(f"background map: the edges {name} are not two or more ascending numbers (cm)")
        expected = (len(self.x) - 1, len(self.y) - 1, len(self.z) - 1)
        if self.density.shape != expected:
            shape = tuple(self.density.shape)
            raise InputError(f"background map: density has shape {shape}, expected {expected} by the edges")
        if not bool((torch.isfinite(self.density) & (self.density >= 0)).all()):
            raise InputError("background map: density holds NaN, infinite or negative values; expected GeV/cm3")

    def __str__(self) -> str:
        return f"map of {' x '.join(map(str, self.density.shape))} voxels" + self._fluctuations()

    def mean_energy(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """See `Background.mean_energy`."""
        if dx.ndim:
            return torch.stack([self.mean_energy(*each, n_xy) for each in zip(dx, dz, strict=True)])
        dx, depths = dx.double(), dz.double()
        half = float(dx.detach()) * n_xy / 2
        for name, low, high in (("x", -half, half), ("y", -half, half), ("z", 0.0, float(depths.detach().sum()))):
            self._check_cover(name, low, high)
        across = dx * (torch.arange(n_xy + 3, dtype=torch.float64, device=dx.device) - (n_xy + 2) / 2)
        along = torch.cat([depths.new_zeros(1), depths.cumsum(0)])
        x, y, z = _overlap(across, self.x), _overlap(across, self.y), _overlap(along, self.z)
        layers = self.density.to(z.device) @ z.T
        return torch.einsum("ia,ajk->ijk", x, torch.einsum("jb,abk->ajk", y, layers)).to(dz.dtype)

    def _check_cover(self, name: str, low: float, high: float) -> None:
        edges = getattr(self, name)
        first, last = float(edges[0]), float(edges[-1])
        slack = _SLACK * (last - first)
        if low < first - slack or high > last + slack:
            raise InputError(
                f"background map covers {name} = {first:g} to {last:g} cm, the design needs {low:g} to {high:g} cm; "
                "use a larger map or a smaller design"
            )


def write_background_map(path: Path | str, background: BackgroundMap) -> None:
    """Write a background map: HDF5 of schema ``calograd/background/1``.

    Dataset ``density`` f8 (nx, ny, nz), mean energy density of the voxels in GeV/cm3; datasets ``x`` f8 (nx + 1,),
    ``y`` and ``z`` likewise, their edges in cm; attributes ``schema``, ``sigma_event``, ``shape_cell``, ``diffusion``.

    Raises:
        InputError: ``path`` exists, or cannot be written.
    """
    path = Path(path)
    refuse_existing(path)
    with new_file(path, SCHEMA) as file:
        file.create_dataset("density", data=background.density.cpu().numpy(), compression="gzip", shuffle=True)
        for name in ("x", "y", "z"):
            file[name] = getattr(background, name).cpu().numpy()
        for name in _FLUCTUATIONS:
            file.attrs[name] = getattr(background, name)
        store_checksum(file, _ARRAYS)


def read_background_map(path: Path | str) -> BackgroundMap:
    """Read a background map from a file as `write_background_map` describes it.

    Raises:
        FormatError: the file is missing, cut off, of another kind, newer or incomplete, or its values are no densities.
    """
    path = Path(path)
    with existing_file(path, SCHEMA) as file:
        missing = [name for name in _ARRAYS if not isinstance(file.get(name), h5py.Dataset)]
        missing += [f"attribute {name}" for name in _FLUCTUATIONS if name not in file.attrs]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of schema '{SCHEMA}'")
        arrays = {name: load(file, name) for name in _ARRAYS}
        attributes = dict(file.attrs)
        numbers = {name: np.asarray(attributes[name]) for name in _FLUCTUATIONS}
    for name, values in (arrays | numbers).items():
        if values.dtype.kind not in "fiu" or (name in numbers and values.shape != ()):
            raise FormatError(f"{path}: {name} is of type {values.dtype} and shape {values.shape}, expected numbers")
    try:
        density, x, y, z = (torch.from_numpy(values.astype(np.float64)) for values in arrays.values())
        sigma_event, shape_cell, diffusion = (float(value) for value in numbers.values())
        made = BackgroundMap(
            density=density, x=x, y=y, z=z, sigma_event=sigma_event, shape_cell=shape_cell, diffusion=diffusion
        )
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    verify_checksum(attributes, arrays, path)
    return made


def _check(name: str, value: float, good: bool, expected: str) -> None:
    if not good:
        raise InputError(f"background: {name} = {value}, expected {expected}")


def _diffuse(ringed: Tensor, own: float, each: float) -> Tensor:
    """Add ``own`` of every cell's value and ``each`` of its neighbours'.

    The ring of shape (..., n + 2, n + 2, n_z) becomes (..., n, n, n_z); pixels are one across, in both.
    """
    if ringed.shape[-2] == 1:
        return own * ringed[..., 1:-1, :, :] + each * (ringed[..., :-2, :, :] + ringed[..., 2:, :, :])
    x, y = ringed[..., 1:-1, :], ringed[..., 1:-1, :, :]
    neighbours = x[..., :-2, :, :] + x[..., 2:, :, :] + y[..., :-2, :] + y[..., 2:, :]
    return own * x[..., 1:-1, :, :] + each * neighbours


def _overlap(ends: Tensor, edges: Tensor) -> Tensor:
    """Return the lengths (m, v) that intervals between ``ends`` (m + 1,) share with voxels between ``edges``."""
    edges = edges.to(ends.device)
    beyond = torch.maximum(ends[:, None] - edges[:-1], torch.zeros_like(ends[:1]))
    return torch.minimum(beyond, edges.diff()).diff(dim=0)


def gamma_from_normal(x: np.ndarray, shape: float) -> np.ndarray:
    """Return Gamma(shape) numbers with unit scale from standard normal numbers x: the quantile at Phi(x), float64.

    A cubic spline of the logarithm stands for the exact quantile; its relative error is below 1e-6 for shapes from
    0.1 to 100.
    """
    return np.exp(_log_gamma_quantile(shape)(x))


@cache
def _log_gamma_quantile(shape: float) -> CubicSpline:
    """Return the spline of ln F^-1(Phi(x)) of the gamma distribution with a shape, for x from -8 to 8."""
    x = np.linspace(-8, 8, 1025)
    below, above = gammaincinv(shape, ndtr(x)), gammainccinv(shape, ndtr(-x))
    quantile = np.where(x < 0, below, above)
    tail = (log_ndtr(x) + gammaln(shape + 1)) / shape  # of F(g) = g^a / Gamma(a + 1), where g is too small to be stored
    return CubicSpline(x, np.where(quantile > 1e-200, np.log(np.maximum(quantile, 1e-300)), tail))
