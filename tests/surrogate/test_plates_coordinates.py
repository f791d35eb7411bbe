"""Coordinates of stacks of plates: energies come back from them, and any numbers give showers that conserve energy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gamma
from torch import Tensor

from calograd.surrogate.plates.coordinates import (
    RESOLVED_PLATE,
    SHOWER,
    Nominal,
    Plates,
    coarser,
    decode,
    decode_shower,
    encode_layers,
    encode_shower,
    nominal,
    profile,
)
from calograd.system.random_numbers import RandomNumbers

N = 200
ENERGY = torch.full((N,), 5.0, dtype=torch.float64)


@pytest.fixture
def plates() -> Plates:
    """Stacks of 3 to 20 unequal layers of lead and argon, padded to 20."""
    rng = torch.Generator().manual_seed(1)
    thickness = torch.rand(N, 20, 2, generator=rng, dtype=torch.float64) * 0.4 + 0.1  # cm
    layers = torch.randint(3, 21, (N, 1), generator=rng)
    thickness = thickness * (torch.arange(20) < layers)[..., None]
    return Plates(thickness / torch.tensor([0.56, 14.0]), thickness * torch.tensor([0.0129, 0.0021]))


@pytest.fixture
def expected(plates: Plates) -> Nominal:
    return nominal(plates, ENERGY, torch.zeros(N, dtype=torch.float64))[0]


def showers(plates: Plates, expected: Nominal) -> Tensor:
    """Energies about the nominal profile; some plates, layers and whole showers are empty."""
    rng = np.random.default_rng(2)
    share = expected.shares / (expected.shares.sum(1, keepdim=True) + expected.behind[:, None])
    fluctuating = torch.from_numpy(rng.gamma(4, 0.2, (N, 20, 2))) * torch.tensor([0.5, 0.1])
    kept = torch.from_numpy((rng.random((N, 20, 1)) > 0.1) & (rng.random((N, 20, 2)) > 0.1))
    energies = share[..., None] * ENERGY[:, None, None] * fluctuating * kept
    return torch.where((torch.arange(N) % 20 == 7)[:, None, None], 0.0, energies)


def test_energies_come_back_with_their_zeros(plates: Plates, expected: Nominal) -> None:
    energies, random = showers(plates, expected), RandomNumbers(3, range(N))
    assert float(energies.sum((1, 2)).max()) < 5
    g = encode_shower(energies, plates, ENERGY, expected, random)
    shower = decode_shower(g, plates, ENERGY, expected)
    absorber, active = decode(encode_layers(energies, plates, shower, random), plates, shower)
    again = torch.stack([absorber, active], -1)
    torch.testing.assert_close(again, energies, rtol=1e-6, atol=1e-9)
    assert torch.equal(again == 0, energies == 0)


def test_coarser_balances_are_those_of_a_larger_softening(plates: Plates, expected: Nominal) -> None:
    energies, random = showers(plates, expected), RandomNumbers(3, range(N))
    energies[:, :, 1] *= 0.2  # many active plates hold less than a minimum ionising particle's loss
    shower = decode_shower(encode_shower(energies, plates, ENERGY, expected, random), plates, ENERGY, expected)
    c = encode_layers(energies, plates, shower, random)
    absorber, active = (energies / torch.where(plates.present[..., None], plates.ionisation, 1.0)).unbind(-1)
    wanted = ((active + RESOLVED_PLATE) / (absorber + RESOLVED_PLATE)).log()
    filled = plates.present & (active > 0) & (absorber > 0)
    assert int((filled & (active < RESOLVED_PLATE)).sum()) > 100
    torch.testing.assert_close(coarser(c[:, 1], c, plates, shower)[filled], wanted[filled])
    # an empty active plate is as near to one that holds a hundredth of a minimum ionising particle's loss
    empty = plates.present & (active == 0) & (absorber > 0)
    assert int(empty.sum()) > 100
    below = wanted - coarser(c[:, 1], c, plates, shower)
    assert 0 < float(below[empty].min()) <= float(below[empty].max()) < 0.08
    b = c[:, 1].clone().requires_grad_()
    coarser(b, c, plates, shower).sum().backward()
    assert b.grad is not None
    assert bool((b.grad[plates.present] > 0).all())


def test_any_numbers_conserve_energy_and_keep_mean_spread_and_visible_energy(plates: Plates, expected: Nominal) -> None:
    random = RandomNumbers(4, range(N))
    energies = showers(plates, expected)
    g = encode_shower(energies, plates, ENERGY, expected, random)
    c = encode_layers(energies, plates, decode_shower(g, plates, ENERGY, expected), random)
    c = c + 0.1 * random.normal_like(c)
    shower = decode_shower(g + 0.05 * random.normal_like(g), plates, ENERGY, expected)
    absorber, active = decode(c, plates, shower)
    layers = absorber + active
    assert bool((absorber >= 0).all())
    assert bool((active >= 0).all())
    assert not layers[~plates.present].any()
    torch.testing.assert_close(layers.sum(1), shower.total)
    assert bool((shower.total <= ENERGY).all())
    deep = (plates.backs[:, -1] > 6) & (shower.total > 1)
    assert int(deep.sum()) > 20
    mean = (layers * plates.middles).sum(1) / layers.sum(1)
    assert float(((mean / shower.mean)[deep] - 1).abs().quantile(0.9)) < 5e-3
    mip = (layers * plates.ratio / (1 + plates.ratio)).sum(1)
    torch.testing.assert_close(active.sum(1)[deep], (shower.visible * mip)[deep], rtol=1e-3, atol=1e-4)
    nothing = decode(-torch.ones_like(c), plates, shower)
    torch.testing.assert_close(sum(nothing).sum(1), shower.total)  # type: ignore[union-attr]


def test_the_profile_is_the_gamma_distribution() -> None:
    depth = torch.linspace(0.25, 25, 100, dtype=torch.float64)
    plates = Plates(
        torch.stack([torch.full((1, 100), 0.25), torch.zeros(1, 100)], -1).double(), torch.ones(1, 100, 2).double()
    )
    for mean, spread in ((4.0, 2.5), (8.0, 4.0), (12.0, 4.5)):
        shares, behind = profile(plates, torch.tensor([mean]).double(), torch.tensor([spread]).double())
        law = gamma((mean / spread) ** 2, scale=spread**2 / mean)
        np.testing.assert_allclose(shares[0].cumsum(0).numpy(), law.cdf(depth.numpy()), atol=4e-3)
        np.testing.assert_allclose(float(behind[0]), law.sf(25.0), atol=1e-3)
        assert bool((shares >= 0).all())


def test_the_nominal_shower_knows_energy_particle_and_leakage() -> None:
    lengths = torch.stack([torch.full((2, 40), 0.5), torch.full((2, 40), 0.02)], -1)
    lengths[1, 10:] = 0
    plates = Plates(lengths, lengths * torch.tensor([0.0073, 0.03]))
    shower, critical = nominal(plates, torch.tensor([10.0]), torch.zeros(1))
    torch.testing.assert_close(critical, torch.full((2,), (0.5 * 0.0073 + 0.02 * 0.03) / 0.52))
    torch.testing.assert_close(shower.mean[0], (10 / critical[0]).log() + 1.5, rtol=0.03, atol=0)
    assert float(shower.behind[0]) < 0.02
    assert float(shower.behind[1]) > 0.5
    assert float(shower.mean[1]) < float(plates.backs[1, -1])
    photon, _ = nominal(plates, torch.tensor([10.0]), torch.ones(1))
    assert 0.85 < float(photon.mean[0] - shower.mean[0]) < 1.05
    total = decode_shower(torch.zeros(2, SHOWER), plates, torch.tensor([10.0]), shower).shares.sum(1)
    assert 0.95 < float(total[0]) < 1.01
