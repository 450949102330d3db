"""Shared numbers against brute force, SciPy and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from scipy.spatial import distance
from sklearn import metrics as sk

from unlearnkit.stats import entropy, roc


def scores(seed, members=23, others=37, ties=False):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0.7, 1, members), rng.normal(0, 1, others)
    if ties:
        a, b = a.round(), b.round()
    return torch.tensor(a), torch.tensor(b)


def wins(a, b):
    """Return the matrix of comparisons: 1 for a win, 1/2 for a tie."""
    x, y = a.numpy()[:, None], b.numpy()[None]
    return (x > y) + 0.5 * (x == y)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_auc_counts_wins_and_half_the_ties(seed, ties):
    a, b = scores(seed, ties=ties)
    assert roc.auc(a, b) == pytest.approx(wins(a, b).mean(), rel=1e-15)
    labels = [1] * len(a) + [0] * len(b)
    assert roc.auc(a, b) == pytest.approx(sk.roc_auc_score(labels, torch.cat([a, b])))


def test_auc_of_equal_scores_is_one_half():
    assert roc.auc(torch.full((7,), 3.0), torch.full((5,), 3.0)) == 0.5


def test_auc_of_swapped_groups_is_the_complement():
    a, b = scores(0, ties=True)
    assert roc.auc(a, b) + roc.auc(b, a) == pytest.approx(1.0, rel=1e-15)


def test_auc_takes_infinite_scores():
    a = torch.tensor([math.inf, 0.0, -math.inf])
    b = torch.tensor([1.0, -math.inf])
    assert roc.auc(a, b) == pytest.approx(wins(a, b).mean())


def test_auc_of_correctness_is_the_gap_attack():
    """1/2 + (accuracy on members - accuracy on others) / 2."""
    a = torch.tensor([1.0] * 9 + [0.0])
    b = torch.tensor([1.0] * 3 + [0.0] * 5)
    assert roc.auc(a, b) == pytest.approx(0.5 + (0.9 - 0.375) / 2, rel=1e-15)


@pytest.mark.parametrize(
    ("a", "b"),
    [([], [1.0]), ([1.0], []), ([math.nan, 1.0], [0.0]), ([1.0], [math.nan])],
)
def test_auc_without_comparable_rows_is_undefined(a, b):
    members, others = torch.tensor(a), torch.tensor(b)
    assert math.isnan(roc.auc(members, others))
    assert math.isnan(roc.delong_variance(members, others))
    assert roc.auc_interval(members, others) is None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_delong_variance_is_that_of_the_matrix_of_wins(seed, ties):
    a, b = scores(seed, ties=ties)
    table = wins(a, b)
    want = table.mean(1).var(ddof=1) / len(a) + table.mean(0).var(ddof=1) / len(b)
    assert roc.delong_variance(a, b) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_the_difference_of_two_areas_is_that_of_the_matrices_of_wins(seed, ties):
    (a, b), (c, d) = scores(seed, ties=ties), scores(seed + 50, ties=ties)
    table = wins(a, b) - wins(c, d)
    want = table.mean(1).var(ddof=1) / len(a) + table.mean(0).var(ddof=1) / len(b)
    value, error = roc.auc_difference((a, c), (b, d))
    truth = np.r_[np.ones(len(a)), np.zeros(len(b))]
    areas = [sk.roc_auc_score(truth, np.r_[m, o]) for m, o in ((a, b), (c, d))]
    assert value == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert error == pytest.approx(want**0.5, rel=1e-12)


def test_a_score_does_not_differ_from_itself_and_one_row_a_side_is_undefined():
    a, b = scores(0)
    assert roc.auc_difference((a, a), (b, b)) == (0.0, 0.0)
    assert all(map(math.isnan, roc.auc_difference((a[:1], a[:1]), (b, b))))


def test_delong_variance_without_signal_is_near_that_of_the_rank_sum():
    m, n = 400, 300
    rng = np.random.default_rng(0)
    found = roc.delong_variance(torch.tensor(rng.normal(size=m)), torch.tensor(rng.normal(size=n)))
    assert found == pytest.approx((m + n + 1) / (12 * m * n), rel=0.1)


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_auc_interval_is_delongs_on_the_logit_scale(level):
    a, b = scores(8, ties=True)
    table = wins(a, b)
    area = table.mean()
    error = math.sqrt(table.mean(1).var(ddof=1) / len(a) + table.mean(0).var(ddof=1) / len(b))
    reach = stats.norm.ppf((1 + level) / 2) * error / (area * (1 - area))
    want = special.expit([special.logit(area) - reach, special.logit(area) + reach])
    assert roc.auc_interval(a, b, level) == pytest.approx(tuple(want), rel=1e-9)


def test_auc_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    runs, truth = 600, stats.norm.cdf(1.0 / math.sqrt(2))
    hits = 0
    for _ in range(runs):
        low, high = roc.auc_interval(
            torch.tensor(rng.normal(1, 1, 40)), torch.tensor(rng.normal(0, 1, 60))
        )
        hits += low <= truth <= high
    # 3.5 standard errors of a share of 0.95.
    assert abs(hits / runs - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / runs)


@pytest.mark.parametrize(("area", "m", "n"), [(1.0, 6, 9), (0.0, 9, 6), (1.0, 1, 1)])
def test_auc_interval_of_separate_groups_is_that_of_disjoint_pairs(area, m, n):
    a, b = torch.arange(m) + 100.0 * (2 * area - 1), torch.arange(n) * 1.0
    low, high = roc.auc_interval(a, b)
    pairs = min(m, n)
    ends = stats.binomtest(round(area * pairs), pairs).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((ends.low, ends.high), rel=1e-9, abs=1e-12)


def test_auc_interval_of_equal_scores_is_symmetric_and_not_empty():
    low, high = roc.auc_interval(torch.zeros(8), torch.zeros(30))
    assert low == pytest.approx(0.025 ** (1 / 8) / 2)
    assert low + high == pytest.approx(1.0)


def test_auc_interval_needs_two_rows_a_side():
    assert roc.auc_interval(torch.tensor([0.5]), torch.tensor([0.0, 1.0])) is None


@pytest.mark.parametrize("ties", [False, True])
def test_roc_curve_is_that_of_scikit_learn(ties):
    a, b = scores(2, ties=ties)
    got = roc.roc_curve(a, b)
    fpr, tpr, edges = sk.roc_curve(
        [1] * len(a) + [0] * len(b), torch.cat([a, b]), drop_intermediate=False
    )
    np.testing.assert_allclose(got.fpr, fpr, rtol=1e-15)
    np.testing.assert_allclose(got.tpr, tpr, rtol=1e-15)
    np.testing.assert_allclose(got.threshold, edges)
    area = sk.auc(got.fpr, got.tpr)
    assert area == pytest.approx(roc.auc(a, b), rel=1e-12)


@pytest.mark.parametrize("fpr", [0.0, 0.01, 0.05, 0.1, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("others", [1, 37, 100, 1000])
def test_tpr_at_fpr_is_the_best_point_of_the_curve_that_is_allowed(fpr, ties, others):
    a, b = scores(3, others=others, ties=ties)
    curve = roc.roc_curve(a, b)
    allowed = curve.fpr <= fpr + 1e-12
    assert roc.tpr_at_fpr(a, b, fpr) == pytest.approx(curve.tpr[allowed].max().item())


def distributions(seed, classes=5, rows=20):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.4), rows), rng.dirichlet(np.full(classes, 0.4), rows)


@pytest.mark.parametrize("seed", range(3))
def test_js_and_kl_are_those_of_scipy(seed):
    p, q = distributions(seed)
    log_p, log_q = torch.tensor(p).log(), torch.tensor(q).log()
    np.testing.assert_allclose(entropy.js(log_p, log_q), distance.jensenshannon(p, q, axis=1) ** 2)
    np.testing.assert_allclose(entropy.kl(log_p, log_q), special.rel_entr(p, q).sum(1))


def test_js_of_certain_answers_that_differ_is_log_two():
    log_p = torch.tensor([[0.0, -math.inf, -math.inf]]).double()
    log_q = torch.tensor([[-math.inf, 0.0, -math.inf]]).double()
    assert entropy.js(log_p, log_q).item() == pytest.approx(math.log(2), rel=1e-15)
    assert entropy.kl(log_p, log_q).item() == math.inf


def test_js_and_kl_of_a_distribution_to_itself_vanish():
    log_p = torch.tensor(np.random.default_rng(7).normal(0, 20, (50, 7))).log_softmax(-1)
    log_p[0] = torch.tensor([0.0] + [-math.inf] * 6)
    torch.testing.assert_close(
        entropy.js(log_p, log_p), torch.zeros(50).double(), rtol=0, atol=1e-15
    )
    assert torch.equal(entropy.kl(log_p, log_p), torch.zeros(50).double())


def test_entropy_is_that_of_scipy():
    p, _ = distributions(4)
    p[0] = [1, 0, 0, 0, 0]
    np.testing.assert_allclose(
        entropy.entropy(torch.tensor(p).log()), stats.entropy(p, axis=1), atol=1e-15
    )


def test_modified_entropy_is_the_formula():
    p, _ = distributions(5, classes=4, rows=12)
    y = np.arange(12) % 4
    want = []
    for row, own in zip(p, y, strict=True):
        rest = np.delete(row, own)
        want.append(-(1 - row[own]) * np.log(row[own]) - (rest * np.log1p(-rest)).sum())
    got = entropy.modified_entropy(torch.tensor(p).log(), torch.tensor(y))
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_modified_entropy_of_a_sure_right_answer_is_zero_and_of_a_sure_wrong_one_infinite():
    log_p = torch.tensor([[0.0, -math.inf, -math.inf]] * 2).double()
    got = entropy.modified_entropy(log_p, torch.tensor([0, 2]))
    assert got.tolist() == [0.0, math.inf]


def test_modified_entropy_stays_finite_where_probabilities_round_to_one():
    """``-ln(1 - p)`` of the wrong top class is the gap of the logits."""
    log_p = torch.tensor([[800.0, 0.0]]).double().log_softmax(-1)
    got = entropy.modified_entropy(log_p, torch.tensor([1])).item()
    assert got == pytest.approx(800.0 + 800.0)


def test_modified_entropy_depends_on_the_label():
    p, _ = distributions(6)
    y = torch.arange(20) % 5
    log_p = torch.tensor(p).log()
    moved = entropy.modified_entropy(log_p, (y + 1) % 5)
    assert not torch.allclose(entropy.modified_entropy(log_p, y), moved)
