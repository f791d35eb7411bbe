"""The command line, ``calograd COMMAND``. The module of a command is imported when the command is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import NoReturn

import click

from calograd._version import __version__
from calograd.errors import CaloGradError, Interrupted
from calograd.system.memory import keep_freed_memory

COMMANDS = {
    "tables": "Show, check or download Geant4's data tables.",
    "simulate": "Simulate showers with Geant4 into a shower library.",
    "import": "Make a shower library from another application's ROOT file.",
    "import-images": "Make a maps file from the images of arXiv 2601.07859.",
    "segment": "Measure a shower library with the cells of a design.",
    "points": "Make points of a layered detector, or convert them.",
    "train": "Train a surrogate as a TOML file describes.",
    "adapt": "Adapt a surrogate to another detector from few showers.",
    "sample": "Generate showers with a surrogate.",
    "evaluate": "Compare generated showers with Geant4 showers.",
    "resolution": "Compute the energy resolution against energy with its fit.",
    "gradient": "Compute a utility's gradient and compare it with Geant4's.",
    "optimise": "Improve a design along the surrogate's gradients.",
    "export": "Write a surrogate as ONNX files, for C++ and other programs.",
    "benchmark": "Time Geant4 and surrogates side by side.",
    "explore": "Open a page with sliders, an event and derivatives.",
    "demo": "Run the whole chain on bundled data and write one report.",
}
"""Commands with their lines in ``calograd --help``."""
_MODULES = {
    "tables": "simulate", "import": "convert", "import-images": "convert", "points": "convert", "adapt": "train",
    "export": "sample", "benchmark": "evaluate", "gradient": "design", "optimise": "design", "explore": "design",
}  # fmt: skip
"""Modules of commands, where these have other names."""


class _Lazy(click.Group):
    """A group that imports a command when it is called, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"calograd.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, "import_" if cmd_name == "import" else cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Lazy, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="calograd")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """CaloGrad: a differentiable surrogate of calorimeter simulation.

    Units: cm, GeV. Every command explains its options with --help and shows an example.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run a command. Errors of `calograd.errors` and wrong options become one line and exit code 2, Ctrl-C 130."""
    keep_freed_memory()
    try:
        cli(prog_name="calograd", standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.UsageError as error:
        hint = f" See {error.ctx.command_path} --help." if error.ctx else ""
        click.echo(f"error: {' '.join(error.format_message().split())}{hint}", err=True)
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
