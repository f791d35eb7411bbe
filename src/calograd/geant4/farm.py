"""Run many Geant4 kernels on a Dask cluster.

A task is a chunk of consecutive showers. Its Dask worker starts a fresh kernel process (`calograd.geant4.kernel`),
waits for it, and returns the showers as ``pack`` converts them. A worker that dies is replaced and its tasks run
elsewhere. A kernel that dies is started again, at most `TRIES` times for the same chunk. At most `BACKLOG` chunks a
worker are under way, so memory stays bounded however slowly results are taken.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module
from importlib.metadata import version
from itertools import pairwise
from math import ceil
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from calograd.detector.configuration import SimulationConfig
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import InputError, SimulationError, TablesError
from calograd.events.library.schema import DEPOSIT_LIBRARY, PLATE_LIBRARY, Record
from calograd.geant4.kernel import REFUSED
from calograd.geant4.tables import Tables, find_tables

T = TypeVar("T")

TRIES = 3
"""Number of times that a chunk is tried."""
BACKLOG = 2
"""Number of chunks a worker that are under way at once."""
CHUNK_SECONDS = (2.0, 20.0, 60.0)
"""Least and most work of a chunk, and the most if there would be more than `MANY` chunks, s. A start takes 0.7 s."""
MANY = 500
"""Number of chunks above which chunks become larger."""
SECONDS_PER_GEV = {"block": 0.0125, "siw": 0.010, "matrix": 0.018, "sampling": 0.017, "gdml": 0.017}
"""Time of one core by detector, s/GeV."""
SECONDS_PER_SHOWER = {"sampling": 0.002}
"""Time of one core beside this, by detector, s: a stack of plates is changed for every shower."""
_PATIENCE = 30.0
"""Time to wait for a connection to the cluster and for its workers, s."""
_POLL = 0.05
"""Time between two looks for results and for Ctrl-C, s."""
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.tick.interval": "500ms",
}
"""Settings with which Dask does not watch itself; by default that takes an eighth of a core for every worker."""
_REACHED = 5.0
"""Time in which a running scheduler accepts a connection, s."""


class KernelError(SimulationError):
    """A kernel process ended without its result; the message ends with its last output."""


class Result(NamedTuple, Generic[T]):
    """A simulated chunk.

    Attributes:
        packed: its showers, as ``pack`` converted them.
        showers: number of showers.
        gev: incident energy of all showers, GeV.
        seconds: time of the kernel, s.
    """

    packed: T
    showers: int
    gev: float
    seconds: float


def run_kernel(config: SimulationConfig, indices: Sequence[int], environment: dict[str, str]) -> Record:
    """Simulate showers in a fresh kernel process.

    Args:
        config: what to simulate.
        indices: indices of the showers.
        environment: environment of the process, see `calograd.geant4.tables.Tables.environment`.

    Raises:
        InputError: the kernel refuses its input.
        KernelError: the process ended without a result.
    """
    with tempfile.TemporaryDirectory(prefix="calograd-") as folder:
        output, words = Path(folder) / "showers.npz", Path(folder) / "stderr"
        job = {"config": config.model_dump(mode="json"), "indices": list(indices), "output": str(output)}
        with words.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "calograd.geant4.kernel"], env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
            )  # fmt: skip
            assert process.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it has died already; its exit code says how
                    process.stdin.write(json.dumps(job).encode() + b"\n")
                    process.stdin.flush()
                code = process.wait()
            finally:
                process.kill()
                with suppress(BrokenPipeError):
                    process.stdin.close()
        if code == 0 and output.exists():
            layout = PLATE_LIBRARY if isinstance(config.detector, SamplingStack) else DEPOSIT_LIBRARY
            with np.load(output) as arrays:
                return layout.record.from_columns(arrays)
        if code == REFUSED:
            raise InputError(words.read_text(errors="replace").splitlines()[-1])
        raise KernelError(f"the kernel ended {_manner(code)}{_last_words(words)}")


def _manner(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _last_words(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return f", its last words: {' | '.join(lines[-3:])}" if lines else ""


def plan(config: SimulationConfig, missing: Sequence[range], workers: int) -> list[range]:
    """Cut the missing showers into chunks of 2 to 20 s of work, at least three a worker if that is possible.

    Every chunk is a file until all are joined, and a process may open some 1000 files, so long runs have longer chunks.
    """
    kind = config.detector.kind
    per_shower = SECONDS_PER_GEV[kind] * config.beam.energies.mean + SECONDS_PER_SHOWER.get(kind, 0.0)
    least, most, longest = CHUNK_SECONDS
    total = sum(map(len, missing)) * per_shower
    seconds = max(min(most, max(least, total / (3 * workers))), min(longest, total / MANY))
    size = max(1, round(seconds / per_shower))
    chunks = []
    for gap in missing:
        pieces = ceil(len(gap) / size)
        edges = [gap.start + len(gap) * k // pieces for k in range(pieces + 1)]
        chunks += [range(a, b) for a, b in pairwise(edges)]
    return chunks


def _dask() -> tuple[Any, Any]:
    """Return the modules dask and distributed, which are optional and slow to import."""
    try:
        return import_module("dask"), import_module("distributed")
    except ModuleNotFoundError as error:
        raise SimulationError("Dask is not installed; pip install 'calograd[geant4]'") from error


def check_scheduler(address: str) -> None:
    """Raise `InputError` at once unless something listens at the address of a scheduler."""
    found = re.fullmatch(r"(\w+)://\[?(\S+?)\]?:(\d+)", address)
    if not found:
        raise InputError(f"'{address}' is no address of a Dask scheduler; expected tcp://host:port")
    if found[1] not in ("tcp", "tls"):  # of other protocols Dask itself knows
        return
    try:
        socket.create_connection((found[2], int(found[3])), timeout=_REACHED).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no Dask scheduler answers at '{address}': {error}; is it running?") from error


@contextmanager
def open_cluster(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Open a Dask client for ``workers`` processes on this machine, or for the cluster at ``tcp://host:port``.

    Raises:
        InputError: there is no scheduler at that address or it has no workers.
    """
    if scheduler is not None:
        check_scheduler(scheduler)
    dask, distributed = _dask()
    dask.config.set({"logging.distributed": "critical", "distributed.comm.timeouts.connect": f"{_PATIENCE}s"} | _QUIET)

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is None:
        with ExitStack() as resources:
            # Threads and processes inherit a blocked SIGINT, workers that are replaced later too: Ctrl-C is for this
            # process alone, which ends the others. One that comes meanwhile is delivered when unblocked.
            ensure_running()  # multiprocessing's tracker unblocks the signal in the thread that starts it
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                cluster = distributed.LocalCluster(
                    n_workers=workers, threads_per_worker=1, processes=True, memory_limit=0,
                    dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL,
                    scheduler_kwargs={"dashboard": False},  # Dask's page, a third of the time of a start
                )  # fmt: skip
                client = resources.enter_context(distributed.Client(resources.enter_context(cluster)))
            finally:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at '{scheduler}': {error}; is it running?") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers; start some with 'dask worker'"
            ) from error
        yield client


