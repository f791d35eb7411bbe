"""Beam-induced background (BIB), reparametrised: random numbers first, the design applied after, so gradients pass.

With rho the mean energy density, cell c holds on average m_c, its integral of rho. In an event it holds

    E_c   = f ( (1 - d) m_c g_c + d/4 sum_{c'} m_c' g_c' )        c' the 4 transverse neighbours of c
    f     = exp(s xi - s^2/2)       one an event, xi normal:      unit mean
    g_c   = Gamma(shape a) / a      one a cell:                   unit mean

so a share d of every cell's energy diffuses to its neighbours. The window is a part of a larger calorimeter: its
outermost cells receive from a ring of cells around it, and a uniform mean is conserved exactly. Hence

    mean_c = (1 - d) m_c + d/4 sum m_c'
    var_c  = (exp(s^2) - 1) mean_c^2 + exp(s^2)/a ( (1 - d)^2 m_c^2 + (d/4)^2 sum m_c'^2 )

`Emulator` takes rho = b0 exp(-z/lam); `DensityMap` takes voxels, from a machine-detector-interface simulation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import exp, expm1, inf
from pathlib import Path
from typing import NamedTuple, Protocol

import h5py
import numpy as np
import torch
from torch import Tensor

from calograd.errors import FormatError, InputError
from calograd.io.checksum import check_seal, seal
from calograd.io.hdf5 import existing_file, load, new_file, refuse_existing

SCHEMA = "calograd/background/1"
SMALLEST_STD = 1e-12
"""GeV; deviations are never below it, so that what is divided by them stays finite."""
_SLACK = 1e-5
"""Share of a map's extent by which a design may reach beyond it, for float32 designs."""
_ARRAYS = ("density", "x", "y", "z")
_FLUCTUATIONS = ("sigma_event", "shape_cell", "diffusion")


class BackgroundNumbers(NamedTuple):
    """Random factors of unit mean: f, shape (n,), and g, shape (n, n_xy + 2, n_xy + 2, n_z)."""

    event: Tensor
    cells: Tensor


class Moments(NamedTuple):
    """Mean and standard deviation of every cell, shape (n_xy, n_xy, n_z), GeV."""

    mean: Tensor
    std: Tensor


class Background(Protocol):
    """What a background has to offer."""

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> BackgroundNumbers:
        """The random numbers of ``n`` events, whatever the design; ``generator`` is one of the CPU."""
        ...

    def energy(self, numbers: BackgroundNumbers, dx: Tensor, dz: Tensor) -> Tensor:
        """Energy in every cell, shape (n, n_xy, n_xy, n_z), GeV, from ``dx`` without dimensions and ``dz`` (n_z,), cm.

        Differentiable in both; on the device of the design, in the type of the numbers.
        """
        ...

    def moments(self, dx: Tensor, dz: Tensor, n_xy: int) -> Moments:
        """Mean and deviation of that energy in closed form, differentiable in both."""
        ...


