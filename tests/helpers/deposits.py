"""Random deposits and sizes for property tests of segmentation."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from calograd.events.ragged import Deposits


def random_deposits(seed: int, showers: int = 5, mean: int = 60, width: float = 8.0, depth: float = 30.0) -> Deposits:
    """Deposits within and beyond any window of the tests; every third shower has none."""
    rng = np.random.default_rng(seed)
    counts = [0 if s % 3 == 2 else int(rng.integers(1, 2 * mean)) for s in range(showers)]
    n = sum(counts)
    x, y = (rng.normal(0, width / 2, n).astype(np.float32) for _ in range(2))
    z = rng.uniform(-1, depth, n).astype(np.float32)
    e = rng.exponential(1e-3, n).astype(np.float32)
    t = (z / 30 + rng.exponential(0.1, n)).astype(np.float32)
    return Deposits(x, y, z, e, np.concatenate([[0], np.cumsum(counts)]), t=t)


seeds = st.integers(0, 2**32 - 1)
pitches = st.floats(0.5, 4)
depths = st.floats(1, 10)
