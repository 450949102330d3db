"""The audit of planned deletions: its ceiling, its level, and ties."""

import math

import pytest
import torch
from scipy import stats

from unlearnkit.attacks.one_run import one_run_audit
from unlearnkit.core.errors import InputError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def coins(count, seed=0):
    return torch.rand(count, generator=rng(seed)) < 0.5


@pytest.mark.parametrize(("m", "want"), [(500, 3.49), (1000, 4.19), (5000, 5.81)])
def test_scores_that_know_the_coins_reach_the_ceiling(m, want):
    heads = coins(m)
    got = one_run_audit(heads.double(), heads, rng=rng(1))
    assert got.correct == got.guesses == m // 5
    assert got.epsilon == got.ceiling == pytest.approx(want, abs=0.005)


@pytest.mark.parametrize("m", [200, 1000])
def test_without_leakage_false_findings_are_rare(m):
    found = sum(
        one_run_audit(torch.rand(m, generator=rng(k)), coins(m, 1000 + k), rng=rng(k)).epsilon > 0
        for k in range(400)
    )
    assert found / 400 <= 0.08


def test_the_tails_of_the_scores_are_guessed():
    scores = torch.arange(100.0)
    heads = torch.zeros(100, dtype=torch.bool)
    heads[93:] = True
    heads[4:7] = True
    got = one_run_audit(scores, heads, rng=rng())
    # 7 heads of the 10 on top; 7 tails of the 10 at the bottom.
    assert (got.correct, got.guesses, got.candidates) == (14, 20, 100)


def test_negated_scores_find_what_looks_too_strange():
    heads = coins(500)
    strange = torch.randn(500, generator=rng(1)) - 3 * heads
    assert one_run_audit(strange, heads, rng=rng()).epsilon == 0
    assert one_run_audit(-strange, heads, rng=rng()).epsilon > 1


def test_equal_scores_are_guesses_whatever_the_order_of_candidates():
    heads = torch.arange(1000) >= 500
    right = torch.tensor(
        [one_run_audit(torch.zeros(1000), heads, rng=rng(k)).correct for k in range(50)]
    )
    edge = stats.binom(200 * 50, 0.5).interval(0.999)
    assert edge[0] <= int(right.sum()) <= edge[1]


def test_delta_lowers_the_bound():
    heads = coins(500)
    exact, loose = (
        one_run_audit(heads.double(), heads, rng=rng(), delta=d).epsilon for d in (0.0, 1e-4)
    )
    assert 0 < loose < exact


def test_few_candidates_have_no_number():
    got = one_run_audit(torch.zeros(29), coins(29), rng=rng())
    assert math.isnan(got.epsilon)
    assert "29 candidates" in got.note
    assert not math.isnan(one_run_audit(torch.zeros(30), coins(30), rng=rng()).epsilon)


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (torch.zeros(40, 1), r"got \(40, 1\) and \(40,\)"),
        (torch.full((40,), math.nan), "got 40 of"),
    ],
)
def test_scores_of_another_shape_or_not_finite_are_refused(scores, words):
    with pytest.raises(InputError, match=words):
        one_run_audit(scores, coins(40), rng=rng())
