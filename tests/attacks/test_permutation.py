"""The permutation test against SciPy's distances, enumeration, and its own level."""

import itertools
import math

import pytest
import torch
from scipy import stats

from unlearnkit.attacks.permutation import permutation_test, smallest_shift
from unlearnkit.core.errors import InputError
from unlearnkit.stats import matrix_checks as cells

BOTH = pytest.mark.parametrize("statistic", ["energy", "mean"])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(models, examples, seed):
    return torch.randn(models, examples, generator=rng(seed), dtype=torch.float64)


def by_hand(margins, n, statistic):
    """The statistic of the first n rows against the others, one example at a time."""
    found = 0.0
    for column in margins.T.numpy():
        u, o = column[:n] / column.std(ddof=1), column[n:] / column.std(ddof=1)
        energy = 2 * stats.energy_distance(u, o) ** 2 / 2
        found += energy if statistic == "energy" else abs(u.mean() - o.mean())
    return found / margins.shape[1]


@BOTH
@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5)])
def test_all_labellings_are_counted_as_by_hand(statistic, n, m):
    u, o = normal(n, 4, 1) + 0.7, normal(m, 4, 2)
    both = torch.cat([u, o])
    want = []
    for members in itertools.combinations(range(n + m), n):
        others = [k for k in range(n + m) if k not in members]
        want.append(by_hand(both[[*members, *others]], n, statistic))
    got = permutation_test(u, o, rng=rng(), statistic=statistic)
    assert got.statistic == pytest.approx(want[0], rel=1e-9)
    assert got.p == pytest.approx(sum(t >= want[0] - 1e-9 for t in want) / len(want))
    assert (got.labellings, got.complete) == (math.comb(n + m, n), True)


@BOTH
@pytest.mark.parametrize(
    ("models", "least", "labellings"), [(3, 0.1, 20), (4, 2 / 70, 70), (5, 2 / 252, 252)]
)
def test_few_models_reach_the_smallest_p_value_there_is(statistic, models, least, labellings):
    u, o = normal(models, 90, 1) + 3, normal(models, 90, 2)
    got = permutation_test(u, o, rng=rng(), statistic=statistic)
    assert got.p == pytest.approx(least)
    assert got.labellings == labellings
    assert ("p cannot be below 0.1" in got.note) == (models == 3)


@BOTH
def test_eight_models_a_side_reach_a_thousandth(statistic):
    got = permutation_test(normal(8, 90, 1) + 3, normal(8, 90, 2), rng=rng(), statistic=statistic)
    assert (got.p, got.labellings, got.complete) == (0.001, 999, False)


@BOTH
def test_without_a_difference_p_values_are_uniform(statistic):
    found = [
        permutation_test(
            normal(6, 5, 2 * k), normal(6, 5, 2 * k + 1), rng=rng(k), statistic=statistic, draws=99
        ).p
        for k in range(200)
    ]
    # On a grid of 1/100: the largest distance from uniform grows by as much.
    assert stats.kstest(found, "uniform").statistic < stats.kstwo.ppf(0.99, 200) + 0.01


def test_examples_are_found_by_their_adjusted_p_values():
    u, o = normal(12, 50, 1), normal(12, 50, 2)
    u[:, 7] += 4
    u[:, 30] -= 4
    got = permutation_test(u, o, rng=rng())
    assert (got.rows_p <= 0.05).nonzero()[:, 0].tolist() == [7, 30]
    assert got.rows[7] > 1
    assert got.rows[30] < -1


def test_adjusted_p_values_are_rarely_small_without_a_difference():
    found = [
        float(
            permutation_test(
                normal(6, 30, 2 * k),
                normal(6, 30, 2 * k + 1),
                rng=rng(k),
                statistic="mean",
                draws=99,
            ).rows_p.min()
        )
        for k in range(150)
    ]
    assert sum(p <= 0.05 for p in found) <= stats.binom.ppf(0.999, 150, 0.05)


def test_only_energies_see_a_change_of_spread():
    u, o = normal(16, 40, 1) / 4, normal(16, 40, 2)
    u, o = u - u.mean(0), o - o.mean(0)
    energy, means = (permutation_test(u, o, rng=rng(), statistic=s).p for s in ("energy", "mean"))
    assert energy == 0.001
    assert means > 0.9


def test_the_scale_of_an_example_does_not_matter():
    u, o = normal(7, 9, 1), normal(7, 9, 2)
    scale = torch.logspace(-3, 3, 9, dtype=torch.float64)
    a, b = (permutation_test(f * u, f * o + 5 * f, rng=rng()) for f in (1.0, scale))
    assert a.p == b.p
    assert a.statistic == pytest.approx(b.statistic)


def test_margins_that_never_vary_are_indistinguishable():
    got = permutation_test(torch.ones(5, 3), torch.ones(5, 3), rng=rng())
    assert (got.p, got.statistic) == (1.0, 0.0)
    assert got.rows_p.tolist() == [1.0] * 3


@BOTH
def test_pieces_do_not_change_the_numbers(statistic, monkeypatch):
    u, o = normal(9, 40, 1), normal(8, 40, 2)
    want = permutation_test(u, o, rng=rng(), statistic=statistic)
    monkeypatch.setattr(cells, "CELLS", 10_000)
    got = permutation_test(u, o, rng=rng(), statistic=statistic)
    assert got.p == want.p
    torch.testing.assert_close(got.rows_p, want.rows_p)


@pytest.mark.parametrize(("n", "m"), [(1, 8), (8, 1), (0, 0)])
def test_too_few_models_have_no_p_value(n, m):
    got = permutation_test(torch.zeros(n, 3), torch.zeros(m, 3), rng=rng())
    assert math.isnan(got.p)
    assert f"{n} unlearned models and {m} oracles" in got.note


def test_no_draws_are_refused():
    with pytest.raises(InputError, match="draws must be 1 or more, got 0"):
        permutation_test(torch.zeros(3, 1), torch.zeros(3, 1), rng=rng(), draws=0)


@BOTH
def test_the_smallest_shift_is_found_about_four_times_in_five(statistic):
    shift = smallest_shift(normal(8, 20, 1), normal(8, 20, 2), rng=rng(), statistic=statistic)
    found = [
        permutation_test(
            normal(8, 20, 2 * k) + shift,
            normal(8, 20, 2 * k + 1),
            rng=rng(k),
            statistic=statistic,
            draws=199,
        ).p
        < 0.05
        for k in range(1, 151)
    ]
    # Four standard errors of a share of 100 draws and one of 150, and the steps of the search.
    assert sum(found) / 150 == pytest.approx(0.8, abs=4 * 0.4 * (1 / 100 + 1 / 150) ** 0.5 / 2)


@BOTH
def test_a_shift_that_is_there_is_not_mistaken_for_spread(statistic):
    u, o = normal(8, 20, 1), normal(8, 20, 2)
    one, two = (smallest_shift(u + k, o, rng=rng(), statistic=statistic, draws=20) for k in (0, 50))
    assert one == two


@pytest.mark.parametrize(
    ("u", "o"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 3)),
        (torch.rand(3, 4), torch.rand(3, 4)),
        (torch.rand(1, 4), torch.rand(9, 4)),
        (torch.rand(5, 0), torch.rand(5, 0)),
    ],
    ids=["no spread", "three models", "one model", "no examples"],
)
def test_what_sees_nothing_has_no_smallest_shift(u, o):
    assert math.isnan(smallest_shift(u, o, rng=rng(), draws=10))
