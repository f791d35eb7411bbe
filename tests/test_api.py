"""The names at the root of the package: they are loaded on first use and no module hides one of them."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import tiny_surrogate

import calograd
from calograd.surrogate.generation import generate

HEAVY = ("torch", "numpy", "h5py", "pydantic", "matplotlib", "scipy", "panel", "onnxruntime", "click", "rich")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_loads_nothing_heavy() -> None:
    assert run(f"import calograd, sys; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_public_names_are_found_listed_and_defined_once() -> None:
    assert sorted(calograd.__all__) == sorted(["__version__", *calograd._MODULE_OF])
    assert set(calograd.__all__) <= set(dir(calograd))
    with pytest.raises(AttributeError, match="has no attribute 'Desing'"):
        calograd.Desing  # noqa: B018
    for name in calograd.__all__:
        assert hasattr(calograd, name), name


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(str(calograd.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: str(node.module).removeprefix("calograd.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == calograd._MODULE_OF


def test_no_module_hides_a_public_name() -> None:
    """Importing a submodule sets it as an attribute of the package, where it would take the name's place."""
    for module in pkgutil.walk_packages(calograd.__path__, "calograd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name, module in calograd._MODULE_OF.items():
        assert getattr(calograd, name) is getattr(importlib.import_module(f"calograd.{module}"), name), name
    rooms = {module.name for module in pkgutil.iter_modules(calograd.__path__)}
    assert not rooms & set(calograd.__all__)


def test_readers_and_writers_take_text_as_paths(tmp_path: Path, make_clouds: Callable[..., Any]) -> None:
    rows = {"dx": np.full(2, 2.5), "dz": np.full((2, 2), 6.0)}
    cells = generate(tiny_surrogate(), np.array([5.0, 10.0]), **rows)
    calograd.write_cells(str(tmp_path / "cells.h5"), cells)
    assert (calograd.read_cells(str(tmp_path / "cells.h5")).cells == cells.cells).all()
    points = make_clouds(3)
    calograd.write_points(str(tmp_path / "points.h5"), points)
    assert len(calograd.read_points(str(tmp_path / "points.h5"))) == 3
    with pytest.raises(calograd.FormatError, match="does not exist"):
        calograd.open_library(str(tmp_path / "none.h5"))
