"""The utility over pitch and depth, from showers that are generated once for every material and energy.

Background and price are applied to the kept showers, so that changing these costs milliseconds. A design of the grid
has the pitch dx and layers of mean depth dz in the proportions of the choice. All points have common random numbers;
between them ln U is interpolated by cubic splines in ln dx and ln dz.
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
from calograd.explorer.selection import Choice, Limits
from calograd.gradients.autodiff import BACKGROUND, SHOWERS, generator_for
from calograd.gradients.landscape import Landscape, grid
from calograd.surrogate import Surrogate

POINTS = 7
"""Of the grid, each way."""
FINE = 140
"""Of the interpolation, each way."""
EVENTS, STEPS = 48, 8
"""Showers at a point, and the steps of their sampler."""
KEPT = 12
"""Sets of showers that are kept."""

Key = tuple[float | str | tuple[float, ...], ...]


@dataclass(frozen=True)
class Surface:
    """The utility on a grid.

    Args:
        choice: the energy, material, background and price.
        dx, dz: shapes (a,) and (b,), cm, even in the logarithm.
        values: shape (a, b), 1/GeV2.
        source: the surrogate's name.
    """

    choice: Choice
    dx: np.ndarray
    dz: np.ndarray
    values: np.ndarray
    source: str

    @cached_property
    def fine(self) -> Landscape:
        """Interpolated, with slopes."""
        x, z = np.log(self.dx), np.log(self.dz)
        spline = RectBivariateSpline(x, z, np.log(self.values))
        u, w = np.linspace(x[0], x[-1], FINE), np.linspace(z[0], z[-1], FINE)
        values = np.exp(spline(u, w))
        slopes = np.stack([values * spline(u, w, dx=1), values * spline(u, w, dy=1)], axis=2)
        return Landscape(self.source, np.exp(u), np.exp(w), values, slopes)


class Surveyor:
    """Makes surfaces and keeps the showers that they are made of.

    Args:
        surrogate: what generates.
        limits: its ranges.
        seed: of all random numbers.
    """

    def __init__(self, surrogate: Surrogate, limits: Limits, seed: int) -> None:
        self._surrogate = surrogate
        self._limits = limits
        self._seed = seed
        self._showers: OrderedDict[Key, dict[tuple[int, int], torch.Tensor]] = OrderedDict()
        self._lock = Lock()

    def survey(self, choice: Choice) -> Iterator[float | Surface]:
        """Shares of the work that are done, then the surface. What is done is kept when the work is dropped.

        Raises:
            RangeError: a material that the surrogate does not know.
        """
        ends = self._limits.sizes(choice)
        dx, dz = (grid(*each, POINTS) for each in ends)
        ratios = np.array(choice.dz) / choice.depth
        showers = self._kept(choice, tuple(ratios.round(6).tolist()))
        designs = {
            (i, j): self._design(choice, float(dx[i]), np.clip(ratios * dz[j], *ends[1]))
            for i in range(POINTS)
            for j in range(POINTS)
        }
        for number, (place, design) in enumerate(designs.items()):
            if place not in showers:
                yield number / len(designs)
                generator = generator_for(self._seed, SHOWERS, 3)
                with torch.inference_mode():
                    made = self._surrogate.sample(design, choice.energy, EVENTS, generator=generator, steps=STEPS)
                showers[place] = made.clone()
        objective, values = self._limits.objective(choice), np.empty((POINTS, POINTS))
        numbers = objective.draw(EVENTS, self._limits.n_xy, self._limits.n_z, generator_for(self._seed, BACKGROUND, 3))
        with torch.no_grad():
            for place, design in designs.items():
                values[place] = float(objective.value([showers[place]], design, numbers))
        yield Surface(choice, dx, dz, values, self._surrogate.card.name)

    def _design(self, choice: Choice, dx: float, depths: np.ndarray) -> Design:
        dz = float(depths[0]) if choice.equal else tuple(depths.tolist())
        return Design(dx, dz, self._limits.material(choice), self._limits.n_xy, self._limits.n_z)

    def _kept(self, choice: Choice, ratios: tuple[float, ...]) -> dict[tuple[int, int], torch.Tensor]:
        """The showers made so far for an energy, a material and proportions of the layers."""
        key = (choice.energy, choice.material, choice.density, ratios)
        with self._lock:
            found = self._showers.setdefault(key, {})
            self._showers.move_to_end(key)
            while len(self._showers) > KEPT:
                self._showers.popitem(last=False)
        return found
