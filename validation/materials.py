"""Print the biases of a surrogate's means in several materials: materials.py MODEL MATERIAL-test-cells.h5 [...].

Files of showers that no training has seen (runs/materials.sh makes them); for each of Geant4's REPEAT are generated. A
material that the surrogate was not trained on is asked for all the same. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from calograd import Surrogate
from calograd.evaluation import mean_biases
from calograd.events.dense import read_cells
from calograd.surrogate.generation import generate

SHOWN = ("E_tot", "R_E", "sigma_y", "z_mean")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--seed", type=int, default=100, help="of the first file, one more for each other")
    options = parser.parse_args()
    surrogate = Surrogate.load(options.model)
    print(f"| material | cells, cm | E, GeV | {' | '.join(f'{name}, %' for name in SHOWN)} |")
    print("|---" * (3 + len(SHOWN)) + "|")
    for number, path in enumerate(options.files):
        cells = read_cells(path)
        energy, dx, dz = (np.repeat(c, options.repeat, axis=0) for c in (cells.energy, cells.dx, cells.dz))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a material that was not trained on
            made = generate(
                surrogate, energy, dx, dz, material=cells.material, seed=options.seed + number, extrapolate=True
            )
        for point, found in mean_biases(made, cells).items():
            biases = (f"{100 * found[name][0]:+.2f} +- {100 * found[name][1]:.2f}" for name in SHOWN)
            size = f"{point.design.dx:.3g} x {point.design.dz[0]:.3g}"
            print(f"| {cells.material.name} | {size} | {point.energy:g} | {' | '.join(biases)} |", flush=True)


if __name__ == "__main__":
    main()
