"""Layouts of shower libraries in HDF5: of deposits (schema ``calograd/library/2``) and of plates.

**Deposits.** Shower s owns the deposits ``offsets[s]:offsets[s + 1]`` of the flat float32 datasets ``x y z`` (cm) and
``e`` (GeV). The datasets ``energy`` (GeV), ``index``, ``seed`` and ``checksum`` have one value a shower. The checksum
is the CRC-32 of the bytes of the shower's x, y, z, e and t; the oldest libraries have none. The dataset ``t`` holds the
time of every deposit since the particle crossed the front face (ns). Version 1 and imported showers have none.

The incident particle is in ``particle`` (PDG's number), ``position`` (two values, cm), ``theta`` and ``phi``
(degrees). Version 1 and imported showers have none of these four: their particles are those of the beam in ``config``.
The attribute ``config`` and those beside it say what made the showers. A checksum of the file (`calograd.io.hdf5`)
covers everything but the deposits.

**Plates** (schema ``calograd/plates/1``). The rows of a shower are the layers of its stack, in the order of the beam.
The flat float32 datasets ``absorber_energy gap_energy active_energy`` (GeV) hold what its plates absorb, and
``absorber_thickness gap_thickness active_thickness`` (cm) how thick they are. ``absorber`` and ``active`` (n,) are the
numbers of a shower's materials among those of ``detector`` in ``config``. The checksum is the CRC-32 of the six columns
of the shower in this order. All else is as in libraries of deposits, and no dataset may be missing. Of showers that a
surrogate generated, ``config`` is a `Generated`, with the materials; ``index`` is the row of the sample and ``seed``
its seed.

Where points were recorded (``record`` of the stack in ``config``), the same file has the deposits in the active plates,
in the flat datasets ``x y z e t`` of libraries of deposits. ``deposits`` (n,) is the number of deposits of every
shower, which follow each other without a gap, and ``deposits_checksum`` (n,) their CRC-32.

The file's index and all small datasets lie at its front. The chunks of deposits follow in the order of the showers, so
a file that was cut off has lost only its end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import h5py
import numpy as np
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from calograd._version import __version__
from calograd.detector.configuration import Energies, SimulationConfig, SiWStack
from calograd.detector.gdml import SHOWN, Geometry
from calograd.detector.material import Material
from calograd.detector.sampling_stack import SamplingStack, describe_materials
from calograd.errors import FormatError
from calograd.events.plates import PlateShowers
from calograd.events.ragged import Ragged, Showers, offsets_of
from calograd.io.hdf5 import store_checksum, verify_checksum
from calograd.io.toml import Table, first_difference

Record = Showers | PlateShowers
"""Showers of a library in memory."""
R = TypeVar("R", Showers, PlateShowers)

SCHEMA = "calograd/library/2"
"""Schema of a library of deposits."""
PLATES_SCHEMA = "calograd/plates/1"
"""Schema of a library of plates."""
DEPOSITS = ("x", "y", "z", "e")
"""Datasets of the deposits that every library has."""
TIME = "t"
"""Dataset of the times of the deposits, which a library may lack."""
HEADS = {"offsets": "<i8", "energy": "<f4", "index": "<i8", "seed": "<u8"}
"""Datasets of the showers, and their types."""
INCIDENT = {"particle": "<i4", "position": "<f4", "theta": "<f4", "phi": "<f4"}
"""Datasets of the incident particles, and their types."""
PAIR = {"absorber": "<i4", "active": "<i4"}
"""Datasets of the materials of stacks, and their types."""
RECORDED = {"deposits": "<i8", "deposits_checksum": "<u4"}
"""Datasets of the showers in stacks whose deposits were recorded, and their types."""
MORE = INCIDENT | PAIR | RECORDED
"""Datasets of one value a shower that some libraries lack, and their types."""
CHECKSUM = "checksum"
"""Dataset of the checksums of the deposits."""
PARTS = "parts"
"""Dataset with the names of the files that hold the deposits of an unfinished library."""
CHUNK = 1 << 17
"""Number of deposits in a chunk; 50 GeV make about 100 000."""


@dataclass(frozen=True)
class Layout:
    """The datasets of a kind of library.

    Attributes:
        schema: the schema, with the version that is written.
        record: class of the showers in memory. Its flat columns are the datasets of float32 rows.
        lacks: those of these datasets that a file may lack.
        heads: datasets of one value a shower that no file lacks.
        rows: the rows in words, for messages.
    """

    schema: str
    record: type[Showers] | type[PlateShowers]
    lacks: tuple[str, ...]
    heads: tuple[str, ...]
    rows: str

    def names(self, complete: bool = True) -> tuple[str, ...]:
        """Return the datasets of rows: all, or without those that a file may lack."""
        flat: tuple[str, ...] = self.record.FLAT
        return flat if complete else tuple(name for name in flat if name not in self.lacks)

    def complete(self, names: Any) -> bool:
        """Return whether all datasets of rows are among ``names``."""
        return all(name in names for name in self.lacks)


DEPOSIT_LIBRARY = Layout(SCHEMA, Showers, (TIME,), tuple(HEADS), "deposits")
"""Libraries of deposits."""
PLATE_LIBRARY = Layout(PLATES_SCHEMA, PlateShowers, (), (*HEADS, *INCIDENT, *PAIR, CHECKSUM), "layers")
"""Libraries of plates."""


@dataclass(frozen=True)
class Heads(Ragged):
    """All columns of a library except its rows; see `calograd.events.ragged.Showers` for most of them.

    Attributes:
        checksum: CRC-32 of every shower's rows, shape (n,), uint32; None where a library has none.
        absorber, active: see `calograd.events.plates.PlateShowers`; None in a library of deposits.
        deposits: number of deposits in the active plates of every shower, shape (n,); None if they were not recorded.
        deposits_checksum: CRC-32 of these deposits, shape (n,), uint32.
        times: whether the rows of all showers have all columns: deposits may lack times, plates lack nothing.
    """

    HEADS: ClassVar = ("energy", "index", "seed", "checksum", *MORE)
    offsets: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    seed: np.ndarray
    checksum: np.ndarray | None = None
    particle: np.ndarray | None = None
    position: np.ndarray | None = None
    theta: np.ndarray | None = None
    phi: np.ndarray | None = None
    absorber: np.ndarray | None = None
    active: np.ndarray | None = None
    deposits: np.ndarray | None = None
    deposits_checksum: np.ndarray | None = None
    times: bool = field(default=False, kw_only=True)

    @classmethod
    def of(cls, showers: Record) -> Heads:
        """Return the heads of showers."""
        more: dict[str, Any] = {name: getattr(showers, name, None) for name in (*INCIDENT, *PAIR)}
        if isinstance(showers, PlateShowers) and showers.deposits is not None:
            more |= {"deposits": showers.deposits.counts, "deposits_checksum": checksums(showers.deposits)}
        heads = cls(showers.offsets, showers.energy, showers.index, showers.seed, checksums(showers), **more)
        return replace(heads, times=len(row_names(showers)) == len(showers.FLAT))

    @property
    def of_deposits(self) -> Heads | None:
        """The heads of the deposits in active plates, as of a library of deposits; None if they were not recorded."""
        if self.deposits is None:
            return None
        return replace(self, offsets=offsets_of(self.deposits), checksum=self.deposits_checksum)

    def lengths(self, layout: Layout) -> dict[str, int]:
        """Return the datasets of rows of a library of a layout, and the number of rows of each."""
        lengths = dict.fromkeys(layout.names(self.times), int(self.offsets[-1]))
        return lengths if self.deposits is None else lengths | dict.fromkeys(Showers.FLAT, int(self.deposits.sum()))

    @classmethod
    def join(cls, heads: Sequence[Heads], provenance: Provenance | None = None) -> Heads:
        """Return the heads of libraries put one behind the other; there may be none, of a library of ``provenance``."""
        none = cls(*(np.zeros(int(k == 0), kind) for k, kind in enumerate(("<i8", "<f4", "<i8", "<u8", "<u4"))))
        if provenance is not None and provenance.stack is not None:
            kinds = INCIDENT | PAIR | (RECORDED if provenance.points else {})
            more = {name: np.zeros((0, 2) if name == "position" else 0, kind) for name, kind in kinds.items()}
            none = replace(none, **more, times=True)
        return replace(cls.concatenate(heads), times=all(each.times for each in heads)) if heads else none


def checksums(showers: Ragged) -> np.ndarray:
    """Return the CRC-32 of the bytes of every shower's rows, column after column; shape (n,), uint32."""
    columns = [np.ascontiguousarray(getattr(showers, name), dtype="<f4") for name in row_names(showers)]
    sums = np.zeros(len(showers), np.uint32)
    for number, (start, stop) in enumerate(pairwise(showers.offsets)):
        value = 0
        for column in columns:
            value = zlib.crc32(column[start:stop].data, value)
        sums[number] = value
    return sums


