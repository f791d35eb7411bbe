"""Read folders of files as one, and distinguish the showers in them.

A simulation and an index in it name a shower. Files of simulations that differ in seed or energies hold different
showers; files of one simulation hold the same ones. A file made of several simulations names them in its configuration:

    "shards": [{"first": 0, "simulation": {...}}, {"first": 1000, "simulation": {...}}, ...]

Its showers from number ``first`` on are those of ``simulation`` from 0 on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.material import to_float
from calograd.errors import InputError
from calograd.events.dense import Cells, Maps, read_dense
from calograd.events.library.reader import open_plates
from calograd.events.library.schema import PLATES_SCHEMA
from calograd.events.plates import PlateShowers
from calograd.events.point_showers import SCHEMA as POINTS
from calograd.events.point_showers import PointShowers, read_points
from calograd.io.files import shard_files
from calograd.io.hdf5 import schema_of

SAMPLE = 100
"""Number of rows whose measured energies distinguish files of equal columns."""


def shards_of(config: dict[str, Any]) -> list[tuple[int, Any]]:
    """Return the number of the first shower, and the simulation or None if unknown, of every shard in a file."""
    if "shards" in config:
        return [(int(shard["first"]), shard["simulation"]) for shard in config["shards"]]
    return [(0, config.get("simulation"))]


def distinct_showers(parts: Iterable[tuple[dict[str, Any], np.ndarray]]) -> list[np.ndarray]:
    """Return the numbers of the showers of several files, int64, equal for the same shower and for no other.

    Args:
        parts: configuration and showers of every file. A file without a simulation shares its showers with no other.
    """
    sources: dict[str, int] = {}
    numbers = []
    for file, (config, shower) in enumerate(parts):
        shards = shards_of(config)
        names = [f"file {file}" if made is None else json.dumps(made, sort_keys=True) for _, made in shards]
        source = np.array([sources.setdefault(name, len(sources)) for name in names])
        first = np.array([number for number, _ in shards])
        mine = np.searchsorted(first, shower, side="right") - 1
        numbers.append(shower - first[mine] + (source[mine] << 40))
    return numbers


def refuse_twice(files: Sequence[Path], contents: Sequence[bytes]) -> None:
    """Raise `InputError` if two files have the same contents, as `contents_of` gives them."""
    seen: dict[bytes, Path] = {}
    for path, content in zip(files, contents, strict=True):
        if content in seen:
            raise InputError(f"{path} holds the same rows as {seen[content]}; leave one out")
        seen[content] = path


def contents_of(rows: Cells | Maps) -> bytes:
    """Return a hash of configuration, columns and the first measured energies, which distinguishes contents."""
    digest = blake2b(json.dumps(rows.config, sort_keys=True).encode())
    for column in (rows.energy, rows.dx, rows.dz, rows.shower, rows.measured[:SAMPLE]):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.digest()


def refuse_unlike(files: Sequence[Path], shapes: Sequence[tuple[tuple[int, ...], int]]) -> None:
    """Raise `InputError` for the first file whose cells or maps, and cells across, differ from those of the first."""
    for path, shape in zip(files, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(f"{path} has cells {shape[0]}, {files[0]} has {shapes[0][0]}")


def read_showers(path: Path, deposits: bool = False) -> Cells | Maps | PointShowers | PlateShowers:
    """Read a file of showers of any kind: cells, maps, plates (a file, or a folder of files) or points.

    Args:
        path: the file or folder.
        deposits: read the deposits in active plates too, where there are any.

    Raises:
        InputError: files of a folder that do not belong together.
        FormatError: the file is missing, damaged, or of another kind.
    """
    kind = (schema_of(shard_files(path)[0]) or "").rpartition("/")[0]
    if kind == PLATES_SCHEMA.rpartition("/")[0]:
        with open_plates(path) as library:
            if deposits and library.provenance.points:
                library.read_deposits()
            return library.read()
    return read_points(path) if kind == POINTS.rpartition("/")[0] else read_shards(path)


def read_shards(path: Path) -> Cells | Maps:
    """Read a cells file or a maps file, or all of a folder as if they were one.

    Raises:
        InputError: files of a folder that differ in cells, material, origin or surroundings, or the same rows twice.
        FormatError: a folder without files, or one that cannot be used.
    """
    files = shard_files(path)
    parts: list[Any] = [read_dense(file) for file in files]
    first: Cells | Maps = parts[0]
    if not path.is_dir():
        return first
    refuse_unlike(files, [(part.measured.shape[1:], part.n_xy) for part in parts])
    for file, part in zip(files, parts, strict=True):
        for name, mine, theirs in (
            ("material", _named(part), _named(first)),
            ("origin", part.origin, first.origin),
            ("mode", part.config.get("mode"), first.config.get("mode")),
        ):
            if mine != theirs:
                raise InputError(f"{file}: its {name} is {mine}, that of {files[0]} is {theirs}; expected the same")
    refuse_twice(files, [contents_of(part) for part in parts])
    shower, shards = _renumbered(parts)
    config = first.config | {"files": [file.name for file in files]} | ({"shards": shards} if shards else {})
    return replace(first.concatenate(parts, shower), config=config)


def _named(rows: Cells | Maps) -> str:
    return f"{rows.material.name} of {to_float(rows.material.density):g} g/cm3"


def _renumbered(parts: Sequence[Cells | Maps]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the showers of all parts, numbered one simulation behind the other, and the shards of the whole."""
    known = [shards_of(part.config) for part in parts]
    numbers = distinct_showers((part.config, part.shower) for part in parts)
    every = np.concatenate(numbers)
    source, index = every >> 40, every & ((1 << 40) - 1)
    count = np.zeros(int(source.max(initial=0)) + 1, np.int64)
    np.maximum.at(count, source, index + 1)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    made = list({json.dumps(each, sort_keys=True): each for shards in known for _, each in shards}.values())
    shards = [{"first": int(f), "simulation": each} for f, each in zip(first, made, strict=False)]
    return first[source] + index, shards if None not in made and len(made) > 1 else []
