"""The placebo control of a reference audit: the method run on a few retrained models."""

import math
from dataclasses import replace
from functools import cache
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.auditing.liars import NoOp
from unlearnkit.auditing import placebo_models
from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.audit_memory import AuditMemory
from unlearnkit.auditing.placebo_models import placebo_control
from unlearnkit.catalog import cases
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.intervals import t_quantile
from unlearnkit.stats.oracle_gap import ComparisonRule, Judgement
from unlearnkit.unlearning.run_method import run_method

MEMORY = {Verdict.LEAKS, Verdict.OVER_FORGOT}
NOTHING = NoOp()
MORE = pytest.mark.exhaustive

COUNTS = {"random_tenth": 10, "class": 5, "mislabelled_tenth": 5}
"""Retrained models: five show the memory of a class, not that of rows drawn at random."""


@settings(deadline=None)
@given(gap=st.floats(-0.3, 0.3), placebo=st.lists(st.floats(0.4, 0.6), min_size=5, max_size=9))
def test_a_comparison_says_different_where_its_own_interval_lies_beyond_the_margin(gap, placebo):
    others = torch.tensor(placebo, dtype=torch.float64)
    rule = ComparisonRule("match retraining", "fraction", 0.02)
    found = placebo_models._compared(others.mean()[None] + gap, others, rule)
    beyond = found.low > 0.02 or found.high < -0.02
    if found.judgement is Judgement.EQUIVALENT:
        assert abs(found.value) <= 0.02 + 1e-9
    else:
        assert (found.judgement is Judgement.DIFFERENT) == beyond


@pytest.fixture(scope="module")
def world():
    @cache
    def get(name):
        asked = cases()["digits"].ask(name)
        truth = oracle(asked.case, asked.request, seeds=COUNTS[name])
        return asked, train_original(asked.case).model, truth

    return get


@pytest.fixture(scope="module")
def report_of(world):
    """Return the report of a method on a request of digits, audited once."""

    memory = AuditMemory()

    @cache
    def get(name, method, placebo=True):
        asked, model, truth = world(name)
        done = run_method(model, asked.case, asked.request, method)
        return audit(done, oracle=truth, placebo=placebo, memory=memory)

    return get


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("random_tenth", NOTHING, {Verdict.LEAKS}),
        ("random_tenth", "warm_restart", set()),
        pytest.param("random_tenth", "finetune", {Verdict.LEAKS}, marks=MORE),
        pytest.param("random_tenth", "ssd", {Verdict.LEAKS}, marks=MORE),
        pytest.param("class", "warm_restart", {Verdict.LEAKS}, marks=MORE),
        ("class", "relabel", {Verdict.OVER_FORGOT}),
        pytest.param("mislabelled_tenth", "ssd", {Verdict.LEAKS}, marks=MORE),
    ],
    ids=str,
)
def test_a_few_placebo_models_say_of_memory_what_sixty_four_say(report_of, name, method, expected):
    report = report_of(name, method)
    assert {f.verdict for f in report.findings} & MEMORY == expected
    assert [a.name for a in report.arms] == ["memory", "signature"]
    assert report.answers[0].answer == ("no" if expected else "not shown")
    assert "Single records were not tested" in report.answers[0].power
    assert Verdict.MEMORY_GONE not in {f.verdict for f in report.findings}


def test_a_signature_is_distinguishable_and_no_memory(report_of):
    report = report_of("random_tenth", "warm_restart")
    assert report.verdict is Verdict.DISTINGUISHABLE
    assert report.answers[1].answer == "no"
    assert report.arms[1].shift.value < -3
    assert report.arms[1].p < 0.01


