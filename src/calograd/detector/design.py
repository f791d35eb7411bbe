"""A calorimeter design: pitch of the cells, depths of the layers, material.

Cell (i, j, k) covers x in [(i - n_xy/2) dx, (i + 1 - n_xy/2) dx), y likewise, and z in [z_k, z_k + dz_k), where
z_0 = 0 and z_{k+1} = z_k + dz_k. The particle's axis is x = y = 0, the front face z = 0.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from torch import Tensor

from calograd.checks import as_count, as_tensor, check_positive
from calograd.detector.incidence import Incidence
from calograd.detector.material import Material, to_float
from calograd.errors import InputError
from calograd.io.markup import facts

if TYPE_CHECKING:
    import numpy as np

Sizes = Union[float, Tensor, "np.ndarray", Sequence["Sizes"]]
"""Sizes in cm: a number, a tensor, an array, or a (nested) sequence of these."""


@dataclass(frozen=True, init=False, eq=False)
class Design:
    """A window of ``n_xy`` x ``n_xy`` x ``n_z`` cells into a calorimeter, or one such window for each of n showers.

        Design(dx=2.5, dz=6.0)                                      # equal layers
        Design(dx=2.5, dz=(4.0, 5.0, 6.0, 8.0, 10.0))               # one depth a layer
        Design(dx=torch.linspace(1, 5, 16), dz=6.0)                 # 16 designs, a batch
        Design(dx=torch.linspace(1, 5, 16), dz=torch.full((16, 5), 6.0))

    Tensors keep their graph: gradients reach whatever dx, dz and the material were computed from. Two designs are equal
    if their numbers are; a hash is that of the numbers at the time.

    Args:
        dx: pitch of the cells in cm; one number, or shape (n,) for a batch of n designs.
        dz: depth of the layers in cm; one number for all, shape (n_z,) for one a layer, shape (n, n_z) or (n, 1) for
            one row a design. With dx of shape (n,), shape (n,) is one depth a design; where n = n_z this could as well
            be one a layer and is refused: write ``dz[:, None]`` for one a design, ``dz[None]`` for one a layer.
        material: a `Material` or what `Material.parse` reads.
        n_xy: cells across, in x and in y.
        n_z: layers.

    Attributes:
        dx: cm, shape (), of a batch (n,).
        dz: cm, shape (n_z,), of a batch (n, n_z).
        material: a `Material`.
        n: number of designs in a batch; None for a single design.

    Raises:
        InputError: a wrong type, sizes that are not positive and finite or whose shapes do not fit, no cells.
    """

    dx: Tensor
    dz: Tensor
    material: Material
    n_xy: int
    n_z: int

    def __init__(self, dx: Sizes, dz: Sizes, material: Material | str = "PbF2", n_xy: int = 5, n_z: int = 5) -> None:
        if isinstance(material, str):
            material = Material.parse(material)
        if not isinstance(material, Material):
            raise InputError(
                f"design: material = {reprlib.repr(material)}: expected a Material or the name of one, as 'PbF2'"
            )
        n_xy, n_z = as_count("design: n_xy", n_xy), as_count("design: n_z", n_z)
        pitch, depths = _matched(as_tensor("design: dx", dx), as_tensor("design: dz", dz), n_z)
        for name, value in (("dx", pitch), ("dz", depths), ("material", material), ("n_xy", n_xy), ("n_z", n_z)):
            object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Raise `InputError` unless all sizes are positive and finite.

        A design is checked when it is made. Whoever uses one checks it again, since its tensors can be changed in
        place.
        """
        check_positive("design: dx", self.dx, "cm")
        check_positive("design: dz", self.dz, "cm")

    @property
    def n(self) -> int | None:
        """Number of designs in a batch; None for a single design."""
        return len(self.dx) if self.dx.ndim else None

    @property
    def batched(self) -> bool:
        """True if this is a batch of designs."""
        return self.dx.ndim == 1

    def __getitem__(self, which: int | slice | Tensor) -> Design:
        """Return one design of a batch, or a batch of some of them."""
        if not self.batched:
            raise InputError("a single design has no index; make a batch of it with design.expand(n)")
        return Design(self.dx[which], self.dz[which], self.material, self.n_xy, self.n_z)

    def window_offsets(
        self, position: Sizes | None = None, theta: float | Tensor = 0.0, phi: float | Tensor = 0.0
    ) -> Tensor:
        """Return the centres of the windows of particles in every layer, see `calograd.detector.incidence`.

            Design(dx=1.3, dz=3.7, n_xy=7, n_z=5).window_offsets(theta=40.0)[0, :, 0]      # 1, 4, 6, 8, 11 cells

        Args:
            position: entry on the front face, shape (2,) or (n, 2), cm; None: the axis.
            theta, phi: direction, one number or shape (n,), degrees.

        Returns:
            Centres in x and y, shape (n, n_z, 2), in cells, int64; n is 1 where all is the same for all showers.

        Raises:
            InputError: shapes that do not fit, angles that are none, an entry in mm.
        """
        import torch

        entry = as_tensor("position", (0.0, 0.0) if position is None else position).detach()
        angles = [as_tensor(name, value).detach() for name, value in (("theta", theta), ("phi", phi))]
        rows = [len(entry)] if entry.ndim > 1 else []
        rows += [len(angle) for angle in angles if angle.ndim] + ([self.n] if self.n is not None else [])
        n = max(rows, default=1)
        single = self.expand(n)
        particles = Incidence.of(n, position=entry.cpu().numpy(), theta=angles[0].cpu(), phi=angles[1].cpu())
        dx, dz = (size.detach().cpu().double().numpy() for size in (single.dx, single.dz))
        return torch.from_numpy(particles.window_offsets(dx, dz))

    def expand(self, n: int) -> Design:
        """Return a batch of n equal designs; a batch of n designs as it is.

        Raises:
            InputError: a batch of another number of designs.
        """
        if self.n not in (None, n):
            raise InputError(f"{self.n} designs for {n} showers; expected one for all or one a shower")
        return Design(self.dx.expand(n), self.dz.expand(n, self.n_z), self.material, self.n_xy, self.n_z)

    def _numbers(self) -> tuple[object, ...]:
        return self.dx.tolist(), self.dz.tolist(), self.n_xy, self.n_z

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Design):
            return NotImplemented
        return self._numbers() == other._numbers() and self.material == other.material

    def __hash__(self) -> int:
        return hash((repr(self._numbers()), self.material))

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        depths = [_in_words(layer) for layer in self.dz.detach().reshape(-1, self.n_z).T]
        width, depth = self.n_xy * self.dx.detach(), self.dz.detach().sum(-1)
        across = _in_words(width)
        return facts(
            "Design" if self.n is None else f"{self.n} designs",
            {
                "dx": f"{_in_words(self.dx.detach())} cm",
                "dz": f"{depths[0] if len(set(depths)) == 1 else ', '.join(depths)} cm",
                "cells": f"{self.n_xy} x {self.n_xy} x {self.n_z}",
                "window": f"{across} x {across} x {_in_words(depth)} cm",
                "depth": f"{_in_words(depth / to_float(self.material.radiation_length), '.1f')} radiation lengths",
                "material": f"{self.material.name} ({to_float(self.material.density):g} g/cm3)",
                "gradients": ", ".join(n for n, t in (("dx", self.dx), ("dz", self.dz)) if t.requires_grad) or "none",
            },
        )


