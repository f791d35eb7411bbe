"""Shared parts of the commands: options and their types, checks of outputs, summary tables, JSON."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from rich.console import Console
from rich.table import Table

from calograd.errors import InputError, OutputExistsError

if TYPE_CHECKING:
    from calograd.detector.material import Material
    from calograd.detector.sampling_stack import SamplingStack

F = TypeVar("F", bound=Callable[..., Any])

console = Console(stderr=True, markup=False)
"""Console on standard error. Markup is off, so that names of files and surrogates are shown as they are."""

MOST_THICKNESSES = 10_000
"""Most numbers that a list of thicknesses may stand for."""
STDOUT = Path("-")
"""The output that stands for standard output."""


class Finite(click.types.FloatParamType):
    """A number that is neither NaN nor infinite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


class FiniteRange(Finite, click.FloatRange):
    """A finite number within a range."""


FINITE = Finite()
"""Any finite number."""
POSITIVE = FiniteRange(min=0, min_open=True)
"""A finite number above zero."""
NOT_NEGATIVE = FiniteRange(min=0)
"""A finite number, zero or above."""
SHARE = FiniteRange(min=0, max=1)
"""A number from 0 to 1."""
COUNT = click.IntRange(min=1)
"""A number of things: at least one."""
COUNT_OR_ZERO = click.IntRange(min=0)
"""A number of things, zero or more."""
EXISTING = click.Path(path_type=Path)
"""A file or folder that a command reads."""


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


