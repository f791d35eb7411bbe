"""A surrogate that knows particles, entries and directions: symmetry, crops, derivatives, refusals, training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import tilted_surrogate

from calograd import Design, Surrogate, gradient
from calograd.detector.incidence import Incidence
from calograd.detector.material import MATERIALS, Material
from calograd.detector.particles import ParticleBeam, Particles, turn_cells, turn_vectors
from calograd.errors import InputError, RangeError
from calograd.events.dense import Cells, read_cells, write_cells
from calograd.objective.measurement import Measurement
from calograd.objective.utility import Objective, PositionResolution
from calograd.surrogate.card import TrainedBeam
from calograd.surrogate.cells.coordinates import Line, decode, encode, shape_dim
from calograd.surrogate.cells.model import CellsArchitecture, CellsModel
from calograd.surrogate.generation import generate, rows_like
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig, parse_config
from calograd.training.data.rows import load_data
from calograd.training.tasks.adapt import adapt
from calograd.training.train import train

WINDOW = {"n_xy": 5, "n_z": 3}
PLACE: dict[str, Any] = {"particle": "e-", "position": (0.2, -0.4), "theta": 20.0, "phi": 35.0}


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return tilted_surrogate(**WINDOW)


def sample(surrogate: Surrogate, n: int = 6, design: Design | None = None, **options: Any) -> torch.Tensor:
    design = design or Design(1.3, 4.0, **WINDOW)
    made = surrogate.sample(design, 20.0, n, generator=torch.Generator().manual_seed(1), **options)
    assert isinstance(made, torch.Tensor)
    return made


def test_turning_and_mirroring_the_particle_turns_and_mirrors_the_cells(surrogate: Surrogate) -> None:
    cells = sample(surrogate, **PLACE)
    turned = sample(surrogate, **PLACE | {"position": (0.4, 0.2), "phi": 125.0})
    torch.testing.assert_close(turned, torch.rot90(cells, 1, (1, 2)))
    mirrored = sample(surrogate, **PLACE | {"position": (-0.2, -0.4), "phi": 145.0})
    torch.testing.assert_close(mirrored, cells.flip(1))
    assert not torch.allclose(turned, cells)


@pytest.mark.parametrize(("n_xy", "n_z"), [(5, 2), (3, 3), (3, 1), (1, 1)])
def test_a_smaller_window_is_a_crop(surrogate: Surrogate, n_xy: int, n_z: int) -> None:
    whole, part = sample(surrogate, **PLACE), sample(surrogate, design=Design(1.3, 4.0, n_xy=n_xy, n_z=n_z), **PLACE)
    edge = (5 - n_xy) // 2
    assert torch.equal(part, whole[:, edge : 5 - edge, edge : 5 - edge, :n_z])


def test_one_particle_a_shower_is_as_one_after_the_other(surrogate: Surrogate) -> None:
    entries, theta = torch.rand(6, 2) - 0.5, torch.linspace(0, 40, 6)
    names = ["gamma", "e-"] * 3
    together = sample(surrogate, particle=names, position=entries, theta=theta, phi=10.0)
    for i in (0, 3, 5):
        beam = {"particle": names[i], "position": entries[i], "theta": theta[i], "phi": 10.0}
        torch.testing.assert_close(sample(surrogate, i + 1, **beam)[i], together[i])


def test_energy_is_conserved_and_particles_matter(surrogate: Surrogate) -> None:
    cells = sample(surrogate, **PLACE)
    assert (cells >= 0).all()
    assert (cells.sum((1, 2, 3)) <= 20.0 + 1e-9).all()
    for other in ({"particle": "gamma"}, {"position": (0.1, -0.4)}, {"theta": 21.0}, {"phi": 36.0}):
        assert not torch.allclose(sample(surrogate, **PLACE | other), cells)


def test_derivatives_are_those_of_finite_differences(surrogate: Surrogate) -> None:
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ((0.2, -0.4), 20.0, 35.0, 1.3)]

    def total(position: torch.Tensor, theta: torch.Tensor, phi: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        cells = sample(surrogate, 3, Design(dx, 4.0, **WINDOW), position=position, theta=theta, phi=phi)
        return cells.square().sum()

    slopes = torch.autograd.grad(total(*values), values)
    for number, slope in enumerate(slopes):
        for at in np.ndindex(*slope.shape):
            ends = []
            for sign in (1, -1):
                moved = [value.detach().clone() for value in values]
                moved[number][at] += sign * 1e-7
                ends.append(float(total(*moved)))
            assert float(slope[at]) == pytest.approx((ends[0] - ends[1]) / 2e-7, rel=1e-4, abs=1e-5)


def test_uniform_entries_are_those_of_the_beam(surrogate: Surrogate) -> None:
    drawn = surrogate.particles(
        Design(1.3, 4.0, **WINDOW), 6, ParticleBeam(position="uniform", theta=20.0),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    assert drawn is not None
    assert torch.equal(sample(surrogate, position="uniform", theta=20.0), sample(surrogate, **drawn._asdict()))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"position": (0.9, 0.0)}, InputError, r"outside the central cell of 1.3 cm.*it is \(-0.4, 0\) cm"),
        ({"position": (6.0, 0.0)}, InputError, "outside the central cell.*is it in mm"),
        ({"position": (50.0, 0.0)}, InputError, "is it in mm"),
        ({"position": "middle"}, InputError, "expected x and y in cm, or the word uniform"),
        ({"position": (1.0, 2.0, 3.0)}, InputError, r"position has shape \(3,\)"),
        ({"theta": 50.0}, RangeError, "theta = 50 degrees is outside 0 to 40"),
        ({"theta": torch.ones(4)}, InputError, r"theta has shape \(4,\)"),
        ({"particle": "mu-"}, InputError, "particle = 'mu-': expected one of gamma, e-, e"),
        ({"particle": "e+"}, RangeError, "particle e. was not trained on, gamma and e- were"),
        ({"design": Design(1.3, 4.0, n_xy=7, n_z=3)}, InputError, "odd number of cells across, of up to 5 x 5 x 3"),
        ({"design": Design(1.3, 4.0, n_xy=4, n_z=3)}, InputError, "odd number of cells across"),
        ({"design": Design(1.3, 4.0, n_xy=5, n_z=4)}, InputError, "the design has 5 x 5 x 4 cells"),
    ],
)
def test_what_was_not_trained_is_refused(
    surrogate: Surrogate, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        sample(surrogate, **options)


def test_a_surrogate_of_one_beam_takes_no_particle() -> None:
    with pytest.raises(InputError, match="pbf2-cells generates gamma on the axis alone; leave out theta"):
        Surrogate.load("pbf2-cells").sample(Design(2.5, 6.0), 50.0, 2, theta=10.0)


def test_rows_of_a_file_are_imitated_with_their_particles(surrogate: Surrogate, tmp_path: Path) -> None:
    n, rng = 8, np.random.default_rng(0)
    incident = Incidence.of(n, ["gamma", "e-"] * 4, rng.uniform(-0.6, 0.6, (n, 2)), rng.uniform(0, 40, n), 50.0)
    sizes = {"dx": np.full(n, 1.3, np.float32), "dz": np.full((n, 2), 4.0, np.float32)}
    cells = Cells(
        np.ones((n, 3, 3, 2), np.float32), np.full(n, 20.0, np.float32), **sizes, shower=np.arange(n),
        material=MATERIALS["PbF2"], origin="geant4", config={}, incidence=incident,
    )  # fmt: skip
    rows = rows_like(surrogate, cells)
    made = generate(surrogate, rows.energy, rows.dx, rows.dz, incident=rows.incident, n_xy=rows.n_xy, seed=4)
    assert made.cells.shape == (n, 3, 3, 2)
    write_cells(tmp_path / "made.h5", made)
    back = read_cells(tmp_path / "made.h5").incident
    for name, column in vars(incident).items():
        np.testing.assert_array_equal(getattr(back, name), column)
    on_axis = generate(surrogate, rows.energy, rows.dx, rows.dz, n_xy=3, seed=4)
    assert on_axis.incident.on_axis
    assert not np.array_equal(on_axis.cells, made.cells)


def test_position_resolution_is_about_the_particles_line(surrogate: Surrogate) -> None:
    """All energy in the central cell: the error is the distance of its middle from the line."""
    design, n = Design(1.3, 4.0, **WINDOW), 2000
    particles = ParticleBeam(position="uniform").draw(design.dx.double().reshape(1), RandomNumbers(0, range(n)))
    cells = torch.zeros(n, 5, 5, 3)
    cells[:, 2, 2, 0] = 1.0
    objective = Objective(Measurement(background=None), PositionResolution(), (1.0,))
    off = -float(objective.value(cells, design, particles=[particles]))
    assert off == pytest.approx(1.3 / 12**0.5, rel=0.03)
    assert -float(objective.value(cells, design)) < 1e-6


def test_gradients_average_over_entries(surrogate: Surrogate) -> None:
    """The gradient is that of the value, with entries that follow the pitch."""
    beam = ParticleBeam("e-", "uniform", 20.0, (0.0, 360.0))
    objective = Objective(Measurement(background=None), PositionResolution(), (20.0,), beam=beam)
    found = gradient(surrogate, Design(1.3, 4.0, **WINDOW), objective=objective, showers=200, draws=2)
    assert "entering evenly over the cell" in found.to_dict()["objective"]["beam"]
    assert np.isfinite(found.estimates[0].gradient).all()
    assert (found.estimates[0].gradient != 0).all()


@pytest.mark.parametrize("beam", [ParticleBeam(), ParticleBeam("e-", (0.2, -0.4), 20.0, 35.0)])
def test_gradients_of_a_fixed_beam(surrogate: Surrogate, beam: ParticleBeam) -> None:
    """One row of particles stands for all showers."""
    objective = Objective(Measurement(background=None), PositionResolution(), (20.0,), beam=beam)
    found = gradient(surrogate, Design(1.3, 4.0, **WINDOW), objective=objective, showers=10, draws=2)
    assert np.isfinite(found.estimates[0].gradient).all()


def straight(n: int, n_z: int, generator: torch.Generator) -> Line:
    """Lines through the layers, anywhere in the middle cells."""
    place, across = (torch.rand(n, rows, 2, generator=generator) - 0.5 for rows in (n_z, 1))
    return Line(place, torch.full((n, n_z), 4.0), 3 * across.expand(-1, n_z, -1))


def centres(cells: torch.Tensor) -> torch.Tensor:
    """The centre of every layer in x and y, cells, shape (n, 2, n_z)."""
    place = torch.arange(float(cells.shape[1])) - cells.shape[1] // 2
    first = torch.stack([torch.einsum("nijk,i->nk", cells, place), torch.einsum("nijk,j->nk", cells, place)], 1)
    return first / cells.sum((1, 2))[:, None]


@pytest.mark.parametrize("n_xy", [3, 5, 7])
def test_coordinates_with_centres_come_back(n_xy: int) -> None:
    generator = torch.Generator().manual_seed(0)
    energy, line = torch.full((300,), 30.0), straight(300, 3, generator)
    cells = torch.rand(300, n_xy, n_xy, 3, generator=generator).pow(8)
    cells[torch.rand(cells.shape, generator=generator) < 0.2] = 0
    cells *= 27 / cells.sum((1, 2, 3), keepdim=True)
    g, c = encode(cells, energy, RandomNumbers(0, range(300)), line)
    assert g.shape[1] == shape_dim(n_xy, 3, line=True)
    back = decode(g, c, energy, n_xy, 3, line)
    assert (back - cells).abs().max() < 0.03
    torch.testing.assert_close(back.sum((1, 2, 3)), cells.sum((1, 2, 3)))


def test_no_cell_is_negative_where_the_middle_one_holds_next_to_nothing() -> None:
    generator, n = torch.Generator().manual_seed(0), 2000
    energy, line = torch.full((n,), 30.0), straight(n, 3, generator)
    cells = torch.rand(n, 5, 5, 3, generator=generator).pow(4)
    cells[:, 2, 2] *= 1e-9
    cells *= 27 / cells.sum((1, 2, 3), keepdim=True)
    back = decode(*encode(cells, energy, RandomNumbers(0, range(n)), line), energy, 5, 3, line)
    assert back.min() >= 0


def test_position_and_direction_are_kept_when_all_else_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    energy, line = torch.full((300,), 30.0), straight(300, 3, generator)
    cells = torch.rand(300, 5, 5, 3, generator=generator).pow(4)
    cells *= 27 / cells.sum((1, 2, 3), keepdim=True)
    g, c = encode(cells, energy, RandomNumbers(0, range(300)), line)
    c = c + 0.1 * c.abs() * torch.randn(c.shape, generator=generator)
    own = slice(2 + 2 * 3, 2 + 4 * 3)
    g[:, own] += 0.1 * torch.randn(g[:, own].shape, generator=generator)
    back = decode(g, c, energy, 5, 3, line)
    layers = cells.sum((1, 2))
    torch.testing.assert_close(back.sum((1, 2)), layers)
    axis = line.about(layers)
    got, wanted = (
        ((centres(each) - axis.place) * layers[:, None]) @ axis.weights.transpose(1, 2) / 27 for each in (back, cells)
    )
    assert (got - wanted).abs().max() < 1e-3  # a centre of a layer was moved by a hundred times as much
    assert (centres(back) - centres(cells)).std() > 0.02
    g, c, energy, place, thickness, crossing = (each[:4].double() for each in (g, c, energy, *line))

    def decoded(*of_line: torch.Tensor) -> torch.Tensor:
        return decode(g, c, energy, 5, 3, Line(*of_line))

    inputs = [each.clone().requires_grad_() for each in (place, thickness, crossing)]
    assert torch.autograd.gradcheck(decoded, inputs)


def test_moments_are_about_the_depths_of_the_energy() -> None:
    generator, n, n_z = torch.Generator().manual_seed(0), 200, 4
    line = straight(n, n_z, generator)
    layers = torch.rand(n, n_z, generator=generator) + 0.1
    axis = line.about(layers)
    mean = (layers[:, None] * axis.weights).sum(2) / layers.sum(1, keepdim=True)
    torch.testing.assert_close(mean, torch.tensor([1.0, 0.0]).expand(n, -1), atol=1e-5, rtol=0)
    square = (layers * axis.weights[:, 1] ** 2).sum(1) / layers.sum(1)
    assert (square < 1).all()
    assert (square > 0.95).all()  # of layers of 4 X0; the spread is softened
    rising = line.about(torch.tensor([[1.0, 2.0, 4.0, 8.0]]).expand(n, -1))
    ahead = ((rising.place.transpose(1, 2) - line.place) / line.crossing * 4)[:, 1:3]  # X0
    slope = (2**0.5 - 0.5**0.5) / 4
    torch.testing.assert_close(ahead, torch.full_like(ahead, slope * (16 / 12 + 1)), rtol=1e-3, atol=0)


def test_the_line_is_found_in_the_conditions(surrogate: Surrogate) -> None:
    model = surrogate.model
    assert isinstance(model, CellsModel)
    like, dz = model.condition_mean, torch.tensor([[4.0, 5.0, 6.0]], dtype=torch.float64)
    particles = Particles.of(3, "e-", torch.tensor([[0.2, -0.4], [-0.1, 0.3], [0.0, 0.6]]), 30.0, 100.0, like=like)
    design = Design(1.3, dz[0], **WINDOW)
    energy = torch.full((3,), 20.0, dtype=torch.float64)
    line = model.line(model.condition(design, energy, particles))
    assert line is not None
    expected, _ = particles.residuals(torch.tensor([1.3], dtype=torch.float64), dz)
    torch.testing.assert_close(line.place, turn_vectors(expected, particles.frame()), atol=1e-6, rtol=0)
    x0 = Material.parse("PbF2").radiation_length
    torch.testing.assert_close(line.thickness[:1] * float(x0), dz, atol=1e-5, rtol=0)
    crossing = particles.slopes()[:, None] * dz[:, :, None] / 1.3
    torch.testing.assert_close(line.crossing, turn_vectors(crossing, particles.frame()), atol=1e-6, rtol=0)


def made_up_rows(folder: Path, n: int = 240) -> Path:
    """A file of cells whose centre follows the particle's line."""
    rng = np.random.default_rng(0)
    names, entries = rng.choice(["gamma", "e-"], n), rng.uniform(-0.5, 0.5, (n, 2))
    incident = Incidence.of(n, names, entries, rng.uniform(0, 40, n), rng.uniform(0, 360, n))
    dx = (1.3 * rng.uniform(0.8, 1.25, n)).astype(np.float32)
    dz = np.repeat(rng.uniform(3.9, 4.1, (n, 1)), 2, 1).astype(np.float32)
    particles = Particles.from_incidence(incident, torch.zeros(1))
    residuals, _ = particles.residuals(torch.from_numpy(dx), torch.from_numpy(dz))
    place = np.arange(5) - 2
    shape = [np.exp(-np.abs(place - residuals.numpy()[..., axis, None]) * 1.5) for axis in (0, 1)]
    cells = np.einsum("nki,nkj->nijk", *shape) * rng.gamma(4.0, size=(n, 5, 5, 2))
    energy = np.exp(rng.uniform(0, np.log(100), n)).astype(np.float32)
    cells *= 0.9 * energy[:, None, None, None] / cells.sum((1, 2, 3), keepdims=True)
    path = folder / "rows.h5"
    write_cells(
        path,
        Cells(
            cells.astype(np.float32), energy, dx, dz, np.arange(n), MATERIALS["PbF2"], "geant4", {},
            incidence=incident,
        ),
    )  # fmt: skip
    return path


