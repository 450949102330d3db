"""Fine-tuning: its limits, and that it never looks at what must go."""

import json

import pytest
import torch
from torch import nn

from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.errors import InputError
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.finetune import FineTune
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method

RUNS = [
    pytest.param({}, id="default"),
    pytest.param(FineTune.info.presets["paper"]["run"], id="paper"),
]


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
    return run_method(
        network(), case, Rows(range(12)), FineTune.build(**settings)
    ).model.state_dict()


@pytest.mark.parametrize("run", RUNS)
def test_the_forget_rows_never_influence_the_result(run):
    a = forgot(case(), run=run)
    b = forgot(case(forget_scale=-40.0, forget_class=2), run=run)
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    "run",
    [
        {"share": 0.0},
        {"lr": 0.0},
    ],
    ids=str,
)
def test_no_rate_or_no_length_moves_no_parameter(run):
    before, after = network(), forgot(case(), run=run)
    assert all(torch.equal(p.detach(), after[name]) for name, p in before.named_parameters())


def test_shrinking_restarts_are_another_method():
    with pytest.raises(InputError, match=r"run\.kind: input should be 'tuning', got 'restart'"):
        FineTune.build(run={"kind": "restart"})


def test_settings_given_in_part_keep_the_rest_of_the_default():
    assert FineTune.build(run={"share": 0.3}).run == FineTuneSchedule(lr=2.0, share=0.3)


@pytest.mark.parametrize("preset", [None, *FineTune.info.presets])
def test_settings_survive_a_round_trip_through_json(preset):
    method = FineTune.build(preset)
    assert FineTune.model_validate(json.loads(method.model_dump_json())) == method


@pytest.mark.parametrize(
    "task", [Classification(3), MultiLabel(3), Regression()], ids=lambda t: t.name
)
def test_every_task_keeps_its_retained_rows_within_the_cost_that_was_asked(task):
    short = toy_case(task)
    recipe = short.recipe.model_copy(update={"epochs": 100})
    toy = Case(train=short.train, task=task, fresh=short.fresh, recipe=recipe)
    done = run_method(train_original(toy).model, toy, Rows(range(6)), FineTune())
    view = toy.partition(Rows(range(6))).retain
    batch = next(view.batches(len(view), Runtime()))
    with torch.no_grad():
        loss = task.losses(task.outputs(done.model.eval(), batch), batch).mean().item()
    assert loss < 0.25 * task.never_seen
    assert done.cost.work == 3 * 15 * len(view)
    assert not done.notes


@pytest.mark.slow
def test_a_class_of_digits_is_known_afterwards_by_default_and_more_so_as_published():
    case = digits()
    model = train_original(case).model
    split = case.partition(Classes(3))

    def accuracy(model, view):
        batch = next(view.batches(len(view), Runtime()))
        with torch.no_grad():
            return (model.eval()(batch.x).argmax(1) == batch.y).double().mean().item()

    default = run_method(model, case, Classes(3), FineTune()).model
    paper = run_method(model, case, Classes(3), FineTune.build("paper")).model
    assert 0.5 < accuracy(default, split.forget) < 0.85
    assert accuracy(default, split.retain) > 0.99
    assert accuracy(paper, split.forget) > 0.9
