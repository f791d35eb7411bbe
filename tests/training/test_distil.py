"""Distillation of surrogates of designs in miniature."""

from __future__ import annotations

import json
import shutil
from math import isnan
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.made_up import made_up_cells, tables
from test_train import assert_equal, interrupt_at, without_seconds
from test_train_maps import MODEL, made_up_maps

from calograd.detector.design import Design
from calograd.errors import FormatError, InputError, Interrupted
from calograd.events.dense import Cells, write_cells, write_maps
from calograd.surrogate import Surrogate
from calograd.surrogate.model import DesignModel
from calograd.surrogate.two_stage import TwoStage
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig, DesignRun, ProgressiveDistillation, parse_config, read_config
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.distributed import SingleProcess
from calograd.training.log import LOG, read_log
from calograd.training.tasks.adapt import adapt
from calograd.training.tasks.denoise import standardised
from calograd.training.tasks.distil import CHUNK, DISTILLATION, DistillationTask
from calograd.training.train import train

RUNS = Path(__file__).parents[2] / "runs"
FEW = {"shape_steps": 6, "pattern_steps": 3}
"""Of a diffusion model that teaches."""


def load(config: DesignRun) -> TrainingData:
    return load_data(config.data.files, config.data.validation, config.training.seed)


def distilling(folder: Path, teacher: str = "teacher", changes: dict[str, Any] | None = None, **training: Any) -> Any:
    """The configuration of a distillation into [2, 1] steps, of three steps of the teacher each."""
    raw = tables(folder, **({"learning_rate": 2e-3} | training))
    del raw["model"]
    raw |= {"name": "fast", "distillation": {"teacher": teacher, "student_steps": [2, 1]} | FEW}
    return parse_config(raw | (changes or {}), "fast.toml", folder)


