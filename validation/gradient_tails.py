"""Find the generated showers that dominate a gradient: gradient_tails.py [MODEL] [--seeds 100 140] ...

Prints, for every sample, the derivative of (E_tot - E)^2 with respect to ln dz in forward mode, and the shower with the
largest weight in its mean. A shower far from all of Geant4's makes an estimate of a gradient uncertain.
"""

from __future__ import annotations

import argparse
from math import log

import torch

from calograd import Design, Surrogate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="pbf2-cells-fast")
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 140), help="from the first to before the last")
    parser.add_argument("--showers", type=int, default=4000, help="in a sample")
    parser.add_argument("--energy", type=float, default=100.0, help="GeV")
    parser.add_argument("--cell", type=float, nargs=2, default=(2.5, 6.0), help="dx and dz, cm")
    options = parser.parse_args()
    surrogate = Surrogate.load(options.model)
    dx, dz = options.cell
    print("| seed | mean of d (E_tot - E)^2 / d ln dz, GeV2 | without | E_tot, GeV | d E_tot / d ln dz, GeV |")
    print("|---|---|---|---|---|")
    for seed in range(*options.seeds):

        def total(u: torch.Tensor, seed: int = seed) -> torch.Tensor:
            generator = torch.Generator().manual_seed(seed)
            design = Design(dx, u.exp(), surrogate.card.designs.material)
            return surrogate.sample(design, options.energy, options.showers, generator=generator).sum((1, 2, 3))

        energy, slope = torch.func.jvp(total, (torch.tensor(log(dz)),), (torch.ones(()),))
        weight = 2 * (energy - options.energy) * slope
        most = int(weight.abs().argmax())
        without = float(weight.sum() - weight[most]) / (len(weight) - 1)
        print(f"| {seed} | {float(weight.mean()):.2f} | {without:.2f} | {energy[most]:.2f} | {slope[most]:.1f} |")


if __name__ == "__main__":
    main()
