"""Write a shower library so that a crash at any moment loses nothing that was finished.

A finished chunk of showers becomes a complete file in the folder ``NAME.parts/`` (written, synchronised, then renamed).
``NAME`` itself is a small file of virtual datasets over the parts and is replaced, never changed. At the end the parts
are joined into one plain file that takes its place. The folder holds a lock, so that there is one writer at a time.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from calograd.errors import FormatError, InputError, Interrupted, OutputExistsError
from calograd.events.library.reader import ShowerLibrary, open_any, read_heads
from calograd.events.library.recovery import is_cut_off
from calograd.events.library.schema import (
    CHUNK,
    Heads,
    Layout,
    Provenance,
    compress,
    create_rows,
    front_size,
    parts_folder,
    slabs,
    write_heads,
)
from calograd.io.files import synchronise, write_synchronised, writing
from calograd.system.interrupts import checked_interrupt
from calograd.system.progress import Progress

_THEN = "; what is finished is kept, mend this and repeat the command"
"""Advice at the end of errors."""


@contextmanager
def open_writer(path: Path, provenance: Provenance, wanted: int, append: bool = False) -> Iterator[LibraryWriter]:
    """Start the library ``path``, or continue it if it is unfinished, with ``append`` also if it is finished.

    Raises:
        OutputExistsError: the library is finished or was made otherwise, or ``path`` is something else.
        InputError: another process writes it, or it cannot be written.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"the folder {path.absolute().parent} does not exist; create it first")
    finished = _refuse_others(path, provenance, wanted, append)
    folder = parts_folder(path)
    with _locked(folder, path):
        writer = LibraryWriter(path, folder, provenance, wanted)
        writer.collect(finished)
        try:
            writer.publish(force=True)
            yield writer
        finally:
            writer.leave()


@contextmanager
def open_interruptible_writer(
    path: Path, provenance: Provenance, wanted: int, append: bool = False
) -> Iterator[tuple[LibraryWriter, Callable[[], None]]]:
    """Open a writer as `open_writer` does, and yield it with a function to call between steps, where Ctrl-C may stop.

    Raises:
        Interrupted: Ctrl-C; what is finished is kept, and the same work continues it.
    """
    writer = None
    try:
        with checked_interrupt() as check, open_writer(path, provenance, wanted, append) as writer:
            yield writer, check
    except KeyboardInterrupt as stop:
        kept = "no shower was finished yet, nothing is kept"
        if writer.done if writer else path.exists():
            done = f"{writer.done} of {wanted} showers are" if writer else "what was done is"
            kept = f"{done} finished in {path}; the same command goes on from there"
        raise Interrupted(kept) from stop


def _refuse_others(path: Path, provenance: Provenance, wanted: int, append: bool) -> bool:
    """Raise `OutputExistsError` unless ``path`` can be written; return whether it is a finished library to continue."""
    if not path.exists():
        return False
    try:
        made_by, heads, unfinished = read_heads(path, provenance.layout)
    except FormatError as error:
        raise OutputExistsError(f"{path} exists already and cannot be continued ({error}); move it away") from error
    difference = provenance.difference(made_by)
    if difference:
        raise OutputExistsError(f"{path} exists already and was made otherwise: {difference}; choose another output")
    have = len(heads.index)
    if unfinished is None and have < wanted and not append:
        raise OutputExistsError(
            f"{path} exists already with {have} showers; choose another output, or add --append to continue to {wanted}"
        )
    if have > wanted or (unfinished is None and have == wanted):
        raise OutputExistsError(f"{path} exists already with {have} showers, {wanted} are asked; choose another output")
    return unfinished is None


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    """Hold the lock of a library's folder, which is created if missing."""
    while True:
        with writing(path, _THEN):
            folder.mkdir(exist_ok=True)
            file = (folder / "lock").open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise InputError(f"{path} is being written by another process ({owner}); wait for it or stop it") from error
        if (folder / "lock").exists() and os.path.samestat(os.fstat(file.fileno()), (folder / "lock").stat()):
            break
        file.close()  # the folder was removed meanwhile by a writer that finished
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()}")
        file.flush()
        yield
    finally:
        file.close()


