from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_maps import tiny_maps
from torch import Tensor

from calograd.detector.design import Design
from calograd.errors import InputError
from calograd.events.library.reader import open_library
from calograd.events.segmentation import segment
from calograd.gradients.autodiff import surrogate_gradient
from calograd.gradients.estimates import generator_for
from calograd.gradients.finite_differences import finite_difference_gradient
from calograd.objective.background import Background, BackgroundMap, ExponentialBackground
from calograd.objective.cost import DepthCost, PricedUtility
from calograd.objective.measurement import Measurement
from calograd.objective.readout import Readout
from calograd.objective.reference import LibraryReference
from calograd.objective.utility import Containment, Objective, PositionResolution, SquaredError, Utility

PIXELS = 8
AT = np.array([2.0, 6.0])
DESIGN = Design(torch.tensor(2.0, dtype=torch.float64), torch.tensor([4.0, 6.0], dtype=torch.float64), n_xy=3, n_z=2)


@dataclass(frozen=True)
class Sizes:
    n_xy: int
    n_z: int
    names: tuple[str, ...] = ("dx", "dz")

    def design(self, y: Tensor) -> Design:
        return Design(y[0], y[1], n_xy=self.n_xy, n_z=self.n_z)


def of_maps(background: Background | None, readout: Readout | None = None) -> Measurement:
    return Measurement(background, readout, pixels=PIXELS)


def means_of(measurement: Measurement) -> Tensor:
    """Mean background of pixels and of a column of them on either side."""
    assert measurement.background is not None
    return measurement._mean_background(measurement.background, torch.zeros(1, dtype=torch.float64), DESIGN)


def objective(utility: Utility | None = None) -> Objective:
    return Objective(of_maps(ExponentialBackground()), utility or SquaredError(truth="incident"), (10.0,))


def empty(measurement: Measurement, n: int, seed: int = 0) -> Tensor:
    """What is measured of nothing, without mask, in float64."""
    draws = measurement.draw(n, 3, 2, generator_for(seed), torch.float64)
    signal = torch.zeros(n, PIXELS, PIXELS, dtype=torch.float64)
    return measurement.measure(signal, 1.0, DESIGN, draws).measured


def test_the_mean_background_of_all_pixels_is_the_integral_over_the_window() -> None:
    background = ExponentialBackground(b0=2e-3, lam=5.0)
    measurement = of_maps(background)
    means = means_of(measurement)
    assert means.shape == (PIXELS + 2, 1, PIXELS)
    assert float(means[1:-1].sum()) == pytest.approx(2e-3 * 6.0**2 * 5.0 * (1 - np.exp(-10.0 / 5.0)))
    assert float(background.moments_from_means(means).mean.sum()) == pytest.approx(float(means[1:-1].sum()))
    edges = torch.linspace(-20, 20, 9)
    uniform = BackgroundMap(density=torch.full((8, 8, 4), 1e-3), x=edges, y=edges, z=torch.linspace(0, 12, 5))
    assert float(means_of(of_maps(uniform))[1:-1].sum()) == pytest.approx(1e-3 * 36 * 10)


def test_moments_are_those_of_the_energies() -> None:
    background = ExponentialBackground(sigma_event=0.2, shape_cell=3.0, diffusion=0.4)
    measurement = of_maps(background)
    n, means = 20_000, means_of(measurement)
    draws = measurement.draw(n, 3, 2, generator_for(1), torch.float64).background
    assert draws is not None
    energies, moments = background.energy_from_means(draws, means), background.moments_from_means(means)
    assert energies.shape == (n, PIXELS, 1, PIXELS)
    pull = (energies.mean(0) - moments.mean) / moments.std * n**0.5
    assert float(pull.abs().max()) < 5
    assert float((energies.std(0) / moments.std - 1).abs().max()) < 0.06


def test_the_mask_leaves_little_of_the_background() -> None:
    measurement = of_maps(ExponentialBackground())
    kept, mean = empty(measurement, 200).sum((1, 2, 3)).mean(), means_of(measurement)[1:-1].sum()
    assert 0 < float(kept) < 0.7 * float(mean)


def test_pixels_are_read_out() -> None:
    measurement = of_maps(None, Readout(noise=1e-3))
    noise = empty(measurement, 500)
    assert noise.shape == (500, PIXELS, 1, PIXELS)
    assert float(noise.std()) == pytest.approx(1e-3, rel=0.02)


def test_the_gradient_is_the_derivative_of_the_value() -> None:
    surrogate = tiny_maps()
    surrogate.model.double()

    def at(y: np.ndarray) -> tuple[float, np.ndarray]:
        made = surrogate_gradient(surrogate, objective(), Sizes(5, 5), y, showers=10, draws=2, seed=4, steps=3)
        return made.value, made.gradient

    (_, gradient), h = at(AT), 1e-5
    for j in range(2):
        up, down = (at(AT * np.exp(sign * h * np.eye(2)[j]))[0] for sign in (1, -1))
        assert gradient[j] == pytest.approx((up - down) / (2 * h), rel=1e-3)
    assert (gradient != 0).all()


@pytest.fixture
def reference(library: Path) -> LibraryReference:
    with open_library(library) as source:
        return LibraryReference(source, (10.0,), 3, 2, pixels=PIXELS)


def test_a_library_is_measured_as_maps(library: Path) -> None:
    with open_library(library) as source:
        maps = segment(source, designs=(2.0, 6.0), n_xy=3, n_z=2, maps=True)
        reference = LibraryReference(source, (50.0,), 3, 2, pixels=32)
    got = reference.measure(50.0, [(2.0, (6.0, 6.0))])[0]
    np.testing.assert_array_equal(got[:, :, 0], maps.maps[maps.energy == np.float32(50.0)])


def test_a_utility_that_pixels_do_not_change_has_the_gradient_of_cells(
    library: Path, reference: LibraryReference
) -> None:
    contained = Objective(Measurement(None), Containment(), (10.0,))
    with open_library(library) as source:
        cells = LibraryReference(source, (10.0,), 3, 2)
    of_cells = finite_difference_gradient(cells, contained, Sizes(3, 2), AT, bootstrap=2)
    seen_as_maps = finite_difference_gradient(
        reference, replace(contained, measurement=of_maps(None)), Sizes(3, 2), AT, bootstrap=2
    )
    assert seen_as_maps.value == pytest.approx(of_cells.value, rel=1e-5)
    np.testing.assert_allclose(seen_as_maps.gradient, of_cells.gradient, rtol=1e-3)


def test_geant4_with_background(reference: LibraryReference) -> None:
    made = finite_difference_gradient(reference, objective(), Sizes(3, 2), AT, replicas=2, bootstrap=5)
    assert np.isfinite(made.gradient).all()
    assert (made.gradient_error > 0).all()


def test_what_does_not_fit() -> None:
    with pytest.raises(InputError, match="PositionResolution is of y"):
        objective(PricedUtility(PositionResolution(), ((DepthCost(), 1e-3),)))
    measurement = of_maps(None)
    with pytest.raises(InputError, match=r"maps have shape \(2, 3, 3, 2\), expected \(n, 8, 8\)"):
        measurement.measure(torch.zeros(2, 3, 3, 2), 1.0, DESIGN, measurement.draw(2, 3, 2, generator_for(0)))
