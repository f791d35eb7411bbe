"""Simulate a shower library: the farm's results into the writer, resumable at every moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from calograd.detector.configuration import SimulationConfig
from calograd.errors import Interrupted
from calograd.events.deposits import Showers
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import LibraryWriter, open_writer
from calograd.geant4.farm import check_scheduler, open_cluster, plan, run_chunks
from calograd.geant4.probe import ask
from calograd.geant4.tables import Tables, find_tables, needed_elements
from calograd.system.interrupts import checked_interrupt


class Production(NamedTuple):
    """What a call of `produce` did.

    Attributes:
        showers: in the library.
        simulated: of these, in this call.
        gev: incident energy simulated in this call.
        seconds: of all kernels together in this call; over ``gev`` this is the time per GeV and core.
        tables: the Geant4 tables used.
        geant4: version of Geant4.
        notes: what was found amiss and mended.
    """

    showers: int
    simulated: int
    gev: float
    seconds: float
    tables: str
    geant4: str
    notes: list[str]


def produce(
    path: Path,
    config: SimulationConfig,
    showers: int,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    append: bool = False,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,  # noqa: ARG005
) -> Production:
    """Simulate the showers 0 to ``showers`` - 1 of a configuration into the library ``path``, or what is missing.

    Args:
        path: of the library; an unfinished one of the same configuration is continued.
        config: what to simulate.
        showers: how many the library is to have.
        workers: kernels at a time on this machine.
        scheduler: ``tcp://host:port`` of a Dask cluster to use instead.
        append: continue a finished library of the same configuration.
        report: called with what is being done, how much of it is done, and how much there is.

    Raises:
        Interrupted: Ctrl-C; what is finished is kept.
        CaloGradError: no scheduler, missing tables, an existing output, a full disk, kernels that keep failing.
    """
    if scheduler is not None:
        check_scheduler(scheduler)
    tables = find_tables()
    tables.check(needed_elements(config))
    geant4 = ask(tables).version
    provenance = Provenance(config, geant4, tables.name)
    try:
        with checked_interrupt() as check, open_writer(path, provenance, showers, append) as writer:
            return _produce(writer, provenance, showers, tables, workers, scheduler, report, check)
    except KeyboardInterrupt as stop:  # before the first chunk, or while an unfinished library was opened
        kept = f"{path} keeps what was finished; the same command goes on from there"
        raise Interrupted(kept if path.exists() else "no shower was finished yet, nothing is kept") from stop


def _produce(
    writer: LibraryWriter,
    provenance: Provenance,
    showers: int,
    tables: Tables,
    workers: int,
    scheduler: str | None,
    report: Callable[[str, int, int], None],
    check: Callable[[], None],
) -> Production:
    """See `produce`; ``check`` raises if Ctrl-C came."""
    config = provenance.config
    assert isinstance(config, SimulationConfig)
    simulated, gev, seconds = 0, 0.0, 0.0

    def joining(done: int, total: int) -> None:
        report("joining", done, total)
        check()

    try:
        missing = writer.missing()
        report("showers", writer.done, showers)
        if missing:
            check()
            with open_cluster(workers, scheduler) as client:
                chunks = plan(config, missing, max(1, sum(client.nthreads().values())))
                for result in run_chunks(client, config, chunks, tables, partial(_pack, provenance), check):
                    writer.add(result.packed)
                    simulated += result.showers
                    gev += result.gev
                    seconds += result.seconds
                    report("showers", writer.done, showers)
        writer.finish(joining, threads=workers if scheduler is None else os.cpu_count() or 1)
    except KeyboardInterrupt as stop:
        kept = f"{writer.done} of {showers} showers are finished in {writer.path}; the same command goes on from there"
        raise Interrupted(kept if writer.done else "no shower was finished yet, nothing is kept") from stop
    return Production(writer.done, simulated, gev, seconds, tables.name, provenance.geant4, writer.notes)


def _pack(provenance: Provenance, showers: Showers) -> bytes:
    return pack(showers, provenance)
