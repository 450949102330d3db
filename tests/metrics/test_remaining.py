"""Answers among the classes that remain, on chosen outputs."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import softmax

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import Split
from unlearnkit.tasks.classification import Classification

Y = {Split.FORGET: torch.full((8,), 3), Split.RETAIN: torch.arange(9) % 3}


def answers(*top, rows=4):
    """Return logits whose largest is the forgotten class and whose next are as named."""
    out = torch.zeros(len(top), rows)
    out[torch.arange(len(top)), torch.tensor(top)] = 2.0
    out[:, 3] = 5.0
    return {Split.FORGET: out, Split.RETAIN: torch.zeros(9, rows)}


def value(stored, name, **outputs):
    named = {k.replace("_", "/"): v for k, v in outputs.items()}
    return metrics()[name](stored(named, Y, Classification(4))).value


@pytest.mark.parametrize(
    ("top", "share"),
    [
        ((0,) * 8, [1.0]),
        ((0, 0, 0, 0, 1, 1, 1, 1), [0.5, 0.5]),
        ((0, 1, 2, 0, 1, 2, 0, 1), [3 / 8, 3 / 8, 2 / 8]),
    ],
)
def test_the_entropy_is_that_of_the_answers_among_three_classes(stored, top, share):
    got = value(stored, "remaining_entropy_forget", unlearned=answers(*top))
    assert got == pytest.approx(stats.entropy(share) / math.log(3), abs=1e-12)


def test_the_variation_is_the_share_of_rows_called_otherwise_mean_over_oracles(stored):
    got = value(
        stored,
        "remaining_variation_forget",
        unlearned=answers(0, 0, 0, 0, 0, 0, 0, 0),
        oracle_0=answers(0, 0, 0, 0, 1, 1, 2, 2),
        oracle_1=answers(0, 0, 0, 0, 0, 0, 0, 0),
    )
    assert got == pytest.approx((0.5 + 0.0) / 2)


def test_a_mask_on_the_forgotten_class_changes_none_of_them(stored):
    rng = torch.Generator().manual_seed(0)
    own, oracle = ({Split.FORGET: torch.randn(8, 4, generator=rng)} for _ in range(2))
    masked = {Split.FORGET: own[Split.FORGET] - torch.tensor([0.0, 0.0, 0.0, 100.0])}
    for name in ("entropy", "variation", "kl"):
        a, b = (
            value(stored, f"remaining_{name}_forget", unlearned=o, oracle_0=oracle)
            for o in (own, masked)
        )
        assert a == pytest.approx(b, rel=1e-9)


def test_the_divergence_is_that_of_probabilities_given_that_a_class_remains(stored):
    rng = torch.Generator().manual_seed(1)
    own, oracle = (torch.randn(8, 4, generator=rng) for _ in range(2))
    got = value(stored, "remaining_kl_forget",
                unlearned={Split.FORGET: own}, oracle_0={Split.FORGET: oracle})  # fmt: skip
    p, q = (softmax(z[:, :3].double().numpy(), axis=1) for z in (oracle, own))
    assert got == pytest.approx(np.mean(stats.entropy(p, q, axis=1)), rel=1e-9)


def test_where_one_class_remains_there_is_no_spread(stored):
    targets = {Split.FORGET: torch.ones(4, dtype=torch.long), Split.RETAIN: torch.zeros(4).long()}
    outputs = {"unlearned": {s: torch.randn(4, 2) for s in targets}}
    score = metrics()["remaining_entropy_forget"](stored(outputs, targets, Classification(2)))
    assert math.isnan(score.value)
    assert "one class" in score.note