def configuration(folder: Path, **beam: Any) -> dict[str, Any]:
    return {
        "name": "tilted", "data": {"files": [str(made_up_rows(folder))], "validation": 0.2},
        "range": {"energy": [1, 100], "dx": [1.05, 1.6], "dz": [3.9, 4.1]} | beam,
        "model": {
            "beam": True, "shape_width": 12, "shape_blocks": 1, "pattern_width": 16, "pattern_blocks": 1,
            "embedding": 8, "location_scale_width": 12,
        },
        "training": {"steps": 4, "batch": 32, "location_scale_steps": 4, "location_scale_batch": 32, "report_every": 2},
    }  # fmt: skip


def test_it_is_trained_from_rows_of_any_particle(tmp_path: Path) -> None:
    beam = {"particles": ["gamma", "e-"], "theta": [0, 40]}
    config = parse_config(configuration(tmp_path, **beam), "test", tmp_path)
    train(config, tmp_path / "run")
    trained = Surrogate.load(tmp_path / "run")
    assert trained.card.designs.beam == TrainedBeam(particles=("gamma", "e-"), theta=(0, 40))
    cells = trained.sample(Design(1.3, 4.0, n_xy=5, n_z=2), 10.0, 3, particle="e-", position="uniform", theta=30.0)
    assert cells.shape == (3, 5, 5, 2)
    assert torch.isfinite(cells).all()


