from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny import tilted_surrogate

from calograd.detector.material import Material
from calograd.errors import FormatError, InputError, OutputExistsError
from calograd.events.library.reader import open_library
from calograd.gradients.landscape import geant4_landscape, grid, surrogate_landscape
from calograd.io.files import one_writer
from calograd.objective.cost import DepthCost, PricedUtility
from calograd.objective.measurement import Measurement
from calograd.objective.reference import LibraryReference
from calograd.objective.utility import Containment, Objective
from calograd.optimisation.run import CellSetup, OptimisationResult, optimise, parse_optimisation
from calograd.optimisation.setup import STATE
from calograd.optimisation.state import Step
from calograd.reports.optimisation import describe_beam, write_optimisation_report
from calograd.surrogate import Surrogate
from calograd.surrogate.cells.model import CellsModel


def raw(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "space": {
            "parameters": ["dx", "dz"], "start": {"dx": 2.5, "dz": 7.0},
            "bounds": {"dx": [1.0, 5.0], "dz": [4.0, 15.0]},
        },
        "utility": {"kind": "squared-error", "truth": "incident"},
        "spectrum": {"energies": [10, 50]},
        "gradient": {"showers": 20, "steps": 2},
        "ascent": {"steps": 3, "draws": 2, "max_draws": 2, "check_every": 2, "tolerance": 1e-4,
                    "showers": 10},
    }  # fmt: skip
    return usual | changes


def setup_of(surrogate: Surrogate, **changes: Any) -> CellSetup:
    return CellSetup.of(surrogate, parse_optimisation(raw(**changes), "test.toml", Path()))


