from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from helpers.tiny_clouds import tiny_clouds
from torch.autograd import forward_ad

from calograd.events.points import Points
from calograd.surrogate import CloudSurrogate
from calograd.surrogate.points.fused import FoldedCloud, fold_clouds
from calograd.surrogate.points.model import CloudModel


def student() -> CloudSurrogate:
    """Distilled, with every number that is folded away from its first value."""
    surrogate, g = tiny_clouds(sampler="consistency", steps=1, shower_steps=1), torch.Generator().manual_seed(7)
    model = surrogate.model
    assert isinstance(model, CloudModel)

    def some(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=g)

    for values in (model.local_mean, model.shower_mend.weight, model.shower_mend.bias, model.shower_normal.back):
        values.add_(some(values), alpha=0.1)
    model.local_scale.copy_(1 + 0.5 * some(model.local_scale).abs())
    model.more_points.copy_(torch.tensor([0.02, -0.03]))
    for tables in (model.shower_leads.tables, model.shower_normal.numbers, model.shower_normal.directions):
        tables.table.add_(0.3 * some(tables.table[:, :1]) + 0.1 * tables.table.sin())
    model.least.fill_(-2.5)
    model.largest.fill_(2.5)
    return surrogate


def same(a: Points, b: Points) -> None:
    assert torch.equal(a.offsets, b.offsets)
    assert torch.equal(a.layer, b.layer)
    for name in ("x", "y", "e"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("n", [1, 20])
def test_it_makes_the_showers_of_the_model(n: int, smooth: bool) -> None:
    model, energy = student().model, torch.linspace(30, 90, n)
    made = [
        each.generate(energy, torch.Generator().manual_seed(3), smooth=smooth) for each in (model, FoldedCloud(model))
    ]
    same(*made)
    assert len(made[0].e) > 100 * n


def test_every_number_of_the_model_is_in_it() -> None:
    """Changing any weight or buffer changes the showers of the folded model as those of the model."""
    model, energy = student().model, torch.full((4,), 50.0)
    untouched = {"point_network.embed.0.weight", "shower_normal.forth"}  # the first only where layers are standardised
    before = FoldedCloud(model).generate_features(energy, torch.Generator().manual_seed(3))
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        if not values.is_floating_point() or name in untouched:
            continue
        kept = values.clone()
        with torch.no_grad():
            values.mul_(1.02).add_(0.01)
        ours, theirs = (
            each.generate_features(energy, torch.Generator().manual_seed(3)) for each in (FoldedCloud(model), model)
        )
        torch.testing.assert_close(ours.energy, theirs.energy, rtol=1e-3, atol=1e-7, msg=name)
        torch.testing.assert_close(ours.mean, theirs.mean, rtol=1e-3, atol=1e-4, msg=name)
        with torch.no_grad():
            values.copy_(kept)
    after = FoldedCloud(model).generate_features(energy, torch.Generator().manual_seed(3))
    assert torch.equal(before.energy, after.energy)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, when it loads their rules
def test_samples_without_derivatives_are_folded_and_with_them_are_not() -> None:
    surrogate = student()
    plain = surrogate.sample(50.0, 3, generator=torch.Generator().manual_seed(0), smooth=True)
    energy = torch.tensor(50.0, requires_grad=True)
    derived = surrogate.sample(energy, 3, generator=torch.Generator().manual_seed(0), smooth=True)
    same(plain, derived)
    assert derived.e.requires_grad
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(50.0), torch.tensor(1.0))
        assert surrogate._folding.derived(dual)


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

    def made() -> Points:
        return surrogate.sample(50.0, 5, generator=torch.Generator().manual_seed(0))

    def wanted() -> Points:
        energy = torch.full((5,), 50.0).to(surrogate.model.unit)
        return surrogate.model.generate(energy, torch.Generator().manual_seed(0))

    same(made(), wanted())
    before = made()
    surrogate.model.shower_mend.bias.add_(0.3)
    assert float((made().layer_energies() - before.layer_energies()).abs().max()) > 1e-4
    same(made(), wanted())
    surrogate.model.double()
    assert made().e.dtype == torch.float64
    same(made(), wanted())


def test_more_steps_are_those_of_the_model() -> None:
    model = student().model
    made = [
        each.generate(torch.tensor([50.0]), torch.Generator().manual_seed(3), steps=2)
        for each in (model, FoldedCloud(model))
    ]
    same(*made)


def test_what_cannot_be_folded_is_left_alone() -> None:
    model = tiny_clouds().model
    assert fold_clouds(model) is model


def test_linears_are_the_network_of_one_number() -> None:
    leads = student().model.shower_leads
    u, known = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), torch.ones(5, 1)
    for one in (0, 2, 5):
        h = torch.cat([known, u], dim=1)
        *hidden, last = leads.linears(one)
        for weight, bias in hidden:
            h = torch.nn.functional.silu(h @ weight.T + bias)
        location, log_scale = (h @ last[0].T + last[1]).unbind(1)
        numbers = location + 2 * (log_scale.exp() + 2e-3) * torch.sinh(u[:, one] / 2)
        torch.testing.assert_close(leads.restore(u, known, slice(one, one + 1))[:, 0], numbers)
        torch.testing.assert_close(leads.restore(u, known)[:, one], numbers)
    assert all(a[0].shape[0] == b[0].shape[1] for a, b in pairwise(leads.linears(0)))
