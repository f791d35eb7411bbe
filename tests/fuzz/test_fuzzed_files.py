"""Whatever a file holds, reading it gives something valid or one line that says what is wrong.

CALOGRAD_FUZZ=1000 tries so many random cases of every kind in place of the few that are always the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cards import design_card
from helpers.damage import CHANGES, FUZZ, Change, damaged_bytes, refused_or_valid, spoil
from helpers.toy_library import made_up_plates, plates_config
from helpers.toy_task import ToyTask
from hypothesis import given
from hypothesis import strategies as st

from calograd.detector.configuration import Beam, Block, Energies, SimulationConfig
from calograd.detector.material import MATERIALS
from calograd.events.dense import Cells, Maps, read_cells, read_maps, write_cells, write_maps
from calograd.events.library.reader import open_library, open_plates
from calograd.events.library.schema import Provenance, pack
from calograd.events.point_showers import PointShowers, read_points, write_points
from calograd.events.ragged import Showers
from calograd.nn.lora import tabulate
from calograd.objective.background import BackgroundMap, read_background_map, write_background_map
from calograd.optimisation.state import PathPoint, State, read_state, write_state
from calograd.readers.showerdata import read_showerdata, write_showerdata
from calograd.surrogate import Adapter, Surrogate
from calograd.surrogate.adapters import AdapterCard, Base
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.training.log import LOG, add_to_log, read_log
from calograd.training.loop import TrainingState, read_checkpoint, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
"""A damaged card without a digest may ask for a network of no size, which does not fit the weights then."""

SMALL = CellsArchitecture(
    n_xy=3, n_z=1, shape_width=2, shape_blocks=1, pattern_width=2, pattern_blocks=1, embedding=2, location_scale_width=2
)


def _read_library(path: Path) -> None:
    for recover in (False, True):
        with open_library(path, recover=recover) as library:
            library.read()


def _read_plates(path: Path) -> None:
    for recover in (False, True):
        with open_plates(path, recover=recover) as library:
            library.read().energies()


VARYING = "showerdata.h5"
"""Other programs' rows of varying length: HDF5's own library may crash where bytes of their heap are wrong."""
READERS: dict[str, Callable[[Path], Any]] = {
    "library.h5": _read_library,
    "plates.h5": _read_plates,
    "plates-points.h5": lambda path: open_plates(path, deposits=True).read(),
    "cells.h5": read_cells,
    "maps.h5": read_maps,
    "points.h5": read_points,
    "background.h5": read_background_map,
    VARYING: read_showerdata,
    "model/model.safetensors": lambda path: Surrogate.load(path.parent),
    "adapter/adapter.safetensors": Adapter.load,
    "run/checkpoint.pt": lambda path: read_checkpoint(path.parent, dict),
    "run/log.jsonl": lambda path: read_log(path.parent),
    "ascent.json": lambda path: read_state(path, {}),
}
HDF5 = [name for name in READERS if name.endswith(".h5")]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small file of every kind."""
    folder, rng = tmp_path_factory.mktemp("originals"), np.random.default_rng(0)
    counts, energy = [3, 0, 4], np.float32([1, 2, 3])
    x, y, z, e = rng.gamma(1.0, size=(4, 7)).astype(np.float32)
    offsets = np.cumsum([0, *counts])
    showers = Showers(x, y, z, e, offsets, energy, np.arange(3), np.arange(3).astype(np.uint64), t=z / 30)
    beam = Beam(energies=Energies(law="discrete", values=(1.0,)))
    config = SimulationConfig(detector=Block(material=MATERIALS["PbF2"]), beam=beam)
    (folder / "library.h5").write_bytes(pack(showers, Provenance(config, "11.4.1", "none")))
    stacks = Provenance(plates_config(), "11.4.1", "none")
    (folder / "plates.h5").write_bytes(pack(made_up_plates(range(3)), stacks))
    stacks = Provenance(plates_config(record="points"), "11.4.1", "none")
    (folder / "plates-points.h5").write_bytes(pack(made_up_plates(range(3), stacks.config), stacks))
    dx, dz, shower, material = np.float32([2, 3, 4]), np.full((3, 1), 6, np.float32), np.arange(3), MATERIALS["PbF2"]
    cells = rng.gamma(1.0, size=(3, 3, 3, 1)).astype(np.float32)
    timed = Cells(
        cells,
        9 * energy,
        dx,
        dz,
        shower,
        material,
        "geant4",
        {"mode": "embedded"},
        mean_time=cells,
        first_time=cells / 2,
    )
    write_cells(folder / "cells.h5", timed)
    write_maps(folder / "maps.h5", Maps(cells[..., 0], 9 * energy, dx, dz, 3, shower, material, "geant4"))
    clouds = PointShowers(x, y, np.array([0, 1, 29, 0, 3, 3, 4]), e, offsets, energy, shower)
    write_points(folder / "points.h5", clouds)
    write_showerdata(folder / "showerdata.h5", clouds)
    edges = torch.linspace(0, 3, 3, dtype=torch.float64)
    density = torch.from_numpy(rng.random((2, 2, 2)))
    write_background_map(folder / "background.h5", BackgroundMap(
        density=density, x=edges, y=edges, z=edges, sigma_event=0.1, shape_cell=2.0, diffusion=0.1
    ))  # fmt: skip
    _write_learnt(folder)
    (folder / "run").mkdir()
    task = ToyTask(CellsModel(SMALL))
    save_checkpoint(TrainingState.start(task.model, task.generator), task, folder / "run")
    for step in range(3):
        add_to_log(folder / "run", {"step": step, "bias": {"E_tot": [0.1, None]}})
    point = PathPoint((0.1, 0.2), (1.0, 2.0), (0.1, 0.1), 0.5, 0.01)
    state = State((2.0, 6.0), (0.7, 1.8), (0.7, 1.8), (point,), ((1.0, 0.0), (0.0, 1.0)), 0.1, 0.2)
    write_state(folder / "ascent.json", state, {"seed": 1})
    return folder


