from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click import BadParameter
from click.testing import CliRunner
from helpers.tiny import tilted_surrogate, tiny_surrogate
from helpers.tiny_clouds import tiny_clouds
from helpers.tiny_plates import tiny_plate_points, tiny_plates

from calograd.cli import evaluate as command
from calograd.detector.material import MATERIALS
from calograd.detector.sampling_stack import SamplingStack
from calograd.errors import CaloGradError, InputError, RangeError
from calograd.evaluation import timing
from calograd.evaluation.timing import Benchmark, Spread, Stopwatch, Timing, Workload, time_geant4


def test_the_command_without_geant4(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "DESIGN_BATCHES", (1, 8))
    monkeypatch.setattr(timing, "SLOW_BATCH", 2)
    monkeypatch.setattr(timing, "find_geant4", lambda *_: (None, "no tables"))
    output, threads = tmp_path / "out.json", torch.get_num_threads()
    arguments = [tiny, "--energies", "10,1", "--repeats", "2", "--json", str(output)]
    assert CliRunner().invoke(command.benchmark, arguments, catch_exceptions=False).exit_code == 0
    result = json.loads(output.read_text())
    assert result["geant4"] is None
    assert result["note"] == "no tables"
    assert {t["energy"] for t in result["surrogates"]} == {1, 10}
    assert 1 in {t["batch"] for t in result["surrogates"]}
    assert {(t["sampler"], t["evaluations"]) for t in result["surrogates"]} == {("trigflow-ab2", 12)}
    assert {t["sampler"] for t in result["samplers"]} == {"ddpm", "ddim", "heun", "dpmpp-2m"}
    assert all(0 < t["processor"]["low"] <= t["processor"]["median"] for t in result["surrogates"])
    assert torch.get_num_threads() == threads


def test_a_distilled_surrogate_is_timed_in_its_own_way(
    distilled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "DESIGN_BATCHES", (1, 8))
    output = tmp_path / "out.json"
    arguments = [distilled, "--energies", "10", "--repeats", "1", "--no-geant4", "--json", str(output)]
    assert CliRunner().invoke(command.benchmark, arguments, catch_exceptions=False).exit_code == 0
    result = json.loads(output.read_text())
    assert result["samplers"] == []
    for t in (*result["surrogates"], *result["batches"]):
        assert (t["sampler"], t["steps"], t["evaluations"], t["shape_evaluations"]) == ("progressive", 1, 1, 2)


