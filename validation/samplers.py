"""Measure the samplers' own error on a surrogate: samplers.py [MODEL].

Every sampler starts from the same noise; the truth is the angle sampler with 100 steps. Printed are the ratios of
mean and standard deviation of some observables to the truth's, 2000 showers of 50 GeV and of 1 GeV in 2.5 x 6 cm, and
the evaluations of the pattern's network. Equal noise makes these ratios far more precise than the samples' spread.
"""

from __future__ import annotations

import sys

import torch

from calograd import Design, Surrogate
from calograd.diffusion.samplers import SAMPLERS
from calograd.metrics.observables import observe

CASES = [
    ("trigflow-ab2", 4), ("trigflow-ab2", 8), ("trigflow-ab2", 12), ("trigflow-ab2", 24),
    ("dpmpp-2m", 12), ("dpmpp-2m", 18), ("heun", 6),
    ("heun", 18), ("ddim", 12), ("ddim", 50),
]  # fmt: skip
SHOWERS = 2000
NAMES = ("E_tot", "R_E", "z_mean", "occupancy")


def main() -> None:
    surrogate = Surrogate.load(sys.argv[1] if len(sys.argv) > 1 else "pbf2-cells")
    design = Design(2.5, 6.0)
    for energy in (50.0, 1.0):

        def observed(sampler: str, steps: int, energy: float = energy) -> dict[str, torch.Tensor]:
            generator = torch.Generator().manual_seed(1)
            cells = surrogate.sample(design, energy, SHOWERS, generator=generator, sampler=sampler, steps=steps)
            seen = observe(cells, 2.5, 6.0)
            return {name: torch.as_tensor(getattr(seen, name)).double() for name in NAMES}

        truth = observed("trigflow-ab2", 100)
        print(f"\n{energy:g} GeV: mean / spread relative to 100 steps\n")
        print(f"| sampler | steps | evaluations | {' | '.join(NAMES)} |\n|{'---|' * (3 + len(NAMES))}")
        for name, steps in CASES:
            seen = observed(name, steps)
            ratios = [f"{seen[o].mean() / truth[o].mean():.4f} / {seen[o].std() / truth[o].std():.3f}" for o in NAMES]
            print(f"| {name} | {steps} | {SAMPLERS[name].nfe(steps)} | {' | '.join(ratios)} |")


if __name__ == "__main__":
    main()
