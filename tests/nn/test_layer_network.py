from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calograd.nn.layer_network import LayerNetwork
from calograd.nn.lora import Plan, attach

SIZES = {"numbers": 2, "features": 3, "conditions": 4, "width": 8, "blocks": 3, "embedding": 8, "units": 4}


def stirred(**sizes: int) -> LayerNetwork:
    """With random weights where training starts from zeros."""
    torch.manual_seed(0)
    network = LayerNetwork(**SIZES | sizes).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def inputs(layers: tuple[int, ...] = (6, 4, 6)) -> list[Tensor]:
    """What the network takes, of stacks of these numbers of layers; random also where layers are absent."""
    n, most = len(layers), max(layers)
    shapes = ((n, most, 2), (n,), (n, 4), (n, most, 3), (n, most, 2))
    present = (torch.arange(most) < torch.tensor(layers)[:, None]).double()[..., None]
    return [*(torch.randn(*shape, dtype=torch.float64) for shape in shapes), present]


def run(network: torch.nn.Module, *given: Tensor | None) -> Tensor:
    """Call a network with what `inputs` returns."""
    x, noise, conditions, features, thresholds, present = given
    result: Tensor = network(x, noise, conditions, [features], thresholds, present)
    return result


@pytest.mark.parametrize("units", [0, 4])
def test_it_starts_from_zero(units: int) -> None:
    network = LayerNetwork(**SIZES | {"units": units}).double()
    assert torch.equal(run(network, *inputs()), torch.zeros(3, 6, 2, dtype=torch.float64))


def test_what_is_behind_the_last_layer_changes_nothing() -> None:
    """A stack of four layers is the same alone and padded to the six of another one."""
    network = stirred()
    x, noise, conditions, features, thresholds, present = inputs()
    padded = run(network, x, noise, conditions, features, thresholds, present)
    assert torch.equal(padded[1, 4:], torch.zeros(2, 2, dtype=torch.float64))
    alone = run(
        network, x[1:2, :4], noise[1:2], conditions[1:2], features[1:2, :4], thresholds[1:2, :4], present[1:2, :4]
    )
    torch.testing.assert_close(padded[1:2, :4], alone)


def test_shared_conditions_equal_repeated_ones() -> None:
    network = stirred()
    x, noise, conditions, *others = inputs()
    each = run(network, x, noise[:1].expand(3), conditions[:1].expand(3, -1), *others)
    for shared in ((noise[:1], conditions[:1]), (noise[:1].expand(3), conditions[:1])):
        torch.testing.assert_close(run(network, x, *shared, *others), each)


def test_features_of_a_shared_stack_equal_repeated_ones() -> None:
    """Of parts of the features one may be the same for all samples; where all layers are there, no mask is needed."""
    network = stirred()
    x, noise, conditions, features, thresholds, present = inputs((6, 6, 6))
    own, shared = features[..., :1], features[:1, :, 1:]
    each = network(x, noise, conditions, [own, shared.expand(3, -1, -1)], thresholds, present)
    torch.testing.assert_close(network(x, noise, conditions, [own, shared], thresholds, None), each)


def test_layers_see_as_far_as_the_blocks_reach() -> None:
    """Blocks of reaches 1, 2 and 4 together see seven layers to either side; a layer is known by its features alone."""
    network = stirred()
    x, *others = inputs((20,))
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(run(network, x, *others)[0, 10].sum(), x)
    assert (gradient[0].abs().sum(1) > 0).nonzero().flatten().tolist() == list(range(3, 18))
    moved = [each.roll(2, 1) if each.ndim == 3 else each for each in (x.detach(), *others)]
    torch.testing.assert_close(run(network, *moved)[0, 12], run(network, x, *others)[0, 10])


@pytest.mark.parametrize("units", [0, 4])
def test_every_input_matters(units: int) -> None:
    network = stirred(units=units)
    *several, present = inputs((4, 4))
    for each in several:
        each.requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: run(network, *given, present), several, atol=1e-6)
    used = several if units else several[:4]
    for gradient in torch.autograd.grad(run(network, *several, present).sum(), used):
        assert (gradient != 0).all()


def test_it_can_be_adapted() -> None:
    network = stirred()
    before = run(network, *inputs_of_seed())
    adapted, learnt = attach(network, Plan(rank=2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(run(adapted, *inputs_of_seed()), before)  # B begins at zero
    for parameter in learnt.values():
        torch.nn.init.normal_(parameter, std=0.1)
    assert (run(adapted, *inputs_of_seed()) != before).all()
    assert torch.equal(run(network, *inputs_of_seed()), before)


def inputs_of_seed() -> list[Tensor]:
    torch.manual_seed(1)
    return inputs((4, 4))
