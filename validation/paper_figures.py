"""Draw the figures of arXiv 2601.07859 from the results of runs/paper.sh.

    paper_figures.py FOLDER [--only maps gradients ...]

    maps         maps-MODEL.png       example maps, generated and Geant4, one row a family          Fig. 5
    profiles     profiles-MODEL.png   mean profiles along and across with errors                    Fig. 6, C.14, C.15
    rrmse        rrmse-MODEL.png      RRMSE against training steps, with Geant4's own floor         Fig. 7, D.16, D.17
    unseen       unseen-MODEL.png     biases and RRMSE at 2.5 x 6 cm before and after LoRA          Fig. 8, 9
    gradients    gradients-MODEL.png  gradients there and their cosine with Geant4's, likewise      Fig. 10, 11
    table        table.md             all models side by side: biases, gradients, times

RRMSE is that of eq. A.8 over all pairs of a generated and a Geant4 shower; two samples of Geant4 have its floor. Its
error bars follow from those of spreads and biases. R_E of maps is in their plane, of cells across the beam.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from calograd.evaluation.matching import group
from calograd.events.dense import Maps, read_maps

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator

MODELS = ("plain", "five", "ours", "cells-five", "cells-ours")
NAMES = ("E_tot", "R_E", "sigma_y")
JUDGED = ("families", "before", "after")
HIGH = 10.0
"""Smallest energy of the table, GeV."""
FLOOR = 1e-7
"""Share of its maximum down to which a profile is drawn."""
SHIFT = {"geant4": 1.0, "before": 0.96, "after": 1.04}
"""Factors of the energy at which points that share one are drawn."""
PRECISE = 0.05
"""Relative error up to which Geant4's vector is precise."""


def main() -> None:
    figures: dict[str, Callable[[Path, str], None]] = {
        "maps": draw_maps, "profiles": draw_profiles, "rrmse": draw_steps, "unseen": draw_unseen,
        "gradients": draw_gradients,
    }  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[*figures, "table"], default=[*figures, "table"])
    options = parser.parse_args()
    folder: Path = options.folder
    models = [m for m in MODELS if all((folder / f"{m}-{on}.json").exists() for on in JUDGED)]
    for name, draw in figures.items():
        for model in models if name in options.only else ():
            if name not in ("maps", "profiles") or not model.startswith("cells-"):
                draw(folder, model)
    if "table" in options.only:
        (folder / "table.md").write_text(table(folder, models))
        print((folder / "table.md").read_text())


