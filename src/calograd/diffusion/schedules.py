"""Noise schedules: the noise levels of training and of sampling.

A noisy sample is x = x0 + sigma * n with n ~ N(0, 1): the variance-exploding form of Karras et al. (EDM,
arXiv 2206.00364). The variance-preserving processes of DDPM (arXiv 2006.11239) and of the cosine schedule
(arXiv 2102.09672) are the same process in other coordinates, x_vp = alpha x, with

    sigma = sqrt(1 / alpha_bar - 1),      alpha_bar_t = prod_s (1 - beta_s),

so every schedule here is a distribution of sigma for training and a grid of sigma that falls to zero for sampling.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import pi
from typing import Protocol

import torch
from torch import Tensor

from calograd.system.random_numbers import RandomNumbers


class Schedule(Protocol):
    """Distribution of noise levels in training, and their grid in sampling."""

    def draw(self, random: RandomNumbers, *, like: Tensor) -> Tensor:
        """Return noise levels for training, shape (n,)."""
        ...

    def grid(self, steps: int) -> Tensor:
        """Return noise levels that fall to zero, shape (steps + 1,), float64."""
        ...


@dataclass(frozen=True)
class Karras:
    """EDM: ln sigma ~ N(mean, std^2) in training; sigma^(1/rho) evenly spaced in sampling (eq. 5).

    The defaults are for data of unit variance (EDM's are for 0.5) and cover the angle arctan(sigma) about evenly.
    """

    mean: float = -0.3
    std: float = 1.5
    sigma_min: float = 0.005
    sigma_max: float = 40.0
    rho: float = 7.0

    def draw(self, random: RandomNumbers, *, like: Tensor) -> Tensor:
        """Return noise levels for training, shape (n,)."""
        return (self.mean + self.std * random.normal(like=like)).exp()

    def grid(self, steps: int) -> Tensor:
        """Return noise levels that fall to zero, shape (steps + 1,), float64."""
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1, dtype=torch.float64)
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return torch.cat([(high + ramp * (low - high)) ** self.rho, ramp.new_zeros(1)])


@dataclass(frozen=True)
class _VariancePreserving(ABC):
    """A discrete variance-preserving process of ``timesteps`` steps."""

    timesteps: int = 1000

    @abstractmethod
    def alpha_bar(self) -> Tensor:
        """Return the share of the signal's variance at every time step, shape (timesteps,), float64."""

    def sigmas(self) -> Tensor:
        """Return the noise level at every time step, rising, shape (timesteps,), float64."""
        return (1 / self.alpha_bar() - 1).sqrt()

    def draw(self, random: RandomNumbers, *, like: Tensor) -> Tensor:
        """Return noise levels at uniformly drawn time steps, shape (n,)."""
        return self.sigmas().to(like)[random.integers(self.timesteps).to(like.device)]

    def grid(self, steps: int) -> Tensor:
        """Return noise levels at evenly spaced time steps, falling to zero, shape (steps + 1,), float64.

        There are no more levels than time steps: above ``timesteps``, ``steps`` count as that.
        """
        steps = min(steps, self.timesteps)
        times = torch.linspace(self.timesteps - 1, 0, steps).round().long()
        return torch.cat([self.sigmas()[times], torch.zeros(1, dtype=torch.float64)])


@dataclass(frozen=True)
class Linear(_VariancePreserving):
    """DDPM: beta rises linearly from 1e-4 to 0.02."""

    def alpha_bar(self) -> Tensor:
        """Return the share of the signal's variance at every time step, shape (timesteps,), float64."""
        return (1 - torch.linspace(1e-4, 0.02, self.timesteps, dtype=torch.float64)).cumprod(0)


@dataclass(frozen=True)
class Cosine(_VariancePreserving):
    """Improved DDPM: alpha_bar follows a squared cosine (eq. 17), beta clipped at 0.999."""

    offset: float = 0.008

    def alpha_bar(self) -> Tensor:
        """Return the share of the signal's variance at every time step, shape (timesteps,), float64."""
        t = torch.arange(self.timesteps + 1, dtype=torch.float64) / self.timesteps
        f = torch.cos((t + self.offset) / (1 + self.offset) * pi / 2) ** 2
        return (f[1:] / f[:-1]).clamp(min=1e-3).cumprod(0)


def angle_grid(sigma_max: float | Tensor, steps: int) -> Tensor:
    """Return noise levels with evenly spaced angles arctan(sigma), falling to zero, shape (steps + 1,), float64."""
    top = torch.as_tensor(sigma_max, dtype=torch.float64).atan()
    return (top * torch.linspace(1, 0, steps + 1, dtype=torch.float64)).tan()


SCHEDULES: dict[str, Schedule] = {"karras": Karras(), "linear": Linear(), "cosine": Cosine()}
