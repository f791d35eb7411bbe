"""Energies of showers in the layers of stacks of plates, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class LayerEnergies:
    """Energies of n showers in stacks of plates; gradients pass through.

    Where stacks differ in their numbers of layers, what is beyond the last layer of a shower is zero.

    `calograd.events.plates.PlateShowers` holds simulated showers in arrays.

    Args:
        active: energy in the active plate of every layer, shape (n, layers), GeV.
        absorber: energy in the absorber of every layer, of the same shape, GeV.
    """

    active: Tensor
    absorber: Tensor

    def __len__(self) -> int:
        return len(self.active)

    def layer_energies(self) -> Tensor:
        """Return the visible energies: those in the active plates, shape (n, layers), GeV."""
        return self.active

    def absorbed_energies(self) -> Tensor:
        """Return the energies in the absorbers, shape (n, layers), GeV."""
        return self.absorber

    def __getitem__(self, which: Tensor | slice) -> LayerEnergies:
        """Return some showers, by mask, indices or slice."""
        return LayerEnergies(self.active[which], self.absorber[which])

    @classmethod
    def concatenate(cls, parts: Sequence[LayerEnergies]) -> LayerEnergies:
        """Return showers put one behind the other, padded with zeros to the largest number of layers."""
        layers = max(part.active.shape[1] for part in parts)
        return cls(*(
            torch.cat([pad(values, (0, layers - values.shape[1])) for values in column])
            for column in zip(*((part.active, part.absorber) for part in parts), strict=True)
        ))  # fmt: skip
