"""Time and memory of a gradient: gradient.py [MODEL].

One thread. Time: a gradient of the squared error with 1 000 showers of 50 GeV against one forward sampling of the same,
alternately in one run, at 2 and 6 parameters. Memory: the peak above what the process holds before, against the number
of steps, with and without checkpoints; each in a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from calograd import Design, Surrogate
from calograd.gradients.autodiff import surrogate_gradient
from calograd.objective.background import ExponentialBackground
from calograd.objective.measurement import Measurement
from calograd.objective.space import space_around
from calograd.objective.utility import Objective, SquaredError

SHOWERS, ENERGY, REPEAT = 1000, 50.0, 5
STEPS = (6, 12, 18, 36, 72)


def resident(name: str) -> float:
    """Memory of this process, MB: VmRSS now, VmHWM at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def gradient(surrogate: Surrogate, depths: object, sampler: str, steps: int, checkpointed: bool) -> float:
    space, at = space_around(2.5, depths, surrogate.card.designs.dx, surrogate.card.designs.dz)
    objective = Objective(Measurement(ExponentialBackground()), SquaredError(truth="incident"), (ENERGY,))
    started = time.perf_counter()
    surrogate_gradient(
        surrogate, objective, space, at, showers=SHOWERS, draws=2, sampler=sampler, steps=steps,
        checkpointed=checkpointed,
    )  # fmt: skip
    return (time.perf_counter() - started) / 2


def main(model: str) -> None:
    surrogate = Surrogate.load(model)
    print(
        "| sampler, steps | forward, s | gradient, 2 parameters, s | ratio | gradient, 6 parameters, s | ratio |\n|"
        + "---|" * 6
    )
    for sampler, steps in (("trigflow-ab2", 12), ("heun", 18), ("ddim", 18)):
        times = np.empty((REPEAT, 3))
        for k in range(REPEAT):
            started = time.perf_counter()
            surrogate.sample(Design(2.5, 6.0), ENERGY, SHOWERS, sampler=sampler, steps=steps)
            times[k, 0] = time.perf_counter() - started
            times[k, 1] = gradient(surrogate, 6.0, sampler, steps, True)
            times[k, 2] = gradient(surrogate, (6.0,) * 5, sampler, steps, True)
        forward, two, six = np.median(times, axis=0)
        gradients = f"{two:.2f} | {two / forward:.1f} | {six:.2f} | {six / forward:.1f}"
        print(f"| {sampler}, {steps} | {forward:.2f} | {gradients} |", flush=True)
    print(
        "\n| sampler | checkpoints | " + " | ".join(f"{s} steps" for s in STEPS) + " |\n|" + "---|" * (2 + len(STEPS))
    )
    for sampler in ("trigflow-ab2", "heun"):
        for checkpointed in (True, False):
            cells = []
            for steps in STEPS if checkpointed else STEPS[:3]:
                command = [sys.executable, __file__, model, "memory", sampler, str(steps), str(int(checkpointed))]
                cells.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() + " MB")
            print(f"| {sampler} | {'yes' if checkpointed else 'no'} | {' | '.join(cells)} |", flush=True)


def memory(model: str, sampler: str, steps: int, checkpointed: bool) -> None:
    surrogate = Surrogate.load(model)
    surrogate.sample(Design(2.5, 6.0), ENERGY, 10)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    gradient(surrogate, 6.0, sampler, steps, checkpointed)
    print(f"{resident('VmHWM') - before:.0f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 2:
        memory(sys.argv[1], sys.argv[3], int(sys.argv[4]), bool(int(sys.argv[5])))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "pbf2-cells")
