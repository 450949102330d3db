"""Forget rows get targets with the spread of the training targets; the rest is untouched."""

import math

import pytest
import torch

import unlearnkit as uk
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.errors import InputError
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.gaussian_amnesiac import GaussianAmnesiac


def problem(net, forget, retain):
    y = torch.cat([forget, retain])
    rows = View.all(TensorData(torch.zeros(len(y), 3, dtype=torch.float64), y))
    first = torch.arange(len(y)) < len(forget)
    task = uk.Regression(y.shape[1])
    return Problem(net, net, task, rows.pick(first), rows.pick(~first), None, uk.Recipe())


@pytest.fixture(scope="module")
def big():
    g = torch.Generator().manual_seed(0)
    forget = 40 + 3 * torch.randn(100_000, 2, generator=g, dtype=torch.float64)
    retain = 60 + 5 * torch.randn(50_000, 2, generator=g, dtype=torch.float64)
    return problem(torch.nn.Linear(3, 2), forget, retain)


@pytest.mark.parametrize("statistics", ["all", "retain"])
@pytest.mark.parametrize("draw", ["gaussian", "rows"])
def test_targets_have_mean_and_deviation_of_the_chosen_rows(big, statistics, draw):
    y = GaussianAmnesiac(statistics=statistics, draw=draw).random_targets(big, Runtime())
    source = big.retain.y
    if statistics == "all":
        source = torch.cat([big.forget.y, source])
    mean, std = source.mean(0), source.std(0)
    assert y.shape == big.forget.y.shape
    assert bool(((y.mean(0) - mean).abs() <= 4 * std / math.sqrt(len(y))).all())
    assert bool(((y.std(0) / std - 1).abs() <= 0.02).all())


def test_a_seed_draws_the_same_targets_and_another_seed_others(big):
    how = GaussianAmnesiac()
    first = how.random_targets(big, Runtime(seed=1))
    assert torch.equal(first, how.random_targets(big, Runtime(seed=1)))
    assert not torch.equal(first, how.random_targets(big, Runtime(seed=2)))


def test_clipped_targets_and_those_of_rows_stay_in_the_range(big):
    source = torch.cat([big.forget.y, big.retain.y])
    low, high = source.amin(0), source.amax(0)
    assert bool((GaussianAmnesiac().random_targets(big, Runtime()) < low).any())
    for how in (GaussianAmnesiac(clip=True), GaussianAmnesiac(draw="rows")):
        y = how.random_targets(big, Runtime())
        assert bool(((y >= low) & (y <= high)).all())
    whole = {tuple(row) for row in source.tolist()}
    assert {tuple(row) for row in y[:100].tolist()} <= whole


def test_a_step_is_that_of_retained_rows_with_their_own_targets_and_drawn_ones(line):
    net, case = line()
    forget = [0, 1, 2, 3]
    before = case.train.y.clone()
    run = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
    how = GaussianAmnesiac(early=1, run=run)
    got = uk.unlearn(net, case, uk.Rows(forget), how).model
    rows = View.all(case.train)
    p = Problem(
        net, net, case.task, rows.pick(torch.tensor(forget)), rows.pick(torch.arange(4, 20)), None,
        case.recipe,
    )  # fmt: skip
    y = torch.cat([how.random_targets(p, Runtime()), case.train.y[4:]])
    x, w = case.train.x, net.weight.detach()
    want = w - 0.05 * 2 * (x @ w.T - y).T @ x / 16
    torch.testing.assert_close(got.weight.detach(), want, rtol=1e-10, atol=1e-12)
    assert torch.equal(case.train.y, before)


@pytest.mark.parametrize("statistics", ["all", "retain"])
def test_targets_without_spread_are_refused(statistics):
    x = torch.randn(12, 3)
    y = torch.full((12,), 2.5)
    y[:2] = 1.0 if statistics == "retain" else 2.5
    case = uk.Case(train=(x, y), task="regression", recipe=uk.Recipe())
    how = GaussianAmnesiac(statistics=statistics)
    with pytest.raises(InputError, match=r"without spread, got .* equal targets"):
        uk.unlearn(torch.nn.Linear(3, 1), case, uk.Rows(0, 1), how)


def test_the_preset_is_one_epoch_of_adam_on_all_rows():
    how = GaussianAmnesiac.build("paper")
    assert (how.early, how.statistics, how.clip) == (1.0, "all", False)
    assert (how.run.recipe.optimizer, how.run.recipe.lr, how.run.recipe.epochs) == ("adam", 1e-3, 1)
