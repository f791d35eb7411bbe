from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calograd.errors import InputError, SimulationError
from calograd.events.library.reader import open_library
from calograd.geant4 import farm
from calograd.geant4.farm import open_cluster, plan, run_chunks, run_kernel
from calograd.geant4.production import simulate_library
from calograd.geant4.tables import find_tables


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gaps=st.lists(st.integers(1, 3000), min_size=1, max_size=4),
    workers=st.integers(1, 64),
    energy=st.floats(0.01, 1000),
)
def test_plan_covers_the_missing_showers_once_within_the_limits(
    make_config, gaps: list[int], workers: int, energy: float
) -> None:
    missing = [range(5000 * k, 5000 * k + size) for k, size in enumerate(gaps)]
    config = make_config(energy)
    chunks = plan(config, missing, workers)
    assert [i for chunk in chunks for i in chunk] == [i for gap in missing for i in gap]
    seconds = farm.SECONDS_PER_GEV["block"] * energy
    assert all(len(chunk) == 1 or len(chunk) * seconds < farm.CHUNK_SECONDS[-1] + seconds for chunk in chunks)


def test_long_runs_get_longer_chunks_and_so_fewer_files(make_config) -> None:
    assert 400 < len(plan(make_config(50.0), [range(30000)], 4)) <= 1000
    assert len(plan(make_config(1.0), [range(100)], 4)) == 1


@pytest.mark.parametrize("address", ["here", "tcp://host", "8786"])
def test_scheduler_address(address: str) -> None:
    with pytest.raises(InputError, match="no address of a Dask scheduler; expected tcp://host:port"):
        open_cluster(1, address).__enter__()


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1"])
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """It is refused before Dask is asked, which would wait for it."""
    monkeypatch.setattr(farm, "_dask", None)
    with socket.socket() as held:  # a port that is taken and that nobody listens at
        held.bind(("127.0.0.1", 0))
        address = f"tcp://{host}:{held.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"no Dask scheduler answers at '{address}': .*; is it running\?"):
            open_cluster(1, address).__enter__()


@pytest.mark.geant4
def test_killed_kernels_and_workers_are_replaced(tmp_path, monkeypatch, make_config, kernel_environment) -> None:
    """Kill -9 first a kernel, then a Dask worker, in the middle; nothing is missing and nothing is there twice."""
    monkeypatch.setattr(farm, "CHUNK_SECONDS", (0.5, 0.5, 0.5))
    config = make_config(10.0)
    victims: list[psutil.Process] = []

    def words(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.Error:  # it has just ended
            return ""

    def kill(what: str, done: int, total: int) -> None:
        workers = [p for p in psutil.Process().children() if "spawn_main" in words(p)]
        kernels = [k for w in workers for k in w.children() if "calograd.geant4.kernel" in words(k)]
        if what == "showers" and len(victims) < 2 and kernels:
            victims.append(kernels[0] if not victims else workers[0])
            os.kill(victims[-1].pid, signal.SIGKILL)

    production = simulate_library(tmp_path / "killed.h5", config, 24, workers=2, progress=kill)
    assert production.simulated == 24
    assert len(victims) == 2
    with open_library(tmp_path / "killed.h5") as library:
        assert library.index.tolist() == list(range(24))
        one_by_one = run_kernel(config, [5, 20], kernel_environment)
        for k, index in enumerate((5, 20)):
            part = slice(one_by_one.offsets[k], one_by_one.offsets[k + 1])
            assert library.read(index, index + 1).e.tolist() == one_by_one.e[part].tolist()


@pytest.mark.geant4
def test_a_chunk_that_keeps_failing_is_named_with_the_last_words(monkeypatch, make_config) -> None:
    config = make_config(1.0)
    record = replace(config.detector.material, geant4_name="G4_NOTHING")
    config = config.model_copy(update={"detector": config.detector.model_copy(update={"material": record})})
    started = time.monotonic()
    with (
        open_cluster(1, None) as client,
        pytest.raises(SimulationError, match=r"showers 3 to 4 failed 3 times: the kernel ended .*last words"),
    ):
        list(run_chunks(client, config, [range(3, 5)], find_tables(), len))
    assert time.monotonic() - started < 40
