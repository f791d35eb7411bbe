from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.tiny import tiny_surrogate
from helpers.tiny_clouds import tiny_clouds
from torch import Tensor

from calograd.detector.configuration import SiWStack
from calograd.detector.design import Design
from calograd.errors import FormatError, InputError, RangeError
from calograd.events.points import Points
from calograd.surrogate import Surrogate, TrainedDetector
from calograd.surrogate.generation import generate
from calograd.surrogate.model import Options
from calograd.surrogate.points.features import to_normal
from calograd.surrogate.points.model import PointsModel, local_features
from calograd.surrogate.storage import WEIGHTS
from calograd.system.random_numbers import RandomNumbers

NO_OPTIONS = Options()


def showers(surrogate: Surrogate, n: int = 20, seed: int = 0) -> Points:
    return surrogate.sample(torch.linspace(10, 90, n), n, generator=torch.Generator().manual_seed(seed))


def random(seed: int, n: int = 20) -> RandomNumbers:
    return RandomNumbers(seed, range(n))


def made(model: PointsModel, energy: Tensor, options: Options = NO_OPTIONS) -> Points:
    """Showers of seed 0."""
    schedule = model.sampling_schedule()._replace(options=options)
    return model.generate(model.conditions(energy), energy, schedule, random(0, len(energy)))


@pytest.mark.parametrize("changes", [{}, {"sampler": "consistency", "steps": 1, "shower_steps": 1}])
def test_points_have_what_their_shower_was_given(changes: dict[str, object]) -> None:
    surrogate, energy = tiny_clouds(**changes), torch.linspace(10, 90, 20)
    model = surrogate.model
    features = model.generate_features(model.conditions(energy), energy, random(0))
    points = model.fill(features, energy, model.sampling_schedule(), random(1))
    count = torch.bincount(points.owner * 6 + points.layer, minlength=120).reshape(20, 6)
    torch.testing.assert_close(count.float(), features.count)
    torch.testing.assert_close(points.layer_energies(), features.energy)
    visible = features.energy.sum(1)
    for place, number in ((points.x, 0), (points.y, 1)):
        centre = torch.zeros(20).index_add(0, points.owner, points.e * place) / visible
        torch.testing.assert_close(centre, features.centre[:, number], atol=1e-5, rtol=1e-4)


def test_the_centre_is_moved_by_far_points_alone() -> None:
    surrogate, energy = tiny_clouds(), torch.linspace(10, 90, 5)
    model = surrogate.model
    features = model.generate_features(model.conditions(energy), energy, random(0, 5))
    points = model.fill(features, energy, model.sampling_schedule(), random(1, 5))
    still = replace(features, centre=torch.zeros_like(features.centre))
    free = model.fill(still, energy, model.sampling_schedule(), random(1, 5))
    moved, r = points.x - free.x, torch.hypot(free.x, free.y)
    near = r < 0.1
    assert float(moved[near].abs().max()) < 0.1 * float(moved.abs().max())
    assert float(moved[~near].abs().max()) > 0
    assert bool(near.any())


def test_equal_seeds_give_equal_showers_and_batches_do_not_matter() -> None:
    surrogate = tiny_clouds()
    a, b = showers(surrogate), showers(surrogate)
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x[:50], showers(surrogate, seed=1).x[:50])
    assert bool((a.e > 0).all())
    assert bool(torch.isfinite(torch.stack([a.x, a.y, a.e])).all())
    assert bool((a.layer.diff() >= 0)[a.owner.diff() == 0].all())


def test_noise_levels_of_groups_do_not_mix() -> None:
    model = tiny_clouds().model
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    context = torch.randn(3, 15, generator=torch.Generator().manual_seed(0))
    group = torch.tensor([0, 0, 1, 2, 2, 2])
    loss = model.point_loss(z, context, group, RandomNumbers(5, range(6)))
    assert loss.shape == (6,)
    assert bool(torch.isfinite(loss).all())


@pytest.mark.parametrize("changes", [{}, {"sampler": "consistency", "steps": 1, "shower_steps": 1}])
def test_the_smooth_path_has_the_gradient_of_finite_differences(changes: dict[str, object]) -> None:
    surrogate = tiny_clouds(**changes)
    model = surrogate.model.double()

    def observed(energy: Tensor) -> Tensor:
        points = made(model, energy, Options(smooth=True))
        cells = points.to_cells(n_xy=8, kernel="gaussian", width=0.2)
        soft = torch.sigmoid((cells - 1e-2) / 5e-3).sum()
        return torch.stack([points.e.sum(), (points.e * points.x**2).sum(), soft])

    energy = torch.tensor([31.0, 57.0]).double().requires_grad_(True)
    rows = [torch.autograd.grad(observed(energy)[k], energy)[0] for k in range(3)]
    step = 1e-5
    with torch.no_grad():
        for column in range(2):
            shift = torch.zeros(2).double()
            shift[column] = step
            slope = (observed(energy + shift) - observed(energy - shift)) / (2 * step)
            ours = torch.stack([row[column] for row in rows])
            torch.testing.assert_close(ours, slope, rtol=1e-4, atol=1e-9)
    assert float(rows[0].min()) > 0


def test_a_distilled_shower_takes_one_evaluation_of_each_network() -> None:
    surrogate, calls = tiny_clouds(sampler="consistency", steps=1, shower_steps=1), []
    for network in (surrogate.model.shower_network, surrogate.model.point_network):
        network.register_forward_hook(lambda module, *_: calls.append(module))
    made(surrogate.model, torch.full((3,), 50.0))
    assert calls == [surrogate.model.shower_network, surrogate.model.point_network]


