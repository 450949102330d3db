"""Metrics of corrections, by hand."""

import math

import pytest
import torch

import unlearnkit as uk
from unlearnkit.auditing.splits import choose
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.extend import Runtime

TASK = uk.Classification(2)


def scores(outputs, targets):
    """Return the scores of outputs ``(n, 2)`` by split."""
    e = Evidence.from_outputs({"unlearned": outputs}, targets, TASK, Runtime())
    metrics = uk.catalog.metrics()
    names = ("correction_accuracy", "feature_use", "attribute_inference")
    return {n: metrics[n](e).value for n in names if metrics[n].serves(e)}


def test_values_by_hand():
    y = torch.tensor([0, 1, 1])
    old = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    new = torch.tensor([[0.0, 1.0], [0.0, 3.0], [1.0, 0.0]])
    other = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    found = scores(
        {Split.FORGET: old, Split.CORRECTED: new, Split.SHUFFLED: other},
        {Split.FORGET: y, Split.CORRECTED: y, Split.SHUFFLED: y},
    )
    assert found["correction_accuracy"] == pytest.approx(1 / 3)
    # Row 0 fits its own value better, row 1 another's, row 2 both alike.
    assert found["attribute_inference"] == pytest.approx(0.5)
    p, q = old.double().softmax(1), new.double().softmax(1)
    kl = [(q * (q / p).log()).sum(1), (p * (p / q).log()).sum(1)]
    assert min(abs(found["feature_use"] - float(k.mean())) for k in kl) < 1e-12
    assert found["feature_use"] > 0.1


@pytest.fixture(scope="module")
def linear():
    """Return a linear classifier that reads column 0 alone, and its case."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(200, 3, generator=rng)
    y = (x[:, 0] > 0).long()
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()
        model.weight[1, 0] = 4.0
    return model, uk.Case(train=(x, y), test=(x + 1, y), task=TASK)


@pytest.mark.parametrize(
    ("column", "use", "infers"), [(0, (1.0, 9.0), (0.7, 1.0)), (1, (0.0, 1e-9), (0.5, 0.5))]
)
def test_a_feature_that_is_read_shows_and_another_does_not(linear, column, use, infers):
    model, case = linear
    parts = case.partition(uk.Features(column))
    views = choose(case, parts, Runtime(), uk.Features(column)).views
    e = Evidence({"unlearned": model}, views, TASK, Runtime())
    metrics = uk.catalog.metrics()
    assert use[0] <= metrics["feature_use"](e).value <= use[1]
    assert infers[0] <= metrics["attribute_inference"](e).value <= infers[1]


def test_test_rows_lose_the_feature_and_the_rows_of_attacks_keep_it(linear):
    _, case = linear
    views = choose(case, case.partition(uk.Features(0)), Runtime(), uk.Features(0)).views
    test, held = views[Split.TEST], views[Split.HELD_OUT]
    assert not test.data.x[test.rows, 0].any()
    assert held.data.x[held.rows, 0].all()


def test_corrected_labels_change_no_input(linear):
    model, case = linear
    request = uk.Labels({0: int(1 - case.train.y[0])})
    views = choose(case, case.partition(request), Runtime(), request).views
    assert Split.SHUFFLED not in views
    evidence = Evidence({"unlearned": model}, views, TASK, Runtime())
    score = uk.catalog.metrics()["feature_use"](evidence)
    assert math.isnan(score.value)
    assert "inputs are the same" in score.note
