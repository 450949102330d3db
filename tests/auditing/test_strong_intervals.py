"""Intervals of the strong table, beside how numbers really vary from one audit to the next."""

import functools
import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tests.auditing.planted import SECTIONS, planted
from unlearnkit.attacks.klom import klom
from unlearnkit.attacks.ulira import log_ratios, ulira
from unlearnkit.auditing.strong import bootstrap_intervals as intervals
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.strong.table_rows import EnsembleEstimate
from unlearnkit.core.runtime import Runtime
from unlearnkit.stats.bootstrap import LEAST_DRAWS, resample

AUDITS, ROWS, MODELS = 24, 20, 64


def rng():
    return torch.Generator().manual_seed(1)


@functools.cache
def sides(seed):
    """Margins of unlearned and of retrained models: each row shifted by up to 2 deviations."""
    draw = torch.Generator().manual_seed(seed)
    shift = 2 * torch.rand(ROWS, generator=draw, dtype=torch.float64)
    ours, theirs = (
        torch.randn(MODELS, ROWS, generator=draw, dtype=torch.float64)
        + 0.3 * torch.randn(MODELS, 1, generator=draw, dtype=torch.float64)
        for _ in range(2)
    )
    return ours + shift, theirs


@functools.cache
def audits():
    return [ulira(*sides(k)) for k in range(AUDITS)]


@functools.cache
def klom_reach():
    return intervals.klom_reach(*sides(0), rng())


def test_the_scores_of_either_half_are_those_behind_ulira():
    found = ulira(*sides(0))
    halves = log_ratios(*sides(0))
    aucs = [
        roc_auc_score(
            [1] * ours.numel() + [0] * theirs.numel(), torch.cat([ours.flatten(), theirs.flatten()])
        )
        for ours, theirs in halves
    ]
    assert sum(aucs) / 2 == pytest.approx(found.auc, abs=1e-3)
    right = [(1 + (a > 0).double().mean() - (b > 0).double().mean()) / 2 for a, b in halves]
    assert float(sum(right)) / 2 == pytest.approx(found.accuracy, abs=1e-12)


@pytest.mark.parametrize("of", [intervals.of_auc, intervals.of_accuracy], ids=["auc", "accuracy"])
def test_an_interval_of_ulira_is_as_wide_as_audits_differ(of):
    name = of.__name__.removeprefix("of_")
    values = torch.tensor([getattr(found, name) for found in audits()])
    number = of(EnsembleEstimate(float(values[0])), log_ratios(*sides(0)), rng())
    assert number.low < number.value < number.high
    assert 0.75 < (number.high - number.low) / 3.92 / float(values.std()) < 1.5
    assert "fitted laws given" in number.how


def test_intervals_from_counts_are_those_of_copied_sides():
    halves = log_ratios(*sides(3))
    tied = tuple((a[:8, :6].round(decimals=1), b[:7, :6].round(decimals=1)) for a, b in halves)
    cells = [side for half in tied for side in half]
    known = cells[0].masked_fill(cells[0] > cells[0].median(), math.nan)

    def auc(drawn):
        pairs = [
            (a.flatten()[:, None], b.flatten())
            for a, b in zip(drawn[::2], drawn[1::2], strict=True)
        ]
        ranks = [float(((a > b).double() + (a == b).double() / 2).mean()) for a, b in pairs]
        return sum(ranks) / 2

    def accuracy(drawn):
        a, b, c, d = (float((side > 0).double().mean()) for side in drawn)
        return 0.5 + (a - b + c - d) / 4

    number = EnsembleEstimate(0.5)
    for got, cut, statistic in (
        (intervals.of_auc(number, tied, rng()), cells, auc),
        (intervals.of_accuracy(number, tied, rng()), cells, accuracy),
        (
            intervals.of_mean_gap(number, cells[:2], rng()),
            cells[:2],
            lambda s: float(s[0].mean() - s[1].mean()),
        ),
        (
            intervals.of_known_mean(number, known, rng(), given="nothing"),
            [known],
            lambda s: float(s[0].nanmean()),
        ),
    ):
        draw = rng()
        found = [statistic(resample(cut, draw)) for _ in range(LEAST_DRAWS)]
        low, high = np.quantile(found, [0.025, 0.975])
        assert (got.low, got.high) == pytest.approx((low, high), rel=1e-9)


@pytest.mark.parametrize("which", ["median", "percentile_95"])
def test_an_interval_of_klom_stands_about_the_number_and_not_above_it(which):
    values = torch.tensor([getattr(klom(*sides(k)), which) for k in range(AUDITS)])
    number = klom_reach().about(EnsembleEstimate(float(values[0])), which)
    assert number.low < number.value < number.high
    # Two-level draws are somewhat wide, and models that are drawn twice add to it.
    assert 0.8 < (number.high - number.value) / 1.96 / float(values.std()) < 2.5
    assert (number.high + number.low) / 2 == pytest.approx(number.value) or number.low == 0.0


def test_the_table_has_intervals_beside_the_floors_of_ulira_and_klom():
    table = strong_table(planted(shift=1.0, sections=dict.fromkeys(SECTIONS, 12)), Runtime())
    for metric in (
        "ulira_auc",
        "ulira_accuracy",
        "klom_forget",
        "klom_forget_p95",
        "klom_retained_p95",
    ):
        row = table.row(metric)
        assert row.estimate.low <= row.estimate.value <= row.estimate.high, metric
        assert "two-level bootstrap" in row.estimate.method
        assert row.oracle.mean is not None
    ulira_row = table.row("ulira_auc")
    assert ulira_row.oracle.mean < ulira_row.estimate.low


def test_a_number_that_is_undefined_gets_no_interval():
    number = intervals.of_auc(
        EnsembleEstimate(float("nan"), note="few"), log_ratios(*sides(0)), rng()
    )
    assert number.how == ""
    assert number.note == "few"
