"""Time of a shower, Geant4's and a surrogate's, each on one thread.

    Geant4       t = (T(1 + n) - T(1)) / n,    start-up = T(1) - t

with T(k) the time of a kernel process from start to end with the first k showers of one seed: the start-up (Python,
geometry, physics tables) and the first shower drop out. A surrogate's time is that of `Surrogate.sample`, everything
included, after calls to warm up. Every surrogate has a process of its own: surrogates leave the memory of their process
in pieces, and one that is timed behind others takes up to half as long again.

Every measurement is repeated. The median is given with the extremes, as wall time (``clock``) and as time of the
processor (``processor``). On a machine that does other work too, the processor's time is the one to compare.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
import torch

from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig, SiWStack
from calograd.detector.design import Design
from calograd.detector.incidence import COLUMNS, Incidence
from calograd.detector.material import Material
from calograd.detector.particles import Particles
from calograd.detector.sampling_design import SamplingDesign
from calograd.detector.sampling_stack import SamplingStack
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import CaloGradError, InputError, RangeError, TablesError
from calograd.geant4.farm import run_kernel
from calograd.geant4.production import hold
from calograd.geant4.tables import find_tables, needed_elements
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import draw_incidence
from calograd.system.memory import keep_freed_memory
from calograd.system.progress import StageProgress, silent

DESIGN_BATCHES = (1, 10, 100, 1000, 4000)
"""Batches that are tried for showers of designs."""
ENERGIES = (1.0, 10.0, 50.0, 100.0)
"""Incident energies at which surrogates of designs are timed, GeV."""
POINT_BATCHES = (1, 4, 16, 64)
"""Batches that are tried for showers as points."""
GEV = 160.0
"""Incident energy that Geant4 simulates at each energy and repetition, GeV: about two seconds."""
FEWEST = 10
"""Fewest Geant4 showers of a repetition whose energies are drawn from a range."""
NEARLY = 1.05
"""Factor within which a batch is as good as the best; the smallest of these is taken."""
SLOW_BATCH = 250
"""Largest batch of samplers that are not the surrogate's own."""
SINGLES = 40
"""Showers of a measurement at batch 1 where energies are drawn from a range."""
MANY = 128
"""Showers of a measurement at larger batches where energies are drawn from a range."""
CALOCLOUDS_II = ("heun", 13)
"""Sampler and steps of CaloClouds II, 25 evaluations (arXiv 2309.05704)."""

Energy = float | tuple[float, float]
"""An incident energy in GeV, or a range from which energies are drawn evenly."""
Times = tuple[list[float], list[float]]
"""Wall times and processor times of repeated measurements, ms a shower."""