def test_particles_are_timed(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn anew for every shower; in the window, of the particles and angles that are asked for."""
    monkeypatch.setattr(timing, "DESIGN_BATCHES", (1, 4))
    tilted_surrogate(5, 3, distilled_steps=(2, 1)).save(tmp_path / "tilted")
    code, _, err = calograd(
        "benchmark", "tilted", "--energies", "10", "--repeats", "1", "--no-geant4", "--json", "out.json",
        "--cells", "3", "2", "--particle", "gamma,e-", "--position", "uniform", "--theta", "0:40", "--phi", "30",
    )  # fmt: skip
    assert code == 0, err
    for words in ("3 x 3 x 2 cells", "particle gamma and e-", "position uniform", "theta 0 to 40 degrees"):
        assert words in " ".join(err.split())
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["schema"] == "calograd/benchmark/3"
    beam = {"particle": ["gamma", "e-"], "position": "uniform", "theta": [0, 40], "phi": 30}
    assert found["workload"] == {"material": None, "cells": [3, 2], "beam": beam}
    assert all(t["processor"]["low"] > 0 for t in found["surrogates"])


def test_a_workload_is_drawn_where_it_is_not_fixed() -> None:
    fixed = {"particle": "e-", "position": (0.2, -0.4), "theta": 20.0}
    assert Workload(beam=fixed).draw(2.5, 6, 0) == fixed
    drawn = Workload(beam=fixed | {"position": "uniform", "phi": (0.0, 360.0)})
    again, other = (drawn.draw(2.5, 6, seed) for seed in (0, 1))
    one = drawn.draw(2.5, 6, 0)
    assert set(one["particle"]) == {11}
    assert one["position"].shape == (6, 2)
    assert (abs(one["position"]) < 1.25).all()
    assert (one["theta"] == 20).all()
    assert all((one[name] == again[name]).all() for name in one)
    assert not any((one[name] == other[name]).any() for name in ("position", "phi"))
    assert Workload.from_dict(json.loads(json.dumps(drawn.to_dict()))) == drawn
    material = Workload(MATERIALS["BGO"], (5, 4))
    assert Workload.from_dict(json.loads(json.dumps(material.to_dict()))) == material


def test_geant4_has_the_same_particles() -> None:
    beam = {"particle": ("gamma", "e-"), "position": "uniform", "theta": (0.0, 40.0), "phi": 30.0}
    config = timing.simulation(tilted_surrogate(5, 3), 10.0, 3, Workload(beam=beam))
    assert (config.beam.particle, config.beam.theta, config.beam.phi) == (("gamma", "e-"), (0, 40), 30)
    assert config.beam.position == (0, 0)
    usual = timing.simulation(tilted_surrogate(5, 3), 10.0, 3)
    assert config.detector.size[0] > usual.detector.size[0]
    assert (usual.beam.particle, usual.beam.theta, usual.detector.size) == ("gamma", 0, (25.2, 25.2, 76.0))


@pytest.mark.parametrize(
    ("workload", "error", "words"),
    [
        (Workload(beam={"particle": ("gamma", "e+")}), RangeError, "tilted: particle e. was not trained on, gamma and"),
        (Workload(beam={"particle": "mu-"}), InputError, "particle = 'mu-': expected one of gamma, e-, e"),
        (Workload(beam={"theta": (0.0, 50.0)}), RangeError, "theta = 50 degrees is outside 0 to 40"),
        (Workload(beam={"position": (8.0, 0.0)}), InputError, "outside the central cell"),
        (Workload(cells=(4, 3)), InputError, "odd number of cells across, of up to 5 x 5 x 3"),
        (Workload(MATERIALS["Fe"]), RangeError, r"tilted: material Fe .* was not trained on"),
    ],
)
def test_what_was_not_trained_is_not_timed(workload: Workload, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        timing.benchmark([tilted_surrogate(5, 3)], [10.0], workload=workload)


def test_a_surrogate_of_one_beam_is_not_timed_with_another() -> None:
    with pytest.raises(InputError, match="tiny generates gamma on the axis alone; leave out theta"):
        timing.benchmark([tiny_surrogate()], [10.0], workload=Workload(beam={"theta": 10.0}))
    with pytest.raises(InputError, match="the design has 5 x 5 x 4 cells, tiny generates 3 x 3 x 2"):
        timing.benchmark([tiny_surrogate()], [10.0], workload=Workload(cells=(5, 4)))
    for workload in (Workload(cells=(5, 4)), Workload(MATERIALS["W"]), Workload(beam={"theta": 10.0})):
        with pytest.raises(InputError, match="tiny-cloud has one detector and one beam; leave it out"):
            timing.benchmark([tiny_clouds()], [20.0], workload=workload)


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--energies", "nan"), "'nan' in 'nan'; expected positive"), (("--energies", "500"), "trained on 1 to 100 GeV"),
     (("--energies", "5,5"), "expected different energies"), (("--repeats", "0"), "0 is not in the range x>=1"),
     (("--showers", "-1"), "-1 is not in the range x>=1"),
     (("--theta", "10"), "tiny generates gamma on the axis alone; leave out theta")],
)  # fmt: skip
def test_bad_input_is_named(tiny: str, options: tuple[str, ...], words: str) -> None:
    with pytest.raises((InputError, BadParameter)) as caught:
        CliRunner().invoke(command.benchmark, [tiny, *options], catch_exceptions=False, standalone_mode=False)
    assert words in str(caught.value)


def test_start_up_is_taken_off_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of known cost: 0.6 s of start-up and 0.0125 s a GeV."""
    clock = {"now": 0.0}

    def kernel(config: Any, indices: range, environment: object) -> None:
        energy = sum(config.beam.energies.values) / len(config.beam.energies.values)
        clock["now"] += 0.6 + 0.0125 * energy * len(indices)

    monkeypatch.setattr(timing, "run_kernel", kernel)
    monkeypatch.setattr(timing, "children_seconds", lambda: clock["now"])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 2 * clock["now"])
    for surrogate, energies, expected in (
        (tiny_surrogate(), [1.0, 50.0], [12.5, 625.0]),
        (tiny_clouds(), [(20.0, 80.0)], [625.0]),
    ):
        found = time_geant4(surrogate, energies, {}, repeats=3)
        assert found.startup_processor == pytest.approx(0.6)
        assert [t.processor.median for t in found.timings] == pytest.approx(expected)
        assert [t.clock.median for t in found.timings] == pytest.approx([2 * ms for ms in expected])


