"""Test a surrogate of several materials on one that it has not seen: leave_one_out.py CONFIG.toml FOLDER.

For every material of the configuration's files a surrogate is trained on the others (FOLDER/without-MATERIAL; from
random weights if the configuration begins with a surrogate that has seen the material, with --fresh-steps), then
tested on Geant4 showers of it before and after adaptation with few of its showers, and printed as a table: biases of
the means of E_tot, R_E and the longitudinal mean with standard errors, and their root mean square over designs and
energies, beside that of the errors. Two sets of showers are beside the training files (runs/materials.sh makes them):
those of a few energies in MATERIAL-test-cells.h5, and, in bands of energy, those that the others train on at the same
designs, MATERIAL-fixed-cells.h5, but for what any adaptation knows. A run that was interrupted goes on where it
stopped; to judge its surrogates anew remove FOLDER/without-MATERIAL.json.
"""

from __future__ import annotations

import argparse
import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from calograd import Surrogate
from calograd.evaluation import mean_biases
from calograd.evaluation.designs import observe_rows
from calograd.events.dense import Cells, read_cells
from calograd.io.files import write_whole
from calograd.metrics.observables import OBSERVABLES
from calograd.surrogate.generation import generate
from calograd.training.config import AdaptConfig, DesignRun, RunConfig, read_config
from calograd.training.data.rows import load_data
from calograd.training.data.split import Heads, split_by_shower
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train