@dataclass(frozen=True)
class Workload:
    """The showers that are timed, beside their energies.

    Args:
        material: material of cells; None: the only one of the surrogates.
        cells: cells across and layers of the window; None: those of each surrogate.
        stack: one stack of plates, for surrogates of such; None: that in the middle of the first one's range.
        beam: any of particle, position, theta and phi, as `calograd.surrogate.generation.draw_incidence` takes them;
            the others are those of a photon on the axis. Empty for surrogates that know one beam.
        layers_only: energies of plates alone, for stacks; False: points too, of surrogates that generate them.
    """

    material: Material | None = None
    cells: tuple[int, int] | None = None
    beam: Mapping[str, Any] = field(default_factory=dict)
    stack: SamplingStack | None = None
    layers_only: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        material = None if self.material is None else self.material.to_dict()
        stack = {} if self.stack is None else {"stack": self.stack.model_dump(mode="json")}
        only = {"layers_only": True} if self.layers_only else {}
        return {"material": material, "cells": self.cells, "beam": dict(self.beam)} | stack | only

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Workload:
        """Return what `to_dict` made plain, also after JSON, which has lists for tuples."""
        material, cells, beam = values["material"], values["cells"], values["beam"]
        return cls(
            None if material is None else Material(**material), None if cells is None else (cells[0], cells[1]),
            {name: tuple(value) if isinstance(value, list) else value for name, value in beam.items()},
            SamplingStack.model_validate(values["stack"]) if "stack" in values else None,
            values.get("layers_only", False),
        )  # fmt: skip

    def describe(self) -> str:
        """Return in words what is not as usual; empty if nothing is."""
        words = [] if self.material is None else [self.material.name]
        words += [] if self.stack is None else [f"{self.stack.layers} layers of {self.stack.describe()}"]
        words += [] if self.cells is None else [f"{self.cells[0]} x {self.cells[0]} x {self.cells[1]} cells"]
        for name, value in self.beam.items():
            values = value if isinstance(value, tuple) else (value,)
            each = [v if isinstance(v, str) else f"{v:g}" for v in values]
            between = {"particle": " and ", "position": ", "}.get(name, " to ")
            unit = "" if isinstance(value, str) or name == "particle" else " cm" if name == "position" else " degrees"
            words.append(f"{name} {between.join(each)}{unit}")
        words += ["energies of plates alone"] if self.layers_only else []
        return ", ".join(words)

    def options(self, surrogate: Surrogate) -> dict[str, Any]:
        """Return the options of `Surrogate.sample`."""
        asked = surrogate.model.required_options | ({"layers_only"} if self.layers_only else set())
        return dict.fromkeys(asked, True)

    def design(self, surrogate: Surrogate) -> Design | SamplingDesign:
        """Return the stack, or the design in the middle of the range that a surrogate was trained on."""
        if surrogate.card.trained.designs_of == "stacks":
            return SamplingDesign.of_stack(self.stack or surrogate.card.stacks.middle())
        material = self.material or surrogate.card.designs.material
        ranges, a = surrogate.card.in_cm(material), surrogate.design_model.architecture
        dx, dz = ((low * high) ** 0.5 for low, high in (ranges.dx, ranges.dz))
        return Design(dx, dz, material, *(self.cells or (a.n_xy, a.n_z)))

    def check(self, surrogate: Surrogate) -> None:
        """Refuse what a surrogate was not trained on.

        Raises:
            RangeError: a material, particle or angle outside the trained range.
            InputError: a window, a stack, an entry or particles that the surrogate cannot take.
        """
        card, kind = surrogate.card, surrogate.card.trained.designs_of
        if self.stack is not None and kind != "stacks":
            raise InputError(
                f"{card.name} generates {card.kind}, no stacks of plates; leave out the stack (--absorber)"
            )
        if self.layers_only and kind != "stacks":
            raise InputError(f"{card.name} generates {card.kind}, no stacks of plates; leave out --layers-only")
        for name in ("material", "cells") if kind == "stacks" else ():
            if getattr(self, name):
                raise InputError(f"{name}: {card.name} generates stacks of plates; leave it out, or describe a stack")
        if not card.takes_design:
            asked = [*(name for name in ("material", "cells") if getattr(self, name)), *self.beam]
            if asked:
                raise InputError(f"{asked[0]}: {card.name} has one detector and one beam; leave it out")
            return
        if not surrogate.model.takes_particles:
            card.refuse_particles(list(self.beam))
        design = self.design(surrogate)
        problems = card.trained.check(card.name, design, card.architecture).problems
        if surrogate.model.takes_particles:
            problems = [*problems, *card.trained.check_particles(design, self._extremes())]
        if problems:
            raise RangeError(f"{card.name}: {'; '.join(problems)}")

    def _extremes(self) -> Particles:
        """Return every particle at the ends of the angles, at the entry, or in the middle if entries are drawn."""
        names, position, theta, _ = (self.beam.get(name) for name in COLUMNS)
        each = ("gamma",) if names is None else (names,) if isinstance(names, str) else tuple(names)
        ends = theta if isinstance(theta, tuple) else (0.0 if theta is None else theta,)
        entry = (0.0, 0.0) if position is None or isinstance(position, str) else position
        rows = [(name, end) for name in each for end in ends]
        incident = Incidence.of(len(rows), [name for name, _ in rows], entry, [end for _, end in rows])
        return Particles.from_incidence(incident, torch.zeros(1))

    def draw(self, dx: float, n: int, seed: int) -> dict[str, Any]:
        """Return the arguments of `Surrogate.sample` for n showers in cells of pitch ``dx``, cm.

        They are one value for all, or one a shower where they are drawn.
        """
        fixed = [not isinstance(value, str if name == "position" else tuple) for name, value in self.beam.items()]
        if all(fixed):
            return dict(self.beam)
        return dict(vars(draw_incidence(np.full(n, dx), **self.beam, seed=seed)))