@dataclass(frozen=True, kw_only=True)
class Fluctuating(ABC):
    """A `Background` with the fluctuations above about means that a subclass gives.

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
    def ringed_means(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """m_c of a window and of the ring of cells around it, shape (n_xy + 2, n_xy + 2, n_z), GeV."""

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> BackgroundNumbers:
        """Random factors of ``n`` events; always drawn in float64, so they are the same in every ``dtype``."""
        return self.factors(n, (n_xy + 2, n_xy + 2, n_z), generator, dtype)

    def factors(
        self, n: int, cells: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> BackgroundNumbers:
        """Those of cells in any arrangement."""
        xi = torch.randn(n, generator=generator, dtype=torch.float64)
        event = torch.exp(self.sigma_event * xi - self.sigma_event**2 / 2)
        shape = torch.full((n, *cells), self.shape_cell, dtype=torch.float64)
        # What torch.distributions.Gamma samples with; only here it takes a generator.
        each = torch._standard_gamma(shape, generator=generator) / self.shape_cell
        return BackgroundNumbers(event.to(dtype), each.to(dtype))

    def energy(self, numbers: BackgroundNumbers, dx: Tensor, dz: Tensor) -> Tensor:
        """See `Background.energy`."""
        means = self.ringed_means(dx, dz, numbers.cells.shape[1] - 2).to(numbers.cells.dtype)
        event, cells = numbers.event.to(means.device), numbers.cells.to(means.device)
        return event[:, None, None, None] * _spread(means * cells, 1 - self.diffusion, self.diffusion / 4)

    def moments(self, dx: Tensor, dz: Tensor, n_xy: int) -> Moments:
        """See `Background.moments`; deviations are at least `SMALLEST_STD`."""
        means, s2 = self.ringed_means(dx, dz, n_xy), self.sigma_event**2
        mean = _spread(means, 1 - self.diffusion, self.diffusion / 4)
        cells = _spread(means**2, (1 - self.diffusion) ** 2, (self.diffusion / 4) ** 2) / self.shape_cell
        variance = expm1(s2) * mean**2 + exp(s2) * cells
        return Moments(mean, variance.clamp(min=SMALLEST_STD**2).sqrt())


@dataclass(frozen=True, kw_only=True)
class Emulator(Fluctuating):
    """Mean energy density b0 exp(-z/lam), the same all over a plane: m = b0 dx^2 lam e^(-z/lam) (1 - e^(-dz/lam)).

    Args:
        b0: density at the front face, GeV/cm3.
        lam: depth over which it falls by e, cm.

    Raises:
        InputError: one that is not positive.
    """

    b0: float = 5e-3
    lam: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("b0", self.b0, 0 < self.b0 < inf, "a positive number of GeV/cm3")
        _check("lam", self.lam, 0 < self.lam < inf, "a positive number of cm")

    def ringed_means(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """See `Fluctuating.ringed_means`."""
        front = torch.exp(-(dz.cumsum(0) - dz) / self.lam)
        layers = self.b0 * dx**2 * self.lam * front * -torch.expm1(-dz / self.lam)
        return layers.expand(n_xy + 2, n_xy + 2, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class DensityMap(Fluctuating):
    """Mean energy density constant in each voxel of a grid, zero outside.

    A cell's mean is the exact integral over the cell, sum_abc rho_abc X_a Y_b Z_c with X_a the length that the cell
    shares with voxel a: the difference at the cell's ends of the cumulative integral, which is linear between voxel
    edges. Where an end lies on a voxel's edge the derivative is the mean of both sides', as central differences are.
    The window has to lie within the map; the ring around it counts as empty where it reaches beyond.

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

    def ringed_means(self, dx: Tensor, dz: Tensor, n_xy: int) -> Tensor:
        """See `Fluctuating.ringed_means`."""
        pitch, depths = dx.double(), dz.double()
        half = float(pitch.detach()) * n_xy / 2
        for name, low, high in (("x", -half, half), ("y", -half, half), ("z", 0.0, float(depths.detach().sum()))):
            self._check_cover(name, low, high)
        across = pitch * (torch.arange(n_xy + 3, dtype=torch.float64, device=pitch.device) - (n_xy + 2) / 2)
        along = torch.cat([depths.new_zeros(1), depths.cumsum(0)])
        x, y, z = _shared(across, self.x), _shared(across, self.y), _shared(along, self.z)
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


def write_density_map(path: Path, background: DensityMap) -> None:
    """Write a background map: HDF5 of schema ``calograd/background/1``.

    Dataset ``density`` f8 (nx, ny, nz), mean energy density of the voxels in GeV/cm3; datasets ``x`` f8 (nx + 1,),
    ``y`` and ``z`` likewise, their edges in cm; attributes ``schema``, ``sigma_event``, ``shape_cell``, ``diffusion``.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    with new_file(path, SCHEMA) as file:
        file.create_dataset("density", data=background.density.cpu().numpy(), compression="gzip", shuffle=True)
        for name in ("x", "y", "z"):
            file[name] = getattr(background, name).cpu().numpy()
        for name in _FLUCTUATIONS:
            file.attrs[name] = getattr(background, name)
        seal(file, _ARRAYS)


def read_density_map(path: Path) -> DensityMap:
    """Read a background map as `write_density_map` describes it.

    Raises:
        FormatError: missing, cut off, of another kind, newer, incomplete or with values that no density has.
    """
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
        made = DensityMap(
            density=density, x=x, y=y, z=z, sigma_event=sigma_event, shape_cell=shape_cell, diffusion=diffusion
        )
    except InputError as error:
        raise FormatError(f"{path}: {error}") from error
    check_seal(attributes, arrays, path)
    return made


def _check(name: str, value: float, good: bool, expected: str) -> None:
    if not good:
        raise InputError(f"background: {name} = {value}, expected {expected}")


def _spread(ringed: Tensor, own: float, each: float) -> Tensor:
    """``own`` of every cell's value and ``each`` of its 4 neighbours'; (..., n + 2, n + 2, n_z) to (..., n, n, n_z)."""
    x, y = ringed[..., 1:-1, :], ringed[..., 1:-1, :, :]
    neighbours = x[..., :-2, :, :] + x[..., 2:, :, :] + y[..., :-2, :] + y[..., 2:, :]
    return own * x[..., 1:-1, :, :] + each * neighbours


def _shared(ends: Tensor, edges: Tensor) -> Tensor:
    """Length that intervals between ``ends`` (m + 1,) share with voxels between ``edges`` (v + 1,); shape (m, v)."""
    edges = edges.to(ends.device)
    beyond = torch.maximum(ends[:, None] - edges[:-1], torch.zeros_like(ends[:1]))
    return torch.minimum(beyond, edges.diff()).diff(dim=0)
