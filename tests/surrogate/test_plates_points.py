"""Points in the active plates of stacks: energy, symmetry, gradients, frames and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_plates import SMALL, tiny_plate_points, tiny_plates
from torch import Tensor

from calograd import SamplingDesign, open_plates
from calograd.detector.incidence import Incidence
from calograd.detector.particles import Particles
from calograd.detector.sampling_stack import SamplingStack, ThicknessRange
from calograd.diffusion.samplers import SAMPLERS
from calograd.errors import InputError
from calograd.evaluation.timing import simulation
from calograd.events.clustering import cluster_plates
from calograd.events.plates import PlateShowers
from calograd.events.points import Points
from calograd.surrogate import Surrogate
from calograd.surrogate.generation import draw_stacks, generate
from calograd.surrogate.plates.model import PlatesArchitecture, PlatesModel
from calograd.surrogate.plates.points import (
    LEADS,
    QUANTILES,
    SCALE_ENERGY,
    KnownLayers,
    PointStage,
    across_line,
    in_detector,
    point_numbers,
)
from calograd.surrogate.points.features import TAIL, Features, decode_count, decode_means, to_normal
from calograd.system.random_numbers import RandomNumbers

STACK = SamplingDesign("Pb", "lAr", 0.3, 0.4, 6)
LAW = SamplingStack(
    absorber=("Pb", "W"), active="Si", layers=(4, 12), profile="smooth",
    absorber_thickness=ThicknessRange(low=0.2, high=0.6), active_thickness=ThicknessRange(low=0.02, high=0.1),
)  # fmt: skip


@pytest.fixture(scope="module")
def surrogate() -> Surrogate:
    return tiny_plate_points()


def sample(surrogate: Surrogate, stack: SamplingDesign = STACK, energy: Any = 10.0, n: int = 5, **options: Any) -> Any:
    options = {"particle": "e-", "generator": torch.Generator().manual_seed(5)} | options
    return surrogate.sample(stack, energy, n, **options)


def stage_of(surrogate: Surrogate) -> PointStage:
    assert isinstance(surrogate.model, PlatesModel)
    assert surrogate.model.points is not None
    return surrogate.model.points


def test_points_have_the_energies_of_their_layers_which_are_those_without_points(surrogate: Surrogate) -> None:
    made, layers = sample(surrogate), sample(surrogate, layers_only=True)
    assert isinstance(made, Points)
    assert (made.counts > 10).all()
    torch.testing.assert_close(made.layer_energies()[:, :6], layers.layer_energies(), rtol=1e-5, atol=1e-9)
    assert torch.equal(made.absorbed_energies(), layers.absorbed_energies())
    cells = made.to_cells(10.0, n_xy=201)
    torch.testing.assert_close(cells.sum((1, 2)), made.layer_energies(), rtol=1e-4, atol=1e-9)


def test_a_layer_has_points_if_and_only_if_its_active_plate_has_energy(surrogate: Surrogate) -> None:
    stage, n, layers = stage_of(surrogate), 7, 4
    visible = torch.rand(n, layers, generator=torch.Generator().manual_seed(1)) * 0.05
    visible[:, 1], visible[0] = 0, 0
    visible[2] = 1e-9
    features = stage.sizes.features + 2
    ones = torch.ones(n, layers)
    known = KnownLayers(
        torch.zeros(n, stage.sizes.known), torch.zeros(n, layers, features), visible, 0.002 * ones, ones,
        ones.bool(), torch.full((n,), 10.0),
    )  # fmt: skip
    sampler, none = SAMPLERS["trigflow-ab2"], torch.zeros_like(visible)
    made = stage.generate(known, none, sampler, (2, 2), False, RandomNumbers(1, range(n)))
    counts = torch.bincount(made.owner * layers + made.layer, minlength=n * layers).reshape(n, layers)
    assert torch.equal(counts > 0, visible > 0)
    torch.testing.assert_close(made.layer_energies(), visible, rtol=1e-5, atol=1e-12)


def test_a_shower_is_the_same_alone_and_among_others(surrogate: Surrogate) -> None:
    many, some = sample(surrogate, n=6), sample(surrogate, n=2, shower=[3, 5])
    for row, number in enumerate((3, 5)):
        for name in ("x", "y", "layer", "e"):
            torch.testing.assert_close(getattr(many.rows([number]), name), getattr(some.rows([row]), name))


def test_gradients_of_smooth_points_equal_finite_differences() -> None:
    surrogate = tiny_plate_points()
    surrogate.model.double()
    absorber, active = torch.linspace(0.2, 0.5, 6).double(), torch.linspace(0.6, 0.3, 6).double()

    def value(a: Tensor, t: Tensor, energy: Tensor, theta: Tensor) -> Tensor:
        made = sample(surrogate, SamplingDesign("Pb", "lAr", a, t), energy, 3, theta=theta, smooth=True)
        return (made.e * (made.x.square() + made.y.square() + made.x)).sum()

    at = [x.requires_grad_() for x in (absorber, active, torch.tensor(10.0).double(), torch.tensor(20.0).double())]
    slopes = torch.autograd.grad(value(*at), at)
    assert all(bool((slope != 0).all()) for slope in slopes)
    for number, (x, slope) in enumerate(zip(at, slopes, strict=True)):
        direction = torch.linspace(1, -0.5, max(1, x.numel())).double().reshape(x.shape)
        step = 1e-6 * direction
        ends = [value(*(each + sign * step if k == number else each for k, each in enumerate(at))) for sign in (1, -1)]
        torch.testing.assert_close((slope * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-3, atol=1e-7)


def test_lengths_across_scale_with_the_moliere_radius() -> None:
    stack = SamplingDesign("Pb", "lAr", 0.3, 0.4, 6)
    lead, argon = stack.absorber, stack.active
    surrogate = tiny_plate_points()
    model, energy = surrogate.model, torch.tensor([10.0])
    assert isinstance(model, PlatesModel)
    conditions = model.condition(stack, energy)
    g = model.shower_location_scale.restore(torch.zeros(1, 5), conditions[:, : len(model.condition_mean)])
    known, shower = model.known_of(g, conditions, energy)
    layers = model.known_layers(known, shower, torch.zeros(1, 5), torch.full((1, 6, 2), 0.01), energy)
    losses = 0.3 * float(lead.minimum_ionisation) + 0.4 * float(argon.minimum_ionisation)
    torch.testing.assert_close(layers.moliere[0], torch.full((6,), SCALE_ENERGY * 0.7 / losses), rtol=1e-4, atol=0)
    expected = torch.full((6,), 0.4 * float(argon.minimum_ionisation))
    torch.testing.assert_close(layers.ionisation[0], expected, rtol=1e-5, atol=0)


def test_positions_across_the_line_are_those_of_the_detector_turned_and_stretched() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 40, generator=generator).double()
    theta, phi = torch.tensor([35.0, 10.0]).double(), torch.tensor([70.0, 200.0]).double()
    points = Points(x, y, torch.zeros(40).long(), torch.ones(40), torch.tensor([0, 15, 40]), torch.ones(2), 1)
    particles = Particles.of(2, "e-", (0.0, 0.0), theta, phi, like=x)
    seen = in_detector(points, particles)
    owner = points.owner
    back = across_line(seen.x, seen.y, theta[owner], phi[owner])
    torch.testing.assert_close(torch.stack(back), torch.stack([x, y]))
    # distance from the line of direction (sin cos, sin sin, cos) through the origin, of the point (x, y, 0)
    t, p = torch.deg2rad(theta)[owner], torch.deg2rad(phi)[owner]
    line = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], 1)
    place = torch.stack([seen.x, seen.y, torch.zeros_like(x)], 1)
    across = torch.linalg.cross(place, line).norm(dim=1)
    torch.testing.assert_close(across, (x.square() + y.square()).sqrt())


def test_numbers_of_points_say_where_they_are() -> None:
    x, y = torch.tensor([3.0, 0.0, -1.0, 0.0]), torch.tensor([0.0, 2.0, 0.0, -2.0])
    values, turn = point_numbers(x, y, torch.full((4,), 2e-3), torch.full((4,), 2.0), torch.full((4,), 1e-3))
    torch.testing.assert_close(values[:, 0].exp(), torch.tensor([1.5, 1.0, 0.5, 1.0]))
    torch.testing.assert_close(values[:, 1].exp(), torch.full((4,), 2.0))
    torch.testing.assert_close(turn[[1, 3]], torch.zeros(2), atol=1e-6, rtol=0)
    assert turn[0] < -4
    assert turn[2] > 4


def test_points_come_back_from_their_unit_normal_numbers() -> None:
    stage, generator = stage_of(tiny_plate_points()), torch.Generator().manual_seed(8)
    noise = torch.randn(40_000, 2, generator=generator)
    values = torch.stack([(noise[:, 0] / 2).sinh() - 1, -noise[:, 1].exp()], 1)
    stage.fit_first_table(values)
    assert float(stage.broadest) == pytest.approx(float(values[:, 0].max().exp()))
    even = stage.evened(values)
    place = torch.randint(3, (40_000,), generator=generator)
    tables = (0.3 + torch.tensor([[[1.5]], [[0.5]]]) * torch.linspace(-TAIL, TAIL, QUANTILES)).expand(2, 3, -1)
    standard = (even - 0.3) / torch.tensor([1.5, 0.5])
    for k in range(2):
        torch.testing.assert_close(to_normal(even[:, k], place, tables[k]).float(), standard[:, k])
    stage.fit_tables(standard)
    z = stage.normal(standard)
    for column in (even, z):
        torch.testing.assert_close(column.mean(0), torch.zeros(2), atol=0.02, rtol=0)
        torch.testing.assert_close(column.std(0), torch.ones(2), atol=0.03, rtol=0)
    torch.testing.assert_close(stage.restored(z.T, tables, place).T, values, rtol=1e-3, atol=2e-3)


def test_distances_know_the_energies_of_their_points() -> None:
    stage, generator = stage_of(tiny_plate_points()), torch.Generator().manual_seed(8)
    e = torch.randn(40_000, generator=generator)
    r = torch.randn(40_000, generator=generator) * (1 - 0.2 * e.tanh()) - 0.5 * e
    standard = torch.stack([r, e], 1)
    stage.fit_tables(standard)
    z_r, z_e = stage.normal(standard).T
    for k in range(-4, 5):  # bins of z_e between and about its values with tables
        own = z_r[(z_e - k / 2).abs() < 0.25]
        assert abs(float(own.mean())) < 0.1 + 3 / len(own) ** 0.5, k
        assert 0.85 < float(own.std()) < 1.15, k
    both = torch.stack([z_r, z_e]).double().requires_grad_()
    stage.double()
    straight = torch.linspace(-TAIL, TAIL, QUANTILES).double().expand(2, 1, -1)
    one = torch.zeros(len(z_e), dtype=torch.long)
    (slope,) = torch.autograd.grad(stage.restored(both, straight, one)[0].sum(), both)
    assert float(slope[1].mean()) == pytest.approx(-0.5, abs=0.1)
    assert bool((slope[0] > 0).all())


def test_features_come_back_from_their_numbers(surrogate: Surrogate) -> None:
    stage, generator, n, layers = stage_of(surrogate), torch.Generator().manual_seed(3), 50, 5
    count = torch.randint(0, 40, (n, layers), generator=generator).float()
    energy = 0.002 * count * (0.5 + torch.rand(n, layers, generator=generator))
    mean, core = torch.randn(2, n, layers, generator=generator) * (count > 1)
    features = Features(count, energy, mean, core, torch.randn(n, 2, generator=generator))
    ones = torch.ones(n, layers)
    known = KnownLayers(
        torch.zeros(n, stage.sizes.known), torch.zeros(n, layers, stage.sizes.features + 2), energy, 1e-4 * ones, ones,
        ones.bool(), ones[:, 0],
    )  # fmt: skip
    leads, numbers = stage.encode(features, known, RandomNumbers(4, range(n)))
    assert leads.shape == (n, LEADS)
    ratio = energy / stage.units(known) + 1
    again = decode_count(numbers[:, 0].exp(), ratio, False, None)
    filled = count > 0
    assert torch.equal(again[filled], count[filled])
    m, d = decode_means(numbers[:, 1:], count)
    torch.testing.assert_close(m[count > 1], mean[count > 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(d[count > 1], core[count > 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(leads[:, 3], features.centre[:, 0])
    mirrored = leads[:, 4] / features.centre[:, 1]
    assert set(mirrored.round().tolist()) == {-1.0, 1.0}


def test_weights_without_points_load_and_have_to_be_asked_for_layers(tmp_path: Path) -> None:
    old = tiny_plates()
    names = {name for name in SMALL.to_dict() if name == "points" or name.startswith(("feature_", "point_"))}
    assert len(names) == 8
    card = old.card.model_copy(update={"architecture": {k: v for k, v in SMALL.to_dict().items() if k not in names}})
    assert PlatesArchitecture(**card.architecture) == SMALL
    Surrogate(old.model, card).save(tmp_path / "old")
    loaded = Surrogate.load(tmp_path / "old")
    with pytest.raises(InputError, match="generates layers_only samples alone"):
        sample(loaded)
    with pytest.raises(InputError, match="has no smooth samples"):
        sample(loaded, layers_only=True, smooth=True)
    assert sample(loaded, layers_only=True).layer_energies().shape == (5, 6)


def test_the_table_of_a_notebook_says_whether_there_are_points(surrogate: Surrogate) -> None:
    assert "in the active plates" in surrogate._repr_html_()
    assert "energies of plates alone" in tiny_plates()._repr_html_()


def test_the_simulation_that_is_timed_beside_points_records_them(surrogate: Surrogate) -> None:
    recorded = [simulation(each, 5.0, seed=0).detector for each in (surrogate, tiny_plates())]
    assert [stack.record for stack in recorded if isinstance(stack, SamplingStack)] == ["points", "energies"]


def test_showers_of_several_batches_keep_the_energies_of_their_absorbers(surrogate: Surrogate) -> None:
    n = surrogate.model.batch_size + 30
    energy = torch.linspace(1, 20, n)
    made, layers = sample(surrogate, energy=energy, n=n), sample(surrogate, energy=energy, n=n, layers_only=True)
    assert torch.equal(made.absorbed_energies(), layers.absorbed_energies())
    chosen = torch.tensor([n - 1, 3, 70])
    assert torch.equal(made[chosen].absorbed_energies(), layers.absorbed_energies()[chosen])
    stacks, incident = draw_stacks(LAW, n, seed=2), Incidence.of(n, ["e-"] * n)
    files = [
        generate(surrogate, energy.numpy(), stacks=stacks, incident=incident, seed=3, layers_only=only)
        for only in (False, True)
    ]
    assert all(isinstance(file, PlateShowers) for file in files)
    np.testing.assert_allclose(*(file.energies() for file in files), rtol=1e-5, atol=1e-9)  # type: ignore[union-attr]


def test_far_points_are_moved_and_near_ones_are_not() -> None:
    surrogate = tiny_plate_points()
    before = sample(surrogate, n=20)
    stage_of(surrogate).farther[0] = 0.3
    after = sample(surrogate, n=20)
    assert torch.equal(before.e, after.e)
    with torch.no_grad():
        stage_of(surrogate).farther.zero_()
    ratio = after.x.hypot(after.y) / before.x.hypot(before.y)
    assert 0.05 < float((ratio > 1.001).float().mean()) < 0.5
    assert float(ratio.median()) == pytest.approx(1, abs=0.02)


def test_a_saved_surrogate_generates_the_same_points(surrogate: Surrogate, tmp_path: Path) -> None:
    surrogate.save(tmp_path / "saved")
    one, other = sample(surrogate), sample(Surrogate.load(tmp_path / "saved"))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.e, other.e)


def test_a_file_holds_points_as_deposits_in_their_plates(surrogate: Surrogate, tmp_path: Path) -> None:
    stacks, energy = draw_stacks(LAW, 12, seed=2), np.linspace(1, 60, 12).astype(np.float32)
    incident = Incidence.of(12, ["gamma", "e-"] * 6, position=(0.3, -0.2), theta=np.linspace(0, 40, 12),
                            phi=np.linspace(0, 300, 12))  # fmt: skip
    seed = RandomNumbers.from_generator(torch.Generator().manual_seed(5), 1).seed
    made = generate(surrogate, energy, stacks=stacks, incident=incident, seed=seed)
    made.write(tmp_path / "made.h5")
    with open_plates(tmp_path / "made.h5", deposits=True) as library:
        assert library.provenance.points
        read = library.read()
        clouds = cluster_plates(library, "crossings")
    deposits = read.deposits
    assert deposits is not None
    assert deposits.t is None
    x, y, layer = read.points_of(deposits)
    assert set(layer.tolist()) == set(range(int(stacks.layers.max())))
    active = np.zeros((12, int(stacks.layers.max())))
    np.add.at(active, (deposits.owner, layer), deposits.e)
    np.testing.assert_allclose(active, read.energies()[..., 2], rtol=1e-5, atol=1e-9)
    z = read.middles()[read.offsets[deposits.owner] + layer]
    np.testing.assert_allclose(deposits.z, z, rtol=1e-6)
    for rows, stack in SamplingDesign.batches(stacks):
        alone = surrogate.sample(
            stack, torch.from_numpy(energy[rows]), len(rows), particle=incident.particle[rows],
            position=incident.position[rows], theta=incident.theta[rows], phi=incident.phi[rows], shower=rows,
            generator=torch.Generator().manual_seed(5),
        )  # fmt: skip
        of_rows = np.concatenate([np.flatnonzero(deposits.owner == row) for row in rows])
        assert alone.layer.tolist() == layer[of_rows].tolist()
        for found, expected in ((x, alone.x), (y, alone.y), (deposits.e, alone.e)):
            np.testing.assert_allclose(found[of_rows], expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(clouds.totals, made.visible, rtol=1e-5)
    assert clouds.n_layers is not None
    assert clouds.n_layers.tolist() == stacks.layers.tolist()
    assert clouds.origin == "tiny-plate-points"
    assert len(clouds.e) <= len(deposits.e)
    with open_plates(tmp_path / "made.h5") as library:
        assert library.read().deposits is None
