from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.made_up import made_up_cells, tiny_config
from test_train_maps import made_up_maps

from calograd.errors import InputError, Interrupted
from calograd.events.dense import extent_of, write_cells, write_maps
from calograd.training.config import DesignRun, parse_config
from calograd.training.data import rows as data_module
from calograd.training.data import streaming as stream
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.data.streaming import REUSE, Block, Window, check_memory
from calograd.training.log import read_log
from calograd.training.loop import CHECKPOINT
from calograd.training.train import train

MEMORY = 0.09
"""MB: about a third of the rows below, beside their energies and sizes."""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files of 600 rows each, in blocks of 32 rows."""
    monkeypatch.setattr(stream, "BLOCK", 1)
    monkeypatch.setattr(stream, "COLUMNS", 20)
    monkeypatch.setattr("calograd.events.dense.CHUNK", 32 * 18)
    for number in range(2):
        made = made_up_cells(showers=300, designs=2, seed=number)
        write_cells(tmp_path / f"{number}.h5", replace(made, config={"simulation": {"seed": number}}))
    return [tmp_path / "0.h5", tmp_path / "1.h5"]


def streamed(files: list[Path], memory: float = MEMORY, validation: float = 0.2) -> TrainingData:
    data = load_data(files, validation, 0, memory=memory)
    assert data.window is not None
    return data


def test_the_split_is_that_of_rows_in_memory(files: list[Path]) -> None:
    ours, theirs = streamed(files), load_data(files, 0.2, 0)
    assert (ours.showers, ours.held_out, ours.empty) == (theirs.showers, theirs.held_out, theirs.empty)
    for name in ("energy", "dx", "dz"):
        assert torch.equal(getattr(ours.train, name), getattr(theirs.train, name))
    for name in ("cells", "energy", "dx", "dz"):
        assert torch.equal(getattr(ours.validation, name), getattr(theirs.validation, name))
    assert ours.provenance == theirs.provenance
    assert ours.kind == theirs.kind


def test_rows_in_memory_are_those_of_the_files(files: list[Path]) -> None:
    ours, theirs = streamed(files), load_data(files, 0.2, 0)
    generator, every = torch.Generator().manual_seed(1), []
    for step in range(0, 400, 7):
        ours.move_to(0, step, 32)
        rows = ours.draw(64, generator)
        found = ours.rows(rows)
        assert torch.equal(found.cells, theirs.train.cells[rows])
        assert torch.equal(found.dx, theirs.train.dx[rows])
        every.append(rows)
    drawn = torch.bincount(torch.cat(every), minlength=len(ours.train))
    assert (drawn > 0).float().mean() > 0.9  # all blocks come by
    assert len(torch.unique(every[0])) <= len(ours.window.rows()) < len(ours.train) / 2


def test_maps_are_streamed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BLOCK", 1)
    monkeypatch.setattr("calograd.events.dense.CHUNK", 8 * 1024)
    write_maps(tmp_path / "maps.h5", made_up_maps())
    ours, theirs = streamed([tmp_path / "maps.h5"], 0.3), load_data([tmp_path / "maps.h5"], 0.2, 0)
    assert ours.kind == "maps"
    assert str(ours.window) == "4 of 10 blocks of rows in memory, 0 MB"
    for step in (0, 40):
        ours.move_to(2, step, 8)
        rows = ours.draw(30, torch.Generator().manual_seed(step))
        assert torch.equal(ours.rows(rows).cells, theirs.train.cells[rows])


def test_the_window_follows_from_phase_and_step_alone(files: list[Path]) -> None:
    walked, jumped = streamed(files), streamed(files)
    for step in range(120):
        walked.move_to(2, step, 32)
    jumped.move_to(2, 119, 32)
    assert torch.equal(walked.window.rows(), jumped.window.rows())
    draws = [data.draw(50, torch.Generator().manual_seed(4)) for data in (walked, jumped)]
    assert torch.equal(*draws)
    assert torch.equal(walked.rows(draws[0]).cells, jumped.rows(draws[0]).cells)
    walked.move_to(1, 119, 32)
    assert not torch.equal(walked.window.rows(), jumped.window.rows())


def test_a_row_is_drawn_as_often_as_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window slides by a block for every `REUSE` times its rows drawn, through all of them before any again."""
    reads: list[int] = []
    blocks = [Block(Path(str(k)), slice(0, 10)) for k in range(20)]

    def read(path: Path, rows: slice) -> object:
        reads.append(int(str(path)))
        return replace(made_up_cells(5), cells=np.zeros((10, 3, 3, 2), np.float32))

    monkeypatch.setattr(stream, "read_dense", read)
    window = Window(blocks, [np.arange(10)] * 20, (3, 3, 2), 720.0 * (5 + stream.BESIDE), 0)
    window.move_to(0, 0)
    assert len(reads) == 5
    for drawn in range(0, 40 * 10 * REUSE, 10):
        window.move_to(0, drawn)
    assert len(reads) == pytest.approx(5 + 39, abs=2)  # a block that is still there is not read again
    counts = np.bincount(reads[:20], minlength=20)
    assert counts.tolist() == [1] * 20


