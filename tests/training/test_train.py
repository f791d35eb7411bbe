from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.made_up import made_up_cells, tables, tiny_config

from calograd.detector.design import Design
from calograd.errors import FormatError, InputError, Interrupted, OutputExistsError
from calograd.events.dense import write_cells
from calograd.io.files import one_writer
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel
from calograd.surrogate.model import Model
from calograd.surrogate.storage import WEIGHTS
from calograd.training import loop as loop_module
from calograd.training.config import DesignRun, parse_config
from calograd.training.data.rows import TrainingData, load_data
from calograd.training.distributed import SingleProcess
from calograd.training.log import LOG, read_log
from calograd.training.loop import CHECKPOINT, TrainingState, begin, save_checkpoint
from calograd.training.tasks.denoise import PHASES
from calograd.training.train import make_task, train


def load(config: DesignRun) -> TrainingData:
    return load_data(config.data.files, config.data.validation, config.training.seed)


def run(folder: Path, name: str = "run", **training: object) -> CellsModel:
    config = tiny_config(folder, **training)
    return train(config, folder / name, data=load(config))


def assert_equal(a: CellsModel, b: CellsModel) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def without_seconds(output: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in report.items() if k != "seconds"} for report in read_log(output)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellsModel]:
    """The folder of a run that was never interrupted, and its weights. Read only."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, run(folder)


def interrupt_at(phase: str, step: int) -> Callable[[str, int, int, float], None]:
    """Ctrl-C while a step's progress is reported."""

    def progress(current: str, done: int, steps: int, loss: float) -> None:
        if (current, done) == (phase, step):
            signal.raise_signal(signal.SIGINT)

    return progress


