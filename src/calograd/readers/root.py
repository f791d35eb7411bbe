"""Read the steps of other Geant4 applications from ROOT trees (TTree, TNtuple, RNTuple), chunk by chunk.

A tree is either *flat*, one entry a step, with a branch of event numbers; or *jagged*, one entry an event, with lists
of positions and deposits. A jagged tree may have several entries an event (one a track, say) if its event numbers are
in a branch that `Branches.event` names. With q = p - origin, a step at p in the file is, by the axis of its beam, at

    axis       z              x              y              -z              -x              -y
    (x, y, z)  (qx, qy, qz)   (qy, qz, qx)   (qz, qx, qy)   (-qx, qy, -qz)  (-qy, qz, -qx)  (-qz, qx, -qy)

All of these are right-handed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from calograd.errors import FormatError, InputError
from calograd.io.toml import Table

CM = {"mm": 0.1, "cm": 1.0, "m": 100.0}
"""Units of length, in cm."""
GEV = {"keV": 1e-6, "MeV": 1e-3, "GeV": 1.0}
"""Units of energy, in GeV."""
CHUNK_BYTES = 1 << 25
"""Size of all branches together that is read at a time, bytes."""
SAMPLE = 64
"""Number of entries from which the size of a branch is estimated, where the file does not state it."""
EVENT = "event"
"""Name of the branch of event numbers in a flat tree, unless another is given."""
_TREES = ("TTree", "TNtuple", "TNtupleD", "ROOT::RNTuple")
_LISTED = 40


class Branches(Table):
    """Names of the branches."""

    event: str | None = None
    """Branch of event numbers. None: ``event`` in a flat tree; in a jagged one every entry is an event."""
    x: str = "x"
    y: str = "y"
    z: str = "z"
    deposit: str = "deposit"
    energy: str = "energy"
    """Branch of incident energies: one an entry."""


class Reading(Table):
    """Layout, units and coordinates of a tree; the defaults are Geant4's own units."""

    tree: str | None = None
    """Name of the tree, with its folder; None if the file has only one."""
    branches: Branches = Branches()
    length_unit: Literal["mm", "cm", "m"] = "mm"
    energy_unit: Literal["keV", "MeV", "GeV"] = "MeV"
    """Unit of the deposits."""
    incident_unit: Literal["keV", "MeV", "GeV"] = "MeV"
    """Unit of the incident energies."""
    incident: Annotated[float, Field(gt=0)] | None = None
    """Incident energy of all events in GeV, in place of a branch."""
    axis: Literal["x", "y", "z", "-x", "-y", "-z"] = "z"
    """Direction of the beam in the file's coordinates."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Point where the calorimeter's axis meets its front face, in the file's coordinates, cm."""


class Steps(NamedTuple):
    """Steps of some entries of a tree.

    Attributes:
        event: event number of every step, shape (n,), int64; the number of its entry where the tree has none.
        x, y, z: positions, the front face at z = 0, shape (n,), cm.
        e: deposits, shape (n,), GeV.
        owner: event number of every entry, shape (m,), int64.
        energy: incident energy of every entry, shape (m,), GeV.
    """

    event: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    e: np.ndarray
    owner: np.ndarray
    energy: np.ndarray


