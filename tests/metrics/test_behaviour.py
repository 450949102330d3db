"""Accuracy, error, tug of war: against counts by hand."""

import math

import pytest
import torch

from unlearnkit.catalog import metrics
from unlearnkit.core.evidence import ModelRole, Split
from unlearnkit.tasks.classification import Classification
from unlearnkit.tasks.multilabel import MultiLabel
from unlearnkit.tasks.regression import Regression


def answers(y, right, classes=3):
    """Return logits that are right in the first ``right`` rows and wrong in the others."""
    said = torch.where(torch.arange(len(y)) < right, y, (y + 1) % classes)
    return torch.nn.functional.one_hot(said, classes) * 4.0


TAMPERED = {"accuracy_corrected": Split.AFFECTED, "accuracy_elsewhere": Split.ELSEWHERE}
TAMPERED |= {"attack_success": Split.AIMED, "correction_accuracy": Split.CORRECTED}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_corrective_metric_is_the_share_of_rows_answered_as_their_targets_say(stored, name):
    split, y = TAMPERED[name], torch.arange(8) % 3
    score = metrics()[name](
        stored({"unlearned": {split: answers(y, 2)}}, {split: y}, Classification(3))
    )
    assert score.value == 0.25
    assert score.rows.tolist() == [1.0] * 2 + [0.0] * 6


@pytest.mark.parametrize(
    "split",
    [s for s in Split if s not in {*TAMPERED.values(), Split.SHUFFLED, Split.CANDIDATES}],
)
def test_accuracy_is_the_share_of_right_rows(stored, split):
    y = torch.arange(8) % 3
    e = stored({"unlearned": {split: answers(y, 6)}}, {split: y}, Classification(3))
    score = metrics()[f"accuracy_{split}"](e)
    assert score.value == 0.75
    assert score.rows.tolist() == [1.0] * 6 + [0.0] * 2


def test_regression_error_is_the_absolute_error_in_target_units(stored):
    out, y = torch.tensor([[1.0], [5.0]]), torch.tensor([[2.0], [2.0]])
    e = stored({"unlearned": {Split.TEST: out}}, {Split.TEST: y}, Regression())
    assert metrics()["error_test"](e).value == 2.0


def test_label_error_is_the_share_of_wrong_labels(stored):
    out, y = torch.tensor([[1.0, -1.0], [2.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    e = stored({"unlearned": {Split.TEST: out}}, {Split.TEST: y}, MultiLabel(2))
    assert metrics()["error_test"](e).value == 0.5


def test_tug_of_war_multiplies_what_each_gap_leaves(stored):
    y = torch.arange(10) % 3
    splits = (Split.FORGET, Split.RETAIN, Split.TEST)
    rights = {"unlearned": (9, 10, 8), "oracle/0": (5, 10, 9), "oracle/1": (7, 9, 8)}
    outputs = {
        name: {s: answers(y, r) for s, r in zip(splits, right, strict=True)}
        for name, right in rights.items()
    }
    e = stored(outputs, dict.fromkeys(splits, y), Classification(3))

    first, second = (1 - 0.4) * (1 - 0.0) * (1 - 0.1), (1 - 0.2) * (1 - 0.1) * (1 - 0.0)
    score = metrics()["tow"](e)
    assert score.value == pytest.approx((first + second) / 2, rel=1e-12)
    assert score.rows is None
    floor = metrics()["tow"](e.with_candidate(ModelRole.ORACLE, 0))
    assert floor.value == pytest.approx((1 - 0.2) * (1 - 0.1) * (1 - 0.1), rel=1e-12)


@pytest.mark.parametrize("name", ["zrf", "zrf_reference"])
def test_the_score_against_random_teachers_is_one_for_a_random_teacher(parts, stored, name):
    outputs, targets, kind = parts()
    outputs |= {f"random/{k}": outputs["unlearned"] for k in range(5)}
    assert metrics()[name](stored(outputs, targets, kind)).value == pytest.approx(1.0, rel=1e-7)


def test_zrf_is_zero_for_certain_answers_against_other_certain_answers(stored):
    y = torch.zeros(4, dtype=torch.long)
    mine, random = torch.tensor([[1e4, 0.0, 0.0]] * 4), torch.tensor([[0.0, 1e4, 0.0]] * 4)
    outputs = {"unlearned": {Split.FORGET: mine}} | {
        f"random/{k}": {Split.FORGET: random} for k in range(5)
    }
    e = stored(outputs, {Split.FORGET: y}, Classification(3))
    assert metrics()["zrf"](e).value == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(("classes", "bits"), [(2, 0.6887), (10, 0.2417), (20, 0.1450)])
def test_zrf_of_certain_answers_against_uniform_ones_is_known_and_symmetric(stored, classes, bits):
    y = torch.zeros(4, dtype=torch.long)
    sure = 200.0 * torch.eye(classes, dtype=torch.float64)[y]
    for mine, random in ((sure, 0 * sure), (0 * sure, sure)):
        outputs = {"unlearned": {Split.FORGET: mine}} | {
            f"random/{k}": {Split.FORGET: random} for k in range(5)
        }
        e = stored(outputs, {Split.FORGET: y}, Classification(classes))
        assert metrics()["zrf"](e).value == pytest.approx(bits, abs=5e-5)


@pytest.mark.parametrize("name", ["zrf", "zrf_reference"])
def test_without_random_teachers_the_score_is_undefined(parts, stored, name):
    outputs, targets, kind = parts()
    trained = {n: o for n, o in outputs.items() if not n.startswith("random/")}
    score = metrics()[name](stored(trained, targets, kind))
    assert math.isnan(score.value)
    assert "untrained models" in score.note
