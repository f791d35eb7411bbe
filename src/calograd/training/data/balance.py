"""Balance of energies: odds with which rows are drawn so that every energy counts alike."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 16
"""Intervals of equal width in the logarithm of the energy, if there are more distinct energies than that."""
MOST = 30
"""Largest ratio of the odds of two rows."""


def even_odds(energy: Tensor) -> Tensor:
    """Return relative odds of rows, shape (n,), float64, with which all energies are drawn equally often.

    The most probable row has odds 1, and no row more than `MOST` times those of another: few rows of an energy shall
    not be learnt by heart. Up to `BINS` distinct energies count alike; of more, `BINS` intervals of equal width
    in ln E from the lowest to the highest do, if they have rows at all.

    Args:
        energy: incident energies, shape (n,), GeV.
    """
    distinct, place = torch.unique(energy, return_inverse=True)
    if len(distinct) > BINS:
        u = energy.double().log()
        low, high = u.aminmax()
        place = ((u - low) / (high - low) * BINS).long().clamp(max=BINS - 1)
    count = torch.bincount(place)[place].double()
    odds: Tensor = (count.max() / (MOST * count)).clamp(max=1)
    return odds / odds.max()
