from __future__ import annotations

import pytest
import torch
from helpers.analytic import DOUBLE
from torch import Tensor

from calograd.diffusion.denoisers import (
    PRECONDITIONINGS,
    Edm,
    NoisePrediction,
    Preconditioning,
    ResidualNoise,
    denoise,
    loss,
)
from calograd.system.random_numbers import RandomNumbers

SIGMAS = torch.tensor([0.005, 0.3, 1.0, 7.0, 40.0], dtype=DOUBLE)
ALL = [*PRECONDITIONINGS.values(), Edm(sigma_data=0.5)]


def network(x: Tensor, noise: Tensor) -> Tensor:
    return torch.tanh(1.3 * x + 0.2) * (1 + 0.1 * noise[:, None])


@pytest.mark.parametrize("preconditioning", ALL, ids=repr)
def test_loss_is_the_weighted_error_of_the_denoiser(preconditioning: Preconditioning) -> None:
    x0 = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    noise = RandomNumbers(1, range(5)).normal_like(x0)
    got = loss(network, preconditioning, x0, SIGMAS, RandomNumbers(1, range(5)))
    clean = denoise(network, preconditioning, x0 + SIGMAS[:, None] * noise, SIGMAS)
    weight = 1 / preconditioning.coefficients(SIGMAS[:, None]).out ** 2
    torch.testing.assert_close(got, weight * (clean - x0) ** 2, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_edm_is_exact_for_normal_data_where_the_network_says_nothing(sigma_data: float) -> None:
    x = torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    clean = denoise(lambda z, s: torch.zeros_like(z), Edm(sigma_data), x, SIGMAS)
    torch.testing.assert_close(clean, x * sigma_data**2 / (sigma_data**2 + SIGMAS[:, None] ** 2))


@pytest.mark.parametrize("sigma_data", [1.0, 0.5])
def test_edm_keeps_input_and_target_of_unit_variance(sigma_data: float) -> None:
    c = Edm(sigma_data).coefficients(SIGMAS)
    one = torch.ones_like(SIGMAS)
    torch.testing.assert_close(c.into**2 * (sigma_data**2 + SIGMAS**2), one)
    torch.testing.assert_close(((1 - c.skip) ** 2 * sigma_data**2 + c.skip**2 * SIGMAS**2) / c.out**2, one)


def test_noise_prediction_recovers_the_sample_from_its_noise() -> None:
    x0 = torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    noise = RandomNumbers(1, range(5)).normal_like(x0)
    x = x0 + SIGMAS[:, None] * noise
    torch.testing.assert_close(denoise(lambda z, s: noise, NoisePrediction(), x, SIGMAS), x0)
    lost = loss(lambda z, s: noise, NoisePrediction(), x0, SIGMAS, RandomNumbers(1, range(5)))
    torch.testing.assert_close(lost, torch.zeros_like(lost), rtol=0, atol=1e-20)


def test_residual_noise_is_noise_prediction_with_the_input_added() -> None:
    x0 = torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    x = x0 + SIGMAS[:, None] * torch.randn(5, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    raw = denoise(lambda z, s: z + z.sin(), NoisePrediction(), x, SIGMAS)
    torch.testing.assert_close(denoise(lambda z, s: z.sin(), ResidualNoise(), x, SIGMAS), raw)
    each = [
        loss(f, p, x0, SIGMAS, RandomNumbers(2, range(5)))
        for f, p in ((lambda z, s: z + z.sin(), NoisePrediction()), (lambda z, s: z.sin(), ResidualNoise()))
    ]
    torch.testing.assert_close(*each)


@pytest.mark.parametrize("preconditioning", ALL, ids=repr)
def test_one_noise_level_serves_all_samples(preconditioning: Preconditioning) -> None:
    x = torch.randn(3, 4, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    one = denoise(lambda z, s: z.sin() * s[:, None, None], preconditioning, x, SIGMAS[2])
    each = denoise(lambda z, s: z.sin() * s[:, None, None], preconditioning, x, SIGMAS[2].expand(3))
    torch.testing.assert_close(one, each)
