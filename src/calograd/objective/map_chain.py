"""From the deposited to the measured energy of x-z maps: a chain whose cells are the pixels of a map.

With P pixels each way, a pixel is a cell of W/P x W x D/P, W = n_xy dx the width of the window and D = sum dz its
depth: it is as wide in y as the window. Its background has the fluctuations of `calograd.objective.background`,

    E_p   = f ( (1 - d/2) m_p g_p + d/4 sum_{p'} m_p' g_p' )        p' the 2 neighbours of p across

with one g a pixel and m_p the integral of rho over the pixel; what diffuses along y stays in it. Hence

    mean_p = (1 - d/2) m_p + d/4 sum m_p'
    var_p  = (exp(s^2) - 1) mean_p^2 + exp(s^2)/a ( (1 - d/2)^2 m_p^2 + (d/4)^2 sum m_p'^2 )

Showers are measured in the shape (n, P, 1, P), so that what adds up cells adds up pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp, expm1

import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.objective.background import SMALLEST_STD, BackgroundNumbers, Fluctuating, Moments
from calograd.objective.cost import Priced
from calograd.objective.events import Events
from calograd.objective.readout import ReadoutNumbers
from calograd.objective.reconstruction import Chain, Numbers
from calograd.objective.utility import Objective, PositionResolution


@dataclass(frozen=True)
class MapChain:
    """A `Chain` for maps.

    Args:
        chain: of the cells: background, readout and mask, which are now those of pixels.
        pixels: P.

    Raises:
        InputError: a background whose fluctuations are not those above.
    """

    chain: Chain
    pixels: int

    def __post_init__(self) -> None:
        if self.chain.background is not None and not isinstance(self.chain.background, Fluctuating):
            name = type(self.chain.background).__name__
            raise InputError(f"background {name} is one of cells; maps take an Emulator or a DensityMap")

    def draw(
        self,
        n: int,
        n_xy: int,  # noqa: ARG002 - pixels there are, whatever the cells
        n_z: int,  # noqa: ARG002
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> Numbers:
        """See `Chain.draw`: the random numbers of ``n`` events, whatever their design."""
        background, readout, side = self.chain.background, self.chain.readout, self.pixels
        bib, electronics = None, None
        if isinstance(background, Fluctuating):
            bib = background.factors(n, (side + 2, 1, side), generator, dtype)
        if readout is not None:
            drawn = readout.draw(n * side, 1, side, generator, dtype)
            electronics = ReadoutNumbers(*(each.reshape(n, side, 1, side) for each in drawn))
        return Numbers(bib, electronics)

    def measure(self, signal: Tensor, energy: float | Tensor, design: Design, numbers: Numbers) -> Events:
        """What ``design`` measures of showers, see `Chain.measure`.

        Args:
            signal: maps, shape (n, P, P) or (n, P, 1, P), GeV.
            energy: incident energy, one number or shape (n,), GeV.
            design: whose window the maps show; tensors in it receive gradients.
            numbers: from `draw` with the same n.

        Raises:
            InputError: shapes that do not fit.
        """
        side = self.pixels
        if tuple(signal.shape[1:]) not in ((side, side), (side, 1, side)):
            raise InputError(f"maps have shape {tuple(signal.shape)}, expected (n, {side}, {side})")
        added, signal = None, signal.reshape(-1, side, 1, side)
        if self.chain.background is not None and numbers.background is not None:
            means = self._means(design).to(signal)
            added = self._energy(means, numbers.background), self._moments(means)
        return self.chain.reconstruct(signal, energy, design, added, numbers.readout)

    def _means(self, design: Design) -> Tensor:
        """m_p of the pixels and of a column of them on either side, shape (P + 2, 1, P), GeV."""
        background, side = self.chain.background, self.pixels
        assert isinstance(background, Fluctuating)
        width, depth = design.n_xy * design.dx, design.dz.sum(-1)
        fine = background.ringed_means(width / side, (depth / side).expand(side), side)
        return fine[:, 1:-1].sum(1, keepdim=True)

    def _energy(self, means: Tensor, numbers: BackgroundNumbers) -> Tensor:
        assert isinstance(self.chain.background, Fluctuating)
        d, (event, cells) = self.chain.background.diffusion, (each.to(means) for each in numbers)
        return event[:, None, None, None] * _across(means * cells, 1 - d / 2, d / 4)

    def _moments(self, means: Tensor) -> Moments:
        background = self.chain.background
        assert isinstance(background, Fluctuating)
        d, s2 = background.diffusion, background.sigma_event**2
        mean = _across(means, 1 - d / 2, d / 4)
        each = _across(means**2, (1 - d / 2) ** 2, (d / 4) ** 2) / background.shape_cell
        return Moments(mean, (expm1(s2) * mean**2 + exp(s2) * each).clamp(min=SMALLEST_STD**2).sqrt())


def _across(ringed: Tensor, own: float, each: float) -> Tensor:
    """``own`` of every pixel's value and ``each`` of its neighbours' across; (..., P + 2, 1, P) to (..., P, 1, P)."""
    return own * ringed[..., 1:-1, :, :] + each * (ringed[..., :-2, :, :] + ringed[..., 2:, :, :])


def on_maps(objective: Objective, pixels: int) -> Objective:
    """The same objective of maps of so many pixels each way.

    Raises:
        InputError: a utility that needs a second transverse axis, or a background of cells alone.
    """
    utility = objective.utility
    while isinstance(utility, Priced):
        utility = utility.utility
    if isinstance(utility, PositionResolution):
        raise InputError("utility PositionResolution is of y, which an x-z map does not show; choose another")
    assert isinstance(objective.chain, Chain)
    return replace(objective, chain=MapChain(objective.chain, pixels))