class LibraryWriter:
    """The one writer of a library; use `open_writer`.

    Attributes:
        times: whether new showers are to have times: not if those that are there already have none.
        notes: faults of an unfinished library that were repaired, and times that are left out, in sentences.
    """

    def __init__(self, path: Path, folder: Path, provenance: Provenance, wanted: int) -> None:
        self.path = path
        self.provenance = provenance
        self.wanted = wanted
        self.times = True
        self.notes: list[str] = []
        self._layout = provenance.layout
        self._folder = folder
        self._parts: dict[Path, Heads] = {}
        self._published = 0.0
        self._pause = 0.0
        self._complete = False

    def collect(self, finished: bool) -> None:
        """Find the finished parts; a ``finished`` library to continue becomes one of them."""
        for stray in self._folder.glob("*.tmp"):
            stray.unlink()
        have: set[int] = set(read_heads(self.path, self._layout)[1].index.tolist()) if finished else set()
        for part in sorted(self._folder.glob("*.h5")):
            if is_cut_off(part):
                self.notes.append(f"{part} is cut off; its showers are simulated again")
                part.unlink()
                continue
            provenance, heads, _ = _intact(part, self._layout)
            difference = self.provenance.difference(provenance)
            if difference:
                raise OutputExistsError(f"{part} was made otherwise: {difference}; choose another output")
            if have.issuperset(heads.index.tolist()):
                part.unlink()
            else:
                self._parts[part] = heads
        if finished:
            base = self._folder / "00-base.h5"
            with writing(self.path, _THEN):
                try:
                    os.link(self.path, base)
                except OSError:
                    shutil.copy2(self.path, base)
            self._parts[base] = read_heads(base, self._layout)[1]
        self.times = all(heads.times for heads in self._parts.values())
        if self.done > self.wanted:
            raise OutputExistsError(
                f"{self.path} has {self.done} showers already, {self.wanted} are asked; ask for more"
            )

    @property
    def done(self) -> int:
        """Number of finished showers."""
        return sum(len(heads.index) for heads in self._parts.values())

    def missing(self) -> list[range]:
        """Return the indices below ``wanted`` that are not finished, as ranges."""
        todo = np.ones(self.wanted, bool)
        for heads in self._parts.values():
            todo[heads.index[heads.index < self.wanted]] = False
        edges = np.flatnonzero(np.diff(np.concatenate([[False], todo, [False]]).astype(np.int8)))
        return [range(int(a), int(b)) for a, b in edges.reshape(-1, 2)]

    def add(self, image: bytes) -> None:
        """Keep a chunk of showers, given as a complete file by `calograd.events.library.schema.pack`."""
        temporary = self._folder / "part.tmp"
        with writing(self.path, _THEN):
            write_synchronised(temporary, image)
            heads = read_heads(temporary, self._layout)[1]
            part = self._folder / f"{heads.index[0]:010d}-{heads.index[-1]:010d}.h5"
            temporary.replace(part)
            synchronise(self._folder)
        self._parts[part] = heads
        self.publish()

    def publish(self, force: bool = False) -> None:
        """Replace the library by virtual datasets over all parts; at most every few seconds unless ``force``."""
        now = time.monotonic()
        if not force and now - self._published < self._pause:
            return
        temporary = self._folder / "library.tmp"
        with writing(self.path, _THEN):
            write_synchronised(temporary, _virtual(self._ordered(), self.provenance, self.wanted))
            temporary.replace(self.path)
        self._published = time.monotonic()
        self._pause = max(2.0, 20 * (self._published - now))

    def finish(self, progress: Progress, threads: int) -> None:
        """Join the parts into one plain file; ``progress`` is called with the rows written and their number."""
        ordered = self._ordered()
        need = sum(part.stat().st_size for part in self._parts)
        temporary = self._folder / "joined.tmp"
        with writing(self.path, _THEN):
            free = shutil.disk_usage(self._folder).free
            if free < need:
                raise OSError(
                    f"all {self.done} showers are finished and readable, but joining them into one file takes "
                    f"{need / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
                )
            self.publish(force=True)
            try:
                self._join(temporary, Heads.join([heads for _, heads in ordered], self.provenance), progress, threads)
                synchronise(temporary)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
            synchronise(self.path.absolute().parent)
        self._complete = True

    def leave(self) -> None:
        """Remove the parts if the library is complete; otherwise publish all that is finished."""
        if self._complete or not self._parts:
            shutil.rmtree(self._folder)
            if not self._complete:
                self.path.unlink(missing_ok=True)
        else:
            self.publish(force=True)

    def _ordered(self) -> list[tuple[Path, Heads]]:
        return sorted(self._parts.items(), key=lambda item: int(item[1].index[0]))

    def _join(self, target: Path, heads: Heads, progress: Progress, threads: int) -> None:
        lengths = heads.lengths(self._layout)
        with (
            open_any(self.path, self._layout) as library,
            ThreadPoolExecutor(threads) as pool,
            h5py.File(target, "w", rdcc_nbytes=0, meta_block_size=front_size(lengths.values())) as file,
        ):
            write_heads(file, self.provenance, heads)
            for rows in library.tables():
                with rows:
                    _join_rows(file, rows, progress, pool, 8 * threads)


