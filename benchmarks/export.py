"""PyTorch and ONNX Runtime: export.py [MODEL ...] [--material PbF2] [--cells N_XY N_Z].

One thread, 2.5 x 6 cm, 50 GeV photons on the axis, time of the processor, one after the other in one run: medians of
five. "ONNX Runtime" is `OnnxSampler.sample`, with its checks and random numbers; "its run alone" is the call of ONNX
Runtime within, as a program in C++ makes it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from calograd import Design, Material
from calograd.export.runtime import OnnxSampler, run
from calograd.export.write import export
from calograd.surrogate import Surrogate
from calograd.system.memory import keep_freed_memory

BATCHES, REPEAT, SHOWERS = (1, 10, 100, 1000, 4000), 5, 2000


def milliseconds(make: Callable[[int], object], batch: int) -> float:
    """A shower's, in calls of so many."""
    calls = max(1, min(200, SHOWERS // batch))
    began = time.process_time()
    for _ in range(calls):
        make(batch)
    return 1e3 * (time.process_time() - began) / (calls * batch)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=["pbf2-cells-fast"])
    parser.add_argument("--material", default="PbF2")
    parser.add_argument("--cells", nargs=2, type=int, default=(5, 5), metavar=("N_XY", "N_Z"))
    asked = parser.parse_args()
    material, cells = Material.parse(asked.material), tuple(asked.cells)
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| model | " + " | ".join(f"{batch}" for batch in BATCHES) + " |\n" + "|---" * (1 + len(BATCHES)) + "|")
    for model in asked.models:
        surrogate, generator, rng = Surrogate.load(model), torch.Generator().manual_seed(0), np.random.default_rng(0)
        design = Design(2.5, 6.0, material, *cells)
        with TemporaryDirectory() as folder:
            several = len(surrogate.card.designs.materials) > 1
            export(surrogate, Path(folder) / "onnx", cells=cells, material=material if several else None)
            sampler = OnnxSampler.load(Path(folder) / "onnx" / "sampler.onnx")

        def by_torch(n: int) -> object:
            return surrogate.sample(design, 50.0, n, generator=generator)  # noqa: B023

        def by_onnx(n: int) -> object:
            return sampler.sample(50.0, 2.5, 6.0, n, rng)  # noqa: B023

        inputs = {batch: sampler.inputs(50.0, 2.5, 6.0, batch, rng) for batch in BATCHES}

        def by_run(n: int) -> object:
            return run(sampler.session, inputs[n])  # noqa: B023

        for name, make in (("PyTorch", by_torch), ("ONNX Runtime", by_onnx), ("its run alone", by_run)):
            times = []
            for batch in BATCHES:
                milliseconds(make, batch)
                times.append(median(milliseconds(make, batch) for _ in range(REPEAT)))
            print(f"| {surrogate.card.name}, {name} | " + " | ".join(f"{t:.3g}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    main()
