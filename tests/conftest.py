"""What tests share. Those marked ``geant4`` run the real thing, or are skipped with the reason."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calograd.errors import TablesError
from calograd.material import Material
from calograd.simulation.config import Beam, Block, Energies, MaterialRecord, SimulationConfig
from calograd.simulation.tables import find_tables


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("geant4") is None:
        return
    if importlib.util.find_spec("geant4_pybind") is None:
        pytest.skip("geant4-pybind is not installed")
    try:
        find_tables()
    except TablesError as error:
        pytest.skip(f"{error}")


def block_config(*energies: float, material: str = "PbF2", seed: int = 1) -> SimulationConfig:
    """Photons of discrete energies into the large block."""
    record = MaterialRecord(**Material.parse(material).to_dict())
    beam = Beam(energies=Energies(law="discrete", values=energies))
    return SimulationConfig(detector=Block(material=record), beam=beam, seed=seed)


@pytest.fixture
def make_config() -> Callable[..., SimulationConfig]:
    return block_config


@pytest.fixture
def kernel_environment() -> dict[str, str]:
    return find_tables().environment(os.environ)


@pytest.fixture
def start_calograd(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``calograd ARGUMENTS`` in the test's folder, in a process group of its own."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from calograd.cli import main; main()", *arguments]
        return subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    return start


@pytest.fixture
def run_calograd(start_calograd: Callable[..., subprocess.Popen[str]]) -> Callable[..., tuple[int, str, str]]:
    """Run ``calograd ARGUMENTS``; its exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        process = start_calograd(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run
