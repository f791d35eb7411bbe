"""Adaptation of a tiny surrogate, trained for seconds on made-up showers, to made-up showers of another detector."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.made_up import made_up_cells, tiny_config

from calograd.detector.design import Design
from calograd.errors import FormatError, InputError, Interrupted, OutputExistsError
from calograd.events.dense import Cells, write_cells
from calograd.surrogate import Surrogate
from calograd.surrogate.adapters import ADAPTER, Adapter
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.storage import WEIGHTS
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import AdaptConfig
from calograd.training.data.rows import Rows, TrainingData, load_data
from calograd.training.log import LOG, read_log
from calograd.training.loop import CHECKPOINT, TrainingState, ValidationRecord
from calograd.training.tasks import adapt as adapt_module
from calograd.training.tasks.adapt import adapt
from calograd.training.tasks.adaptation import Outcome
from calograd.training.tasks.denoise import PHASES, batch_loss
from calograd.training.train import train

METHODS = ("lora", "bitfit", "full", "scratch")
QUICK = {
    "rank": 2, "alpha": 4.0, "steps": 60, "location_scale_steps": 60, "batch": 32, "location_scale_batch": 32,
    "warmup": 5,
    "report_every": 20, "learning_rate": 5e-3, "precision": "fp32", "ema": 0.9,
}  # fmt: skip


def shifted_cells(showers: int = 40, seed: int = 5) -> Cells:
    """Showers of another material, which leak more, are wider and lie deeper."""
    cells = made_up_cells(showers, seed=seed, material="PbWO4")
    wider = cells.cells**0.6
    wider *= cells.cells.sum((1, 2, 3), keepdims=True) / wider.sum((1, 2, 3), keepdims=True)
    return replace(cells, cells=(0.85 * wider * np.array([0.5, 1.5])).astype(np.float32))


def load(folder: Path, cells: Cells | None = None, **options: Any) -> TrainingData:
    if not (folder / "new.h5").exists():
        write_cells(folder / "new.h5", cells or shifted_cells())
    return load_data([folder / "new.h5"], options.pop("validation", 0.25), 0, **options)


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A surrogate of made-up PbF2. Read only."""
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config(folder, steps=300, location_scale_steps=300, learning_rate=1e-2, report_every=300)
    train(config, folder / "tiny", data=load_data(config.data.files, 0.2, 0))
    return folder / "tiny"


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Surrogate:
    return Surrogate.load(base_folder)


@pytest.fixture(scope="module")
def never_interrupted(tmp_path_factory: pytest.TempPathFactory, base: Surrogate) -> dict[str, tuple[Path, Outcome]]:
    """Adaptations that were never interrupted, by method. Read only."""
    made = {}
    for method in ("lora", "scratch"):
        folder = tmp_path_factory.mktemp(method)
        config = AdaptConfig(**QUICK, method=method)
        made[method] = folder, adapt(base, config, load(folder), folder / "run")
    return made


@pytest.fixture(scope="module")
def finished(never_interrupted: dict[str, tuple[Path, Outcome]]) -> tuple[Path, Outcome]:
    return never_interrupted["lora"]


def assert_equal(a: CellsModel, b: CellsModel) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def log_of(output: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(output)]


def interrupt_at(phase: str, step: int) -> Callable[[str, int, int, float], None]:
    """Ctrl-C while a step's progress is reported."""

    def progress(current: str, done: int, steps: int, loss: float) -> None:
        if (current, done) == (phase, step):
            signal.raise_signal(signal.SIGINT)

    return progress


