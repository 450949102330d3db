"""Warm restart: its limits, its cost, and that it never looks at what must go."""

import math

import pytest
import torch
from torch import nn

from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.recipe import Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.warm_restart import ShrinkingRestart
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.train.schedule import WarmRestart
from unlearnkit.unlearning.run_method import run_method


def case(forget_scale=1.0, forget_class=0):
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.randn(60, 5, generator=rng) + y[:, None]
    x[:12] *= forget_scale
    y[:12] = torch.where(y[:12] == 0, forget_class, y[:12])
    return Case(
        train=(x, y),
        task=Classification(3),
        recipe=Recipe(lr=0.05, epochs=8, batch_size=16, weight_decay=0.1),
    )


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


def forgot(case, **settings):
    how = ShrinkingRestart.build(**settings)
    return run_method(network(), case, Rows(range(12)), how).model.state_dict()


def test_the_forget_rows_never_influence_the_result():
    a = forgot(case())
    b = forgot(case(forget_scale=-40.0, forget_class=2))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("run", [{"share": 0.0}, {"lr": 0.0, "shrink": 0.0}], ids=str)
def test_no_length_or_no_rate_and_no_shrink_moves_no_parameter(run):
    before, after = network(), forgot(case(), run=run)
    assert all(torch.equal(p.detach(), after[name]) for name, p in before.named_parameters())


def test_without_a_rate_the_parameters_shrink_by_one_unit():
    before, after = network(), forgot(case(), run={"lr": 0.0})
    for name, p in before.named_parameters():
        torch.testing.assert_close(after[name], math.exp(-1) * p.detach())


def test_settings_given_in_part_keep_the_rest_of_the_default():
    assert ShrinkingRestart.build(run={"share": 0.3}).run == WarmRestart(share=0.3, shrink=1.0)


@pytest.mark.parametrize(
    "task", [Classification(3), MultiLabel(3), Regression()], ids=lambda t: t.name
)
def test_every_task_keeps_its_retained_rows_within_the_cost_that_was_asked(task):
    short = toy_case(task)
    recipe = short.recipe.model_copy(update={"epochs": 100})
    toy = Case(train=short.train, task=task, fresh=short.fresh, recipe=recipe)
    done = run_method(train_original(toy).model, toy, Rows(range(6)), ShrinkingRestart())
    view = toy.partition(Rows(range(6))).retain
    batch = next(view.batches(len(view), Runtime()))
    with torch.no_grad():
        loss = task.losses(task.outputs(done.model.eval(), batch), batch).mean().item()
    assert loss < 0.25 * task.never_seen
    assert done.cost.work <= 0.18 * 3 * toy.recipe.epochs * len(view)
    assert not done.notes


@pytest.mark.slow
def test_the_shrink_is_what_makes_a_class_of_digits_go():
    case = digits()
    model = train_original(case).model
    split = case.partition(Classes(3))

    def accuracy(model, view):
        batch = next(view.batches(len(view), Runtime()))
        with torch.no_grad():
            return (model.eval()(batch.x).argmax(1) == batch.y).double().mean().item()

    shrunk, plain = (
        run_method(model, case, Classes(3), ShrinkingRestart.build(**settings)).model
        for settings in ({}, {"run": {"shrink": 0.0}})
    )
    assert accuracy(shrunk, split.forget) < 0.02
    assert accuracy(shrunk, split.retain) > 0.98
    assert accuracy(plain, split.forget) > 0.5
