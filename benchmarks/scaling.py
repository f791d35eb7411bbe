"""Scaling of `calograd simulate`: costs measured on this machine, and a simulated run of up to 1 000 workers.

    python benchmarks/scaling.py [--energies 1:100] [--showers 100000 1000000] [--per-gev SECONDS]

Measured: the start of a kernel and the time of a shower in it; what a task costs the scheduler and the one process that
takes results; the bytes of a shower; and how long the one writer takes with them, while the run goes on (a part is
written and synchronised) and when it ends (parts are joined). The scaling is a simulation of events: no machine of
1 000 cores was at hand. In it workers simulate chunks of the size that `calograd.geant4.farm.plan` gives, two of
which wait at each, and results are taken one at a time; workers are equal, never fail, and the network adds nothing to
what a task costs here.
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig
from calograd.detector.material import MATERIALS
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.ragged import Showers
from calograd.geant4.farm import BACKLOG, open_cluster, plan, run_kernel
from calograd.geant4.tables import find_tables

WORKERS = (1, 10, 30, 100, 300, 1000)
FEW, MANY = 2, 22
"""Showers of the two kernels that start and time of a shower follow from."""
SIZES = (1 << 16, 1 << 24)
"""Bytes of results and of parts that costs follow from."""


@dataclass(frozen=True)
class Costs:
    """Measured costs in seconds, and bytes.

    Attributes:
        start: start of a kernel process.
        per_gev: processor time of a kernel for a GeV.
        bytes_per_gev: size of a packed chunk for a GeV.
        task, moved: time of the process that takes results and of its scheduler, for a task and for a byte.
        part, written: time of the writer for a part and for a byte of it, on the disk.
        joined: processor time for a byte when the run ends.
    """

    start: float
    per_gev: float
    bytes_per_gev: float
    task: float
    moved: float
    part: float
    written: float
    joined: float

    @property
    def taken(self) -> float:
        """Seconds that a byte of results takes the one process that takes and writes them."""
        return self.moved + self.written


def config_of(energies: str) -> SimulationConfig:
    """Photons with energies from LOW to HIGH, log-uniform, in the large block of PbF2."""
    low, high = (float(word) for word in energies.split(":"))
    beam = Beam(energies=Energies(law="log-uniform", values=(low, high)))
    return SimulationConfig(detector=Block(material=MATERIALS["PbF2"]), beam=beam, seed=1)


def nothing(payload: bytes) -> bytes:
    """A task that simulates nothing and returns as much as a chunk does."""
    return payload


def line(seconds: dict[int, float]) -> tuple[float, float]:
    """Return the constant part and the cost of a byte, from the seconds of two sizes in bytes."""
    (small, first), (large, then) = sorted(seconds.items())
    slope = max(0.0, (then - first) / (large - small))
    return max(0.0, first - slope * small), slope


def disk() -> tuple[float, float]:
    """Return the seconds until a file is on the disk, for any file and for a byte; the least of some tries."""
    found = {}
    with tempfile.TemporaryDirectory(prefix="calograd-", dir=Path.cwd()) as folder:
        for size in SIZES:
            tries = []
            for _ in range(5):
                with (Path(folder) / "part").open("wb") as file:
                    file.write(os.urandom(size))
                    file.flush()
                    started = time.perf_counter()
                    os.fsync(file.fileno())
                    tries.append(time.perf_counter() - started)
            found[size] = min(tries)
    return line(found)


def tasks() -> tuple[float, float]:
    """Return the processor seconds of client and scheduler, for a task and for a byte of its result."""
    found = {}
    with open_cluster(1, None) as client:
        client.submit(bytes, 1, pure=False).result()
        for size, count in zip(SIZES, (100, 10), strict=True):
            started = time.process_time()
            for future in [client.submit(bytes, size, pure=False) for _ in range(count)]:
                future.result()
            found[size] = (time.process_time() - started) / count
    return line(found)


def writer(small: Showers, large: Showers) -> tuple[float, float, float]:
    """Return the processor seconds for a part, for a byte of it, and for a byte when parts are joined."""
    provenance = Provenance(config_of("1:100"), "", "")
    found, joined, parts = {}, 0.0, 6
    for showers in (small, large):
        images = [
            pack(replace(showers, index=showers.index + k * len(showers)), provenance) for k in range(parts)
        ]  # fmt: skip
        with (
            tempfile.TemporaryDirectory(prefix="calograd-") as folder,
            open_writer(Path(folder) / "library.h5", provenance, parts * len(showers)) as library,
        ):
            started = time.process_time()
            for image in images:
                library.add(image)
            found[len(images[0])] = (time.process_time() - started) / parts
            started = time.process_time()
            library.finish(lambda done, total: None, threads=1)  # noqa: ARG005
            joined = (time.process_time() - started) / sum(map(len, images))
    return *line(found), joined


def measure(config: SimulationConfig) -> Costs:
    """Return the costs of this machine."""
    environment = find_tables().environment(os.environ)
    ten = Energies(law="discrete", values=(10.0,))
    ten_gev = config.model_copy(update={"beam": config.beam.model_copy(update={"energies": ten})})
    used, made = [], []
    for count in (FEW, MANY):
        before = os.times()
        made.append(run_kernel(ten_gev, range(count), environment))
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    per_shower = (used[1] - used[0]) / (MANY - FEW)
    size = len(pack(made[1], Provenance(config, "", "")))
    (task, moved), (part, byte, joined), (synchronised, on_disk) = tasks(), writer(*made), disk()
    return Costs(
        start=max(0.0, used[0] - FEW * per_shower), per_gev=per_shower / 10, bytes_per_gev=size / (10 * MANY),
        task=task, moved=moved, part=part + synchronised, written=byte + on_disk, joined=joined,
    )  # fmt: skip


def simulated(costs: Costs, config: SimulationConfig, showers: int, workers: int) -> dict[str, float]:
    """Return wall time, speed, efficiency and the busy share of the writer for a run with a number of workers."""
    gev = config.beam.energies.mean
    waiting = [len(chunk) * gev for chunk in plan(config, [range(showers)], workers)]
    waiting.reverse()
    busy = 0.0
    queues = [[waiting.pop() for _ in range(BACKLOG) if waiting] for _ in range(workers)]
    free = [0.0] * workers  # when a worker ends what it does
    finished: list[tuple[float, int, float]] = []  # when a chunk is there to be taken, by whom, GeV

    def begin(worker: int, now: float) -> None:
        if queues[worker]:
            chunk = queues[worker].pop(0)
            free[worker] = max(now, free[worker]) + costs.start + chunk * costs.per_gev
            heapq.heappush(finished, (free[worker], worker, chunk))

    for worker in range(workers):
        begin(worker, 0.0)
    taken = 0.0  # when the process that takes results is free again
    while finished:
        done, worker, chunk = heapq.heappop(finished)
        begin(worker, done)
        took = costs.task + costs.part + chunk * costs.bytes_per_gev * costs.taken
        taken, busy = max(taken, done) + took, busy + took
        if waiting:  # a chunk is sent for the one that was taken
            queues[worker].append(waiting.pop())
            if free[worker] <= taken and len(queues[worker]) == 1:
                begin(worker, taken)
    total = showers * gev * costs.per_gev
    return {
        "seconds": taken, "speed": total / taken, "efficiency": total / taken / workers, "writer": busy / taken,
        "join": showers * gev * costs.bytes_per_gev * costs.joined,
    }  # fmt: skip


def main() -> None:
    """Measure, simulate, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--energies", default="1:100", help="GeV, log-uniform. [1:100]")
    parser.add_argument("--showers", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--per-gev", type=float, help="Core seconds a GeV instead of those measured.")
    asked = parser.parse_args()
    config = config_of(asked.energies)
    costs = measure(config)
    print(f"measured: kernel start {costs.start:.2f} s, simulation {1e3 * costs.per_gev:.2f} ms a GeV")
    print(f"measured: results of {costs.bytes_per_gev / 1e3:.2f} kB a GeV")
    print(f"measured: a task {1e3 * costs.task:.2f} ms and {1e9 * costs.moved:.2f} ms a MB")
    print(f"measured: a part {1e3 * costs.part:.2f} ms and {1e9 * costs.written:.2f} ms a MB")
    print(f"measured: joining {1e9 * costs.joined:.2f} ms of the processor a MB")
    rate = costs.per_gev / (costs.bytes_per_gev * costs.taken)
    print(f"one process takes {1e-6 / costs.taken:.0f} MB/s, as much as {rate:.0f} workers make")
    if asked.per_gev is not None:
        costs = Costs(**{**vars(costs), "per_gev": asked.per_gev})
    for showers in asked.showers:
        print(f"simulated: {showers} showers of {asked.energies} GeV, {config.beam.energies.mean:.1f} GeV in the mean")
        print("| workers | chunks | wall time, s | speed-up | efficiency | writer busy | joining, core s |")
        print("|---|---|---|---|---|---|---|")
        for workers in WORKERS:
            chunks = len(plan(config, [range(showers)], workers))
            made = simulated(costs, config, showers, workers)
            print(
                f"| {workers} | {chunks} | {made['seconds']:.0f} | {made['speed']:.1f} | "
                f"{100 * made['efficiency']:.0f} % | {100 * made['writer']:.1f} % | {made['join']:.0f} |"
            )


if __name__ == "__main__":
    main()
