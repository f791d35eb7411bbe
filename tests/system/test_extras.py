"""Without the packages of an extra a command says so before it begins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calograd.errors import InputError
from calograd.system.extras import EXTRAS, require

PACKAGES = {"sklearn": "scikit-learn", "lightning_fabric": "lightning-fabric"}
Run = Callable[..., tuple[int, str, str]]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require("this", "report", "json")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"this needs jinja2, no_such_package: pip install 'calograd\[report\]'"):
        require("this", "report", "json", "jinja2", "no_such_package")
    with pytest.raises(InputError, match="jinja2"):
        require("this", "report")


@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_are_those_of_the_package(extra: str) -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (line,) = [line for line in project.splitlines() if line.startswith(f"{extra} = [")]
    known = line + (project if "calograd[report]" in line else "")
    for module in EXTRAS[extra]:
        assert f'"{PACKAGES.get(module, module)}>=' in known


@pytest.mark.parametrize(
    ("missing", "words", "message"),
    [
        ("sklearn", ["evaluate", "a.h5", "b.h5"],
         "a classifier test (leave it out with --no-classifier) needs sklearn"),
        ("matplotlib", ["evaluate", "a.h5", "b.h5", "--no-classifier", "--report", "r.html"],
         "--report needs matplotlib"),
        ("jinja2", ["gradient", "pbf2-cells", "--cell", "2.5", "6", "--energies", "50", "--report", "r.html"],
         "--report needs jinja2"),
        ("matplotlib", ["optimise", "pbf2-cells", "o.toml", "-o", "run"],
         "the report of an optimisation needs matplotlib"),
        ("sklearn", ["demo"], "the demo needs sklearn"),
    ],
)  # fmt: skip
def test_commands_refuse_before_they_begin(
    calograd: Run, monkeypatch: pytest.MonkeyPatch, missing: str, words: list[str], message: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    code, _, err = calograd(*words)
    assert code == 2
    assert err.startswith(f"error: {message}: pip install 'calograd[report]'")