def _write_learnt(folder: Path) -> None:
    """A surrogate and an adapter."""
    torch.manual_seed(0)
    card = design_card("small", SMALL)
    surrogate = Surrogate(CellsModel(SMALL).eval().requires_grad_(False), card)
    surrogate.save(folder / "model")
    adapter = AdapterCard(
        name="new", base=Base(name="small", identity=surrogate.identity), method="bitfit", rank=1, alpha=1.0,
        targets=("*",), energy=(1, 100), trained=card.trained, training={},
    )  # fmt: skip
    Adapter(adapter, tabulate(surrogate.model, adapter.plan(), {})).save(folder / "adapter")


@pytest.fixture
def place(tmp_path: Path, originals: Path) -> Callable[[str, bytes], Path]:
    """Write a file where its reader looks for it."""

    def put(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    for name in READERS:
        put(name, (originals / name).read_bytes())
    return put


@pytest.mark.parametrize("name", READERS)
def test_they_can_be_read_as_they_were_written(name: str, originals: Path, place) -> None:
    path = place(name, (originals / name).read_bytes())
    assert refused_or_valid(lambda: READERS[name](path))


@pytest.mark.parametrize("name", [name for name in READERS if name != VARYING])
@FUZZ
@given(data=st.data())
def test_other_bytes(name: str, originals: Path, place, data: st.DataObject) -> None:
    path = place(name, data.draw(damaged_bytes((originals / name).read_bytes())))
    refused_or_valid(lambda: READERS[name](path))


@pytest.mark.parametrize("name", HDF5)
@FUZZ
@given(changes=CHANGES, unsealed=st.booleans())
def test_other_contents(name: str, originals: Path, place, changes: list[Change], unsealed: bool) -> None:
    path = place(name, (originals / name).read_bytes())
    spoil(path, changes, unsealed)
    refused_or_valid(lambda: READERS[name](path))


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=60).map(str.encode), st.sampled_from(sorted(READERS)))
def test_something_else_altogether(place, content: bytes, name: str) -> None:
    path = place(name, content)
    readable = refused_or_valid(lambda: READERS[name](path))
    assert not readable or path.name == LOG or json.loads(content)
