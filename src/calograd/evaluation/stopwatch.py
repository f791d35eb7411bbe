"""A surrogate of points timed in a process of its own: ``python -m calograd.evaluation.stopwatch``.

Surrogates leave the memory of their process in pieces, and one that is timed behind others takes up to half as long
again. So each has a process, as it would have for itself. The job comes as a line of JSON, and so does every result:

    {"folder": "...", "sampler": "consistency", "steps": 1, "energy": [10, 90], "batches": [[1, 40], ...], "repeats": 5}
    {"clock": [...], "processor": [...]}                            ms a shower, of every repetition
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from calograd.errors import CaloGradError
from calograd.surrogate import Surrogate
from calograd.surrogate.model import SamplingSchedule
from calograd.system.memory import keep_freed_memory

Times = tuple[list[float], list[float]]
"""On the clock and of the processor, ms a shower."""


def time_apart(
    surrogate: Surrogate,
    walk: SamplingSchedule,
    energy: tuple[float, float],
    batches: Sequence[tuple[int, int]],
    repeats: int,
) -> Iterator[Times]:
    """Times of showers of energies drawn evenly, in a process with one thread.

    Args:
        surrogate: what is timed.
        walk: how it samples.
        energy: range of incident energies, GeV.
        batches: showers made at once, and calls.
        repeats: of every measurement, after one to warm up.

    Yields:
        For every batch the times of all repetitions.

    Raises:
        CaloGradError: the process ended without a result; its last words are in it.
    """
    with TemporaryDirectory(prefix="calograd-") as folder:
        surrogate.save(Path(folder) / "surrogate")
        job = {
            "folder": str(Path(folder) / "surrogate"), "sampler": walk.sampler, "steps": walk.steps, "energy": energy,
            "batches": batches, "repeats": repeats,
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "calograd.evaluation.stopwatch"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.close()
                for _ in batches:
                    line = process.stdout.readline()
                    if not line:
                        words = process.stderr.read().strip().splitlines() or ["it said nothing"]
                        raise CaloGradError(f"timing {surrogate.card.name} failed: {words[-1]}")
                    result = json.loads(line)
                    yield result["clock"], result["processor"]
            finally:
                process.kill()


def main() -> None:
    """Do the job that comes."""
    job: dict[str, Any] = json.loads(sys.stdin.readline())
    keep_freed_memory()
    torch.set_num_threads(1)
    surrogate = Surrogate.load(job["folder"])
    for batch, calls in job["batches"]:
        clock, processor = _time(surrogate, job, batch, calls)
        sys.stdout.write(json.dumps({"clock": clock, "processor": processor}) + "\n")
        sys.stdout.flush()


def _time(surrogate: Surrogate, job: dict[str, Any], batch: int, calls: int) -> Times:
    generator = torch.Generator().manual_seed(0)
    low, high = job["energy"]
    clock, processor = [], []
    for number in range(job["repeats"] + 1):
        incident = low + (high - low) * torch.rand(calls, batch, generator=generator)
        began = time.perf_counter(), time.process_time()
        for energies in incident:
            surrogate.sample(energies, batch, generator=generator, sampler=job["sampler"], steps=job["steps"])
        if number:  # the first warms up
            clock.append(1e3 * (time.perf_counter() - began[0]) / (calls * batch))
            processor.append(1e3 * (time.process_time() - began[1]) / (calls * batch))
    return clock, processor


if __name__ == "__main__":
    main()
