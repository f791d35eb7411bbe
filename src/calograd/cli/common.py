"""What commands share: options, summary tables, progress bars, JSON output."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from calograd.errors import InputError
from calograd.io.hdf5 import write_new

F = TypeVar("F", bound=Callable[..., Any])

console = Console(stderr=True, markup=False)
"""What it prints is shown as it is: names of files and surrogates are not markup."""

JSON_OPTION = click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the result for machines."
)


def output_option(what: str) -> Callable[[F], F]:
    """The option ``-o``/``--output``."""
    return click.option(
        "-o", "--output", required=True, type=click.Path(path_type=Path), help=f"{what}; never overwritten."
    )


def parse_numbers(text: str, name: str) -> list[float]:
    """Numbers separated by commas. Raises `InputError` naming the option and the word that is no number."""
    values = []
    for word in text.split(","):
        try:
            values.append(float(word))
        except ValueError as error:
            raise InputError(f"{name}: '{word}' is not a number; expected numbers separated by commas") from error
    return values


def parse_cell(cell: tuple[str, str], n_z: int) -> tuple[float, float | tuple[float, ...]]:
    """DX and DZ of --cell, cm; DZ is one number or ``n_z``. Raises `InputError`."""
    pitch, depth = parse_numbers(cell[0], "--cell DX"), parse_numbers(cell[1], "--cell DZ")
    if len(pitch) != 1 or len(depth) not in (1, n_z):
        raise InputError(f"--cell {cell[0]} {cell[1]}: expected one DX, and one DZ or {n_z} (one a layer)")
    return pitch[0], depth[0] if len(depth) == 1 else tuple(depth)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises `InputError` if it is missing or no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; expected a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def progress() -> Progress:
    """A progress bar on standard error with the time left."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console,
    )  # fmt: skip


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A summary table on standard error."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write ``result`` to ``path``, if one was given. Never overwrites."""
    if path is None:
        return
    write_new(path, (json.dumps(result, indent=1, allow_nan=False) + "\n").encode())


def stages(bar: Progress) -> Callable[[str, int, int | None], None]:
    """A function ``tell(stage, done, total)`` that shows every stage of a work as a line of the bar."""
    tasks: dict[str, TaskID] = {}

    def tell(stage: str, done: int, total: int | None) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    return tell