@pytest.mark.parametrize("method", METHODS)
def test_it_lowers_the_loss_of_held_out_showers_and_beats_the_base(
    tmp_path: Path, base: Surrogate, method: str
) -> None:
    weights = {name: value.clone() for name, value in base.model.state_dict().items()}
    data = load(tmp_path)
    settings = QUICK | {"steps": 200, "location_scale_steps": 200, "learning_rate": 1e-2, "method": method}
    outcome = adapt(base, AdaptConfig(**settings), data, tmp_path / "new")
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert [phase.name for phase in outcome.phases] == list(PHASES)
    for phase in outcome.phases[:2]:
        assert phase.after < phase.before - 0.1, phase
    assert outcome.phases[2].after <= outcome.phases[2].before
    stored = Surrogate.load(tmp_path / "new")
    assert_equal(stored.model, outcome.surrogate.model)
    assert (stored.card.name, stored.card.designs.material.name) == ("new", "PbWO4")
    assert stored.card.designs.mode == "embedded"
    cells = stored.sample(Design(2.0, 6.0, "PbWO4", n_xy=3, n_z=2), 10.0, 4)
    assert torch.isfinite(cells).all()
    after = outcome.physics["after"]
    if method == "scratch":
        assert set(outcome.physics) == {"after"}
        assert (tmp_path / "new" / WEIGHTS).exists()
        assert stored.adapters == ()
    else:
        before = outcome.physics["before"]
        assert abs(np.mean(after["bias"]["E_tot"])) < 0.5 * abs(np.mean(before["bias"]["E_tot"]))
        assert abs(np.mean(after["bias"]["z_mean"])) < 0.5 * abs(np.mean(before["bias"]["z_mean"]))
        assert stored.card.training["phases"][0]["after"] == outcome.phases[0].after


def test_the_looks_begin_with_the_base_and_the_best_is_kept(finished: tuple[Path, Outcome], base: Surrogate) -> None:
    folder, outcome = finished
    lines = log_of(folder / "run")
    assert {path.name for path in (folder / "run").iterdir()} == {ADAPTER, LOG, CHECKPOINT}
    for phase in outcome.phases:
        losses = {line["step"]: line["validation_loss"] for line in lines if line["phase"] == phase.name}
        assert list(losses) == [0, 20, 40, 60]
        assert phase.before == losses[0]
        assert phase.after == min(losses.values()) == losses[phase.best_step]
        assert not any("block_losses" in line for line in lines)
    look = outcome.surrogate.card.training
    assert look["done"]["step"] == sum(phase.steps for phase in outcome.phases) == 180
    assert look["showers"] == 40
    assert look["held_out"] == 10
    assert outcome.learnt == sum(value.numel() for value in outcome.surrogate.adapters[0].table.values())
    assert outcome.size == (folder / "run" / ADAPTER).stat().st_size
    json.dumps(outcome.to_dict(), allow_nan=False)


def test_a_phase_that_does_not_improve_ends_early_and_changes_nothing(tmp_path: Path, base: Surrogate) -> None:
    """At an absurd rate everything gets worse: what is kept is the base."""
    settings = QUICK | {"learning_rate": 3.0, "patience": 2, "method": "bitfit"}
    outcome = adapt(base, AdaptConfig(**settings), load(tmp_path, made_up_cells(seed=9)), tmp_path / "new")
    for phase in outcome.phases:
        assert (phase.best_step, phase.steps) == (0, 40)
        assert phase.after == phase.before
    assert_equal(outcome.surrogate.model, base.model)


def test_the_same_seed_gives_the_same_adapter(finished: tuple[Path, Outcome], tmp_path: Path, base: Surrogate) -> None:
    torch.manual_seed(5)  # global random numbers do not matter
    again = adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "run")
    assert again.surrogate.identity == finished[1].surrogate.identity
    other = adapt(base, AdaptConfig(**QUICK, seed=1), load(tmp_path), tmp_path / "other")
    assert other.surrogate.identity != again.surrogate.identity


@pytest.mark.parametrize("method", ["lora", "scratch"])
def test_an_interrupted_run_ends_with_the_same_weights(
    never_interrupted: dict[str, tuple[Path, Outcome]], tmp_path: Path, base: Surrogate, method: str
) -> None:
    """Interrupted within phases and at the end of them, and resumed each time."""
    config, data = AdaptConfig(**QUICK, method=method), load(tmp_path)
    folder, whole = never_interrupted[method]
    for phase, step in ((PHASES[0], 20), (PHASES[1], 60), (PHASES[2], 40), (PHASES[2], 60)):
        with pytest.raises(Interrupted, match="holds a checkpoint; the same command resumes from it"):
            adapt(base, config, data, tmp_path / "run", progress=interrupt_at(phase, step))
        assert not (tmp_path / "run" / ADAPTER).exists()
    resumed = adapt(base, config, data, tmp_path / "run")
    assert_equal(resumed.surrogate.model, whole.surrogate.model)
    assert resumed.phases == whole.phases
    assert log_of(tmp_path / "run") == log_of(folder / "run")