def test_a_start_and_steps_of_either_location_and_scale(tmp_path: Path) -> None:
    raw = configuration(tmp_path, particles=["gamma", "e-"], theta=[0, 40])
    first = train(parse_config(raw, "test", tmp_path), tmp_path / "first")
    assert isinstance(first, CellsModel)
    raw["training"] |= {"start": str(tmp_path / "first"), "location_scale_steps": [3, 1], "learning_rate": 1e-12}
    config = parse_config(raw, "test", tmp_path)
    second = train(config, tmp_path / "second")
    assert isinstance(second, CellsModel)
    assert config.training.phase_steps == (3, 1)  # type: ignore[union-attr]
    for (name, x), y in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, msg=name)


def test_rows_are_brought_into_the_frame(tmp_path: Path) -> None:
    path = made_up_rows(tmp_path, 20_000)
    stored = read_cells(path)
    data = load_data([path], 0.2, 0, beams=True)
    assert not data.symmetric
    particles = data.train.particles
    assert particles is not None
    order = {row: k for k, row in enumerate(zip(stored.energy.tolist(), stored.dx.tolist(), strict=True))}
    which = [order[row] for row in zip(data.train.energy.tolist(), data.train.dx.tolist(), strict=True)]
    back = turn_cells(data.train.cells, particles.frame(), back=True)
    np.testing.assert_array_equal(back.numpy(), stored.cells[which])
    streamed = load_data([path], 0.2, 0, beams=True, memory=10)
    assert streamed.window is not None
    streamed.move_to(0, 0, 8)
    drawn = streamed.draw(8, torch.Generator().manual_seed(0))
    assert torch.equal(streamed.rows(drawn).cells, data.train.cells[drawn])


