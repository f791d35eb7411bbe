"""What options of all commands have in common: outputs are checked before work, numbers are finite, help is plain."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

import calograd
from calograd.cli import COMMANDS, cli, convert, progress
from calograd.cli.common import STDOUT, Command, Finite, Numbers, Output, console
from calograd.errors import CaloGradError, InputError, OutputExistsError
from calograd.events.clustering import Clustering
from calograd.readers import images, root

Run = Callable[..., tuple[int, str, str]]


def command_of(name: str) -> click.Command:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    return command


def options_of_type(kind: type[click.ParamType]) -> Iterator[tuple[str, click.Parameter]]:
    for name in COMMANDS:
        for option in command_of(name).params:
            if isinstance(option.type, kind):
                yield name, option


OUTPUTS = [pytest.param(name, option, id=f"{name} {option.opts[-1]}") for name, option in options_of_type(Output)]
FLOATS = [
    pytest.param(name, option, id=f"{name} {option.opts[-1]}")
    for kind in (click.types.FloatParamType, Numbers)
    for name, option in options_of_type(kind)
]


def context_of(name: str, given: dict[str, object]) -> click.Context:
    """The context of a command with nothing but these options."""
    command = command_of(name)
    context = click.Context(command, info_name=name)
    context.params = {option.name: None for option in command.params if option.name} | given
    return context


def invoked(name: str, option: click.Parameter, path: Path) -> None:
    """Invoke a command whose function does nothing, with one output."""
    command = command_of(name)
    assert isinstance(command, Command)
    quiet = Command(name, params=command.params, callback=lambda **_: None)
    context = context_of(name, {str(option.name): path})
    quiet.invoke(context)


@pytest.mark.parametrize(("name", "option"), OUTPUTS)
def test_outputs_are_checked_before_the_work(name: str, option: click.Parameter, tmp_path: Path) -> None:
    kind = option.type
    assert isinstance(kind, Output)
    invoked(name, option, tmp_path / "new")
    (tmp_path / "file").write_text("precious")
    if not kind.folder:
        with pytest.raises(InputError, match="does not exist; make it"):
            invoked(name, option, tmp_path / "nowhere" / "new")
    with pytest.raises(InputError, match=r"does not exist; make it|cannot be written"):
        invoked(name, option, tmp_path / "file" / "new")
    if not kind.resumes:
        with pytest.raises(OutputExistsError, match="exists already"):
            invoked(name, option, tmp_path / "file")


def test_every_command_that_writes_has_an_output_that_is_checked() -> None:
    assert {str(each.values[0]) for each in OUTPUTS} == set(COMMANDS) - {"tables", "explore"}
    paths = [option for name in COMMANDS for option in command_of(name).params if option.name in
             ("json_path", "report_path", "output")]  # fmt: skip
    assert all(isinstance(option.type, Output) for option in paths)


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="cannot be written to"):
        Output().check(tmp_path / "x.json", [])


def test_two_outputs_have_two_paths_and_one_may_lie_in_the_other(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two outputs have the path"):
        Output().check(tmp_path / "x", [tmp_path / "x"])
    Output().check(tmp_path / "run" / "x.json", [tmp_path / "run"])


@pytest.mark.parametrize("word", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(("name", "option"), FLOATS)
def test_numbers_are_finite(name: str, option: click.Parameter, word: str) -> None:
    if isinstance(option.type, click.types.FloatParamType):
        assert isinstance(option.type, Finite)
    with pytest.raises(click.BadParameter):
        option.type.convert(word, option, context_of(name, {}))


def test_json_on_standard_output_is_all_there_is(tiny: str, calograd: Run, tmp_path: Path) -> None:
    code, out, err = calograd(
        "sample", tiny, "--cell", "2.5", "6", "--energy", "50", "-n", "2", "-o", "x.h5", "--json", str(STDOUT)
    )
    assert code == 0, err
    assert json.loads(out)["rows"] == 2
    assert "x.h5" in err
    assert {path.name for path in tmp_path.iterdir()} == {"x.h5"}


def test_work_on_no_terminal_tells_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "FIRST_LINE", 0.02)
    monkeypatch.setattr(progress, "NEXT_LINE", 0.02)
    monkeypatch.setattr(console, "_force_terminal", False)
    told = ""

    def wait_for(words: str) -> None:
        nonlocal told
        for _ in range(500):
            told += capsys.readouterr().err
            if words in told:
                return
            progress.Event().wait(0.01)
        pytest.fail(f"'{words}' was not said: {told}")

    with progress.progress("a long work") as show:
        wait_for("a long work: 0 s so far")
        show("showers", 100, 400)
        wait_for("showers: 100 of 400, 0 s so far")
        show("showers", 200, 400, "loss 0.1")
        wait_for("showers: 200 of 400, loss 0.1, 0 s so far, about 0 s left")
        show("figures", 0, 3)
        wait_for("; figures: 0 of 3, 0 s so far")
        show("showers", 0, 400)
        wait_for("showers: 0 of 400, 0 s so far")
        show("showers", 1, 400)
        wait_for("showers: 1 of 400, 0 s so far, about")
        assert "about -" not in told  # a stage that begins anew counts from there
        show("showers", 400, 400)
        show.say("a word")
        wait_for("a word\n")


def test_the_first_line_comes_within_5_seconds_and_the_next_within_a_minute() -> None:
    assert progress.FIRST_LINE <= 5
    assert progress.NEXT_LINE <= 60


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_force_terminal", True)
    with progress.progress("a long work") as show:
        show("showers", 2, 4, "loss 0.1")
        show.say("a word")
    told = capsys.readouterr().err
    assert "a word" in told
    assert "showers: loss 0.1" in told
    assert "2/4" in told


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (600, "10 min"), (7260, "2 h 01 min")])
def test_durations(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_progress_that_fails_ends_its_thread() -> None:
    with pytest.raises(CaloGradError), progress.progress("work"):
        raise InputError("no")
    assert "progress" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_every_option_is_explained(name: str) -> None:
    command = command_of(name)
    assert f"calograd {name}" in str(command.help)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.opts
            assert not option.help.startswith(("Of ", "What ", "Which ", "How ", "Where ", "That ")), option.opts


def test_help_of_commands_imports_nothing_heavy() -> None:
    code = (
        "import sys; from calograd.cli import COMMANDS, cli\n"
        "for name in COMMANDS:\n"
        "    try: cli([name, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = ('torch', 'geant4_pybind', 'matplotlib', 'sklearn', 'scipy', 'distributed', 'h5py', 'numpy')\n"
        "print('loaded:', [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "loaded: []"


def test_choices_are_those_of_the_rooms() -> None:
    """They are written out in the commands, which import the rooms only when they run."""

    def choices(name: str, option: str) -> list[str]:
        kind = next(each.type for each in command_of(name).params if option in each.opts)
        assert isinstance(kind, click.Choice)
        return list(kind.choices)

    assert choices("import", "--length-unit") == list(root.CM)
    assert choices("import", "--energy-unit") == list(root.GEV)
    assert list(convert._BRANCHES) == list(root.Branches.model_fields)
    assert choices("import-images", "--unit") == list(images.GEV)
    assert choices("points", "--clustering")[::-1] == list(get_args(Clustering))


FUNCTIONS = {
    "evaluate": (calograd.evaluate, {"classifier": "classifiers"}),
    "gradient": (calograd.gradient, {"energies": None}),  # those of an objective are for Python alone
    "optimise": (calograd.optimise, {}),
    "resolution": (calograd.resolution, {"terms": None}),  # a word on the command line
    "segment": (calograd.segment, {"designs": None, "output": None}),  # one argument takes designs and their number
    "simulate": (calograd.simulate, {"law": None}),  # a range is log-uniform on the command line alone
}
"""Functions of the root that do what a command does, with the options that have another name there; None: none."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_commands_have_the_same_defaults(name: str) -> None:
    function, names = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    options = {str(option.name): option for option in command_of(name).params if isinstance(option, click.Option)}
    shared = {option: parameters[names.get(option, option)] for option in options
              if names.get(option, option) in parameters}  # fmt: skip
    assert shared, name
    for option, parameter in shared.items():
        given = options[option].get_default(click.Context(command_of(name)))
        given = None if "UNSET" in repr(given) else given  # of click from 8.3 on
        if name == "evaluate" and option == "threshold":
            assert isinstance(given, float)
            given *= 1e-3  # MeV on the command line
        if parameter.default is inspect.Parameter.empty:
            assert options[option].required, option
        elif option not in ("detector", "reference"):
            assert given == parameter.default, option