@pytest.mark.parametrize("moment", [(PHASES[0], 0), (PHASES[1], 40)])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    finished: tuple[Path, Outcome], tmp_path: Path, base: Surrogate, moment: tuple[str, int]
) -> None:
    """Killed at its first look, or later with the checkpoint of a phase's beginning: what was logged is logged once."""

    class Killed(BaseException):
        pass

    def kill(line: dict[str, Any]) -> None:
        if (line["phase"], line["step"]) == moment:
            raise Killed

    with pytest.raises(Killed):
        adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "run", on_report=kill)
    with (tmp_path / "run" / LOG).open("a") as log:
        log.write('{"phase": "patt')  # killed while it wrote
    resumed = adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "run")
    assert resumed.surrogate.identity == finished[1].surrogate.identity
    assert log_of(tmp_path / "run") == log_of(finished[0] / "run")


@pytest.mark.parametrize("balanced", [False, True])
def test_every_energy_may_count_alike(
    tmp_path: Path, base: Surrogate, monkeypatch: pytest.MonkeyPatch, balanced: bool
) -> None:
    """A quarter of the showers has 50 GeV: so many of the rows of steps and of looks have, or else half of them."""
    cells = shifted_cells(80)
    energy = np.where(cells.shower % 4 == 0, 50.0, 10.0).astype(np.float32)
    cells = replace(cells, energy=energy, cells=cells.cells * (energy / cells.energy)[:, None, None, None])
    taken: dict[bool, list[torch.Tensor]] = {True: [], False: []}

    def loss(model: Any, data: Any, rows: Rows, *arguments: Any) -> torch.Tensor:
        taken[torch.is_grad_enabled()].append(rows.energy == 50)
        return batch_loss(model, data, rows, *arguments)

    monkeypatch.setattr(adapt_module, "batch_loss", loss)
    data = load(tmp_path, cells)
    adapt(base, AdaptConfig(**QUICK, balanced=balanced), data, tmp_path / "run")
    for stepping, rows in ((True, data.train), (False, data.validation)):
        share = 0.5 if balanced else float((rows.energy == 50).double().mean())
        drawn = torch.cat(taken[stepping]).double()
        assert abs(float(drawn.mean()) - share) < 4 * (share * (1 - share) / len(drawn)) ** 0.5
        assert balanced or share < 0.45


def test_a_balanced_run_that_was_interrupted(tmp_path: Path, base: Surrogate) -> None:
    config, data = AdaptConfig(**QUICK, balanced=True), load(tmp_path)
    whole = adapt(base, config, data, tmp_path / "whole")
    with pytest.raises(Interrupted):
        adapt(base, config, data, tmp_path / "run", progress=interrupt_at(PHASES[2], 40))
    assert_equal(adapt(base, config, data, tmp_path / "run").surrogate.model, whole.surrogate.model)


def test_a_finished_run_stays_as_it_is(finished: tuple[Path, Outcome], tmp_path: Path, base: Surrogate) -> None:
    folder, first = finished
    shutil.copytree(folder / "run", tmp_path / "run")
    files = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    again = adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "run")
    assert again.to_dict() == first.to_dict()
    assert (tmp_path / "run" / LOG).read_bytes() == files[LOG]
    assert again.surrogate.identity == first.surrogate.identity


def test_a_second_adaptation_on_top_of_the_first(
    finished: tuple[Path, Outcome], tmp_path: Path, base_folder: Path
) -> None:
    first = Surrogate.load(finished[0] / "run")
    data = load(tmp_path, replace(shifted_cells(seed=7), material=made_up_cells(material="BGO").material))
    outcome = adapt(first, AdaptConfig(**QUICK, method="bitfit"), data, tmp_path / "second")
    loaded = Surrogate.load(tmp_path / "second")
    assert [adapter.card.name for adapter in loaded.adapters] == ["run", "second"]
    assert loaded.identity == outcome.surrogate.identity
    assert_equal(loaded.model, outcome.surrogate.model)
    assert loaded.card.designs.material.name == "BGO"