def load(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def draw_maps(folder: Path, model: str) -> None:
    """Draw at the highest energy of every family one shower of either source, and the mean of all."""
    ours, theirs = read_maps(folder / f"{model}-families-generated.h5"), read_maps(folder / "test-maps.h5")
    groups = [(point, group(ours)[point], rows) for point, rows in group(theirs).items()]
    highest = max(point.energy for point, _, _ in groups)
    chosen = [g for g in groups if g[0].energy == highest]
    figure, axes = plt.subplots(len(chosen), 4, figsize=(11, 2.5 * len(chosen)), squeeze=False)
    for row, (point, mine, its) in enumerate(chosen):
        shown = (
            ("Geant4", theirs, its[:1]), ("generated", ours, mine[:1]),
            ("Geant4, mean", theirs, its), ("generated, mean", ours, mine),
        )  # fmt: skip
        top = max(float(np.log10(maps.maps[rows].mean(0).max())) for _, maps, rows in shown)
        for axis, (title, maps, rows) in zip(axes[row], shown, strict=True):
            image = draw_map(axis, maps, rows, f"{point}\n{title}" if axis is axes[row][0] else title, top)
        bar = figure.colorbar(image, ax=axes[row][-1])
        bar.set_label("log10 (GeV a pixel)", fontsize=7)
        bar.ax.tick_params(labelsize=6)
    save(figure, folder / f"maps-{model}.png")


def draw_map(axis: Any, maps: Maps, rows: np.ndarray, title: str, top: float) -> Any:
    """Draw the mean of maps, its logarithm on a scale that ends at ``top``."""
    mean = maps.maps[rows].mean(0)
    width, depth = float(maps.width[rows[0]]), float(maps.depth[rows[0]])
    image = np.log10(np.clip(mean, 1e-6, None))
    extent = (0, depth, -width / 2, width / 2)
    shown = axis.imshow(image, extent=extent, aspect="auto", cmap="inferno", vmin=-5, vmax=top)
    axis.set_title(title, fontsize=8)
    axis.set_xlabel("z [cm]", fontsize=7)
    axis.set_ylabel("x [cm]", fontsize=7)
    axis.tick_params(labelsize=6)
    return shown


def draw_profiles(folder: Path, model: str) -> None:
    points = load(folder / f"{model}-families.json")["points"]
    energies = sorted({p["energy"] for p in points})
    chosen = sorted({energies[0], energies[len(energies) // 2], energies[-1]})
    designs = list(dict.fromkeys((p["dx"], *p["dz"]) for p in points))
    figure, axes = plt.subplots(
        len(designs), 2 * len(chosen), figsize=(6 * len(chosen), 2.4 * len(designs)), squeeze=False
    )
    for p in (p for p in points if p["energy"] in chosen):
        row, first = designs.index((p["dx"], *p["dz"])), 2 * chosen.index(p["energy"])
        pair_of_axes = axes[row][first : first + 2]
        for axis, (name, label) in zip(pair_of_axes, (("along", "z [cm]"), ("across", "x [cm]")), strict=True):
            pair = p["profiles"][name]
            edges = np.array(pair["reference"]["edges"])
            centres = (edges[1:] + edges[:-1]) / 2
            mean, error = (np.array(pair["generated"][key]) for key in ("mean", "error"))
            axis.stairs(mean, edges, color="C3", label="generated")
            axis.fill_between(centres, mean - error, mean + error, color="C3", alpha=0.3, lw=0)
            reference = pair["reference"]
            axis.errorbar(centres, reference["mean"], reference["error"], fmt=".", ms=3, color="k", label="Geant4")
            axis.set_yscale("log")
            axis.set_ylim(bottom=max(axis.get_ylim()[0], FLOOR * max(reference["mean"])))
            axis.set_xlabel(label)
            axis.set_title(f"{p['dx']:g} x {p['dz'][0]:g} cm, {p['energy']:g} GeV", fontsize=8)
        pair_of_axes[0].set_ylabel("GeV/cm")
    axes[0][0].legend(fontsize=7)
    save(figure, folder / f"profiles-{model}.png")


def rrmse_error(q: dict[str, Any]) -> float:
    """Return the error of the RRMSE, where RRMSE^2 mean^2 = sigma_a^2 + sigma_b^2 + difference^2.

    The relative errors of both spreads are taken as equal.
    """
    a, b, mean = q["sigma_generated"], q["sigma_reference"], q["mean_reference"]
    if not q["sigma_ratio"]:
        return float("nan")
    each = q["sigma_ratio_error"] / q["sigma_ratio"] / 2**0.5
    of_bias = q["bias"] * q["bias_error"] * mean**2
    return float(np.sqrt((each * a**2) ** 2 + (each * b**2) ** 2 + of_bias**2) / (q["rrmse"] * mean**2))


def draw_steps(folder: Path, model: str) -> None:
    """Draw the RRMSE against training steps at every energy, mean over the families, beside its floor."""
    files = sorted(folder.glob(f"{model}-step-*.json"))
    if not files:
        return
    steps = [int(path.stem.rpartition("-")[2]) for path in files]
    results = [load(path)["points"] for path in files]
    energies = sorted({p["energy"] for p in results[0]})
    figure, axes = plt.subplots(1, len(NAMES), figsize=(14, 4))
    for axis, name in zip(axes, NAMES, strict=True):
        for number, energy in enumerate(energies):
            color = plt.get_cmap("viridis")(number / max(1, len(energies) - 1))
            each = [[p["quantities"][name] for p in r if p["energy"] == energy] for r in results]
            values, floors = ([np.mean([q[key] for q in of]) for of in each] for key in ("rrmse", "rrmse_floor"))
            errors = [np.sqrt(np.mean([rrmse_error(q) ** 2 for q in of]) / len(of)) for of in each]
            axis.errorbar(steps, values, errors, fmt="o-", ms=3, lw=1, color=color, label=f"{energy:g} GeV")
            axis.plot(steps, floors, ":", color=color)
        axis.set_yscale("log")
        axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5, 7)))
        for of in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            of(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))
        axis.set_xlabel("steps")
        axis.set_title(f"RRMSE of {name}, % (dotted: Geant4 against Geant4)", fontsize=8)
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    save(figure, folder / f"rrmse-{model}.png")


