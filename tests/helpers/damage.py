"""Ways in which files and configurations can be wrong."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from calograd.errors import CaloGradError

NUMBER = int(os.environ.get("CALOGRAD_FUZZ", "0"))
FUZZ = settings(
    max_examples=NUMBER or 25, derandomize=not NUMBER, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
"""Few cases and always the same ones; with CALOGRAD_FUZZ=N, N random ones of every kind."""

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)  # what HDF5 can store
    | st.binary(max_size=4)
)
"""Values of attributes."""
TOML = st.recursive(
    st.booleans() | st.integers(-(2**70), 2**70) | st.sampled_from([0, 1, 2, -1, 0.5, 1e300, 1e-300])
    | st.floats() | st.text(max_size=10) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
"""What a TOML file can hold."""


def refused_or_valid(read: Callable[[], Any]) -> bool:
    """Return whether ``read`` succeeds; otherwise check that its error is one line of `calograd.errors`."""
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


class Change(NamedTuple):
    """A change of an attribute or dataset of an HDF5 file, drawn before the file is opened."""

    attribute: bool
    which: int
    what: str
    value: Any
    kind: str
    form: str
    place: int
    number: float


CHANGES = st.lists(
    st.builds(
        Change,
        attribute=st.booleans(),
        which=st.integers(0, 20),
        what=st.sampled_from(["missing", "renamed", "group", "type", "shape", "values", "values"]),
        value=VALUES | st.sampled_from(["{}", "[]", "null", '{"kind": 3}', "calograd/cells/x", (0.0, 0.0)]),
        kind=st.sampled_from(["f2", "f8", "i1", "u8", "?", "c8", "S3", "O"]),
        form=st.sampled_from(["empty", "scalar", "more", "fewer", "transposed", "deeper"]),
        place=st.integers(0, 100),
        number=st.sampled_from([np.nan, np.inf, -1.0, 0.0, 1.0, 1e38, -1e-30, 2.0**31, 2.0**62]),
    ),
    min_size=1,
    max_size=3,
)


def spoil(path: Path, changes: Sequence[Change], unsealed: bool) -> None:
    """Change what a file holds; ``unsealed``: as a file that others wrote, without a digest."""
    with h5py.File(path, "r+") as file:
        if unsealed and "digest" in file.attrs:
            del file.attrs["digest"]
        for change in changes:
            names = sorted(file.attrs if change.attribute else file)
            if names and change.attribute:
                _spoil_attribute(file, names[change.which % len(names)], change)
            elif names:
                _spoil_dataset(file, names[change.which % len(names)], change)


def _spoil_attribute(file: h5py.File, name: str, change: Change) -> None:
    value = change.value
    del file.attrs[name]
    if isinstance(value, int) and abs(value) >= 2**63:
        value = float(value)
    if isinstance(value, str):
        value = value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, bytes):
        value = value.replace(b"\0", b"")
    if value not in (None, b"") and change.what != "missing":
        file.attrs[name] = value


def _spoil_dataset(file: h5py.File, name: str, change: Change) -> None:
    if not isinstance(file[name], h5py.Dataset):
        return
    values = np.asarray(file[name][()])
    del file[name]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        match change.what:
            case "renamed":
                file.require_group("elsewhere").create_dataset(str(len(file["elsewhere"])), data=values)
            case "group":
                file.create_group(name)
            case "type" if change.kind == "O" or values.dtype.kind not in "fiu":
                file.create_dataset(name, data=np.full(values.shape, "x", object), dtype=h5py.string_dtype())
            case "type":
                made = np.full(values.shape, "x") if change.kind == "S3" else values
                file.create_dataset(name, data=made.astype(change.kind))
            case "shape":
                file.create_dataset(name, data=_reshaped(values, change.form))
            case "values" if values.dtype.kind in "fiu" and values.size:
                flat = values.reshape(-1).copy()
                flat[change.place % flat.size] = np.array(change.number).astype(flat.dtype)
                file.create_dataset(name, data=flat.reshape(values.shape))


def _reshaped(values: np.ndarray, form: str) -> np.ndarray:
    if values.ndim == 0 or values.dtype.hasobject:
        return np.zeros((2, 2), np.float32)
    forms = {
        "empty": values[:0], "scalar": np.zeros((), np.float32), "more": np.concatenate([values, values[:1]]),
        "fewer": values[:-1], "transposed": values.T, "deeper": values[None],
    }  # fmt: skip
    return forms[form]


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
