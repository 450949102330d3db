"""Corrections for many tests against SciPy and counting."""

import math

import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.stats.multiple_testing import benjamini_hochberg, max_statistic


@pytest.mark.parametrize("count", [1, 2, 50])
def test_adjusted_p_values_are_the_least_rate_that_finds_each_test(count):
    p = torch.rand(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    ranked = sorted(p.tolist())
    want = [min(count * q / (k + 1) for k, q in enumerate(ranked) if q >= x) for x in p.tolist()]
    torch.testing.assert_close(benjamini_hochberg(p), torch.tensor(want, dtype=torch.float64))


def test_ties_and_no_tests_at_all():
    assert benjamini_hochberg(torch.tensor([0.25, 0.25])).tolist() == [0.25, 0.25]
    assert benjamini_hochberg(torch.tensor([])).shape == (0,)


def test_an_undefined_test_counts_as_none():
    got = benjamini_hochberg(torch.tensor([0.01, math.nan, 0.02]))
    assert math.isnan(got[1])
    torch.testing.assert_close(got[[0, 2]], torch.tensor([0.02, 0.02], dtype=torch.float64))


@pytest.mark.parametrize("p", [[-0.1], [0.5, 1.1]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(InputError, match="must be in"):
        benjamini_hochberg(torch.tensor(p))


def test_adjusted_for_the_largest_is_a_count():
    observed, maxima = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 2.5, 0.5])
    want = torch.tensor([1 / 5, 4 / 5, 3 / 5], dtype=torch.float64)
    torch.testing.assert_close(max_statistic(observed, maxima), want)


def test_with_all_relabellings_the_given_one_is_among_them():
    observed, maxima = torch.tensor([3.0, 1.0]), torch.tensor([3.0, 1.0, 0.5, 0.2])
    want = torch.tensor([1 / 4, 2 / 4], dtype=torch.float64)
    torch.testing.assert_close(max_statistic(observed, maxima, complete=True), want)


def test_rounding_does_not_tell_equal_statistics_apart():
    observed = torch.tensor([0.3], dtype=torch.float64)
    maxima = torch.tensor([0.1 + 0.2, 0.3 - 1e-16], dtype=torch.float64)
    assert float(max_statistic(observed, maxima, complete=True)) == 1.0
