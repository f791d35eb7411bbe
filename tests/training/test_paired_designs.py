from __future__ import annotations

import numpy as np
import torch

from calograd.nn.location_scale import ConditionalLocationScale
from calograd.training.data.paired_designs import DifferenceScale, pair_loss, partners


def test_a_partner_is_the_closest_other_design_of_the_same_shower() -> None:
    rng = np.random.default_rng(0)
    shower = rng.permutation(np.repeat(np.arange(30), 6))
    dx, dz = np.exp(rng.normal(size=180)), np.exp(rng.normal(size=(180, 3)))
    found = partners(shower, dx, dz)
    assert found is not None
    place = np.log(np.column_stack([dx, dz]))
    for row in range(180):
        others = np.flatnonzero((shower == shower[row]) & (np.arange(180) != row))
        closest = others[((place[others] - place[row]) ** 2).sum(1).argmin()]
        assert found[row] == closest


def test_rows_of_one_design_are_no_partners() -> None:
    found = partners(np.array([0, 0, 1, 1, 2]), np.array([1.0, 1.0, 1.0, 2.0, 3.0]), np.ones((5, 2)))
    assert found is not None
    np.testing.assert_array_equal(found, [-1, -1, 3, 2, -1])
    assert partners(np.arange(4), np.ones(4), np.ones((4, 2))) is None


def learnt_slope(pairs: bool, seed: int) -> float:
    """Slope at zero of the location of numbers s + 0.1 c, where s is a shower's own and c the condition."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.randn(60, 1, generator=generator)
    c = torch.linspace(-1, 1, 60)[torch.randperm(60, generator=generator), None]
    near = c + 0.1 * torch.randn(60, 1, generator=generator)
    conditions = torch.cat([c, near])
    g = torch.cat([own, own]) + 0.1 * conditions
    with torch.random.fork_rng():
        torch.manual_seed(0)
        location_scale, difference = (
            ConditionalLocationScale(1, torch.zeros(1, dtype=torch.long), 16),
            DifferenceScale(1, 1),
        )
    parameters = [*location_scale.parameters(), *difference.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(600):
        optimiser.zero_grad()
        if pairs:
            pair_loss(location_scale, difference, g, conditions).mean().backward()
        else:
            location_scale.negative_log_likelihood(g, conditions).mean().backward()
        optimiser.step()
    at = torch.zeros(1, 1, requires_grad=True)
    return float(torch.autograd.grad(location_scale(at)[0].sum(), at)[0])


def test_pairs_tell_a_slope_that_single_rows_drown_in_fluctuations() -> None:
    alone, paired = (np.array([learnt_slope(pairs, seed) for seed in range(4)]) for pairs in (False, True))
    assert np.abs(paired - 0.1).max() < 0.04
    assert np.abs(alone - 0.1).max() > 0.12
