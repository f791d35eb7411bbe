"""A training of seconds on made-up showers of 3 x 3 x 2 cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from calograd.detector.material import MATERIALS
from calograd.events.dense import Cells, write_cells
from calograd.training.config import DesignRun, parse_config


def made_up_cells(showers: int = 40, designs: int = 2, seed: int = 0, material: str = "PbF2", n_z: int = 2) -> Cells:
    """Showers of 1 to 100 GeV whose depth and leakage depend on energy and design; some cells are empty."""
    rng, n = np.random.default_rng(seed), showers * designs
    energy = np.repeat(np.exp(np.linspace(0, np.log(100), showers)), designs)
    dx, dz = np.exp(rng.uniform(0, np.log(5), n)), np.exp(rng.uniform(np.log(4), np.log(15), n))
    dx[:2], dz[:2] = (1, 5), (4, 15)
    depth = (np.arange(n_z) + 0.5)[None] * dz[:, None] / (4 + np.log(energy))[:, None]
    across = np.exp(-np.abs(np.arange(3) - 1)[None] * dx[:, None] / 2)
    mean = across[:, :, None, None] * across[:, None, :, None] * (depth * np.exp(-depth))[:, None, None, :]
    cells = mean * rng.gamma(2.0, size=mean.shape) * (rng.random(mean.shape) > 0.05)
    cells *= (rng.uniform(0.9, 0.98, n) * energy / cells.sum((1, 2, 3)))[:, None, None, None]
    return Cells(
        cells.astype(np.float32), energy.astype(np.float32), dx.astype(np.float32),
        np.repeat(dz[:, None], n_z, 1).astype(np.float32), np.repeat(np.arange(showers), designs),
        MATERIALS[material], "geant4", {"mode": "embedded"},
    )  # fmt: skip


def tables(folder: Path, **training: Any) -> dict[str, Any]:
    """The TOML of a tiny run on ``cells.h5`` in ``folder``, which is written if it is missing."""
    if not (folder / "cells.h5").exists():
        write_cells(folder / "cells.h5", made_up_cells())
    few = {
        "steps": 40,
        "batch": 32,
        "location_scale_steps": 40,
        "location_scale_batch": 32,
        "warmup": 5,
        "report_every": 20,
    }
    return {
        "name": "tiny",
        "data": {"files": ["cells.h5"], "validation": 0.2},
        "range": {"energy": [1.5, 80], "dx": [1.2, 4.5], "dz": [4.5, 13]},
        "model": {
            "shape_width": 16, "shape_blocks": 1, "pattern_width": 16, "pattern_blocks": 1, "embedding": 8,
            "location_scale_width": 8,
        },
        "training": few | {"precision": "fp32"} | training,
    }  # fmt: skip


def tiny_config(folder: Path, **training: Any) -> DesignRun:
    config = parse_config(tables(folder, **training), "tiny.toml", folder)
    assert isinstance(config, DesignRun)
    return config
