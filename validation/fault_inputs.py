"""Inputs of `faults.py`: small files, and commands in processes that can be killed."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from calograd import cli
from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig
from calograd.detector.material import MATERIALS, Material
from calograd.events.dense import Cells, Maps, write_cells, write_maps
from calograd.events.library.schema import Provenance, pack
from calograd.events.point_showers import PointShowers, write_points
from calograd.events.ragged import Showers
from calograd.geant4 import farm
from calograd.objective.background import BackgroundMap, write_background_map
from calograd.surrogate import Card, Surrogate, TrainedDesigns
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.training.loop import read_checkpoint

for module in (
    "distributed", "calograd.cli.simulate", "calograd.cli.segment", "calograd.cli.sample", "calograd.cli.train",
    "calograd.cli.design", "calograd.reports.optimisation", "calograd.optimisation.run", "calograd.reports.training",
    "calograd.training.train", "calograd.geant4.production",
):  # fmt: skip
    import_module(module)  # once, not in every command

SIZES = {"shape_width": 8, "shape_blocks": 1, "pattern_width": 8, "pattern_blocks": 1, "embedding": 8,
         "location_scale_width": 8}  # fmt: skip
TRAIN = """name = "tiny"
[data]
files = ["cells.h5"]
validation = 0.3
[range]
energy = [1.5, 80]
dx = [1.2, 4.5]
dz = [4.5, 13]
[model]
{sizes}
[training]
steps = 120
batch = 32
location_scale_steps = 60
location_scale_batch = 32
warmup = 5
report_every = 30
threads = 1
checkpoint_minutes = 0.001
"""
OPTIMISE = """[space]
start = { dx = 2.5, dz = 7.0 }
bounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }
[background]
kind = "none"
[utility]
kind = "containment"
[spectrum]
energies = [10]
[gradient]
showers = 30
steps = 2
[ascent]
steps = 5
draws = 2
max_draws = 2
tolerance = 1e-4
showers = 20
[check]
library = "library.h5"
"""


class Ended(NamedTuple):
    """A command that has ended: its exit code, minus the signal that killed it, and its standard error."""

    code: int
    err: str

    @property
    def one_line(self) -> bool:
        """True if the command was refused in one line, as bad input has to be."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        return self.code in (1, 2) and len(lines) == 1 and "Traceback" not in self.err

    @property
    def complaint(self) -> str:
        """Last line of the standard error."""
        return next((line for line in self.err.splitlines() if line.startswith("error: ")), self.err[-200:])


def fork(work: Callable[[], None], folder: Path, log: Path) -> int:
    """Do ``work`` in ``folder`` in a process of its own, the leader of its group, and return its number.

    It is forked from this one, which has imported everything, so that a run takes as long as its work.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        while os.getsid(child) != child:
            time.sleep(0.001)
        return child
    os.setsid()
    os.chdir(folder)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    code = 1
    try:
        work()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    except BaseException:  # whatever it is: the code and the text tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start(arguments: tuple[str, ...], folder: Path, log: Path) -> int:
    """Start ``calograd ARGUMENTS`` in ``folder``."""

    def work() -> None:
        sys.argv = ["calograd", *arguments]
        farm.CHUNK_SECONDS = (
            0.04,
            0.04,
            0.04,
        )  # chunks of three showers of 1 GeV
        cli.main()

    return fork(work, folder, log)


def wait(child: int, log: Path, patience: float = 900) -> Ended:
    """Wait for a process; one that takes too long is killed."""
    end = time.monotonic() + patience
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))
        if time.monotonic() > end:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(-signal.SIGALRM, "took too long")
        time.sleep(0.01)


def run(arguments: tuple[str, ...], folder: Path) -> Ended:
    """Run ``calograd ARGUMENTS`` in ``folder`` to its end."""
    log = folder / "log.txt"
    return wait(start(arguments, folder, log), log)


def make_inputs(folder: Path) -> None:
    """Write the inputs of all cases: a library, cells, maps, points, a background, a surrogate, configurations."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = "\n".join(f"{name} = {value}" for name, value in SIZES.items())
    (folder / "train.toml").write_text(TRAIN.replace("{sizes}", sizes))
    (folder / "optimise.toml").write_text(OPTIMISE)
    write_library(folder / "library.h5")
    rng = np.random.default_rng(0)
    write_cells(folder / "cells.h5", some_cells(60, rng))
    columns = rng.uniform(2, 4, 20).astype(np.float32), np.full((20, 3), 6, np.float32)
    images = rng.gamma(1.0, size=(20, 8, 8)).astype(np.float32)
    maps = Maps(images, np.full(20, 60, np.float32), *columns, 3, np.arange(20), MATERIALS["PbF2"], "geant4", {"a": 1})
    write_maps(folder / "maps.h5", maps)
    n, layer = 200, np.sort(rng.integers(0, 30, (4, 50)), axis=1).ravel()
    xy, e = rng.normal(0, 1, (2, n)).astype(np.float32), rng.gamma(1.0, size=n).astype(np.float32)
    offsets, energy = np.arange(0, n + 1, 50), np.full(4, 50, np.float32)
    write_points(folder / "points.h5", PointShowers(xy[0], xy[1], layer, e, offsets, energy, np.arange(4)))
    edges = torch.linspace(-20, 20, 5, dtype=torch.float64)
    density = torch.from_numpy(rng.uniform(1e-4, 1e-3, (4, 4, 4)))
    write_background_map(folder / "background.h5", BackgroundMap(
        density=density, x=edges, y=edges, z=edges + 20, sigma_event=0.3, shape_cell=2.0, diffusion=0.1,
    ))  # fmt: skip
    surrogate(5, 5).save(folder / "model")


