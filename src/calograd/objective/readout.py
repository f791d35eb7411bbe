"""Readout of cells: the electronics report an energy for the energy E in a cell, differentiably.

    E_1 = E + sqrt(E / Y) xi                             photostatistics: N = Y E photo-electrons, deviation sqrt(N)
    E_2 = S (1 - exp(-E_1 / S))    where E_1 > 0         saturation of the sensor
    E_3 = E_2 + s eta                                    electronic noise
    E_4 = E_3 sigmoid((E_3 - t) / w)                     smooth threshold

The numbers xi and eta are normal, drawn first, one of each for every cell. A stage that is not set passes the energy
on. No stage is corrected for: the scale stays that of the deposited energy for cells far below S. Energies are in GeV.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.system.random_numbers import RandomNumbers


class ReadoutDraws(NamedTuple):
    """Normal random numbers xi and eta, each of shape (n, n_xy, n_xy, n_z)."""

    photons: Tensor
    electronics: Tensor


@dataclass(frozen=True)
class Readout:
    """Stages of the readout; by default none acts.

    Args:
        light_yield: Y, photo-electrons per GeV; None: no photostatistics.
        saturation: S, the largest energy that a cell reports, GeV; None: no saturation.
        noise: s, GeV a cell.
        threshold: t, GeV; None: no threshold.
        threshold_width: w, GeV.

    Raises:
        InputError: a number that is not positive and finite (the noise may be zero, the threshold any number).
    """

    light_yield: float | None = None
    saturation: float | None = None
    noise: float = 0.0
    threshold: float | None = None
    threshold_width: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("light_yield", "saturation", "threshold_width"):
            value = getattr(self, name)
            if value is not None and not 0 < value < inf:
                raise InputError(f"readout: {name} = {value}, expected a positive number")
        if not 0 <= self.noise < inf:
            raise InputError(f"readout: noise = {self.noise} GeV, expected zero or more")
        if self.threshold is not None and not -inf < self.threshold < inf:
            raise InputError(f"readout: threshold = {self.threshold} GeV, expected a finite number")

    def __str__(self) -> str:
        stages = (
            (self.light_yield, "{:g} photo-electrons/GeV"), (self.saturation, "saturation at {:g} GeV"),
            (self.noise or None, "noise {:g} GeV a cell"), (self.threshold, "threshold {:g} GeV"),
        )  # fmt: skip
        return ", ".join(text.format(value) for value, text in stages if value is not None) or "no stage"

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> ReadoutDraws:
        """Draw the random numbers of ``n`` events; they do not depend on the stages or on ``dtype``."""
        both = torch.from_numpy(RandomNumbers.from_generator(generator, n).normal_array(2, n_xy, n_xy, n_z)).to(dtype)
        return ReadoutDraws(both[:, 0], both[:, 1])

    def apply(self, energy: Tensor, draws: ReadoutDraws) -> Tensor:
        """Return the reported energies for energies in the cells, shape (n, n_xy, n_xy, n_z), GeV; differentiable.

        The gradient of the photostatistics is zero, not infinite, in an empty cell.
        """
        xi, eta = (values.to(energy.device) for values in draws)
        if self.light_yield is not None:
            lit = energy > 0
            energy = energy + torch.where(lit, torch.where(lit, energy / self.light_yield, 1.0).sqrt(), 0.0) * xi
        if self.saturation is not None:
            positive = energy.clamp(min=0)
            energy = energy - positive - self.saturation * torch.expm1(-positive / self.saturation)
        if self.noise > 0:
            energy = energy + self.noise * eta
        if self.threshold is not None:
            energy = energy * torch.sigmoid((energy - self.threshold) / self.threshold_width)
        return energy
