"""The autoencoder that points are compared with, which is a script of ``validation/``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from calograd.events.layered_readout import GRID, THRESHOLD, read_out
from calograd.events.point_showers import PointShowers, read_points, write_points
from calograd.training.log import read_log

SCRIPT = Path(__file__).parents[2] / "validation" / "grid_vae.py"
Make = Callable[..., PointShowers]


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grid_vae", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_trains_and_samples(
    script: ModuleType, tmp_path: Path, make_clouds: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(Path("points.h5"), make_clouds(60))
    monkeypatch.setattr(sys, "argv", ["grid_vae.py", "train", "points.h5", "--steps", "20", "-o", "vae"])
    script.main()
    assert [entry["step"] for entry in read_log(Path("vae"))] == [20]
    monkeypatch.setattr(sys, "argv", ["grid_vae.py", "sample", "vae", "--like", "points.h5", "-o", "made.h5"])
    script.main()
    made = read_points(Path("made.h5"))
    np.testing.assert_allclose(made.energy, read_points(Path("points.h5")).energy)
    hits = read_out(made)
    assert len(hits.e) == len(made.e) > 0  # every point is a hit of its own in the view
    assert hits.i.min() >= -GRID // 2
    assert hits.i.max() < GRID // 2


def test_rings_share_what_their_cells_hold(script: ModuleType, make_clouds: Make) -> None:
    hits = read_out(make_clouds(50)).within()
    share, mean, deviation, highest = script.by_rings(hits)
    found = np.zeros(share.shape)
    np.add.at(found, (hits.layer, hits.i + GRID // 2, hits.j + GRID // 2), 1)
    ring = [(15, 14), (15, 16), (14, 15), (16, 15)]
    for layer in (8, 12):
        expected = np.mean([found[layer, i, j] for i, j in ring]) / 50
        assert [share[layer, i, j] for i, j in ring] == pytest.approx([expected] * 4)
    assert share.sum() * 50 == pytest.approx(len(hits.e), rel=0.2)
    assert share.min() > 0
    s = np.log(hits.e / THRESHOLD - 1)
    assert (deviation, highest) == pytest.approx((s.std(), s.max()))
    assert s.min() < mean.min() < s.mean() < mean.max() < s.max()
