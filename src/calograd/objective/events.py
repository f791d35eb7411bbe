"""Events as a design measures them: what a utility is a function of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from calograd.detector.design import Design


@dataclass(frozen=True)
class Events:
    """Showers with what was reconstructed of them.

    Args:
        signal: energy that the shower deposited, shape (n, n_xy, n_xy, n_z), GeV.
        measured: energy that the reconstruction keeps, with background and readout, same shape, GeV.
        energy: incident energy, shape (n,), GeV.
        design: that measured them.
    """

    signal: Tensor
    measured: Tensor
    energy: Tensor
    design: Design

    def at(self, rows: Tensor) -> Events:
        """The chosen events."""
        return Events(self.signal[rows], self.measured[rows], self.energy[rows], self.design)
