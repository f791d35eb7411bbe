"""The command line: ``calograd COMMAND``. One module a command, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from keyword import iskeyword
from typing import NoReturn

import click

from calograd._version import __version__
from calograd.errors import CaloGradError, Interrupted
from calograd.system.memory import keep_freed_memory

COMMANDS = {
    "tables": "Where the Geant4 tables are; fetch just the two needed.",
    "simulate": "Simulate showers with Geant4 into a shower library.",
    "import": "Make a shower library of another application's ROOT file.",
    "import-images": "Make a maps file of the images of arXiv 2601.07859.",
    "segment": "Measure a shower library with the cells of a design.",
    "points": "Make points of a layered detector's library; to and from other formats.",
    "train": "Train a surrogate from a TOML file; resumes a run that exists.",
    "adapt": "Adapt a surrogate to another detector from few showers.",
    "sample": "Generate showers with a surrogate.",
    "evaluate": "Compare generated showers with Geant4: figures, tables, report.",
    "gradient": "Gradient of a utility at a design, beside Geant4's.",
    "optimise": "Improve a design along the surrogate's gradients; resumes.",
    "export": "Write a surrogate as ONNX files, for C++ and other programs.",
    "benchmark": "Time Geant4 and the surrogates side by side.",
    "explore": "A page of sliders, an event, observables and the utility.",
    "demo": "The whole chain on bundled data, in one HTML report.",
}


class _Lazy(click.Group):
    """A group whose commands are imported when called, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name.replace("-", "_")
        command = getattr(import_module(f"calograd.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="calograd")
def cli() -> None:
    """CaloGrad: a differentiable surrogate of calorimeter simulation.

    Units: cm, GeV. Every command has --help with an example.
    """


def main() -> None:
    """Run a command; the errors of `calograd.errors` become one line and exit code 2, Ctrl-C exit code 130."""
    keep_freed_memory()
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Interrupted as stop:
        click.echo(f"interrupted: {stop}", err=True)
        sys.exit(130)
    except (click.Abort, KeyboardInterrupt):
        _interrupted()
    except CaloGradError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except SystemError as error:  # HDF5's callbacks make this of Ctrl-C
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        _interrupted()


def _interrupted() -> NoReturn:
    click.echo("interrupted: nothing was kept of this command's work", err=True)
    sys.exit(130)
