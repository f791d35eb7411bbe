from __future__ import annotations

import pytest
import torch
from helpers.tiny_clouds import tiny_clouds
from torch import Tensor
from torch.autograd import forward_ad

from calograd.events.points import Points
from calograd.nn.linear import has_derivatives
from calograd.surrogate import Surrogate
from calograd.surrogate.model import Generates, Options
from calograd.surrogate.points.fused import FusedPoints
from calograd.surrogate.points.model import PointsModel
from calograd.system.random_numbers import RandomNumbers


def student() -> Surrogate:
    """Distilled, with every number that is fused away from its first value."""
    surrogate, g = tiny_clouds(sampler="consistency", steps=1, shower_steps=1), torch.Generator().manual_seed(7)
    model = surrogate.model
    assert isinstance(model, PointsModel)

    def some(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=g)

    correction = model.shower_correction
    for values in (model.local_mean, correction.weight, correction.bias, model.shower_normal.back):
        values.add_(some(values), alpha=0.1)
    model.local_scale.copy_(1 + 0.5 * some(model.local_scale).abs())
    model.more_points.copy_(torch.tensor([0.02, -0.03]))
    for tables in (model.shower_leads.tables, model.shower_normal.numbers, model.shower_normal.directions):
        tables.table.add_(0.3 * some(tables.table[:, :1]) + 0.1 * tables.table.sin())
    model.least.fill_(-2.5)
    model.largest.fill_(2.5)
    return surrogate


def made(each: Generates, model: PointsModel, energy: Tensor, smooth: bool = False, steps: int | None = None) -> Points:
    conditions, random = (
        model.conditions(energy),
        RandomNumbers.from_generator(torch.Generator().manual_seed(3), len(energy)),
    )
    schedule = model.sampling_schedule(steps=steps)._replace(options=Options(smooth=smooth))
    result: Points = each.generate(conditions, energy, schedule, random)
    return result


def same(a: Points, b: Points) -> None:
    assert torch.equal(a.offsets, b.offsets)
    assert torch.equal(a.layer, b.layer)
    for name in ("x", "y", "e"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("n", [1, 20])
def test_it_makes_the_showers_of_the_model(n: int, smooth: bool) -> None:
    model, energy = student().model, torch.linspace(30, 90, n)
    showers = [made(each, model, energy, smooth) for each in (model, FusedPoints(model))]
    same(*showers)
    assert len(showers[0].e) > 100 * n


def test_every_number_of_the_model_is_in_it() -> None:
    """Changing any weight or buffer changes fused showers as those of the model."""
    model, energy, changed = student().model, torch.full((4,), 50.0), 0
    before = made(FusedPoints(model), model, energy)
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if not values.is_floating_point():
            continue
        kept = values.clone()
        with torch.no_grad():
            values.mul_(1.02).add_(0.01)
        fused, theirs = (made(each, model, energy, smooth=True) for each in (FusedPoints(model), model))
        torch.testing.assert_close(fused.layer_energies(), theirs.layer_energies(), rtol=1e-3, atol=1e-6, msg=name)
        torch.testing.assert_close(fused.x, theirs.x, rtol=1e-2, atol=1e-3, msg=name)
        changed += int(not (len(fused.x) == len(before.x) and torch.equal(fused.x, before.x)))
        with torch.no_grad():
            values.copy_(kept)
    assert changed > 30
    assert torch.equal(made(FusedPoints(model), model, energy).e, before.e)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, when it loads their rules
def test_samples_without_derivatives_are_fused_and_with_them_are_not() -> None:
    surrogate = student()
    plain = surrogate.sample(50.0, 3, generator=torch.Generator().manual_seed(0), smooth=True)
    energy = torch.tensor(50.0, requires_grad=True)
    derived = surrogate.sample(energy, 3, generator=torch.Generator().manual_seed(0), smooth=True)
    same(plain, derived)
    assert derived.e.requires_grad
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(50.0), torch.tensor(1.0))
        assert has_derivatives([dual])
    assert not has_derivatives([torch.tensor(50.0)])


@pytest.mark.parametrize("changes", [{}, {"sampler": "consistency", "steps": 1, "shower_steps": 1}])
def test_samples_can_be_used_in_derivatives_and_after_them(changes: dict[str, object]) -> None:
    surrogate = tiny_clouds(**changes)
    points = surrogate.sample(50.0, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.ones(len(points.e), requires_grad=True)
    (gradient,) = torch.autograd.grad((weight * points.e).sum(), weight)
    assert torch.equal(gradient, points.e)
    assert not any(t.is_inference() for t in (points.x, points.y, points.layer, points.e, points.offsets))
    energy = torch.tensor(50.0, requires_grad=True)
    derived = surrogate.sample(energy, 2, generator=torch.Generator().manual_seed(0), smooth=True)
    assert bool(torch.isfinite(torch.autograd.grad(derived.e.sum(), energy)[0]))


def test_it_follows_weights_that_change_and_models_that_are_moved() -> None:
    surrogate = student()

    def drawn() -> Points:
        return surrogate.sample(50.0, 5, generator=torch.Generator().manual_seed(3))

    def wanted() -> Points:
        energy = torch.full((5,), 50.0).to(surrogate.model.condition_mean)
        return made(surrogate.model, surrogate.model, energy)

    same(drawn(), wanted())
    before = drawn()
    surrogate.model.shower_correction.bias.add_(0.3)
    assert float((drawn().layer_energies() - before.layer_energies()).abs().max()) > 1e-4
    same(drawn(), wanted())
    surrogate.model.double()
    assert drawn().e.dtype == torch.float64
    same(drawn(), wanted())


def test_more_steps_are_those_of_the_model() -> None:
    model = student().model
    same(*(made(each, model, torch.tensor([50.0]), steps=2) for each in (model, FusedPoints(model))))


def test_what_cannot_be_fused_is_left_alone() -> None:
    model = tiny_clouds().model
    assert model.fused() is model
