"""Training data of a surrogate of plates: showers in stacks of their own, as padded tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from calograd.detector.material import Material, to_float
from calograd.detector.particles import Particles
from calograd.errors import InputError
from calograd.events.clustering import cluster_plates
from calograd.events.library.reader import PlateLibrary, open_plates
from calograd.events.plates import PlateShowers
from calograd.events.shards import distinct_showers
from calograd.surrogate.card import THIN_GAP
from calograd.surrogate.plates.model import PlatesModel, layer_features, numbers_of_rows
from calograd.surrogate.plates.points import KnownLayers
from calograd.system.random_numbers import RandomNumbers
from calograd.training.data.plate_points import StackPoints, raw_numbers, stack_points
from calograd.training.data.split import split_keys


@dataclass(frozen=True)
class StackRows:
    """Showers, each in a stack of its own; layers beyond the last one are zero.

    Args:
        energies: of absorber and active plate of every layer, shape (n, layers, 2), GeV.
        thickness: of the same plates, shape (n, layers, 2), cm.
        energy: incident, shape (n,), GeV.
        absorber, active: numbers of the materials among those of the data, shape (n,), int64.
        particles: incident particles.
    """

    energies: Tensor
    thickness: Tensor
    energy: Tensor
    absorber: Tensor
    active: Tensor
    particles: Particles

    def __len__(self) -> int:
        return len(self.energy)

    def at(self, chosen: Tensor) -> StackRows:
        """Return the chosen showers."""
        return StackRows(*(_rows(getattr(self, field.name), chosen) for field in fields(self)))

    def to(self, device: torch.device) -> StackRows:
        """Return the showers on a device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "particles"}
        return replace(self, **moved, particles=Particles(*(column.to(device) for column in self.particles)))

    @property
    def counts(self) -> Tensor:
        """Number of layers of every stack, shape (n,)."""
        return (self.thickness[..., 0] > 0).sum(1)


def _rows(values: Any, chosen: Tensor) -> Any:
    return values.rows(chosen) if isinstance(values, Particles) else values[chosen]


class Known(NamedTuple):
    """Trained range of stacks, as the data have it; see `calograd.surrogate.card.TrainedStacks`."""

    absorbers: tuple[Material, ...]
    actives: tuple[Material, ...]
    pairs: tuple[tuple[str, str], ...]
    layers: tuple[int, int]
    absorber_thickness: tuple[float, float]
    active_thickness: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PlatesData:
    """Showers to train on and others to validate on.

    Attributes:
        train, validation: showers; none is in both.
        absorbers, actives: materials, by their numbers in the rows.
        provenance: origin and configuration of every file.
        train_points, validation_points: points of the same showers; None if they were not read.
    """

    train: StackRows
    validation: StackRows
    absorbers: tuple[Material, ...]
    actives: tuple[Material, ...]
    provenance: list[dict[str, Any]]
    train_points: StackPoints | None = None
    validation_points: StackPoints | None = None

    def __str__(self) -> str:
        materials = (", ".join(material.name for material in several) for several in (self.absorbers, self.actives))
        low, high = (int(end) for end in self.train.counts.aminmax())
        return (
            f"{len(self.train)} showers to train on, {len(self.validation)} others to validate on; "
            f"{low} to {high} layers of {' with '.join(materials)}"
        )

    @property
    def fingerprint(self) -> list[float]:
        """Numbers that differ between different training data."""
        sums = (float(values.double().sum()) for values in (self.train.energy, self.train.energies))
        points = [] if self.train_points is None else [float(self.train_points.e.double().sum())]
        return [len(self.train), len(self.validation), *sums, *points]

    @property
    def showers(self) -> int:
        """Number of showers, of both together."""
        return len(self.train) + self.held_out

    @property
    def held_out(self) -> int:
        """Number of showers to validate on."""
        return len(self.validation)

    @property
    def held_out_showers(self) -> Tensor:
        """Number of the shower of every row of ``validation``, shape (n,), int64: each row is one."""
        return torch.arange(len(self.validation))

    def conditions(self, model: PlatesModel, rows: StackRows) -> Tensor:
        """Return the conditions of rows for a model, see `PlatesModel.conditions`."""
        numbers = [
            numbers_of_rows(several, which, like=rows.energy)
            for several, which in ((self.absorbers, rows.absorber), (self.actives, rows.active))
        ]
        return model.conditions(rows.thickness, numbers[0], numbers[1], rows.energy, rows.particles)

    def known(self) -> Known:
        """Return the range that the training showers cover."""
        rows = self.train
        x0 = torch.tensor([to_float(material.radiation_length) for material in self.absorbers])[rows.absorber]
        present = rows.thickness[..., 0] > 0
        scaled = (rows.thickness[..., 0] / x0[:, None]).masked_select(present)
        actives = [
            rows.thickness[..., 1].masked_select(present & (rows.active == number)[:, None])
            for number in range(len(self.actives))
        ]
        pairs = sorted(set(zip(rows.absorber.tolist(), rows.active.tolist(), strict=True)))
        return Known(
            self.absorbers, self.actives, tuple((self.absorbers[a].name, self.actives[b].name) for a, b in pairs),
            (int(rows.counts.min()), int(rows.counts.max())), _ends(scaled), tuple(_ends(each) for each in actives),
        )  # fmt: skip


