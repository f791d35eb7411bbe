"""The explorer of a surrogate that takes particles: entry, direction, window, Geant4 of the same beam, addresses."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from calograd.detector.design import Design
from calograd.detector.particles import ParticleBeam
from calograd.errors import InputError, RangeError
from calograd.explorer.cell_selection import CellSelection
from calograd.explorer.cells import PREVIEW, PREVIEW_STEPS
from calograd.explorer.landscape import Surface
from calograd.explorer.reference import NONE_HERE, Reference
from calograd.explorer.text import to_toml
from calograd.explorer.views import Explorer
from calograd.gradients.autodiff import SHOWERS
from calograd.gradients.estimates import generator_for
from calograd.gradients.landscape import surrogate_landscape
from calograd.optimisation.run import CellSetup, parse_optimisation
from calograd.surrogate import Surrogate

BEAM = ParticleBeam("e-", (0.2, -0.4), 20.0, 35.0, unit="pitch")


def off_axis(explorer: Explorer, **changes: object) -> CellSelection:
    """1.3 x 4 cm, 7 x 7 x 5 cells, an electron at an entry and an angle."""
    at = {"dx": 1.3, "dz": (4.0,) * 5, "n_xy": 7, "beam": BEAM} | changes
    return replace(explorer.start(), **at)  # type: ignore[arg-type]


def test_a_page_opens_on_the_axis(tilted: Explorer, tiny: Explorer) -> None:
    start, limits = tilted.start(), tilted.limits
    assert (limits.windows, limits.layers) == ([3, 5, 7], [1, 2, 3, 4, 5, 6])
    assert (start.n_xy, start.n_z, start.beam) == (5, 5, ParticleBeam(unit="pitch"))
    assert tilted.preview(start).incident.on_axis
    assert (tiny.limits.windows, tiny.limits.layers, tiny.start().beam) == ([3], [2], None)
    assert tiny.preview(tiny.start()).particle(0) is None


def test_showers_are_those_of_the_particle(tilted: Explorer) -> None:
    view = tilted.preview(off_axis(tilted))
    expected = tilted.surrogate.sample(
        Design(1.3, 4.0, n_xy=7, n_z=5), 50.0, PREVIEW, generator=generator_for(0, SHOWERS, 2, 0), steps=PREVIEW_STEPS,
        particle="e-", position=(0.2 * 1.3, -0.4 * 1.3), theta=20.0, phi=35.0,
    )  # fmt: skip
    largest = expected.numpy().max((1, 2, 3), keepdims=True)
    assert (np.abs(view.cells - expected.numpy()) <= 1e-5 * largest).all()  # rounding: the entry is a product here
    assert np.allclose(view.incident.position, [0.26, -0.52])
    assert "e- entering at (0.26, -0.52) cm, theta 20, phi 35 degrees" in str(view.selection)
    smaller = tilted.preview(off_axis(tilted, n_xy=3, dz=(4.0,) * 2))
    assert np.array_equal(smaller.cells, view.cells[:, 2:5, 2:5, :2])


def test_entries_over_the_cell_are_each_of_their_own(tilted: Explorer) -> None:
    *_, view = tilted.refined(off_axis(tilted, beam=replace(BEAM, position="uniform")))
    entries = view.incident.position
    assert len(entries) == len(view.cells) == PREVIEW + 40
    assert 0.5 < np.abs(entries).max() <= 0.65
    assert len(np.unique(entries[:, 0])) == len(entries)
    particle = view.particle(3)
    assert particle is not None
    assert np.array_equal(particle.position, entries[3:4])


def test_the_display_has_the_line_and_the_windows(tilted: Explorer, tiny: Explorer) -> None:
    pytest.importorskip("panel", reason="Panel is not installed (extra explore)")
    from calograd.explorer.plots import scene

    view = tilted.preview(off_axis(tilted))
    drawn = scene(view.cells[0], view.selection, "deposited", 0, view.particle(0))
    expected = Design(1.3, 4.0, n_xy=7, n_z=5).window_offsets((0.26, -0.52), 20.0, 35.0)[0]
    assert drawn["offsets"] == expected.tolist()
    assert drawn["offsets"][-1] != [0, 0]
    slope = np.tan(np.radians(20.0))
    assert drawn["line"]["entry"] == pytest.approx([0.26, -0.52])
    assert drawn["line"]["slopes"] == pytest.approx(
        [slope * np.cos(np.radians(35.0)), slope * np.sin(np.radians(35.0))]
    )
    assert drawn["beam"] == "e-, 50 GeV"
    assert drawn["particle"] == "e- entering at x = 0.26, y = -0.52 cm at theta = 20 degrees"
    plain = tiny.preview(tiny.start())
    drawn = scene(plain.cells[0], plain.selection, "deposited", 0, plain.particle(0))
    assert (drawn["line"], drawn["offsets"], drawn["beam"]) == (None, [[0, 0]] * 2, "50 GeV")


def test_the_entry_keeps_its_place_in_the_slope_of_the_pitch(tilted: Explorer) -> None:
    """Central differences of the mean of the same draws, at normal incidence, where no window moves."""
    at, h = off_axis(tilted, dx=2.0, dz=(4.0,) * 2, n_xy=3, beam=replace(BEAM, theta=0.0)), 0.01
    slope = tilted.slope(at)
    wider, narrower = (tilted.slope(replace(at, dx=at.dx * float(np.exp(s * h)))).estimate.value for s in (1, -1))
    expected = (wider - narrower) / (2 * h) / slope.estimate.value
    assert slope.arrow[0] == pytest.approx(expected, rel=0.02, abs=2e-3)


def test_landscapes_are_of_the_beam(tilted: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in the corner of the cell stays there at every pitch."""
    sampled, sample = 0, Surrogate.sample

    def counted(*args: object, **kwargs: object) -> torch.Tensor:
        nonlocal sampled
        sampled += 1
        return sample(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Surrogate, "sample", counted)
    at = off_axis(tilted, n_xy=3, dz=(4.0,) * 2, beam=replace(BEAM, position=(0.5, -0.5)))
    *_, first = tilted.landscape(at)
    assert isinstance(first, Surface)
    assert sampled == 4
    *_, _ = tilted.landscape(replace(at, background=1.0))
    assert sampled == 4
    *_, other = tilted.landscape(replace(at, beam=replace(BEAM, theta=0.0)))
    *_, wider = tilted.landscape(replace(at, n_xy=5))
    assert sampled == 3 * 4
    assert isinstance(other, Surface)
    assert isinstance(wider, Surface)
    assert not np.allclose(other.values, first.values)
    assert not np.allclose(wider.values, first.values)


