from __future__ import annotations

import torch

from calograd.nn.mlp import VectorMap


def test_it_starts_at_zero_and_knows_its_conditions() -> None:
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(4, 3, generator=generator).double(), torch.randn(4, 2, generator=generator).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VectorMap(3, 2, width=7, hidden=2).double()
        assert bool((net(x, c) == 0).all())
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    assert not torch.allclose(net(x, c), net(x, c + 1))
    torch.testing.assert_close(net(x[1:2], c[1:2]), net(x, c)[1:2])
    x.requires_grad_(True)
    c.requires_grad_(True)
    assert torch.autograd.gradcheck(net, (x, c))


def test_without_hidden_layers_learnt_it_is_linear() -> None:
    net = VectorMap(2, 1, width=5, hidden=3)
    with torch.no_grad():
        net.straight.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    made = net(torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0]]))
    torch.testing.assert_close(made, torch.tensor([[5.0, 11.0]]))
