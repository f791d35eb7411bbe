"""Summarise the tests of the base surrogate of stacks, runs/sampling-tests.sh: sampling.py FOLDER [FOLDER ...].

Prints a table of the points (means and resolution over Geant4's with standard errors, the share of layers whose W1 is
within three floors, classifiers), one of their deposits where these were recorded (RECORD=points), and how many
limits of each kind are kept.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

QUANTITIES = ("E_vis/E_inc", "E_dep/E_inc", "depth_mean", "depth_spread")
"""Quantities whose means are compared."""
OF_DEPOSITS = ("R_E", "N_hits")
"""Quantities of deposits, whose means and spreads are compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    files = sorted(path for folder in parser.parse_args().folders for path in folder.glob("*.json"))
    results = {path.stem: json.loads(path.read_text()) for path in files}
    heads = (
        "point", "showers", "E_vis, %", "E_dep, %", "mean depth, %", "spread of the depth, %", "resolution",
        "layers within 3 floors", "AUC",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, result in sorted(results.items(), key=lambda item: (item[0].rpartition("-")[2], item[0])):
        print(f"| {' | '.join([name, *row(result)])} |")
    recorded = {name: each for name, each in results.items() if deposits_of(each)}
    if recorded:
        heads = ("point", "R_E, %", "spread of R_E", "hits, %", "spread of the hits")
        print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        for name, result in sorted(recorded.items(), key=lambda item: (item[0].rpartition("-")[2], item[0])):
            print(f"| {' | '.join([name, *deposits_of(result)])} |")
    tallies: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for result in results.values():
        for check in result["limits"]["checks"]:
            of = tallies[f"{check['kind']} of {check['subject']}"]
            for place, value in enumerate((check["passed"], 1, check["chance"], check["significant"])):
                of[place] += value
    for name, (kept, all_, chance, beyond) in tallies.items():
        print(
            f"{name}: {kept:.0f} of {all_:.0f} kept; a perfect generator {chance:.1f}; {beyond:.0f} beyond statistics"
        )


def deposits_of(result: dict[str, Any]) -> list[str]:
    """Return the cells of a point's deposits; none if they were not recorded."""
    moments = {each["name"]: each for each in result["points"][0]["moments"]}
    cells = []
    for name in OF_DEPOSITS:
        if name in moments:
            of = moments[name]
            cells.append(f"{100 * (of['mean_ratio'] - 1):+.2f} +- {100 * of['mean_error']:.2f}")
            cells.append(f"{of['spread_ratio']:.3f} +- {of['spread_error']:.3f}")
    return cells


def row(result: dict[str, Any]) -> list[str]:
    """Return the cells of a point."""
    (point,) = result["points"]
    moments = {each["name"]: each for each in point["moments"]}
    cells = [str(result["showers"]["reference"])]
    for name in QUANTITIES:
        of = moments[name]
        cells.append(f"{100 * (of['mean_ratio'] - 1):+.2f} +- {100 * of['mean_error']:.2f}")
    cells.append(f"{point['resolution']['ratio']:.3f} +- {point['resolution']['error']:.3f}")
    cells.append(", ".join(f"{100 * plates['share_within_limit']:.0f} %" for plates in point["layers"]))
    cells.append(", ".join(f"{test['auc']['value']:.3f}" for test in result["classifiers"]))
    return cells


if __name__ == "__main__":
    main()
