import math

import pytest
import torch
from torch import nn

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Tuning
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.relabel import Relabel
from unlearnkit.oracles import train_original
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.stopping import OFF
from unlearnkit.unlearning import unlearn

STEP = Tuning.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
LONG = Tuning.exact(lr=0.2, momentum=0.9, epochs=200, batch_size=64)


def softmax_without(z, excluded):
    """Return the softmax of one row of logits without some classes, by exponentials."""
    e = [0.0 if k in excluded else math.exp(v) for k, v in enumerate(z.tolist())]
    return torch.tensor([v / sum(e) for v in e], dtype=torch.float64)


def test_an_epoch_is_a_forget_step_to_the_runner_up_and_then_a_retain_step(clouds):
    net, case = clouds()
    got = unlearn(net, case, Rows(0, 1, 2, 3), Relabel(run=STEP, guard=OFF)).model
    x, y = case.train.x, case.train.y
    w, b = net.weight.detach(), net.bias.detach()
    goal = torch.stack([softmax_without(w @ x[i] + b, {int(y[i])}) for i in range(4)])
    right = torch.eye(4, dtype=torch.float64)[y]
    for rows, target in ((slice(0, 4), goal), (slice(4, None), right[4:])):
        e = ((x[rows] @ w.T + b).softmax(1) - target) / len(target)
        w, b = w - 0.05 * e.T @ x[rows], b - 0.05 * e.sum(0)
    torch.testing.assert_close(got.weight.detach(), w, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(got.bias.detach(), b, rtol=1e-10, atol=1e-10)


def test_a_lone_row_comes_to_answer_as_the_original_without_its_class(clouds):
    net, case = clouds()
    how = Relabel(retain=0.0, run=LONG, guard=OFF)
    got = unlearn(net, case, Rows(5), how).model
    x, y = case.train.x[5], int(case.train.y[5])
    want = softmax_without(net(x), {y})
    torch.testing.assert_close(got(x).softmax(0).detach(), want, rtol=0, atol=0.02)


@pytest.mark.parametrize("targets", ["uniform", "runner_up"])
def test_vanished_classes_are_never_taught(clouds, targets):
    net, case = clouds()
    how = Relabel(targets=targets, retain=0.0, run=LONG, guard=OFF)
    got = unlearn(net, case, Classes(0, 2), how).model
    went = torch.isin(case.train.y, torch.tensor([0, 2]))
    p = got(case.train.x[went]).softmax(1).detach()
    assert float(p[:, [0, 2]].sum(1).max()) < 0.02


def test_uniform_targets_of_a_lone_row_settle_on_all_other_classes(clouds):
    net, case = clouds()
    slow = Tuning.exact(lr=0.03, momentum=0.0, epochs=600, batch_size=64)
    how = Relabel(targets="uniform", retain=0.0, run=slow, guard=OFF)
    x, y = case.train.x[5], int(case.train.y[5])
    p = unlearn(net, case, Rows(5), how).model(x).softmax(0).detach()
    others = [k for k in range(4) if k != y]
    assert p[y] < 0.03
    torch.testing.assert_close(p[others], torch.full((3,), 1 / 3).double(), rtol=0, atol=0.2)


def test_without_a_share_of_retained_rows_they_do_not_matter(toy):
    model, case = toy
    y = case.train.y.clone()
    y[10:] = (y[10:] + 1) % 3
    other = case.with_(train=case.train.with_targets(y))
    how = Relabel(retain=0.0, guard=OFF)
    a, b = (unlearn(model, c, Rows(0, 1), how).model[0].weight for c in (case, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, model[0].weight)


def test_half_of_the_retained_rows_cost_half(toy):
    model, case = toy

    def backward(share):
        how = Relabel(retain=share, guard=OFF, run=Tuning(share=0.1))
        return unlearn(model, case, Rows(0, 1), how).cost.backward

    assert [backward(s) for s in (0.0, 0.5, 1.0)] == [2, 2 + 29, 2 + 58]


@pytest.mark.parametrize("task", [MultiLabel(3), Regression()])
def test_tasks_without_exclusive_outcomes_get_drawn_targets(task):
    case = task.toy(0)
    model = train_original(case).model
    weights = [
        unlearn(model, case, Rows(0, 1, 2), Relabel(targets=t)).model[0].weight
        for t in ("uniform", "runner_up")
    ]
    assert torch.equal(*weights)


def test_two_classes_of_which_one_vanishes_leave_the_other():
    x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0]], dtype=torch.float64)
    case = Case(train=(x, torch.tensor([0, 1, 0, 1])), task="classification")
    net = nn.Linear(1, 2, dtype=torch.float64)
    how = Relabel(retain=0.0, run=LONG, guard=OFF)
    got = unlearn(net, case, Classes(1), how, Runtime()).model
    assert bool((got(x[1::2]).argmax(1) == 0).all())
