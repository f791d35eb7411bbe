"""A file that HDF5 can always write to.

Where a disk is full HDF5 fails in many places, also where it closes what is open, and leaves h5py to complain of each
on standard error. Here the first failure is kept instead, what comes after it is dropped, and HDF5 ends in peace. HDF5
does not gather its index at the front of such a file, so it does for files that are read as a whole.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py


class Positioned(io.RawIOBase):
    """A readable file as HDF5 takes it from Python, which knows where it is and how long it is (``end``, bytes)."""

    def __init__(self, end: int) -> None:
        self._position, self._end = 0, end

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it is."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there, be it beyond the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        self._position = base + offset
        return self._position


class _Patient(Positioned):
    """A file for reading and writing that keeps its first error to itself.

    Attributes:
        error: it; None while all is well.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and (data := os.pread(self._descriptor, len(view) - done, self._position + done)):
            view[done : done + len(data)] = data
            done += len(data)
        view[done:] = bytes(len(view) - done)
        self._position += len(view)
        return len(view)

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        view, done = memoryview(data).cast("B"), 0
        try:
            while self.error is None and done < len(view):
                done += os.pwrite(self._descriptor, view[done:], self._position + done)
        except OSError as error:
            self.error = error
        self._position += len(view)
        self._end = max(self._end, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._position if size is None else size
        try:
            if self.error is None:
                os.ftruncate(self._descriptor, self._end)
        except OSError as error:
            self.error = error
        return self._end

    def synchronise(self) -> None:
        """Bring everything to the disk."""
        if self.error is None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@contextmanager
def written_file(path: Path) -> Iterator[h5py.File]:
    """A new HDF5 file in place of what is there, on the disk at the end of the block.

    Raises:
        OSError: it could not be written completely.
    """
    with _Patient(path) as raw:
        try:
            with h5py.File(raw, "w") as file:
                yield file
            raw.synchronise()
        except Exception:
            if raw.error is None:
                raise
        if raw.error is not None:  # whatever came of it, this was the cause
            raise raw.error
