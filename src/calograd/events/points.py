"""Showers as points in tensors, and the cells that they fill: exactly, or smoothly so that gradients pass.

A point of energy e at (x, y) gives cell i along x the share

    S_i = C((b_{i+1} - x) / w) - C((b_i - x) / w),      b_i = (i - 1/2) pitch - x_0

and the product of the shares along x and y of its energy. C is the distribution function of the kernel of width w:

    "none"      a step: the point's cell gets all; no gradient with respect to positions or the pitch
    "linear"    of the uniform distribution of full width w: the share is linear in x
    "gaussian"  of the normal distribution of standard deviation w

Of the three cells around the point the outer two get all that lies beyond, so energy is conserved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.errors import InputError
from calograd.events.clustering import SPLIT
from calograd.events.layered_readout import GRID
from calograd.events.point_showers import LAYERS, PITCH, PointShowers, incident_columns, sort_points
from calograd.events.ragged import Ragged

Kernel = Literal["none", "linear", "gaussian"]
WIDTH = PITCH / SPLIT
"""Default width of the kernels: a sub-cell, cm."""


@dataclass(frozen=True)
class Points(Ragged):
    """Showers of a layered detector as points; shower s owns the points ``offsets[s]:offsets[s + 1]``.

    Args:
        x, y: positions, shape (points,), cm, the shower's axis at 0.
        layer: layer of every point, from 0, shape (points,), int64.
        e: energies, shape (points,), GeV.
        offsets: shape (n + 1,), int64.
        energy: incident energy, shape (n,), GeV.
        layers: number of layers of the detector.
        absorber: energies in the absorbers, shape (n, layers), GeV; None where they are unknown.
    """

    FLAT: ClassVar = ("x", "y", "layer", "e")
    HEADS: ClassVar[tuple[str, ...]] = ("energy", "absorber")
    x: Tensor
    y: Tensor
    layer: Tensor
    e: Tensor
    offsets: Tensor
    energy: Tensor
    layers: int = LAYERS
    absorber: Tensor | None = None

    def __getitem__(self, which: Tensor | slice) -> Points:
        """Return some showers, by indices or slice."""
        return self.rows(which)

    def with_layers(self, layers: int) -> Points:
        """Return the same showers among those of more layers; what is beyond their last one is empty."""
        absorber = None if self.absorber is None else pad(self.absorber, (0, layers - self.layers))
        return replace(self, layers=layers, absorber=absorber)

    def absorbed_energies(self) -> Tensor:
        """Return the energies in the absorbers, shape (n, layers), GeV. Raises `InputError` if none are known."""
        if self.absorber is None:
            raise InputError("the energies in absorbers are known of stacks of plates alone")
        return self.absorber

    def layer_energies(self) -> Tensor:
        """Return the energy of every shower and layer, shape (n, layers), GeV, differentiable in ``e``."""
        index = self.owner * self.layers + self.layer
        return self.e.new_zeros(len(self) * self.layers).index_add(0, index, self.e).reshape(len(self), self.layers)

    def to_cells(
        self,
        pitch: float | Tensor = PITCH,
        *,
        n_xy: int = GRID,
        offset: tuple[float, float] = (0.0, 0.0),
        kernel: Kernel = "none",
        width: float = WIDTH,
    ) -> Tensor:
        """Return the regular view: cells -n_xy/2 <= i, j < n_xy/2 of every layer, cell 0 centred on the axis.

        Args:
            pitch: pitch of the cells, cm; a tensor receives gradients if there is a kernel.
            n_xy: cells across.
            offset: (x_0, y_0), cm.
            kernel: how a point is shared between cells, see `calograd.events.points`.
            width: width w of the kernel, cm.

        Returns:
            Energies, shape (n, n_xy, n_xy, layers), GeV.

        Raises:
            InputError: a pitch that is not positive, an unknown kernel, or one too wide for the cells.
        """
        pitch = torch.as_tensor(pitch).to(self.x)
        if kernel not in ("none", "linear", "gaussian"):
            raise InputError(f"unknown kernel '{kernel}'; expected none, linear or gaussian")
        if not float(pitch.detach()) > 0 or n_xy < 1:
            raise InputError(f"{n_xy} cells of {float(pitch.detach()):g} cm: expected positive numbers")
        if kernel != "none" and not 0 < width <= float(pitch.detach()):
            raise InputError(f"a kernel of {width:g} cm: expected a positive width, at most the pitch")
        i, along_x = _shares(self.x + offset[0], pitch, kernel, width)
        j, along_y = _shares(self.y + offset[1], pitch, kernel, width)
        i, j = i[:, :, None] + n_xy // 2, j[:, None, :] + n_xy // 2
        energies = self.e[:, None, None] * along_x[:, :, None] * along_y[:, None, :]
        inside = (i >= 0) & (i < n_xy) & (j >= 0) & (j < n_xy)
        index = ((self.owner[:, None, None] * n_xy + i) * n_xy + j) * self.layers + self.layer[:, None, None]
        total = len(self) * n_xy * n_xy * self.layers
        index = torch.where(inside, index, total)
        cells = self.e.new_zeros(total + 1).index_add(0, index.flatten(), energies.flatten())
        return cells[:total].reshape(len(self), n_xy, n_xy, self.layers)

    def numpy(self, origin: str, config: dict[str, Any]) -> PointShowers:
        """Return the showers as arrays in order of layers, to be written to a file or compared.

        Args:
            origin: ``geant4`` or the name of a surrogate.
            config: what made the showers, as plain data.
        """
        x, y, layer, e = (t.detach().cpu().numpy() for t in (self.x, self.y, self.layer, self.e))
        columns = sort_points(x, y, layer, e, self.owner.cpu().numpy(), len(self))
        energy = self.energy.detach().cpu().numpy().astype(np.float32)
        known = incident_columns(config, len(self))
        return PointShowers(*columns, energy, np.arange(len(self)), self.layers, origin, config, **known)


def _shares(coordinate: Tensor, pitch: Tensor, kernel: Kernel, width: float) -> tuple[Tensor, Tensor]:
    """Return the cells that points reach along an axis and their shares, shape (points, 1 or 3) each."""
    middle = torch.floor(coordinate.detach() / pitch.detach() + 0.5).long()[:, None]
    if kernel == "none":
        return middle, coordinate.new_ones(len(coordinate), 1)
    borders = (middle + torch.tensor([-0.5, 0.5], dtype=coordinate.dtype, device=coordinate.device)) * pitch
    distance = (borders - coordinate[:, None]) / width
    below = (distance + 0.5).clamp(0, 1) if kernel == "linear" else torch.special.ndtr(distance)
    shares = torch.stack([below[:, 0], below[:, 1] - below[:, 0], 1 - below[:, 1]], dim=1)
    return middle + torch.tensor([-1, 0, 1], device=coordinate.device), shares
