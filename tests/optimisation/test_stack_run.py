"""``optimise`` for stacks of plates: configuration, run folder, result, report, refusals, checks by Geant4."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny import tiny_surrogate_of_particles
from helpers.tiny_plates import tiny_plates
from helpers.toy_stacks import SHARES, toy_energies

from calograd import LayerEnergies, LearntResolution, VisibleResolution
from calograd.errors import FormatError, InputError, Interrupted, OutputExistsError
from calograd.explorer.cell_selection import CellLimits
from calograd.explorer.serve import read_trajectory
from calograd.explorer.stack_selection import StackLimits
from calograd.gradients.stacks import resolution_utility
from calograd.objective.stack_space import grouped
from calograd.objective.stacks import reconstruct
from calograd.optimisation.run import optimise, parse_run, set_up
from calograd.optimisation.setup import STATE
from calograd.optimisation.stacks import SimulatedStacks, StackSetup, parse_stacks
from calograd.optimisation.state import Step
from calograd.reports.optimisation import draw_ascent, write_optimisation_report
from calograd.surrogate import Surrogate

LAYERS = 4


def raw(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "space": {
            "kind": "stack", "absorber": "Pb", "active": "lAr", "layers": LAYERS,
            "start": {"absorber": 0.3, "active": 0.4},
            "bounds": {"absorber": [0.2, 0.5], "active": [0.2, 0.6]}, "max_depth": 3.0,
        },
        "beam": {"particle": "e-"},
        "spectrum": {"energies": [5, 20]},
        "gradient": {"showers": 20, "steps": 1},
        "ascent": {"steps": 3, "draws": 2, "max_draws": 2, "check_every": 2, "tolerance": 1e-4, "multi_start": 2,
                   "showers": 30},
    }  # fmt: skip
    return usual | changes


def space(**changes: Any) -> dict[str, Any]:
    return {"space": raw()["space"] | changes}


def setup_of(**changes: Any) -> StackSetup:
    return StackSetup.of(tiny_plates(), parse_stacks(raw(**changes), "test.toml"))


class Simulated(SimulatedStacks):
    """Toy showers of known resolution in place of Geant4's."""

    def _showers(self, y: np.ndarray, showers: int, seed: int) -> list[LayerEnergies]:
        rng, sizes = np.random.default_rng(seed), self.space.thicknesses(y)
        absorber, active = (torch.from_numpy(sizes[kind]).expand(showers, -1) for kind in ("absorber", "active"))
        z = torch.from_numpy(rng.standard_normal((len(self.objective.energies), showers, 1 + len(SHARES))))
        return [toy_energies(absorber, active, e, of) for e, of in zip(self.objective.energies, z, strict=True)]


@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("kind", ["visible-resolution", "learnt-resolution"])
def test_a_run_writes_its_result_and_its_report(tmp_path: Path, per_layer: bool, kind: str) -> None:
    stages = set[str]()
    tables = raw(**space(per_layer=per_layer), utility={"kind": kind})
    surrogate = tiny_plates()
    made = optimise(surrogate, tables, tmp_path / "run", progress=lambda stage, done, total: stages.add(stage))
    assert {"steps", "gradient", "spectra"} <= stages
    assert len(made.state.y) == (2 * LAYERS if per_layer else 2)
    assert made.design.depth.item() <= 3.0 * (1 + 1e-6)
    plain = json.loads(json.dumps(made.to_dict()))
    for end, y in (("start", made.setup.start), ("design", np.array(made.state.y))):
        both = np.array([plain[end]["absorber"], plain[end]["active"]])
        expected = np.array(y).reshape(2, -1) * np.ones((2, LAYERS))
        np.testing.assert_allclose(both, expected)
        assert plain[end]["depth"] == pytest.approx(both.sum())
    assert [(each["source"], each["energy"]) for each in plain["spectra"]] == [("tiny-plates", 5), ("tiny-plates", 20)]
    assert all(each["result"]["resolution"] > 0 for each in plain["spectra"])
    write_optimisation_report(tmp_path / "report.html", made)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    energy = "the visible energy" if kind == "visible-resolution" else "the energy with learnt weights of the layers"
    for text in ("electrons at normal incidence into 4 layers of Pb and lAr", "Thicknesses before and after",
                 "depth, cm"):  # fmt: skip
        assert text in page, text
    assert page.count(f", {energy}</td>") == 4  # two energies at start and result
    assert optimise(surrogate, tables, tmp_path / "run").state == made.state
    with pytest.raises(OutputExistsError, match=r"config\.beam\.particle is 'gamma', was 'e-'"):
        optimise(surrogate, tables | {"beam": {}}, tmp_path / "run")
    path = read_trajectory(tmp_path / "run", StackLimits.of(surrogate))
    assert len(path) == len(made.state.history)
    assert path[0][0].place == pytest.approx(tuple(np.reshape(made.setup.start, (2, -1)).mean(1)))
    assert path[0][1] == pytest.approx(100 * np.exp(-made.state.history[0].value))
    with pytest.raises(FormatError, match="the run is of a stack of plates, and tilted generates cells"):
        read_trajectory(tmp_path / "run", CellLimits.of(tiny_surrogate_of_particles()))


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path: Path) -> None:
    setup = setup_of()

    def stop(step: Step) -> None:
        if step.number == 0:
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="the same command resumes it"):
        setup.run(tmp_path / "cut", None, stop)
    assert len(json.loads((tmp_path / "cut" / STATE).read_text())["state"]["history"]) == 1
    assert setup.run(tmp_path / "cut", None) == setup.run(tmp_path / "whole", None)


