"""What tests share. Those marked ``geant4`` run the real thing, or are skipped with the reason."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny import small_surrogate
from helpers.toy_library import write_toy_library

from calograd import cli
from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig
from calograd.detector.material import Material
from calograd.errors import TablesError
from calograd.events.point_showers import PointShowers, sort_points
from calograd.geant4.tables import find_tables
from calograd.surrogate import Surrogate

LONG = (
    "export/test_export.py",
    "cli/test_paper_experiment.py",
    "training/test_adapt.py",
    "cli/test_demo.py",
    "training/test_distributed.py",
    "geant4/test_production.py",
    "metrics/test_grid_classifier.py",
    "evaluation/test_evaluate_cells.py",
    "cli/test_optimise_command.py",
    "cli/test_benchmark.py",
    "geant4/test_entries.py",
    "optimisation/test_adaptive.py",
    "training/test_train.py",
)
"""The files that take longest. They come first: else one process is left alone with one of them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {Path(__file__).parent / name: rank for rank, name in enumerate(LONG)}
    gone = [str(path) for path in ranks if not path.exists()]
    if gone:
        raise pytest.UsageError(f"LONG in {__file__} names {', '.join(gone)}, which does not exist")
    items.sort(key=lambda item: ranks.get(item.path, len(LONG)))


def pytest_collection_finish() -> None:
    """Leave all that was imported out of garbage collections, which take a twentieth of the time or more."""
    gc.freeze()


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
    beam = Beam(energies=Energies(law="discrete", values=energies))
    return SimulationConfig(detector=Block(material=Material.parse(material)), beam=beam, seed=seed)


def random_clouds(n: int = 40, seed: int = 0, layers: int = 30, low: float = 10, high: float = 90) -> PointShowers:
    """Showers of points about a drawn centre, with more points and wider at higher energy; some layers are empty."""
    rng = np.random.default_rng(seed)
    energy = rng.uniform(low, high, n)
    depth = np.arange(layers) + 0.5
    profile = depth**3 * np.exp(-depth / 4)
    mean = 3 * energy[:, None] * profile / profile.sum() * rng.gamma(20, 1 / 20, (n, 1))
    count = rng.poisson(mean)
    owner, layer = np.repeat(np.arange(n), count.sum(1)), np.repeat(np.tile(np.arange(layers), n), count.ravel())
    r, angle = 0.7 * rng.gamma(1.2, 1, len(owner)), rng.uniform(0, 2 * np.pi, len(owner))
    centre = 0.05 * rng.standard_normal((n, 2))
    e = 2e-4 * rng.gamma(1.5, 1, len(owner)) * np.exp(-r / 10)
    x, y = centre[owner, 0] + r * np.cos(angle), centre[owner, 1] + r * np.sin(angle)
    columns = sort_points(x, y, layer, e, owner, n)
    config = {"clustering": "crossings", "simulation": {"detector": {"kind": "siw"}}}
    return PointShowers(*columns, energy.astype(np.float32), np.arange(n), layers, "geant4", config)


class _Referable:
    """May have weak references."""


@pytest.fixture
def interrupt_in_a_callback() -> Callable[[], None]:
    """Ctrl-C while a weak reference's callback runs, where Python prints an exception and ignores it."""

    def interrupt() -> None:
        referable = _Referable()
        reference = weakref.ref(referable, lambda _: os.kill(os.getpid(), signal.SIGINT))
        del referable
        assert reference() is None

    return interrupt


@pytest.fixture
def make_clouds() -> Callable[..., PointShowers]:
    """See `random_clouds`."""
    return random_clouds


@pytest.fixture
def make_config() -> Callable[..., SimulationConfig]:
    return block_config


@pytest.fixture
def kernel_environment() -> dict[str, str]:
    return find_tables().environment(os.environ)


@pytest.fixture
def start_calograd(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``calograd ARGUMENTS`` in the test's folder, in a process group of its own.

    SIGINT interrupts it also where the tests were started in the background, which ignores it.
    """
    interruptible = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", interruptible + "from calograd.cli import main; main()", *arguments]
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


@pytest.fixture
def calograd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run ``calograd ARGUMENTS`` in this process, in the test's folder: its exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["calograd", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def surrogate() -> Surrogate:
    return small_surrogate(torch.float32)


@pytest.fixture(scope="session")
def precise() -> Surrogate:
    return small_surrogate(torch.float64)


@pytest.fixture
def library(tmp_path: Path, make_config) -> Path:  # type: ignore[no-untyped-def]
    """See `write_toy_library`."""
    return write_toy_library(tmp_path / "library.h5", make_config(10.0, 50.0))