def row_names(showers: Ragged) -> tuple[str, ...]:
    """Return the flat columns that showers have; deposits may have no times."""
    return tuple(name for name in showers.FLAT if getattr(showers, name) is not None)


class ImportedBeam(Table):
    """The incident particles of an imported library, as its user states them; see `Beam` for the fields."""

    particle: str = "gamma"
    position: tuple[float, float] = (0.0, 0.0)
    theta: Annotated[float, Field(ge=0, lt=90)] = 0.0


class Imported(Table):
    """The record that a library stores in place of a simulation when its showers were read from another file."""

    kind: Literal["import"] = "import"
    material: Material
    beam: ImportedBeam
    file: str
    """Name of the file that was read, without its folder."""
    sha256: str
    """SHA-256 of that file."""
    reading: dict[str, Any]
    """Layout, units and coordinates of that file, as plain data; see `calograd.readers.root.Reading`."""


class Generated(Table):
    """The record that a file of plates stores in place of a simulation when a surrogate generated its showers."""

    kind: Literal["generated"] = "generated"
    model: str
    """Name of the surrogate."""
    absorber: Annotated[tuple[Material, ...], Field(min_length=1)]
    """Materials of the absorbers."""
    active: Annotated[tuple[Material, ...], Field(min_length=1)]
    """Materials of the active plates."""
    gap_material: Material
    """Material of the gaps."""
    points: bool = False
    """True if the file has deposits in the active plates."""
    settings: dict[str, Any]
    """Settings of the sample, as every generated file stores them."""

    def describe(self) -> str:
        """Return the materials of absorbers and active plates in words."""
        return describe_materials(self.absorber, self.active)


