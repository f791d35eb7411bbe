"""Quantities of stacks of plates: sums, resolutions and learnt weights against numpy and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from calograd import LayerEnergies, LearntResolution, MeanEnergy, StackObjective, VisibleResolution
from calograd.errors import InputError

LAYERS = 6
MEANS = torch.tensor([0.02, 0.08, 0.1, 0.06, 0.03, 0.01]).double()


def showers(energy: float = 10.0, n: int = 400, seed: int = 0, scale: Any = 1.0) -> LayerEnergies:
    """Showers whose last layers tell of what is lost; ``scale`` changes the first layer, for derivatives."""
    z = torch.randn(n, LAYERS + 1, generator=torch.Generator().manual_seed(seed)).double()
    active = energy * MEANS * (1 + energy**-0.5 * (0.3 * z[:, 1:] + 0.2 * torch.linspace(-1, 1, LAYERS) * z[:, :1]))
    factor = torch.cat([torch.as_tensor(scale).double().reshape(1), torch.ones(LAYERS - 1).double()])
    noise = 0.1 * torch.randn(n, LAYERS, generator=torch.Generator().manual_seed(seed + 1)).double() * energy * MEANS
    return LayerEnergies(active * factor + noise * factor.square(), 3 * active.flip(1))


def test_mean_energies() -> None:
    made = showers()
    active, absorber = made.active.numpy(), made.absorber.numpy()
    weights = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    cases = (
        (MeanEnergy(), active.sum(1)),
        (MeanEnergy(absorber=1.0), (active + absorber).sum(1)),
        (MeanEnergy(absorber=1.0, active=0.0, layers=(1, 3)), absorber[:, 1:4].sum(1)),
        (MeanEnergy(absorber=2.0, active=list(weights), layers=(5, 5)), 2 * absorber[:, 5] + 5 * active[:, 5]),
        (MeanEnergy(active=np.array(weights)), active @ weights),
    )  # fmt: skip
    for quantity, expected in cases:
        assert quantity([made], (10.0,)).tolist() == pytest.approx([expected.mean()])
        np.testing.assert_allclose(quantity.fixed([made], (10.0,)).sums(made), expected)


def test_resolutions_with_given_weights() -> None:
    made, weights = showers(), (1.0, 0.9, 1.1, 1.2, 1.3, 0.0)
    for quantity, sums in ((VisibleResolution(), made.active.numpy().sum(1)),
                           (VisibleResolution(weights), made.active.numpy() @ weights)):  # fmt: skip
        assert float(quantity([made], (10.0,))) == pytest.approx(sums.std(ddof=1) / sums.mean())


@pytest.mark.parametrize("penalty", [0.0, 1e-6, 0.1])
def test_learnt_weights_are_numpy_s_ridge_regression(penalty: float) -> None:
    """As least squares with further rows, which no normal equation enters."""
    energies = (4.0, 10.0, 50.0)
    made = [showers(energy, 200 + 100 * k, k) for k, energy in enumerate(energies)]
    rows = np.concatenate([each.active.numpy() / energy**0.5 for each, energy in zip(made, energies, strict=True)])
    truth = np.concatenate([np.full(len(each), energy**0.5) for each, energy in zip(made, energies, strict=True)])
    n, scale = len(rows), np.square(rows).sum() / len(rows) / LAYERS
    more = np.sqrt(n * penalty * scale) * np.eye(LAYERS)
    expected = np.linalg.lstsq(np.concatenate([rows, more]), np.concatenate([truth, np.zeros(LAYERS)]), rcond=None)[0]
    weights, determined = LearntResolution(penalty).learn(made, energies)
    np.testing.assert_allclose(weights, expected, rtol=1e-7)
    hat = rows @ np.linalg.solve(rows.T @ rows + more.T @ more, rows.T)
    assert float(determined) == pytest.approx(np.trace(hat))
    values = LearntResolution(penalty)(made, energies)
    for value, each in zip(values.tolist(), made, strict=True):
        sums = each.active.numpy() @ expected
        assert value == pytest.approx(sums.std(ddof=1) / sums.mean() / np.sqrt(1 - np.trace(hat) / n))


def test_no_weights_are_better_than_those_learnt_at_one_energy() -> None:
    made = showers()
    best = LearntResolution(0.0).fixed([made], (10.0,))
    rng, least = np.random.default_rng(0), float(best([made], (10.0,)))
    for size in (1e-3, 0.1):
        for _ in range(20):
            others = VisibleResolution(np.array(best.weights) * (1 + size * rng.standard_normal(LAYERS)))
            assert float(others([made], (10.0,))) > least
    assert least < 0.9 * float(VisibleResolution()([made], (10.0,)))


def test_the_resolution_of_learnt_weights_is_that_of_the_best_weights() -> None:
    """Of 60 showers and 20 layers: 1 / sqrt(m C^-1 m) is met, although weights are learnt from the same showers."""
    rng = np.random.default_rng(1)
    mean, mix = rng.uniform(1, 2, 20), 0.3 * rng.standard_normal((20, 20))
    best = 1 / np.sqrt(mean @ np.linalg.solve(mix @ mix.T, mean))
    found = []
    for _ in range(400):
        active = torch.from_numpy(mean + rng.standard_normal((60, 20)) @ mix.T)
        found.append(float(LearntResolution(0.0)([LayerEnergies(active, active)], (10.0,))))
    error = np.std(found) / len(found) ** 0.5
    assert error < 0.02 * best
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(best, abs=4 * error)


def slope(quantity: Any, energies: tuple[float, ...]) -> float:
    scale = torch.tensor(1.1, requires_grad=True)
    quantity([showers(e, 300, k, scale) for k, e in enumerate(energies)], energies)[0].backward()
    assert scale.grad is not None
    return float(scale.grad)


def test_weights_may_be_held_fixed_where_they_are_the_best() -> None:
    """The envelope theorem: at one energy without a penalty, and not with several energies."""
    for energies, equal in (((10.0,), True), ((4.0, 50.0), False)):
        learnt = LearntResolution(0.0)
        fixed = learnt.fixed([showers(e, 300, k, 1.1) for k, e in enumerate(energies)], energies)
        share = (1 - LAYERS / (300 * len(energies))) ** 0.5
        refitted, held = slope(learnt, energies), slope(fixed, energies) / share
        assert (refitted == pytest.approx(held, rel=1e-4)) == equal
        ends = [
            learnt([showers(e, 300, k, 1.1 + h) for k, e in enumerate(energies)], energies)[0] for h in (-1e-3, 1e-3)
        ]
        assert refitted == pytest.approx(float(ends[1] - ends[0]) / 2e-3, rel=1e-3)


def test_refusals() -> None:
    made = showers(n=5)
    cases: tuple[tuple[Any, str], ...] = (
        (lambda: MeanEnergy(layers=(3, 1)), r"layers = \(3, 1\), expected the first and the last"),
        (lambda: MeanEnergy(layers=(3, 6))([made], (10.0,)), "layers up to 6, but the last of 6 layers is 5"),
        (lambda: MeanEnergy(active=0.0), "all weights are zero"),
        (lambda: MeanEnergy(active="all"), "active = 'all': expected a number"),
        (lambda: VisibleResolution((1.0, np.nan)), "expected one finite number, or one a layer"),
        (lambda: VisibleResolution((1.0, 2.0))([made], (10.0,)), "2 weights for 6 layers"),
        (lambda: VisibleResolution()([showers(n=1)], (10.0,)), "resolution of 1 shower"),
        (lambda: LearntResolution(-1.0), "penalty = -1.0, expected zero or more"),
        (lambda: LearntResolution()([made], (10.0,)), "5 showers for the weights of 6 layers; expected more"),
        (lambda: StackObjective(()), "no quantity; expected one or more"),
        (lambda: StackObjective(energies=(0.0,)), r"energies = \[0.0\] GeV"),
    )  # fmt: skip
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()
