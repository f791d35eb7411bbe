from __future__ import annotations

import pytest
import torch
from scipy.stats import t as student

from calograd.nn.location_scale import FARTHEST, NU, ConditionalLocationScale


@pytest.fixture
def moments() -> ConditionalLocationScale:
    torch.manual_seed(0)
    return ConditionalLocationScale(3, torch.tensor([0, 1, 0, 2]), width=8).double()


def test_restoring_undoes_standardising(moments: ConditionalLocationScale) -> None:
    generator = torch.Generator().manual_seed(1)
    conditions = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    c = 5 * torch.randn(50, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(moments.restore(moments.standardise(c, conditions), conditions), c)
    x = 4 * torch.randn(50, 4, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(moments.standardise(moments.restore(x, conditions), conditions), x)


def test_far_values_are_held(moments: ConditionalLocationScale) -> None:
    conditions = torch.zeros(1, 3, dtype=torch.float64)
    x = moments.standardise(torch.full((1, 4), 1e9, dtype=torch.float64), conditions)
    assert (x == FARTHEST).all()
    assert torch.isfinite(moments.restore(torch.full_like(x, 1e9), conditions)).all()


def test_it_is_linear_in_the_bulk(moments: ConditionalLocationScale) -> None:
    conditions = torch.zeros(1, 3, dtype=torch.float64)
    location, scale = moments(conditions)
    x = moments.standardise(location + 1e-3 * scale, conditions)
    torch.testing.assert_close(x, torch.full_like(x, 1e-3), rtol=1e-6, atol=0)


def test_tied_numbers_share_location_and_scale(moments: ConditionalLocationScale) -> None:
    location, scale = moments(torch.randn(5, 3, dtype=torch.float64))
    assert torch.equal(location[:, 0], location[:, 2])
    assert torch.equal(scale[:, 0], scale[:, 2])
    assert not torch.equal(location[:, 0], location[:, 1])
    assert (scale > moments.floor).all()


def test_likelihood_is_that_of_student(moments: ConditionalLocationScale) -> None:
    conditions = torch.zeros(7, 3, dtype=torch.float64)
    c = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None].expand(7, 4)
    with torch.no_grad():
        location, scale = (v.numpy() for v in moments(conditions))
        got = moments.negative_log_likelihood(c, conditions).numpy()
    exact = -student.logpdf(c.numpy(), NU, location, scale)
    assert (got - exact).std() < 1e-12


def test_items_of_a_sample_have_location_and_scale_of_their_own_and_common_conditions() -> None:
    torch.manual_seed(0)
    network = ConditionalLocationScale(7, torch.arange(2), 16)
    own, common = torch.randn(5, 4, 3), torch.randn(5, 4)
    conditions = torch.cat([own, common[:, None].expand(-1, 4, -1)], 2).flatten(0, 1)
    for found, expected in zip(network.of_items([own, common[:, None]]), network(conditions), strict=True):
        torch.testing.assert_close(found.flatten(0, 1), expected)
    for parts in (
        [own, common[:1, None]],
        [own[:1], common[:, None]],
        [own[:1, :, :1], own[..., 1:], common[:1, None]],
    ):
        whole = [part.expand(5, 4, -1) for part in parts]
        for found, expected in zip(network.of_items(parts), network.of_items(whole), strict=True):
            torch.testing.assert_close(found, expected)
