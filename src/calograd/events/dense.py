"""Dense showers: cells and maps in memory and on disk (HDF5, schemas ``calograd/cells/2`` and ``calograd/maps/2``).

A row is one shower measured with one design. Rows made from the same shower share the number in ``shower``; training
and test data are split by it. Cells and maps differ in the array of measured energies alone, which `Layout` describes.

A file holds that array under its name, and the columns ``energy``, ``dx``, ``dz`` and ``shower`` of every row, with its
incident particle: ``particle``, ``position``, ``theta`` and ``phi`` (`calograd.detector.incidence`). Files of version 1
have no such columns; their particles are those of the simulation in their configuration, or photons on the axis. Cells
may have times (`calograd.events.binning`): ``mean_time`` and ``first_time``, of the same shape as the cells, NaN where
a cell has no energy. The attributes are the material, the origin and the configuration that made the file. Writing
checks what reading checks, so a file that was written can be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import h5py
import numpy as np

from calograd.detector.incidence import COLUMNS as INCIDENCE
from calograd.detector.incidence import Incidence
from calograd.detector.material import Material
from calograd.errors import FormatError, InputError
from calograd.io.files import refuse_existing
from calograd.io.hdf5 import existing_file, load, schema_of, verify_checksum, write_columns

COLUMNS = ("energy", "dx", "dz")
"""Numbers of every row, in addition to the measured energies and ``shower``."""
TIMES = ("mean_time", "first_time")
"""Times of the measured energies, which a file may lack."""
CHUNK = 1 << 18
"""Numbers in a chunk of the measured energies."""
ALL = slice(None)
"""All rows of a file."""


class Layout(NamedTuple):
    """The shape and the file schema of one kind of dense showers.

    Args:
        name: name of the measured energies, in the record and in the file.
        schema: schema of the file.
        axes: meaning of the axes of the measured energies.
    """

    name: str
    schema: str
    axes: tuple[str, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """The axes of one row, to sum over."""
        return tuple(range(1, len(self.axes)))

    def problem(self, shape: tuple[int, ...]) -> str | None:
        """Return what is wrong with an array of this shape, or None."""
        square = self.axes[1] != self.axes[2] or len(shape) < 3 or shape[1] == shape[2]
        if len(shape) == len(self.axes) and square and min(shape[1:]) > 0:
            return None
        return f"{self.name} have shape {shape}, expected ({', '.join(self.axes)})"


CELLS = Layout("cells", "calograd/cells/2", ("n", "n_xy", "n_xy", "n_z"))
MAPS = Layout("maps", "calograd/maps/2", ("n", "pixels across", "pixels along"))


class _Dense:
    """The common part of `Cells` and `Maps`."""

    LAYOUT: ClassVar[Layout]
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    shower: np.ndarray
    config: dict[str, Any]
    incidence: Incidence | None

    def __len__(self) -> int:
        return len(self.energy)

    @property
    def incident(self) -> Incidence:
        """The incident particle of every row; without a record of it, that of the beam in the configuration."""
        return Incidence.of_config(self.config, len(self.measured)) if self.incidence is None else self.incidence

    @property
    def measured(self) -> np.ndarray:
        """The measured energies: cells or maps."""
        return np.asarray(getattr(self, self.LAYOUT.name))

    @property
    def totals(self) -> np.ndarray:
        """Measured energy of every row, shape (n,), GeV."""
        return np.asarray(self.measured.sum(self.LAYOUT.whole))

    def write(self, path: Path) -> None:
        """Write the file of these showers, see `write_dense`."""
        write_dense(path, self)  # type: ignore[arg-type]

    def rows(self, which: np.ndarray | slice) -> Self:
        """Return the chosen rows, by mask, indices or slice."""
        columns = {name: values[which] for name, values in self._columns().items()}
        return replace(self, **columns | {"incidence": self.incident[which]})  # type: ignore[type-var]

    @classmethod
    def concatenate(cls, parts: Sequence[Self], shower: np.ndarray) -> Self:
        """Return the rows of all parts with new numbers of their showers; the other fields are those of the first.

        Times are left out if one part lacks them.
        """
        first, several = parts[0], [part._columns() for part in parts]
        columns: dict[str, Any] = dict.fromkeys(several[0])
        for name in columns:
            if all(name in each for each in several):
                columns[name] = np.concatenate([each[name] for each in several])
        incidence = Incidence.concatenate([part.incident for part in parts])
        return replace(first, **columns | {"shower": shower, "incidence": incidence})  # type: ignore[type-var]

    def _columns(self) -> dict[str, np.ndarray]:
        """Return the columns that there are, by name, except those of the incident particles."""
        every = {name: getattr(self, name, None) for name in (self.LAYOUT.name, *COLUMNS, "shower", *TIMES)}
        return {name: values for name, values in every.items() if values is not None}


@dataclass(frozen=True)
class Cells(_Dense):
    """Showers as cell energies, with the designs that measured them.

    Args:
        cells: deposited energy, shape (n, n_xy, n_xy, n_z), GeV, float32.
        energy: incident energy, shape (n,), GeV.
        dx: cell pitch, shape (n,), cm.
        dz: depth of every layer, shape (n, n_z), cm.
        shower: number of the shower that a row shows, shape (n,).
        material: material of the calorimeter.
        origin: ``geant4`` or the name of a surrogate.
        config: what made the rows (simulation and segmentation, or sampling), as plain data.
        incidence: incident particle of every row; None: that of the beam in ``config``, or photons on the axis.
        mean_time: energy-weighted mean of the times of the deposits since the particle crossed the front face, shape
            of the cells, ns, float32; NaN in cells without energy. None: not measured.
        first_time: time at which the first tenth of the energy has arrived, likewise; see `calograd.events.binning`.
    """

    LAYOUT: ClassVar[Layout] = CELLS
    cells: np.ndarray
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    shower: np.ndarray
    material: Material
    origin: str
    config: dict[str, Any] = field(default_factory=dict)
    incidence: Incidence | None = None
    mean_time: np.ndarray | None = None
    first_time: np.ndarray | None = None

    @property
    def n_xy(self) -> int:
        """Cells across."""
        return int(self.cells.shape[1])


@dataclass(frozen=True)
class Maps(_Dense):
    """Showers as x-z maps, with the designs whose windows they show; see `calograd.events.binning`.

    Args:
        maps: deposited energy, shape (n, pixels across, pixels along), GeV, float32.
        n_xy: cells across: the window is n_xy dx wide and sum dz deep.
        energy, dx, dz, shower, material, origin, config, incidence: see `Cells`.
    """

    LAYOUT: ClassVar[Layout] = MAPS
    maps: np.ndarray
    energy: np.ndarray
    dx: np.ndarray
    dz: np.ndarray
    n_xy: int
    shower: np.ndarray
    material: Material
    origin: str
    config: dict[str, Any] = field(default_factory=dict)
    incidence: Incidence | None = None

    @property
    def width(self) -> np.ndarray:
        """Width of the window, shape (n,), cm."""
        return np.asarray(self.n_xy * self.dx.astype(np.float64))

    @property
    def depth(self) -> np.ndarray:
        """Depth of the window, shape (n,), cm."""
        return np.asarray(self.dz.sum(1, dtype=np.float64))


Dense = TypeVar("Dense", Cells, Maps)


class Extent(NamedTuple):
    """The extent of a file.

    Attributes:
        rows: number of rows.
        shape: shape of the measured energies of one row.
        layers: layers of a design.
        chunk: rows that are stored, and best read, together.
    """

    rows: int
    shape: tuple[int, ...]
    layers: int
    chunk: int


def read_cells(path: Path | str, rows: slice = ALL) -> Cells:
    """Read a cells file.

    Args:
        path: the file.
        rows: the rows to read; all by default.

    Raises:
        FormatError: the file is missing, cut off, of another kind or newer, or holds inconsistent shapes, NaN or
            negative energies.
    """
    return _read(Path(path), Cells, rows)


def read_maps(path: Path | str, rows: slice = ALL) -> Maps:
    """Read a maps file; arguments and errors are those of `read_cells`."""
    return _read(Path(path), Maps, rows)


def read_dense(path: Path | str, rows: slice = ALL) -> Cells | Maps:
    """Read a cells file or a maps file, whichever it is; arguments and errors are those of `read_cells`."""
    return read_maps(path, rows) if _kind_of(Path(path)) is Maps else read_cells(path, rows)


def extent_of(path: Path) -> Extent:
    """Return how much a cells or maps file holds, after checking its checksum a part at a time.

    Raises:
        FormatError: as `read_cells`, except for the numbers in the file.
    """
    layout = _kind_of(path).LAYOUT
    with existing_file(path, layout.schema, (layout.name, *COLUMNS)) as file:
        measured, dz = file[layout.name], file["dz"]
        if measured.ndim == 0 or dz.ndim != 2:
            raise FormatError(
                f"{path}: {layout.name} and dz have {measured.ndim} and {dz.ndim} dimensions; expected rows"
            )
        n, names = len(measured), (layout.name, *COLUMNS, "shower", *INCIDENCE, *TIMES)
        covered = [name for name in names if name in file]
        verify_checksum(dict(file.attrs), {name: file[name] for name in covered}, path)
        return Extent(n, measured.shape[1:], dz.shape[1], measured.chunks[0] if measured.chunks else max(1, n))


def write_dense(path: Path | str, showers: Cells | Maps) -> None:
    """Write a cells file or a maps file.

    Arrays may be anything that numpy or torch turns into numbers; one ``energy``, ``dx`` or ``dz`` may stand for all
    rows and layers; ``material`` may be what `Material.parse` reads.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: the file cannot be written, or could not be read again: inconsistent shapes, NaN, negative energies.
    """
    path = Path(path)
    refuse_existing(path)
    layout = showers.LAYOUT
    arrays, attributes = _prepared(path, showers)
    measured = arrays[layout.name]
    row = max(1, int(np.prod(measured.shape[1:])))
    chunk = (max(1, min(len(measured), CHUNK // row)), *measured.shape[1:])
    write_columns(path, layout.schema, arrays, attributes, dict.fromkeys((layout.name, *TIMES), chunk))


def write_cells(path: Path | str, cells: Cells) -> None:
    """Write a cells file; see `write_dense`."""
    write_dense(path, cells)


def write_maps(path: Path | str, maps: Maps) -> None:
    """Write a maps file; see `write_dense`."""
    write_dense(path, maps)


def _read(path: Path, kind: type[Dense], rows: slice) -> Dense:
    layout = kind.LAYOUT
    with existing_file(path, layout.schema, (layout.name, *COLUMNS)) as file:
        arrays = {name: _some(file, name, rows) for name in (layout.name, *COLUMNS)}
        numbered = "shower" in file
        arrays["shower"] = _some(file, "shower", rows) if numbered else np.arange(len(file[layout.name]))[rows]
        arrays |= {name: _some(file, name, rows) for name in TIMES if name in file and layout is CELLS}
        incident = {name: _some(file, name, rows) for name in INCIDENCE if name in file}
        attributes = dict(file.attrs)
    n_xy = _n_xy(path, attributes) if layout is MAPS else {}
    problem = numbers_problem(arrays, layout, rows.start or 0)
    if problem:
        raise FormatError(f"{path}: {problem}; make the file anew")
    material, config = _material(attributes, path), json_attribute(attributes, path)
    if rows == ALL:
        verify_checksum(attributes, arrays | incident, path)
    fields: dict[str, Any] = {name: values.astype(np.float32, copy=False) for name, values in arrays.items()}
    fields |= n_xy | {"shower": arrays["shower"].astype(np.int64), "material": material, "config": config}
    if incident:
        fields["incidence"] = _incidence(incident, len(arrays["energy"]), path)
    elif layout is CELLS and not Incidence.of_config(config, 1).on_axis:
        raise FormatError(f"{path} has cells of version 1 off the axis, whose windows do not follow the particle; "
                          "segment the library anew")  # fmt: skip
    return kind(**fields, origin=str(attributes.get("origin", "unknown")))


def _incidence(columns: Mapping[str, np.ndarray], n: int, path: Path) -> Incidence:
    """Return the incident particles of rows by the columns of a file. Raises `FormatError` if they cannot be used."""
    try:
        if missing := [name for name in INCIDENCE if name not in columns]:
            raise InputError(f"the column {missing[0]} is missing")
        return Incidence.of(n, **columns)
    except InputError as error:
        raise FormatError(f"{path}: {error}; make the file anew") from error


def _some(file: h5py.File, name: str, rows: slice) -> np.ndarray:
    """Return rows of a dataset; a dataset without rows, which is refused later, as it is."""
    return load(file, name) if rows == ALL or file[name].ndim == 0 else np.asarray(file[name][rows])


def _kind_of(path: Path) -> type[Cells] | type[Maps]:
    """Return the record that a file holds by its schema; Cells, whose reader says what is wrong, for anything else."""
    schema = (schema_of(path) if path.is_file() else None) or ""
    return Maps if schema.startswith("calograd/maps/") else Cells


def numbers_problem(arrays: Mapping[str, np.ndarray], layout: Layout, first: int = 0) -> str | None:
    """Return what is wrong with the arrays of dense showers, or None; readers and writers share it.

    Args:
        arrays: measured energies, `COLUMNS`, ``shower`` and any `TIMES` by name.
        layout: of the measured energies.
        first: number of the first of these rows in its file.
    """
    measured, dz = arrays[layout.name], arrays["dz"]
    problem = layout.problem(measured.shape)
    if problem:
        return problem
    n, layers = len(measured), measured.shape[-1] if layout is CELLS else (dz.shape[1] if dz.ndim > 1 else 1)
    expected = {"energy": (n,), "dx": (n,), "dz": (n, layers), "shower": (n,)}
    for name, values in arrays.items():
        if values.dtype.kind not in ("iu" if name == "shower" else "fiu"):
            return f"{name} are of type {values.dtype}, expected numbers"
        wanted = expected.get(name, measured.shape)
        if values.shape != wanted:
            return f"{name} has shape {values.shape}, expected {wanted} as {layout.name} {measured.shape}"
    for name in (layout.name, *COLUMNS):
        lowest = 0.0 if name == layout.name else np.finfo(np.float32).tiny
        bad = ~((arrays[name] >= lowest) & (arrays[name] < np.inf))
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            sign = "negative" if name == layout.name else "non-positive"
            return (
                f"{name} holds NaN, infinite or {sign} values in {len(rows)} rows, the first is row {first + rows[0]}"
            )
    for name in (name for name in TIMES if name in arrays):
        bad = (measured > 0) & ~np.isfinite(arrays[name])
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            return (
                f"{name} is NaN or infinite in cells with energy in {len(rows)} rows, the first is row "
                f"{first + rows[0]}; expected ns"
            )
    return None


def _prepared(path: Path, showers: Cells | Maps) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and attributes of a file, checked as they will be read. Raises `InputError`."""
    layout = showers.LAYOUT
    measured = as_numbers(getattr(showers, layout.name), path, layout.name)
    n, layers = measured.shape[:1], measured.shape[-1:] if layout is CELLS else np.shape(showers.dz)[-1:] or (1,)
    arrays = {layout.name: measured}
    for name, shape in (("energy", n), ("dx", n), ("dz", n + layers)):
        values = as_numbers(getattr(showers, name), path, name)
        fits = values.shape == () or (name == "dz" and values.shape == layers)
        arrays[name] = np.broadcast_to(values, shape) if fits else values
    times = {name: getattr(showers, name, None) for name in TIMES}
    arrays |= {name: as_numbers(values, path, name) for name, values in times.items() if values is not None}
    with np.errstate(over="ignore"):
        arrays = {name: values.astype(np.float32) for name, values in arrays.items()}
    arrays["shower"] = as_numbers(showers.shower, path, "shower", kinds="iu").astype(np.int64)
    problem = numbers_problem(arrays, layout)
    if problem:
        raise InputError(f"{path} is not written: {problem}")
    incident = Incidence.of_config(showers.config, len(measured)) if showers.incidence is None else showers.incidence
    if len(incident) != len(measured):
        raise InputError(
            f"{path} is not written: incidence is of {len(incident)} showers, {layout.name} of {len(measured)}"
        )
    arrays |= {name: getattr(incident, name) for name in INCIDENCE}
    material = Material.parse(showers.material) if isinstance(showers.material, str) else showers.material
    attributes: dict[str, Any] = {
        "material": material.name, "material_numbers": json.dumps(material.to_dict()), "origin": str(showers.origin),
        "config": as_json(showers.config, path),
    }  # fmt: skip
    if layout is MAPS:
        attributes |= _n_xy(path, {"n_xy": showers.n_xy}, InputError)
    return arrays, attributes


