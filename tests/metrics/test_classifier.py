import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from calograd.metrics.classifier import (
    LabelledRows,
    cross_fitted_auc,
    fit_network,
    fit_trees,
    ordered_pairs,
)


def shifted(n, distance, k=3, seed=0):
    """Two Gaussians whose means are ``distance`` deviations apart: the best AUC is Phi(distance / sqrt 2)."""
    rng = np.random.default_rng(seed)
    generated = np.arange(2 * n) < n
    features = rng.normal(size=(2 * n, k)) + distance * np.outer(generated, np.eye(k)[0])
    return LabelledRows(features.astype(np.float32), generated, np.arange(2 * n))


def first_feature(features, labels, rng):
    return lambda rows: rows[:, 0]


def test_ordered_pairs_count_ties_one_half_and_weights():
    scores = np.array([0.0, 1, 1, 2])
    positive = np.array([False, True, False, True])
    right, pairs = ordered_pairs(scores, positive, np.ones((1, 4)))
    assert (right[0], pairs[0]) == (3.5, 4)
    rng = np.random.default_rng(0)
    scores, positive, weights = rng.integers(0, 9, 300), rng.random(300) < 0.4, rng.integers(0, 4, 300)
    right, pairs = ordered_pairs(scores, positive, weights[None].astype(float))
    assert right[0] / pairs[0] == pytest.approx(roc_auc_score(positive, scores, sample_weight=weights))


def test_auc_of_a_known_score_is_exact_within_its_interval():
    auc = cross_fitted_auc(shifted(2000, 1.0), first_feature, np.random.default_rng(0))
    best = norm.cdf(1 / np.sqrt(2))
    assert auc.low < best < auc.high
    assert auc.value == pytest.approx(best, abs=0.02)
    assert (auc.n_generated, auc.n_reference) == (2000, 2000)


@pytest.mark.parametrize("fit", [fit_trees, fit_network])
def test_classifiers_come_close_to_the_best_auc_and_find_nothing_where_nothing_is(fit):
    best = norm.cdf(1 / np.sqrt(2))
    assert best - 0.05 < cross_fitted_auc(shifted(1000, 1.0), fit, np.random.default_rng(1)).value < best + 0.03
    null = cross_fitted_auc(shifted(1000, 0.0, seed=3), fit, np.random.default_rng(2))
    assert null.low < 0.5 < null.high


def test_rows_of_one_shower_do_not_betray_it():
    # every shower twice, its features an identity: a classifier that saw one of the rows would know the other
    rows = shifted(300, 0.0, k=4)
    twice = LabelledRows(np.repeat(rows.features, 4, 0), np.repeat(rows.generated, 4), np.repeat(rows.group, 4))
    together = cross_fitted_auc(twice, fit_trees, np.random.default_rng(0)).value
    apart = LabelledRows(twice.features, twice.generated, np.arange(len(twice.group)))
    assert cross_fitted_auc(apart, fit_trees, np.random.default_rng(0)).value > 0.7
    assert together < 0.6


def test_classifiers_are_reproducible_and_leave_global_random_state_alone():
    import torch

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    rows = shifted(200, 0.5)
    one, two = (cross_fitted_auc(rows, fit_network, np.random.default_rng(7)) for _ in range(2))
    assert one == two
    assert torch.equal(before, torch.random.get_rng_state())


def test_equal_scores_are_no_measurement():
    auc = cross_fitted_auc(shifted(30, 1.0), fit_trees, np.random.default_rng(0))  # too few rows for a split
    assert (auc.value, auc.measured) == (0.5, False)
    assert str(auc) == "not measurable"
    assert auc.to_dict()["value"] is None
    auc = cross_fitted_auc(shifted(300, 1.0), fit_trees, np.random.default_rng(0))
    assert auc.measured
    assert auc.to_dict()["value"] == auc.value
