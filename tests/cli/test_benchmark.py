from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click import BadParameter
from click.testing import CliRunner

from calograd.cli import benchmark as command
from calograd.detector.material import Material
from calograd.errors import InputError
from calograd.evaluation import timing
from calograd.evaluation.timing import Benchmark, Spread, Timing, time_geant4


def test_the_command_without_geant4(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "BATCHES", (1, 8))
    monkeypatch.setattr(timing, "SLOW_BATCH", 2)
    monkeypatch.setattr(command, "geant4_environment", lambda material: (None, "no tables"))
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
    monkeypatch.setattr(timing, "BATCHES", (1, 8))
    output = tmp_path / "out.json"
    arguments = [distilled, "--energies", "10", "--repeats", "1", "--no-geant4", "--json", str(output)]
    assert CliRunner().invoke(command.benchmark, arguments, catch_exceptions=False).exit_code == 0
    result = json.loads(output.read_text())
    assert result["samplers"] == []
    for t in (*result["surrogates"], *result["batches"]):
        assert (t["sampler"], t["steps"], t["evaluations"], t["shape_evaluations"]) == ("progressive", 1, 1, 2)


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--energies", "nan"), "'nan' in 'nan'; expected positive"), (("--energies", "500"), "trained on 1 to 100 GeV"),
     (("--energies", "5,5"), "expected different energies"), (("--repeats", "0"), "0 is not in the range x>=1"),
     (("--showers", "-1"), "-1 is not in the range x>=1")],
)  # fmt: skip
def test_bad_input_is_named(tiny: str, options: tuple[str, ...], words: str) -> None:
    with pytest.raises((InputError, BadParameter)) as caught:
        CliRunner().invoke(command.benchmark, [tiny, *options], catch_exceptions=False, standalone_mode=False)
    assert words in str(caught.value)


def test_start_up_is_taken_off_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of known cost: 0.6 s of start-up and 0.0125 s a GeV."""
    clock = {"now": 0.0}

    def kernel(config: object, indices: range, environment: object) -> None:
        energy = config.beam.energies.values[0]  # type: ignore[attr-defined]
        clock["now"] += 0.6 + 0.0125 * energy * len(indices)

    monkeypatch.setattr(timing, "run_kernel", kernel)
    monkeypatch.setattr(timing, "children_seconds", lambda: clock["now"])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: 2 * clock["now"])
    found = time_geant4(Material.parse("PbF2"), [1.0, 50.0], {}, repeats=3)
    assert found.startup_processor == pytest.approx(0.6)
    assert [t.processor.median for t in found.timings] == pytest.approx([12.5, 625.0])
    assert [t.clock.median for t in found.timings] == pytest.approx([25.0, 1250.0])


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
    found = time_geant4(Material.parse("PbF2"), [1.0], kernel_environment, repeats=1, showers=30)
    assert 0.1 < found.startup_processor < 20
    assert 1 < found.timings[0].processor.median < 500
