"""Files that appear complete or not at all, and folders that one process at a time writes.

Every file is written next to its destination, synchronised and then renamed, so a reader never sees half of it.
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

from calograd.errors import FormatError, InputError, OutputExistsError

ABANDONED = 3600.0
"""Age in seconds beyond which a temporary file is taken for one that a killed process left behind."""


def refuse_existing(path: Path | None) -> None:
    """Raise `OutputExistsError` if ``path`` exists. None stands for no file."""
    if path is not None and path.exists():
        raise OutputExistsError(f"{path} exists already; move it away or choose another output")


def shard_files(path: Path) -> list[Path]:
    """Return the files that are read as one: a file itself, or every ``.h5`` of a folder, sorted by name.

    Raises:
        FormatError: the folder has no such file.
    """
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.glob("*.h5") if file.is_file() and not file.name.startswith("."))
    if not found:
        raise FormatError(f"{path} is a folder without .h5 files; expected the files of one data set")
    return found


@contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Turn the errors of a full or read-only disk into an `InputError` of one line that ends with ``advice``.

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
        raise InputError(f"{path} cannot be written: {reason}{advice}") from error


def write_new(path: Path, content: bytes | memoryview) -> None:
    """Write a new file; it appears when it is complete and never replaces another.

    Raises:
        OutputExistsError: ``path`` exists, perhaps since another process made it meanwhile.
        InputError: the folder does not exist or the disk is full.
    """
    refuse_existing(path)
    with temporary_file(path) as temporary:
        write_synchronised(temporary, content)
        publish(temporary, path)


def write_whole(path: Path, content: bytes | memoryview, advice: str = "") -> None:
    """Write a file that replaces ``path`` when it is complete.

    Raises:
        InputError: the folder does not exist or the disk is full; the message ends in ``advice``.
    """
    with temporary_file(path, advice) as temporary:
        write_synchronised(temporary, content)
        temporary.replace(path)


@contextmanager
def temporary_file(path: Path, advice: str = "") -> Iterator[Path]:
    """Yield a temporary name next to ``path``; remove it afterwards, and those that killed processes left."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for stray in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - stray.stat().st_mtime > ABANDONED:
                stray.unlink()
    try:
        with writing(path, advice):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_synchronised(path: Path, content: bytes | memoryview) -> None:
    """Write a file and wait until it is on the disk; remove it if that fails."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def synchronise(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(temporary: Path, path: Path) -> None:
    """Give a complete file its final name. Raises `OutputExistsError` if the name was taken meanwhile."""
    try:
        os.link(temporary, path)
    except OSError:  # the name is taken, or the file system has no hard links
        refuse_existing(path)
        temporary.replace(path)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created if missing, so that one process at a time writes it.

    Temporary files of killed processes are removed.

    Raises:
        InputError: another process holds the lock, or the folder cannot be created.
    """
    created = not folder.exists()
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
            if created:
                with suppress(OSError):  # the folder is not empty
                    folder.rmdir()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{folder} is being written by another process; wait for it or stop it") from error
    except OSError:  # a file system without locks on folders: nothing protects the run there
        return
