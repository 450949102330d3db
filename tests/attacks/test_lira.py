"""LiRA against densities computed one by one, and planted memberships."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.attacks.lira import lira
from unlearnkit.core.errors import InputError
from unlearnkit.stats.roc import auc

EXAMPLES = 300


def world(models, seed, shift=1.0, examples=EXAMPLES, queries=1):
    """Return margins and memberships: each model has a random half, which lifts its margins."""
    own = torch.Generator().manual_seed(99)
    centre = 4 * torch.randn(examples, generator=own, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    inside = torch.rand(models, examples, generator=rng) < 0.5
    z = torch.randn(models, examples, queries, generator=rng, dtype=torch.float64)
    phi = (centre + shift * inside)[..., None] + z
    return phi.reshape(models, -1), inside


def mean_auc(scores, members):
    each = [
        auc(s[m & ~s.isnan()], s[~m & ~s.isnan()])
        for s, m in zip(scores, members.expand_as(scores), strict=True)
    ]
    return sum(each) / len(each)


@pytest.mark.parametrize("d", [1.0, 2.0])
def test_many_shadows_reach_the_best_auc_there_is(d):
    shadows, inside = world(128, 1, d)
    target, members = world(20, 2, d)
    best = stats.norm.cdf(d / math.sqrt(2))
    assert abs(mean_auc(lira(target, shadows, inside).scores, members) - best) < 0.02
    outside = torch.where(inside, shadows - d, shadows)
    assert abs(mean_auc(lira(target, outside).scores, members) - best) < 0.02


def test_one_rule_for_all_is_far_worse():
    target, members = world(20, 2, 1.0)
    raw = [auc(t[m], t[~m]) for t, m in zip(target, members, strict=True)]
    assert sum(raw) / 20 < 0.6


def test_shrunk_variances_beat_each_examples_own_with_few_shadows():
    shadows, inside = world(10, 1, 1.5)
    target, members = world(40, 2, 1.5)
    shrunk = mean_auc(lira(target, shadows, inside, least=2).scores, members)
    alone = mean_auc(lira(target, shadows, inside, prior=0.0, least=2).scores, members)
    assert shrunk > alone + 0.01


def test_without_membership_nothing_is_found():
    shadows, inside = world(32, 1, 0.0)
    target, members = world(30, 2, 0.0)
    error = math.sqrt((EXAMPLES + 1) / (3 * EXAMPLES**2) / 30)
    assert abs(mean_auc(lira(target, shadows, inside).scores, members) - 0.5) < 4 * error
    assert abs(mean_auc(lira(target, shadows).scores, members) - 0.5) < 4 * error


def test_wrong_memberships_turn_the_score_round():
    shadows, inside = world(32, 1, 2.0)
    target, _ = world(5, 2, 2.0)
    right, wrong = lira(target, shadows, inside), lira(target, shadows, ~inside)
    torch.testing.assert_close(right.scores, -wrong.scores, rtol=1e-10, atol=1e-10)


def test_several_queries_average_their_log_densities():
    shadows, inside = world(40, 1, 1.0, queries=3)
    target, members = world(10, 2, 1.0, queries=3)
    got = lira(target, shadows, inside, queries=3).scores
    columns = lira(target, shadows, inside.repeat_interleave(3, 1)).scores
    torch.testing.assert_close(got, columns.reshape(10, EXAMPLES, 3).mean(-1))
    one = lira(target[:, ::3], shadows[:, ::3], inside)
    many = lira(target, shadows, inside, queries=3)
    assert mean_auc(many.scores, members) > mean_auc(one.scores, members) + 0.05


def test_vectors_are_attacked_together():
    parts = [world(100, s, 1.0) for s in (1, 3)]
    inside = parts[0][1]
    shadows = torch.stack([parts[0][0], parts[1][0] + (inside.double() - parts[1][1].double())], -1)
    target, members = world(20, 2, 1.0)
    other = world(20, 4, 1.0)
    both = torch.stack([target, other[0] + (members.double() - other[1].double())], -1)
    best = stats.norm.cdf(1.0)
    assert abs(mean_auc(lira(both, shadows, inside).scores, members) - best) < 0.03
    with pytest.raises(InputError, match="a vector has no tail"):
        lira(both, shadows)


def test_offline_orders_as_the_tail_probability():
    shadows, _ = world(16, 1, examples=7)
    target, _ = world(9, 2, 3.0, examples=7)
    got = lira(target, shadows, form="normal", prior=0.0).scores
    mu, sd = np.median(shadows, 0), np.std(shadows.numpy(), 0, ddof=1)
    tail = stats.norm.cdf(target, mu, sd)
    np.testing.assert_allclose(got, np.log(tail) - np.log1p(-tail), rtol=1e-6)


def test_examples_with_too_few_shadows_have_no_score():
    shadows, inside = world(20, 1, 2.0, examples=30)
    inside[:, 4] = False
    inside[:3, 4] = True
    target, members = world(2, 2, 2.0, examples=30)
    got = lira(target, shadows, inside)
    assert got.scores.isnan().any(0).nonzero()[:, 0].tolist() == [4]
    assert "1 of 30 examples have fewer than 4 shadow models" in got.note
    assert all(mean_auc(s[None], m) > 0.7 for s, m in zip(got.scores, members, strict=True))


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x, m: lira(x[:, :3], x, m), "same examples"),
        (lambda x, m: lira(x, x, m[:, :3]), "inside must be boolean"),
        (lambda x, m: lira(x, x, x), "inside must be boolean"),
        (lambda x, m: lira(x, x, m, queries=4), "4 for each example"),
        (lambda x, m: lira(x / 0, x, m), "that are not"),
    ],
)
def test_bad_input_is_refused(ask, told):
    with pytest.raises(InputError, match=told):
        ask(*world(6, 1, examples=5))
