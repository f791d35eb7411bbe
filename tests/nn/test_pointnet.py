from __future__ import annotations

import pytest
import torch
from torch import Tensor

from calograd.nn.point_networks import PointMap, PointNet

Network = PointNet | PointMap


@pytest.fixture(params=["net", "map"])
def net(request: pytest.FixtureRequest) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kinds = {"net": PointNet(2, 3, width=8, blocks=2, embedding=6), "map": PointMap(2, 3, width=8, embedding=6)}
        made: Network = kinds[request.param].double()
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    group = torch.tensor([0, 0, 1, 3, 3])
    return (torch.randn(5, 2, generator=generator).double(), torch.randn(4, 3, generator=generator).double(), group)


def test_a_point_sees_its_group_and_nothing_else(net: Network) -> None:
    x, context, group = inputs()
    noise = torch.tensor([0.1, -0.4, 0.7, 1.0]).double()
    together = net(x, noise, context, group)
    for k in range(5):
        g = int(group[k])
        alone = net(x[k : k + 1], noise[g : g + 1], context[g : g + 1], torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(alone[0], together[k])


def test_one_noise_level_for_all_is_that_level_for_each(net: Network) -> None:
    x, context, group = inputs()
    one = net(x, torch.tensor([0.3]).double(), context, group)
    torch.testing.assert_close(one, net(x, torch.full((4,), 0.3).double(), context, group))
    assert not torch.allclose(one, net(x, torch.tensor([0.9]).double(), context, group))


def test_it_starts_at_zero() -> None:
    x, context, group = inputs()
    for begun in (PointNet(2, 3), PointMap(2, 3)):
        assert net_is_zero(begun.double()(x, torch.zeros(1).double(), context, group))


def net_is_zero(values: Tensor) -> bool:
    return bool((values == 0).all())


def test_gradients_are_right(net: Network) -> None:
    x, context, group = inputs()
    x.requires_grad_(True)
    context.requires_grad_(True)
    noise = torch.tensor([0.3]).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda a, s, c: net(a, s, c, group), (x, noise, context))
