"""Shrink and perturb: it never looks at what must go, and what the mix adds to fine-tuning."""

import pytest
import torch

from unlearnkit.core.data import TensorData
from unlearnkit.core.inference import predict
from unlearnkit.core.request import Classes, Rows
from unlearnkit.core.runtime import Runtime
from unlearnkit.methods.shrink_perturb import ShrinkPerturb
from unlearnkit.oracles import train_original
from unlearnkit.tasks.classification import Classification
from unlearnkit.testing import toy_case
from unlearnkit.unlearning.run_method import run_method


@pytest.fixture(scope="module")
def digits_class():
    from unlearnkit.cases.digits import digits

    case = digits()
    return train_original(case).model, case, case.partition(Classes(3))


def accuracy(model, view, task):
    out = predict(model, view, task, Runtime())
    return (out.argmax(1) == view.y).double().mean().item()


def test_a_class_is_forgotten_where_fine_tuning_on_the_same_schedule_keeps_it(digits_class):
    model, case, split = digits_class
    mixed = run_method(model, case, Classes(3), ShrinkPerturb())
    plain = run_method(model, case, Classes(3), ShrinkPerturb.build(renew=0.0))
    assert mixed.cost.work == plain.cost.work
    assert mixed.cost.work <= 0.18 * 3 * case.recipe.epochs * len(split.retain)
    assert accuracy(mixed.model, split.forget, case.task) < 0.02
    assert accuracy(mixed.model, split.retain, case.task) > 0.99
    assert accuracy(plain.model, split.forget, case.task) > 0.3


def test_the_forget_rows_never_influence_the_result():
    case = toy_case(Classification(3))
    model, go = train_original(case).model, Rows(range(6))
    x, y = (t.clone() for t in (case.train.x, case.train.y))
    x[:6] *= -40.0
    y[:6] = (y[:6] + 1) % 3
    other = case.replace(train=TensorData(x, y))
    one, two = (run_method(model, c, go, ShrinkPerturb()).model for c in (case, other))
    for name, w in one.state_dict().items():
        assert torch.equal(w, two.state_dict()[name])


def test_at_one_the_model_that_is_given_does_not_matter():
    case, go = toy_case(Classification(3)), Rows(range(6))
    models = [train_original(case, seed=seed).model for seed in (1, 2)]
    rt = Runtime(seed=5)
    one, two = (run_method(m, case, go, ShrinkPerturb.build(renew=1.0), rt).model for m in models)
    for name, w in one.named_parameters():
        assert torch.equal(w, dict(two.named_parameters())[name])
