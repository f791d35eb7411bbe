"""Report of the derivatives of a stack of plates: values, error bars and escaping."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.toy_stacks import ACTIVE, DESIGN, LAYERS, toy_showers, toy_surrogate

from calograd import MeanEnergy, ParticleBeam, StackObjective, VisibleResolution
from calograd.errors import OutputExistsError
from calograd.gradients.check import compare_gradients
from calograd.gradients.simulated_stacks import StackShowers, regression_gradient
from calograd.gradients.stacks import StackCheck, StackGradientResult, stack_gradient
from calograd.reports.stack_gradient import draw_stack_gradient, write_stack_gradient_report


def result(profile: str) -> StackGradientResult:
    objective = StackObjective((MeanEnergy(), VisibleResolution()), beam=ParticleBeam("e-"))
    made = stack_gradient(toy_surrogate(), DESIGN, (10.0,), objective, showers=50, draws=4)
    showers, checks = StackShowers.of("toy", toy_showers(400, profile=profile)[0]), []
    for own in made.gradients:
        theirs = regression_gradient(showers, DESIGN, own.quantity.fixed([], ()), resamples=5)
        plates = theirs.plates and compare_gradients(own.plates(), theirs.plates)
        checks.append(StackCheck(compare_gradients(own.common(), theirs.common), plates or None))
    return replace(made, checks=tuple(checks), reference="toy.h5")


@pytest.mark.parametrize(("profile", "labels"), [("smooth", ["Geant4, regression", "surrogate, back-propagation"]),
                                                 ("equal", ["Geant4, all plates over their number",
                                                            "surrogate, back-propagation"])])  # fmt: skip
def test_the_figure_shows_every_plate_in_its_unit(profile: str, labels: list[str]) -> None:
    made = result(profile)
    for own, check, label in zip(made.gradients, made.checks, (r"GeV/cm", r"\ln(\sigma/E)"), strict=True):
        panels = draw_stack_gradient(own, check).axes
        assert label in panels[0].get_ylabel()
        assert sorted(panels[1].get_legend_handles_labels()[1]) == sorted(labels)
        ours = next(each for each in panels[1].containers if str(each.get_label()).startswith("surrogate"))
        shown, estimate = np.asarray(ours[0].get_ydata(), float), own.plates()
        expected = estimate.gradient if own.quantity.relative else estimate.gradient / np.repeat([0.3, ACTIVE], LAYERS)
        np.testing.assert_allclose(shown, expected[LAYERS:], rtol=1e-6)
        (bars,) = ours[2]
        reach = [float(np.ptp(segment[:, 1])) for segment in bars.get_segments()]
        scale = 1.0 if own.quantity.relative else ACTIVE
        width = (estimate.interval[1] - estimate.interval[0])[LAYERS:] / scale
        np.testing.assert_allclose(reach, width, rtol=1e-5)
    (lines,) = [[line.get_ydata()[0] for line in panels[0].lines if "over their number" in str(line.get_label())]]
    assert lines == ([] if profile == "smooth" else [made.checks[1].common.geant4.gradient[0] / LAYERS])


def test_the_report_names_what_was_compared(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_stack_gradient_report(path, replace(result("equal"), surrogate="<script>"))
    page = path.read_text(encoding="utf-8")
    for text in ("&lt;script&gt; and toy.h5", "stack of Pb and lAr", "5 layers, 0.3 and 0.4 cm", "theta 0 degrees",
                 "active plates, sigma/E of the visible energy", "a random stack around this"):  # fmt: skip
        assert text in page, text
    with pytest.raises(OutputExistsError):
        write_stack_gradient_report(path, result("equal"))
