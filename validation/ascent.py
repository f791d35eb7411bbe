"""Simulate the stacks at the start and at the end of an ascent with new showers: ascent.py RUN.json [--showers 3000].

RUN.json is what `calograd optimise ... --json RUN.json` wrote for a stack of two materials. Prints sigma/E of the
visible energy of both with standard errors, and the ratio. Showers are kept in --folder, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from calograd import SamplingDesign, open_plates, simulate
from calograd.metrics.resolution import relative_spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--absorber", default="W")
    parser.add_argument("--active", default="Si")
    parser.add_argument("--particle", default="e-")
    parser.add_argument("--energy", type=float, default=10.0, help="GeV")
    parser.add_argument("--showers", type=int, default=3000, help="of either stack")
    parser.add_argument("--seed", type=int, default=8301, help="of the end; the start has the next one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path())
    asked = parser.parse_args()
    found = json.loads(asked.run.read_text(encoding="utf-8"))
    values = {}
    for name, key, seed in (("start", "start", asked.seed + 1), ("end", "design", asked.seed)):
        absorber, active = (torch.tensor(found[key][kind]) for kind in ("absorber", "active"))
        stack = SamplingDesign(asked.absorber, asked.active, absorber, active, n_layers=len(absorber))
        path = asked.folder / f"{name}.h5"
        simulate(
            path, asked.energy, asked.showers, seed=seed, detector=stack, particle=asked.particle, workers=asked.workers
        )
        with open_plates(path) as library:
            values[name] = relative_spread(library.read().visible)
        print(f"{name}: {100 * values[name][0]:.2f} +- {100 * values[name][1]:.2f} %")
    (before, b), (after, a) = values["start"], values["end"]
    ratio = after / before
    print(f"ratio: {ratio:.3f} +- {ratio * ((a / after) ** 2 + (b / before) ** 2) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
