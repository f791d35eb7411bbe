"""The cells surrogate: a shower's cells given energy, design and material.

Two diffusion models in a row (`calograd.surrogate.two_stage`) on `calograd.surrogate.cells.coordinates`:

    shape    12 numbers   g <-> x given cond           x from diffusion given cond
    pattern  120 numbers  c <-> y given cond and x     y from diffusion given cond and x

    cond = ln E/E_c, ln dx/R_M, ln dz_k/X0, ln z_k/X0 of the layers' ends, and the logarithms of chosen numbers of the
           material

The last of the layers' ends z_k = dz_1 + ... + dz_k is the depth of the window. Leakage depends on it and not on how it
is divided; a layer's energy depends on its two ends.

Choice of material numbers: lengths in X0 and R_M and energies in E_c make showers of all materials alike to a few per
cent. At another density of the same composition they are the same showers (but for the density effect and the range
cut). The rest follows the charge of the nuclei: photons of few MeV, which make the tails, go farther in units of R_M
where it is small. The mean atomic number by mass orders PbF2, PbWO4, BGO, LYSO and CsI as R_E / R_M does, which
grows by 9 to 14 % along them; a line in its logarithm predicts each from the other four to 2.2 %. E_c, X0 and the
density do not order them so, and miss by 5 to 13 % (`docs/log.md`). With more numbers a network can memorise the few
materials. Hence Z alone is used for several materials. Density, X0, R_M and E_c are the default: those of a single
material are constants that standardise to zero, and `without_material_numbers` removes them again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.detector.design import Design
from calograd.detector.material import DESCRIPTORS, Material
from calograd.detector.particles import Particles, turn_cells, turn_vectors
from calograd.diffusion.denoisers import Network
from calograd.errors import InputError
from calograd.events.dense import Cells
from calograd.nn.elementwise import exp
from calograd.nn.location_scale import standardise
from calograd.nn.mlp import ResidualMlp
from calograd.surrogate.cells.coordinates import (
    Line,
    core_cells,
    decode,
    encode,
    encode_shape,
    pattern_dim,
    shape_dim,
    symmetry_permutations,
)
from calograd.surrogate.cells.fused import FusedCells
from calograd.surrogate.model import DesignArchitecture, Generates, Rows, numbers_of
from calograd.surrogate.two_stage import LocationScale, TwoStage
from calograd.system.random_numbers import RandomNumbers

FEWEST = 3
"""Fewest cells across of a window with a core."""
SUMS_FARTHEST = 6.0
"""Largest |y| up to which the sums of cells are followed."""


@dataclass(frozen=True)
class CellsArchitecture(DesignArchitecture):
    """Everything that fixes the shapes of the weights of cells, with all of `DesignArchitecture`.

    Args:
        pattern_width: hidden numbers of the pattern's network.
        pattern_blocks: residual blocks of the pattern's network.
        local_units: hidden units that every cell has of its own; even.
        sums: show the pattern's network how far cores and rests are from adding up.
        ends: condition on the depths of the layers' ends, too.
        beam: condition on particle, entry and direction, in the frame of `calograd.detector.particles`; smaller
            windows are then crops of this one. The shape has the centres of the layers and the shower's moments.

    Raises:
        InputError: ``beam`` with a window that has no single cell in its middle.
    """

    pattern_width: int = 512
    pattern_blocks: int = 4
    local_units: int = 4
    sums: bool = False
    ends: bool = False
    beam: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beam and (self.n_xy < FEWEST or self.n_xy % 2 == 0):
            raise InputError(
                f"{self.n_xy} cells across: expected an odd number from {FEWEST} for particles off the axis"
            )
        if self.beam:
            object.__setattr__(self, "symmetric", False)

    def build(self) -> CellsModel:
        """Return a model with random weights."""
        return CellsModel(self)


class CellsModel(TwoStage):
    """Weights and mathematics of the cells surrogate; `calograd.surrogate.Surrogate` is its public face."""

    architecture: CellsArchitecture

    def __init__(self, architecture: CellsArchitecture) -> None:
        a, depths = architecture, architecture.n_z + (architecture.n_z - 1) * architecture.ends
        shape, pattern = shape_dim(a.n_xy, a.n_z, a.beam), pattern_dim(a.n_xy, a.n_z)
        of_particles = (4 + 3 * a.n_z) * a.beam
        super().__init__(a, depths, symmetry_permutations(a.n_xy, a.n_z), shape, of_particles)
        several = int(core_cells(a.n_xy).sum())
        sizes = [several, a.n_xy**2 - several] if several > 1 else [a.n_xy**2 - several]
        self.group_sizes = sizes
        self.pattern_network = ResidualMlp(
            pattern, self.n_conditions, shape, a.pattern_width, a.pattern_blocks, a.embedding, a.local_units,
            2 * a.n_z * len(sizes) if a.sums else 0,
        )  # fmt: skip

    def depths(self, dz: Tensor) -> Tensor:
        """Return the depths of the layers, and of their ends, see `DesignModel`."""
        return torch.cat([dz, dz.cumsum(1)[:, 1:]], dim=1) if self.architecture.ends else dz

    @property
    def takes_particles(self) -> bool:
        """True if particle, entry and direction are conditions, see `Model`."""
        return self.architecture.beam

    def padded(self, dz: Tensor) -> Tensor:
        """Return the depths of all layers: those behind the last one of the design are as deep as that."""
        missing = self.architecture.n_z - dz.shape[1]
        return torch.cat([dz, dz[:, -1:].expand(-1, missing)], 1) if missing > 0 else dz

    def particle_conditions(self, dx: Tensor, dz: Tensor, particles: Particles | None) -> list[Tensor]:
        """Return the conditions of the particles, in their frame.

        Whether it is charged, and its charge; the slopes of its line; where the line is in the middle of every layer,
        in cells from the middle of the window's cell; and how many cells it crosses in every layer.
        """
        if not self.architecture.beam:
            return []
        if particles is None:
            particles = Particles.of(1, "gamma", (0.0, 0.0), 0.0, 0.0, like=dx)
        frame, slopes, charge = particles.frame(), particles.slopes(), particles.charge()[:, None]
        residuals, _ = particles.residuals(dx, dz)
        across = slopes.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt() * dz / dx[:, None]
        turned = turn_vectors(residuals, frame.expand(len(residuals)) if len(frame) == 1 else frame).flatten(1)
        return [charge.abs(), charge, turn_vectors(slopes, frame), turned, across]

    def finish(self, showers: Tensor, design: Design | None, particles: Particles | None) -> Tensor:
        """Return showers in the detector's frame and the design's window, see `Model`."""
        assert design is not None
        return self.in_window(showers, design.n_xy, design.n_z, particles)

    def in_window(self, showers: Tensor, n_xy: int, n_z: int, particles: Particles | None) -> Tensor:
        """Return showers in the detector's frame and a window of ``n_xy`` cells across and ``n_z`` layers."""
        if particles is not None:
            showers = turn_cells(showers, particles.frame().expand(len(showers)), back=True)
        edge = (self.architecture.n_xy - n_xy) // 2
        inner = slice(edge, edge + n_xy)
        return showers[:, inner, inner, :n_z]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the cells of one shower."""
        return self.architecture.n_xy, self.architecture.n_xy, self.architecture.n_z

    @property
    def most_rows(self) -> int:
        """Largest number of showers at once: any in use, since a shower takes some 10 kB."""
        return 1 << 20

    @property
    def options(self) -> frozenset[str]:
        """Names of the options: checkpoints; conditions are never dropped, so there is no guidance."""
        return frozenset({"checkpointed"})

    def fused(self) -> Generates:
        """Return the fused form of a distilled model, see `calograd.surrogate.cells.fused`."""
        return FusedCells(self) if self.distilled else self

    def record(self, showers: Tensor, rows: Rows, name: str, config: dict[str, Any]) -> Cells:
        """Return showers as `Cells`, see `Model`."""
        (dx, dz, material), number = rows.designs(), np.arange(len(showers))
        cells = showers.cpu().numpy()
        return Cells(cells, rows.energy, dx, dz, number, material, name, config, incidence=rows.incident)

    def compact(self, material: Material | None) -> CellsModel:
        """Return the model without numbers of a single material, see `without_material_numbers`."""
        return self if material is None else without_material_numbers(self, material)

    def encode_shape(self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers) -> Tensor:
        """Return the shape alone, see `calograd.surrogate.cells.coordinates.encode_shape`."""
        return encode_shape(measured, energy, random, self.line(conditions))

    def encode(
        self, measured: Tensor, energy: Tensor, conditions: Tensor, random: RandomNumbers
    ) -> tuple[Tensor, Tensor]:
        """Return the coordinates of cells, see `calograd.surrogate.cells.coordinates.encode`."""
        return encode(measured, energy, random, self.line(conditions))

    def decode(self, g: Tensor, c: Tensor, energy: Tensor, conditions: Tensor) -> Tensor:
        """Return cells from coordinates, see `calograd.surrogate.cells.coordinates.decode`."""
        return decode(g, c, energy, self.architecture.n_xy, self.architecture.n_z, self.line(conditions))

    def line(self, conditions: Tensor) -> Line | None:
        """Return the particles' lines through the layers, from standardised conditions; None without particles."""
        a = self.architecture
        if not a.beam:
            return None
        raw = conditions * self.condition_scale + self.condition_mean
        thickness = raw[:, 2 : 2 + a.n_z].exp()
        first = 2 + a.n_z + (a.n_z - 1) * a.ends + 2  # behind the charge, see `particle_conditions`
        slopes, place, across = torch.split(raw[:, first : first + 2 + 3 * a.n_z], [2, 2 * a.n_z, a.n_z], 1)
        direction = slopes / slopes.square().sum(1, keepdim=True).clamp(min=1e-12).sqrt()
        crossing = across[:, :, None] * direction[:, None]
        return Line(place.reshape(-1, a.n_z, 2), thickness, crossing)

    def pattern(
        self,
        conditions: Tensor,
        x: Tensor,
        location_scale: LocationScale,
        *,
        guidance: float = 0.0,  # noqa: ARG002 - not guided
        random: RandomNumbers | None = None,  # noqa: ARG002 - nothing is dropped
    ) -> Network:
        """Return the pattern's network with its conditions bound; its thresholds are where a cell is empty."""
        a = self.architecture
        location, scale = location_scale
        thresholds = standardise(torch.zeros_like(location), location, scale) if a.local_units else None

        def network(scaled: Tensor, noise: Tensor) -> Tensor:
            at = self.preconditioning.coefficients((4 * noise).exp()[:, None])
            q = None if thresholds is None else thresholds * at.into
            output: Tensor = self.pattern_network(scaled, noise, conditions, x, q)
            if not a.sums:
                return output
            result, gains = output[:, : scaled.shape[1]], output[:, scaled.shape[1] :]
            clean = at.skip / at.into * scaled + at.out * result
            return result + self.towards_sums(clean, location, scale, gains, at.out) / at.out

        return network

    def towards_sums(self, y: Tensor, location: Tensor, scale: Tensor, gains: Tensor, out: Tensor | float) -> Tensor:
        """Return the shortest step in y that brings the sums of c^3 of cores and rests closer to one.

        With s = sum c_i^3 and v_i = ds / dy_i a step of (1 - s) v_i / |v|^2 does it to first order. The gains scale the
        step: all of it is right at little noise, little of it at much noise, because a mean of samples does not keep
        their sum of third powers.

        An offset in the step serves sums that are not one. With ``beam`` it is in units of c_out (``out``): a free one
        of 0.3 moved narrow cells by 200 times the noise where that is little, and the loss rose with the learning rate.
        """
        a = self.architecture
        y = y.clamp(-SUMS_FARTHEST, SUMS_FARTHEST)
        up = exp(y / 2)
        down = 1 / up
        c = (location + scale * (up - down)).clamp(min=0)  # as `restore`, by the exponentials that dc / dy needs
        squares = c.square()
        cubes = squares * c
        slope = 1.5 * squares * scale * (up + down)
        groups = (len(y), -1, a.n_z)
        missing = 1 - self._sums(cubes.reshape(groups))
        length = self._sums(slope.square().reshape(groups)) + 1e-2
        offset, gain = gains.reshape(len(y), 2, -1, a.n_z).unbind(1)
        if a.beam:
            offset = offset * (out.reshape(-1, 1, 1) if isinstance(out, Tensor) else out)
        step = (offset + gain * missing) / length
        each = [of[:, None].expand(-1, size, -1) for of, size in zip(step.unbind(1), self.group_sizes, strict=True)]
        return (torch.cat(each, 1) * slope.reshape(groups)).flatten(1)

    def _sums(self, values: Tensor) -> Tensor:
        """Return sums over the cells of core and rest, shape (n, groups, n_z), of values (n, cells, n_z)."""
        parts = torch.split(values, self.group_sizes, 1)
        return torch.stack([part.sum(1) for part in parts], 1)


