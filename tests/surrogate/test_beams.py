"""Showers of another beam than the trained one are refused wherever they are imitated, learnt from or compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.geometries import made_up_geometry
from helpers.tiny import tiny_surrogate
from helpers.toy_library import write_toy_library

from calograd import Design, evaluate, gradient, segment
from calograd.detector.configuration import Block, CrystalMatrix, SimulationConfig
from calograd.detector.incidence import Incidence
from calograd.detector.material import MATERIALS, Material
from calograd.detector.particles import ParticleBeam
from calograd.errors import InputError
from calograd.events.dense import Cells, write_cells
from calograd.gradients.gradient import check_beam
from calograd.objective.reference import CellsReference, open_reference
from calograd.surrogate.generation import rows_like
from calograd.training.data.rows import load_data

Library = Callable[..., Path]


@pytest.fixture
def library(tmp_path: Path, make_config: Callable[..., SimulationConfig]) -> Library:
    """Return a function that writes toy showers of a beam."""

    def write(**beam: Any) -> Path:
        config = make_config(10.0, 50.0)
        config = config.model_copy(update={"beam": config.beam.model_copy(update=beam)})
        return write_toy_library(tmp_path / f"{len(list(tmp_path.iterdir()))}.h5", config)

    return write


def cells_of(path: Path, **options: Any) -> Cells:
    cells = segment(path, designs=[(2.5, 6.0)], n_xy=3, n_z=2, **options)
    assert isinstance(cells, Cells)
    return cells


def trained_on(config: dict[str, Any]) -> Any:
    surrogate = tiny_surrogate()
    surrogate.card = surrogate.card.model_copy(update={"training": {"data": [{"config": config}]}})
    return surrogate


@pytest.mark.parametrize(
    ("beam", "words"),
    [({"particle": "e-"}, "e- on the axis"), ({"theta": 20.0}, "gamma on the axis at theta = 20 degrees"),
     ({"position": (0.3, 0.0)}, r"gamma entering at x = 0\.3, y = 0 cm")],
)  # fmt: skip
def test_other_beams_are_not_imitated(library: Library, beam: dict[str, Any], words: str) -> None:
    cells = cells_of(library(**beam))
    expected = f"cells.h5 is of {words}, not gamma on the axis as tiny was trained on"
    with pytest.raises(InputError, match=expected):
        rows_like(tiny_surrogate(), cells, name="cells.h5")
    assert len(rows_like(trained_on(cells.config), cells).energy) == 60
    with pytest.raises(InputError, match="gamma on the axis, not"):
        rows_like(trained_on(cells.config), cells_of(library()))


def test_moved_showers_are_of_another_beam(library: Library) -> None:
    cells = cells_of(library(), position="uniform", seed=3)
    with pytest.raises(InputError, match=r"is of gamma entering at x = -1\.2.* to 1\.2.*, not gamma on the axis"):
        rows_like(tiny_surrogate(), cells)
    moved = cells_of(library(), position=(0.5, 0.0))
    assert Incidence.of_config(moved.config, 1).describe() == "gamma entering at x = 0.5, y = 0 cm"


def test_gradients_are_not_compared_with_another_beam(library: Library) -> None:
    design = Design(2.5, 6.0, n_xy=3, n_z=2)
    with pytest.raises(InputError, match="is of e- on the axis, not gamma on the axis as tiny"):
        gradient(tiny_surrogate(), design, 10.0, reference=library(particle="e-"), showers=10, draws=2)


def test_files_of_two_beams_are_not_compared(library: Library) -> None:
    photons, electrons = cells_of(library()), cells_of(library(particle="e-"))
    with pytest.raises(
        InputError, match="generated cells are of gamma on the axis, not e- on the axis as the reference"
    ):
        evaluate(photons, electrons, classifiers=False)


def test_a_surrogate_learns_one_beam(library: Library, tmp_path: Path) -> None:
    photons, spread = tmp_path / "photons.cells", tmp_path / "spread.cells"
    write_cells(photons, cells_of(library()))
    write_cells(spread, cells_of(library(), position="uniform", seed=1))
    electrons = tmp_path / "electrons.cells"
    write_cells(electrons, cells_of(library(particle="e-")))
    with pytest.raises(InputError, match=r"spread.cells is of gamma entering .* choose showers of one beam"):
        load_data([spread], 0.2, 0)
    with pytest.raises(InputError, match=r"electrons.cells is of e- on the axis, not gamma on the axis as the first"):
        load_data([photons, electrons], 0.2, 0)
    assert load_data([photons], 0.2, 0).symmetric
    fixed = tmp_path / "fixed.cells"
    write_cells(fixed, cells_of(library(), position=(0.5, 0.5)))
    assert not load_data([fixed], 0.2, 0).symmetric


def test_a_reference_has_windows_that_follow_its_beam(library: Library) -> None:
    path = library(theta=20.0)
    measured = open_reference(path, [10.0], 3, 2).measure(10.0, [(2.5, (6.0, 6.0))])[0]
    cells = cells_of(path)
    np.testing.assert_array_equal(measured, cells.cells[cells.energy == 10.0])
    on_axis = replace(cells, incidence=None)  # the record falls back to the simulation's beam
    assert on_axis.incident.describe() == cells.incident.describe()


def test_a_reference_refuses_windows_that_leave_its_block(library: Library) -> None:
    reference = open_reference(library(theta=20.0), [10.0], 3, 2)
    with pytest.raises(InputError, match=r"windows that follow the particles need .* simulate a larger one"):
        reference.measure(10.0, [(5.0, (30.0, 30.0))])


def test_the_block_holds_windows_of_tilted_beams() -> None:
    material = Material.parse("PbF2")
    assert Block.holding(material) == Block(material=material)
    width, height, depth = Block.holding(material, 45.0, (-1.0, 2.0)).size
    assert (width, height, depth) == pytest.approx((25.2 + 2 * 76 + 4, 25.2 + 2 * 76 + 4, 76))
    assert Block.holding(material, 89.9).size[0] < 1000


def test_a_reference_is_moved_to_the_entries_of_a_beam(library: Library) -> None:
    path = library(theta=10.0)
    moved = segment(path, designs=[(2.5, 6.0)], n_xy=3, n_z=2, position=(0.3, -0.8), phi=40.0)
    beam = ParticleBeam(position=(0.3, -0.8), theta=10.0, phi=40.0)
    reference = open_reference(path, (10.0,), 3, 2, beam=beam)
    found = reference.measure(10.0, [(2.5, (6.0, 6.0))])[0]
    np.testing.assert_array_equal(found, moved.measured[moved.energy == 10.0])
    particles = reference.particles(10.0, (2.5, (6.0, 6.0)))
    assert particles is not None
    assert particles.to_incidence(30).difference(moved.incident[:30]) is None


def test_entries_of_a_reference_follow_the_pitch(library: Library) -> None:
    reference = open_reference(library(), (10.0,), 3, 2, beam=ParticleBeam(position="uniform"), seed=3)
    small, large = (reference.particles(10.0, (dx, (6.0, 6.0))) for dx in (2.0, 4.0))
    assert small is not None
    assert large is not None
    np.testing.assert_allclose(2 * small.position, large.position)
    assert float(small.position.abs().max()) <= 1
    assert float(small.position.std()) > 0.4
    with pytest.raises(InputError, match="gamma on the axis, not gamma on the axis at theta = 10 degrees as asked"):
        open_reference(library(), (10.0,), 3, 2, beam=ParticleBeam(theta=10.0))
    with pytest.raises(InputError, match="not e- on the axis as asked; choose showers of that particle and angle"):
        open_reference(library(), (10.0,), 3, 2, beam=ParticleBeam("e-"))


def test_particles_of_a_cells_file_are_those_of_the_design(library: Library) -> None:
    path = library()
    designs = [(2.5, 6.0), (2.5, 6.5), (2.5, 5.5)]
    cells = segment(path, designs=designs, n_xy=3, n_z=2, position="uniform", seed=2)
    assert isinstance(cells, Cells)
    reference = CellsReference(cells, "cells.h5")
    for number, (dx, dz) in enumerate(designs):
        particles = reference.particles(10.0, (dx, (dz, dz)))
        assert particles is not None
        mine = (cells.energy == 10.0) & (np.arange(len(cells)) % 3 == number)
        np.testing.assert_allclose(particles.position.numpy(), cells.incident.position[mine], rtol=1e-6)


def test_a_reference_must_be_of_the_beam_that_is_asked(library: Library) -> None:
    path = library(theta=10.0)
    cells = segment(path, designs=[(2.5, 6.0)], n_xy=3, n_z=2, position="uniform", seed=2)
    assert isinstance(cells, Cells)
    reference, design = CellsReference(cells, "cells.h5"), Design(2.5, 6.0, n_xy=3, n_z=2)
    check_beam(reference, ParticleBeam(position="uniform", theta=10.0), (10.0, 50.0), design)
    for beam in (ParticleBeam(), ParticleBeam(theta=10.0), ParticleBeam("e-", "uniform", 10.0)):
        with pytest.raises(InputError, match=r"cells.h5 at 10 GeV is of gamma entering at .* as the objective asks"):
            check_beam(reference, beam, (10.0,), design)


@pytest.mark.parametrize("kind", ["a crystal matrix", "the geometry made_up.gdml"])
def test_showers_of_a_detector_with_structure_are_not_moved(
    tmp_path: Path, make_config: Callable[..., SimulationConfig], kind: str
) -> None:
    matrix = CrystalMatrix(material=MATERIALS["PbF2"], dx=2.5, dz=(6.0, 6.0), n_xy=3)
    detector = made_up_geometry(tmp_path) if kind.endswith("gdml") else matrix
    path = write_toy_library(tmp_path / "matrix.h5", make_config(10.0, 50.0).model_copy(update={"detector": detector}))
    open_reference(path, (10.0,), 3, 2, beam=ParticleBeam())
    for beam in (ParticleBeam(position=(0.3, 0.0)), ParticleBeam(position="uniform")):
        with pytest.raises(InputError, match=f"is of {kind}, whose showers cannot be moved or turned"):
            open_reference(path, (10.0,), 3, 2, beam=beam)


def test_a_reference_in_a_geometry_has_cells_within_it(
    tmp_path: Path, make_config: Callable[..., SimulationConfig]
) -> None:
    config = make_config(10.0, 50.0).model_copy(update={"detector": made_up_geometry(tmp_path)})
    reference = open_reference(write_toy_library(tmp_path / "others.h5", config), (10.0,), 3, 2)
    assert reference.measure(10.0, [(4.9, (10.0, 19.0))]).shape == (1, 30, 3, 3, 2)
    with pytest.raises(InputError, match=r"others\.h5: the middles of these cells cover x -5\.1 to 5\.1"):
        reference.measure(10.0, [(5.1, (10.0, 10.0))])
