from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.geometries import in_geometry, made_up_geometry
from helpers.toy_library import write_library

from calograd.detector.configuration import SimulationConfig, SiWStack
from calograd.detector.design import Design
from calograd.errors import InputError, OutputExistsError
from calograd.events.binning import segment_deposits
from calograd.events.dense import read_cells
from calograd.events.library.reader import Library, open_library
from calograd.events.library.schema import Provenance
from calograd.events.segmentation import segment


@pytest.fixture
def provenance(make_config: Callable[..., SimulationConfig]) -> Provenance:
    return Provenance(make_config(1.0, 2.0, 3.0), "11.4.1", "G4EMLOW8.8 (test)")


@pytest.fixture
def library(tmp_path: Path, provenance: Provenance) -> Iterator[Library]:
    with open_library(write_library(tmp_path / "library.h5", provenance, 30, mean=100)) as opened:
        yield opened


def test_one_design_gives_a_row_a_shower(library: Library) -> None:
    seen: list[tuple[int, int]] = []
    show = lambda done, total: seen.append((done, total))  # noqa: E731
    cells = segment(library, designs=[(0.3, (0.1, 0.2, 0.3))], n_xy=4, n_z=3, progress=show)
    d = library.read()
    np.testing.assert_array_equal(cells.cells, segment_deposits(d, 0.3, np.array([0.1, 0.2, 0.3]), 4, 3))
    np.testing.assert_array_equal(cells.energy, library.energy)
    np.testing.assert_array_equal(cells.shower, library.index)
    assert (cells.dx == np.float32(0.3)).all()
    assert (cells.dz == np.float32([0.1, 0.2, 0.3])).all()
    assert cells.material.name == "PbF2"
    assert cells.origin == "geant4"
    assert cells.config["mode"] == "embedded"
    assert cells.config["segmentation"] == {"designs": 1, "dx": [0.3], "dz": [[0.1, 0.2, 0.3]]}
    assert seen[-1] == (30, 30)


def test_several_designs_give_each_shower_several_rows(library: Library) -> None:
    both = segment(library, designs=[(0.3, 0.2), (0.5, 0.1)], n_xy=4, n_z=3)
    for number, (dx, dz) in enumerate([(0.3, 0.2), (0.5, 0.1)]):
        one = segment(library, designs=[(dx, dz)], n_xy=4, n_z=3)
        np.testing.assert_array_equal(both.cells[number::2], one.cells)
        np.testing.assert_array_equal(both.dx[number::2], one.dx)
        np.testing.assert_array_equal(both.dz[number::2], one.dz)
        np.testing.assert_array_equal(both.shower[number::2], one.shower)


def test_drawn_designs_are_log_uniform_and_measured_with_what_is_stored(library: Library) -> None:
    cells = segment(library, designs=40, dx=(0.1, 1.0), dz=(0.05, 0.5), seed=7, n_xy=3, n_z=2)
    assert len(cells) == 30 * 40
    np.testing.assert_array_equal(cells.shower, np.repeat(library.index, 40))
    assert (cells.dz == cells.dz[:, :1]).all()
    for values, (low, high) in ((cells.dx, (0.1, 1.0)), (cells.dz[:, 0], (0.05, 0.5))):
        share = np.log(values / low) / np.log(high / low)
        assert abs(share.mean() - 0.5) < 4 / np.sqrt(12 * len(share))
        assert 0 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1 + 1e-6
    d = library.read()
    for row in (0, 100, 1199):
        s = row // 40
        again = segment_deposits(d.rows(slice(s, s + 1)), cells.dx[row], cells.dz[row], 3, 2)[0]
        np.testing.assert_allclose(cells.cells[row], again, rtol=1e-6)


