"""Measure how many showers an adaptation to a new detector needs.

    learning_curves.py FOLDER [--shifts ...] [--methods ...] [--showers ...] [--model FOLDER]

FOLDER holds showers to learn from and others to judge by: SHIFT-cells.h5 and SHIFT-test-cells.h5 of crystals
(runs/shifts.sh makes them), SHIFT.h5 and SHIFT-test.h5 of stacks of plates (runs/sampling-shifts.sh). Every method
adapts the base to so many showers of a shift, for several seeds (other showers, other weights), and generates as many
showers as the test has at each of its points. The errors of four observables are the mean over points of |bias|, in per
cent, and of W1, in Geant4's deviations; of plates there is the sliced W1 of the energies of all plates as well. The
floor is what a perfect generator has at that size, and "geant4" what it has if it generates no more showers than were
learnt from, spread evenly over the points: the showers themselves. Resumes; results of another base are replaced, those
from scratch depend on the shapes of its weights alone. Prints tables and draws the curves beside its output,
learning-curves.json.

    learning_curves.py --table learning-curves.json     prints and draws what a file holds
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure

from calograd import Design, Surrogate
from calograd.evaluation.matching import group
from calograd.events.dense import read_cells
from calograd.events.library.reader import open_plates
from calograd.events.plates import PlateShowers
from calograd.io.files import write_whole
from calograd.metrics import distances
from calograd.metrics.observables import observe, quantity_names
from calograd.metrics.plates import SINGLE, observe_plates
from calograd.surrogate.generation import generate, rows_like
from calograd.training.config import AdaptConfig
from calograd.training.data.plates import PlatesData, load_plates
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.tasks.adapt import adapt


class Sample(NamedTuple):
    """Showers at one point: observables, shape (n, 4), and energies of all plates, shape (n, plates), GeV."""

    observables: np.ndarray
    plates: np.ndarray


class Detector(Protocol):
    """A detector that the base has not seen: showers to learn from, and others to judge by."""

    observables: ClassVar[tuple[str, ...]]
    base: ClassVar[str]

    def data(self, showers: int, seed: int) -> TrainingData | PlatesData:
        """Return so many showers to learn from."""

    def reference(self) -> list[Sample]:
        """Return Geant4's showers to judge by, of every point."""

    def generated(self, surrogate: Surrogate, seed: int) -> list[Sample]:
        """Return as many generated showers of every point."""


class Crystals:
    """Cells; points are designs and energies."""

    observables: ClassVar[tuple[str, ...]] = ("E_tot", "R_E", "sigma_y", "z_mean")
    base: ClassVar[str] = "pbf2-cells"

    def __init__(self, folder: Path, shift: str) -> None:
        self.train, self.test = folder / f"{shift}-cells.h5", read_cells(folder / f"{shift}-test-cells.h5")

    def data(self, showers: int, seed: int) -> TrainingData:
        """Return so many showers to learn from."""
        return load_data([self.train], 0.1, seed, showers)

    def reference(self) -> list[Sample]:
        """Return Geant4's showers to judge by, of every point."""
        return [self._sample(self.test.cells[rows], rows) for rows in group(self.test).values()]

    def generated(self, surrogate: Surrogate, seed: int) -> list[Sample]:
        """Return as many generated showers of every point."""
        found = []
        for k, (point, rows) in enumerate(group(self.test).items()):
            generator = torch.Generator().manual_seed(1000 * seed + k)
            design = Design(point.design.dx, point.design.dz, self.test.material)
            made = surrogate.sample(design, point.energy, len(rows), generator=generator, extrapolate=True)
            found.append(self._sample(made, rows))
        return found

    def _sample(self, cells: Any, rows: np.ndarray) -> Sample:
        names = quantity_names(5)
        table = observe(cells, self.test.dx[rows], self.test.dz[rows]).table()
        return Sample(table[:, [names.index(name) for name in self.observables]], np.zeros((len(rows), 0)))


class Plates:
    """One stack of plates; points are particles and energies."""

    observables: ClassVar[tuple[str, ...]] = SINGLE
    base: ClassVar[str] = "sampling"

    def __init__(self, folder: Path, shift: str) -> None:
        self.train, self.test = folder / f"{shift}.h5", open_plates(folder / f"{shift}-test.h5").read()

    def data(self, showers: int, seed: int) -> PlatesData:
        """Return so many showers to learn from."""
        return load_plates([self.train], 0.1, seed, showers)

    def reference(self) -> list[Sample]:
        """Return Geant4's showers to judge by, of every point."""
        return self._samples(self.test)

    def generated(self, surrogate: Surrogate, seed: int) -> list[Sample]:
        """Return as many generated showers of every point."""
        rows = rows_like(surrogate, self.test)
        return self._samples(generate(
            surrogate, rows.energy, stacks=rows.stacks, incident=rows.incident, seed=seed, layers_only=True,
            extrapolate=True,
        ))  # fmt: skip

    def _samples(self, showers: PlateShowers) -> list[Sample]:
        seen = observe_plates(showers)
        energies = np.concatenate([seen.visible, seen.absorbed], 1)
        keys = np.stack([self.test.energy, self.test.particle], 1)
        _, point = np.unique(keys, axis=0, return_inverse=True)
        rows = [np.flatnonzero(point.ravel() == number) for number in range(point.max() + 1)]
        filled = np.isfinite(seen.table).all(1)
        return [Sample(seen.table[of_point[filled[of_point]]], energies[of_point]) for of_point in rows]


