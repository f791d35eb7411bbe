"""Cloud files: showers of a layered detector as points (HDF5, schema ``calograd/clouds/1``).

A point is energy e at (x, y) in a layer. Shower s owns the points ``offsets[s]:offsets[s + 1]`` of the flat datasets
``x y`` (cm, the shower's axis at 0), ``layer`` (from 0) and ``e`` (GeV); within a shower they are in order of layers.
A file may have ``hits``, how many cells of Geant4's deposits a shower has above the threshold, where its points are
not such that they tell. There is no padding: what other programs pad with (points without energy) is left out when a
file is read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import FormatError
from calograd.io.checksum import check_seal, seal
from calograd.io.hdf5 import existing_file, load, new_file, refuse_existing

SCHEMA = "calograd/clouds/1"
LAYERS = 30
"""Of the silicon-tungsten stack."""
PITCH = 0.50883
"""Of its cells, cm."""
_POINTS = {"x": "<f4", "y": "<f4", "layer": "u1", "e": "<f4"}
_HEADS = {"offsets": "<i8", "energy": "<f4", "shower": "<i8"}
HITS = "hits"
_CHUNK = 1 << 17


@dataclass(frozen=True)
class Clouds:
    """Showers as points.

    Args:
        x, y: positions, shape (points,), cm, float32.
        layer: from 0, shape (points,), int64; in order within a shower.
        e: energies, shape (points,), GeV, float32, above zero.
        offsets: shape (n + 1,), int64.
        energy: incident energy, shape (n,), GeV, float32.
        shower: which shower of the source each is, shape (n,), int64.
        layers: of the detector.
        origin: ``geant4`` or the name of a surrogate.
        config: what made them, as plain data.
        hits: cells above the threshold by all deposits, shape (n,), int64; None where the points tell.
    """

    x: np.ndarray
    y: np.ndarray
    layer: np.ndarray
    e: np.ndarray
    offsets: np.ndarray
    energy: np.ndarray
    shower: np.ndarray
    layers: int = LAYERS
    origin: str = "geant4"
    config: dict[str, Any] = field(default_factory=dict)
    hits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def counts(self) -> np.ndarray:
        """Points of every shower, shape (n,)."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> np.ndarray:
        """Which of these showers owns a point, from 0, shape (points,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def rows(self, which: np.ndarray | slice) -> Clouds:
        """The chosen showers, by mask, indices or slice, in that order."""
        chosen = np.arange(len(self))[which]
        counts = self.counts[chosen]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        points = np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], counts)
        return Clouds(
            self.x[points], self.y[points], self.layer[points], self.e[points], offsets, self.energy[chosen],
            self.shower[chosen], self.layers, self.origin, self.config,
            None if self.hits is None else self.hits[chosen],
        )  # fmt: skip

    def layer_sums(self, values: np.ndarray | None = None) -> np.ndarray:
        """Sum over the points of every shower and layer, shape (n, layers), float64; of ones: the counts."""
        place = self.owner * self.layers + self.layer
        sums = np.bincount(place, weights=values, minlength=len(self) * self.layers)
        return sums.reshape(len(self), self.layers).astype(np.float64)


def tidy(
    x: np.ndarray, y: np.ndarray, layer: np.ndarray, e: np.ndarray, owner: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, layer, e and offsets of points with energy, in order of showers and layers, of points in any order.

    Args:
        x, y, layer, e: of the points, shape (points,).
        owner: the shower of each, below ``n``, shape (points,).
        n: number of showers.
    """
    order = np.flatnonzero(e > 0)
    place = owner[order].astype(np.int64) * 256 + layer[order].astype(np.int64)
    if (np.diff(place) < 0).any():
        order = order[np.argsort(place, kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner[order], minlength=n))]).astype(np.int64)
    return (
        x[order].astype(np.float32), y[order].astype(np.float32), layer[order].astype(np.int64),
        e[order].astype(np.float32), offsets,
    )  # fmt: skip


