import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.early_stopping import (
    FAR,
    ReduceRateOnPlateau,
    StopMonitor,
    StopRule,
    alike,
    bisect_state,
    cap_losses,
    follow,
    furthest,
    furthest_by_excess,
    rows_of_removed_classes,
    snapshot,
)

RETAIN, FORGET, UNSEEN = 0.1, 0.2, 0.5


class Table(nn.Module):
    """A binary classifier whose loss on each kind of rows is set by hand."""

    def __init__(self):
        super().__init__()
        self.loss = nn.Parameter(torch.tensor([RETAIN, FORGET, UNSEEN], dtype=torch.float64))

    def forward(self, x):
        p = torch.exp(-self.loss[x[:, 0].long()])
        return torch.stack([p.log(), torch.log1p(-p)], 1)


def view(kind, count=4, y=0):
    x = torch.full((count, 1), float(kind), dtype=torch.float64)
    return View.all(TensorData(x, torch.full((count,), y)))


def problem(**changes):
    base = Problem(
        model=Table(),
        original=Table(),
        task=Classification(2),
        forget=view(1),
        retain=view(0),
        validation=view(2),
        recipe=Recipe(),
    )
    return replace(base, **changes)


def with_losses(p, retain=RETAIN, forget=FORGET, unseen=UNSEEN):
    with torch.no_grad():
        p.model.loss.copy_(torch.tensor([retain, forget, unseen]))


def watch(p, rt=None, **guard):
    return StopMonitor(StopRule(**guard), p, rt or Runtime(), "test")


@pytest.mark.parametrize(("loss", "unseen"), [(0.2, False), (0.49, False), (0.51, True)])
def test_a_subset_looks_unseen_at_the_loss_of_validation_rows(loss, unseen):
    p = problem()
    w = watch(p)
    with_losses(p, forget=loss)
    assert w.unseen() == w.overshot() == unseen


def test_validation_rows_are_judged_by_the_model_as_it_is_now():
    p = problem()
    w = watch(p)
    with_losses(p, forget=0.9, unseen=1.5)
    assert not w.unseen()


@pytest.mark.parametrize(("loss", "unseen"), [(1.3, False), (1.4, True)])
def test_a_vanished_class_looks_unseen_at_a_multiple_of_ignorance(loss, unseen):
    p = problem(removed_classes=(0,))
    w = watch(p, gone_loss=2.0)
    with_losses(p, forget=loss)
    assert 2 * math.log(2) == pytest.approx(w.goal())
    assert w.unseen() == unseen
    assert not w.overshot()


def test_a_mixed_request_has_a_mixed_goal():
    y = torch.tensor([0, 1, 1, 1])
    mixed = View.all(TensorData(torch.ones(4, 1, dtype=torch.float64), y))
    seen = view(2, y=0)
    w = watch(problem(forget=mixed, removed_classes=(1,), validation=seen), gone_loss=3.0)
    assert w.goal() == pytest.approx(0.75 * 3 * math.log(2) + 0.25 * UNSEEN)


@pytest.mark.parametrize(("rise", "intact"), [(0.0, True), (0.06, True), (0.08, False)])
def test_retained_rows_may_rise_by_a_share_of_ignorance(rise, intact):
    p = problem()
    w = watch(p, floor=0.1)  # 0.1 * log 2 = 0.069
    with_losses(p, retain=RETAIN + rise)
    assert w.intact() == intact


def test_a_loss_that_is_not_a_number_is_not_intact():
    p = problem()
    w = watch(p, floor=0.1)
    with_losses(p, retain=float("nan"))
    assert not w.intact()


def test_validation_rows_of_kept_classes_stand_in_for_retained_rows():
    p = problem(retain=view(0).seal("absent"))
    w = watch(p, floor=0.1)
    with_losses(p, unseen=UNSEEN + 0.08)
    assert not w.intact()


def test_without_any_rows_that_stay_there_is_no_floor_and_a_note():
    rt = Runtime()
    p = problem(retain=view(0).seal("absent"), validation=None)
    assert watch(p, rt, stop="never").intact()
    assert rt.notes == ["test: no retained and no validation rows, so no floor under what stays"]


