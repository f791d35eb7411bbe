"""Showers of a layered detector as points, in memory and on disk (HDF5, schema ``calograd/clouds/1``).

A point is energy e at (x, y) in a layer. Shower s owns the points ``offsets[s]:offsets[s + 1]`` of the flat datasets
``x y`` (cm, the shower's axis at 0), ``layer`` (from 0) and ``e`` (GeV); within a shower they are in order of layers.
There is no padding: points without energy are left out when a file is read.

In stacks of plates each shower has its own number of layers ``n_layers`` (n,), at most the attribute ``layers``. The
axis is the particle's straight line: x = y = 0 in every layer is where it crosses the middle of the active plate
(`calograd.events.clustering`). Directions of x and y are those of the detector.

A file may have further datasets of one number a shower. ``hits`` is the number of cells that Geant4's deposits raise
above the threshold, if it does not follow from the points. ``pdg`` is the incident particle's number in the scheme of
the Particle Data Group; ``theta`` and ``phi`` are its direction in degrees. A dataset that is missing is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from calograd.detector.configuration import PDG, SiWStack
from calograd.detector.incidence import UNKNOWN, Incidence, beam_of
from calograd.errors import FormatError, InputError
from calograd.events.dense import as_json, as_numbers, json_attribute
from calograd.events.ragged import Ragged, offsets_of, offsets_problem, owners
from calograd.io.files import refuse_existing
from calograd.io.hdf5 import existing_file, load, verify_checksum, write_columns

SCHEMA = "calograd/clouds/1"
LAYERS = SiWStack().n_layers
"""Number of layers of a file that does not state it."""
PITCH = SiWStack.CELL
"""Default pitch of cells, cm: that of the silicon-tungsten stack."""
_FLAT = {"x": "<f4", "y": "<f4", "layer": "u1", "e": "<f4"}
_HEADS = {"offsets": "<i8", "energy": "<f4", "shower": "<i8"}
_OPTIONAL = {"hits": "<i8", "pdg": "<i4", "theta": "<f4", "phi": "<f4", "n_layers": "<i4"}
"""Columns of one number a shower that a file may lack."""
_CHUNK = 1 << 17
"""Number of points in a chunk."""
_WHOLE = ("offsets", "shower", "hits", "pdg", "n_layers")
"""Columns of whole numbers."""


@dataclass(frozen=True)
class PointShowers(Ragged):
    """Showers as points, in arrays; `calograd.events.points.Points` holds them as tensors.

    Args:
        x, y: positions, shape (points,), cm, float32.
        layer: layer of every point, from 0, shape (points,), int64; in order within a shower.
        e: energies, shape (points,), GeV, float32, above zero.
        offsets: shape (n + 1,), int64.
        energy: incident energy, shape (n,), GeV, float32.
        shower: number of every shower in its source, shape (n,), int64.
        layers: number of layers of the detector, of stacks of plates the largest that a shower can have.
        origin: ``geant4`` or the name of a surrogate.
        config: what made them, as plain data.
        hits: cells above the threshold by all deposits, shape (n,), int64; None if they follow from the points.
        pdg: number of the incident particle in the scheme of the Particle Data Group, shape (n,); None if unknown.
        theta, phi: direction of the incident particle, angle to the normal and azimuth, shape (n,), degrees; None if
            unknown.
        n_layers: number of layers of every shower's stack of plates, shape (n,); None if all have ``layers`` layers.
    """

    FLAT: ClassVar = ("x", "y", "layer", "e")
    HEADS: ClassVar = ("energy", "shower", *_OPTIONAL)
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
    pdg: np.ndarray | None = None
    theta: np.ndarray | None = None
    phi: np.ndarray | None = None
    n_layers: np.ndarray | None = None

    @property
    def totals(self) -> np.ndarray:
        """Energy of the points of every shower, shape (n,), GeV."""
        return np.asarray(self.layer_sums(self.e).sum(1))

    @property
    def incident(self) -> Incidence:
        """The incident particle of every shower; what no column says is that of the beam in the configuration."""
        columns = {"particle": self.pdg, "theta": self.theta, "phi": self.phi}
        known = {name: column for name, column in columns.items() if column is not None}
        said = {name: value for name, value in (beam_of(self.config) or {}).items() if name not in known}
        beam = Incidence.of_beam(said, len(self))
        if "particle" in known:
            known["particle"] = np.where(np.isin(known["particle"], list(PDG.values())), known["particle"], UNKNOWN)
        return replace(beam, **known)

    def write(self, path: Path) -> None:
        """Write the file of these showers, see `write_points`."""
        write_points(path, self)

    def layer_sums(self, values: np.ndarray | None = None) -> np.ndarray:
        """Return sums over the points of every shower and layer, shape (n, layers), float64.

        Args:
            values: what to sum, shape (points,); None counts the points.
        """
        key = self.owner * self.layers + self.layer
        sums = np.bincount(key, weights=values, minlength=len(self) * self.layers)
        return sums.reshape(len(self), self.layers).astype(np.float64)


def sort_points(
    x: np.ndarray, y: np.ndarray, layer: np.ndarray, e: np.ndarray, owner: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, layer, e and offsets of the points with energy, in order of showers and layers.

    Args:
        x, y, layer, e: points in any order, shape (points,).
        owner: shower of each point, below ``n``, shape (points,).
        n: number of showers.
    """
    order = np.flatnonzero(e > 0)
    key = owner[order].astype(np.int64) * 256 + layer[order].astype(np.int64)
    if (np.diff(key) < 0).any():
        order = order[np.argsort(key, kind="stable")]
    return (
        x[order].astype(np.float32), y[order].astype(np.float32), layer[order].astype(np.int64),
        e[order].astype(np.float32), offsets_of(np.bincount(owner[order], minlength=n)),
    )  # fmt: skip


