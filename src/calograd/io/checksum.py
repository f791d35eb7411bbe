"""A digest of what an HDF5 file holds, stored in the file, so that bits that changed on the disk are noticed.

    digest = SHA-256 of the attributes and of the sealed datasets, each with its name, type, shape and values

HDF5 itself notices damage in compressed chunks only. Files without a digest, of before there was one, are read
unchecked; whoever changes a file by hand removes its attribute ``digest``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import FormatError

DIGEST = "digest"
"""The attribute."""
_SLAB = 1 << 21
"""Numbers that are read at a time."""


def seal(file: h5py.File, names: Iterable[str]) -> None:
    """Store the digest of a file that is complete but for it.

    Args:
        file: open for writing.
        names: of the datasets that it covers.
    """
    file.attrs[DIGEST] = digest_of(dict(file.attrs), {name: file[name] for name in names})


def check_seal(attributes: Mapping[str, Any], datasets: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse contents that are not those that were sealed; contents without a digest are taken as they are.

    Args:
        attributes: all of the file.
        datasets: those that the digest covers, as they were read.
        path: of the file, for the error.

    Raises:
        FormatError: they differ.
    """
    stored = attributes.get(DIGEST)
    if stored is not None and str(stored) != digest_of(attributes, datasets):
        raise FormatError(
            f"{path} is damaged: its contents do not fit its digest; bring an intact copy or make it anew (if you "
            f"changed it yourself, remove its attribute '{DIGEST}')"
        )


def digest_of(attributes: Mapping[str, Any], datasets: Mapping[str, np.ndarray | h5py.Dataset]) -> str:
    """The digest of attributes, but for itself, and of datasets; the order does not matter."""
    result = hashlib.sha256()
    for name in sorted(attributes):
        if name != DIGEST:
            value = attributes[name]
            told = value.encode(errors="surrogateescape") if isinstance(value, str) else _bytes(np.asarray(value))
            result.update(f"\0{name}\0{len(told)}\0".encode() + told)
    for name in sorted(datasets):
        values = datasets[name]
        result.update(f"\0{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        rows = max(1, _SLAB // max(1, int(np.prod(values.shape[1:]))))
        for start in range(0, len(values), rows):
            result.update(_bytes(np.asarray(values[start : start + rows])))
    return result.hexdigest()


def _bytes(values: np.ndarray) -> bytes:
    """Numbers as they lie in memory, anything else as text."""
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
