from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calograd.diffusion.consistency import Trajectories
from calograd.diffusion.denoisers import denoise
from calograd.errors import FormatError, InputError, Interrupted, OutputExistsError
from calograd.events.layered_readout import count_hits
from calograd.events.point_showers import PointShowers, write_points
from calograd.surrogate import Surrogate
from calograd.surrogate.points.features import LEADS, features_of
from calograd.surrogate.points.model import PointsModel
from calograd.system.random_numbers import RandomNumbers
from calograd.training.config import PointsModelConfig, PointsRun, parse_config
from calograd.training.data.points import PointsData, load_points
from calograd.training.log import read_log
from calograd.training.loop import CHECKPOINT
from calograd.training.tasks.points_distil import POINTS, Showers, spread_loss, teacher_targets
from calograd.training.tasks.points_hits import difference
from calograd.training.train import train

Make = Callable[..., PointShowers]
FEW = {"location_scale_steps": 6, "shower_steps": 6, "point_steps": 6, "hit_showers": 200, "report_every": 6,
       "warmup": 2,
       "shower_batch": 16, "location_scale_batch": 16, "point_batch": 12}  # fmt: skip
SMALL = {"shower_width": 8, "shower_blocks": 1, "point_width": 8, "point_blocks": 1, "embedding": 8,
         "location_scale_width": 8, "steps": 2, "shower_steps": 3}  # fmt: skip


def tables(**changes: Any) -> dict[str, Any]:
    made = {"name": "tiny-cloud", "data": {"files": ["points.h5"], "validation": 0.2}, "range": {"energy": [12, 88]},
            "model": {"kind": "points"} | SMALL, "training": dict(FEW)}  # fmt: skip
    return made | changes


@pytest.fixture
def folder(tmp_path: Path, make_clouds: Make) -> Path:
    write_points(tmp_path / "points.h5", make_clouds(60))
    return tmp_path


def config_of(folder: Path, **changes: Any) -> PointsRun:
    config = parse_config(tables(**changes), "tiny.toml", folder)
    assert isinstance(config, PointsRun)
    return config


def data_of(config: PointsRun) -> PointsData:
    return load_points(config.data.files, config.data.validation, config.range.energy, config.training.seed)


def test_a_run_makes_a_surrogate_and_a_log(folder: Path) -> None:
    config = config_of(folder)
    data = data_of(config)
    train(config, folder / "run", data=data)
    surrogate = Surrogate.load(folder / "run")
    assert surrogate.card.detector.clustering == "crossings"
    assert surrogate.card.detector.detector == {"kind": "siw"}
    points = surrogate.sample(50.0, 4, generator=torch.Generator().manual_seed(0))
    assert float(points.e.sum()) > 0
    reports = read_log(folder / "run")
    assert [r["phase"] for r in reports] == ["showers", "points"]
    assert set(reports[0]["bias"]) == {"E_vis/E", "N_hits", "radius", "depth"}


def test_hits_are_brought_to_those_of_the_data(folder: Path, make_clouds: Make) -> None:
    clouds = make_clouds(300, seed=3)
    hits = np.round(1.2 * count_hits(clouds) * (clouds.energy / 50) ** 0.1).astype(np.int64)
    write_points(folder / "counted.h5", replace(clouds, hits=hits))
    config = config_of(folder, data={"files": ["counted.h5"], "validation": 0.2})
    data = data_of(config)
    assert data.train.clouds.hits is not None
    model = train(config, folder / "run", data=data)
    assert [r["phase"] for r in read_log(folder / "run")] == ["showers", "points", "hits"]
    energy = torch.linspace(12, 88, 400)

    def off() -> float:
        random = RandomNumbers(5, range(400))
        points = model.generate(model.conditions(energy), energy, model.sampling_schedule(), random)
        made = points.numpy("made", {})
        columns = [
            (c.energy, np.bincount(c.owner, c.e, len(c)) / c.energy, h)
            for c, h in ((data.train.clouds, data.train.clouds.hits), (made, count_hits(made)))
        ]
        return float(np.abs(difference(model, columns[0], columns[1])).max())

    after = off()
    model.more_points.zero_()
    assert off() > 0.15
    assert after < 0.3 * off()
    plain = train(config_of(folder, name="plain"), folder / "plain", data=data_of(config_of(folder)))
    assert float(plain.more_points.abs().max()) == 0


