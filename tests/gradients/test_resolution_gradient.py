"""The resolution of a design: stages, references, gradients against finite differences with common random numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.synthetic import showers
from helpers.tiny import small_surrogate, tilted_surrogate

from calograd import Design, ExponentialBackground, Measurement, Readout, resolution, segment, write_cells
from calograd.detector.incidence import Incidence
from calograd.detector.particles import ParticleBeam
from calograd.errors import InputError, RangeError
from calograd.events.dense import Cells
from calograd.gradients.resolution import log_slope, resolution_gradient
from calograd.metrics.resolution import DEFINITIONS, resolution_curve
from calograd.surrogate import Surrogate

DESIGN = Design(2.5, 6.0, n_xy=3, n_z=2)
FULL = Measurement(ExponentialBackground(b0=1e-3), Readout(light_yield=2000, noise=2e-3))
FEW = {"showers": 40, "steps": 2}


def events(u: float, energy: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Reconstructed energies x and dx/du whose width and mean depend on u: sigma/E = 0.1 e^-u / sqrt(E)."""
    xi = np.random.default_rng(seed).normal(size=n)
    width = 0.1 * np.sqrt(energy) * np.exp(-u) * xi
    return energy * np.exp(0.1 * u) + width, (0.1 * energy * np.exp(0.1 * u) - width)[:, None]


