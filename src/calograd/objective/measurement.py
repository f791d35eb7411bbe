"""Measurement of showers: background is added, cells are read out, and the reconstruction weights them.

A measurement takes cells, shape (n, n_xy, n_xy, n_z), or x-z maps. With P pixels each way, a pixel is a cell of
W/P x W x D/P, with W = n_xy dx the width of the window and D = sum dz its depth. It is as wide in y as the window, so
background that diffuses along y stays in it. Maps are measured in the shape (n, P, 1, P), so that sums over cells are
sums over pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.objective.background import Background, BackgroundDraws
from calograd.objective.readout import Readout, ReadoutDraws
from calograd.objective.reconstruction import SoftMask


@dataclass(frozen=True)
class MeasuredEvents:
    """Showers with their reconstructed energies; a utility is a function of them.

    Args:
        signal: energy that the shower deposited, shape (n, n_xy, n_xy, n_z), GeV.
        measured: energy that the reconstruction keeps, with background and readout, same shape, GeV.
        energy: incident energy, shape (n,), GeV.
        design: the design that measured them, or a batch of n designs, one for each shower.
        particles: the incident particles; None: all on the axis.
    """

    signal: Tensor
    measured: Tensor
    energy: Tensor
    design: Design
    particles: Particles | None = None

    def select(self, rows: Tensor) -> MeasuredEvents:
        """Return the events of the given indices."""
        design = self.design[rows] if self.design.batched else self.design
        particles = None if self.particles is None else self.particles.rows(rows)
        return MeasuredEvents(self.signal[rows], self.measured[rows], self.energy[rows], design, particles)


class RandomDraws(NamedTuple):
    """The random numbers of some events; None for a stage that the measurement does not have."""

    background: BackgroundDraws | None
    readout: ReadoutDraws | None


@dataclass(frozen=True)
class Measurement:
    """Chain from the deposited to the measured energy: background, readout, mask.

    Args:
        background: added to every shower; None: no background, and then no mask either.
        readout: electronics of the cells; None: the energy itself is read.
        mask: weights that suppress the background.
        pixels: P, for x-z maps of P x P pixels; None: for cells.

    Example:
        >>> import torch
        >>> from calograd import Design
        >>> measurement = Measurement(background=None)
        >>> events = measurement.measure(torch.ones(2, 5, 5, 5), 130.0, Design(2.5, 6.0))
        >>> events.measured.sum((1, 2, 3)).tolist()
        [125.0, 125.0]
    """

    background: Background | None = None
    readout: Readout | None = None
    mask: SoftMask = field(default_factory=SoftMask)
    pixels: int | None = None

    @property
    def ndim(self) -> int:
        """Number of dimensions of a tensor of showers: 4 of cells, 3 of maps."""
        return 4 if self.pixels is None else 3

    def draw(
        self, n: int, n_xy: int, n_z: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> RandomDraws:
        """Draw the random numbers of ``n`` events in windows of n_xy x n_xy x n_z cells of any size.

        Two designs that are measured with the same numbers differ only by the design. Maps have their own number of
        pixels, whatever the cells.
        """
        if self.pixels is None:
            return RandomDraws(
                self.background.draw(n, n_xy, n_z, generator, dtype) if self.background else None,
                self.readout.draw(n, n_xy, n_z, generator, dtype) if self.readout else None,
            )
        side, background, readout = self.pixels, None, None
        if self.background is not None:
            background = self.background.draw_factors(n, (side + 2, 1, side), generator, dtype)
        if self.readout is not None:
            drawn = self.readout.draw(n * side, 1, side, generator, dtype)
            readout = ReadoutDraws(*(each.reshape(n, side, 1, side) for each in drawn))
        return RandomDraws(background, readout)

    def measure(
        self,
        signal: Tensor,
        energy: float | Tensor,
        design: Design,
        draws: RandomDraws | None = None,
        *,
        generator: torch.Generator | None = None,
        particles: Particles | None = None,
    ) -> MeasuredEvents:
        """Measure showers with a design.

        Args:
            signal: deposited energy, cells (n, n_xy, n_xy, n_z) or maps (n, P, P) or (n, P, 1, P), GeV; on any device,
                with or without gradient.
            energy: incident energy, one number or shape (n,), GeV.
            design: the design that the showers are of, or a batch of n; tensors in it receive gradients.
            draws: random numbers from `draw` with the same n; None: drawn here.
            generator: draws them; None: a new one of seed 0, so that two designs see the same background.
            particles: the incident particles; None: all on the axis.

        Raises:
            InputError: shapes that do not fit, or random numbers of another measurement.
        """
        signal = self._shaped(signal, design)
        if draws is None:
            source = torch.Generator().manual_seed(0) if generator is None else generator
            draws = self.draw(len(signal), design.n_xy, design.n_z, source, signal.dtype)
        self._check_draws(draws, signal)
        energies = torch.as_tensor(energy, dtype=signal.dtype, device=signal.device)
        if energies.shape not in ((), (len(signal),)):
            raise InputError(f"energy has shape {tuple(energies.shape)}, expected one number or ({len(signal)},)")
        cells, moments = signal, None
        if self.background is not None and draws.background is not None:
            means = self._mean_background(self.background, signal, design)
            moments = self.background.moments_from_means(means)
            cells = signal + self.background.energy_from_means(draws.background, means)
        if self.readout is not None and draws.readout is not None:
            cells = self.readout.apply(cells, draws.readout)
        measured = cells if moments is None else cells * self.mask.weights(cells, moments)
        return MeasuredEvents(signal, measured, energies.expand(len(signal)), design, particles)

    def describe(self) -> dict[str, str]:
        """Return texts for reports: background, readout and mask."""
        k = "4 / standard deviation of the background" if self.mask.k is None else f"{self.mask.k:g} / GeV"
        return {
            "background": str(self.background) if self.background else "none",
            "readout": str(self.readout) if self.readout else "none, energies are read as they are",
            "mask": f"soft, with sharpness {k}" if self.background else "none",
        }

    def _mean_background(self, background: Background, signal: Tensor, design: Design) -> Tensor:
        """Return the mean background of the cells or pixels and of the ring around them, GeV."""
        dx, dz = design.dx.to(signal.device), design.dz.to(signal.device)
        if self.pixels is None:
            return background.mean_energy(dx, dz, design.n_xy)
        side, width, depth = self.pixels, design.n_xy * dx, dz.sum(-1, keepdim=True)
        fine = background.mean_energy(width / side, (depth / side).expand(*depth.shape[:-1], side), side)
        return fine[..., 1:-1, :].sum(-2, keepdim=True).to(signal)

    def _shaped(self, signal: Tensor, design: Design) -> Tensor:
        """Return the showers as cells or pixels, shape (n, a, b, c). Raises `InputError` if they do not fit."""
        if self.pixels is None:
            cells = (design.n_xy, design.n_xy, design.n_z)
            if signal.ndim != 4 or tuple(signal.shape[1:]) != cells:
                raise InputError(f"showers have shape {tuple(signal.shape)}, expected (n, {str(cells)[1:]}")
            return signal
        side = self.pixels
        if tuple(signal.shape[1:]) not in ((side, side), (side, 1, side)):
            raise InputError(f"maps have shape {tuple(signal.shape)}, expected (n, {side}, {side})")
        return signal.reshape(-1, side, 1, side)

    def _check_draws(self, draws: RandomDraws, signal: Tensor) -> None:
        """Raise `InputError` unless random numbers are of this measurement and of these showers."""
        stages = ((self.background, draws.background), (self.readout, draws.readout))
        if any((stage is None) != (drawn is None) for stage, drawn in stages):
            raise InputError("the random numbers are of another measurement; draw them with the one that measures")
        n, a, b, c = signal.shape
        ringed = (n, a + 2, b if self.pixels else b + 2, c)
        for drawn, expected in ((draws.background, ringed), (draws.readout, (n, a, b, c))):
            if drawn is not None and tuple(drawn[1].shape) != expected:
                raise InputError(f"random numbers have shape {tuple(drawn[1].shape)}, expected {expected}; draw anew")