def test_a_share_of_the_designs_has_independent_layers(library: Library) -> None:
    cells = segment(library, designs=40, dx=(0.1, 1.0), dz=(0.05, 0.5), seed=7, n_xy=3, n_z=4, unequal=0.5)
    unequal = cells.dz.max(1) > 1.001 * cells.dz.min(1)
    assert abs(unequal.mean() - 0.5) < 4 * np.sqrt(0.25 / len(cells))
    share = np.log(cells.dz[unequal] / 0.05) / np.log(10)
    assert abs(share.mean() - 0.5) < 4 / np.sqrt(12 * share.size)
    assert abs(np.corrcoef(share.T) - np.eye(4)).max() < 4 / np.sqrt(len(share))
    equal = segment(library, designs=40, dx=(0.1, 1.0), dz=(0.05, 0.5), seed=7, n_xy=3, n_z=4)
    np.testing.assert_array_equal(cells.cells[~unequal], equal.cells[~unequal])
    d = library.read()
    row = int(np.flatnonzero(unequal)[5])
    s = row // 40
    again = segment_deposits(d.rows(slice(s, s + 1)), cells.dx[row], cells.dz[row], 3, 4)[0]
    np.testing.assert_allclose(cells.cells[row], again, rtol=1e-6)


def test_neighbours_are_close_and_the_drawn_designs_stay(library: Library) -> None:
    drawn = {"designs": 40, "dx": (0.1, 1.0), "dz": (0.05, 0.5), "seed": 7, "n_xy": 3, "n_z": 4, "unequal": 0.5}
    alone, cells = segment(library, **drawn), segment(library, **drawn, neighbours=0.1)
    assert len(cells) == 2 * len(alone)
    np.testing.assert_array_equal(cells.cells[::2], alone.cells)
    np.testing.assert_array_equal(cells.dz[::2], alone.dz)
    np.testing.assert_array_equal(cells.shower, np.repeat(library.index, 80))
    for sizes, (low, high) in ((cells.dx, (0.1, 1.0)), (cells.dz, (0.05, 0.5))):
        assert low * (1 - 1e-6) <= sizes.min() < sizes.max() <= high * (1 + 1e-6)
    inside = (np.abs(np.log(cells.dx[::2] / 0.316)) < 0.5) & (np.abs(np.log(cells.dz[::2] / 0.158)) < 0.5).all(1)
    away = np.log(cells.dx[1::2] / cells.dx[::2])[inside]
    assert abs(away.std() / 0.1 - 1) < 4 / np.sqrt(2 * inside.sum())
    deeper = np.log(cells.dz[1::2] / cells.dz[::2])[inside]
    assert abs((np.ptp(deeper, axis=1) > 1e-4).mean() - 0.5) < 4 * np.sqrt(0.25 / inside.sum())
    assert abs(deeper[:, 0].std() / (0.1 * np.sqrt(1.5)) - 1) < 5 / np.sqrt(2 * inside.sum())
    assert cells.config["segmentation"]["neighbours"] == 0.1


def test_neighbours_have_one_entry_in_units_of_the_cell(library: Library) -> None:
    drawn = {"designs": 20, "dx": (0.1, 1.0), "dz": (0.05, 0.5), "seed": 7, "n_xy": 3, "n_z": 2}
    cells = segment(library, **drawn, neighbours=0.1, position="uniform", phi=(0, 360))
    place = cells.incident.position / cells.dx[:, None]
    np.testing.assert_allclose(place[::2], place[1::2], atol=1e-6)
    np.testing.assert_array_equal(cells.incident.phi[::2], cells.incident.phi[1::2])
    assert 0.25 < place[::2].std() < 0.33
    assert not np.allclose(place[0], place[2])


