"""How many showers a new detector takes: learning_curves.py FOLDER [--shifts ...] [--methods ...] [--showers ...].

FOLDER holds SHIFT-cells.h5 and SHIFT-test-cells.h5 (runs/shifts.sh makes them). Every method adapts the base to so
many showers of a shift, for several seeds (other showers, other weights), and generates as many showers as the test
has at each of its points. The errors of E_tot, R_E, sigma_y and z_mean are the mean over points of |bias|, in per cent,
and of W1, in Geant4's deviations; the floor is that of two halves of Geant4 at that size. Resumes; prints a table and
draws the curves beside its output.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calograd import Design, Surrogate
from calograd.evaluation import distances
from calograd.evaluation.observables import observe, quantity_names
from calograd.evaluation.points import group
from calograd.learning.adapt import adapt
from calograd.learning.adapt_state import AdaptConfig
from calograd.learning.data import load_data
from calograd.showers.cells import Cells, read_cells
from calograd.showers.hdf5 import write_whole

SHIFTS = ("pbwo4", "matrix", "tilted", "alone", "electrons")
METHODS = ("lora", "bitfit", "full", "scratch")
SHOWERS = (100, 300, 1000, 3000, 10000)
OBSERVABLES = ("E_tot", "R_E", "sigma_y", "z_mean")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="pbf2-cells")
    parser.add_argument("--shifts", default=",".join(SHIFTS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--showers", default=",".join(map(str, SHOWERS)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    output = options.folder / "learning-curves.json"
    for shift in options.shifts.split(","):
        test = read_cells(options.folder / f"{shift}-test-cells.h5")
        for showers in map(int, options.showers.split(",")):
            for method in options.methods.split(","):
                for seed in range(options.seeds):
                    done = json.loads(output.read_text()) if output.exists() else []
                    key = {"shift": shift, "method": method, "showers": showers, "seed": seed}
                    if any(key.items() <= each.items() for each in done):
                        continue
                    result = key | one(options, test, **key)
                    print(json.dumps(result), flush=True)
                    done = json.loads(output.read_text()) if output.exists() else []
                    write_whole(output, json.dumps([*done, result], indent=1).encode())
    references = {}
    for shift in options.shifts.split(","):
        test = read_cells(options.folder / f"{shift}-test-cells.h5")
        unadapted = errors(Surrogate.load(options.model), test, 0)
        references[shift] = {"unadapted": unadapted, "floor": floor(test)}
    summarise(json.loads(output.read_text()), references, output.with_suffix(".png"))


def one(options: argparse.Namespace, test: Cells, shift: str, method: str, showers: int, seed: int) -> dict[str, Any]:
    """Adapt and judge."""
    base = Surrogate.load(options.model)
    data = load_data([options.folder / f"{shift}-cells.h5"], 0.1, seed, showers)
    config = AdaptConfig(method=method, seed=seed)  # type: ignore[arg-type]
    began = time.monotonic()
    run = options.folder / "runs" / f"{shift}-{method}-{showers}-{seed}"
    run.parent.mkdir(exist_ok=True)
    outcome = adapt(base, config, data, run)
    seconds = time.monotonic() - began
    return {"seconds": round(seconds), "bytes": outcome.size} | errors(outcome.surrogate, test, seed)


def errors(surrogate: Surrogate, test: Cells, seed: int) -> dict[str, Any]:
    """Mean over points of |bias| in per cent and of W1 in deviations, by observable."""
    pairs = []
    for k, (point, rows) in enumerate(group(test).items()):
        n, generator = len(rows), torch.Generator().manual_seed(1000 * seed + k)
        design = Design(point.design.dx, point.design.dz, test.material)
        made = surrogate.sample(design, point.energy, n, generator=generator, extrapolate=True)
        pairs.append((observe(made, test.dx[rows], test.dz[rows]).table(), table(test, rows)))
    return distance(pairs, 1.0)


def floor(test: Cells) -> dict[str, Any]:
    """The same for two halves of the test, scaled to its whole size."""
    halves = [np.split(rows[: len(rows) // 2 * 2], 2) for rows in group(test).values()]
    return distance([(table(test, one), table(test, other)) for one, other in halves], 2**-0.5)


def table(cells: Cells, rows: np.ndarray) -> np.ndarray:
    return observe(cells.cells[rows], cells.dx[rows], cells.dz[rows]).table()


def distance(pairs: list[tuple[np.ndarray, np.ndarray]], scale: float) -> dict[str, Any]:
    names = quantity_names(5)
    columns = [names.index(name) for name in OBSERVABLES]
    bias = scale * 100 * np.mean([np.abs(distances.biases(a, b).value[columns]) for a, b in pairs], axis=0)
    w1 = scale * np.mean([distances.wasserstein(a, b)[columns] for a, b in pairs], axis=0)
    return {name: dict(zip(OBSERVABLES, values.round(4).tolist(), strict=True))
            for name, values in (("bias", bias), ("w1", w1))}  # fmt: skip


def summarise(done: list[dict[str, Any]], references: dict[str, dict[str, Any]], figure: Path) -> None:
    """A table and a figure: the error relative to that from scratch with the most showers, by shift and method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shifts = [name for name in SHIFTS if name in references and any(d["shift"] == name for d in done)]
    figures, axes = plt.subplots(1, len(shifts), figsize=(3.6 * len(shifts), 3.4), sharey=True, squeeze=False)
    sizes = sorted({d["showers"] for d in done})
    print(
        f"| shift | method | {' | '.join(map(str, sizes))} | s at most showers |\n|---|---|" + "---|" * (len(sizes) + 1)
    )
    for shift, axis in zip(shifts, axes[0], strict=True):
        controls = [d for d in done if (d["shift"], d["method"], d["showers"]) == (shift, "scratch", sizes[-1])]
        unit = np.mean([numbers(d) for d in controls], axis=0) if controls else numbers(references[shift]["floor"])
        for colour, method in enumerate(METHODS):
            of_size = {
                size: [d for d in done if (d["shift"], d["method"], d["showers"]) == (shift, method, size)]
                for size in sizes
            }
            band = {
                size: np.percentile([float((numbers(d) / unit).mean()) for d in runs], [0, 50, 100])
                for size, runs in of_size.items() if runs
            }  # fmt: skip
            if not band:
                continue
            cells = [f"{band[s][1]:.2f} ({band[s][0]:.2f} to {band[s][2]:.2f})" if s in band else "" for s in sizes]
            seconds = np.median([d["seconds"] for d in of_size[max(band)]])
            print(f"| {shift} | {method} | {' | '.join(cells)} | {seconds:.0f} |")
            low, middle, high = np.array(list(band.values())).T
            axis.fill_between(list(band), low, high, color=f"C{colour}", alpha=0.2, lw=0)
            axis.plot(list(band), middle, "o-", color=f"C{colour}", ms=4, label=method)
        for name, style in (("unadapted", "--"), ("floor", ":")):
            height = float((numbers(references[shift][name]) / unit).mean())
            axis.axhline(height, color="0.4", ls=style, label=name)
            print(f"| {shift} | {name} | {f'{height:.2f} | ' * len(sizes)} |")
        axis.set(xscale="log", yscale="log", title=shift, xlabel="showers")
    axes[0, 0].set_ylabel("error / error from scratch at most showers")
    axes[0, -1].legend(fontsize=8)
    figures.tight_layout()
    figures.savefig(figure, dpi=150)


def numbers(result: dict[str, Any]) -> np.ndarray:
    return np.array([*result["bias"].values(), *result["w1"].values()])


if __name__ == "__main__":
    main()
