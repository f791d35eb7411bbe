"""Reconstruction: a soft mask that suppresses cells of background.

    E_i    = E_sig,i + E_bgr,i, read out
    T_i    = mean_i + std_i                  of the background in cell i, in closed form
    w_i    = sigmoid(K (E_i - T_i))          K = 4 / std_i, or a number in 1/GeV
    E_meas = sum_i w_i E_i

mean, std and hence T and K are functions of the design, so that its gradient includes that of the mask. They are
those of the background before the readout.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.objective.background import Background, BackgroundNumbers, Moments
from calograd.objective.events import Events
from calograd.objective.readout import Readout, ReadoutNumbers

SHARPNESS = 4.0
"""K in units of 1 / std, where no number is given."""


class Numbers(NamedTuple):
    """All random numbers of some events; None for a stage that the chain does not have."""

    background: BackgroundNumbers | None
    readout: ReadoutNumbers | None


class Measurement(Protocol):
    """From deposited to measured energy, of whatever cells."""

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Numbers:
        """The random numbers of ``n`` events, see `Chain.draw`."""
        ...

    def measure(self, signal: Tensor, energy: float | Tensor, design: Design, numbers: Numbers) -> Events:
        """What ``design`` measures of showers, see `Chain.measure`."""
        ...


@dataclass(frozen=True)
class SoftMask:
    """The weights w_i.

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
        """w_i of cells of ``energy``, shape (n, n_xy, n_xy, n_z), GeV; differentiable in both."""
        k = SHARPNESS / moments.std if self.k is None else self.k
        return torch.sigmoid(k * (energy - moments.mean - moments.std))


@dataclass(frozen=True)
class Chain:
    """From deposited to measured energy.

    Args:
        background: added to every shower; None: none, and then no mask either.
        readout: None: the energy itself is read.
        mask: what suppresses the background.
    """

    background: Background | None
    readout: Readout | None = None
    mask: SoftMask = SoftMask()

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> Numbers:
        """The random numbers of ``n`` events in windows of n_xy x n_xy x n_z cells, whatever their design.

        Measured with the same numbers, two designs differ by what the design does alone.
        """
        return Numbers(
            self.background.draw(n, n_xy, n_z, generator, dtype) if self.background else None,
            self.readout.draw(n, n_xy, n_z, generator, dtype) if self.readout else None,
        )

    def measure(self, signal: Tensor, energy: float | Tensor, design: Design, numbers: Numbers) -> Events:
        """What ``design`` measures of showers.

        Args:
            signal: deposited energy, shape (n, n_xy, n_xy, n_z), GeV; on any device, with or without gradient.
            energy: incident energy, one number or shape (n,), GeV.
            design: the one that the showers are cells of; tensors in it receive gradients.
            numbers: from `draw` with the same n.

        Raises:
            InputError: shapes that do not fit, or numbers drawn by another chain.
        """
        self._check(signal, design, numbers)
        added = None
        if self.background is not None and numbers.background is not None:
            dx, dz = design.dx.to(signal.device), design.dz.to(signal.device)
            moments = self.background.moments(dx, dz, design.n_xy)
            added = self.background.energy(numbers.background, dx, dz), moments
        return self.reconstruct(signal, energy, design, added, numbers.readout)

    def reconstruct(
        self,
        signal: Tensor,
        energy: float | Tensor,
        design: Design,
        added: tuple[Tensor, Moments] | None,
        numbers: ReadoutNumbers | None,
    ) -> Events:
        """What is kept of showers with a background of given energies and moments; None for none.

        The other arguments and the errors are those of `measure`; the cells may be arranged in any way.
        """
        energies = torch.as_tensor(energy, dtype=signal.dtype, device=signal.device)
        if energies.shape not in ((), (len(signal),)):
            raise InputError(f"energy has shape {tuple(energies.shape)}, expected one number or ({len(signal)},)")
        cells = signal if added is None else signal + added[0]
        if self.readout is not None and numbers is not None:
            cells = self.readout.apply(cells, numbers)
        measured = cells if added is None else cells * self.mask.weights(cells, added[1])
        return Events(signal, measured, energies.expand(len(signal)), design)

    def _check(self, signal: Tensor, design: Design, numbers: Numbers) -> None:
        """Refuse showers of another window, and random numbers of another chain or of other events."""
        window = (design.n_xy, design.n_xy, design.n_z)
        if signal.ndim != 4 or tuple(signal.shape[1:]) != window:
            raise InputError(f"showers have shape {tuple(signal.shape)}, expected (n, {', '.join(map(str, window))})")
        if (numbers.background is None) != (self.background is None) or (
            (numbers.readout is None) != (self.readout is None)
        ):
            raise InputError("the random numbers were drawn by another chain; draw them with the one that measures")
        n, n_xy, _, n_z = signal.shape
        ringed, plain = (n, n_xy + 2, n_xy + 2, n_z), tuple(signal.shape)
        for drawn, expected in ((numbers.background, ringed), (numbers.readout, plain)):
            if drawn is not None and tuple(drawn[1].shape) != expected:
                raise InputError(f"random numbers have shape {tuple(drawn[1].shape)}, expected {expected}; draw anew")
