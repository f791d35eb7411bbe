from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual

from calograd.nn.linear import MIN_ROWS, linear, product


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


@pytest.mark.parametrize("rows", [1, MIN_ROWS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_those_of_the_layer(rows: int, dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(20, 30, bias=bias).to(dtype), torch.randn(rows, 20, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(product(x, layer.weight, layer.bias), layer(x), rtol=1e-5, atol=1e-6)


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


def test_gradients_through_frozen_weights_are_those_of_the_plain_layer() -> None:
    torch.manual_seed(1)
    layer = nn.Linear(40, 30).requires_grad_(False)
    x = torch.randn(MIN_ROWS, 40, requires_grad=True)

    def gradients(product: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        (first,) = torch.autograd.grad(product(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(3).sum(), x)
        return first, second

    for ours, plain in zip(gradients(lambda v: linear(layer, v)), gradients(layer), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4 * float(plain.detach().abs().max()))


def test_function_transforms_pass() -> None:
    layer = nn.Linear(4, 3).requires_grad_(False)
    x = torch.randn(MIN_ROWS, 4)
    gradient = torch.func.grad(lambda v: linear(layer, v).sum())(x)
    torch.testing.assert_close(gradient, layer.weight.sum(0).expand_as(x))
    batched = torch.func.vmap(lambda v: linear(layer, v))(x.expand(5, -1, -1))
    torch.testing.assert_close(batched[0], layer(x))
