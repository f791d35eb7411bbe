"""HDF5 files with a schema and a checksum, written completely or not at all.

Every file of CaloGrad names its schema, ``calograd/<kind>/<version>``, and most store a checksum of their contents,

    digest = SHA-256 of the attributes and of the covered datasets, each with its name, type, shape and values

since HDF5 notices damage in compressed chunks only. A file without the attribute ``digest`` is read unchecked; remove
the attribute after changing a file by hand.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import CaloGradError, FormatError
from calograd.io.files import write_new

DAMAGE = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""Exceptions that h5py and Python raise where the bytes of a file are wrong."""
INFLATION = 2000
"""Largest believable ratio of a dataset's size to that of its file; HDF5's filters reach about 1000."""
DIGEST = "digest"
"""Name of the attribute that holds the checksum."""
_SLAB = 1 << 21
"""Numbers that the checksum reads at a time."""
_ENDS = 1 << 22
"""Bytes at either end of a file that hold the text of its attributes; numbers lie between."""


@contextmanager
def new_file(path: Path, schema: str | None) -> Iterator[h5py.File]:
    """Open a new HDF5 file that appears under ``path`` when the block ends without an error.

    Args:
        path: where the file is to appear.
        schema: its schema; None for another project's format.

    Raises:
        InputError: the folder does not exist or the disk is full.
    """
    content = io.BytesIO()  # in memory, since HDF5 writes to standard error of every object that a full disk spoils
    with h5py.File(content, "w") as file:
        if schema is not None:
            file.attrs["schema"] = schema
        yield file
    write_new(path, content.getbuffer())


@contextmanager
def existing_file(path: Path, schema: str, names: Iterable[str] = ()) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading after checking its schema and that it has the datasets ``names``.

    Raises:
        FormatError: the file is missing, not HDF5, cut off, of another kind, newer than this version or incomplete.
    """
    with reading(path, f"'{schema}'") as file:
        check_schema(file, path, schema)
        check_datasets(file, path, names, f"a file of schema '{schema}'")
        yield file


def check_datasets(file: h5py.File, path: Path, names: Iterable[str], expected: str) -> None:
    """Raise `FormatError`, which says what was ``expected``, if ``file`` lacks one of the datasets ``names``."""
    missing = [name for name in names if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise FormatError(f"{path} lacks {', '.join(missing)}; expected {expected}")


@contextmanager
def reading(path: Path, expected: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading.

    Args:
        path: the file.
        expected: the kind of file that the error message asks for.

    Raises:
        FormatError: the file is missing, held by another process, not HDF5, cut off or damaged.
    """
    if not path.is_file():
        raise FormatError(f"{path} does not exist or is not a file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} {_why_not(path, error, expected)}") from error
    with file:
        refuse_endless(path)
        try:
            yield file
        except CaloGradError:
            raise
        except DAMAGE as error:
            reason = " ".join(str(error).split())
            raise FormatError(f"{path} is damaged and cannot be read completely: {reason}") from error


