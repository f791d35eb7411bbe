"""Windows that follow particles off the axis; one library serves every entry and azimuth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.toy_library import write_toy_library

from calograd.detector.configuration import SimulationConfig
from calograd.detector.incidence import Incidence
from calograd.errors import FormatError, InputError
from calograd.events.binning import bin_times, cell_axes, move_deposits, segment_deposits
from calograd.events.dense import read_cells, write_cells
from calograd.events.library.reader import Library, open_library
from calograd.events.ragged import Deposits
from calograd.events.segmentation import segment

DX, DZ = 1.3, (2.0, 4.0, 3.7)


@pytest.fixture
def library(tmp_path: Path, make_config: Callable[..., SimulationConfig]) -> Iterator[Library]:
    with open_library(write_toy_library(tmp_path / "library.h5", make_config(10.0, 50.0))) as opened:
        yield opened


def tilted(config: SimulationConfig, theta: float, particle: str = "gamma") -> SimulationConfig:
    return config.model_copy(update={"beam": config.beam.model_copy(update={"theta": theta, "particle": particle})})


def cells_of(d: Deposits, incident: Incidence, n_xy: int = 7) -> np.ndarray:
    dx, dz = np.full(len(d), DX), np.tile(DZ, (len(d), 1))
    return segment_deposits(d, dx, dz, n_xy, len(DZ), incident.window_offsets(dx, dz))


def test_a_smaller_window_is_a_crop_of_a_larger_one(library: Library) -> None:
    d = library.read()
    rng = np.random.default_rng(1)
    incident = Incidence.of(len(d), position=rng.uniform(-0.6, 0.6, (len(d), 2)), theta=rng.uniform(0, 40, len(d)),
                            phi=rng.uniform(0, 360, len(d)))  # fmt: skip
    large = cells_of(d, incident)
    np.testing.assert_array_equal(cells_of(d, incident, 3), large[:, 2:5, 2:5])
    np.testing.assert_array_equal(cells_of(d, incident, 5), large[:, 1:6, 1:6])
    assert (np.unique(incident.window_offsets(np.full(60, DX), np.tile(DZ, (60, 1))))).size > 5


def test_a_window_holds_the_cells_of_a_large_calorimeter(library: Library) -> None:
    d, dx, dz = library.read(), np.full(60, DX), np.tile(DZ, (60, 1))
    whole = segment_deposits(d, dx, dz, 41, len(DZ))
    incident = Incidence.of(len(d), theta=40.0, phi=200.0)
    found, centre = cells_of(d, incident, 3), incident.window_offsets(dx, dz)
    for layer in range(len(DZ)):
        i, j = 20 + centre[0, layer]
        np.testing.assert_array_equal(found[..., layer], whole[:, i - 1 : i + 2, j - 1 : j + 2, layer])


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_by_a_right_angle_commutes_with_segmentation(library: Library, quarters: int) -> None:
    d, n = library.read(), len(library)
    before = Incidence.of(n, position=(0.2, -0.4), theta=25.0, phi=35.0)
    turn = np.full(n, 90.0 * quarters)
    for _ in range(quarters):
        d = move_deposits(d, np.zeros((n, 2)), np.zeros((n, 2)), np.full(n, 90.0))
    entry = {1: (0.4, 0.2), 2: (-0.2, 0.4), 3: (-0.4, -0.2)}[quarters]
    turned = cells_of(d, Incidence.of(n, position=entry, theta=25.0, phi=35.0 + turn))
    wanted = np.rot90(cells_of(library.read(), before), quarters, axes=(1, 2))
    # A rounding error moves a deposit on an edge at most.
    assert np.isclose(turned, wanted, rtol=1e-5, atol=1e-7).mean() > 0.999
    np.testing.assert_allclose(turned.sum((1, 2)), wanted.sum((1, 2)), rtol=1e-2)


def test_mirroring_commutes_with_segmentation(library: Library) -> None:
    d, n = library.read(), len(library)
    mirrored = type(d)(-d.x, d.y, d.z, d.e, d.offsets, d.energy, d.index, d.seed)
    a = cells_of(d, Incidence.of(n, position=(0.2, -0.4), theta=25.0, phi=35.0))
    b = cells_of(mirrored, Incidence.of(n, position=(-0.2, -0.4), theta=25.0, phi=180.0 - 35.0))
    assert np.isclose(b, a[:, ::-1], rtol=1e-5, atol=1e-7).mean() > 0.999


def test_a_moved_and_turned_library_is_one_simulated_there(library: Library, tmp_path: Path) -> None:
    moved = segment(library, designs=[(DX, DZ)], n_xy=5, n_z=3, position=(0.3, -0.5), phi=90.0)
    d = library.read()
    by_hand = segment_deposits(
        type(d)(-d.y + np.float32(0.3), d.x - np.float32(0.5), d.z, d.e, d.offsets, d.energy, d.index, d.seed),
        np.full(60, DX), np.tile(DZ, (60, 1)), 5, 3,
    )  # fmt: skip
    assert np.isclose(moved.cells, by_hand, rtol=1e-5, atol=1e-7).mean() > 0.999
    assert moved.incident.position[0].tolist() == pytest.approx([0.3, -0.5])
    assert set(moved.incident.phi) == {90.0}
    write_cells(tmp_path / "cells.h5", moved)
    again = read_cells(tmp_path / "cells.h5")
    np.testing.assert_array_equal(again.incident.position, moved.incident.position)
    np.testing.assert_array_equal(again.rows(slice(3, 7)).incident.phi, moved.incident.phi[3:7])


def test_entries_and_azimuths_are_drawn_in_the_central_cell(library: Library) -> None:
    designs = [(1.0, DZ), (2.0, DZ)]
    drawn = segment(library, designs=designs, n_z=3, position="uniform", phi=(0.0, 360.0), seed=4)
    scaled = drawn.incident.position / drawn.dx[:, None]
    assert np.abs(scaled).max() <= 0.5
    assert np.abs(scaled).max() > 0.45
    assert abs(float(scaled.mean())) < 0.1
    assert 0.22 < float(scaled.std()) < 0.36  # 1 / sqrt(12) = 0.29
    assert drawn.incident.phi.max() > 300
    assert len(np.unique(drawn.incident.position[:, 0])) == 120  # a place for every row
    again = segment(library, designs=designs, n_z=3, position="uniform", phi=(0.0, 360.0), seed=4)
    np.testing.assert_array_equal(again.cells, drawn.cells)
    other = segment(library, designs=designs, n_z=3, position="uniform", seed=5)
    assert (other.incident.position != drawn.incident.position).any()
    assert set(other.incident.phi) == {0.0}


def test_tilted_showers_have_windows_that_follow_them(
    tmp_path: Path, make_config: Callable[..., SimulationConfig]
) -> None:
    config = tilted(make_config(10.0, 50.0), 20.0, "e-")
    with open_library(write_toy_library(tmp_path / "library.h5", config)) as library:
        cells = segment(library, designs=[(DX, DZ)], n_xy=5, n_z=3)
        d, incident = library.read(), Incidence.of(60, "e-", theta=20.0)
        np.testing.assert_array_equal(cells.cells, cells_of(d, incident, 5))
        assert cells.incident.describe() == "e- on the axis at theta = 20 degrees"
        with pytest.raises(InputError, match=r"windows that follow the particles need .* simulate a larger one"):
            segment(library, designs=[(4.0, 15.0)])
        with pytest.raises(InputError, match="maps are of windows on the axis"):
            segment(library, designs=[(DX, DZ)], n_z=3, maps=True, phi=10.0)


def test_an_entry_outside_the_central_cell_is_named(library: Library) -> None:
    with pytest.raises(InputError, match=r"position = \(0\.7, 0\) cm is outside the central cell of 1\.3 cm"):
        segment(library, designs=[(DX, DZ)], n_z=3, position=(0.7, 0.0))


def test_files_without_particles_are_of_photons_on_the_axis_or_of_their_simulation(
    library: Library, tmp_path: Path
) -> None:
    import h5py

    write_cells(tmp_path / "cells.h5", segment(library, designs=[(DX, DZ)], n_z=3))
    with h5py.File(tmp_path / "cells.h5", "r+") as file:
        for name in ("particle", "position", "theta", "phi"):
            del file[name]
        file.attrs["schema"] = "calograd/cells/1"
        del file.attrs["digest"]
    assert read_cells(tmp_path / "cells.h5").incident.describe() == "gamma on the axis"
    with h5py.File(tmp_path / "cells.h5", "r+") as file:
        file.attrs["config"] = file.attrs["config"].replace('"gamma"', '"e-"').replace('"theta": 0.0', '"theta": 5.0')
    with pytest.raises(FormatError, match="whose windows do not follow the particle; segment the library anew"):
        read_cells(tmp_path / "cells.h5")
    with h5py.File(tmp_path / "cells.h5", "r+") as file:
        file.attrs["config"] = file.attrs["config"].replace('"theta": 5.0', '"theta": 0.0')
    assert read_cells(tmp_path / "cells.h5").incident.describe() == "e- on the axis"
    with h5py.File(tmp_path / "cells.h5", "r+") as file:
        file["theta"] = np.zeros(60)
    with pytest.raises(FormatError, match="the column particle is missing; make the file anew"):
        read_cells(tmp_path / "cells.h5")


def test_times_follow_the_window_and_do_not_change_when_showers_are_moved(library: Library) -> None:
    entry = (0.3, -0.4)
    moved = segment(library, designs=[(DX, DZ)], position=entry, n_xy=3, n_z=len(DZ), times=True)
    assert moved.mean_time is not None
    assert moved.first_time is not None
    shifted = replace(library.read(), x=library.read().x + np.float32(0.3), y=library.read().y - np.float32(0.4))
    dx, dz = np.full(len(library), DX), np.tile(DZ, (len(library), 1))
    axes = cell_axes(shifted, dx, dz, 3, len(DZ))
    wanted = bin_times(shifted, axes)
    for found, values in zip((moved.cells, moved.mean_time, moved.first_time), wanted, strict=True):
        np.testing.assert_allclose(found, values, rtol=1e-6)
    n = len(library)
    by_two = bin_times(
        move_deposits(library.read(), np.zeros((n, 2)), np.full((n, 2), 2 * DX), np.zeros(n)), axes,
        Incidence.of(n, position=(2 * DX, 2 * DX)).window_offsets(dx, dz),
    )  # fmt: skip
    for one, other in zip(by_two, bin_times(library.read(), axes), strict=True):
        assert np.isclose(one, other, rtol=1e-5, atol=1e-7, equal_nan=True).mean() > 0.999
