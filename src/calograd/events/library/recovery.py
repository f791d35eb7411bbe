"""Recover the complete showers of a library that was cut off.

HDF5 refuses a file that is shorter than its superblock says. Padded to that length it opens. A shower is
complete if all chunks that hold its rows lie within the bytes that are there.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import FormatError
from calograd.events.library.schema import HEADS, MORE, PLATE_LIBRARY, Layout
from calograd.events.ragged import Showers, offsets_of
from calograd.io.hdf5 import DAMAGE, refuse_endless

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_END_OF_FILE = {0: 40, 1: 44, 2: 28, 3: 28}
"""Offset of the length of the file in superblocks of each version."""


def stored_length(path: Path) -> int | None:
    """Return the length in bytes that an HDF5 file had when it was written; None if its start is not HDF5."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(_SIGNATURE) or len(start) < 52 or start[8] not in _END_OF_FILE:
        return None
    at = _END_OF_FILE[start[8]]
    return int.from_bytes(start[at : at + 8], "little")


def is_cut_off(path: Path) -> bool:
    """Return whether the file is shorter than it was when it was written."""
    length = stored_length(path)
    return length is not None and path.stat().st_size < length


class _Padded(io.FileIO):
    """A file for reading that goes on with bytes 0xFF up to ``length``, which HDF5 takes for damage, not for data."""

    def __init__(self, path: Path, length: int) -> None:
        super().__init__(path)
        self._length = length

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(self._length + offset if whence == io.SEEK_END else offset)

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        done = super().readinto(view) or 0
        view[done:] = b"\xff" * (len(view) - done)
        return len(view)


@contextmanager
def open_padded(path: Path) -> Iterator[h5py.File]:
    """Open a file that was cut off. Raises `FormatError` if something that is read of it within the block is lost."""
    refuse_endless(path)
    try:
        with _Padded(path, stored_length(path) or 0) as padded, h5py.File(padded, "r") as file:
            yield file
    except DAMAGE as error:
        raise FormatError(f"{path} is cut off before its index ends; nothing of it can be recovered") from error


def complete_showers(file: h5py.File, path: Path, layout: Layout) -> int:
    """Return the number of complete showers from the first on; `KeyError` if the index of the file is not complete."""
    real = path.stat().st_size
    for name in (*HEADS, *(name for name in MORE if name in file)):
        dataset = file[name]
        if dataset.nbytes and dataset.id.get_offset() + dataset.nbytes > real:
            raise KeyError(name)
    tables = [(file["offsets"][()], layout.names(layout.complete(file)))]
    if "deposits" in file and layout is PLATE_LIBRARY:
        tables.append((offsets_of(file["deposits"][()].astype(np.int64)), Showers.FLAT))
    rows = [min(_complete_values(file[name], real) for name in names) for _, names in tables]
    return min(int(np.searchsorted(of, n, side="right")) - 1 for (of, _), n in zip(tables, rows, strict=True))


def _complete_values(dataset: h5py.Dataset, real: int) -> int:
    """Return the number of values from the first on that lie within the first ``real`` bytes of the file."""
    size = int(dataset.shape[0])
    if dataset.chunks is None:
        start = dataset.id.get_offset()
        return 0 if size == 0 else max(0, min(size, (real - start) // dataset.dtype.itemsize))
    for start in range(0, size, dataset.chunks[0]):
        chunk = dataset.id.get_chunk_info_by_coord((start,))
        if chunk.byte_offset is None or chunk.byte_offset + chunk.size > real:
            return start
    return size