def with_material_numbers(model: CellsModel, fresh: CellsModel) -> CellsModel:
    """Return the function of ``model`` in ``fresh``, which may have further material numbers as conditions.

    The further conditions begin with no influence, standardised as in ``fresh``. Weights and standardisation of all
    else are those of ``model``. `without_material_numbers` is the inverse.
    """
    count = fresh.n_conditions - model.n_conditions
    weights = dict(model.state_dict())
    if count:
        for name in ("condition_mean", "condition_scale"):
            weights[name] = torch.cat([weights[name], getattr(fresh, name)[-count:]])
        for name, first in _condition_weights(model):
            weight = weights[name]
            weights[name] = torch.cat([weight[:, :first], weight.new_zeros(len(weight), count), weight[:, first:]], 1)
    fresh.load_state_dict(weights)
    return fresh


def _condition_weights(model: CellsModel) -> list[tuple[str, int]]:
    """Return the names of the weights that see the conditions, and the column behind the last of these."""
    networks = (
        "shape_location_scale.network",
        "pattern_location_scale.network",
        "shape_network.embed",
        "pattern_network.embed",
    )
    weights = model.state_dict()
    return [
        (f"{name}.0.weight", model.n_conditions if "location_scale" in name else weights[f"{name}.0.weight"].shape[1])
        for name in networks
    ]


def without_material_numbers(model: CellsModel, material: Material) -> CellsModel:
    """Return the same model for one material alone: the terms of its numbers become part of the layers' biases.

    The result knows lengths in X0 and R_M and energies in E_c alone, so it serves any density of the material.
    """
    a, count = model.architecture, len(model.architecture.material_numbers)
    if not count:
        return model
    chosen = [DESCRIPTORS.index(name) for name in a.material_numbers]
    numbers = numbers_of(material, like=model.condition_mean)[0, chosen].log()
    constant = (numbers - model.condition_mean[-count:]) / model.condition_scale[-count:]
    weights = dict(model.state_dict())
    for name in ("condition_mean", "condition_scale"):
        weights[name] = weights[name][:-count]
    for name, behind in _condition_weights(model):
        weight, bias = weights[name], name.replace(".weight", ".bias")
        first = behind - count
        weights[name] = torch.cat([weight[:, :first], weight[:, behind:]], dim=1)
        weights[bias] = weights[bias] + weight[:, first:behind] @ constant
    with torch.random.fork_rng(devices=[]):  # the first weights, which are replaced, are random
        result = CellsModel(replace(a, material_numbers=())).to(model.condition_mean)
    result.load_state_dict(weights)
    return result.train(model.training)