def run(config: DesignRun, output: Path, **how: Any) -> DesignModel:
    return train(config, output, data=load(config), **how)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells and a teacher of them. Read only."""
    folder = tmp_path_factory.mktemp("taught")
    config = parse_config(
        tables(folder, steps=200, location_scale_steps=100, learning_rate=1e-2, report_every=200), "tiny.toml", folder
    )
    run(config, folder / "teacher")
    return folder


@pytest.fixture
def folder(taught: Path, tmp_path: Path) -> Path:
    """A copy of the folder, for one test."""
    shutil.copytree(taught, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def finished(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DesignModel]:
    """The folder of a distillation that was never interrupted, and its weights. Read only."""
    output = tmp_path_factory.mktemp("finished") / "run"
    return output, run(distilling(taught), output)


def with_targets(config: DesignRun, targets: int) -> DesignRun:
    """The same with targets made before the training."""
    assert config.distillation is not None
    return config.model_copy(update={"distillation": config.distillation.model_copy(update={"showers": targets})})


@pytest.mark.parametrize("targets", [0, 3000])
def test_the_loss_falls_and_showers_become_those_of_the_teacher(taught: Path, tmp_path: Path, targets: int) -> None:
    config = with_targets(distilling(taught, steps=160, report_every=80, warmup=20), targets)
    losses: list[float] = []
    told: list[tuple[str, int, int]] = []

    def progress(phase: str, step: int, of: int, loss: float) -> None:
        told.append((phase, step, of))
        losses.append(loss)

    run(config, tmp_path / "run", progress=progress)
    made = [each for each in told if each[0] == "teacher targets"]
    assert made == ([("teacher targets", 3000, 3000)] if targets else [])
    assert all(isnan(loss) for loss in losses[: len(made)])
    losses = losses[len(made) :]
    assert losses[-1] < 0.3 * losses[0]
    first, last = read_log(tmp_path / "run")
    assert last["validation_loss"] < first["validation_loss"]
    teacher, student = Surrogate.load(taught / "teacher"), Surrogate.load(tmp_path / "run")
    shortened = Surrogate(teacher.model, teacher.card)

    def showers(surrogate: Surrogate, **how: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        return surrogate.sample(Design(2.0, 6.0, n_xy=3, n_z=2), 20.0, 500, generator=generator, **how)

    wanted = showers(teacher, steps=12)
    error = float((showers(student) - wanted).abs().mean())
    assert error < 0.5 * float((showers(shortened, steps=1) - wanted).abs().mean())


def test_the_student_says_what_it_is(taught: Path, finished: tuple[Path, DesignModel]) -> None:
    teacher, student = Surrogate.load(taught / "teacher"), Surrogate.load(finished[0])
    assert student.model.architecture.to_dict() == teacher.model.architecture.to_dict() | {"distilled_steps": [2, 1]}
    assert student.model.sampling_schedule().sampler == "progressive"
    assert student.card.training["done"]["phase"] == DISTILLATION
    assert student.card.training["done"]["step"] == 40
    assert student.card.training["config"]["distillation"]["teacher"] == "teacher"  # and no folder
    assert student.card.training["config"]["model"]["pattern_width"] == 16
    assert student.card.energy == (1.5, 80)
    assert [report["step"] for report in read_log(finished[0])] == [20, 40]


def test_location_scale_and_conditions_stay_the_teacher_s(taught: Path, finished: tuple[Path, DesignModel]) -> None:
    theirs = Surrogate.load(taught / "teacher").model.state_dict()
    for name, ours in finished[1].state_dict().items():
        assert torch.equal(ours, theirs[name]) == ("_network." not in name), name


def test_targets_made_before_are_those_of_a_step_and_follow_from_the_seed(taught: Path) -> None:
    configs = [with_targets(distilling(taught, seed=seed), 2 * CHUNK + 5) for seed in (1, 1, 2)]
    data = load(configs[0])
    tasks = [DistillationTask(config, data, SingleProcess()) for config in configs]
    made, again, other = (task.targets for task in tasks)
    assert made is not None
    assert again is not None
    assert other is not None
    assert len(made) == 2 * CHUNK + 5
    assert torch.equal(made.pattern.target, again.pattern.target)
    assert not torch.equal(made.pattern.target, other.pattern.target)
    assert set(made.shape.noise.unique().tolist()) == set(made.shape.noise[:2].tolist())
    student = tasks[0].model
    assert isinstance(student, TwoStage)
    kept = student.distillation_losses(made.at(torch.arange(400)))
    rows, random = data.train.at(torch.arange(400) % len(data.train)), RandomNumbers(0, range(400))
    fresh = tasks[0].losses(student, *standardised(student, data, rows, random), random)
    for ours, theirs in zip(kept, fresh, strict=True):
        assert float(ours.detach().mean()) == pytest.approx(float(theirs.detach().mean()), rel=0.15)
    assert DistillationTask(distilling(taught), data, SingleProcess()).targets is None


def test_an_interrupted_distillation_with_targets_ends_with_the_same_weights(taught: Path, tmp_path: Path) -> None:
    config = with_targets(distilling(taught), 500)
    with pytest.raises(Interrupted, match="holds a checkpoint"):
        run(config, tmp_path / "run", progress=interrupt_at(DISTILLATION, 20))
    assert_equal(run(config, tmp_path / "run"), run(config, tmp_path / "other"))


def test_an_interrupted_distillation_ends_with_the_same_weights(
    taught: Path, finished: tuple[Path, DesignModel], tmp_path: Path
) -> None:
    """Interrupted on its way and at its end."""
    config = distilling(taught)
    for step in (20, 40):
        with pytest.raises(Interrupted, match="holds a checkpoint"):
            run(config, tmp_path / "run", progress=interrupt_at(DISTILLATION, step))
    assert_equal(run(config, tmp_path / "run"), finished[1])
    assert without_seconds(tmp_path / "run") == without_seconds(finished[0])
    log = (tmp_path / "run" / LOG).read_bytes()
    assert_equal(run(config, tmp_path / "run"), finished[1])
    assert (tmp_path / "run" / LOG).read_bytes() == log


def test_another_seed_gives_other_weights(taught: Path, finished: tuple[Path, DesignModel], tmp_path: Path) -> None:
    other = run(distilling(taught, seed=1), tmp_path / "run").state_dict()
    assert any(not torch.equal(other[name], value) for name, value in finished[1].state_dict().items())


def test_a_distillation_is_gone_on_with_by_the_same_teacher_and_steps(folder: Path) -> None:
    run(distilling(folder, steps=2), folder / "run")
    four = {"distillation": {"teacher": "teacher", "student_steps": [4, 2]} | FEW}
    with pytest.raises(
        InputError, match=r"another configuration: distillation\.student_steps is \[4, 2\], was \[2, 1\]"
    ):
        run(distilling(folder, changes=four, steps=2), folder / "run")
    plain = parse_config(tables(folder, learning_rate=2e-3, steps=2) | {"name": "fast"}, "fast.toml", folder)
    with pytest.raises(InputError, match=r"another configuration: .*distillation\.teacher"):
        run(plain, folder / "run")
    teacher = Surrogate.load(folder / "teacher")
    teacher.model.shape_network.out.bias.add_(0.1)
    teacher.save(folder / "teacher")
    with pytest.raises(InputError, match=r"holds a run of another teacher: it was .*; bring it back"):
        run(distilling(folder, steps=2), folder / "run")


def test_a_student_teaches_fewer_steps(folder: Path, finished: tuple[Path, DesignModel]) -> None:
    shutil.copytree(finished[0], folder / "two")
    one = {"distillation": {"teacher": "two", "student_steps": [1, 1]}}
    model = run(distilling(folder, changes=one, steps=2), folder / "one")
    assert model.architecture.distilled_steps == (1, 1)
    three = {"distillation": {"teacher": "two", "student_steps": [3, 1]}}
    complaint = (
        r"distillation\.student_steps = \[3, 1\]: expected numbers that divide those of the teacher fast, \[2, 1\]"
    )
    with pytest.raises(InputError, match=complaint):
        run(distilling(folder, changes=three), folder / "three")
    # With as many steps as its teacher has, the pattern's loss is zero from the start; the shape's is not.
    data = load(distilling(folder))
    assert read_log(folder / "one")[-1]["train_loss"] > 0
    same = {"distillation": {"teacher": "two", "student_steps": [2, 1]}}
    train(distilling(folder, changes=same, steps=1, warmup=1000), folder / "same", data=data)
    assert read_log(folder / "same")[-1]["train_loss"] < 1e-8


def test_a_teacher_whose_material_numbers_were_folded_away(folder: Path) -> None:
    Surrogate.load(folder / "teacher").save(folder / "folded", compact=True)
    model = run(distilling(folder, "folded", steps=2), folder / "run")
    assert model.architecture.material_numbers == ()
    Surrogate.load(folder / "run").sample(Design(2.0, 6.0, n_xy=3, n_z=2), 10.0, 2)


def test_a_teacher_of_two_materials(tmp_path: Path) -> None:
    raw = tables(tmp_path, steps=2, location_scale_steps=2)
    write_cells(tmp_path / "bgo.h5", made_up_cells(seed=1, material="BGO"))
    raw["data"]["files"] = ["cells.h5", "bgo.h5"]
    run(parse_config(raw, "two.toml", tmp_path), tmp_path / "teacher")
    config = distilling(tmp_path, changes={"data": raw["data"]}, steps=2)
    run(config, tmp_path / "run")
    student = Surrogate.load(tmp_path / "run")
    assert [m.name for m in student.card.designs.materials] == ["PbF2", "BGO"]
    for material in ("PbF2", "BGO"):
        student.sample(Design(2.0, 6.0, material, n_xy=3, n_z=2), 10.0, 2)
    scaled = {"energy": [2, 60], "dx": [0.7, 1.5], "dz": [5.5, 10], "units": "scaled"}
    run(distilling(tmp_path, changes={"data": raw["data"], "range": scaled}, steps=2), tmp_path / "scaled")
    assert Surrogate.load(tmp_path / "scaled").card.designs.dx == (0.7, 1.5)
    with pytest.raises(InputError, match=r"range\.dx, .* cm in PbF2, reaches beyond that of the teacher tiny"):
        run(distilling(tmp_path, changes={"data": raw["data"], "range": scaled | {"dx": [0.5, 1.5]}}), tmp_path / "x")


def test_maps_are_distilled_too(tmp_path: Path) -> None:
    write_maps(tmp_path / "maps.h5", made_up_maps())
    raw = tables(tmp_path, steps=2, location_scale_steps=2, report_every=2, batch=8, location_scale_batch=8)
    raw["data"]["files"] = ["maps.h5"]
    run(parse_config(raw | {"model": MODEL | {"dropped": 0.2}}, "maps.toml", tmp_path), tmp_path / "teacher")
    config = distilling(tmp_path, changes={"data": raw["data"]}, steps=2, report_every=2, batch=8)
    whole = run(config, tmp_path / "run")
    student = Surrogate.load(tmp_path / "run")
    assert student.card.kind == "maps"
    assert student.card.training["config"]["model"]["kind"] == "maps"
    assert_equal(student.model, whole)
    design = Design(2.0, 6.0, n_xy=3, n_z=2)
    maps = student.sample(design, 10.0, 2)
    assert maps.shape == (2, 32, 32)
    plain = MODEL | {"coordinates": "plain"}
    run(parse_config(raw | {"model": plain}, "maps.toml", tmp_path), tmp_path / "plain")
    with pytest.raises(InputError, match="the teacher tiny cannot be distilled: maps in plain coordinates"):
        run(distilling(tmp_path, "plain", changes={"data": raw["data"]}), tmp_path / "other")


def changed_card(folder: Path, **entries: Any) -> None:
    teacher = Surrogate.load(folder / "teacher")
    Surrogate(teacher.model, teacher.card.model_copy(update=entries)).save(folder / "teacher")


def test_a_network_of_other_sizes_begins_anew(taught: Path, tmp_path: Path) -> None:
    """With no step to speak of, the other network is the teacher's still."""
    config = distilling(taught, changes={"model": {"pattern_width": 8}}, steps=1, learning_rate=1e-9)
    student, teacher = run(config, tmp_path / "run"), Surrogate.load(taught / "teacher").model
    assert student.architecture.to_dict() == teacher.architecture.to_dict() | {
        "pattern_width": 8,
        "distilled_steps": [2, 1],
    }
    ours, theirs = student.state_dict(), teacher.state_dict()
    assert ours["pattern_network.into.weight"].shape[0] == 8
    for name in (name for name in ours if not name.startswith("pattern_network.")):
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=1e-7)
    assert float(ours["pattern_network.out.weight"].abs().max()) < 1e-7  # as at the beginning of any training
    stored = Surrogate.load(tmp_path / "run")
    assert_equal(stored.model, student)
    assert stored.card.training["config"]["model"]["pattern_width"] == 8
    stored.sample(Design(2.0, 6.0, n_xy=3, n_z=2), 10.0, 2)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"location_scale_width": 16}, r"model\.location_scale_width is 16, 8 in the teacher tiny; leave it out"),
        ({"kind": "maps"}, r"model\.kind is maps, cells in the teacher tiny"),
    ],
)
def test_what_a_student_cannot_have_of_its_own(
    taught: Path, tmp_path: Path, model: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        run(distilling(taught, changes={"model": model}), tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "ends", "complaint"),
    [
        ("energy", [1.2, 80], r"range\.energy, 1\.2 to 80 GeV in PbF2, .* the teacher tiny, 1\.5 to 80 GeV; narrow it"),
        ("dx", [1.2, 4.8], r"range\.dx, 1\.2 to 4\.8 cm in PbF2, reaches beyond"),
        ("dz", [4.2, 13], r"range\.dz, 4\.2 to 13 cm"),
    ],
)
def test_a_range_beyond_the_teacher_s_is_refused(folder: Path, name: str, ends: list[float], complaint: str) -> None:
    wanted = tables(folder)["range"] | {name: ends}
    with pytest.raises(InputError, match=complaint):
        run(distilling(folder, changes={"range": wanted}), folder / "run")
    narrower = tables(folder)["range"] | {name: [2.0, 4.0] if name == "dx" else [5.0, 10.0]}
    run(distilling(folder, changes={"range": narrower}, steps=1), folder / "run")
    card = Surrogate.load(folder / "run").card
    assert getattr(card if name == "energy" else card.designs, name) == tuple(narrower[name])


