"""Compare how often photons convert late in Geant4 and in the surrogate: late_conversions.py reference.h5 [MODEL].

A late shower leaves little in the first layer. For every design of the reference, all energies from 10 GeV up together,
it prints the share of showers whose first layer holds less than some part of E_tot, with binomial errors; ten showers
are generated for each of Geant4's.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from calograd import Design, Surrogate
from calograd.events.dense import read_cells

REPEAT = 10
PARTS = (0.01, 0.03, 0.1)


def first_layer_part(cells: np.ndarray) -> np.ndarray:
    layers = cells.sum((1, 2))
    return layers[:, 0] / layers.sum(1)


def main() -> None:
    reference = read_cells(Path(sys.argv[1]))
    surrogate = Surrogate.load(sys.argv[2] if len(sys.argv) > 2 else "pbf2-cells")
    reference = reference.rows(reference.energy >= 10)
    generator = torch.Generator().manual_seed(3)
    print("| cell, cm | first layer below | Geant4, % | generated, % | difference / error |")
    print("|---|---|---|---|---|")
    sizes = np.unique(np.column_stack([reference.dx, reference.dz[:, 0]]), axis=0)
    for dx, dz in sizes:
        rows = reference.rows((reference.dx == dx) & (reference.dz[:, 0] == dz))
        energy = torch.from_numpy(np.repeat(rows.energy, REPEAT))
        made = surrogate.sample(Design(float(dx), float(dz)), energy, len(energy), generator=generator).numpy()
        theirs, ours = first_layer_part(rows.cells), first_layer_part(made)
        for part in PARTS:
            p, q = (theirs < part).mean(), (ours < part).mean()
            if p * len(theirs) < 5:
                continue
            errors = np.sqrt([p * (1 - p) / len(theirs), q * (1 - q) / len(ours)])
            print(
                f"| {dx:g} x {dz:g} | {part:.0%} | {100 * p:.2f} +- {100 * errors[0]:.2f} "
                f"| {100 * q:.2f} +- {100 * errors[1]:.2f} | {(q - p) / np.hypot(*errors):+.1f} |"
            )


if __name__ == "__main__":
    main()
