import math
import statistics

import numpy as np
import pytest
from scipy import stats

from unlearnkit.stats.oracle_gap import gap, outlying

ORACLE = [0.91, 0.93, 0.92, 0.95, 0.90]


def test_a_candidate_is_tested_as_a_sample_of_one_against_the_oracles():
    want = stats.ttest_ind([0.99], ORACLE, equal_var=True)
    assert outlying(0.99, ORACLE) == pytest.approx(want.pvalue, rel=1e-9)


def test_the_prediction_interval_just_excludes_zero_at_the_five_percent_level():
    s, k = statistics.stdev(ORACLE), len(ORACLE)
    edge = statistics.mean(ORACLE) + stats.t.ppf(0.975, k - 1) * s * math.sqrt(1 + 1 / k)
    assert gap(edge, ORACLE).low == pytest.approx(0.0, abs=1e-12)
    assert outlying(edge, ORACLE) == pytest.approx(0.05, rel=1e-9)


def test_the_tight_interval_is_that_of_two_one_sided_one_sample_tests():
    g = gap(0.94, ORACLE)
    low = stats.ttest_1samp(ORACLE, 0.94 - g.tight_low, alternative="less")
    high = stats.ttest_1samp(ORACLE, 0.94 - g.tight_high, alternative="greater")
    assert [low.pvalue, high.pvalue] == pytest.approx([0.05, 0.05], rel=1e-6)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_oracles_give_no_interval(count):
    assert gap(0.9, ORACLE[:count]) is None
    assert outlying(0.9, ORACLE[:count]) is None


def test_a_fraction_is_not_known_finer_than_one_row():
    g = gap(0.02, [0.0] * 5, least=0.01)
    assert g.deviation == 0.01
    assert g.low < 0 < g.high


@pytest.mark.parametrize("count", [3, 5, 10])
def test_distances_between_like_models_are_accused_at_the_nominal_rate(count):
    rng, draws, accused = np.random.default_rng(0), 4000, 0
    for _ in range(draws):
        a = rng.normal(size=count + 1)
        pair = 10 + a[:, None] + a[None, :]
        others = [np.delete(pair[k, :count], k).mean() for k in range(count)]
        accused += outlying(pair[count, :count].mean(), others, distance=True) < 0.05
    error = math.sqrt(0.05 * 0.95 / draws)
    assert accused / draws == pytest.approx(0.05, abs=3 * error)


def test_equal_oracles_make_any_difference_certain():
    assert outlying(0.5, [1.0] * 5) == 0.0
    assert outlying(1.0, [1.0] * 5) == 1.0
