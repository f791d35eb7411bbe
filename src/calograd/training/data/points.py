"""Training data of a surrogate of points: showers as features, points as numbers close to unit normal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.errors import FormatError, InputError
from calograd.events.clustering import SPLIT
from calograd.events.point_showers import PITCH, PointShowers, read_points
from calograd.io.files import shard_files
from calograd.surrogate.points.features import Features, features_of, leads_of, log_distance, quantile_table, to_normal
from calograd.surrogate.points.model import PointsModel, local_features
from calograd.system.random_numbers import RandomNumbers
from calograd.training.data.split import MIN_SHOWERS


@dataclass(frozen=True)
class PointRows:
    """Showers of points as tensors. A group is a layer with points.

    Args:
        clouds: showers as they were read, but for the dequantisation of sub-cells.
        energy: incident energy, shape (n,), GeV.
        features: features of the layers.
        z: standardised ln r and ln e of the points, shape (points, 2).
        starts: first point of every group, then the number of points, shape (groups + 1,).
        place: shower * layers + layer of every group, shape (groups,).
    """

    clouds: PointShowers
    energy: Tensor
    features: Features
    z: Tensor
    starts: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.energy)

    def groups(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return z of the points of the chosen groups, the group of every point in order, and the groups' places."""
        counts = self.starts[chosen + 1] - self.starts[chosen]
        group = torch.repeat_interleave(counts)
        first = self.starts[chosen] - (counts.cumsum(0) - counts)
        points = torch.arange(len(group)) + first[group]
        return self.z[points], group, self.place[chosen]


@dataclass(frozen=True)
class Tables:
    """Tables that standardise points: quantiles of ln r and ln e by layer, and the mean energy of a point, GeV."""

    distance: Tensor
    energy: Tensor
    unit: float


@dataclass(frozen=True)
class Source:
    """Origin of showers.

    Attributes:
        detector: simulated detector, as plain data.
        clustering: meaning of a point, such as ``sub-cells``.
        empty: number of showers without a point, which are left out.
        provenance: origin and configuration of every file.
    """

    detector: dict[str, Any]
    clustering: str
    empty: int
    provenance: list[dict[str, Any]]


@dataclass(frozen=True)
class Split:
    """Showers to train on and others to validate on; no shower is in both."""

    train: PointShowers
    validation: PointShowers
    source: Source


@dataclass(frozen=True)
class PointsData:
    """Showers to train on and others to validate on, as tensors.

    Attributes:
        train, validation: showers; none is in both.
        tables: tables of the training showers.
        source: origin of the showers.
    """

    train: PointRows
    validation: PointRows
    tables: Tables
    source: Source

    def __str__(self) -> str:
        return (
            f"{len(self.train)} showers to train on, {len(self.validation)} others to validate on; points are "
            f"{self.source.clustering}; {self.source.empty} showers without a point left out"
        )

    @property
    def fingerprint(self) -> list[float]:
        """Numbers that differ between different training data."""
        showers = self.train.clouds
        return [len(showers), len(self.validation), float(showers.energy.sum()), float(showers.e.sum())]

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """Origin and configuration of every file."""
        return self.source.provenance

    @property
    def showers(self) -> int:
        """Number of showers that are trained on."""
        return len(self.train)


def load_points(files: list[Path], validation: float, energy: tuple[float, float], seed: int) -> PointsData:
    """Read training data of points; arguments and errors are those of `split_points`. Sub-cells are dequantised."""
    split = split_points(files, validation, energy, seed)
    chosen = (split.train, split.validation)
    if split.source.clustering == "sub-cells":
        rng = np.random.default_rng((seed, 1))
        chosen = (dequantise(split.train, rng), dequantise(split.validation, rng))
    tables = tables_of(chosen[0])
    return PointsData(rows_of(chosen[0], tables), rows_of(chosen[1], tables), tables, split.source)


