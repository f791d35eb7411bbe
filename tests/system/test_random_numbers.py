from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from calograd.errors import InputError
from calograd.system.random_numbers import RandomNumbers


def test_shower_i_depends_on_seed_and_i_alone() -> None:
    many, few = RandomNumbers(3, range(1000)), RandomNumbers(3, range(10))
    for _ in range(2):
        assert (many.normal_array(5, 3)[:10] == few.normal_array(5, 3)).all()
        assert (many.uniform_array(4)[:10] == few.uniform_array(4)).all()
    part = many.rows(slice(500, 510))
    assert (part.normal_array(7) == many.normal_array(7)[500:510]).all()
    assert not (many.normal_array(7) == many.normal_array(7)).any()


def test_numbers_of_points_do_not_depend_on_other_points() -> None:
    owner, index, like = torch.tensor([0, 0, 2, 2, 2]), torch.tensor([0, 1, 0, 1, 5]), torch.zeros(())
    whole = RandomNumbers(1, range(3)).normal_points(owner, index, 4, like=like)
    some = RandomNumbers(1, range(3)).normal_points(owner[3:], index[3:], 4, like=like)
    assert (whole[3:] == some).all()
    assert len(whole.unique()) == whole.numel()


@pytest.mark.parametrize("axis", [0, 1])
def test_numbers_are_normal_and_independent(axis: int) -> None:
    x = RandomNumbers(11, range(2000)).normal_array(400)
    assert kstest(x.ravel(), "norm").pvalue > 0.001
    sums = x.sum(axis) / np.sqrt(x.shape[axis])
    assert kstest(sums, "norm").pvalue > 0.001
    correlation = np.corrcoef(x[:, :60].T if axis else x[:60])
    pulls = correlation[np.triu_indices(60, 1)] * np.sqrt(2000 if axis else 400)
    assert 0.9 < pulls.std() < 1.1
    assert abs(pulls).max() < 5


def test_uniform_numbers_are_uniform_and_inside() -> None:
    u = RandomNumbers(-5, range(5000)).uniform_array(40)
    assert kstest(u.ravel(), "uniform").pvalue > 0.001
    assert 0 < u.min() < u.max() < 1


def test_fractions_are_uniform_and_inside() -> None:
    u = RandomNumbers(5, range(5000)).fractions(41, like=torch.empty(0))
    assert kstest(u.flatten().numpy(), "uniform").pvalue > 0.001
    assert 0 < float(u.min()) < float(u.max()) < 1
    some = RandomNumbers(5, range(100, 103)).fractions(41, like=torch.empty(0, dtype=torch.float64))
    assert torch.equal(some, u[100:103].double())


def test_whole_numbers_are_equally_frequent() -> None:
    counts = torch.bincount(RandomNumbers(5, range(5000)).integers(8, 16).flatten(), minlength=8)
    assert len(counts) == 8
    assert chisquare(counts.numpy()).pvalue > 0.001
    assert torch.equal(RandomNumbers(5, range(7, 9)).integers(8), RandomNumbers(5, range(9)).integers(8)[7:])


def test_seeds_that_follow_each_other_share_nothing() -> None:
    drawn = [RandomNumbers(seed, range(100)).uniform_array(10) for seed in range(20)]
    assert len(np.unique(drawn)) == 20 * 1000


def test_a_generator_gives_a_new_seed_at_every_use() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (RandomNumbers.from_generator(generator, 4) for _ in range(2))
    again = RandomNumbers.from_generator(torch.Generator().manual_seed(0), 400)
    assert first.seed == again.seed != second.seed
    with pytest.raises(InputError, match=r"generator = 0: expected a torch\.Generator or None"):
        RandomNumbers.from_generator(0, 4)  # type: ignore[arg-type]
