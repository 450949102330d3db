"""Renewed start with a teacher: its limits, the masked teacher, what it never reads."""

import pytest
import torch
from torch.nn import functional

from unlearnkit.core.data import TensorData
from unlearnkit.core.recipe import FineTuneSchedule, Recipe
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.renew_distill import RenewDistill, without_classes
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method


class Asked:
    def __init__(self, task, gone):
        self.task, self.removed_classes = task, gone


def states_equal(a, b):
    return all(torch.equal(t, b[n]) for n, t in a.items())


def test_neither_forget_rows_nor_any_target_influence_the_result():
    case = toy_case(Classification(3))
    model, go = train_original(case).model, Rows(range(6))
    x, y = case.train.x.clone(), (case.train.y + 1) % 3
    x[:6] *= -40.0
    other = case.replace(train=TensorData(x, y))
    how = RenewDistill.build(renew=0.5)
    one, two = (run_method(model, c, go, how).model.state_dict() for c in (case, other))
    assert states_equal(one, two)


@pytest.mark.parametrize("lr", [0.0, 1.0])
def test_without_a_mix_a_model_that_is_its_own_teacher_stays_as_it_is(lr):
    case = toy_case(Classification(3))
    plain = case.recipe.model_copy(update={"weight_decay": 0.0})
    case = case.replace(recipe=plain)
    model = train_original(case).model
    done = run_method(model, case, Rows(range(6)), RenewDistill.build(renew=0.0, run={"lr": lr}))
    for name, w in done.model.named_parameters():
        torch.testing.assert_close(w, dict(model.named_parameters())[name], rtol=0, atol=1e-6)


def test_one_step_is_the_gradient_of_the_softened_divergence_from_the_masked_teacher():
    case, temperature, rate = toy_case(Classification(3)), 3.0, 0.7
    model = train_original(case).model
    recipe = Recipe(lr=rate, momentum=0.0, epochs=1, batch_size=64)
    how = RenewDistill(renew=0.0, temperature=temperature, run=FineTuneSchedule(recipe=recipe))
    done = run_method(model, case, Classes(2), how, Runtime())
    keep = case.train.y != 2
    x = case.train.x[keep]
    params = dict(model.named_parameters())
    out = model.eval()(x)
    goal = out.detach().clone()
    goal[:, 2] = -torch.inf
    q = functional.log_softmax(out / temperature, 1)
    p = functional.softmax(goal / temperature, 1)
    loss = functional.kl_div(q, p, reduction="batchmean")
    for (name, w), g in zip(
        params.items(), torch.autograd.grad(loss, list(params.values())), strict=True
    ):
        torch.testing.assert_close(
            dict(done.model.named_parameters())[name], w - rate * g, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("task", "gone", "masked"),
    [
        (Classification(4), (1, 3), True),
        (Classification(4), (), False),
        (MultiLabel(4), (1,), False),
        (Regression(), (), False),
    ],
)
def test_a_removed_class_has_no_probability_in_the_teachers_answer(task, gone, masked):
    out = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    left = without_classes(out, Asked(task, gone))
    if not masked:
        assert torch.equal(left, out)
        return
    kept = [c for c in range(4) if c not in gone]
    want = torch.zeros(5, 4)
    want[:, kept] = out[:, kept].softmax(1)
    torch.testing.assert_close(left.softmax(1), want)


def test_a_class_is_forgotten_within_the_cost_that_was_given():
    case = toy_case(Classification(3))
    case = case.replace(recipe=case.recipe.model_copy(update={"epochs": 60}))
    model, split = train_original(case).model, case.partition(Classes(1))
    done = run_method(model, case, Classes(1), RenewDistill.build(renew=0.5, run={"lr": 3.0}))
    out = done.model.eval()(case.train.x)
    assert (out.argmax(1)[case.train.y == 1] == 1).double().mean() == 0
    assert (out.argmax(1) == case.train.y)[case.train.y != 1].double().mean() > 0.9
    assert done.cost.work <= 0.18 * 3 * case.recipe.epochs * len(split.retain)


def test_at_one_nothing_of_the_models_own_weights_is_left_but_what_it_teaches():
    case, go = toy_case(Classification(3)), Rows(range(6))
    models = [train_original(case, seed=seed).model for seed in (1, 2)]
    how = RenewDistill.build(renew=1.0, run={"share": 0.02})
    one, two = (run_method(m, case, go, how).model.state_dict() for m in models)
    apart = max(float((t - two[n]).abs().max()) for n, t in one.items())
    start = max(float((t - models[1].state_dict()[n]).abs().max()) for n, t in one.items())
    assert 0 < apart < 0.5 * start
