"""Incident particles as tensors, and the frame that eight directions share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calograd.detector.incidence import Incidence
from calograd.detector.particles import ParticleBeam, Particles, turn_cells, turn_vectors
from calograd.errors import InputError
from calograd.system.random_numbers import RandomNumbers

LIKE = torch.zeros(1, dtype=torch.float64)


def some(n: int = 200, seed: int = 0) -> Incidence:
    rng = np.random.default_rng(seed)
    theta = np.where(rng.random(n) < 0.3, 0.0, rng.uniform(0, 40, n))
    phi = np.where(rng.random(n) < 0.3, rng.integers(8, size=n) * 45.0, rng.uniform(-180, 360, n))
    return Incidence.of(n, rng.choice(["gamma", "e-", "e+"], n), rng.uniform(-0.6, 0.6, (n, 2)), theta, phi)


def test_tensors_and_files_have_the_same_particles() -> None:
    incident = some()
    back = Particles.from_incidence(incident, LIKE).to_incidence(len(incident))
    for name, column in vars(incident).items():
        np.testing.assert_array_equal(getattr(back, name), column)
    assert set(Particles.from_incidence(incident, LIKE).charge().tolist()) == {-1.0, 0.0, 1.0}


def test_residuals_and_centres_are_those_of_the_windows() -> None:
    incident, dz = some(), np.array([[2.0, 3.0, 4.0]])
    particles = Particles.from_incidence(incident, LIKE)
    residuals, centres = particles.residuals(torch.tensor([1.3]).double(), torch.from_numpy(dz))
    depths = np.broadcast_to(dz, (200, 3))
    np.testing.assert_array_equal(centres, incident.window_offsets(np.full(200, 1.3), depths))
    assert residuals.abs().max() <= 0.5
    middle = np.cumsum(depths, 1) - depths / 2
    np.testing.assert_allclose((residuals + centres) * 1.3, incident.at(middle), atol=1e-9)


@given(frame=st.integers(0, 7), n_xy=st.sampled_from([1, 2, 3, 5]))
def test_cells_come_back_from_the_frame(frame: int, n_xy: int) -> None:
    cells = torch.arange(2 * n_xy**2 * 3).reshape(2, n_xy, n_xy, 3)
    frames = torch.tensor([frame, (frame + 3) % 8])
    assert torch.equal(turn_cells(turn_cells(cells, frames), frames, back=True), cells)
    assert n_xy == 1 or frame == 0 or not torch.equal(turn_cells(cells, frames), cells)


def test_cells_and_vectors_turn_alike() -> None:
    """A single filled cell goes where the vector to it goes."""
    place = torch.tensor([[1.0, 2.0]])
    for frame in range(8):
        cells = torch.zeros(1, 5, 5, 1)
        cells[0, 3, 4] = 1
        x, y = turn_vectors(place, torch.tensor([frame]))[0].long() + 2
        assert turn_cells(cells, torch.tensor([frame]))[0, x, y, 0] == 1


def test_every_particle_ends_in_an_eighth_of_all_directions() -> None:
    particles = Particles.from_incidence(some(), LIKE)
    frame = particles.frame()
    slopes, entry = turn_vectors(particles.slopes(), frame), turn_vectors(particles.position, frame)
    assert slopes.min() > -1e-6
    assert (slopes[:, 0] - slopes[:, 1]).min() > -1e-6
    straight = particles.theta == 0
    assert 20 < straight.sum() < 180
    assert entry[straight].min() >= 0
    assert (entry[straight, 0] >= entry[straight, 1]).all()


def test_entries_are_drawn_in_the_cell_and_follow_its_pitch() -> None:
    random, beam = RandomNumbers(5, range(2000)), ParticleBeam(position="uniform", theta=10.0, phi=(0.0, 90.0))
    dx = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    drawn, twice = beam.draw(dx, random), beam.draw(2 * dx.detach(), random)
    assert torch.equal(2 * drawn.position.detach(), twice.position)
    assert torch.equal(drawn.phi, twice.phi)
    assert drawn.position.detach().abs().max() <= 1
    assert abs(float(drawn.position.detach().std()) - 2 / 12**0.5) < 0.02
    assert 0 <= drawn.phi.min() < 1 < 89 < drawn.phi.max() <= 90  # noqa: PLR0133 - ends of the range
    assert torch.equal(beam.draw(dx, random.rows(slice(7, 9))).position, drawn.position[7:9])
    (slope,) = torch.autograd.grad(drawn.position.sum(), dx)
    torch.testing.assert_close(slope, (drawn.position.sum() / 2).detach().reshape(1))


def test_a_beam_that_is_fixed_is_one_row() -> None:
    drawn = ParticleBeam(position=(0.1, 0.2), theta=3.0).draw(torch.ones(1), RandomNumbers(0, range(50)))
    assert [len(column) for column in drawn] == [1, 1, 1, 1]
    assert len(drawn.to_incidence(50)) == 50


def test_an_entry_in_pitches_keeps_its_place_in_the_cell() -> None:
    beam, random = ParticleBeam(position=(0.2, -0.4), unit="pitch"), RandomNumbers(0, range(3))
    dx = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    drawn = beam.draw(dx, random)
    assert drawn.position.tolist() == [pytest.approx([0.26, -0.52])]
    (slope,) = torch.autograd.grad(drawn.position[0, 1], dx)
    assert float(slope) == pytest.approx(-0.4)
    pitches = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    expected = pitches[:, None] * torch.tensor([0.2, -0.4], dtype=torch.float64)
    assert torch.equal(beam.draw(pitches, random).position, expected)
    assert beam.position_at(2.0) == (0.4, -0.8)
    assert ParticleBeam(position=(0.2, -0.4)).position_at(2.0) == (0.2, -0.4)
    assert (beam.scales, ParticleBeam(position=(0.2, -0.4)).scales, ParticleBeam(unit="pitch").scales) == (
        True, False, False,
    )  # fmt: skip
    assert str(beam) == "gamma entering at (0.2, -0.4) of the pitch, theta 0, phi 0 degrees"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"unit": "mm"}, "unit = 'mm' of the position: expected cm or pitch"),
        ({"position": (1.0, 2.0, 3.0), "unit": "pitch"}, "position has shape"),
        ({"particle": "mu-"}, "particle = 'mu-'"),
        ({"position": "somewhere"}, "expected x and y in cm, or the word uniform"),
        ({"position": (1.0, 2.0, 3.0)}, "position has shape"),
        ({"position": (120.0, 0.0)}, "is it in mm"),
        ({"theta": 95.0}, "expected degrees from 0 to below 90"),
        ({"phi": (0.0, float("nan"))}, "phi has shape"),
    ],
)
def test_beams_that_cannot_be(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ParticleBeam(**fields)  # type: ignore[arg-type]
