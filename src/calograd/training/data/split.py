"""Split of a data set by shower, so that no shower is both trained on and held out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.errors import FormatError, InputError
from calograd.events.dense import Cells, Maps
from calograd.events.shards import distinct_showers

MIN_SHOWERS = 20
"""Fewest showers of a data set."""
MIN_VALIDATION = 6
"""Fewest validation rows: two in each of the monitor's energy bins."""


class Heads(NamedTuple):
    """Columns of the rows of a file, or of a part of it, beside the measured energies.

    Attributes:
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depths of the layers, shape (n, n_z), cm.
        shower: number of the shower in the file, shape (n,), int64.
        peak: largest measured energy of a row, shape (n,), GeV; zero: the row is empty.
        incident: incident particles.
        material, origin, config: those of the file.
    """

    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    shower: np.ndarray
    peak: np.ndarray
    incident: Incidence
    material: Material
    origin: str
    config: dict[str, Any]

    @classmethod
    def of(cls, rows: Cells | Maps) -> Heads:
        """Return the heads of rows in memory."""
        peak = rows.measured.max(axis=tuple(range(1, rows.measured.ndim)), initial=0.0)
        columns = (rows.energy, rows.dx, rows.dz, rows.shower, peak, rows.incident)
        return cls(*columns, rows.material, rows.origin, rows.config)

    @classmethod
    def join(cls, parts: Sequence[Heads]) -> Heads:
        """Join the heads of the parts of one file."""
        energy, dx, dz, shower, peak = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("energy", "dx", "dz", "shower", "peak")
        )
        incident = Incidence.concatenate([part.incident for part in parts])
        return cls(energy, dx, dz, shower, peak, incident, parts[0].material, parts[0].origin, parts[0].config)


class Split(NamedTuple):
    """A split of the rows of all files, numbered one behind the other.

    Attributes:
        train, validation: rows in order; no shower has rows in both.
        key: number of every row's shower, the same for the same shower, shape (n,), int64.
        empty: count of rows without energy, which are left out.
        showers: count of distinct showers in both.
        held_out: count of distinct showers in ``validation``.
    """

    train: np.ndarray
    validation: np.ndarray
    key: np.ndarray
    empty: int
    showers: int
    held_out: int


def split_by_shower(
    files: Sequence[Path], heads: Sequence[Heads], validation: float, seed: int, showers: int | None
) -> Split:
    """Split rows of files; arguments and errors are those of `calograd.training.data.rows.load_data`."""
    keys = np.concatenate(distinct_showers((each.config, each.shower) for each in heads))
    filled = np.concatenate([each.peak for each in heads]) > 0
    return split_keys(files, keys, filled, validation, seed, showers)


def split_keys(
    files: Sequence[Path], keys: np.ndarray, filled: np.ndarray, validation: float, seed: int, showers: int | None
) -> Split:
    """Split rows whose showers are known.

    Args:
        files: files that the rows are from.
        keys: number of every row's shower, the same for the same shower, shape (n,), int64.
        filled: True for rows that are not left out, shape (n,).
        validation, seed, showers: see `calograd.training.data.rows.load_data`, whose errors are raised.
    """
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
    apart = np.flatnonzero(kept & held_out)
    if len(apart) < MIN_VALIDATION:
        raise InputError(
            f"{len(apart)} rows of {held} showers are too few to validate on; "
            f"expected {MIN_VALIDATION} or more: raise data.validation (--validation)"
        )
    return Split(np.flatnonzero(kept & ~held_out), apart, keys, int((~filled).sum()), len(distinct), held)
