from __future__ import annotations

import torch
from scipy.stats import kstest

from calograd.nn.flows import LEAST, Gaussianise

MIXED = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) + 3 * torch.eye(6)


def skewed(n: int, seed: int) -> torch.Tensor:
    """Correlated and far from normal."""
    return (torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)) @ MIXED / 4).exp()


def test_it_begins_as_the_identity() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(Gaussianise(6)(x), x, atol=1e-5)
    assert torch.allclose(Gaussianise(6).inverse(x), x, atol=1e-5)


def test_vectors_become_unit_normal_and_come_back() -> None:
    found = Gaussianise(6)
    known, f = skewed(20000, 0), skewed(4000, 1)
    found.fit(known)
    x = found(f)
    assert torch.allclose(x.T @ x / len(x), torch.eye(6), atol=0.07)
    assert all(kstest(column, "norm").pvalue > 1e-4 for column in x.T.numpy())
    assert kstest(((f - f.mean(0)) / f.std(0))[:, 0].numpy(), "norm").pvalue < 1e-4
    inside = torch.maximum(found(known).abs(), found.numbers(known).abs()).amax(1) < 3
    assert torch.allclose(found.inverse(found(known))[inside], known[inside], rtol=1e-3, atol=1e-3)
    assert bool((found.inverse(100 * x) <= known.amax(0) + 1e-2).all())  # nothing beyond what it was fitted to


def test_gradients_pass_through_both_ways() -> None:
    found = Gaussianise(6)
    found.fit(skewed(5000, 0))
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(4), requires_grad=True)
    found(found.inverse(x)).sum().backward()
    assert torch.allclose(x.grad, torch.ones_like(x), atol=2e-3)


def test_what_does_not_vary_is_not_blown_up() -> None:
    f = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))  # three vectors span two directions
    found = Gaussianise(6)
    found.fit(f)
    assert float(torch.linalg.svdvals(found.forth).max()) <= 1.001 * LEAST**-0.5
    assert torch.isfinite(found(f)).all()
