"""Whatever a TOML file holds, it is a valid configuration or refused in one line.

CALOGRAD_FUZZ=1000 tries so many random cases of every kind in place of the few that are always the same.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.damage import FUZZ, TOML, changed_tables, damaged_bytes, refused_or_valid
from hypothesis import given
from hypothesis import strategies as st

from calograd.io.toml import read_toml
from calograd.objective.config import MapConfig
from calograd.optimisation.run import OptimiseConfig, parse_run
from calograd.training.config import (
    AdaptConfig,
    CellsModelConfig,
    DesignTraining,
    MapsModelConfig,
    PointsTraining,
    parse_config,
    read_config,
)

ROOT = Path(__file__).parents[2]
HEAD = {"name": "x", "data": {"files": ["cells.h5"]}}
DESIGNS = HEAD | {"range": {"energy": [1.0, 100.0], "dx": [1.0, 5.0], "dz": [4.0, 15.0], "units": "cm"},
                  "training": DesignTraining().model_dump(mode="json")}  # fmt: skip
STACK = HEAD | {"range": {"energy": [10.0, 90.0]}}
TRAININGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "cells": (parse_config, DESIGNS | {"model": CellsModelConfig().model_dump(mode="json", exclude_none=True)}),
    "maps": (parse_config, DESIGNS | {"model": MapsModelConfig(kind="maps").model_dump(mode="json")}),
    "distillation": (parse_config, DESIGNS | {"distillation": {"teacher": "t", "student_steps": [2, 1],
                                                               "shape_steps": 24}}),
    "points": (parse_config, STACK | {"model": {"kind": "points"}, "distillation": {"teacher": "t", "steps": 3},
                                      "training": PointsTraining().model_dump()}),
}  # fmt: skip
OPTIMISATIONS = {
    name: tomllib.loads((ROOT / "examples" / f"{name}.toml").read_text())
    for name in ("optimise", "adaptive", "tungsten")
}
MORE = (
    "background.kind", "background.file", "background.b0", "readout.noise", "readout.light_yield", "mask.k",
    "utility.kind", "utility.alpha", "spectrum.weights", "space.max_depth", "space.max_volume", "space.material",
    "space.start.dz_1", "gradient.sampler", "gradient.steps", "check.library", "ascent.precision",
    "adapt.detector.kind", "adapt.detector.gap", "adapt.beam.position", "cost",
    "space.kind", "space.layers", "space.absorber", "space.gap_thickness", "space.start.absorber",
    "space.bounds.active", "space.max_active", "utility.penalty", "beam.theta",
)  # fmt: skip


def prepare(tables: dict[str, Any]) -> None:
    """What a command makes of a configuration before any work."""
    config = parse_run(tables, "file.toml", ROOT)
    if not isinstance(config, OptimiseConfig):
        config.build()
        space = config.space.space()
        space.check_start(space.start)
        return
    if not isinstance(config.background, MapConfig):
        config.build()
    config.space.space(config.space.material or "PbF2").check_start(config.space.start_values())


@pytest.mark.parametrize("name", TRAININGS)
@FUZZ
@given(data=st.data())
def test_of_trainings(name: str, data: st.DataObject) -> None:
    parse, tables = TRAININGS[name]
    changed = data.draw(changed_tables(tables, ("model.kind", "training.start", "distillation.ema")))
    refused_or_valid(lambda: parse(changed, "file.toml", ROOT))


@pytest.mark.parametrize("name", OPTIMISATIONS)
@FUZZ
@given(data=st.data())
def test_of_optimisations(name: str, data: st.DataObject) -> None:
    changed = data.draw(changed_tables(OPTIMISATIONS[name], MORE))
    refused_or_valid(lambda: prepare(changed))


@pytest.mark.parametrize("name", OPTIMISATIONS)
@FUZZ
@given(data=st.data())
def test_bytes_of_optimisations(name: str, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(data.draw(damaged_bytes((ROOT / "examples" / f"{name}.toml").read_bytes())))
    refused_or_valid(lambda: prepare(read_toml(path)))


@pytest.mark.parametrize("name", ["pbf2-cells", "pbf2-cells-fast", "siw-cloud", "paper-ours"])
@FUZZ
@given(data=st.data())
def test_bytes_of_trainings(name: str, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(data.draw(damaged_bytes((ROOT / "runs" / f"{name}.toml").read_bytes())))
    refused_or_valid(lambda: read_config(path))


@FUZZ
@given(st.dictionaries(st.sampled_from(sorted(AdaptConfig.model_fields)), TOML, max_size=3))
def test_of_adaptations(options: dict[str, Any]) -> None:
    from calograd.cli.train import _config

    options.setdefault("method", "lora")
    if isinstance(options.get("targets", ""), str):  # as the command line gives it
        refused_or_valid(lambda: _config(options))


@FUZZ
@given(tables=st.dictionaries(st.sampled_from(["name", "data", "range", "model", "space", "spectrum"]), TOML))
def test_anything_in_any_table(tables: dict[str, Any]) -> None:
    for parse in (parse_config, parse_run):
        refused_or_valid(lambda parse=parse: parse(tables, "file.toml", ROOT))
