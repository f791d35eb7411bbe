"""Training of a surrogate of stacks of plates from libraries of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toy_library import plates_config, write_plates

from calograd import SamplingDesign, open_plates
from calograd.diffusion.progressive import PROGRESSIVE
from calograd.errors import InputError, Interrupted
from calograd.reports.training import plot_log
from calograd.surrogate import Surrogate
from calograd.surrogate.card import TrainedStacks
from calograd.surrogate.plates.points import PointStage
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import parse_config, read_config
from calograd.training.data.plates import layers_of, load_plates
from calograd.training.distributed import SingleProcess
from calograd.training.log import read_log
from calograd.training.tasks.plates import PlatesTask
from calograd.training.tasks.plates_points import (
    MatchedFactor,
    points_in_layers,
    relative_differences,
    rms_radius,
)
from calograd.training.train import make_task, read_data, train

FEW = {"location_scale_steps": 4, "steps": 6, "batch": 16, "location_scale_batch": 16, "report_every": 3, "warmup": 2}
SMALL = {"kind": "plates", "layers": 10, "shower_width": 8, "shower_blocks": 1, "layer_width": 8, "layer_blocks": 1,
         "embedding": 8, "location_scale_width": 8, "steps": 3}  # fmt: skip
RANGE = {"energy": [1.1, 2.9], "particles": ["e-"], "theta": [0, 0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plates(tmp_path / "one.h5", 60)
    write_plates(tmp_path / "other.h5", 40, config=plates_config(2, absorber=("W", "Fe")))
    return tmp_path


def config_of(folder: Path, **changes: Any) -> Any:
    tables = {"name": "toy", "data": {"files": ["one.h5", "other.h5"], "validation": 0.2}, "range": RANGE,
              "model": SMALL, "training": FEW} | changes  # fmt: skip
    return parse_config(tables, "toy.toml", folder)


def test_a_run_makes_a_surrogate_a_log_and_the_range_of_its_data(folder: Path) -> None:
    config = config_of(folder)
    data = read_data(config)
    assert str(data).startswith("80 showers to train on, 20 others to validate on; 1 to 9 layers of Pb, W, Fe with lAr")
    train(config, folder / "run", data=data)
    surrogate = Surrogate.load(folder / "run")
    trained = surrogate.card.trained
    assert isinstance(trained, TrainedStacks)
    assert trained.pairs == (("Pb", "lAr"), ("W", "lAr"), ("Fe", "lAr"))
    assert trained.layers == (1, 9)
    assert trained.active_thickness[0] == pytest.approx((0.4, 0.4))
    thinnest, thickest = trained.absorber_thickness  # iron and tungsten, X0
    assert thinnest < 0.1
    assert thickest > 1
    stack = SamplingDesign("W", "lAr", 0.2, 0.4, 7)
    made = surrogate.sample(stack, 2.0, 3, particle="e-", layers_only=True)
    assert made.layer_energies().shape == (3, 7)
    reports = read_log(folder / "run")
    assert [(report["phase"], report["step"]) for report in reports] == [("diffusion", 3), ("diffusion", 6)]
    assert set(reports[0]["bias"]) == {"E_dep", "E_vis", "z_mean", "z_width"}


def test_shower_and_layers_may_take_different_numbers_of_steps(folder: Path) -> None:
    few = {name: value for name, value in FEW.items() if name != "location_scale_steps"}
    weights = [
        train(config_of(folder, training=few | {"location_scale_steps": steps}), folder / f"run{number}").state_dict()
        for number, steps in enumerate(([1, 4], [4, 4], 4))
    ]
    name = "shower_location_scale.network.0.weight"
    assert not torch.equal(weights[0][name], weights[1][name])
    assert torch.equal(weights[1][name], weights[2][name])


def test_an_interrupted_run_ends_with_the_same_weights(folder: Path) -> None:
    config = config_of(folder)
    whole = train(config, folder / "whole")

    def interrupt(report: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(config, folder / "cut", on_report=interrupt)
    resumed = train(config, folder / "cut")
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_no_shower_is_both_trained_on_and_held_out(folder: Path) -> None:
    data = load_plates([folder / "one.h5", folder / "other.h5"], 0.2, seed=1)
    rows, held = (
        {tuple(row) for row in torch.cat([part.energies, part.thickness], 1).flatten(1).tolist()}
        for part in (data.train, data.validation)
    )
    assert (len(rows), len(held)) == (80, 20)
    assert not rows & held
    assert data.fingerprint != load_plates([folder / "one.h5", folder / "other.h5"], 0.2, seed=2).fingerprint


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": {"files": ["one.h5", "one.h5"]}}, "the same showers twice"),
        ({"model": SMALL | {"layers": 8}}, "model.layers = 8: the data have stacks of up to 9 layers; raise it"),
        ({"range": RANGE | {"energy": [1, 9]}}, r"range.energy = \[1, 9\] GeV reaches beyond the data, 1 to 3 GeV"),
        ({"range": RANGE | {"particles": ["gamma"]}}, "range.particles has gamma, the data have e-; add data"),
        ({"range": RANGE | {"theta": [0, 30]}}, "range.theta.*reaches beyond the data, 0 degrees alone"),
        ({"model": SMALL | {"pattern_width": 8}}, "pattern_width"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(folder: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refusal:
        train(config_of(folder, **changes), folder / "run")
    assert "\n" not in str(refusal.value)


def test_showers_are_the_same_whatever_was_recorded(folder: Path) -> None:
    write_plates(folder / "points.h5", 40, config=plates_config(record="points"))
    assert len(load_plates([folder / "points.h5"], 0.2, seed=0).train) == 32
    with pytest.raises(InputError, match="the same showers twice"):
        load_plates([folder / "one.h5", folder / "points.h5"], 0.2, seed=0)


def test_stacks_with_gaps_that_stop_something_are_refused(tmp_path: Path) -> None:
    config = plates_config(gap_material="Fe", gap_thickness=0.1)
    with pytest.raises(InputError, match="has gaps of Fe; expected stacks without gaps"):
        load_plates([write_plates(tmp_path / "gaps.h5", 20, config=config)], 0.2, seed=0)


def distillation_of(folder: Path, **changes: Any) -> Any:
    """Return the configuration of a student of the toy surrogate."""
    few = {name: value for name, value in FEW.items() if not name.startswith("location_scale")}
    tables = {"model": {"kind": "plates", "layer_width": 4}, "training": few,
              "distillation": {"teacher": str(folder / "run"), "student_steps": [2, 1], "showers": 100}}  # fmt: skip
    return config_of(folder, **(tables | changes))


@pytest.mark.parametrize(("showers", "dense"), [(0, False), (100, False), (100, True)])
def test_a_student_takes_few_steps_and_keeps_location_and_scale(folder: Path, showers: int, dense: bool) -> None:
    teacher = train(config_of(folder), folder / "run")
    table = {"teacher": str(folder / "run"), "student_steps": [2, 1], "showers": showers}
    sizes = {"kind": "plates", "layer_width": 4, "dense": dense}
    weights = train(distillation_of(folder, distillation=table, model=sizes), folder / "student")
    for name, value in teacher.state_dict().items():
        if not name.startswith(("shower_network", "layer_network")):
            assert torch.equal(value, weights.state_dict()[name]), name
    student = Surrogate.load(folder / "student")
    schedule = student.model.sampling_schedule()
    assert (schedule.sampler, schedule.evaluations, schedule.shape_evaluations) == ("progressive", 1, 2)
    assert student.model.distilled
    absorber = torch.full((7,), 0.2, requires_grad=True)
    made = student.sample(SamplingDesign("W", "lAr", absorber, 0.4), 2.0, 3, particle="e-", layers_only=True)
    made.layer_energies().sum().backward()
    assert absorber.grad is not None
    assert bool((absorber.grad != 0).any())
    with pytest.raises(InputError, match="is distilled into 2 steps of the shape and 1 of the pattern"):
        student.sample(SamplingDesign("W", "lAr", 0.2, 0.4, 7), 2.0, 3, particle="e-", layers_only=True, steps=9)


def test_a_trained_student_makes_the_showers_of_its_teacher_from_the_same_noise(folder: Path) -> None:
    train(config_of(folder, training=FEW | {"steps": 40}), folder / "run")
    training = {"steps": 400, "batch": 64, "report_every": 400, "warmup": 10, "learning_rate": 0.01, "ema": 0.9}
    table = {"teacher": str(folder / "run"), "student_steps": [1, 1], "showers": 4000}
    train(distillation_of(folder, training=training, distillation=table, model={"kind": "plates"}), folder / "student")
    stack, made = SamplingDesign("W", "lAr", 0.2, 0.4, 7), []
    for name in ("run", "student"):
        generator = torch.Generator().manual_seed(3)
        showers = Surrogate.load(folder / name).sample(
            stack, 2.0, 200, particle="e-", layers_only=True, generator=generator
        )
        made.append(showers.layer_energies().sum(1))
    assert float(torch.corrcoef(torch.stack(made))[0, 1]) > 0.95


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": {"kind": "plates", "layers": 12}}, "model.layers is 12, 10 in the teacher toy"),
        ({"range": RANGE | {"energy": [1.0, 2.9]}}, "range.energy, 1 to 2.9 GeV, reaches beyond that of the teacher"),
        ({"distillation": {"teacher": "pbf2-cells", "student_steps": [2, 1]}},
         "pbf2-cells is of cells; expected a surrogate of plates"),
    ],
)  # fmt: skip
def test_a_student_that_does_not_fit_its_teacher_is_refused(
    folder: Path, changes: dict[str, Any], complaint: str
) -> None:
    train(config_of(folder), folder / "run")
    with pytest.raises(InputError, match=complaint):
        train(distillation_of(folder, **changes), folder / "student")


def test_data_of_a_material_that_the_teacher_does_not_know_are_refused(folder: Path) -> None:
    train(config_of(folder, data={"files": ["one.h5"], "validation": 0.2}), folder / "run")
    with pytest.raises(InputError, match=r"the absorber (W|Fe), on which the teacher toy was not trained"):
        train(distillation_of(folder), folder / "student")


OF_POINTS = SMALL | {"points": True, "feature_width": 8, "feature_blocks": 1, "feature_steps": 2, "point_width": 8,
                     "point_blocks": 2, "point_steps": 2}  # fmt: skip
FEW_POINTS = FEW | {"feature_location_scale_steps": 4, "feature_steps": 4, "point_steps": 6, "point_batch": 8,
                    "match_showers": 10}  # fmt: skip


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    write_plates(tmp_path / "one.h5", 60, config=plates_config(record="points"))
    write_plates(tmp_path / "other.h5", 40, config=plates_config(2, absorber=("W", "Fe"), record="points"))
    return tmp_path


def points_of(folder: Path, **changes: Any) -> Any:
    return config_of(folder, **({"model": OF_POINTS, "training": FEW_POINTS} | changes))


def test_points_are_learnt_after_the_layers(recorded: Path) -> None:
    train(points_of(recorded), recorded / "run")
    surrogate = Surrogate.load(recorded / "run")
    made = surrogate.sample(SamplingDesign("W", "lAr", 0.2, 0.4, 7), 2.0, 3, particle="e-")
    assert made.absorbed_energies().shape == made.layer_energies().shape == (3, 7)
    assert (made.counts > 0).all()
    reports = read_log(recorded / "run")
    phases = [(report["phase"], report["step"]) for report in reports]
    assert phases == [("diffusion", 3), ("diffusion", 6), ("points", 3), ("points", 6), ("numbers and distances", 0)]
    assert set(reports[-1]["bias"]) == {"E_vis/E", "N_hits", "radius", "depth", "points"}
    assert set(reports[-1]["losses"]) == {"features", "points"}
    plot_log(recorded / "run", recorded / "training.png")
    assert (recorded / "training.png").read_bytes().startswith(b"\x89PNG")
    stage = surrogate.model.points
    assert isinstance(stage, PointStage)
    assert stage.more_points.any()
    assert stage.farther.any()
    assert float(stage.reach) == pytest.approx(2**0.5, rel=0.1)  # deposits are in a square of one centimetre
    assert all(bool((table.diff(dim=-1) > 0).all()) for table in (stage.energy_table, stage.radius_table))


def test_only_numbers_and_distances_of_points_are_matched(recorded: Path) -> None:
    train(points_of(recorded), recorded / "run")
    begun = Surrogate.load(recorded / "run")
    training = {"start": "run", "only_match": True, "match_showers": 30}
    train(points_of(recorded, model={"kind": "plates", "points": True}, training=training), recorded / "matched")
    matched = Surrogate.load(recorded / "matched")
    ours, theirs = (surrogate.model.state_dict() for surrogate in (matched, begun))
    fitted = {name for name, value in theirs.items() if not torch.equal(value, ours[name])}
    assert fitted == {"points.more_points", "points.farther"}
    assert [report["phase"] for report in read_log(recorded / "matched")] == ["numbers and distances"]
    earlier = matched.card.training["earlier"]
    assert earlier["config"]["training"]["point_steps"] == FEW_POINTS["point_steps"]
    assert earlier["showers"] == begun.card.training["showers"]
    assert "data" not in earlier


@pytest.mark.parametrize(
    ("start", "changes", "complaint"),
    [
        ("energies", {"points": True}, "toy has no points to match; leave training.only_match out"),
        ("run", {"points": True, "point_width": 8}, "model.point_width is that of training.start"),
    ],
)
def test_points_that_cannot_be_matched_alone_are_refused(
    taught: Path, start: str, changes: dict[str, Any], complaint: str
) -> None:
    training = {"start": start, "only_match": True, "match_showers": 30}
    with pytest.raises(InputError, match=complaint):
        train(points_of(taught, model={"kind": "plates"} | changes, training=training), taught / "matched")


def test_points_are_matched_alone_only_from_a_start(tmp_path: Path) -> None:
    text = 'name = "x"\n[data]\nfiles = ["a.h5"]\n[range]\nenergy = [1, 2]\nparticles = ["e-"]\ntheta = [0, 1]\n'
    path = tmp_path / "run.toml"
    path.write_text(text + '[model]\nkind = "plates"\npoints = true\n[training]\nonly_match = true\n')
    with pytest.raises(InputError, match=r"run\.toml: training\.only_match keeps the points of training\.start"):
        read_config(path)


def test_an_interrupted_run_of_points_ends_with_the_same_weights(recorded: Path) -> None:
    config, reports = points_of(recorded), 0
    whole = train(config, recorded / "whole")

    def interrupt(report: dict[str, Any]) -> None:
        nonlocal reports
        reports += 1
        if reports == 3:  # amidst the points
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        train(config, recorded / "cut", on_report=interrupt)
    resumed = train(config, recorded / "cut")
    for (name, one), other in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_points_are_added_to_a_trained_surrogate_whose_layers_stay(recorded: Path) -> None:
    first = train(config_of(recorded), recorded / "first")
    begun = FEW_POINTS | {"start": "first"}
    train(points_of(recorded, model={"kind": "plates", "points": True, "point_width": 8}, training=begun),
          recorded / "run")  # fmt: skip
    surrogate = Surrogate.load(recorded / "run")
    for name, value in first.state_dict().items():
        assert torch.equal(value, surrogate.model.state_dict()[name]), name
    assert surrogate.card.architecture["point_width"] == 8
    assert surrogate.card.training["config"]["training"]["start"] == "first"
    assert [report["phase"] for report in read_log(recorded / "run")] == ["points", "points", "numbers and distances"]
    stack, seeds = SamplingDesign("W", "lAr", 0.2, 0.4, 7), [torch.Generator().manual_seed(1) for _ in range(2)]
    made = surrogate.sample(stack, 2.0, 3, particle="e-", generator=seeds[0])
    layers = Surrogate.load(recorded / "first").sample(
        stack, 2.0, 3, particle="e-", layers_only=True, generator=seeds[1]
    )
    torch.testing.assert_close(made.absorbed_energies(), layers.absorbed_energies())
    again = FEW_POINTS | {"start": "run"}  # one that has points already, of other sizes
    weights = train(points_of(recorded, model={"kind": "plates", "points": True, "point_width": 4}, training=again),
                    recorded / "again")  # fmt: skip
    for name, value in first.state_dict().items():
        assert torch.equal(value, weights.state_dict()[name]), name


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"training": FEW_POINTS | {"start": "pbf2-cells"}}, "pbf2-cells is of cells; expected a surrogate of plates"),
        ({"training": FEW_POINTS | {"start": "first"}}, "model.embedding is that of training.start; expected no more"),
        ({"model": SMALL, "training": FEW | {"start": "first"}}, "start adds points .*; set model.points = true"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(recorded: Path, changes: dict[str, Any], complaint: str) -> None:
    train(config_of(recorded), recorded / "first")
    with pytest.raises(InputError, match=complaint) as refusal:
        train(points_of(recorded, **changes), recorded / "run")
    assert "\n" not in str(refusal.value)


def test_points_need_deposits(folder: Path) -> None:
    with pytest.raises(InputError, match=r"holds the energies of plates alone; points need .* --record points"):
        train(points_of(folder), folder / "run")


def test_several_processes_are_refused_for_points(recorded: Path) -> None:
    class Two(SingleProcess):
        size = 2

    config = points_of(recorded)
    with pytest.raises(InputError, match="several processes share the energies of plates, not the points"):
        make_task(config, read_data(config), Two("cpu"))


def test_a_student_keeps_the_points_of_its_teacher(recorded: Path) -> None:
    teacher = train(points_of(recorded), recorded / "run")
    train(distillation_of(recorded), recorded / "student")
    student = Surrogate.load(recorded / "student")
    for name, value in teacher.state_dict().items():
        if name.startswith("points."):
            assert torch.equal(value, student.model.state_dict()[name]), name
    made = student.sample(SamplingDesign("W", "lAr", 0.2, 0.4, 7), 2.0, 3, particle="e-")
    assert (made.counts > 0).all()


def test_the_factor_on_numbers_of_points_follows_what_hits_follow() -> None:
    rng = np.random.default_rng(1)
    terms = np.concatenate([np.ones((4000, 1)), rng.normal(size=(4000, 3))], 1)
    known = rng.integers(20, 200, 4000)
    true = np.array([0.1, -0.2, 0.05, 0.0])
    factor = MatchedFactor.none(np.array([0.0, 20.0, 20.0, 20.0]), 0.9)
    for rows in np.split(np.arange(4000), 4):
        more = np.exp(0.8 * terms[rows] @ (true + factor.coefficients) + 0.1 * rng.normal(size=1000))  # not the gain
        made = np.rint(known[rows] * more)
        factor = factor.after(*relative_differences(made, known[rows], terms[rows], np.full(1000, 5.0), factor.shrink))
    np.testing.assert_allclose(factor.coefficients, -true, atol=0.015)
    few = MatchedFactor.none(factor.shrink).after(np.full(5, 0.3), terms[:5], np.ones(5)).coefficients
    assert few[0] == pytest.approx(-0.3, abs=0.05)
    assert np.abs(few[1:]).max() < 0.1


def test_rounds_with_a_fixed_factor_are_one_least_squares() -> None:
    rng = np.random.default_rng(3)
    terms, d, weight = rng.normal(size=(60, 4)), rng.normal(size=60), rng.uniform(size=60)
    start = replace(MatchedFactor.none(np.full(4, 5.0), 0.8), coefficients=rng.normal(size=4))
    once = start.after(d, terms, weight)
    first = start.after(d[:20], terms[:20], weight[:20])
    shift = 0.8 * terms @ (first.coefficients - start.coefficients)  # what the next round would find
    both = first.after((d + shift)[20:], terms[20:], weight[20:])
    np.testing.assert_allclose(both.coefficients, once.coefficients, rtol=1e-10)
    forgotten = first.forgetful().after((d + shift)[20:], terms[20:], weight[20:])
    direct = start.after(d[20:], terms[20:], weight[20:])
    np.testing.assert_allclose(forgotten.coefficients, direct.coefficients, rtol=1e-10)


def test_measures_are_matched_in_their_mean() -> None:
    rng = np.random.default_rng(2)
    terms = np.concatenate([np.ones((20_000, 1)), rng.normal(size=(20_000, 2))], 1)
    usual, shrink = np.exp(terms @ np.array([0.3, 0.2, -0.1])), np.array([0.0, 20.0, 20.0])
    known, made = (usual * rng.gamma(1 / s**2, s**2, 20_000) for s in (0.2, 0.5))  # equal means, not equal logarithms
    for true in (np.zeros(3), np.array([0.05, 0.0, 0.03])):
        energy = np.exp(rng.uniform(0, 4, 20_000))
        found = relative_differences(made * np.exp(terms @ true), known, terms, energy, shrink)
        factor = MatchedFactor.none(shrink).after(*found)
        np.testing.assert_allclose(factor.coefficients, -true, atol=0.025)


def test_the_radius_of_points_is_their_rms_about_the_centre() -> None:
    x, y, e = torch.tensor([[1.0, 3.0, 5.0, 0.0], [0.0, 0.0, 2.0, 7.0], [1.0, 1.0, 2.0, 1e-3]])
    found = rms_radius(x, y, e, torch.tensor([0, 2, 3, 3, 4]))
    np.testing.assert_allclose(found, [1, 0, 0, 0], atol=1e-6)


def student_of_points(folder: Path, **changes: Any) -> Any:
    """Return the configuration of a distilled second stage, added to a surrogate of layer energies."""
    model = {"kind": "plates", "points": True, "feature_width": 8, "feature_blocks": 1, "point_width": 4,
             "point_blocks": 1}  # fmt: skip
    distillation = {"teacher": "run", "student_steps": [1, 2], "shape_steps": 3, "pattern_steps": 3}
    training = FEW_POINTS | {"start": "fast"}
    return points_of(folder, **({"model": model, "training": training, "distillation": distillation} | changes))


@pytest.fixture
def taught(recorded: Path) -> Path:
    """Folder with a surrogate of points, ``run``, and one of layer energies in few steps, ``fast``."""
    train(points_of(recorded), recorded / "run")
    train(config_of(recorded), recorded / "energies")
    distilled = {"teacher": "energies", "student_steps": [2, 1], "shape_steps": 4, "pattern_steps": 4}
    train(distillation_of(recorded, distillation=distilled), recorded / "fast")
    return recorded


def test_points_are_distilled_and_added_to_a_student_of_energies(taught: Path) -> None:
    whole = train(student_of_points(taught), taught / "student")
    student, teacher, energies = (Surrogate.load(taught / name) for name in ("student", "run", "fast"))
    ours, stage = student.model.state_dict(), student.model.points
    assert isinstance(stage, PointStage)
    for name, value in energies.model.state_dict().items():
        assert torch.equal(value, ours[name]), name
    for name, value in teacher.model.state_dict().items():
        own = name.startswith(
            ("points.layer_network.", "points.point_network.", "points.more_points", "points.farther")
        )
        if name.startswith("points.") and not own:
            assert torch.equal(value, ours[name]), name
    assert stage.sizes.distilled_steps == (1, 2)
    assert student.model.architecture.point_sampling() == (PROGRESSIVE, (1, 2))
    data = load_plates([taught / "one.h5"], 0.2, seed=0, points=True)
    rows, model = data.train.at(torch.arange(5)), student.model
    drawn = [points_in_layers(model, data, rows, RandomNumbers(2, range(5)))[0].e]
    random = RandomNumbers(2, range(5))
    layers_known = layers_of(model, data, rows, random)
    absorber = torch.zeros_like(layers_known.visible)
    drawn.append(stage.generate(layers_known, absorber, PROGRESSIVE, (1, 2), False, random).e)
    assert torch.equal(*drawn)  # numbers of hits and radii are matched as the student samples
    assert student.card.training["config"]["distillation"]["teacher"] == "run"
    assert [report["phase"] for report in read_log(taught / "student")] == ["points", "points", "numbers and distances"]
    stack = SamplingDesign("W", "lAr", 0.2, 0.4, 7)
    made = student.sample(stack, 2.0, 3, particle="e-", generator=torch.Generator().manual_seed(1))
    layers = energies.sample(stack, 2.0, 3, particle="e-", layers_only=True, generator=torch.Generator().manual_seed(1))
    assert (made.counts > 0).all()
    torch.testing.assert_close(made.layer_energies(), layers.layer_energies(), rtol=1e-5, atol=1e-9)
    for name, value in train(student_of_points(taught), taught / "again").state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_a_distilled_stage_learns_what_its_teacher_does(taught: Path) -> None:
    longer = FEW_POINTS | {"start": "fast", "feature_steps": 150, "point_steps": 150, "warmup": 5, "ema": 0.9}
    model = {"kind": "plates", "points": True, "feature_width": 8, "feature_blocks": 1, "point_width": 16,
             "point_blocks": 1}  # fmt: skip
    losses = []
    for name, training in (("short", FEW_POINTS | {"start": "fast"}), ("long", longer)):
        train(student_of_points(taught, training=training, model=model), taught / name)
        losses.append(read_log(taught / name)[-1]["losses"])
    assert losses[1]["points"] < losses[0]["points"]


@pytest.mark.parametrize(
    ("teacher", "complaint"),
    [
        ("energies", "the teacher toy has no points in plates"),
        ("pbf2-cells", "the teacher pbf2-cells has no points in plates"),
        ("student", "the points of the teacher toy are distilled"),
    ],
)
def test_a_teacher_of_points_that_does_not_fit_is_refused(taught: Path, teacher: str, complaint: str) -> None:
    train(student_of_points(taught), taught / "student")
    with pytest.raises(InputError, match=complaint) as refusal:
        train(student_of_points(taught, distillation={"teacher": teacher, "student_steps": [1, 1]}), taught / "other")
    assert "\n" not in str(refusal.value)


def test_points_go_with_their_showers_whether_trained_on_or_held_out(recorded: Path) -> None:
    with open_plates(recorded / "one.h5", deposits=True) as library:
        showers = library.read()
    assert showers.deposits is not None
    owned = np.bincount(showers.deposits.owner, showers.deposits.e, len(showers))
    of_shower = dict(zip(showers.energies()[:, 0, 2].tolist(), owned.tolist(), strict=True))
    assert len(of_shower) == 60
    data = load_plates([recorded / "one.h5"], 0.2, seed=0, points=True)
    for rows, points, n in ((data.train, data.train_points, 48), (data.validation, data.validation_points, 12)):
        assert points is not None
        assert len(rows) == len(points) == n
        totals = torch.zeros(n, dtype=torch.float64).index_add(0, points.owner, points.e.double())
        for first, total in zip(rows.energies[:, 0, 1].tolist(), totals.tolist(), strict=True):
            assert total == pytest.approx(of_shower[first], rel=1e-5, abs=1e-9)


class Half(SingleProcess):
    """One of two processes."""

    size = 2

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def rows(self, n: int) -> slice:
        return slice(self.number * n // 2, (self.number + 1) * n // 2)


@pytest.mark.parametrize("phase", range(3))
def test_losses_of_two_processes_are_halves_of_the_whole_loss(folder: Path, phase: int) -> None:
    config = config_of(folder)
    data = read_data(config)
    whole, *halves = (PlatesTask(config, data, group) for group in (SingleProcess(), Half(0), Half(1)))
    torch.manual_seed(0)
    for parameter in whole.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    def loss(task: PlatesTask) -> torch.Tensor:
        state = SimpleNamespace(model=whole.model, phase=phase, generator=torch.Generator().manual_seed(1))
        return task.phases[phase].loss(state).detach()  # type: ignore[arg-type]

    one, other = map(loss, halves)
    assert float(one) != float(other)
    torch.testing.assert_close((one + other) / 2, loss(whole))


def test_a_batch_that_processes_cannot_share_is_refused(folder: Path) -> None:
    config = config_of(folder, training=FEW | {"batch": 12})
    with pytest.raises(InputError, match=r"training.batch = 12 cannot be shared out to 2 processes; .* multiple of 8"):
        PlatesTask(config, read_data(config), Half(0))
