"""Showers of different lengths in flat columns, and the arithmetic of their offsets.

Shower s owns the rows ``offsets[s]:offsets[s + 1]`` of every flat column: positions and energies of deposits, points or
hits. It has one entry in every column of the showers themselves: incident energy, number. There is no padding. The
functions take numpy arrays or torch tensors and return the same kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np


def offsets_of(counts: Any) -> Any:
    """Return the offsets, shape (n + 1,), of showers with ``counts`` rows, shape (n,)."""
    if isinstance(counts, np.ndarray):
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    import torch

    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def counts_of(offsets: Any) -> Any:
    """Return the number of rows of every shower, shape (n,)."""
    return np.diff(offsets) if isinstance(offsets, np.ndarray) else offsets.diff()


def owners(offsets: Any) -> Any:
    """Return the shower, from 0, that owns each row, shape (rows,)."""
    if isinstance(offsets, np.ndarray):
        return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    import torch

    return torch.repeat_interleave(offsets.diff())


def take(offsets: Any, chosen: Any) -> tuple[Any, Any]:
    """Return the offsets of the chosen showers, in that order, and the rows that they own.

    Args:
        offsets: of all showers, shape (n + 1,).
        chosen: indices of showers, shape (m,).
    """
    counts = counts_of(offsets)[chosen]
    new = offsets_of(counts)
    shift = offsets[:-1][chosen] - new[:-1]
    if isinstance(offsets, np.ndarray):
        return new, np.arange(int(new[-1])) + np.repeat(shift, counts)
    import torch

    return new, torch.arange(int(new[-1]), device=offsets.device) + torch.repeat_interleave(shift, counts)


def blocks(offsets: Any, rows: int, showers: int | None = None) -> Iterator[slice]:
    """Yield consecutive showers with at most ``rows`` rows, and at most ``showers`` showers, but always one shower."""
    n, start = len(offsets) - 1, 0
    while start < n:
        stop = int(np.searchsorted(offsets, offsets[start] + rows, side="right")) - 1
        stop = max(start + 1, stop if showers is None else min(stop, start + showers))
        yield slice(start, stop)
        start = stop


def offsets_problem(offsets: np.ndarray, showers: int, rows: set[int]) -> str | None:
    """Return what is wrong with offsets read from a file, or None.

    Args:
        offsets: as they were read.
        showers: number of showers.
        rows: the different lengths of the flat columns.
    """
    if offsets.dtype.kind not in "iu":
        return f"offsets is of type {offsets.dtype}, expected whole numbers"
    if offsets.shape != (showers + 1,):
        return f"offsets has shape {offsets.shape}, expected ({showers + 1},) for {showers} showers"
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or rows != {int(offsets[-1])}:
        return f"the offsets do not fit the {' and '.join(map(str, sorted(rows)))} rows; the file is damaged"
    return None


class Ragged:
    """Base of frozen dataclasses that hold showers of different lengths.

    A subclass names its flat columns in ``FLAT`` and its columns of one entry a shower in ``HEADS``. In ``PARTS`` it
    names other rows of the same showers, each a `Ragged`, with their classes. Further fields are common to all showers.
    Columns and parts may be None.
    """

    FLAT: ClassVar[tuple[str, ...]] = ()
    HEADS: ClassVar[tuple[str, ...]] = ("energy",)
    PARTS: ClassVar[Mapping[str, type[Ragged]]] = {}
    offsets: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Any:
        """Number of rows of every shower, shape (n,)."""
        return counts_of(self.offsets)

    @property
    def owner(self) -> Any:
        """The shower, from 0, that owns each row, shape (rows,)."""
        return owners(self.offsets)

    def rows(self, which: Any) -> Self:
        """Return the chosen showers, by mask, indices or slice, in that order."""
        if isinstance(which, slice) and which.step in (None, 1):
            start, stop, _ = which.indices(len(self))
            stop = max(start, stop)
            flat: Any = slice(int(self.offsets[start]), int(self.offsets[stop]))
            offsets = self.offsets[start : stop + 1] - self.offsets[start]
        else:
            which = np.arange(len(self))[which] if isinstance(self.offsets, np.ndarray) else which
            offsets, flat = take(self.offsets, which)
        chosen = dict.fromkeys(self.FLAT, flat) | dict.fromkeys(self.HEADS, which)
        columns = {name: getattr(self, name) for name in chosen}
        picked = {name: None if column is None else column[chosen[name]] for name, column in columns.items()}
        owned = {name: getattr(self, name) for name in self.PARTS}
        picked |= {name: None if part is None else part.rows(which) for name, part in owned.items()}
        return replace(self, offsets=offsets, **picked)  # type: ignore[type-var]

    def columns(self) -> dict[str, Any]:
        """Return offsets and columns by name, those of a part as ``PART.COLUMN``; what is None is left out."""
        found = {name: getattr(self, name) for name in ("offsets", *self.FLAT, *self.HEADS)}
        for part in self.PARTS:
            rows = getattr(self, part)
            found |= {} if rows is None else {f"{part}.{name}": column for name, column in rows.columns().items()}
        return {name: column for name, column in found.items() if column is not None}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Self:
        """Return showers of the columns that `columns` returned, of a class without further fields."""
        mine = {name: column for name, column in columns.items() if "." not in name}
        for part, kind in cls.PARTS.items():
            rows = {n.partition(".")[2]: column for n, column in columns.items() if n.partition(".")[0] == part}
            mine |= {part: kind.from_columns(rows)} if rows else {}
        return cls(**mine)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Return showers put one behind the other; fields common to all showers are those of the first part.

        A column that one part lacks (None) is left out of the result.
        """
        columns = {name: [getattr(part, name) for part in parts] for name in (*cls.FLAT, *cls.HEADS, *cls.PARTS)}
        joined = {n: None if any(v is None for v in values) else _joined(values) for n, values in columns.items()}
        offsets = offsets_of(_joined([part.counts for part in parts]))
        return replace(parts[0], offsets=offsets, **joined)  # type: ignore[type-var]


@dataclass(frozen=True)
class Deposits(Ragged):
    """Deposits of showers; shower s owns the deposits ``offsets[s]:offsets[s + 1]``.

    Args:
        x, y: transverse positions, shape (deposits,), cm, float32.
        z: depths behind the front face, shape (deposits,), cm, float32.
        e: deposited energies, shape (deposits,), GeV, float32.
        offsets: shape (n + 1,), int64.
        t: times since the particle crossed the front face, shape (deposits,), ns, float32; None where they are unknown.
    """

    FLAT: ClassVar = ("x", "y", "z", "e", "t")
    HEADS: ClassVar[tuple[str, ...]] = ()
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    e: np.ndarray
    offsets: np.ndarray
    t: np.ndarray | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Showers(Deposits):
    """Showers of a simulation: their deposits and how each began.

    Args:
        energy: incident energy of every shower, shape (n,), GeV, float32.
        index: number of every shower in the simulation, shape (n,), int64.
        seed: seed of Geant4's engine for every shower, shape (n,), uint64.
        particle, position, theta, phi: incident particles, see `calograd.detector.incidence.Incidence`; None: all are
            of one beam, which the library's configuration describes.
    """

    HEADS: ClassVar = ("energy", "index", "seed", "particle", "position", "theta", "phi")
    energy: np.ndarray
    index: np.ndarray
    seed: np.ndarray
    particle: np.ndarray | None = None
    position: np.ndarray | None = None
    theta: np.ndarray | None = None
    phi: np.ndarray | None = None


def _joined(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    if isinstance(parts[0], Ragged):
        return type(parts[0]).concatenate(parts)
    import torch

    return torch.cat(list(parts))