def draw_unseen(folder: Path, model: str) -> None:
    figure, axes = plt.subplots(2, len(NAMES), figsize=(12, 6), sharex=True)
    for column, name in enumerate(NAMES):
        for when, color in (("before", "C0"), ("after", "C3")):
            points = load(folder / f"{model}-{when}.json")["points"]
            energy, of = [p["energy"] for p in points], [p["quantities"][name] for p in points]
            bias, error = ([100 * q[key] for q in of] for key in ("bias", "bias_error"))
            axes[0][column].errorbar(energy, bias, error, fmt="o", ms=3, color=color, label=f"{when} LoRA")
            value, error = [100 * q["rrmse"] for q in of], [100 * rrmse_error(q) for q in of]
            axes[1][column].errorbar(energy, value, error, fmt="o", ms=3, color=color, label=f"{when} LoRA")
        axes[1][column].plot(energy, [100 * q["rrmse_floor"] for q in of], "k:", label="Geant4 against Geant4")
        axes[0][column].axhline(0, color="0.6", lw=0.7)
        axes[0][column].set_title(name)
        axes[1][column].set_xlabel("GeV")
    axes[0][0].set_ylabel("bias, %")
    axes[1][0].set_ylabel("RRMSE, %")
    axes[1][0].legend(fontsize=7)
    save(figure, folder / f"unseen-{model}.png")


def gradients(folder: Path, model: str, when: str) -> list[dict[str, Any]]:
    """Return the points of both gradients by energy; there are none where they were not made."""
    path = folder / f"{model}-gradient-{when}.json"
    return load(path)["points"] if path.exists() else []


def draw_gradients(folder: Path, model: str) -> None:
    """Draw components over the utility with their 95 % intervals, and the cosine in ln y with its error."""
    sets = {when: points for when in ("before", "after") if (points := gradients(folder, model, when))}
    if not sets:
        return
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6))
    for (when, points), color in zip(sets.items(), ("C0", "C3"), strict=False):
        energy = np.array([p["energy"] for p in points])
        for axis, number in zip(axes[:2], (0, 1), strict=True):
            for who, shade, label in (("geant4", "k", "Geant4"), ("surrogate", color, f"{when} LoRA")):
                unit = np.array([p["geant4"]["value"] for p in points])
                value = np.array([p["components"][number][who]["value"] for p in points])
                ends = np.array([p["components"][number][who]["interval"] for p in points])
                reach = np.abs(ends.T - value) / np.abs(unit)
                shown = label if who == "surrogate" or when == next(iter(sets)) else None
                beside = energy * SHIFT[who if who == "geant4" else when]
                axis.errorbar(beside, value / unit, reach, fmt="o-", ms=3, lw=1, color=shade, label=shown)
            axis.set_title(f"dU / d ln {points[0]['components'][number]['name']} / U, 95 %", fontsize=9)
        cosine, error = ([p[key] for p in points] for key in ("cosine_log", "cosine_log_error"))
        axes[2].errorbar(energy * SHIFT[when], cosine, error, fmt="o-", ms=3, lw=1, color=color, label=f"{when} LoRA")
    axes[2].set_title("cosine with Geant4's, in ln y", fontsize=9)
    axes[2].ticklabel_format(axis="y", useOffset=False)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlabel("GeV")
    axes[0].legend(fontsize=7)
    save(figure, folder / f"gradients-{model}.png")


def table(folder: Path, models: list[str]) -> str:
    """Write the tables: biases from `HIGH` on, gains of LoRA, gradients, and times of all models."""
    parts = (biases, sharp_biases, gained, agreements, times)
    return "\n".join(line for part in parts for line in (*part(folder, models), "")).rstrip() + "\n"


