"""A calorimeter design: cell pitch, layer depths, material.

Cell (i, j, k) covers x in [(i - n/2) dx, (i + 1 - n/2) dx), y likewise, and z in [z_k, z_k + dz_k), where
z_0 = 0 and z_{k+1} = z_k + dz_k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calograd.detector.material import Material, plain
from calograd.errors import InputError
from calograd.io.markup import facts


@dataclass(frozen=True)
class Design:
    """A window of ``n_xy`` x ``n_xy`` x ``n_z`` cells into a calorimeter.

    Args:
        dx: transverse cell pitch in cm; a float or a tensor without dimensions, which may require a gradient.
        dz: depth of the layers in cm; one number for all or one value a layer, shape (n_z,).
        material: a `Material` or what `Material.parse` reads.
        n_xy: cells across, in x and in y.
        n_z: layers.

    Raises:
        InputError: sizes that are not positive and finite, depths of the wrong number, no cells.
    """

    dx: float | Tensor
    dz: float | Tensor | tuple[float, ...]
    material: Material | str = "PbF2"
    n_xy: int = 5
    n_z: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.material, str):
            object.__setattr__(self, "material", Material.parse(self.material))
        if self.n_xy < 1 or self.n_z < 1:
            raise InputError(f"design: {self.n_xy} x {self.n_xy} x {self.n_z} cells, expected at least one each way")
        for name, value, shape in (("dx", self.pitch, ()), ("dz", self.depths, (self.n_z,))):
            if value.shape != shape:
                raise InputError(f"design: {name} has shape {tuple(value.shape)}, expected {shape}")
            if not bool(torch.isfinite(value).all() and (value > 0).all()):
                raise InputError(f"design: {name} = {value.tolist()} cm, expected positive numbers")

    @property
    def pitch(self) -> Tensor:
        """dx as a tensor without dimensions, cm."""
        return torch.as_tensor(self.dx)

    @property
    def depths(self) -> Tensor:
        """dz of every layer, shape (n_z,), cm."""
        dz = torch.as_tensor(self.dz)
        return dz.expand(self.n_z) if dz.ndim == 0 else dz

    @property
    def substance(self) -> Material:
        """The material as a `Material`."""
        assert isinstance(self.material, Material)
        return self.material

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        depths, pitch = self.depths.detach().tolist(), float(self.pitch.detach())
        equal = len(set(depths)) == 1
        width, depth = self.n_xy * pitch, sum(depths)
        return facts(
            "Design",
            {
                "pitch": f"{pitch:g} cm",
                "depth of a layer": f"{depths[0]:g} cm" if equal else f"{', '.join(f'{d:g}' for d in depths)} cm",
                "cells": f"{self.n_xy} x {self.n_xy} x {self.n_z}",
                "window": f"{width:g} x {width:g} x {depth:g} cm",
                "depth": f"{depth / plain(self.substance.radiation_length):.1f} radiation lengths",
                "material": f"{self.substance.name} ({plain(self.substance.density):g} g/cm3)",
                "gradients": ", ".join(n for n, t in (("dx", self.pitch), ("dz", self.depths)) if t.requires_grad)
                or "none",
            },
        )
