"""Fast functions of single numbers: equal to PyTorch's own, in small and in large tensors."""

from __future__ import annotations

import pytest
import torch

from calograd.nn.elementwise import FEW, exp, tanh_


@pytest.mark.parametrize("size", [FEW // 2, 4 * FEW])
def test_they_are_those_of_pytorch(size: int) -> None:
    x = torch.linspace(-20, 20, size)
    assert torch.allclose(exp(x), x.double().exp().float(), rtol=3e-6, atol=0)
    assert torch.allclose(tanh_(x.clone()), x.double().tanh().float(), rtol=0, atol=4e-7)


def test_exp_has_its_derivative() -> None:
    x = torch.linspace(-2, 2, 2 * FEW, requires_grad=True)
    exp(x).sum().backward()
    assert torch.allclose(x.grad, x.detach().exp(), rtol=1e-6)
