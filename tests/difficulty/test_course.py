"""What one training run says of each row, against states that were trained apart."""

import numpy as np
import pytest
import torch
from scipy.special import softmax, xlogy

import unlearnkit as uk
from unlearnkit.cases.digits import digits
from unlearnkit.cases.forget_sets import mislabelled
from unlearnkit.core.errors import UnsupportedError
from unlearnkit.difficulty.training_dynamics import record_dynamics
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression
from unlearnkit.testing import toy_case

PROXIES = ("confidence", "top", "surety", "correctness")


def toy(epochs):
    case = toy_case(Classification(3))
    recipe = case.recipe.model_copy(update={"epochs": epochs, "schedule": "constant"})
    return case.replace(recipe=recipe)


def test_means_are_those_of_the_states_after_each_epoch():
    case, course = toy(3), record_dynamics(toy(3), seed=4)
    y, rows = case.train.y.numpy(), np.arange(60)
    found = {name: [] for name in PROXIES}
    for epochs in (1, 2, 3):
        model = uk.train_original(toy(epochs), seed=4).model
        p = softmax(model(case.train.x).detach().numpy(), 1)
        found["confidence"].append(p[rows, y])
        found["top"].append(p.max(1))
        found["surety"].append(xlogy(p, p).sum(1))
        found["correctness"].append(p.argmax(1) == y)
    for name in PROXIES:
        want = torch.tensor(np.mean(found[name], 0)).double()
        torch.testing.assert_close(getattr(course, name), want, rtol=1e-5, atol=1e-6)


def test_the_watched_model_is_the_original_of_its_seed():
    watched, original = (
        record_dynamics(toy(3), seed=1).model,
        uk.train_original(toy(3), seed=1).model,
    )
    pairs = zip(watched.state_dict().values(), original.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_course_comes_from_the_cache_the_second_time(tmp_path):
    cache = uk.Cache(tmp_path)
    first = record_dynamics(toy(2), cache=cache)
    made = [e.used for e in cache.entries()]
    again = record_dynamics(toy(2), cache=cache)
    assert len(made) == len(list(cache.entries())) == 1
    assert torch.equal(first.confidence, again.confidence)


@pytest.mark.parametrize("proxy", ["confidence", "correctness"])
def test_planted_wrong_labels_rank_at_the_top(proxy):
    short = digits().recipe.model_copy(update={"epochs": 20})
    asked = mislabelled(digits().replace(recipe=short), 0.1)
    scores = record_dynamics(asked.case).memorised(proxy)
    top = scores.argsort(descending=True)[: len(asked.request.rows)].tolist()
    assert len(set(top) & set(asked.request.rows)) / len(top) > 0.8


def test_only_rows_with_a_class_can_be_watched():
    with pytest.raises(UnsupportedError, match="memorisation is measured by classes"):
        record_dynamics(toy_case(Regression()))
    with pytest.raises(UnsupportedError, match="a model factory and a recipe"):
        record_dynamics(toy(1).replace(fresh=None))
