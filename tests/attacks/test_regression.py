"""Errors in regression follow the row: attacks that take that out, on planted leaks."""

import math

import pytest
import torch
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor

from unlearnkit.attacks.quantile_attack import (
    AttackRows,
    quantile_threshold_attack,
    scaled_residual_attack,
)
from unlearnkit.core.errors import InputError
from unlearnkit.stats.roc import auc


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def residuals(n, shrink=1.0, seed=0):
    """Return rows whose residual is Gaussian, with a deviation of exp(2 x) that all can know."""
    draw = rng(seed)
    x = torch.rand(n, 3, generator=draw, dtype=torch.float64) * 2 - 1
    z = torch.randn(n, generator=draw, dtype=torch.float64)
    return AttackRows(-(shrink * (2 * x[:, 0]).exp() * z).abs(), x)


def planted(shrink):
    """Return P(c |Z| < |Z'|): a quarter turn measured by an angle."""
    return 2 / math.pi * math.atan(1 / shrink)


def test_residuals_in_units_of_their_size_reach_the_known_auc():
    members, unseen = residuals(1500, 0.4, seed=1), residuals(3000, seed=2)
    got = scaled_residual_attack(members, unseen, rng())
    assert abs(got.auc - planted(0.4)) < 0.015
    assert auc(members.score, unseen.score) < planted(0.4) - 0.05


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("attack", [scaled_residual_attack, quantile_threshold_attack])
def test_rows_like_the_never_seen_ones_are_not_found(attack, seed):
    members, unseen = residuals(400, seed=10 + seed), residuals(800, seed=20 + seed)
    error = math.sqrt((400 + 400 + 1) / (12 * 400 * 400))
    assert abs(attack(members, unseen, rng(seed)).auc - 0.5) < 3.5 * error


def test_a_threshold_for_each_row_lets_the_asked_share_pass():
    got = quantile_threshold_attack(residuals(500, seed=1), residuals(2000, seed=2), rng(), fpr=0.1)
    low, high = stats.binom(2000, 0.1).ppf([0.001, 0.999]) / 2000
    assert low - 0.02 < got.fpr < high + 0.02
    assert got.accuracy == pytest.approx(0.5, abs=0.03)


def test_a_threshold_for_each_row_catches_more_than_one_for_all():
    members, unseen = residuals(1000, 0.2, seed=1), residuals(2000, seed=2)
    got = quantile_threshold_attack(members, unseen, rng(), fpr=0.2)
    edge = unseen.score.sort(descending=True).values[int(got.fpr * 2000)]
    assert got.tpr > float((members.score > edge).double().mean()) + 0.1
    assert got.tpr == pytest.approx(float(got.caught.mean()))


def test_the_threshold_is_that_of_boosting_on_the_other_half():
    members, unseen = residuals(30, seed=1), residuals(200, seed=2)
    order = torch.randperm(200, generator=rng(5))
    halves, areas, passed = (order[:100], order[100:]), [], []
    for fit, judge in (halves, halves[::-1]):
        trees = HistGradientBoostingRegressor(
            loss="quantile",
            quantile=0.9,
            max_iter=40,
            max_leaf_nodes=4,
            min_samples_leaf=50,
            early_stopping=False,
            random_state=0,
        ).fit(unseen.about[fit].numpy(), unseen.score[fit].numpy())
        over = members.score.numpy() - trees.predict(members.about.numpy())
        other = unseen.score[judge].numpy() - trees.predict(unseen.about[judge].numpy())
        areas.append((over[:, None] > other).mean())
        passed += list(other > 0)
    got = quantile_threshold_attack(members, unseen, rng(5), fpr=0.1)
    assert got.auc == pytest.approx(sum(areas) / 2, rel=1e-12)
    assert got.fpr == pytest.approx(sum(passed) / 200, rel=1e-12)


@pytest.mark.parametrize("attack", [scaled_residual_attack, quantile_threshold_attack])
def test_too_few_never_seen_rows_are_said(attack):
    got = attack(residuals(30), residuals(39), rng())
    assert math.isnan(got.auc)
    assert "40 never-seen rows" in got.note


def test_a_rate_that_the_rows_cannot_show_is_said_but_the_auc_stands():
    got = quantile_threshold_attack(residuals(30, seed=1), residuals(199, seed=2), rng(), fpr=0.05)
    assert math.isnan(got.tpr)
    assert "200 never-seen rows" in got.note
    assert 0 < got.auc < 1
    assert (
        quantile_threshold_attack(residuals(30), residuals(200, seed=2), rng(), fpr=0.05).note == ""
    )


def test_residuals_that_are_all_zero_are_said():
    rows = AttackRows(torch.zeros(60, dtype=torch.float64), torch.rand(60, 1))
    assert "residuals of never-seen rows are 0" in scaled_residual_attack(rows, rows, rng()).note


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (
            lambda r: quantile_threshold_attack(r, r, rng(), fpr=1.0),
            "fpr must be between 0 and 1, got 1.0",
        ),
        (
            lambda r: scaled_residual_attack(AttackRows(-r.score, r.about), r, rng()),
            "minus a residual's size",
        ),
        (
            lambda r: scaled_residual_attack(AttackRows(r.score / 0, r.about), r, rng()),
            "got 50 of 50 that are not",
        ),
        (
            lambda r: scaled_residual_attack(AttackRows(r.score[:, None], r.about), r, rng()),
            "scores must be",
        ),
    ],
)
def test_bad_input_is_refused(attack, told):
    with pytest.raises(InputError, match=told):
        attack(residuals(50))


def test_images_are_flattened_and_units_do_not_matter():
    members, unseen = residuals(30, 0.5, seed=1), residuals(90, seed=2)
    shaped = [AttackRows(r.score * 1e-9, r.about.reshape(-1, 3, 1)) for r in (members, unseen)]
    assert scaled_residual_attack(*shaped, rng()).auc == pytest.approx(
        scaled_residual_attack(members, unseen, rng()).auc
    )
