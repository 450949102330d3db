"""A lower fit of noisy labels is a matter of likeness; a lower fit of clean labels is damage."""

from dataclasses import replace
from functools import partial
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import unlearnkit as uk
from experiments import placebo
from tests.auditing.liars import NoOp
from tests.auditing.planted import everything, planted, seated
from unlearnkit.auditing.label_noise import LabelNoise, UtilityGap, label_noise
from unlearnkit.auditing.strong.results_table import strong_table
from unlearnkit.auditing.verdicts_strong import strong_findings
from unlearnkit.cases.registry import CaseWithRequest
from unlearnkit.core.evidence import Evidence, Split
from unlearnkit.core.method import Info, Method, Need, Problem
from unlearnkit.core.runtime import Runtime
from unlearnkit.report.schema import Verdict
from unlearnkit.tasks.classification import Classification
from unlearnkit.train.loop import descend

WIDE, TRAIN, TEST = 3000, 300, 200
GO = uk.Rows(tuple(i for i in range(200, 213) if i % 10 != 1))
"""Rows with right labels, so that little but the retain set tells the models apart."""
RETAINED = ("accuracy_retain",)


def rows(count, stream):
    """Three classes far apart, in so many directions that every wrong label can be memorised."""
    rng = Runtime().rng(stream)
    y = torch.arange(count) % 3
    x = torch.randn(count, WIDE, generator=rng)
    x[torch.arange(count), y] += 12.0
    return x, y


def with_wrong_labels(y, share):
    wrong = torch.arange(len(y)) % round(1 / share) == 1
    return torch.where(wrong, (y + 1) % 3, y)


def case_of(y):
    recipe = uk.Recipe(lr=0.02, epochs=30, batch_size=30)
    return uk.Case(
        train=(rows(TRAIN, "noise/train")[0], y),
        test=rows(TEST, "noise/test"),
        task=uk.Classification(3),
        fresh=lambda: nn.Linear(WIDE, 3),
        recipe=recipe,
        name="wide",
    )


TRUE = rows(TRAIN, "noise/train")[1]
CLEAN, NOISY = case_of(TRUE), case_of(with_wrong_labels(TRUE, 0.1))


SIGNS = 1.0 - 2.0 * (torch.arange(TRAIN) % 2)
MEAN = rows(TRAIN, "noise/train")[0][:, 0]


def numbers():
    """Numbers with noise, and so many directions that all of it is memorised."""
    x, y = rows(TRAIN, "noise/train")[0], MEAN + SIGNS
    rng = Runtime().rng("noise/numbers")
    test = rows(TEST, "noise/test")[0]
    return case_of(TRUE).replace(
        train=(x, y[:, None]),
        test=(test, test[:, :1] + torch.randn(TEST, 1, generator=rng).sign()),
        task=uk.Regression(1),
        fresh=lambda: nn.Linear(WIDE, 1),
        recipe=uk.Recipe(lr=0.0002, epochs=60, batch_size=30),
        name="wide numbers",
    )


NUMBERS = numbers()


def fitted(y):
    """A model that never saw the forget set, and was trained on these numbers."""
    case = NUMBERS.replace(train=NUMBERS.train.with_targets(y[:, None]))
    return uk.oracle(case, GO, seeds=[9]).models[0]


def trained_on(y):
    """A model that never saw the forget set, of rows with these labels."""
    return uk.oracle(case_of(y), GO, seeds=[9]).models[0]


@pytest.fixture(scope="module")
def judged():
    known = {}

    def judge(case, model, tier):
        if id(case) not in known:
            original = uk.train_original(case).model
            truth = uk.oracle(case, GO, seeds=5)
            known[id(case)] = uk.unlearn(original, case, GO, NoOp()), truth
        done, truth = known[id(case)]
        oracle = truth if tier == "reference" else None
        return uk.audit(replace(done, model=model), oracle=oracle, tier=tier, placebo=False)

    return judge


