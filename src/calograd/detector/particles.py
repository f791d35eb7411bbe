"""Incident particles as tensors, differentiable in entry and direction, and the symmetry of a square of cells.

`calograd.detector.incidence` describes entries, directions and the windows that follow them.

Turning a calorimeter of square cells by 90 degrees, or mirroring it, changes nothing. So every shower can be brought
into one *frame*, in which its particle goes towards +x at least as much as towards +y and towards neither -x nor -y.
A surrogate that learns in this frame needs to know an eighth of all directions, and its showers have the symmetry
exactly. A particle along the normal takes the signs and the order of its entry instead of those of its direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import pi
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from calograd.detector.configuration import PDG, Particle
from calograd.detector.incidence import ENTRY_CALL, Incidence, place
from calograd.errors import InputError
from calograd.system.random_numbers import RandomNumbers

STRAIGHT = 1e-6
"""Slopes that differ by less than this count as equal, so that the frame does not follow from rounding."""
UNITS = {"cm": "cm", "pitch": "of the pitch"}
"""Units of a position in words, by their names in a `ParticleBeam`."""
SWAP = 4
"""Number of the frame that exchanges x and y; 1 mirrors x, 2 mirrors y, and these come first."""


class Particles(NamedTuple):
    """Incident particles of n showers, or one row for all of them.

    Args:
        particle: number in the scheme of the Particle Data Group, shape (n,), int64.
        position: entry on the front face, shape (n, 2), cm.
        theta: angle between direction and normal of the front face, shape (n,), degrees.
        phi: azimuth of the direction, shape (n,), degrees.
    """

    particle: Tensor
    position: Tensor
    theta: Tensor
    phi: Tensor

    @classmethod
    def of(cls, n: int, particle: Any, position: Any, theta: Any, phi: Any, like: Tensor) -> Particles:
        """Return particles of n showers, as one row if all are alike; tensors keep their graph.

        Arguments and errors are those of `Incidence.of`; dtype and device are those of ``like``.
        """
        incident = Incidence.of(n, particle, position, theta, phi)
        usual = zip((particle, position, theta, phi), (0, 1, 0, 0), strict=True)
        rows = n if any(np.ndim(_plain(value)) > dimensions for value, dimensions in usual) else 1
        kind = torch.from_numpy(incident.particle[:rows].astype(np.int64)).to(like.device)
        entry, polar, azimuth = (
            value.to(like) if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value, float)).to(like)
            for value in (position, theta, phi)
        )
        return cls(kind, entry.expand(rows, 2), polar.expand(rows), azimuth.expand(rows))

    @classmethod
    def asked(
        cls,
        random: RandomNumbers,
        dx: Tensor | None,
        particle: Any,
        position: Any,
        theta: Any,
        phi: Any,
        like: Tensor,
    ) -> Particles:
        """Return the particles of a sample; None stands for a photon, the middle of the cell, and no angle.

        Args:
            random: random numbers of the showers; it stays as it is.
            dx: pitch, shape (n,) or (1,), cm, of the cells in which a ``position`` of ``uniform`` is drawn; None: there
                are no cells.
            particle, theta, phi: see `of`.
            position: see `of`, or ``uniform``.
            like: tensor of the dtype and device that the result has.

        Raises:
            InputError: see `Incidence.of`, an unknown word for the position, or ``uniform`` without cells.
        """
        if isinstance(position, str):
            if dx is None:
                raise InputError(f"position = '{position}': plates have no cells to draw it in; leave position out")
            beam, pitch = ParticleBeam(position=position), dx.to(like)  # type: ignore[arg-type]
            position, _, _ = place(_of_beam(random, pitch), pitch, beam.position, beam.theta, beam.phi)
        position = (0.0, 0.0) if position is None else position
        usual = ((particle, "gamma"), (theta, 0.0), (phi, 0.0))
        kind, polar, azimuth = (default if value is None else value for value, default in usual)
        return cls.of(len(random), kind, position, polar, azimuth, like=like)

    @classmethod
    def from_incidence(cls, incident: Incidence, like: Tensor) -> Particles:
        """Return the particles of a file's rows, with dtype and device of ``like``."""
        kind = torch.from_numpy(incident.particle.astype(np.int64)).to(like.device)
        columns = (incident.position, incident.theta, incident.phi)
        return cls(kind, *(torch.from_numpy(np.ascontiguousarray(column)).to(like) for column in columns))

    def rows(self, which: slice | Tensor) -> Particles:
        """Return some rows; a single row stands for all showers and stays."""
        return self if len(self.theta) == 1 else Particles(*(column[which] for column in self))

    def expand(self, n: int) -> Particles:
        """Return one row for each of n showers; a single row is repeated."""
        return Particles(*(column.expand(n, *column.shape[1:]) for column in self))

    def to_incidence(self, n: int) -> Incidence:
        """Return the particles of n showers as a file stores them."""
        particle, position, theta, phi = (column.detach().cpu().numpy() for column in self)
        if len(theta) == 1:
            particle, position, theta, phi = particle[0], position[0], theta[0], phi[0]
        return Incidence.of(n, particle, position, theta, phi)

    def slopes(self) -> Tensor:
        """Return dx/dz and dy/dz of the particles' lines, shape (n, 2)."""
        polar, azimuth = self.theta * (pi / 180), self.phi * (pi / 180)  # torch.deg2rad takes five times as long
        return polar.tan()[:, None] * torch.stack([azimuth.cos(), azimuth.sin()], 1)

    def residuals(self, dx: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the particles' lines are in the middle of every layer, and the centres of their windows.

        Args:
            dx: pitch, shape (n,) or (1,), cm.
            dz: depths of the layers, shape (n, n_z) or (1, n_z), cm.

        Returns:
            Distance of the line from the middle of the central cell, in cells, from -1/2 to 1/2, and the number of this
            cell; both of shape (n, n_z, 2). Only the first is differentiable.
        """
        exact = dz.double()
        middle = exact.cumsum(1) - exact / 2
        line = self.position.double()[:, None] + middle[:, :, None] * self.slopes().double()[:, None]
        cells = line / dx.double()[:, None, None]
        centre = (cells.detach() + 0.5).floor()
        return (cells - centre).to(dz), centre.long()

    def frame(self) -> Tensor:
        """Return the number of the symmetry that brings each shower into the frame, shape (n,), int64: 0 to 7."""
        slopes, entry = self.slopes().detach(), self.position.detach()
        mirrored = torch.where(slopes.abs() > STRAIGHT, slopes, entry) < 0
        steep, far = slopes.abs(), entry.abs()
        equal = (steep[:, 0] - steep[:, 1]).abs() < STRAIGHT
        # Not torch.where, which ONNX Runtime does not have for truth values.
        swapped = (equal & (far[:, 1] > far[:, 0])) | (~equal & (steep[:, 1] > steep[:, 0]))
        return mirrored[:, 0].long() + 2 * mirrored[:, 1].long() + SWAP * swapped.long()

    def charge(self) -> Tensor:
        """Return the electric charge of the particles, shape (n,)."""
        return (self.particle == PDG["e+"]).to(self.theta) - (self.particle == PDG["e-"]).to(self.theta)


@dataclass(frozen=True)
class ParticleBeam:
    """A beam: the same particle in every shower, at an entry and a direction that are fixed or drawn evenly.

    Args:
        particle: ``gamma``, ``e-`` or ``e+``.
        position: entry on the front face, cm, from the middle of the central cell; ``uniform``: drawn in this cell.
        theta: angle to the normal of the front face, degrees.
        phi: azimuth, degrees, or the two ends of a range.
        unit: unit of a fixed entry: ``cm``, or ``pitch``, in which it keeps its place in the cell at every pitch.

    Raises:
        InputError: an unknown particle or unit, an entry that is no pair of numbers, angles that are none.
    """

    particle: Particle = "gamma"
    position: tuple[float, float] | Literal["uniform"] = (0.0, 0.0)
    theta: float = 0.0
    phi: float | tuple[float, float] = 0.0
    unit: Literal["cm", "pitch"] = "cm"

    def __post_init__(self) -> None:
        if self.unit not in ("cm", "pitch"):
            raise InputError(f"unit = '{self.unit}' of the position: expected cm or pitch")
        if isinstance(self.position, str) and self.position != "uniform":
            raise InputError(f"position = '{self.position}': expected x and y in cm, or the word uniform")
        entry: Any = (0.0, 0.0) if isinstance(self.position, str) else self.position
        if self.unit == "pitch":  # how far it may be is known with the pitch
            entry = np.clip(np.asarray(entry, float), -1, 1)
        ends = self.phi if isinstance(self.phi, tuple) else (self.phi,)
        for end in ends:
            Incidence.of(1, self.particle, entry, self.theta, end)

    @property
    def scales(self) -> bool:
        """True if the entries in cm depend on the pitch."""
        return isinstance(self.position, str) or (self.unit == "pitch" and self.position != (0.0, 0.0))

    def position_at(self, dx: float) -> tuple[float, float] | Literal["uniform"]:
        """Return the position in cells of a pitch in cm."""
        if isinstance(self.position, str) or self.unit == "cm":
            return self.position
        return self.position[0] * dx, self.position[1] * dx

    def draw(self, dx: Tensor, random: RandomNumbers) -> Particles:
        """Return the particles of showers, differentiable in the pitch that entries scale with.

        Entry and azimuth of shower i depend on the seed and on i alone, and with equal seeds have the same place in
        the cell at every pitch.

        Args:
            dx: pitch, shape (n,) or (1,), cm.
            random: random numbers of the n showers; it stays as it is.
        """
        u = _of_beam(random, dx)
        position: Any = self.position
        if self.unit == "pitch" and not isinstance(position, str):
            scaled = torch.tensor(position, dtype=dx.dtype, device=dx.device) * dx[:, None]
            position = scaled[0] if len(scaled) == 1 else scaled
        return Particles.of(len(random), self.particle, *place(u, dx, position, self.theta, self.phi), like=dx)

    def __str__(self) -> str:
        where = "evenly over the cell"
        if not isinstance(self.position, str):
            where = f"at {self.position} {UNITS[self.unit]}"
        turn = f"{self.phi[0]:g} to {self.phi[1]:g}" if isinstance(self.phi, tuple) else f"{self.phi:g}"
        return f"{self.particle} entering {where}, theta {self.theta:g}, phi {turn} degrees"


ON_AXIS = ParticleBeam()
"""Photons on the axis."""


def turn_vectors(vectors: Tensor, frame: Tensor) -> Tensor:
    """Return vectors in x and y, shape (n, ..., 2), brought into the frame; ``frame`` is of shape (n,)."""
    shape = (-1, *(1 for _ in vectors.shape[2:]), 2)
    signed = vectors * _signs(vectors.dtype, vectors.device)[frame].reshape(shape)
    return torch.where((frame >= SWAP).reshape(*shape[:-1], 1), signed.flip(-1), signed)


def turn_cells(cells: Tensor, frame: Tensor, back: bool = False) -> Tensor:
    """Return cells, shape (n, n_xy, n_xy, n_z), brought into the frame, or ``back`` from it."""
    n_xy = cells.shape[1]
    places = _places(n_xy, back, cells.device)[frame]
    flat = cells.reshape(len(cells), n_xy * n_xy, -1)
    places = places.expand(len(cells), -1)[:, :, None].expand_as(flat)
    return flat.gather(1, places).reshape(cells.shape)


@cache
@torch.inference_mode(False)
def _signs(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the factors of x and y that every frame mirrors by, before it swaps them, shape (8, 2)."""
    return torch.tensor([(1 - 2 * (frame & 1), 1 - (frame & 2)) for frame in range(8)], dtype=dtype, device=device)


@cache
@torch.inference_mode(False)
def _places(n_xy: int, back: bool, device: torch.device) -> Tensor:
    """Return for every frame the cell that each cell is taken from, shape (8, n_xy * n_xy)."""
    found, last = [], n_xy - 1
    for frame in range(8):
        turned = []
        for cell in range(n_xy * n_xy):
            i, j = (cell % n_xy, cell // n_xy) if frame & SWAP else (cell // n_xy, cell % n_xy)
            turned.append((last - i if frame & 1 else i) * n_xy + (last - j if frame & 2 else j))
        found.append([turned.index(cell) for cell in range(n_xy * n_xy)] if back else turned)
    return torch.tensor(found, device=device)


def _of_beam(random: RandomNumbers, like: Tensor) -> Tensor:
    """Return the numbers by which showers draw their entries and directions, shape (n, 3)."""
    return RandomNumbers(random.seed, random.shower, calls=ENTRY_CALL).uniform(3, like=like)


def _plain(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, Tensor) else value
