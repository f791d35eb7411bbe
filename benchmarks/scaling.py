"""How `calograd simulate` scales: costs measured on this machine, and a simulation of up to 1 000 workers with them.

    python benchmarks/scaling.py [--energies 1:100] [--showers 100000] [--core-seconds S_PER_GEV]

Measured: the start of a kernel and the time of a shower in it; what a task costs the scheduler and the one process that
takes results; the bytes of a shower; and how long the one writer takes with them, while the run goes on (a part is
written and synchronised) and when it ends (parts are joined). The scaling is a simulation of events: no machine of
1 000 cores was at hand. In it workers simulate chunks of the size that `calograd.simulation.farm.plan` gives, two of
which wait at each, and results are taken one at a time; workers are equal, never fail, and the network adds nothing to
what a task costs here.
"""

from __future__ import annotations

import argparse
import heapq
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from calograd.material import MATERIALS
from calograd.showers.layout import Provenance, pack
from calograd.showers.writer import open_writer
from calograd.simulation.config import Beam, Block, Energies, MaterialRecord, SimulationConfig
from calograd.simulation.farm import BACKLOG, mean_energy, open_cluster, plan, run_kernel
from calograd.simulation.tables import find_tables

WORKERS = (1, 10, 30, 100, 300, 1000)
FEW, MANY = 2, 22
"""Showers of the two kernels that start and time of a shower follow from."""
TASKS = 200


@dataclass(frozen=True)
class Costs:
    """What was measured, seconds and bytes.

    Attributes:
        start: of a kernel process.
        per_gev: of the processor in a kernel, a GeV.
        task: of the process that takes results, a task.
        bytes_per_gev: of a packed chunk.
        write: of the writer, a byte of a part while the run goes on.
        part: of the writer, a part, whatever its size; with the disk's time for it.
        join: of the writer, a byte, when the run ends.
    """

    start: float
    per_gev: float
    task: float
    bytes_per_gev: float
    write: float
    part: float
    join: float


def config_of(energies: str) -> SimulationConfig:
    """Photons with energies from LOW to HIGH, log-uniform, in the large block of PbF2."""
    low, high = (float(word) for word in energies.split(":"))
    record = MaterialRecord(**MATERIALS["PbF2"].to_dict())
    beam = Beam(energies=Energies(law="log-uniform", values=(low, high)))
    return SimulationConfig(detector=Block(material=record), beam=beam, seed=1)


def nothing(payload: bytes) -> bytes:
    """A task that simulates nothing and returns as much as a chunk does."""
    return payload


def disk(image: bytes) -> float:
    """Seconds until a part is on the disk, the least of some."""
    found = []
    with tempfile.TemporaryDirectory(prefix="calograd-") as folder:
        for number in range(10):
            with (Path(folder) / str(number)).open("wb") as file:
                file.write(image)
                file.flush()
                started = time.perf_counter()
                os.fsync(file.fileno())
                found.append(time.perf_counter() - started)
    return min(found)