class Tree:
    """An open tree of steps; made by `open_tree`.

    Attributes:
        entries: number of entries.
        flat: whether an entry is a step; otherwise it holds lists of steps.
        numbered: whether events are distinguished by their numbers; otherwise every entry is an event.
        repeated: name of a branch whose event numbers repeat although every entry is taken as an event; else None.
    """

    def __init__(self, path: Path, tree: Any, reading: Reading) -> None:
        self._path = path
        self._reading = reading
        self._ak = import_module("awkward")
        self._coordinates = [self._branch(tree, "x"), self._branch(tree, "y"), self._branch(tree, "z")]
        self._deposit = self._branch(tree, "deposit")
        self._energy = None if reading.incident else self._branch(tree, "energy")
        self.entries = int(tree.num_entries)
        if self.entries == 0:
            raise FormatError(f"{path}: the tree {tree.name} has no entries; expected steps")
        self.flat = self._array(self._deposit, 0, 1).ndim == 1
        name = reading.branches.event
        self._event = self._branch(tree, "event", name or EVENT) if self.flat or name else None
        self.numbered = self._event is not None
        self.repeated = None if self.numbered else self._repeated(tree)

    def steps(self) -> Iterator[tuple[Steps, int]]:
        """Yield all steps, a chunk at a time, each with the number of entries read so far.

        Raises:
            FormatError: a branch that holds no numbers, lists of different lengths, a damaged file.
        """
        used = [b for b in (*self._coordinates, self._deposit, self._energy, self._event) if b is not None]
        size = sum(self._bytes(branch) for branch in used)
        pieces = min(self.entries, max(1, ceil(size / CHUNK_BYTES)))
        edges = [self.entries * k // pieces for k in range(pieces + 1)]
        for start, stop in pairwise(edges):
            yield self._read(start, stop), stop

    def _bytes(self, branch: Any) -> int:
        """Return the approximate size of a branch without compression."""
        if hasattr(branch, "uncompressed_bytes"):
            return int(branch.uncompressed_bytes)
        some = np.random.default_rng(0).integers(self.entries, size=SAMPLE)
        return sum(int(self._array(branch, k, k + 1).nbytes) for k in some.tolist()) * self.entries // SAMPLE

    def _read(self, start: int, stop: int) -> Steps:
        counts, deposit = self._column(self._deposit, start, stop)
        columns = []
        for branch in self._coordinates:
            lengths, values = self._column(branch, start, stop)
            if not np.array_equal(lengths, counts):
                entry = start + int(np.argmax(lengths != counts))
                raise FormatError(
                    f"{self._path}: '{branch.name}' and '{self._deposit.name}' differ in length in entry {entry}; "
                    "expected as many positions as deposits"
                )
            columns.append(values)
        owner = np.arange(start, stop)
        if self._event is not None:
            owner = self._numbers(self._array(self._event, start, stop), self._event)
            if not np.array_equal(owner, np.trunc(owner)):
                raise FormatError(f"{self._path}: '{self._event.name}' is no event number; expected whole numbers")
        energy = np.full(len(owner), self._reading.incident)
        if self._energy is not None:
            values = self._numbers(self._array(self._energy, start, stop), self._energy)
            energy = values * GEV[self._reading.incident_unit]
        owner = owner.astype(np.int64)
        x, y, z = self._turn([column * CM[self._reading.length_unit] for column in columns])
        return Steps(np.repeat(owner, counts), x, y, z, deposit * GEV[self._reading.energy_unit], owner, energy)

    def _turn(self, coordinates: list[np.ndarray]) -> list[np.ndarray]:
        """Return positions in the calorimeter's coordinates, from those in the file's, cm."""
        shifted = [coordinate - origin for coordinate, origin in zip(coordinates, self._reading.origin, strict=True)]
        first = "xyz".index(self._reading.axis[-1]) + 1
        x, y, z = (shifted[(first + k) % 3] for k in range(3))
        return [-x, y, -z] if self._reading.axis.startswith("-") else [x, y, z]

    def _column(self, branch: Any, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of steps of every entry (one in a flat tree) and the values of all steps, float64."""
        array = self._array(branch, start, stop)
        if array.ndim == 1 and self.flat:
            return np.ones(len(array), np.int64), self._numbers(array, branch)
        if array.ndim == 2 and not self.flat:
            return np.asarray(self._ak.num(array)), self._numbers(self._ak.flatten(array), branch)
        raise FormatError(
            f"{self._path}: '{branch.name}' is of type {array.type}; expected a number in every entry (flat) "
            "or a list in every entry (jagged), alike for positions and deposits"
        )

    def _numbers(self, array: Any, branch: Any) -> np.ndarray:
        """Return a flat array as float64, integers as int64."""
        try:
            values: np.ndarray | None = np.asarray(array) if array.ndim == 1 else None
        except (TypeError, ValueError):  # records and the like
            values = None
        if values is None or values.dtype.kind not in "iuf":
            raise FormatError(f"{self._path}: '{branch.name}' is of type {array.type}; expected numbers")
        return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)

    def _repeated(self, tree: Any) -> str | None:
        """Return the name of a branch of event numbers that is not used, if its numbers repeat."""
        if EVENT not in [*tree.keys()]:
            return None
        array = self._array(tree[EVENT], 0, self.entries)
        try:
            numbers = self._numbers(array, tree[EVENT])
        except FormatError:  # no numbers at all
            return None
        return EVENT if len(np.unique(numbers)) < len(numbers) else None

    def _branch(self, tree: Any, field: str, name: str | None = None) -> Any:
        name = name or getattr(self._reading.branches, field)
        names = [*tree.keys()]
        if name not in names:
            near = get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            listed = " ".join(names[:_LISTED]) + (" ..." if len(names) > _LISTED else "")
            raise FormatError(
                f"{self._path}: the tree {tree.name} has no branch '{name}' for {field}{hint}; its branches: {listed}"
            )
        return tree[name]

    def _array(self, branch: Any, start: int, stop: int) -> Any:
        with _readable(self._path):
            return branch.array(entry_start=start, entry_stop=stop, library="ak", array_cache=None)


@contextmanager
def open_tree(path: Path, reading: Reading) -> Iterator[Tree]:
    """Open a tree of steps for reading.

    Raises:
        InputError: uproot is not installed.
        FormatError: the file is missing, damaged or not ROOT, or has no such tree or branches.
    """
    try:
        uproot = import_module("uproot")
    except ModuleNotFoundError as error:
        raise InputError("reading ROOT files takes uproot; pip install 'calograd[root]'") from error
    if not path.is_file():
        raise FormatError(f"{path} does not exist or is not a file")
    with _readable(path):
        file = uproot.open({path: None}, handler=uproot.MultithreadedFileSource, use_threads=False)
    with file:
        with _readable(path):
            trees = [*dict.fromkeys(file.keys(cycle=False, filter_classname=list(_TREES)))]
        name = reading.tree or (trees[0] if len(trees) == 1 else None)
        if name not in trees:
            near = get_close_matches(reading.tree or "", trees, n=1, cutoff=0.4)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            wrong = f"has no tree '{reading.tree}'{hint}" if reading.tree else "has not just one tree: name it"
            raise FormatError(f"{path} {wrong}; its trees: {' '.join(trees) or 'none'}")
        with _readable(path):
            tree = file[name]
        yield Tree(path, tree, reading)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn any error that uproot raises on wrong bytes into one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FormatError(f"{path} is no ROOT file, or damaged: {reason}") from error
