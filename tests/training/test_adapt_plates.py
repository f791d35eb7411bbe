"""Adaptation of a tiny surrogate of stacks of plates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_library import plates_config, write_plates
from test_train_plates import config_of, points_of

from calograd import SamplingDesign
from calograd.errors import InputError
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedStacks
from calograd.training.config import AdaptConfig
from calograd.training.data.plates import load_plates
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train

QUICK = {"rank": 2, "alpha": 4.0, "steps": 20, "location_scale_steps": 20, "batch": 32, "location_scale_batch": 32,
         "warmup": 5, "report_every": 10, "learning_rate": 5e-3, "ema": 0.9}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surrogate of made-up stacks of lead, tungsten and iron in ``base``, showers in copper in new.h5. Read only."""
    folder = tmp_path_factory.mktemp("plates")
    write_plates(folder / "one.h5", 60)
    write_plates(folder / "other.h5", 40, config=plates_config(2, absorber=("W", "Fe")))
    train(config_of(folder), folder / "base")
    write_plates(folder / "new.h5", 80, config=plates_config(3, absorber=("Cu",)))
    return folder


def adapted(folder: Path, output: Path, **changes: Any) -> Any:
    data = load_plates([folder / "new.h5"], 0.2, seed=0)
    return adapt(Surrogate.load(folder / "base"), AdaptConfig.model_validate(QUICK | changes), data, output)


@pytest.mark.parametrize("method", ["lora", "bitfit", "full", "scratch"])
def test_every_phase_ends_with_no_larger_loss_of_the_held_out_showers(
    folder: Path, tmp_path: Path, method: str
) -> None:
    changes = {"method": method, "location_scale_steps": 80, "targets": ("*",)} | (
        {} if method == "lora" else {"rank": 8, "alpha": 16.0}
    )
    outcome = adapted(folder, tmp_path / "new", **changes)
    assert [phase.name for phase in outcome.phases] == [
        "shower location and scale", "layer location and scale", "diffusion",
    ]  # fmt: skip
    assert all(phase.after <= phase.before for phase in outcome.phases)
    assert outcome.phases[0].after < outcome.phases[0].before
    loaded = Surrogate.load(tmp_path / "new")
    stack = SamplingDesign("Cu", "lAr", 0.3, 0.4, 5)
    made = [
        surrogate.sample(
            stack, 2.0, 4, particle="e-", layers_only=True, generator=torch.Generator().manual_seed(0)
        ).layer_energies()
        for surrogate in (outcome.surrogate, loaded)
    ]
    torch.testing.assert_close(*made)


@pytest.mark.parametrize("method", ["lora", "bitfit", "full"])
def test_location_and_scale_stay_those_of_the_base_unless_they_are_named(
    folder: Path, tmp_path: Path, method: str
) -> None:
    changes = {"method": method} | ({} if method == "lora" else {"rank": 8, "alpha": 16.0})
    outcome = adapted(folder, tmp_path / "new", **changes)
    assert [phase.name for phase in outcome.phases] == ["diffusion"]
    assert outcome.surrogate.adapters[-1].card.targets == ("shower_network", "layer_network")
    theirs = Surrogate.load(folder / "base").model.state_dict()
    changed = {name for name, value in outcome.surrogate.model.state_dict().items() if not value.equal(theirs[name])}
    assert {name.partition(".")[0] for name in changed} == {"shower_network", "layer_network"}


@pytest.mark.parametrize("method", ["lora", "scratch"])
def test_points_of_the_base_are_kept(tmp_path: Path, method: str) -> None:
    write_plates(tmp_path / "one.h5", 60, config=plates_config(record="points"))
    write_plates(tmp_path / "other.h5", 40, config=plates_config(2, absorber=("W", "Fe"), record="points"))
    train(points_of(tmp_path), tmp_path / "base")
    write_plates(tmp_path / "new.h5", 80, config=plates_config(3, absorber=("Cu",)))
    adapted(tmp_path, tmp_path / "new", method=method)
    stack, made = SamplingDesign("Cu", "lAr", 0.3, 0.4, 5), Surrogate.load(tmp_path / "new")
    showers = made.sample(stack, 2.0, 4, particle="e-", generator=torch.Generator().manual_seed(0))
    layers = made.sample(stack, 2.0, 4, particle="e-", layers_only=True, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(showers.layer_energies(), layers.layer_energies())
    stages = [Surrogate.load(tmp_path / name).model.points for name in ("base", "new")]
    for (name, one), other in zip(stages[0].state_dict().items(), stages[1].state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_the_range_is_that_of_the_data_or_both(folder: Path, tmp_path: Path) -> None:
    own = adapted(folder, tmp_path / "own").surrogate.card.trained
    both = adapted(folder, tmp_path / "both", range="base").surrogate.card.trained
    assert isinstance(own, TrainedStacks)
    assert isinstance(both, TrainedStacks)
    assert own.pairs == (("Cu", "lAr"),)
    assert [material.name for material in both.absorbers] == ["Pb", "W", "Fe", "Cu"]
    assert both.layers[1] == 9
    assert both.absorber_thickness[0] <= own.absorber_thickness[0]


def test_no_adapter_is_the_base_itself_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    """Location and scale of layers split their first product by columns; with an adapter beside it they do not."""
    data, base = load_plates([folder / "new.h5"], 0.2, seed=0), Surrogate.load(folder / "base")
    outcome = adapt(base, AdaptConfig.model_validate(QUICK | {"learning_rate": 1e-12}), data, tmp_path / "new")
    for phase in outcome.phases:
        assert phase.after == pytest.approx(phase.before, rel=1e-5)


def test_fewer_showers_are_a_part_of_more(folder: Path) -> None:
    some, more = (load_plates([folder / "new.h5"], 0.2, seed=0, showers=n) for n in (40, 60))
    rows = [
        {tuple(row.tolist()) for part in (data.train, data.validation) for row in part.energies.flatten(1)}
        for data in (some, more)
    ]
    assert (some.showers, some.held_out, more.showers) == (40, 8, 60)
    assert rows[0] < rows[1]


def test_a_base_of_another_kind_and_too_many_layers_are_refused(folder: Path, tmp_path: Path) -> None:
    data, config = load_plates([folder / "new.h5"], 0.2, seed=0), AdaptConfig.model_validate(QUICK)
    with pytest.raises(InputError, match="the data are libraries of plates, pbf2-cells is of cells"):
        adapt(Surrogate.load("pbf2-cells"), config, data, tmp_path / "new")
    write_plates(tmp_path / "deep.h5", 60, config=plates_config(3, layers=14))
    deep = load_plates([tmp_path / "deep.h5"], 0.2, seed=0)
    with pytest.raises(InputError, match="the data have stacks of 14 layers, toy generates up to 10"):
        adapt(Surrogate.load(folder / "base"), config, deep, tmp_path / "new")