def test_an_interrupted_simulation_says_that_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise Interrupted("no shower was finished yet, nothing is kept")

    monkeypatch.setattr("calograd.optimisation.stacks.simulate", interrupted)
    tables = raw(check={"simulate": True})
    with pytest.raises(Interrupted, match=r"run holds what is finished; the same command resumes it$"):
        optimise(tiny_plates(), tables, tmp_path / "run")
    assert (
        len(json.loads((tmp_path / "run" / STATE).read_text())["state"]["history"]) == 1
    )  # the check is in the second


def test_the_utility_weighs_the_energies_of_the_spectrum() -> None:
    """Values without gradients are those of the gradient with the same seed, weighted over the energies."""
    alone = [
        resolution_utility(tiny_plates(), setup_of().space, replace(setup_of().objective, energies=(5.0, 20.0)),
                           showers=20, steps=1, weights=w)(np.array([0.3, 0.4]), 3, 7)
        for w in ((1.0, 0.0), (0.0, 1.0))
    ]  # fmt: skip
    setup = setup_of(spectrum={"energies": [5, 20], "weights": [3, 1]})
    found = setup.gradient(setup.start, 3, 7)
    assert found.value == pytest.approx(0.75 * alone[0].value + 0.25 * alone[1].value)
    np.testing.assert_allclose(found.gradient, 0.75 * alone[0].gradient + 0.25 * alone[1].gradient, rtol=1e-6)
    values = setup.values(np.stack([setup.start, 1.1 * setup.start]), 3, 7)
    assert values[0] == pytest.approx(found.value, rel=1e-4)
    assert values[1] == pytest.approx(setup.gradient(1.1 * setup.start, 3, 7).value, rel=1e-4)


def test_simulated_gains_and_their_errors(tmp_path: Path) -> None:
    """Over many seeds gains scatter by their errors about the truth; learnt weights do not bias them."""
    for kind in ("visible-resolution", "learnt-resolution"):
        setup = setup_of(**space(layers=5, max_depth=5.0, bounds={"absorber": [0.15, 0.7], "active": [0.2, 0.6]}),
                         utility={"kind": kind}, spectrum={"energies": [5, 20], "weights": [1, 3]})  # fmt: skip
        trials = Simulated(tmp_path, setup.objective, setup.space, (1.0, 3.0))
        a, b = np.array([0.3, 0.4]), np.array([0.2, 0.4])
        gains = [trials.difference(a, b, 60, seed) for seed in range(40)]
        truth = -0.5 * np.log(b[0] / a[0])  # the toy's resolution is proportional to the root of the absorber
        value = np.array([each.value for each in gains])
        assert value.mean() == pytest.approx(truth, abs=4 * value.std() / 40**0.5 + 1e-3)
        assert trials.price(60) == gains[0].showers == 240
        one = np.array([(each.value, each.error) for each in (trials.value(a, 60, seed) for seed in range(100, 160))])
        assert one[:, 1].mean() == pytest.approx(one[:, 0].std(), rel=0.3)
        large = trials.value(a, 20000, 1).value
        assert one[:, 0].mean() == pytest.approx(large, abs=4 * one[:, 0].std() / 60**0.5 + 5e-3)
        spectra = trials.spectra(a, b, 60, 3)
        mean = -np.average([[np.log(r) for r, _ in each.resolutions()] for each in spectra], 0, (1, 3))
        assert mean[0] == pytest.approx(trials.value(a, 60, 3).value)
        assert mean[1] - mean[0] == pytest.approx(trials.difference(a, b, 60, 3).value)