def some_cells(n: int, rng: np.random.Generator) -> Cells:
    """Return showers of 1 to 100 GeV in 3 x 3 x 2 cells of drawn sizes."""
    energy = np.exp(np.linspace(0, np.log(100), n)).astype(np.float32)
    cells = rng.gamma(1.0, size=(n, 3, 3, 2))
    cells *= (rng.uniform(0.9, 0.98, n) * energy / cells.sum((1, 2, 3)))[:, None, None, None]
    dx, dz = (np.exp(np.linspace(np.log(a), np.log(b), n)).astype(np.float32) for a, b in ((1, 5), (4, 15)))
    return Cells(
        cells.astype(np.float32), energy, rng.permutation(dx), rng.permutation(dz)[:, None].repeat(2, 1), np.arange(n),
        MATERIALS["PbF2"], "geant4", {"mode": "embedded"},
    )  # fmt: skip


def write_library(path: Path, n: int = 24, each: int = 400) -> None:
    """Write a library of 10 GeV without Geant4."""
    rng = np.random.default_rng(5)
    share = rng.gamma(1.0, size=(n, each))
    share *= (9.7 / share.sum(1))[:, None]
    x, y = rng.normal(0, 2, (2, n * each)).astype(np.float32)
    showers = Showers(
        x=x, y=y, z=rng.gamma(4.0, 2.0, n * each).astype(np.float32), e=share.ravel().astype(np.float32),
        offsets=np.arange(0, n * each + 1, each), energy=np.full(n, 10, np.float32), index=np.arange(n),
        seed=np.arange(n).astype(np.uint64),
    )  # fmt: skip
    config = SimulationConfig(
        detector=Block(material=Material.parse("PbF2")), beam=Beam(energies=Energies(law="discrete", values=(10.0,)))
    )
    path.write_bytes(pack(showers, Provenance(config, "11.4.1", "none")))


def surrogate(n_xy: int, n_z: int) -> Surrogate:
    """Write a surrogate of random weights."""
    architecture = CellsArchitecture(n_xy=n_xy, n_z=n_z, **SIZES)
    torch.manual_seed(0)
    model = CellsModel(architecture).eval().requires_grad_(False)
    return Surrogate(model, Card(
        name="tiny", kind="cells", architecture=architecture.to_dict(), energy=(1, 100), training={},
        trained=TrainedDesigns(dx=(1, 5), dz=(4, 15), materials=(Material.parse("PbF2"),), mode="embedded"),
    ))  # fmt: skip


def where(folder: Path) -> tuple[int, int]:
    """Return phase and step of the checkpoint of `calograd train`; (-1, 0) without one."""
    found = read_checkpoint(folder, lambda stored: (int(stored["phase"]), int(stored["step"])))
    return found or (-1, 0)


def steps_done(folder: Path) -> int:
    """Return the number of steps of `calograd optimise` that are on disk."""
    path = folder / "ascent.json"
    return len(json.loads(path.read_text())["state"]["history"]) if path.exists() else -1
