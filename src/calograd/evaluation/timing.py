"""How long a shower takes, Geant4's and a surrogate's, each on one thread.

    Geant4      t_E = (T_E(n) - S) / n,    S = T_1 - t_1

with T_E(n) the time of a kernel process from start to end with n showers of energy E, and T_1, t_1 those at the lowest
energy with a single shower: S is the start-up (Python, geometry, physics tables), stated apart. A surrogate's time is
that of `Surrogate.sample`, everything included, after one call to warm up.

Every measurement is repeated; the median is given with the extremes, as time on the clock and as time of the
processor. On a machine that does other work too, the processor's time is the one to compare.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig
from calograd.detector.design import Design
from calograd.detector.material import Material
from calograd.geant4.farm import run_kernel
from calograd.surrogate import Surrogate

BATCHES = (1, 10, 100, 1000, 4000)
"""Batches that are tried."""
GEV = 160.0
"""Incident energy that Geant4 simulates at each energy and repetition: about two seconds."""
NEARLY = 1.05
"""The smallest batch whose time is within this factor of the least counts as the best."""
SLOW_BATCH = 250
"""Largest batch of samplers that are not the surrogate's own."""

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total)."""


@dataclass(frozen=True)
class Spread:
    """Repeated measurements: median, least and most, ms a shower."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of times in ms."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


@dataclass(frozen=True)
class Timing:
    """What was measured of one way to make a shower.

    Args:
        who: ``Geant4`` or the surrogate's name.
        energy: incident, GeV.
        batch: showers made at once; for Geant4, in one process.
        clock: ms a shower on the clock.
        processor: ms a shower of the processor.
        sampler, steps, evaluations, shape_evaluations: of a surrogate, see `calograd.surrogate.model`.
    """

    who: str
    energy: float
    batch: int
    clock: Spread
    processor: Spread
    sampler: str = ""
    steps: int = 0
    evaluations: int = 0
    shape_evaluations: int = 0


@dataclass(frozen=True)
class Geant4Timing:
    """Geant4's times by energy, and its start-up in seconds of the processor and on the clock."""

    timings: tuple[Timing, ...]
    startup_processor: float
    startup_clock: float