SHIFTS: dict[str, tuple[str, Callable[[Path, str], Detector]]] = {
    "pbwo4": ("PbWO$_4$", Crystals), "matrix": ("matrix with gaps and silicon", Crystals),
    "tilted": ("20 degrees", Crystals), "alone": ("stand-alone block", Crystals), "electrons": ("electrons", Crystals),
    "allegro": ("lead and liquid argon at 50 degrees", Plates),
}  # fmt: skip
"""Title and kind of every shift."""
METHODS = {"lora": "LoRA", "bitfit": "BitFit", "full": "all weights", "scratch": "from scratch"}
REFERENCES = {"unadapted": "--", "floor": ":"}
CURVES = METHODS | {"geant4": "Geant4, as many showers"}
COLOURS = ("#d1380e", "#2f6f9f", "#0b6e4f", "#1b1b1b", "#9aa0a6")
SHOWERS = (100, 300, 1000, 3000, 10000)
MEASURES = {"error": "mean error", "sliced": "sliced W1 of all plates"}
"""Numbers that a curve shows; the second one is known of plates."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--table", type=Path, metavar="JSON", help="run nothing, print and draw what is in this file")
    parser.add_argument("--model", help="base, a name or a folder; by default the bundled one of the shift's kind")
    parser.add_argument("--shifts", help="by default those that FOLDER holds")
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
    print("\n\n".join(filter(None, [table_of(done), nearer_of(done)])))
    if panels_of(done):
        draw(done).savefig(output.with_suffix(".png"), dpi=150)


def run(options: argparse.Namespace, output: Path) -> None:
    """Compute the results that ``output`` does not hold yet."""
    held = [name for name in SHIFTS if list(options.folder.glob(f"{name}-test*.h5"))]
    for shift in options.shifts.split(",") if options.shifts else held:
        detector = SHIFTS[shift][1](options.folder, shift)
        base = Surrogate.load(options.model or detector.base)
        for showers in map(int, options.showers.split(",")):
            for method in filter(None, options.methods.split(",")):
                for seed in range(options.seeds):
                    key = {"shift": shift, "method": method, "showers": showers, "seed": seed}
                    key["base"] = origin(base, method)
                    keep(output, key, partial(one, options.folder, detector, base))
        key = {"shift": shift, "method": "unadapted", "base": base.identity[:12]}
        keep(output, key, partial(unadapted, detector, base))
        keep(output, {"shift": shift, "method": "floor"}, partial(floor, detector))
        for showers in map(int, options.showers.split(",")):
            keep(output, {"shift": shift, "method": "geant4", "showers": showers}, partial(floor, detector))


def origin(base: Surrogate, method: str) -> str:
    """Return what tells bases apart: their weights, or from scratch the shapes of these."""
    if method != "scratch":
        return base.identity[:12]
    shapes = {name: tuple(value.shape) for name, value in base.model.state_dict().items()}
    return hashlib.sha256(repr(sorted(shapes.items())).encode()).hexdigest()[:12]


def keep(output: Path, key: dict[str, Any], find: Callable[..., dict[str, Any]]) -> None:
    """Add a result to ``output`` unless it holds it, in place of that of another base; several processes may do so."""
    done = json.loads(output.read_text()) if output.exists() else []
    if any(key.items() <= each.items() for each in done):
        return
    result = key | find(**key)
    print(json.dumps(result), flush=True)
    done = json.loads(output.read_text()) if output.exists() else []
    same = {name: value for name, value in key.items() if name != "base"}
    done = [each for each in done if not same.items() <= each.items()]
    write_whole(output, json.dumps([*done, result], indent=1).encode())


def one(
    folder: Path, detector: Detector, bare: Surrogate, shift: str, method: str, showers: int, seed: int, base: str
) -> dict[str, Any]:
    """Adapt a surrogate and judge it."""
    data = detector.data(showers, seed)
    config = AdaptConfig.model_validate({"method": method, "seed": seed})
    began = time.monotonic()
    run = folder / "runs" / f"{shift}-{method}-{showers}-{seed}-{base}"
    run.parent.mkdir(exist_ok=True)
    outcome = adapt(bare, config, data, run)
    seconds = time.monotonic() - began
    return {"seconds": round(seconds), "bytes": outcome.size} | errors(outcome.surrogate, detector, seed)


def errors(surrogate: Surrogate, detector: Detector, seed: int) -> dict[str, Any]:
    """Return the mean over points of |bias| in per cent and of W1 in deviations, by observable, and the sliced W1."""
    rng, parts = np.random.default_rng(0), []
    for made, truth in zip(detector.generated(surrogate, seed), detector.reference(), strict=True):
        a, b = made.observables, truth.observables
        sliced = distances.sliced_wasserstein(made.plates, truth.plates, rng)
        parts.append((np.abs(distances.biases(a, b).value), distances.wasserstein(a, b), sliced))
    return described(detector, parts)


def unadapted(detector: Detector, bare: Surrogate, **_: Any) -> dict[str, Any]:
    """Return the errors of the base as it is."""
    return errors(bare, detector, 0)


def floor(detector: Detector, showers: int = 0, **_: Any) -> dict[str, Any]:
    """Return the errors of a perfect generator, by random halves of Geant4's showers.

    Args:
        detector: detector with the showers.
        showers: number of generated ones at all points together; 0: as many as the test has.
    """
    rng, parts, samples = np.random.default_rng(0), [], detector.reference()
    for observables, plates in samples:
        made = showers // len(samples) or len(observables)
        null = distances.null_distances(observables, made, 1, rng)
        sliced = distances.null_sliced_wasserstein(plates, made, rng).mean()
        parts.append((np.abs(null.bias).mean(0), null.w1.mean(0), sliced))
    return described(detector, parts)


def described(detector: Detector, parts: list[tuple[np.ndarray, np.ndarray, float]]) -> dict[str, Any]:
    """Return the means over points of |bias| and W1, and of plates that of the sliced W1."""
    bias, w1, sliced = (np.mean(column, axis=0) for column in zip(*parts, strict=True))
    found: dict[str, Any] = {
        name: dict(zip(detector.observables, values.round(4).tolist(), strict=True))
        for name, values in (("bias", 100 * bias), ("w1", w1))
    }
    return found | ({"sliced": round(float(sliced), 5)} if np.isfinite(sliced) else {})


def numbers(result: dict[str, Any], measure: str) -> np.ndarray:
    """Return the numbers of which a measure is the mean: |bias| and W1 of every observable, or the sliced W1."""
    return np.array([*result["bias"].values(), *result["w1"].values()] if measure == "error" else [result["sliced"]])


def most_showers(done: list[dict[str, Any]], shift: str) -> int:
    """Return the most showers from which a surrogate was trained from scratch; 0: there is none."""
    return max((each["showers"] for each in done if (each["shift"], each["method"]) == (shift, "scratch")), default=0)


def unit(done: list[dict[str, Any]], shift: str, measure: str) -> np.ndarray:
    """Return those of a surrogate trained from scratch with the most showers; without such runs those of the floor."""
    key = ("scratch", most) if (most := most_showers(done, shift)) else ("floor", None)
    of_key = [each for each in done if (each["shift"], each["method"], each.get("showers")) == (shift, *key)]
    return np.asarray(np.mean([numbers(each, measure) for each in of_key], axis=0))


def by_method(done: list[dict[str, Any]], shift: str, measure: str = "error") -> dict[str, dict[int, list[float]]]:
    """Return a measure of every seed in order of size, by method and showers; of the base and the floor by 0 showers.

    It is the mean of its numbers, each in units of `unit`.
    """
    of_all = unit(done, shift, measure)
    found: dict[str, dict[int, list[float]]] = {}
    for each in done:
        if each["shift"] == shift:
            values = found.setdefault(each["method"], {}).setdefault(each.get("showers", 0), [])
            values.append(float((numbers(each, measure) / of_all).mean()))
    return {method: {n: sorted(values) for n, values in sorted(sizes.items())} for method, sizes in found.items()}


def panels_of(done: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return shifts and measures that there are results of."""
    adapted = [each for each in done if "seed" in each]
    return [
        (shift, measure) for shift in SHIFTS for measure in MEASURES
        if any(each["shift"] == shift and (measure == "error" or measure in each) for each in adapted)
    ]  # fmt: skip


