"""The training loop: losses as scalars and as rows, and its equality with torch written out."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from unlearnkit.core.data import View
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.train.loop import descend

RECIPE = Recipe(lr=0.1, momentum=0.9, weight_decay=1e-3, schedule="cosine", epochs=3, batch_size=7)
TASK = Classification(3)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def view():
    return View.all(toy_case(TASK).train)


def losses_of(model):
    return lambda batch: TASK.losses(TASK.outputs(model, batch), batch)


def test_row_losses_move_weights_as_their_mean_does_in_every_bit(view):
    one, two = net(), net()
    rows, mean = losses_of(one), losses_of(two)
    a = descend(one, view, rows, RECIPE, Runtime(), stream="s")
    b = descend(two, view, lambda batch: mean(batch).mean(), RECIPE, Runtime(), stream="s")
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    torch.testing.assert_close(a, b)


def test_weights_are_those_of_a_loop_written_in_torch(view):
    ours, theirs = net(), net()
    descend(ours, view, losses_of(ours), RECIPE, Runtime(), stream="s")
    opt = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    x, y, step, steps = view.data.x, view.data.y, 0, 3 * math.ceil(60 / 7)
    for epoch in range(3):
        for rows in torch.randperm(60, generator=Runtime().rng(f"s/{epoch}")).split(7):
            opt.param_groups[0]["lr"] = 0.1 * 0.5 * (1 + math.cos(math.pi * step / steps))
            opt.zero_grad()
            functional.cross_entropy(theirs(x[rows]), y[rows]).backward()
            opt.step()
            step += 1
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


@pytest.mark.parametrize("reduce", [False, True])
def test_the_curve_is_the_mean_over_rows_of_each_epoch(view, reduce):
    model = net()
    for p in model.parameters():
        p.register_hook(torch.zeros_like)
    rows = losses_of(model)
    still = RECIPE.model_copy(update={"weight_decay": 0.0})
    curve = descend(
        model, view, (lambda b: rows(b).mean()) if reduce else rows, still, Runtime(), stream="s"
    )
    whole = functional.cross_entropy(model(view.data.x), view.data.y).item()
    assert curve == pytest.approx([whole] * 3, rel=1e-5)
