"""Measure how often showers leak as much as very late conversions do: leakage_tail.py LIBRARY [MODEL ...].

A photon that has not interacted on its first t cm is the same photon in front of a calorimeter that is t shorter, so

    P(E_tot < v; depth d)  =  exp(-mu t) P(E_tot < v; depth d - t)  +  P(E_tot < v and it interacted before t)

and where a shower that began before t hardly ever leaks so much, a few hundred showers measured with shorter windows
tell of one in a million. mu is one over the mean of how much later than `LATE` a hundredth of the energy is
reached. The last term is left out: of all t with at least `MIN_SHOWERS` showers below v the smallest is taken. Beside
it stand the rates of generated showers, and the standard errors of both.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from calograd import Design, Surrogate
from calograd.events.library.reader import open_library

MIN_SHOWERS = 20
PARTS = (0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
STEP = 0.1
"""Step between depths, cm."""
LATE = 4.0
"""Depth of a late conversion, cm: only the photon decides if a shower begins so late."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("models", nargs="*", default=["pbf2-cells-fast"])
    parser.add_argument("--energy", type=float, default=100.0, help="GeV")
    parser.add_argument("--cell", type=float, nargs=2, default=(2.5, 6.0), help="dx and dz, cm")
    parser.add_argument("--layers", type=int, default=5, help="and as many cells across")
    parser.add_argument("--showers", type=int, default=1_000_000, help="generated")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mu", type=float, nargs=2, help="and its error, per cm, of more showers than the library's")
    options = parser.parse_args()
    depth = options.layers * options.cell[1]
    edges = np.arange(0, depth + STEP / 2, STEP)
    before, energy = profiles(options.library, options.layers * options.cell[0] / 2, edges)
    mu, error = options.mu or attenuation(before / energy[:, None], edges)
    of = "as given" if options.mu else f"of {len(energy)} showers of 10 GeV or more"
    print(f"mu = {mu:.4f} +- {error:.4f} per cm, {of}")
    parts = before[energy == options.energy] / options.energy
    totals = {name: generated(name, options) for name in options.models}
    print(f"\n| E_tot / E below | t, cm | Geant4, a million | {' | '.join(totals)} |")
    print("|---" * (3 + len(totals)) + "|")
    for part in PARTS:
        low = (parts < part).sum(0)  # showers below, for every depth
        k = int(np.flatnonzero(low >= MIN_SHOWERS)[-1])  # the deepest such window
        t, share = depth - edges[k], low[k] / len(parts)
        rate = np.exp(-mu * t) * share
        relative = np.hypot(np.sqrt((1 - share) / low[k]), t * error)
        cells = [f"{1e6 * rate:.3g} +- {1e6 * rate * relative:.2g}"]
        for total in totals.values():
            n = int((total < part).sum())
            cells.append(f"{1e6 * n / len(total):.3g} +- {1e6 * max(n, 1) ** 0.5 / len(total):.2g}")
        print(f"| {part:.0%} | {t:.1f} | {' | '.join(cells)} |")


def profiles(library: Path, half: float, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the energy before each depth in the window, (n, depths), and incident energies from 10 GeV on, GeV."""
    rows, energies = [], []
    with open_library(library) as opened:
        for block in opened.blocks():
            shower = np.repeat(np.arange(len(block.energy)), np.diff(block.offsets))
            inside = (abs(block.x) < half) & (abs(block.y) < half) & (block.z < edges[-1])
            place = np.clip(np.searchsorted(edges, block.z[inside], side="right"), 1, len(edges) - 1)
            table = np.zeros((len(block.energy), len(edges)))
            np.add.at(table, (shower[inside], place), block.e[inside])
            kept = block.energy >= 10
            rows.append(table.cumsum(1)[kept])
            energies.append(block.energy[kept])
    return np.concatenate(rows), np.concatenate(energies)


def attenuation(part: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """Return the inverse of the mean depth beyond `LATE` that 1 % of the energy reaches, and its error, per cm."""
    reached = edges[(part >= 0.01).argmax(1)] - STEP / 2
    beyond = reached[reached > LATE] - LATE
    return float(1 / beyond.mean()), float(1 / beyond.mean() / len(beyond) ** 0.5)


def generated(name: str, options: argparse.Namespace) -> np.ndarray:
    """Return E_tot / E of generated showers."""
    surrogate = Surrogate.load(name)
    generator = torch.Generator().manual_seed(options.seed)
    design, totals = Design(*options.cell, surrogate.card.designs.material), []
    with torch.inference_mode():
        for first in range(0, options.showers, 4000):
            n = min(4000, options.showers - first)
            totals.append(surrogate.sample(design, options.energy, n, generator=generator).sum((1, 2, 3)))
    return torch.cat(totals).numpy() / options.energy


if __name__ == "__main__":
    main()