def test_only_the_targets_are_learnt_and_other_phases_are_left_out(tmp_path: Path, base: Surrogate) -> None:
    config = AdaptConfig(**QUICK, targets=("shape_location_scale", "shape_network.out"))
    outcome = adapt(base, config, load(tmp_path), tmp_path / "run")
    assert [phase.name for phase in outcome.phases] == [PHASES[0], PHASES[2]]
    changed = {
        name
        for name, value in outcome.surrogate.model.state_dict().items()
        if not torch.equal(value, base.model.state_dict()[name])
    }
    assert "shape_location_scale.network.0.weight" in changed
    assert all(name.startswith("shape_location_scale.") or name == "shape_network.out.weight" for name in changed)


def test_the_range_is_that_of_the_data_or_of_the_base(tmp_path: Path, base: Surrogate) -> None:
    cells = shifted_cells(120)
    keep = (cells.energy > 5) & (cells.energy < 20)
    data = load(tmp_path, cells.rows(keep))
    few = QUICK | {"steps": 1, "location_scale_steps": 1}
    narrow = adapt(base, AdaptConfig(**few), data, tmp_path / "narrow").surrogate.card
    assert narrow.designs.dx == base.card.designs.dx  # which the data all but reach
    low, high = float(data.train.energy.min()), float(data.train.energy.max())
    assert narrow.energy == (low, high)  # nothing says from which range they were drawn
    ends = (low * 0.999, high * 1.001)
    for number, (asked, expected) in enumerate([(ends, ends), ((low / 1.5, high * 1.5), (low, high))]):
        beam = {"energies": {"law": "log-uniform", "values": list(asked)}}
        folder = tmp_path / f"asked {number}"
        folder.mkdir()
        told = load(folder, replace(cells.rows(keep), config={"simulation": {"beam": beam}}))
        found = adapt(base, AdaptConfig(**few), told, folder / "run").surrogate.card.energy
        assert found == pytest.approx(expected, rel=1e-6)
    (tmp_path / "one design").mkdir()
    one = load(tmp_path / "one design", replace(cells.rows(keep), dx=np.full(int(keep.sum()), 2.5)))
    assert adapt(base, AdaptConfig(**few), one, tmp_path / "one").surrogate.card.designs.dx == (2.5, 2.5)
    wide = adapt(base, AdaptConfig(**few, range="base"), data, tmp_path / "wide").surrogate.card
    assert wide.energy == base.card.energy


def test_showers_of_a_tilted_beam_are_not_mirrored(tmp_path: Path) -> None:
    beams = [{"theta": 0.0, "position": [0.0, 0.0]}, {"theta": 20.0}, {"position": [0.3, 0.0]}]
    symmetric = []
    for number, beam in enumerate(beams):
        (tmp_path / str(number)).mkdir()
        cells = replace(shifted_cells(), config={"simulation": {"beam": beam}})
        symmetric.append(load(tmp_path / str(number), cells).symmetric)
    assert symmetric == [True, False, False]


def leaning_cells(showers: int = 40) -> Cells:
    """Showers of a beam at an angle: the cells on one side hold much less."""
    cells = made_up_cells(showers, seed=5)
    leaning = cells.cells * np.array([0.2, 1.0, 1.0])[:, None, None]
    leaning *= cells.cells.sum((1, 2, 3), keepdims=True) / leaning.sum((1, 2, 3), keepdims=True)
    return replace(cells, cells=leaning.astype(np.float32), config={"simulation": {"beam": {"theta": 20.0}}})


