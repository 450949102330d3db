"""The share of the way from oracle to original, against quadrature and planted ways."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.attacks.iam import iam_scores
from unlearnkit.core.errors import InputError


def draw(models, seed, lift=0.0, examples=50):
    own = torch.Generator().manual_seed(99)
    centre = 5 * torch.randn(examples, generator=own, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    return centre + lift + torch.randn(models, examples, generator=rng, dtype=torch.float64)


@pytest.mark.parametrize("weights", ["even", "reference"])
@pytest.mark.parametrize("t", [0.0, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("side", [1, -1])
def test_a_far_original_makes_the_score_the_share_of_the_way(t, weights, side):
    oracle = draw(40, 1)
    middle = oracle.median(0, keepdim=True).values
    original = middle + side * 1000.0
    got = iam_scores(original, middle + t * side * 1000.0, oracle, weights=weights)
    assert got.value == pytest.approx(t if weights == "even" else t**2, abs=0.015)
    assert got.over_share == 0.0


def published(original, unlearned, oracle):
    """Score as the published code does: normal laws of interpolated margins, steps weighted."""
    alphas = np.linspace(0, 1, 101)
    moved = [oracle + a * (original - oracle) for a in alphas]
    cdf = [stats.norm.cdf(unlearned, m.mean(0), m.std(0)) for m in moved[:-1]]
    return np.average(cdf, axis=0, weights=alphas[1:])


def test_the_published_weights_are_replayed():
    oracle, unlearned, original = draw(300, 1), draw(1, 2, lift=3.0), draw(1, 3, lift=8.0)
    want = published(original[0].numpy(), unlearned[0].numpy(), oracle.numpy())
    got = iam_scores(original, unlearned, oracle, weights="reference", headroom=0.0)
    np.testing.assert_allclose(got.scores[0], want, atol=0.02)


def test_a_retrained_model_scores_as_the_held_out_oracles():
    original, oracle = draw(1, 1, lift=6.0), draw(64, 2)
    got = iam_scores(original, draw(64, 3), oracle)
    assert got.value == pytest.approx(got.oracle_value, abs=0.01)
    assert 0.01 < got.over_share < 0.05
    assert iam_scores(original, original, oracle).value > 0.95


def test_forgetting_too_much_is_flagged():
    got = iam_scores(draw(1, 1, lift=8.0), draw(20, 3, lift=-5.0), draw(64, 2))
    assert got.over_share > 0.95
    assert got.value < 0.01


def test_an_original_below_the_oracles_turns_the_way_round():
    up = iam_scores(draw(1, 1, lift=6.0), draw(9, 3, lift=2.0), draw(30, 2))
    down = iam_scores(-draw(1, 1, lift=6.0), -draw(9, 3, lift=2.0), -draw(30, 2))
    torch.testing.assert_close(up.scores, down.scores)
    assert torch.equal(up.over_forgotten, down.over_forgotten)


def test_rows_without_headroom_have_no_score():
    original = draw(1, 1, lift=0.0)
    original[:, :10] += 10
    got = iam_scores(original, draw(5, 3), draw(64, 2))
    assert not bool(got.scores[:, :10].isnan().any())
    room = (original - draw(64, 2).median(0).values).abs()[0, 10:]
    assert bool(got.scores[:, 10:][:, room < 1.5].isnan().all())
    assert "less than 2 oracle deviations" in got.note


def test_one_oracle_takes_its_spread_from_rows_that_nobody_saw():
    rows = {"examples": 2000}
    unseen = draw(1, 5, **rows), draw(1, 6, **rows)
    one = iam_scores(draw(1, 1, lift=9.0), draw(9, 3, lift=4.0), draw(1, 2), unseen=unseen)
    many = iam_scores(draw(1, 1, lift=9.0), draw(9, 3, lift=4.0), draw(64, 4))
    assert one.value == pytest.approx(many.value, abs=0.05)
    # A margin and the one oracle differ by sqrt(2) deviations: 8 % are beyond 1.96.
    second = iam_scores(draw(1, 1, lift=9.0), draw(99, 3), draw(1, 2), unseen=unseen)
    assert 0.03 < second.over_share < 0.15
    alone = iam_scores(draw(1, 1, lift=9.0), draw(9, 3), draw(1, 2))
    assert bool(alone.scores.isnan().all())
    assert "one oracle does not show its spread" in alone.note
    assert math.isnan(alone.over_share)
    assert math.isnan(one.oracle_value)


@pytest.mark.parametrize(
    "ask",
    [
        lambda x: iam_scores(x[:2], x, x),
        lambda x: iam_scores(x, x, x[:0]),
        lambda x: iam_scores(x[:1], x[:0], x),
    ],
)
def test_bad_input_is_refused(ask):
    with pytest.raises(InputError, match="an oracle, and one original"):
        ask(draw(3, 1))