def table_of(done: list[dict[str, Any]]) -> str:
    """Return all runs as a markdown table with the error of every seed."""
    lines = [
        f"| shift | method | {' | '.join(map(str, SHOWERS))} | s, 1 000 showers |",
        "|---" * (3 + len(SHOWERS)) + "|",
    ]
    for shift, measure in panels_of(done):
        found = by_method(done, shift, measure)
        for method in (*CURVES, *REFERENCES):
            if method not in found:
                continue
            texts = {size: ", ".join(f"{each:.2f}" for each in values) for size, values in found[method].items()}
            cells = [texts.get(size, "") for size in SHOWERS] if method in CURVES else [texts[0]] * len(SHOWERS)
            runs = [d for d in done if (d["shift"], d["method"], d.get("showers")) == (shift, method, 1000)]
            least = ", ".join(map(str, sorted(d["seconds"] for d in runs if "seconds" in d)))
            name = shift if measure == "error" else f"{shift}, {MEASURES[measure]}"
            lines.append(f"| {name} | {method} | {' | '.join(cells)} | {least} |")
    return "\n".join(lines)


def nearer_of(done: list[dict[str, Any]]) -> str:
    """Return how many times nearer than from scratch with as many showers, of plates, as a markdown table.

    In brackets after the floor was taken off in quadrature, number by number, from the means over seeds: the square of
    the distance of two samples is nearly that of their laws and that of two samples of one law together.
    """
    shifts = [shift for shift, measure in panels_of(done) if measure == "sliced"]
    if not shifts:
        return ""
    lines = [f"| shift | measure | method | {' | '.join(map(str, SHOWERS))} |", "|---" * (3 + len(SHOWERS)) + "|"]
    for shift in shifts:
        for measure, title in MEASURES.items():
            for method in ("unadapted", *METHODS):
                if method == "scratch":
                    continue
                cells = []
                for size in SHOWERS:
                    ours = mean_of(done, shift, measure, method, None if method == "unadapted" else size)
                    theirs = mean_of(done, shift, measure, "scratch", size)
                    cells.append(ratio(theirs, ours, mean_of(done, shift, measure, "floor", None)))
                if any(cells):
                    lines.append(f"| {shift} | {title} | {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_of(
    done: list[dict[str, Any]], shift: str, measure: str, method: str, showers: int | None
) -> np.ndarray | None:  # fmt: skip
    """Return the numbers of a measure in units of `unit`, means over seeds; None if there are none."""
    found = [
        numbers(each, measure) for each in done
        if (each["shift"], each["method"], each.get("showers")) == (shift, method, showers)
    ]  # fmt: skip
    return np.mean(found, axis=0) / unit(done, shift, measure) if found else None