def _made_by(config: Any) -> str:
    kind = config.get("kind") if isinstance(config, dict) else getattr(config, "kind", None)
    return kind if kind in ("import", "generated") else "simulation"


Made = SimulationConfig | Imported | Generated
"""Configuration that made the showers of a library: a simulation, or a sample of a surrogate."""
_CONFIG: TypeAdapter[Made] = TypeAdapter(
    Annotated[
        Annotated[SimulationConfig, Tag("simulation")]
        | Annotated[Imported, Tag("import")]
        | Annotated[Generated, Tag("generated")],
        Discriminator(_made_by),
    ]
)


@dataclass(frozen=True)
class Provenance:
    """The origin of a library: a simulation, Geant4's version and its tables; a file that was imported; a surrogate."""

    config: Made
    geant4: str
    tables: str

    @property
    def origin(self) -> str:
        """``geant4``, or the name of the surrogate that generated the showers."""
        return self.config.model if isinstance(self.config, Generated) else "geant4"

    @property
    def material(self) -> Material | None:
        """The material of the showers; None for a layered detector."""
        where = self.config.detector if isinstance(self.config, SimulationConfig) else self.config
        return None if isinstance(where, SiWStack | SamplingStack | Generated) else where.material

    @property
    def geometry(self) -> Geometry | None:
        """The geometry of a GDML file in which the showers were simulated; None for other showers."""
        if isinstance(self.config, SimulationConfig) and isinstance(self.config.detector, Geometry):
            return self.config.detector
        return None

    @property
    def stack(self) -> SamplingStack | None:
        """The stack whose plates were measured; None for showers of deposits."""
        if isinstance(self.config, SimulationConfig) and isinstance(self.config.detector, SamplingStack):
            return self.config.detector
        return None

    @property
    def plates(self) -> SamplingStack | Generated | None:
        """The record that has the materials of the plates; None for showers of deposits."""
        return self.config if isinstance(self.config, Generated) else self.stack

    @property
    def points(self) -> bool:
        """True if the deposits in the active plates of stacks were recorded, or generated."""
        if isinstance(self.config, Generated):
            return self.config.points
        return self.stack is not None and self.stack.record == "points"

    @property
    def deposit_names(self) -> tuple[str, ...]:
        """Datasets of the deposits in active plates; those that a surrogate generates have no times."""
        return DEPOSITS if isinstance(self.config, Generated) else Showers.FLAT

    @property
    def layout(self) -> Layout:
        """The layout of a library of these showers."""
        return DEPOSIT_LIBRARY if self.plates is None else PLATE_LIBRARY

    def attributes(self) -> dict[str, str]:
        """Return the attributes of the file, without the schema."""
        return {
            "config": self.config.model_dump_json(),
            "material": self.plates.describe() if self.plates else self.material.name if self.material else "Si-W",
            "geant4": self.geant4,
            "tables": self.tables,
            "calograd": __version__,
        }

    @classmethod
    def of(cls, attributes: Mapping[str, Any], path: Path) -> Provenance:
        """Read the attributes of the file at ``path``. Raises `FormatError` if they are missing or foreign."""
        missing = [name for name in ("config", "geant4", "tables") if name not in attributes]
        if missing:
            raise FormatError(f"{path} lacks the attribute {missing[0]}; expected a shower library")
        try:
            config = _CONFIG.validate_json(attributes["config"])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"][1:])
            raise FormatError(f"{path}: its simulation config cannot be read: {where}: {first['msg']}") from error
        return cls(config, str(attributes["geant4"]), str(attributes["tables"]))

    def how(self) -> str:
        """Return how the showers came about, in words: simulated, imported from a file, generated by a surrogate."""
        if isinstance(self.config, Imported):
            return f"imported from {self.config.file}"
        return f"generated by {self.config.model}" if isinstance(self.config, Generated) else "simulated"

    def setting(self) -> Provenance:
        """Return the part that all shards of a data set share: without seed, energies or imported file."""
        if isinstance(self.config, Imported):
            same: dict[str, Any] = {"file": "", "sha256": "", "reading": {}}
            return replace(self, config=self.config.model_copy(update=same))
        if isinstance(self.config, Generated):
            settings = {name: value for name, value in self.config.settings.items() if name != "seed"}
            return replace(self, config=self.config.model_copy(update={"settings": settings}))
        beam = self.config.beam.model_copy(update={"energies": Energies(law="discrete", values=(1.0,))})
        return replace(self, config=self.config.model_copy(update={"seed": 0, "beam": beam}))

    def difference(self, other: Provenance) -> str | None:
        """Return the first field in which two differ, with both values; None if they are the same."""
        if type(other.config) is not type(self.config):
            return f"it was {other.how()}, not {self.how().partition(' ')[0]}"
        mine, theirs = (p.config.model_dump() for p in (self, other))
        here, there = self.geometry, other.geometry
        if here is not None and there is not None:
            if here.digest == there.digest:  # the same file in another folder
                theirs["detector"]["file"] = here.file
            elif here.file == there.file:
                was, now = (each.digest[:SHOWN] for each in (there, here))
                return f"{here.file} has changed since: its SHA-256 was {was}..., is {now}..."
        found = first_difference(
            {**mine, "geant4": self.geant4, "tables": self.tables},
            {**theirs, "geant4": other.geant4, "tables": other.tables},
        )
        return f"{found.name} is {found.theirs!r}, not {found.mine!r}" if found else None


