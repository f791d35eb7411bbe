"""Configurations: read TOML, validate it, name what is wrong in it and where two configurations differ."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from calograd.errors import InputError

T = TypeVar("T", bound=BaseModel)


class Table(BaseModel):
    """A table of a configuration: immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[Mapping[str, str]] = {}
    """Names that keys now have, by their former names; a former name is refused with the new one."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file. Raises `InputError` if the file is missing or is not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def parse_table(model: type[T], raw: dict[str, Any], source: str) -> T:
    """Validate plain data against a table.

    Args:
        model: the table's class; its fields may be tables, tuples of tables and unions with a tag ``kind``.
        raw: what `read_toml` returned, or a part of it.
        source: where it comes from; the error begins with it.

    Raises:
        InputError: an unknown key, with the nearest known one, or a value that does not fit.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{source}: {first_problem(error, model)}") from error


def first_problem(error: ValidationError, root: type[BaseModel]) -> str:
    """Describe a problem that pydantic found in a table of class ``root``, in one line; unknown keys come first."""
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    tables, where = [root], list[str]()
    unknown = first["type"] == "extra_forbidden"
    for part in first["loc"][:-1] if unknown else first["loc"]:
        holder = next((table for table in tables if part in table.model_fields), None)
        if holder is not None:
            tables = _tables(holder.model_fields[str(part)].annotation)
        elif isinstance(part, str):  # the tag of a union
            tables = [table for table in tables if part in get_args(table.model_fields["kind"].annotation)]
            continue
        where.append(str(part))
    path = ".".join(where)
    if first["type"] == "union_tag_invalid":
        tags = [tag for table in tables for tag in get_args(table.model_fields["kind"].annotation)]
        return f"{path}.kind: expected one of {', '.join(tags)}"
    if not unknown:
        reason = first["msg"].removeprefix("Value error, ")  # pydantic's, of a check of a whole table
        return f"{path}: {reason}" if path else reason
    key, known = str(first["loc"][-1]), [name for table in tables for name in table.model_fields]
    now = next((new[key] for table in tables if key in (new := getattr(table, "renamed", {}))), None)
    if now is not None:
        return f"'{'.'.join([*where, key])}' is now called '{now}'; rename it"
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
    return f"unknown key '{'.'.join([*where, key])}'; {hint}"


def _tables(annotation: Any) -> list[type[BaseModel]]:
    """Return the tables in an annotation: itself, members of a union, elements of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [table for part in get_args(annotation) for table in _tables(part)]


class Difference(NamedTuple):
    """A value in which two configurations differ: its dotted name, and both values."""

    name: str
    mine: Any
    theirs: Any


def differences(mine: Any, theirs: Any, name: str = "") -> list[Difference]:
    """Return all values in which two plain configurations differ; a missing value or table counts as None."""
    tables = [each for each in (mine, theirs) if isinstance(each, dict)]
    if tables and all(each is None or isinstance(each, dict) for each in (mine, theirs)):
        mine, theirs = mine or {}, theirs or {}
        keys = [*mine, *(key for key in theirs if key not in mine)]
        below = (differences(mine.get(key), theirs.get(key), f"{name}.{key}" if name else str(key)) for key in keys)
        return [found for each in below for found in each]
    return [] if mine == theirs else [Difference(name, mine, theirs)]


def first_difference(mine: Any, theirs: Any) -> Difference | None:
    """Return the first of `differences`, or None."""
    return next(iter(differences(mine, theirs)), None)


def refuse_other(output: Path, mine: Any, theirs: Any) -> None:
    """Raise `InputError`, naming the differences, if the run in ``output`` has the configuration ``theirs``."""
    found = differences(mine, theirs)
    if found:
        first, *others = found
        more = f" and {', '.join(other.name for other in others)}" if others else ""
        raise InputError(
            f"{output} holds a run of another configuration: {first.name} is {first.mine}, was {first.theirs}{more}; "
            "change it back or choose another output"
        )