def header(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def biases(folder: Path, models: list[str]) -> list[str]:
    """Return the root mean square over points of the bias, with the part that statistics explain."""
    lines = header("model", "judged on", *(f"{n} bias, rms % (statistics)" for n in NAMES), "worst, %")
    for model in models:
        for when in JUDGED:
            points = [p for p in load(folder / f"{model}-{when}.json")["points"] if p["energy"] >= HIGH]
            cells, worst = [], (0.0, "")
            for name in NAMES:
                of = [p["quantities"][name] for p in points]
                bias, error = (np.array([100 * q[key] for q in of]) for key in ("bias", "bias_error"))
                cells.append(f"{np.sqrt((bias**2).mean()):.2f} ({np.sqrt((error**2).mean()):.2f})")
                k = int(np.argmax(np.abs(bias)))
                worst = max(worst, (abs(bias[k]), f"{name} {bias[k]:+.2f} +- {error[k]:.2f}"))
            lines.append(f"| {model} | {when} | " + " | ".join(cells) + f" | {worst[1]} |")
    return lines


def sharp_biases(folder: Path, models: list[str]) -> list[str]:
    """Return the table of biases at the points of the unseen design with most simulated showers."""
    lines = header("model", "LoRA", "GeV", "showers", *(f"{n} bias, %" for n in NAMES))
    for model in models:
        for when in ("before", "after"):
            path = folder / f"{model}-sharp-{when}.json"
            for p in load(path)["points"] if path.exists() else ():
                of = [p["quantities"][name] for name in NAMES]
                cells = [f"{100 * q['bias']:+.2f} +- {100 * q['bias_error']:.2f}" for q in of]
                lines.append(
                    f"| {model} | {when} | {p['energy']:g} | {p['showers']['reference']} | " + " | ".join(cells) + " |"
                )
    return lines


def gained(folder: Path, models: list[str]) -> list[str]:
    """Return the table of energies at which the bias at the unseen design is smaller after LoRA."""
    lines = header("model", *(f"{n}: smaller bias after LoRA, at energies (larger beyond 2 sigma)" for n in NAMES))
    for model in models:
        before, after = (unseen_points(folder, model, when) for when in ("before", "after"))
        cells = []
        for name in NAMES:
            pairs = [(before[energy][name], after[energy][name]) for energy in before.keys() & after.keys()]
            more = np.array([abs(b["bias"]) - abs(a["bias"]) for a, b in pairs])
            error = np.array([np.hypot(a["bias_error"], b["bias_error"]) for a, b in pairs])
            cells.append(f"{(more < 0).sum()} of {len(pairs)} ({(more > 2 * error).sum()})")
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return lines


def unseen_points(folder: Path, model: str, when: str) -> dict[float, dict[str, Any]]:
    """Return quantities at the unseen design by energy; the sharper sample goes before."""
    paths = [folder / f"{model}-{when}.json", folder / f"{model}-sharp-{when}.json"]
    return {p["energy"]: p["quantities"] for path in paths if path.exists() for p in load(path)["points"]}


def agreements(folder: Path, models: list[str]) -> list[str]:
    """Return the table of components of the gradient that agree with Geant4's."""
    lines = header("model", "LoRA", "wrong signs of those known", "pulls below 2", "least cosine where precise")
    for model in models:
        for when in ("before", "after"):
            points = gradients(folder, model, when)
            components = [c for p in points for c in p["components"]]
            if not components:
                continue
            known = [c for c in components if c["sign_known"]]
            wrong = sum(c["wrong_sign"] for c in known)
            close = sum(abs(c["pull"]) < 2 for c in components)
            cosines = [p["cosine_log"] for p in points if (p["geant4_precision"] or np.inf) < PRECISE]
            least = f"{min(cosines):.4f}" if cosines else "none is"
            lines.append(f"| {model} | {when} | {wrong} of {len(known)} | {close} of {len(components)} | {least} |")
    return lines


def times(folder: Path, models: list[str]) -> list[str]:
    """Return the table of times of training and sampling, beside Geant4's, and of every stage."""
    lines = header("model", "training, minutes", "ms a shower, one thread")
    for model in models:
        minutes = json.loads((folder / model / "log.jsonl").read_text().splitlines()[-1])["seconds"] / 60
        path = folder / f"{model}-clock.json"
        each = load(path) if path.exists() else None
        shown = f"{each['ms_per_shower']:.3g} at {each['points'][0]['energy']:g} GeV" if each else ""
        lines.append(f"| {model} | {minutes:.1f} | {shown} |")
    pace = load(folder / "train.json")["seconds per GeV and core"] if (folder / "train.json").exists() else None
    if pace is not None:
        lines.append(f"| Geant4 | | {1e3 * pace:.3g} a GeV |")
    path = folder / "times.txt"
    stages = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [*lines, "", *header("stage", "seconds"), *(f"| {name} | {seconds} |" for name, seconds in stages)]


def save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