def run_chunks(
    client: Any,
    config: SimulationConfig,
    chunks: Sequence[range],
    tables: Tables,
    pack: Callable[[Record], T],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Result[T]]:
    """Simulate chunks of showers on a cluster; yield the results as they are finished, in any order.

    Args:
        client: from `open_cluster`.
        config: what to simulate.
        chunks: indices of the showers of each task.
        tables: tables of this machine; the workers must find the same set.
        pack: function that converts showers in the worker; it must be picklable.
        check: called repeatedly while results are awaited; it may raise to stop.

    Raises:
        InputError: a kernel refuses its input.
        SimulationError: a chunk failed `TRIES` times.
        TablesError: a worker finds other tables or none.
    """
    _, distributed = _dask()

    waiting = [(chunk, 1) for chunk in reversed(chunks)]
    running: dict[Any, tuple[range, int]] = {}
    completed = distributed.as_completed(loop=client.loop)

    def submit() -> None:
        slots = max(1, sum(client.nthreads().values()))
        while waiting and len(running) < BACKLOG * slots:
            chunk, tries = waiting.pop()
            future = client.submit(_simulate, config.model_dump_json(), chunk, _ground(tables), pack, pure=False)
            running[future] = (chunk, tries)
            completed.add(future)

    submit()
    while running:
        check()
        while not completed.has_ready():
            time.sleep(_POLL)
            check()
        future = next(completed)
        chunk, tries = running.pop(future)
        try:
            result = future.result()
        except (KernelError, distributed.KilledWorker) as error:
            if tries == TRIES:
                words = str(error) if isinstance(error, KernelError) else "the workers that ran it died"
                raise SimulationError(f"showers {chunk.start} to {chunk[-1]} failed {TRIES} times: {words}") from error
            waiting.append((chunk, tries + 1))
        else:
            yield result
        del future
        submit()


def _ground(tables: Tables) -> str:
    """Return the versions that must be the same on every worker."""
    return f"{tables.name} and geant4-pybind {version('geant4-pybind')}"


def _simulate(config_json: str, chunk: range, ground: str, pack: Callable[[Record], T]) -> Result[T]:
    """Simulate one chunk, in a Dask worker."""
    config = SimulationConfig.model_validate_json(config_json)
    tables = find_tables()
    if _ground(tables) != ground:
        raise TablesError(f"a worker has {_ground(tables)}, expected {ground} as here; install the same on all")
    started = time.perf_counter()
    showers = run_kernel(config, chunk, tables.environment(os.environ))
    seconds = time.perf_counter() - started
    return Result(pack(showers), len(chunk), float(showers.energy.sum(dtype=float)), seconds)
