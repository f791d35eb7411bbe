"""Random numbers of generated showers: every draw of a sample goes through one small object."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomNumbers:
    """Random numbers drawn from one generator, on the CPU, so that every device generates the same showers.

    Args:
        generator: the source; None takes torch's global generator.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self.generator = generator

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Return unit normal numbers of a shape, with the dtype and device of ``like``."""
        return torch.randn(shape, generator=self.generator).to(like)

    def uniform(self, *shape: int, like: Tensor) -> Tensor:
        """Return numbers evenly from [0, 1) of a shape, with the dtype and device of ``like``."""
        return torch.rand(shape, generator=self.generator).to(like)
