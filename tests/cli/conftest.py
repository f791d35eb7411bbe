"""What tests of commands share: a surrogate with random weights, as small as they come, and cells to compare with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.tiny import SMALL, fresh_surrogate

from calograd.detector.material import Material
from calograd.events.dense import Cells


def tiny_surrogate(folder: Path, distilled_steps: tuple[int, int] | None = None) -> Path:
    """A folder that `Surrogate.load` reads; 1 to 100 GeV, dx 1 to 5 cm, dz 4 to 15 cm."""
    fresh_surrogate("tiny", replace(SMALL, distilled_steps=distilled_steps)).save(folder)
    return folder


def random_cells(energies: list[float], dx: np.ndarray, dz: np.ndarray, seed: int = 0) -> Cells:
    """Smooth random showers, one a row of dx and dz (cm), with energies (GeV) in turn."""
    rng = np.random.default_rng(seed)
    n = len(dx)
    energy = np.resize(np.array(energies), n)
    cells = rng.gamma(2.0, 1.0, (n, 5, 5, 5)) * np.exp(-np.abs(np.arange(5) - 2))[:, None, None]
    cells *= (energy * rng.normal(0.95, 0.005, n) / cells.sum((1, 2, 3)))[:, None, None, None]
    depths = np.broadcast_to(dz[:, None], (n, 5))
    return Cells(
        cells.astype(np.float32), energy.astype(np.float32), dx.astype(np.float32), depths.astype(np.float32),
        np.arange(n), Material.parse("PbF2"), "geant4",
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the surrogate."""
    return str(tiny_surrogate(tmp_path_factory.mktemp("surrogate") / "tiny"))


@pytest.fixture(scope="session")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of one that is distilled into 2 steps of the shape and one of the pattern."""
    return str(tiny_surrogate(tmp_path_factory.mktemp("surrogate") / "distilled", (2, 1)))


@pytest.fixture
def make_cells() -> Callable[..., Cells]:
    """See `random_cells`."""
    return random_cells


@pytest.fixture
def neighbours() -> Cells:
    """Cells of 10 GeV at 2.5 x 6 cm and 4 % around it, the same shower numbers at each."""
    steps = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    parts = [
        random_cells([10.0], np.full(12, 2.5 * np.exp(0.04 * i)), np.full(12, 6.0 * np.exp(0.04 * j))) for i, j in steps
    ]
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("cells", "energy", "dx", "dz", "shower"))
    return Cells(*columns, parts[0].material, "geant4")
