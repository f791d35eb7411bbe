"""Measure how many showers an adaptation to a new detector needs.

    learning_curves.py FOLDER [--shifts ...] [--methods ...] [--showers ...]

FOLDER holds SHIFT-cells.h5 and SHIFT-test-cells.h5 (runs/shifts.sh makes them). Every method adapts the base to so
many showers of a shift, for several seeds (other showers, other weights), and generates as many showers as the test
has at each of its points. The errors of E_tot, R_E, sigma_y and z_mean are the mean over points of |bias|, in per cent,
and of W1, in Geant4's deviations; the floor is that of two halves of Geant4 at that size. Resumes; prints a table and
draws the curves beside its output, learning-curves.json.

    learning_curves.py --table learning-curves.json     prints and draws what a file holds
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from calograd import Design, Surrogate
from calograd.evaluation.matching import group
from calograd.events.dense import Cells, read_cells
from calograd.io.files import write_whole
from calograd.metrics import distances
from calograd.metrics.observables import observe, quantity_names
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import load_data
from calograd.training.tasks.adapt import adapt

SHIFTS = ("pbwo4", "matrix", "tilted", "alone", "electrons")
METHODS = {"lora": "LoRA", "bitfit": "BitFit", "full": "all weights", "scratch": "from scratch"}
REFERENCES = {"unadapted": "--", "floor": ":"}
TITLES = {
    "pbwo4": "PbWO$_4$", "matrix": "matrix with gaps and silicon", "tilted": "20 degrees", "alone": "stand-alone block",
    "electrons": "electrons",
}  # fmt: skip
COLOURS = ("#d1380e", "#2f6f9f", "#0b6e4f", "#1b1b1b")
SHOWERS = (100, 300, 1000, 3000, 10000)
OBSERVABLES = ("E_tot", "R_E", "sigma_y", "z_mean")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--table", type=Path, metavar="JSON", help="run nothing, print and draw what is in this file")
    parser.add_argument("--model", default="pbf2-cells")
    parser.add_argument("--shifts", default=",".join(SHIFTS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--showers", default=",".join(map(str, SHOWERS)))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if (options.folder is None) == (options.table is None):
        parser.error("give either FOLDER or --table JSON")
    if options.table is None:
        torch.set_num_threads(options.threads)
        run(options, options.folder / "learning-curves.json")
    output = options.table or options.folder / "learning-curves.json"
    done = json.loads(output.read_text())
    print(table_of(done))
    draw(done).savefig(output.with_suffix(".png"), dpi=150)


def run(options: argparse.Namespace, output: Path) -> None:
    """Compute the results that ``output`` does not hold yet."""
    for shift in options.shifts.split(","):
        test = read_cells(options.folder / f"{shift}-test-cells.h5")
        for showers in map(int, options.showers.split(",")):
            for method in filter(None, options.methods.split(",")):
                for seed in range(options.seeds):
                    key = {"shift": shift, "method": method, "showers": showers, "seed": seed}
                    keep(output, key, partial(one, options, test))
        keep(output, {"shift": shift, "method": "unadapted"}, partial(unadapted, options.model, test))
        keep(output, {"shift": shift, "method": "floor"}, partial(floor, test))


def keep(output: Path, key: dict[str, Any], find: Callable[..., dict[str, Any]]) -> None:
    """Add a result to ``output`` unless it holds it; several processes may do so at once."""
    done = json.loads(output.read_text()) if output.exists() else []
    if any(key.items() <= each.items() for each in done):
        return
    result = key | find(**key)
    print(json.dumps(result), flush=True)
    done = json.loads(output.read_text()) if output.exists() else []
    write_whole(output, json.dumps([*done, result], indent=1).encode())


def one(options: argparse.Namespace, test: Cells, shift: str, method: str, showers: int, seed: int) -> dict[str, Any]:
    """Adapt a surrogate and judge it."""
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
    """Return the mean over points of |bias| in per cent and of W1 in deviations, by observable."""
    pairs = []
    for k, (point, rows) in enumerate(group(test).items()):
        n, generator = len(rows), torch.Generator().manual_seed(1000 * seed + k)
        design = Design(point.design.dx, point.design.dz, test.material)
        made = surrogate.sample(design, point.energy, n, generator=generator, extrapolate=True)
        pairs.append((observe(made, test.dx[rows], test.dz[rows]).table(), table(test, rows)))
    return distance(pairs, 1.0)


def unadapted(model: str, test: Cells, **_: Any) -> dict[str, Any]:
    """Return the errors of the base as it is."""
    return errors(Surrogate.load(model), test, 0)


def floor(test: Cells, **_: Any) -> dict[str, Any]:
    """Return the errors of one half of the test against the other, scaled to the size of the whole."""
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


def by_method(done: list[dict[str, Any]], shift: str) -> dict[str, dict[int, list[float]]]:
    """Return the errors of every seed in order of size, by method and showers; of the base and the floor by 0 showers.

    An error is the mean of eight numbers, each in units of that from scratch with the most showers; without such runs
    in units of the floor.
    """
    of_shift = [each for each in done if each["shift"] == shift]
    most = max(each["showers"] for each in of_shift if "showers" in each)
    last = [numbers(d) for d in of_shift if (d["method"], d.get("showers")) == ("scratch", most)]
    unit = np.mean(last or [numbers(d) for d in of_shift if d["method"] == "floor"], axis=0)
    found: dict[str, dict[int, list[float]]] = {}
    for each in of_shift:
        found.setdefault(each["method"], {}).setdefault(each.get("showers", 0), []).append(
            float((numbers(each) / unit).mean())
        )
    return {method: {n: sorted(values) for n, values in sorted(sizes.items())} for method, sizes in found.items()}


def shifts_of(done: list[dict[str, Any]]) -> list[str]:
    return [name for name in SHIFTS if any(each["shift"] == name and "showers" in each for each in done)]


def table_of(done: list[dict[str, Any]]) -> str:
    """Return all runs as a markdown table with the error of every seed."""
    lines = [
        f"| shift | method | {' | '.join(map(str, SHOWERS))} | s, 1 000 showers |",
        "|---" * (3 + len(SHOWERS)) + "|",
    ]
    for shift in shifts_of(done):
        found = by_method(done, shift)
        for method in (*METHODS, *REFERENCES):
            if method not in found:
                continue
            texts = {size: ", ".join(f"{each:.2f}" for each in values) for size, values in found[method].items()}
            cells = [texts.get(size, "") for size in SHOWERS] if method in METHODS else [texts[0]] * len(SHOWERS)
            times = [d["seconds"] for d in done if (d["shift"], d["method"], d.get("showers")) == (shift, method, 1000)]
            least = ", ".join(map(str, sorted(times)))
            lines.append(f"| {shift} | {method} | {' | '.join(cells)} | {least} |")
    return "\n".join(lines)


def draw(done: list[dict[str, Any]]) -> Figure:
    """Draw curves with bands over seeds, one panel a shift."""
    shifts = shifts_of(done)
    columns = min(len(shifts), 3)
    rows = -(-len(shifts) // columns)
    figure = Figure(figsize=(3.1 * columns + 0.4, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, shift in zip(panels.flat, shifts, strict=False):
        found = by_method(done, shift)
        for colour, method in zip(COLOURS, METHODS, strict=True):
            if method in found:
                sizes, errors = (
                    list(found[method]),
                    [np.percentile(each, [0, 50, 100]) for each in found[method].values()],
                )
                low, middle, high = np.array(errors).T
                axes.fill_between(sizes, low, high, color=colour, alpha=0.2, lw=0)
                axes.plot(sizes, middle, "o-", color=colour, ms=4, lw=1.3, label=METHODS[method])
        for method, style in REFERENCES.items():
            if method in found:
                axes.axhline(found[method][0][0], color="0.35", ls=style, lw=1, label=method)
        axes.set(xscale="log", yscale="log", title=TITLES[shift])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in (0.7, 2, 3, 5, 20) else "")
    figure.supxlabel("showers of the new detector", fontsize=9)
    figure.supylabel("error; from scratch with 10 000 showers: 1", fontsize=9)
    handles = {
        label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    for axes in panels.flat[len(shifts) :]:
        axes.set_axis_off()
    corner = panels.flat[len(shifts)] if len(shifts) < panels.size else panels.flat[0]
    corner.legend(
        handles.values(), handles.keys(), fontsize=8, loc="center" if corner is not panels.flat[0] else "best"
    )
    return figure


def numbers(result: dict[str, Any]) -> np.ndarray:
    return np.array([*result["bias"].values(), *result["w1"].values()])


if __name__ == "__main__":
    main()
