"""Training data: rows of cells or of maps, split by shower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.errors import FormatError, InputError
from calograd.learning.pairs import partners
from calograd.material import Material
from calograd.showers.cells import Cells
from calograd.showers.maps import DIMENSIONS as MAP_DIMENSIONS
from calograd.showers.maps import Maps, read_rows
from calograd.surrogate.kinds import Kind
from calograd.surrogate.model import Model, numbers_of

MIN_SHOWERS = 20
MIN_VALIDATION = 6
"""Rows: two in each of the monitor's energy bins."""


@dataclass(frozen=True)
class Rows:
    """Rows as tensors: cells (n, n_xy, n_xy, n_z) GeV, energy (n,) GeV, dx (n,) cm, dz (n, n_z) cm.

    With maps, ``cells`` are their pixels, shape (n, pixels, pixels). ``which``: place of the row's material in
    `TrainingData.materials`, shape (n,), int64; None: all are of the first.
    """

    cells: Tensor
    energy: Tensor
    dx: Tensor
    dz: Tensor
    which: Tensor | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def at(self, index: Tensor) -> Rows:
        """The chosen rows."""
        which = None if self.which is None else self.which[index]
        return Rows(self.cells[index], self.energy[index], self.dx[index], self.dz[index], which)


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows of other showers to validate on.

    Attributes:
        train, validation: rows; no shower has rows in both.
        materials: that rows are of, each once.
        empty: rows without any energy, which are left out.
        showers: number of distinct showers in both.
        held_out: number of distinct showers in ``validation``.
        provenance: origin and configuration of every file.
        n_xy: cells across.
        partner: for every row of ``train`` the row of the same shower at the closest other design, -1 for none, int64;
            None: no row has one.
    """

    train: Rows
    validation: Rows
    materials: tuple[Material, ...]
    empty: int
    showers: int
    held_out: int
    provenance: list[dict[str, Any]]
    n_xy: int
    partner: Tensor | None = None

    @property
    def kind(self) -> Kind:
        """What a surrogate of these data is."""
        return "map32" if self.train.cells.ndim == MAP_DIMENSIONS else "cells"

    @property
    def material(self) -> Material:
        """Of all rows. Raises `InputError` if they are of several."""
        if len(self.materials) > 1:
            raise InputError(f"the data are of {', '.join(m.name for m in self.materials)}; expected one material")
        return self.materials[0]

    def numbers(self, rows: Rows, like: Tensor) -> Tensor:
        """Material numbers of rows, shape (n, 5), or (1, 5) where all are of one material; see `numbers_of`."""
        table = numbers_of(*self.materials, like=like)
        return table[:1] if rows.which is None else table[rows.which.to(table.device)]

    def conditions(self, model: Model, rows: Rows) -> Tensor:
        """Standardised conditions of rows, on the device of the model."""
        like = model.condition_mean
        energy, dx, dz = (values.to(like.device) for values in (rows.energy, rows.dx, rows.dz))
        return model.conditions(energy, dx, dz, self.numbers(rows, like))

    @property
    def unequal_layers(self) -> bool:
        """Whether layers of a design have different depths."""
        return bool((self.train.dz.amax(1) > 1.01 * self.train.dz.amin(1)).any())

    @property
    def mode(self) -> str:
        """``embedded`` or ``stand-alone``, or ``mixed``."""
        modes = {str(p["config"].get("mode", "embedded")) for p in self.provenance}
        return modes.pop() if len(modes) == 1 else "mixed"

    @property
    def symmetric(self) -> bool:
        """Whether the beam was on the axis and along it, so that showers may be turned and mirrored."""
        beams = [_table(_table(p["config"], "simulation"), "beam") for p in self.provenance]
        return not any(beam.get("theta", 0.0) or any(beam.get("position", ())) for beam in beams)


def _table(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def load_data(files: list[Path], validation: float, seed: int, showers: int | None = None) -> TrainingData:
    """Read cells files and split them by shower.

    Args:
        files: cells files, or maps files.
        validation: share of the showers to hold out.
        seed: of what is drawn: the showers to use and those to hold out.
        showers: how many distinct ones to use; fewer are some of those that more would be. None for all.

    Raises:
        InputError: different numbers of cells, or too few showers to use or for a split.
        FormatError: a file that cannot be used.
    """
    parts = [read_rows(path) for path in files]
    first = parts[0]
    for path, part in zip(files, parts, strict=True):
        shapes = [p.measured.shape[1:] for p in (part, first)]
        if shapes[0] != shapes[1] or part.n_xy != first.n_xy:
            raise InputError(f"{path} has cells {shapes[0]}, {files[0]} has {shapes[1]}")
    keys = _keys(parts)
    materials = tuple(dict.fromkeys(part.material for part in parts))
    which = np.repeat([materials.index(part.material) for part in parts], [len(part) for part in parts])
    measured, energy, dx, dz = (
        torch.from_numpy(np.concatenate([getattr(part, name) for part in parts]))
        for name in ("measured", "energy", "dx", "dz")
    )
    rows = Rows(measured, energy, dx, dz, torch.from_numpy(which) if len(materials) > 1 else None)
    filled = (rows.cells.flatten(1).sum(1) > 0).numpy()
    if not filled.any():
        raise FormatError(f"{', '.join(map(str, files))}: no row has any energy")
    distinct = np.unique(keys[filled])
    if showers is not None:
        if showers > len(distinct):
            raise InputError(
                f"{showers} showers were asked for, the data have {len(distinct)}; ask for fewer or add data"
            )
        distinct = np.sort(np.random.default_rng([seed, 1]).permutation(distinct)[:showers])
    held = round(validation * len(distinct))
    if len(distinct) < MIN_SHOWERS or held < 1:
        needed = max(MIN_SHOWERS, int(0.5 / validation) + 1)
        raise InputError(
            f"{len(distinct)} showers are too few to split off {validation:.0%}; expected {needed} or more"
        )
    held_out = np.isin(keys, np.random.default_rng(seed).permutation(distinct)[:held])
    kept = filled & np.isin(keys, distinct)
    if (kept & held_out).sum() < MIN_VALIDATION:
        raise InputError(
            f"{(kept & held_out).sum()} rows of {held} showers are too few to validate on; "
            f"expected {MIN_VALIDATION} or more: raise data.validation (--validation)"
        )
    trained = np.flatnonzero(kept & ~held_out)
    partner = partners(keys[trained], dx.numpy()[trained], dz.numpy()[trained])
    return TrainingData(
        train=rows.at(torch.from_numpy(trained)),
        validation=rows.at(torch.from_numpy(np.flatnonzero(kept & held_out))),
        materials=materials,
        empty=int((~filled).sum()),
        showers=len(distinct),
        held_out=held,
        provenance=[
            {"file": path.name, "rows": len(part), "origin": part.origin, "config": part.config}
            for path, part in zip(files, parts, strict=True)
        ],
        n_xy=first.n_xy,
        partner=None if partner is None else torch.from_numpy(partner),
    )


def _keys(parts: Sequence[Cells | Maps]) -> np.ndarray:
    """One number for every distinct shower of all files; files of one simulation share its showers."""
    sources = [part.config.get("simulation", number) for number, part in enumerate(parts)]
    return np.concatenate([p.shower + (sources.index(s) << 40) for p, s in zip(parts, sources, strict=True)])