def values_problem(showers: Record, rows: Ragged | None = None) -> str | None:
    """Return what is wrong with the values of showers' rows, or None; readers and writers share it.

    Args:
        showers: the showers.
        rows: other rows of the same showers: deposits in active plates; None: their own.
    """
    rows = showers if rows is None else rows
    for name in row_names(rows):
        values = getattr(rows, name)
        signed = name not in ("e", *PlateShowers.FLAT)
        bad = ~np.isfinite(values) if signed else ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            owner = int(np.searchsorted(rows.offsets, np.argmax(bad), side="right")) - 1
            what = "NaN or infinite" if signed else "NaN, infinite or negative"
            return f"{name} of shower {showers.index[owner]} holds {what} values"
    return None


def write_heads(
    file: h5py.File, provenance: Provenance, heads: Heads, wanted: int | None = None, parts: Sequence[str] = ()
) -> None:
    """Write schema, attributes and the small datasets, in front of any row, and store their checksum.

    Args:
        file: a file that is open for writing.
        provenance, heads: origin and columns of the showers.
        wanted: number of showers that an unfinished library is to have.
        parts: names of the files that hold the rows of an unfinished library.
    """
    file.attrs["schema"] = provenance.layout.schema
    for name, value in provenance.attributes().items():
        file.attrs[name] = value
    for name, dtype in (HEADS | MORE).items():
        if getattr(heads, name) is not None:
            file.create_dataset(name, data=getattr(heads, name).astype(dtype))
    if heads.checksum is not None:
        file.create_dataset(CHECKSUM, data=heads.checksum.astype("<u4"))
    if wanted is not None:
        file.attrs["wanted"] = wanted
        file.create_dataset(PARTS, data=np.array([name.encode() for name in parts], dtype="S"))
    store_checksum(file, _covered(file))