def incident_columns(config: dict[str, Any], n: int) -> dict[str, np.ndarray]:
    """Return ``pdg``, ``theta`` and ``phi`` of n showers from what is stored of their simulation; nothing if unknown.

    Args:
        config: configuration of the showers; the beam is in its table ``simulation``, or in ``beam`` itself.
        n: number of showers.

    What differs from shower to shower is unknown here.
    """
    beam = (config.get("simulation") or {}).get("beam") or config.get("beam") or {}
    fixed = {name: value for name, value in beam.items() if not isinstance(value, list | tuple)}
    columns = {"pdg": np.full(n, PDG[fixed["particle"]])} if fixed.get("particle") in PDG else {}
    if "theta" in fixed and ("phi" in fixed or ("phi" not in beam and fixed["theta"] == 0)):
        columns |= {name: np.full(n, fixed.get(name, 0.0), np.float32) for name in ("theta", "phi")}
    return columns


def write_points(path: Path | str, showers: PointShowers) -> None:
    """Write a points file. Arrays may be anything that numpy or torch turns into numbers.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: the file cannot be written, or could not be read again: inconsistent shapes, NaN, negative energies.
    """
    path = Path(path)
    refuse_existing(path)
    names = (*_FLAT, *_HEADS, *(name for name in _OPTIONAL if getattr(showers, name) is not None))
    arrays = {name: as_numbers(getattr(showers, name), path, name) for name in names}
    problem = points_problem(arrays, showers.layers)
    if problem:
        raise InputError(f"{path} is not written: {problem}")
    arrays = {name: values.astype((_FLAT | _HEADS | _OPTIONAL)[name]) for name, values in arrays.items()}
    attributes = {"layers": showers.layers, "origin": showers.origin, "config": as_json(showers.config, path)}
    write_columns(path, SCHEMA, arrays, attributes, dict.fromkeys(_FLAT, (min(len(arrays["e"]), _CHUNK),)))