def test_landscapes_of_commands_are_of_the_window(tilted: Explorer) -> None:
    objective, (dx, dz) = tilted.limits.objective(off_axis(tilted)), (np.array([1.5, 2.0]), np.array([4.0, 6.0]))
    values = [
        surrogate_landscape(tilted.surrogate, objective, dx, dz, cells=cells, showers=10).values
        for cells in (None, (7, 6), (3, 2))
    ]
    assert np.array_equal(values[0], values[1])
    assert not np.allclose(values[0], values[2])


def test_geant4_is_compared_for_the_same_beam_alone(tilted: Explorer) -> None:
    start = tilted.start()
    view = tilted.preview(start)
    assert view.reference is not None
    assert view.note == ""
    bundled, _ = tilted.reference.at(start)
    small, _ = tilted.reference.at(replace(start, n_xy=3, dz=start.dz[:2]))
    assert bundled is not None
    assert small is not None
    assert np.array_equal(small.cells.cells, bundled.cells.cells[:, 1:4, 1:4, :2])
    assert small.observe().E_tot.mean() < bundled.observe().E_tot.mean()
    electron, tilt = (replace(start.beam, **c) for c in ({"particle": "e-"}, {"theta": 10.0}))  # type: ignore[type-var]
    for changes, words in (
        ({"beam": electron}, "the bundled showers here are of gamma on the axis, not e- on the axis: not compared"),
        ({"beam": tilt}, "of gamma on the axis, not gamma on the axis at theta = 10 degrees: not compared"),
        ({"n_xy": 7}, "the bundled showers here are of 5 x 5 x 5 cells, fewer than shown: not compared"),
        ({"dx": 2.6}, NONE_HERE),
    ):
        view = tilted.preview(replace(start, **changes))  # type: ignore[arg-type]
        assert view.bundled is view.reference is None
        assert words in view.note
    near = tilted.reference.nearest(off_axis(tilted, n_xy=3, dz=(4.0, 4.0)))
    assert near is not None
    moved = near.move(off_axis(tilted, n_xy=3, dz=(4.0, 4.0)))
    assert (moved.dx, moved.n_xy, moved.n_z) == (1.3, 3, 2)
    assert moved.beam == ParticleBeam(position="uniform", unit="pitch")
    assert tilted.reference.at(moved)[0] is not None


def test_a_surrogate_of_another_beam_is_not_compared_with_photons(explorer: Explorer) -> None:
    """As an adapter to electrons is."""
    data = {"data": [{"config": {"beam": {"particle": "e-"}}}]}
    card = explorer.surrogate.card.model_copy(update={"training": data})
    reference = Reference(replace(explorer.limits, card=card))
    found, note = reference.at(explorer.start())
    assert found is None
    assert note == "the bundled showers here are of gamma on the axis, not e- on the axis: not compared"
    assert reference.nearest(explorer.start()) is None


