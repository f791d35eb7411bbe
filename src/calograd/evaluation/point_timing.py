"""How long a shower of a layered detector takes, Geant4's and a surrogate's, each on one thread.

Energies are drawn evenly from the range that the first surrogate was trained on. A surrogate's time is that of
`Surrogate.sample`, calibration of counts and energies included, after calls to warm up, in a process of its own
(`calograd.evaluation.stopwatch`); Geant4's is that of `calograd.evaluation.timing`: of processes with few and with many
showers, so that the start-up drops out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from calograd.detector.configuration import Beam, Energies, SimulationConfig, SiWStack
from calograd.evaluation.stopwatch import time_apart
from calograd.evaluation.timing import NEARLY, Spread, children_seconds, machine, short
from calograd.geant4.farm import run_kernel
from calograd.surrogate import Surrogate
from calograd.surrogate.model import SamplingSchedule

BATCHES = (1, 4, 16, 64)
SHOWERS = 40
"""Made for every measurement of a batch of one."""
MANY = 128
"""Likewise of larger ones."""
GEANT4_SHOWERS = 10
HEUN = ("heun", 13)
"""Sampler and steps of CaloClouds II, 25 evaluations (arXiv 2309.05704)."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class CloudTiming:
    """One way to make a shower, ms a shower.

    Args:
        who: ``Geant4`` or the surrogate's name.
        sampler, evaluations: of the points' network.
        batch: showers made at once.
        clock, processor: on the clock and of the processor.
        ratio: Geant4's time of the processor over this; None where it is not known.
    """

    who: str
    sampler: str
    evaluations: int
    batch: int
    clock: Spread
    processor: Spread
    ratio: float | None = None

    @property
    def ratio_text(self) -> str:
        """For tables."""
        return "" if self.ratio is None else short(self.ratio)


@dataclass(frozen=True)
class CloudBenchmark:
    """A whole run: energies in GeV, every timing, what was left out."""

    machine: dict[str, Any]
    energy: tuple[float, float]
    timings: tuple[CloudTiming, ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"schema": "calograd/cloud-benchmark/1", "unit": "ms per shower, one thread"} | asdict(self)


def stack_beam(low: float, high: float, seed: int = 0) -> SimulationConfig:
    """Photons of energies drawn evenly from a range (GeV) along the axis of the silicon-tungsten stack."""
    beam = Beam(energies=Energies(law="uniform", values=(low, high)), upstream=0.1)
    return SimulationConfig(detector=SiWStack(), beam=beam, seed=seed)


def benchmark_clouds(
    surrogates: Sequence[Surrogate],
    environment: dict[str, str] | None,
    *,
    repeats: int,
    showers: int | None = None,
    batches: Sequence[int] = BATCHES,
    note: str = "",
    progress: Progress = lambda stage, done, total: None,  # noqa: ARG005
) -> CloudBenchmark:
    """Time Geant4 and surrogates in one run, one after the other.

    Args:
        surrogates: at least one.
        environment: of Geant4's kernel; None leaves it out.
        repeats: of every measurement.
        showers: of Geant4 in a process.
        batches: that are tried; must hold 1.
        note: why Geant4 is left out.
        progress: called as progress(stage, done, total).
    """
    energy = surrogates[0].card.energy
    timings: list[CloudTiming] = []
    if environment is not None:
        timings.append(_time_geant4(energy, environment, repeats, showers or GEANT4_SHOWERS, progress))
    reference = timings[0].processor.median if timings else None
    for surrogate in surrogates:
        name = surrogate.card.name
        for way in ways(surrogate):
            calls = [(batch, max(1, (SHOWERS if batch == 1 else MANY) // batch)) for batch in batches]
            tried: list[CloudTiming] = []
            progress(name, 0, len(batches))
            for times in time_apart(surrogate, way, energy, calls, repeats):
                clock, processor = map(Spread.of, times)
                ratio = reference / processor.median if reference is not None else None
                batch = batches[len(tried)]
                tried.append(CloudTiming(name, way.sampler, way.evaluations, batch, clock, processor, ratio))
                progress(name, len(tried), len(batches))
            least = min(t.processor.median for t in tried)
            best = min((t for t in tried if t.processor.median <= NEARLY * least), key=lambda t: t.batch)
            timings += [t for t in tried if t.batch == 1 or t is best]
    return CloudBenchmark(machine(), energy, tuple(timings), note)


def ways(surrogate: Surrogate) -> list[SamplingSchedule]:
    """How a surrogate is timed: as it is sampled, and as CaloClouds II samples if it is a diffusion model like that."""
    own = surrogate.model.sampling_schedule()
    architecture = surrogate.card.architecture
    if architecture.get("preconditioning") != "edm" or architecture.get("sampler") in ("consistency", HEUN[0]):
        return [own]
    return [own, surrogate.model.sampling_schedule(*HEUN)]


def _time_geant4(
    energy: tuple[float, float], environment: dict[str, str], repeats: int, showers: int, progress: Progress
) -> CloudTiming:
    """Of processes with many showers, less those with one: the seeds are the same, so the first shower drops out."""
    clock, processor = [], []
    for number in range(repeats):
        progress("Geant4", number, repeats)
        config, seconds = stack_beam(*energy, seed=number), []
        for count in (1, 1 + showers):
            began = time.perf_counter(), children_seconds()
            run_kernel(config, range(count), environment)
            seconds.append((time.perf_counter() - began[0], children_seconds() - began[1]))
        clock.append(1e3 * (seconds[1][0] - seconds[0][0]) / showers)
        processor.append(1e3 * (seconds[1][1] - seconds[0][1]) / showers)
    progress("Geant4", repeats, repeats)
    return CloudTiming("Geant4", "", 0, showers, Spread.of(clock), Spread.of(processor))
