"""Compare a design embedded in a large block with the same cells alone in vacuum.

    python validation/embedded_vs_standalone.py -o FOLDER [--showers 10:300 50:80] [--workers 1]

Simulates one large PbF2 block and one block of every design's own size with the same seeds, by ``calograd simulate``
(an interrupted run goes on where it stopped), and prints a table. The difference is stand-alone minus embedded,
relative to embedded, of the means of E_tot and R_E. Its error is given for independent samples and for showers paired
by their seed: up to the first step that meets a boundary, two showers of a pair are the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from calograd.events.binning import segment_deposits
from calograd.events.library.reader import open_library
from calograd.metrics.observables import observe

DESIGNS = ((1.0, 5.0), (2.5, 6.0), (5.0, 15.0))
SEED = 20
COMMAND = [sys.executable, "-c", "from calograd.cli import main; main()", "simulate", "--seed", str(SEED)]


def simulate(path: Path, energy: float, showers: int, workers: int, size: list[str]) -> Path:
    if not path.exists() or path.with_name(f"{path.name}.parts").exists():
        options = ["--energies", f"{energy:g}", "--showers", str(showers), "--workers", str(workers), "-o", str(path)]
        subprocess.run([*COMMAND, *options, *size], check=True)
    return path


def measure(path: Path, dx: float, dz: float) -> dict[str, np.ndarray]:
    with open_library(path) as library:
        cells = np.concatenate([segment_deposits(showers, dx, dz) for showers in library.blocks()])
    seen = observe(cells, dx, np.full((len(cells), 5), dz))
    if seen.excluded:
        raise SystemExit(f"{path}: {seen.excluded} showers without energy; pairs would not match")
    return {"E_tot": seen.E_tot.numpy(), "R_E": seen.R_E.numpy()}


def row(dx: float, dz: float, energy: float, embedded: Path, alone: Path) -> str:
    text = f"| {dx:g} x {dz:g} | {energy:g} |"
    a, b = measure(embedded, dx, dz), measure(alone, dx, dz)
    n = len(a["E_tot"])
    text += f" {n} |"
    for name in ("E_tot", "R_E"):
        mean = a[name].mean()
        shift = 100 * (b[name].mean() - mean) / mean
        unpaired = 100 * np.hypot(a[name].std(ddof=1), b[name].std(ddof=1)) / np.sqrt(n) / mean
        paired = 100 * (b[name] - a[name]).std(ddof=1) / np.sqrt(n) / mean
        text += f" {mean:.4g} | {b[name].mean():.4g} | {shift:+.2f} | {unpaired:.2f} | {paired:.2f} |"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the libraries")
    parser.add_argument("--showers", nargs="+", default=["10:300", "50:80"], help="ENERGY:SHOWERS, GeV")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    for word in arguments.showers:
        energy, showers = float(word.split(":")[0]), int(word.split(":")[1])
        common = (energy, showers, arguments.workers)
        embedded = simulate(arguments.output / f"embedded-{energy:g}.h5", *common, [])
        for dx, dz in DESIGNS:
            size = ["--stand-alone", str(dx), str(dz)]
            alone = simulate(arguments.output / f"alone-{dx:g}x{dz:g}-{energy:g}.h5", *common, size)
            rows.append(row(dx, dz, energy, embedded, alone))
            print(rows[-1], flush=True)
    print("\n| dx x dz, cm | E, GeV | showers | E_tot embedded, GeV | alone | difference, % | +- unpaired | +- paired "
          "| R_E embedded, cm | alone | difference, % | +- unpaired | +- paired |")  # fmt: skip
    print("|" + "---|" * 13)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
