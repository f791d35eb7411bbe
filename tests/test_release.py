"""The wheel, the citation file and the version agree, and the wheel holds what the package needs and no more."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import calograd

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("build", "hatchling"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (group test)")
    output = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(output), str(ROOT)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (path,) = output.iterdir()
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    version = calograd.__version__
    assert wheel.name == f"calograd-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"calograd-{version}.dist-info/METADATA").decode()
        scripts = archive.read(f"calograd-{version}.dist-info/entry_points.txt").decode()
    source = ROOT / "src"
    kept = subprocess.run(
        ["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines() or [
        str(p.relative_to(ROOT)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts
    ]
    expected = {name.removeprefix("src/") for name in kept}
    inside = {name for name in names if not name.startswith(f"calograd-{version}.dist-info/")}
    assert expected <= inside
    assert all(name.startswith("calograd/") for name in inside)
    assert f"calograd-{version}.dist-info/licenses/LICENSE" in names
    assert {"calograd/py.typed", "calograd/assets/pbf2-cells/model.safetensors"} <= names
    assert f"Version: {version}" in metadata
    assert "calograd = calograd.cli:main" in scripts


def test_the_installed_wheel_knows_its_version(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import calograd; from calograd.cli import main; print(calograd.__file__); main()"
    made = subprocess.run(
        [sys.executable, "-c", code, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    where, version = made.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert version == f"calograd, version {calograd.__version__}"


def test_version_and_citation_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    citation = (ROOT / "CITATION.cff").read_text()
    found = re.search(r"^version: (.+)$", citation, re.MULTILINE)
    assert found is not None
    assert found[1] == calograd.__version__
    assert f"## {calograd.__version__}" in (ROOT / "CHANGELOG.md").read_text()
