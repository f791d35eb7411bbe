"""A fixed linear map of vectors to unit covariance and back.

    x = W (f - v)        f = v + W^-1 x        W = C^-1/2, symmetric

of the mean v and the covariance C of data: of all maps to unit covariance the one that changes the vectors least.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 0.01
"""Least eigenvalue of C: what varies less, as in fewer vectors than they have numbers, is not blown up."""


class Whitening(nn.Module):
    """Begins as the identity.

    Args:
        dim: numbers of a vector.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        for name, value in (("mean", torch.zeros(dim)), ("forth", torch.eye(dim)), ("back", torch.eye(dim))):
            self.register_buffer(name, value)
        self.mean: Tensor
        self.forth: Tensor
        self.back: Tensor

    def fit(self, f: Tensor) -> None:
        """Set mean and covariance to those of vectors, shape (n, dim)."""
        f = f.double()
        centred = f - f.mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(f))
        scale = values.clamp(min=LEAST).sqrt()
        self.mean.copy_(f.mean(0))
        self.forth.copy_(vectors / scale @ vectors.T)
        self.back.copy_(vectors * scale @ vectors.T)

    def whiten(self, f: Tensor) -> Tensor:
        """x of f, shape (n, dim)."""
        return (f - self.mean) @ self.forth

    def restore(self, x: Tensor) -> Tensor:
        """f of x, shape (n, dim)."""
        return torch.addmm(self.mean, x, self.back)
