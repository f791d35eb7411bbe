"""Configurations of older releases.

A key that was given another place is taken from where it was, as what it means is plain; a key that nothing today
stands for is refused by its name, with what to write instead. Both are named by table and key: ``check.showers``.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
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
    """All values in which two plain configurations differ; what is missing, also a whole table, counts as None."""
    tables = [each for each in (mine, theirs) if isinstance(each, dict)]
    if tables and all(each is None or isinstance(each, dict) for each in (mine, theirs)):
        mine, theirs = mine or {}, theirs or {}
        keys = [*mine, *(key for key in theirs if key not in mine)]
        below = (differences(mine.get(key), theirs.get(key), f"{name}.{key}" if name else str(key)) for key in keys)
        return [found for each in below for found in each]
    return [] if mine == theirs else [Difference(name, mine, theirs)]


def first_difference(mine: Any, theirs: Any) -> Difference | None:
    """The first of `differences`."""
    return next(iter(differences(mine, theirs)), None)


def refuse_other(output: Path, mine: Any, theirs: Any) -> None:
    """Raise `InputError` if the run in ``output`` is of another configuration, ``theirs``, naming all that differs."""
    found = differences(mine, theirs)
    if found:
        first, *others = found
        more = f" and {', '.join(other.name for other in others)}" if others else ""
        raise InputError(
            f"{output} holds a run of another configuration: {first.name} is {first.mine}, was {first.theirs}{more}; "
            "change it back or choose another output"
        )


_NOTHING = object()


def _take(tables: dict[str, Any], name: str) -> Any:
    """Remove a key; its value, or `_NOTHING`."""
    *above, key = name.split(".")
    table: Any = tables
    for part in above:
        table = table.get(part) if isinstance(table, dict) else None
    return table.pop(key, _NOTHING) if isinstance(table, dict) else _NOTHING
