from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.toy_library import write_toy_library

from calograd.detector.configuration import SPEED_OF_LIGHT, SimulationConfig
from calograd.detector.material import MATERIALS
from calograd.events.dense import read_cells, read_maps
from calograd.events.library.schema import Provenance, pack
from calograd.events.library.writer import open_writer
from calograd.events.ragged import Showers

SHOWERS = 8


@pytest.fixture
def library(tmp_path: Path, make_config: Callable[..., SimulationConfig]) -> Path:
    """Eight showers of 100 deposits within 2 x 2 x 10 cm; the last has none."""
    rng = np.random.default_rng(0)
    n = 100 * (SHOWERS - 1)
    x, y = (rng.uniform(-1, 1, n).astype(np.float32) for _ in range(2))
    z, e = rng.uniform(0, 10, n).astype(np.float32), rng.uniform(0, 0.01, n).astype(np.float32)
    showers = Showers(
        x, y, z, e, np.array([*range(0, n + 1, 100), n]), np.ones(SHOWERS, np.float32), np.arange(SHOWERS),
        np.arange(SHOWERS, dtype=np.uint64),
    )  # fmt: skip
    provenance = Provenance(make_config(1.0), "11.4.1", "test")
    with open_writer(tmp_path / "library.h5", provenance, SHOWERS) as writer:
        writer.add(pack(showers, provenance))
        writer.finish(lambda done, of: None, threads=1)
    return tmp_path / "library.h5"


@pytest.fixture
def segment(library: Path, calograd: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str]]:
    """Run ``calograd segment ARGUMENTS`` in the library's folder; its exit code and standard error."""

    def run(*arguments: str) -> tuple[int, str]:
        code, _, err = calograd("segment", *arguments)
        return code, err

    return run


