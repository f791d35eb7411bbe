from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from calograd.networks.linear import MIN_ROWS, linear


@pytest.mark.parametrize("rows", [1, MIN_ROWS, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_products_agree_to_rounding(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(135, 576).to(dtype)
    x = torch.randn(rows, 135, dtype=dtype)
    recorded = linear(layer, x)
    with torch.no_grad():
        plain = linear(layer, x)
    torch.testing.assert_close(plain, recorded.detach(), rtol=1e-5, atol=1e-5)


def test_gradients_pass_where_they_are_recorded() -> None:
    layer = nn.Linear(4, 3)
    x = torch.randn(MIN_ROWS, 4, requires_grad=True)
    linear(layer, x).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand_as(x))


def test_autocast_is_respected() -> None:
    layer, x = nn.Linear(4, 3), torch.randn(MIN_ROWS, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear(layer, x).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, when it loads their rules
def test_forward_derivatives_pass_where_backward_ones_are_switched_off() -> None:
    layer, x, v = nn.Linear(4, 3), torch.randn(MIN_ROWS, 4), torch.randn(MIN_ROWS, 4)
    with torch.no_grad(), dual_level():
        tangent = unpack_dual(linear(layer, make_dual(x, v))).tangent
    assert tangent is not None
    torch.testing.assert_close(tangent, v @ layer.weight.detach().T)
