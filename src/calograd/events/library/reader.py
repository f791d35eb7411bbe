"""Read shower libraries (HDF5): deposits, free of any segmentation, or energies of the plates of sampling stacks.

    with open_library(path) as library:           # schema calograd/library/2
        for showers in library.blocks():
            ...
    with open_plates(path) as library:            # schema calograd/plates/1
        energies = library.read().energies()

While a simulation runs, its library is a small file of virtual datasets over the finished parts in ``NAME.parts/``;
`open_library` or `open_plates` and plain HDF5 read it at every moment. A folder of libraries that differ in seed or
energies alone is read as one. `calograd.events.library.schema` describes the datasets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self

import h5py
import numpy as np

from calograd.detector.configuration import CrystalMatrix, SimulationConfig
from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.detector.sampling_stack import MOST_LAYERS, SamplingStack
from calograd.errors import FormatError, InputError
from calograd.events.library.recovery import complete_showers, is_cut_off, open_padded
from calograd.events.library.schema import (
    CHECKSUM,
    DEPOSIT_LIBRARY,
    HEADS,
    INCIDENT,
    MORE,
    PARTS,
    PLATE_LIBRARY,
    RECORDED,
    SCHEMA,
    TIME,
    Generated,
    Heads,
    Imported,
    Layout,
    Provenance,
    R,
    check_heads,
    checksums,
    values_problem,
)
from calograd.events.plates import PlateShowers
from calograd.events.ragged import Deposits, Showers, blocks, offsets_of
from calograd.io.files import shard_files
from calograd.io.hdf5 import DAMAGE, check_datasets, check_schema, existing_file, load

__all__ = ["SCHEMA", "Library", "PlateLibrary", "Showers", "open_library", "open_plates", "read_heads"]

BLOCK = 1 << 23
"""Default number of deposits in a block: 160 MB with times, some 4 000 GeV."""
_KINDS = dict.fromkeys((*HEADS, *MORE, CHECKSUM), "iu")
_KINDS |= dict.fromkeys(("energy", "position", "theta", "phi", *Showers.FLAT, *PlateShowers.FLAT), "fiu")
"""Kinds of numbers that each column may have."""
SAME = 1e-5
"""Relative tolerance within which two sizes are the same."""


@dataclass(frozen=True)
class _Part:
    """The file that holds the showers ``first:first + showers`` of a library, as its own first ``showers``.

    Its rows have all columns if ``times``: deposits may lack times.
    """

    path: Path
    first: int
    showers: int
    times: bool


class ShowerLibrary(ABC, Generic[R]):
    """A shower library of any layout opened for reading.

    Attributes:
        path: the file or folder.
        provenance: the simulation that made it, Geant4's version and tables; or the file that it was imported from.
        energy: incident energy of every shower, shape (n,), GeV, float32.
        index: number of every shower in its simulation, shape (n,), int64, increasing.
        seed: seed of Geant4's engine for every shower, shape (n,), uint64.
        heads: these and all other columns of one value a shower, as one record.
        wanted: number of showers that an unfinished library is to have; None if it is finished.
        lost: number of showers that could not be recovered, if it was opened with ``recover``.
        shards: index of the first shower and provenance of every library that this one is made of; the showers of a
            folder are numbered one library behind the other.
    """

    layout: ClassVar[Layout]

    def __init__(
        self, path: Path, provenance: Provenance, heads: Heads, parts: list[_Part], *, wanted: int | None, lost: int
    ) -> None:
        self.path = path
        self.provenance = provenance
        self.heads = heads
        self.energy, self.index, self.seed = heads.energy, heads.index, heads.seed
        self.wanted = wanted
        self.lost = lost
        self.shards = [(0, provenance)]
        self._deposits: Library | None = None
        self._parts = parts
        self._files = ExitStack()
        self._open: tuple[Path, h5py.File] | None = None

    def __len__(self) -> int:
        return len(self.energy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._files.close()
        self._open = None
        if self._deposits is not None:
            self._deposits.close()

    @property
    def complete(self) -> bool:
        """True if the showers of all files have all columns."""
        return all(part.times for part in self._parts)

    def incidence(self) -> Incidence:
        """Return the incident particles of the showers, as the file or its simulations or imports say."""
        columns = {name: getattr(self.heads, name) for name in INCIDENT}
        if all(column is not None for column in columns.values()):
            return Incidence(**columns)
        starts = [first for first, _ in self.shards[1:]]
        which = np.searchsorted(starts, self.index, side="right")
        configs = [made.config for _, made in self.shards]
        parts = [config.beam.model_dump() for config in configs if not isinstance(config, Generated)]
        each = [Incidence.of_beam(beam, 1) for beam in parts]
        return Incidence.concatenate(each)[which]

    def about(self) -> dict[str, Any]:
        """Return the origin of the showers as plain data, see `calograd.events.shards`."""
        if isinstance(self.provenance.config, Generated):
            return self.provenance.config.settings
        shards = [{"first": first, "simulation": made.config.model_dump(mode="json")} for first, made in self.shards]
        about = {"simulation": shards[0]["simulation"], "geant4": self.provenance.geant4}
        return about | {"tables": self.provenance.tables} | ({"shards": shards} if len(shards) > 1 else {})

    def read(self, start: int = 0, stop: int | None = None) -> R:
        """Return the showers ``start:stop``; deposits have times if those of all files of the library have them.

        Raises:
            InputError: the library has no such showers.
            FormatError: values that cannot be or do not fit their checksum, or a damaged file.
        """
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"{self.path} has {len(self)} showers; {start}:{stop} is not within 0:{len(self)}")
        pieces: list[Any] = []
        for part in self._parts:
            low, high = max(start, part.first), min(stop, part.first + part.showers)
            if low < high:
                piece: Any = self._showers(slice(low, high), self._rows(part, low - part.first, high - part.first))
                problem = values_problem(piece)
                if problem:
                    raise FormatError(f"{self.path}: {problem}; the file is damaged or foreign")
                self._check_sums(piece, low, part)
                pieces.append(piece if self.complete else replace(piece, **dict.fromkeys(self.layout.lacks)))
        if not pieces:
            none = {name: np.zeros(0, np.float32) for name in self.layout.names(self.complete)}
            pieces.append(self._showers(slice(start, stop), none))
        record: Any = self.layout.record
        whole: R = pieces[0] if len(pieces) == 1 else record.concatenate(pieces)
        if self._deposits is not None:
            of = self._deposits.read(start, stop)
            more: dict[str, Any] = {"deposits": Deposits(of.x, of.y, of.z, of.e, of.offsets, t=of.t)}
            whole = replace(whole, **more)
        return whole

    def _showers(self, rows: slice, flat: Mapping[str, Any]) -> R:
        """Return showers of the library with the given columns of their rows."""
        heads = self.heads.rows(rows)
        columns: dict[str, Any] = {name: getattr(heads, name) for name in self.layout.record.HEADS}
        made: Any = self.layout.record(**flat, offsets=heads.offsets, **columns, **self._common())
        showers: R = made
        return showers

    @abstractmethod
    def _common(self) -> dict[str, Any]:
        """Return the fields that all showers of the library have in common."""

    def blocks(self, max_rows: int = BLOCK) -> Iterator[R]:
        """Yield all showers in order, some at a time: at most ``max_rows`` rows, but at least one shower."""
        counts = self.heads.counts if self._deposits is None else self.heads.counts + self._deposits.heads.counts
        for rows in blocks(offsets_of(counts), max_rows):
            yield self.read(rows.start, rows.stop)

    def tables(self) -> list[ShowerLibrary[Any]]:
        """Return this library and, where the deposits in active plates were recorded, the library of these."""
        deposits = self._library_of_deposits()
        return [self] if deposits is None else [self, deposits]

    def _library_of_deposits(self) -> Library | None:
        heads = self.heads.of_deposits
        if heads is None:
            return None
        times = TIME in self.provenance.deposit_names
        heads, parts = replace(heads, times=times), [replace(part, times=times) for part in self._parts]
        return Library(self.path, self.provenance, heads, parts, wanted=self.wanted, lost=self.lost)

    def _check_sums(self, showers: R, start: int, part: _Part) -> None:
        """Raise `FormatError` if rows of a part have changed since they were written."""
        if self.heads.checksum is None:
            return
        wrong = np.flatnonzero(checksums(showers) != self.heads.checksum[start : start + len(showers)])
        if len(wrong):
            advice = "remove that file and repeat the simulation: its showers are simulated again"
            if self.wanted is None:
                advice = "bring an intact copy or make it anew"
            raise FormatError(
                f"{part.path} is damaged: the {self.layout.rows} of shower {showers.index[wrong[0]]} do not fit their "
                f"checksum; {advice}"
            )

    def _rows(self, part: _Part, low: int, high: int) -> dict[str, np.ndarray]:
        try:
            file, offsets = self._file(part.path), self.heads.offsets[part.first :]
            first, last = offsets[low] - offsets[0], offsets[high] - offsets[0]
            return {name: file[name][first:last] for name in self.layout.names(part.times)}
        except DAMAGE as error:
            raise FormatError(f"{part.path} is damaged and cannot be read completely: {error}") from error

    def _file(self, path: Path) -> h5py.File:
        """Return the file of a part; one is open at a time."""
        if self._open is None or self._open[0] != path:
            self.close()
            if not path.exists():
                raise FormatError(f"{path} is missing: the simulation of {self.path} may have ended; open it again")
            file = self._files.enter_context(open_padded(path) if is_cut_off(path) else h5py.File(path, "r"))
            self._open = (path, file)
        return self._open[1]


class Library(ShowerLibrary[Showers]):
    """A library of deposits opened for reading; use `open_library`."""

    layout = DEPOSIT_LIBRARY

    def _common(self) -> dict[str, Any]:
        return {}

    @property
    def config(self) -> SimulationConfig | Imported:
        """The simulation or the import that made the deposits; no surrogate generates any."""
        config = self.provenance.config
        assert not isinstance(config, Generated)
        return config

    @property
    def deposits(self) -> np.ndarray:
        """Number of deposits of every shower, shape (n,), int64; zero for a shower that left no energy."""
        counts: np.ndarray = self.heads.counts
        return counts

    @property
    def untimed(self) -> Path | None:
        """A file of the library whose deposits have no times; None if all have them."""
        return next((part.path for part in self._parts if not part.times), None)

    @property
    def material(self) -> Material | None:
        """The material of the showers, of a crystal matrix its crystals; None for a layered detector."""
        return self.provenance.material

    @property
    def matrix(self) -> CrystalMatrix | None:
        """The crystal matrix whose cells are the only ones these showers can be measured with; None: any will do."""
        config = self.provenance.config
        if isinstance(config, SimulationConfig) and isinstance(config.detector, CrystalMatrix):
            return config.detector
        return None

    @property
    def immovable(self) -> str | None:
        """The detector in words if the place of a shower in it matters, so that showers cannot be moved or turned."""
        if self.matrix is not None:
            return "a crystal matrix"
        geometry = self.provenance.geometry
        return None if geometry is None else f"the geometry {geometry.name}"

    def check_cells(self, dx: float | np.ndarray, dz: float | np.ndarray, n_xy: int, n_z: int) -> None:
        """Raise `InputError` unless these showers can be measured with cells of dx, dz (..., n_z), in cm.

        A layered detector cannot be, and a crystal matrix with its own cells alone.
        """
        if self.material is None:
            raise InputError(f"{self.path} is of a layered detector; cells of a design need a homogeneous block")
        matrix = self.matrix
        if matrix is None:
            return
        same = (n_xy, n_z) == (matrix.n_xy, len(matrix.dz))
        if not (same and np.allclose(dx, matrix.dx, rtol=SAME) and np.allclose(dz, matrix.dz, rtol=SAME)):
            depths = ",".join(f"{depth:g}" for depth in (matrix.dz if len(set(matrix.dz)) > 1 else matrix.dz[:1]))
            raise InputError(
                f"{self.path} is of a crystal matrix and has the cells of that alone: "
                f"measure it with --cell {matrix.dx:g} {depths} --cells {matrix.n_xy} {len(matrix.dz)}"
            )


class PlateLibrary(ShowerLibrary[PlateShowers]):
    """A library of energies in the plates of sampling stacks, opened for reading; use `open_plates`."""

    layout = PLATE_LIBRARY

    def _common(self) -> dict[str, Any]:
        materials = {"absorbers": self.absorbers, "actives": self.actives, "gap_material": self.gap_material}
        return materials | {"origin": self.provenance.origin, "config": self.about()}

    @property
    def stack(self) -> SamplingStack:
        """The stacks that were simulated: fixed, or the law from which every shower drew its own.

        Raises:
            InputError: the showers were not simulated.
        """
        stack = self.provenance.stack
        if stack is None:
            raise InputError(
                f"{self.path} was {self.provenance.how()}; the stacks of its showers are those of read().stacks"
            )
        return stack

    @property
    def most_layers(self) -> int:
        """Largest number of layers that a shower can have; of generated showers that of those in the file."""
        stack = self.provenance.stack
        return int(self.heads.counts.max(initial=1)) if stack is None else stack.layers_range[1]

    @property
    def absorbers(self) -> tuple[Material, ...]:
        """Materials of the absorbers; `PlateShowers.absorber` numbers them."""
        return self._plates.absorber

    @property
    def actives(self) -> tuple[Material, ...]:
        """Materials of the active plates; `PlateShowers.active` numbers them."""
        return self._plates.active

    @property
    def gap_material(self) -> Material:
        """Material of the gaps."""
        return self._plates.gap_material

    @property
    def _plates(self) -> SamplingStack | Generated:
        plates = self.provenance.plates
        assert plates is not None
        return plates

    def read_deposits(self) -> None:
        """Let `read` and `blocks` return showers with their deposits. Raises `InputError` if none were recorded."""
        self._deposits = self._library_of_deposits()
        if self._deposits is None:
            raise InputError(
                f"{self.path} holds the energies of plates alone; points need the deposits in active plates: simulate "
                "with --record points"
            )


_KINDS_OF_LIBRARY: dict[str, type[Any]] = {SCHEMA: Library, PLATE_LIBRARY.schema: PlateLibrary}
"""Classes of open libraries by schema."""


def open_library(path: Path | str, recover: bool = False) -> Library:
    """Open a library of deposits, finished or not, for reading slice by slice.

    Args:
        path: the file, or a folder of such files that are read as one.
        recover: read the complete showers of files that were cut off instead of raising an error.

    Raises:
        InputError: libraries of a folder that differ in more than seed and energies, or have the same showers.
        FormatError: missing, of another kind, newer, cut off (unless ``recover``) or with inconsistent contents.
    """
    library: Library = open_any(path, DEPOSIT_LIBRARY, recover)
    return library


def open_plates(path: Path | str, recover: bool = False, deposits: bool = False) -> PlateLibrary:
    """Open a library of the energies in plates, finished or not.

        with open_plates("stacks.h5") as library:
            showers = library.read()
        showers.energies()                       # (n, layers, 3), GeV: absorber, gap and active plate

    Args:
        path, recover: see `open_library`, also for errors.
        deposits: read the deposits in active plates too, into `PlateShowers.deposits`.

    Raises:
        InputError: deposits are to be read and were not recorded.
    """
    library: PlateLibrary = open_any(path, PLATE_LIBRARY, recover)
    if deposits:
        library.read_deposits()
    return library


def open_any(path: Path | str, layout: Layout, recover: bool = False) -> Any:
    """Open a library of a layout; see `open_library` for arguments and errors."""
    path = Path(path)
    if path.is_dir():
        return _folder(path, [open_any(file, layout, recover) for file in shard_files(path)], layout)
    kind = _KINDS_OF_LIBRARY[layout.schema]
    with _existing(path, recover, layout) as (file, complete):
        if PARTS not in file:
            provenance, heads, lost = _heads(file, path, complete, layout)
            part = _Part(path, 0, len(heads), heads.times)
            return kind(path, provenance, heads, [part], wanted=None, lost=lost)
        names, wanted = [name.decode() for name in load(file, PARTS)], int(file.attrs["wanted"])
        provenance = Provenance.of(file.attrs, path)
    return _joined(path, provenance, [open_any(path.parent / name, layout, recover) for name in names], wanted, layout)


def _joined(
    path: Path,
    provenance: Provenance,
    libraries: list[Any],
    wanted: int | None,
    layout: Layout,
    numbers: Sequence[int] = (),
) -> Any:
    """Return libraries put one behind the other; ``numbers`` are added to the indices of their showers."""
    heads = [library.heads for library in libraries]
    if len(numbers):
        heads = [replace(each, index=each.index + number) for each, number in zip(heads, numbers, strict=True)]
    starts = np.cumsum([0, *map(len, libraries)]).tolist()
    parts = [
        replace(part, first=part.first + start)
        for library, start in zip(libraries, starts, strict=False) for part in library._parts
    ]  # fmt: skip
    lost = sum(library.lost for library in libraries)
    kind = _KINDS_OF_LIBRARY[layout.schema]
    return kind(path, provenance, Heads.join(heads, provenance), parts, wanted=wanted, lost=lost)


def _folder(folder: Path, libraries: list[Any], layout: Layout) -> Any:
    """Return the libraries of a folder as one, their showers numbered one library behind the other."""
    first = libraries[0]
    seen: dict[str, Path] = {}
    for library in libraries:
        other = first.provenance.setting().difference(library.provenance.setting())
        if other:
            raise InputError(f"{library.path}: {other} as in {first.path}; a folder may differ in seeds and energies")
        same = seen.setdefault(library.provenance.config.model_dump_json(), library.path)
        if same != library.path:
            raise InputError(f"{library.path} has the same showers as {same}, made with the same seed; leave one out")
    unfinished = any(library.wanted is not None for library in libraries)
    wanted = sum(len(library) if library.wanted is None else library.wanted for library in libraries)
    numbers = np.cumsum([0, *(int(library.index.max(initial=-1)) + 1 for library in libraries)])[:-1].tolist()
    whole = _joined(folder, first.provenance, libraries, wanted if unfinished else None, layout, numbers)
    whole.shards = [(number, library.provenance) for number, library in zip(numbers, libraries, strict=True)]
    return whole


def read_heads(path: Path, layout: Layout = DEPOSIT_LIBRARY) -> tuple[Provenance, Heads, int | None]:
    """Return provenance and heads of a library or a part, and how many showers an unfinished library is to have.

    Args:
        path: the file.
        layout: its layout.

    Raises:
        FormatError: see `open_library`.
    """
    with _existing(path, False, layout) as (file, _):
        provenance, heads, _ = _heads(file, path, None, layout)
        return provenance, heads, int(file.attrs["wanted"]) if "wanted" in file.attrs else None


@contextmanager
def _existing(path: Path, recover: bool, layout: Layout) -> Iterator[tuple[h5py.File, int | None]]:
    """Open a library file; yield it and, if it was cut off, the number of its complete showers."""
    if not path.is_file() or not is_cut_off(path):
        with existing_file(path, layout.schema) as file:
            yield file, None
        return
    with open_padded(path) as file:
        check_schema(file, path, layout.schema)
        complete = complete_showers(file, path, layout)
        if not recover:
            raise FormatError(
                f"{path} is cut off: {complete} of {len(file['energy'])} showers are complete; "
                "read them with --recover (in Python: recover=True)"
            )
        yield file, complete


def _heads(file: h5py.File, path: Path, complete: int | None, layout: Layout) -> tuple[Provenance, Heads, int]:
    """Return provenance and heads of the (first ``complete``) showers, and the number of showers that are lost."""
    expected = f"a file of schema '{layout.schema}'"
    check_datasets(file, path, (*layout.names(False), *layout.heads), expected)
    provenance = Provenance.of(file.attrs, path)
    if provenance.layout is not layout:
        raise FormatError(f"{path}: its simulation config is not of {layout.rows} of a detector; the file is damaged")
    recorded = tuple(RECORDED) if provenance.points else ()
    deposits = provenance.deposit_names if recorded else ()
    check_datasets(file, path, (*recorded, *deposits), f"{expected} with recorded points")
    known = {*layout.record.HEADS, *recorded, "offsets", CHECKSUM}
    small: dict[str, Any] = {n: load(file, n) for n in (*HEADS, *MORE, CHECKSUM) if n in file and n in known}
    heads = Heads(**small, times=layout.complete(file))
    for name in (*small, *layout.names(heads.times), *deposits):
        if file[name].dtype.kind not in _KINDS[name]:
            raise FormatError(f"{path}: {name} is of type {file[name].dtype}, expected numbers")
    n = len(heads.energy)
    columns = {name: getattr(heads, name) for name in ("index", "seed", CHECKSUM, *MORE)}
    wanted = {name: (n, 2) if name == "position" else (n,) for name, values in columns.items() if values is not None}
    if heads.offsets.shape != (n + 1,) or any(columns[name].shape != shape for name, shape in wanted.items()):
        shapes = ", ".join(f"{name} {getattr(heads, name).shape}" for name in (*HEADS, *wanted))
        raise FormatError(f"{path}: shapes {shapes} do not fit each other; expected n + 1 offsets and n of the others")
    _check_offsets(file, heads, layout.names(heads.times), layout.rows, path)
    if heads.of_deposits is not None:
        _check_offsets(file, heads.of_deposits, deposits, DEPOSIT_LIBRARY.rows, path)
    if not (np.isfinite(heads.energy) & (heads.energy > 0)).all():
        bad = int(heads.index[~(np.isfinite(heads.energy) & (heads.energy > 0))][0])
        raise FormatError(f"{path}: the incident energy of shower {bad} is not a positive number")
    keep = n if complete is None else complete
    check_heads(file, heads, path)
    _check_stacks(heads, provenance, path)
    return provenance, heads.rows(slice(0, keep)), n - keep


def _check_offsets(file: h5py.File, heads: Heads, names: Sequence[str], rows: str, path: Path) -> None:
    """Raise `FormatError` unless the offsets of rows are those of all datasets ``names``."""
    shapes, offsets = [file[name].shape for name in names], heads.offsets
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or set(shapes) != {(offsets[-1],)}:
        raise FormatError(f"{path}: the offsets do not fit the {rows} ({shapes[0]}); the file is damaged")


def _check_stacks(heads: Heads, provenance: Provenance, path: Path) -> None:
    """Raise `FormatError` if showers have materials or numbers of layers that their simulation does not have."""
    plates, stack = provenance.plates, provenance.stack
    if plates is None or heads.absorber is None or heads.active is None:
        return
    for name, values, known in (("absorber", heads.absorber, plates.absorber), ("active", heads.active, plates.active)):
        bad = (values < 0) | (values >= len(known))
        if bad.any():
            raise FormatError(
                f"{path}: shower {heads.index[bad][0]} has {name} {values[bad][0]}, but there are {len(known)}; "
                "the file is damaged or foreign"
            )
    low, high = (1, MOST_LAYERS) if stack is None else stack.layers_range
    bad = (heads.counts < low) | (heads.counts > high)
    if bad.any():
        raise FormatError(
            f"{path}: shower {heads.index[bad][0]} has {heads.counts[bad][0]} layers, expected {low} to {high}; "
            "the file is damaged or foreign"
        )
