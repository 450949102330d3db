"""Rows compared at like targets: the AUC, its interval, and the bins of held-out rows."""

import math

import numpy as np
import pytest
import torch

from unlearnkit.core.errors import InputError
from unlearnkit.stats.matched_auc import (
    CALIPER,
    ENOUGH,
    NEIGHBOURS,
    matched_auc,
    matched_auc_difference,
    project_targets,
    quantile_bins,
    within_caliper,
)
from unlearnkit.stats.roc import auc, auc_interval


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(members, others, y, z):
    """Member by member, in plain Python: mean share of the nearest others below, and how many."""
    deviation = float(np.std(y))
    shares = []
    for score, target in zip(members, y, strict=True):
        far = np.abs(np.array(z) - target) / deviation
        edge = min(np.sort(far)[NEIGHBOURS - 1], CALIPER)
        near = [s for s, d in zip(others, far, strict=True) if d <= edge]
        if near:
            shares.append(np.mean([(score > s) + 0.5 * (score == s) for s in near]))
    return float(np.mean(shares)), len(shares)


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_that_of_a_loop_over_members(seed):
    scores, others = normal(40, seed=seed).mul(3).round(), normal(60, seed=10 + seed).mul(3).round()
    y, z = normal(40, 1, seed=20 + seed), normal(60, 1, seed=30 + seed) + 1
    found = matched_auc(scores, others, y, z)
    want, members = by_hand(scores.tolist(), others.tolist(), y[:, 0].tolist(), z[:, 0].tolist())
    assert found.auc == pytest.approx(want, rel=1e-12)
    assert 0 < found.members == members < 40


def test_rows_of_one_target_have_the_plain_area_and_nearly_its_interval():
    members, others = normal(60) + 0.7, normal(80, seed=1)
    found = matched_auc(members, others, torch.ones(60, 2), torch.ones(80, 2))
    assert found.auc == pytest.approx(auc(members, others), rel=1e-12)
    assert found.interval == pytest.approx(auc_interval(members, others), abs=0.003)
    assert (found.members, found.others) == (60, 80)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_its_interval_holds_the_true_area_as_often_as_it_says(shift):
    rng = torch.Generator().manual_seed(3)
    draws, held = 300, 0
    truth = 0.5 * (1 + math.erf(shift / 2))
    for _ in range(draws):
        y, z = (torch.randn(n, 1, generator=rng) for n in (40, 50))
        # The score depends on the target: hard cohorts score low whoever is asked.
        a, b = (t[:, 0] + torch.randn(len(t), generator=rng) for t in (y, z))
        low, high = matched_auc(a + shift, b, y, z).interval
        held += low <= truth <= high
    # Three binomial deviations below 0.95; above, room for what the calliper leaves unmatched.
    assert held / draws > 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)
    assert held / draws < 0.995


def test_a_cohort_that_is_hard_for_everyone_is_not_taken_for_membership():
    plain, matched = [], []
    for seed in range(20):
        y, z = normal(300, 1, seed=seed) + 2, normal(600, 1, seed=100 + seed)
        noise = normal(900, seed=200 + seed)
        a, b = -(y[:, 0] - noise[:300]).abs(), -(z[:, 0] - noise[300:]).abs()
        plain.append(auc(a, b))
        matched.append(matched_auc(a, b, y, z).auc)
    assert np.mean(plain) < 0.35
    assert abs(np.mean(matched) - 0.5) < 3 * np.std(matched) / math.sqrt(20)


def test_memory_shows_inside_a_cohort_that_is_hard_for_everyone():
    y, z = normal(200, 1) + 2, normal(600, 1, seed=1)
    a, b = (-(t[:, 0] - normal(len(t), seed=len(t))).abs() for t in (y, z))
    assert auc(0.7 * a, b) < 0.5
    assert matched_auc(0.7 * a, b, y, z).interval[0] > 0.5


@pytest.mark.parametrize("width", [1, 2, 5])
def test_units_and_origin_of_targets_and_the_order_of_rows_change_nothing(width):
    a, b = normal(30), normal(50, seed=1)
    y, z = normal(30, width, seed=2), normal(50, width, seed=3)
    scale = torch.arange(1, width + 1) * 100.0
    p, q = normal(30, seed=4).argsort(), normal(50, seed=5).argsort()
    want = matched_auc(a, b, y, z)
    got = matched_auc(a[p], b[q], y[p] * scale - 7, z[q] * scale - 7)
    assert got.auc == pytest.approx(want.auc, rel=1e-9)
    assert got.interval == pytest.approx(want.interval, rel=1e-9)


def test_all_rows_of_equal_distance_count():
    near = within_caliper(torch.zeros(1, 1), torch.tensor([[0.0]] * 9 + [[1.0]]))
    assert near[0].tolist() == [True] * 9 + [False]


