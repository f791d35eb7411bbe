"""The denoiser D(x; sigma, ...): the expected clean sample given a noisy one, and its training loss.

EDM preconditioning (arXiv 2206.00364, table 1), with F the raw network and sd = sigma_data:

    D = c_skip x + c_out F(c_in x; c_noise)
    c_skip = sd^2 / (sigma^2 + sd^2)       c_out = sigma sd / sqrt(sigma^2 + sd^2)
    c_in = 1 / sqrt(sigma^2 + sd^2)        c_noise = ln(sigma) / 4

and the loss is |F - (x0 - c_skip x) / c_out|^2, which is the weighted denoising loss lambda(sigma) |D - x0|^2 with
lambda = 1 / c_out^2. Noise prediction (DDPM) is the same with c_skip = 1, c_out = -sigma, so that F is the noise.

An error of the noise is one of sigma times as much in D, and a U-Net that has to hand through what it sees errs by some
per cent: at sigma = 157, where the linear schedule begins, that is several times the data. Predicting the difference of
the noise from what the network sees, n = c_in x + F with the same loss and c_skip = 1 - sigma c_in, has no such error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from calograd.system.random_numbers import RandomNumbers

Network = Callable[[Tensor, Tensor], Tensor]
"""Raw network F(c_in x, c_noise). Both arguments have the batch first; the caller binds conditions."""


class Coefficients(NamedTuple):
    """Coefficients c_skip, c_out, c_in and c_noise at one noise level, or at one a sample."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


class Preconditioning(Protocol):
    """Coefficients that turn a raw network into a denoiser."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma``."""
        ...


@dataclass(frozen=True)
class Edm:
    """EDM preconditioning for data of standard deviation ``sigma_data``."""

    sigma_data: float = 1.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma``."""
        total = sigma**2 + self.sigma_data**2
        return Coefficients(
            self.sigma_data**2 / total, sigma * self.sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4
        )


@dataclass(frozen=True)
class NoisePrediction:
    """Noise prediction, as in DDPM: F is the noise."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma``."""
        return Coefficients(torch.ones_like(sigma), -sigma, 1 / (1 + sigma**2).sqrt(), sigma.log() / 4)


@dataclass(frozen=True)
class ResidualNoise:
    """Noise prediction with the network's input added to its output: F is the noise less c_in x."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return the four coefficients at noise levels ``sigma``."""
        into = 1 / (1 + sigma**2).sqrt()
        return Coefficients(into**2 / (1 + sigma * into), -sigma, into, sigma.log() / 4)


PRECONDITIONINGS: dict[str, Preconditioning] = {
    "edm": Edm(), "noise": NoisePrediction(), "residual-noise": ResidualNoise(),
}  # fmt: skip


def denoise(network: Network, preconditioning: Preconditioning, x: Tensor, sigma: Tensor) -> Tensor:
    """Return D(x; sigma); ``sigma`` has no dimensions, or one level a sample, shape (n,)."""
    c = preconditioning.coefficients(sigma.reshape(-1, *(1,) * (x.ndim - 1)))
    return c.skip * x + c.out * network(c.into * x, c.noise.flatten())


def loss(
    network: Network, preconditioning: Preconditioning, x0: Tensor, sigma: Tensor, random: RandomNumbers
) -> Tensor:
    """Return the denoising loss of every number of every sample, same shape as ``x0``.

    Args:
        network: F with its conditions bound.
        preconditioning: preconditioning of the denoiser.
        x0: clean samples, shape (n, ...).
        sigma: noise levels, shape (n,).
        random: random numbers of the samples.
    """
    c = preconditioning.coefficients(sigma.reshape(-1, *(1,) * (x0.ndim - 1)))
    noise = random.normal_like(x0)
    x = x0 + sigma.reshape(c.skip.shape) * noise
    target = (x0 - c.skip * x) / c.out
    return (network(c.into * x, c.noise.flatten()) - target).square()