@pytest.mark.parametrize("definition", ["std", "incident"])
def test_the_slope_is_the_finite_difference_on_common_showers(definition: str) -> None:
    h = 1e-5
    found = log_slope(*events(0.3, 10.0, 500, 1), 10.0, definition)
    up, down = (log_slope(*events(0.3 + s, 10.0, 500, 1), 10.0, definition)[0] for s in (h, -h))
    assert found[1][0] == pytest.approx((np.log(up) - np.log(down)) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_errors_of_the_gradient_are_its_scatter(definition: str) -> None:
    """Over independent samples: pulls of unit width about the truth, for every energy and for the fit."""
    energies, pulls, fits = np.array([1.0, 4.0, 16.0, 64.0]), [], []
    truth = -1.0 if definition == "incident" else -1.1
    for seed in range(40):
        x, t = zip(*(events(0.0, e, 1000, 10 * seed + k) for k, e in enumerate(energies)), strict=True)
        # a scatter of t about its dependence on x, as other coordinates of a shower give
        rng = np.random.default_rng(10_000 + seed)
        t = [each + 0.2 * np.sqrt(e) * rng.normal(size=each.shape) for each, e in zip(t, energies, strict=True)]
        curve = resolution_curve("made up", energies, x, definition=definition, terms=("a",))
        found = resolution_gradient(("y",), np.ones(1), curve, x, t)
        pulls.append((found.values[:, 0] - truth) / found.errors[:, 0])
        assert found.fit is not None
        assert found.fit_errors is not None
        fits.append((found.fit[0, 0] - truth * 0.1) / found.fit_errors[0, 0])
        assert np.isnan(found.fit[1:]).all()
    assert abs(np.mean(pulls)) < 0.35
    assert np.std(pulls) == pytest.approx(1, abs=0.25)
    assert np.std(fits) == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("definition", ["std", "incident"])
def test_back_propagation_agrees_with_another_design(definition: str) -> None:
    """In float64, with the same showers, background and noise at both designs, at every stage and in the fit."""
    surrogate, h = small_surrogate(torch.float64), 1e-4
    common = {"energies": [2, 8, 40], "measurement": FULL, "definition": definition, "terms": "ac", "seed": 3} | FEW
    found = resolution(surrogate, DESIGN, **common)

    def logs(dx: float, dz: float) -> list[np.ndarray]:
        design = Design(torch.tensor(dx, dtype=torch.float64), torch.tensor(dz, dtype=torch.float64), n_xy=3, n_z=2)
        return [np.log(s.surrogate.values) for s in resolution(surrogate, design, gradient=False, **common).stages]

    for j, move in enumerate((np.array([h, 0]), np.array([0, h]))):
        up, down = (logs(*(np.array([2.5, 6.0]) * np.exp(sign * move))) for sign in (1, -1))
        for stage, a, b in zip(found.stages, up, down, strict=True):
            np.testing.assert_allclose(stage.gradient.values[:, j], (a - b) / (2 * h), rtol=1e-3, atol=1e-5)
            assert (stage.gradient.errors[:, j] > 0).all()


def test_the_stages_are_those_of_the_measurement(surrogate: Surrogate) -> None:
    stages = list[tuple[str, int, int]]()
    made = resolution(surrogate, DESIGN, [5, 50], measurement=FULL, progress=lambda *part: stages.append(part), **FEW)
    assert [s.name for s in made.stages] == ["deposited", "with background", "with background and readout"]
    assert {stage for stage, *_ in stages} == {"surrogate"}
    assert stages[-1][1] == stages[-1][2]
    only = resolution(surrogate, DESIGN, 5, measurement=Measurement(readout=Readout(noise=1e-2)), gradient=False, **FEW)
    assert [s.name for s in only.stages] == ["deposited", "with readout"]
    assert only.stages[0].surrogate.values[0] == pytest.approx(made.stages[0].surrogate.values[0], rel=1e-5)
    assert only.stages[1].surrogate.note == "no fit: 1 energy; expected two or more"
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert plain["schema"] == "calograd/resolution/1"
    assert plain["stages"][0]["gradient"]["parameters"] == {"dx": 2.5, "dz": 6.0}
    assert "2 energies for 3 terms" in plain["stages"][0]["surrogate"]["fit"]["note"]
    assert "sigma / E" in made._repr_html_()


def test_energies_are_those_of_the_trained_range(surrogate: Surrogate) -> None:
    made = resolution(surrogate, DESIGN, gradient=False, measurement=Measurement(), **FEW)
    np.testing.assert_allclose(made.stages[0].surrogate.energies, np.geomspace(1, 100, 8))
    assert len(made.stages) == 1
    unequal = Design(2.5, (6.0, 7.0), n_xy=3, n_z=2)
    layers = resolution(surrogate, unequal, [10, 20], measurement=Measurement(), **FEW)
    assert layers.stages[0].gradient.names == ("dx", "dz_1", "dz_2")


def test_a_reference_alone() -> None:
    made = resolution(reference=showers(200, seed=1, energies=(1.0, 5.0, 50.0), designs=((2.0, 4.0),)))
    deposited, background = made.stages
    assert deposited.surrogate is None
    assert deposited.geant4.showers.tolist() == [200] * 3
    # half a normal distribution, exp(-0.03 |xi|): its deviation is 0.03 sqrt(1 - 2 / pi)
    np.testing.assert_allclose(deposited.geant4.values, 0.03 * np.sqrt(1 - 2 / np.pi), rtol=0.2)
    assert (background.geant4.values > deposited.geant4.values).all()
    assert any("response changes" in note for note in made.notes)


def test_a_continuous_spectrum_is_binned() -> None:
    """A stochastic term and a response that grows with energy; bins recover the term and not the slope."""
    rng, n = np.random.default_rng(0), 12000
    energy = np.exp(rng.uniform(0, np.log(100), n))
    total = energy * (0.8 + 0.02 * np.log(energy)) * (1 + 0.1 / np.sqrt(energy) * rng.normal(size=n))
    cells = np.zeros((n, 3, 3, 2), np.float32)
    cells[:, 1, 1, 0] = total
    one = showers(1, seed=0, energies=(1.0,), designs=((2.5, 6.0),))
    record = replace(
        one, cells=cells, energy=energy.astype(np.float32), dx=np.full(n, 2.5, np.float32),
        dz=np.full((n, 2), 6.0, np.float32), shower=np.arange(n),
    )  # fmt: skip
    made = resolution(reference=record, measurement=Measurement())
    (stage,) = made.stages
    assert len(stage.geant4.energies) == 8
    assert "8 bins of energy" in made.notes[0]
    assert stage.geant4.fit.values[0] == pytest.approx(0.1, abs=4 * stage.geant4.fit.errors[0])
    assert stage.geant4.fit.values[0] == pytest.approx(0.1, rel=0.03)
    assert stage.geant4.fit.squares[2] < 0.004**2
    chosen = resolution(reference=record, measurement=Measurement(), energies=[2, 10, 50]).stages[0].geant4
    assert chosen.energies == pytest.approx([2, 10, 50], rel=0.25)


def test_a_library_beside_the_surrogate(surrogate: Surrogate, library: Path) -> None:
    made = resolution(surrogate, DESIGN, [10, 50], reference=library, measurement=Measurement(), **FEW)
    (stage,) = made.stages
    cells = segment(library, designs=DESIGN)
    x = cells.totals[np.isclose(cells.energy, 50)].astype(float)
    assert stage.geant4.values[-1] == pytest.approx(x.std(ddof=1) / x.mean(), rel=1e-5)
    assert stage.geant4_gradient.energies.tolist() == [10, 50]
    moved = [segment(library, designs=Design(2.5 * np.exp(s), 6.0, n_xy=3, n_z=2)) for s in (0.04, -0.04)]
    up, down = (c.totals[np.isclose(c.energy, 50)].astype(float) for c in moved)
    expected = (np.log(up.std() / up.mean()) - np.log(down.std() / down.mean())) / 0.08
    assert stage.geant4_gradient.values[1, 0] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_cells_without_neighbours_give_no_gradient_of_geant4(surrogate: Surrogate, library: Path) -> None:
    cells = segment(library, designs=DESIGN)
    made = resolution(surrogate, DESIGN, reference=cells, measurement=Measurement(), **FEW)
    assert made.stages[0].geant4_gradient is None
    assert "no gradient of Geant4" in made.notes[-1]


def test_what_cannot_be(surrogate: Surrogate, tmp_path: Path) -> None:
    two = showers(30, seed=1, energies=(1.0, 5.0), designs=((2.0, 4.0), (3.0, 8.0)))
    write_cells(tmp_path / "two.h5", two)
    file, few = tmp_path / "two.h5", {"gradient": False} | FEW
    for complaint, arguments in (
        ("give a surrogate, a reference", {}),
        ("two.h5 holds 2 designs, 2 x 4 cm, 3 x 8 cm; give the one", {"reference": file}),
        ("no showers of 2.5 x 6 cm; its designs are", {"reference": file, "design": Design(2.5, 6.0)}),
        ("3 x 3 x 2", {"reference": file, "design": DESIGN}),
        ("is of PbF2", {"reference": file, "design": Design(2.0, 4.0, "PbWO4")}),
        ("the design is missing", {"surrogate": surrogate}),
        ("2 are given", {"surrogate": surrogate, "design": DESIGN.expand(2)}),
        (r"energies = \[-1.0\] GeV", {"surrogate": surrogate, "design": DESIGN, "energies": -1.0}),
        ("among those asked for", {"reference": file, "design": Design(2.0, 4.0), "energies": 7.0}),
        ("showers = 3: expected at least 20", {"surrogate": surrogate, "design": DESIGN, "showers": 3}),
    ):
        with pytest.raises(InputError, match=complaint):
            resolution(**few | arguments)
    with pytest.raises(RangeError, match="energy = 500 GeV"):
        resolution(surrogate, DESIGN, 500.0, **few)
    tilted = replace(two, incidence=Incidence.of(len(two), theta=20.0))
    with pytest.raises(InputError, match="20"):
        resolution(surrogate, Design(2.0, 4.0), reference=tilted, **few)


def test_energies_with_few_showers_are_left_out() -> None:
    cells: Cells = showers(60, seed=1, energies=(1.0, 5.0), designs=((2.0, 4.0),))
    made = resolution(reference=cells.rows(np.arange(70)), measurement=Measurement())
    assert made.stages[0].geant4.energies.tolist() == [1.0]
    assert "fewer than 20 showers at 5 GeV" in made.notes[0]
    generated = replace(cells, origin="pbf2-cells")
    assert "origin is 'pbf2-cells'" in resolution(reference=generated, measurement=Measurement()).notes[0]


@pytest.fixture(scope="module")
def tilted() -> Surrogate:
    return tilted_surrogate(3, 2)


def test_of_electrons_that_enter_anywhere_at_an_angle(tilted: Surrogate) -> None:
    """Entries follow the pitch, and so does the gradient; showers of another beam are refused."""
    beam, h = ParticleBeam("e-", "uniform", 20.0, (0.0, 360.0)), 1e-4
    common = {"energies": [2, 8, 40], "measurement": Measurement(), "beam": beam, "terms": "ac"} | FEW
    (found,) = resolution(tilted, DESIGN, **common).stages

    def logs(dx: float) -> np.ndarray:
        design = Design(torch.tensor(dx, dtype=torch.float64), 6.0, n_xy=3, n_z=2)
        return np.log(resolution(tilted, design, gradient=False, **common).stages[0].surrogate.values)

    expected = (logs(2.5 * np.exp(h)) - logs(2.5 * np.exp(-h))) / (2 * h)
    np.testing.assert_allclose(found.gradient.values[:, 0], expected, rtol=1e-3, atol=1e-5)
    on_axis = resolution(tilted, DESIGN, gradient=False, **common | {"beam": ParticleBeam()}).stages[0]
    assert not np.allclose(on_axis.surrogate.values, found.surrogate.values, rtol=1e-3)


def test_a_reference_of_another_beam_is_refused(tilted: Surrogate, surrogate: Surrogate, library: Path) -> None:
    common = {"energies": [10.0, 50.0], "measurement": Measurement(), "gradient": False} | FEW
    cells = segment(library, designs=DESIGN)
    assert resolution(tilted, DESIGN, reference=cells, **common).stages[0].geant4 is not None
    for reference in (cells, library):
        with pytest.raises(InputError, match=r"is of .* as asked"):
            resolution(tilted, DESIGN, reference=reference, beam=ParticleBeam("e-"), **common)
    with pytest.raises(InputError, match="leave out beam"):
        resolution(surrogate, DESIGN, beam=ParticleBeam("e-"), **common)
    moved = resolution(tilted, DESIGN, reference=library, beam=ParticleBeam(position=(0.9, 0.3)), **common)
    assert not np.allclose(
        moved.stages[0].geant4.values, resolution(reference=cells, measurement=Measurement()).stages[0].geant4.values
    )
