"""The attacker with the old model, on planted falls."""

import math

import pytest
import torch
from scipy import stats

from unlearnkit.attacks.two_model import two_model
from unlearnkit.core.errors import InputError
from unlearnkit.stats.roc import auc

MEMBERS = torch.arange(600) < 300


def draw(models, seed, lift=0.0):
    own = torch.Generator().manual_seed(99)
    centre = 5 * torch.randn(600, generator=own, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    z = torch.randn(models, 600, generator=rng, dtype=torch.float64)
    return centre + z + lift * MEMBERS


def test_retraining_leaks_as_much_as_the_fall_says():
    got = two_model(draw(20, 1, lift=1.5), draw(20, 2), draw(20, 3), MEMBERS)
    best = stats.norm.cdf(1.5 / 2)
    assert got.auc == pytest.approx(best, abs=0.02)
    assert got.oracle_auc == pytest.approx(best, abs=0.02)
    assert abs(got.delta) < 0.02
    assert 0 < got.oracle_deviation < 0.05
    assert float(got.falls[MEMBERS].mean()) == pytest.approx(1.5, abs=0.1)


def test_no_unlearning_leaks_less_than_retraining():
    original = draw(5, 1, lift=2.0)
    got = two_model(original, original, draw(5, 3), MEMBERS)
    assert got.auc == 0.5
    assert got.delta < -0.3


def test_one_original_serves_all_and_each_model_is_a_loop():
    old, new = draw(1, 1, lift=1.0), draw(3, 2)
    got = two_model(old, new, draw(2, 3), MEMBERS)
    want = [auc((old[0] - n)[MEMBERS], (old[0] - n)[~MEMBERS]) for n in new]
    assert [f.auc for f in got.unlearned] == pytest.approx(want)
    assert math.isnan(got.oracle_deviation)


def test_without_an_oracle_there_is_nothing_to_compare_with():
    got = two_model(draw(1, 1), draw(1, 2), draw(0, 3), MEMBERS)
    assert math.isnan(got.oracle_auc)
    assert math.isnan(got.delta)
    assert "no oracle" in got.note


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda x: two_model(x[:2], x, x, MEMBERS), "one original, or one for each"),
        (lambda x: two_model(x, x, x, MEMBERS[:5]), "members must be boolean"),
        (lambda x: two_model(x, x, x[:, :5], MEMBERS), "same examples"),
    ],
)
def test_bad_input_is_refused(ask, told):
    with pytest.raises(InputError, match=told):
        ask(draw(3, 1))
