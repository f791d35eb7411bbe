"""A quantity over two sizes of a design, from showers that are generated once for everything else that they depend on.

Of cells it is the utility over pitch and depth, of stacks the resolution over the thicknesses of absorber and active
plate. All points share random numbers. Between the points its logarithm is interpolated by cubic splines in the
logarithms of the sizes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from scipy.interpolate import RectBivariateSpline

from calograd.explorer.kinds import Kind, MapAxes
from calograd.gradients.landscape import Landscape, grid

POINTS = 7
"""Points of the grid along each axis."""
FINE = 140
"""Points of the interpolation along each axis."""
CACHE_SIZE = 12
"""Number of grids whose showers are cached."""


@dataclass(frozen=True)
class Surface:
    """A quantity on a grid of two sizes.

    Args:
        selection: everything else of the design, and its conditions.
        axes: sizes and quantity.
        x, y: the sizes, shapes (a,) and (b,), cm, evenly spaced in the logarithm.
        values: the quantity, shape (a, b).
        source: name of the surrogate.
    """

    selection: Any
    axes: MapAxes
    x: np.ndarray
    y: np.ndarray
    values: np.ndarray
    source: str

    @cached_property
    def fine(self) -> Landscape:
        """Return the interpolated landscape with its slopes."""
        x, y = np.log(self.x), np.log(self.y)
        spline = RectBivariateSpline(x, y, np.log(self.values))
        u, w = np.linspace(x[0], x[-1], FINE), np.linspace(y[0], y[-1], FINE)
        values = np.exp(spline(u, w))
        slopes = np.stack([values * spline(u, w, dx=1), values * spline(u, w, dy=1)], axis=2)
        return Landscape(self.source, np.exp(u), np.exp(w), values, slopes, self.axes.least)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        sizes = dict(zip(self.axes.names, (self.x.tolist(), self.y.tolist()), strict=True))
        return {**sizes, "values": self.values.tolist()}


class LandscapeCache:
    """Computes landscapes and caches the showers that they are computed from.

    Args:
        kind: generates the showers.
        source: name of the surrogate.
    """

    def __init__(self, kind: Kind, source: str) -> None:
        self._kind = kind
        self._source = source
        self._showers: OrderedDict[Hashable, dict[int, Any]] = OrderedDict()
        self._lock = Lock()

    def compute(self, selection: Any) -> Iterator[float | Surface]:
        """Yield the share of the work that is done, one row of points after another, and finally the surface.

        Showers stay cached when the work is abandoned.

        Raises:
            RangeError: the surrogate does not know the material.
        """
        axes = self._kind.limits.axes(selection)
        x, y = (grid(low, high, POINTS) for low, high in axes.ranges)
        showers = self._cached(self._kind.grid_key(selection))
        for i, at in enumerate(x):
            if i not in showers:
                yield i / POINTS
                showers[i] = self._kind.grid_row(selection, float(at), y)
        values = self._kind.grid_values(selection, x, y, [showers[i] for i in range(POINTS)])
        yield Surface(selection, axes, x, y, values, self._source)

    def _cached(self, key: Hashable) -> dict[int, Any]:
        """Return the cached showers of a key, by row of the grid."""
        with self._lock:
            found = self._showers.setdefault(key, {})
            self._showers.move_to_end(key)
            while len(self._showers) > CACHE_SIZE:
                self._showers.popitem(last=False)
        return found
