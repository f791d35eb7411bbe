"""A baseline: the regular 30 x 30 x 30 view of showers from a variational autoencoder, as image-based surrogates do.

In the spirit of BIB-AE (arXiv 2005.05334), but small, without critics and without a second network that mends the
spectrum of cells: it is there to compare with, not to be used. Given a code z and the incident energy E a cell is
independent of all others: it is a hit with probability p, and then its energy is

    e = threshold (1 + exp s),      s normal of mean mu and deviation exp(lambda)

The loss is the negative evidence lower bound, in nats a shower,

    - sum over cells of ln p(cell | z, E)  +  KL(q(z | shower, E) | N(0, 1)),      z of q drawn once

p, mu and lambda are what a network adds to the means over all training showers. Cells below the readout's threshold and
beyond the view are not modelled.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from calograd.errors import InputError
from calograd.events.clouds import LAYERS, PITCH
from calograd.events.layered_readout import GRID, THRESHOLD
from calograd.events.points import Points
from calograd.nn.gridvae import Decoder, Encoder
from calograd.surrogate.points.base import StackModel
from calograd.surrogate.schedule import Walk

SAMPLER = "decoder"
"""The only way to a shower."""
OUTPUTS = 3
"""Of a cell: logit of p, mu, lambda."""
WIDEST = 0.7
"""Of lambda: s is the logarithm of an energy, and a wide one would have tails that no shower has."""


@dataclass(frozen=True)
class GridArchitecture:
    """Everything that fixes the shapes of the weights.

    Args:
        layers: of the detector.
        width: channels of the networks' hidden images.
        code: numbers of a code.
    """

    layers: int = LAYERS
    width: int = 64
    code: int = 32

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def build(self) -> GridModel:
        """A model with its first, random weights."""
        return GridModel(self)


class GridModel(StackModel):
    """Weights and mathematics of the baseline."""

    architecture: GridArchitecture

    def __init__(self, architecture: GridArchitecture) -> None:
        super().__init__()
        self.architecture = a = architecture
        for name in ("condition_mean", "condition_scale"):
            self.register_buffer(name, torch.ones(()))
        self.register_buffer("unit", torch.tensor(THRESHOLD))
        self.register_buffer("base", torch.zeros(OUTPUTS, a.layers, GRID, GRID))
        self.condition_mean: Tensor
        self.condition_scale: Tensor
        self.register_buffer("highest", torch.tensor(7.0))
        self.base: Tensor
        self.highest: Tensor
        self.encoder_network = Encoder(a.layers, GRID, 1, a.width, a.code)
        self.decoder_network = Decoder(a.layers, GRID, 1, a.width, a.code, OUTPUTS)

    def walk(self, sampler: str | None = None, steps: int | None = None) -> Walk:
        """One evaluation of the decoder, see `StackModel`."""
        if sampler not in (None, SAMPLER) or steps not in (None, 1):
            raise InputError(
                f"an autoencoder takes one step of its {SAMPLER}, not {steps or 1} of '{sampler or SAMPLER}'; leave "
                "--sampler and --steps out"
            )
        return Walk(SAMPLER, 1, 1)

    def conditions(self, energy: Tensor) -> Tensor:
        """Standardised conditions of incident energies (n,) in GeV, shape (n, 1)."""
        return ((energy.log() - self.condition_mean) / self.condition_scale)[:, None]

    def calibrate(self, energy: Tensor, hits: Tensor, mean: Tensor, deviation: float, highest: float) -> None:
        """Set what is known before any training.

        Args:
            energy: incident, of the training showers, shape (n,), GeV.
            hits: share of the showers in which each cell is a hit, above zero, shape (layers, GRID, GRID).
            mean: mean s of each cell's hits, likewise.
            deviation: of s.
            highest: largest s; no cell is generated with more.
        """
        log = energy.log()
        self.condition_mean.copy_(log.mean())
        self.condition_scale.copy_(log.std().clamp(min=1e-3))
        self.highest.fill_(highest)
        self.base.copy_(torch.stack([hits.clamp(max=0.999).logit(), mean, torch.full_like(mean, deviation).log()]))

    def losses(self, e: Tensor, energy: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Nats of the cells and of the code.

        Args:
            e: cells' energies, GeV, shape (n, layers, GRID, GRID); zero below the threshold.
            energy: incident, shape (n,), GeV.
            generator: of the code.

        Returns:
            Two tensors of shape (n,).
        """
        conditions, hit = self.conditions(energy), e > 0
        mean, log_variance = self.encoder_network((e / THRESHOLD).log1p() / 4, conditions)
        noise = torch.randn(mean.shape, generator=generator).to(mean)
        logit, mu, scale = self._cells(mean + (log_variance / 2).exp() * noise, conditions)
        s = torch.where(hit, (e / THRESHOLD - 1).clamp(min=1e-4).log(), 0.0)
        energies = torch.where(hit, scale + 0.5 * ((s - mu) * (-scale).exp()) ** 2, 0.0)
        cells = binary_cross_entropy_with_logits(logit, hit.to(e), reduction="none") + energies
        code = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance)
        return cells.flatten(1).sum(1), code.sum(1)

    def _cells(self, code: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logit of p, mu and lambda of every cell, shape (n, layers, GRID, GRID) each."""
        logit, mu, scale = (self.base + self.decoder_network(code, conditions)).unbind(1)
        return logit, mu, scale.clamp(-4, WIDEST)

    def generate(
        self,
        energy: Tensor,
        generator: torch.Generator | None,
        sampler: str | None = None,
        steps: int | None = None,
        smooth: bool = False,
    ) -> Points:
        """Showers whose points are the middles of hit cells, see `StackModel`; there are no smooth ones."""
        self.walk(sampler, steps)
        if smooth:
            raise InputError("an autoencoder of grids has no smooth samples; leave smooth out")
        n, a = len(energy), self.architecture
        code = torch.randn(n, a.code, generator=generator).to(energy)
        logit, mu, scale = self._cells(code, self.conditions(energy))
        hit = torch.rand(logit.shape, generator=generator).to(energy) < logit.sigmoid()
        owner, layer, i, j = torch.nonzero(hit).T
        noise = torch.randn(len(owner), generator=generator).to(energy)
        e = THRESHOLD * (1 + torch.minimum(mu[hit] + scale[hit].exp() * noise, self.highest).exp())
        x, y = (PITCH * (number - GRID // 2).to(energy) for number in (i, j))
        offsets = torch.cat([owner.new_zeros(1), torch.bincount(owner, minlength=n).cumsum(0)])
        return Points(x, y, layer, e, offsets, energy, a.layers)
