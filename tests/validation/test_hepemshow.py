"""validation/hepemshow.py asks for the published derivatives, in the published units."""

from __future__ import annotations

import hepemshow
import numpy as np
import pytest
import torch

from calograd import LayerEnergies
from calograd.gradients.estimates import GradientEstimate
from calograd.gradients.simulated_stacks import StackShowers


def test_the_layers_and_plates_that_are_summed() -> None:
    """Layers 5 to 18 from 0, and both plates of each."""
    made = LayerEnergies(torch.arange(50.0)[None], 1000 * torch.arange(50.0)[None])
    inner = sum(range(5, 19))
    assert hepemshow.BOTH([made], (10.0,)).tolist() == [1001 * inner]
    assert hepemshow.GAPS([made], (10.0,)).tolist() == [inner]


def test_units() -> None:
    """1 GeV per cm is 100 MeV per mm."""
    estimate = GradientEstimate(
        ("absorber", "active"), np.array([0.23, 0.57]), 3.0, 0.1, np.array([0.23, 1.14]), np.array([0.023, 0.057]),
        np.zeros((2, 2)), {},
    )  # fmt: skip
    found = hepemshow.slopes_of(estimate, estimate)
    assert found["absorber"][0] == pytest.approx((100, 10))
    assert found["gap"][1] == pytest.approx((200, 10))
    assert hepemshow.logarithms_of(estimate)[1] == pytest.approx((1.14, 0.057))


def test_regression_of_showers_whose_slopes_are_known() -> None:
    """Every plate's energy is in proportion to its thickness: 2 GeV per cm of absorber and 1 of gap, in each layer."""
    rng = np.random.default_rng(0)
    sizes = torch.from_numpy(np.exp(rng.uniform(np.log(0.7), np.log(1.42), (3000, 2))) * [0.23, 0.57])
    noise = 1 + 0.05 * torch.from_numpy(rng.standard_normal((3000, 1))) * (sizes[:, :1] / 0.23) ** -2
    thickness = sizes[:, None].expand(3000, 50, 2)
    energies = LayerEnergies(thickness[..., 1] * noise, 2 * thickness[..., 0] * noise)
    slopes, resolution = hepemshow.by_regression(StackShowers("toy", 10.0, energies, thickness.numpy()), 1)
    for name, truths in (("absorber", (2800, 0)), ("gap", (1400, 1400))):
        for found, true in zip(slopes[name], truths, strict=True):
            assert abs(found.value - true) < 4 * found.error
            assert 0 < found.error < 100
    for found, true in zip(resolution, (-2, 0), strict=True):
        assert abs(found.value - true) < 4 * found.error
