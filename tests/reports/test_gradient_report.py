"""Reports of gradients and optimisations: contents, signs and escaping."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calograd.detector.design import Design
from calograd.errors import OutputExistsError
from calograd.gradients.check import compare_gradients
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.gradient import GradientResult
from calograd.gradients.spectra import Spectrum
from calograd.objective.background import ExponentialBackground
from calograd.objective.cost import DepthCost, PricedUtility
from calograd.objective.measurement import Measurement
from calograd.objective.readout import Readout
from calograd.objective.utility import EnergyResolution, Objective, SquaredError, Utility
from calograd.reports.gradient import draw_gradients, write_gradient_report
from calograd.reports.optimisation import draw_spectra


def estimate(value: float, gradient: tuple[float, float], source: str = "small") -> GradientEstimate:
    draws = np.array(gradient) + 0.01 * np.array([[1, -1], [-1, 1], [0.5, 0.5], [-0.5, -0.5]])
    return GradientEstimate.from_draws(
        ("dx", "dz"), np.array([2.5, 6.0]), np.full(4, value), draws, {"source": source, "seed": 0}
    )


def result(value: float, utility: Utility, *, checked: bool = False) -> GradientResult:
    ours = estimate(value, (0.2, -0.1))
    theirs = replace(estimate(1.25 * value, (0.25, -0.1), "geant4"), draws=ours.draws)
    objective = Objective(Measurement(ExponentialBackground(), Readout(noise=1e-3)), utility, (10.0, 50.0))
    checks = (compare_gradients(ours, theirs),) * 2 if checked else ()
    return GradientResult("small", Design(2.5, 6.0), objective, (10.0, 50.0), (ours, ours), checks)


@pytest.mark.parametrize("value", [-0.5, 0.5])
@pytest.mark.parametrize("checked", [True, False])
def test_the_axis_has_the_sign_of_its_label(value: float, checked: bool) -> None:
    """A growing utility is above zero, also where the utility is negative, as of a resolution."""
    made = result(value, EnergyResolution(), checked=checked)
    axes = draw_gradients(made.energies, made.estimates, made.checks).axes[0]
    assert axes.get_ylabel() == r"$(\partial U/\partial \ln y)\;/\;|U|$"
    (ours,) = (line for line in axes.lines if str(line.get_label()).startswith("surrogate"))
    size = 1.25 * abs(value) if checked else abs(value)
    np.testing.assert_allclose(np.asarray(ours.get_ydata(), float), 0.2 / size, rtol=1e-6)


def test_the_gradient_s_report_names_what_it_judged(tmp_path: Path) -> None:
    utility = PricedUtility(SquaredError(truth="incident"), ((DepthCost(), 0.02),), relative=True)
    path = tmp_path / "report.html"
    write_gradient_report(path, replace(result(0.5, utility, checked=True), surrogate="<script>"))
    page = path.read_text(encoding="utf-8")
    for text in (
        "photons on the axis into PbF2", "squared error of the incident energy", "U / (1 + 0.02 DepthCost)",
        "5 MeV/cm3 at the front face", "noise 0.001 GeV a cell", "0.5 ± 0 1/GeV2", "0.625 ± 0 1/GeV2",
        "&lt;script&gt; and Geant4", "data:image/png",
    ):  # fmt: skip
        assert text in page
    assert "<script" not in page
    assert "Energy resolution" not in page
    with pytest.raises(OutputExistsError):
        write_gradient_report(path, result(0.5, utility))


@pytest.mark.parametrize("energies", [(10.0,), (10.0, 40.0)])
def test_the_report_shows_the_resolution_against_energy(tmp_path: Path, energies: tuple[float, ...]) -> None:
    """5 and 2.5 % of the incident energy, as the measurement has a background; a single energy has no figure."""
    rng, made = np.random.default_rng(0), result(0.5, SquaredError(), checked=True)
    spectra = [
        Spectrum(source, e, (e + 1 + 0.5 * (e / 10) ** 0.5 * rng.normal(size=n),))
        for source, n in (("small", 4000), ("Geant4", 400))
        for e in energies
    ]
    write_gradient_report(tmp_path / "report.html", made, spectra=spectra)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1 + (len(energies) > 1)
    rows = [row.split("<td")[1:] for row in page.split("<tr>") if "the measured energy</td>" in row]
    assert len(rows) == 2 * len(energies)
    for row, spectrum in zip(rows, spectra, strict=True):
        value, error = (float(part) for part in row[3].split(">")[1].split("<")[0].split(" ± "))
        assert abs(value - 5 * (10 / spectrum.energy) ** 0.5) < 4 * error
        assert row[5].startswith(f">{len(spectrum.measured[0])}</td>")


def test_spectra_show_resolutions_before_and_after() -> None:
    rng = np.random.default_rng(0)
    start, end = 10 + rng.normal(size=4000), 10 + 0.5 * rng.normal(size=4000)
    value, error = Spectrum("small", 10.0, (start,)).resolutions()[0]
    assert value == pytest.approx(0.1, rel=0.05)
    assert error == pytest.approx(0.1 / (2 * 4000) ** 0.5, rel=0.3)
    made = (Spectrum("small", 10.0, (start, end)), Spectrum("Geant4", 10.0, (start[:20], end[:20])))
    figure = draw_spectra(made)
    assert [axes.get_title() for axes in figure.axes] == ["small, 10 GeV", "Geant4, 10 GeV"]
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels[0].startswith("start: resolution 9.") or labels[0].startswith("start: resolution 10.")
    assert labels[1].startswith(("result: resolution 4.", "result: resolution 5."))
    plain = made[0].to_dict(("start", "result"))
    assert plain["start"]["resolution"] == value
    assert plain["result"]["mean"] == pytest.approx(10, abs=0.05)
