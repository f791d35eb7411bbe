from __future__ import annotations

import pytest
import torch

from calograd.nn.gridvae import Decoder, Encoder


@pytest.mark.parametrize("side", [10, 12, 30, 32])
def test_shapes_and_that_every_weight_matters(side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image, conditions = torch.randn(3, 5, side, side, generator=generator), torch.randn(3, 1, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, decoder = Encoder(5, side, 1, 8, 4), Decoder(5, side, 1, 8, 4, 2)
    mean, log_variance = encoder(image, conditions)
    assert mean.shape == log_variance.shape == (3, 4)
    made = decoder(mean + log_variance, conditions)
    assert made.shape == (3, 2, 5, side, side)
    (made * torch.randn(made.shape, generator=generator)).sum().backward()
    for name, weight in (*encoder.named_parameters(), *decoder.named_parameters()):
        assert weight.grad is not None, name
        assert bool((weight.grad != 0).any()), name


def test_the_code_and_the_conditions_matter() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(2, 10, 1, 8, 4, 1)
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    energy = torch.zeros(1, 1)
    assert not torch.equal(decoder(zero, energy), decoder(one, energy))
    assert not torch.equal(decoder(zero, energy), decoder(zero, energy + 1))
