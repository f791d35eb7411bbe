from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click import BadParameter
from click.testing import CliRunner, Result

from calograd.cli.sample import sample
from calograd.detector.material import Material
from calograd.errors import FormatError, InputError, OutputExistsError, RangeError
from calograd.events.dense import Cells, read_cells, write_cells
from calograd.surrogate import Card, Surrogate


def call(*arguments: Any) -> Result:
    """Run the command in this process; what it raises is raised."""
    return CliRunner().invoke(sample, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)


def changed(card: Card, **fields: Any) -> Card:
    """A card with other fields of its trained range."""
    return card.model_copy(update={"trained": card.trained.model_copy(update=fields)})


def test_rows_configuration_and_json(tiny: str, tmp_path: Path) -> None:
    output, summary = tmp_path / "made.h5", tmp_path / "made.json"
    result = call(tiny, "--cell", 2.5, 6, "--energy", "1,10", "-n", 30, "--seed", 3, "-o", output, "--json", summary)
    assert result.exit_code == 0
    made = read_cells(output)
    assert len(made) == 60
    assert made.energy[:4].tolist() == [1, 10, 1, 10]
    assert (made.dx == 2.5).all()
    assert (made.dz == 6).all()
    assert made.origin == "tiny"
    assert made.config["seed"] == 3
    assert made.config["sampler"] == "trigflow-ab2"
    assert {"torch", "calograd"} <= set(made.config["versions"])
    plain = json.loads(summary.read_text())
    assert [p["energy"] for p in plain["points"]] == [1, 10]
    assert plain["rows"] == 60


def test_a_distilled_surrogate_takes_its_own_steps_and_takes_no_other_sampler(
    distilled: str, tiny: str, tmp_path: Path
) -> None:
    summary = tmp_path / "made.json"
    call(distilled, "--cell", 2.5, 6, "--energy", 10, "-n", 5, "-o", tmp_path / "made.h5", "--json", summary)
    expected = {"sampler": "progressive", "steps": 1, "evaluations": 1, "shape_evaluations": 2}
    assert expected.items() <= read_cells(tmp_path / "made.h5").config.items()
    assert expected.items() <= json.loads(summary.read_text())["config"].items()
    for model, sampler, words in (
        (distilled, "heun", "is distilled into 2 steps"),
        (tiny, "progressive", "of distilled"),
    ):
        with pytest.raises(InputError, match=words):
            call(model, "--cell", 2.5, 6, "--energy", 10, "--sampler", sampler, "-o", tmp_path / "other.h5")
    assert not (tmp_path / "other.h5").exists()


def test_equal_seeds_give_equal_showers_and_others_do_not(tiny: str, tmp_path: Path) -> None:
    made = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        call(tiny, "--cell", 1, "4", "--energy", "1:100", "-n", 40, "--seed", seed, "-o", tmp_path / name)
        made.append(read_cells(tmp_path / name))
    assert np.array_equal(made[0].cells, made[1].cells)
    assert np.array_equal(made[0].energy, made[1].energy)
    assert not np.array_equal(made[0].cells, made[2].cells)


def test_energy_laws_fill_the_range(tiny: str, tmp_path: Path) -> None:
    for law, expected in (("uniform", 50.5), ("log-uniform", 99 / np.log(100))):
        output = tmp_path / law
        call(tiny, "--cell", 2, 5, "--energy", "1:100", "--law", law, "-n", 2000, "--steps", 1, "-o", output)
        energy = read_cells(output).energy
        assert abs(energy.mean() - expected) < 5 * energy.std() / 2000**0.5
        assert energy.min() >= 1
        assert energy.max() <= 100


def test_like_takes_every_row_of_a_reference(tiny: str, tmp_path: Path, make_cells: Callable[..., Cells]) -> None:
    rng = np.random.default_rng(0)
    reference = make_cells([1, 20, 100], rng.uniform(1, 5, 50), rng.uniform(4, 15, 50))
    write_cells(tmp_path / "reference.h5", reference)
    call(tiny, "--like", tmp_path / "reference.h5", "--repeat", 2, "-o", tmp_path / "made.h5")
    made = read_cells(tmp_path / "made.h5")
    for name in ("energy", "dx", "dz"):
        assert np.array_equal(getattr(made, name), np.repeat(getattr(reference, name), 2, axis=0))
    assert (made.cells.sum((1, 2, 3)) <= made.energy * (1 + 1e-5)).all()


def test_ranges_of_sizes_give_every_shower_a_design(tmp_path: Path, tiny: str) -> None:
    model, output, one = tmp_path / "model", tmp_path / "made.h5", Surrogate.load(tiny)
    Surrogate(one.model, changed(one.card, unequal_layers=True)).save(model)
    call(model, "--cell", "1:5", "4:15", "--unequal", 0.5, "--energy", "1:100", "-n", 2000, "--steps", 1, "-o", output)
    made = read_cells(output)
    for values, low, high in ((made.dx, 1, 5), (made.dz[:, 0], 4, 15), (made.dz[:, 4], 4, 15), (made.energy, 1, 100)):
        u = np.log(values / low) / np.log(high / low)
        assert 0 <= u.min() < 0.01
        assert 0.99 < u.max() <= 1
        assert abs(u.mean() - 0.5) < 0.02
    assert abs((np.ptp(made.dz, axis=1) > 0).mean() - 0.5) < 0.04
    logs = np.log(np.column_stack([made.dx, made.dz[:, 0], made.energy]))
    assert np.abs(np.corrcoef(logs.T) - np.eye(3)).max() < 0.08
    again = tmp_path / "again.h5"
    call(model, "--cell", 2, "4:15", "--energy", 10, "-n", 50, "--steps", 1, "-o", again)
    assert np.ptp(read_cells(again).dz, axis=1).max() == 0
    assert set(read_cells(again).dx) == {2}