def damaged(report):
    return {m for f in report.findings if f.verdict is Verdict.DAMAGED for m in f.rows}


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_wrong_labels_that_are_no_longer_memorised_are_no_damage(judged, tier):
    report = judged(NOISY, trained_on(TRUE), tier)
    retain, test = (report.row(f"accuracy_{s}") for s in ("retain", "test"))
    assert retain.estimate.value < retain.original.value - 0.08
    assert test.estimate.value >= test.original.value - 0.01
    assert not damaged(report)
    found = [f for f in report.findings if f.rows == RETAINED]
    expected = Verdict.DISTINGUISHABLE if tier == "reference" else Verdict.INCONCLUSIVE
    assert [f.verdict for f in found] == [expected]
    assert "its labels are noisier than those of the test rows" in found[0].reason


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_a_fall_beyond_the_noise_is_damage(judged, tier):
    report = judged(NOISY, trained_on((TRUE + 1) % 3), tier)
    assert damaged(report) >= {"accuracy_retain", "accuracy_test"}


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_clean_labels_that_are_answered_worse_are_damage_also_where_test_rows_are_not(judged, tier):
    report = judged(CLEAN, trained_on(with_wrong_labels(TRUE, 0.1)), tier)
    test = report.row("accuracy_test")
    assert test.estimate.value >= test.original.value - 0.01
    assert damaged(report) == {"accuracy_retain"}
    assert any("are not shown to be noisier" in f.reason for f in report.findings)


@pytest.mark.parametrize("tier", ["fast", "reference"])
def test_clean_labels_and_test_rows_that_are_answered_worse_are_damage(judged, tier):
    model = trained_on(TRUE)
    with torch.no_grad():
        model.weight.add_(0.3 * torch.randn(3, WIDE, generator=torch.Generator().manual_seed(1)))
    assert damaged(judged(CLEAN, model, tier)) == {"accuracy_retain", "accuracy_test"}


def test_where_no_model_can_be_trained_labels_count_as_right_and_the_reason_says_so(judged):
    case = NOISY.replace(recipe=None)
    done = uk.unlearn(uk.train_original(NOISY).model, case, GO, NoOp())
    outside = uk.Oracles.from_models(list(uk.oracle(NOISY, GO, seeds=5).models), request=GO)
    report = uk.audit(replace(done, model=trained_on(TRUE)), oracle=outside, placebo=False)
    assert damaged(report) == {"accuracy_retain"}
    assert any("noisy could not be measured (the case has no" in f.reason for f in report.findings)


def errors(retain, test):
    """Evidence of a model that is wrong on some rows."""
    task, out = Classification(2), {}
    for split, wrong in ((Split.RETAIN, retain), (Split.TEST, test)):
        out[split] = torch.stack([-wrong, wrong - 1], 1)
    targets = {s: torch.zeros(len(o), dtype=torch.long) for s, o in out.items()}
    return Evidence.from_outputs({"unlearned": out}, targets, task, Runtime())


def test_each_row_is_answered_by_the_model_that_never_saw_it():
    rng = torch.Generator().manual_seed(3)
    retain, test = torch.rand(2, 400, generator=rng) < 0.3, torch.rand(2, 90, generator=rng) < 0.1
    first = torch.rand(400, generator=rng) < 0.5
    halves = tuple(errors(r.float(), t.float()) for r, t in zip(retain, test, strict=True))
    found = label_noise(halves, first)
    seen = torch.cat([retain[1][first], retain[0][~first]]).double()
    other = test.double().mean(0)
    centre = float(seen.mean() - other.mean())
    deviation = float((seen.var() / 400 + other.var() / 90) ** 0.5)
    assert (found.low + found.high) / 2 == pytest.approx(centre)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.02)
    assert found.allowance() == found.high


@pytest.mark.parametrize(
    ("noise", "generalisation", "allowed"),
    [
        (LabelNoise(-0.1, 0.1, of_numbers=True), 0.3, 0.3),
        (LabelNoise(-0.2, -0.1, of_numbers=True), 0.3, 0.2),
        (LabelNoise(0.1, 0.2, of_numbers=True), 0.3, 0.5),
        (LabelNoise(-0.1, 0.1, of_numbers=True), -0.3, 0.0),
        (LabelNoise(0.0, 0.0, "why", of_numbers=True), 0.3, 0.0),
        (LabelNoise(-0.1, 0.1), 0.3, 0.0),
        (LabelNoise(0.1, 0.2), 0.3, 0.2),
    ],
)
def test_the_noise_of_numbers_is_what_retrained_models_err_more_on_test_rows(
    noise, generalisation, allowed
):
    assert noise.allowance(generalisation) == pytest.approx(allowed)
    gap = partial(UtilityGap.of, "error_retain", "x", measure=lambda: noise)
    assert gap(beyond=allowed - 1e-9, generalisation=generalisation).is_noise
    assert not gap(beyond=allowed + 1e-9, generalisation=generalisation).is_noise


