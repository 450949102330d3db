"""Attacks: scores planted by hand, scikit-learn, and the rule about enough unseen rows."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.metrics import roc_auc_score

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import ModelRole, Split
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.regression import Regression

PAIR = (Split.FORGET, Split.HELD_OUT)


def rank_auc(forget, unseen):
    return roc_auc_score([1] * len(forget) + [0] * len(unseen), np.concatenate([forget, unseen]))


def margin(z, y):
    """Return the log-odds of each row's class, one row after the other."""
    return np.array([r[k] - special.logsumexp(np.delete(r, k)) for r, k in zip(z, y, strict=True)])


def entropy(z, y):
    return -stats.entropy(special.softmax(z, axis=1), axis=1)


def modified_entropy(z, y):
    found = []
    for p, k in zip(special.softmax(z, axis=1), y, strict=True):
        rest = np.delete(p, k)
        found.append((1 - p[k]) * np.log(p[k]) + (rest * np.log1p(-rest)).sum())
    return np.array(found)


@pytest.mark.parametrize(
    ("name", "score", "splits"),
    [
        ("margin_auc", margin, PAIR),
        ("entropy_auc", entropy, PAIR),
        ("modified_entropy_auc", modified_entropy, PAIR),
        ("retained_margin_auc", margin, (Split.RETAIN, Split.TEST)),
    ],
)
@pytest.mark.parametrize("width", [2, 4])
def test_an_attack_is_the_auc_of_its_score(parts, stored, name, score, splits, width):
    outputs, targets, kind = parts(width=width)
    e = stored(outputs, targets, kind)
    members, others = (
        score(outputs["unlearned"][s].double().numpy(), targets[s].numpy()) for s in splits
    )
    assert metrics()[name](e).value == pytest.approx(rank_auc(members, others), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "splits"),
    [("two_model_auc", PAIR), ("two_model_retained_auc", (Split.FORGET, Split.RETAIN))],
)
def test_the_attacker_with_both_models_looks_at_the_fall_of_the_margin(parts, stored, name, splits):
    outputs, targets, kind = parts()
    falls = [
        margin(outputs["original"][s].double().numpy(), targets[s].numpy())
        - margin(outputs["unlearned"][s].double().numpy(), targets[s].numpy())
        for s in splits
    ]
    e = stored(outputs, targets, kind)
    assert metrics()[name](e).value == pytest.approx(rank_auc(*falls), rel=1e-12)
    assert metrics()[name](e.with_candidate(ModelRole.ORIGINAL)).value == 0.5


def test_the_margin_of_a_number_is_minus_its_absolute_error(stored):
    outputs = {
        "unlearned": {
            Split.FORGET: torch.tensor([[0.1], [-0.2]]),
            Split.HELD_OUT: torch.tensor([[2.0], [-0.15]]),
        }
    }
    e = stored(outputs, dict.fromkeys(PAIR, torch.zeros(2, 1)), Regression())
    assert metrics()["margin_auc"](e).value == 0.75


def planted(stored, members, others):
    """Return evidence whose margins are these numbers: two classes, one logit."""
    outputs = {
        s: torch.stack([torch.zeros(len(m)), m], 1).double()
        for s, m in zip(PAIR, (members, others), strict=True)
    }
    targets = {s: torch.ones(len(o), dtype=torch.long) for s, o in outputs.items()}
    return stored({"unlearned": outputs}, targets, Classification(2))


@pytest.mark.parametrize(("shift", "value"), [(50.0, 1.0), (-50.0, 0.0)])
def test_rows_that_look_worse_than_unseen_ones_show_on_the_other_side(stored, shift, value):
    rows = torch.linspace(-1, 1, 20)
    score = metrics()["margin_auc"](planted(stored, rows + shift, rows))
    assert score.value == value
    low, high = score.interval
    assert high - low == pytest.approx(1 - 0.025 ** (1 / 20))


def test_margins_beyond_the_reach_of_probabilities_still_order_rows(stored):
    """A softmax in double precision is 1 for all of these rows."""
    rows = torch.linspace(200, 900, 15)
    assert metrics()["margin_auc"](planted(stored, rows + 1, rows)).value > 0.5


@pytest.mark.parametrize(
    ("name", "need"),
    [("margin_tpr_at_1_percent", 1_000), ("margin_tpr_at_0_1_percent", 10_000)],
)
def test_a_low_false_positive_rate_needs_enough_unseen_rows(stored, name, need):
    members = torch.tensor([5.0, 20.0])
    few = metrics()[name](planted(stored, members, torch.rand(need - 1)))
    enough = metrics()[name](planted(stored, members, torch.rand(need)))
    assert math.isnan(few.value)
    assert str(need) in few.note
    assert str(need - 1) in few.note
    assert enough.value == 1.0


def test_the_share_caught_is_that_beyond_the_eleventh_of_a_thousand_unseen_rows(stored):
    members = torch.tensor([988.5, 989.0, 989.5, 1500.0])
    score = metrics()["margin_tpr_at_1_percent"](planted(stored, members, torch.arange(1000.0)))
    assert score.rows.tolist() == [0.0, 0.0, 1.0, 1.0]


def test_masked_logits_in_both_models_leave_the_fall_undefined(stored):
    y = torch.zeros(3, dtype=torch.long)
    out = torch.tensor([[-math.inf, 1.0]] * 3)
    outputs = {who: dict.fromkeys(PAIR, out) for who in ("original", "unlearned")}
    score = metrics()["two_model_auc"](stored(outputs, dict.fromkeys(PAIR, y), Classification(2)))
    assert math.isnan(score.value)
    assert "not a number" in score.note


def test_half_precision_logits_give_nearly_the_same_margins(parts, stored):
    outputs, targets, kind = parts(width=10)
    halved = {n: {s: o.half() for s, o in outs.items()} for n, outs in outputs.items()}
    a, b = stored(outputs, targets, kind), stored(halved, targets, kind)
    torch.testing.assert_close(
        a.margins(ModelRole.UNLEARNED, Split.RETAIN),
        b.margins(ModelRole.UNLEARNED, Split.RETAIN),
        rtol=0,
        atol=1e-2,
    )


def test_a_temperature_changes_no_margin_attack_on_two_classes(parts, stored):
    outputs, targets, kind = parts(width=2)
    cooled = {n: {s: o / 8 for s, o in outs.items()} for n, outs in outputs.items()}
    a, b = stored(outputs, targets, kind), stored(cooled, targets, kind)
    assert metrics()["margin_auc"](a).value == metrics()["margin_auc"](b).value
