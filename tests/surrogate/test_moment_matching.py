from __future__ import annotations

import pytest
import torch

from calograd.surrogate.points.moment_matching import Groups, draw, tilted, with_centre, with_mean
from calograd.system.random_numbers import RandomNumbers


def test_sums_are_over_groups_and_empty_ones_have_none() -> None:
    groups = Groups.with_counts(torch.tensor([2, 0, 3]))
    values = torch.arange(5.0).double().requires_grad_(True)
    assert groups.of.tolist() == [0, 0, 2, 2, 2]
    assert groups.sums(values).tolist() == [1, 0, 9]
    assert groups.spread(torch.tensor([5.0, 6.0, 7.0])).tolist() == [5, 5, 7, 7, 7]
    assert torch.autograd.gradcheck(lambda v: groups.sums(v**2), (values,))


def test_energies_are_tilted_to_the_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    z, e = torch.randn(4000, generator=generator), torch.rand(4000, generator=generator)
    groups, wanted = Groups.with_counts(torch.full((100,), 40)), 0.3 * torch.randn(100, generator=generator)
    made = tilted(e, z, wanted, groups)
    torch.testing.assert_close(groups.sums(made * z) / groups.sums(made), wanted, atol=2e-3, rtol=0)


def test_mean_and_spread_of_groups() -> None:
    z = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    groups, mean = Groups.with_counts(torch.full((10_000,), 4)), torch.linspace(-1, 1, 10_000)
    made = with_mean(z, mean, torch.full((10_000,), 4.0), groups, None)
    torch.testing.assert_close(made.reshape(-1, 4).mean(1), mean, atol=1e-5, rtol=0)
    assert abs(float((made - groups.spread(mean)).std()) - 1) < 0.02


def test_showers_get_their_centre_and_what_is_near_the_axis_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    r, angle, e = (torch.rand(300, generator=generator) for _ in range(3))
    r[0] = 0.0
    showers = Groups.with_counts(torch.tensor([100, 200]))
    moment = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    x, y = with_centre(r, 6 * angle, e, showers, moment)
    torch.testing.assert_close(showers.sums(e * x), moment[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(showers.sums(e * y), moment[1], atol=1e-4, rtol=0)
    assert float(x[0]) == float(y[0]) == 0


@pytest.mark.parametrize("share", [[3.2, 0.5], [3.9, 1.0]])
def test_a_smooth_sample_counts_the_last_point_in_part_and_draws_the_same_points(share: list[float]) -> None:
    shares = torch.tensor(share)
    shower, layer = torch.tensor([0, 0]), torch.tensor([0, 1])
    drawn = draw(shares, shower, layer, 2, RandomNumbers(0, range(1)), smooth=True)
    assert drawn.groups.counts.tolist() == [4, 1]
    assert drawn.weight is not None
    torch.testing.assert_close(drawn.groups.sums(drawn.weight), shares)
    more = draw(torch.tensor([7.0, 9.0]), shower, layer, 2, RandomNumbers(0, range(1)), smooth=False)
    assert torch.equal(drawn.noise, more.noise[[0, 1, 2, 3, 7]])
    assert torch.equal(drawn.angle, more.angle[[0, 1, 2, 3, 7]])
