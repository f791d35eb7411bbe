"""Reconstruction: a soft mask that suppresses cells of background.

    E_i    = E_sig,i + E_bgr,i, read out
    T_i    = mean_i + std_i                  of the background in cell i, in closed form
    w_i    = sigmoid(K (E_i - T_i))          K = 4 / std_i, or a number in 1/GeV
    E_meas = sum_i w_i E_i

The mean and std, and so T and K, are functions of the design. Hence the gradient of E_meas includes that of the mask.
They describe the background before the readout.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.objective.background import Moments

SHARPNESS = 4.0
"""K in units of 1 / std, where no number is given."""


@dataclass(frozen=True)
class SoftMask:
    """The weights w_i of the cells.

    Args:
        k: K in 1/GeV, the same for every cell; None: `SHARPNESS` / std_i.

    Raises:
        InputError: K is not a positive number.
    """

    k: float | None = None

    def __post_init__(self) -> None:
        if self.k is not None and not 0 < self.k < inf:
            raise InputError(f"mask: k = {self.k} 1/GeV, expected a positive number")

    def weights(self, energy: Tensor, moments: Moments) -> Tensor:
        """Return w_i of cells of ``energy``, shape (n, n_xy, n_xy, n_z), GeV; differentiable in both."""
        k = SHARPNESS / moments.std if self.k is None else self.k
        return torch.sigmoid(k * (energy - moments.mean - moments.std))
