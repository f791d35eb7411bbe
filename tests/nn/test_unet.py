from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from calograd.nn.unet import ResidualBlock, UNet
from calograd.system.random_numbers import RandomNumbers

SIZE = 8


def make(seed: int = 0, **sizes: Any) -> UNet:
    """A network with all weights random, also those that begin at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(SIZE, 3, 2, **({"width": 8, "multipliers": (1, 2), "embedding": 16} | sizes))
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    return network.requires_grad_(False)


def given(n: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, noise, conditions and context of n samples."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((n, SIZE, SIZE), (n,), (n, 3), (n, 2))
    x, noise, conditions, context = (torch.randn(shape, generator=g, dtype=dtype) for shape in shapes)
    return x, noise, conditions, context


@pytest.mark.parametrize(
    "sizes", [{}, {"blocks": 2}, {"multipliers": (1,)}, {"multipliers": (1, 2, 3, 4)}, {"patch": 2}]
)
def test_every_sample_is_alone(sizes: dict[str, Any]) -> None:
    network, inputs = make(**sizes), given(5)
    whole = network(*inputs)
    assert whole.shape == (5, SIZE, SIZE)
    one = network(*(values[2:3] for values in inputs))
    torch.testing.assert_close(one, whole[2:3], rtol=1e-4, atol=1e-5)


def test_conditions_and_noise_may_be_shared() -> None:
    network, (x, noise, conditions, context) = make(), given(4)
    shared = network(x, noise[:1], conditions[:1], context)
    alone = network(x, noise[:1].expand(4), conditions[:1].expand(4, -1), context)
    torch.testing.assert_close(shared, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", ["noise", "conditions", "context"])
def test_every_residual_block_hears_the_conditions(which: str) -> None:
    network, inputs = make(), dict(zip(("x", "noise", "conditions", "context"), given(2), strict=True))
    seen: dict[str, list[Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, ResidualBlock):
            module.modulation.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out))
    network(**inputs)
    network(**(inputs | {which: inputs[which] + 1}))
    assert len(seen) == 8  # one down and two up in each of two levels, two at the bottom
    assert all(float((first - second).abs().min()) > 0 for first, second in seen.values())


def test_pixels_far_apart_are_connected() -> None:
    network, (x, *rest) = make(), given(1)
    moved = x.clone()
    moved[0, 0, 0] += 1
    assert float((network(moved, *rest) - network(x, *rest))[0, -1, -1].abs()) > 1e-6


def test_gradients_agree_with_differences() -> None:
    network, inputs = make(multipliers=(1, 2)).double(), given(2, dtype=torch.float64)
    inputs = tuple(values.requires_grad_(True) for values in inputs)
    assert torch.autograd.gradcheck(lambda *v: network(*v)[:, ::3, ::3], inputs, fast_mode=True)


def test_dropped_conditions_are_a_learnt_vector() -> None:
    network, (x, noise, conditions, context) = make(), given(3)
    dropped = torch.tensor([False, True, False])
    some = network(x, noise, conditions, context, dropped=dropped)
    torch.testing.assert_close(some[0], network(x, noise, conditions, context)[0])
    other = network(x, noise, conditions + 3, context - 1, dropped=dropped)
    torch.testing.assert_close(other[1], some[1])  # it knows none of them
    network.null.copy_(network.null + 1)
    changed = network(x, noise, conditions, context, dropped=dropped)
    assert not torch.allclose(changed[1], some[1])
    torch.testing.assert_close(changed[0], some[0])


def test_dropout_comes_from_the_generator() -> None:
    network, inputs = make(dropout=0.5), given(2)

    def draw(seed: int) -> Tensor:
        result: Tensor = network(*inputs, random=RandomNumbers(seed, range(len(inputs[0]))))
        return result

    torch.testing.assert_close(draw(1), draw(1))
    assert not torch.allclose(draw(1), draw(2))
    assert not torch.allclose(draw(1), network(*inputs))
    torch.testing.assert_close(network(*inputs), network(*inputs))


def test_marks_are_compared_pixel_by_pixel() -> None:
    network, inputs = make(thresholds=True), given(2)
    thresholds = torch.zeros(2, SIZE, SIZE)
    assert not torch.allclose(network(*inputs, thresholds), network(*inputs, thresholds + 1))


def test_patches_see_every_pixel() -> None:
    network, (x, *others) = make(patch=2, thresholds=True), given(1)
    x.requires_grad_()
    network(x, *others, torch.zeros(1, SIZE, SIZE))[0, 3, 4].backward()
    assert x.grad is not None
    assert float(x.grad[0, 2:5, 3:6].abs().min()) > 0


def test_it_begins_as_zero() -> None:
    assert float(UNet(SIZE, 3, 2, width=8, multipliers=(1, 2))(*given(2)).detach().abs().max()) == 0


def test_sizes_that_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="6 pixels in patches of 1 cannot be halved 2 times"):
        UNet(6, 3)
    with pytest.raises(ValueError, match="8 pixels in patches of 4 cannot be halved 2 times"):
        UNet(8, 3, patch=4)
