from __future__ import annotations

import torch

from calograd.nn.flows import AutoregressiveFlow


def triangle() -> AutoregressiveFlow:
    torch.manual_seed(0)
    return AutoregressiveFlow(4, 2, 8)


def test_numbers_come_back() -> None:
    model, conditions = triangle(), torch.randn(50, 2)
    numbers = torch.randn(50, 4)
    u = model.standardise(numbers, conditions)
    torch.testing.assert_close(model.restore(u, conditions), numbers, atol=1e-5, rtol=1e-5)


def test_a_number_depends_on_those_before_it_alone() -> None:
    model, conditions = triangle(), torch.randn(1, 2)
    jacobian = torch.autograd.functional.jacobian(lambda u: model.restore(u[None], conditions)[0], torch.randn(4))
    assert torch.equal(jacobian, jacobian.tril())
    assert bool((jacobian.abs() > 1e-6)[torch.tril_indices(4, 4).unbind()].all())


def test_every_number_depends_on_the_conditions() -> None:
    model, u = triangle(), torch.randn(1, 4)
    jacobian = torch.autograd.functional.jacobian(lambda c: model.restore(u, c[None])[0], torch.randn(2))
    assert bool((jacobian.abs() > 1e-6).all())


def test_likelihood_learns_location_and_scale() -> None:
    model, generator = triangle(), torch.Generator().manual_seed(1)
    conditions = torch.randn(2000, 2, generator=generator)
    first = conditions[:, :1] + 0.3 * torch.randn(2000, 1, generator=generator)
    numbers = torch.cat([first, 2 * first + 0.1 * torch.randn(2000, 1, generator=generator), first, first], dim=1)
    numbers[:, 2:] += torch.randn(2000, 2, generator=generator)
    model.start_from(numbers.mean(0), numbers.std(0))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        loss = model.negative_log_likelihood(numbers, conditions)[0].mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
    u = model.standardise(numbers, conditions).detach()
    correlations = torch.corrcoef(torch.cat([u, conditions], dim=1).T)
    assert float((correlations - torch.eye(6)).abs().max()) < 0.15