@pytest.mark.parametrize("tier", ["fast", "reference"])
@pytest.mark.parametrize(
    ("noise", "lost"), [(0.0, set()), (4.0, {"error_retain", "error_test"})], ids=["true", "wrong"]
)
def test_numbers_whose_noise_is_no_longer_memorised_are_no_damage(judged, tier, noise, lost):
    report = judged(NUMBERS, fitted(MEAN + noise * SIGNS), tier)
    retain, test = (report.row(f"error_{s}") for s in ("retain", "test"))
    assert retain.estimate.value > 10 * retain.original.value
    assert (test.estimate.value > test.original.value) is bool(lost)
    assert damaged(report) == lost
    reasons = [f.reason for f in report.findings if "error_retain" in f.rows]
    assert tier == "fast" or any(
        "retrained models err more on test rows, by +" in r for r in reasons
    )


@pytest.mark.parametrize(
    ("metric", "beyond", "noise", "explained"),
    [
        ("accuracy_retain", 0.05, LabelNoise(0.02, 0.06), True),
        ("accuracy_retain", 0.07, LabelNoise(0.02, 0.06), False),
        ("accuracy_retain", 0.01, LabelNoise(-0.01, 0.06), False),
        ("ensemble_error_retain", 0.05, LabelNoise(0.02, 0.06), True),
        ("accuracy_test", 0.05, LabelNoise(0.02, 0.06), False),
    ],
)
def test_noise_explains_what_it_may_have_cost_on_the_retain_set_alone(
    metric, beyond, noise, explained
):
    assert UtilityGap.of(metric, "x", beyond, lambda: noise, 1.0).is_noise is explained


def test_the_strong_tier_asks_the_same():
    signals = planted(memory=2.0)
    margins, wrong = everything(signals, "unlearned")
    wrong[:, signals.place("retain")] = (torch.arange(20) < 4).float()
    table = strong_table(seated(signals, margins, wrong), Runtime(), judged_only=True)

    def found(noise):
        told = strong_findings(table, measure_noise=None if noise is None else lambda: noise)
        return {f.verdict for f in told if f.rows == ("ensemble_accuracy_retain",)}

    assert found(None) == found(LabelNoise(-0.1, 0.3)) == {Verdict.DAMAGED}
    assert found(LabelNoise(0.1, 0.3)) == {Verdict.DISTINGUISHABLE}


class TrueLabels(Method):
    """Train anew on the retain set with labels that are read from the inputs."""

    id: ClassVar[str] = "true_labels"
    info = Info(
        title="True labels",
        cite="",
        needs=frozenset({Need.RETAIN, Need.FRESH}),
        tasks=frozenset({"classification"}),
        may_damage=True,
    )
    turned: int = 0
    """By how many classes they are wrong."""

    def apply(self, p: Problem, rt: Runtime) -> nn.Module:
        model = p.fresh()

        def loss(batch):
            return cross_entropy(model(batch.x), (batch.x[:, :3].argmax(1) + self.turned) % 3)

        descend(model, p.retain, loss, NOISY.recipe, rt, stream="true_labels")
        return model


@pytest.mark.parametrize(
    ("turned", "worse"), [(0, False), pytest.param(1, True, marks=pytest.mark.exhaustive)]
)
def test_an_experiment_and_an_audit_agree_on_noisy_labels(monkeypatch, turned, worse):
    monkeypatch.setitem(placebo.REQUESTS, "noisy", (lambda: CaseWithRequest(NOISY, GO), 4))
    how = TrueLabels(turned=turned)
    card = placebo.measured("noisy", how, 4)
    assert card["accuracy"]["retain"] < card["retrained"]["retain"] - 0.08
    done = uk.unlearn(uk.train_original(NOISY).model, NOISY, GO, how)
    found = uk.audit(done, tier="strong", models=4, recipe_check=False).findings
    ensembles = {f.verdict for f in found if not f.reason.startswith("this model:")}
    assert set(card["verdicts"]) == ensembles
    assert (Verdict.DAMAGED in ensembles) is worse
