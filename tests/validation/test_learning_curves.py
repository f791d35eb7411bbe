"""validation/learning_curves.py measures distances of stacks of plates, and replaces results of another base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import learning_curves as curves
import numpy as np
import pytest
from helpers.tiny_plates import tiny_plates
from helpers.toy_library import plates_config, write_plates

from calograd.metrics.plates import SINGLE


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> curves.Plates:
    """Made-up showers of 1, 2 and 3 GeV in one stack of six layers."""
    folder = tmp_path_factory.mktemp("plates")
    for name, total in (("allegro", 240), ("allegro-test", 120)):
        stack = {"absorber": ("Pb",), "layers": 6, "absorber_thickness": 0.3}
        write_plates(folder / f"{name}.h5", total, config=plates_config(1, **stack))
    return curves.Plates(folder, "allegro")


def test_points_are_energies_and_particles(detector: curves.Plates) -> None:
    """Forty showers of each energy, generated ones as many, with the energies of all twelve plates."""
    made = detector.generated(tiny_plates(), 0)
    for samples in (detector.reference(), made):
        assert [sample.plates.shape for sample in samples] == [(40, 12)] * 3
        assert [sample.observables.shape for sample in samples] == [(40, len(SINGLE))] * 3
    assert not np.array_equal(made[0].plates, detector.generated(tiny_plates(), 1)[0].plates)


def test_a_perfect_generator_is_at_the_floor(detector: curves.Plates, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other showers of the same law are at the floor, the untrained surrogate is far above it."""
    least = curves.floor(detector)
    far = curves.errors(tiny_plates(), detector, 0)
    others = curves.Plates.__new__(curves.Plates)
    others.test = curves.open_plates(detector.train).read().rows(np.arange(120, 240))
    monkeypatch.setattr(detector, "generated", lambda *_: others.reference())
    near = curves.errors(tiny_plates(), detector, 0)
    assert near["sliced"] == pytest.approx(least["sliced"], rel=0.3)
    assert far["sliced"] > 3 * near["sliced"]
    assert all(far["w1"][name] > 2 * near["w1"][name] for name in ("E_vis/E_inc", "E_dep/E_inc"))


def test_results_of_another_base_are_replaced(tmp_path: Path) -> None:
    """A result is computed once for each base, and the file holds that of the last."""
    output, asked = tmp_path / "out.json", []

    def find(base: str, **_: Any) -> dict[str, Any]:
        asked.append(base)
        return {"value": len(asked)}

    for base in ("one", "one", "other"):
        curves.keep(output, {"shift": "allegro", "method": "lora", "showers": 100, "seed": 0, "base": base}, find)
    curves.keep(output, {"shift": "allegro", "method": "lora", "showers": 100, "seed": 1, "base": "other"}, find)
    assert asked == ["one", "other", "other"]
    assert [(each["base"], each["seed"]) for each in json.loads(output.read_text())] == [("other", 0), ("other", 1)]


def test_times_nearer_with_and_without_the_floor() -> None:
    """Distances of 0.5 and 1.3 over a floor of 0.3 are 2.6 times apart, without it sqrt(1.6/0.16)."""

    def result(method: str, value: float, **more: Any) -> dict[str, Any]:
        numbers = dict.fromkeys(SINGLE, value)
        return {"shift": "allegro", "method": method, "bias": numbers, "w1": numbers, "sliced": value, **more}

    done = [
        result("lora", 0.5, showers=1000, seed=0, seconds=1), result("scratch", 1.3, showers=1000, seed=0, seconds=1),
        result("unadapted", 0.3), result("floor", 0.3),
    ]  # fmt: skip
    rows = [line for line in curves.nearer_of(done).splitlines() if "lora" in line]
    assert [row.split("|")[6].strip() for row in rows] == ["2.6 (3.2)"] * 2
    assert "at the floor" in curves.nearer_of(done)
    assert curves.by_method(done, "allegro", "sliced")["lora"] == {1000: [pytest.approx(0.5 / 1.3)]}
