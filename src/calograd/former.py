"""Configurations of older releases.

A key that was given another place is taken from where it was, as what it means is plain; a key that nothing today
stands for is refused by its name, with what to write instead. Both are named by table and key: ``check.showers``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from calograd.errors import InputError


def bring_up_to_date(
    raw: Mapping[str, Any], source: str, moved: Mapping[str, str], gone: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Tables with the keys of this release; ``raw`` stays as it is.

    Args:
        raw: tables as they were written.
        source: named in errors.
        moved: new names by old ones.
        gone: what to do instead, by old names.

    Raises:
        InputError: a key that is gone, or one that is given under its old name and differently under its new one.
    """
    tables = copy.deepcopy(dict(raw))
    for name, advice in (gone or {}).items():
        if _take(tables, name) is not _NOTHING:
            raise InputError(f"{source}: '{name}' is of an older release; {advice}")
    for old, new in moved.items():
        value = _take(tables, old)
        if value is _NOTHING:
            continue
        table, key = new.rsplit(".", 1)
        there = tables.setdefault(table, {})
        if not isinstance(there, dict) or there.setdefault(key, value) != value:
            raise InputError(
                f"{source}: '{old}' of an older release is '{new}' now, and both are given; remove '{old}'"
            )
    return tables


class Difference(NamedTuple):
    """Where two configurations differ: the dotted name of the value, and both values."""

    name: str
    mine: Any
    theirs: Any


def differences(mine: Any, theirs: Any, name: str = "") -> list[Difference]:
    """Every value in which two plain configurations differ, in order; what is missing counts as None."""
    if isinstance(mine, dict) or isinstance(theirs, dict):
        mine, theirs = ({} if each is None else each for each in (mine, theirs))
    if isinstance(mine, dict) and isinstance(theirs, dict):
        found = []
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            found += differences(mine.get(key), theirs.get(key), f"{name}.{key}" if name else str(key))
        return found
    return [] if mine == theirs else [Difference(name, mine, theirs)]


_NOTHING = object()


def _take(tables: dict[str, Any], name: str) -> Any:
    """Remove a key; its value, or `_NOTHING`."""
    *above, key = name.split(".")
    table: Any = tables
    for part in above:
        table = table.get(part) if isinstance(table, dict) else None
    return table.pop(key, _NOTHING) if isinstance(table, dict) else _NOTHING
