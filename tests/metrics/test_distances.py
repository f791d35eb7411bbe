import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance

from calograd.metrics import distances as d


def normal(n, k=1, seed=0, loc=0.0, scale=1.0):
    return np.random.default_rng(seed).normal(loc, scale, (n, k))


def test_bias_and_its_error():
    a, b = normal(4000, loc=101, seed=1), normal(1000, loc=100, seed=2)
    bias = d.biases(a, b)
    assert bias.error[0] == pytest.approx(np.hypot(1 / 4000**0.5, 1 / 1000**0.5) / 100, rel=0.1)
    assert abs(bias.value[0] - 0.01) < 4 * bias.error[0]


def test_bias_errors_are_calibrated():
    pulls = []
    for seed in range(300):
        bias = d.biases(normal(100, loc=10, seed=2 * seed), normal(60, loc=10, seed=2 * seed + 1))
        pulls.append(bias.value[0] / bias.error[0])
    assert np.std(pulls) == pytest.approx(1, abs=0.13)


def test_centred_quantities_are_in_units_of_the_deviation():
    a, b = normal(1000, loc=0.5, seed=1, scale=2), normal(1000, seed=2, scale=2)
    assert d.biases(a, b, np.array([True])).value[0] == pytest.approx(0.25, abs=0.1)


def test_spread_ratios_of_gaussians():
    a, b = normal(3000, scale=1.5, seed=1), normal(3000, seed=2)
    for ratio in d.spread_ratios(a, b, np.random.default_rng(0)):
        assert ratio.low[0] < 1.5 < ratio.high[0]
        assert ratio.high[0] - ratio.low[0] == pytest.approx(3.92 * ratio.error[0], rel=0.25)
    sigma, _ = d.spread_ratios(a, b, np.random.default_rng(0))
    assert sigma.error[0] == pytest.approx(1.5 * np.sqrt(1 / 6000 + 1 / 6000), rel=0.25)


def test_the_68_percent_width_does_not_see_a_rare_tail():
    b = normal(2000, seed=1)
    a = b.copy()
    a[:4] += 60
    sigma, width = d.spread_ratios(a, b, np.random.default_rng(0))
    assert sigma.value[0] > 2
    assert width.value[0] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("n_a", [500, 800])
def test_wasserstein_of_a_shift_and_against_scipy(n_a):
    b = normal(500, k=2, seed=3)
    assert d.wasserstein(b + 0.3 * b.std(0, ddof=1), b) == pytest.approx([0.3, 0.3])
    a = normal(n_a, k=2, seed=4)
    expected = [wasserstein_distance(a[:, k], b[:, k]) / b[:, k].std(ddof=1) for k in range(2)]
    assert d.wasserstein(a, b) == pytest.approx(expected)


def test_wasserstein_of_scaled_gaussians():
    # quantiles of N(0, s^2) are s z(u): W1 = |s - 1| E|z| = |s - 1| sqrt(2/pi)
    u = (np.arange(4000) + 0.5) / 4000
    b = norm.ppf(u)[:, None]
    assert d.wasserstein(1.4 * b, b)[0] == pytest.approx(0.4 * np.sqrt(2 / np.pi), rel=0.01)


def test_sliced_wasserstein_of_a_shift():
    # projected on a unit vector v the shift is s v_1, and E|v_1| = 1/2 in three dimensions
    b = normal(300, k=3, seed=3) * [1, 10, 100]
    a = b + np.array([0.6 * b[:, 0].std(ddof=1), 0, 0])
    found = d.sliced_wasserstein(a, b, np.random.default_rng(0), directions=4000)
    assert found == pytest.approx(0.6 / 2, rel=0.03)


def test_sliced_wasserstein_sees_correlations_and_leaves_constants_out():
    rng, b = np.random.default_rng(1), normal(4000, k=2, seed=3)
    a = np.stack([b[:, 0], b[:, 0]], 1)
    assert d.wasserstein(a, normal(4000, k=2, seed=4)).max() < 0.06
    assert d.sliced_wasserstein(a, b, rng) > 0.15
    constant = np.hstack([b, np.ones((4000, 1))])
    assert d.sliced_wasserstein(constant + 1, constant, rng) == pytest.approx(
        d.sliced_wasserstein(b + 1, b, rng), rel=0.05
    )
    assert np.isnan(d.sliced_wasserstein(constant[:, 2:], constant[:, 2:], rng))


