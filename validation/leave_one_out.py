"""A surrogate of several materials on one that it has not seen: leave_one_out.py CONFIG.toml FOLDER.

For every material of the configuration's files a surrogate is trained on the others (FOLDER/without-MATERIAL; from
random weights if the configuration begins with a surrogate that has seen the material, with --fresh-steps), then
tested on Geant4 showers of it before and after adaptation with few of its showers, and printed as a table: biases of
the means of E_tot, R_E and the longitudinal mean with standard errors, and their root mean square over designs and
energies, beside that of the errors. Test showers are in MATERIAL-test-cells.h5 beside the training files, see
runs/materials.sh. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from calograd import Surrogate
from calograd.evaluation.evaluate import mean_biases
from calograd.learning.adapt import adapt
from calograd.learning.adapt_state import AdaptConfig
from calograd.learning.config import RunConfig, read_config
from calograd.learning.data import load_data
from calograd.learning.train import train
from calograd.showers.cells import Cells, read_cells
from calograd.showers.hdf5 import write_whole
from calograd.surrogate.generate import generate

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
    parser.add_argument("--repeat", type=int, default=4, help="showers generated for each of Geant4's")
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
        print(f"| {row['material']} | {row['stage']} | {row['design']} | {row['energy']:g} | {' | '.join(biases)} |")
    print(f"\n| left out | stage | {' | '.join(f'{name}, rms %' for name in SHOWN.values())} |")
    print("|---" * (2 + len(SHOWN)) + "|")
    for material in chosen:
        for stage in dict.fromkeys(row["stage"] for row in rows):
            found = np.array([r["biases"] for r in rows if (r["material"], r["stage"]) == (material, stage)])
            rms = 100 * np.sqrt((found**2).mean(0))  # (observables, bias and error)
            print(f"| {material} | {stage} | {' | '.join(f'{b:.2f} (errors {e:.2f})' for b, e in rms)} |")


def leave_out(options: Any, config: RunConfig, files: dict[str, list[Path]], material: str) -> list[dict[str, Any]]:
    """Rows of the table for one material, kept beside its run."""
    run, kept = options.output / f"without-{material}", options.output / f"without-{material}.json"
    if kept.exists():
        return list(json.loads(kept.read_text()))
    others = [path for name, paths in files.items() if name != material for path in paths]
    changes: dict[str, Any] = {"steps": options.training_steps} if options.training_steps else {}
    if (start := config.training.start) and material in (m["name"] for m in Surrogate.load(start).card.materials):
        changes = {"start": "", "steps": options.fresh_steps, "learning_rate": 2e-3}
    without = config.model_copy(
        update={
            "name": run.name,
            "data": config.data.model_copy(update={"files": others}),
            "training": config.training.model_copy(update=changes),
        }
    )
    train(without, load_data(others, config.data.validation, config.training.seed), run)
    base = Surrogate.load(run)
    reference = read_cells(files[material][0].parent / f"{material}-test-cells.h5")
    rows = test(options, base, reference, "before")
    for events in map(int, options.events.split(",")):
        how = AdaptConfig.model_validate(
            {"method": options.method, "range": "base", "steps": options.steps, "moments_steps": options.steps}
        )
        data = load_data(files[material], 0.1, how.seed, events)
        adapted = adapt(base, how, data, options.output / f"{material}-{events}").surrogate
        rows += test(options, adapted, reference, f"{events} events")
    write_whole(kept, json.dumps(rows, indent=1).encode())
    return rows


def test(options: Any, surrogate: Surrogate, reference: Cells, stage: str) -> list[dict[str, Any]]:
    """Biases of the means at every design and energy of the reference."""
    energy, dx, dz = (np.repeat(c, options.repeat, axis=0) for c in (reference.energy, reference.dx, reference.dz))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a material that was not trained on, which is the point
        made = generate(surrogate, energy, dx, dz, material=reference.material, seed=5, extrapolate=True)
    return [
        {
            "material": reference.material.name, "stage": stage,
            "design": f"{point.design.dx:.3g} x {point.design.dz[0]:.3g}",
            "energy": point.energy, "biases": [found[name] for name in SHOWN],
        }
        for point, found in mean_biases(made, reference).items()
    ]  # fmt: skip


if __name__ == "__main__":
    main()
