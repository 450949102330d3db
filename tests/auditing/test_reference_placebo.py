"""The placebo control of a reference audit: the method run on five retrained models."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from tests.auditing.liars import NoOp
from unlearnkit.auditing.audit import audit
from unlearnkit.auditing.placebo_models import placebo_control
from unlearnkit.catalog import cases
from unlearnkit.core.evidence import Evidence, ModelRole, Split
from unlearnkit.core.runtime import Runtime
from unlearnkit.oracles import Oracles, oracle, train_original
from unlearnkit.report.schema import Verdict
from unlearnkit.stats.intervals import t_quantile
from unlearnkit.unlearning.run_method import run_method

MEMORY = {Verdict.LEAKS, Verdict.OVER_FORGOT}


@pytest.fixture(scope="module")
def world():
    made = {}

    def get(name):
        if name not in made:
            asked = cases()["digits"].ask(name)
            truth = oracle(asked.case, asked.request, seeds=5)
            made[name] = (asked, train_original(asked.case).model, truth)
        return made[name]

    return get


def report_of(world, name, method, **options):
    asked, model, truth = world(name)
    done = run_method(model, asked.case, asked.request, method)
    return audit(done, oracle=truth, **options)


@pytest.mark.parametrize(
    ("name", "method", "expected"),
    [
        ("random_tenth", NoOp(), {Verdict.LEAKS}),
        ("random_tenth", "finetune", set()),
        ("random_tenth", "ssd", {Verdict.LEAKS}),
        ("class", "finetune", {Verdict.LEAKS}),
        ("class", "relabel", {Verdict.OVER_FORGOT}),
        ("mislabelled_tenth", "ssd", {Verdict.LEAKS}),
    ],
    ids=str,
)
def test_five_placebo_models_say_of_memory_what_sixty_four_say(world, name, method, expected):
    report = report_of(world, name, method)
    assert {f.verdict for f in report.findings} & MEMORY == expected
    assert [a.name for a in report.arms] == ["memory", "signature"]
    assert report.answers[0].answer == ("no" if expected else "not shown")
    assert "Single records were not tested" in report.answers[0].power
    assert Verdict.MEMORY_GONE not in {f.verdict for f in report.findings}


def test_a_signature_is_distinguishable_and_no_memory(world):
    report = report_of(world, "random_tenth", "finetune")
    assert report.verdict is Verdict.DISTINGUISHABLE
    assert report.answers[1].answer == "no"
    assert report.arms[1].shift.value < -3
    assert report.arms[1].p < 0.01


def test_the_shift_is_that_of_margins_in_deviations_of_placebo_models(world):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, "finetune")
    arm = audit(done, oracle=truth).arms[0]
    view = asked.case.partition(asked.request).forget
    placebo = [
        run_method(r.model, asked.case, asked.request, "finetune", Runtime(seed=r.seed)).model
        for r in truth.runs
    ]
    named = {"unlearned": done.model} | {f"oracle/{k}": m for k, m in enumerate(placebo)}
    e = Evidence(named, {Split.FORGET: view}, asked.case.task, Runtime())
    ours = e.margins(ModelRole.UNLEARNED, Split.FORGET)
    theirs = torch.stack([e.margins(ModelRole.ORACLE, Split.FORGET, k) for k in range(5)])
    unit = theirs.var(0).mean().sqrt()
    each = ((theirs.sum(0) - 5 * theirs) / -4).mean(1) / unit
    want = float((ours - theirs.mean(0)).mean() / unit - each.mean())
    assert arm.shift.value == pytest.approx(want, rel=1e-4)
    reach = t_quantile(1 - 0.05 / 3, 4) * float(each.std()) * (1 + 1 / 5) ** 0.5
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
    Refusing.left = 1
    report = report_of(world, "class", Refusing())
    assert report.arms == ()
    assert report.verdict is Verdict.LEAKS
    Refusing.left = 1
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, Refusing())
    said = audit(done, oracle=truth).answers[0].sentence
    assert "this model never saw the rows" in said
    assert "counts as memory" in said


def test_without_a_placebo_control_nothing_is_said_of_memory_alone(world):
    report = report_of(world, "random_tenth", "finetune", placebo=False)
    assert report.arms == ()
    assert "no placebo control" in report.answers[0].sentence


def test_two_retrained_models_are_too_few(world):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, NoOp())
    few = Oracles(asked.case, asked.request, truth.runs[:2])
    assert "at least 3 retrained models" in placebo_control(done, few, None, Runtime())


def test_a_retrained_model_is_not_accused_of_memory_by_its_like(world):
    asked, model, truth = world("random_tenth")
    done = run_method(model, asked.case, asked.request, NoOp())
    strangers = oracle(asked.case, asked.request, seeds=range(77, 87)).models
    reports = [audit(replace(done, model=m), oracle=truth) for m in strangers]
    accused = sum(bool({f.verdict for f in r.findings} & MEMORY) for r in reports)
    assert accused <= 2  # of 10 at 5 %: more has a chance of 1 in 100