def test_an_interrupted_run_ends_as_one_that_was_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(folder)
    data = data_of(config)
    whole = train(config, folder / "whole", data=data).state_dict()
    from contextlib import contextmanager

    from calograd.training import loop as engine

    steps = {"left": 9}

    @contextmanager
    def soon():  # type: ignore[no-untyped-def]
        def came() -> bool:
            steps["left"] -= 1
            return steps["left"] < 0

        yield came

    with monkeypatch.context() as patch:
        patch.setattr(engine, "deferred_interrupt", soon)
        with pytest.raises(Interrupted, match="the same command resumes"):
            train(config, folder / "run", data=data)
    assert (folder / "run" / CHECKPOINT).exists()
    resumed = train(config, folder / "run", data=data).state_dict()
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0)


def student_of(folder: Path, teacher: str, **changes: Any) -> PointsRun:
    few = {"teacher": teacher, "showers": 40, "layers": 300, "steps": 3, "spread_steps": 6}
    sizes = {"kind": "points", "shower_width": 10, "shower_blocks": 2, "point_width": 6, "embedding": 7}
    return config_of(folder, name="tiny-cm", model=sizes, distillation=few, **changes)


def test_a_distilled_one_takes_one_evaluation(folder: Path) -> None:
    config = config_of(folder)
    data = data_of(config)
    teacher = train(config, folder / "teacher", data=data)
    train(student_of(folder, "teacher"), folder / "cm", data=data)
    made = Surrogate.load(folder / "cm")
    assert made.model.sampling_schedule().evaluations == 1
    architecture = made.model.architecture
    assert (architecture.shower_steps, architecture.shower_width, architecture.point_width) == (1, 10, 6)
    assert architecture.location_scale_width == teacher.architecture.location_scale_width
    for name in ("local_mean", "distance_table", "shower_location_scale.network.0.weight"):
        assert torch.equal(made.model.state_dict()[name], teacher.state_dict()[name])
    assert len(made.sample(50.0, 3)) == 3
    reports = read_log(folder / "cm")
    assert [r["phase"] for r in reports] == ["showers", "spread", "points"]
    with pytest.raises(InputError, match="distilled already"):
        train(student_of(folder, "cm"), folder / "cm2", data=data)


def test_targets_are_the_teachers_own_trajectories(folder: Path) -> None:
    config = config_of(folder)
    data = data_of(config)
    teacher = train(config, folder / "teacher", data=data)
    wanted = student_of(folder, "teacher").distillation
    assert wanted is not None
    targets, again = (teacher_targets(teacher, data.train.energy, wanted, 3) for _ in range(2))
    assert len(targets.showers.energy) == 40
    assert len(targets.layers.context) == 300
    assert len(targets.layers.places.x) == 300 * POINTS
    for ours, theirs in zip(targets.layers.places, again.layers.places, strict=True):
        assert torch.equal(ours, theirs)
    sigma = targets.layers.places.sigma.reshape(-1, POINTS)
    assert bool((sigma == sigma[:, :1]).all())
    with torch.no_grad():  # from the lowest level a step is left, which is the denoiser's
        places, low = targets.showers.places, float(targets.showers.places.sigma.min())
        rows = torch.nonzero(places.sigma == low).squeeze(1)
        network = teacher.shower_at(teacher.conditions(targets.showers.energy[rows]), targets.showers.leads[rows])
        clean = denoise(network, teacher.shower_preconditioning, places.x[rows], places.sigma[rows])
    assert float((clean - places.end[rows]).std()) < 0.3 * float(places.x[rows].std())


def test_other_runs_are_not_touched(folder: Path) -> None:
    config = config_of(folder)
    data = data_of(config)
    train(config, folder / "run", data=data)
    other = config_of(folder, training=FEW | {"learning_rate": 1e-3})
    with pytest.raises(InputError, match="learning_rate"):
        train(other, folder / "run", data=data)
    (folder / "run" / CHECKPOINT).write_bytes(b"nothing")
    with pytest.raises(FormatError, match="damaged"):
        train(config, folder / "run", data=data)
    (folder / "run" / CHECKPOINT).unlink()
    with pytest.raises(OutputExistsError, match="no checkpoint"):
        train(config, folder / "run", data=data)


def test_the_published_variants_train(folder: Path) -> None:
    ddpm = SMALL | {"schedule": "linear", "preconditioning": "noise", "sampler": "ddpm", "steps": 4}
    config = config_of(folder, model={"kind": "points"} | ddpm)
    train(config, folder / "run", data=data_of(config))
    assert Surrogate.load(folder / "run").model.sampling_schedule().evaluations == 4


