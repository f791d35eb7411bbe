from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calograd.events.dense import Cells, write_cells

Run = Callable[..., tuple[int, str, str]]

FAST = ("--showers", "20", "--draws", "2", "--steps", "2", "--landscape", "2")


@pytest.fixture
def reference(tmp_path: Path, neighbours: Cells) -> Path:
    write_cells(tmp_path / "reference.h5", neighbours)
    return tmp_path / "reference.h5"


def test_gradient_beside_a_reference(tiny: str, reference: Path, calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd(
        "gradient", tiny, "--cell", "2.5", "6", "--energies", "10", "--reference", str(reference), *FAST,
        "--json", "out.json", "--report", "out.html",
    )  # fmt: skip
    assert code == 0, err
    (point,) = json.loads((tmp_path / "out.json").read_text())["points"]
    assert point["energy"] == 10
    assert [c["name"] for c in point["components"]] == ["dx", "dz"]
    for component in point["components"]:
        low, high = component["surrogate"]["interval"]
        assert low < component["surrogate"]["value"] < high
    page = (tmp_path / "out.html").read_text()
    assert "data:image/png" in page
    assert "<td>the measured energy</td>" in page


def test_of_a_distilled_surrogate(distilled: str, calograd: Run, tmp_path: Path) -> None:
    common = ("gradient", distilled, "--cell", "2.5", "6", "--energies", "10", "--showers", "20", "--draws", "2")
    code, _, err = calograd(*common, "--json", "out.json")
    assert code == 0, err
    (point,) = json.loads((tmp_path / "out.json").read_text())["points"]
    about = point["surrogate"]["about"]
    assert (about["sampler"], about["steps"], about["evaluations"], about["shape_evaluations"]) == (
        "progressive",
        1,
        1,
        2,
    )
    code, _, err = calograd(*common, "--steps", "12")
    assert code == 2
    assert "distilled into 2 steps of the shape and 1 of the pattern" in " ".join(err.split())


def test_without_a_reference_and_with_a_depth_a_layer(tiny: str, calograd: Run, tmp_path: Path) -> None:
    code, _, err = calograd(
        "gradient", tiny, "--cell", "2.5", "6,6,6,6,6", "--energies", "10,50", *FAST, "--json", "out.json",
        "--truth", "incident",
    )  # fmt: skip
    assert code == 0, err
    points = json.loads((tmp_path / "out.json").read_text())["points"]
    assert [len(p["surrogate"]["gradient"]) for p in points] == [6, 6]


def test_the_density_beside_cell_sizes(tiny: str, neighbours: Cells, calograd: Run, tmp_path: Path) -> None:
    """Cells of the neighbouring densities are those of all lengths scaled."""
    scaled = []
    for sign in (1, -1):
        chosen = neighbours.rows((neighbours.dx == np.float32(2.5)) & (neighbours.dz[:, 0] == np.float32(6.0)))
        scaled.append(replace(chosen, dx=chosen.dx * np.exp(0.04 * sign), dz=chosen.dz * np.exp(0.04 * sign)))
    parts = [neighbours, *scaled]
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("cells", "energy", "dx", "dz", "shower"))
    write_cells(tmp_path / "reference.h5", Cells(*columns, neighbours.material, "geant4"))
    code, _, err = calograd(
        "gradient", tiny, "--cell", "2.5", "6", "--density", "--material", "PbF2", "--energies", "10",
        "--reference", "reference.h5", *FAST, "--json", "out.json",
    )  # fmt: skip
    assert code == 0, err
    (point,) = json.loads((tmp_path / "out.json").read_text())["points"]
    assert [c["name"] for c in point["components"]] == ["dx", "dz", "density"]
    assert "7.77 g/cm3" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--cell", "2.5", "7", "--energies", "10"), "lacks 5 of 5 designs at 10 GeV: dx = 2.5 with dz = 7 cm"),
        (("--cell", "2.5", "6", "--energies", "20"), "0 showers of 20 GeV"),
        (("--cell", "9", "6", "--energies", "10"), "dx = 9 cm is outside 1 to 5 cm"),
    ],
)
def test_what_cannot_be(tiny: str, reference: Path, calograd: Run, arguments: tuple[str, ...], complaint: str) -> None:
    code, _, err = calograd("gradient", tiny, *arguments, "--reference", str(reference), *FAST)
    assert code == 2
    assert complaint in " ".join(err.split())


def test_optimise_from_a_file(tiny: str, calograd: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        "[space]\nstart = { dx = 2.5, dz = 7.0 }\nbounds = { dx = [1.0, 5.0], dz = [4.0, 15.0] }\n"
        "[utility]\nkind = 'squared-error'\ntruth = 'incident'\n[spectrum]\nenergies = [10]\n"
        "[gradient]\nshowers = 10\nsteps = 2\n[ascent]\nsteps = 2\ndraws = 2\nmax_draws = 2\n"
    )
    arguments = ("optimise", tiny, "config.toml", "-o", "run", "--landscape", "2")
    code, _, err = calograd(*arguments, "--json", "out.json")
    assert code == 0, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["steps"] <= 2
    assert set(result["design"]) == {"dx", "dz"}
    assert "data:image/png" in (tmp_path / "run" / "report.html").read_text()
    (tmp_path / "config.toml").write_text("[space\n")
    code, _, err = calograd(*arguments)
    assert code == 2
    assert "is not TOML" in err