def check_heads(file: h5py.File, heads: Heads, path: Path) -> None:
    """Raise `FormatError` if heads or attributes are not as they were written."""
    small = {name: np.asarray(file[name][()]) if name == PARTS else getattr(heads, name) for name in _covered(file)}
    verify_checksum(dict(file.attrs), small, path)


def _covered(file: h5py.File) -> list[str]:
    """Return the datasets that the checksum of a file covers."""
    return [name for name in (*HEADS, *MORE, CHECKSUM, PARTS) if name in file]


def parts_folder(path: Path) -> Path:
    """Return the folder of the finished parts of the library ``path`` while it is unfinished."""
    return path.with_name(f"{path.name}.parts")


def create_rows(file: h5py.File, n: int, names: Sequence[str], **compression: Any) -> dict[str, h5py.Dataset]:
    """Create the empty datasets ``names`` of ``n`` rows, in chunks of `CHUNK`."""
    packing = {"chunks": (min(CHUNK, n),), "shuffle": True, **compression} if n else {}
    return {name: file.create_dataset(name, shape=(n,), dtype="<f4", **packing) for name in names}


def front_size(lengths: Iterable[int]) -> int:
    """Return a generous number of bytes to set aside at the front of a file for the index of columns of rows.

    Args:
        lengths: number of rows of every column.
    """
    return (1 << 14) + sum(400 * (rows // CHUNK + 1) for rows in lengths)


def pack(showers: Record, provenance: Provenance, times: bool = True) -> bytes:
    """Return showers as a complete library file in memory, compressed fast rather than well (lzf).

    Args:
        showers, provenance: the showers and what made them.
        times: keep the times of the deposits, where they are known.
    """
    if not times and isinstance(showers, Showers):
        showers = replace(showers, t=None)
    heads = Heads.of(showers)
    front = front_size(heads.lengths(provenance.layout).values())
    with h5py.File("pack", "w", driver="core", backing_store=False, rdcc_nbytes=0, meta_block_size=front) as file:
        write_heads(file, provenance, heads)
        for rows in (showers, getattr(showers, "deposits", None)):
            if rows is not None:
                _write_rows(file, rows)
        file.flush()
        return bytes(file.id.get_file_image())


def _write_rows(file: h5py.File, rows: Ragged) -> None:
    """Write the flat columns of showers, compressed fast."""
    n = int(rows.offsets[-1])
    datasets = create_rows(file, n, row_names(rows), compression="lzf")
    for start in range(0, n, CHUNK):
        for name, dataset in datasets.items():
            dataset[start : start + CHUNK] = getattr(rows, name)[start : start + CHUNK]


def compress(values: np.ndarray, chunk: int) -> bytes:
    """Return at most ``chunk`` float32 numbers as HDF5's filters shuffle and gzip 1 store a chunk of them."""
    padded = np.zeros(chunk, "<f4")
    padded[: len(values)] = values
    return zlib.compress(padded.view(np.uint8).reshape(-1, 4).T.tobytes(), 1)


def slabs(blocks: Iterator[R], chunk: int) -> Iterator[dict[str, np.ndarray]]:
    """Yield the rows of consecutive blocks in slabs of ``chunk``; the last slab is shorter."""
    held: dict[str, np.ndarray] = {}
    for block in blocks:
        held = held or {name: np.zeros(0, "<f4") for name in row_names(block)}
        held = {name: np.concatenate([values, getattr(block, name)]) for name, values in held.items()}
        while len(next(iter(held.values()))) >= chunk:
            yield {name: values[:chunk] for name, values in held.items()}
            held = {name: values[chunk:] for name, values in held.items()}
    if held and len(next(iter(held.values()))):
        yield held
