"""Relabelling restart: its step by hand, and its limits."""

import math

import torch

from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.relabel_restart import RelabelRestart
from unlearnkit.methods.shrink_perturb import ShrinkPerturb
from unlearnkit.train.schedule import WarmRestart
from unlearnkit.unlearning.run_method import run_method


def softmax_without(z, excluded):
    """Return the softmax of one row of logits without some classes, by exponentials."""
    e = [0.0 if k in excluded else math.exp(v) for k, v in enumerate(z.tolist())]
    return torch.tensor([v / sum(e) for v in e], dtype=torch.float64)


def test_a_step_mixes_both_kinds_of_rows_in_proportion(clouds):
    net, case = clouds()
    how = RelabelRestart(run=WarmRestart(lr=0.5, share=0.001, shrink=0))
    done = run_method(net, case, Rows(0, 1, 2, 3), how)
    x, y = case.train.x, case.train.y
    w, b = net.weight.detach(), net.bias.detach()
    soft = [softmax_without(w @ x[i] + b, {int(y[i])}) for i in range(4)]
    goal = torch.cat([torch.stack(soft), torch.eye(4, dtype=torch.float64)[y[4:]]])
    e = ((x @ w.T + b).softmax(1) - goal) / 26
    torch.testing.assert_close(done.model.weight.detach(), w - 0.05 * e.T @ x)
    torch.testing.assert_close(done.model.bias.detach(), b - 0.05 * e.sum(0))
    assert (done.cost.forward, done.cost.backward) == (30 + 4, 30)


def test_without_early_rows_it_is_shrink_and_perturb(layered):
    model, case = layered
    run, rt = WarmRestart(share=0.4, shrink=0.3), Runtime(seed=3)
    hows = (
        RelabelRestart(early=0, renew=0.4, run=run),
        ShrinkPerturb(renew=0.4, run=run),
    )
    one, two = (run_method(model, case, Classes(2), how, rt).model.state_dict() for how in hows)
    assert all(torch.equal(w, two[name]) for name, w in one.items())
    assert not torch.equal(one["0.weight"], model[0].weight)
