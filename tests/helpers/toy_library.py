"""A small shower library without Geant4."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calograd.detector.configuration import SimulationConfig
from calograd.events.deposits import Showers
from calograd.events.library.schema import Provenance, pack


def write_toy_library(path: Path, config: SimulationConfig) -> Path:
    """Sixty showers of 10 and 50 GeV in turn: 3 000 deposits each, normal across, gamma along."""
    rng = np.random.default_rng(5)
    n, each = 60, 3000
    energy = np.resize(np.float32([10.0, 50.0]), n)
    share = rng.gamma(1.0, size=(n, each))
    share *= (0.97 * energy / share.sum(1))[:, None]
    across = rng.normal(0, 2.0, (2, n, each))
    along = rng.gamma(4.0, 2.0, (n, each))
    showers = Showers(
        x=across[0].ravel().astype(np.float32), y=across[1].ravel().astype(np.float32),
        z=along.ravel().astype(np.float32), e=share.ravel().astype(np.float32),
        offsets=np.arange(0, n * each + 1, each), energy=energy, index=np.arange(n), seed=np.arange(n),
    )  # fmt: skip
    path.write_bytes(pack(showers, Provenance(config, "11.4.1", "none")))
    return path
