"""The estimators of validation/hepemshow.py find derivatives that are known."""

from __future__ import annotations

import hepemshow
import numpy as np
import pytest
import torch

from calograd import LayerEnergies, SamplingDesign


def toy(n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Energies with slopes 500 and -100 and a relative spread whose logarithm has the slopes -2 and -0.5."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(np.log(0.7), np.log(1.42), (n, 2))
    mean = 5000 + x @ [500, -100] + 300 * x[:, 0] ** 2 - 200 * x[:, 0] * x[:, 1] + 400 * x[:, 1] ** 3
    return x, mean * (1 + 0.07 * np.exp(x @ [-2, -0.5]) * rng.standard_normal(n))


def test_slopes_of_the_mean_and_of_the_resolution() -> None:
    x, energy = toy()
    rng = np.random.default_rng(1)
    cases = ((hepemshow.slopes, (500, -100), 100), (hepemshow.resolution_slopes, (-2, -0.5), 0.1))
    for function, truth, error in cases:
        for found, true in zip(hepemshow.bootstrap(function, x, energy, rng), truth, strict=True):
            assert 0 < found.error < error
            assert abs(found.value - true) < 4 * found.error


def test_errors_are_those_of_repetitions() -> None:
    repeated = np.array([hepemshow.resolution_slopes(*toy(500, seed)) for seed in range(100)])
    said = hepemshow.bootstrap(hepemshow.resolution_slopes, *toy(500), np.random.default_rng(1))
    assert [each.error for each in said] == pytest.approx(repeated.std(0, ddof=1), rel=0.3)


def test_differences() -> None:
    rng = np.random.default_rng(0)
    low, high = (6000 + step * 2200 + 500 * rng.standard_normal(400) for step in (-0.2, 0.2))
    found = hepemshow.difference(low, high, 0.02)
    assert found.error == pytest.approx(500 * (2 / 400) ** 0.5 / 0.4, rel=0.1)
    assert abs(found.value - 2200) < 4 * found.error


def test_the_layers_and_plates_that_are_summed() -> None:
    """Layers 5 to 18 from 0, and both plates of each."""
    assert list(range(50))[hepemshow.LAYERS] == list(range(5, 19))


class Linear:
    """Energies in proportion to the thickness; those of gaps scatter with the absorber's to the power of -2."""

    def sample(self, stack: SamplingDesign, energy: float, n: int, generator: torch.Generator, **_: object) -> object:
        noise = 0.07 * (stack.absorber_thickness / 0.23) ** -2 * torch.randn(n, 1, generator=generator)
        return LayerEnergies(1e-3 * energy * stack.active_thickness * (1 + noise), 0.02 * stack.absorber_thickness)


def test_back_propagation() -> None:
    slopes, resolution = hepemshow.by_surrogate(Linear(), 5000, 0)  # type: ignore[arg-type]
    for name, both, gaps, error in (("absorber", 14 * 2.0, 0.0, 0.2), ("gap", 14 * 1.0, 14 * 1.0, 0.05)):
        for found, true in zip(slopes[name], (both, gaps), strict=True):
            assert 0 < found.error < error
            assert abs(found.value - true) < 4 * found.error
    assert resolution[0].value == pytest.approx(-2, abs=0.05)
    assert resolution[1].value == pytest.approx(0, abs=1e-3)
