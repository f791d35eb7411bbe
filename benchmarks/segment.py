"""Speed of segmentation on one core, in showers of 50 GeV a second.

    python benchmarks/segment.py [LIBRARY.h5]

Without a library the showers are made up: 88 000 deposits each, as 50 GeV photons leave in PbF2. Deposits are in memory
before the clock starts, and counts from a library are scaled to 50 GeV.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from calograd.events.binning import move_deposits, segment_deposits
from calograd.events.library.reader import open_library
from calograd.events.ragged import Deposits

ENERGY = 50.0
DEPOSITS = 88_000
SHOWERS = 100
ROUNDS = 5


def made_up() -> tuple[Deposits, float]:
    """Deposits of `SHOWERS` showers with offsets, and how many showers of 50 GeV they amount to."""
    rng, n = np.random.default_rng(0), SHOWERS * DEPOSITS
    radius = rng.exponential(1.2, n)
    angle = rng.uniform(0, 2 * np.pi, n)
    places = [
        radius * np.cos(angle),
        radius * np.sin(angle),
        rng.gamma(4.0, 2.0, n),
        rng.exponential(ENERGY / DEPOSITS, n),
    ]
    x, y, z, e = (values.astype(np.float32) for values in places)
    return Deposits(x, y, z, e, np.arange(0, n + 1, DEPOSITS)), float(SHOWERS)


def from_library(path: Path) -> tuple[Deposits, float]:
    """The first showers of a library, at most as many deposits as `made_up` has."""
    with open_library(path) as library:
        stop = max(1, int(np.searchsorted(np.cumsum(library.deposits), SHOWERS * DEPOSITS)))
        showers = library.read(0, min(stop, len(library)))
    return showers, float(showers.energy.sum()) / ENERGY


def main() -> None:
    """Time one design for all showers, a design for each, and showers that are moved and turned off the axis."""
    deposits, showers = from_library(Path(sys.argv[1])) if len(sys.argv) > 1 else made_up()
    n = len(deposits)
    rng = np.random.default_rng(1)
    cases = {
        "one design": (2.5, 6.0),
        "a depth a layer": (2.5, np.array([4.0, 5.0, 6.0, 8.0, 10.0])),
        "a design a shower": (rng.uniform(1, 5, n), np.repeat(rng.uniform(4, 15, (n, 1)), 5, axis=1)),
    }
    print(f"{_processor()}, {os.cpu_count()} cores, numpy {np.__version__}, python {platform.python_version()}")
    print(f"{len(deposits.e)} deposits, {showers:.1f} showers of {ENERGY:.0f} GeV; best of {ROUNDS}, one thread")
    for name, (dx, dz) in cases.items():
        report(name, showers, lambda dx=dx, dz=dz: segment_deposits(deposits, dx, dz))
    (dx, dz), entry = cases["a design a shower"], rng.uniform(-1, 1, (n, 2))
    windows, turn = rng.integers(-1, 2, (n, 5, 2)), rng.uniform(0, 360, n)

    def off_the_axis() -> None:
        moved = move_deposits(deposits, np.zeros((n, 2)), entry, turn)
        segment_deposits(moved, dx, dz, 7, 5, windows)

    report("off the axis", showers, off_the_axis)


def report(name: str, showers: float, work: Callable[[], object]) -> None:
    """Print how many showers a second some work does."""
    best = np.inf
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    print(f"{name:>18}: {showers / best:6.0f} showers of {ENERGY:.0f} GeV a second")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
