from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calograd.errors import InputError
from calograd.objective.readout import Readout, ReadoutDraws

N = 40_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cells(*energies: float) -> torch.Tensor:
    return torch.tensor(energies, dtype=torch.float64).reshape(-1, 1, 1, 1)


def report(readout: Readout, energy: float) -> torch.Tensor:
    """What is reported of N cells of one energy."""
    return readout.apply(cells(energy).expand(N, 1, 1, 1), readout.draw(N, 1, 1, generator(), torch.float64))


SILENT = ReadoutDraws(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))


def test_nothing_set_changes_nothing():
    energy = torch.rand(4, 3, 3, 2)
    assert torch.equal(Readout().apply(energy, Readout().draw(4, 3, 2, generator())), energy)


@pytest.mark.parametrize("energy", [0.02, 3.0])
def test_photostatistics_have_the_variance_of_photo_electrons(energy):
    seen = report(Readout(light_yield=2000), energy)
    variance = energy / 2000
    assert seen.mean().item() == pytest.approx(energy, abs=4 * (variance / N) ** 0.5)
    assert seen.var().item() == pytest.approx(variance, rel=4 * (2 / N) ** 0.5)


def test_an_empty_cell_makes_no_light_and_has_a_finite_gradient():
    energy = cells(0.0, 0.5).requires_grad_()
    readout = Readout(light_yield=100)
    seen = readout.apply(energy, readout.draw(2, 1, 1, generator(), torch.float64))
    assert seen[0] == 0
    seen.sum().backward()
    assert energy.grad[0] == 1
    assert torch.isfinite(energy.grad).all()


def test_noise_is_the_same_for_every_energy():
    for energy in (0.0, 1.0):
        seen = report(Readout(noise=0.003), energy)
        assert seen.mean().item() == pytest.approx(energy, abs=4 * 0.003 / N**0.5)
        assert seen.std().item() == pytest.approx(0.003, rel=4 / (2 * N) ** 0.5)


@given(st.just(0.0) | st.floats(1e-12, 100), st.floats(0.1, 1000))
@settings(deadline=None)
def test_saturation_is_linear_at_first_and_bounded_at_last(energy, most):
    seen = Readout(saturation=most).apply(cells(energy), SILENT).item()
    assert seen == pytest.approx(most * (1 - np.exp(-energy / most)), rel=1e-9, abs=1e-12)
    assert seen <= min(energy, most) * (1 + 1e-12)


def test_saturation_passes_what_photostatistics_made_negative():
    energy = cells(-500.0, -1e-9, 0.0, 1e-9).requires_grad_()
    seen = Readout(saturation=0.5).apply(energy, SILENT)
    np.testing.assert_allclose(seen.detach(), energy.detach(), rtol=1e-6)
    seen.sum().backward()
    np.testing.assert_allclose(energy.grad, 1.0, rtol=1e-6)


def test_the_threshold_suppresses_below_and_passes_above():
    readout = Readout(threshold=0.001, threshold_width=1e-4)
    seen = readout.apply(cells(0.0, 0.0005, 0.001, 0.0015, 1.0), SILENT).flatten()
    below = 1 / (1 + np.exp(5))
    expected = [0, 0.0005 * below, 0.0005, 0.0015 * (1 - below), 1.0]
    assert seen.tolist() == pytest.approx(expected, rel=1e-9)


def test_gradients_agree_with_finite_differences():
    readout = Readout(light_yield=50, saturation=2.0, noise=0.01, threshold=0.05, threshold_width=0.02)
    energy = torch.rand(3, 2, 2, 2, generator=generator(), dtype=torch.float64).requires_grad_()
    numbers = readout.draw(3, 2, 2, generator(1), torch.float64)
    assert torch.autograd.gradcheck(lambda e: readout.apply(e, numbers), energy)


def test_numbers_do_not_depend_on_the_stages():
    plain, full = Readout(), Readout(light_yield=10, noise=0.1)
    for one, other in zip(plain.draw(3, 2, 2, generator()), full.draw(3, 2, 2, generator()), strict=True):
        assert torch.equal(one, other)
    one, other = plain.draw(3, 2, 2, generator()), plain.draw(3, 2, 2, generator(1))
    assert not torch.equal(one.photons, other.photons)
    assert not torch.equal(one.photons, one.electronics)


@pytest.mark.parametrize(
    "arguments",
    [
        {"light_yield": 0},
        {"light_yield": float("nan")},
        {"saturation": -1},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"threshold": float("inf")},
        {"threshold_width": 0},
    ],
)
def test_arguments_out_of_range_are_named(arguments):
    with pytest.raises(InputError, match=f"readout: {next(iter(arguments))} = "):
        Readout(**arguments)
