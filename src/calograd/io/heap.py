"""Global heaps of HDF5, where it keeps text of attributes, are looked at before HDF5 does.

A heap is a row of objects, each an index (2 bytes, 0 for free space), 6 bytes more, its size (8 bytes) and its data.
HDF5's own library goes from one to the next and never ends if the sizes are zeros, as where a file was cut off and
padded, or where a disk gave back an empty sector. Such a heap is refused.
"""

from __future__ import annotations

import struct
from pathlib import Path

from calograd.errors import FormatError

_BEGINNING = b"GCOL\x01\0\0\0"
_HEADER = struct.Struct("<HHIQ")
_SEARCHED = 1 << 22
"""Bytes at either end of a file in which its heaps are; the deposits, measured energies and points lie between."""


def refuse_endless(path: Path, length: int | None = None) -> None:
    """Refuse a file with a heap that HDF5 would read for ever.

    Args:
        path: of the file.
        length: that it is padded to with zeros; None if it is not.

    Raises:
        FormatError: it has one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in dict.fromkeys((0, max(0, size - _SEARCHED))):
            file.seek(start)
            window = file.read(_SEARCHED)
            at = window.find(_BEGINNING)
            while at >= 0:
                file.seek(start + at)
                heap = file.read(min(_length(window[at : at + 16]), (length or size) - start - at))
                if not _ends(heap.ljust(_length(window[at : at + 16]) if length else 0, b"\0")):
                    raise FormatError(f"{path} is damaged: the heap of its attributes cannot be read")
                at = window.find(_BEGINNING, at + 1)


def _length(head: bytes) -> int:
    """Return the length of a heap by its head; none is longer than what HDF5 allows of attributes and a little more."""
    return min(int.from_bytes(head[8:16], "little"), _SEARCHED)


def _ends(heap: bytes) -> bool:
    """True if going from object to object comes to the end."""
    at = 16
    while at + _HEADER.size <= len(heap):
        index, _, _, size = _HEADER.unpack_from(heap, at)
        step = _HEADER.size + (size + 7) // 8 * 8 if index else size
        if step < _HEADER.size or step > len(heap) - at:
            return False
        at += step
    return True