def read_points(path: Path | str) -> PointShowers:
    """Read a points file. Points in any order of layers are sorted, those without energy are left out.

    Raises:
        FormatError: the file is missing, cut off, of another kind or newer, or holds inconsistent shapes, NaN or
            negative energies, or layers outside the detector.
    """
    path = Path(path)
    with existing_file(path, SCHEMA, (*_FLAT, *_HEADS)) as file:
        arrays = {name: load(file, name) for name in (*_FLAT, *_HEADS, *_OPTIONAL) if name in file}
        attributes = dict(file.attrs)
        layers, origin = int(attributes.get("layers", LAYERS)), str(attributes.get("origin", "unknown"))
    problem = points_problem(arrays, layers)
    if problem:
        raise FormatError(f"{path}: {problem}")
    verify_checksum(attributes, arrays, path)
    x, y, layer, e = (arrays[name] for name in _FLAT)
    owner, n = owners(arrays["offsets"].astype(np.int64)), len(arrays["energy"])
    x, y, layer, e, offsets = sort_points(x, y, layer, e, owner, n)
    config = json_attribute(attributes, path)
    kinds = {name: np.int64 if name in _WHOLE else np.float32 for name in _OPTIONAL if name in arrays}
    optional = incident_columns(config, n) | {name: arrays[name].astype(kind) for name, kind in kinds.items()}
    return PointShowers(
        x, y, layer, e, offsets, arrays["energy"].astype(np.float32), arrays["shower"].astype(np.int64), layers, origin,
        config, **optional,
    )  # fmt: skip


def points_problem(arrays: dict[str, np.ndarray], layers: int) -> str | None:
    """Return what is wrong with the arrays of showers as points, or None; readers and writers share it."""
    for name, values in arrays.items():
        if values.ndim != 1:
            return f"{name} has shape {values.shape}, expected a number for every point or shower"
        if name in _WHOLE and values.dtype.kind not in "iu":
            return f"{name} is of type {values.dtype}, expected whole numbers"
    n = len(arrays["energy"])
    for name in ("shower", *_OPTIONAL):
        if name in arrays and arrays[name].shape != (n,):
            return f"{n} energies, {len(arrays[name])} numbers of {name}; expected as many"
    for name in ("theta", "phi"):
        if name in arrays and not np.isfinite(arrays[name]).all():
            return f"{name} holds numbers that are not finite"
    problem = offsets_problem(arrays["offsets"], n, {len(arrays[name]) for name in _FLAT})
    problem = problem or values_problem(arrays["energy"], layers, *(arrays[name] for name in _FLAT))
    return problem or (_stacks_problem(arrays, layers) if "n_layers" in arrays else None)


def _stacks_problem(arrays: dict[str, np.ndarray], layers: int) -> str | None:
    """Return what is wrong with the numbers of layers of the showers, or None."""
    own = arrays["n_layers"]
    bad = (own < 1) | (own > layers)
    if bad.any():
        return f"shower {int(np.argmax(bad))} has {own[bad][0]} layers, expected 1 to {layers}"
    of = own[owners(arrays["offsets"].astype(np.int64))]
    outside = arrays["layer"] >= of
    if outside.any():
        first = int(np.argmax(outside))
        return f"point {first} is in layer {arrays['layer'][first]:g}, its shower has the layers 0 to {of[first] - 1}"
    return None


def values_problem(
    energy: np.ndarray, layers: int, x: np.ndarray, y: np.ndarray, layer: np.ndarray, e: np.ndarray
) -> str | None:
    """Return what is wrong with the values of points in ``layers`` layers, or None."""
    for name, values in (("energy", energy), ("x", x), ("y", y), ("layer", layer), ("e", e)):
        if values.dtype.kind not in "iuf":
            return f"{name} is of type {values.dtype}, expected numbers"
    positive = np.isfinite(energy) & (energy > 0)
    if not positive.all():
        row = int(np.argmin(positive))
        return f"the incident energy of shower {row} is {energy[row]:g}, expected positive GeV"
    for name, values in (("x", x), ("y", y), ("e", e)):
        if not np.isfinite(values).all():
            return f"{name} of point {int(np.argmin(np.isfinite(values)))} is no finite number"
    if (e < 0).any():
        return f"point {int(np.argmax(e < 0))} has a negative energy; make the file anew"
    outside = ~((layer >= 0) & (layer < layers))
    if outside.any():
        first = int(np.argmax(outside))
        return f"point {first} is in layer {layer[first]:g}, the detector has the layers 0 to {layers - 1}"
    return None


def check_points(
    source: str, energy: np.ndarray, layers: int, x: np.ndarray, y: np.ndarray, layer: np.ndarray, e: np.ndarray
) -> None:
    """Raise `FormatError` that begins with ``source`` if the values of points cannot be; see `values_problem`."""
    problem = values_problem(energy, layers, x, y, layer, e)
    if problem:
        raise FormatError(f"{source}: {problem}")