def test_every_kind_is_timed_in_a_process_of_its_own() -> None:
    for surrogate, energy in ((tiny_clouds(), (20.0, 80.0)), (tiny_surrogate(), 10.0)):
        with Stopwatch(surrogate) as watch:
            found = [watch.time(energy, batch, 2) for batch in (1, 4)]
        assert [t.batch for t in found] == [1, 4]
        assert {t.energy for t in found} == {energy}
        assert all(0 < t.clock.low <= t.clock.median <= t.clock.high < 1e4 for t in found)


def test_the_reason_of_a_failed_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    surrogate = tiny_clouds()

    def save(folder: Path, *, compact: bool = False) -> None:
        folder.mkdir()

    monkeypatch.setattr(surrogate, "save", save)
    with Stopwatch(surrogate) as watch, pytest.raises(CaloGradError, match=r"timing tiny-cloud failed: .*FormatError"):
        watch.time((20.0, 80.0), 1, 1)


def test_surrogates_of_different_detectors_are_refused() -> None:
    with pytest.raises(InputError, match="benchmark them apart"):
        timing.benchmark([tiny_clouds(), tiny_surrogate()])


def test_ratio_is_at_the_same_energy() -> None:
    def timing_of(who: str, energy: float, ms: float) -> Timing:
        return Timing(who, energy, 1, Spread.of([2 * ms]), Spread.of([ms]))

    geant4 = timing.Geant4Timing((timing_of("Geant4", 1, 10), timing_of("Geant4", 10, 100)), 0.6, 0.7)
    ours = timing_of("tiny", 10, 2)
    result = Benchmark({}, geant4, (ours,), (), ())
    assert result.ratio(ours) == 50
    assert result.ratio(timing_of("tiny", 5, 2)) is None
    assert result.busy == 2


@pytest.mark.geant4
def test_geant4_is_timed_for_real(kernel_environment: dict[str, str]) -> None:
    found = time_geant4(tiny_surrogate(), [1.0], kernel_environment, repeats=1, showers=30)
    assert 0.1 < found.startup_processor < 20
    assert 1 < found.timings[0].processor.median < 500


STACK = (
    "--absorber",
    "Pb",
    "--active",
    "Si",
    "--absorber-thickness",
    "0.3",
    "--active-thickness",
    "0.05",
    "--layers",
    "10",
)


