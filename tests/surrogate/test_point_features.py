from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from calograd.events.point_showers import PointShowers
from calograd.surrogate.points.features import (
    KNOTS,
    LEADS,
    TAIL,
    Features,
    decode,
    dim_of,
    encode,
    features_of,
    from_normal,
    leads_of,
    quantile_table,
    to_normal,
)
from calograd.system.random_numbers import RandomNumbers

Make = Callable[..., PointShowers]
UNIT = torch.tensor(2e-4).double()


def made_up(n: int = 50, layers: int = 6) -> tuple[Features, torch.Tensor]:
    """Features with empty layers, and energies."""
    generator = torch.Generator().manual_seed(0)
    rate = torch.tensor([0.3, 1.0, 5.0, 60.0, 30.0, 0.5]).expand(n, layers)
    count = torch.poisson(rate, generator=generator).double()
    count[:, 3] += 1
    energy = count * UNIT * (0.5 + torch.rand(n, layers, generator=generator).double())
    mean = torch.where(count > 0, torch.randn(n, layers, generator=generator).double(), 0.0)
    core = torch.where(count > 1, 0.3 * torch.randn(n, layers, generator=generator).double(), 0.0)
    centre = 0.05 * torch.randn(n, 2, generator=generator).double()
    return Features(count, energy, mean, core, centre), 10 + 80 * torch.rand(n, generator=generator).double()


def test_features_come_back_with_every_count_and_all_energy() -> None:
    features, _ = made_up()
    visible = features.energy.sum(1, keepdim=True)
    g = encode(features, UNIT, RandomNumbers(1, range(len(features.count))))
    assert g.shape == (50, dim_of(6))
    assert bool(torch.isfinite(g).all())
    back = decode(g, visible, UNIT, 6)
    torch.testing.assert_close(back.count, features.count)
    torch.testing.assert_close(back.energy, features.energy, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(back.mean, features.mean)
    torch.testing.assert_close(back.core, features.core)
    torch.testing.assert_close(back.centre, features.centre)


def test_no_energy_is_lost_for_empty_layers_and_no_shower_is_without_a_point() -> None:
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(500, dim_of(6), generator=generator).double() - 2.0  # many layers come out empty
    visible = torch.linspace(0.1, 0.5, 500).double()[:, None]
    back = decode(g, visible, UNIT, 6)
    assert bool((back.count.sum(1) >= 1).all())
    assert bool((back.count == 0).any())
    assert bool((back.energy[back.count == 0] == 0).all())
    torch.testing.assert_close(back.energy.sum(1, keepdim=True), visible)


def test_smooth_counts_have_the_mean_of_the_whole_ones() -> None:
    features, _ = made_up(4000)
    g = encode(features, UNIT, RandomNumbers(1, range(len(features.count))))
    smooth = decode(g, features.energy.sum(1, keepdim=True), UNIT, 6, smooth=True)
    difference = smooth.count[:, 3] - features.count[:, 3]
    assert abs(float(difference.mean())) < 0.02
    assert float(difference.abs().max()) <= 0.5 + 1e-6
    torch.testing.assert_close(smooth.energy.sum(1), features.energy.sum(1))


def test_leads_are_of_the_shower_as_a_whole() -> None:
    features, incident = made_up()
    found = leads_of(features, incident, UNIT)
    assert found.shape == (50, LEADS)
    e, layer = features.energy[7].numpy(), np.arange(6)
    depth = np.average(layer, weights=e)
    by_hand = [
        np.log1p(depth), np.log1p(np.average((layer - depth) ** 2, weights=e)), np.log(e.sum() / float(incident[7])),
        np.log(float(features.count[7].sum() * UNIT) / e.sum()), np.average(features.mean[7], weights=e),
        np.average(features.core[7], weights=e),
    ]  # fmt: skip
    np.testing.assert_allclose(found[7], by_hand, rtol=1e-10)


def test_tables_make_their_own_values_unit_normal_and_back() -> None:
    rng = np.random.default_rng(0)
    layer = rng.integers(0, 4, 40_000)
    values = rng.gamma(2, 1 + layer)
    table = quantile_table(values, layer, 4)
    assert table.shape == (4, KNOTS)
    assert bool((table.diff(dim=1) > 0).all())
    z = to_normal(torch.from_numpy(values).float(), torch.from_numpy(layer), table)
    for k in range(4):
        mine = z[torch.from_numpy(layer == k)]
        assert abs(float(mine.mean())) < 0.01
        assert abs(float(mine.std()) - 1) < 0.01
    back = from_normal(z, torch.from_numpy(layer), table)
    np.testing.assert_allclose(back.numpy(), values, rtol=2e-3, atol=2e-3)


def test_a_layer_of_few_points_borrows_from_its_neighbours() -> None:
    layer = np.repeat([0, 1, 2], [5, 5000, 0])
    table = quantile_table(np.random.default_rng(0).normal(size=5005), layer, 3)
    assert bool(torch.isfinite(table).all())
    assert float(table[2, -1]) > 2


def test_the_way_back_is_smooth_and_goes_on_beyond_the_tables() -> None:
    table = quantile_table(np.random.default_rng(0).normal(size=5000), np.zeros(5000, int), 1).double()
    z = torch.tensor([-TAIL - 1, -1.0, 0.3, TAIL + 1]).double().requires_grad_(True)
    layer = torch.zeros(4, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda v: from_normal(v, layer, table), (z,))
    assert bool((from_normal(z, layer, table).diff() > 0).all())


def test_features_of_showers(make_clouds: Make) -> None:
    clouds = make_clouds(30)
    table = torch.linspace(-7, 3, KNOTS).repeat(30, 1)
    features = features_of(clouds, table)
    np.testing.assert_allclose(features.count.numpy(), clouds.layer_sums())
    np.testing.assert_allclose(features.energy.sum(1).numpy(), clouds.layer_sums(clouds.e).sum(1), rtol=1e-5)
    weight = clouds.rows(slice(0, 1))
    np.testing.assert_allclose(features.centre[0, 0], (weight.x * weight.e).sum() / weight.e.sum(), rtol=1e-4)