def test_reconstructed_energies_have_the_resolution() -> None:
    z = torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sizes = torch.full((30, 5), 0.3), torch.full((30, 5), 0.4)
    showers = [toy_energies(*sizes, e, of) for e, of in zip((5.0, 20.0), z, strict=True)]
    for quantity in (VisibleResolution(), LearntResolution()):
        wide, factors = reconstruct(quantity, showers, (5.0, 20.0))
        found = torch.stack([each.std() / each.mean() for each in wide])
        torch.testing.assert_close(found, quantity(showers, (5.0, 20.0)))
        assert bool((factors > 1.02).all()) == isinstance(quantity, LearntResolution)
    torch.testing.assert_close(reconstruct(VisibleResolution(), showers, (5.0, 20.0))[0][0], showers[0].active.sum(1))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"background": {"kind": "none"}}, "background is for cells and does not apply to a stack of plates"),
        ({"readout": {"noise": 1.0}}, "readout is for cells"),
        ({"mask": {}}, "mask is for cells"),
        ({"cost": [{"kind": "depth", "weight": 1}]}, r"cost is for cells .* in \[space\] with max_depth"),
        ({"pricing": "relative"}, "pricing is for cells"),
        ({"adapt": {"budget": 100}}, "adapt is for cells .* with calograd adapt"),
        ({"check": {"library": "a.h5"}}, r"check\.library is for cells .* give simulate = true"),
        ({"check": {"simulate": True, "replicas": 3}}, r"check\.replicas is for cells"),
        ({"check": {"workers": 2}}, "give simulate = true, or leave the table out"),
        ({"beam": {"position": [0, 0]}}, r"beam\.position is for cells .* the entry changes nothing"),
        ({"utility": {"kind": "containment"}}, "expected one of visible-resolution, learnt-resolution"),
        ({"utilty": {}}, "unknown key 'utilty'; did you mean 'utility'"),
        (space(absorbr="Pb"), r"unknown key 'space\.absorbr'; did you mean 'absorber'"),
        (space(kind="cells"), r"""space\.kind = 'cells': expected "stack"; leave it out for cells"""),
        (space(layers=0), r"space\.layers: "),
        (space(start={"absorber": [0.3, 0.3], "active": 0.4}), "start.absorber has 2 thicknesses for 4 layers"),
        (space(start={"absorber": [0.3, 0.3, 0.4, 0.3], "active": 0.4}), "add per_layer = true, or give one thickness"),
        (space(start={"absorber": -1, "active": 0.4}), r"space\.start\.absorber: Input should be greater than 0"),
        (space(bounds={"absorber": [0.5, 0.2], "active": [0.2, 0.6]}), "lower end first"),
        (space(max_depth=300), "max_depth = 300 cm; is this in mm"),
        ({"ascent": {"survey": 3}}, "'ascent.survey' is now called 'multi_start'"),
    ],
)  # fmt: skip
def test_configurations_that_cannot_be(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        parse_run(raw(**changes), "test.toml", Path())


def test_a_stack_without_its_kind_is_refused() -> None:
    tables = raw()
    del tables["space"]["kind"]
    with pytest.raises(InputError, match=r'space\.absorber is of a stack of plates; add kind = "stack" to \[space\]'):
        parse_run(tables, "test.toml", Path())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (space(absorber="Fe"), r"tiny-plates: absorber Fe .* was not trained on.* change \[space\] or \[beam\]"),
        (space(absorber="unobtainium"), "unobtainium"),
        (space(layers=3), "n_layers = 3 is outside 4 to 12"),
        (space(layers=30, max_depth=30.0), "the stack has 30 layers, tiny-plates generates up to 12"),
        (space(gap_thickness=0.3, gap_material="Fe", max_depth=9.0), "gaps of Fe were not trained on"),
        ({"spectrum": {"energies": [0.5, 10]}}, r"spectrum\.energies: 0\.5 GeV are outside of 1 to 100 GeV"),
        ({"beam": {"particle": "e+"}}, "particle e.* was not trained on"),
        ({"beam": {"theta": 60}}, "theta = 60 degrees is outside 0 to 40 degrees"),
        (space(start={"absorber": 2.0, "active": 4.0}), r"plates of 2 cm are 3\.6 radiation lengths; is this in mm"),
        (space(start={"absorber": 0.3, "active": 2.0}, bounds={"absorber": [0.2, 0.5], "active": [1.5, 6.0]},
               max_depth=40.0), r"bounds of active = \[1\.5, 6\] cm reach .* 0\.1 to 1 cm of lAr; are they in mm"),
        (space(bounds={"absorber": [0.2, 5.0], "active": [0.2, 0.6]}), r"bounds of absorber = .*; narrow them"),
        (space(start={"absorber": 0.6, "active": 0.4}), r"start: absorber = 0\.6 cm is outside of its bounds"),
        (space(max_depth=1.5), r"max_depth = 1\.5 cm cannot be met: the smallest design within the bounds has 1\.6 cm"),
        (space(gap_thickness=1.0), "max_depth = 3 cm cannot be met: the gaps alone have 4 cm"),
        (space(max_depth=2.7), r"start: 2\.8 cm is above max_depth"),
        ({"gradient": {"sampler": "progressive"}}, "'progressive' is that of distilled surrogates"),
        ({"utility": {"kind": "learnt-resolution"}, "gradient": {"showers": 2}}, r"gradient\.showers = 2 of 2"),
        ({"utility": {"kind": "learnt-resolution"}, "ascent": {"showers": 2}}, "expected 3 or more"),
    ],
)  # fmt: skip
def test_requests_that_the_surrogate_cannot_serve(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as raised:
        setup_of(**changes)
    assert "\n" not in str(raised.value)


def test_surrogates_and_spaces_that_do_not_go_together(surrogate: Surrogate) -> None:
    with pytest.raises(InputError, match=r"small is of no stacks of plates, as \[space\] asks .* as sampling-fast"):
        set_up(surrogate, parse_stacks(raw(), "test.toml"))
    cells = {"space": {"start": {"dx": 2.5, "dz": 7.0}, "bounds": {"dx": [1, 5], "dz": [4, 15]}},
             "spectrum": {"energies": [10]}}  # fmt: skip
    with pytest.raises(InputError, match=r'is of stacks of plates; give the stack in \[space\] with kind = "stack"'):
        set_up(tiny_plates(), parse_run(cells, "test.toml", Path()))
    with pytest.raises(InputError, match="--adapt is for cells"):
        set_up(tiny_plates(), parse_stacks(raw(), "test.toml"), adapt=True)


def test_the_example_is_within_what_the_bundled_surrogate_knows() -> None:
    path = Path(__file__).parents[2] / "examples" / "tungsten.toml"
    config = parse_run(tomllib.loads(path.read_text()), str(path), path.parent)
    setup = set_up(Surrogate.load("sampling-fast"), config)
    assert setup.detector == "30 layers of W and Si"
    assert grouped(setup.space.names) == {"absorber": list(range(30)), "active": list(range(30, 60))}


@pytest.mark.geant4
def test_a_run_with_checks_by_geant4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start and result are simulated, stored, and serve a repeated call, which simulates nothing."""
    tables = raw(spectrum={"energies": [1]}, check={"simulate": True, "workers": 2},
                 ascent=raw()["ascent"] | {"steps": 2, "showers": 12, "multi_start": 0})  # fmt: skip
    surrogate, folder = tiny_plates(seed=1), tmp_path / "run"  # that of seed 0 ends where it starts
    made = optimise(surrogate, tables, folder)
    assert made.start is not None
    assert made.end is not None
    assert made.gain is not None
    assert made.gain.value == pytest.approx(made.end.value - made.start.value)
    assert 0.05 < made.gain.error < 1.5
    assert made.state.simulated == 24
    geant4 = made.spectra[-1]
    assert (geant4.source, [len(each) for each in geant4.measured]) == ("Geant4", [12, 12])
    assert 0.01 < geant4.measured[0].mean() < 0.5
    assert made.start.value == pytest.approx(-np.log(geant4.resolutions()[0][0]))
    assert len(list((folder / "showers").glob("*.h5"))) == 4

    def nothing(*_: Any, **__: Any) -> None:
        raise AssertionError("a stored library is simulated again")

    monkeypatch.setattr("calograd.optimisation.target.simulate_library", nothing)
    assert optimise(surrogate, tables, folder).to_dict() == made.to_dict()
    write_optimisation_report(tmp_path / "report.html", made)
    assert "gain of the result over the start by Geant4" in (tmp_path / "report.html").read_text()


def test_the_ascent_of_many_plates_is_drawn_as_mean_and_range(tmp_path: Path) -> None:
    setup = setup_of(**space(per_layer=True))
    state = setup.run(tmp_path / "run", None)
    left = draw_ascent(state.history, setup.space.names).axes[0]
    assert len(left.lines) == 2
    np.testing.assert_allclose(left.lines[0].get_ydata()[-1], np.mean(state.history[-1].y[:LAYERS]))
