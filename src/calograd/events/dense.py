"""What cells files and maps files share (HDF5): rows of showers at designs.

A file holds the measured energies under their name, ``energy``, ``dx``, ``dz`` and ``shower`` of every row, and as
attributes the material, the origin and what made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from calograd.detector.material import Material
from calograd.errors import FormatError
from calograd.io.checksum import check_seal, seal
from calograd.io.hdf5 import existing_file, load, new_file, refuse_existing

COLUMNS = ("energy", "dx", "dz")
CHUNK = 1 << 18
"""Numbers in a chunk of the measured energies."""
ALL = slice(None)
"""Rows of a file."""


class Extent(NamedTuple):
    """How much a file holds.

    Attributes:
        rows: their number.
        shape: of the measured energies of one.
        layers: of a design.
        chunk: rows that are stored, and best read, together.
    """

    rows: int
    shape: tuple[int, ...]
    layers: int
    chunk: int


class Stored(NamedTuple):
    """What a file holds, as it is.

    Attributes:
        numbers: measured energies and `COLUMNS` by name, the energies first.
        shower: which shower of the source a row shows.
        attributes: of the file.
        whole: whether these are all rows, which the digest is of.
    """

    numbers: dict[str, np.ndarray]
    shower: np.ndarray
    attributes: dict[str, Any]
    whole: bool = True

    def fields(self, path: Path) -> dict[str, Any]:
        """Arguments of the record that the rows become.

        Raises:
            FormatError: no material, or one that cannot be used, a configuration that is not JSON, or anything that
                has changed since it was written.
        """
        material, config = _material(self.attributes, path), _config(self.attributes, path)
        if self.whole:
            check_seal(self.attributes, self.numbers | {"shower": self.shower}, path)
        numbers = {name: values.astype(np.float32, copy=False) for name, values in self.numbers.items()}
        return numbers | {
            "shower": self.shower.astype(np.int64),
            "material": material,
            "origin": str(self.attributes.get("origin", "unknown")),
            "config": config,
        }


def write_file(path: Path, schema: str, name: str, fields: Mapping[str, Any], **attributes: int) -> None:
    """Write rows.

    Args:
        path: of the file.
        schema: of the file.
        name: of the measured energies.
        fields: of the record, see `calograd.events.cells.Cells`.
        attributes: further ones.

    Raises:
        OutputExistsError: ``path`` exists.
        InputError: it cannot be written.
    """
    refuse_existing(path)
    measured: np.ndarray = fields[name]
    row = max(1, int(np.prod(measured.shape[1:])))
    chunks = (max(1, min(len(measured), CHUNK // row)), *measured.shape[1:]) if measured.size else None
    packing = {"compression": "gzip", "compression_opts": 4, "shuffle": True} if chunks else {}
    with new_file(path, schema) as file:
        file.create_dataset(name, data=measured.astype(np.float32), chunks=chunks, **packing)
        for column in COLUMNS:
            file[column] = fields[column].astype(np.float32)
        file["shower"] = fields["shower"].astype(np.int64)
        file.attrs["material"] = fields["material"].name
        file.attrs["material_numbers"] = json.dumps(fields["material"].to_dict())
        file.attrs["origin"] = fields["origin"]
        file.attrs["config"] = json.dumps(fields["config"])
        file.attrs.update(attributes)
        seal(file, (name, *COLUMNS, "shower"))


def read_file(path: Path, schema: str, name: str, rows: slice = ALL) -> Stored:
    """Read rows whose measured energies are called ``name``.

    Args:
        path: of the file.
        schema: of the file.
        name: of the measured energies.
        rows: which to read.

    Raises:
        FormatError: missing, cut off, of another kind, newer, or without some of the data sets.
    """
    whole = rows == ALL
    with _datasets(path, schema, name) as file:
        numbers = {each: _some(file, each, rows) for each in (name, *COLUMNS)}
        shower = _some(file, "shower", rows) if "shower" in file else np.arange(len(file[name]))[rows]
        return Stored(numbers, shower, dict(file.attrs), whole)


def _some(file: h5py.File, name: str, rows: slice) -> np.ndarray:
    """Rows of a data set; a number without rows, which is refused later, as it is."""
    return load(file, name) if rows == ALL or file[name].ndim == 0 else np.asarray(file[name][rows])


def read_extent(path: Path, schema: str, name: str) -> Extent:
    """How much a file holds; its digest is checked, a part at a time. Raises `FormatError` as `read_file`."""
    with _datasets(path, schema, name) as file:
        measured, depths = file[name], file["dz"]
        if measured.ndim == 0 or depths.ndim != 2:
            raise FormatError(f"{path}: {name} and dz have {measured.ndim} and {depths.ndim} dimensions; expected rows")
        n = len(measured)
        check_seal(dict(file.attrs), {each: file[each] for each in (name, *COLUMNS, "shower") if each in file}, path)
        return Extent(n, measured.shape[1:], depths.shape[1], measured.chunks[0] if measured.chunks else max(1, n))


@contextmanager
def _datasets(path: Path, schema: str, name: str) -> Iterator[h5py.File]:
    """A file opened for reading that has all it needs to have."""
    with existing_file(path, schema) as file:
        missing = [each for each in (name, *COLUMNS) if not isinstance(file.get(each), h5py.Dataset)]
        if missing:
            raise FormatError(f"{path} lacks {', '.join(missing)}; expected a file of schema '{schema}'")
        yield file


def check_numbers(stored: Stored, layers: int, path: Path, first: int = 0) -> None:
    """Refuse columns that do not fit the measured energies, and numbers that no shower can have.

    Args:
        stored: the rows.
        layers: of a design.
        path: of the file.
        first: number of the first of these rows in the file.

    Raises:
        FormatError: shapes that do not fit, or values that are NaN, infinite, or of the wrong sign.
    """
    name, *_ = stored.numbers
    measured = stored.numbers[name]
    n = len(measured)
    expected = {"energy": (n,), "dx": (n,), "dz": (n, layers), "shower": (n,)}
    for column, values in {**stored.numbers, "shower": stored.shower}.items():
        if values.dtype.kind not in ("iu" if column == "shower" else "fiu"):
            raise FormatError(f"{path}: {column} are of type {values.dtype}, expected numbers")
        if values.shape != expected.get(column, measured.shape):
            raise FormatError(
                f"{path}: {column} has shape {values.shape}, expected {expected[column]} as {name} {measured.shape}"
            )
    for column, values in stored.numbers.items():
        lowest = 0.0 if column == name else np.finfo(np.float32).tiny
        bad = ~((values >= lowest) & (values < np.inf))
        if bad.any():
            rows = np.unique(np.nonzero(bad)[0])
            raise FormatError(
                f"{path}: {column} holds NaN, infinite or {'negative' if column == name else 'non-positive'} values "
                f"in {len(rows)} rows, the first is row {first + rows[0]}; make the file anew"
            )


def _material(attributes: dict[str, Any], path: Path) -> Material:
    if "material" not in attributes:
        raise FormatError(f"{path} names no material; expected the attribute 'material'")
    try:
        if "material_numbers" in attributes:
            return Material(**json.loads(attributes["material_numbers"]))
        return Material.parse(str(attributes["material"]))
    except (TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path}: the material cannot be used: {error}") from error


def _config(attributes: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        config = json.loads(attributes.get("config", "{}"))
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: the attribute 'config' is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise FormatError(f"{path}: the attribute 'config' is a {type(config).__name__}, expected a JSON object")
    return config