def test_sequences_are_compared_on_two_axes_that_hold_most_of_them():
    t = torch.linspace(0, 1, 24, dtype=torch.float64)
    level, slope = normal(40, 1), normal(40, 1, seed=1)
    wave = level + slope * t + 0.01 * normal(40, 24, seed=2)
    ours, theirs = project_targets(wave, wave + 0.5)
    assert ours.shape == theirs.shape == (40, 2)
    assert float(ours[:, 0].std(correction=0)) == pytest.approx(1, abs=1e-9)
    apart = torch.cdist(ours, ours) + torch.eye(40) * 9
    nearest = wave[apart.argmin(1)]
    assert float((nearest - wave).abs().mean()) < 0.5 * float(wave.std())


@pytest.mark.parametrize(
    ("y", "z", "n"),
    [
        (torch.zeros(0, 1), torch.zeros(4, 1), (0, 4)),
        (torch.zeros(4, 1), torch.zeros(0, 1), (4, 0)),
        (torch.arange(4.0)[:, None], torch.arange(4.0)[:, None] + 100, (4, 4)),
    ],
    ids=["no member", "no other", "far away"],
)
def test_rows_without_like_ones_have_no_area(y, z, n):
    found = matched_auc(torch.zeros(n[0]), torch.zeros(n[1]), y, z)
    assert math.isnan(found.auc)
    assert found.interval is None
    assert found.members == 0


def test_scores_that_are_no_numbers_have_no_area():
    y = torch.zeros(3, 1)
    assert math.isnan(matched_auc(torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3), y, y).auc)


@pytest.mark.parametrize(("sure", "score"), [((0.5, 1.0), 1.0), ((0.0, 0.5), -1.0)])
def test_groups_that_are_apart_have_an_interval_that_few_rows_can_bear(sure, score):
    y = torch.zeros(10, 1)
    found = matched_auc(torch.full((10,), score), torch.zeros(10), y, y)
    assert found.interval[0] <= found.auc <= found.interval[1]
    assert sure[0] <= found.interval[0]
    assert found.interval[1] <= sure[1]
    assert found.interval[1] - found.interval[0] > 0.25


@pytest.mark.parametrize(("members", "others"), [(9, 50), (50, 9), (3, 3)])
def test_an_area_of_fewer_than_ten_rows_of_a_side_is_undefined(members, others):
    found = matched_auc(
        torch.ones(members), torch.zeros(others), *map(torch.zeros, (members, others))
    )
    assert math.isnan(found.auc)
    assert found.interval is None
    assert (found.members, found.others) == (members, others)


def test_the_difference_of_two_scores_is_that_of_their_areas():
    rng = torch.Generator().manual_seed(3)
    draw = lambda n: torch.randn(n, generator=rng, dtype=torch.float64)  # noqa: E731  # short
    first, second = (draw(40), draw(40)), (draw(70), draw(70))
    y, z = draw(40), draw(70)
    found = matched_auc_difference(first, second, y, z)
    areas = [matched_auc(first[i], second[i], y, z).auc for i in (0, 1)]
    assert found.value == pytest.approx(areas[0] - areas[1], abs=1e-12)
    same = matched_auc_difference((first[0],) * 2, (second[0],) * 2, y, z)
    assert (same.value, same.error) == (0.0, 0.0)


def test_the_error_of_a_difference_covers_draws_of_rows():
    rng = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(200):
        m, o = torch.randn(2, 60, generator=rng), torch.randn(2, 90, generator=rng)
        y, z = torch.rand(60, generator=rng), torch.rand(90, generator=rng)
        found = matched_auc_difference(tuple(m), tuple(o), y, z)
        ratios.append(found.value / found.error)
    # Without any difference the ratio is about standard normal: 200 draws know its deviation
    # to 0.05, and two-way clusters are a little wide; three errors are allowed.
    assert 0.75 < torch.tensor(ratios).std() < 1.15


def test_targets_that_do_not_fit_each_other_are_refused():
    with pytest.raises(InputError, match="equally many targets, got 1 and 2"):
        project_targets(torch.zeros(3, 1), torch.zeros(3, 2))
    with pytest.raises(InputError, match="must be finite, got 2 that are not"):
        project_targets(torch.tensor([[math.nan]]), torch.tensor([[math.inf]]))


def test_bins_are_quantiles_of_the_wanted_rows_and_what_lies_beyond_is_in_none():
    wanted, there = normal(400, 1), normal(2000, 1, seed=1) + 0.5
    mine, other, count = quantile_bins(wanted, there)
    assert count == 10
    assert torch.bincount(mine).tolist() == [40] * 10
    inside = (there[:, 0] >= wanted.min()) & (there[:, 0] <= wanted.max())
    assert torch.equal(other >= 0, inside)
    assert int(torch.bincount(other[inside]).min()) >= ENOUGH
    order = wanted[:, 0].argsort()
    assert mine[order].tolist() == sorted(mine.tolist())


def test_there_are_fewer_bins_where_there_are_few_rows():
    _, _, count = quantile_bins(normal(31, 1), normal(88, 1, seed=1))
    assert 1 < count < 10
    assert quantile_bins(normal(31, 1), normal(5, 1, seed=1))[2] == 1


def test_targets_without_spread_have_one_bin():
    mine, other, count = quantile_bins(torch.ones(30, 1), torch.tensor([[1.0]] * 50 + [[2.0]]))
    assert count == 1
    assert mine.unique().tolist() == [0]
    assert other.tolist() == [0] * 50 + [-1]