def test_the_loss_falls(tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {phase: [] for phase in PHASES}
    config = tiny_config(tmp_path, steps=500, location_scale_steps=80, learning_rate=1e-2, report_every=250)
    train(config, tmp_path / "run", data=load(config), progress=lambda p, s, of, loss: losses[p].append(loss))
    for phase in PHASES:
        assert losses[phase][-1] < losses[phase][0] - 0.1, phase
    first, last = read_log(tmp_path / "run")
    assert last["validation_loss"] < first["validation_loss"]


def test_a_run_leaves_weights_log_and_checkpoint(finished: tuple[Path, CellsModel]) -> None:
    folder, model = finished
    output = folder / "run"
    assert {path.name for path in output.iterdir()} == {WEIGHTS, LOG, CHECKPOINT}
    reports = read_log(output)
    assert [report["step"] for report in reports] == [20, 40]
    assert set(reports[0]["bias"]) == {"E_tot", "R_E", "sigma_y", "z_mean", "z_width"}
    surrogate = Surrogate.load(output)
    assert_equal(surrogate.model, model)
    assert surrogate.card.training["done"]["step"] == 40
    assert surrogate.card.training["done"]["phase"] == "diffusion"
    assert surrogate.card.designs.mode == "embedded"
    assert surrogate.card.energy == (1.5, 80)
    cells = surrogate.sample(Design(2.0, 6.0, n_xy=3, n_z=2), 10.0, 4)
    assert torch.isfinite(cells).all()


def test_the_same_seed_gives_the_same_weights_another_seed_others(
    finished: tuple[Path, CellsModel], tmp_path: Path
) -> None:
    torch.manual_seed(5)  # global random numbers do not matter
    assert_equal(run(tmp_path, "same"), finished[1])
    other = run(tmp_path, "other", seed=1)
    assert not torch.equal(other.pattern_network.into.weight, finished[1].pattern_network.into.weight)


def test_an_interrupted_run_ends_with_the_same_weights(finished: tuple[Path, CellsModel], tmp_path: Path) -> None:
    """Interrupted in the middle and at the end of every phase, and resumed each time."""
    config, output = tiny_config(tmp_path), tmp_path / "run"
    for phase in PHASES:
        for step in (20, 40):
            with pytest.raises(Interrupted, match="holds a checkpoint; the same command resumes from it"):
                train(config, output, data=load(config), progress=interrupt_at(phase, step))
            state = begin(make_task(config, load(config), SingleProcess()), output)
            assert (PHASES[state.phase], state.step) == (phase, step)
    assert_equal(train(config, output, data=load(config)), finished[1])
    assert without_seconds(output) == without_seconds(finished[0] / "run")


@pytest.mark.parametrize(("phase", "step"), [("shape location and scale", 20), ("pattern location and scale", 20)])
def test_showers_at_one_design_train_without_pairs_and_resume(tmp_path: Path, phase: str, step: int) -> None:
    write_cells(tmp_path / "cells.h5", made_up_cells(80, designs=1))
    config = tiny_config(tmp_path)
    data = load(config)
    assert data.partner is None
    whole = train(config, tmp_path / "whole", data=data)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", data=data, progress=interrupt_at(phase, step))
    assert_equal(whole, train(config, tmp_path / "run", data=data))


def test_the_scale_of_differences_is_dropped_after_the_first_phase(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    data = load(config)
    task = make_task(config, data, SingleProcess())
    for phase, kept in (("shape location and scale", True), ("pattern location and scale", False)):
        with pytest.raises(Interrupted):
            train(config, tmp_path / phase, data=data, progress=interrupt_at(phase, 20))
        assert (begin(task, tmp_path / phase).auxiliary is not None) == kept


def test_checkpoints_of_other_versions_are_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=2, location_scale_steps=1)
    stored = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=True)
    torch.save(stored | {"version": 1}, tmp_path / "run" / CHECKPOINT)
    with pytest.raises(InputError, match="holds a checkpoint of another version of calograd; choose another output"):
        run(tmp_path, steps=2, location_scale_steps=1)


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    finished: tuple[Path, CellsModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at step 40 with a checkpoint of step 20: what was logged since is logged once."""
    config, output = tiny_config(tmp_path), tmp_path / "run"

    def until_20(state: TrainingState[Model], *rest: object) -> None:
        if (state.phase, state.step) <= (2, 20):
            save_checkpoint(state, *rest)  # type: ignore[arg-type]

    class Killed(BaseException):
        pass

    def kill(report: object) -> None:
        if len(read_log(output)) == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "save_checkpoint", until_20)
        with pytest.raises(Killed):
            train(config, output, data=load(config), on_report=kill)
    with (output / LOG).open("a") as log:
        log.write('{"step": 6')  # killed while it wrote
    assert_equal(train(config, output, data=load(config)), finished[1])
    assert without_seconds(output) == without_seconds(finished[0] / "run")


def test_checkpoints_are_written_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[int, int]] = []
    monkeypatch.setattr(loop_module, "save_checkpoint", lambda state, *rest: steps.append((state.phase, state.step)))
    run(tmp_path, checkpoint_minutes=1e-9, steps=4, location_scale_steps=3)
    assert steps == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (2, 0),
        *((2, i) for i in (1, 2, 3, 4)),
        (3, 0),
    ]


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    def twice(phase: str, step: int, steps: int, loss: float) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    config = tiny_config(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="last checkpoint"):
        train(config, tmp_path / "run", data=load(config), progress=twice)
    assert signal.getsignal(signal.SIGINT) is before


def test_it_trains_outside_the_main_thread(finished: tuple[Path, CellsModel], tmp_path: Path) -> None:
    made: list[CellsModel] = []
    thread = threading.Thread(target=lambda: made.append(run(tmp_path)))
    thread.start()
    thread.join()
    assert_equal(made[0], finished[1])


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path)
    log, stored = (tmp_path / "run" / LOG).read_bytes(), Surrogate.load(tmp_path / "run")
    assert_equal(run(tmp_path), first)
    assert (tmp_path / "run" / LOG).read_bytes() == log
    again = Surrogate.load(tmp_path / "run")
    assert_equal(again.model, stored.model)
    assert again.card == stored.card


def test_another_configuration_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path, steps=2, location_scale_steps=1)
    with pytest.raises(InputError, match=r"training\.seed is 3, was 0 and training\.batch; change it back"):
        run(tmp_path, steps=2, location_scale_steps=1, batch=64, seed=3)


def test_other_data_are_not_resumed(tmp_path: Path) -> None:
    run(tmp_path, steps=2, location_scale_steps=1)
    (tmp_path / "cells.h5").unlink()
    write_cells(tmp_path / "cells.h5", made_up_cells(seed=1))
    with pytest.raises(InputError, match="holds a run on other rows of data"):
        run(tmp_path, steps=2, location_scale_steps=1)


@pytest.mark.parametrize("damage", ["cut", "noise", "foreign", "incomplete"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, damage: str) -> None:
    run(tmp_path, steps=2, location_scale_steps=1)
    path = tmp_path / "run" / CHECKPOINT
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "noise":
        path.write_bytes(b"noise" * 1000)
    elif damage == "foreign":
        torch.save({"model": Path("x")}, path)
    else:
        stored = torch.load(path, weights_only=True)
        del stored["model"]["shape_network.out.bias"]
        torch.save(stored, path)
    with pytest.raises(FormatError, match=r"checkpoint\.pt is damaged .*remove .* to start anew") as refusal:
        run(tmp_path, steps=2, location_scale_steps=1)
    assert "\n" not in str(refusal.value)


def test_a_folder_with_results_but_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path, steps=2, location_scale_steps=1)
    (tmp_path / "run" / CHECKPOINT).unlink()
    with pytest.raises(OutputExistsError, match=r"model\.safetensors exists but no checkpoint"):
        run(tmp_path, steps=2, location_scale_steps=1)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="run cannot be written: File exists"):
        run(tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", data=load(config), progress=interrupt_at("diffusion", 20))
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        train(config, tmp_path / "run", data=load(config))
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert not list((tmp_path / "run").glob(".*.tmp"))


@pytest.mark.parametrize(
    ("name", "ends", "complaint"),
    [
        ("energy", [0.1, 80], r"range\.energy = \[0\.1, 80\] GeV reaches beyond the data, 1 to 100 GeV"),
        ("dx", [1.2, 9], r"range\.dx = \[1\.2, 9\] cm reaches beyond the data"),
        ("dz", [2, 13], r"range\.dz = \[2, 13\] cm reaches beyond the data"),
    ],
)
def test_a_range_beyond_the_data_is_refused(tmp_path: Path, name: str, ends: list[float], complaint: str) -> None:
    raw = tables(tmp_path)
    raw["range"][name] = ends
    config = parse_config(raw, "tiny.toml", tmp_path)
    with pytest.raises(InputError, match=complaint):
        train(config, tmp_path / "run", data=load(config))


def test_a_loss_that_is_nan_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path)
    data = load(config)
    data.train.cells[:] = float("nan")
    with pytest.raises(
        InputError, match=r"the loss is nan in phase 'shape location and scale', step 0; .*learning_rate"
    ):
        train(config, tmp_path / "run", data=data)


def test_devices_that_are_not_there(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with pytest.raises(InputError, match="device 'abacus' cannot be used"):
        train(config, tmp_path / "run", data=load(config), device="abacus")


def test_bfloat16_trains_too(tmp_path: Path) -> None:
    model = run(tmp_path, precision="bf16")
    assert all(torch.isfinite(p).all() and p.dtype == torch.float32 for p in model.parameters())


def test_checkpoints_hold_no_pickled_objects(finished: tuple[Path, CellsModel]) -> None:
    stored = torch.load(finished[0] / "run" / CHECKPOINT, weights_only=True)
    assert stored["identity"]["config"]["name"] == "tiny"


def of_two_materials(folder: Path, **model: Any) -> DesignRun:
    """PbF2 and BGO, the same designs in cm."""
    write_cells(folder / "bgo.h5", made_up_cells(seed=1, material="BGO"))
    raw = tables(folder, steps=4, location_scale_steps=3)
    raw["data"]["files"] = ["cells.h5", "bgo.h5"]
    raw["model"] |= model
    return parse_config(raw, "two.toml", folder)


def test_two_materials_make_a_surrogate_of_both(tmp_path: Path) -> None:
    config = of_two_materials(tmp_path)
    train(config, tmp_path / "run", data=load(config))
    surrogate = Surrogate.load(tmp_path / "run")
    assert [m.name for m in surrogate.card.designs.materials] == ["PbF2", "BGO"]
    assert surrogate.design_model.architecture.material_numbers == ("effective_atomic_number",)
    assert float(surrogate.model.condition_scale[-1]) < 0.2  # of ln Z, over the rows of both
    for material in ("PbF2", "BGO"):
        surrogate.sample(Design(2.0, 6.0, material, n_xy=3, n_z=2), 10.0, 2)
    again = train(config, tmp_path / "run", data=load(config))
    assert_equal(again, surrogate.model)


def test_an_interrupted_run_of_two_materials_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = of_two_materials(tmp_path, material_numbers=["density", "critical_energy"])
    whole = train(config, tmp_path / "whole", data=load(config))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", data=load(config), progress=interrupt_at("diffusion", 4))
    assert_equal(train(config, tmp_path / "run", data=load(config)), whole)
    assert whole.architecture.material_numbers == ("density", "critical_energy")


def test_every_material_has_to_reach_over_the_range(tmp_path: Path) -> None:
    config = of_two_materials(tmp_path)
    data = load(config)
    assert data.train.which is not None
    data.train.dx[data.train.which == 1] = 3.0
    with pytest.raises(InputError, match=r"range\.dx = \[1\.2, 4\.5\] cm reaches beyond the data of BGO, 3 cm alone"):
        train(config, tmp_path / "run", data=data)


def test_scaled_ranges_are_in_units_of_every_material(tmp_path: Path) -> None:
    raw = of_two_materials(tmp_path).model_dump(mode="json")
    raw["range"] |= {"units": "scaled", "dx": [0.55, 2.0], "dz": [4.5, 12]}
    config = parse_config(raw, "two.toml", tmp_path)
    train(config, tmp_path / "run", data=load(config))
    card = Surrogate.load(tmp_path / "run").card
    assert (card.designs.units, card.designs.dx) == ("scaled", (0.55, 2.0))
    raw["range"]["dz"] = [4.5, 15]  # 15 cm of BGO are 13.4 radiation lengths
    config = parse_config(raw, "two.toml", tmp_path)
    with pytest.raises(InputError, match=r"reaches beyond the data of BGO, 3\.58 to 13\.4 radiation lengths"):
        train(config, tmp_path / "other", data=load(config))


def test_a_run_can_begin_with_the_weights_of_another(tmp_path: Path, finished: tuple[Path, CellsModel]) -> None:
    folder, first = finished
    config = tiny_config(tmp_path, start=str(folder / "run"), learning_rate=1e-12, weight_decay=0.0)
    model = train(config, tmp_path / "run", data=load(config))
    for (name, x), y in zip(first.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, msg=name)
    assert Surrogate.load(tmp_path / "run").card.training["config"]["training"]["start"] == "run"


def test_a_run_cannot_begin_with_weights_of_another_form(tmp_path: Path, finished: tuple[Path, CellsModel]) -> None:
    config = parse_config(
        tables(tmp_path, start=str(finished[0] / "run")) | {"model": {"shape_width": 24}}, "tiny.toml", tmp_path
    )
    with pytest.raises(InputError, match=r"training\.start = '.*' has shape_width = 16, this model has 24; give it"):
        train(config, tmp_path / "run", data=load(config))


def test_a_beginning_beside_the_configuration_is_found(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    assert tiny_config(tmp_path, start="before").training.start == str((tmp_path / "before").resolve())
    assert tiny_config(tmp_path, start="pbf2-cells").training.start == "pbf2-cells"


def test_two_trainings_in_one_folder(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    data = load_data(config.data.files, config.data.validation, 0)
    with one_writer(tmp_path / "run"), pytest.raises(InputError, match="run is being written by another process"):
        train(config, tmp_path / "run", data=data)
    assert not (tmp_path / "run").exists()
