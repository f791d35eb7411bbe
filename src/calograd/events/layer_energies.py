"""Energies of showers in the layers of stacks of plates, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerEnergies:
    """Energies of n showers in stacks of equal numbers of layers; gradients pass through.

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

    def rows(self, which: slice | Tensor) -> LayerEnergies:
        """Return the chosen showers."""
        return LayerEnergies(self.active[which], self.absorber[which])

    @classmethod
    def concatenate(cls, parts: Sequence[LayerEnergies]) -> LayerEnergies:
        """Return showers put one behind the other."""
        return cls(torch.cat([part.active for part in parts]), torch.cat([part.absorber for part in parts]))
