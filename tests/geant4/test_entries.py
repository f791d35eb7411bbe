"""A library that is moved and turned, against Geant4 at that entry and direction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calograd import segment, simulate
from calograd.events.dense import Cells
from calograd.events.library.reader import open_library

SHOWERS = 150


@pytest.mark.geant4
def test_a_moved_library_agrees_with_a_simulation_there(tmp_path: Path) -> None:
    place = {"position": (0.5, -0.3), "phi": 50.0}
    simulate(tmp_path / "one.h5", 2.0, SHOWERS, seed=3, theta=20.0)
    simulate(tmp_path / "there.h5", 2.0, SHOWERS, seed=4, theta=20.0, **place)
    found = []
    for name, options in (("one", place), ("there", {})):
        cells = segment(tmp_path / f"{name}.h5", designs=[(1.3, 3.7)], n_xy=5, **options)
        assert isinstance(cells, Cells)
        assert cells.incident.describe() == "gamma entering at x = 0.5, y = -0.3 cm at theta = 20 degrees"
        energy = cells.cells.astype(np.float64)
        x = np.arange(-2, 3) * 1.3
        total = energy.sum((1, 2, 3))
        centre = [(energy.sum((2, 3)) @ x) / total, (energy.sum((1, 3)) @ x) / total]
        found.append(np.stack([total, *centre, *energy.sum((1, 2)).T, *energy[:, 2, 2].T]))
    moved, there = found
    error = np.sqrt((moved.var(1, ddof=1) + there.var(1, ddof=1)) / SHOWERS)
    pulls = (moved.mean(1) - there.mean(1)) / error
    assert np.abs(pulls).max() < 4  # of thirteen
    unmoved = segment(tmp_path / "one.h5", designs=[(1.3, 3.7)], n_xy=5)
    assert isinstance(unmoved, Cells)
    centre = unmoved.cells.sum((2, 3)) @ (np.arange(-2, 3) * 1.3) / unmoved.totals
    assert abs(centre.mean() - there[1].mean()) > 10 * error[1]  # it would see a library that is not moved


@pytest.mark.geant4
def test_a_mixture_holds_what_each_beam_alone_would(tmp_path: Path) -> None:
    """Every shower of a mixture is, bit for bit, that of the beam that it names."""
    particles = ("gamma", "e-", "e+")
    simulate(tmp_path / "mixture.h5", (0.5, 2.0), 9, law="log-uniform", seed=5, particle=particles, theta=(0, 40))
    with open_library(tmp_path / "mixture.h5") as library:
        incident, showers, detector = library.incidence(), library.read(), library.provenance.config.detector
    assert len(set(incident.particle)) > 1
    for number in (0, 4, 8):
        drawn = library.provenance.config.draw(number)[2]
        beam = {"particle": drawn.particle, "theta": drawn.theta}
        path = tmp_path / f"{number}.h5"
        simulate(path, (0.5, 2.0), number + 1, law="log-uniform", seed=5, detector=detector, **beam)
        with open_library(path) as one:
            alone = one.read(number, number + 1)
        for name in ("x", "y", "z", "e", "energy", "seed", "particle", "theta"):
            np.testing.assert_array_equal(getattr(showers.rows([number]), name), getattr(alone, name), err_msg=name)