@dataclass(frozen=True)
class Spread:
    """Median, least and most of repeated measurements, ms a shower."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of times in ms."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


@dataclass(frozen=True)
class Timing:
    """The time of one way to make a shower.

    Args:
        who: ``Geant4`` or the surrogate's name.
        energy: incident energy, or a range of energies, GeV.
        batch: showers made at once; for Geant4, in one process.
        clock: wall time, ms a shower.
        processor: time of the processor, ms a shower.
        sampler, steps, evaluations, shape_evaluations: see `calograd.surrogate.model.SamplingSchedule`.
    """

    who: str
    energy: Energy
    batch: int
    clock: Spread
    processor: Spread
    sampler: str = ""
    steps: int = 0
    evaluations: int = 0
    shape_evaluations: int = 0

    @property
    def energy_text(self) -> str:
        """The energy, or the range of energies, for tables."""
        return " to ".join(f"{e:g}" for e in dict.fromkeys(_ends(self.energy)))


@dataclass(frozen=True)
class Geant4Timing:
    """Geant4's times by energy, and its start-up in seconds of the processor and on the clock."""

    timings: tuple[Timing, ...]
    startup_processor: float
    startup_clock: float


@dataclass(frozen=True)
class Benchmark:
    """The times of Geant4 and surrogates from one run.

    Args:
        machine: see `machine`.
        geant4: Geant4's times; None where it was left out, which ``note`` explains.
        surrogates: own samplers of the surrogates at batch 1 and the best batch, at every energy.
        batches: every batch that was tried, once each.
        samplers: other samplers of surrogates that are not distilled, at one energy.
        note: sentence on what was left out.
        workload: the showers that were timed.
    """

    machine: dict[str, Any]
    geant4: Geant4Timing | None
    surrogates: tuple[Timing, ...]
    batches: tuple[Timing, ...]
    samplers: tuple[Timing, ...]
    note: str = ""
    workload: Workload = field(default_factory=Workload)

    def ratio(self, timing: Timing) -> float | None:
        """Return Geant4's processor time over a surrogate's at the same energy; None where Geant4's is not known."""
        theirs = [t.processor.median for t in (self.geant4.timings if self.geant4 else ()) if t.energy == timing.energy]
        return theirs[0] / timing.processor.median if theirs and min(theirs[0], timing.processor.median) > 0 else None

    @property
    def busy(self) -> float:
        """Median of wall time over processor time; well above 1 where the machine did other work."""
        every = [*self.surrogates, *(self.geant4.timings if self.geant4 else ())]
        return median(t.clock.median / t.processor.median for t in every if t.processor.median > 0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        surrogates = [asdict(t) | {"geant4_over_surrogate": self.ratio(t)} for t in self.surrogates]
        return {"schema": "calograd/benchmark/3", "unit": "ms per shower, one thread", "busy": self.busy} | (
            asdict(self) | {"surrogates": surrogates, "workload": self.workload.to_dict()}
        )


def machine() -> dict[str, Any]:
    """Return processor, cores and versions."""
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
    """Return a number with three digits and without an exponent."""
    return f"{float(f'{value:.3g}'):.10g}"


def benchmark(
    surrogates: Sequence[Surrogate], energies: Sequence[Energy] | None = None,
    environment: dict[str, str] | None = None, *, repeats: int = 5, showers: int | None = None,
    batches: Sequence[int] | None = None, samplers: Sequence[tuple[str, int | None]] | None = None, note: str = "",
    workload: Workload | None = None, progress: StageProgress = silent,
) -> Benchmark:  # fmt: skip
    """Time Geant4 and surrogates in one run, one after the other, each on one thread.

    Args:
        surrogates: surrogates of one material, or of one detector.
        energies: incident energies, or ranges of them, GeV; by default `ENERGIES` for surrogates of designs, the
            trained range for those of one detector.
        environment: environment of Geant4's kernel, see `find_geant4`; None leaves it out.
        repeats: repetitions of every measurement.
        showers: Geant4 showers at every energy and repetition; by default about two seconds' worth.
        batches: batches that are tried; they must hold 1.
        samplers: names and steps (None: default) of samplers that are timed beside a surrogate's own, at one energy;
            by default all that it can take, for surrogates of one detector that of CaloClouds II.
        note: why Geant4 is left out.
        workload: material, window and particles; by default the only material, each surrogate's own window, and photons
            on the axis, or the beam that a surrogate knows.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        RangeError: a material, particle or angle outside a trained range.
        InputError: surrogates of different detectors, energies outside a trained range, or a workload that one of the
            surrogates cannot take.
    """
    workload = workload or Workload()
    design = refuse_different(surrogates, workload)
    if workload.stack is None and surrogates[0].card.trained.designs_of == "stacks":
        workload = replace(workload, stack=surrogates[0].card.stacks.middle())
    energies = energies or (ENERGIES if design else (surrogates[0].card.energy,))
    batches = batches or (DESIGN_BATCHES if design else POINT_BATCHES)
    samplers = [(name, None) for name in SAMPLERS] if samplers is None and design else samplers
    samplers = [CALOCLOUDS_II] if samplers is None else samplers
    for surrogate in surrogates:
        low, high = surrogate.card.energy
        if not all(low <= e <= high for energy in energies for e in _ends(energy)):
            raise InputError(f"energies: {surrogate.card.name} was trained on {low:g} to {high:g} GeV")
        workload.check(surrogate)
    energies = sorted(energies, key=_mean)
    geant4 = None
    if environment is not None:
        geant4 = time_geant4(surrogates[0], energies, environment, repeats, showers, workload, progress)
    tried: list[Timing] = []
    chosen: list[Timing] = []
    others: list[Timing] = []
    middle = energies[len(energies) // 2]
    for surrogate in surrogates:
        more = _possible(surrogate, samplers)
        stage, total = surrogate.card.name, 1 + len(energies) + len(more)
        progress(stage, 0, total)
        with Stopwatch(surrogate, workload) as watch:
            scan = [watch.time(middle, batch, 1) for batch in batches]
            least = min(t.processor.median for t in scan)
            best = min(t.batch for t in scan if t.processor.median <= NEARLY * least)
            tried += scan
            for number, energy in enumerate(energies):
                progress(stage, 1 + number, total)
                chosen += [watch.time(energy, batch, repeats) for batch in sorted({1, best})]
            for number, (sampler, steps) in enumerate(more):
                progress(stage, 1 + len(energies) + number, total)
                sizes = sorted({1, min(best, SLOW_BATCH)})
                others += [watch.time(middle, batch, repeats, sampler, steps) for batch in sizes]
        progress(stage, total, total)
    return Benchmark(machine(), geant4, tuple(chosen), tuple(tried), tuple(others), note, workload)


def refuse_different(surrogates: Sequence[Surrogate], workload: Workload | None = None) -> bool:
    """Return whether the surrogates take designs; raise `InputError` unless they stand for one detector."""
    takes = {surrogate.card.takes_design for surrogate in surrogates}
    if len(takes) > 1:
        raise InputError("some surrogates take designs and others are of one detector; benchmark them apart")
    kinds = {surrogate.card.trained.designs_of for surrogate in surrogates}
    if len(kinds) > 1:
        raise InputError("some surrogates are of cells and others of stacks of plates; benchmark them apart")
    if kinds == {"stacks"} and len({bool((workload or Workload()).options(s)) for s in surrogates}) > 1:
        raise InputError("some surrogates generate points in their plates and others energies alone; add --layers-only")
    material = workload.material if workload else None
    names = {(material or s.card.designs.material).name for s in surrogates} if kinds == {"cells"} else set()
    if len(names) > 1:
        raise InputError(f"the surrogates are of {', '.join(sorted(names))}; benchmark one material at a time")
    return takes == {True}


def find_geant4(surrogate: Surrogate, workload: Workload | None = None) -> tuple[dict[str, str] | None, str]:
    """Return the environment of Geant4's kernel for a surrogate's detector, or None and why it cannot run."""
    if importlib.util.find_spec("geant4_pybind") is None:
        return None, "Geant4 is left out: geant4-pybind is not installed; pip install 'calograd[geant4]'"
    try:
        tables = find_tables()
        tables.check(needed_elements(simulation(surrogate, surrogate.card.energy[0], 0, workload)))
    except TablesError as error:
        return None, f"Geant4 is left out: {error}"
    return tables.environment(os.environ), ""


def simulation(surrogate: Surrogate, energy: Energy, seed: int, workload: Workload | None = None) -> SimulationConfig:
    """Return the simulation that a surrogate stands for: particles in the middle of its block or stack.

    Where they enter a cell does not matter in a block, whose showers are cut into cells afterwards. Points in stacks of
    plates are recorded if the surrogate generates them.
    """
    workload = workload or Workload()
    energies = (
        Energies(law="uniform", values=energy) if isinstance(energy, tuple)
        else Energies(law="discrete", values=(energy,))
    )  # fmt: skip
    if not surrogate.card.takes_design:
        return SimulationConfig(detector=SiWStack(), beam=Beam(energies=energies, upstream=0.1), seed=seed)
    beam = Beam(energies=energies, **{name: value for name, value in workload.beam.items() if name != "position"})
    if surrogate.card.trained.designs_of == "stacks":
        stack = hold(workload.stack or surrogate.card.stacks.middle(), beam.theta, (0.0, 0.0))
        record = "energies" if "layers_only" in workload.options(surrogate) else "points"
        return SimulationConfig(detector=stack.model_copy(update={"record": record}), beam=beam, seed=seed)
    material = workload.material or surrogate.card.designs.material
    return SimulationConfig(detector=Block.holding(material, beam.theta), beam=beam, seed=seed)


def time_geant4(
    surrogate: Surrogate, energies: Sequence[Energy], environment: dict[str, str], repeats: int,
    showers: int | None = None, workload: Workload | None = None, progress: StageProgress = silent,
) -> Geant4Timing:  # fmt: skip
    """Time the simulation that a surrogate stands for.

    Args:
        surrogate: surrogate whose detector is simulated, see `simulation`.
        energies: incident energies, or ranges of them, GeV.
        environment: environment of the kernel, see `calograd.geant4.tables.Tables.environment`.
        repeats: repetitions at each energy, of two kernel processes each.
        showers: showers of a repetition; by default about two seconds' worth.
        workload: material and particles, see `benchmark`.
        progress: called as ``progress(stage, done, total)``.

    Raises:
        SimulationError: Geant4 does not run.
    """
    timings: list[Timing] = []
    startup: Times = ([], [])
    for energy in energies:
        count = showers or max(FEWEST if isinstance(energy, tuple) else 1, round(GEV / _mean(energy)))
        times: Times = ([], [])
        for number in range(repeats):
            progress("Geant4", len(timings) * repeats + number, len(energies) * repeats)
            config = simulation(surrogate, energy, number, workload)
            first, all_of_them = (_time_kernel(config, k, environment) for k in (1, 1 + count))
            for kind in range(2):
                one = (all_of_them[kind] - first[kind]) / count
                times[kind].append(1e3 * one)
                startup[kind].append(first[kind] - one)
        timings.append(Timing("Geant4", energy, count, Spread.of(times[0]), Spread.of(times[1])))
    progress("Geant4", len(energies) * repeats, len(energies) * repeats)
    return Geant4Timing(tuple(timings), max(0.0, median(startup[1])), max(0.0, median(startup[0])))


def children_seconds() -> float:
    """Return the processor seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Stopwatch:
    """A process with one thread that holds a surrogate and times it, a context manager.

    Requests and results are lines of JSON:

        {"energy": 50.0, "batch": 10, "calls": 1, "repeats": 5, "sampler": null, "steps": null}
        {"clock": [...], "processor": [...]}          ms a shower, of every repetition
    """

    def __init__(self, surrogate: Surrogate, workload: Workload | None = None) -> None:
        self.surrogate = surrogate
        self.workload = workload or Workload()
        self._folder = TemporaryDirectory(prefix="calograd-")
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Stopwatch:
        folder = Path(self._folder.name) / "surrogate"
        self.surrogate.save(folder)
        self._process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "calograd.evaluation.timing", str(folder),
                json.dumps(self.workload.to_dict()),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def time(
        self, energy: Energy, batch: int, repeats: int, sampler: str | None = None, steps: int | None = None
    ) -> Timing:
        """Time ``Surrogate.sample``.

        Args:
            energy: incident energy, or a range of which energies are drawn evenly, GeV.
            batch: showers made at once.
            repeats: number of repetitions, after one to warm up.
            sampler, steps: see `Surrogate.sample`.

        Raises:
            CaloGradError: the process ended without a result; its last words are in the message.
        """
        calls = max(1, (SINGLES if batch == 1 else MANY) // batch) if isinstance(energy, tuple) else 1
        job = {"energy": energy, "batch": batch, "calls": calls, "repeats": repeats, "sampler": sampler, "steps": steps}
        stdin, stdout, stderr = (cast(IO[str], each) for each in
                                 (self._process.stdin, self._process.stdout, self._process.stderr))  # fmt: skip
        try:
            stdin.write(json.dumps(job) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        name = self.surrogate.card.name
        if not line:
            words = stderr.read().strip().splitlines() or ["it said nothing"]
            raise CaloGradError(f"timing {name} failed: {words[-1]}")
        found = json.loads(line)
        schedule = self.surrogate.model.sampling_schedule(sampler, steps)
        return Timing(name, energy, batch, Spread.of(found["clock"]), Spread.of(found["processor"]), *schedule[:4])


def _ends(energy: Energy) -> tuple[float, float]:
    """Return an energy twice, or the ends of a range."""
    return energy if isinstance(energy, tuple) else (energy, energy)


def _mean(energy: Energy) -> float:
    """Return an energy, or the mean of a range."""
    return sum(_ends(energy)) / 2


def _possible(surrogate: Surrogate, samplers: Sequence[tuple[str, int | None]]) -> list[tuple[str, int | None]]:
    """Return the samplers that a surrogate can take beside its own; none if it is distilled."""
    found = []
    own = surrogate.model.sampling_schedule()
    for sampler, steps in () if surrogate.model.distilled else samplers:
        try:
            schedule = surrogate.model.sampling_schedule(sampler, steps)
        except InputError:
            continue
        if schedule != own:
            found.append((sampler, steps))
    return found


def _time_kernel(config: SimulationConfig, count: int, environment: dict[str, str]) -> tuple[float, float]:
    """Return wall and processor seconds of a kernel process that makes the first showers."""
    began = time.perf_counter(), children_seconds()
    run_kernel(config, range(count), environment)
    return time.perf_counter() - began[0], children_seconds() - began[1]


def _serve(folder: str, workload: Workload) -> None:
    """Time a surrogate as the lines of standard input ask, until they end."""
    keep_freed_memory()
    torch.set_num_threads(1)
    surrogate = Surrogate.load(folder)
    for line in sys.stdin:
        clock, processor = _time(surrogate, workload, json.loads(line))
        sys.stdout.write(json.dumps({"clock": clock, "processor": processor}) + "\n")
        sys.stdout.flush()


def _time(surrogate: Surrogate, workload: Workload, job: dict[str, Any]) -> Times:
    generator = torch.Generator().manual_seed(0)
    design = workload.design(surrogate) if surrogate.card.takes_design else None
    pitch = float(design.dx) if isinstance(design, Design) else 0.0
    options = workload.options(surrogate)
    batch, calls, energy = job["batch"], job["calls"], job["energy"]
    clock, processor = [], []
    for number in range(job["repeats"] + 1):
        low, high = energy if isinstance(energy, list) else (energy, energy)
        energies = low + (high - low) * torch.rand(calls, batch, generator=generator)
        beams = [workload.draw(pitch, batch, number * calls + k) for k in range(calls)]
        began = time.perf_counter(), time.process_time()
        for each, beam in zip(energies if isinstance(energy, list) else [energy] * calls, beams, strict=True):
            surrogate.sample(
                cast(Any, design), each, batch, generator=generator, sampler=job["sampler"], steps=job["steps"],
                **options, **beam,
            )  # fmt: skip
        if number:  # the first repetition warms up
            clock.append(1e3 * (time.perf_counter() - began[0]) / (calls * batch))
            processor.append(1e3 * (time.process_time() - began[1]) / (calls * batch))
    return clock, processor


if __name__ == "__main__":
    _serve(sys.argv[1], Workload.from_dict(json.loads(sys.argv[2])))
