"""The utility over pitch and depth, from showers that are generated once for each material, energy, beam and window.

A design of the grid has pitch dx and mean depth dz; its layers keep the proportions of the selection. Background and
price are applied to cached showers, so that changing them takes milliseconds. All points share random numbers. Between
the points ln U is interpolated by cubic splines in ln dx and ln dz.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from scipy.interpolate import RectBivariateSpline

from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.detector.particles import ON_AXIS, ParticleBeam
from calograd.explorer.selection import Selection, SelectionLimits
from calograd.gradients.autodiff import BACKGROUND, SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.landscape import Landscape, grid
from calograd.surrogate import Surrogate

POINTS = 7
"""Points of the grid along each axis."""
FINE = 140
"""Points of the interpolation along each axis."""
EVENTS, STEPS = 48, 8
"""Showers at each point of the grid, and steps of their sampler."""
CACHE_SIZE = 12
"""Number of grids whose showers are cached."""

Key = tuple[float | str | tuple[float, ...] | ParticleBeam | None, ...]


def few_steps(surrogate: Surrogate, steps: int) -> int | None:
    """Return how many steps to sample in at most; None for a distilled surrogate, which has its own."""
    return None if surrogate.model.distilled else steps


@dataclass(frozen=True)
class Surface:
    """The utility on a grid of pitches and depths.

    Args:
        selection: energy, material, background and price.
        dx, dz: pitches (a,) and mean depths (b,), cm, evenly spaced in the logarithm.
        values: utilities, shape (a, b), 1/GeV2.
        source: name of the surrogate.
    """

    selection: Selection
    dx: np.ndarray
    dz: np.ndarray
    values: np.ndarray
    source: str

    @cached_property
    def fine(self) -> Landscape:
        """Return the interpolated landscape with its slopes."""
        x, z = np.log(self.dx), np.log(self.dz)
        spline = RectBivariateSpline(x, z, np.log(self.values))
        u, w = np.linspace(x[0], x[-1], FINE), np.linspace(z[0], z[-1], FINE)
        values = np.exp(spline(u, w))
        slopes = np.stack([values * spline(u, w, dx=1), values * spline(u, w, dy=1)], axis=2)
        return Landscape(self.source, np.exp(u), np.exp(w), values, slopes)


class LandscapeCache:
    """Computes landscapes and caches the showers that they are computed from.

    Args:
        surrogate: the surrogate that generates the showers.
        limits: its limits.
        seed: seed of all random numbers.
    """

    def __init__(self, surrogate: Surrogate, limits: SelectionLimits, seed: int) -> None:
        self._surrogate = surrogate
        self._limits = limits
        self._seed = seed
        self._showers: OrderedDict[Key, dict[int, torch.Tensor]] = OrderedDict()
        self._lock = Lock()

    def compute(self, selection: Selection) -> Iterator[float | Surface]:
        """Yield the share of the work that is done, one row of points after another, and finally the surface.

        Showers stay cached when the work is abandoned.

        Raises:
            RangeError: the surrogate does not know the material.
        """
        ends = self._limits.sizes(selection)
        dx, dz = (grid(*each, POINTS) for each in ends)
        ratios = np.array(selection.dz) / selection.depth
        showers = self._cached(selection, tuple(ratios.round(6).tolist()))
        material = self._limits.material(selection)
        designs = [[self._design(selection, float(x), np.clip(ratios * z, *ends[1]), material) for z in dz] for x in dx]
        for i, row in enumerate(designs):
            if i not in showers:
                yield i / POINTS
                particles = [
                    self._surrogate.particles(
                        each, EVENTS, selection.beam or ON_AXIS, generator=generator_for(self._seed, SHOWERS, 3)
                    )
                    for each in row
                ]
                generator = generator_for(self._seed, SHOWERS, 3)
                with torch.inference_mode():
                    made = self._surrogate.sample_designs(
                        row, selection.energy, EVENTS, generator=generator, particles=particles,
                        steps=few_steps(self._surrogate, STEPS),
                    )  # fmt: skip
                showers[i] = made.clone()
        objective = self._limits.objective(selection)
        numbers = objective.draw(EVENTS, selection.n_xy, selection.n_z, generator_for(self._seed, BACKGROUND, 3))
        with torch.no_grad():
            values = [
                [
                    float(objective.value([cells], design, numbers))
                    for cells, design in zip(showers[i], row, strict=True)
                ]
                for i, row in enumerate(designs)
            ]
        yield Surface(selection, dx, dz, np.array(values), self._surrogate.card.name)

    def _design(self, selection: Selection, dx: float, depths: np.ndarray, material: Material) -> Design:
        dz = float(depths[0]) if selection.equal else tuple(depths.tolist())
        return Design(dx, dz, material, selection.n_xy, selection.n_z)

    def _cached(self, selection: Selection, ratios: tuple[float, ...]) -> dict[int, torch.Tensor]:
        """Return the cached showers of an energy, a material, a beam and a window, by row of the grid."""
        key = (selection.energy, selection.material, selection.density, ratios, selection.n_xy, selection.beam)
        with self._lock:
            found = self._showers.setdefault(key, {})
            self._showers.move_to_end(key)
            while len(self._showers) > CACHE_SIZE:
                self._showers.popitem(last=False)
        return found
