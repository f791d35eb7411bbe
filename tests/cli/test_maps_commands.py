"""Commands on surrogates of maps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.images import write_images
from helpers.tiny_maps import tiny_maps
from helpers.toy_library import write_toy_library

from calograd.detector.configuration import SimulationConfig
from calograd.events.dense import Cells, read_maps, write_cells, write_maps
from calograd.events.library.reader import open_library

Run = Callable[..., tuple[int, str, str]]
OPTIMISATION = """
[space]
start = { dx = 2.5, dz = 7.0 }
bounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }
[spectrum]
energies = [10]
"""


@pytest.fixture(scope="module")
def maps_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a surrogate of 8 x 8 maps with random weights."""
    folder = tmp_path_factory.mktemp("maps") / "tiny"
    tiny_maps().save(folder)
    return str(folder)


def make(calograd: Run, model: str, output: str, seed: int) -> None:
    options = ("--energy", "1,50", "-n", "20", "--steps", "2", "--seed", str(seed), "--threads", "1")
    code, _, err = calograd("sample", model, "--cell", "2.5", "6", *options, "-o", output)
    assert code == 0, err


def test_maps_are_sampled_and_compared(calograd: Run, maps_model: str, tmp_path: Path) -> None:
    make(calograd, maps_model, "one.h5", 1)
    make(calograd, maps_model, "two.h5", 2)
    maps = read_maps(tmp_path / "one.h5")
    assert maps.maps.shape == (40, 8, 8)
    assert maps.origin == "tiny-maps"
    code, _, err = calograd("sample", maps_model, "--like", "one.h5", "--steps", "2", "-o", "like.h5")
    assert code == 0, err
    assert read_maps(tmp_path / "like.h5").energy.tolist() == maps.energy.tolist()
    code, _, err = calograd("evaluate", "one.h5", "two.h5", "--json", "out.json", "--report", "report.html")
    assert code == 0, err
    assert "2 points" in " ".join(err.split())
    assert "in the plane of the map" in (tmp_path / "report.html").read_text()
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["schema"] == "calograd/maps-evaluation/2"
    assert [p["showers"] for p in result["points"]] == [{"generated": 20, "reference": 20}] * 2
    assert result["points"][0]["quantities"]["E_tot"]["rrmse_floor"] > 0


def test_what_does_not_go_together_is_named(
    calograd: Run, maps_model: str, make_cells: Callable[..., Cells], tmp_path: Path
) -> None:
    make(calograd, maps_model, "maps.h5", 1)
    write_cells(tmp_path / "cells.h5", make_cells([1.0, 50.0], np.full(40, 2.5), np.full(40, 6.0)))
    code, _, err = calograd("evaluate", "maps.h5", "cells.h5")
    assert code == 2
    assert "generated showers are maps, reference showers cells" in " ".join(err.split())
    code, _, err = calograd("sample", maps_model, "--like", "cells.h5", "-o", "none.h5")
    assert code == 2
    assert "has 5 x 5 x 5 cells, tiny-maps generates maps of 8 x 8 pixels over 5 x 5 x 5" in err
    maps = read_maps(tmp_path / "maps.h5")
    write_maps(tmp_path / "wider.h5", replace(maps, n_xy=7))
    code, _, err = calograd("sample", maps_model, "--like", "wider.h5", "-o", "none.h5")
    assert code == 2
    assert "maps of 8 x 8 pixels over 7 x 7 x 5 cells, tiny-maps generates maps of 8 x 8 pixels over 5 x 5 x 5" in err
    code, _, err = calograd("sample", maps_model, "--like", "maps.h5", "--guidance", "1", "-o", "none.h5")
    assert code == 2
    assert "tiny-maps has no guidance samples; leave out guidance = 1.0" in err


def test_gradients_beside_a_library(
    calograd: Run, maps_model: str, make_config: Callable[..., SimulationConfig], tmp_path: Path
) -> None:
    write_toy_library(tmp_path / "library.h5", make_config(10.0, 50.0))
    options = ("--cell", "2.5", "6", "--energies", "10", "--showers", "10", "--draws", "2", "--steps", "2")
    code, _, err = calograd(
        "gradient", maps_model, *options, "--reference", "library.h5", "--json", "out.json", "--report", "out.html"
    )
    assert code == 0, err
    (point,) = json.loads((tmp_path / "out.json").read_text())["points"]
    assert [c["name"] for c in point["components"]] == ["dx", "dz"]
    assert all(c["geant4"]["error"] > 0 for c in point["components"])
    (tmp_path / "run.toml").write_text(OPTIMISATION)
    code, _, err = calograd("optimise", maps_model, "run.toml", "-o", "run")
    assert code == 2
    assert "tiny-maps generates maps; expected a surrogate of cells" in err


def test_the_images_of_a_published_data_set_become_maps(
    calograd: Run, make_config: Callable[..., SimulationConfig], tmp_path: Path
) -> None:
    with open_library(write_toy_library(tmp_path / "library.h5", make_config(10.0, 50.0))) as library:
        write_images(tmp_path / "images.h5", library, [(2.5, 6.0), (5.0, 15.0)])
    code, _, err = calograd("import-images", "images.h5", "-o", "maps.h5", "--json", "out.json")
    assert code == 0, err
    maps = read_maps(tmp_path / "maps.h5")
    assert maps.maps.shape == (120, 32, 32)
    assert json.loads((tmp_path / "out.json").read_text())["mean_fraction"] == pytest.approx(
        float((maps.totals / maps.energy).mean())
    )
    code, _, err = calograd("import-images", "images.h5", "--unit", "MeV", "-o", "none.h5")
    assert code == 2
    assert "times the incident energy on average; expected MeV" in err
    code, _, err = calograd("import-images", "library.h5", "-o", "none.h5")
    assert code == 2
    assert "library.h5 lacks images_xz" in err
