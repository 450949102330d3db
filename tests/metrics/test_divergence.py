"""Distances to the oracles: closed forms, and SciPy on the probabilities."""

import math

import numpy as np
import pytest
import torch
from scipy import special
from scipy.spatial import distance

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import ModelRole, Split
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression

SPLITS = ["forget", "retain", "test"]


def by_hand(name, p, q):
    """Return a distance of the model's probabilities p to an oracle's q, row by row."""
    if name == "js":
        return distance.jensenshannon(p, q, axis=1) ** 2
    if name in {"kl", "divergence"}:
        return special.rel_entr(q, p).sum(1)
    if name == "kl_reverse":
        return special.rel_entr(p, q).sum(1)
    if name == "activation_distance":
        return np.sqrt(((p - q) ** 2).sum(1))
    return (p.argmax(1) == q.argmax(1)).astype(float)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "name", ["js", "kl", "kl_reverse", "divergence", "activation_distance", "agreement"]
)
def test_a_distance_is_the_mean_over_oracles_of_the_formula(parts, stored, name, split):
    outputs, targets, kind = parts(oracles=3, shape=lambda z: z.double())
    p, *qs = (
        special.softmax(outputs[who][Split(split)].numpy(), axis=1)
        for who in ("unlearned", "oracle/0", "oracle/1", "oracle/2")
    )
    want = np.mean([by_hand(name, p, q) for q in qs], axis=0)
    score = metrics()[f"{name}_{split}"](stored(outputs, targets, kind))
    np.testing.assert_allclose(score.rows, want, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("js", math.log(2)),
        ("activation_distance", math.sqrt(2)),
        ("agreement", 0.0),
        ("kl", 2e4),
        ("kl_reverse", 2e4),
    ],
)
def test_certain_answers_that_differ_are_at_the_largest_distance(stored, name, value):
    mine, other = torch.tensor([[2e4, 0.0, 0.0]]), torch.tensor([[0.0, 2e4, 0.0]])
    outputs = {"unlearned": {Split.FORGET: mine}, "oracle/0": {Split.FORGET: other}}
    e = stored(outputs, {Split.FORGET: torch.tensor([0])}, Classification(3))
    assert metrics()[f"{name}_forget"](e).value == pytest.approx(value, rel=1e-12)


def test_a_masked_class_is_at_an_infinite_kl_and_a_finite_js(stored):
    mine, other = torch.tensor([[-math.inf, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    outputs = {"unlearned": {Split.FORGET: mine}, "oracle/0": {Split.FORGET: other}}
    e = stored(outputs, {Split.FORGET: torch.tensor([0])}, Classification(3))
    found = {n: metrics()[f"{n}_forget"](e).value for n in ("kl", "kl_reverse", "js")}
    assert found["kl"] == math.inf
    assert math.isfinite(found["kl_reverse"])
    assert 0 < found["js"] < math.log(2)


def test_the_divergence_of_numbers_is_their_squared_distance(stored):
    outputs = {
        "unlearned": {Split.TEST: torch.tensor([[1.0], [2.0]])},
        "oracle/0": {Split.TEST: torch.tensor([[0.0], [2.0]])},
        "oracle/1": {Split.TEST: torch.tensor([[3.0], [2.0]])},
    }
    e = stored(outputs, {Split.TEST: torch.zeros(2, 1)}, Regression())
    score = metrics()["divergence_test"](e)
    assert score.rows.tolist() == [2.5, 0.0]


def test_the_divergence_of_labels_is_the_mean_of_bernoulli_divergences(stored):
    mine, other = torch.tensor([[0.3, -1.0]]).double(), torch.tensor([[1.2, 0.4]]).double()
    outputs = {"unlearned": {Split.TEST: mine}, "oracle/0": {Split.TEST: other}}
    e = stored(outputs, {Split.TEST: torch.zeros(1, 2)}, MultiLabel(2))
    p, q = special.expit(mine.numpy()), special.expit(other.numpy())
    want = (special.rel_entr(q, p) + special.rel_entr(1 - q, 1 - p)).mean()
    assert metrics()["divergence_test"](e).value == pytest.approx(want, rel=1e-9)


def test_an_oracle_in_the_seat_is_compared_with_the_others_only(parts, stored):
    outputs, targets, kind = parts(oracles=2)
    e = stored(outputs, targets, kind)
    pair = stored(
        {"unlearned": outputs["oracle/1"], "oracle/0": outputs["oracle/0"]}, targets, kind
    )
    got = metrics()["js_forget"](e.with_candidate(ModelRole.ORACLE, 1)).value
    assert got == metrics()["js_forget"](pair).value
    assert got > 0


def test_the_oracles_are_not_averaged_before_they_are_compared(stored):
    """Two certain oracles that differ, and a model in the middle: the mean answer is the model."""
    half = torch.zeros(1, 2)
    outputs = {
        "unlearned": {Split.FORGET: half},
        "oracle/0": {Split.FORGET: torch.tensor([[1e4, 0.0]])},
        "oracle/1": {Split.FORGET: torch.tensor([[0.0, 1e4]])},
    }
    e = stored(outputs, {Split.FORGET: torch.tensor([0])}, Classification(2))
    assert metrics()["activation_distance_forget"](e).value == pytest.approx(math.sqrt(0.5))
