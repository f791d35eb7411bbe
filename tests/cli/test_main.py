from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from calograd import __version__, cli
from calograd.errors import FormatError, Interrupted

Run = Callable[..., tuple[int, str, str]]
HEAVY = ("torch", "geant4_pybind", "matplotlib", "sklearn", "scipy", "distributed", "h5py")


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def from_a_callback() -> SystemError:
    """What HDF5 makes of Ctrl-C in one of its callbacks."""
    error = SystemError("returned a result with an exception set")
    error.__cause__ = KeyboardInterrupt()
    return error


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    """Torch alone takes a second; with none of these --help answers within half of one."""
    code = (
        "import sys; from calograd.cli import main; sys.argv = ['calograd', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('loaded:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, loaded = done.stdout.strip().splitlines()
    assert loaded == "loaded: []"
    for command in cli.COMMANDS:
        assert any(line.split()[:1] == [command] for line in text), command


def test_version(calograd: Run) -> None:
    code, out, _ = calograd("--version")
    assert code == 0
    assert __version__ in out


@pytest.mark.parametrize("command", ["segment", "train"])
def test_help_of_a_command_has_an_example(calograd: Run, command: str) -> None:
    code, out, _ = calograd(command, "--help")
    assert code == 0
    assert f"calograd {command} " in out


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (FormatError("x.h5 is\n cut off"), 2, "error: x.h5 is cut off\n"),
        (Interrupted("go on"), 130, "interrupted: go on\n"),
        (KeyboardInterrupt(), 130, "interrupted: nothing was kept of this command's work\n"),
        (from_a_callback(), 130, "interrupted: nothing was kept of this command's work\n"),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    calograd: Run,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.setattr(cli.cli, "get_command", lambda context, name: raising(error))
    stopped, _, err = calograd("anything")
    assert stopped == code
    assert err.lstrip("\n") == line


@pytest.mark.parametrize("error", [ZeroDivisionError(), SystemError()])
def test_defects_keep_their_traceback(calograd: Run, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(cli.cli, "get_command", lambda context, name: raising(error))
    with pytest.raises(type(error)):
        calograd("anything")


def test_unknown_commands_and_options(calograd: Run) -> None:
    for arguments, complaint in ((["segmentt"], "No such command 'segmentt'"), (["segment", "--x"], "No such option")):
        code, _, err = calograd(*arguments)
        assert code == 2
        assert complaint in err
