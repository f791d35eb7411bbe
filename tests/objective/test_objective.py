from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from calograd.detector.design import Design
from calograd.errors import FormatError, InputError
from calograd.objective import config as module
from calograd.objective.background import BackgroundMap, ExponentialBackground, write_background_map
from calograd.objective.config import ObjectiveConfig, parse_objective
from calograd.objective.cost import ChannelCost, DepthCost, PricedUtility, VolumeCost
from calograd.objective.readout import Readout
from calograd.objective.reconstruction import SoftMask
from calograd.objective.utility import Containment, EnergyResolution, PositionResolution, SquaredError

MINIMAL: dict[str, Any] = {"spectrum": {"energies": [10.0]}}


def parse(**tables: Any) -> ObjectiveConfig:
    return parse_objective(MINIMAL | tables, "run.toml", Path())


def test_defaults_are_those_of_the_classes():
    objective = parse().build()
    assert objective.measurement.background == ExponentialBackground()
    assert objective.measurement.readout is None
    assert objective.measurement.mask == SoftMask()
    assert objective.utility == SquaredError()
    assert (objective.energies, objective.weights) == ((10.0,), None)
    assert parse(readout={}).build().measurement.readout == Readout()
    assert parse(cost=[{"kind": "channels", "weight": 1.0}]).build().utility.costs == ((ChannelCost(), 1.0),)


def test_the_documented_example_builds():
    text = module.__doc__[module.__doc__.index("    [background]") : module.__doc__.index("The spectrum's")]
    objective = parse_objective(tomllib.loads(text), "doc", Path()).build()
    assert objective.measurement.readout == Readout(light_yield=2000)
    assert objective.measurement.mask == SoftMask(k=200)
    assert objective.utility == PricedUtility(SquaredError(truth="incident"), ((VolumeCost(), 1e-5),))
    assert objective.weights == (1, 1, 1, 1)


def test_every_key_arrives():
    objective = parse(
        background={"kind": "emulator", "b0": 1e-3, "lam": 3.0, "sigma_event": 0, "shape_cell": 2.5, "diffusion": 0.2},
        readout={"light_yield": 9, "saturation": 8, "noise": 0.1, "threshold": 0.2, "threshold_width": 0.3},
        utility={"kind": "squared-error", "alpha": 0.3, "truth": "incident"},
        cost=[{"kind": "depth", "weight": 2}, {"kind": "channels", "weight": 3, "area": 50}],
        pricing="relative",
        spectrum={"energies": [1, 2], "weights": [0, 1]},
    ).build()
    assert objective.measurement.background == ExponentialBackground(
        b0=1e-3, lam=3, sigma_event=0, shape_cell=2.5, diffusion=0.2
    )
    assert objective.measurement.readout == Readout(9, 8, 0.1, 0.2, 0.3)
    assert objective.utility == PricedUtility(
        SquaredError(0.3, "incident"), ((DepthCost(), 2), (ChannelCost(50), 3)), relative=True
    )
    assert (objective.energies, objective.weights) == ((1, 2), (0, 1))


@pytest.mark.parametrize(
    ("table", "utility"),
    [
        ({"kind": "energy-resolution", "robust": True}, EnergyResolution(robust=True)),
        ({"kind": "containment"}, Containment()),
        ({"kind": "position-resolution"}, PositionResolution()),
    ],
)
def test_kinds_of_utilities(table, utility):
    assert parse(utility=table).build().utility == utility


def test_no_background_measures_what_is_deposited():
    objective = parse(background={"kind": "none"}, utility={"kind": "containment"}).build()
    assert objective.measurement.background is None
    numbers = objective.draw(3, 5, 5, torch.Generator().manual_seed(0))
    cells = torch.full((1, 3, 5, 5, 5), 8 / 125)
    assert objective.value(cells, Design(dx=2.0, dz=6.0), numbers).item() == pytest.approx(0.8)


def test_a_map_is_found_beside_the_file(tmp_path: Path):
    edges = torch.tensor([-30.0, 0, 30])
    write_background_map(
        tmp_path / "map.h5", BackgroundMap(density=torch.ones(2, 2, 2), x=edges, y=edges, z=edges, diffusion=0.3)
    )
    raw = MINIMAL | {"background": {"kind": "map", "file": "map.h5"}}
    config = parse_objective(raw, "run.toml", tmp_path)
    assert config.background.file == (tmp_path / "map.h5").resolve()
    assert config.build().measurement.background.diffusion == 0.3
    with pytest.raises(FormatError, match="does not exist"):
        parse_objective(raw, "run.toml", tmp_path / "elsewhere").build()


def test_a_configuration_survives_json():
    config = parse(cost=[{"kind": "depth", "weight": 2}], background={"kind": "map", "file": "/data/map.h5"})
    assert ObjectiveConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"background": {"kind": "emulator", "bO": 1}}, "unknown key 'background.bO'; did you mean 'b0'?"),
        ({"background": {"kind": "emulator", "b0": 0}}, "background.b0: Input should be greater than 0"),
        ({"background": {"kind": "emulator", "diffusion": 2}}, "background.diffusion: "),
        ({"background": {"kind": "cosmic"}}, "background.kind: expected one of emulator, map, none"),
        ({"background": {"b0": 1}}, "background: Unable to extract tag using discriminator 'kind'"),
        ({"background": {"kind": "map"}}, "background.file: Field required"),
        ({"background": {"kind": "none", "b0": 1}}, "unknown key 'background.b0'; known here: kind"),
        ({"readout": {"lightyield": 1}}, "unknown key 'readout.lightyield'; did you mean 'light_yield'?"),
        ({"readout": {"noise": float("nan")}}, "readout.noise"),
        ({"mask": {"k": -1}}, "mask.k"),
        ({"utility": {"kind": "squared-error", "truth": "wished"}}, "utility.truth: Input should be 'deposited' or"),
        ({"utility": {"kind": "containment", "alpha": 1}}, "unknown key 'utility.alpha'; known here: kind"),
        ({"cost": [{"kind": "depth"}]}, "cost.0.weight: Field required"),
        ({"cost": [{"kind": "depth", "weight": -1}]}, "cost.0.weight: Input should be greater than or equal to 0"),
        ({"cost": [{"kind": "depth", "weight": 1, "wait": 1}]}, "unknown key 'cost.0.wait'; did you mean 'weight'?"),
        ({"cost": [{"kind": "depth", "weight": 1, "area": 1}]}, "does not apply to a cost of kind 'depth'"),
        ({"pricing": "free"}, "pricing: Input should be"),
        ({"spectrum": {"energies": []}}, "spectrum.energies"),
        ({"spectrum": {"energies": [1], "weights": [1, 2]}}, "expected one each, not all zero"),
        ({"spectrum": {"energies": [1], "weights": [0]}}, "expected one each, not all zero"),
        ({"spectrun": {}}, "unknown key 'spectrun'; did you mean 'spectrum'?"),
        ({"spectrum": 3}, "spectrum: "),
    ],
)
def test_what_does_not_fit_is_named(tables, complaint):
    with pytest.raises(InputError) as refusal:
        parse(**tables)
    assert str(refusal.value).startswith("run.toml: ")
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_spectrum_has_to_be_given():
    with pytest.raises(InputError, match="spectrum: Field required"):
        parse_objective({}, "run.toml", Path())
