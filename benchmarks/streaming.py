"""Memory of a training on more rows than may be in memory.

    python benchmarks/streaming.py [--memory MB] [--times N]

Cells files of N times the allowed memory are made up in a temporary folder and trained on three times, each time in a
process of its own: few rows (what Python, torch, the networks and a look at them take), all rows streamed with
``data.memory``, and all rows in memory. The peak is that of the resident set, as the system counts it (``ru_maxrss``).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from calograd.detector.material import MATERIALS
from calograd.events.dense import Cells, extent_of, write_cells
from calograd.training.config import read_config
from calograd.training.log import read_log
from calograd.training.train import read_data, train

FILES = 3
DESIGNS = 4
FEW = 8000
VALIDATED = 6000
"""Rows that a look at a training takes, at most; the few rows are mostly these."""
TOML = """
name = "streaming"
data = {{ files = ["{files}"], {more} }}
range = {{ energy = [1.2, 90.0], dx = [1.1, 4.5], dz = [4.4, 13.5] }}
model = {{ shape_width = 32, pattern_width = 32, pattern_blocks = 1 }}
training = {{ steps = 200, location_scale_steps = 50, report_every = 100, threads = 1 }}
"""


def made_up(showers: int, seed: int) -> Cells:
    """Showers of 1 to 100 GeV in 5 x 5 x 5 cells, `DESIGNS` rows each; two in five of their cells are empty."""
    rng, n = np.random.default_rng(seed), showers * DESIGNS
    energy = np.repeat(np.exp(rng.uniform(0, np.log(100), showers)), DESIGNS).astype(np.float32)
    cells = rng.random((n, 5, 5, 5), dtype=np.float32) ** 4 * (rng.random((n, 5, 5, 5), dtype=np.float32) < 0.6)
    cells *= (0.95 * energy / cells.sum((1, 2, 3)))[:, None, None, None]
    dx, dz = np.exp(rng.uniform(0, np.log(5), n)), np.exp(rng.uniform(np.log(4), np.log(15), n))
    return Cells(
        cells, energy, dx.astype(np.float32), np.repeat(dz[:, None], 5, 1).astype(np.float32),
        np.repeat(np.arange(showers), DESIGNS), MATERIALS["PbF2"], "geant4", {"simulation": {"seed": seed}},
    )  # fmt: skip


def one(config: Path) -> None:
    """Train as a configuration says, in this process; prints what it took."""
    settings = read_config(config)
    started = time.perf_counter(), time.process_time()
    data = read_data(settings)
    loaded = time.process_time() - started[1]
    train(settings, config.with_suffix(""), data=data)
    took = {
        "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "load_s": loaded, "cpu_s": time.process_time() - started[1], "seconds": time.perf_counter() - started[0],
        "window": str(data.window), "validation_loss": read_log(config.with_suffix(""))[-1]["validation_loss"],
    }  # fmt: skip
    print(json.dumps(took))


def main() -> None:
    """Make the files, train on them in three ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=float, default=64.0, help="MB that rows may take. [64]")
    parser.add_argument("--times", type=float, default=3.0, help="Size of the data in units of that. [3]")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        one(asked.one)
        return
    with tempfile.TemporaryDirectory(prefix="calograd-") as name:
        folder = Path(name)
        rows = round(asked.times * asked.memory * 1e6 / 4 / (125 + 5 + 4))
        (folder / "all").mkdir()
        (folder / "few").mkdir()
        for number in range(FILES):
            write_cells(folder / "all" / f"{number}.h5", made_up(rows // FILES // DESIGNS, number))
        write_cells(folder / "few" / "0.h5", made_up(FEW // DESIGNS, 0))
        stored = sum(path.stat().st_size for path in (folder / "all").iterdir()) / 1e6
        held = sum(extent_of(path).rows for path in (folder / "all").iterdir())
        size = 4 * held * (125 + 5 + 4) / 1e6
        print(
            f"{held} rows in {FILES} files: {size:.0f} MB, {stored:.0f} MB on disk; data.memory = {asked.memory:g} MB"
        )
        cases = {
            "few rows": ("few/", f"validation = {VALIDATED / FEW}"),
            "streamed": ("all/", f"memory = {asked.memory}"),
            "in memory": ("all/", "validation = 0.05"),
        }
        base = 0.0
        for case, (files, more) in cases.items():
            config = folder / f"{case.replace(' ', '-')}.toml"
            config.write_text(TOML.format(files=files, more=more), encoding="utf-8")
            made = subprocess.run(
                [sys.executable, __file__, "--one", str(config)], check=True, capture_output=True, text=True
            )
            took = json.loads(made.stdout.splitlines()[-1])
            base = base or took["peak_MB"]
            print(
                f"{case:>10}: peak {took['peak_MB']:5.0f} MB, {took['peak_MB'] - base:+5.0f} MB; loading "
                f"{took['load_s']:.1f} s, all {took['cpu_s']:.1f} s of the processor; validation loss "
                f"{took['validation_loss']:.4f}" + (f"; {took['window']}" if took["window"] != "None" else "")
            )


if __name__ == "__main__":
    main()
