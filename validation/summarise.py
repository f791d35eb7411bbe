"""Print the table of fidelity from the JSON of 'calograd evaluate': summarise.py evaluation.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

OBSERVABLES = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z")


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    head = [
        "observable",
        "bias at 1 GeV, %",
        "from 10 GeV, %",
        "largest there, %",
        "spread ratio (16 to 84 %)",
        "W1 / floor",
    ]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in OBSERVABLES:
        rows = [(p["energy"], p["quantities"][name]) for p in result["points"]]
        cells = [_mean([q for e, q in rows if e < 10]), _mean([q for e, q in rows if e >= 10])]
        worst = max((q for e, q in rows if e >= 10), key=lambda q: abs(q["bias"]))
        cells.append(f"{100 * worst['bias']:+.2f} +- {100 * worst['bias_error']:.2f}")
        spread = np.percentile([q["sigma_ratio"] for _, q in rows], [50, 16, 84])
        cells.append(f"{spread[0]:.2f} ({spread[1]:.2f} to {spread[2]:.2f})")
        cells.append(f"{np.median([q['w1_over_floor'] for _, q in rows]):.2f}")
        print(f"| {name} | {' | '.join(cells)} |")


def _mean(quantities: list[dict[str, float]]) -> str:
    """Return the mean bias over points and the root mean square of single points."""
    values = 100 * np.array([q["bias"] for q in quantities])
    return f"{values.mean():+.2f} (rms {np.sqrt((values**2).mean()):.2f})"


if __name__ == "__main__":
    main()
