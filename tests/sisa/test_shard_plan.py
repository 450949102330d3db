"""Where rows stand: by their own key alone, or by how likely they are to go."""

from fractions import Fraction

import numpy as np
import pytest

from unlearnkit.core.errors import InputError
from unlearnkit.sisa import plan_at_random, plan_by_expected_deletions
from unlearnkit.sisa.shard_network import slice_epochs


def test_the_place_of_a_row_depends_on_no_other_row():
    keys = [f"patient-{i}" for i in range(500)]
    whole = plan_at_random(keys, shards=7, slices=3, seed=1)
    gone = [3, 77, 400]
    few = plan_at_random(np.delete(keys, gone).tolist(), shards=7, slices=3, seed=1)
    assert whole.without(gone) == few
    assert whole != plan_at_random(keys, shards=7, slices=3, seed=2)


def test_random_shards_and_slices_are_equally_likely():
    plan = plan_at_random(range(60_000), shards=6, slices=4, seed=0)
    cells = np.bincount(plan.shard * 4 + plan.slice_number, minlength=24)
    mean = 60_000 / 24
    assert ((cells - mean) ** 2 / mean).sum() < 49.7  # chi-squared, 23 degrees, 0.001


def test_a_random_row_is_in_a_shard_of_its_share_of_the_rows():
    plan = plan_at_random(range(2000), shards=8, seed=0)
    sizes = np.bincount(plan.shard, minlength=8)
    assert plan.expected_share() == pytest.approx((sizes**2).sum() / 2000**2)
    assert plan.expected_share() < 1.1 / 8


def test_shards_by_expected_deletions_expect_as_many_each():
    rng = np.random.default_rng(0)
    expected = rng.lognormal(sigma=1.5, size=3000)
    plan = plan_by_expected_deletions(
        range(3000), expected, shards=6, slices=3, balance="deletions"
    )
    sums = np.bincount(plan.shard, weights=expected)
    assert np.abs(sums - expected.sum() / 6).max() <= expected.max()
    sizes = np.bincount(plan.shard)
    assert (np.diff(sizes) < 0).all()
    for k in range(6):
        rows = plan.shard == k
        counts = np.bincount(plan.slice_number[rows], minlength=3)
        assert np.ptp(counts) <= 1
        means = [expected[rows & (plan.slice_number == s)].mean() for s in range(3)]
        assert means == sorted(means)


def test_shards_by_expected_deletions_cost_less_where_deletions_are_uneven():
    expected = np.where(np.arange(3000) < 300, 0.2, 0.002)
    ours = plan_by_expected_deletions(range(3000), expected, shards=6)
    random = plan_at_random(range(3000), shards=6)
    assert ours.expected_share(expected) < 0.6 * random.expected_share(expected)


def test_equal_expected_deletions_do_not_make_a_single_request_cheaper():
    """``sum_s P_s n_s`` is ``N / S`` where all ``P_s`` are alike, whatever the sizes."""
    expected = np.random.default_rng(0).lognormal(sigma=1.5, size=3000)
    plan = plan_by_expected_deletions(range(3000), expected, shards=6, balance="deletions")
    assert plan.expected_share(expected) == pytest.approx(1 / 6, rel=0.02)


@pytest.mark.parametrize("sigma", [0.5, 1.5, 2.5])
def test_no_cut_of_the_order_costs_much_less(sigma):
    """Against the best cut into four shards, found by trying all (dynamic programming)."""
    expected = np.sort(np.random.default_rng(1).lognormal(sigma=sigma, size=200))
    sums = np.concatenate([[0], np.cumsum(expected)])
    best = np.full((5, 201), np.inf)
    best[0, 0] = 0
    for k in range(1, 5):
        for end in range(1, 201):
            starts = np.arange(end)
            cost = (sums[end] - sums[:end]) * (end - starts)
            best[k, end] = (best[k - 1, :end] + cost).min()
    plan = plan_by_expected_deletions(range(200), expected, shards=4)
    found = plan.expected_share(expected) * 200 * expected.sum()
    assert best[4, 200] <= found * (1 + 1e-12)
    assert found < 1.08 * best[4, 200]


def test_a_row_that_outweighs_all_others_leaves_no_shard_empty():
    plan = plan_by_expected_deletions(range(10), [1e-6] * 9 + [1.0], shards=4)
    assert sorted(set(plan.shard.tolist())) == list(range(plan.shards))


@pytest.mark.parametrize("slices", range(1, 9))
@pytest.mark.parametrize("epochs", [10, 30, 77])
def test_slices_read_as_many_rows_as_training_without_them(slices, epochs):
    each = slice_epochs(epochs, slices)
    read = sum(Fraction(e * (k + 1), slices) for k, e in enumerate(each))
    assert abs(read - epochs) <= Fraction(1, 2) + Fraction(1, 2 * slices)
    assert len(each) == slices


def test_one_slice_is_the_whole_training():
    assert slice_epochs(12, 1) == [12]
    assert min(slice_epochs(2, 9)) == 1


@pytest.mark.parametrize("slices", [2, 5, 20])
def test_slices_save_what_the_paper_says(slices):
    """A row of a random slice costs ``2/3 + 1/(3R)`` of the shard's training (section V)."""
    each = slice_epochs(2000 * (slices + 1), slices)
    costs = [e * (k + 1) for k, e in enumerate(each)]
    share = np.mean([sum(costs[first:]) for first in range(slices)]) / sum(costs)
    assert share == pytest.approx(2 / 3 + 1 / (3 * slices), rel=1e-3)


@pytest.mark.parametrize(
    ("keys", "more", "said"),
    [
        ([1, 2, 1], {"shards": 2}, "1 names two rows; give each row a key of its own"),
        ([1.5, 2.0], {"shards": 2}, "must be whole numbers or texts, got 1.5"),
        (range(9), {"shards": 0}, "shards: must be a whole number of at least 1, got 0"),
        (range(9), {"shards": 2, "slices": 1.0}, "slices: must be a whole number"),
        (range(9), {"shards": 5, "slices": 2}, "5 x 2 slices for 9 rows; choose fewer"),
    ],
)
def test_what_makes_no_plan_is_refused(keys, more, said):
    with pytest.raises(InputError, match=said):
        plan_at_random(keys, **more)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ([1.0, 2.0], "got shape .2,. for 4 rows"),
        ([0.0] * 4, "not all 0"),
        ([1.0, -1.0, 1.0, 1.0], "at least 0"),
        ([1.0, float("nan"), 1.0, 1.0], "must be finite"),
    ],
)
def test_expectations_that_are_none_are_refused(expected, said):
    with pytest.raises(InputError, match=said):
        plan_by_expected_deletions(range(4), expected, shards=2)