def as_numbers(values: Any, path: Path, name: str, kinds: str = "fiu") -> np.ndarray:
    """Return an array of numbers of lists, numbers, arrays or tensors on any device.

    Args:
        values: what a caller gave; values that are masked count as NaN.
        path: the file to be written, for the message.
        name: name of the values, for the message.
        kinds: numpy's letters of the types allowed.

    Raises:
        InputError: not numbers, or of another type.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not written: {name} is no array of numbers: {error}") from error
    if array.dtype.kind not in kinds:
        wanted = "numbers" if "f" in kinds else "whole numbers"
        raise InputError(f"{path} is not written: {name} is of type {array.dtype}, expected {wanted}")
    return array


def as_json(config: Any, path: Path) -> str:
    """Return a configuration as JSON; numpy's and torch's numbers become plain ones. Raises `InputError`."""
    if not isinstance(config, dict):
        raise InputError(f"{path} is not written: config is a {type(config).__name__}, expected a dictionary")
    try:
        return json.dumps(config, default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is not written: config cannot be stored as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Return what JSON can hold in place of a number or an array of numpy or torch, or of a path."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} {value!r}")


def json_attribute(attributes: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the configuration in a file's attributes. Raises `FormatError` if it is no JSON object."""
    try:
        config = json.loads(attributes.get("config", "{}"))
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: the attribute 'config' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError(f"{path}: the attribute 'config' is a {type(config).__name__}, expected a JSON object")
    return config


def _n_xy(
    path: Path, attributes: Mapping[str, Any], error: type[FormatError] | type[InputError] = FormatError
) -> dict[str, int]:
    n_xy = attributes.get("n_xy")
    if not isinstance(n_xy, int | np.integer) or n_xy < 1:
        raise error(f"{path}: the attribute 'n_xy' is {n_xy}, expected the number of cells across")
    return {"n_xy": int(n_xy)}


def _material(attributes: Mapping[str, Any], path: Path) -> Material:
    if "material" not in attributes:
        raise FormatError(f"{path} names no material; expected the attribute 'material'")
    try:
        if "material_numbers" in attributes:
            return Material(**json.loads(attributes["material_numbers"]))
        return Material.parse(str(attributes["material"]))
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: the material cannot be used: {error}") from error
