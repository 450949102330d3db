"""Published numbers, bit for bit on stored logits, from the published formulas written anew."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.svm import SVC
from torch.nn.functional import kl_div, softmax

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Split
from unlearnkit.metrics import membership
from unlearnkit.tasks.classification import Classification


def published_zrf(out, gold):
    p, q = softmax(out, dim=1), softmax(gold, dim=1)
    m = (p + q) / 2
    with warnings.catch_warnings():
        # The default reduction is the published error; torch warns of it.
        warnings.simplefilter("ignore")
        return (1 - (0.5 * kl_div(p.log(), m) + 0.5 * kl_div(q.log(), m))).item()


def published_efficacy(out, y, size):
    """Shadow: as many of the first retained as of the first test rows; share called 0 of forget."""
    own = {s: softmax(o, dim=-1).gather(1, y[s][:, None]).numpy() for s, o in out.items()}
    retained = own[Split.RETAIN][:size]
    test = own[Split.TEST][: len(retained)]
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(
        np.concatenate([retained, test]),
        np.concatenate([np.ones(len(retained)), np.zeros(len(test))]),
    )
    return np.mean([1 - machine.predict(own[Split.FORGET]).mean()])


@pytest.mark.parametrize("width", [2, 3, 100])
@pytest.mark.parametrize("rows", [1, 90, 9_000])
def test_the_reference_zrf_is_the_published_one(parts, stored, width, rows):
    sizes = {Split.FORGET: rows}
    outputs, targets, kind = parts(width=width, sizes=sizes, shape=lambda z: 5 * z)
    got = metrics()["zrf_reference"](stored(outputs, targets, kind)).value
    want = published_zrf(outputs["unlearned"][Split.FORGET], outputs["random/0"][Split.FORGET])
    assert got == want


def test_the_reference_zrf_is_near_one_for_many_classes_whatever_the_model(parts, stored):
    outputs, targets, kind = parts(width=100, shape=lambda z: 4 * z)
    e = stored(outputs, targets, kind)
    assert metrics()["zrf_reference"](e).value > 0.95
    assert metrics()["zrf"](e).value < 0.5


def test_the_reference_zrf_is_undefined_where_the_published_one_is(stored):
    mine, random = torch.tensor([[1e3, 0.0, 0.0]]), torch.tensor([[0.0, 1e3, 0.0]])
    assert math.isnan(published_zrf(mine, random))
    outputs = {"unlearned": {Split.FORGET: mine}, "random/0": {Split.FORGET: random}}
    e = stored(outputs, {Split.FORGET: torch.tensor([0])}, Classification(3))
    score = metrics()["zrf_reference"](e)
    assert math.isnan(score.value)
    assert "underflows" in score.note


@pytest.mark.parametrize("retained", [200, 75])
@pytest.mark.parametrize("seed", range(3))
def test_the_svm_efficacy_is_the_published_one(parts, stored, seed, retained):
    sizes = {Split.FORGET: 33, Split.RETAIN: retained, Split.TEST: 80}
    outputs, targets, kind = parts(sizes=sizes, seed=seed)
    score = metrics()["svm_mia_efficacy"](stored(outputs, targets, kind))
    want = published_efficacy(outputs["unlearned"], targets, 80)
    assert score.value == want
    assert 0 < want < 1
    assert set(score.rows.tolist()) == {0.0, 1.0}


def test_the_svm_is_not_fitted_to_more_rows_than_it_can_take(parts, stored, monkeypatch):
    monkeypatch.setattr(membership, "SVM_ROWS", 39)
    outputs, targets, kind = parts()
    score = metrics()["svm_mia_efficacy"](stored(outputs, targets, kind))
    assert math.isnan(score.value)
    assert "40 rows" in score.note


def test_the_zrf_in_nats_is_one_minus_scipys_divergence(parts, stored):
    from scipy.spatial.distance import jensenshannon

    outputs, targets, kind = parts(width=4, sizes={Split.FORGET: 30}, shape=lambda z: 3 * z)
    for k in range(5):
        outputs[f"random/{k}"] = outputs["random/0"]
    p = softmax(outputs["unlearned"][Split.FORGET].double(), -1).numpy()
    q = softmax(outputs["random/0"][Split.FORGET].double(), -1).numpy()
    want = 1 - np.mean(jensenshannon(p, q, axis=1) ** 2)
    e = stored(outputs, targets, kind)
    assert metrics()["zrf_nats"](e).value == pytest.approx(want, rel=1e-9)


def test_the_svm_efficacy_balances_its_classes_and_says_when_it_means_nothing(parts, stored):
    sizes = {Split.FORGET: 100, Split.RETAIN: 300, Split.TEST: 2_000}
    outputs, targets, kind = parts(width=3, sizes=sizes)
    e = stored(outputs, targets, kind)
    got = metrics()["svm_mia_efficacy"](e)
    cut = {s: (o[:300] if s is Split.TEST else o) for s, o in outputs["unlearned"].items()}
    few = {s: (y[:300] if s is Split.TEST else y) for s, y in targets.items()}
    assert got.value == metrics()["svm_mia_efficacy"](stored({"unlearned": cut}, few, kind)).value
    assert "the value is arbitrary" in got.note