def test_one_design(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    code, err = segment("library.h5", "--cell", "2", "5", "--cells", "1", "2", "-o", "cells.h5", "--json", "out.json")
    assert code == 0, err
    assert "without energy" in err
    cells = read_cells(library.parent / "cells.h5")
    assert cells.cells.shape == (SHOWERS, 1, 1, 2)
    summary = json.loads((library.parent / "out.json").read_text())
    assert (summary["rows"], summary["showers"], summary["empty"], summary["lost"]) == (8, 8, 1, 0)
    assert summary["mean_fraction"] == pytest.approx(cells.cells.sum() / SHOWERS, rel=1e-5)


def test_a_depth_a_layer_and_several_designs(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    code, err = segment("library.h5", "--cell", "2", "1,2,3", "--cell", "1", "4", "--cells", "2", "3", "-o", "cells.h5")
    assert code == 0, err
    cells = read_cells(library.parent / "cells.h5")
    np.testing.assert_array_equal(cells.dz[:2], [[1, 2, 3], [4, 4, 4]])
    np.testing.assert_array_equal(cells.dx[:2], [2, 1])


def test_drawn_designs(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    code, err = segment("library.h5", "--designs", "3", "--dx", "1", "2", "--dz", "1", "2", "-o", "cells.h5")
    assert code == 0, err
    cells = read_cells(library.parent / "cells.h5")
    assert len(cells) == 3 * SHOWERS
    assert ((cells.dx >= 1) & (cells.dx <= 2)).all()


def test_scaled_sizes_are_in_units_of_the_material(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    lead = MATERIALS["PbF2"]
    code, err = segment("library.h5", "--cell", "1", "2,3", "--cells", "2", "2", "--scaled", "-o", "cells.h5")
    assert code == 0, err
    cells = read_cells(library.parent / "cells.h5")
    np.testing.assert_allclose(cells.dx, lead.moliere_radius, rtol=1e-6)
    np.testing.assert_allclose(cells.dz / lead.radiation_length, [[2, 3]] * SHOWERS, rtol=1e-6)
    code, err = segment("library.h5", "--designs", "9", "--scaled", "--dx", "1", "2", "-o", "drawn.h5")
    assert code == 0, err
    drawn = read_cells(library.parent / "drawn.h5")
    assert ((drawn.dx >= lead.moliere_radius) & (drawn.dx <= 2 * lead.moliere_radius)).all()
    assert drawn.dz.min() >= 3.9 * lead.radiation_length
    assert drawn.dz.max() > 13 * lead.radiation_length


def test_outputs_that_exist_are_refused_before_the_work(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    (library.parent / "taken").touch()
    for options in (("-o", "taken"), ("-o", "cells.h5", "--json", "taken")):
        code, err = segment("library.h5", "--cell", "2", "5", *options)
        assert (code, err) == (2, "error: taken exists already; move it away or choose another output\n")
    assert not (library.parent / "cells.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.h5", "--cell", "2", "5"], "none.h5 does not exist"),
        (["library.h5"], "give either --cell DX DZ or --designs N"),
        (["library.h5", "--cell", "2", "5", "--designs", "3"], "give either --cell DX DZ or --designs N"),
        (["library.h5", "--cell", "2", "5", "--neighbours", "0.1"], "belong to --designs N; leave them out"),
        (["library.h5", "--designs", "1", "--neighbours", "2"], "neighbours at 2.0 in the logarithm of a size"),
        (["library.h5", "--cell", "2", "x"], "'--cell': 'x' in 'x'; expected positive numbers separated by commas"),
        (["library.h5", "--cell", "2", "1,2"], "expected one DX, and one DZ or 5 (one a layer)"),
        (["library.h5", "--cell", "2,3", "1"], "expected one DX"),
        (["library.h5", "--cell", "0", "1"], "'0' in '0'; expected positive numbers"),
        (["library.h5", "--cell", "nan", "1"], "'nan' in 'nan'; expected positive numbers"),
        (["library.h5", "--cell", "2", "5", "--cells", "0", "5"], "'--cells': 0 is not in the range x>=1"),
        (["library.h5", "--designs", "0"], "'--designs': 0 is not in the range x>=1"),
        (["library.h5", "--designs", "1", "--dx", "3", "2"], "dx from 3 to 2 cm"),
        (
            ["library.h5", "--designs", "1", "--dx", "3", "6"],
            "30 x 30 x 76 cm reach beyond the simulated block of 25.2 x",
        ),
    ],
)
def test_errors_are_one_line(
    segment: Callable[..., tuple[int, str]], library: Path, arguments: list[str], complaint: str
) -> None:
    code, err = segment(*arguments, "-o", "cells.h5")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 2
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "Traceback" not in err
    assert {path.name for path in library.parent.iterdir()} == {"library.h5"}


def test_a_folder_that_is_not_there(segment: Callable[..., tuple[int, str]]) -> None:
    code, err = segment("library.h5", "--cell", "2", "5", "-o", "none/cells.h5")
    assert code == 2
    assert "error: the folder none does not exist; make it or choose another output" in err


def test_a_library_that_was_cut_off(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    library.write_bytes(library.read_bytes()[:-2000])
    code, err = segment("library.h5", "--cell", "2", "5", "-o", "cells.h5")
    assert code == 2
    assert "cut off" in err
    assert "--recover" in err


def test_maps_of_designs_given_and_drawn(segment: Callable[..., tuple[int, str]], library: Path) -> None:
    code, err = segment("library.h5", "--cell", "2", "5", "--cells", "1", "2", "--maps", "-o", "maps.h5")
    assert code == 0, err
    assert "without energy" in err
    maps = read_maps(library.parent / "maps.h5")
    assert maps.maps.shape == (SHOWERS, 32, 32)
    assert maps.n_xy == 1
    segment("library.h5", "--cell", "2", "5", "--cells", "1", "2", "-o", "cells.h5")
    np.testing.assert_allclose(maps.totals, read_cells(library.parent / "cells.h5").totals, rtol=1e-5)
    code, err = segment("library.h5", "--designs", "3", "--maps", "-o", "drawn.h5")
    assert code == 0, err
    assert len(read_maps(library.parent / "drawn.h5")) == 3 * SHOWERS
    code, err = segment("library.h5", "--designs", "0", "--maps", "-o", "none.h5")
    assert code == 2
    assert "is not in the range x>=1" in err


def test_entries_and_azimuths(segment: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    one = ("library.h5", "--cell", "1", "5", "--cells", "3", "2", "-o")
    assert segment(*one, "drawn.h5", "--position", "uniform", "--phi", "0:90", "--seed", "2")[0] == 0
    assert segment(*one, "moved.h5", "--position", "0.25,-0.5", "--phi=-45")[0] == 0
    drawn, moved = read_cells(tmp_path / "drawn.h5").incident, read_cells(tmp_path / "moved.h5").incident
    assert len(np.unique(drawn.position)) == 2 * SHOWERS
    assert 0 < drawn.phi.min() < drawn.phi.max() < 90
    assert (moved.position[3].tolist(), moved.phi[3]) == ([0.25, -0.5], -45)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--position", "0.2"), "'0.2': expected X,Y in cm, as 0.2,-0.4, or the word uniform"),
        (("--position", "0.6,0"), "position = (0.6, 0) cm is outside the central cell of 1 cm"),
        (("--position", "somewhere"), "'somewhere' in 'somewhere'; expected numbers separated by commas"),
        (("--phi", "90:0"), "'90:0' is no range"),
        (("--phi", "10", "--maps"), "maps are of windows on the axis; leave out position and phi, or measure cells"),
    ],
)
def test_entries_that_cannot_be(
    segment: Callable[..., tuple[int, str]], arguments: tuple[str, ...], complaint: str
) -> None:
    code, err = segment("library.h5", "--cell", "1", "5", "--cells", "3", "2", "-o", "cells.h5", *arguments)
    assert code == 2
    assert complaint in err


def test_times_of_cells(calograd: Callable[..., tuple[int, str, str]], tmp_path: Path, make_config) -> None:
    write_toy_library(tmp_path / "toy.h5", make_config(10.0, 50.0))
    code, _, err = calograd("segment", "toy.h5", "--cell", "2", "5", "--times", "-o", "timed.h5")
    assert code == 0, err
    cells = read_cells(tmp_path / "timed.h5")
    assert cells.mean_time is not None
    delay = cells.mean_time[:, 2, 2] - (np.arange(5) + 0.5) * 5 / SPEED_OF_LIGHT
    assert abs(np.nanmean(delay) - 0.05) < 0.02  # ns: the toy's deposits are later than z/c by this, on average
    code, _, err = calograd("segment", "toy.h5", "--cell", "2", "5", "--times", "--maps", "-o", "no.h5")
    assert code != 0
    assert "times are of cells; leave out times, or measure cells" in err


def test_a_library_without_times_is_named(segment: Callable[..., tuple[int, str]]) -> None:
    code, err = segment("library.h5", "--cell", "2", "5", "--times", "-o", "cells.h5")
    assert code != 0
    assert "library.h5 has no times of deposits: it was imported, or simulated by an older version" in err
    assert len(err.strip().splitlines()) == 1