@pytest.mark.parametrize("position", [(0.2, -0.4), (0.0, 0.0), "uniform"])
def test_the_toml_of_a_beam_is_an_optimisation(tilted: Explorer, position: tuple[float, float] | str) -> None:
    at = off_axis(tilted, beam=replace(BEAM, position=position))  # type: ignore[arg-type]
    raw = tomllib.loads(to_toml(tilted.limits.tables(at)))
    setup = CellSetup.of(tilted.surrogate, parse_optimisation(raw, "design.toml", Path()))
    assert (setup.space.n_xy, setup.space.n_z) == (7, 5)
    assert setup.objective == tilted.limits.objective(at)
    beam = setup.objective.beam
    assert (beam.particle, beam.position, beam.theta, beam.phi) == ("e-", position, 20.0, 35.0)
    raw["space"]["cells"] = [9, 5]
    with pytest.raises(InputError, match=r"9 x 9 x 5 cells, tilted generates windows of an odd number"):
        CellSetup.of(tilted.surrogate, parse_optimisation(raw, "design.toml", Path()))


def test_an_address_names_a_selection(tilted: Explorer) -> None:
    query = {"dx": "1.3", "dz": "4", "energy": "20", "particle": "e-", "x": "0.26", "y": "-0.52", "theta": "20",
             "phi": "35", "n_xy": "7", "n_z": "5"}  # fmt: skip
    found = tilted.limits.parse(query)
    assert found.beam is not None
    assert found.beam.position == pytest.approx(BEAM.position)
    assert replace(found, beam=BEAM) == off_axis(tilted, energy=20.0)
    tilted.check(found)
    uniform = tilted.limits.parse({"position": "uniform", "dz": "4,5,6"})
    assert uniform.dz == (4.0, 5.0, 6.0)
    assert uniform.beam is not None
    assert uniform.beam.position == "uniform"
    assert tilted.limits.parse({}) == tilted.start()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"thetta": "20"}, "address: unknown parameter 'thetta'; did you mean 'theta'?"),
        ({"colour": "blue"}, "address: unknown parameter 'colour'; expected dx, dz"),
        ({"theta": "steep"}, "address: theta = 'steep': expected a number"),
        ({"dx": "nan"}, "address: dx = 'nan': expected a number"),
        ({"theta": "95"}, "theta = 95: expected degrees from 0 to below 90"),
        ({"particle": "mu-"}, "address: particle = 'mu-' was not trained on; expected one of gamma, e-"),
        ({"position": "edge"}, "address: expected position=uniform, or x and y"),
        ({"n_xy": "5.5"}, "address: n_xy = '5.5': expected a whole number"),
        ({"n_xy": "9" * 5000}, "address: n_xy = '99999999999999999999': expected a whole number"),
        ({"n_xy": "9"}, "address: n_xy = 9: expected one of 3, 5, 7"),
        ({"n_z": "7"}, "address: n_z = 7: expected one of 1, 2, 3, 4, 5, 6"),
        ({"dz": "4,5", "n_z": "3"}, "address: dz has 2 depths for 3 layers"),
    ],
)
def test_addresses_that_are_none(tilted: Explorer, query: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as error:
        tilted.limits.parse(query)
    assert str(error.value).startswith(words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"theta": "60"}, "theta = 60 degrees is outside 0 to 40 degrees"),
        ({"x": "2"}, "position = (2, 0) cm is outside the central cell of 2.5 cm"),
        ({"x": "200"}, "position = 200 cm: expected an entry near the axis; is it in mm?"),
        ({"dx": "9"}, "dx = 9 cm is outside 1 to 5 cm"),
        ({"dx": "-1", "x": "0.1"}, "dx"),
    ],
)
def test_addresses_out_of_range(tilted: Explorer, query: dict[str, str], words: str) -> None:
    with pytest.raises((InputError, RangeError)) as error:
        tilted.check(tilted.limits.parse(query))
    assert words in str(error.value)


def test_an_address_of_a_surrogate_without_particles(tiny: Explorer) -> None:
    assert tiny.limits.parse({"dx": "2", "dz": "5,7"}).dz == (5.0, 7.0)
    with pytest.raises(InputError, match="address: n_z = 3: expected 2"):
        tiny.limits.parse({"dz": "5,6,7"})
    with pytest.raises(InputError, match=r"address: theta is for surrogates that take particles; .* gamma on the axis"):
        tiny.limits.parse({"theta": "20"})


pn = pytest.importorskip("panel", reason="Panel is not installed (extra explore)")
pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra explore)")