@pytest.mark.parametrize(
    ("beam", "words"),
    [
        ({}, "model.beam needs range.particles and range.theta"),
        ({"particles": ["gamma", "e+"], "theta": [0, 40]}, r"range.particles has e\+, the data have e- and gamma"),
        ({"particles": ["gamma"], "theta": [0, 80]}, "range.theta = .* reaches beyond the data"),
    ],
)
def test_a_range_that_data_do_not_reach_is_refused(tmp_path: Path, beam: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(parse_config(configuration(tmp_path, **beam), "test", tmp_path), tmp_path / "run")


def test_a_window_without_a_middle_is_refused() -> None:
    with pytest.raises(InputError, match="expected an odd number from 3"):
        CellsArchitecture(n_xy=4, beam=True)


def test_it_is_adapted_with_its_particles(tmp_path: Path) -> None:
    beam = {"particles": ["gamma", "e-"], "theta": [0, 40]}
    train(parse_config(configuration(tmp_path, **beam), "test", tmp_path), tmp_path / "run")
    base, data = Surrogate.load(tmp_path / "run"), load_data([tmp_path / "rows.h5"], 0.2, 0, beams=True)
    few = AdaptConfig(steps=2, location_scale_steps=2, batch=16, location_scale_batch=16, rank=2)
    adapted = adapt(base, few, data, tmp_path / "adapted").surrogate
    found = adapted.card.designs.beam
    assert found is not None
    assert found.particles == ("gamma", "e-")
    assert 0 <= found.theta[0] < 1 < 39 < found.theta[1] < 40  # noqa: PLR0133 - ends of the range
    sample = {"particle": "e-", "position": (0.3, 0.2), "theta": 30.0}
    cells = Surrogate.load(tmp_path / "adapted").sample(Design(1.3, 4.0, n_xy=3, n_z=2), 10.0, 4, **sample)
    assert cells.shape == (4, 3, 3, 2)
