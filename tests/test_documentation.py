"""What README and docs tell people to type: Python blocks run, commands parse, files that are named exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from calograd.cli import COMMANDS, cli
from calograd.events.cells import read_cells, write_cells
from calograd.surrogate.storage import ASSETS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if not {"made", "gallery"} & {*p.parts})]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(page: Path) -> list[list[str]]:
    """Every ``calograd COMMAND ...`` of a page's plain blocks and indented lines, as words."""
    indented = re.findall(r"^    (calograd .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line for body in blocks(page, "") for line in body.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in [*lines, *indented] if line.startswith("calograd ")]
    return [each[1:] for each in words if not each[1].startswith("-")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one namespace."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for body in blocks(page, "python"):
        exec(compile(body, name_of(page), "exec"), namespace)


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


def test_every_area_of_the_api_is_in_its_table_of_contents() -> None:
    titles = re.findall(r'^    "([A-Z][A-Za-z ]+)": \("', (ROOT / "docs" / "pages.py").read_text(), re.MULTILINE)
    listed = re.findall(r"^made/([\w-]+)$", (ROOT / "docs" / "reference" / "api.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(title.lower().replace(" ", "-") for title in titles)


def test_make_targets_that_are_named_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
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
