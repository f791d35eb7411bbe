"""Build events from steps that come in any order, in bounded memory.

Consecutive events form blocks. A block is ready when its last step has come. Whenever more than `HELD` steps wait, all
of them move to temporary files, one a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from calograd.events.ragged import Showers, offsets_of

HELD = 1 << 22
"""Most steps that wait in memory, 24 bytes each, besides those of a block and of a chunk of the file."""
BLOCK = 1 << 20
"""Steps of a block; long files have larger blocks."""
BLOCKS = 500
"""Most blocks, roughly: each is a file until all are joined."""

_STEP = np.dtype([("event", "<i8"), ("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("e", "<f4")])


class EventBuilder:
    """Makes showers from steps.

    Args:
        energy: incident energy of every event, shape (n,), GeV.
        steps: number of steps of every event, shape (n,).
        wanted: the events to make showers of; steps of other events are ignored.
        folder: folder for temporary files.
    """

    def __init__(self, energy: np.ndarray, steps: np.ndarray, wanted: Sequence[range], folder: Path) -> None:
        self._energy = energy
        self._steps = steps
        self._folder = folder
        self._blocks = _blocks(steps, wanted)
        self._block_of = np.full(len(steps), -1, np.int64)
        for number, block in enumerate(self._blocks):
            self._block_of[block.start : block.stop] = number
        self._missing = np.array([steps[block.start : block.stop].sum() for block in self._blocks], np.int64)
        self._waiting: dict[int, list[np.ndarray]] = {}
        self._ready = np.flatnonzero(self._missing == 0).tolist()

    def take(self, event: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray, e: np.ndarray) -> None:
        """Take steps of the given events (their numbers, from 0); positions in cm, energies in GeV, all shape (m,)."""
        block = self._block_of[event]
        order = np.argsort(block, kind="stable")[np.count_nonzero(block < 0) :]
        rows = np.empty(len(order), _STEP)
        for name, values in zip(_STEP.names or (), (event, x, y, z, e), strict=True):
            rows[name] = values[order]
        numbers, starts, counts = np.unique(block[order], return_index=True, return_counts=True)
        self._missing[numbers] -= counts
        for number, start, count in zip(numbers.tolist(), starts, counts, strict=True):
            self._waiting.setdefault(number, []).append(rows[start : start + count])
            if self._missing[number] == 0:
                self._ready.append(number)
        if sum(len(piece) for pieces in self._waiting.values() for piece in pieces) > HELD:
            self._put_away()

    def ready(self) -> Iterator[Showers]:
        """Yield the blocks that are complete, each once."""
        while self._ready:
            number = self._ready.pop(0)
            pieces = self._waiting.pop(number, [])
            away = self._folder / str(number)
            if away.exists():
                pieces.insert(0, np.fromfile(away, _STEP))
                away.unlink()
            rows = np.concatenate([np.zeros(0, _STEP), *pieces])
            rows = rows[np.argsort(rows["event"], kind="stable")]
            block = self._blocks[number]
            events = slice(block.start, block.stop)
            yield Showers(
                **{name: np.ascontiguousarray(rows[name]) for name in ("x", "y", "z", "e")},
                offsets=offsets_of(self._steps[events]),
                energy=self._energy[events].astype(np.float32),
                index=np.arange(block.start, block.stop, dtype=np.int64),
                seed=np.zeros(len(block), np.uint64),
            )

    def _put_away(self) -> None:
        """Move the waiting steps to files, except those of blocks that are ready."""
        for number in [number for number in self._waiting if number not in self._ready]:
            with (self._folder / str(number)).open("ab") as file:
                for piece in self._waiting.pop(number):
                    file.write(piece.tobytes())


def _blocks(steps: np.ndarray, wanted: Sequence[range]) -> list[range]:
    """Cut the wanted events into blocks of `BLOCK` steps, or of one event."""
    ends = np.cumsum(steps)
    size = max(BLOCK, int(ends[-1]) // BLOCKS) if len(ends) else BLOCK
    blocks = []
    for gap in wanted:
        start = gap.start
        while start < gap.stop:
            before = ends[start - 1] if start else 0
            stop = int(np.searchsorted(ends, before + size, side="right"))
            stop = min(max(stop, start + 1), gap.stop)
            blocks.append(range(start, stop))
            start = stop
    return blocks
