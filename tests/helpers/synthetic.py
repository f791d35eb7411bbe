"""Synthetic showers with the traits that matter: a total that fluctuates, layers and columns that are correlated."""

import numpy as np

from calograd.detector.material import Material
from calograd.events.dense import Cells


def showers(
    n: int,
    *,
    seed: int,
    energies: tuple[float, ...] = (1.0, 50.0),
    designs: tuple[tuple[float, float], ...] = ((2.0, 4.0), (3.0, 8.0)),
    scale: float = 1.0,
    width: float = 1.0,
    origin: str = "geant4",
    material: str = "PbF2",
) -> Cells:
    """``n`` showers at every design and energy; ``scale`` distorts the energy, ``width`` the radius."""
    rng = np.random.default_rng(seed)
    rows = [(dx, dz, e) for dx, dz in designs for e in energies for _ in range(n)]
    dx, dz, energy = (np.array(c, dtype=np.float32) for c in zip(*rows, strict=True))
    depth = (np.arange(5) + 0.5) * dz[:, None]
    mean = 6 + np.log(energy) + rng.normal(0, 1, len(rows))
    layers = np.exp(-0.5 * ((depth - mean[:, None]) / 4) ** 2) * rng.gamma(20, 1 / 20, (len(rows), 5))
    x = (np.arange(5) - 2) * dx[:, None]
    spread = width * (1.2 + 0.1 * rng.normal(size=len(rows)))
    across = np.exp(-0.5 * (x / spread[:, None]) ** 2)
    cells = layers[:, None, None, :] * across[:, :, None, None] * across[:, None, :, None]
    cells *= rng.gamma(10, 0.1, cells.shape)
    total = scale * energy * 0.9 * np.exp(-0.03 * np.abs(rng.normal(size=len(rows))))
    cells *= (total / cells.sum((1, 2, 3)))[:, None, None, None]
    return Cells(
        cells.astype(np.float32), energy, dx, np.repeat(dz[:, None], 5, 1), np.arange(len(rows)),
        Material.parse(material), origin, {},
    )  # fmt: skip