def test_the_seed_rules_the_designs(library: Library) -> None:
    drawn = {"designs": 2, "dx": (0.1, 1.0), "dz": (0.05, 0.5), "n_xy": 3, "n_z": 2}
    first, again, other = (segment(library, **drawn, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.dx, again.dx)
    np.testing.assert_array_equal(first.cells, again.cells)
    assert not (first.dx == other.dx).any()


def test_a_window_as_large_as_the_block_is_stand_alone(library: Library) -> None:
    assert segment(library, designs=[(25.2 / 5, 76 / 5)], n_xy=5, n_z=5).config["mode"] == "stand-alone"
    assert segment(library, designs=[(25.2 / 5, 75 / 5)], n_xy=5, n_z=5).config["mode"] == "embedded"


def test_showers_without_deposits_are_rows_without_energy(library: Library) -> None:
    cells = segment(library, designs=[(25.0, 76.0)], n_xy=1, n_z=1)
    np.testing.assert_array_equal(cells.cells[:, 0, 0, 0] == 0, np.arange(30) % 5 == 4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"designs": (1.0, (1.0, 2.0)), "n_z": 3}, "2 layer depths for 3 layers"),
        ({"designs": (-1.0, 1.0), "n_z": 3}, "dx = -1.0 cm"),
        ({"designs": []}, "no designs"),
        ({"designs": [Design(1.0, 1.0, n_xy=3), Design(1.0, 1.0)]}, "designs with n_xy = 3 and 5"),
        ({"designs": Design(1.0, 1.0), "n_z": 3}, "designs with n_z = 3 and 5"),
        ({"designs": (1.0, 1.0), "unequal": 0.5}, "belong to drawn designs"),
        ({"designs": 0}, "0 designs"),
        ({"dx": (2, 1)}, "dx from 2 to 1 cm"),
        ({"dz": (0, 2)}, "dz from 0 to 2 cm"),
        ({"dx": (1, float("nan"))}, "dx from 1 to nan cm"),
        ({"seed": -1}, "seed -1"),
        ({"unequal": 1.5}, "share from 0 to 1"),
        ({"neighbours": 0.6}, "neighbours at 0.6 .* 0 to 0.5"),
        ({"output": "nowhere/cells.h5"}, "the folder nowhere does not exist"),
    ],
)
def test_arguments_that_cannot_be(library: Library, options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        segment(library, **({"designs": 1} | options))


def test_it_does_what_the_command_does_with_paths_and_designs(tmp_path: Path, library: Library) -> None:
    designs = Design(torch.tensor([1.0, 2.0]), torch.tensor([[0.3, 0.4], [0.5, 0.6]]), n_xy=3, n_z=2)
    made = segment(str(library.path), tmp_path / "cells.h5", designs=designs)
    pairs = segment(library, designs=[(1.0, (0.3, 0.4)), (2.0, [0.5, 0.6])], n_xy=3, n_z=2)
    np.testing.assert_array_equal(made.cells, pairs.cells)
    one_by_one = segment(library, designs=(designs[0], designs[1]))
    np.testing.assert_array_equal(made.cells, one_by_one.cells)
    np.testing.assert_array_equal(read_cells(tmp_path / "cells.h5").dz, pairs.dz)
    with pytest.raises(OutputExistsError):
        segment(library, tmp_path / "cells.h5", designs=designs)


def test_layered_detectors_have_no_cells_of_a_design(tmp_path: Path, provenance: Provenance) -> None:
    stack = provenance.config.model_copy(update={"detector": SiWStack()})
    path = write_library(tmp_path / "stack.h5", Provenance(stack, "11.4.1", "test"), 5)
    with open_library(path) as library, pytest.raises(InputError, match="layered detector"):
        segment(library, designs=[(1.0, 1.0)], n_xy=5, n_z=5)


def test_maps_are_of_the_same_designs_and_showers_as_cells(library: Library) -> None:
    n, seen = len(library), list[tuple[int, int]]()
    drawn = {"designs": 3, "dx": (0.1, 1.0), "dz": (0.05, 0.5), "seed": 7, "n_xy": 4, "n_z": 4}
    maps = segment(library, **drawn, maps=True, progress=lambda *done: seen.append(done))
    cells = segment(library, **drawn)
    for name in ("energy", "dx", "dz", "shower"):
        np.testing.assert_array_equal(getattr(maps, name), getattr(cells, name))
    assert (maps.n_xy, maps.material, maps.origin, maps.config) == (4, cells.material, "geant4", cells.config)
    coarse = maps.maps.reshape(-1, 4, 8, 4, 8).sum((2, 4))
    assert (np.isclose(coarse, cells.cells.sum(2), rtol=1e-4, atol=1e-9)).mean() > 0.98  # unequal edges are elsewhere
    np.testing.assert_allclose(maps.totals.sum(), cells.totals.sum(), rtol=1e-3)
    assert seen[-1] == (n, n)


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Library]:
    """Deposits within 1 cm; the sensitive volumes of the geometry have x -8 to 12, y -5 to 5, z 0 to 30 cm."""
    made = Provenance(in_geometry(made_up_geometry(tmp_path)), "11.4.1", "none")
    with open_library(write_library(tmp_path / "others.h5", made, 10, mean=100)) as opened:
        yield opened


