from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from calograd.errors import InputError
from calograd.objective.background import Background, BackgroundMap, ExponentialBackground

sizes = st.floats(0.5, 15)
depths = st.lists(sizes, min_size=1, max_size=5)


def double(values: float | list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mean_is_the_integral_of_the_density():
    emulator = ExponentialBackground(b0=5e-3, lam=6.0)
    mean = emulator.moments(double(2.5), double([3.0, 6.0, 10.0]), 3).mean
    edges = [0.0, 3.0, 9.0, 19.0]
    for k in range(3):
        integral = 2.5**2 * integrate.quad(lambda z: 5e-3 * np.exp(-z / 6), edges[k], edges[k + 1])[0]
        assert mean[..., k].numpy() == pytest.approx(np.full((3, 3), integral), rel=1e-12)


def test_the_variance_without_neighbours_is_that_of_a_product_of_factors():
    mean, std = ExponentialBackground(diffusion=0.0).moments(double(2.0), double([4.0, 5.0]), 3)
    product = exp(0.4**2) * (1 + 1 / 4) - 1
    np.testing.assert_allclose(std / mean, np.sqrt(product), rtol=1e-12)


@given(sizes, depths, st.floats(0.05, 0.95), st.floats(1, 50))
@settings(max_examples=40, deadline=None)
def test_splitting_a_layer_shares_its_mean(dx, dz, share, lam):
    emulator = ExponentialBackground(lam=lam)
    whole = emulator.moments(double(dx), double(dz), 5).mean
    split = emulator.moments(double(dx), double([share * dz[0], (1 - share) * dz[0], *dz[1:]]), 5).mean
    np.testing.assert_allclose(split[..., :2].sum(-1), whole[..., 0], rtol=1e-9)
    np.testing.assert_allclose(split[..., 2:], whole[..., 1:], rtol=1e-9)
    halved = emulator.moments(double(dx / 2), double(dz), 10).mean
    np.testing.assert_allclose(halved.reshape(5, 2, 5, 2, -1).sum((1, 3)), whole, rtol=1e-9)


@given(st.floats(0, 1), sizes)
@settings(max_examples=20, deadline=None)
def test_diffusion_conserves_a_uniform_mean_and_an_event_s_energy(diffusion, dx):
    emulator, still = ExponentialBackground(diffusion=diffusion), ExponentialBackground(diffusion=0.0)
    dz = double([4.0, 8.0])
    np.testing.assert_allclose(
        emulator.moments(double(dx), dz, 4).mean, still.moments(double(dx), dz, 4).mean, rtol=1e-12
    )
    # One cell in the middle of a window: all that leaves it arrives in its neighbours.
    numbers = still.draw(1, 5, 2, generator(), torch.float64)
    alone = numbers._replace(cells=torch.zeros_like(numbers.cells))
    alone.cells[0, 3, 3, 1] = 1.0
    energy = emulator.energy(alone, double(dx), dz)[0, :, :, 1] / still.energy(alone, double(dx), dz).sum()
    expected = torch.zeros(5, 5, dtype=torch.float64)
    expected[2, 2] = 1 - diffusion
    expected[1, 2] = expected[3, 2] = expected[2, 1] = expected[2, 3] = diffusion / 4
    np.testing.assert_allclose(energy, expected, atol=1e-12)


def test_an_edge_cell_receives_from_outside_the_window():
    numbers = ExponentialBackground().draw(1, 3, 1, generator(), torch.float64)
    alone = numbers._replace(cells=torch.zeros_like(numbers.cells))
    alone.cells[0, 0, 2, 0] = 1.0
    energy = ExponentialBackground().energy(alone, double(2.0), double([4.0]))[0, :, :, 0]
    assert energy[0, 1] > 0
    assert (energy > 0).sum() == 1


def slope() -> BackgroundMap:
    """A density that differs from cell to cell."""
    density = torch.rand(8, 8, 6, generator=generator(5), dtype=torch.float64) * 1e-3
    edges = torch.linspace(-8, 8, 9, dtype=torch.float64)
    return BackgroundMap(density=density, x=edges, y=edges, z=torch.arange(0, 14, 2.0), sigma_event=0.3, shape_cell=2.5)


@pytest.mark.parametrize(
    "background", [ExponentialBackground(), ExponentialBackground(shape_cell=0.7, diffusion=0.5), slope()]
)
def test_moments_agree_with_simulated_events(background):
    n, dx, dz = 40_000, double(2.2), double([4.0, 7.0])
    energy = background.energy(background.draw(n, 3, 2, generator(1), torch.float64), dx, dz)
    mean, std = background.moments(dx, dz, 3)
    assert energy.shape == (n, 3, 3, 2)
    assert mean.shape == std.shape == (3, 3, 2)
    assert (energy >= 0).all()
    np.testing.assert_array_less(((energy.mean(0) - mean) / (std / n**0.5)).abs(), 4.5)
    squares = (energy - mean).square()
    np.testing.assert_array_less(((squares.mean(0) - std**2) / (squares.std(0) / n**0.5)).abs(), 4.5)


def test_factors_follow_their_laws():
    numbers = ExponentialBackground(sigma_event=0.4, shape_cell=2.5).draw(4000, 1, 1, generator(2), torch.float64)
    assert stats.kstest(numbers.event, stats.lognorm(s=0.4, scale=exp(-0.08)).cdf).pvalue > 1e-3
    assert stats.kstest(numbers.cells.flatten(), stats.gamma(2.5, scale=1 / 2.5).cdf).pvalue > 1e-3


def test_no_fluctuations_leave_the_mean():
    quiet = ExponentialBackground(sigma_event=0.0, shape_cell=1e12)
    dx, dz = double(2.0), double([4.0, 5.0])
    energy = quiet.energy(quiet.draw(3, 3, 2, generator(), torch.float64), dx, dz)
    np.testing.assert_allclose(energy, quiet.moments(dx, dz, 3).mean.expand_as(energy), rtol=1e-4)


def test_numbers_come_from_the_generator_alone():
    one, same, other = (ExponentialBackground().draw(5, 3, 2, generator(seed)) for seed in (1, 1, 2))
    torch.rand(3)
    assert torch.equal(one.event, same.event)
    assert torch.equal(one.cells, same.cells)
    assert not torch.equal(one.cells, other.cells)
    double_precision = ExponentialBackground().draw(5, 3, 2, generator(1), torch.float64)
    assert torch.equal(double_precision.cells.float(), one.cells)


def test_neighbouring_designs_share_their_numbers():
    emulator = ExponentialBackground()
    numbers = emulator.draw(6, 3, 2, generator(), torch.float64)
    here = emulator.energy(numbers, double(2.0), double([4.0, 4.0]))
    there = emulator.energy(numbers, double(2.2), double([4.0, 4.0]))
    np.testing.assert_allclose(there / here, 1.21, rtol=1e-12)


@pytest.mark.parametrize("background", [ExponentialBackground(), slope()])
def test_gradients_agree_with_finite_differences(background: Background):
    dx, dz = double(2.13).requires_grad_(), double([3.1, 5.3]).requires_grad_()
    numbers = background.draw(4, 3, 2, generator(3), torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: background.energy(numbers, a, b), (dx, dz))
    assert torch.autograd.gradcheck(lambda a, b: tuple(background.moments(a, b, 3)), (dx, dz))


def test_energies_are_of_the_type_of_the_numbers():
    emulator = ExponentialBackground()
    numbers = emulator.draw(2, 3, 2, generator())
    assert emulator.energy(numbers, double(2.0), double([4.0, 5.0])).dtype == torch.float32
    assert emulator.moments(double(2.0), double([4.0, 5.0]), 3).std.dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"b0": 0.0}, "b0 = 0.0"),
        ({"b0": float("nan")}, "b0 = nan"),
        ({"lam": -1.0}, "lam = -1.0"),
        ({"sigma_event": -0.1}, "sigma_event"),
        ({"sigma_event": float("inf")}, "sigma_event"),
        ({"shape_cell": 0.0}, "shape_cell"),
        ({"diffusion": 1.5}, "diffusion = 1.5, expected 0 to 1"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, complaint):
    with pytest.raises(InputError, match=complaint):
        ExponentialBackground(**arguments)
