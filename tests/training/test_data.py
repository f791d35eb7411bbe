from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers.made_up import made_up_cells

from calograd.detector.material import DESCRIPTORS, MATERIALS
from calograd.errors import FormatError, InputError
from calograd.events.dense import Cells, write_cells
from calograd.events.segmentation import GDML
from calograd.training.data.balance import MOST, even_odds
from calograd.training.data.rows import TrainingData, load_data


def store(folder: Path, *parts: Cells) -> list[Path]:
    paths = [folder / f"{number}.h5" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_cells(path, part)
    return paths


def energies(data: TrainingData) -> tuple[set[float], set[float]]:
    """Made-up showers differ in energy, so energies tell which showers have rows in either half."""
    return set(data.train.energy.tolist()), set(data.validation.energy.tolist())


def test_no_shower_is_in_both_halves(tmp_path: Path) -> None:
    files = store(tmp_path, made_up_cells(40, designs=5))
    data = load_data(files, 0.2, 0)
    train, validation = energies(data)
    assert not train & validation
    assert (len(train), len(validation)) == (32, 8)
    assert (len(data.train), len(data.validation)) == (160, 40)
    assert (data.showers, data.held_out) == (40, 8)
    again, other = load_data(files, 0.2, 0), load_data(files, 0.2, 1)
    assert torch.equal(again.validation.cells, data.validation.cells)
    assert energies(other)[1] != validation


def test_files_of_one_simulation_share_their_showers(tmp_path: Path) -> None:
    one = replace(made_up_cells(40), config={"simulation": {"seed": 1}})
    two = replace(made_up_cells(40, seed=1), config={"simulation": {"seed": 1}})
    data = load_data(store(tmp_path, one, two), 0.2, 0)
    train, validation = energies(data)
    assert data.showers == 40
    assert not train & validation


def test_files_of_other_simulations_do_not(tmp_path: Path) -> None:
    one = replace(made_up_cells(40), config={"simulation": {"seed": 1}})
    two = replace(made_up_cells(40, seed=1), config={"simulation": {"seed": 2}})
    assert load_data(store(tmp_path, one, two), 0.2, 0).showers == 80


def test_rows_without_energy_are_left_out_and_counted(tmp_path: Path) -> None:
    cells = made_up_cells(40)
    cells.cells[[0, 7, 8, 9]] = 0
    data = load_data(store(tmp_path, cells), 0.2, 0)
    assert data.empty == 4
    assert data.showers == 39  # both rows of one shower are empty
    assert len(data.train) + len(data.validation) == 76
    for rows in (data.train, data.validation):
        assert (rows.cells.sum((1, 2, 3)) > 0).all()


def test_nothing_but_empty_rows(tmp_path: Path) -> None:
    cells = made_up_cells(40)
    cells.cells[:] = 0
    with pytest.raises(FormatError, match="no row has any energy"):
        load_data(store(tmp_path, cells), 0.2, 0)


def test_other_numbers_of_cells_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cells \(3, 3, 4\), .* has \(3, 3, 2\)"):
        load_data(store(tmp_path, made_up_cells(), made_up_cells(n_z=4)), 0.2, 0)


def test_every_row_has_the_numbers_of_its_material(tmp_path: Path) -> None:
    lead, bismuth = made_up_cells(40), made_up_cells(30, seed=1, material="BGO")
    data = load_data(store(tmp_path, lead, bismuth, made_up_cells(20, seed=2)), 0.2, 0)
    assert [material.name for material in data.materials] == ["PbF2", "BGO"]
    pitches = {float(dx): 1 for dx in bismuth.dx[2:]}  # drawn pitches tell the rows' files apart
    for rows in (data.train, data.validation):
        numbers = data.numbers(rows, rows.energy.double())
        assert numbers.shape == (len(rows), len(DESCRIPTORS))
        for dx, row in zip(rows.dx.tolist(), numbers.tolist(), strict=True):
            if dx in pitches:
                assert row == [7.13, *(getattr(MATERIALS["BGO"], name) for name in DESCRIPTORS[1:])]
            elif dx not in (1, 5):
                assert row[0] == 7.77
    few = data.train.at(torch.tensor([5, 3]))
    assert torch.equal(data.numbers(few, few.energy), data.numbers(data.train, few.energy)[[5, 3]])
    with pytest.raises(InputError, match="the data are of PbF2, BGO; expected one material"):
        _ = data.material


def test_one_material_is_a_single_row_of_numbers(tmp_path: Path) -> None:
    data = load_data(store(tmp_path, made_up_cells(40), made_up_cells(seed=1)), 0.2, 0)
    assert data.train.which is None
    assert data.numbers(data.train, data.train.energy).shape == (1, len(DESCRIPTORS))
    assert data.material == MATERIALS["PbF2"]


def test_too_few_showers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="19 showers are too few to split off 20%; expected 20 or more"):
        load_data(store(tmp_path, made_up_cells(19)), 0.2, 0)
    (tmp_path / "b").mkdir()
    with pytest.raises(InputError, match=r"4 rows of 2 showers are too few to validate on; .*raise data\.validation"):
        load_data(store(tmp_path / "b", made_up_cells(40)), 0.05, 0)


def test_nan_in_a_file(tmp_path: Path) -> None:
    (path,) = store(tmp_path, made_up_cells())
    with h5py.File(path, "r+") as file:
        file["cells"][5, 0, 0, 0] = np.nan
        file.attrs.pop("digest", None)
    with pytest.raises(FormatError, match="first is row 5"):
        load_data([path], 0.2, 0)


def test_odds_of_energies() -> None:
    some = torch.tensor([1.0, 1, 1, 1, 2, 2, 9])
    assert torch.allclose(even_odds(some), torch.tensor([0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 1], dtype=torch.float64))
    assert torch.equal(even_odds(torch.full((3,), 5.0)), torch.ones(3, dtype=torch.float64))
    rare = even_odds(torch.tensor([1.0] * 1000 + [2.0]))
    assert float(rare.max() / rare.min()) == pytest.approx(MOST)
    u = torch.cat([torch.linspace(0, 2, 4000), torch.linspace(2, 4, 1000)]).double()
    odds = even_odds(u.exp())
    assert float(odds[u < 2].sum() / odds.sum()) == pytest.approx(0.5, abs=0.01)


def test_a_geometry_of_others_need_not_be_symmetric(tmp_path: Path) -> None:
    cells = made_up_cells(40)
    data = load_data(store(tmp_path, cells), 0.2, 0)
    assert (data.symmetric, data.mode) == (True, "embedded")
    (tmp_path / "others").mkdir()
    others = load_data(store(tmp_path / "others", replace(cells, config={"mode": GDML})), 0.2, 0)
    assert (others.symmetric, others.mode) == (False, "GDML geometry")
    assert torch.equal(others.train.cells, data.train.cells)
