from __future__ import annotations

import pytest
import torch

from calograd.nn.mlp import ResidualMlp


def stirred(**sizes: int) -> ResidualMlp:
    """With random weights where training starts from zeros."""
    torch.manual_seed(0)
    network = ResidualMlp(**sizes).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("units", [0, 4])
def test_it_starts_from_zero(units: int) -> None:
    network = ResidualMlp(4, 3, context=2, width=8, blocks=2, embedding=8, units=units)
    thresholds = torch.randn(5, 4) if units else None
    out = network(torch.randn(5, 4), torch.randn(5), torch.randn(5, 3), torch.randn(5, 2), thresholds)
    assert torch.equal(out, torch.zeros(5, 4))


def test_shared_conditions_equal_repeated_ones() -> None:
    network = stirred(dim=4, conditions=3, context=2, width=8, blocks=2, embedding=8)
    x, context = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    noise, conditions = torch.randn(1, dtype=torch.float64), torch.randn(1, 3, dtype=torch.float64)
    each = network(x, noise.expand(5), conditions.expand(5, -1), context)
    for shared in ((noise, conditions), (noise.expand(5), conditions), (noise, conditions.expand(5, -1))):
        torch.testing.assert_close(network(x, *shared, context), each)
    assert not torch.equal(each[0], each[1])


def test_every_input_matters() -> None:
    network = stirred(dim=4, conditions=3, context=2, width=8, blocks=2, embedding=8)
    inputs = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 4), (5,), (5, 3), (5, 2))]
    assert torch.autograd.gradcheck(network, inputs, atol=1e-6)
    for gradient in torch.autograd.grad(network(*inputs).sum(), inputs):
        assert (gradient != 0).all()


def test_local_units_follow_the_distance_to_their_marks() -> None:
    network = stirred(dim=4, conditions=3, context=2, width=8, blocks=1, embedding=8, units=4)
    inputs = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 4), (5,), (5, 3), (5, 2), (5, 4))
    ]
    assert torch.autograd.gradcheck(network, inputs, atol=1e-6)
    for gradient in torch.autograd.grad(network(*inputs).sum(), inputs):
        assert (gradient != 0).all()
