"""Ways in which files and configurations can be wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from calograd.errors import CaloGradError

FUZZ = settings.get_profile("fuzz")

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
)
"""Of attributes."""
TOML = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 2, -1, 0.5, 1e300, 1e-300])
    | st.floats() | st.text(max_size=10) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
"""What a TOML file can hold."""


def refused_or_valid(read: Callable[[], Any]) -> bool:
    """Whether it can be read; if not, the complaint has to be one line of `calograd.errors`."""
    try:
        read()
    except CaloGradError as error:
        words = str(error)
        assert words
        assert "\n" not in words
        return False
    return True


@st.composite
def damaged_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """A few changes of a file's bytes: single bits, stretches overwritten, removed or put in, an early end."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(changed) - 1)))
        match draw(st.sampled_from(["bit", "bit", "overwrite", "remove", "insert", "cut", "zeros"])):
            case "bit" if changed:
                changed[at] ^= 1 << draw(st.integers(0, 7))
            case "overwrite":
                new = draw(st.binary(min_size=1, max_size=16))
                changed[at : at + len(new)] = new
            case "remove":
                del changed[at : at + draw(st.integers(1, 64))]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "zeros":
                changed[at : at + 64] = bytes(len(changed[at : at + 64]))
            case _:
                del changed[at:]
    return bytes(changed)


def spoil(path: Path, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Change what an HDF5 file holds: datasets missing, renamed, of another type or shape, with other values."""
    with h5py.File(path, "r+") as file:
        if draw(st.booleans()) and "digest" in file.attrs:
            del file.attrs["digest"]  # as files have none that others wrote
        for _ in range(draw(st.integers(1, 3))):
            if file.attrs and draw(st.booleans()):
                _spoil_attribute(file, draw(st.sampled_from(sorted(file.attrs))), draw)
            elif len(file):
                _spoil_dataset(file, draw(st.sampled_from(sorted(file))), draw)


def _spoil_attribute(file: h5py.File, name: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    value = draw(VALUES | st.sampled_from(["{}", "[]", "null", '{"kind": 3}', "calograd/cells/x", np.zeros(3)]))
    del file.attrs[name]
    if isinstance(value, int) and not isinstance(value, bool):
        value = np.clip(value, -(2**63), 2**63 - 1).astype(np.int64) if abs(value) < 2**63 else str(value)
    if isinstance(value, str):
        value = value.replace("\0", "").encode("utf-8", "replace").decode()
    if value is not None and value != b"":
        file.attrs[name] = value


def _spoil_dataset(file: h5py.File, name: str, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    if not isinstance(file[name], h5py.Dataset):
        return
    values = file[name][()]
    del file[name]
    what = draw(st.sampled_from(["missing", "renamed", "group", "type", "shape", "values", "values"]))
    if what == "renamed":
        file.create_dataset(f"{name}2", data=values)
    elif what == "group":
        file.create_group(name)
    elif what == "type":
        kind = draw(st.sampled_from(["f2", "f8", "i1", "u8", "?", "c8", "S3", "O"]))
        with np.errstate(all="ignore"):
            made = np.full(np.shape(values), "x", dtype=object) if kind in ("O", "S3") else values
            try:
                made = np.asarray(made).astype(kind)
            except (TypeError, ValueError):  # values of variable length
                made = np.zeros(np.shape(values), kind)
        file.create_dataset(name, data=made, dtype=h5py.string_dtype() if kind == "O" else None)
    elif what == "shape":
        file.create_dataset(name, data=_reshaped(np.asarray(values), draw))
    elif what == "values" and np.asarray(values).dtype.kind in "fiu" and np.size(values):
        flat = np.array(values).reshape(-1)
        limits = [0, 1, -1, 2**31, 2**62] if flat.dtype.kind in "iu" else [np.nan, np.inf, -1, 0, 1e38, -1e-30]
        with np.errstate(all="ignore"):
            flat[draw(st.integers(0, flat.size - 1))] = np.array(draw(st.sampled_from(limits))).astype(flat.dtype)
        file.create_dataset(name, data=flat.reshape(np.shape(values)))


def _reshaped(values: np.ndarray, draw: Callable[[st.SearchStrategy[Any]], Any]) -> np.ndarray:
    match draw(st.sampled_from(["empty", "scalar", "more", "fewer", "transposed", "deeper"])):
        case "empty":
            return values[:0] if values.ndim else np.zeros(0)
        case "scalar":
            return np.zeros((), np.float32)
        case "more":
            return np.concatenate([values, values[:1]]) if values.ndim and len(values) else np.zeros(3)
        case "fewer":
            return values[:-1] if values.ndim else np.zeros(1)
        case "transposed":
            return values.T
        case _:
            return values[None]


@st.composite
def changed_tables(draw: st.DrawFn, tables: dict[str, Any], extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Tables in which a few values are others, missing or unknown; ``extra``: more keys to try, dotted."""
    changed = copy.deepcopy(tables)
    places = [*_places(changed), *(tuple(name.split(".")) for name in extra)]
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from(places))
        table: Any = changed
        for part in above:
            table = table.setdefault(part, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict):
            continue
        match draw(st.sampled_from(["value", "value", "value", "missing", "unknown"])):
            case "value":
                table[key] = draw(TOML)
            case "missing":
                table.pop(key, None)
            case _:
                table[draw(st.text(min_size=1, max_size=8))] = draw(TOML)
    return changed


def _places(table: dict[str, Any], above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [(*above, key) for key in table]
    for key, value in table.items():
        if isinstance(value, dict):
            found += _places(value, (*above, key))
    return found