def ratio(theirs: np.ndarray | None, ours: np.ndarray | None, least: np.ndarray | None) -> str:
    """Return the ratio of two distances, and in brackets that without the floor."""
    if theirs is None or ours is None or least is None:
        return ""
    far, near = (np.sqrt(np.clip(each**2 - least**2, 0, None)).mean() for each in (theirs, ours))
    return f"{theirs.mean() / ours.mean():.1f} ({f'{far / near:.1f}' if near > 0 else 'at the floor'})"


def draw(done: list[dict[str, Any]]) -> Figure:
    """Draw curves with bands over seeds, one panel a shift and measure."""
    shown = panels_of(done)
    columns = min(len(shown), 3)
    rows = -(-len(shown) // columns)
    beside = 1.7 * (rows * columns == len(shown))
    figure = Figure(figsize=(3.1 * columns + 0.4 + beside, 2.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    several = len({shift for shift, _ in shown}) > 1
    for axes, (shift, measure) in zip(panels.flat, shown, strict=False):
        found = by_method(done, shift, measure)
        for colour, method in zip(COLOURS, CURVES, strict=True):
            if method in found:
                sizes, errors = (
                    list(found[method]),
                    [np.percentile(each, [0, 50, 100]) for each in found[method].values()],
                )
                low, middle, high = np.array(errors).T
                axes.fill_between(sizes, low, high, color=colour, alpha=0.2, lw=0)
                axes.plot(sizes, middle, "o-", color=colour, ms=4, lw=1.3, label=CURVES[method])
        for method, style in REFERENCES.items():
            if method in found:
                axes.axhline(found[method][0][0], color="0.35", ls=style, lw=1, label=method)
        title = SHIFTS[shift][0] if several and measure == "error" else MEASURES[measure]
        axes.set(xscale="log", yscale="log", title=title)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in (0.7, 2, 3, 5, 20) else "")
    figure.supxlabel("showers of the new detector", fontsize=9)
    most = " or ".join(f"{n:,}".replace(",", " ") for n in sorted({most_showers(done, shift) for shift, _ in shown}))
    figure.supylabel(f"error; from scratch with {most} showers: 1", fontsize=9)
    handles = {
        label: line for axes in panels.flat for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    for axes in panels.flat[len(shown) :]:
        axes.set_axis_off()
    if len(shown) < panels.size:
        panels.flat[len(shown)].legend(handles.values(), handles.keys(), fontsize=8, loc="center")
    else:
        figure.legend(handles.values(), handles.keys(), fontsize=8, loc="outside right center")
    return figure


if __name__ == "__main__":
    main()
