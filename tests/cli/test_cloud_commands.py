from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.toy_library import made_up_plates, plates_config, write_plates

from calograd.events.point_showers import PointShowers, read_points, write_points

Run = Callable[..., tuple[int, str, str]]
Make = Callable[..., PointShowers]

TOML = """
name = "tiny-cloud"
[data]
files = ["points.h5"]
validation = 0.2
[range]
energy = [12, 88]
[model]
kind = "points"
shower_width = 8
shower_blocks = 1
point_width = 8
point_blocks = 1
embedding = 8
location_scale_width = 8
steps = 2
shower_steps = 3
[training]
location_scale_steps = 5
shower_steps = 5
point_steps = 5
report_every = 5
"""


@pytest.fixture
def trained(calograd: Run, tmp_path: Path, make_clouds: Make) -> Path:
    write_points(tmp_path / "points.h5", make_clouds(60, low=12.5, high=87.5))
    (tmp_path / "tiny.toml").write_text(TOML)
    code, _, err = calograd("train", "tiny.toml", "-o", "run", "--json", "train.json")
    assert code == 0, err
    return tmp_path


def test_from_points_to_a_comparison(calograd: Run, trained: Path) -> None:
    assert json.loads((trained / "train.json").read_text())["phase"] == "points"
    code, _, err = calograd("sample", "run", "--like", "points.h5", "--seed", "1", "-o", "made.h5")
    assert code == 0, err
    made = read_points(trained / "made.h5")
    assert (made.energy == read_points(trained / "points.h5").energy).all()
    code, _, err = calograd("evaluate", "made.h5", "points.h5", "--no-classifier", "--json", "e.json")
    assert code == 0, err
    assert "E_radial" in err
    assert set(json.loads((trained / "e.json").read_text())["w1"]) >= {"N_hits", "E_cell", "m1_Z"}
    code, _, err = calograd("benchmark", "run", "--no-geant4", "--repeats", "1", "--json", "b.json")
    assert code == 0, err
    found = json.loads((trained / "b.json").read_text())
    timings = [*found["surrogates"], *found["samplers"]]
    assert timings[0]["batch"] == 1
    assert timings[0]["evaluations"] == 2
    assert next((t["evaluations"], t["batch"]) for t in timings if t["sampler"] == "heun") == (25, 1)


def test_what_does_not_go_with_points_is_refused(calograd: Run, trained: Path) -> None:
    for arguments, complaint in (
        (("--energy", "50", "--cell", "1", "5"), "--cell"),
        ((), "give --energy"),
        (("--energy", "95"), "outside 12 to 88"),
        (("--energy", "50", "--sampler", "consistency"), "not distilled"),
        (("--like", "points.h5", "--energy", "50"), "--energy"),
    ):
        code, _, err = calograd("sample", "run", *arguments, "-o", "x.h5")
        assert code == 2, err
        assert complaint in err
        assert err.count("\n") == 1
    code, _, err = calograd("gradient", "run", "--cell", "2.5", "6", "--energies", "10")
    assert code == 2
    assert "expected a surrogate of cells" in err


def test_to_other_formats_and_back(calograd: Run, tmp_path: Path, make_clouds: Make) -> None:
    write_points(tmp_path / "points.h5", make_clouds(10))
    for form in ("showerdata", "calochallenge"):
        code, _, err = calograd("points", "points.h5", "--as", form, "-o", f"{form}.h5")
        assert code == 0, err
    with h5py.File(tmp_path / "calochallenge.h5") as file:
        assert set(file) == {"incident_energies", "showers"}
    code, _, err = calograd("points", "showerdata.h5", "-o", "back.h5")
    assert code == 0, err
    assert (read_points(tmp_path / "back.h5").e == read_points(tmp_path / "points.h5").e).all()
    code, _, err = calograd("points", "points.h5", "--clustering", "sub-cells", "-o", "no.h5")
    assert code == 2
    assert "holds points already" in err
    code, _, err = calograd("points", "none.h5", "-o", "no.h5")
    assert code == 2
    assert "does not exist" in err


def test_points_of_plates(calograd: Run, tmp_path: Path) -> None:
    write_plates(tmp_path / "plates.h5", 20)
    code, _, err = calograd("points", "plates.h5", "-o", "no.h5")
    assert code == 2
    assert "plates.h5 holds the energies of plates alone; points need the deposits" in " ".join(err.split())
    config = plates_config(record="points")
    write_plates(tmp_path / "recorded.h5", 20, config=config)
    code, _, err = calograd("points", "recorded.h5", "-o", "points.h5", "--clustering", "sub-cells")
    assert code == 0, err
    points, showers = read_points(tmp_path / "points.h5"), made_up_plates(range(20), config)
    assert points.layers == 9
    np.testing.assert_array_equal(points.n_layers, showers.counts)
    assert showers.deposits is not None
    np.testing.assert_allclose(points.totals, np.bincount(showers.deposits.owner, showers.deposits.e, 20), rtol=1e-5)
    assert points.hits is None
    assert points.incident.describe() == "e- on the axis"


@pytest.mark.geant4
def test_from_geant4_to_points(calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd("simulate", "--detector", "siw", "--energies", "1", "--showers", "2", "-o", "siw.h5")
    assert code == 0, err
    code, _, err = calograd("points", "siw.h5", "-o", "points.h5", "--json", "p.json")
    assert code == 0, err
    assert json.loads((tmp_path / "p.json").read_text())["showers"] == 2
    assert read_points(tmp_path / "points.h5").config["clustering"] == "crossings"