def test_the_shift_is_that_of_margins_in_deviations_of_placebo_models(world, report_of):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, "warm_restart")
    arm = report_of("random_tenth", "warm_restart").arms[0]
    view = asked.case.partition(asked.request).forget
    placebo = [
        run_method(r.model, asked.case, asked.request, "warm_restart", Runtime(seed=r.seed)).model
        for r in truth.runs
    ]
    named = {"unlearned": done.model} | {f"oracle/{k}": m for k, m in enumerate(placebo)}
    e = Evidence(named, {Split.FORGET: view}, asked.case.task, Runtime())
    ours = e.margins(ModelRole.UNLEARNED, Split.FORGET)
    theirs = torch.stack([e.margins(ModelRole.ORACLE, Split.FORGET, k) for k in range(10)])
    unit = theirs.var(0).mean().sqrt()
    each = ((theirs.sum(0) - 10 * theirs) / -9).mean(1) / unit
    want = float((ours - theirs.mean(0)).mean() / unit - each.mean())
    assert arm.shift.value == pytest.approx(want, rel=1e-4)
    reach = t_quantile(1 - 0.01 / 3, 9) * 0.9 * float(each.std()) * (1 + 1 / 10) ** 0.5
    assert arm.shift.high - arm.shift.value == pytest.approx(reach, rel=1e-4)


class Refusing(NoOp):
    id: ClassVar[str] = "refusing"
    left: ClassVar[int] = 1

    def apply(self, p, rt):
        if not Refusing.left:
            raise RuntimeError("this model never saw the rows")
        Refusing.left -= 1
        return p.model


def test_a_method_that_refuses_retrained_models_is_audited_without_placebo(world):
    reports = {}
    for name in ("class", "random_tenth"):
        Refusing.left = 1
        asked, model, truth = world(name)
        done = run_method(model, asked.case, asked.request, Refusing())
        reports[name] = audit(done, oracle=truth)
        assert reports[name].arms == ()
    assert reports["class"].verdict is Verdict.LEAKS
    said = reports["random_tenth"].answers[0].sentence
    assert "this model never saw the rows" in said
    assert "counts as memory" in said


def test_without_a_placebo_control_nothing_is_said_of_memory_alone(report_of):
    report = report_of("random_tenth", "warm_restart", placebo=False)
    assert report.arms == ()
    assert "no placebo control" in report.answers[0].sentence


def test_two_retrained_models_are_too_few(world):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, NoOp())
    few = Oracles(asked.case, asked.request, truth.runs[:2])
    assert "at least 3 retrained models" in placebo_control(done, few, None, Runtime())


@pytest.mark.exhaustive
def test_a_retrained_model_is_not_accused_of_memory_by_its_like(world):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, NoOp())
    strangers = oracle(asked.case, asked.request, seeds=range(77, 87)).models
    memory = AuditMemory()
    reports = [audit(replace(done, model=m), oracle=truth, memory=memory) for m in strangers]
    accused = sum(bool({f.verdict for f in r.findings} & MEMORY) for r in reports)
    assert accused <= 1  # of 10 at 1 %: more has a chance of 4 in 1,000


@pytest.mark.parametrize("models", [3, 5, 10])
def test_a_model_of_the_placebo_models_own_law_lies_outside_as_often_as_stated(models, monkeypatch):
    monkeypatch.setattr(placebo_models, "FALSE_ALARMS", 0.3)  # 10 % a test
    rng, rows, draws = Runtime().rng("law"), 100, 600

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    outside = torch.zeros(2)
    for _ in range(draws):
        sides = [
            normal(rows) + normal(models + 1, rows) + 0.15 * normal(models + 1, 1) for _ in range(2)
        ]
        forget, held_out = (
            {"model": t[:1], "original": t[:1], "placebo": t[1:], "retrained": t[1:]} for t in sides
        )
        errors = {who: (forget[who] < 0).double().mean(1) for who in ("model", "placebo")}
        arm = placebo_models._memory(placebo_models._Margins(forget, held_out, errors, rate=True))
        outside += torch.tensor([not g.low <= 0 <= g.high for g in (arm.attack, arm.shift)])
    for rate in (outside / draws).tolist():
        assert rate == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / draws))
