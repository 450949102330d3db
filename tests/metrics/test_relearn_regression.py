"""Relearning of real targets: to a loss, on copies, in the same orders for all."""

import math

import pytest
import torch
from torch import nn

from unlearnkit.catalog import metrics
from unlearnkit.core.data import TensorData, View
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics import relearning_speed as family
from unlearnkit.tasks.regression import Regression
from unlearnkit.train.loop import fit
from unlearnkit.train.relearning import LEAST, RelearningTarget, fine_tuning_recipe, relearn

RECIPE = Recipe(lr=0.1, momentum=0.9, epochs=12, batch_size=16)
RT = Runtime()
TASKS = {
    "l2": Regression(1),
    "l1": Regression(1, loss="l1"),
    "pinball": Regression(1, loss="pinball"),
}


@pytest.fixture(autouse=True)
def _full_length(_short_lessons, monkeypatch, request):
    monkeypatch.setattr(family, "CAP", 40)
    monkeypatch.setattr(family, "ORDERS", 2)
    # Far enough from the original for a few steps, near enough to be missed by others.
    monkeypatch.setattr(family, "SHARE", 0.4 if "pinball" in request.node.name else 1.0)
    monkeypatch.setattr(family, "PUBLISHED_ROWS", 5_000)


def line(count, seed):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=rng).double()
    return x, (x @ torch.tensor([[1.5], [-1.0]]).double()).abs()


def net(seed, task):
    rng = torch.Generator().manual_seed(seed)
    width = len(task.quantiles) or 1
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, width)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=rng))
    return model


@pytest.fixture(scope="module", params=TASKS)
def world(request):
    """Return models and rows of a request to forget all targets above 2."""
    task = TASKS[request.param]
    x, y = line(60, 0)
    data, test = TensorData(x, y), TensorData(*line(60, 1))
    views = {
        Split.FORGET: View(data, (y[:, 0] > 2).nonzero()[:, 0]),
        Split.RETAIN: View(data, (y[:, 0] <= 2).nonzero()[:, 0]),
        Split.HELD_OUT: View(test, (test.y[:, 0] > 2).nonzero()[:, 0]),
        Split.TEST: View(test, (test.y[:, 0] <= 2).nonzero()[:, 0]),
    }
    models = {"original": net(0, task)}
    fit(models["original"], View.all(data), task, RECIPE, RT, stream="taught")
    for k in range(2):
        models[f"oracle/{k}"] = net(10 + k, task)
        fit(models[f"oracle/{k}"], views[Split.RETAIN], task, RECIPE, Runtime(seed=k), stream="o")
    return task, models, views


def seen(world, unlearned):
    task, models, views = world
    return Evidence(models | {"unlearned": unlearned}, views, task, RT, recipe=RECIPE)


def score(name, e):
    return metrics()[name](e)


def test_a_retrained_model_against_itself_has_an_index_of_exactly_one(world):
    task, models, views = world
    same = dict.fromkeys(["unlearned", "oracle/0", "oracle/1"], models["oracle/0"])
    e = Evidence({"original": models["original"], **same}, views, task, RT, recipe=RECIPE)
    before = {n: [p.clone() for p in m.state_dict().values()] for n, m in models.items()}
    assert score("relearn_steps", e).value > 0
    assert score("ain", e).value == 1.0
    assert score("ain_reference", e).value == 1.0
    for n, m in models.items():
        assert all(
            torch.equal(a, b) for a, b in zip(before[n], m.state_dict().values(), strict=True)
        )


def test_the_original_comes_back_at_once_and_the_note_names_the_loss(world):
    e = seen(world, world[1]["original"])
    steps = score("relearn_steps", e)
    assert steps.value == 0
    assert "to a loss of" in steps.note
    assert score("ain", e).value == 0


def test_the_index_is_the_ratio_of_mean_steps_over_the_same_orders(world):
    task, models, views = world
    e = seen(world, models["oracle/1"])
    level = RelearningTarget.near(models["original"], views[Split.HELD_OUT], family.SHARE, task, RT)

    def mean(model):
        curves = [
            relearn(
                model,
                views[Split.FORGET],
                views[Split.RETAIN],
                level,
                task,
                fine_tuning_recipe(RECIPE),
                RT,
                order=i,
                cap=40,
            )
            for i in range(2)
        ]
        return sum(c.steps for c in curves) / 2

    below = (mean(models["oracle/0"]) + mean(models["oracle/1"])) / 2
    assert score("ain", e).value == pytest.approx(
        mean(e.model(ModelRole.UNLEARNED)) / below, rel=1e-12
    )


def test_a_loss_that_is_not_reached_is_censored(world, monkeypatch):
    monkeypatch.setattr(family, "CAP", 1)
    task, models, views = world
    far = {"original": models["original"], "unlearned": net(5, task), "oracle/0": net(6, task)}
    e = Evidence(far, views, task, RT, recipe=RECIPE)
    found = score("ain", e)
    assert math.isnan(found.value)
    assert "neither model nor oracles meet the target in 1 steps" in found.note
    assert ">1 in 2 of 2 orders" in score("relearn_steps", e).note


def test_a_model_without_any_loss_leaves_a_loss_that_can_be_reached():
    task = Regression(1, scale=(2.0,))
    x = torch.randn(20, 1, generator=torch.Generator().manual_seed(0)).double()
    exact = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        exact.weight.fill_(1.0)
    target = RelearningTarget.near(exact, View.all(TensorData(x, x)), 0.05, task, RT)
    assert target.level == LEAST * task.never_seen > 0
    assert target.short(exact, task, RT) == 0
