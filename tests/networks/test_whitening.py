from __future__ import annotations

import pytest
import torch

from calograd.networks.whitening import LEAST, Whitening

MIXED = torch.randn(6, 6, generator=torch.Generator().manual_seed(3)) + 3 * torch.eye(6)


def test_it_begins_as_the_identity() -> None:
    x = torch.randn(4, 6)
    assert torch.equal(Whitening(6).whiten(x), x)
    assert torch.equal(Whitening(6).restore(x), x)


def test_whitened_vectors_have_unit_covariance_and_come_back() -> None:
    f = torch.randn(5000, 6, generator=torch.Generator().manual_seed(0)) @ MIXED + 5.0
    whitening = Whitening(6)
    whitening.fit(f)
    x = whitening.whiten(f)
    assert torch.allclose(x.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(x.T @ x / len(x), torch.eye(6), atol=1e-3)
    assert torch.allclose(whitening.restore(x), f, atol=1e-3)
    assert torch.allclose(whitening.forth, whitening.forth.T, atol=1e-6)


def test_what_does_not_vary_is_not_blown_up() -> None:
    f = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))  # three vectors span two directions
    whitening = Whitening(6)
    whitening.fit(f)
    assert float(torch.linalg.eigvalsh(whitening.forth).max()) == pytest.approx(LEAST**-0.5, rel=1e-3)
    assert torch.allclose(whitening.restore(whitening.whiten(f)), f, atol=1e-4)
