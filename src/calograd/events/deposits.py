"""Showers as the deposits of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from calograd.events.ragged import Ragged


@dataclass(frozen=True)
class Showers(Ragged):
    """Showers as deposits; shower s owns the deposits ``offsets[s]:offsets[s + 1]``.

    Args:
        x: transverse position of every deposit, shape (deposits,), cm, float32.
        y: transverse position, likewise.
        z: depth behind the front face, shape (deposits,), cm, float32.
        e: deposited energy, shape (deposits,), GeV, float32.
        offsets: shape (n + 1,), int64.
        energy: incident energy of every shower, shape (n,), GeV, float32.
        index: number of every shower in the simulation, shape (n,), int64.
        seed: seed of Geant4's engine for every shower, shape (n,), uint64.
    """

    FLAT: ClassVar = ("x", "y", "z", "e")
    HEADS: ClassVar = ("energy", "index", "seed")
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    e: np.ndarray
    offsets: np.ndarray
    energy: np.ndarray
    index: np.ndarray
    seed: np.ndarray
