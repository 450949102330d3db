import math
import statistics

import numpy as np
import pytest
import torch
from scipy.stats import hmean, ks_2samp

from unlearnkit.core.errors import InputError
from unlearnkit.language import tofu


def table(seed=0, rows=30, wrong=5):
    """Return mean token log-probabilities of right answers and of wrong ones."""
    rng = torch.Generator().manual_seed(seed)
    right = -3 * torch.rand(rows, generator=rng, dtype=torch.float64)
    return right, -5 * torch.rand(rows, wrong, generator=rng, dtype=torch.float64)


def test_an_answers_probability_is_that_of_its_geometric_mean_token():
    tokens = [0.5, 0.25, 0.8]
    mean = torch.tensor([sum(map(math.log, tokens)) / 3])
    assert tofu.answer_probability(mean).item() == pytest.approx(statistics.geometric_mean(tokens))


def test_a_choice_is_a_share_of_all_answers():
    right, wrong = table()
    got = tofu.choice_probability(right, wrong)
    for r, w, p in zip(right.tolist(), wrong.tolist(), got.tolist(), strict=True):
        assert p == pytest.approx(math.exp(r) / (math.exp(r) + sum(map(math.exp, w))))


def test_a_choice_among_answers_of_no_probability_is_still_a_share():
    right, wrong = torch.tensor([-2000.0]), torch.full((1, 4), -2000.0)
    assert tofu.choice_probability(right, wrong).item() == pytest.approx(0.2)


@pytest.mark.parametrize("average", ["geometric", "arithmetic"])
def test_the_truth_ratio_is_an_average_over_wrong_answers(average):
    right, wrong = table()
    mean = statistics.geometric_mean if average == "geometric" else statistics.fmean
    got = tofu.truth_ratio(right, wrong, average)
    for r, w, found in zip(right.tolist(), wrong.tolist(), got.tolist(), strict=True):
        assert found == pytest.approx(mean(map(math.exp, w)) / math.exp(r))


def test_the_geometric_truth_ratio_is_at_most_the_arithmetic_one():
    right, wrong = table()
    assert (tofu.truth_ratio(right, wrong) <= tofu.truth_ratio(right, wrong, "arithmetic")).all()


def test_the_truth_ratio_of_a_model_without_knowledge_is_1():
    right, wrong = torch.full((4,), -2.0), torch.full((4, 3), -2.0)
    for average in ("geometric", "arithmetic"):
        torch.testing.assert_close(tofu.truth_ratio(right, wrong, average), torch.ones(4))


def test_forget_truth_is_the_same_for_a_ratio_and_its_inverse():
    ratios = torch.tensor([0.5, 2.0, 4.0, 1.0], dtype=torch.float64)
    assert tofu.forget_truth(ratios) == pytest.approx((0.5 + 0.5 + 0.25 + 1) / 4)
    assert tofu.forget_truth(1 / ratios) == pytest.approx(tofu.forget_truth(ratios))


def test_retain_truth_counts_ratios_above_1_as_0():
    assert tofu.retain_truth(torch.tensor([0.25, 0.5, 7.0])) == pytest.approx((0.75 + 0.5) / 3)


@pytest.mark.parametrize("value", [0.2, 0.63, 1.0])
def test_nine_equal_values_are_the_utility(value):
    assert tofu.model_utility([value] * 9) == pytest.approx(value, rel=1e-12)


def test_utility_is_the_harmonic_mean():
    values = np.random.default_rng(0).uniform(0.1, 1, 9)
    assert tofu.model_utility(values.tolist()) == pytest.approx(hmean(values))


def test_one_value_of_0_makes_the_utility_0():
    assert tofu.model_utility([0.9] * 8 + [0.0]) == 0


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [0.5, 1.2], [-0.1]])
def test_utility_needs_shares(values):
    with pytest.raises(InputError, match="must be in"):
        tofu.model_utility(values)


def test_forget_quality_of_a_model_against_itself_is_1():
    ratios = tofu.truth_ratio(*table())
    assert tofu.forget_quality(ratios, ratios) == tofu.ForgetQuality(1.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "printed"), [(40, "1.9e-23"), (200, "1.94e-119"), (400, "1.06e-239")]
)
def test_full_separation_gives_the_published_floor(rows, printed):
    ratios = torch.arange(rows, dtype=torch.float64)
    found = tofu.forget_quality(ratios, ratios + rows)
    digits = len(printed.split("e")[0]) - 2
    assert f"{found.p:.{digits}e}" == printed
    assert found.distance == 1


PUBLISHED = {
    40: {8: "0.4", 16: "3.02e-3", 17: "1.27e-3", 19: "1.88e-4"},
    200: {25: "0.09", 51: "4.02e-6", 65: "9.59e-10", 78: "5.87e-14", 194: "1.06e-106"},
    400: {
        **{25: "0.42", 43: "0.02", 103: "4.64e-12", 107: "5.42e-13", 116: "3.15e-15"},
        **{136: "6.92e-21", 138: "1.66e-21", 149: "4.35e-25", 379: "1.47e-198"},
        **{382: "2.47e-203", 396: "1.80e-229"},
    },
}
"""Forget qualities that OpenUnlearning prints (d3d7cf9, docs/repro.md), by forget set and by how
many places apart the two distributions are: no other number of places gives the same print."""


@pytest.mark.parametrize(
    ("rows", "apart", "printed"),
    [(n, k, p) for n, by_distance in PUBLISHED.items() for k, p in by_distance.items()],
)
def test_published_forget_qualities_are_values_of_the_test(rows, apart, printed):
    ratios = torch.arange(rows, dtype=torch.float64)
    found = tofu.forget_quality(ratios, ratios + apart - 0.5)
    digits = len(printed.split("e")[0].split(".")[1])
    assert found.distance == pytest.approx(apart / rows)
    if "e" in printed:
        assert f"{found.p:.{digits}e}" == f"{float(printed):.{digits}e}"
    else:
        assert f"{found.p:.{digits}f}" == printed


def test_forget_quality_is_the_same_for_inverse_ratios():
    a, b = tofu.truth_ratio(*table(0)), tofu.truth_ratio(*table(1, rows=41))
    assert tofu.forget_quality(a, b) == tofu.forget_quality(1 / a, 1 / b)


def test_forget_quality_is_the_two_sample_test_of_scipy():
    a, b = tofu.truth_ratio(*table(0)), tofu.truth_ratio(*table(1, rows=41)) * 3
    want = ks_2samp(a.numpy(), b.numpy())
    found = tofu.forget_quality(a, b)
    assert (found.p, found.distance) == (want.pvalue, want.statistic)


@pytest.mark.parametrize("ratios", [[], [1.0, math.nan]])
def test_forget_quality_needs_ratios(ratios):
    with pytest.raises(InputError, match="ratios without nan"):
        tofu.forget_quality(torch.tensor(ratios), torch.ones(3))
