"""Training of a surrogate of stacks of plates from libraries of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy_library import plates_config, write_plates

from calograd import SamplingDesign
from calograd.errors import InputError, Interrupted
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedStacks
from calograd.training.config import parse_config
from calograd.training.data.plates import load_plates
from calograd.training.log import read_log
from calograd.training.train import read_data, train

FEW = {"location_scale_steps": 4, "steps": 6, "batch": 16, "location_scale_batch": 16, "report_every": 3, "warmup": 2}
SMALL = {"kind": "plates", "layers": 10, "shower_width": 8, "shower_blocks": 1, "layer_width": 8, "layer_blocks": 1,
         "embedding": 8, "location_scale_width": 8, "steps": 3}  # fmt: skip
RANGE = {"energy": [1.1, 2.9], "particles": ["e-"], "theta": [0, 0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plates(tmp_path / "one.h5", 60)
    write_plates(tmp_path / "other.h5", 40, config=plates_config(2, absorber=("W", "Fe")))
    return tmp_path


def config_of(folder: Path, **changes: Any) -> Any:
    tables = {"name": "toy", "data": {"files": ["one.h5", "other.h5"], "validation": 0.2}, "range": RANGE,
              "model": SMALL, "training": FEW} | changes  # fmt: skip
    return parse_config(tables, "toy.toml", folder)


def test_a_run_makes_a_surrogate_a_log_and_the_range_of_its_data(folder: Path) -> None:
    config = config_of(folder)
    data = read_data(config)
    assert str(data).startswith("80 showers to train on, 20 others to validate on; 1 to 9 layers of Pb, W, Fe with lAr")
    train(config, folder / "run", data=data)
    surrogate = Surrogate.load(folder / "run")
    trained = surrogate.card.trained
    assert isinstance(trained, TrainedStacks)
    assert trained.pairs == (("Pb", "lAr"), ("W", "lAr"), ("Fe", "lAr"))
    assert trained.layers == (1, 9)
    assert trained.active_thickness[0] == pytest.approx((0.4, 0.4))
    thinnest, thickest = trained.absorber_thickness  # iron and tungsten, X0
    assert thinnest < 0.1
    assert thickest > 1
    stack = SamplingDesign("W", "lAr", 0.2, 0.4, 7)
    made = surrogate.sample(stack, 2.0, 3, particle="e-", layers_only=True)
    assert made.layer_energies().shape == (3, 7)
    reports = read_log(folder / "run")
    assert [(report["phase"], report["step"]) for report in reports] == [("diffusion", 3), ("diffusion", 6)]
    assert set(reports[0]["bias"]) == {"E_dep", "E_vis", "z_mean", "z_width"}


def test_an_interrupted_run_ends_with_the_same_weights(folder: Path) -> None:
    config = config_of(folder)
    whole = train(config, folder / "whole")

    def interrupt(report: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(config, folder / "cut", on_report=interrupt)
    resumed = train(config, folder / "cut")
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_no_shower_is_both_trained_on_and_held_out(folder: Path) -> None:
    data = load_plates([folder / "one.h5", folder / "other.h5"], 0.2, seed=1)
    rows, held = (
        {tuple(row) for row in torch.cat([part.energies, part.thickness], 1).flatten(1).tolist()}
        for part in (data.train, data.validation)
    )
    assert (len(rows), len(held)) == (80, 20)
    assert not rows & held
    assert data.fingerprint != load_plates([folder / "one.h5", folder / "other.h5"], 0.2, seed=2).fingerprint


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": {"files": ["one.h5", "one.h5"]}}, "the same showers twice"),
        ({"model": SMALL | {"layers": 8}}, "model.layers = 8: the data have stacks of up to 9 layers; raise it"),
        ({"range": RANGE | {"energy": [1, 9]}}, r"range.energy = \[1, 9\] GeV reaches beyond the data, 1 to 3 GeV"),
        ({"range": RANGE | {"particles": ["gamma"]}}, "range.particles has gamma, the data have e-; add data"),
        ({"range": RANGE | {"theta": [0, 30]}}, "range.theta.*reaches beyond the data, 0 degrees alone"),
        ({"model": SMALL | {"pattern_width": 8}}, "pattern_width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        train(config_of(folder, **changes), folder / "run")
    assert "\n" not in str(refusal.value)


def test_showers_are_the_same_whatever_was_recorded(folder: Path) -> None:
    write_plates(folder / "points.h5", 40, config=plates_config(record="points"))
    assert len(load_plates([folder / "points.h5"], 0.2, seed=0).train) == 32
    with pytest.raises(InputError, match="the same showers twice"):
        load_plates([folder / "one.h5", folder / "points.h5"], 0.2, seed=0)


def test_stacks_with_gaps_that_stop_something_are_refused(tmp_path: Path) -> None:
    config = plates_config(gap_material="Fe", gap_thickness=0.1)
    with pytest.raises(InputError, match="has gaps of Fe; expected stacks without gaps"):
        load_plates([write_plates(tmp_path / "gaps.h5", 20, config=config)], 0.2, seed=0)
