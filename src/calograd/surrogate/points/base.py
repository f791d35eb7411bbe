"""What every kind of surrogate of a layered detector shares: showers as points, given nothing but their energies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from calograd.events.points import Points
from calograd.surrogate.schedule import Walk


class StackArchitecture(Protocol):
    """Everything that fixes the shapes of the weights, whatever the kind."""

    @property
    def layers(self) -> int:
        """Of the detector."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""

    def build(self) -> StackModel:
        """A model with its first, random weights."""


class StackModel(nn.Module, ABC):
    """Weights and mathematics; `calograd.surrogate.points.surrogate.CloudSurrogate` is their public face.

    Attributes:
        architecture: everything that fixes the shapes of the weights.
        unit: an energy, GeV; in type and on device of all weights.
    """

    architecture: StackArchitecture
    unit: Tensor

    @abstractmethod
    def walk(self, sampler: str | None = None, steps: int | None = None) -> Walk:
        """How showers are made, the architecture's own way if not told. Raises `InputError` if it cannot."""

    @abstractmethod
    def generate(
        self,
        energy: Tensor,
        generator: torch.Generator | None,
        sampler: str | None = None,
        steps: int | None = None,
        smooth: bool = False,
    ) -> Points:
        """Showers of incident energies (n,), GeV; arguments as of `CloudSurrogate.sample`."""