def _ends(values: Tensor) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def load_plates(
    files: Sequence[Path], validation: float, seed: int, showers: int | None = None, points: bool = False
) -> PlatesData:
    """Read libraries of plates and split their showers.

    Args:
        files: libraries, or folders of such.
        validation: share of the showers to hold out.
        seed: seed of the draws of showers to use and to hold out.
        showers: number of showers to use; fewer are a part of more. None: all.
        points: read the points in the active plates too.

    Raises:
        InputError: stacks with gaps that stop something, the same showers twice, too few showers, or no points.
        FormatError: a file that cannot be used.
    """
    absorbers, actives = dict[Material, int](), dict[Material, int]()
    parts, numbers = list[StackRows](), list[tuple[dict[str, Any], np.ndarray]]()
    clouds = list[StackPoints]()
    provenance = list[dict[str, Any]]()
    for path in files:
        with open_plates(path) as library:
            read = library.read()
            parts.append(_read(path, library, read, absorbers, actives))
            if points:
                library.read_deposits()
                clouds.append(stack_points(cluster_plates(library, "crossings"), seed))
        numbers.append((_same_whatever_is_recorded(read.config), read.index))
        about = {"origin": read.origin, "showers": len(read), "config": read.config}
        provenance.append({"file": path.name, **about})
    keys = np.concatenate(distinct_showers(numbers))
    if len(np.unique(keys)) < len(keys):
        raise InputError("the files hold the same showers twice; leave one of them out")
    rows = _joined(parts)
    split = split_keys(files, keys, np.ones(len(keys), bool), validation, seed, showers)
    parts_of = [torch.from_numpy(chosen) for chosen in (split.train, split.validation)]
    train, held = (rows.at(chosen) for chosen in parts_of)
    joined = StackPoints.concatenate(clouds) if points else None
    of_both = (None if joined is None else joined.rows(chosen) for chosen in parts_of)
    for material, which in ((absorbers, train.absorber), (actives, train.active)):
        if len(torch.unique(which)) < len(material):
            raise InputError("a material of the data has no shower that is trained on; add showers or leave it out")
    return PlatesData(train, held, tuple(absorbers), tuple(actives), provenance, *of_both)


def _same_whatever_is_recorded(config: dict[str, Any]) -> dict[str, Any]:
    """Return what made showers of plates, without whether their points were recorded, which changes no shower."""
    made = config.get("simulation")
    if made is None:
        return config
    return config | {"simulation": made | {"detector": made["detector"] | {"record": "energies"}}}


