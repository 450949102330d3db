"""Bounds on epsilon against binomial laws, numerical integration and published values."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from unlearnkit.core.errors import InputError
from unlearnkit.stats.epsilon_bounds import (
    epsilon_lower_bound,
    epsilon_table,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_lower_bound,
    leak_p_values,
    one_run_epsilon,
    upper_limits,
)


@pytest.mark.parametrize(
    ("n", "largest"), [(64, 2.82), (128, 3.53), (256, 4.23), (512, 4.93), (1024, 5.62)]
)
def test_without_any_error_the_bound_is_the_known_ceiling(n, largest):
    assert epsilon_lower_bound(0, n, 0, n) == pytest.approx(largest, abs=0.005)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (9, 10), (10, 10), (200, 1000)])
def test_an_upper_limit_leaves_half_of_alpha_below_the_count(k, n):
    limit = float(upper_limits(n, 0.9)[k])
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


@pytest.mark.parametrize("counts", [(0, 0, 0, 64), (0, 64, 0, 0), (0, 0, 0, 0)])
def test_no_trials_prove_nothing(counts):
    assert epsilon_lower_bound(*counts) == 0.0
    assert gaussian_lower_bound(*counts).mu == 0.0


def test_a_table_holds_the_bound_of_every_count():
    table = epsilon_table(4, 3, delta=0.01, level=0.9)
    want = [
        [epsilon_lower_bound(fp, 4, fn, 3, delta=0.01, level=0.9) for fn in range(4)]
        for fp in range(5)
    ]
    torch.testing.assert_close(table.clamp(min=0), torch.tensor(want, dtype=torch.float64))


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


@pytest.mark.parametrize(("mu", "epsilon"), [(0.5, 0.0), (1.0, 1.0), (3.0, 2.0)])
def test_delta_of_a_gaussian_trade_off_is_an_integral(mu, epsilon):
    def excess(x):
        return max(0, stats.norm.pdf(x, mu) - math.exp(epsilon) * stats.norm.pdf(x))

    want, error = integrate.quad(excess, epsilon / mu + mu / 2, 40, epsabs=1e-13)
    assert gaussian_delta(mu, epsilon) == pytest.approx(want, abs=error + 1e-12)


@pytest.mark.parametrize("mu", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-8, 1e-3])
def test_epsilon_of_a_gaussian_trade_off_inverts_delta(mu, delta):
    assert gaussian_delta(mu, gaussian_epsilon(mu, delta)) == pytest.approx(delta, rel=1e-6)


def test_epsilon_of_a_gaussian_trade_off_at_its_limits():
    assert gaussian_epsilon(0.0, 0.0) == 0.0
    assert gaussian_epsilon(1.0, 0.0) == math.inf
    assert gaussian_epsilon(0.1, 0.5) == 0.0


def test_the_gaussian_bound_is_larger_and_says_that_it_assumes_more():
    got = gaussian_lower_bound(10, 200, 12, 200, delta=1e-5)
    a = stats.binomtest(10, 200).proportion_ci(0.95).high
    b = stats.binomtest(12, 200).proportion_ci(0.95).high
    assert got.mu == pytest.approx(stats.norm.isf(a) - stats.norm.ppf(b), rel=1e-9)
    assert got.epsilon > epsilon_lower_bound(10, 200, 12, 200, delta=1e-5)
    assert got.note.startswith("model-based")


@pytest.mark.parametrize(("r", "want"), [(100, 3.49), (200, 4.19), (1000, 5.81)])
def test_all_guesses_right_give_the_known_ceiling(r, want):
    assert one_run_epsilon(r, r) == pytest.approx(want, abs=0.005)


def p_of(epsilon, v, r, m, delta):
    """The bound of theorem 5.2, by SciPy's binomial law and a loop."""
    law = stats.binom(r, 1 / (1 + math.exp(-epsilon)))
    inner = max((law.cdf(v - 1) - law.cdf(v - i - 1)) / i for i in range(1, v + 1))
    return law.sf(v - 1) + 2 * m * delta * inner


@pytest.mark.parametrize(("v", "r"), [(60, 60), (45, 60), (700, 1000)])
def test_the_closed_form_is_where_the_binomial_tail_is_alpha(v, r):
    assert p_of(one_run_epsilon(v, r), v, r, r, 0.0) == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize(("v", "r", "m"), [(60, 60, 200), (50, 60, 60), (700, 1000, 5000)])
def test_with_delta_the_bound_is_where_the_theorem_gives_alpha(v, r, m):
    got = one_run_epsilon(v, r, candidates=m, delta=1e-5)
    assert 0 < got < one_run_epsilon(v, r)
    assert p_of(got, v, r, m, 1e-5) == pytest.approx(0.05, rel=1e-6)


def test_much_delta_explains_everything():
    assert one_run_epsilon(60, 60, candidates=1000, delta=0.1) == 0.0


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_one_run_bounds_cover_the_true_epsilon(epsilon):
    r = 80
    chance = stats.binom.pmf(np.arange(r + 1), r, 1 / (1 + math.exp(-epsilon)))
    above = np.array([one_run_epsilon(v, r) > epsilon for v in range(r + 1)])
    assert chance[above].sum() <= 0.05


@pytest.mark.parametrize(("v", "r"), [(0, 0), (0, 10), (5, 10)])
def test_no_more_right_than_wrong_proves_nothing(v, r):
    assert one_run_epsilon(v, r) == 0.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"correct": 5, "guesses": 4}, "correct must be between 0 and guesses"),
        ({"correct": 4, "guesses": 4, "candidates": 3}, "candidates must be at least"),
        ({"correct": 4, "guesses": 4, "delta": 0.1}, "needs candidates"),
        ({"correct": 4, "guesses": 4, "delta": 1.0}, "delta must be in"),
        ({"correct": 4, "guesses": 4, "level": 1.0}, "level must be between"),
    ],
)
def test_one_run_refuses_impossible_counts(arguments, words):
    with pytest.raises(InputError, match=words):
        one_run_epsilon(**arguments)


def test_impossible_counts_of_errors_are_refused():
    with pytest.raises(InputError, match="k must be between 0"):
        epsilon_lower_bound(5, 4, 0, 4)
