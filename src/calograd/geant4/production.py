"""Simulate a shower library: the results of the farm go into the writer, and any run can be resumed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import ValidationError

from calograd.checks import as_count
from calograd.detector.configuration import Block, Detector, Particle, SimulationConfig, SiWStack, Span, largest
from calograd.detector.gdml import Geometry
from calograd.detector.material import Material, to_float
from calograd.detector.sampling_stack import PLATES, SamplingStack
from calograd.errors import InputError
from calograd.events.library.reader import open_plates
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import LibraryWriter, open_interruptible_writer
from calograd.geant4.farm import check_scheduler, open_cluster, plan, run_chunks
from calograd.geant4.probe import ask, find_material
from calograd.geant4.tables import Tables, find_tables, needed_elements
from calograd.system.progress import StageProgress, silent

if TYPE_CHECKING:
    from calograd.detector.sampling_design import SamplingDesign

UPSTREAM, UPSTREAM_SIW = 1.0, 0.1
"""Default distances from the start of the particle to the front face, cm; the second for a silicon-tungsten stack."""
MUCH = 0.05
"""Mean share of the incident energy that leaves stacks, beyond which a note says so."""


class Production(NamedTuple):
    """A library and the part of it that one call of `simulate` made.

    Attributes:
        config: what was simulated.
        showers: number of showers in the library.
        simulated: number of showers that this call simulated.
        gev: incident energy simulated in this call.
        seconds: time of all kernels in this call; over ``gev`` it is the time per GeV and core.
        tables: the Geant4 tables used.
        geant4: version of Geant4.
        notes: faults of an unfinished library that were repaired, and what to know of a stack of plates.
        leakage: mean share of the incident energy that leaves stacks of plates; None for other detectors.
    """

    config: SimulationConfig
    showers: int
    simulated: int
    gev: float
    seconds: float
    tables: str
    geant4: str
    notes: list[str]
    leakage: float | None = None


def simulate(
    path: str | Path,
    energies: float | Sequence[float],
    showers: int,
    *,
    law: Literal["discrete", "uniform", "log-uniform"] = "discrete",
    seed: int = 0,
    detector: Detector | SamplingDesign | Material | str = "PbF2",
    particle: Particle | Sequence[Particle] = "gamma",
    position: tuple[float, float] | Literal["uniform"] = (0.0, 0.0),
    theta: Span = 0.0,
    phi: Span = 0.0,
    upstream: float | None = None,
    range_cut: float = 0.07,
    record: Literal["energies", "points"] | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    append: bool = False,
    progress: StageProgress = silent,
) -> Production:
    """Simulate showers with Geant4 into a shower library, as ``calograd simulate`` does.

    A shower depends on ``seed`` and its index alone, not on the number of workers. An unfinished library of the same
    configuration is continued.

        simulate("library.h5", energies=(1, 10, 50), showers=100, seed=1, workers=2)
        simulate("train.h5", energies=(1, 100), law="log-uniform", showers=5000, detector="PbWO4")
        simulate("crystals.h5", (1, 200), 5000, law="log-uniform", particle=("gamma", "e-", "e+"), theta=(0, 40))
        simulate("siw.h5", energies=(10, 90), law="uniform", showers=1000, detector=SiWStack())
        simulate("others.h5", energies=10, showers=100, detector=read_geometry("calo.gdml", sensitive="CRYSTAL"))
        simulate("plates.h5", energies=10, showers=1000, detector=SamplingDesign("Pb", "lAr", 0.2, 0.4, 40))

    Args:
        path: the library to write.
        energies: incident energies, GeV: one, several in turn, or the two ends of a range.
        showers: number of showers; with the law ``discrete`` the number for each energy.
        law: distribution of the energies; ``uniform`` and ``log-uniform`` draw from a range.
        seed: seed of all random numbers.
        detector: a detector, or a material (a `Material`, its name, ``G4_NAME`` or ``NAME:DENSITY:FORMULA``) for the
            large block of it that serves every design, wider for a beam at an angle. `calograd.read_geometry` returns
            the geometry of a GDML file. Of a `SamplingDesign` or a
            `calograd.detector.sampling_stack.SamplingStack` the energy of every plate is stored, see
            `calograd.open_plates`.
        particle: incident particle, or several of which each shower has one.
        position: point where the beam meets the front face, cm; ``uniform`` draws it in the central cell of a crystal
            matrix. The showers of a block are moved later, see `calograd.segment`.
        theta, phi: direction of the beam: angle to the normal and azimuth, degrees; or the ends of a range from which
            each shower draws one.
        upstream: distance from the start of the particle to the front face, cm; None for 1, in a silicon-tungsten
            stack 0.1.
        range_cut: production cut in range, cm.
        record: what is recorded of a stack of plates: the ``energies`` of its plates, or ``points``, which adds the
            deposits in active plates; None for what the stack says.
        workers: Geant4 processes on this machine.
        scheduler: ``tcp://host:port`` of a Dask cluster that is used instead.
        append: continue a finished library of the same configuration.
        progress: called with the stage, the showers done and their number.

    Raises:
        InputError: an argument that cannot be used.
        Interrupted: Ctrl-C; what is finished is kept, the same call resumes.
        CaloGradError: missing tables, an existing output, a full disk, kernels that keep failing.
    """
    showers, workers = as_count("showers", showers), as_count("workers", workers)
    material = find_material(detector) if isinstance(detector, str) else detector
    if isinstance(material, Material):
        detector = Block(material=material)
    is_design = hasattr(detector, "to_stack")  # its module loads torch, which is not needed here
    if hasattr(detector, "to_stack"):
        detector = detector.to_stack()
    wanted: Any = detector
    if record is not None:
        if not isinstance(detector, SamplingStack):
            raise InputError(f"record: {record} are recorded of stacks of plates; leave it out for other detectors")
        wanted = detector.model_dump() | {"record": record}
    if upstream is None:
        upstream = UPSTREAM_SIW if isinstance(detector, SiWStack) else UPSTREAM
    values = (energies,) if isinstance(energies, int | float) else energies
    beam = {
        "particle": particle, "energies": {"law": law, "values": values}, "position": position, "theta": theta,
        "phi": phi, "upstream": upstream,
    }  # fmt: skip
    try:
        config = SimulationConfig(detector=wanted, beam=beam, seed=seed, range_cut=range_cut)
    except ValidationError as error:
        first = error.errors()[0]
        parts = ["simulate", *(part for part in first["loc"] if isinstance(part, str))]
        name, given = ("energies", energies) if "energies" in parts else (parts[-1], first["input"])
        problem = first["msg"].removeprefix("Value error, ")
        raise InputError(problem if name == "simulate" else f"{name}: {problem}, not {given}") from error
    if isinstance(material, Material):
        wide = Block.holding(material, config.beam.theta, config.beam.position)
        config = config.model_copy(update={"detector": wide})
    if is_design and isinstance(config.detector, SamplingStack):
        config = config.model_copy(update={"detector": hold(config.detector, config.beam.theta, config.beam.position)})
    n = showers * len(config.beam.energies.values) if law == "discrete" else showers
    return simulate_library(
        Path(path), config, n, workers=workers, scheduler=scheduler, append=append, progress=progress
    )


def hold(stack: SamplingStack, theta: Span, position: tuple[float, float] | Literal["uniform"]) -> SamplingStack:
    """Return stacks that are wider for a beam at an angle, see `SamplingStack.widened`."""
    beside = 0.0 if isinstance(position, str) else max(map(abs, position))
    return stack.widened(largest(theta), beside)


def simulate_library(
    path: Path,
    config: SimulationConfig,
    showers: int,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    append: bool = False,
    progress: StageProgress = silent,
) -> Production:
    """Simulate the showers 0 to ``showers`` - 1 of a configuration into a library, or those that are missing in it.

    Args:
        path: the library; an unfinished one of the same configuration is continued.
        config: what to simulate.
        showers: number of showers that the library is to have.
        workers, scheduler, append, progress: see `simulate`.

    Raises:
        Interrupted: Ctrl-C; what is finished is kept, the same call resumes.
        CaloGradError: no scheduler, missing tables, an existing output, a full disk, kernels that keep failing.
    """
    if scheduler is not None:
        check_scheduler(scheduler)
    if isinstance(config.detector, Geometry):
        config.detector.check_file()
    tables = find_tables()
    tables.check(needed_elements(config))
    provenance = Provenance(config, ask(tables).version, tables.name)
    with open_interruptible_writer(path, provenance, showers, append) as (writer, check):

        def joined(done: int, total: int) -> None:
            progress("joining", done, total)
            check()

        work = _simulate_missing(writer, config, tables, workers, scheduler, progress, check)
        writer.finish(joined, threads=workers if scheduler is None else os.cpu_count() or 1)
        notes, leakage = writer.notes, None
        if isinstance(config.detector, SamplingStack):
            leakage = _mean_leakage(path)
            notes = [*notes, *stack_notes(config.detector, config.range_cut, leakage)]
        return Production(config, writer.done, *work, tables.name, provenance.geant4, notes, leakage)


def stack_notes(stack: SamplingStack, range_cut: float, leakage: float) -> list[str]:
    """Return what to know of showers in stacks of plates, in sentences: plates below the cut, energy that leaks.

    Args:
        stack: the stacks.
        range_cut: production cut in range, cm.
        leakage: mean share of the incident energy that leaves them.
    """
    notes = []
    thin = [name for name in PLATES if 0 < stack.thinnest(name) < range_cut and not _is_gas(stack, name)]
    if thin:
        least = ", ".join(f"{name} {stack.thinnest(name):g}" for name in thin)
        notes.append(
            f"plates thinner than the production cut of {range_cut:g} cm ({least} cm): an electron that is knocked out "
            "with a range below the cut is not followed, so what it would carry into the next plate stays in its own; "
            f"choose --range-cut {min(map(stack.thinnest, thin)):g} or below to follow it"
        )
    if leakage > MUCH:
        notes.append(
            f"{100 * leakage:.1f} % of the incident energy leaves the stacks on average; add layers or absorber, or "
            "lower the energies, for showers that are contained"
        )
    return notes


def _is_gas(stack: SamplingStack, name: str) -> bool:
    """Return whether plates are gaps of a gas, in which hardly anything is knocked out."""
    return name == "gap" and to_float(stack.gap_material.density) < 0.01


def _mean_leakage(path: Path) -> float:
    """Return the mean share of the incident energy that leaves the stacks of a library."""
    with open_plates(path) as library:
        shares = [block.leakage / block.energy for block in library.blocks()]
    return float(np.concatenate(shares).mean())


def _simulate_missing(
    writer: LibraryWriter,
    config: SimulationConfig,
    tables: Tables,
    workers: int,
    scheduler: str | None,
    progress: StageProgress,
    check: Callable[[], None],
) -> tuple[int, float, float]:
    """Give the writer the showers that it lacks; return their number, incident energy (GeV) and time (s)."""
    missing, simulated, gev, seconds = writer.missing(), 0, 0.0, 0.0
    progress("showers", writer.done, writer.wanted)
    if not missing:
        return simulated, gev, seconds
    check()
    with open_cluster(workers, scheduler) as client:
        chunks = plan(config, missing, max(1, sum(client.nthreads().values())))
        image = partial(pack, provenance=writer.provenance, times=writer.times)
        if not writer.times:
            writer.notes.append(f"{writer.path} was begun without times; those of its new showers are left out")
        for result in run_chunks(client, config, chunks, tables, image, check):
            writer.add(result.packed)
            simulated, gev, seconds = simulated + result.showers, gev + result.gev, seconds + result.seconds
            progress("showers", writer.done, writer.wanted)
    return simulated, gev, seconds
