import pytest
import torch

from unlearnkit.core.case import Case
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Rows
from unlearnkit.methods.gradient_ascent import Climb, GradientAscent
from unlearnkit.train.early_stopping import OFF, StopRule
from unlearnkit.unlearning.run_method import run_method

GO = Rows(0, 1, 2, 3)
INF = float("inf")


def mean_loss(model, case, rows):
    data = case.train if isinstance(rows, torch.Tensor) else rows
    at = rows if isinstance(rows, torch.Tensor) else torch.arange(len(data))
    with torch.no_grad():
        out = model(data.x[at])
    return torch.nn.functional.cross_entropy(out, data.y[at]).item()


@pytest.mark.parametrize("epochs", [1, 3])
def test_unbounded_it_is_gradient_ascent(line, epochs):
    net, case = line()
    run = FineTuneSchedule.exact(lr=0.02, momentum=0.0, epochs=epochs, batch_size=64)
    got = run_method(net, case, GO, GradientAscent(run=run, cap=INF, guard=OFF)).model
    x, y, w = case.train.x[:4], case.train.y[:4], net.weight.detach().T
    for _ in range(epochs):
        w = w + 0.02 * 2 / 4 * x.T @ (x @ w - y)
    torch.testing.assert_close(got.weight.detach(), w.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("passes", [1, 3])
def test_a_pass_of_a_climb_moves_a_tensor_by_a_share_of_its_norm(line, passes):
    net, case = line()
    step = 0.05
    run = Climb(step=step, share=(passes * 12 - 1) / (3 * 10 * 16))
    done = run_method(net, case, GO, GradientAscent(run=run, cap=INF, guard=OFF))
    x, y, w = case.train.x[:4], case.train.y[:4], net.weight.detach().T
    for _ in range(passes):
        g = x.T @ (x @ w - y)
        w = w + step * w.norm() * g / g.norm()
    torch.testing.assert_close(done.model.weight.detach(), w.T, rtol=1e-12, atol=1e-12)
    assert done.cost.work == passes * 12


def test_a_climb_leaves_batch_statistics_and_flags_alone(layered):
    model, case = layered
    done = run_method(model, case, GO, GradientAscent(guard=OFF)).model
    assert torch.equal(done[1].running_mean, model[1].running_mean)
    assert not torch.equal(done[1].weight, model[1].weight)
    assert done.training == model.training


def test_rows_at_the_cap_do_not_push(line):
    net, case = line()
    loss = (net(case.train.x[:4]) - case.train.y[:4]).detach().square()[:, 0]
    cap = (loss.median().item() + 1e-9) / case.task.never_seen
    run = FineTuneSchedule.exact(lr=0.02, momentum=0.0, epochs=1, batch_size=64)
    got = run_method(net, case, GO, GradientAscent(run=run, cap=cap, guard=OFF)).model
    w = net.weight.detach().T
    low = loss <= loss.median()
    x, y = case.train.x[:4][low], case.train.y[:4][low]
    want = w + 0.02 * 2 / 4 * x.T @ (x @ w - y)
    torch.testing.assert_close(got.weight.detach(), want.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.1])
def test_the_loss_on_retained_rows_stays_under_its_ceiling(toy, floor):
    model, case = toy
    how = GradientAscent(run=FineTuneSchedule(lr=1.0, share=2.0), guard=StopRule(floor=floor))
    got = run_method(model, case, Classes(1), how).model
    kept = (case.train.y != 1).nonzero()[:, 0]
    ceiling = mean_loss(model, case, kept) + floor * case.task.never_seen
    assert mean_loss(got, case, kept) <= ceiling + 1e-6


def test_a_class_request_stops_once_the_class_looks_never_seen(toy):
    model, case = toy
    guard = StopRule(gone_loss=1.0, floor=INF)
    long = FineTuneSchedule(lr=0.2, share=10.0, schedule="constant")
    got = run_method(model, case, Classes(1), GradientAscent(run=long, cap=INF, guard=guard))
    went = (case.train.y == 1).nonzero()[:, 0]
    loss = mean_loss(got.model, case, went)
    assert case.task.never_seen <= loss < 3 * case.task.never_seen
    assert got.cost.backward < 20 * 100  # far fewer than the 100 passes that were allowed


def test_a_subset_ends_no_worse_than_validation_rows(clouds):
    net, case = clouds()
    go = Rows(0, 1, 2)
    best = net(case.train.x[:3]).argmax(1)
    y = torch.cat([best, case.train.y[3:]])
    case = case.replace(train=case.train.with_targets(y))
    guard = StopRule(floor=INF)
    long = FineTuneSchedule(lr=1.0, share=10.0, schedule="constant")
    got = run_method(net, case, go, GradientAscent(run=long, cap=INF, guard=guard)).model
    matched = torch.isin(case.validation.y, best)
    seen = type(case.validation)(case.validation.x[matched], case.validation.y[matched])
    assert not torch.equal(got.weight, net.weight)
    assert mean_loss(got, case, torch.arange(3)) <= mean_loss(got, case, seen) + 1e-9


def test_rows_that_look_unseen_already_are_left_alone_with_a_note(toy):
    model, case = toy
    y = case.train.y.clone()
    y[:3] = (y[:3] + 1) % 3
    planted = case.replace(train=case.train.with_targets(y))
    done = run_method(model, planted, Rows(0, 1, 2), GradientAscent())
    assert torch.equal(done.model[0].weight, model[0].weight)
    assert any("nothing to unlearn" in note for note in done.notes)


def test_forget_rows_alone_are_enough_and_the_user_is_told(line):
    net, case = line()
    parts = Case.from_parts(
        forget=(case.train.x[:4], case.train.y[:4]), task=case.task, recipe=case.recipe
    )
    done = run_method(net, parts, None, GradientAscent())
    assert not torch.equal(done.model.weight, net.weight)
    assert any("no floor under what stays" in note for note in done.notes)
    assert any("goes to its end" in note for note in done.notes)