class Thicknesses(Numbers):
    """Thicknesses: one number, one a layer, or a range LOW:HIGH. ``20x0.21,10x0.42`` repeats each so many times.

    Args:
        zero: whether a thickness may be zero.
    """

    def __init__(self, *, zero: bool = False) -> None:
        super().__init__(ranges=True, positive=not zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Return the tuple or the `Range`."""
        if isinstance(value, str) and "x" in value:
            found = [re.fullmatch(r"(?:(\d+)x)?([^x:]+)", word.strip()) for word in value.split(",")]
            if not all(found) or not 0 < sum(int(each[1] or 1) for each in found if each) <= MOST_THICKNESSES:
                self.fail(f"'{value}'; expected numbers, or NUMBERxTHICKNESS as 20x0.21,10x0.42.", param, ctx)
            value = ",".join(each[2] for each in found if each for _ in range(int(each[1] or 1)))
        numbers = super().convert(value, param, ctx)
        if min(numbers) < 0:
            self.fail(f"'{value}'; expected thicknesses of zero or more.", param, ctx)
        if isinstance(numbers, Range) and not numbers.low:
            self.fail(f"'{value}'; expected a range that begins above zero, or 0 for none.", param, ctx)
        return numbers


class Layers(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """A number of layers, or a range LOW:HIGH as a pair; both ends are included."""

    name = "layers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the pair."""
        if not isinstance(value, str):
            return value
        ends = value.split(":")
        if len(ends) > 2 or not all(end.strip().isdecimal() and int(end) > 0 for end in ends):
            self.fail(f"'{value}'; expected a number of layers, or a range LOW:HIGH, as 10:60.", param, ctx)
        return int(ends[0]) if len(ends) == 1 else tuple(map(int, ends))


class Entry(Numbers):
    """A point on the front face, X,Y in cm, as a pair; or the word ``uniform``.

    `Command` joins the two words X Y, which some scripts give, into one.
    """

    def __init__(self) -> None:
        super().__init__(positive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the pair or the word."""
        if value == "uniform" or isinstance(value, tuple):
            return value
        pair = super().convert(value, param, ctx)
        if len(pair) != 2:
            self.fail(f"'{value}': expected X,Y in cm, as 0.2,-0.4, or the word uniform.", param, ctx)
        return pair


ENTRY = Entry()
"""An entry X,Y, or ``uniform``."""


class Angle(Numbers):
    """An angle in degrees, or a range LOW:HIGH of angles, as a pair."""

    def __init__(self) -> None:
        super().__init__(ranges=True, positive=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number or the pair."""
        if isinstance(value, float):
            return value
        numbers = super().convert(value, param, ctx)
        if len(numbers) > 1 and not isinstance(numbers, Range):
            self.fail(f"'{value}': expected one angle, or a range LOW:HIGH, in degrees.", param, ctx)
        return tuple(numbers) if len(numbers) > 1 else numbers[0]


class Particles(click.ParamType):  # type: ignore[type-arg, unused-ignore]
    """One particle as a word, or several separated by commas as a tuple."""

    name = "particles"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        """Return the word or the tuple; the simulation checks it."""
        words = tuple(word.strip() for word in value.split(",")) if isinstance(value, str) else value
        return words[0] if len(words) == 1 else words


ANGLE = Angle()
"""An angle, or a range LOW:HIGH of angles."""
PARTICLES = Particles()
"""One particle, or several separated by commas."""
NUMBERS = Numbers()
"""Positive numbers separated by commas."""
LAYERS = Layers()
"""A number of layers, or a range LOW:HIGH."""
THICKNESSES, THICKNESSES_OR_ZERO = Thicknesses(), Thicknesses(zero=True)
"""Thicknesses, one or one a layer, or a range LOW:HIGH; the second may be zero."""
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
    """A command that checks all its outputs before it begins, and writes the result that it returns as JSON."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join the two words of an entry, ``--position X Y``, into ``--position X,Y``."""
        if any(isinstance(option.type, Entry) for option in self.params):
            for at, word in enumerate(args[:-2]):
                if word == "--position" and all(map(_is_number, args[at + 1 : at + 3])):
                    args = [*args[: at + 1], ",".join(args[at + 1 : at + 3]), *args[at + 3 :]]
                    break
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Check the outputs, run the command, write what ``--json`` asks for."""
        outputs = {
            option: (option.type, ctx.params[option.name])
            for option in self.params
            if isinstance(option.type, Output) and option.name and ctx.params[option.name] is not None
        }
        for option, (kind, path) in outputs.items():
            kind.check(path, [other for which, (_, other) in outputs.items() if which is not option])
        json_path: Path | None = ctx.params.pop("json_path", None)
        result = super().invoke(ctx)
        if json_path is None or result is None:
            return result
        text = json.dumps(result, indent=1, allow_nan=False) + "\n"
        if json_path == STDOUT:
            click.echo(text, nl=False)
        else:
            from calograd.io.files import write_new

            write_new(json_path, text.encode())
        return result


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def command(name: str | None = None) -> Callable[[Callable[..., Any]], Command]:
    """Return a decorator that makes a function a `Command`."""
    return click.command(name, cls=Command)


def option(*names: str, help: str, **settings: Any) -> Callable[[F], F]:
    """Return an option whose help shows its default."""
    return click.option(*names, help=help, show_default=True, **settings)


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
    kind = Output(folder=folder, resumes=resumes)
    given: dict[str, Any] = {"required": True} if default is None else {"default": default}
    return option("-o", "--output", type=kind, help=f"{what}; {then}.", **given)


def _use_threads(_: click.Context, __: click.Parameter, threads: int) -> None:
    """Let torch use this many CPU threads; 0 leaves its default, all cores."""
    if threads:
        import torch

        torch.set_num_threads(threads)


json_option = option(
    "--json", "json_path", type=Output(stdout=True),
    help="Write the result as JSON to this file, or to standard output with '-'.",
)  # fmt: skip
report_option = option(
    "--report", "report_path", type=Output(), help="Write a report with figures: one HTML file that needs no network."
)
seed_option = option(
    "--seed", default=0, type=COUNT_OR_ZERO, help="Seed of all random numbers; equal seeds, equal results."
)
threads_option = click.option(
    "--threads", default=0, type=COUNT_OR_ZERO, expose_value=False, callback=_use_threads,
    help="CPU threads; 0 stands for all cores. [0]",
)  # fmt: skip
device_option = option("--device", default="cpu", help="Torch device, as cpu or cuda.")
law_option = option(
    "--law", type=click.Choice(["uniform", "log-uniform"]), help="Distribution of energies in a range. [log-uniform]"
)
material_option = option("--material", help="PbF2, BGO, ..., or NAME:DENSITY:FORMULA. [the one trained on]")
window_option = option(
    "--cells", nargs=2, type=COUNT, metavar="N_XY N_Z",
    help="Cells across and layers of the window, for surrogates that serve several. [those of MODEL]",
)  # fmt: skip
sampler_option = option("--sampler", help="trigflow-ab2, ddim, heun, dpmpp-2m or ddpm. [the surrogate's own]")
steps_option = option("--steps", type=COUNT, help="Steps of the sampler. [each has its own]")
extrapolate_option = option("--extrapolate", is_flag=True, help="Warn instead of refusing outside the trained range.")
recover_option = option("--recover", is_flag=True, help="Use the complete showers of a library that was cut off.")
particle_option = option(
    "--particle", type=click.Choice(["gamma", "e-", "e+"]), default="gamma", help="Incident particle."
)
position_option = option(
    "--position", type=ENTRY, default=(0.0, 0.0), metavar="X,Y", help="Entry on the front face, cm."
)
theta_option = option("--theta", default=0.0, type=FINITE, help="Angle of the beam to the normal, degrees.")


BEAM = ("particle", "position", "theta", "phi")
"""Names of the options of `beam_options`."""


def beam_options(function: F) -> F:
    """Add the options of the incident particles, for surrogates that know several."""
    texts = (
        (
            "--particle",
            PARTICLES,
            "NAME,...",
            "Incident particle: gamma, e- or e+; of several each shower has one.",
        ),
        (
            "--position",
            ENTRY,
            "X,Y|uniform",
            "Entry from the middle of the cell, cm; uniform draws it there.",
        ),
        ("--theta", ANGLE, "THETA|LOW:HIGH", "Angle to the normal of the front face, degrees. [0]"),
        ("--phi", ANGLE, "PHI|LOW:HIGH", "Azimuth, degrees. [0]"),
    )
    for name, kind, metavar, text in reversed(texts):
        function = option(name, type=kind, metavar=metavar, help=text)(function)
    return function


STACK = (
    "absorber", "active", "layers", "absorber_thickness", "active_thickness", "gap_thickness", "gap_material",
    "profile", "scatter",
)  # fmt: skip
"""Names of the options of `stack_options`; the first five have to be given."""


def stack_options(function: F) -> F:
    """Add the options that describe stacks of plates."""
    each = "T,...|LOW:HIGH"
    options: tuple[tuple[str, Any, str | None, str], ...] = (
        ("--absorber", None, "NAME,...", "material of the absorbers; of several each shower has one."),
        ("--active", None, "NAME,...", "material of the active plates; of several each shower has one."),
        ("--layers", LAYERS, "N|LOW:HIGH", "layers; from a range each shower draws a number."),
        ("--absorber-thickness", THICKNESSES, each,
         "cm; one, or one a layer (20x0.21,10x0.42); from a range each shower draws."),
        ("--active-thickness", THICKNESSES, each, "likewise, cm."),
        ("--gap-thickness", THICKNESSES_OR_ZERO, each,
         "passive gap between absorber and active plate, likewise, cm. [0]"),
        ("--gap-material", None, None, "material of the gap. [G4_AIR]"),
        ("--profile", click.Choice(["equal", "smooth", "stepped"]), None,
         "drawn thicknesses are equal in a shower's layers, scatter about a smooth profile, or step once. [equal]"),
        ("--scatter", SHARE, None, "relative scatter about a smooth profile. [0.1]"),
    )  # fmt: skip
    for name, kind, metavar, text in reversed(options):
        function = option(name, type=kind, metavar=metavar, help=f"Sampling: {text}")(function)
    return function


def stack_of(
    asked: Mapping[str, Any], find: Callable[[str], Material], what: str, **more: float | str | None
) -> SamplingStack:
    """Return the stacks that the options of `stack_options` describe.

    Args:
        asked: values of all options by name; None where one is not given.
        find: function from the name of a material to the material.
        what: what needs the options, for errors.
        more: further fields of the stack; None where one is not given.

    Raises:
        InputError: a missing option, or a stack that cannot be, naming the option.
    """
    from calograd.detector.sampling_stack import SamplingStack, ThicknessRange

    for name in STACK[:5]:
        if asked[name] is None:
            raise InputError(f"{what} needs --{name.replace('_', '-')}")
    if asked["scatter"] is not None and asked["profile"] != "smooth":
        raise InputError("--scatter is about a smooth profile; add --profile smooth or leave it out")
    values = {name: asked[name] for name in STACK} | more
    given = {name: value for name, value in values.items() if value is not None}
    for name in ("absorber", "active"):
        given[name] = tuple(find(word.strip()) for word in given[name].split(","))
    if "gap_material" in given:
        given["gap_material"] = find(given["gap_material"])
    for name in ("absorber_thickness", "active_thickness", "gap_thickness"):
        if isinstance(given.get(name), Range):
            low, high = given[name]
            given[name] = ThicknessRange(low=low, high=high)
    with errors_name_options(*given):
        return SamplingStack(**given)


@contextmanager
def errors_name_options(*options: str, **renamed: str) -> Iterator[None]:
    """Name the option in errors of the block that name a field of a pydantic model or an argument.

    Args:
        options: names of arguments that are options too.
        renamed: options that give a field another name.
    """
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        problem, field = first["msg"].removeprefix("Value error, "), "".join(map(str, first["loc"][:1]))
        if not field and problem.partition(": ")[0] in options:
            field, _, problem = problem.partition(": ")
            raise InputError(f"--{field.replace('_', '-')}: {problem}") from error
        option = renamed.get(field, field).replace("_", "-")
        raise InputError(f"--{option}: {problem}, not {first['input']}" if field else problem) from error
    except InputError as error:
        name, _, problem = str(error).partition(": ")
        raise InputError(f"--{name.replace('_', '-')}: {problem}") if name in options else error from error.__cause__


def law_of(energies: Sequence[float], law: str | None) -> str:
    """Return the distribution of energies: ``law``, or its default. Raises `InputError` for a law without a range."""
    if isinstance(energies, Range):
        return law or "log-uniform"
    if law:
        raise InputError(f"--law {law} needs a range of energies, as 1:100")
    return "discrete"


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


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a summary table on standard error; where it is narrow, words are broken and never left out."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
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