GOOD = ("--cell", 2.5, 6, "--energy", 50)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (("--cell", 0.5, 6, "--energy", 50), RangeError, "dx = 0.5 cm is outside 1 to 5 cm"),
        (("--cell", 2.5, 6, "--energy", "50,200"), RangeError, "energy = 200 GeV"),
        (("--cell", 2.5, "4,5,6,8,10", "--energy", 50), RangeError, "different depths"),
        ((*GOOD, "-n", 0), BadParameter, "0 is not in the range x>=1"),
        ((*GOOD, "--steps", 0), BadParameter, "0 is not in the range x>=1"),
        ((*GOOD, "--sampler", "euler"), InputError, "unknown sampler 'euler'"),
        ((*GOOD, "--threads", -1), BadParameter, "-1 is not in the range x>=0"),
        ((*GOOD, "--device", "abacus"), InputError, "abacus"),
        ((*GOOD, "--law", "uniform"), InputError, "needs a range"),
        ((*GOOD, "--repeat", 2), InputError, "--repeat belongs to --like"),
        ((*GOOD, "--like", "x.h5"), InputError, "exclude each other"),
        (("--cell", "nan", 6, "--energy", 50), BadParameter, "'nan' in 'nan'; expected positive"),
        (("--cell", 2.5, "6,7", "--energy", 50), InputError, "one DZ or 5"),
        (("--cell", "3:2", 6, "--energy", 50), BadParameter, "expected LOW:HIGH"),
        (("--cell", "1:2:3", 6, "--energy", 50), BadParameter, "range LOW:HIGH"),
        (("--cell", "0:2", 6, "--energy", 50), BadParameter, "positive"),
        (("--cell", "1:2", "4:8", "--unequal", 1.5, "--energy", 50), BadParameter, "range 0<=x<=1"),
        ((*GOOD, "--unequal", 0.5), InputError, "a range LOW:HIGH of depths"),
        (("--cell", "1:6", 6, "--energy", 50, "-n", 100), RangeError, "outside 1 to 5 cm"),
        (("--like", "x.h5", "--unequal", 0.5), InputError, "exclude each other"),
        (("--cell", 2.5, 6, "--energy", "nan", "--extrapolate"), BadParameter, "positive numbers"),
        (("--cell", 2.5, 6, "--energy", "10:1"), BadParameter, "is no range"),
        (("--cell", 2.5, 6), InputError, "give --cell DX DZ and --energy"),
        (("--like", "missing.h5"), FormatError, "missing.h5 does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_named_before_anything_is_written(
    tiny: str, tmp_path: Path, options: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call(tiny, *options, "-o", tmp_path / "made.h5")
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_outputs_are_never_overwritten_and_folders_must_exist(tiny: str, tmp_path: Path) -> None:
    (tmp_path / "there.h5").write_text("precious")
    with pytest.raises(OutputExistsError):
        call("no such model", *GOOD, "-o", tmp_path / "there.h5")
    assert (tmp_path / "there.h5").read_text() == "precious"
    with pytest.raises(InputError, match="does not exist"):
        call(tiny, *GOOD, "-o", tmp_path / "nowhere" / "made.h5")


def test_extrapolation_is_allowed_when_asked_for(tiny: str, tmp_path: Path) -> None:
    call(tiny, "--cell", 0.5, 6, "--energy", 50, "-n", 5, "--extrapolate", "-o", tmp_path / "made.h5")
    assert len(read_cells(tmp_path / "made.h5")) == 5


def test_of_several_materials_one_is_named(tiny: str, tmp_path: Path, make_cells: Callable[..., Cells]) -> None:
    one = Surrogate.load(tiny)
    materials = tuple(Material.parse(name) for name in ("PbF2", "BGO"))
    Surrogate(one.model, changed(one.card, materials=materials)).save(tmp_path / "two")
    common = (tmp_path / "two", "--cell", 2, 5, "--energy", 10, "-n", 3, "--steps", 1)
    with pytest.raises(InputError, match=r"trained on PbF2, BGO; name the material \(--material\)"):
        call(*common, "-o", tmp_path / "none.h5")
    call(*common, "--material", "BGO", "-o", tmp_path / "bgo.h5")
    assert read_cells(tmp_path / "bgo.h5").material.name == "BGO"
    with pytest.raises(RangeError, match="material CsI"):
        call(*common, "--material", "CsI", "-o", tmp_path / "csi.h5")
    reference = make_cells([10.0], np.full(3, 2.0), np.full(3, 5.0))
    write_cells(tmp_path / "reference.h5", replace(reference, material=Material.parse("BGO")))
    call(tmp_path / "two", "--like", tmp_path / "reference.h5", "--steps", 1, "-o", tmp_path / "like.h5")
    assert read_cells(tmp_path / "like.h5").material.name == "BGO"
