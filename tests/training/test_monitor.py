from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from helpers.made_up import made_up_cells, tiny_config

from calograd.reports.training import plot_log
from calograd.training.data.rows import Rows, TrainingData, load_data
from calograd.training.distributed import SingleProcess
from calograd.training.log import add_to_log
from calograd.training.monitor import _design_observables, compare, report_rows
from calograd.training.tasks.denoise import denoising
from calograd.training.train import make_task


def rows(cells: torch.Tensor) -> Rows:
    n = len(cells)
    return Rows(cells, torch.linspace(1, 9, n), torch.ones(n), torch.ones(n, cells.shape[3]))


def training_data(folder: Path) -> TrainingData:
    config = tiny_config(folder)
    return load_data(config.data.files, config.data.validation, 0)


def biases(made: torch.Tensor, reference: Rows, showers: int) -> list[dict[str, list[float]]]:
    ours, theirs = (_design_observables(cells, reference) for cells in (made, reference.cells))
    return list(compare(ours, theirs, reference.energy, showers).values())


def test_reference_against_itself_has_no_bias() -> None:
    cells = torch.from_numpy(made_up_cells().cells)
    for bias, error, spread in zip(*(part.values() for part in biases(cells, rows(cells), 80)), strict=True):
        assert bias == error == [0.0, 0.0, 0.0]
        assert spread == [1.0, 1.0, 1.0]


def test_biases_are_those_put_in() -> None:
    cells = torch.from_numpy(made_up_cells().cells)
    bias, _, spread = biases(1.05 * cells, rows(cells), 80)
    np.testing.assert_allclose(bias["E_tot"], 5, atol=1e-3)
    np.testing.assert_allclose(spread["E_tot"], 1.05, atol=1e-3)
    for name in ("R_E", "sigma_y", "z_mean", "z_width"):  # shapes do not change with the scale
        np.testing.assert_allclose(bias[name], 0, atol=1e-3)
    wide = torch.zeros(6, 3, 3, 2)
    wide[:, 0, 1], wide[:, 2, 1] = 1.0, 1.0
    narrow = wide.clone()
    narrow[:, 1, 1] = 6.0
    bias, _, _ = biases(narrow, rows(wide), 6)
    np.testing.assert_allclose(bias["R_E"], 100 * (0.25**0.5 - 1), atol=1e-3)


def test_a_look_is_the_same_every_time_and_plain_json(tmp_path: Path) -> None:
    config, data = tiny_config(tmp_path), training_data(tmp_path)
    model = make_task(config, data, SingleProcess()).model
    reports = [report_rows(model, data, denoising) for _ in range(2)]
    assert reports[0] == reports[1]
    json.dumps(reports[0], allow_nan=False)


def test_what_is_undefined_is_left_out_and_plotted_all_the_same(tmp_path: Path) -> None:
    """With a single layer there is no longitudinal width."""
    config, data = tiny_config(tmp_path), training_data(tmp_path)

    def flat(part: Rows) -> Rows:
        return Rows(part.cells.sum(3, keepdim=True), part.energy, part.dx, part.dz[:, :1])

    data = replace(data, train=flat(data.train), validation=flat(data.validation))
    report = report_rows(make_task(config, data, SingleProcess()).model, data, denoising)
    assert report["bias"]["z_width"] == [None, None, None]
    add_to_log(tmp_path, {"phase": "diffusion", "step": 1, "train_loss": 0.5} | report)
    plot_log(tmp_path, tmp_path / "training.png")
    assert (tmp_path / "training.png").read_bytes().startswith(b"\x89PNG")