class Silent:
    """A worker that computes nothing."""

    def __init__(self, *_: object) -> None:
        self.asked: list[CellSelection] = []

    def ask(self, selection: CellSelection, *, ascend: bool = False) -> None:
        self.asked.append(selection)

    def drop(self) -> None:
        self.asked.clear()


@pytest.fixture
def page(tilted: Explorer, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """One whose results are shown by hand."""
    from calograd.explorer import page as module

    monkeypatch.setattr(module, "Worker", Silent)
    return module.Page(tilted)  # type: ignore[return-value]


def test_sliders_of_the_entry_follow_the_pitch(page: object) -> None:
    controls = page.controls  # type: ignore[attr-defined]
    assert (controls.x.start, controls.x.end) == (-1.25, 1.25)
    controls.x.value = 0.5
    assert controls.selection().beam.position == pytest.approx((0.2, 0.0))
    controls.dx.value = 2.0
    assert (controls.x.start, controls.x.end, controls.x.value) == pytest.approx((-1.0, 1.0, 0.4))
    controls.particle.value, controls.theta.value, controls.phi.value = "e-", 20.0, 35.0
    controls.n_xy.value, controls.n_z.value = 7, 3
    shown = page.worker.asked[-1]  # type: ignore[attr-defined]
    assert (shown.n_xy, shown.n_z, shown.dx) == (7, 3, 2.0)
    assert shown.beam.particle == "e-"
    assert (shown.beam.theta, shown.beam.phi) == (20.0, 35.0)
    assert shown.entry == pytest.approx((0.4, 0.0))
    assert [layer.visible for layer in controls.layers] == [True] * 3 + [False] * 3
    controls.uniform.value = True
    assert controls.x.disabled
    assert page.worker.asked[-1].beam.position == "uniform"  # type: ignore[attr-defined]


def test_a_selection_moves_all_widgets(page: object, tilted: Explorer) -> None:
    at = off_axis(tilted, dz=(4.0, 5.0, 6.0))
    page.controls.move(at)  # type: ignore[attr-defined]
    assert page.worker.asked[-1] == at  # type: ignore[attr-defined]
    assert page.controls.x.value == pytest.approx(0.26)  # type: ignore[attr-defined]


def test_what_cannot_be_is_told_in_one_line(page: object) -> None:
    page.controls.theta.value = 95.0  # type: ignore[attr-defined]
    assert page.message == "theta = 95: expected degrees from 0 to below 90"  # type: ignore[attr-defined]
    assert page.worker.asked == []  # type: ignore[attr-defined]
    page.controls.theta.value = 10.0  # type: ignore[attr-defined]
    assert page.worker.asked[-1].beam.theta == 10.0  # type: ignore[attr-defined]


def test_an_address_that_is_refused_is_told_beside_the_start(tilted: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    from calograd.explorer import page as module

    monkeypatch.setattr(module, "Worker", Silent)
    page = module.Page(tilted, query={"theta": "60"})
    assert page.worker.asked == [tilted.start()]
    page._show(tilted.preview(tilted.start()))
    assert "theta = 60 degrees is outside 0 to 40 degrees" in page.message
    page.controls.theta.value = 30.0
    page._show(tilted.preview(page.worker.asked[-1]))
    assert page.message == ""
    opened = module.Page(tilted, query={"theta": "20", "particle": "e-"})
    assert opened.worker.asked[-1].beam == ParticleBeam("e-", theta=20.0, unit="pitch")


def test_downloads_honour_the_beam(page: object, tilted: Explorer, tmp_path: Path) -> None:
    import json

    from calograd.events.dense import read_cells
    from calograd.explorer.page import DOWNLOADS

    page.controls.move(off_axis(tilted, beam=replace(BEAM, position="uniform")))  # type: ignore[attr-defined]
    view = tilted.preview(page.worker.asked[-1])  # type: ignore[attr-defined]
    page._show(view)  # type: ignore[attr-defined]
    kept = {name: page._keep(make).read() for name, (_, make) in DOWNLOADS.items()}  # type: ignore[attr-defined]
    (tmp_path / "showers.h5").write_bytes(kept["HDF5"])
    cells = read_cells(tmp_path / "showers.h5")
    assert np.array_equal(cells.incident.position, view.incident.position)
    assert cells.incident.difference(view.incident) is None
    numbers = json.loads(kept["JSON"])
    assert numbers["choice"]["beam"]["particle"] == "e-"
    assert numbers["incident"].startswith("e- entering at x = ")
    assert tomllib.loads(kept["TOML"].decode())["beam"]["position"] == "uniform"
    assert kept["PNG"].startswith(b"\x89PNG")
    assert "generated showers of e- entering at" in kept["HTML"].decode()
    assert NONE_HERE in kept["HTML"].decode()
