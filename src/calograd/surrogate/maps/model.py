"""The surrogate of x-z maps: a shower's map given energy, design and material.

Two protocols, after the coordinates (`calograd.surrogate.maps.coordinates`) in which a U-Net learns the map:

    shares   two diffusion models in a row (`calograd.surrogate.two_stage`); the U-Net learns the standardised pattern
    plain    one diffusion model, the U-Net learns the scaled pixels: arXiv 2601.07859, with absolute energies

    cond = ln E/E_c, ln dx/R_M, ln dz/X0, and the logarithms of chosen numbers of the material

with dz the mean depth of the layers: a map shows the window of a design, not its cells. Which numbers to choose is as
for cells (`calograd.surrogate.cells.model`). With ``dropped`` above zero the U-Net learns for that share of the samples
to do without conditions, and can be guided.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from calograd.detector.material import NUMBERS, Material
from calograd.diffusion.denoisers import Network, denoise, loss
from calograd.diffusion.samplers import Sampler, sample
from calograd.errors import InputError
from calograd.events.dense import Maps
from calograd.nn.location_scale import ConditionalLocationScale, standardise
from calograd.nn.mlp import ResidualMlp
from calograd.nn.unet import UNet
from calograd.surrogate.maps.coordinates import (
    PLAIN_SCALE,
    decode,
    encode,
    encode_shape,
    mirror_classes,
    mirror_permutations,
    shape_dim,
)
from calograd.surrogate.model import (
    DesignModel,
    Options,
    Rows,
    SamplingSchedule,
    checked_distilled_steps,
    chosen_numbers,
    plain_sizes,
    sampler_of,
)
from calograd.surrogate.two_stage import LocationScale, TwoStage
from calograd.system.random_numbers import RandomNumbers


@dataclass(frozen=True)
class MapsArchitecture:
    """Everything that fixes the shapes of the weights.

    Args:
        n_xy, n_z: cells across and layers of the designs whose windows the maps show.
        pixels: across and along.
        coordinates: ``shares`` or ``plain``.
        slabs: of the shares' coordinates.
        width, multipliers, blocks, embedding, dropout, patch: of the U-Net, see `calograd.nn.unet.UNet`.
        dropped: share of the samples that are trained without conditions.
        shape_width, shape_blocks: hidden numbers and residual blocks of the network of the shape.
        location_scale_width: hidden numbers of the networks of location and scale.
        schedule: a name of `calograd.diffusion.schedules.SCHEDULES`.
        preconditioning: a name of `calograd.diffusion.denoisers.PRECONDITIONINGS`.
        material_numbers: which of `calograd.detector.material.DESCRIPTORS` are conditions beside the scaled ones.
        symmetric: whether numbers of the pattern that are equal by symmetry share location and scale.
        distilled_steps: steps of shape and pattern, of a distilled surrogate in shares; None: diffusion models.

    Raises:
        InputError: pixels that cannot be divided into slabs or halved as often as there are levels, unknown material
            numbers, or distilled steps in plain coordinates.
    """

    n_xy: int = 5
    n_z: int = 5
    pixels: int = 32
    coordinates: Literal["shares", "plain"] = "shares"
    slabs: int = 8
    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    blocks: int = 1
    embedding: int = 128
    dropout: float = 0.0
    patch: int = 1
    dropped: float = 0.0
    shape_width: int = 192
    shape_blocks: int = 4
    location_scale_width: int = 128
    schedule: str = "karras"
    preconditioning: str = "edm"
    material_numbers: tuple[str, ...] = NUMBERS
    symmetric: bool = True
    distilled_steps: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "material_numbers", chosen_numbers(self.material_numbers))
        object.__setattr__(self, "multipliers", tuple(self.multipliers))
        object.__setattr__(self, "distilled_steps", checked_distilled_steps(self.distilled_steps))
        if self.distilled_steps and self.coordinates == "plain":
            raise InputError("maps in plain coordinates cannot be distilled; expected coordinates = 'shares'")
        if (
            self.pixels % self.slabs
            or not self.multipliers
            or self.pixels % (self.patch << (len(self.multipliers) - 1))
        ):
            raise InputError(
                f"{self.pixels} pixels: expected a number that {self.slabs} slabs divide and that, in patches of "
                f"{self.patch}, can be halved for each of the {len(self.multipliers)} levels but the first"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, from which the class can be made again."""
        return plain_sizes(asdict(self))

    def asymmetric(self) -> MapsArchitecture:
        """Return the same for beams without symmetry."""
        return replace(self, symmetric=False)

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
        assert rows.dx is not None
        assert rows.dz is not None
        assert rows.material is not None
        n_xy, number = self.architecture.n_xy, np.arange(len(showers))
        return Maps(showers.cpu().numpy(), rows.energy, rows.dx, rows.dz, n_xy, number, rows.material, name, config)

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
            thresholds: where a pixel is empty, in clean maps, shape (n, pixels * pixels).
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
        super().__init__(architecture, 1, mirror_permutations(architecture.pixels))
        a, conditions, shape = architecture, self.n_conditions, shape_dim(architecture.slabs)
        self.shape_location_scale = ConditionalLocationScale(conditions, torch.arange(shape), a.location_scale_width)
        classes = mirror_classes(a.pixels) if a.symmetric else torch.arange(a.pixels**2)
        self.pattern_location_scale = ConditionalLocationScale(conditions + shape, classes, a.location_scale_width)
        self.shape_network = ResidualMlp(shape, conditions, 0, a.shape_width, a.shape_blocks, a.embedding)
        self.pattern_network = a.unet(conditions, shape, True)

    def encode_shape(self, measured: Tensor, energy: Tensor, random: RandomNumbers) -> Tensor:
        """Return the shape alone, see `calograd.surrogate.maps.coordinates.encode_shape`."""
        return encode_shape(measured, energy, self.architecture.slabs, random)

    def encode(self, measured: Tensor, energy: Tensor, random: RandomNumbers) -> tuple[Tensor, Tensor]:
        """Return the coordinates of maps, see `calograd.surrogate.maps.coordinates.encode`."""
        return encode(measured, energy, self.architecture.slabs, random)

    def decode(self, g: Tensor, c: Tensor, energy: Tensor) -> Tensor:
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

    def standardise(
        self,
        measured: Tensor,
        energy: Tensor,
        conditions: Tensor,  # noqa: ARG002
        random: RandomNumbers,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Return no shape, and scaled pixels, see `DesignModel`."""
        return measured.new_zeros(len(measured), 0), PLAIN_SCALE * measured.flatten(1) / energy[:, None]

    def losses(
        self, x: Tensor, y: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
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

    def generate(
        self,
        conditions: Tensor,
        energy: Tensor,
        schedule: SamplingSchedule,
        random: RandomNumbers,
        options: Options = Options(),  # noqa: B008 - immutable
    ) -> Tensor:
        """Generate maps, see `Model`."""
        sampler, side = sampler_of(schedule), self.architecture.pixels
        noise = random.normal(side * side, like=conditions)
        network = self.bind(conditions, None, None, options.guidance, None)
        y = sample(
            lambda z, s: denoise(network, self.preconditioning, z, s),
            noise, sampler.grid(self.schedule, schedule.steps), sampler, random.normal_like, options.checkpointed,
        )  # fmt: skip
        return (y * energy[:, None] / PLAIN_SCALE).clamp(min=0).reshape(len(y), side, side)


MapsModel = SharesModel | PlainModel
