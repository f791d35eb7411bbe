from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calograd.errors import InputError, Interrupted, OutputExistsError
from calograd.events.clouds import Clouds, write_clouds
from calograd.events.grids import Grids
from calograd.events.layered_readout import THRESHOLD
from calograd.surrogate import CloudSurrogate
from calograd.training.data.points import Split, split_points
from calograd.training.log import read_log
from calograd.training.loop import CHECKPOINT
from calograd.training.points.config import GridRunConfig, parse_grid_config
from calograd.training.points.grids import by_rings, train_grids

Make = Callable[..., Clouds]


@pytest.fixture
def folder(tmp_path: Path, make_clouds: Make) -> Path:
    write_clouds(tmp_path / "points.h5", make_clouds(60))
    return tmp_path


def config_of(folder: Path, **training: Any) -> GridRunConfig:
    few = {"steps": 40, "batch": 8, "warmup": 2, "report_every": 20}
    raw = {"name": "tiny-vae", "data": {"files": ["points.h5"], "validation": 0.2}, "range": {"energy": [12, 88]},
           "model": {"kind": "grid30", "width": 8, "code": 4}, "training": few | training}  # fmt: skip
    return parse_grid_config(raw, "vae.toml", folder)


def split_of(config: GridRunConfig) -> Split:
    return split_points(config.data.files, config.data.validation, config.range.energy, config.training.seed)


def test_a_run_learns_and_makes_a_surrogate(folder: Path) -> None:
    config = config_of(folder)
    train_grids(config, split_of(config), folder / "run")
    reports = read_log(folder / "run")
    assert [r["step"] for r in reports] == [20, 40]
    assert sum(reports[-1]["losses"].values()) < sum(reports[0]["losses"].values())
    assert abs(reports[-1]["bias"]["N_hits"]) < 15
    surrogate = CloudSurrogate.load(folder / "run")
    assert (surrogate.card.kind, surrogate.card.clustering) == ("grid30", "crossings")
    points = surrogate.sample(torch.tensor([20.0, 80.0]), 2, generator=torch.Generator().manual_seed(0))
    assert bool((points.offsets.diff() > 0).all())


def test_rings_share_what_their_cells_hold(make_clouds: Make) -> None:
    grids = Grids.of(make_clouds(50))
    share, mean, deviation, highest = by_rings(grids)
    found = np.bincount(grids.cell, minlength=share.size).reshape(share.shape)
    # of a ring of four cells at a distance of one, and of the whole view
    ring = [(15, 14), (15, 16), (14, 15), (16, 15)]
    for layer in (8, 12):
        expected = np.mean([found[layer, i, j] for i, j in ring]) / 50
        assert [share[layer, i, j] for i, j in ring] == pytest.approx([expected] * 4)
    assert share.sum() * 50 == pytest.approx(len(grids.cell), rel=0.2)
    assert share.min() > 0
    s = np.log(grids.e / THRESHOLD - 1)
    assert (deviation, highest) == pytest.approx((s.std(), s.max()))
    assert s.min() < mean.min() < s.mean() < mean.max() < s.max()


def test_an_interrupted_run_ends_as_one_that_was_not(folder: Path) -> None:
    config = config_of(folder)
    whole = train_grids(config, split_of(config), folder / "whole")

    def interrupt(phase: str, step: int, steps: int, loss: float) -> None:
        if step == 20:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="goes on from it"):
        train_grids(config, split_of(config), folder / "run", progress=interrupt)
    resumed = train_grids(config, split_of(config), folder / "run")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    config = config_of(folder)
    train_grids(config, split_of(config), folder / "run")
    with pytest.raises(InputError, match=r"training\.batch is 4, was 8"):
        train_grids(config_of(folder, batch=4), split_of(config), folder / "run")
    (folder / "run" / CHECKPOINT).unlink()
    with pytest.raises(OutputExistsError, match="no checkpoint"):
        train_grids(config, split_of(config), folder / "run")
    with pytest.raises(InputError, match=r"unknown key 'training\.step'; did you mean 'steps'"):
        config_of(folder, step=3)
    split = split_of(config)
    dim = replace(split, train=replace(split.train, e=np.full_like(split.train.e, 1e-9)))
    with pytest.raises(InputError, match="no shower has a cell above"):
        train_grids(config, dim, folder / "dim")
