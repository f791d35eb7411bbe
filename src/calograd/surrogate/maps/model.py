"""The surrogate of x-z maps: a shower's map given energy, design and material.

Two protocols, after the coordinates (`calograd.surrogate.maps.coordinates`) in which a U-Net learns the map:

    shares   two diffusion models in a row (`calograd.surrogate.two_stage`); the U-Net learns the standardised pattern
    plain    one diffusion model, the U-Net learns the scaled pixels: arXiv 2601.07859, with absolute energies

    cond = ln E/E_c, ln dx/R_M, ln dz/X0, and the logarithms of chosen numbers of the material

with dz the mean depth of the layers: a map shows the window of a design, not its cells. Material numbers are chosen as
for cells (`calograd.surrogate.cells.model`). With ``dropped`` above zero that share of the samples is trained without
conditions, and the U-Net can be guided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from calograd.detector.material import Material
from calograd.diffusion.denoisers import Network, denoise, loss
from calograd.diffusion.samplers import Sampler, sample
from calograd.errors import InputError
from calograd.events.dense import Maps
from calograd.nn.location_scale import standardise
from calograd.nn.unet import UNet
from calograd.surrogate.maps.coordinates import (
    PLAIN_SCALE,
    decode,
    encode,
    encode_shape,
    mirror_permutations,
    shape_dim,
)
from calograd.surrogate.model import DesignArchitecture, DesignModel, Rows, SamplingSchedule, sampler_of
from calograd.surrogate.two_stage import LocationScale, TwoStage
from calograd.system.random_numbers import RandomNumbers


@dataclass(frozen=True)
class MapsArchitecture(DesignArchitecture):
    """Everything that fixes the shapes of the weights of maps, with all of `DesignArchitecture`.

    Args:
        pixels: number of pixels across and along.
        coordinates: ``shares`` or ``plain``.
        slabs: number of slabs of the shares' coordinates.
        width, multipliers, blocks, dropout, patch: sizes of the U-Net, see `calograd.nn.unet.UNet`.
        dropped: share of the samples that are trained without conditions.

    Raises:
        InputError: pixels that cannot be divided into slabs or halved as often as there are levels, or distilled steps
            in plain coordinates.
    """

    pixels: int = 32
    coordinates: Literal["shares", "plain"] = "shares"
    slabs: int = 8
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    dropout: float = 0.0
    patch: int = 1
    dropped: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        if self.distilled_steps and self.coordinates == "plain":
            raise InputError("maps in plain coordinates cannot be distilled; expected coordinates = 'shares'")
        halvings = len(self.multipliers) - 1
        if self.pixels % self.slabs or halvings < 0 or self.pixels % (self.patch << halvings):
            raise InputError(
                f"{self.pixels} pixels: expected a number that {self.slabs} slabs divide and that, in patches of "
                f"{self.patch}, can be halved for each of the {len(self.multipliers)} levels but the first"
            )

    def build(self) -> MapsModel:
        """Return a model with random weights."""
        return SharesModel(self) if self.coordinates == "shares" else PlainModel(self)

    def unet(self, conditions: int, context: int, thresholds: bool) -> UNet:
        """Return the U-Net, with numbers that belong to each sample and perhaps thresholds."""
        return UNet(
            self.pixels, conditions, context, thresholds=thresholds, width=self.width, multipliers=self.multipliers,
            blocks=self.blocks, embedding=self.embedding, dropout=self.dropout, patch=self.patch,
        )  # fmt: skip


class _Conditioned(DesignModel):
    """Base of both protocols of maps: conditions, symmetries, and the U-Net with its conditions bound."""

    architecture: MapsArchitecture
    pattern_network: UNet

    def depths(self, dz: Tensor) -> Tensor:
        """Return the mean depth of the layers, see `DesignModel`."""
        return dz.mean(1, keepdim=True)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one map."""
        return self.architecture.pixels, self.architecture.pixels

    @property
    def most_rows(self) -> int:
        """Largest number of maps at once.

        An image of the U-Net's first level stays within 16 MB, all within some 20 of these.
        """
        a = self.architecture
        return max(1, (1 << 22) * a.patch**2 // (a.width * a.pixels**2))

    @property
    def options(self) -> frozenset[str]:
        """Names of the options: checkpoints, and guidance where conditions were dropped in training."""
        return frozenset({"checkpointed", "guidance"} if self.guided else {"checkpointed"})

    def record(self, showers: Tensor, rows: Rows, name: str, config: dict[str, Any]) -> Maps:
        """Return showers as `Maps`, see `Model`."""
        (dx, dz, material), n_xy, number = rows.designs(), self.architecture.n_xy, np.arange(len(showers))
        return Maps(showers.cpu().numpy(), rows.energy, dx, dz, n_xy, number, material, name, config)

    def fused(self) -> Self:
        """Return the model: there is no faster form."""
        return self

    def compact(self, material: Material | None) -> Self:  # noqa: ARG002 - nothing to leave out
        """Return the model: no weights of it can be left out."""
        return self

    @property
    def guided(self) -> bool:
        """True if conditions were dropped in training; a distilled surrogate knows them always."""
        return self.architecture.dropped > 0 and self.architecture.distilled_steps is None

    def bind(
        self,
        conditions: Tensor,
        context: Tensor | None,
        thresholds: Tensor | None,
        guidance: float,
        random: RandomNumbers | None,
    ) -> Network:
        """Return F of flat maps, with all that it is given bound.

        Args:
            conditions: shape (n, conditions) or (1, conditions).
            context: numbers of each sample, shape (n, numbers).
            thresholds: clean values of an empty pixel, shape (n, pixels * pixels); None: no thresholds.
            guidance: w of classifier-free guidance.
            random: random numbers of dropout and of dropped conditions, in training; None: nothing is dropped.
        """
        side = self.architecture.pixels

        def network(scaled: Tensor, noise: Tensor) -> Tensor:
            into = self.preconditioning.coefficients((4 * noise).exp()[:, None]).into
            q = None if thresholds is None else thresholds * into
            images = [None if v is None else v.reshape(-1, side, side) for v in (scaled, q)]

            def f(dropped: Tensor | None) -> Tensor:
                result: Tensor = self.pattern_network(
                    images[0], noise, conditions, context, images[1], dropped=dropped, random=random
                )
                return result.flatten(1)

            if random is not None and self.guided:
                return f(random.fractions(like=scaled) < self.architecture.dropped)
            known = f(None)
            if guidance == 0:
                return known
            return known + guidance * (known - f(torch.ones(1, dtype=torch.bool, device=scaled.device)))

        return network


class SharesModel(_Conditioned, TwoStage):
    """Weights and mathematics of the maps surrogate in energy-conserving coordinates."""

    def __init__(self, architecture: MapsArchitecture) -> None:
        shape = shape_dim(architecture.slabs)
        super().__init__(architecture, 1, mirror_permutations(architecture.pixels), shape)
        self.pattern_network = architecture.unet(self.n_conditions, shape, True)

    def encode_shape(self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers) -> Tensor:  # noqa: ARG002
        """Return the shape alone, see `calograd.surrogate.maps.coordinates.encode_shape`."""
        return encode_shape(measured, energy, self.architecture.slabs, random)

    def encode(
        self,
        measured: Tensor,
        energy: Tensor,
        conditions: Tensor,  # noqa: ARG002
        random: RandomNumbers,
    ) -> tuple[Tensor, Tensor]:
        """Return the coordinates of maps, see `calograd.surrogate.maps.coordinates.encode`."""
        return encode(measured, energy, self.architecture.slabs, random)

    def decode(self, g: Tensor, c: Tensor, energy: Tensor, conditions: Tensor) -> Tensor:  # noqa: ARG002
        """Return maps from coordinates, see `calograd.surrogate.maps.coordinates.decode`."""
        return decode(g, c, energy, self.architecture.slabs)

    def pattern(
        self,
        conditions: Tensor,
        x: Tensor,
        location_scale: LocationScale,
        *,
        guidance: float = 0.0,
        random: RandomNumbers | None = None,
    ) -> Network:
        """Return the U-Net with its conditions bound; its thresholds are where a pixel is empty."""
        thresholds = standardise(torch.zeros_like(location_scale[0]), *location_scale)
        return self.bind(conditions, x, thresholds, guidance, random)


class PlainModel(_Conditioned):
    """Weights and mathematics of the maps surrogate on scaled pixels: it has no shape, no location and no scale."""

    def __init__(self, architecture: MapsArchitecture) -> None:
        super().__init__(architecture, 1, mirror_permutations(architecture.pixels))
        self.pattern_network = architecture.unet(self.n_conditions, 0, False)

    @property
    def two_stage(self) -> TwoStage:
        """Raise `InputError`, see `DesignModel`."""
        raise InputError("maps in plain coordinates have no shape, location and scale; expected coordinates = 'shares'")

    def standardise(
        self,
        measured: Tensor,
        energy: Tensor,
        conditions: Tensor,  # noqa: ARG002
        random: RandomNumbers,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return no shape, and scaled pixels, see `DesignModel`."""
        return measured.new_zeros(len(measured), 0), PLAIN_SCALE * measured.flatten(1) / energy[:, None]

    def losses(self, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return the denoising losses, see `DesignModel`; the shape has none."""
        network = self.bind(conditions, None, None, 0.0, random if torch.is_grad_enabled() else None)
        pattern = loss(network, self.preconditioning, y, self.schedule.draw(random, like=y), random)
        return x.sum(1), pattern.mean(1)

    def asymmetric(self) -> Self:
        """Return the model: it has no location and scale."""
        return self

    def shape_evaluations(self, sampler: Sampler, steps: int) -> int:  # noqa: ARG002
        """Return zero: there is no shape."""
        return 0

    def generate(self, conditions: Tensor, energy: Tensor, schedule: SamplingSchedule, random: RandomNumbers) -> Tensor:
        """Generate maps, see `Model`."""
        sampler, side = sampler_of(schedule), self.architecture.pixels
        noise = random.normal(side * side, like=conditions)
        network = self.bind(conditions, None, None, schedule.options.guidance, None)
        y = sample(
            lambda z, s: denoise(network, self.preconditioning, z, s),
            noise, sampler.grid(self.schedule, schedule.steps), sampler, random.normal_like,
            schedule.options.checkpointed,
        )  # fmt: skip
        return (y * energy[:, None] / PLAIN_SCALE).clamp(min=0).reshape(len(y), side, side)


MapsModel = SharesModel | PlainModel
