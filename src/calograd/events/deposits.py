"""What a kernel hands over: showers as flat arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Showers:
    """Some showers; shower s owns deposits ``offsets[s]:offsets[s + 1]``.

    Args:
        x: transverse position of every deposit, shape (deposits,), cm, float32.
        y: likewise.
        z: depth behind the front face, shape (deposits,), cm, float32.
        e: deposited energy, shape (deposits,), GeV, float32.
        offsets: shape (n + 1,), int64.
        energy: incident energy of every shower, shape (n,), GeV, float32.
        index: which showers of the simulation they are, shape (n,), int64.
        seed: seed of Geant4's engine for every shower, shape (n,), uint64.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    e: np.ndarray
    offsets: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    seed: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)