def write_clouds(path: Path, clouds: Clouds) -> None:
    """Write a cloud file.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    with new_file(path, SCHEMA) as file:
        n = len(clouds.e)
        packing: dict[str, Any] = {"chunks": (min(n, _CHUNK),), "compression": "gzip", "compression_opts": 4,
                                   "shuffle": True} if n else {}  # fmt: skip
        for name, kind in _POINTS.items():
            file.create_dataset(name, data=getattr(clouds, name).astype(kind), **packing)
        for name, kind in _HEADS.items():
            file[name] = getattr(clouds, name).astype(kind)
        if clouds.hits is not None:
            file[HITS] = clouds.hits.astype("<i8")
        file.attrs["layers"] = clouds.layers
        file.attrs["origin"] = clouds.origin
        file.attrs["config"] = json.dumps(clouds.config)
        seal(file, (*_POINTS, *_HEADS, *([] if clouds.hits is None else [HITS])))


def read_clouds(path: Path) -> Clouds:
    """Read a cloud file. Points in any order of layers are sorted, those without energy left out.

    Raises:
        FormatError: missing, cut off, of another kind, newer, with inconsistent shapes, NaN or negative energies, or
            layers outside the detector.
    """
    with existing_file(path, SCHEMA) as file:
        missing = [name for name in (*_POINTS, *_HEADS) if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of schema '{SCHEMA}'")
        points = {name: load(file, name) for name in _POINTS}
        heads = {name: load(file, name) for name in (*_HEADS, HITS) if name in file}
        attributes = dict(file.attrs)
        layers, origin = int(attributes.get("layers", LAYERS)), str(attributes.get("origin", "unknown"))
        config = json.loads(attributes.get("config", "{}"))
    flat = {name: values.shape for name, values in {**points, **heads}.items() if values.ndim != 1}
    for name, shape in flat.items():
        raise FormatError(f"{path}: {name} has shape {shape}, expected a number for every point or shower")
    for name in ("offsets", "shower", HITS):
        if name in heads and heads[name].dtype.kind not in "iu":
            raise FormatError(f"{path}: {name} is of type {heads[name].dtype}, expected whole numbers")
    n = len(heads["energy"])
    offsets = heads["offsets"]
    if offsets.shape != (n + 1,) or heads["shower"].shape != (n,):
        raise FormatError(f"{path}: {n} energies, {len(offsets)} offsets, {len(heads['shower'])} numbers of showers; "
                          "expected one more offset and as many numbers as energies")  # fmt: skip
    if HITS in heads and heads[HITS].shape != (n,):
        raise FormatError(f"{path}: {n} energies, {len(heads[HITS])} numbers of hits; expected as many")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or {len(v) for v in points.values()} != {int(offsets[-1])}:
        raise FormatError(f"{path}: the offsets do not fit the {len(points['e'])} points; the file is damaged")
    check_points(str(path), heads["energy"], layers, **points)
    check_seal(attributes, points | heads, path)
    owner = np.repeat(np.arange(n), np.diff(offsets))
    x, y, layer, e, offsets = tidy(points["x"], points["y"], points["layer"], points["e"], owner, n)
    energy = heads["energy"].astype(np.float32)
    hits = heads[HITS].astype(np.int64) if HITS in heads else None
    return Clouds(x, y, layer, e, offsets, energy, heads["shower"].astype(np.int64), layers, origin, config, hits)


def check_points(
    source: str, energy: np.ndarray, layers: int, x: np.ndarray, y: np.ndarray, layer: np.ndarray, e: np.ndarray
) -> None:
    """Raise `FormatError` naming ``source`` unless these are points that showers in ``layers`` layers can have."""
    for name, values in (("energy", energy), ("x", x), ("y", y), ("layer", layer), ("e", e)):
        if values.dtype.kind not in "iuf":
            raise FormatError(f"{source}: {name} is of type {values.dtype}, expected numbers")
    if not (np.isfinite(energy) & (energy > 0)).all():
        row = int(np.argmin(np.isfinite(energy) & (energy > 0)))
        raise FormatError(f"{source}: the incident energy of shower {row} is {energy[row]:g}, expected positive GeV")
    for name, values in (("x", x), ("y", y), ("e", e)):
        if not np.isfinite(values).all():
            raise FormatError(f"{source}: {name} of point {int(np.argmin(np.isfinite(values)))} is no finite number")
    if (e < 0).any():
        raise FormatError(f"{source}: point {int(np.argmax(e < 0))} has a negative energy; make the file anew")
    outside = (layer < 0) | (layer >= layers)
    if outside.any():
        first = int(np.argmax(outside))
        raise FormatError(
            f"{source}: point {first} is in layer {layer[first]:g}, the detector has the layers 0 to {layers - 1}"
        )
