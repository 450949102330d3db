"""Intervals and equivalence against SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.core.errors import InputError
from unlearnkit.stats.intervals import (
    clopper_pearson,
    mean_interval,
    t_interval,
    tost,
    two_sample_t,
    welch_interval,
)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 20), (7, 20), (20, 20), (3, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_clopper_pearson_is_the_exact_binomial_interval(k, n, level):
    want = stats.binomtest(k, n).proportion_ci(level, method="exact")
    assert clopper_pearson(k, n, level) == pytest.approx((want.low, want.high), rel=1e-9)


@pytest.mark.parametrize("level", [0.9, 0.95, 0.998])
def test_welchs_interval_is_scipys(level):
    rng = torch.Generator().manual_seed(1)
    a = torch.randn(17, generator=rng, dtype=torch.float64)
    b = 3 * torch.randn(40, generator=rng, dtype=torch.float64) + 1
    want = stats.ttest_ind(a.numpy(), b.numpy(), equal_var=False).confidence_interval(level)
    assert welch_interval(a, b, level) == pytest.approx(tuple(want), rel=1e-9)


def test_welchs_interval_of_constant_rows_is_their_difference():
    assert welch_interval(torch.ones(3), torch.zeros(4)) == (1.0, 1.0)


def test_clopper_pearson_of_no_trial_is_everything():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_clopper_pearson_refuses_impossible_counts(k, n):
    with pytest.raises(InputError, match="k must be between 0"):
        clopper_pearson(k, n)


def test_mean_interval_is_that_of_a_one_sample_t_test():
    rows = np.random.default_rng(0).gamma(2.0, size=30)
    want = stats.ttest_1samp(rows, 0.0).confidence_interval(0.95)
    assert mean_interval(torch.tensor(rows)) == pytest.approx((want.low, want.high), rel=1e-9)


@pytest.mark.parametrize("count", [2, 3, 126])
@pytest.mark.parametrize("shift", [0.0, 1e6])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_of_few_is_that_of_rows(count, shift, level):
    values = (shift + np.random.default_rng(count).gamma(2.0, size=count)).tolist()
    got = t_interval(values, level)
    want = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert got == pytest.approx((want.low, want.high), rel=1e-9)
    rows = torch.tensor(values, dtype=torch.float64)
    assert got == pytest.approx(mean_interval(rows, level), rel=1e-12)


@pytest.mark.parametrize("values", [[], [1.0]])
def test_the_interval_of_fewer_than_two_has_no_limits(values):
    assert t_interval(values) == (-math.inf, math.inf)


@pytest.mark.parametrize("rows", [[], [1.0], [1.0, math.inf], [math.nan, 0.0]])
def test_mean_interval_without_a_spread_has_no_limits(rows):
    assert mean_interval(torch.tensor(rows)) == (-math.inf, math.inf)


@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (3, 9), (2, 1)])
def test_two_sample_t_is_students(n_a, n_b):
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 1, n_a), rng.normal(0, 1, n_b)
    got = two_sample_t(a.tolist(), b.tolist())
    if min(n_a, n_b) > 1:
        want = stats.ttest_ind(a, b).confidence_interval(0.95)
        assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-9)
    assert got.value == pytest.approx(a.mean() - b.mean())
    assert got.freedom == n_a + n_b - 2


def test_one_value_against_many_has_a_prediction_interval():
    b = [0.1, 0.3, 0.2, 0.5]
    got = two_sample_t([1.0], b)
    reach = stats.t.ppf(0.975, 3) * np.std(b, ddof=1) * math.sqrt(1 + 1 / 4)
    assert (got.low, got.high) == pytest.approx((0.725 - reach, 0.725 + reach), rel=1e-9)


@pytest.mark.parametrize(("n", "half"), [(3, 2.27), (5, 1.46), (10, 0.94), (20, 0.64), (30, 0.52)])
def test_the_half_width_in_deviations_is_the_known_one(n, half):
    values = stats.zscore(np.arange(n), ddof=1).tolist()
    got = two_sample_t(values, values)
    assert got.high == pytest.approx(half, abs=0.005)


def test_two_values_show_no_spread():
    got = two_sample_t([1.0], [0.0])
    assert (got.value, got.low, got.high) == (1.0, -math.inf, math.inf)
    assert not tost([0.0], [0.0], margin=1.0).holds


@pytest.mark.parametrize("b", [[], [math.nan, 1.0]])
def test_two_sample_t_refuses_what_is_undefined(b):
    with pytest.raises(InputError, match="finite values are needed"):
        two_sample_t([1.0, 2.0], b)


@pytest.mark.parametrize("margin", [0.3, 0.8, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_tost_is_two_one_sided_t_tests(margin, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, 0.5, 6), rng.normal(0.2, 0.5, 8)
    above = stats.ttest_ind(a + margin, b, alternative="greater").pvalue
    below = stats.ttest_ind(a - margin, b, alternative="less").pvalue
    got = tost(a.tolist(), b.tolist(), margin)
    assert got.p == pytest.approx(max(above, below), rel=1e-9)
    inside = got.difference.low > -margin and got.difference.high < margin
    assert got.holds == inside == (got.p < 0.05)


def test_tost_of_constant_values_compares_them():
    assert tost([1.0, 1.0], [1.0, 1.0], margin=0.1).holds
    assert not tost([1.0, 1.0], [2.0, 2.0], margin=0.1).holds


def test_tost_refuses_a_margin_of_nothing():
    with pytest.raises(InputError, match="margin must be above 0"):
        tost([0.0, 1.0], [0.0, 1.0], margin=0.0)