def test_points_are_unit_normal_and_whole_layers_come_together(folder: Path) -> None:
    data = data_of(config_of(folder))
    rows = data.train
    assert abs(float(rows.z.mean())) < 0.02
    assert abs(float(rows.z.std()) - 1) < 0.03
    z, group, place = rows.groups(torch.tensor([3, 0, 5]))
    counts = torch.bincount(group)
    clouds = rows.clouds
    sums = torch.from_numpy(clouds.layer_sums()).flatten()
    assert counts.tolist() == sums[place].long().tolist()
    own = (clouds.owner * 30 + clouds.layer) == int(place[0])
    torch.testing.assert_close(z[group == 0], rows.z[torch.from_numpy(own)])
    again = features_of(clouds, data.tables.distance)
    torch.testing.assert_close(again.mean, rows.features.mean)


def test_showers_without_points_or_outside_the_range_are_left_out(tmp_path: Path, make_clouds: Make) -> None:
    clouds = make_clouds(60)
    emptied = clouds.rows(np.arange(60))
    offsets = emptied.offsets.copy()
    first = int(offsets[1])
    made = PointShowers(
        emptied.x[first:], emptied.y[first:], emptied.layer[first:], emptied.e[first:],
        np.concatenate([[0], offsets[1:] - first]), emptied.energy, emptied.shower, 30, "geant4", emptied.config,
    )  # fmt: skip
    write_points(tmp_path / "points.h5", made)
    data = data_of(config_of(tmp_path, range={"energy": [30, 80]}))
    inside = (clouds.energy[1:] >= 30) & (clouds.energy[1:] <= 80)
    assert len(data.train) + len(data.validation) == inside.sum()
    assert data.source.empty == 1


def test_data_that_do_not_do_are_refused(folder: Path, make_clouds: Make) -> None:
    config = config_of(folder, range={"energy": [2, 88]})
    with pytest.raises(InputError, match="reaches beyond the data"):
        train(config, folder / "run", data=data_of(config))
    with pytest.raises(InputError, match="too few"):
        load_points([folder / "points.h5"], 0.2, (88.0, 90.0), 0)
    other = make_clouds(30)
    write_points(folder / "other.h5", PointShowers(**(vars(other) | {"config": {"clustering": "sub-cells"}})))
    with pytest.raises(InputError, match="expected one number of layers and one clustering"):
        load_points([folder / "points.h5", folder / "other.h5"], 0.2, (10.0, 90.0), 0)
    write_points(folder / "plates.h5", PointShowers(**(vars(other) | {"n_layers": np.full(30, 30)})))
    with pytest.raises(InputError, match=r"plates\.h5 holds points in stacks of plates; expected those of a silicon"):
        load_points([folder / "points.h5", folder / "plates.h5"], 0.2, (10.0, 90.0), 0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"model": {"kind": "points", "point_widht": 3}}, "did you mean 'point_width'"),
     ({"range": {"energy": [90, 10]}}, "lower end first"),
     ({"distillation": {"teacher": "x", "step": 1}}, "did you mean 'steps'"),
     ({"distillation": {"teacher": "x"}}, "model.location_scale_width is the teacher's")],
)  # fmt: skip
def test_wrong_keys_and_values_are_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        config_of(tmp_path, **changes)


def test_the_spread_that_regression_leaves_out_is_mended() -> None:
    """Of a student that makes half of every number M = 2, u = 0 has the right mean and covariance."""
    teacher = PointsModelConfig(kind="points", **SMALL).architecture(6)
    architecture = replace(teacher, sampler="consistency", steps=1, shower_steps=1)
    student = PointsModel(architecture)
    assert student.shower_correction is not None
    generator = torch.Generator().manual_seed(0)
    noise, energy = torch.randn(4000, 26, generator=generator), torch.full((4000,), 50.0)
    leads = torch.randn(4000, LEADS, generator=generator)
    x, sigma = 40 * noise, torch.full((4000,), 40.0)
    with torch.no_grad():
        found = denoise(student.shower_at(student.conditions(energy), leads), student.shower_preconditioning, x, sigma)
    showers = Showers(Trajectories(x, sigma, 2 * found), energy, leads)
    everything = torch.arange(4000)
    assert float(spread_loss(student, student, showers, everything).detach()) > 1
    with torch.no_grad():
        student.shower_correction.weight.mul_(2)
        student.shower_correction.bias.zero_()
    assert float(spread_loss(student, student, showers, everything).detach()) < 1e-8