def _read(
    path: Path,
    library: PlateLibrary,
    showers: PlateShowers,
    absorbers: dict[Material, int],
    actives: dict[Material, int],
) -> StackRows:
    """Return the showers of a library; materials that are new to the data are numbered."""
    thickness, energies = showers.thicknesses(), showers.energies()
    gap = thickness[..., 1].sum(1) / to_float(library.gap_material.radiation_length)
    lengths = np.array([to_float(material.radiation_length) for material in library.absorbers])
    if (gap > THIN_GAP * thickness[..., 0].sum(1) / lengths[showers.absorber]).any():
        gaps = library.gap_material.name
        raise InputError(f"{path} has gaps of {gaps}; expected stacks without gaps, or with gaps of air")
    columns = []
    for several, which, known in (
        (library.absorbers, showers.absorber, absorbers), (library.actives, showers.active, actives)
    ):  # fmt: skip
        order = np.array([known.setdefault(material, len(known)) for material in several])
        columns.append(torch.from_numpy(order[which]))
    energy = torch.from_numpy(showers.energy)
    plates = [torch.from_numpy(np.ascontiguousarray(values[..., [0, 2]])) for values in (energies, thickness)]
    particles = Particles.from_incidence(showers.incident, like=energy)
    return StackRows(plates[0], plates[1], energy, columns[0], columns[1], particles)


def _joined(parts: Sequence[StackRows]) -> StackRows:
    """Return showers of several files, padded to the largest number of layers."""
    most = max(part.thickness.shape[1] for part in parts)
    padded = {
        name: torch.cat([pad(getattr(part, name), (0, 0, 0, most - part.thickness.shape[1])) for part in parts])
        for name in ("energies", "thickness")
    }
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("energy", "absorber", "active")}
    particles = Particles(*(torch.cat(column) for column in zip(*(part.particles for part in parts), strict=True)))
    return StackRows(**padded, **columns, particles=particles)


@torch.no_grad()
def initialise(model: PlatesModel, data: PlatesData, seed: int) -> None:
    """Standardise a model over the training showers: set means and scales, and where location and scale begin."""
    rows = data.train
    conditions = data.conditions(model, rows)
    known = conditions[:, : len(model.condition_mean)]
    scale = known.std(0)
    model.condition_mean.copy_(known.mean(0))
    model.condition_scale.copy_(torch.where(scale > 1e-3, scale, torch.ones_like(scale)))
    random = RandomNumbers(seed, range(len(rows)))
    g, c, present = model.encode(rows.energies, data.conditions(model, rows), rows.energy, random)
    model.shower_location_scale.start_from(g.mean(0), g.std(0).clamp(min=1e-3))
    stack, shower = model.known_of(g, conditions, rows.energy)
    features = layer_features(stack.plates, shower).joined()[present]
    spread = features.std(0)
    model.feature_mean.copy_(features.mean(0))
    model.feature_scale.copy_(torch.where(spread > 1e-3, spread, torch.ones_like(spread)))
    of_layers = c.transpose(1, 2)[present]
    model.layer_location_scale.start_from(of_layers.mean(0), of_layers.std(0).clamp(min=1e-3))


@torch.no_grad()
def initialise_points(model: PlatesModel, data: PlatesData, seed: int) -> None:
    """Standardise the second stage of a model over the training showers.

    Raises:
        InputError: the points were not read.
    """
    stage, points = model.points, data.train_points
    if stage is None or points is None:
        raise InputError("the data have no points; expected libraries of plates with deposits, as --record points has")
    layers = layers_of(model, data, data.train, RandomNumbers(seed, range(len(data.train))))
    known = layers.features[layers.present]
    spread = known.std(0)
    stage.feature_mean.copy_(known.mean(0))
    stage.feature_scale.copy_(torch.where(spread > 1e-3, spread, torch.ones_like(spread)))
    values, _, place = raw_numbers(points, layers)
    stage.fit_first_table(values)
    stage.unit.copy_((points.e / layers.ionisation.flatten()[place]).mean())
    stage.reach.copy_((points.x.square() + points.y.square()).sqrt().max())


def layers_of(model: PlatesModel, data: PlatesData, rows: StackRows, random: RandomNumbers) -> KnownLayers:
    """Return what the second stage of a model knows of showers, of the energies that they have."""
    conditions = data.conditions(model, rows)
    g, _, present = model.encode(rows.energies, conditions, rows.energy, random)
    stack, shower = model.known_of(g, conditions, rows.energy)
    x = model.shower_location_scale.standardise(g, stack.conditions)
    return model.known_layers(stack, shower, x, rows.energies[:, : present.shape[1]], rows.energy)