def test_stacks_of_plates_are_timed_in_one_stack(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "DESIGN_BATCHES", (1, 4))
    monkeypatch.setattr(timing, "SAMPLERS", {"heun": timing.SAMPLERS["heun"]})
    surrogate = tiny_plates()
    surrogate.save(tmp_path / "plates")
    common = ("benchmark", "plates", "--energies", "10", "--repeats", "1", "--no-geant4")
    code, _, err = calograd(*common, *STACK, "--particle", "e-", "--theta", "20", "--json", "out.json")
    assert code == 0, err
    assert "10 layers of Pb / Si, particle e-, theta 20 degrees" in " ".join(err.split())
    found = json.loads((tmp_path / "out.json").read_text())
    stack = SamplingStack.model_validate(found["workload"]["stack"])
    assert (stack.layers, stack.absorber_thickness) == (10, 0.3)
    assert all(t["processor"]["low"] > 0 for t in found["surrogates"])
    assert {t["sampler"] for t in found["samplers"]} == {"heun"}
    for asked, words in (
        ((*STACK, "--cells", "5", "5"), "--cells: tiny-plates generates stacks of plates; leave it out"),
        ((*STACK, "--material", "Pb"), "--material: tiny-plates generates stacks of plates"),
        (("--layers", "10"), "a stack of plates needs --absorber"),
        ((*STACK, "--layers", "9:11"), "stacks that each shower draws are no design"),
        ((*STACK, "--layers", "13"), "the stack has 13 layers, tiny-plates generates up to 12"),
        ((*STACK, "--particle", "e+"), "particle e+ was not trained on"),
    ):
        code, _, err = calograd(*common, *asked)
        assert code != 0
        assert words in " ".join(err.split())


def test_geant4_simulates_the_same_stack() -> None:
    surrogate = tiny_plates()
    stack = surrogate.card.stacks.middle()
    assert (stack.layers, stack.absorber[0].name, stack.active[0].name) == (8, "Pb", "lAr")
    assert (stack.absorber_thickness, stack.active_thickness) == (0.435, 0.316)
    made = timing.simulation(surrogate, 10.0, 3, Workload(beam={"particle": "e-", "theta": 20.0}))
    assert isinstance(made.detector, SamplingStack)
    assert made.detector.model_copy(update={"width": 40.0}) == stack
    assert made.detector.width > 40
    assert (made.beam.particle, made.beam.theta, made.seed) == ("e-", 20.0, 3)
    workload = Workload(stack=stack)
    assert Workload.from_dict(json.loads(json.dumps(workload.to_dict()))) == workload
    with pytest.raises(InputError, match=r"generates cells, no stacks of plates; leave out the stack \(--absorber\)"):
        workload.check(tiny_surrogate())
    with pytest.raises(InputError, match="some surrogates are of cells and others of stacks of plates"):
        timing.refuse_different([surrogate, tiny_surrogate()])


def test_energies_of_plates_are_timed_without_points_if_asked(
    calograd: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_points, without = tiny_plate_points(), tiny_plates()
    for workload, record in ((Workload(), "points"), (Workload(layers_only=True), "energies")):
        made = timing.simulation(with_points, 10.0, 3, workload)
        assert isinstance(made.detector, SamplingStack)
        assert made.detector.record == record
        assert Workload.from_dict(json.loads(json.dumps(workload.to_dict()))) == workload
    assert timing.refuse_different([with_points, without], Workload(layers_only=True))
    with pytest.raises(InputError, match="others energies alone; add --layers-only"):
        timing.refuse_different([with_points, without])
    with pytest.raises(InputError, match="generates cells, no stacks of plates; leave out --layers-only"):
        Workload(layers_only=True).check(tiny_surrogate())
    monkeypatch.setattr(timing, "DESIGN_BATCHES", (1, 4))
    monkeypatch.setattr(timing, "SAMPLERS", {})
    with_points.save(tmp_path / "points")
    code, _, err = calograd(
        "benchmark", "points", "--energies", "10", "--repeats", "1", "--no-geant4", "--layers-only", *STACK,
        "--particle", "e-", "--json", "out.json",
    )  # fmt: skip
    assert code == 0, err
    assert "energies of plates alone" in " ".join(err.split())
    assert json.loads((tmp_path / "out.json").read_text())["workload"]["layers_only"] is True