def test_partners_are_in_memory_together(files: list[Path]) -> None:
    data = streamed(files)
    assert data.partner is not None
    generator = torch.Generator().manual_seed(0)
    for step in (0, 50, 100):
        data.move_to(0, step, 16)
        first, partner = data.draw_pairs(40, generator)
        assert torch.equal(data.train.energy[first], data.train.energy[partner])
        assert set(partner.tolist()) <= set(data.window.rows().tolist())
        assert torch.equal(data.rows(partner).cells, load_data(files, 0.2, 0).train.cells[partner])


def test_what_fits_stays_as_it_is(files: list[Path]) -> None:
    data = load_data(files, 0.2, 0, memory=100)
    assert data.window is None
    assert torch.equal(data.train.cells, load_data(files, 0.2, 0).train.cells)


def test_too_little_memory(files: list[Path]) -> None:
    with pytest.raises(InputError, match=r"data.memory = 0.02 MB is too little for 1200 rows; expected 1 or more"):
        load_data(files, 0.2, 0, memory=0.02)
    check_memory(1, [extent_of(path) for path in files])


def test_few_rows_are_validated_on(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "MAX_ROWS", 50)
    data, whole = streamed(files), load_data(files, 0.2, 0)
    assert len(data.validation) == 50
    known = {row.numpy().tobytes() for row in whole.validation.cells}
    assert all(row.numpy().tobytes() in known for row in data.validation.cells)


@pytest.mark.parametrize("memory", [None, 10 * MEMORY])
@pytest.mark.usefixtures("files")
def test_balanced_rows_are_drawn_evenly_over_the_logarithm_of_the_energy(tmp_path: Path, memory: float | None) -> None:
    """Of 10 GeV and more there are a sixth as many rows as below, where half of the logarithms are."""
    made = made_up_cells(showers=4000, seed=2)
    write_cells(tmp_path / "few.h5", made.rows(np.flatnonzero((made.energy < 10) | (made.shower % 6 == 0))))
    for balanced, expected in ((True, 0.5), (False, 1 / 7)):
        data = load_data([tmp_path / "few.h5"], 0.4, 0, memory=memory, balanced=balanced)
        assert (data.window is None) == (memory is None)
        generator, drawn = torch.Generator().manual_seed(1), []
        for step in range(60):
            data.move_to(0, step, 512)
            drawn.append(data.draw(512, generator))
        share = float((data.train.energy[torch.cat(drawn)] >= 10).double().mean())
        assert share == pytest.approx(expected, abs=0.03)
        chosen = data.validation_sample(generator)
        assert float((chosen.energy >= 10).double().mean()) == pytest.approx(expected, abs=0.08)
        again = load_data([tmp_path / "few.h5"], 0.4, 0, memory=memory, balanced=balanced)
        again.move_to(0, 0, 512)
        assert torch.equal(again.draw(512, torch.Generator().manual_seed(1)), drawn[0])


def config_of(folder: Path, **data: object) -> DesignRun:
    raw = tiny_config(folder).model_dump(mode="json", exclude={"distillation"})
    return parse_config(raw | {"data": {"files": ["0.h5", "1.h5"], "validation": 0.2} | data}, "tiny.toml", folder)


def test_a_streamed_training_learns_and_resumes_to_the_same_weights(files: list[Path], tmp_path: Path) -> None:
    config = config_of(tmp_path, memory=MEMORY)

    def load() -> TrainingData:
        return load_data(config.data.files, 0.2, 0, memory=config.data.memory)

    def interrupt(phase: str, step: int, steps: int, loss: float) -> None:
        if (phase, step) == ("diffusion", 20):
            signal.raise_signal(signal.SIGINT)

    whole = train(config, tmp_path / "whole", data=load())
    with pytest.raises(Interrupted):
        train(config, tmp_path / "cut", data=load(), progress=interrupt)
    again = train(config, tmp_path / "cut", data=load())
    for (name, ours), theirs in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    other = config_of(tmp_path)
    train(other, tmp_path / "in-memory", data=load_data(other.data.files, 0.2, 0))
    losses = [read_log(tmp_path / name)[-1]["validation_loss"] for name in ("whole", "in-memory")]
    assert losses[0] == pytest.approx(losses[1], rel=0.3)
    assert (tmp_path / "cut" / CHECKPOINT).exists()


@pytest.mark.parametrize("memory", [None, 1.5 * MEMORY])
def test_files_and_folders_are_not_read_twice(files: list[Path], memory: float | None) -> None:
    assert load_data([files[0].parent], 0.2, 0, memory=memory).showers == 600
    with pytest.raises(InputError, match=r"0.h5 holds the same rows as .*0.h5; leave one out"):
        load_data([files[0].parent, files[0]], 0.2, 0, memory=memory)
    (files[0].parent / "2.h5").write_bytes(files[0].read_bytes())
    with pytest.raises(InputError, match=r"2.h5 holds the same rows as .*0.h5; leave one out"):
        load_data([files[0].parent], 0.2, 0, memory=memory)


def test_a_file_of_other_cells(files: list[Path], tmp_path: Path) -> None:
    write_cells(tmp_path / "2.h5", made_up_cells(showers=300, n_z=4))
    with pytest.raises(InputError, match=r"2.h5 has cells \(3, 3, 4\), .*0.h5 has \(3, 3, 2\)"):
        load_data([*files, tmp_path / "2.h5"], 0.2, 0, memory=0.2)