def test_a_run_stops_reports_and_is_not_repeated(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    setup = setup_of(surrogate, check={"library": str(library)})
    folder = tmp_path / "run"
    state = setup.run(folder, setup.simulated(folder))
    assert state.reason
    assert 1 <= len(state.history) <= 3
    assert state.simulated % 20 == 0  # 10 showers of each of two energies a check
    assert setup.run(folder, setup.simulated(folder)) == state
    card = surrogate.card.model_copy(update={"name": "<script>alert(1)</script>"})
    nasty = replace(setup, surrogate=Surrogate(surrogate.model, card))
    write_optimisation_report(folder / "report.html", OptimisationResult(nasty, state))
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    other = setup_of(surrogate, spectrum={"energies": [20]}, check={"library": str(library)})
    with pytest.raises(OutputExistsError, match=r"or surrogate: config\.spectrum\.energies is \[20"):
        other.run(folder, None)
    with pytest.raises(OutputExistsError, match=r"surrogate: surrogate\.name is '<script>.*, was 'small'"):
        nasty.run(folder, None)


@pytest.mark.parametrize(
    ("beam", "words"),
    [({}, "photons on the axis"), ({"theta": 20, "position": "uniform"}, "photons at 20 degrees anywhere in the cell"),
     ({"particle": "e-"}, "electrons at normal incidence")],
)  # fmt: skip
def test_a_report_names_the_particles(beam: dict[str, Any], words: str) -> None:
    space = raw()["space"] | {"cells": [3, 2]}
    assert describe_beam(setup_of(tilted_surrogate(3, 2), space=space, beam=beam)) == words


def test_a_run_of_an_earlier_version_is_refused(surrogate: Surrogate, tmp_path: Path) -> None:
    (tmp_path / "descent.json").touch()
    with pytest.raises(OutputExistsError, match=r"an earlier version \(descent\.json\); choose another output"):
        setup_of(surrogate).run(tmp_path, None)


def test_one_process_writes_and_damage_is_refused(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    setup, folder = setup_of(surrogate, check={"library": str(library)}), tmp_path / "run"
    setup.run(folder, setup.simulated(folder))
    with one_writer(folder), pytest.raises(InputError, match="run is being written by another process"):
        setup.run(folder, None)
    for damage in ("{", "[]"):
        (folder / "config.json").write_text(damage)
        with pytest.raises(FormatError, match=r"config\.json is damaged"):
            setup.run(folder, None)
    (folder / "config.json").write_text('{"config": {"ascent": {}}, "surrogate": {}}')
    with pytest.raises(OutputExistsError, match="holds a run of another configuration or surrogate"):
        setup.run(folder, None)


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        ({"descent": {}}, r"test\.toml: 'descent' is now called 'ascent'; rename it"),
        ({"ascent": {"survey": 5}}, r"test\.toml: 'ascent\.survey' is now called 'multi_start'; rename it"),
    ],
)
def test_former_names_of_tables_are_refused(tables: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_optimisation(raw(**tables), "test.toml", Path())


def test_a_run_states_the_sampler_and_refuses_those_that_the_surrogate_cannot_take(
    surrogate: Surrogate, tmp_path: Path
) -> None:
    student = CellsModel(replace(surrogate.design_model.architecture, distilled_steps=(2, 1)))
    student.load_state_dict(surrogate.model.state_dict())
    fast = Surrogate(student.eval().requires_grad_(False), surrogate.card)
    for each, sampler in ((surrogate, "trigflow-ab2"), (fast, "progressive")):
        setup = setup_of(each, gradient={"showers": 20}, ascent={"steps": 1, "draws": 2, "max_draws": 2})
        setup.run(tmp_path / sampler, None)
        stored = json.loads((tmp_path / sampler / "config.json").read_text())
        assert stored["config"]["gradient"] == {"showers": 20, "sampler": sampler, "steps": None}
    with pytest.raises(InputError, match="is distilled into 2 steps of the shape and 1 of the pattern"):
        setup_of(fast, gradient={"steps": 12})
    with pytest.raises(InputError, match="'progressive' is that of distilled surrogates"):
        setup_of(surrogate, gradient={"sampler": "progressive"})


def test_an_interrupted_run_ends_with_the_same_numbers(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    setup = setup_of(surrogate, check={"library": str(library)})
    whole = setup.run(tmp_path / "whole", setup.simulated(tmp_path))

    def stop(step: Step) -> None:
        if step.number == 0:
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="the same command resumes it"):
        setup.run(tmp_path / "cut", setup.simulated(tmp_path), stop)
    assert len(json.loads((tmp_path / "cut" / STATE).read_text())["state"]["history"]) == 1
    assert setup.run(tmp_path / "cut", setup.simulated(tmp_path)) == whole


def test_pairs_of_trials_share_showers(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    trials = setup_of(surrogate, check={"library": str(library)}).simulated(tmp_path)
    assert trials is not None
    a, b = np.array([2.5, 7.0]), np.array([2.6, 7.0])
    at_a, at_b, apart = trials.value(a, 15, 1), trials.value(b, 15, 1), trials.difference(a, b, 15, 1)
    assert apart.value == pytest.approx(at_b.value - at_a.value)
    assert apart.error < 0.6 * np.hypot(at_a.error, at_b.error)
    assert apart.showers == at_a.showers == 30
    assert trials.value(a, 15, 2).value != at_a.value
    with pytest.raises(InputError, match="30 showers of 10 GeV, 31 are asked"):
        trials.value(a, 31, 1)


def test_blocks_begin_anew_at_the_end(library: Path) -> None:
    with open_library(library) as source:
        whole = LibraryReference(source, (10.0,), 3, 2)
    design = [(2.0, (6.0, 6.0))]
    everything = whole.measure(10.0, design)[0]
    block = whole.block(25, 10)
    assert block.count(10.0) == 10
    np.testing.assert_array_equal(block.measure(10.0, design)[0], np.concatenate([everything[25:], everything[:5]]))


def test_landscapes_have_the_slopes_of_their_values(surrogate: Surrogate, library: Path) -> None:
    objective = setup_of(surrogate).objective
    with open_library(library) as source:
        reference = LibraryReference(source, objective.energies, 3, 2)
    dx, dz = grid(2.0, 2.004, 3), grid(6.0, 6.012, 3)
    for made in (
        surrogate_landscape(surrogate, objective, dx, dz, showers=20),
        geant4_landscape(reference, objective, dx, dz, n_z=2),
    ):
        assert made.values.shape == (3, 3)
        differences = np.stack(np.gradient(made.values, np.log(dx), np.log(dz)), axis=2)
        np.testing.assert_allclose(made.slopes[1, 1], differences[1, 1], rtol=0.1, atol=0.02 * abs(made.slopes).max())
        x, z, value = made.best()
        assert made.values.max() == value
        assert x in dx
        assert z in dz
        json.dumps(made.to_dict())


def test_the_landscape_s_price_is_that_of_the_reference_s_material(library: Path) -> None:
    class Dense:
        """The library's showers, said to be of another material."""

        name, material, any_design = "dense", Material.parse("PbWO4"), True

        def count(self, energy: float) -> int:
            return whole.count(energy)

        def measure(self, energy: float, designs: list[tuple[float, tuple[float, ...]]]) -> np.ndarray:
            return whole.measure(energy, designs)

    with open_library(library) as source:
        whole = LibraryReference(source, (10.0,), 3, 2)
    chain, axis = Measurement(None), np.array([2.0, 2.1])
    free, priced = (
        Objective(chain, utility, (10.0,))
        for utility in (Containment(), PricedUtility(Containment(), ((DepthCost(), 1.0),)))
    )
    prices = [geant4_landscape(Dense(), o, axis, np.array([5.0, 6.0]), n_z=2).values for o in (free, priced)]
    expected = 2 * np.array([5.0, 6.0]) / Material.parse("PbWO4").radiation_length
    np.testing.assert_allclose(prices[0] - prices[1], np.tile(expected, (2, 1)), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"spce": {}}, "unknown key 'spce'; did you mean 'space'"),
        ({"gradient": {"shwers": 3}}, "did you mean 'showers'"),
        ({"gradient": {"sampler": "ddpm"}}, "sampler = 'ddpm'"),
        ({"check": {"replicas": 5}}, "either library = FILE or simulate = true"),
        ({"spectrum": {"energies": []}}, "spectrum.energies"),
    ],
)
def test_configurations_that_cannot_be(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_optimisation(raw(**changes), "test.toml", Path())


def test_bounds_beyond_the_trained_range_are_refused(surrogate: Surrogate) -> None:
    space = raw()["space"] | {"bounds": {"dx": [0.5, 5.0], "dz": [4.0, 15.0]}}
    with pytest.raises(InputError, match=r"bounds of dx = \[0\.5, 5\] cm reach beyond what small was trained on"):
        setup_of(surrogate, space=space)
    with pytest.raises(InputError, match=r"spectrum\.energies: 0\.5, 200 GeV are outside of 1 to 100 GeV, which small"):
        setup_of(surrogate, spectrum={"energies": [0.5, 10, 200]})


@pytest.mark.parametrize("name", ["optimise", "adaptive"])
def test_the_examples_are_within_what_the_bundled_surrogate_knows(name: str) -> None:
    path = Path(__file__).parents[2] / "examples" / f"{name}.toml"
    config = parse_optimisation(tomllib.loads(path.read_text()), str(path), path.parent)
    setup = CellSetup.of(Surrogate.load("pbf2-cells"), config, adapt=name == "adaptive")
    assert setup.start.tolist() == [3.5, 12.0]
    assert (setup.target is not None) == (name == "adaptive")


def test_optimise_does_what_the_command_does(surrogate: Surrogate, library: Path, tmp_path: Path) -> None:
    """It reads a configuration, runs, compares start and result with simulated showers, and shows spectra."""
    stages = set[str]()
    tables = raw(check={"library": str(library)})
    made = optimise(
        surrogate, tables, tmp_path / "run", landscape=2, progress=lambda stage, done, total: stages.add(stage)
    )
    assert {"steps", "gradient", "check", "spectra", "landscape, surrogate"} <= stages
    assert made.start is not None
    assert made.end is not None
    assert made.gain is not None
    assert made.gain.value == pytest.approx(made.end.value - made.start.value)
    assert made.design.dx.item() == pytest.approx(made.state.y[0])
    assert [(each.source, each.energy) for each in made.spectra] == [
        ("small", 10), ("small", 50), ("Geant4", 10), ("Geant4", 50)
    ]  # fmt: skip
    assert [len(each.measured[0]) for each in made.spectra] == [20, 20, 10, 10]
    plain = json.loads(json.dumps(made.to_dict()))
    assert set(plain["geant4"]) == {"start", "result", "gain"}
    assert made.landscapes[0].values.shape == (2, 2)
    write_optimisation_report(tmp_path / "report.html", made)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("photons on the axis into PbF2", "squared error of the incident energy", "start and result",
                 "showers that no check used", "Measured energies before and after",
                 "Energy resolution before and after", "Energy resolution against energy, the measured"):  # fmt: skip
        assert text in page
    for name in ("start", "result"):  # at two energies by the surrogate; Geant4's ten showers are too few
        assert page.count(f"<td>{name}: dx = ") == 2
    assert optimise(surrogate, tables, tmp_path / "run", landscape=0).state == made.state