def test_energies_outside_the_trained_range_are_refused() -> None:
    surrogate = tiny_clouds()
    with pytest.raises(RangeError, match="9 GeV is outside 10 to 90"):
        surrogate.sample(9.0, 2)
    with pytest.raises(RangeError, match="95 GeV"):
        surrogate.sample(torch.tensor([20.0, 95.0]), 2)
    with pytest.warns(UserWarning, match="extrapolates"):
        surrogate.sample(95.0, 1, extrapolate=True)
    for bad in (-1.0, float("nan")):
        with pytest.raises(InputError, match="positive"):
            surrogate.sample(bad, 1, extrapolate=True)
    with pytest.raises(InputError, match="shape"):
        surrogate.sample(torch.tensor([20.0, 30.0]), 3)


def test_it_is_stored_and_comes_back(tmp_path: Path) -> None:
    surrogate = tiny_clouds()
    surrogate.save(tmp_path / "points")
    loaded = Surrogate.load(tmp_path / "points")
    assert loaded.card == surrogate.card
    assert torch.equal(showers(loaded).x, showers(surrogate).x)
    with pytest.raises(InputError, match="expected a surrogate of cells"):
        _ = loaded.design_model
    with pytest.raises(InputError, match="generates cells of designs; expected a surrogate of one detector"):
        _ = tiny_surrogate().card.detector


def test_it_takes_no_design_or_its_own() -> None:
    surrogate = tiny_clouds()
    seeded = [torch.Generator().manual_seed(0) for _ in range(4)]
    wanted = surrogate.sample(50.0, 2, generator=seeded[0])
    assert torch.equal(surrogate.sample(None, 50.0, 2, generator=seeded[1]).x, wanted.x)
    assert torch.equal(surrogate.sample(energy=50.0, n=2, generator=seeded[2]).x, wanted.x)
    own = SiWStack()
    surrogate.card = surrogate.card.model_copy(
        update={"trained": TrainedDetector(detector=own.model_dump(mode="json"), clustering="crossings")}
    )
    assert torch.equal(surrogate.sample(own, 50.0, 2, generator=seeded[3]).x, wanted.x)
    for other in (Design(2.5, 6.0), SiWStack(gap=0.2)):
        with pytest.raises(InputError, match=r"generates showers in one detector \(siw\) and takes no other design"):
            surrogate.sample(other, 50.0, 2)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    tiny_clouds().save(tmp_path / "cloud")
    path = tmp_path / "cloud" / WEIGHTS
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FormatError, match="cloud"):
        Surrogate.load(tmp_path / "cloud")


def test_samplers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="not distilled"):
        tiny_clouds().sample(50.0, 1, sampler="consistency")
    distilled = tiny_clouds(sampler="consistency", steps=1, shower_steps=1)
    assert distilled.model.sampling_schedule().evaluations == 1
    assert distilled.model.sampling_schedule(steps=4).evaluations == 4
    with pytest.raises(InputError, match="its samplers are consistency"):
        distilled.sample(50.0, 1, sampler="heun")
    assert len(distilled.sample(50.0, 3)) == 3
    assert tiny_clouds(sampler="heun", steps=13).model.sampling_schedule().evaluations == 25
    first = tiny_clouds(schedule="linear", preconditioning="noise", sampler="ddpm", steps=100)
    assert first.model.sampling_schedule().evaluations == 100


def test_a_file_of_showers_says_how_it_was_made() -> None:
    energy = torch.linspace(10, 90, 70).numpy()
    with pytest.raises(InputError, match="tiny-cloud takes energies alone, it is of one detector"):
        generate(tiny_clouds(), energy, energy, energy[:, None])
    with pytest.raises(InputError, match="tiny takes a pitch and depths for every row"):
        generate(tiny_surrogate(), energy)
    showers = generate(tiny_clouds(), energy, seed=3)
    again = generate(tiny_clouds(), energy, seed=3)
    assert (showers.x == again.x).all()
    assert len(showers) == 70
    assert showers.origin == "tiny-cloud"
    assert showers.config["seed"] == 3
    assert (showers.config["sampler"], showers.config["steps"]) == ("trigflow-ab2", 3)


def test_features_at_the_ends_have_no_neighbour_beyond() -> None:
    model = tiny_clouds().model
    features = model.generate_features(model.conditions(torch.tensor([50.0])), torch.tensor([50.0]), random(0, 1))
    local = local_features(features, torch.tensor([50.0]), model.unit)
    assert float(local[0, 0, 2]) == 0
    assert float(local[0, -1, 3]) == 0
    torch.testing.assert_close(local[0, 1:, 2], local[0, :-1, 1])


def test_values_of_the_tables_are_found_again() -> None:
    model = tiny_clouds().model
    values = torch.tensor([-2.0, -1.0, 0.5])
    z = to_normal(values, torch.tensor([0, 3, 5]), model.distance_table)
    torch.testing.assert_close(z, (values + 1) / 0.8, atol=1e-4, rtol=1e-4)


def test_generated_points_have_the_particle_that_was_learnt() -> None:
    surrogate = Surrogate.load("siw-cloud-cm")
    showers = generate(surrogate, torch.tensor([20.0, 50.0]).numpy(), seed=0)
    assert showers.pdg is not None
    assert showers.theta is not None
    assert (showers.pdg.tolist(), showers.theta.tolist()) == ([22, 22], [0, 0])
