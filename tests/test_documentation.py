"""README and docs tell people what to type: Python blocks run, commands parse, files that are named exist.

The cells of a page, in blocks of another kind, and the notebooks are not run here: the documentation is built with what
they print, and an error in one of them ends the build.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from calograd.cli import COMMANDS, cli
from calograd.events.dense import read_cells, write_cells
from calograd.io.toml import read_toml
from calograd.optimisation.run import parse_run
from calograd.surrogate.storage import ASSETS
from calograd.training.config import read_config

ROOT = Path(__file__).parents[1]
MADE = {"made", "gallery", "notebooks", "_build"}
"""Folders of docs that a build makes."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
         *sorted(p for p in (ROOT / "docs").rglob("*.md") if not MADE & {*p.parts})]  # fmt: skip
BLOCK = re.compile(r"^```(\{code-cell\}|\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STATISTICS = 0.02
"""Relative tolerance of the README's figures: other random numbers change them within statistics."""


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name in languages]


def python(page: Path) -> list[str]:
    return blocks(page, "python")


def commands(page: Path) -> list[list[str]]:
    """Every ``calograd COMMAND ...`` of a page's plain blocks and indented lines, as words."""
    indented = re.findall(r"^    (calograd .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for body in blocks(page, "") for line in body.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in [*lines, *indented] if line.startswith("calograd ")]
    return [each[1:] for each in words if not each[1].startswith("-")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if python(p)], ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one namespace."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace: dict[str, object] = {}
    for body in python(page):
        exec(compile(body, name_of(page), "exec"), namespace)


def test_the_readme_shows_what_its_lines_print(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "README.md"
    exec(compile(python(page)[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out
    (shown,) = [body for body in blocks(page, "text") if "E_tot/E" in body]
    figure = re.compile(r"-?\d+\.\d+")
    assert figure.sub("", printed) == figure.sub("", shown)
    assert [float(f) for f in figure.findall(printed)] == pytest.approx(
        [float(f) for f in figure.findall(shown)], rel=STATISTICS, abs=1e-4
    )


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 200
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs" / "results").glob("*.md")], ids=name_of)
def test_links_and_pictures_of_results_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)|^\[\w+\]: ([^#\s]+)", text, re.MULTILINE)
    missing = [name for pair in links for name in pair if name and not (page.parent / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=name_of)
def test_commands_parse(page: Path) -> None:
    for name, *arguments in commands(page):
        assert name in COMMANDS
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        command.make_context(name, arguments)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "log.md"], ids=name_of)
def test_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:runs|validation|examples|benchmarks|docs|src)/[\w./-]+)`", text)
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_every_bundled_surrogate_has_a_page_of_results() -> None:
    pages = dict(re.findall(r'"([\w-]+)": "([\w-]+)"', (ROOT / "docs" / "pages.py").read_text(encoding="utf-8")))
    for folder in ASSETS.glob("*/model.safetensors"):
        assert (ROOT / "docs" / "results" / f"{pages[folder.parent.name]}.md").exists()


def test_make_targets_that_are_named_exist() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    asked = [line.split()[1] for page in PAGES for body in blocks(page, "") for line in body.splitlines()
             if line.startswith("make ")]  # fmt: skip
    assert asked
    assert set(asked) <= set(targets)


def test_the_readme_compares_with_geant4(calograd: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """The cheap half of its second block, word for word, on 60 bundled showers."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra report)")
    chain = [words for words in commands(ROOT / "README.md") if "geant4.h5" in words and words[0] != "segment"][:2]
    assert [words[:2] for words in chain] == [["sample", "pbf2-cells"], ["evaluate", "generated.h5"]]
    reference = read_cells(ASSETS / "pbf2-sample" / "reference.h5")
    chosen = (reference.energy == 50) & (abs(reference.dx - 2.5) < 0.01)
    write_cells(tmp_path / "geant4.h5", reference.rows(chosen.nonzero()[0][:60]))
    for words in chain:
        code, _, err = calograd(*words)
        assert code == 0, err
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_configurations_of_runs_and_examples_are_valid() -> None:
    for path in sorted((ROOT / "runs").glob("*.toml")):
        assert read_config(path).name
    for path in sorted((ROOT / "examples").glob("*.toml")):
        assert parse_run(read_toml(path), str(path), path.parent).space