def refuse_endless(path: Path) -> None:
    """Raise `FormatError` if HDF5 (2.0 and before) would read the text of this file's attributes for ever.

    HDF5 goes from one text to the next by their sizes. It does not notice a size of zero, as in a sector of zeros.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in {0, max(0, size - _ENDS)}:
            file.seek(start)
            content = file.read(_ENDS)
            for found in re.finditer(rb"GCOL\x01\0\0\0", content):
                at, end = found.end() + 8, found.start() + int.from_bytes(content[found.end() :][:8], "little")
                while at + 16 <= min(end, len(content)):
                    number, length = struct.unpack_from("<H6xQ", content, at)
                    if not (number or length):
                        raise FormatError(f"{path} is damaged: the text of its attributes cannot be read")
                    at += 16 + (length + 7) // 8 * 8 if number else length


def _why_not(path: Path, error: OSError, expected: str) -> str:
    """Return why HDF5 could not open a file, as the predicate of a sentence."""
    words = " ".join(str(error).split())
    if "unable to lock" in words:
        return "is locked: another process has it open for writing; wait for that process or stop it"
    if "truncated" in words:
        return f"is cut off; expected {expected}"
    if h5py.is_hdf5(path):
        return f"cannot be opened: {words}; expected {expected}"
    reason = "" if os.access(path, os.R_OK) else ": Permission denied"
    return f"is not a readable HDF5 file{reason}; expected {expected}"


def schema_of(path: Path) -> str | None:
    """Return the schema that a file names, or None if it cannot be read or names none."""
    try:
        with reading(path, "a file of calograd") as file:
            schema = file.attrs.get("schema")
    except FormatError:
        return None
    return schema if isinstance(schema, str) else None


def check_schema(file: h5py.File, path: Path, schema: str) -> None:
    """Raise `FormatError` unless ``file`` is of the kind of ``schema`` and not of a later version."""
    found = file.attrs.get("schema")
    kind, version = schema.rsplit("/", 1)
    if not isinstance(found, str) or not found.startswith(f"{kind}/"):
        what = f"schema '{found}'" if found is not None else "an HDF5 file without a schema"
        raise FormatError(f"{path} is {what}, expected '{schema}'")
    if not found.rsplit("/", 1)[1].isdecimal() or int(found.rsplit("/", 1)[1]) > int(version):
        raise FormatError(f"{path} has schema '{found}', this version reads up to '{schema}'; update calograd")


def load(file: h5py.File, name: str) -> np.ndarray:
    """Return a whole dataset. Raises one of `DAMAGE` if it is missing or larger than its file can hold."""
    dataset = file[name]
    stored = file.id.get_filesize()
    if dataset.nbytes > INFLATION * stored:
        raise ValueError(f"{name} claims {dataset.nbytes} bytes in a file of {stored}")
    return np.asarray(dataset[()])


def write_columns(
    path: Path,
    schema: str,
    columns: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    chunks: Mapping[str, tuple[int, ...]],
) -> None:
    """Write a new file of datasets and attributes, with a checksum of all.

    Args:
        path: the file.
        schema: its schema.
        columns: the datasets by name.
        attributes: the attributes besides the schema.
        chunks: shapes of the chunks of datasets that are compressed.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: the folder does not exist or the disk is full.
    """
    with new_file(path, schema) as file:
        for name, values in columns.items():
            packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "chunks": chunks.get(name)}
            file.create_dataset(name, data=values, **packing if values.size and name in chunks else {})
        file.attrs.update(attributes)
        store_checksum(file, columns)


def store_checksum(file: h5py.File, names: Iterable[str]) -> None:
    """Store the checksum of an otherwise complete file that is open for writing; it covers the datasets ``names``."""
    file.attrs[DIGEST] = checksum_of(dict(file.attrs), {name: file[name] for name in names})


def verify_checksum(attributes: Mapping[str, Any], datasets: Mapping[str, np.ndarray], path: Path) -> None:
    """Refuse contents that differ from those that the stored checksum is of; pass those without a checksum.

    Args:
        attributes: all attributes of the file.
        datasets: the covered datasets as they were read.
        path: the file, for the message.

    Raises:
        FormatError: they differ.
    """
    stored = attributes.get(DIGEST)
    if stored is not None and str(stored) != checksum_of(attributes, datasets):
        raise FormatError(
            f"{path} is damaged: its contents do not fit its checksum; bring an intact copy or make it anew (if you "
            f"changed it yourself, remove its attribute '{DIGEST}')"
        )


def checksum_of(attributes: Mapping[str, Any], datasets: Mapping[str, np.ndarray | h5py.Dataset]) -> str:
    """Return the checksum of attributes, except itself, and datasets, in any order."""
    result = hashlib.sha256()
    for name in sorted(attributes):
        if name != DIGEST:
            value = attributes[name]
            data = value.encode(errors="surrogateescape") if isinstance(value, str) else _bytes(np.asarray(value))
            result.update(f"\0{name}\0{len(data)}\0".encode() + data)
    for name in sorted(datasets):
        values = datasets[name]
        result.update(f"\0{name}\0{values.dtype.str}\0{values.shape}\0".encode())
        rows = max(1, _SLAB // max(1, int(np.prod(values.shape[1:]))))
        for start in range(0, len(values), rows):
            result.update(_bytes(np.asarray(values[start : start + rows])))
    return result.hexdigest()


def _bytes(values: np.ndarray) -> bytes:
    """Return numbers as they lie in memory, anything else as text."""
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
