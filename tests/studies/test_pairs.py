"""Paired differences against SciPy and enumeration."""

import itertools

import numpy as np
import pytest
from scipy import stats

from unlearnkit.core.errors import InputError
from unlearnkit.stats.paired_test import least_p, paired, sign_flip

DRAWS = {
    "one": [0.3],
    "two": [0.1, -0.4],
    "all above": [0.3, 0.1, 0.2, 0.4, 0.2, 0.1],
    "mixed": [0.3, -0.1, 0.2, 0.4, -0.25, 0.1, 0.05],
    "ties": [1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0],
    "zeros": [0.0, 0.0, 0.0],
    "tenths": [0.1, 0.2, 0.3, -0.3, -0.2, 0.4],
}


def enumerated(values):
    """Every choice of signs in turn, in exact arithmetic."""
    whole = [round(v * 1000) for v in values]
    signs = itertools.product((1, -1), repeat=len(whole))
    sums = [abs(sum(s * v for s, v in zip(ss, whole, strict=True))) for ss in signs]
    return np.mean([s >= abs(sum(whole)) for s in sums])


@pytest.mark.parametrize("values", DRAWS.values(), ids=DRAWS)
def test_the_sign_flip_test_counts_every_choice_of_signs(values):
    assert sign_flip(values) == enumerated(values)


@pytest.mark.parametrize("seed", range(5))
def test_the_sign_flip_test_is_scipys(seed):
    d = np.random.default_rng(seed).normal(0.4, 1, 9)
    want = stats.permutation_test(
        (d,), lambda x: x.sum(), permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(d) == pytest.approx(want.pvalue, rel=1e-12)


def test_many_differences_are_still_tested_exactly():
    # All of one sign: only the seen choice and its mirror are as far out.
    assert sign_flip([0.1 * (k + 1) for k in range(30)]) == 2.0 / 2**30


@pytest.mark.parametrize(("count", "p"), [(1, 1.0), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p_is_that_of_differences_of_one_sign(count, p):
    assert least_p(count) == p
    assert sign_flip([1.0 + k for k in range(count)]) == p


def test_six_pairs_are_the_least_for_five_percent():
    assert least_p(5) > 0.05 > least_p(6)


@pytest.mark.parametrize("values", [[], [float("nan")], [float("inf"), 1.0], [1.0] * 31])
def test_what_cannot_be_tested_is_refused(values):
    with pytest.raises(InputError, match="sign_flip"):
        sign_flip(values)


def test_the_interval_of_a_mean_difference_is_the_one_sample_t_interval():
    d = np.random.default_rng(3).normal(0.4, 1, 7)
    got, want = paired(list(d)), stats.ttest_1samp(d, 0).confidence_interval(0.95)
    np.testing.assert_allclose([got.value, got.low, got.high], [d.mean(), want.low, want.high])


def test_more_differences_than_can_be_tested_exactly_keep_their_interval():
    got = paired([0.1, 0.2] * 16)
    assert got.p is None
    assert got.value == pytest.approx(0.15)
    assert got.low < 0.15 < got.high


def test_two_differences_have_no_interval():
    got = paired([1.0, 2.0])
    assert (got.value, got.low, got.high, got.p) == (1.5, None, None, 0.5)