def split_points(files: list[Path], validation: float, energy: tuple[float, float], seed: int) -> Split:
    """Read points files, leave out empty showers and split the others.

    Args:
        files: points files of one detector and one clustering, or folders of such.
        validation: share of the showers to hold out.
        energy: range of incident energies, GeV; showers outside are left out.
        seed: seed of the split.

    Raises:
        InputError: files that do not fit each other, or too few showers.
        FormatError: a file that cannot be used.
    """
    files = [shard for path in files for shard in shard_files(path)]
    parts = [read_points(path) for path in files]
    plates = [str(path) for path, part in zip(files, parts, strict=True) if part.n_layers is not None]
    if plates:
        raise InputError(f"{plates[0]} holds points in stacks of plates; expected those of a silicon-tungsten stack")
    kinds = {(part.layers, str(part.config.get("clustering"))) for part in parts}
    if len(kinds) > 1:
        words = ", ".join(f"{layers} layers of {what}" for layers, what in sorted(kinds))
        raise InputError(f"the files hold {words}; expected one number of layers and one clustering")
    (_, clustering), rng = kinds.pop(), np.random.default_rng(seed)
    clouds = PointShowers.concatenate(parts)
    kept = (clouds.counts > 0) & (clouds.energy >= energy[0]) & (clouds.energy <= energy[1])
    if not kept.any():
        raise FormatError(f"{', '.join(map(str, files))}: no shower of {energy[0]:g} to {energy[1]:g} GeV has a point")
    held = round(validation * int(kept.sum()))
    if kept.sum() < MIN_SHOWERS or held < 2:
        raise InputError(f"{int(kept.sum())} showers are too few to split off {validation:.0%}; expected "
                         f"{max(MIN_SHOWERS, int(2 / validation) + 1)} or more")  # fmt: skip
    order = rng.permutation(np.flatnonzero(kept))
    config = parts[0].config.get("simulation", {})
    source = Source(
        detector=config.get("detector", {}) if isinstance(config, dict) else {},
        clustering=clustering,
        empty=int((clouds.counts == 0).sum()),
        provenance=[
            {"file": path.name, "showers": len(part), "origin": part.origin, "config": part.config}
            for path, part in zip(files, parts, strict=True)
        ],
    )
    return Split(clouds.rows(np.sort(order[held:])), clouds.rows(np.sort(order[:held])), source)


def dequantise(clouds: PointShowers, rng: np.random.Generator) -> PointShowers:
    """Draw every point evenly in its sub-cell."""
    size = PITCH / SPLIT
    x, y = (
        (place + size * (rng.random(len(place)) - 0.5)).astype(np.float32) for place in (clouds.x, clouds.y)
    )  # fmt: skip
    return replace(clouds, x=x, y=y)


def tables_of(clouds: PointShowers) -> Tables:
    """Return the tables of the training showers."""
    distance = quantile_table(log_distance(clouds).numpy(), clouds.layer, clouds.layers)
    energy = quantile_table(np.log(clouds.e), clouds.layer, clouds.layers)
    return Tables(distance, energy, float(clouds.e.mean(dtype=np.float64)))


def rows_of(clouds: PointShowers, tables: Tables) -> PointRows:
    """Return showers, every one with a point, as tensors."""
    layer = torch.from_numpy(clouds.layer)
    features = features_of(clouds, tables.distance)
    z = torch.stack(
        [
            to_normal(log_distance(clouds), layer, tables.distance),
            to_normal(torch.from_numpy(np.log(clouds.e)), layer, tables.energy),
        ],
        dim=1,
    )
    place = clouds.owner * clouds.layers + clouds.layer
    first = np.flatnonzero(np.diff(place, prepend=-1))
    return PointRows(
        clouds, torch.from_numpy(clouds.energy), features, z,
        torch.from_numpy(np.append(first, len(place))), torch.from_numpy(place[first]),
    )  # fmt: skip


def initialise(model: PointsModel, data: PointsData) -> None:
    """Standardise a model over the training showers: set its tables, unit, means and scales."""
    rows = data.train
    model.distance_table.copy_(data.tables.distance)
    model.energy_table.copy_(data.tables.energy)
    model.unit.fill_(data.tables.unit)
    log = rows.energy.log()
    model.condition_mean.fill_(float(log.mean()))
    model.condition_scale.fill_(max(float(log.std()), 1e-3))
    local = local_features(rows.features, rows.energy, model.unit).flatten(0, 1)[rows.place]
    model.local_mean.copy_(local.mean(0))
    model.local_scale.copy_(local.std(0).clamp(min=1e-3))
    g = model.encode(rows.features, RandomNumbers(0, range(len(rows))))
    model.shower_location_scale.start_from(g.mean(0), g.std(0).clamp(min=1e-3))
    model.least.copy_(g.amin(0))
    model.largest.copy_(g.amax(0))
    leads = leads_of(rows.features, rows.energy, model.unit)
    model.shower_leads.start_from(leads.mean(0), leads.std(0).clamp(min=1e-3))
