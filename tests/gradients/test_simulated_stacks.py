"""Geant4's derivatives of stacks of plates: differences and regression find those of known functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.toy_stacks import (
    ABSORBER,
    ACTIVE,
    DESIGN,
    LAYERS,
    deposited_slopes,
    resolution_slopes,
    toy_showers,
    visible_slopes,
    write_toy_showers,
)

from calograd import MeanEnergy, ParticleBeam, SamplingDesign, VisibleResolution, open_plates
from calograd.errors import InputError
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.simulated_stacks import (
    StackShowers,
    difference_gradient,
    regression_gradient,
    select_showers,
)

QUANTITIES = ((MeanEnergy(), visible_slopes(10.0), 0.05), (MeanEnergy(absorber=1.0), deposited_slopes(10.0), 0.1),
              (VisibleResolution(), resolution_slopes(), 0.15))  # fmt: skip
"""Quantities, their derivatives of all plates at `DESIGN`, and the largest error that is taken for known."""
FIXED = {"absorber_thickness": ABSORBER, "active_thickness": ACTIVE}


def showers(n: int, seed: int = 0, **options: Any) -> StackShowers:
    return StackShowers.of("toy", toy_showers(n, seed, **options)[0])


def largest_pull(found: GradientEstimate, truth: np.ndarray) -> float:
    return float(np.abs((found.gradient - truth) / found.gradient_error).max())


@pytest.mark.parametrize(("quantity", "truth", "known"), QUANTITIES)
def test_regression_over_stacks_of_equal_layers(quantity: Any, truth: np.ndarray, known: float) -> None:
    found = regression_gradient(showers(4000), DESIGN, quantity)
    assert found.plates is None
    assert found.common.names == ("absorber", "active")
    assert largest_pull(found.common, truth.reshape(2, -1).sum(1)) < 4
    assert found.common.gradient_error.max() < known
    expected = {"mean": 2.0, "resolution": np.log(np.sqrt(0.07**2 + 0.01 * 19 / 81))}[quantity.name]
    expected += 5.0 * getattr(quantity, "absorber", 0.0)
    assert found.common.value == pytest.approx(expected, abs=5 * found.common.value_error)
    np.testing.assert_allclose(found.common.raw, found.common.gradient / [ABSORBER, ACTIVE], rtol=1e-6)


@pytest.mark.parametrize(("quantity", "truth", "known"), QUANTITIES)
def test_regression_knows_every_plate_where_layers_scatter(quantity: Any, truth: np.ndarray, known: float) -> None:
    found = regression_gradient(showers(6000, profile="smooth", scatter=0.2), DESIGN, quantity)
    assert found.plates is not None
    assert largest_pull(found.common, truth.reshape(2, -1).sum(1)) < 4
    assert largest_pull(found.plates, truth) < 4
    assert found.plates.gradient_error.max() < known
    np.testing.assert_allclose(found.plates.gradient.reshape(2, -1).sum(1), found.common.gradient, rtol=1e-6, atol=1e-9)
    sums = found.plates.draws.reshape(len(found.plates.draws), 2, -1).sum(2)
    np.testing.assert_allclose(sums, found.common.draws, rtol=1e-6, atol=1e-9)


def test_regression_at_a_design_whose_layers_differ() -> None:
    """The visible energy is in proportion to the active plates, so each has its share of it."""
    thickness = torch.linspace(0.9, 1.1, LAYERS).double() * ACTIVE
    design = SamplingDesign("Pb", "lAr", ABSORBER, thickness)
    found = regression_gradient(showers(6000, profile="smooth", scatter=0.2), design, MeanEnergy()).plates
    assert found is not None
    shares = np.array([1, 2, 3, 2, 1]) / 9 * np.linspace(0.9, 1.1, LAYERS) * 2.0
    pulls = (found.gradient[LAYERS:] - shares) / found.gradient_error[LAYERS:]
    assert np.abs(pulls).max() < 4


@pytest.mark.parametrize("profile", ["equal", "smooth"])
@pytest.mark.parametrize("quantity", [MeanEnergy(), VisibleResolution()])
def test_errors_of_a_regression_are_those_of_repetitions(quantity: Any, profile: str) -> None:
    made = [
        regression_gradient(showers(400, seed, profile=profile), DESIGN, quantity, resamples=2) for seed in range(40)
    ]
    said = regression_gradient(showers(400, 100, profile=profile), DESIGN, quantity)
    for kind in ("common", "plates")[: 1 + (profile == "smooth")]:
        scatter = np.std([getattr(each, kind).gradient for each in made], axis=0, ddof=1)
        np.testing.assert_allclose(np.mean(scatter / getattr(said, kind).gradient_error), 1, atol=0.3)


def ends(n: int, which: str, factor: float, seed: int = 0, **options: Any) -> tuple[StackShowers, StackShowers]:
    """Showers in stacks of which one kind of plates is thinner, or thicker, by a factor."""
    low, high = (
        showers(n, seed + number, **FIXED | {which: FIXED[which] * factor**sign, **options})
        for number, sign in enumerate((-1, 1))
    )
    return low, high


@pytest.mark.parametrize(("quantity", "truth", "known"), QUANTITIES)
def test_differences_of_independent_showers(quantity: Any, truth: np.ndarray, known: float) -> None:
    pairs = [ends(4000, "absorber_thickness", 1.1), ends(4000, "active_thickness", 1.1, seed=2)]
    found = difference_gradient(pairs, quantity)
    assert found.names == ("absorber", "active")
    assert largest_pull(found, truth.reshape(2, -1).sum(1)) < 4
    assert found.gradient_error.max() < 3 * known
    if not quantity.relative:
        for k, pair in enumerate(pairs):
            sums = [quantity.sums(each.energies).numpy() for each in pair]
            step = np.ptp([each.thickness[0, 0, k] for each in pair])
            assert found.raw[k] == pytest.approx((sums[1].mean() - sums[0].mean()) / step, rel=1e-5)
            error = np.sqrt(sum(each.var(ddof=1) / len(each) for each in sums)) / step
            assert found.raw_error[k] == pytest.approx(error, rel=0.2)


def test_differences_of_some_plates() -> None:
    sizes = [[size * factor for size, factor in zip([ABSORBER] * LAYERS, factors, strict=True)]
             for factors in ([1.1, 1.1, 1, 1, 1], [0.9, 0.9, 1, 1, 1])]  # fmt: skip
    high, low = (showers(3000, k, **FIXED | {"absorber_thickness": size}) for k, size in enumerate(sizes))
    found = difference_gradient([(low, high)], MeanEnergy(absorber=1.0))
    assert found.names == ("absorber_0-1",)
    assert found.y == pytest.approx([ABSORBER])
    assert largest_pull(found, deposited_slopes(10.0)[:2].sum()) < 4
    with pytest.raises(InputError, match="expected plates that differ by one factor"):
        difference_gradient([(low, low)], MeanEnergy())
    with pytest.raises(InputError, match="toy has stacks that differ"):
        difference_gradient([(showers(10), high)], MeanEnergy())


def select(path: Path, design: SamplingDesign = DESIGN, energy: float = 1.0, beam: Any = None) -> StackShowers:
    with open_plates(path) as library:
        (found,) = select_showers(library, design, (energy,), beam or ParticleBeam("e-"))
    return found


def test_showers_of_a_library_are_chosen(tmp_path: Path) -> None:
    path = write_toy_showers(tmp_path / "random.h5", 90, energies=(1.0, 2.0, 3.0))
    found = select(path, energy=2.0)
    assert (found.name, found.energy, len(found)) == ("random.h5", 2.0, 30)
    with open_plates(path) as library:
        expected = library.read().rows(np.arange(1, 90, 3))
    np.testing.assert_array_equal(found.energies.active, expected.energies()[..., 2])
    np.testing.assert_array_equal(found.thickness[..., 1].astype(np.float32), expected.thicknesses()[..., 2])


def stack(**changes: Any) -> SamplingDesign:
    given = {"absorber": "Pb", "active": "lAr", "absorber_thickness": ABSORBER, "active_thickness": ACTIVE,
             "n_layers": LAYERS} | changes  # fmt: skip
    return SamplingDesign(**given)


UNEQUAL = [0.29, 0.3, 0.3, 0.3, 0.31]


@pytest.mark.parametrize(
    ("asked", "library", "message"),
    [
        ({"design": stack(absorber="W")}, {}, "no showers with absorber W as the gradient asks, but Pb (11.35 g/cm3)"),
        ({"design": stack(active="Si", active_thickness=0.3)}, {}, "no showers with active Si"),
        ({"design": stack(n_layers=6)}, {}, "no showers in 6 layers as the gradient asks, but 5;"),
        ({"energy": 2.0}, {}, "no showers of 2 GeV as the gradient asks, but 1 GeV;"),
        ({"beam": ParticleBeam()}, {}, "no showers of gamma as the gradient asks, but e-;"),
        ({"beam": ParticleBeam("e-", theta=10.0)}, {}, "no showers at theta = 10 degrees as the gradient asks, but 0"),
        ({"design": stack(absorber_thickness=0.5)}, {}, "absorber_thickness of layer 0 is 0.21"),
        ({"design": stack(active_thickness=0.2)}, {}, "which does not surround the design's 0.2 cm; choose a library"),
        ({}, {"active_thickness": ACTIVE}, "active_thickness of layer 0 is 0.4 cm, which does not surround"),
        ({"design": stack(absorber_thickness=UNEQUAL)}, {}, "every stack has equal absorber plates"),
        ({"design": stack(gap_thickness=0.1)}, {}, "other gaps than the design"),
        ({}, {"gap_thickness": 0.2}, "other gaps than the design"),
    ],
)  # fmt: skip
def test_libraries_of_something_else_are_refused(
    tmp_path: Path, asked: dict[str, Any], library: dict[str, Any], message: str
) -> None:
    path = write_toy_showers(tmp_path / "random.h5", 200, energies=(1.0,), **library)
    with pytest.raises(InputError) as raised:
        select(path, **asked)
    assert message in str(raised.value)
    assert "random.h5" in str(raised.value)


def test_too_few_showers() -> None:
    with pytest.raises(InputError, match="toy has 20 showers for 10 terms of a regression; expected at least 30"):
        regression_gradient(showers(20), DESIGN, MeanEnergy())
