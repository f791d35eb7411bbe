"""Location and scale of every number of a vector, given its conditions: a smooth conditional standardisation.

With location m, scale s (the scale of a Student t with nu = 4 fitted by maximum likelihood, hence set by the bulk and
not by rare outliers) a number c becomes

    x = 2 asinh((c - m) / 2 s)            c = m + 2 s sinh(x / 2)

which is linear in the bulk and logarithmic in the tails: a photon that converts late, twenty scales off, is at six.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from calograd.nn.elementwise import exp
from calograd.nn.linear import output_of_items

NU = 4.0
FARTHEST = 14.0
"""Largest standardised number; farther ones are held there, e^7 scales from the location."""


class ConditionalLocationScale(nn.Module):
    """Location and scale as a network of the conditions.

    Args:
        conditions: number of conditions.
        symmetry_class: index from 0 for each number, shape (dim,); numbers of equal index share location and scale.
        width: width of the hidden layers.
        floor: smallest scale.
    """

    def __init__(self, conditions: int, symmetry_class: Tensor, width: int = 128, floor: float = 2e-3) -> None:
        super().__init__()
        self.register_buffer("symmetry_class", symmetry_class)
        self.symmetry_class: Tensor
        self.floor = floor
        self.network = nn.Sequential(
            nn.Linear(conditions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2 * (int(symmetry_class.max()) + 1)),
        )  # fmt: skip

    def start_from(self, location: Tensor, scale: Tensor) -> None:
        """Make location and scale, shape (dim,), the same for all conditions: a start for the training."""
        shared = torch.bincount(self.symmetry_class).to(location)
        values = (location, (scale - self.floor).clamp(min=self.floor).log())
        means = [torch.zeros_like(shared).index_add(0, self.symmetry_class, value) / shared for value in values]
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.weight.zero_()
            last.bias.copy_(torch.cat(means))

    def asymmetric_weights(self) -> dict[str, Tensor]:
        """Return weights of the same function where no number shares location and scale with another."""
        last, groups = f"network.{len(self.network) - 1}", int(self.symmetry_class.max()) + 1
        rows = torch.cat([self.symmetry_class, self.symmetry_class + groups])
        weights = self.state_dict()
        own = {f"{last}.{kind}": weights[f"{last}.{kind}"][rows] for kind in ("weight", "bias")}
        return weights | own | {"symmetry_class": torch.arange(len(rows) // 2, device=rows.device)}

    def forward(self, conditions: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale, each of shape (n, dim)."""
        return self.location_scale_of(self.network(conditions))

    def of_items(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return location and scale of several items of each sample, shape (n, items, dim) each.

        They are those of `forward` for the conditions of every item.

        Args:
            parts: of the conditions, one behind the other, shape (n, items, k) each, where n or items may be 1: what
                all items of a sample have in common, or all samples of an item.
        """
        output, shape = output_of_items(self.network, parts)
        location, scale = self.location_scale_of(output)
        return location.reshape(*shape, -1), scale.reshape(*shape, -1)

    def location_scale_of(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and scale of what the network returns, shape (n, 2 classes) or (n, 2 classes, items)."""
        location, log_scale = output.chunk(2, dim=1)
        scale = scale_of(log_scale, self.floor)
        return location.index_select(1, self.symmetry_class), scale.index_select(1, self.symmetry_class)

    def negative_log_likelihood(self, c: Tensor, conditions: Tensor) -> Tensor:
        """Return -ln L of a Student t for every number of every sample, up to a constant, shape (n, dim)."""
        return likelihood(c, *self.forward(conditions))

    def standardise(self, c: Tensor, conditions: Tensor) -> Tensor:
        """Return x of c, shape (n, dim)."""
        return standardise(c, *self.forward(conditions))

    def restore(self, x: Tensor, conditions: Tensor) -> Tensor:
        """Return c of x, shape (n, dim); ``conditions`` may be one row for all."""
        return restore(x, *self.forward(conditions))


def scale_of(log_scale: Tensor, floor: float | Tensor) -> Tensor:
    """Return the scale from a network's logarithm of it; not below ``floor``."""
    return exp(log_scale.clamp(-10, 6)) + floor


def likelihood(c: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Return the negative logarithm of the Student t's density at c, up to a constant."""
    return scale.log() + (NU + 1) / 2 * ((c - location) / scale).square().div(NU).log1p()


def standardise(c: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Return x of c."""
    return (2 * _asinh((c - location) / (2 * scale))).clamp(-FARTHEST, FARTHEST)


def _asinh(u: Tensor) -> Tensor:
    """Return asinh(u), as exact as PyTorch's, which is not vectorised and takes six times as long."""
    if torch.compiler.is_compiling():  # ONNX knows asinh and no log1p
        return u.asinh()
    sign = torch.ones_like(u).copysign(u.detach())  # where() is slow, and the derivative of abs() is 0 at 0
    a = sign * u
    square = a.square()
    return sign * (a + square / (1 + (1 + square).sqrt())).log1p()


def restore(x: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    """Return c of x."""
    return torch.addcmul(location, scale, torch.sinh(x.clamp(-FARTHEST, FARTHEST) / 2), value=2)