def measure(config: SimulationConfig) -> Costs:
    """The costs of this machine, while it does whatever else it does."""
    environment = find_tables().environment(os.environ)
    ten = config.model_copy(
        update={"beam": config.beam.model_copy(update={"energies": Energies(law="discrete", values=(10.0,))})}
    )
    used = []
    for count in (FEW, MANY):
        before = os.times()
        showers = run_kernel(ten, range(count), environment)
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    per_shower = (used[1] - used[0]) / (MANY - FEW)
    provenance = Provenance(ten, "", "")
    image = pack(showers, provenance)
    with open_cluster(1, None) as client:
        client.submit(nothing, b"", pure=False).result()
        before_task = time.process_time()
        futures = [client.submit(nothing, image[: 1 << 20], pure=False) for _ in range(TASKS)]
        for future in futures:
            future.result()
        task = (time.process_time() - before_task) / TASKS
    seconds = {}
    small = run_kernel(ten, range(1), environment)
    with tempfile.TemporaryDirectory(prefix="calograd-") as folder:
        for name, each in (("small", small), ("large", showers)):
            parts, n = 8, len(each)
            moved = [_renumbered(each, k * n) for k in range(parts)]
            with open_writer(Path(folder) / f"{name}.h5", provenance, parts * n) as writer:
                images = [pack(part, provenance) for part in moved]
                started = time.process_time()
                for part in images:
                    writer.add(part)
                seconds[name] = (time.process_time() - started) / parts
                started = time.process_time()
                writer.finish(lambda done, total: None, threads=1)  # noqa: ARG005
                seconds[f"join {name}"] = (time.process_time() - started) / parts
    little = len(pack(small, provenance))
    write = (seconds["large"] - seconds["small"]) / (len(image) - little)
    return Costs(
        start=max(0.0, used[0] - FEW * per_shower), per_gev=per_shower / 10, task=task,
        bytes_per_gev=len(image) / (10 * MANY), write=max(0.0, write),
        part=max(0.0, seconds["small"] - write * little) + disk(image), join=seconds["join large"] / len(image),
    )  # fmt: skip


def _renumbered(showers, first):  # type: ignore[no-untyped-def]
    """The same showers under other indices."""
    return type(showers)(**{**vars(showers), "index": showers.index + first})


def simulated(costs: Costs, config: SimulationConfig, showers: int, workers: int) -> dict[str, float]:
    """The run of so many workers: its wall time, and shares of it that workers simulate and the writer is busy."""
    gev = mean_energy(config)
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
        took = costs.task + costs.part + chunk * costs.bytes_per_gev * costs.write
        taken, busy = max(taken, done) + took, busy + took
        if waiting:  # a chunk is sent for the one that was taken
            queues[worker].append(waiting.pop())
            if free[worker] <= taken and len(queues[worker]) == 1:
                begin(worker, taken)
    total = showers * gev * costs.per_gev
    return {
        "seconds": taken, "speed": total / taken, "efficiency": total / taken / workers, "writer": busy / taken,
        "join": showers * gev * costs.bytes_per_gev * costs.join,
    }  # fmt: skip


def main() -> None:
    """Measure, simulate, print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--energies", default="1:100", help="GeV, log-uniform. [1:100]")
    parser.add_argument("--showers", type=int, default=100_000)
    parser.add_argument("--per-gev", type=float, help="Core seconds a GeV instead of those measured.")
    asked = parser.parse_args()
    config = config_of(asked.energies)
    costs = measure(config)
    print(f"measured: kernel start {costs.start:.2f} s, simulation {1e3 * costs.per_gev:.2f} ms a GeV")
    print(f"measured: a task {1e3 * costs.task:.2f} ms, {costs.bytes_per_gev / 1e3:.2f} kB a GeV")
    print(
        f"measured: a part {1e3 * costs.part:.2f} ms and {1e9 * costs.write:.2f} ms a MB, "
        f"joining {1e9 * costs.join:.2f} ms a MB"
    )
    if asked.per_gev is not None:
        costs = Costs(**{**vars(costs), "per_gev": asked.per_gev})
    print(f"simulated: {asked.showers} showers of {asked.energies} GeV, {mean_energy(config):.1f} GeV in the mean")
    print("| workers | chunks | wall time, s | speed-up | efficiency | writer busy | joining, s |")
    print("|---|---|---|---|---|---|---|")
    for workers in WORKERS:
        chunks = len(plan(config, [range(asked.showers)], workers))
        made = simulated(costs, config, asked.showers, workers)
        print(
            f"| {workers} | {chunks} | {made['seconds']:.0f} | {made['speed']:.1f} | "
            f"{100 * made['efficiency']:.0f} % | {100 * made['writer']:.1f} % | {made['join']:.0f} |"
        )


if __name__ == "__main__":
    main()
