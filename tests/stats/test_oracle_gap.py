"""One rule says what a gap to the oracles is, for reports, strong audits and study tables."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearnkit.auditing.metric_table import rule_of as rule_of_metric
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate, make_row
from unlearnkit.catalog import metrics
from unlearnkit.stats.oracle_gap import ComparisonRule, Judgement, compare
from unlearnkit.studies.columns import metric_columns
from unlearnkit.studies.table.compare_with_oracles import gap_fields
from unlearnkit.studies.table.compare_with_oracles import rule_of as rule_of_column

ORACLE = [0.91, 0.93, 0.92, 0.95, 0.90]
EQUAL = ComparisonRule("match retraining", "fraction", None)
DISTANCE = ComparisonRule("low", "nats", None, distance=True)
numbers = st.floats(-10, 10).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=3, max_size=8)
rows_behind = st.integers(0, 50)


@pytest.mark.parametrize("metric", sorted(metrics()))
def test_reports_and_study_tables_judge_a_metric_by_the_same_rule(metric):
    assert rule_of_metric(metrics()[metric]) == rule_of_column(metric_columns()[metric])


@given(values=samples, oracles=samples, n=rows_behind, metric=st.sampled_from(sorted(metrics())))
def test_a_study_table_says_what_the_rule_says(values, oracles, n, metric):
    cell = gap_fields(metric_columns()[metric], values, oracles, examples=n)
    rule = rule_of_metric(metrics()[metric])
    found = compare(values, oracles, rule, examples=n)
    assert (cell["judgement"], cell["margin"]) == (found.judgement, found.margin)


@given(
    values=samples,
    oracles=samples,
    n=rows_behind,
    metric=st.sampled_from(["rmia_auc", "lira_auc_retained", "ensemble_accuracy_forget"]),
)
def test_a_strong_audit_and_a_study_table_agree_on_the_same_models(values, oracles, n, metric):
    ours, theirs = (
        EnsembleEstimate.mean(torch.tensor(v, dtype=torch.float64)) for v in (values, oracles)
    )
    row = make_row(metric, ours, None, theirs, examples=n, models=len(values))
    cell = gap_fields(metric_columns()[metric], values, oracles, examples=n)
    assert (row.judgement, row.margin) == (cell["judgement"], cell["margin"])
    assert (row.gap_low, row.gap_high) == pytest.approx((cell["gap_low"], cell["gap_high"]))


@given(value=numbers, oracles=samples, n=rows_behind, metric=st.sampled_from(sorted(metrics())))
def test_a_report_never_contradicts_a_study_of_models_with_the_same_value(
    value, oracles, n, metric
):
    one = compare([value], oracles, rule_of_metric(metrics()[metric]), examples=n).judgement
    several = gap_fields(metric_columns()[metric], [value] * 4, oracles, examples=n)["judgement"]
    assert {one, several} != {Judgement.EQUIVALENT, Judgement.DIFFERENT}
    assert (one is Judgement.NOT_JUDGED) == (several is Judgement.NOT_JUDGED)


@pytest.mark.parametrize(
    "rule", [EQUAL, DISTANCE, ComparisonRule("match retraining", "steps", None)]
)
@given(value=numbers, count=st.integers(3, 8), models=st.integers(1, 4))
def test_no_gap_without_spread_is_equivalent(rule, value, count, models):
    assert compare([value] * models, [value] * count, rule).judgement is Judgement.EQUIVALENT


@pytest.mark.parametrize(("value", "judgement"), [(0.922, "equivalent"), (1.1, "different")])
def test_one_model_is_judged_by_the_oracles_spread_alone(value, judgement):
    found = compare([value], ORACLE, EQUAL)
    s, k = np.std(ORACLE, ddof=1), len(ORACLE)
    reach = stats.t.ppf(0.975, k - 1) * s * math.sqrt(1 + 1 / k)
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach))
    assert found.margin == pytest.approx(2 * s)
    assert (found.judgement, found.p) == (judgement, None)


@pytest.mark.parametrize("spread", [0.0127, 0.1])  # 0.0127: margin AUC of 240 oracles of digits
@pytest.mark.parametrize("count", [3, 5])
def test_one_more_oracle_is_called_different_at_most_at_the_nominal_rate(spread, count):
    rng, rule, trials = np.random.default_rng(0), rule_of_metric(metrics()["margin_auc"]), 2000
    draws = rng.normal(0.566, spread, (trials, count + 1)).tolist()
    wrong = sum(compare(d[:1], d[1:], rule).judgement is Judgement.DIFFERENT for d in draws)
    assert wrong <= trials * 0.05 + 3 * math.sqrt(trials * 0.05 * 0.95)


def test_several_models_are_judged_by_two_one_sided_tests():
    values = [0.921, 0.922, 0.923]
    found = compare(values, ORACLE, EQUAL)
    want = stats.ttest_ind(values, ORACLE).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(want))
    p = max(
        stats.ttest_ind(np.add(values, found.margin), ORACLE, alternative="greater").pvalue,
        stats.ttest_ind(np.subtract(values, found.margin), ORACLE, alternative="less").pvalue,
    )
    assert found.p == pytest.approx(p)


@given(st.lists(numbers, min_size=2, max_size=2), st.floats(0.01, 5), samples)
def test_the_tests_and_the_interval_say_the_same(pair, margin, oracles):
    rule = ComparisonRule("match retraining", "fraction", margin)
    found = compare(pair, oracles, rule)
    touches = found.low == found.high and abs(found.value) == margin  # no spread: no test
    border = touches or abs(found.p - 0.05) < 1e-9  # there the last bits decide
    assert border or (found.judgement is Judgement.EQUIVALENT) == (found.p < 0.05)


def test_nearer_than_an_oracle_is_no_fault():
    assert compare([0.0], [0.5, 0.51, 0.49], DISTANCE).judgement is Judgement.EQUIVALENT
    assert compare([0.9], [0.5, 0.51, 0.49], DISTANCE).judgement is Judgement.DIFFERENT


@pytest.mark.parametrize(
    "rule",
    [
        ComparisonRule("descriptive", "fraction", None),
        ComparisonRule("low", "fraction", None),
        ComparisonRule("match retraining", "fraction", None, path="compat"),
    ],
)
def test_what_has_no_right_value_is_not_judged(rule):
    assert compare([1.0], ORACLE, rule).judgement is Judgement.NOT_JUDGED


@pytest.mark.parametrize("oracles", [[], [1.0], [1.0, 1.0]])
def test_fewer_than_three_oracles_say_nothing(oracles):
    assert compare([1.0], oracles, EQUAL) is None


def test_no_model_says_nothing():
    assert compare([], ORACLE, EQUAL) is None
