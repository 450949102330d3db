"""The two-level bootstrap against closed forms and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unlearnkit.core.errors import InputError
from unlearnkit.stats.bootstrap import drawn_mean, two_level_bootstrap


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def bootstrap(sides, of_means, **more):
    """The interval of a number that is computed from the means of the sides."""

    def statistic(models, examples):
        return of_means(*(drawn_mean(s, m, examples) for s, m in zip(sides, models, strict=True)))

    value = float(of_means(*(s.mean() for s in sides)))
    return two_level_bootstrap(value, list(map(len, sides)), sides[0].shape[1], statistic, **more)


def mean(one):
    return one


def ratio(one, other):
    return one / other


def test_the_error_of_a_mean_adds_models_and_examples():
    models, examples = torch.randn(12, 1, generator=rng()), torch.randn(1, 40, generator=rng(1))
    side = (models + 2 * examples).double()
    got = bootstrap([side], mean, rng=rng(2), draws=4000)
    parts = models.double().var(correction=0) / 12 + 4 * examples.double().var(correction=0) / 40
    assert got.value == pytest.approx(float(side.mean()))
    assert got.error == pytest.approx(math.sqrt(float(parts)), rel=0.04)
    assert got.low < got.value < got.high
    assert got.high - got.low == pytest.approx(2 * 1.96 * got.error, rel=0.06)


def test_sides_share_their_examples():
    # The difference of two sides that differ by a constant does not vary with the examples.
    one = torch.randn(1, 30, generator=rng()).expand(5, 30).double()
    got = bootstrap([one, one + 1], lambda a, b: b - a, rng=rng(1))
    assert (got.low, got.high) == pytest.approx((1.0, 1.0))


def test_for_one_example_the_ends_are_scipys():
    a = torch.randn(25, 1, generator=rng(), dtype=torch.float64).exp()
    b = torch.randn(30, 1, generator=rng(1), dtype=torch.float64).exp() + 0.5
    got = bootstrap([a, b], ratio, rng=rng(2), draws=4000)
    want = stats.bootstrap(
        (a[:, 0].numpy(), b[:, 0].numpy()),
        lambda x, y, axis: x.mean(axis) / y.mean(axis),
        method="percentile",
        n_resamples=9999,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    # 100 of 4000 draws lie beyond an end, give or take 10: 0.04 deviations of the number.
    reach = 4 * 0.05 * got.error
    assert got.low == pytest.approx(want.low, abs=reach)
    assert got.high == pytest.approx(want.high, abs=1.5 * reach)


@pytest.mark.parametrize("models", [1, 2])
def test_too_few_models_have_no_interval(models):
    got = bootstrap([torch.ones(models, 4), torch.ones(9, 4)], ratio, rng=rng())
    assert got.value == 1.0
    assert math.isnan(got.low)
    assert f"{models} models on a side" in got.note


def test_a_number_that_is_not_always_defined_has_no_interval():
    sides = [torch.ones(4, 1), torch.tensor([[0.0], [0.0], [0.0], [1.0]])]
    got = bootstrap(sides, lambda a, b: torch.where(b > 0, ratio(a, b), math.nan), rng=rng())
    assert math.isnan(got.low)
    assert "not finite in" in got.note


def test_few_draws_are_refused():
    with pytest.raises(InputError, match="draws must be at least 2000, got 999"):
        bootstrap([torch.ones(4, 1)], mean, rng=rng(), draws=999)
