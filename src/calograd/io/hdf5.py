"""Files that are never half there, HDF5 above all.

Every file is written beside its destination and moved into place when it is complete, so a reader sees either the
whole file or none. Every file says its schema, ``calograd/<kind>/<version>``.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from calograd.errors import CaloGradError, FormatError, InputError, OutputExistsError
from calograd.io.deferred import written_file
from calograd.io.heap import refuse_endless

DAMAGE = (
    OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError,
)  # fmt: skip
"""What h5py raises where the bytes of a file are wrong, and Python where they then are of another type."""
INFLATION = 2000
"""Filters of HDF5 make a chunk at most some 1000 times smaller; datasets that claim more are damaged."""
FORSAKEN = 3600.0
"""Seconds after which a temporary file that nobody has written to is taken for one of a process that was killed."""


def refuse_existing(path: Path | None) -> None:
    """Raise `OutputExistsError` if ``path`` (None is no file) exists: nothing is overwritten silently."""
    if path is not None and path.exists():
        raise OutputExistsError(f"{path} exists already; move it away or choose another output")


def shard_files(path: Path) -> list[Path]:
    """The files that are read as one: all ``.h5`` of a folder in the order of their names, or the file itself.

    Raises:
        FormatError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.h5") if file.is_file() and not file.name.startswith("."))
    if not found:
        raise FormatError(f"{path} is a folder without .h5 files; expected the files of one data set")
    return found


@contextmanager
def writing(path: Path, then: str = "") -> Iterator[None]:
    """Turn what a full or read-only disk makes HDF5 raise into an `InputError` of one line, with the advice ``then``.

    HDF5 raises an `OSError` from the write that fails and a `RuntimeError` when the file is closed after that.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if found := re.search(r"errno = (\d+)", str(error)):
            number = int(found[1])
        if number is None and isinstance(error, RuntimeError):
            raise
        reason = os.strerror(number) if number else str(error)
        raise InputError(f"{path} cannot be written: {reason}{then}") from error


def schema_of(path: Path) -> str | None:
    """The schema that a file names; None where it cannot be read or names none."""
    try:
        with reading(path, "a file of calograd") as file:
            schema = file.attrs.get("schema")
    except FormatError:
        return None
    return schema if isinstance(schema, str) else None


@contextmanager
def new_file(path: Path, schema: str) -> Iterator[h5py.File]:
    """An HDF5 file that appears under ``path`` only when the block has ended without an error.

    Raises:
        InputError: the folder does not exist or the disk is full.
    """
    with new_foreign_file(path) as file:
        file.attrs["schema"] = schema
        yield file


@contextmanager
def new_foreign_file(path: Path) -> Iterator[h5py.File]:
    """As `new_file`, of another project's format, which knows no schema of ours."""
    with _beside(path) as temporary:
        with written_file(temporary) as file:
            yield file
        _publish(temporary, path)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that appears under ``path`` only when it is complete, and never in place of another.

    Raises:
        OutputExistsError: ``path`` exists, be it that another process made it meanwhile.
        InputError: the folder does not exist or the disk is full.
    """
    refuse_existing(path)
    with _beside(path) as temporary:
        _write(temporary, content)
        _publish(temporary, path)


def write_whole(path: Path, content: bytes, then: str = "") -> None:
    """Write a file that appears under ``path``, in place of what is there, only when it is complete.

    Raises:
        InputError: the folder does not exist or the disk is full; ``then`` is the advice that goes with it.
    """
    with _beside(path, then) as temporary:
        _write(temporary, content)
        temporary.replace(path)


@contextmanager
def _beside(path: Path, then: str = "") -> Iterator[Path]:
    """A temporary name for what will be ``path``; what killed processes left of earlier ones is removed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for stray in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - stray.stat().st_mtime > FORSAKEN:
                stray.unlink()
    try:
        with writing(path, then):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write(temporary: Path, content: bytes) -> None:
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _publish(temporary: Path, path: Path) -> None:
    """Give a complete file its name, unless another has it by now."""
    try:
        os.link(temporary, path)
    except OSError:  # there is one, or a file system without hard links
        refuse_existing(path)
        temporary.replace(path)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the folder of a run, which is made if need be, so that one process at a time writes it.

    Files that a killed process left half written are removed.

    Raises:
        InputError: another process holds it, or it cannot be made.
    """
    made = not folder.exists()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, folder)
        for stray in folder.glob(".*.tmp"):
            stray.unlink(missing_ok=True)
        try:
            yield
        finally:
            if made:  # while nobody else can hold it
                with suppress(OSError):  # something was put into it
                    folder.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{folder} is being written by another process; wait for it or stop it") from error
    except OSError:  # a file system that cannot lock folders: whoever runs there has to see to it
        return


def check_schema(file: h5py.File, path: Path, schema: str) -> None:
    """Raise `FormatError` unless ``file`` is of the kind and at most the version that ``schema`` names."""
    found = file.attrs.get("schema")
    kind, version = schema.rsplit("/", 1)
    if not isinstance(found, str) or not found.startswith(f"{kind}/"):
        what = f"schema '{found}'" if found is not None else "an HDF5 file without a schema"
        raise FormatError(f"{path} is {what}, expected '{schema}'")
    if not found.rsplit("/", 1)[1].isdecimal() or int(found.rsplit("/", 1)[1]) > int(version):
        raise FormatError(f"{path} has schema '{found}', this version reads up to '{schema}'; update calograd")


@contextmanager
def existing_file(path: Path, schema: str) -> Iterator[h5py.File]:
    """An HDF5 file opened for reading, after its schema was checked.

    Raises:
        FormatError: missing, not HDF5, cut off, of another kind or newer than this version.
    """
    with reading(path, f"'{schema}'") as file:
        check_schema(file, path, schema)
        yield file


@contextmanager
def reading(path: Path, expected: str) -> Iterator[h5py.File]:
    """An HDF5 file opened for reading; ``expected`` is what a user is told to bring.

    Raises:
        FormatError: missing, not HDF5, cut off or damaged.
    """
    if not path.is_file():
        raise FormatError(f"{path} does not exist or is not a file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        how = "is cut off" if "truncated" in str(error) else "is not a readable HDF5 file"
        raise FormatError(f"{path} {how}; expected {expected}") from error
    with file:
        refuse_endless(path)
        try:
            yield file
        except CaloGradError:
            raise
        except DAMAGE as error:
            reason = " ".join(str(error).split())
            raise FormatError(f"{path} is damaged and cannot be read completely: {reason}") from error


def load(file: h5py.File, name: str) -> np.ndarray:
    """A whole dataset. Raises one of `DAMAGE` where there is none, or one that cannot be in a file of that size."""
    dataset = file[name]
    stored = file.id.get_filesize()
    if dataset.nbytes > INFLATION * stored:
        raise ValueError(f"{name} claims {dataset.nbytes} bytes in a file of {stored}")
    return np.asarray(dataset[()])
