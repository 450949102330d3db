"""Bounds on epsilon against binomial laws, numerical integration and published values."""

import math

import pytest
import torch
from scipy import stats

from unlearnkit.stats.epsilon_bounds import _upper_limits, epsilon_table, leak_p_values


def epsilon_lower_bound(fp, n0, fn, n1, *, delta=0.0, level=0.95):
    return float(epsilon_table(n0, n1, delta=delta, level=level)[fp, fn].clamp(min=0))


@pytest.mark.parametrize(
    ("n", "largest"), [(64, 2.82), (128, 3.53), (256, 4.23), (512, 4.93), (1024, 5.62)]
)
def test_without_any_error_the_bound_is_the_known_ceiling(n, largest):
    assert epsilon_lower_bound(0, n, 0, n) == pytest.approx(largest, abs=0.005)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (9, 10), (10, 10), (200, 1000)])
def test_an_upper_limit_leaves_half_of_alpha_below_the_count(k, n):
    limit = float(_upper_limits(n, 0.9)[k])
    assert stats.binom.cdf(k, n, limit) == pytest.approx(1 if k == n else 0.05, rel=1e-9)


@pytest.mark.parametrize("counts", [(0, 30, 2, 40), (5, 30, 0, 40), (3, 50, 20, 50)])
@pytest.mark.parametrize("delta", [0.0, 1e-3])
def test_the_bound_is_the_better_ratio_of_binomial_limits(counts, delta):
    fp, n0, fn, n1 = counts
    a = stats.binomtest(fp, n0).proportion_ci(0.95).high
    b = stats.binomtest(fn, n1).proportion_ci(0.95).high
    want = max(0, math.log((1 - delta - a) / b), math.log((1 - delta - b) / a))
    assert epsilon_lower_bound(fp, n0, fn, n1, delta=delta) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("counts", [(32, 64, 32, 64), (64, 64, 0, 64), (64, 64, 64, 64)])
def test_guessing_proves_nothing(counts):
    assert epsilon_lower_bound(*counts) == 0.0


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_the_p_value_keeps_its_level_whatever_the_threshold(share, alpha):
    # Under epsilon 0 a rule alarms equally often on both sides: all pairs of counts, enumerated.
    n0, n1 = 40, 30
    fp, fn = torch.cartesian_prod(torch.arange(n0 + 1), torch.arange(n1 + 1)).T
    p = leak_p_values(fp, n0, fn, n1)
    chance = stats.binom.pmf(fp, n0, share) * stats.binom.pmf(fn, n1, 1 - share)
    assert chance[(p <= alpha).numpy()].sum() <= alpha


@pytest.mark.parametrize("counts", [(2, 20, 3, 25), (7, 20, 6, 25), (0, 20, 0, 25)])
def test_the_bound_leaves_0_at_the_p_value(counts):
    fp, n0, fn, n1 = counts
    p = float(leak_p_values(torch.tensor([fp]), n0, torch.tensor([fn]), n1))
    assert epsilon_lower_bound(fp, n0, fn, n1, level=1 - 1.001 * p) > 0
    assert epsilon_lower_bound(fp, n0, fn, n1, level=1 - 0.999 * p) == 0


def test_the_p_value_without_errors_has_a_closed_form():
    p = leak_p_values(torch.tensor([0, 64]), 64, torch.tensor([0, 64]), 64)
    torch.testing.assert_close(p, torch.tensor([2.0**-63, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("counts", [(0, 0, 0, 64), (0, 64, 0, 0), (0, 0, 0, 0)])
def test_no_trials_prove_nothing(counts):
    assert epsilon_lower_bound(*counts) == 0.0
