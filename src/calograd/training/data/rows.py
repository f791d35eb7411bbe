"""Training data: rows of cells or of maps, split by shower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.detector.particles import Particles, turn_cells
from calograd.errors import InputError
from calograd.events.dense import MAPS, Extent, extent_of, read_dense
from calograd.events.segmentation import GDML
from calograd.events.shards import contents_of, refuse_twice, refuse_unlike
from calograd.io.files import shard_files
from calograd.surrogate.model import DesignModel, numbers_of
from calograd.training.data.balance import even_odds
from calograd.training.data.paired_designs import partners
from calograd.training.data.split import Heads, Split, split_by_shower
from calograd.training.data.streaming import LOADING, Block, Window, check_memory, cut, size_of

MAX_ROWS = 6000
"""Most validation rows that a report uses."""
TURNED_AT_ONCE = 1 << 16
"""Rows whose cells are turned at once, so that all of them need no room twice."""
STANDARD = 1 << 16
"""Most rows over which conditions are standardised if rows are streamed."""


@dataclass(frozen=True)
class Rows:
    """Rows of cells or maps as tensors.

    Args:
        cells: measured energies, shape (n, n_xy, n_xy, n_z), GeV; of maps their pixels, shape (n, pixels, pixels).
            Those of rows that stay in their files are on torch's device ``meta``, a shape without numbers.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depths of the layers, shape (n, n_z), cm.
        which: index of the row's material in `TrainingData.materials`, shape (n,), int64; None: all are of the first.
        particles: incident particles, for a model that takes them; the cells are then in the particles' frame, see
            `calograd.detector.particles`. None: all are alike.
    """

    cells: Tensor
    energy: Tensor
    dx: Tensor
    dz: Tensor
    which: Tensor | None = None
    particles: Particles | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def at(self, index: Tensor) -> Rows:
        """Return the chosen rows."""
        which = None if self.which is None else self.which[index]
        particles = None if self.particles is None else self.particles.rows(index)
        return Rows(self.cells[index], self.energy[index], self.dx[index], self.dz[index], which, particles)


@dataclass(frozen=True)
class TrainingData:
    """Rows to train on and rows of other showers to validate on.

    Attributes:
        train, validation: rows; no shower has rows in both.
        materials: materials of the rows, each once.
        empty: number of rows without any energy, which are left out.
        showers: number of distinct showers in both.
        held_out: number of distinct showers in ``validation``.
        held_out_showers: number of the shower of every row of ``validation``, shape (n,), int64.
        provenance: origin and configuration of every file.
        n_xy: cells across.
        partner: row of the same shower at the closest other design for every row of ``train``, int64; -1 for none.
            None: no row has one.
        window: rows of ``train`` that are in memory while the others stay in their files; None: all are in memory.
        symmetric: True if the beam was on the axis and along it, so that showers may be turned and mirrored. False in a
            geometry of a GDML file, which need not be symmetric itself.
        odds: odds with which rows of ``train`` are drawn, shape (n,), the highest 1; None: all alike.
    """

    train: Rows
    validation: Rows
    materials: tuple[Material, ...]
    empty: int
    showers: int
    held_out: int
    held_out_showers: Tensor
    provenance: list[dict[str, Any]]
    n_xy: int
    partner: Tensor | None = None
    window: Window | None = None
    symmetric: bool = True
    odds: Tensor | None = None

    def __str__(self) -> str:
        return (
            f"{self.showers} showers: {len(self.train)} rows to train on, {len(self.validation)} of other showers to "
            f"validate on; {self.empty} rows without energy left out{f'; {self.window}' if self.window else ''}"
        )

    @property
    def fingerprint(self) -> list[float]:
        """Numbers that differ between different training data."""
        rows = self.train
        return [len(rows), len(self.validation), float(rows.energy.double().sum()), float(rows.dx.double().sum())]

    def move_to(self, phase: int, step: int, batch: int) -> None:
        """Bring the rows into memory from which batches of ``batch`` rows are drawn at a step."""
        if self.window is not None:
            self.window.move_to(phase, step * batch)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw rows of ``train`` that are in memory, by number, shape (n,), int64."""
        if self.odds is None:
            return self._draw_evenly(n, generator)
        kept = torch.empty(0, dtype=torch.long)
        while len(kept) < n:  # rejection: what is in memory need not be looked through
            drawn = self._draw_evenly(4 * n, generator)
            accepted = torch.rand(4 * n, generator=generator, dtype=torch.float64) < self.odds[drawn]
            kept = torch.cat([kept, drawn[accepted]])
        return kept[:n]

    def _draw_evenly(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw rows as `draw` does, all of the same odds."""
        if self.window is not None:
            return self.window.draw(n, generator)
        return torch.randint(len(self.train), (n,), generator=generator)

    def validation_sample(self, generator: torch.Generator) -> Rows:
        """Return at most `MAX_ROWS` rows of ``validation`` at random, with the odds that ``train`` gives energies."""
        order = torch.randperm(len(self.validation), generator=generator)
        if self.odds is not None:
            known, of = self.train.energy.sort()
            place = torch.searchsorted(known, self.validation.energy[order]).clamp(max=len(known) - 1)
            drawn = torch.rand(len(order), generator=generator, dtype=torch.float64)
            order = order[drawn < self.odds[of[place]]]
        return self.validation.at(order[:MAX_ROWS])

    def draw_pairs(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw rows in memory that have a partner, and their partners. Raises `InputError` if there is none."""
        assert self.partner is not None
        if self.window is None:
            having = torch.nonzero(self.partner >= 0).flatten()
        else:
            having = self.window.rows()
            having = having[self.partner[having] >= 0]
        if not len(having):
            raise InputError("no row in memory has its shower's row at a close design beside it; raise data.memory")
        first = having[torch.randint(len(having), (n,), generator=generator)]
        return first, self.partner[first]

    def rows(self, index: Tensor) -> Rows:
        """Return rows of ``train`` that are in memory."""
        found = self.train.at(index)
        return found if self.window is None else in_frame(replace(found, cells=self.window.measured(index)))

    @property
    def resident(self) -> int:
        """Size of everything in memory except the window, bytes."""
        tensors: list[Tensor | None] = [self.partner, self.odds]
        for rows in (self.train, self.validation):
            tensors += [rows.cells, rows.energy, rows.dx, rows.dz, rows.which, *(rows.particles or ())]
        return sum(t.nbytes for t in tensors if t is not None and t.device.type != "meta")

    @property
    def standard(self) -> Rows:
        """Rows over which conditions are standardised: all, or evenly spread ones if rows are streamed."""
        if self.window is None:
            return self.train
        return self.train.at(torch.arange(0, len(self.train), 1 + len(self.train) // STANDARD))

    @property
    def kind(self) -> str:
        """Kind of a surrogate of these data."""
        return "maps" if self.train.cells.ndim == len(MAPS.axes) else "cells"

    @property
    def material(self) -> Material:
        """The only material of the rows. Raises `InputError` if there are several."""
        if len(self.materials) > 1:
            raise InputError(f"the data are of {', '.join(m.name for m in self.materials)}; expected one material")
        return self.materials[0]

    def numbers(self, rows: Rows, like: Tensor) -> Tensor:
        """Return the material numbers of rows, shape (n, 6), or (1, 6) for a single material; see `numbers_of`."""
        table = numbers_of(*self.materials, like=like)
        return table[:1] if rows.which is None else table[rows.which.to(table.device)]

    def conditions(self, model: DesignModel, rows: Rows) -> Tensor:
        """Return the standardised conditions of rows, on the device of the model."""
        like = model.condition_mean
        energy, dx, dz = (values.to(like.device) for values in (rows.energy, rows.dx, rows.dz))
        particles = None if rows.particles is None else Particles(*(c.to(like.device) for c in rows.particles))
        return model.conditions(energy, dx, dz, self.numbers(rows, like), particles)

    @property
    def unequal_layers(self) -> bool:
        """True if layers of a design have different depths."""
        return bool((self.train.dz.amax(1) > 1.01 * self.train.dz.amin(1)).any())

    @property
    def mode(self) -> str:
        """Surroundings of the cells, see `calograd.surrogate.card.TrainedDesigns`; ``mixed`` if files differ."""
        modes = {str(p["config"].get("mode", "embedded")) for p in self.provenance}
        return modes.pop() if len(modes) == 1 else "mixed"


def load_data(
    files: list[Path],
    validation: float,
    seed: int,
    showers: int | None = None,
    memory: float | None = None,
    beams: bool = False,
    balanced: bool = False,
) -> TrainingData:
    """Read files of cells or maps and split their rows by shower.

    Args:
        files: cells files, or maps files, or folders of such.
        validation: share of the showers to hold out.
        seed: seed of the draws of showers to use and to hold out.
        showers: number of distinct showers to use; fewer are a part of more. None: all.
        memory: memory for rows, MB. Further rows are read from the files during the training
            (`calograd.training.data.streaming`), and at most `MAX_ROWS` are validated on. None: all rows are read.
        beams: read particle, entry and direction of every row, for a model that takes them; otherwise all rows must
            have the same.
        balanced: draw rows evenly over the logarithm of the energy, see `calograd.training.data.balance`.

    Raises:
        InputError: several particles, entries or directions without ``beams``, different numbers of cells, the same
            rows twice, too few showers to use or for a split, or too little memory.
        FormatError: a file that cannot be used.
    """
    files = [shard for path in files for shard in shard_files(path)]
    refuse_twice(files, [bytes(path.resolve()) for path in files])
    if memory is not None:
        extents = [extent_of(path) for path in files]
        if LOADING * size_of(extents) > 1e6 * memory:
            return _streamed(files, extents, validation, seed, showers, memory, beams, balanced)
    parts = [read_dense(path) for path in files]
    if not beams:
        refuse_several_beams(files, [part.incident for part in parts])
    refuse_unlike(files, [(part.measured.shape[1:], part.n_xy) for part in parts])
    refuse_twice(files, [contents_of(part) for part in parts])
    heads = [Heads.of(part) for part in parts]
    split = split_by_shower(files, heads, validation, seed, showers)
    measured, n_xy = torch.from_numpy(np.concatenate([part.measured for part in parts])), parts[0].n_xy
    del parts  # as large again
    data = _assemble(files, heads, split, measured, n_xy, beams, balanced)
    return replace(data, partner=_partners(split.key[split.train], data.train, [split.train]))


def refuse_several_beams(files: Sequence[Path], incident: Sequence[Incidence]) -> None:
    """Raise `InputError` unless all showers have one particle, entry and direction, which a surrogate does not see."""
    for path, each in zip(files, incident, strict=True):
        difference = each.difference(incident[0][:1]) if len(incident[0]) else None
        if difference:
            raise InputError(
                f"{path} is of {difference} as the first shower of {files[0]}; a surrogate learns one particle, entry "
                "and direction: choose showers of one beam"
            )


def in_frame(rows: Rows) -> Rows:
    """Bring the cells of rows into the frame of the particles, in place, if the rows know these; return the rows."""
    if rows.particles is None or rows.cells.is_meta:
        return rows
    frame = rows.particles.frame().expand(len(rows.cells))
    for cells, frames in zip(torch.split(rows.cells, TURNED_AT_ONCE), torch.split(frame, TURNED_AT_ONCE), strict=True):
        cells.copy_(turn_cells(cells, frames))
    return rows


def _assemble(
    files: Sequence[Path], heads: Sequence[Heads], split: Split, cells: Tensor, n_xy: int, beams: bool, balanced: bool
) -> TrainingData:
    """Return training data without partners; ``cells`` are the measured energies of all rows."""
    materials = tuple(dict.fromkeys(each.material for each in heads))
    which = np.repeat([materials.index(each.material) for each in heads], [len(each.energy) for each in heads])
    energy, dx, dz = (
        torch.from_numpy(np.concatenate([getattr(each, name) for each in heads])) for name in ("energy", "dx", "dz")
    )
    incident = Incidence.concatenate([each.incident for each in heads])
    particles = Particles.from_incidence(incident, energy) if beams else None
    rows = Rows(cells, energy, dx, dz, torch.from_numpy(which) if len(materials) > 1 else None, particles)
    train = in_frame(rows.at(torch.from_numpy(split.train)))
    return TrainingData(
        train=train,
        odds=even_odds(train.energy) if balanced else None,
        validation=in_frame(rows.at(torch.from_numpy(split.validation))),
        symmetric=incident.on_axis and not beams and all(each.config.get("mode") != GDML for each in heads),
        materials=materials,
        empty=split.empty,
        showers=split.showers,
        held_out=split.held_out,
        held_out_showers=torch.from_numpy(split.key[split.validation]),
        provenance=[
            {"file": path.name, "rows": len(each.energy), "origin": each.origin, "config": each.config}
            for path, each in zip(files, heads, strict=True)
        ],
        n_xy=n_xy,
    )


def _streamed(
    files: list[Path],
    extents: list[Extent],
    validation: float,
    seed: int,
    showers: int | None,
    memory: float,
    beams: bool,
    balanced: bool,
) -> TrainingData:
    """Return training data whose measured energies stay in the files; arguments are those of `load_data`."""
    check_memory(memory, extents)
    blocks = cut(files, extents)
    n_xy, heads = _look_through(files, blocks, beams)
    split = split_by_shower(files, heads, validation, seed, showers)
    if len(split.validation) > MAX_ROWS:
        some = np.random.default_rng([seed, 2]).choice(split.validation, MAX_ROWS, replace=False)
        split = split._replace(validation=np.sort(some))
    absent = torch.empty(sum(e.rows for e in extents), *extents[0].shape, device="meta")
    data = _assemble(files, heads, split, absent, n_xy, beams, balanced)
    del heads
    edges = np.cumsum([0, *(block.rows.stop - block.rows.start for block in blocks)])
    trained, seen = (
        [rows[a:b] - low for a, b, low in zip(at[:-1], at[1:], edges[:-1], strict=True)]
        for rows, at in ((rows, np.searchsorted(rows, edges)) for rows in (split.train, split.validation))
    )
    cells = [read_dense(*block).measured[rows] for block, rows in zip(blocks, seen, strict=True) if len(rows)]
    data = replace(
        data,
        validation=in_frame(replace(data.validation, cells=torch.from_numpy(np.concatenate(cells)))),
        partner=_partners(split.key[split.train], data.train, trained),
    )
    left = 1e6 * memory - data.resident
    return replace(data, window=Window(blocks, trained, extents[0].shape, left, seed))


def _look_through(files: Sequence[Path], blocks: Sequence[Block], beams: bool) -> tuple[int, list[Heads]]:
    """Return the number of cells across and the heads of all files, read a block at a time."""
    heads: dict[Path, list[Heads]] = {path: [] for path in files}
    contents: dict[Path, bytes] = {}
    shapes, first = [], None
    for block in blocks:
        part = read_dense(*block)
        heads[block.path].append(Heads.of(part))
        contents[block.path] = contents.get(block.path, b"") + contents_of(part)
        shapes.append((part.measured.shape[1:], part.n_xy))
        refuse_unlike([blocks[0].path, block.path], [shapes[0], shapes[-1]])
        first = part.incident[:1] if first is None else first
        if not beams:
            refuse_several_beams([blocks[0].path, block.path], [first, part.incident])
    refuse_twice(files, [contents[path] for path in files])
    return shapes[0][1], [Heads.join(heads[path]) for path in files]


def _partners(key: np.ndarray, train: Rows, trained: Sequence[np.ndarray]) -> Tensor | None:
    """Return partners as `partners` does, within the blocks of ``trained``: others may not be in memory."""
    found, dx, dz = np.full(len(key), -1, np.int64), train.dx.numpy(), train.dz.numpy()
    ends = np.cumsum([len(rows) for rows in trained])
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        mine = slice(start, end)
        partner = partners(key[mine], dx[mine], dz[mine]) if end - start > 1 else None
        if partner is not None:
            found[mine] = np.where(partner >= 0, partner + start, -1)
    return torch.from_numpy(found) if (found >= 0).any() else None
