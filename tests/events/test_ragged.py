"""Offsets of showers of different lengths, for numpy and torch alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calograd.events.ragged import Ragged, blocks, offsets_of, offsets_problem, owners, take

COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@dataclass(frozen=True)
class Rows(Ragged):
    FLAT: ClassVar = ("e", "missing")
    e: Any
    offsets: Any
    energy: Any
    missing: Any = None


def showers(counts: list[int], tensors: bool) -> Rows:
    make: Any = torch.as_tensor if tensors else np.asarray
    e, energy = np.arange(sum(counts), dtype=np.float64), np.arange(len(counts)) + 1.0
    return Rows(make(e), offsets_of(make(np.asarray(counts, np.int64))), make(energy))


@pytest.mark.parametrize("tensors", [False, True])
@given(counts=COUNTS, data=st.data())
def test_chosen_showers_keep_their_rows(tensors: bool, counts: list[int], data: st.DataObject) -> None:
    rows = showers(counts, tensors)
    lists = [np.asarray(rows.e[int(a) : int(b)]).tolist() for a, b in pairwise(rows.offsets)]
    chosen = data.draw(st.lists(st.integers(0, len(counts) - 1), max_size=8))
    index = torch.tensor(chosen, dtype=torch.long) if tensors else np.array(chosen, np.int64)
    offsets, at = take(rows.offsets, index)
    assert [np.asarray(rows.e[at][int(a) : int(b)]).tolist() for a, b in pairwise(offsets)] == [
        lists[k] for k in chosen
    ]
    assert rows.rows(index).energy.tolist() == [k + 1.0 for k in chosen]
    start, stop = sorted((data.draw(st.integers(0, len(counts))), data.draw(st.integers(0, len(counts)))))
    part = rows.rows(slice(start, stop))
    assert part.counts.tolist() == counts[start:stop]
    assert part.e.tolist() == list(chain(*lists[start:stop]))
    assert owners(part.offsets).tolist() == [k for k, n in enumerate(counts[start:stop]) for _ in range(n)]
    whole = Rows.concatenate([rows.rows(slice(0, stop)), rows.rows(slice(stop, len(counts)))])
    assert (whole.e.tolist(), whole.offsets.tolist()) == (rows.e.tolist(), rows.offsets.tolist())
    assert whole.missing is None


@given(COUNTS, st.integers(1, 8), st.integers(1, 4))
def test_blocks_hold_all_showers_once(counts: list[int], most: int, showers: int) -> None:
    offsets = offsets_of(np.array(counts))
    found = list(blocks(offsets, most, showers))
    assert [k for rows in found for k in range(rows.start, rows.stop)] == list(range(len(counts)))
    for rows in found:
        n = rows.stop - rows.start
        assert n == 1 or (n <= showers and offsets[rows.stop] - offsets[rows.start] <= most)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0.0, 1.0, 3.0], "of type float64"), ([0, 3], r"shape \(2,\), expected \(3,\)"),
        ([1, 1, 3], "do not fit"), ([0, 4, 3], "do not fit"), ([0, 1, 2], "do not fit the 3 rows"),
    ],
)  # fmt: skip
def test_offsets_that_cannot_be(offsets: list[float], words: str) -> None:
    assert offsets_problem(np.array([0, 1, 3]), 2, {3}) is None
    assert re.search(words, offsets_problem(np.array(offsets), 2, {3}) or "")
