"""Response time of the explorer: explore.py [CHANGES].

Changes the pitch by keys in a headless Chromium, and times from the key to the frame that shows the showers of the new
design: browser, connection, preview and back, as while a slider moves (nothing is refined in between). Beside it the
processor's time of a preview, and of server and browser together for a change (Linux): these hardly depend on what
else the machine does.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from calograd import Surrogate
from calograd.explorer.views import Explorer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.browser import CHROMIUM, opened, respond, served

REPEAT = 30


def preview_alone(explorer: Explorer) -> np.ndarray:
    """Wall and processor's milliseconds of previews at changing pitches, shape (n, 2)."""
    times = np.empty((REPEAT, 2))
    for k in range(REPEAT):
        selection = replace(explorer.start(), dx=2.0 + 0.05 * k)
        began = time.perf_counter(), time.process_time()
        explorer.kind.event(explorer.preview(selection), 0)
        times[k] = 1e3 * (time.perf_counter() - began[0]), 1e3 * (time.process_time() - began[1])
    return times


def spent(parent: int) -> float:
    """Processor's milliseconds of the processes below one, so far."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            words = path.read_text(encoding="utf-8").rsplit(")", 1)[1].split()
            stats[int(path.parent.name)] = int(words[1]), int(words[11]) + int(words[12])
    family, total = {parent}, 0
    for process, (above, ticks) in sorted(stats.items()):
        if above in family:
            family.add(process)
            total += ticks
    return 1e3 * total / os.sysconf("SC_CLK_TCK")


def row(name: str, times: np.ndarray) -> str:
    low, middle, high = np.quantile(times, (0.1, 0.5, 0.9))
    return f"| {name} | {low:.0f} | {middle:.0f} | {high:.0f} |"


def main(changes: int) -> None:
    explorer = Explorer(Surrogate.load("pbf2-cells"))
    explorer.preview(explorer.start())
    times = preview_alone(explorer)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}\n\n| ms | 10 % | median | 90 % |\n|---|---|---|---|")
    print(row("preview, processor", times[:, 1]))
    print(row("preview, wall", times[:, 0]), flush=True)
    if CHROMIUM is None:
        print("no Chromium is installed: the page is left out")
        return
    with served(settle=600) as (address, _), opened(address) as (page, _):
        respond(page, 0)
        before = spent(os.getpid())
        found = [respond(page, 0, "ArrowRight" if k % 40 < 20 else "ArrowLeft") for k in range(changes)]
        used = (spent(os.getpid()) - before) / changes
    print(row("key to page, wall", np.array(found)))
    print(f"\nserver and browser together: {used:.0f} ms of the processor for a change")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
