"""Output matching: fixed points, the retrained weights of a linear model, the rows it takes."""

import pytest
import torch
from torch import nn

import unlearnkit as uk
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.loop import descend
from unlearnkit.train.output_matching import (
    OutputMatching,
    centre_outputs,
    match_outputs,
    matched_rows,
)

FORGET = torch.arange(24) < 6


def least_squares():
    """Return rows, the model of all of them, and the weights of those that stay."""
    g = torch.Generator().manual_seed(3)
    x = torch.randn(24, 3, generator=g, dtype=torch.float64)
    y = torch.randn(24, 1, generator=g, dtype=torch.float64)
    net = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.linalg.lstsq(x, y).solution.mT)
    return View.all(TensorData(x, y)), net, torch.linalg.lstsq(x[~FORGET], y[~FORGET]).solution.mT


def matched(net, rows, targets, how, task):
    return match_outputs(
        net, rows, targets, how, uk.Recipe(epochs=5), task, Runtime(), retained=18, stream="t"
    )


def test_right_targets_lead_a_linear_model_to_the_retrained_weights():
    rows, net, retrained = least_squares()
    how = OutputMatching(epochs=400, lr=0.05, fall=0.97, batch_size=24)
    matched(net, rows, rows.data.x @ retrained.mT, how, Regression())
    assert (net.weight - retrained).norm() < 1e-4


def test_fine_tuning_on_the_same_rows_does_not_lead_there():
    rows, net, retrained = least_squares()
    run = uk.Recipe(optimizer="adam", lr=0.05, epochs=400, batch_size=24)
    descend(
        net, rows, lambda b: (net(b.x) - b.y).square().mean(1), run, Runtime(), stream="t"
    )  # fmt: skip
    assert (net.weight - retrained).norm() > 1e-2


def test_where_outputs_are_the_targets_nothing_moves():
    rows, net, _ = least_squares()
    before = net.weight.detach().clone()
    curve = matched(net, rows, net(rows.data.x).detach(), OutputMatching(epochs=3), Regression())
    assert curve == [0, 0, 0]
    assert torch.equal(net.weight, before)


def test_what_the_softmax_ignores_is_not_matched_unless_asked():
    g = torch.Generator().manual_seed(0)
    net = nn.Linear(3, 4)
    rows = View.all(TensorData(torch.randn(24, 3, generator=g), torch.arange(24) % 4))
    targets = net(rows.data.x).detach() + 5.0
    free, plain = (
        matched(net, rows, targets, OutputMatching(epochs=1, outputs=o), Classification(4))
        for o in ("centred", "as they are")
    )
    assert free[0] < 1e-8
    assert plain[0] > 1


def test_a_pull_holds_the_weights_back():
    ends = []
    for pull in (0.0, 10.0):
        rows, net, retrained = least_squares()
        start = net.weight.detach().clone()
        how = OutputMatching(epochs=200, lr=0.02, pull=pull, batch_size=24)
        matched(net, rows, rows.data.x @ retrained.mT, how, Regression())
        ends.append((net.weight - start).norm().item())
    assert ends[1] < 0.3 * ends[0]


def test_forget_rows_come_first_and_retained_ones_are_drawn_once():
    how = OutputMatching(forget_repeats=2, retain_rows=1.5)
    picked = matched_rows(FORGET, how, Runtime(), "a")
    assert picked[:12].tolist() == [0, 1, 2, 3, 4, 5] * 2
    others = picked[12:].tolist()
    assert len(others) == len(set(others)) == 9
    assert min(others) >= 6
    assert picked.tolist() != matched_rows(FORGET, how, Runtime(seed=1), "a").tolist()
    assert len(matched_rows(FORGET, OutputMatching(retain_rows=100.0), Runtime(), "a")) == 24


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_cost_is_the_share_of_retraining(share):
    rows, net, _ = least_squares()
    rt, targets = Runtime(), rows.data.y
    how = OutputMatching(share=share)
    recipe = uk.Recipe(epochs=100)
    match_outputs(net, rows, targets, how, recipe, Regression(), rt, retained=18, stream="t")
    assert rt.cost.forward == pytest.approx(share * 100 * 18, abs=12)


def test_outputs_of_other_tasks_are_not_centred():
    out = torch.tensor([[1.0, 3.0]])
    assert torch.equal(centre_outputs(out, Classification(2)), torch.tensor([[-1.0, 1.0]]))
    assert torch.equal(centre_outputs(out, Regression()), out)
