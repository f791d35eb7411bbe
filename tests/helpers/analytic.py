"""Laws whose denoiser and flow map are known in closed form: the oracle of the samplers.

Under the probability flow a normal law's samples keep their standardised value, and the samples of any law on the line
keep their quantile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

DOUBLE = torch.float64


def noise_from(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Return what draws fresh unit normal noise like a tensor."""
    return lambda like: torch.randn(like.shape, generator=generator, dtype=like.dtype)


@dataclass(frozen=True)
class Normal:
    """N(mean, covariance) with noise added."""

    mean: Tensor
    covariance: Tensor

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        noisy = self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=x.dtype)
        return self.mean + (x - self.mean) @ torch.linalg.solve(noisy, self.covariance)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability flow takes x from noise level ``start`` to ``end``."""
        variance, axes = torch.linalg.eigh(self.covariance)
        ratio = ((variance + end**2) / (variance + start**2)).sqrt()
        return self.mean + (x - self.mean) @ (axes * ratio) @ axes.T


def tilted_normal() -> Normal:
    """Two correlated numbers, neither centred nor of unit variance."""
    return Normal(torch.tensor([0.7, -1.2], dtype=DOUBLE), torch.tensor([[0.30, 0.21], [0.21, 1.70]], dtype=DOUBLE))


@dataclass(frozen=True)
class Mixture:
    """Normal laws on the line, with weights that add up to one."""

    weights: Tensor
    means: Tensor
    widths: Tensor

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        variance = self.widths**2 + sigma**2
        shares = (self.weights.log() - variance.log() / 2 - (x - self.means) ** 2 / (2 * variance)).softmax(1)
        clean = self.means + self.widths**2 / variance * (x - self.means)
        return (shares * clean).sum(1, keepdim=True)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        quantiles = self._cdf(x.numpy(), start)
        found = [brentq(lambda y, q=q: self._cdf(np.array([y]), end)[0] - q, -30, 30, xtol=1e-14) for q in quantiles]
        return torch.tensor(found, dtype=DOUBLE)[:, None]

    def _cdf(self, x: np.ndarray, sigma: float) -> np.ndarray:
        widths = np.sqrt(self.widths.numpy() ** 2 + sigma**2)
        return norm.cdf((x.reshape(-1, 1) - self.means.numpy()) / widths) @ self.weights.numpy()


def two_bumps() -> Mixture:
    return Mixture(*(torch.tensor(v, dtype=DOUBLE) for v in ([0.35, 0.65], [-1.1, 0.6], [0.5, 0.3])))