def _join_rows(
    file: h5py.File, rows: ShowerLibrary[Any], progress: Progress, pool: ThreadPoolExecutor, most: int
) -> None:
    """Write the rows of an open library to a file, compressed in a pool, with at most ``most`` chunks under way."""
    n = int(rows.heads.offsets[-1])
    chunk = max(1, min(CHUNK, n))
    names = rows.layout.names(rows.heads.times)
    datasets = create_rows(file, n, names, compression="gzip", compression_opts=1)
    waiting: deque[tuple[int, str, Future[bytes]]] = deque()

    def write_oldest() -> None:
        start, name, future = waiting.popleft()
        datasets[name].id.write_direct_chunk((start,), future.result())
        progress(min(n, start + chunk), n)

    for number, slab in enumerate(slabs(rows.blocks(1 << 21), chunk)):
        for name, values in slab.items():
            waiting.append((number * chunk, name, pool.submit(compress, values, chunk)))
        while len(waiting) > most:
            write_oldest()
    while waiting:
        write_oldest()


def _virtual(parts: list[tuple[Path, Heads]], provenance: Provenance, wanted: int) -> bytes:
    """Return the file of virtual datasets over the parts, as bytes."""
    heads = Heads.join([h for _, h in parts], provenance)
    lengths = [part.lengths(provenance.layout) for _, part in parts]
    with h5py.File("library", "w", driver="core", backing_store=False) as file:
        names = [f"{part.parent.name}/{part.name}" for part, _ in parts]
        write_heads(file, provenance, heads, wanted, names)
        for dataset, n in heads.lengths(provenance.layout).items():
            layout = h5py.VirtualLayout(shape=(n,), dtype="<f4")
            start = 0
            for name, length in zip(names, (each[dataset] for each in lengths), strict=True):
                if length:
                    source = h5py.VirtualSource(name.replace("%", "%%"), dataset, shape=(length,))
                    layout[start : start + length] = source
                start += length
            if n:
                file.create_virtual_dataset(dataset, layout, fillvalue=np.nan)
            else:
                file.create_dataset(dataset, shape=(0,), dtype="<f4")
        file.flush()
        return bytes(file.id.get_file_image())


def _intact(part: Path, layout: Layout) -> tuple[Provenance, Heads, int | None]:
    """Read the heads of the showers of a part. Raises `FormatError` with advice."""
    try:
        return read_heads(part, layout)
    except FormatError as error:
        raise FormatError(f"{error}; remove that file and repeat: its showers are simulated again") from error