VALIDATION = 0.1
"""Share of the showers to adapt with that are held out."""
BANDS = (1.0, 10.0, 100.0)
"""Ends of the bands of energy, GeV."""
SHOWN = {"E_tot": "E_tot", "R_E": "R_E", "z_mean": "longitudinal mean"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--materials", help="names, separated by commas; default: all of the configuration")
    parser.add_argument("--events", default="100,1000", help="showers to adapt with")
    parser.add_argument("--method", default="lora")
    parser.add_argument("--training-steps", type=int, help="of the diffusion; default: as configured")
    parser.add_argument("--fresh-steps", type=int, default=16000, help="likewise where it begins with random weights")
    parser.add_argument("--steps", type=int, help="of every phase of an adaptation, at most")
    parser.add_argument("--repeat", type=int, default=8, help="showers generated for each of Geant4's")
    parser.add_argument("--seed", type=int, default=5, help="of the showers generated")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = read_config(options.config)
    files: dict[str, list[Path]] = {}
    for path in config.data.files:
        with h5py.File(path) as file:
            files.setdefault(str(file.attrs["material"]), []).append(path)
    chosen = options.materials.split(",") if options.materials else list(files)
    rows = []
    for material in chosen:
        rows += leave_out(options, config, files, material)
    print(f"| left out | stage | design, cm | energy, GeV | {' | '.join(f'{name}, %' for name in SHOWN.values())} |")
    print("|---" * (4 + len(SHOWN)) + "|")
    for row in rows:
        biases = (f"{100 * bias:+.2f} +- {100 * error:.2f}" for bias, error in row["biases"])
        print(f"| {row['material']} | {row['stage']} | {row['design']} | {row['energy']} | {' | '.join(biases)} |")
    print(f"\n| left out | stage | {' | '.join(f'{name}, rms %' for name in SHOWN.values())} |")
    print("|---" * (2 + len(SHOWN)) + "|")
    for material in chosen:
        for stage in dict.fromkeys(row["stage"] for row in rows):
            found = np.array([r["biases"] for r in rows if (r["material"], r["stage"]) == (material, stage)])
            rms = 100 * np.sqrt((found**2).mean(0))  # (observables, bias and error)
            print(f"| {material} | {stage} | {' | '.join(f'{b:.2f} (errors {e:.2f})' for b, e in rms)} |")


def leave_out(options: Any, config: RunConfig, files: dict[str, list[Path]], material: str) -> list[dict[str, Any]]:
    """Return the rows of the table for one material, kept beside its run."""
    run, kept = options.output / f"without-{material}", options.output / f"without-{material}.json"
    if kept.exists():
        return list(json.loads(kept.read_text()))
    assert isinstance(config, DesignRun)
    others = [path for name, paths in files.items() if name != material for path in paths]
    changes: dict[str, Any] = {"steps": options.training_steps} if options.training_steps else {}
    start = config.training.start
    if start and material in (m.name for m in Surrogate.load(start).card.designs.materials):
        changes = {"start": "", "steps": options.fresh_steps, "learning_rate": 2e-3}
    without = config.model_copy(
        update={
            "name": run.name,
            "data": config.data.model_copy(update={"files": others}),
            "training": config.training.model_copy(update=changes),
        }
    )
    train(without, run)
    base = Surrogate.load(run)
    beside, seed = files[material][0].parent, AdaptConfig().seed
    reference = read_cells(beside / f"{material}-test-cells.h5")
    fixed = unseen(read_cells(beside / f"{material}-fixed-cells.h5"), files[material], seed, max(events_of(options)))
    rows = test(options, base, reference, fixed, "before")
    for events in events_of(options):
        how = AdaptConfig.model_validate(
            {
                "method": options.method,
                "range": "base",
                "steps": options.steps,
                "location_scale_steps": options.steps,
                "seed": seed,
            }
        )
        data = load_data(files[material], VALIDATION, seed, events)
        adapted = adapt(base, how, data, options.output / f"{material}-{events}").surrogate
        rows += test(options, adapted, reference, fixed, f"{events} events")
    write_whole(kept, json.dumps(rows, indent=1).encode())
    return rows


def events_of(options: Any) -> list[int]:
    """Return the numbers of showers to adapt with."""
    return [int(word) for word in options.events.split(",")]


def unseen(fixed: Cells, files: list[Path], seed: int, events: int) -> Cells:
    """Return rows at fixed designs of the first file's library, without the showers of an adaptation."""
    heads = [Heads.of(read_cells(path)) for path in files]
    split = split_by_shower(files, heads, VALIDATION, seed, events)
    known = np.concatenate([split.train, split.validation])
    return fixed.rows(~np.isin(fixed.shower, heads[0].shower[known[known < len(heads[0].shower)]]))


def test(options: Any, surrogate: Surrogate, reference: Cells, fixed: Cells, stage: str) -> list[dict[str, Any]]:
    """Return the biases of means at designs and energies of the reference, and in bands of energy of fixed rows."""
    found: list[tuple[float, float, str, dict[str, tuple[float, float]]]] = []
    made = generate_like(options, surrogate, reference)
    for point, biases in mean_biases(made, reference).items():
        found.append((point.design.dx, point.design.dz[0], f"{point.energy:g}", biases))
    made = generate_like(options, surrogate, fixed)
    for dx in np.unique(fixed.dx):
        for low, high in pairwise(BANDS):
            rows = np.flatnonzero((fixed.dx == dx) & (fixed.energy >= low) & (fixed.energy < high))
            band = f"{low:g} to {high:g} ({len(rows)})"
            found.append((dx, fixed.dz[rows[0], 0], band, paired_biases(options, made, fixed, rows)))
    return [
        {
            "material": reference.material.name, "stage": stage, "design": f"{dx:.3g} x {dz:.3g}", "energy": energy,
            "biases": [biases[name] for name in SHOWN],
        }
        for dx, dz, energy, biases in found
    ]  # fmt: skip


def generate_like(options: Any, surrogate: Surrogate, reference: Cells) -> Cells:
    """Generate the number of showers asked for of every row, one behind the other."""
    energy, dx, dz = (np.repeat(c, options.repeat, axis=0) for c in (reference.energy, reference.dx, reference.dz))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a material that was not trained on, which is the point
        seed = options.seed + sum(reference.material.name.encode())  # one noise for all would look like a bias of all
        return generate(surrogate, energy, dx, dz, material=reference.material, seed=seed, extrapolate=True)


def paired_biases(options: Any, made: Cells, reference: Cells, rows: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the biases of means of showers of different energies, with errors of the paired differences."""
    each = (options.repeat * rows[:, None] + np.arange(options.repeat)).ravel()
    a, b = (observe_rows(c, r).table()[:, : len(OBSERVABLES)] for c, r in ((made, each), (reference, rows)))
    total = OBSERVABLES.index("E_tot")
    a[:, total] /= made.energy[each]
    b[:, total] /= reference.energy[rows]
    difference = (a.reshape(len(rows), options.repeat, -1).mean(1) - b) / b.mean(0)
    error = difference.std(0, ddof=1) / len(rows) ** 0.5
    return {n: (float(difference[:, k].mean()), float(error[k])) for k, n in enumerate(OBSERVABLES)}


if __name__ == "__main__":
    main()