def other_data(folder: Path, cells: Cells) -> dict[str, Any]:
    write_cells(folder / "other.h5", cells)
    return {"data": {"files": ["other.h5"], "validation": 0.2}}


def test_data_that_are_not_the_teacher_s(folder: Path) -> None:
    unequal, alone = made_up_cells(), made_up_cells()
    unequal.dz[:, 0] *= 0.5
    alone.config["mode"] = "stand-alone"
    for cells, complaint in (
        (made_up_cells(n_z=3), r"the data have 3 x 3 x 3 cells, tiny generates 3 x 3 x 2"),
        (made_up_cells(material="BGO"), r"the data are of BGO, the teacher tiny was trained on PbF2"),
        (unequal, "layers of different depths, on which the teacher tiny was not trained"),
        (alone, "the data are stand-alone, the teacher tiny is embedded"),
    ):
        with pytest.raises(InputError, match=complaint) as refusal:
            run(distilling(folder, changes=other_data(folder, cells)), folder / "run")
        assert "\n" not in str(refusal.value)
        (folder / "other.h5").unlink()
        assert not (folder / "run").exists()


def test_teachers_that_are_missing_or_of_another_kind(folder: Path) -> None:
    with pytest.raises(FormatError, match="no surrogate 'nobody': expected a folder or a bundled name"):
        run(distilling(folder, "nobody"), folder / "run")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"student_steps": [1, 1]}, "distillation.teacher: Field required"),
        ({"teacher": "x", "student_steps": [2]}, "distillation.student_steps"),
        ({"teacher": "x", "student_steps": [2, 0]}, "distillation.student_steps"),
        (
            {"teacher": "x", "student_steps": [1, 1], "student_stps": 3},
            "unknown key 'distillation.student_stps'; did you mean 'student_steps'?",
        ),
    ],
)
def test_tables_that_do_not_fit(taught: Path, table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as refusal:
        distilling(taught, changes={"distillation": table})
    assert complaint in str(refusal.value)


def test_steps_of_the_teacher_are_shared_by_the_student_s_steps() -> None:
    teacher = Path("pbf2-cells")
    assert ProgressiveDistillation(teacher=teacher, student_steps=(1, 1)).sub_steps == (24, 12)
    assert ProgressiveDistillation(teacher=teacher, student_steps=(2, 1)).sub_steps == (12, 12)
    assert ProgressiveDistillation(teacher=teacher, student_steps=(4, 8)).sub_steps == (6, 3)
    several = ProgressiveDistillation(teacher=teacher, student_steps=(5, 5), shape_steps=30, pattern_steps=21)
    assert several.sub_steps == (6, 5)


def test_a_teacher_is_found_beside_the_file_or_among_the_bundled(folder: Path) -> None:
    assert distilling(folder).distillation.teacher == (folder / "teacher").resolve()
    assert distilling(folder, "pbf2-cells").distillation.teacher == Path("pbf2-cells")


def test_a_distilled_surrogate_cannot_be_adapted(folder: Path, finished: tuple[Path, DesignModel]) -> None:
    with pytest.raises(InputError, match="fast is distilled and cannot be adapted; adapt the surrogate that it"):
        adapt(Surrogate.load(finished[0]), AdaptConfig(), load(distilling(folder)), folder / "adapted")


@pytest.mark.parametrize("name", ["pbf2-cells-fast", "pbf2-cells-1", "pbf2-cells-4"])
def test_the_runs_of_the_repository_can_be_read(name: str) -> None:
    config = read_config(RUNS / f"{name}.toml")
    assert config.name == name
    assert config.distillation is not None
    assert config.distillation.teacher == Path("pbf2-cells")
    assert config.range == read_config(RUNS / "pbf2-cells.toml").range
    script = (RUNS / "pbf2-cells-fast.sh").read_text()
    assert name in script
    assert all(f"-o pbf2/{file.name}" in script for file in config.data.files)


def test_a_report_is_plain(finished: tuple[Path, DesignModel]) -> None:
    (line, *_) = (finished[0] / LOG).read_text().splitlines()
    assert set(json.loads(line)["bias"]) == {"E_tot", "R_E", "sigma_y", "z_mean", "z_width"}
