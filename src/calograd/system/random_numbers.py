"""Random numbers of showers: those of shower i depend on the seed and on i alone.

Number j of call c of shower i is a hash of (seed, c, i, j), as in the counter-based generators of Salmon et al.
(Parallel random numbers: as easy as 1, 2, 3; SC 2011). The hash is SplitMix64 (Steele et al., Fast splittable
pseudorandom number generators, OOPSLA 2014):

    m(z):  z <- (z ^ (z >> 30)) 0xBF58476D1CE4E5B9,  z <- (z ^ (z >> 27)) 0x94D049BB133111EB,  z ^ (z >> 31)
    w_j  = m(k + j g),    k = m(m(seed + c g) + i g),    g = 0x9E3779B97F4A7C15,    modulo 2^64

The two halves of w_j are two uniform numbers, or by Box and Muller two normal ones. There is no state but the number of
calls. So ten showers are the first ten of a thousand, and batches, threads and devices change nothing.
"""

from __future__ import annotations

from math import pi

import numpy as np
import torch
from torch import Tensor

from calograd.errors import InputError

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = 1 << 64


class RandomNumbers:
    """Random numbers of some showers of one seed.

        numbers = RandomNumbers(seed=7, shower=range(1000))
        noise = numbers.normal(132, like=conditions)     # (1000, 132), of the dtype and on the device of a tensor
        part = numbers.rows(slice(10, 20))               # showers 10 to 19, at the same call

    Every call draws new numbers. Two objects with equal seeds that make the same calls draw the same numbers.

    Args:
        seed: any integer.
        shower: indices of the showers, shape (n,).
        calls: number of calls that are already made.
    """

    def __init__(self, seed: int, shower: np.ndarray | range, calls: int = 0) -> None:
        self.seed = seed
        self.shower = np.asarray(shower, dtype=np.int64).astype(np.uint64)
        self.calls = calls

    @classmethod
    def from_generator(cls, generator: torch.Generator | None, n: int) -> RandomNumbers:
        """Return the numbers of showers 0 to n - 1 of a seed that is drawn from ``generator``, or from torch's own."""
        if not isinstance(generator, torch.Generator | None):
            raise InputError(f"generator = {generator!r}: expected a torch.Generator or None")
        device = "cpu" if generator is None else generator.device
        seed = torch.randint(2**63 - 1, (), generator=generator, dtype=torch.int64, device=device)
        return cls(int(seed), range(n))

    def __len__(self) -> int:
        """Return the number of showers."""
        return len(self.shower)

    def rows(self, rows: slice | np.ndarray) -> RandomNumbers:
        """Return the numbers of some of these showers; both objects draw on independently."""
        return RandomNumbers(self.seed, self.shower[rows], self.calls)

    def normal(self, *shape: int, like: Tensor) -> Tensor:
        """Draw as `normal_array`, with the dtype and on the device of ``like``."""
        return torch.from_numpy(self.normal_array(*shape)).to(like)

    def normal_like(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers with shape, dtype and device of ``like``, a tensor with one row a shower."""
        return self.normal(*like.shape[1:], like=like)

    def uniform(self, *shape: int, like: Tensor) -> Tensor:
        """Draw as `uniform_array`, with the dtype and on the device of ``like``."""
        return torch.from_numpy(self.uniform_array(*shape)).to(like)

    def fractions(self, *shape: int, like: Tensor) -> Tensor:
        """Draw numbers uniform in (0, 1), of 23 bits, with the dtype and on the device of ``like``."""
        count = int(np.prod(shape, dtype=np.int64))
        halves = _hash(self._keys()[:, None] + _steps((count + 1) // 2)).view(np.uint32)
        halves >>= np.uint32(9)
        numbers = halves[:, :count].astype(np.float32)
        numbers += np.float32(0.5)
        numbers *= np.float32(2.0**-23)
        return torch.from_numpy(numbers.reshape(len(self), *shape)).to(like)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Draw whole numbers from 0 to ``high`` - 1, shape (n, *shape), int64."""
        count = int(np.prod(shape, dtype=np.int64))
        words = _hash(self._keys()[:, None] + _steps(count))
        words %= np.uint64(high)
        return torch.from_numpy(words.astype(np.int64).reshape(len(self), *shape))

    def normal_array(self, *shape: int) -> np.ndarray:
        """Draw standard normal numbers, shape (n, *shape), float32; the largest possible is 6.8."""
        count = int(np.prod(shape, dtype=np.int64))
        pairs = (count + 1) // 2
        words = _hash(self._keys()[:, None] + _steps(pairs))
        return _normal(words, count).reshape(len(self), *shape)

    def uniform_array(self, *shape: int) -> np.ndarray:
        """Draw numbers uniform in (0, 1), shape (n, *shape), float64."""
        count = int(np.prod(shape, dtype=np.int64))
        words = _hash(self._keys()[:, None] + _steps(count))
        return _uniform(words).reshape(len(self), *shape)

    def normal_points(self, owner: Tensor, index: Tensor, count: int, *, like: Tensor) -> Tensor:
        """Draw standard normal numbers of points, with the dtype and on the device of ``like``.

        Args:
            owner: row of the shower of each point, 0 to n - 1, shape (m,).
            index: number of the point within its shower, below 2^53, shape (m,). The numbers of a point do not depend
                on the other points.
            count: numbers of a point, at most 2048.

        Returns:
            Shape (m, count).
        """
        words = _hash(self._counters(owner, index)[:, None] + _steps((count + 1) // 2))
        return torch.from_numpy(_normal(words, count)).to(like)

    def uniform_points(self, owner: Tensor, index: Tensor, *, like: Tensor) -> Tensor:
        """Draw one number uniform in (0, 1) for each point, shape (m,); arguments as of `normal_points`."""
        return torch.from_numpy(_uniform(_hash(self._counters(owner, index)))).to(like)

    def _counters(self, owner: Tensor, index: Tensor) -> np.ndarray:
        """Return the counter before the numbers of each point; each point has room for 1024 words."""
        places = index.detach().cpu().numpy().astype(np.uint64) << np.uint64(10)
        counters: np.ndarray = self._keys()[owner.detach().cpu().numpy()] + places * _GOLDEN
        return counters

    def _keys(self) -> np.ndarray:
        """Return the key k of every shower for the next call."""
        self.calls += 1
        stream = _hash(np.array([(self.seed + self.calls * int(_GOLDEN)) % _WORD], dtype=np.uint64))
        return _hash(self.shower * _GOLDEN + stream)


def _steps(count: int) -> np.ndarray:
    """Return 0, g, 2g, ..."""
    return np.arange(count, dtype=np.uint64) * _GOLDEN


def _hash(z: np.ndarray) -> np.ndarray:
    """Apply m to every word, in place."""
    high = z >> np.uint64(30)
    z ^= high
    z *= _FIRST
    np.right_shift(z, np.uint64(27), out=high)
    z ^= high
    z *= _SECOND
    np.right_shift(z, np.uint64(31), out=high)
    z ^= high
    return z


def _uniform(words: np.ndarray) -> np.ndarray:
    """Return the upper 53 bits as numbers in (0, 1)."""
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _normal(words: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` normal numbers a row by Box and Muller, from words of shape (rows, ceil(count / 2))."""
    pairs = words.shape[1]
    radius = (words & np.uint64(0xFFFFFFFF)).astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = (words >> np.uint64(32)).astype(np.float32)
    angle *= np.float32(2 * pi * 2.0**-32)
    numbers = np.empty((len(words), 2 * pairs), dtype=np.float32)
    np.multiply(radius, np.cos(angle), out=numbers[:, :pairs])
    np.multiply(radius, np.sin(angle), out=numbers[:, pairs:])
    return numbers[:, :count]