@pytest.mark.parametrize("method", METHODS)
def test_showers_of_a_tilted_beam_have_location_and_scale_without_symmetry(
    tmp_path: Path, base: Surrogate, method: str
) -> None:
    data = load(tmp_path, leaning_cells())
    outcome = adapt(base, AdaptConfig(**QUICK, method=method), data, tmp_path / "run")
    adapted = outcome.surrogate
    assert base.model.architecture.symmetric
    assert not adapted.model.architecture.symmetric
    assert adapted.card.architecture["symmetric"] is False
    conditions = data.conditions(adapted.model, data.train)
    with torch.no_grad():
        random = RandomNumbers(0, range(len(data.train)))
        x, _ = adapted.model.standardise(data.train.cells, data.train.energy, conditions, random)
        location, _ = adapted.model.pattern_location_scale(torch.cat([conditions, x], dim=1))
    cells = location.mean(0).reshape(-1, 2)  # of 3 x 3 without the core: three of one side, two, three of the other
    assert float(cells[:3].mean()) < float(cells[5:].mean()) - 0.05
    again = Surrogate.load(tmp_path / "run")
    for (name, value), other in zip(adapted.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_an_adapter_of_a_beam_along_the_axis_begins_none_of_a_tilted_one(
    tmp_path: Path, base: Surrogate, finished: tuple[Path, Outcome]
) -> None:
    data = load(tmp_path, leaning_cells())
    first = Adapter.load(finished[0] / "run")
    with pytest.raises(InputError, match=r"is of a beam along the axis, the data are of a beam off the axis"):
        adapt(base, AdaptConfig(**QUICK), data, tmp_path / "run", start=first)


def test_the_rate_rises_only_while_the_loss_falls_quickly() -> None:
    record, boosts, best = ValidationRecord(), [], []
    for step, loss in enumerate([3.0, 2.5, 2.49, 2.0, 1.5, 1.0, 1.1, 0.9]):
        best.append(record.update(loss, step, most=4.0))
        boosts.append(record.boost)
    assert best == [True, True, True, True, True, True, False, True]
    assert boosts == [1.0, 1.5, 1.5, 2.25, 3.375, 4.0, 4.0, 4.0]
    assert (record.best, record.best_step, record.first) == (0.9, 7, 3.0)
    state = TrainingState.start(torch.nn.Linear(1, 1), torch.Generator())
    state.validation = record
    state.next_phase()
    assert state.validation.boost == 1.0


def test_only_a_gain_beyond_chance_is_kept() -> None:
    """The parts of the showers gain 0.1 +- 0.07, then 0.2 +- 0.07; then one gains much and another loses."""
    record, first = ValidationRecord(), [1.0, 2.0, 3.0, 4.0]
    assert record.update(2.5, 0, 1.0, first)
    noise = [0.12, -0.12, 0.12, -0.12]
    for step, (gain, kept) in enumerate([(0.1, False), (0.2, True), (0.21, True), (0.2, False)], start=1):
        blocks = [loss - gain + by for loss, by in zip(first, noise, strict=True)]
        assert record.update(sum(blocks) / 4, step, 1.0, blocks) is kept
    assert (record.kept_step, record.best_step) == (3, 3)
    one_worse = [first[0] - 2.0, first[1] + 0.4, *first[2:]]
    assert not record.update(sum(one_worse) / 4, 5, 1.0, one_worse)
    assert (record.kept_step, record.best_step) == (3, 5)


def test_a_large_shift_is_learnt_with_a_higher_rate(tmp_path: Path, base: Surrogate) -> None:
    data, few = load(tmp_path), QUICK | {"learning_rate": 1e-3}
    after = [
        adapt(base, AdaptConfig(**few, boost=boost), data, tmp_path / str(boost)).phases[0].after for boost in (1, 4)
    ]
    assert after[1] < after[0] - 0.01


def test_the_number_of_showers(tmp_path: Path) -> None:
    energies = []
    for showers in (24, 32):
        data = load(tmp_path, showers=showers)
        assert (data.showers, data.held_out) == (showers, showers // 4)
        assert len(data.train) + len(data.validation) == 2 * showers
        energies.append({*data.train.energy.tolist(), *data.validation.energy.tolist()})
    assert energies[0] < energies[1]  # fewer are among more
    assert len(load(tmp_path, showers=40).train) == len(load(tmp_path).train)
    with pytest.raises(InputError, match="41 showers were asked for, the data have 40; ask for fewer or add data"):
        load(tmp_path, showers=41)
    with pytest.raises(InputError, match="10 showers are too few to split off 25%; expected 20 or more"):
        load(tmp_path, showers=10)
    with pytest.raises(InputError, match="30 showers are too few to split off 1%; expected 51 or more"):
        load(tmp_path, showers=30, validation=0.01)


def scaled(**factors: float) -> Cells:
    cells = shifted_cells()
    return replace(cells, **{name: (getattr(cells, name) * f).astype(np.float32) for name, f in factors.items()})


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        (scaled(cells=1e3), r"the cells hold \d+ times the incident energy on average; perhaps the cells are in MeV"),
        (scaled(energy=1e3), r"the cells hold 0\.000\d+ times .*perhaps the incident energies are in MeV or keV"),
        (scaled(energy=1e3, cells=1e3), r"energy is 1000 to 100000 GeV in the data, .*perhaps it is in MeV"),
        (scaled(energy=1e-3, cells=1e-3), r"energy is 0\.001 to 0\.1 GeV in the data, .*perhaps it is in TeV"),
        (scaled(dx=10), r"dx is 10 to 50 cm in the data, 1\.2 to 4\.5 cm in tiny; perhaps it is in mm: expected cm"),
        (scaled(dz=10), r"dz is 40 to 150 cm in the data, .*perhaps it is in mm"),
        (made_up_cells(n_z=4), r"the data have 3 x 3 x 4 cells, tiny generates 3 x 3 x 2; segment with --cells 3 2"),
    ],
)
def test_data_of_another_unit_or_shape(tmp_path: Path, base: Surrogate, cells: Cells, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        adapt(base, AdaptConfig(**QUICK), load(tmp_path, cells), tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_unknown_targets_leave_nothing_behind(tmp_path: Path, base: Surrogate) -> None:
    config = AdaptConfig(**QUICK, targets=("shape_netwrk",))
    with pytest.raises(InputError, match=r"no linear layer is called 'shape_netwrk'; did you mean 'shape_network'\?"):
        adapt(base, config, load(tmp_path), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_configuration_base_or_data_are_not_resumed(tmp_path: Path, base: Surrogate) -> None:
    few = QUICK | {"steps": 2, "location_scale_steps": 1}
    first = adapt(base, AdaptConfig(**few), load(tmp_path), tmp_path / "run")
    with pytest.raises(InputError, match="of another configuration: rank is 3, was 2 and seed; change it"):
        adapt(base, AdaptConfig(**few | {"rank": 3, "seed": 1}), load(tmp_path), tmp_path / "run")
    with pytest.raises(InputError, match="holds a run on other rows of data"):
        adapt(base, AdaptConfig(**few), load(tmp_path, showers=30), tmp_path / "run")
    with pytest.raises(
        InputError, match=rf"of another base: it was {base.identity[:12]}, now it is {first.surrogate.identity[:12]}"
    ):
        adapt(first.surrogate, AdaptConfig(**few), load(tmp_path), tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut", "foreign", "incomplete"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, base: Surrogate, damage: str) -> None:
    few = AdaptConfig(**QUICK | {"steps": 2, "location_scale_steps": 1})
    adapt(base, few, load(tmp_path), tmp_path / "run")
    path = tmp_path / "run" / CHECKPOINT
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:3000])
    elif damage == "foreign":
        torch.save({"learnt": Path("x")}, path)
    else:
        stored = torch.load(path, weights_only=True)
        del stored["ema"]["shape_network.out.a"]
        torch.save(stored, path)
    with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged .*remove .* to start anew") as refusal:
        adapt(base, few, load(tmp_path), tmp_path / "run")
    assert "\n" not in str(refusal.value)


def test_a_folder_of_something_else_is_not_touched(tmp_path: Path, base_folder: Path, base: Surrogate) -> None:
    with pytest.raises(InputError, match=r"holds a run of 'training', this is 'adaptation'; choose another output"):
        adapt(base, AdaptConfig(**QUICK), load(tmp_path), base_folder)
    (tmp_path / "other").mkdir()
    shutil.copy(base_folder / WEIGHTS, tmp_path / "other")
    with pytest.raises(OutputExistsError, match=r"model\.safetensors exists but no checkpoint\.pt"):
        adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "other")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be written: File exists"):
        adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "file")