@pytest.mark.parametrize("n_a", [150, 600])
def test_the_floor_of_sliced_distances_is_what_equal_laws_give(n_a):
    rng, over = np.random.default_rng(5), []
    for _ in range(40):
        a, b = rng.normal(0, 1, (n_a, 4)), rng.normal(0, 1, (150, 4))
        null = d.null_sliced_wasserstein(b, n_a, rng, directions=50, splits=10)
        over.append([d.sliced_wasserstein(a, b, rng, directions=50), null.mean()])
    value, floor = np.mean(over, axis=0)
    assert floor == pytest.approx(value, rel=0.1)


@pytest.mark.parametrize(("law", "n_a"), [("normal", 150), ("normal", 1000), ("lognormal", 300)])
def test_the_floor_is_what_equal_laws_give(law, n_a):
    rng = np.random.default_rng(5)
    over = []
    for _ in range(120):
        a, b = (getattr(rng, law)(0, 1, (n, 1)) for n in (n_a, 150))
        null = d.null_distances(np.hstack([b, b]), n_a, 1, rng, splits=20)
        # in absolute units: the deviation of so few log-normal numbers scatters together with the distance
        over.append(b.std(ddof=1) * np.array([d.wasserstein(a, b)[0], null.w1[:, 0].mean()]))
    value, floor = np.mean(over, axis=0)
    assert value / floor == pytest.approx(1, abs=0.1)


def test_fpd_of_shifted_gaussians_and_its_floor():
    b = normal(4000, k=3, seed=6)
    scale = b.std(0, ddof=1)
    assert d.frechet(b + scale * [1.0, 0.0, 0.5], b) == pytest.approx(1.25)
    assert d.frechet(b.mean(0) + 2 * (b - b.mean(0)), b) == pytest.approx(3 * (2 - 1) ** 2)
    rng = np.random.default_rng(7)
    values, floors = [], []
    for _ in range(40):
        a, b = rng.normal(size=(300, 4)), rng.normal(size=(200, 4))
        values.append(d.frechet(a, b))
        floors.append(d.null_distances(b, 300, 2, rng, splits=10).fpd.mean())
    assert np.mean(values) / np.mean(floors) == pytest.approx(1, abs=0.15)


def test_rrmse_of_equal_laws_is_its_floor():
    a, b = normal(5000, loc=10, seed=8), normal(5000, loc=10, seed=9)
    value, floor = d.rrmse(a, b)
    assert floor[0] == pytest.approx(np.sqrt(2) / 10, rel=0.05)
    assert value[0] == pytest.approx(floor[0], rel=0.05)
    pairs = (a[:200] - b[:200].T) ** 2
    assert d.rrmse(a[:200], b[:200])[0][0] == pytest.approx(np.sqrt(pairs.mean()) / b[:200].mean())


def test_correlations_and_their_difference():
    rng = np.random.default_rng(10)
    cov = np.array([[1, 0.8, 0], [0.8, 1, 0], [0, 0, 1]])
    a, b = rng.normal(size=(2000, 3)), rng.multivariate_normal(np.zeros(3), cov, 2000)
    assert d.correlations(b) == pytest.approx(np.corrcoef(b.T))
    found = d.compare_correlations(a, b, rng)
    assert abs(found.largest - 0.8) < 4 * found.error
    # of uncorrelated Gaussians (1 - rho^2)^2 / n
    assert found.error == pytest.approx(np.sqrt((1 + 0.36**2) / 2000), rel=0.25)


def test_layers_that_never_fire_are_uncorrelated_and_constants_are_undefined():
    layers = np.column_stack([normal(50)[:, 0], np.zeros(50)])
    assert d.correlations(layers) == pytest.approx(np.array([[1, 0], [0, 0]]))
    rng = np.random.default_rng(0)
    assert np.isnan(d.wasserstein(layers, layers)[1])
    assert np.isnan(d.spread_ratios(layers, layers, rng)[0].value[1])
    assert np.isnan(d.biases(layers, layers).value[1])
    assert d.frechet(layers, layers) == pytest.approx(0, abs=1e-9)
    assert np.isfinite(d.null_distances(layers, 50, 2, rng, splits=4).fpd).all()


def test_results_depend_on_the_generator_alone():
    a, b = normal(60, k=3, seed=1), normal(50, k=3, seed=2)
    one, two = (d.null_distances(b, len(a), 2, np.random.default_rng(3), splits=5) for _ in range(2))
    assert np.array_equal(one.w1, two.w1)
    assert not np.array_equal(one.w1, d.null_distances(b, len(a), 2, np.random.default_rng(4), splits=5).w1)