@dataclass(frozen=True)
class Benchmark:
    """A whole run.

    Args:
        machine: see `machine`.
        geant4: None where it was left out; ``note`` says why.
        surrogates: each's own sampler at batch 1 and the best batch, at every energy.
        batches: every batch that was tried, once each.
        samplers: the other samplers, of those that are not distilled, at their default steps.
        note: what was left out.
    """

    machine: dict[str, Any]
    geant4: Geant4Timing | None
    surrogates: tuple[Timing, ...]
    batches: tuple[Timing, ...]
    samplers: tuple[Timing, ...]
    note: str = ""

    def ratio(self, timing: Timing) -> float | None:
        """Geant4's time of the processor over a surrogate's at the same energy; None where Geant4's is not known."""
        theirs = [t.processor.median for t in (self.geant4.timings if self.geant4 else ()) if t.energy == timing.energy]
        return theirs[0] / timing.processor.median if theirs and min(theirs[0], timing.processor.median) > 0 else None

    @property
    def busy(self) -> float:
        """Time on the clock over that of the processor, median; well above 1: the machine did other work."""
        every = [*self.surrogates, *(self.geant4.timings if self.geant4 else ())]
        return median(t.clock.median / t.processor.median for t in every if t.processor.median > 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        surrogates = [asdict(t) | {"geant4_over_surrogate": self.ratio(t)} for t in self.surrogates]
        return {"schema": "calograd/benchmark/1", "unit": "ms per shower, one thread", "busy": self.busy} | (
            asdict(self) | {"surrogates": surrogates}
        )


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = lines[0] if lines else name
    found: dict[str, Any] = {
        "processor": name, "vectors": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count(), "threads": 1,
        "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
        "torch": torch.__version__,
    }  # fmt: skip
    try:
        found["geant4-pybind"] = version("geant4-pybind")
    except PackageNotFoundError:
        found["geant4-pybind"] = None
    return found


def short(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_batches(surrogate: Surrogate, energy: float, batches: Sequence[int]) -> list[Timing]:
    """The surrogate's own sampler at every batch, once each."""
    with one_thread():
        _time(surrogate, energy, min(batches), None, 1)
        return [_time(surrogate, energy, batch, None, 1) for batch in batches]


def time_surrogate(surrogate: Surrogate, energy: float, batch: int, sampler: str | None, repeats: int) -> Timing:
    """A surrogate at one energy (GeV) and batch, by its own sampler or another, after a call to warm up."""
    with one_thread():
        _time(surrogate, energy, min(batch, 100), sampler, 1)
        return _time(surrogate, energy, batch, sampler, repeats)


def _time(surrogate: Surrogate, energy: float, batch: int, sampler: str | None, repeats: int) -> Timing:
    material = surrogate.card.designs.material
    ranges, a = surrogate.card.in_cm(material), surrogate.design_model.architecture
    middle = [(low * high) ** 0.5 for low, high in (ranges.dx, ranges.dz)]
    design = Design(middle[0], middle[1], material, a.n_xy, a.n_z)
    generator = torch.Generator().manual_seed(0)
    clock, processor = [], []
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        surrogate.sample(design, energy, batch, generator=generator, sampler=sampler)
        clock.append(1e3 * (time.perf_counter() - began[0]) / batch)
        processor.append(1e3 * (time.process_time() - began[1]) / batch)
    schedule = surrogate.model.sampling_schedule(sampler)
    return Timing(surrogate.card.name, energy, batch, Spread.of(clock), Spread.of(processor), *schedule)


def time_geant4(
    material: Material, energies: Sequence[float], environment: dict[str, str], *, repeats: int,
    showers: int | None = None, progress: Callable[[], None] = lambda: None,
) -> Geant4Timing:  # fmt: skip
    """Photons into the large block of a material.

    Args:
        material: of the block.
        energies: incident, GeV.
        environment: of the kernel, see `calograd.geant4.tables.Tables.environment`.
        repeats: kernel processes at each energy.
        showers: in each of them; by default what takes about two seconds.
        progress: called after each process.

    Raises:
        SimulationError: Geant4 does not run.
    """
    index = 0

    def run(energy: float, count: int) -> tuple[float, float]:
        """Seconds on the clock and of the processor of one process."""
        nonlocal index
        beam = Beam(energies=Energies(law="discrete", values=(energy,)))
        began = time.perf_counter(), children_seconds()
        config = SimulationConfig(detector=Block(material=material), beam=beam, seed=0)
        run_kernel(config, range(index, index + count), environment)
        index += count
        progress()
        return time.perf_counter() - began[0], children_seconds() - began[1]

    counts = {e: showers or max(1, round(GEV / e)) for e in energies}
    lowest = min(energies)
    counts[lowest] = max(2, counts[lowest])
    single = [run(lowest, 1) for _ in range(repeats)]
    times = {e: [run(e, counts[e]) for _ in range(repeats)] for e in energies}
    startup = []
    for k in range(2):
        first, many = median(t[k] for t in single), median(t[k] for t in times[lowest])
        startup.append(max(0.0, first - (many - first) / (counts[lowest] - 1)))
    timings = []
    for e in energies:
        clock, processor = ([1e3 * (t[k] - startup[k]) / counts[e] for t in times[e]] for k in range(2))
        timings.append(Timing("Geant4", e, counts[e], Spread.of(clock), Spread.of(processor)))
    return Geant4Timing(tuple(timings), startup[1], startup[0])


def children_seconds() -> float:
    """Seconds of the processor of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def benchmark(
    surrogates: Sequence[Surrogate], energies: Sequence[float], environment: dict[str, str] | None, *,
    repeats: int, showers: int | None = None, batches: Sequence[int], samplers: Sequence[str] = (),
    note: str = "", progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
) -> Benchmark:  # fmt: skip
    """Time Geant4 and surrogates in one run, one after the other, each on one thread.

    Args:
        surrogates: of one material.
        energies: incident, GeV.
        environment: of Geant4's kernel; None leaves it out.
        repeats: of every measurement.
        showers: of Geant4 at every energy and repetition.
        batches: that are tried; must hold 1.
        samplers: timed beside the own one of surrogates that are not distilled, at one energy: the cost does not
            depend on it.
        note: why Geant4 is left out.
        progress: called as progress(stage, done, total).
    """
    energies = sorted(energies)
    geant4 = None
    if environment is not None:
        total, done = repeats * (len(energies) + 1), 0

        def step() -> None:
            nonlocal done
            done += 1
            progress("Geant4", done, total)

        progress("Geant4", 0, total)
        material = surrogates[0].card.designs.material
        geant4 = time_geant4(material, energies, environment, repeats=repeats, showers=showers, progress=step)
    tried: list[Timing] = []
    chosen: list[Timing] = []
    others: list[Timing] = []
    for surrogate in surrogates:
        others_of = () if surrogate.model.distilled else samplers
        stage, total = surrogate.card.name, 1 + len(energies) + len(others_of)
        progress(stage, 0, total)
        at = energies[len(energies) // 2]
        scan = time_batches(surrogate, at, batches)
        least = min(t.processor.median for t in scan)
        best = min(t.batch for t in scan if t.processor.median <= NEARLY * least)
        tried += scan
        progress(stage, 1, total)
        for number, energy in enumerate(energies):
            chosen += [time_surrogate(surrogate, energy, b, None, repeats) for b in sorted({1, best})]
            progress(stage, 2 + number, total)
        for number, sampler in enumerate(others_of):
            others.append(time_surrogate(surrogate, at, min(best, SLOW_BATCH), sampler, repeats))
            progress(stage, 2 + len(energies) + number, total)
    return Benchmark(machine(), geant4, tuple(chosen), tuple(tried), tuple(others), note)
