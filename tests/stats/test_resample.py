"""The two-level bootstrap against closed forms and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.core.errors import InputError
from unlearnkit.stats.bootstrap import two_level_bootstrap


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def mean(sides):
    return float(sides[0].mean())


def ratio(sides):
    return float(sides[0].mean() / sides[1].mean())


def test_the_error_of_a_mean_adds_models_and_examples():
    models, examples = torch.randn(12, 1, generator=rng()), torch.randn(1, 40, generator=rng(1))
    side = (models + 2 * examples).double()
    got = two_level_bootstrap([side], mean, rng=rng(2), draws=4000)
    parts = models.double().var(correction=0) / 12 + 4 * examples.double().var(correction=0) / 40
    assert got.value == pytest.approx(float(side.mean()))
    assert got.error == pytest.approx(math.sqrt(float(parts)), rel=0.04)
    assert got.low < got.value < got.high
    assert got.high - got.low == pytest.approx(2 * 1.96 * got.error, rel=0.06)


def test_sides_share_their_examples():
    # The difference of two sides that differ by a constant does not vary with the examples.
    one = torch.randn(1, 30, generator=rng()).expand(5, 30).double()
    got = two_level_bootstrap([one, one + 1], lambda s: float((s[1] - s[0][:1]).mean()), rng=rng(1))
    assert (got.low, got.high) == pytest.approx((1.0, 1.0))


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_for_one_example_the_ends_are_scipys(kind):
    a = torch.randn(25, 1, generator=rng(), dtype=torch.float64).exp()
    b = torch.randn(30, 1, generator=rng(1), dtype=torch.float64).exp() + 0.5
    got = two_level_bootstrap([a, b], ratio, rng=rng(2), draws=4000, kind=kind)
    want = stats.bootstrap(
        (a[:, 0].numpy(), b[:, 0].numpy()),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        method={"percentile": "percentile", "bca": "BCa"}[kind],
        n_resamples=9999,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    # 100 of 4000 draws lie beyond an end, give or take 10: 0.04 deviations of the number.
    reach = 4 * 0.05 * got.error
    assert got.low == pytest.approx(want.low, abs=reach)
    assert got.high == pytest.approx(want.high, abs=1.5 * reach)


def test_bca_ends_are_those_of_the_formula_with_the_skewness_of_a_mean():
    x = torch.randn(10, 1, generator=rng(3), dtype=torch.float64).mul(2).exp()
    centred = x - x.mean()
    bend = float((centred**3).sum() / (6 * (centred**2).sum() ** 1.5))
    state = rng(1)
    draws = []
    for _ in range(3000):
        draws.append(float(x[torch.randint(10, (10,), generator=state)].mean()))
        torch.randint(1, (1,), generator=state)
    shift = stats.norm.ppf(np.mean(np.array(draws) < float(x.mean())))
    moved = shift + stats.norm.ppf([0.025, 0.975])
    want = np.quantile(draws, stats.norm.cdf(shift + moved / (1 - bend * moved)))
    got = two_level_bootstrap([x], mean, rng=rng(1), draws=3000, kind="bca")
    assert bend > 0.04
    # A draw that is the sample itself counts one half; without the bend 3 % would be missing.
    assert (got.low, got.high) == pytest.approx(tuple(want), rel=1e-3)


def test_bca_moves_the_ends_of_a_skewed_number():
    side = torch.randn(20, 8, generator=rng(), dtype=torch.float64).exp()
    plain, bent = (
        two_level_bootstrap([side], mean, rng=rng(1), kind=kind) for kind in ("percentile", "bca")
    )
    assert bent.low > plain.low
    assert bent.high > plain.high


@pytest.mark.parametrize("models", [1, 2])
def test_too_few_models_have_no_interval(models):
    got = two_level_bootstrap([torch.ones(models, 4), torch.ones(9, 4)], ratio, rng=rng())
    assert got.value == 1.0
    assert math.isnan(got.low)
    assert f"{models} models on a side" in got.note


def test_a_number_that_is_not_always_defined_has_no_interval():
    sides = [torch.ones(4, 1), torch.tensor([[0.0], [0.0], [0.0], [1.0]])]
    got = two_level_bootstrap(
        sides, lambda s: ratio(s) if float(s[1].mean()) else math.nan, rng=rng()
    )
    assert math.isnan(got.low)
    assert "not finite in" in got.note


def test_few_draws_are_refused():
    with pytest.raises(InputError, match="draws must be at least 2000, got 999"):
        two_level_bootstrap([torch.ones(4, 1)], mean, rng=rng(), draws=999)


def test_sides_of_other_examples_are_refused():
    with pytest.raises(InputError, match="the same examples"):
        two_level_bootstrap([torch.ones(4, 1), torch.ones(4, 2)], ratio, rng=rng())
