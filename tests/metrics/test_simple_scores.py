"""AUS, completeness, the gap attack and entropy attacks, against other ways to compute them."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import jaccard_score
from sklearn.svm import SVC

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.metrics import entropy_attack
from unlearnkit.metrics.aus import aus
from unlearnkit.tasks.classification import Classification


@pytest.mark.parametrize(
    ("before", "after", "forgotten", "want"),
    [
        (0.9503, 0.9503, 0.9503, 0.51),
        (0.9447, 0.8671, 0.1537, 0.80),
        (0.9447, 0.8530, 0.1233, 0.81),
        (0.9447, 0.8873, 0.0243, 0.92),
        (0.9447, 0.9468, 0.0, 1.002),
        (0.8, 0.8, 0.0, 1.0),
    ],
)
def test_aus_has_its_published_values(before, after, forgotten, want):
    assert aus(before, after, forgotten) == pytest.approx(want, abs=0.005)


def answers(share, count):
    """Return outputs of two classes of which a share of rows calls class 0, and targets 0."""
    wrong = torch.arange(count) >= round(share * count)
    return torch.stack([-wrong.double(), wrong.double() - 1], 1)


def scores(stored, **shares):
    """Return evidence of models that are right on a share of each split: ``who_split=share``."""
    outputs = {"original": {}, "unlearned": {}}
    for name, share in shares.items():
        who, _, split = name.partition("_")
        outputs[who][Split(split)] = answers(share, 100)
    splits = {s for o in outputs.values() for s in o}
    targets = {s: torch.zeros(100, dtype=torch.long) for s in splits}
    return stored(outputs, targets, Classification(2))


def test_aus_of_classes_reads_test_rows_of_both_kinds(stored):
    e = scores(stored, original_test=0.9, unlearned_test=0.8, unlearned_test_forget=0.25)
    assert metrics()["aus_classes"](e).value == pytest.approx((1 - 0.1) / 1.25)
    same = scores(stored, original_test=0.9, unlearned_test=0.9, unlearned_test_forget=0.6)
    assert metrics()["aus_classes"](same).value == pytest.approx(1 / 1.6)


@pytest.mark.parametrize("forget", [0.7, 0.9])
def test_aus_of_random_rows_does_not_see_the_sign_of_the_gap(stored, forget):
    e = scores(stored, original_test=0.9, unlearned_test=0.8, unlearned_forget=forget)
    assert metrics()["aus_random"](e).value == pytest.approx((1 - 0.1) / 1.1)


def test_aus_of_random_rows_is_undefined_for_whole_classes(stored):
    e = scores(stored, original_test=0.9, unlearned_test=0.9, unlearned_forget=0.9)
    assert metrics()["aus_random"](e).value == pytest.approx(1)
    e.at_random = False
    score = metrics()["aus_random"](e)
    assert math.isnan(score.value)
    assert "aus_classes" in score.note


@pytest.mark.parametrize("split", ["forget", "retain", "test"])
def test_completeness_is_scikit_learns_macro_jaccard(make, parts, split):
    outputs, _, _ = parts(width=30, oracles=2, seed=3)
    top = {name: o[Split(split)].argmax(1).numpy() for name, o in outputs.items()}
    each = [
        jaccard_score(
            top[f"oracle/{k}"],
            top["unlearned"],
            average="macro",
            labels=np.union1d(top[f"oracle/{k}"], top["unlearned"]),
        )
        for k in range(2)
    ]
    got = metrics()[f"completeness_{split}"](make(width=30, oracles=2, seed=3)).value
    assert got == pytest.approx(np.mean(each))


def test_the_gap_attack_is_right_as_often_as_it_says(stored):
    e = scores(stored, unlearned_forget=0.9, unlearned_held_out=0.6)
    right = [*[True] * 90, *[False] * 10, *[True] * 40, *[False] * 60]
    assert metrics()["gap_attack_accuracy"](e).value == pytest.approx(np.mean(right))


MACHINES = {
    "entropy_logistic_member_share": LogisticRegression,
    "entropy_svm_member_share": lambda: SVC(C=3, gamma="auto"),
}


def entropies(out):
    p = out.double().softmax(1).numpy()
    return -(p * np.log(p)).sum(1, keepdims=True)


@pytest.mark.parametrize("name", MACHINES)
def test_entropy_attacks_are_fitted_to_as_many_of_both_kinds(parts, stored, name):
    sizes = {Split.FORGET: 60, Split.RETAIN: 300, Split.TEST: 40}
    outputs, targets, kind = parts(sizes=sizes)
    outputs["unlearned"][Split.RETAIN] *= 4
    mine = outputs["unlearned"]
    rows = torch.randperm(300, generator=Runtime().rng("entropy_attack/retain"))[:40]
    x = np.concatenate([entropies(mine[Split.RETAIN][rows]), entropies(mine[Split.TEST])])
    machine = MACHINES[name]().fit(x, np.repeat([1, 0], 40))
    want = machine.predict(entropies(mine[Split.FORGET])).mean()
    score = metrics()[name](stored(outputs, targets, kind))
    assert score.value == pytest.approx(want)
    assert 0 < want < 1
    assert not score.note


@pytest.mark.parametrize("name", MACHINES)
def test_entropy_attacks_say_when_they_mean_nothing(parts, stored, name, monkeypatch):
    monkeypatch.setattr(entropy_attack, "EACH", 15)
    outputs, targets, kind = parts(shape=torch.zeros_like)
    assert "arbitrary" in metrics()[name](stored(outputs, targets, kind)).note
