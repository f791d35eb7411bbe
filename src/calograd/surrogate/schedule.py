"""How a shower is made, whatever the kind of surrogate."""

from __future__ import annotations

from typing import NamedTuple


class Walk(NamedTuple):
    """How a shower is made.

    Args:
        sampler: its name.
        steps: of the sampler; of surrogates of designs, those of the pattern.
        evaluations: of the network that these cost.
        shape_evaluations: of the shape's network beside them, of surrogates of designs.
    """

    sampler: str
    steps: int
    evaluations: int
    shape_evaluations: int = 0
