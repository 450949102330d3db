import pytest
import torch

from unlearnkit.core.data import View
from unlearnkit.core.method import Problem
from unlearnkit.core.recipe import FineTuneSchedule
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.amnesiac import Amnesiac, wrong_label_losses
from unlearnkit.unlearning.run_method import run_method


def targets(net, case, forget, gone=(), turns=1):
    rows = View.all(case.train)
    p = Problem(net, net, case.task, rows.pick(torch.tensor(forget)), rows, None, case.recipe, gone)
    losses = wrong_label_losses(p, Runtime())
    found = []
    for _ in range(turns):
        batch = next(p.forget.batches(len(forget), Runtime()))
        each = [
            losses(
                torch.full((len(forget), 4), -50.0).index_fill_(1, torch.tensor([c]), 50.0), batch
            )
            for c in range(4)
        ]
        found.append(torch.stack(each).argmin(0))
    return found


def test_a_row_keeps_its_wrong_target(clouds):
    net, case = clouds()
    forget = list(range(20))
    first, second = targets(net, case, forget, turns=2)
    assert torch.equal(first, second)
    assert bool((first != case.train.y[:20]).all())
    assert len(set(first.tolist())) > 1


def test_a_vanished_class_is_never_taught(clouds):
    net, case = clouds()
    (drawn,) = targets(net, case, list(range(20)), gone=(2,))
    assert 2 not in drawn.tolist()


def test_a_step_is_the_cross_entropy_of_retained_and_relabelled_rows(clouds):
    net, case = clouds()
    run = FineTuneSchedule.exact(lr=0.05, momentum=0.0, epochs=1, batch_size=64)
    got = run_method(net, case, Rows(0, 1, 2, 3), Amnesiac(early=1, run=run)).model
    (drawn,) = targets(net, case, [0, 1, 2, 3])
    y = torch.cat([drawn, case.train.y[4:]])
    x, w, b = case.train.x, net.weight.detach(), net.bias.detach()
    e = ((x @ w.T + b).softmax(1) - torch.eye(4, dtype=torch.float64)[y]) / 26
    torch.testing.assert_close(got.weight.detach(), w - 0.05 * e.T @ x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"lr": 0.0}])
def test_a_run_without_length_changes_nothing(toy, settings):
    model, case = toy
    got = run_method(model, case, Classes(1), Amnesiac.build(run=settings)).model
    assert torch.equal(got[0].weight, model[0].weight)


def test_the_default_forgets_a_class_and_keeps_the_rest(toy):
    model, case = toy
    got = run_method(model, case, Classes(1), "amnesiac").model.eval()
    y = case.train.y
    right = got(case.train.x).argmax(1) == y
    assert right[y == 1].float().mean() < 0.2
    assert right[y != 1].float().mean() > 0.9
