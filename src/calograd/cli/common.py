"""Shared parts of the commands: options and their types, checks of outputs, summary tables, JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.table import Table

from calograd.errors import InputError, OutputExistsError

F = TypeVar("F", bound=Callable[..., Any])

console = Console(stderr=True, markup=False)
"""Console on standard error. Markup is off, so that names of files and surrogates are shown as they are."""

STDOUT = Path("-")
"""The output that stands for standard output."""


class Finite(click.FloatRange):
    """A number within a range. Unlike `click.FloatRange` it refuses NaN and infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


FINITE = Finite()
"""Any finite number."""
POSITIVE = Finite(min=0, min_open=True)
"""A finite number above zero."""
SHARE = Finite(min=0, max=1)
"""A number from 0 to 1."""
COUNT = click.IntRange(min=1)
"""A number of things: at least one."""
SEED = click.IntRange(min=0)
"""A seed of random numbers."""


class Range(NamedTuple):
    """A range LOW:HIGH on the command line."""

    low: float
    high: float


class Numbers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """Finite numbers separated by commas, as a tuple; or a range LOW:HIGH, as a `Range`.

    Args:
        ranges: whether a range may be given.
        positive: whether the numbers must be above zero.
    """

    name = "numbers"

    def __init__(self, *, ranges: bool = False, positive: bool = True) -> None:
        self.ranges = ranges
        self.positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the tuple or the `Range`."""
        if isinstance(value, tuple):
            return value
        ends = str(value).split(":")
        is_range = self.ranges and len(ends) == 2
        numbers = tuple(self._number(word, value, param, ctx) for word in (ends if is_range else str(value).split(",")))
        if not is_range:
            return numbers
        if not numbers[0] < numbers[1]:
            self.fail(f"'{value}' is no range; expected LOW:HIGH, as 1:100.", param, ctx)
        return Range(*numbers)

    def _number(self, word: str, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        kind = "positive numbers" if self.positive else "numbers"
        expected = f"{kind} separated by commas{', or a range LOW:HIGH' if self.ranges else ''}"
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if not math.isfinite(number) or (self.positive and number <= 0):
            self.fail(f"'{word}' in '{value}'; expected {expected}.", param, ctx)
        return number


NUMBERS = Numbers()
"""Positive numbers separated by commas."""
NUMBERS_OR_RANGE = Numbers(ranges=True)
"""Positive numbers separated by commas, or a range LOW:HIGH."""


class Output(click.Path):
    """A file or folder that a command writes. `Command` checks it before the work begins.

    Args:
        folder: whether the output is a folder.
        resumes: whether the command continues an output that exists; otherwise such an output is refused.
        stdout: whether ``-`` stands for standard output.
    """

    def __init__(self, *, folder: bool = False, resumes: bool = False, stdout: bool = False) -> None:
        super().__init__(path_type=Path)
        self.name = "directory" if folder else "file"
        self.folder = folder
        self.resumes = resumes
        self.stdout = stdout

    def check(self, path: Path, others: Sequence[Path]) -> None:
        """Raise an error if the output cannot be written.

        Args:
            path: the output.
            others: the other outputs of the command; a folder among them may hold this one.

        Raises:
            OutputExistsError: the output exists and the command does not continue it.
            InputError: its folder does not exist or cannot be written to, or another output has the same path.
        """
        if self.stdout and path == STDOUT:
            return
        if path in others:
            raise InputError(f"two outputs have the path {path}; expected different paths")
        if path.exists() and not self.resumes:
            raise OutputExistsError(f"{path} exists already; move it away or choose another output")
        if path.exists() and self.folder and not path.is_dir():
            raise InputError(f"{path} is a file, expected a folder; choose another output")
        above = path.absolute().parent
        if self.folder or above in [other.absolute() for other in others]:
            above = next(folder for folder in (above, *above.parents) if folder.exists())
        if not above.is_dir():
            raise InputError(f"the folder {path.parent} does not exist; make it or choose another output")
        for place in (above, path):
            if place.exists() and not os.access(place, os.W_OK):
                raise InputError(f"{place} cannot be written to; change its permissions or choose another output")


class Command(click.Command):
    """A command that checks all its outputs before it begins."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check the outputs, then run the command."""
        outputs = {
            option: (option.type, ctx.params[option.name])
            for option in self.params
            if isinstance(option.type, Output) and option.name and ctx.params[option.name] is not None
        }
        for option, (kind, path) in outputs.items():
            kind.check(path, [other for which, (_, other) in outputs.items() if which is not option])
        return super().invoke(ctx)


JSON_OPTION = click.option(
    "--json", "json_path", type=Output(stdout=True),
    help="Write the result as JSON to this file, or to standard output with '-'.",
)  # fmt: skip
REPORT_OPTION = click.option(
    "--report", "report_path", type=Output(), help="Write a report with figures: one HTML file that needs no network."
)
SEED_OPTION = click.option(
    "--seed", default=0, show_default=True, type=SEED, help="Seed of all random numbers; equal seeds, equal results."
)
THREADS_OPTION = click.option(
    "--threads", default=0, type=click.IntRange(min=0), help="CPU threads; 0 stands for all cores. [0]"
)
DEVICE_OPTION = click.option("--device", default="cpu", show_default=True, help="Torch device, as cpu or cuda.")


def output_option(
    what: str, *, folder: bool = False, resumes: bool = False, default: str | None = None
) -> Callable[[F], F]:
    """Return the option ``-o``/``--output``.

    Args:
        what: the output, in words; the help begins with it.
        folder, resumes: see `Output`.
        default: the path where the option is left out; None where the option is required.
    """
    then = "continued if it exists" if resumes else "never overwritten"
    return click.option(
        "-o", "--output", required=default is None, default=default, show_default=default is not None,
        type=Output(folder=folder, resumes=resumes), help=f"{what}; {then}.",
    )  # fmt: skip


def cell_size(cell: tuple[tuple[float, ...], tuple[float, ...]], n_z: int) -> tuple[float, float | tuple[float, ...]]:
    """Return the pitch and the depths of ``--cell DX DZ``, cm.

    Args:
        cell: numbers of DX and of DZ.
        n_z: layers of the detector.

    Raises:
        InputError: DX is not one number, or DZ is neither one number nor one a layer.
    """
    dx, dz = cell
    if len(dx) != 1 or len(dz) not in (1, n_z):
        given = " ".join(",".join(f"{number:g}" for number in numbers) for numbers in cell)
        raise InputError(f"--cell {given}: expected one DX, and one DZ or {n_z} (one a layer)")
    return dx[0], dz[0] if len(dz) == 1 else dz


def use_threads(threads: int) -> None:
    """Let torch use this many CPU threads; 0 leaves its default, all cores."""
    if threads:
        import torch

        torch.set_num_threads(threads)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a summary table on standard error."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def print_notes(notes: Sequence[str], kind: str = "note") -> None:
    """Print notes or warnings on standard error, one a line."""
    for note in notes:
        console.print(f"{kind}: {note}")


def text_of(value: float | None, form: str) -> str:
    """Format a number; None stands for one that is undefined."""
    return "undefined" if value is None else format(value, form)


def write_json(path: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result to the file of ``--json``, or to standard output for ``-``; without the option do nothing."""
    if path is None:
        return
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    from calograd.io.files import write_new

    write_new(path, text.encode())
