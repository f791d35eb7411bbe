"""Adaptation of a surrogate of several materials, whose ranges are in their units, to one that it has not seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.made_up import made_up_cells, tables

from calograd.detector.design import Design
from calograd.detector.material import MATERIALS
from calograd.errors import RangeError
from calograd.events.dense import write_cells
from calograd.surrogate import Surrogate
from calograd.training.config import AdaptConfig, parse_config
from calograd.training.data.rows import load_data
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train


def test_a_surrogate_of_several_materials_is_adapted_to_another(tmp_path: Path) -> None:
    raw = tables(tmp_path, steps=2, location_scale_steps=2)
    for seed, material in enumerate(("BGO", "CsI")):
        write_cells(tmp_path / f"{material}.h5", made_up_cells(seed=seed + 1, material=material))
    raw["data"]["files"] = ["cells.h5", "BGO.h5"]
    raw["range"] |= {"units": "scaled", "dx": [0.55, 2.0], "dz": [4.5, 12]}
    config = parse_config(raw, "two.toml", tmp_path)
    train(config, tmp_path / "run", data=load_data(config.data.files, 0.2, 0))
    base, caesium = Surrogate.load(tmp_path / "run"), MATERIALS["CsI"]
    few = AdaptConfig(steps=2, location_scale_steps=2, precision="fp32", range="base")
    adapted = adapt(base, few, load_data([tmp_path / "CsI.h5"], 0.2, 0), tmp_path / "csi").surrogate
    assert adapted.card.designs.material == caesium
    assert adapted.card.designs.units == "cm"
    # from all that the base takes of CsI, and from where the data go beyond it
    assert adapted.card.designs.dx == pytest.approx((1.0, 2.0 * caesium.moliere_radius))
    assert adapted.card.designs.dz == pytest.approx((4.0, 12 * caesium.radiation_length))
    asked = Design(3.0, 9.0, "CsI", n_xy=3, n_z=2)
    adapted.sample(asked, 10.0, 2, steps=1)
    with pytest.raises(RangeError, match="material CsI"):
        base.sample(asked, 10.0, 2, steps=1)
