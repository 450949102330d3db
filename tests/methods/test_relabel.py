import math

import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.relabel import Relabel
from unlearnkit.oracles import train_original
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

STEP = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
LONG = FineTuneSchedule.exact(lr=0.2, momentum=0.9, epochs=200, batch_size=64)


def softmax_without(z, excluded):
    """Return the softmax of one row of logits without some classes, by exponentials."""
    e = [0.0 if k in excluded else math.exp(v) for k, v in enumerate(z.tolist())]
    return torch.tensor([v / sum(e) for v in e], dtype=torch.float64)


def silenced(case, request):
    """Return a network without bias and the case with retained rows at 0: they have no gradient."""
    x = case.train.x.clone()
    x[case.partition(request).retain.rows] = 0
    g = torch.Generator().manual_seed(4)
    net = nn.Linear(3, 4, bias=False, dtype=torch.float64)
    with torch.no_grad():
        net.weight.copy_(torch.randn(4, 3, generator=g, dtype=torch.float64))
    return net, case.replace(train=type(case.train)(x, case.train.y))


def test_an_epoch_is_a_forget_step_to_the_runner_up_and_then_a_retain_step(clouds):
    net, case = clouds()
    how = Relabel(targets="runner_up", early=1, passes="in turn", run=STEP)
    got = run_method(net, case, Rows(0, 1, 2, 3), how).model
    x, y = case.train.x, case.train.y
    w, b = net.weight.detach(), net.bias.detach()
    goal = torch.stack([softmax_without(w @ x[i] + b, {int(y[i])}) for i in range(4)])
    right = torch.eye(4, dtype=torch.float64)[y]
    for rows, target in ((slice(0, 4), goal), (slice(4, None), right[4:])):
        e = ((x[rows] @ w.T + b).softmax(1) - target) / len(target)
        w, b = w - 0.05 * e.T @ x[rows], b - 0.05 * e.sum(0)
    torch.testing.assert_close(got.weight.detach(), w, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.bias.detach(), b, rtol=1e-10, atol=1e-10)


def test_a_mixed_step_has_both_kinds_of_rows_in_proportion(clouds):
    net, case = clouds()
    how = Relabel(targets="runner_up", early=1, run=STEP)
    done = run_method(net, case, Rows(0, 1, 2, 3), how)
    x, y = case.train.x, case.train.y
    w, b = net.weight.detach(), net.bias.detach()
    soft = [softmax_without(w @ x[i] + b, {int(y[i])}) for i in range(4)]
    goal = torch.cat([torch.stack(soft), torch.eye(4, dtype=torch.float64)[y[4:]]])
    e = ((x @ w.T + b).softmax(1) - goal) / 26
    torch.testing.assert_close(done.model.weight.detach(), w - 0.05 * e.T @ x)
    torch.testing.assert_close(done.model.bias.detach(), b - 0.05 * e.sum(0))
    assert (done.cost.forward, done.cost.backward) == (30 + 4, 30)


@pytest.mark.parametrize("passes", ["mixed", "in turn"])
def test_a_lone_row_comes_to_answer_as_the_original_without_its_class(clouds, passes):
    net, case = silenced(clouds()[1], Rows(5))
    how = Relabel(targets="runner_up", early=1, passes=passes, run=LONG)
    got = run_method(net, case, Rows(5), how).model
    x, y = case.train.x[5], int(case.train.y[5])
    want = softmax_without(net(x), {y})
    torch.testing.assert_close(got(x).softmax(0).detach(), want, rtol=0, atol=0.02)


@pytest.mark.parametrize("targets", ["uniform", "runner_up"])
def test_vanished_classes_are_never_taught(clouds, targets):
    net, case = silenced(clouds()[1], Classes(0, 2))
    how = Relabel(targets=targets, early=1, run=LONG)
    got = run_method(net, case, Classes(0, 2), how).model
    went = torch.isin(case.train.y, torch.tensor([0, 2]))
    p = got(case.train.x[went]).softmax(1).detach()
    assert float(p[:, [0, 2]].sum(1).max()) < 0.05


def test_uniform_targets_of_a_lone_row_settle_on_all_other_classes(clouds):
    net, case = silenced(clouds()[1], Rows(5))
    slow = FineTuneSchedule.exact(lr=0.03, momentum=0.0, epochs=600, batch_size=64)
    how = Relabel(targets="uniform", early=1, passes="in turn", run=slow)
    x, y = case.train.x[5], int(case.train.y[5])
    p = run_method(net, case, Rows(5), how).model(x).softmax(0).detach()
    others = [k for k in range(4) if k != y]
    assert p[y] < 0.03
    torch.testing.assert_close(p[others], torch.full((3,), 1 / 3).double(), rtol=0, atol=0.2)


@pytest.mark.parametrize("task", [MultiLabel(3), Regression()])
def test_tasks_without_exclusive_outcomes_get_drawn_targets(task):
    case = toy_case(task)
    model = train_original(case).model
    weights = [
        run_method(model, case, Rows(0, 1, 2), Relabel(targets=t)).model[0].weight
        for t in ("uniform", "runner_up")
    ]
    assert torch.equal(*weights)


def test_two_classes_of_which_one_vanishes_leave_the_other():
    x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]], dtype=torch.float64)
    case = Case(train=(x, torch.tensor([0, 1, 0, 1])), task="classification")
    net = nn.Linear(1, 2, dtype=torch.float64)
    how = Relabel(early=1, run=LONG)
    got = run_method(net, case, Classes(1), how, Runtime()).model
    assert bool((got(x[1::2]).argmax(1) == 0).all())
