"""Summarise the tests of the base surrogate of crystals, runs/crystals-tests.sh: crystals.py FOLDER [FOLDER ...].

Prints a table of the points (biases of the means with standard errors, ratios of spreads, position and angle), the
classifiers, and how many limits each group misses.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

MEANS = ("E_tot", "R_E", "sigma_y", "z_mean", "sigma_z")
LIMITS = {"E_tot": 0.001, "R_E": 0.01, "sigma_y": 0.01, "z_mean": 0.01, "sigma_z": 0.01}
"""Largest bias of a mean; at 1 GeV E_tot may be 0.3 % off."""
COUNTED = ("bias", "sigma ratio", "W1 / floor", "position bias", "position resolution", "angular resolution")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", nargs="+", type=Path)
    files = sorted(path for folder in parser.parse_args().folders for path in folder.glob("*.json"))
    results = {path.stem: json.loads(path.read_text()) for path in files}
    heads = (
        "group",
        "dx x dz, cm",
        "E, GeV",
        "showers",
        *(f"{name}, %" for name in MEANS),
        "spreads",
        "position",
        "angle",
    )
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, result in results.items():
        for point in result["points"]:
            print(f"| {' | '.join([name, *row(point)])} |")
    means(results)
    limits(results)
    for name, result in results.items():
        for test in result["classifiers"]:
            print(f"{name}: AUC of {test['features']}, {test['classifier']}: {auc(test['auc'])}")


def row(point: dict[str, Any]) -> list[str]:
    """Return the cells of a point: biases, range of the ratios of spreads, position and angle against Geant4's."""
    quantities = point["quantities"]
    cells = [f"{point['dx']:g} x {point['dz'][0]:g}", f"{point['energy']:g}", str(point["showers"]["reference"])]
    cells += [f"{100 * quantities[m]['bias']:+.2f} +- {100 * quantities[m]['bias_error']:.2f}" for m in MEANS]
    ratios = {m: q["sigma_ratio"] for m, q in quantities.items() if q["sigma_ratio"] is not None and m[:2] != "E_"}
    low, high = min(ratios, key=ratios.__getitem__), max(ratios, key=ratios.__getitem__)
    cells.append(f"{ratios[low]:.2f} ({low}) to {ratios[high]:.2f} ({high})")
    seen = (point.get("reconstruction") or {}).get("cog", {})
    for quantity in ("position", "theta"):
        ratio = seen.get(quantity, {}).get("resolution_ratio")
        cells.append(f"{ratio['value']:.3f} +- {ratio['error']:.3f}" if ratio else "")
    return cells


def means(results: dict[str, Any]) -> None:
    """Print how many means are within their limit, or within two standard errors."""
    for mean in MEANS:
        pulls, good = [], []
        for point in (p for result in results.values() for p in result["points"]):
            of = point["quantities"][mean]
            limit = 0.003 if mean == "E_tot" and point["energy"] <= 1 else LIMITS[mean]
            pulls.append(of["bias"] / of["bias_error"])
            good.append(abs(of["bias"]) <= max(limit, 2 * of["bias_error"]))
        print(f"{mean}: {sum(good)} of {len(good)} within {LIMITS[mean]:.1%} or two standard errors; rms pull "
              f"{np.sqrt(np.mean(np.square(pulls))):.2f}")  # fmt: skip


def limits(results: dict[str, Any]) -> None:
    """Print the tallies of all limits over the groups, and what a perfect generator would keep at these sizes."""
    tallies: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for result in results.values():
        for tally in result["limits"]["tallies"]:
            if tally["kind"] in COUNTED:
                found = tallies[tally["kind"], tally["subject"]]
                for k, key in enumerate(("checked", "passed", "significant", "expected")):
                    found[k] += tally[key]
    kinds: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for (kind, _), found in tallies.items():
        kinds[kind, "all"] = [a + b for a, b in zip(kinds[kind, "all"], found, strict=True)]
    for (kind, subject), (checked, passed, significant, expected) in (tallies | kinds).items():
        kept = f"{passed:.0f} of {checked:.0f} within the limit, a perfect generator {expected:.0f}"
        print(f"{kind}, {subject}: {kept}; {significant:.0f} beyond statistics")


def auc(found: dict[str, Any]) -> str:
    low, high = found.get("low"), found.get("high")
    return f"{found['value']:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None else "")


if __name__ == "__main__":
    main()
