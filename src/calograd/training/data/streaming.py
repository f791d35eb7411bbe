"""Streaming of rows that stay in their files and are read in shuffled blocks during the training.

Files are cut into blocks of rows that are stored together. At every step a window of M blocks is in memory and batches
are drawn from all of its rows. The window slides along an endless sequence of blocks, one random order of all of them
behind the other; after t rows drawn in a phase it holds the places

    f, f + 1, ..., f + M - 1,     f = floor(t / (R n)),   n rows a block,   R = 4

of that sequence. A row is drawn R times on average while it is there, and every row equally often in the long run. The
window follows from seed, phase and step alone, so an interrupted run resumes to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from calograd.errors import InputError
from calograd.events.dense import Extent, read_dense

REUSE = 4
"""R of the formula above: average number of draws of a row for every time that it is read."""
LOADING = 3
"""Memory that reading all rows takes, in units of the size of the rows."""
BLOCK = 1 << 20
"""Approximate size of a block, bytes."""
FEWEST = 4
"""Fewest blocks of a window."""
BESIDE = 4
"""Memory that reading one block takes, in units of the size of a block."""
COLUMNS = 80
"""Bytes that energies, sizes and the split of a row take while loading, besides four for each layer."""


class Block(NamedTuple):
    """The rows ``rows`` of a file, which are stored together."""

    path: Path
    rows: slice


def size_of(extents: Sequence[Extent]) -> int:
    """Return the size of all rows of some files, bytes."""
    return sum(4 * e.rows * (prod(e.shape) + e.layers + 4) for e in extents)


def cut(files: Sequence[Path], extents: Sequence[Extent]) -> list[Block]:
    """Cut all rows of some files into blocks of whole chunks."""
    blocks = []
    for path, extent in zip(files, extents, strict=True):
        each = extent.chunk * max(1, BLOCK // (4 * prod(extent.shape) * extent.chunk))
        blocks += [Block(path, slice(k, min(k + each, extent.rows))) for k in range(0, extent.rows, each)]
    return blocks


def check_memory(megabytes: float, extents: Sequence[Extent]) -> None:
    """Raise `InputError` for less memory than energies, sizes and a few blocks take."""
    rows, layers = sum(e.rows for e in extents), extents[0].layers
    block = max(len(range(*b.rows.indices(e.rows))) * 4 * prod(e.shape) for e in extents for b in cut([Path()], [e]))
    least = max(rows * (COLUMNS + 4 * layers), 4 * rows * (layers + 8) + (FEWEST + BESIDE) * block)
    if least > 1e6 * megabytes:
        raise InputError(
            f"data.memory = {megabytes:g} MB is too little for {rows} rows; expected {np.ceil(least / 1e6):.0f} or more"
        )


class Window:
    """Window of the blocks that are in memory.

    Args:
        blocks: blocks of all files.
        chosen: rows of every block that are trained on, counted in the block.
        shape: shape of the measured energies of a row.
        memory: most memory of the window, bytes.
        seed: seed of the sequence of blocks.
    """

    def __init__(
        self, blocks: Sequence[Block], chosen: Sequence[np.ndarray], shape: tuple[int, ...], memory: float, seed: int
    ) -> None:
        some = [number for number, rows in enumerate(chosen) if len(rows)]
        self._blocks, self._chosen = [blocks[n] for n in some], [chosen[n] for n in some]
        self._seed = seed
        counts = [len(rows) for rows in self._chosen]
        self._bounds = torch.tensor([0, *np.cumsum(counts)])
        self._each = sum(counts) / len(counts)
        slots = max(FEWEST, int(memory // (4 * prod(shape) * max(counts))) - BESIDE)
        self._at = (-1, -1)  # phase and first place
        self._held: list[int] = [-1] * min(slots, len(counts))  # blocks by slot
        self._measured = torch.zeros(len(self._held), max(counts), *shape)
        self._slot_of = torch.zeros(len(counts), dtype=torch.long)

    def __str__(self) -> str:
        return (
            f"{len(self._held)} of {len(self._blocks)} blocks of rows in memory, {self._measured.nbytes / 1e6:.0f} MB"
        )

    def move_to(self, phase: int, drawn: int) -> None:
        """Load the blocks of a phase after ``drawn`` rows were drawn."""
        slots, every = len(self._held), len(self._blocks)
        first = 0 if slots == every else int(drawn / (REUSE * self._each))
        if self._at == (phase, first):
            return
        self._at = (phase, first)
        epochs = range(first // every, (first + slots - 1) // every + 1)
        sequence = np.concatenate(
            [np.random.default_rng([self._seed, phase, epoch]).permutation(every) for epoch in epochs]
        )
        for place in range(first, first + slots):
            block = int(sequence[place - epochs.start * every])
            if self._held[place % slots] != block:
                self._held[place % slots] = block
                self._read(block, place % slots)
        self._slot_of[torch.tensor(self._held)] = torch.arange(slots)

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw rows of the window with replacement, numbered among all training rows, shape (n,), int64."""
        held = torch.tensor(self._held)
        counts = self._bounds[held + 1] - self._bounds[held]
        ends = counts.cumsum(0)
        drawn = torch.randint(int(ends[-1]), (n,), generator=generator)
        slot = torch.searchsorted(ends, drawn, right=True)
        return self._bounds[held[slot]] + drawn - (ends - counts)[slot]

    def rows(self) -> Tensor:
        """Return all rows of the window, numbered in the same way."""
        return torch.cat([torch.arange(int(self._bounds[b]), int(self._bounds[b + 1])) for b in sorted({*self._held})])

    def measured(self, rows: Tensor) -> Tensor:
        """Return the measured energies of rows of the window, shape (n, *shape), GeV."""
        block = torch.searchsorted(self._bounds, rows, right=True) - 1
        return self._measured[self._slot_of[block], rows - self._bounds[block]]

    def _read(self, block: int, slot: int) -> None:
        path, rows = self._blocks[block]
        measured = read_dense(path, rows).measured[self._chosen[block]]
        self._measured[slot, : len(measured)] = torch.from_numpy(measured)
