"""``calograd sample`` with a surrogate of stacks of plates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers.tiny_plates import tiny_plate_points, tiny_plates
from helpers.toy_library import made_up_generated

from calograd import evaluate, open_plates
from calograd.cli.convert import points as points_command
from calograd.cli.sample import sample
from calograd.cli.simulate import simulate
from calograd.detector.configuration import SimulationConfig
from calograd.errors import InputError, RangeError
from calograd.evaluation import PlatesEvaluation
from calograd.events.plates import PlateShowers
from calograd.events.point_showers import read_points

ONE = ("--absorber", "Pb", "--active", "Si", "--absorber-thickness", 0.3, "--active-thickness", 0.05, "--layers", 10)
ASKED = (*ONE, "--energy", 5, "--particle", "e-", "--layers-only")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("surrogate") / "plates"
    tiny_plates().save(folder)
    return str(folder)


def call(*arguments: Any) -> Result:
    """Run the command in this process; what it raises is raised."""
    return CliRunner().invoke(sample, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)


def call_points(*arguments: Any) -> Result:
    """Run ``calograd points`` in this process."""
    return CliRunner().invoke(points_command, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)


def read(path: Path, deposits: bool = False) -> PlateShowers:
    with open_plates(path, deposits=deposits) as library:
        return library.read()


def test_showers_of_one_stack(plates: str, tmp_path: Path) -> None:
    output, summary = tmp_path / "made.h5", tmp_path / "made.json"
    call(plates, *ONE, "--energy", "5,10", "-n", 20, "--particle", "e-", "--theta", 20, "--layers-only", "--seed", 3,
         "-o", output, "--json", summary)  # fmt: skip
    made = read(output)
    assert made.energy.tolist() == [5, 10] * 20
    assert made.stacks.alike
    np.testing.assert_array_equal(made.thicknesses()[0], np.float32([[0.3, 0, 0.05]] * 10))
    assert (made.particle == 11).all()
    assert (made.theta == 20).all()
    assert (made.origin, made.config["seed"], made.config["layers_only"]) == ("tiny-plates", 3, True)
    plain = json.loads(summary.read_text())
    assert [(p["energy"], p["showers"]) for p in plain["points"]] == [(5, 20), (10, 20)]
    assert plain["mean_fraction"] == pytest.approx(float((made.totals / made.energy).mean()))


def test_points_are_written_and_read_by_the_other_commands(tmp_path: Path) -> None:
    tiny_plate_points().save(tmp_path / "points")
    for name, more in (("made.h5", ()), ("layers.h5", ("--layers-only",))):
        call(tmp_path / "points", *ONE, "--energy", 5, "-n", 60, "--particle", "e-", "--theta", 20, "--phi", 90,
             *more, "-o", tmp_path / name)  # fmt: skip
    made, layers = read(tmp_path / "made.h5", deposits=True), read(tmp_path / "layers.h5")
    np.testing.assert_allclose(made.energies(), layers.energies(), rtol=1e-5, atol=1e-9)
    assert made.deposits is not None
    assert "layers_only" not in made.config
    np.testing.assert_array_equal(made.layers_of(made.deposits), made.points_of(made.deposits)[2])
    with pytest.raises(InputError, match=r"layers\.h5 holds the energies of plates alone; points need the deposits"):
        call_points(tmp_path / "layers.h5", "-o", tmp_path / "none.h5")
    call_points(tmp_path / "made.h5", "-o", tmp_path / "points.h5")
    points = read_points(tmp_path / "points.h5")
    np.testing.assert_allclose(points.totals, made.visible, rtol=1e-5)
    assert (points.origin, points.n_layers.tolist()) == ("tiny-plate-points", [10] * 60)  # type: ignore[union-attr]
    evaluation = evaluate(tmp_path / "made.h5", tmp_path / "made.h5", classifiers=False)
    assert isinstance(evaluation, PlatesEvaluation)
    assert {each.name: each.mean_ratio for each in evaluation.points[0].moments}["R_E"] == 1


def test_ranges_give_every_shower_the_stack_that_a_simulation_has(plates: str, tmp_path: Path) -> None:
    asked = ("--absorber", "Pb,W", "--active", "Si", "--absorber-thickness", "0.2:0.5", "--active-thickness", 0.05,
             "--layers", "4:12", "--profile", "smooth", "--scatter", 0.2)  # fmt: skip
    more = ("--energy", "1:100", "--particle", "gamma,e-", "--theta", "0:40", "-n", 30, "--seed", 4, "--layers-only")
    call(plates, *asked, *more, "-o", tmp_path / "made.h5")
    made = read(tmp_path / "made.h5")
    assert len({*made.counts.tolist()}) > 4
    assert {*made.particle.tolist()} == {11, 22}
    assert np.ptp(made.theta) > 20
    detector = {
        "kind": "sampling", "absorber": ("Pb", "W"), "active": "Si", "layers": (4, 12), "profile": "smooth",
        "scatter": 0.2, "absorber_thickness": {"low": 0.2, "high": 0.5}, "active_thickness": 0.05,
    }  # fmt: skip
    beam = {"energies": {"law": "discrete", "values": (1.0,)}}
    config = SimulationConfig.model_validate({"detector": detector, "beam": beam, "seed": 4})
    for number, thickness in enumerate(made.thicknesses()):
        np.testing.assert_array_equal(thickness[: made.counts[number]], config.draw_stack(number).thickness)


def test_like_takes_stacks_energies_and_particles(plates: str, tmp_path: Path) -> None:
    reference = made_up_generated(range(9))
    kept = np.flatnonzero(reference.counts >= 4)
    reference = reference.rows(kept)
    reference.write(tmp_path / "reference.h5")
    call(plates, "--like", tmp_path / "reference.h5", "--repeat", 2, "--layers-only", "--extrapolate",
         "-o", tmp_path / "made.h5")  # fmt: skip
    made = read(tmp_path / "made.h5")
    rows = np.repeat(np.arange(len(kept)), 2)
    assert made.stacks.difference(reference.stacks[rows]) is None
    for name in ("energy", "particle", "theta", "phi"):
        np.testing.assert_array_equal(getattr(made, name), getattr(reference, name)[rows])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (ASKED[:-1], InputError, "generates energies of plates and was not trained on points; add --layers-only"),
        ((*ASKED, "--cell", 2.5, 6), InputError, "--cell describes cells, and tiny-plates generates stacks of plates"),
        ((*ASKED, "--material", "PbF2"), InputError, "--material describes cells"),
        ((*ASKED, "--cells", 5, 5), InputError, "--cells describes cells"),
        ((*ASKED, "--position", "uniform"), InputError, "--position uniform: plates have no cells"),
        ((*ASKED, "--repeat", 2), InputError, "--repeat belongs to --like FILE"),
        ((*ASKED, "--like", "x.h5"), InputError, "--absorber and --like exclude each other"),
        ((*ASKED, "--scatter", 0.2), InputError, "--scatter is about a smooth profile"),
        ((*ASKED, "--layers", 13), InputError, "the stack has 13 layers, tiny-plates generates up to 12"),
        ((*ASKED, "--layers", "4:13"), InputError, "tiny-plates generates up to 12"),
        ((*ASKED, "--absorber-thickness", 3), InputError, "--absorber-thickness: .* is this in mm"),
        ((*ASKED, "--active-thickness", 20), InputError, "--active-thickness: .* is this in mm"),
        ((*ASKED, "--absorber-thickness", "3x0.2"), InputError, "--absorber-thickness: 3 thicknesses for 10 layers"),
        ((*ASKED, "--absorber", "Fe"), RangeError, r"absorber Fe .* was not trained on"),
        ((*ASKED, "--absorber", "Pbb"), InputError, "unknown material 'Pbb'"),
        ((*ASKED, "--particle", "e+"), RangeError, r"particle e\+ was not trained on"),
        ((*ASKED, "--energy", 200), RangeError, "energy = 200 GeV is outside 1 to 100"),
        ((*ONE[2:], "--energy", 5, "--layers-only"), InputError, "tiny-plates needs --absorber"),
        ((*ONE, "--layers-only"), InputError, "give a stack and --energy, or --like FILE"),
    ],
)
def test_bad_input_is_named_in_one_line(
    plates: str, tmp_path: Path, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        call(plates, *arguments, "-o", tmp_path / "made.h5")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_surrogates_of_something_else_refuse_stacks(tiny: str, plates: str, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "made.h5")
    with pytest.raises(InputError, match="--absorber describes a stack of plates, and tiny generates cells or maps"):
        call(tiny, "--cell", 2.5, 6, "--energy", 5, "--absorber", "Pb", *output)
    with pytest.raises(InputError, match="--layers-only is for stacks of plates; leave it out with tiny"):
        call(tiny, "--cell", 2.5, 6, "--energy", 5, "--layers-only", *output)
    with pytest.raises(InputError, match="--layers does not go with siw-cloud, which has one detector"):
        call("siw-cloud", "--energy", 50, "--layers", 30, *output)
    made_up_generated(range(3)).write(tmp_path / "plates.h5")
    with pytest.raises(InputError, match=r"plates\.h5 does not fit tiny; expected showers of designs"):
        call(tiny, "--like", tmp_path / "plates.h5", *output)


def test_the_options_of_stacks_are_those_of_simulate() -> None:
    described = {
        option.name for option in simulate.params if (getattr(option, "help", "") or "").startswith("Sampling")
    }
    assert described - {"width", "record"} == {
        option.name for option in sample.params if (getattr(option, "help", "") or "").startswith("Sampling")
    } - {"layers_only"}
    assert len(described) > 8