def test_a_loss_that_is_nan_stops_the_run(tmp_path: Path, base: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    nan = torch.tensor(float("nan"), requires_grad=True)
    monkeypatch.setattr(adapt_module, "batch_loss", lambda *_: nan * 1)
    with pytest.raises(InputError, match=r"is nan in phase 'shape location and scale', step 0; .*learning rate"):
        adapt(base, AdaptConfig(**QUICK), load(tmp_path), tmp_path / "run")


def test_bfloat16_adapts_too(tmp_path: Path, base: Surrogate) -> None:
    settings = QUICK | {"precision": "bf16", "steps": 20, "location_scale_steps": 20}
    outcome = adapt(base, AdaptConfig(**settings), load(tmp_path), tmp_path / "run")
    assert outcome.phases[2].steps == 20
    assert {parameter.dtype for parameter in outcome.surrogate.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("method", ["lora", "bitfit", "full"])
def test_a_warm_start_begins_where_the_adapter_ended(tmp_path: Path, base: Surrogate, method: str) -> None:
    data, config = load(tmp_path), AdaptConfig(**QUICK, method=method)
    first = adapt(base, config, data, tmp_path / "first")
    adapter = first.surrogate.adapters[0]
    warm = adapt(base, config, data, tmp_path / "warm", start=adapter)
    assert warm.phases[0].before == pytest.approx(first.phases[0].after, abs=1e-4)
    for cold, again in zip(first.phases[:2], warm.phases[:2], strict=True):
        assert again.after <= again.before < cold.before - 0.05
    card = warm.surrogate.adapters[0].card
    assert len(warm.surrogate.adapters) == 1
    assert card.base == adapter.card.base
    assert card.training["start"] == adapter.identity()
    still = adapt(base, config.model_copy(update={"steps": 1, "location_scale_steps": 1, "learning_rate": 1e-9}), data,
                  tmp_path / "still", start=adapter)  # fmt: skip
    for name, value in still.surrogate.adapters[0].table.items():
        assert torch.allclose(value, adapter.table[name], atol=1e-6), name


def test_an_interrupted_warm_start_ends_with_the_same_weights(
    finished: tuple[Path, Outcome], tmp_path: Path, base: Surrogate
) -> None:
    config, data, first = AdaptConfig(**QUICK, seed=3), load(tmp_path), Adapter.load(finished[0] / "run")
    whole = adapt(base, config, data, tmp_path / "whole", start=first)
    with pytest.raises(Interrupted):
        adapt(base, config, data, tmp_path / "run", start=first, progress=interrupt_at(PHASES[1], 40))
    with pytest.raises(InputError, match=r"a run of another start: it was \w{12}, now it is none; bring it back"):
        adapt(base, config, data, tmp_path / "run")
    assert adapt(base, config, data, tmp_path / "run", start=first).surrogate.identity == whole.surrogate.identity


def test_a_start_that_does_not_fit_is_refused(finished: tuple[Path, Outcome], tmp_path: Path, base: Surrogate) -> None:
    data, first = load(tmp_path), Adapter.load(finished[0] / "run")
    for changes, complaint in (
        ({"rank": 3}, "adapter 'run' is lora of rank 2 and alpha 4 of .*, this adaptation is lora of rank 3"),
        ({"method": "full"}, r"this adaptation is full of \*; give the same --method, --rank, --alpha and --targets"),
        ({"method": "scratch"}, "an adaptation from scratch starts from nothing"),
    ):
        with pytest.raises(InputError, match=complaint):
            adapt(base, AdaptConfig(**QUICK | changes), data, tmp_path / "new", start=first)
    other = Surrogate.load(finished[0] / "run")
    with pytest.raises(
        InputError, match=r"adapter 'run' belongs to the base 'tiny' \(\w+\) and cannot start an adapta"
    ):
        adapt(other, AdaptConfig(**QUICK), data, tmp_path / "new", start=first)
    assert not (tmp_path / "new").exists()
