"""The explorer of a surrogate of stacks of plates: showers, numbers, derivatives, map, addresses, Geant4, the page."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_plates import tiny_plates
from helpers.toy_library import plates_config
from helpers.toy_stacks import toy_showers

from calograd import SamplingDesign, Surrogate, open_plates
from calograd.errors import FormatError, InputError, RangeError
from calograd.events.library.schema import pack
from calograd.events.library.writer import open_writer
from calograd.explorer import landscape, stacks, views
from calograd.explorer.landscape import Surface
from calograd.explorer.serve import read_trajectory
from calograd.explorer.stack_reference import NONE_GIVEN, NONE_HERE
from calograd.explorer.stack_selection import StackSelection
from calograd.explorer.stacks import EVENTS, PREVIEW, StackKind
from calograd.explorer.text import to_toml
from calograd.explorer.views import Explorer
from calograd.gradients.autodiff import SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.stacks import stack_gradient
from calograd.metrics.resolution import relative_spread
from calograd.objective.stacks import MeanEnergy, StackObjective, VisibleResolution
from calograd.optimisation.stacks import StackSetup, parse_stacks

TOY = StackSelection("Pb", "lAr", 0.3, 0.4, 5, 10.0, "e-", 0.0)
"""The stack of `helpers.toy_stacks`."""


@pytest.fixture(scope="module")
def plates() -> Surrogate:
    return tiny_plates()


@pytest.fixture
def explorer(plates: Surrogate, monkeypatch: pytest.MonkeyPatch) -> Explorer:
    """There is less to compute than usual."""
    monkeypatch.setattr(landscape, "POINTS", 4)
    monkeypatch.setattr(views, "ASCENT_STEPS", 3)
    for name, value in (("EVENTS", 40), ("ALL_SHOWERS", PREVIEW + 60), ("SLOPE_SHOWERS", 40), ("SLOPE_DRAWS", 3)):
        monkeypatch.setattr(stacks, name, value)
    for name, value in (("batch", 40), ("showers", PREVIEW + 60)):
        monkeypatch.setattr(StackKind, name, value)
    return Explorer(plates)


def write_library(path: Path, n: int, **stack: Any) -> Path:
    """Electrons of 10 GeV in the stack of `TOY`, or in others."""
    showers, provenance = toy_showers(n)
    fixed = {"absorber": ("Pb",), "layers": 5, "absorber_thickness": 0.3, "active_thickness": 0.4} | stack
    config = plates_config(0, **fixed)
    sizes = np.concatenate([config.draw_stack(i).thickness for i in range(n)])
    names = ("absorber_thickness", "gap_thickness", "active_thickness")
    showers = replace(showers, **dict(zip(names, np.ascontiguousarray(sizes.T, np.float32), strict=True)))
    provenance = replace(provenance, config=config)
    with open_writer(path, provenance, n) as library:
        library.add(pack(showers, provenance))
        library.finish(lambda done, of: None, threads=1)
    return path


def test_the_page_opens_within_the_trained_range(explorer: Explorer) -> None:
    start = explorer.start()
    assert start == StackSelection("Pb", "lAr", 0.2, 0.4, 12, 10.0, "e-", 0.0)
    explorer.check(start)
    assert str(start) == "12 layers of 0.2 cm Pb and 0.4 cm lAr, 10 GeV e-, theta 0 degrees"
    bundled = Explorer(Surrogate.load("sampling-fast")).start()
    assert bundled == replace(start, n_layers=40)


def test_showers_and_numbers_are_those_of_the_surrogate(explorer: Explorer) -> None:
    start = replace(explorer.start(), theta=20.0)
    *_, view = explorer.refined(start)
    n = PREVIEW + 60
    expected = explorer.surrogate.sample(
        SamplingDesign("Pb", "lAr", 0.2, 0.4, 12), 10.0, n, generator=generator_for(0, SHOWERS, 2, 0), particle="e-",
        theta=20.0, layers_only=True,
    )  # fmt: skip
    visible, absorbed = expected.active.double().numpy(), expected.absorber.double().numpy()
    assert len(view) == n
    assert view.complete
    np.testing.assert_allclose(view.layers("visible")[0], visible, rtol=1e-4, atol=1e-7)
    of = {column.name: column.ours for column in view.columns()}
    total = visible.sum(1)
    assert of["E_vis"] == pytest.approx((total.mean(), total.std(ddof=1) / n**0.5, total.std(ddof=1)), rel=1e-4)
    assert of["sigma/E_vis"][:2] == pytest.approx([100 * each for each in relative_spread(total)], rel=1e-4)
    assert of["leakage"].value == pytest.approx(10 - (visible + absorbed).sum(1).mean(), rel=1e-4)
    assert of["E_vis/E_dep"].value == pytest.approx(100 * (total / (visible + absorbed).sum(1)).mean(), rel=1e-4)
    profile, none = view.profile()
    assert none is None
    assert profile.mean @ np.diff(profile.edges) == pytest.approx((visible + absorbed).sum(1).mean(), rel=1e-4)
    assert profile.edges[-1] == pytest.approx(view.design.radiation_lengths.item())
    assert "stack: 7.2 cm" in view.about()
    assert view.note == NONE_GIVEN


def test_the_first_showers_stay(explorer: Explorer) -> None:
    first, *_, last = explorer.refined(explorer.start())
    np.testing.assert_allclose(last.layers("visible")[0][:PREVIEW], first.layers("visible")[0], rtol=1e-5, atol=1e-9)
    few = explorer.preview(explorer.start())
    assert (len(few), few.steps) == (PREVIEW, 4)


def test_derivatives_are_those_of_the_command(explorer: Explorer) -> None:
    start = explorer.start()
    slope = explorer.slope(start)
    objective = StackObjective((MeanEnergy(), VisibleResolution()), (), start.beam)
    energy, resolution = stack_gradient(
        explorer.surrogate, explorer.limits.design(start), (10.0,), objective, showers=40, draws=3
    ).gradients  # fmt: skip
    assert slope.arrow == pytest.approx(tuple(-resolution.common(relative=True).gradient))
    assert slope.energy.per_cm()[0] == pytest.approx(energy.per_cm()[0])
    assert [line.split(" = ")[0] for line in slope.lines()] == ["∂E_vis/∂t", "∂ln(sigma/E)/∂ln t"]
    value, error = energy.per_cm()[0][1], energy.per_cm()[1][1]
    shown = slope.lines()[0].split(", ")[1].split()
    assert float(shown[0]) == pytest.approx(value, abs=error)
    assert float(shown[2]) == pytest.approx(error, rel=0.06)


def test_the_map_is_the_resolution_over_both_thicknesses(explorer: Explorer) -> None:
    start = explorer.start()
    *_, surface = explorer.landscape(start)
    assert isinstance(surface, Surface)
    ranges = explorer.limits.sizes(start)
    assert (surface.x[0], surface.x[-1]) == pytest.approx(ranges[0])
    assert (surface.y[0], surface.y[-1]) == pytest.approx(ranges[1])
    x, y = float(surface.x[1]), float(surface.y[2])
    made = explorer.surrogate.sample(
        SamplingDesign("Pb", "lAr", x, y, 12), 10.0, 40, generator=generator_for(0, SHOWERS, 3, 0), particle="e-",
        layers_only=True,
        steps=stacks.STEPS,
    ).active.double().sum(1)  # fmt: skip
    assert EVENTS != 40
    assert surface.values[1, 2] == pytest.approx(float(100 * made.std() / made.mean()), rel=1e-4)
    fine = surface.fine
    assert fine.best()[2] == fine.values.min()
    again = list(explorer.landscape(replace(start, absorber_thickness=0.3)))
    assert len(again) == 1  # other thicknesses are on the same map
    assert len(list(explorer.landscape(replace(start, n_layers=8)))) == 5


def test_an_ascent_improves_the_resolution(explorer: Explorer) -> None:
    path: list[tuple[StackSelection, float]] = []
    reason = explorer.ascend(explorer.start(), lambda selection, value: path.append((selection, value)))
    assert reason
    assert path[0][0] == explorer.start()
    assert path[-1][1] <= path[0][1]
    deepest = 12 * (0.2 + 0.4)
    assert max(selection.n_layers * sum(selection.place) for selection, _ in path) <= deepest * (1 + 1e-6)
    assert path[0][1] == pytest.approx(
        100 * np.exp(np.log(explorer.slope(explorer.start()).resolution.values).mean()), rel=1e-5
    )


def test_the_toml_is_an_optimisation(explorer: Explorer) -> None:
    start = replace(explorer.start(), theta=20.0)
    setup = StackSetup.of(explorer.surrogate, parse_stacks(tomllib.loads(to_toml(explorer.limits.tables(start))), "x"))
    assert setup.start.tolist() == pytest.approx([0.2, 0.4])
    assert [budget.limit for budget in setup.space.budgets] == pytest.approx([7.2])  # no deeper than this stack
    assert (setup.space.stack.n_layers, setup.objective.energies, setup.objective.beam) == (12, (10.0,), start.beam)
    assert setup.space.stack.absorber.alike(explorer.limits.materials(start)[0], 1e-4)


def test_an_address_names_a_stack(explorer: Explorer) -> None:
    query = {"absorber": "W", "active": "Si", "absorber_thickness": "0.25", "active_thickness": "0.05",
             "n_layers": "10", "energy": "20", "particle": "gamma", "theta": "30"}  # fmt: skip
    found = explorer.limits.parse(query)
    assert found == StackSelection("W", "Si", 0.25, 0.05, 10, 20.0, "gamma", 30.0)
    explorer.check(found)
    assert explorer.limits.parse({"active": "G4_lAr"}).active == "lAr"
    moved = explorer.limits.parse({"absorber": "W"})
    assert (moved.active, moved.active_thickness) == ("Si", 0.1)  # lAr was not trained on with it
    explorer.check(moved)
    assert explorer.limits.parse({}) == explorer.start()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"dx": "2"}, "address: unknown parameter 'dx'; expected absorber, active"),
        ({"absorber_thicknes": "2"}, "address: unknown parameter 'absorber_thicknes'; did you mean 'absorber_th"),
        ({"absorber": "U"}, "address: absorber = 'U' was not trained on; expected one of Pb, W"),
        ({"active": "<b>"}, "address: active = '<b>' was not trained on; expected one of Si, lAr"),
        ({"particle": "mu-"}, "address: particle = 'mu-' was not trained on; expected one of gamma, e-"),
        ({"n_layers": "ten"}, "address: n_layers = 'ten': expected a whole number"),
        ({"energy": "nan"}, "address: energy = 'nan': expected a number"),
        ({"absorber": "W", "active": "lAr"}, "tiny-plates: W with lAr was not trained on; expected W with Si"),
        ({"absorber_thickness": "2"}, "sampling design: absorber_thickness: plates of 2 cm are 3.6 radiation lengths"),
        ({"active_thickness": "1.5"}, "tiny-plates: active_thickness = 1.5 cm is outside 0.1 to 1 cm"),
        ({"active_thickness": "-1"}, "sampling design: active_thickness"),
        ({"n_layers": "13"}, "the stack has 13 layers, tiny-plates generates up to 12"),
        ({"n_layers": "3"}, "tiny-plates: n_layers = 3 is outside 4 to 12"),
        ({"theta": "60"}, "tiny-plates: theta = 60 degrees is outside 0 to 40 degrees"),
        ({"theta": "95"}, "theta = 95: expected degrees from 0 to below 90"),
        ({"energy": "500"}, "tiny-plates: energy = 500 GeV is outside 1 to 100 GeV"),
    ],
)
def test_addresses_that_are_refused(explorer: Explorer, query: dict[str, str], words: str) -> None:
    with pytest.raises((InputError, RangeError)) as error:
        explorer.check(explorer.limits.parse(query))
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


def test_geant4_of_a_library_is_compared_in_its_stack(plates: Surrogate, tmp_path: Path) -> None:
    explorer = Explorer(plates, reference=write_library(tmp_path / "toy.h5", 30))
    assert [point.selection for point in explorer.reference.points] == [TOY]
    view = explorer.preview(TOY)
    assert view.note == ""
    assert view.geant4_showers == 30
    with open_plates(tmp_path / "toy.h5") as library:
        visible = library.read().visible
    theirs = next(column for column in view.columns() if column.name == "E_vis").theirs
    assert theirs is not None
    assert theirs.value == pytest.approx(visible.mean())
    assert explorer.preview(replace(TOY, theta=10.0)).note == NONE_HERE
    near = explorer.reference.nearest(explorer.start())
    assert near is not None
    assert near.move(explorer.start()) == TOY


def test_bundled_geant4_is_compared_where_it_was_trained_on(plates: Surrogate) -> None:
    assert Explorer(plates).reference.points == []  # of at most 12 layers
    explorer = Explorer(Surrogate.load("sampling-fast"))
    at = {point.selection for point in explorer.reference.points}
    stack = StackSelection("W", "Si", 0.25, 0.05, 30, 10.0, "e-", 0.0)
    assert {replace(stack, energy=1.0), stack, replace(stack, energy=40.0)} <= at
    assert {each.absorber_thickness for each in at} == {0.1, 0.15, 0.25, 0.35, 0.5}
    view = explorer.preview(stack)
    assert (view.geant4_showers, view.note) == (300, "")


def test_files_without_showers_to_compare_with(plates: Surrogate, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"few\.h5 has no 20 showers in one stack of equal layers"):
        Explorer(plates, reference=write_library(tmp_path / "few.h5", 19))
    drawn = write_library(tmp_path / "drawn.h5", 30, absorber_thickness={"low": 0.2, "high": 0.4})
    with pytest.raises(InputError, match=r"drawn\.h5 has no 20 showers in one stack"):
        Explorer(plates, reference=drawn)
    explorer = Explorer(plates)
    view = explorer.preview(explorer.start())
    explorer.kind.write(view, tmp_path / "generated.h5")
    with pytest.raises(InputError, match=r"generated\.h5 was generated by tiny-plates; expected Geant4's showers"):
        Explorer(plates, reference=tmp_path / "generated.h5")
    with pytest.raises(FormatError):
        Explorer(plates, reference=tmp_path / "none.h5")


def test_a_run_of_cells_is_refused(explorer: Explorer) -> None:
    with pytest.raises(FormatError, match="the run is of cells, and tiny-plates generates stacks of plates"):
        explorer.limits.of_run({"parameters": ["dx", "dz"]}, (2.0, 6.0))
    space = {"kind": "stack", "absorber": "Pb", "active": "PVT", "layers": 10}
    with pytest.raises(FormatError, match=r"the run does not fit tiny-plates: .*'PVT' was not trained on"):
        explorer.limits.of_run(space, (0.2, 0.4))
    own = explorer.limits.of_run(space | {"active": "lAr", "layers": 4}, (0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5))
    assert own.place == pytest.approx((0.25, 0.5))
    with pytest.raises(FormatError, match=r"holds no ascent\.json"):
        read_trajectory(Path("none"), explorer.limits)


pytest.importorskip("panel", reason="Panel is not installed (extra explore)")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra explore)")
from bokeh.models import Legend  # noqa: E402


@pytest.fixture
def page(explorer: Explorer, make_page: Callable[[Explorer], Any]) -> Iterator[Any]:
    """One that has shown everything."""
    return make_page(explorer)


def test_it_shows_what_was_computed(page: Any, finish: Callable[[Any], None]) -> None:
    assert page.view.complete
    assert f"{page.view.columns()[0].ours.value:.4g}" in page.table.object
    assert "∂ln(sigma/E)/∂ln t" in page.utility.object
    assert "sampling fraction" in page.about.object
    assert page.surface.axes.quantity == "sigma/E"
    shown = page.display.layers._mean.data["y"]
    assert shown == pytest.approx(page.view.layers("visible")[0].mean(0))
    page.display.plates.value, page.display.places.value = "absorbed", "depth"
    assert page.display.layers._mean.data["y"] == pytest.approx(page.view.layers("absorbed")[0].mean(0))
    assert page.display.layers._mean.data["x"] == pytest.approx(page.view.depths)
    assert not page.controls.nearest.visible
    page.controls.n_layers.value = 8
    finish(page)
    assert page.view.selection.n_layers == 8


@pytest.mark.usefixtures("explorer")
def test_the_legends_name_geant4_where_it_is_shown(
    plates: Surrogate, make_page: Callable[[Explorer], Any], finish: Callable[[Any], None], tmp_path: Path
) -> None:
    compared = Explorer(plates, reference=write_library(tmp_path / "toy.h5", 30))
    page = make_page(compared)
    assert named(page) == set()  # none are of the stack that the page opens with
    page.controls.move(TOY)
    finish(page)
    assert named(page) == {"Geant4", "Geant4, mean"}
    page.controls.theta.value = 10.0
    finish(page)
    assert named(page) == set()


def named(page: Any) -> set[str]:
    """Return what legends say of Geant4."""
    figures = [page.display.layers.figure, *(each.figure for each in page.histograms.values())]
    items = [item for figure in figures for legend in figure.select(Legend) for item in legend.items]
    return {item.label.value for item in items if item.visible and "Geant4" in item.label.value}


def test_materials_bring_their_range(page: Any, finish: Callable[[Any], None]) -> None:
    controls = page.controls
    controls.absorber.value = "W"
    assert (controls.active.value, list(controls.active.options)) == ("Si", ["Si"])
    assert (controls.active_thickness.start, controls.active_thickness.end) == (0.01, 0.1)
    assert controls.active_thickness.value == 0.1
    finish(page)
    assert page.view.selection.absorber == "W"
    assert page.map.figure.below[0].axis_label == "absorber, W [cm]"
    page._clicked(0.5, 7.0)
    finish(page)
    assert page.view.selection.place == (0.5, 0.1)


def test_following_the_gradient_moves_there(
    page: Any, finish: Callable[[Any], None], wait: Callable[..., None]
) -> None:
    page.controls.ascend.clicks += 1
    wait(page, lambda: page.remark)
    finish(page)
    assert page.controls.selection() == page._path[-1][0].rounded()


def test_errors_stand_in_the_page(page: Any, wait: Callable[..., None], finish: Callable[[Any], None]) -> None:
    page.controls.absorber_thickness.value = 1.69
    wait(page, lambda: page.message)
    assert "absorber_thickness: plates of 1.69 cm" in page.message
    page.controls.absorber_thickness.value = 0.3
    finish(page)
    assert page.message == ""


def test_what_is_kept(page: Any, tmp_path: Path) -> None:
    from calograd.explorer.page import DOWNLOADS

    files = {name: page._keep(make).read() for name, (_, make) in DOWNLOADS.items()}
    assert tomllib.loads(files["TOML"].decode())["space"]["start"] == {"absorber": 0.2, "active": 0.4}
    (tmp_path / "showers.h5").write_bytes(files["HDF5"])
    with open_plates(tmp_path / "showers.h5") as kept:
        showers = kept.read()
    assert showers.visible == pytest.approx(page.view.showers.visible)
    assert showers.origin == "tiny-plates"
    numbers = json.loads(files["JSON"])
    assert numbers["observables"]["E_vis"]["surrogate"]["mean"] == pytest.approx(showers.visible.mean())
    assert numbers["choice"]["absorber"] == "Pb"
    assert len(numbers["visible"]["mean"]) == 12
    assert numbers["landscape"]["absorber"]
    assert numbers["gradient"]["resolution"]["absorber"]["common"]["log_error"] > 0
    assert files["PNG"].startswith(b"\x89PNG")
    html = files["HTML"].decode()
    for text in ("generated showers of e- at theta = 0 degrees", "∂E_vis/∂t", "sampling fraction", NONE_GIVEN):
        assert text in html
    assert torch.is_grad_enabled()