def test_cells_of_a_geometry_say_so_and_are_those_of_any_design(others: Library) -> None:
    cells = segment(others, designs=[(0.3, 0.2), (0.5, 0.1)], n_xy=4, n_z=3)
    assert cells.config["mode"] == "GDML geometry"
    assert others.provenance.geometry is not None
    assert cells.config["simulation"]["detector"]["digest"] == others.provenance.geometry.digest
    d = others.read()
    np.testing.assert_array_equal(cells.cells[1::2], segment_deposits(d, 0.5, np.full(3, 0.1), 4, 3))
    drawn = segment(others, designs=4, n_xy=2, n_z=2, dx=(1.0, 4.9), dz=(2.0, 14.9), seed=1)
    assert drawn.config["mode"] == "GDML geometry"


@pytest.mark.parametrize(
    ("design", "n_xy", "beyond"),
    [
        ((2.49, 6.0), 5, None),
        ((2.51, 6.0), 5, "x -5.02 to 5.02, y -5.02 to 5.02, z 0 to 27 cm"),
        ((9.9, (10, 10, 10, 0.1)), 2, "z 0 to 30.05 cm"),
        ((9.9, (10, 10, 19)), 2, None),
        ((9.9, (10, 10, 21)), 2, "z 0 to 30.5 cm"),
    ],
)
def test_the_middles_of_cells_are_within_the_sensitive_volumes(
    others: Library, design: tuple[float, Any], n_xy: int, beyond: str | None
) -> None:
    n_z = 5 if isinstance(design[1], float) else len(design[1])
    for maps in (False, True):
        if beyond is None:
            assert len(segment(others, designs=[design], n_xy=n_xy, n_z=n_z, maps=maps)) == 10
        else:
            with pytest.raises(InputError, match=r"others\.h5: the middles of these cells cover x .* reaches") as error:
                segment(others, designs=[design], n_xy=n_xy, n_z=n_z, maps=maps)
            assert beyond in str(error.value)
            assert "the sensitive volumes of made_up.gdml (x -8 to 12, y -5 to 5, z 0 to 30 cm)" in str(error.value)


def test_windows_that_follow_a_particle_in_a_geometry(tmp_path: Path) -> None:
    """To the right there is room for three more cells, to the left for one and a half less."""
    for x, fits in ((6.0, True), (-6.0, False)):
        config = in_geometry(made_up_geometry(tmp_path), position=(x, 0.0))
        path = write_library(tmp_path / f"{x}.h5", Provenance(config, "11.4.1", "none"), 3)
        with open_library(path) as library:
            library.heads.position[:] = (x, 0.0)  # type: ignore[index]
            if fits:
                segment(library, designs=[(2.0, 6.0)], n_xy=5)
            else:
                with pytest.raises(InputError, match=r"cover x -10 to -2, y -4 to 4"):
                    segment(library, designs=[(2.0, 6.0)], n_xy=5)


def test_what_cannot_be_done_in_a_geometry(others: Library) -> None:
    with pytest.raises(InputError, match=r"is of the geometry made_up\.gdml, whose showers cannot be moved"):
        segment(others, designs=[(2.0, 6.0)], position="uniform")
    with pytest.raises(InputError, match=r"10\.5 x 10\.5 x 10 cm reach beyond the sensitive volumes of made_up\.gdml"):
        segment(others, designs=4, n_xy=5, n_z=2, dx=(1.0, 2.1), dz=(2.0, 5.0))


def test_a_geometry_is_its_contents_wherever_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    first, moved = (made_up_geometry(folder) for folder in (tmp_path, tmp_path / "there"))
    made, same, other, changed = (
        Provenance(in_geometry(each), "11.4.1", "none")
        for each in (
            first,
            moved,
            moved.model_copy(update={"digest": "0" * 64}),
            first.model_copy(update={"digest": "0" * 64}),
        )
    )
    assert made.difference(same) is None
    assert str(made.difference(other)).startswith("detector.file is")
    assert f"{first.file} has changed since: its SHA-256 was 000000000000..., is" in str(made.difference(changed))
    assert made.difference(Provenance(in_geometry(first, theta=3), "11.4.1", "none")) == "beam.theta is 3.0, not 0.0"