@pytest.mark.parametrize("edge", [0.0, 0.2, 0.5, 0.93, 1.0])
def test_bisection_finds_the_edge_from_below(edge):
    got = furthest(lambda t: t <= edge, steps=10)
    assert edge - 2**-10 <= got <= edge


def test_a_cap_ends_the_gradient_of_a_row():
    losses = torch.tensor([0.5, 3.0], requires_grad=True)
    out = cap_losses(losses, 2.0, Classification(2))
    out.sum().backward()
    assert out.tolist() == pytest.approx([0.5, 2 * math.log(2)])
    assert losses.grad.tolist() == [1.0, 0.0]


def test_a_state_between_two_is_on_the_line_and_counters_are_the_ends():
    net = nn.BatchNorm1d(2)
    start = snapshot(net)
    net.train()(torch.tensor([[1.0, 2.0], [5.0, 8.0]]))
    end = snapshot(net)
    bisect_state(net, start, end, 0.25)
    want = start["running_mean"] + 0.25 * (end["running_mean"] - start["running_mean"])
    torch.testing.assert_close(net.running_mean, want)
    assert net.num_batches_tracked == 1
    bisect_state(net, start, end, 0.0)
    assert net.num_batches_tracked == 0
    assert torch.equal(net.running_mean, start["running_mean"])


def test_rows_alike_share_a_class_and_real_targets_are_all_alike():
    many = View.all(TensorData(torch.zeros(6, 1), torch.tensor([0, 1, 2, 0, 1, 2])))
    few = View.all(TensorData(torch.zeros(2, 1), torch.tensor([2, 0])))
    assert alike(many, few).rows.tolist() == [0, 2, 3, 5]
    assert rows_of_removed_classes(many, (1,)).tolist() == [False, True, False] * 2
    real = View.all(TensorData(torch.zeros(3, 1), torch.rand(3, 1)))
    assert len(alike(real, real.pick(torch.tensor([0])))) == 3


def test_a_running_mean_keeps_its_share_and_counts_are_the_models():
    mean, model = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.num_batches_tracked.fill_(7)
    follow(mean, model, 0.75)
    assert mean.weight.tolist() == [1.5, 1.5]
    assert int(mean.num_batches_tracked) == 7


def test_a_rate_is_halved_after_two_looks_without_a_fall():
    plateau, factors = ReduceRateOnPlateau(), []
    for loss in (2.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5):
        plateau.step(loss)
        factors.append(plateau.factor)
    assert factors == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("edge", [0.0, 0.003, 0.2, 0.5, 0.77, 0.996, 1.0])
@pytest.mark.parametrize("shape", ["steep", "flat", "step", "nothing"])
def test_the_excess_leads_to_the_point_of_bisection_in_at_most_one_try_more(edge, shape):
    tried = []

    def excess(x):
        tried.append(x)
        gap = x - edge if x != edge else 0.0
        return {
            "steep": max(-FAR, min(FAR, 30 * gap)),
            "flat": 0.01 * gap,
            "step": FAR if gap > 0 else -FAR,
            "nothing": gap if gap > 0 else -FAR,
        }[shape]

    assert furthest_by_excess(excess, steps=8) == furthest(lambda x: x <= edge, steps=8)
    assert len(tried) <= 10


@pytest.mark.parametrize("factor", [0.0, 1.0, 3.0])
def test_a_few_rows_decide_only_where_all_rows_would_say_the_same(factor):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 4, generator=rng), torch.randint(3, (400,), generator=rng)
    case = Case(train=(x, y), task="classification", fresh=lambda: nn.Linear(4, 3))
    problem = SimpleNamespace(
        model=nn.Linear(4, 3), original=nn.Linear(4, 3), task=case.task, removed_classes=(),
        forget=View.all(case.train).pick(torch.arange(20)), validation=None,
        retain=View.all(case.train).pick(torch.arange(20, 400)),
    )  # fmt: skip
    problem.model.load_state_dict(problem.original.state_dict())
    watch = StopMonitor(StopRule(), problem, Runtime(), "test")
    with torch.no_grad():
        problem.model.weight += factor
        problem.model.bias[0] += 10 * factor
    few, whole = (watch.excess(all_rows=every) for every in (False, True))
    assert (few[0] <= 0) == (whole[0] <= 0) == watch.intact() == (factor == 0)
    assert not few[1]
    assert whole[1]
