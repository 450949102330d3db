"""A few numbers from end to end, in float64: a change of arithmetic does not pass unnoticed."""

import pytest
import torch

from unlearnkit.cases.digits import digits
from unlearnkit.core.case import Case
from unlearnkit.core.data import View
from unlearnkit.core.request import Classes
from unlearnkit.core.runtime import Runtime
from unlearnkit.linalg.fisher import squared_gradients
from unlearnkit.methods.finetune import FineTune
from unlearnkit.methods.warm_restart import ShrinkingRestart
from unlearnkit.train.loop import fit
from unlearnkit.unlearning.run_method import fresh_model, run_method


@pytest.fixture(scope="module")
def case():
    known = digits()
    x, y = known.train.x.double(), known.train.y
    return Case(train=(x, y), task=known.task, fresh=known.fresh, recipe=known.recipe)


def trained(case, **changes):
    model = fresh_model(case, Runtime()).double()
    recipe = case.recipe.model_copy(update={"epochs": 2, **changes})
    curve = fit(model, View.all(case.train), case.task, recipe, Runtime(), stream="golden")
    return model, curve


def summary(tensors):
    """Sums that a change in any one entry moves."""
    found = {}
    for name, t in tensors.items():
        found[f"{name} norm"] = t.norm().item()
        found[f"{name} first"] = t.flatten()[:3].tolist()
    return found


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_two_epochs_of_descent_end_at_the_kept_weights(case, golden, optimizer):
    lr = {"sgd": 0.05}.get(optimizer, 1e-3)
    model, curve = trained(case, optimizer=optimizer, lr=lr)
    golden({"curve": curve, **summary(model.state_dict())})


@pytest.mark.parametrize("unit", ["row", "batch"])
def test_squared_gradients_are_the_kept_ones(case, golden, unit):
    model, _ = trained(case)
    few = View.all(case.train).pick(torch.arange(200))
    golden(summary(squared_gradients(model, few, case.task, Runtime(), unit=unit)))


def at_default(case, kind):
    model, _ = trained(case)
    short = case.replace(recipe=case.recipe.model_copy(update={"epochs": 10}))
    done = run_method(model, short, Classes(3), kind())
    return {"work": done.cost.work, **summary(done.model.state_dict())}


def test_the_default_fine_tuning_ends_at_the_kept_weights(case, golden):
    golden(at_default(case, FineTune))


def test_the_default_warm_restart_ends_at_the_kept_weights(case, golden):
    golden(at_default(case, ShrinkingRestart))
