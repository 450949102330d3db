"""What tests detect, against SciPy's laws, simulation and counting."""

import math

import numpy as np
import pytest
from scipy import stats

from unlearnkit.stats.epsilon_bounds import epsilon_lower_bound, one_run_epsilon
from unlearnkit.stats.power import (
    epsilon_power,
    smallest,
    smallest_auc_shift,
    smallest_exposure,
    smallest_one_run_epsilon,
    smallest_shift,
    t_test_power,
)


@pytest.mark.parametrize(("n_a", "n_b"), [(5, 5), (3, 9), (64, 64)])
@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_the_power_of_a_t_test_is_that_of_the_non_central_law(n_a, n_b, shift):
    law = stats.nct(n_a + n_b - 2, shift / math.sqrt(1 / n_a + 1 / n_b))
    edge = stats.t.ppf(0.975, n_a + n_b - 2)
    # SciPy's distribution function is nan where it underflows.
    want = law.sf(edge) + np.nan_to_num(law.cdf(-edge))
    assert t_test_power(shift, n_a, n_b) == pytest.approx(want, abs=1e-8)


@pytest.mark.parametrize(("n_a", "n_b"), [(3, 3), (5, 5), (1, 20), (100, 100)])
def test_the_smallest_shift_is_found_four_times_in_five(n_a, n_b):
    assert t_test_power(smallest_shift(n_a, n_b), n_a, n_b) == pytest.approx(0.8, abs=1e-6)


def test_a_known_sample_size():
    # Cohen (1988), table 2.4.1: 26 a side for a shift of 0.8, 64 for one of 0.5.
    assert smallest_shift(26, 26) == pytest.approx(0.8, abs=0.01)
    assert smallest_shift(64, 64) == pytest.approx(0.5, abs=0.005)


def test_two_models_see_nothing():
    assert math.isnan(smallest_shift(1, 1))


def test_the_smallest_auc_is_seen_four_times_in_five():
    shift = smallest_auc_shift(100, 150)
    gap = math.sqrt(2) * stats.norm.ppf(0.5 + shift)
    rng = np.random.default_rng(0)
    p = stats.mannwhitneyu(
        rng.normal(gap, 1, (1500, 100)), rng.normal(0, 1, (1500, 150)), axis=1
    ).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("m", "n"), [(0, 9), (2, 2)])
def test_few_rows_see_no_auc(m, n):
    assert math.isnan(smallest_auc_shift(m, n))


@pytest.mark.parametrize("level", [0.95, 1 - 0.05 / 90])
def test_the_power_of_a_bound_is_a_sum_over_counts(level):
    n0, n1, shift = 20, 24, 1.7
    error = stats.norm.cdf(-shift / 2)
    want = sum(
        stats.binom.pmf(a, n0, error) * stats.binom.pmf(b, n1, error)
        for a in range(n0 + 1)
        for b in range(n1 + 1)
        if epsilon_lower_bound(a, n0, b, n1, level=level) > 0
    )
    assert epsilon_power(shift, n0, n1, level=level) == pytest.approx(want, rel=1e-9)


def test_the_smallest_exposure_is_found_four_times_in_five():
    shift = smallest_exposure(64, 64, level=1 - 0.05 / 90)
    assert epsilon_power(shift, 64, 64, level=1 - 0.05 / 90) == pytest.approx(0.8, abs=1e-6)
    assert shift > smallest_exposure(64, 64)


def test_without_errors_two_models_still_prove_no_exposure():
    assert math.isnan(smallest_exposure(2, 2))


@pytest.mark.parametrize("guesses", [5, 100, 1000])
def test_the_smallest_epsilon_of_one_run_is_seen_four_times_in_five(guesses):
    found = smallest_one_run_epsilon(guesses)
    chance = stats.binom.pmf(np.arange(guesses + 1), guesses, 1 / (1 + math.exp(-found)))
    proven = np.array([one_run_epsilon(v, guesses) > 0 for v in range(guesses + 1)])
    assert chance[proven].sum() == pytest.approx(0.8, abs=1e-6)


def test_four_guesses_prove_nothing():
    assert math.isnan(smallest_one_run_epsilon(4))


def test_what_is_never_found_is_nan():
    assert math.isnan(smallest(lambda _: 0.5, 10.0))
    assert smallest(lambda d: min(d, 1.0), 10.0) == pytest.approx(0.8)
