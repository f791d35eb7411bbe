"""Training and adaptation of surrogates of maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.made_up import made_up_cells, tables
from test_train import assert_equal, interrupt_at

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import InputError, Interrupted
from calograd.events.dense import Maps, write_cells, write_maps
from calograd.surrogate import Surrogate
from calograd.surrogate.maps.coordinates import PLAIN_SCALE
from calograd.surrogate.model import Architecture
from calograd.surrogate.registry import architecture
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig, DesignRun, PointsRun, parse_config, read_config
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.log import read_log
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train

MODEL = {
    "kind": "maps", "slabs": 4, "width": 8, "patch": 4, "multipliers": [1, 2], "embedding": 8, "shape_width": 16,
    "shape_blocks": 1, "location_scale_width": 8,
}  # fmt: skip
PLAIN = {"coordinates": "plain", "schedule": "linear", "preconditioning": "noise", "dropout": 0.1, "dropped": 0.2}

RUNS = Path(__file__).parents[2] / "runs"


def made_up_maps(seed: int = 0) -> Maps:
    """The made-up cells, spread over 32 x 32 pixels with some of them empty."""
    cells, rng = made_up_cells(seed=seed), np.random.default_rng(seed)
    share = rng.gamma(1.0, size=(len(cells), 32, 32)) * (rng.random((len(cells), 32, 32)) > 0.3)
    across, along = np.repeat(np.arange(3), 11)[:32], np.repeat(np.arange(2), 16)
    maps = cells.cells.sum(2)[:, across][:, :, along] * share
    maps *= (cells.totals / maps.sum((1, 2)))[:, None, None]
    return Maps(
        maps.astype(np.float32), cells.energy, cells.dx, cells.dz, 3, cells.shower, cells.material, "geant4",
        cells.config,
    )  # fmt: skip


def config_of(folder: Path, model: dict[str, Any] | None = None, **training: Any) -> DesignRun:
    raw = tables(folder, **({"steps": 22, "location_scale_steps": 10, "report_every": 11} | training))
    raw["model"] = MODEL | (model or {})
    raw["data"]["files"] = ["maps.h5"]
    if not (folder / "maps.h5").exists():
        write_maps(folder / "maps.h5", made_up_maps())
    return parse_config(raw, "tiny.toml", folder)


def load(config: DesignRun) -> TrainingData:
    return load_data(config.data.files, config.data.validation, config.training.seed)


@pytest.mark.parametrize("model", [{}, PLAIN], ids=["shares", "plain"])
def test_a_run_makes_a_surrogate_and_an_interrupted_one_the_same(tmp_path: Path, model: dict[str, Any]) -> None:
    config = config_of(tmp_path, model)
    data = load(config)
    assert data.kind == "maps"
    whole = train(config, tmp_path / "whole", data=data)
    surrogate = Surrogate.load(tmp_path / "whole")
    assert surrogate.card.kind == "maps"
    assert (surrogate.design_model.architecture.n_xy, surrogate.design_model.architecture.n_z) == (3, 2)
    log = read_log(tmp_path / "whole")
    assert [line["step"] for line in log] == [11, 22]
    assert set(log[-1]["bias"]) == {"E_tot", "R_E", "sigma_y", "z_mean", "z_width"}
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", data=data, progress=interrupt_at("diffusion", 20))
    assert_equal(train(config, tmp_path / "run", data=data), whole)


def test_the_loss_falls(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=60, report_every=30, learning_rate=1e-2, ema=0.9)
    train(config, tmp_path / "run", data=load(config))
    first, last = read_log(tmp_path / "run")
    assert last["validation_loss"] < first["validation_loss"]


def test_plain_pixels_are_scaled_by_the_incident_energy(tmp_path: Path) -> None:
    config = config_of(tmp_path, PLAIN, steps=1, report_every=1)
    data = load(config)
    model = train(config, tmp_path / "run", data=data)
    rows = data.train.at(torch.arange(3))
    conditions = data.conditions(model, rows)
    _, y = model.standardise(rows.cells, rows.energy, conditions, RandomNumbers(0, range(3)))
    back = y * rows.energy[:, None] / PLAIN_SCALE
    assert torch.allclose(back, rows.cells.flatten(1), rtol=1e-6)


def test_adaptation_changes_linear_layers_and_convolutions(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    train(config, tmp_path / "base", data=load(config))
    base = Surrogate.load(tmp_path / "base")
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    other = made_up_maps(seed=1)
    write_maps(tmp_path / "other.h5", other)
    data = load_data([tmp_path / "other.h5"], 0.2, 0)
    few = AdaptConfig(steps=6, location_scale_steps=6, batch=16, report_every=3, rank=2, precision="fp32")
    outcome = adapt(base, few, data, tmp_path / "adapted")
    assert all(phase.after <= phase.before for phase in outcome.phases)
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, before[name])
    adapted = Surrogate.load(tmp_path / "adapted")
    assert adapted.card.kind == "maps"
    names = set(outcome.surrogate.adapters[-1].table)
    assert {"pattern_network.into.a", "pattern_network.down.0.first.b", "shape_network.into.a"} <= names
    assert_equal(adapted.model, outcome.surrogate.model)
    write_cells(tmp_path / "other-cells.h5", made_up_cells(seed=1))
    with pytest.raises(InputError, match="of kind 'cells', tiny is of kind 'maps'; segment with --maps"):
        adapt(base, few, load_data([tmp_path / "other-cells.h5"], 0.2, 0), tmp_path / "none")


def test_several_materials_are_told_apart_by_their_effective_atomic_number(tmp_path: Path) -> None:
    config = config_of(tmp_path, steps=2, report_every=2)
    write_maps(tmp_path / "bgo.h5", replace(made_up_maps(seed=1), material=MATERIALS["BGO"]))
    data = load_data([*config.data.files, tmp_path / "bgo.h5"], 0.2, 0)
    model = train(config, tmp_path / "run", data=data)
    assert model.architecture.material_numbers == ("effective_atomic_number",)
    surrogate = Surrogate.load(tmp_path / "run")
    assert [material.name for material in surrogate.card.designs.materials] == ["PbF2", "BGO"]
    maps = surrogate.sample(Design(2.5, 6.0, "BGO", n_xy=3, n_z=2), 10.0, 2, steps=2)
    assert maps.shape == (2, 32, 32)


def test_cells_and_maps_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path)
    raw = tables(tmp_path)
    cells = parse_config(raw, "cells.toml", tmp_path)
    with pytest.raises(InputError, match=r"data are for a surrogate of kind 'maps', model\.kind is 'cells'"):
        train(cells, tmp_path / "run", data=load(config))
    with pytest.raises(InputError, match="has cells"):
        load_data([tmp_path / "maps.h5", tmp_path / "cells.h5"], 0.2, 0)


def wrong(change: Callable[[dict[str, Any]], Any], folder: Path) -> str:
    raw = tables(folder)
    raw["model"] = dict(MODEL)
    change(raw["model"])
    with pytest.raises(InputError) as caught:
        parse_config(raw, "bad.toml", folder)
    return str(caught.value)


def test_mistakes_in_the_configuration_are_named(tmp_path: Path) -> None:
    assert "unknown key 'model.widht'; did you mean 'width'?" in wrong(lambda m: m.update(widht=3), tmp_path)
    assert "model.kind: expected one of cells, maps, points" in wrong(lambda m: m.update(kind="map64"), tmp_path)
    assert "model.dropout" in wrong(lambda m: m.update(dropout=1.5), tmp_path)


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_configurations_that_are_shipped(path: Path) -> None:
    config = read_config(path)
    form: Architecture
    if isinstance(config, DesignRun):
        form = config.model.architecture(5, 5)
    elif isinstance(config, PointsRun):
        form = config.model.architecture(30)
    else:
        form = config.model.architecture()
    assert architecture(config.model.kind, form.to_dict()) == form


def test_the_wide_network_learns_a_step() -> None:
    form = read_config(RUNS / "paper-wide.toml").model.architecture(5, 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = form.build()
    assert sum(weight.numel() for weight in model.parameters()) > 15e6
    conditions, y = torch.zeros(1, model.n_conditions), torch.zeros(1, 32 * 32)
    _, loss = model.losses(torch.zeros(1, 0), y, conditions, RandomNumbers(0, range(1)))
    loss.mean().backward()
    assert float(model.pattern_network.out.weight.grad.abs().max()) > 0