def _in_words(values: Tensor, form: str = "g") -> str:
    low, high = (float(end) for end in values.aminmax())
    return f"{low:{form}}" if low == high else f"{low:{form}} to {high:{form}}"


def _matched(dx: Tensor, dz: Tensor, n_z: int) -> tuple[Tensor, Tensor]:
    """Return dx and dz with shapes () and (n_z,) or, of a batch, (n,) and (n, n_z)."""
    if dx.ndim > 1:
        raise InputError(f"design: dx has shape {tuple(dx.shape)}, expected () or (n,)")
    n = len(dx) if dx.ndim else None
    if dz.ndim == 1 and n == len(dz):
        if n == n_z > 1:
            raise InputError(
                f"design: dx and dz have shape ({n},) and n_z = {n}: write dz[:, None] for one depth a design, "
                "dz[None] for one a layer"
            )
        dz = dz[:, None]
    if dz.ndim == 2 and n is None:
        n = len(dz)
    shapes = {(), (n_z,)} | ({(rows, layers) for rows in (1, n) for layers in (1, n_z)} if n else set())
    if n == 0 or tuple(dz.shape) not in shapes:
        expected = f"({n_z},) or (n, {n_z})" if n is None else f"({n},), ({n_z},) or ({n}, {n_z})"
        raise InputError(f"design: dz has shape {tuple(dz.shape)}, expected {expected} for {n_z} layers")
    return (dx, dz.expand(n_z)) if n is None else (dx.expand(n), dz.expand(n, n_z))
